//! `trash`: list, restore, empty.

use blockyard_client::Client;
use blockyard_wire::Problem;
use blockyard_wire::types::Trashed;
use serde::Serialize;

use crate::flags::{EmptyTrash, RestoreTrash, Trash};
use crate::output::{self, JsonArray};
use crate::remote::Remote;

/// Entries that one call may name.
const PAGE: usize = 1000;

/// Something in the trash, in JSON.
#[derive(Serialize)]
struct Row<'a> {
    number: u64,
    path: &'a str,
    directory: bool,
    files: u64,
    bytes: u64,
    deleted: Option<String>,
    deleted_unix_ms: u64,
}

/// Carries a `trash` command out.
///
/// # Errors
/// There is no such thing in the trash, something else is where it was, or no answer.
pub async fn trash(flags: Trash, client: &Client) -> anyhow::Result<()> {
    match flags {
        Trash::List(flags) if flags.form.json => {
            let mut array = JsonArray::open()?;
            each(client, |found| {
                Ok(array.push(&Row {
                    number: found.entry,
                    path: &found.file.path,
                    directory: found.file.directory,
                    files: found.files,
                    bytes: found.file.size_bytes,
                    deleted: output::rfc3339(found.at_unix_ms),
                    deleted_unix_ms: found.at_unix_ms,
                })?)
            })
            .await?;
            Ok(array.close()?)
        }
        Trash::List(_) => {
            let (mut files, mut bytes) = (0, 0);
            output::line(row("NUMBER", "DELETED", "SIZE", "FILES", "PATH"))?;
            each(client, |found| {
                files += found.files;
                bytes += found.file.size_bytes;
                let slash = if found.file.directory { "/" } else { "" };
                Ok(output::line(row(
                    &found.entry.to_string(),
                    &output::time(found.at_unix_ms),
                    &output::size(found.file.size_bytes),
                    &found.files.to_string(),
                    &format!("{}{slash}", output::safe(&found.file.path)),
                ))?)
            })
            .await?;
            let files = output::count(files, "file", "files");
            Ok(output::line(format!("{files}, {}", output::size(bytes)))?)
        }
        Trash::Restore(flags) => restore(flags, client).await,
        Trash::Empty(flags) => empty(flags, client).await,
    }
}

/// A line of the list: fixed columns, so that it can be printed as it comes.
fn row(number: &str, deleted: &str, size: &str, files: &str, path: &str) -> String {
    format!("{number:>8}  {deleted:<16}  {size:>10}  {files:>7}  {path}")
}

/// Calls `look` with everything in the trash, page by page.
async fn each(client: &Client, mut look: impl FnMut(&Trashed) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let (page, more) = client.trash(after).await?;
        page.iter().try_for_each(&mut look)?;
        match page.last() {
            Some(last) if more => after = last.entry,
            _ => return Ok(()),
        }
    }
}

async fn restore(flags: RestoreTrash, client: &Client) -> anyhow::Result<()> {
    let entry = match flags.what.parse::<u64>() {
        Ok(number) => number,
        Err(_) => {
            let path = Remote::parse(&flags.what).path;
            let mut newest: Option<(u64, u64)> = None;
            each(client, |found| {
                if found.file.path == path {
                    newest = newest.max(Some((found.at_unix_ms, found.entry)));
                }
                Ok(())
            })
            .await?;
            let nothing = || Problem::not_found(format!("nothing that was {path} is in the trash"));
            newest.ok_or_else(nothing)?.1
        }
    };
    let to = flags.to.map(|to| Remote::parse(&to).path);
    let file = client.restore(entry, to.as_deref()).await?;
    output::line(format!("restored {}", output::safe(&file.path)))?;
    Ok(())
}

async fn empty(flags: EmptyTrash, client: &Client) -> anyhow::Result<()> {
    let now_unix_ms = client.cluster().await?.now_unix_ms;
    let mut numbers = flags.numbers;
    if let Some(older) = flags.older {
        each(client, |found| {
            let age_ms = u128::from(now_unix_ms.saturating_sub(found.at_unix_ms));
            numbers.extend((age_ms > older.as_millis()).then_some(found.entry));
            Ok(())
        })
        .await?;
    }
    let (mut files, mut bytes) = (0, 0);
    if numbers.is_empty() && flags.older.is_none() {
        let removed = client.empty_trash(None).await?;
        (files, bytes) = (removed.files, removed.bytes);
    }
    for some in numbers.chunks(PAGE) {
        let removed = client.empty_trash(Some(some)).await?;
        files += removed.files;
        bytes += removed.bytes;
    }
    output::line(format!(
        "deleted {} for good ({})",
        output::count(files, "file", "files"),
        output::size(bytes)
    ))?;
    Ok(())
}
