//! `upload`: files, folders and stdin into the cluster, a few at a time.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;
use blockyard_client::{Client, UploadOptions, Uploaded};
use blockyard_wire::Problem;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use super::FILES_AT_ONCE;
use super::pipe;
use super::progress::{Bar, summary};
use super::tree::{Item, Plan, name_of, unreadable};
use crate::names::{Tally, look};
use crate::remote::Remote;
use crate::{flags, output};

/// Bytes that a file is read by: as many as a block has, so that a block is one trip to the disk.
const READ_BYTES: usize = 4 * 1024 * 1024;

#[derive(Serialize)]
struct Row {
    path: String,
    size: u64,
    crc32c: String,
    blocks: u32,
    replication: u8,
    degraded_blocks: u32,
    retried_blocks: u32,
}

#[derive(Serialize)]
struct Report<'a> {
    files: &'a [Row],
    bytes: u64,
    seconds: f64,
    skipped: Vec<String>,
}

/// Uploads all that the flags name.
///
/// # Errors
/// One of the files could not be uploaded; the others were.
pub async fn upload(flags: flags::Upload, client: &Client) -> anyhow::Result<()> {
    let plan = plan(&flags, client).await?;
    let bar = Bar::new("uploading", plan.total_bytes());
    for (path, why) in &plan.skipped {
        bar.say(&format!(
            "skipped {}: {why}",
            output::safe(&path.to_string_lossy())
        ));
    }
    for folder in plan.empty_folders() {
        client.mkdir(folder, true).await?;
    }
    let Plan {
        items,
        skipped,
        failed,
        ..
    } = plan;
    let mut tally = Tally::default();
    for error in failed {
        tally.take::<()>(Err(error))?;
    }
    let options = UploadOptions {
        overwrite: flags.overwrite,
        replication: flags.replication.unwrap_or(0),
        content_type: flags.content_type,
        ..UploadOptions::default()
    };
    let mut rows = Vec::new();
    let started = stream::iter(items).map(|item| one(client, item, &options, &bar));
    let mut running = started.buffer_unordered(FILES_AT_ONCE);
    while let Some(outcome) = running.next().await {
        if let Some(uploaded) = bar.hide_while(|| tally.take(outcome))? {
            rows.push(row(uploaded));
        }
    }
    drop(running);
    let took = bar.elapsed();
    drop(bar);
    tell(&rows, &skipped, took, flags.form.json)?;
    tally.finish()
}

/// Tells what was uploaded, and warns of blocks with too few replicas.
fn tell(
    rows: &[Row],
    skipped: &[(std::path::PathBuf, &'static str)],
    took: std::time::Duration,
    json: bool,
) -> anyhow::Result<()> {
    let bytes = rows.iter().map(|row| row.size).sum();
    if json {
        let shown = |(path, why): &(std::path::PathBuf, &str)| format!("{}: {why}", path.display());
        let skipped = skipped.iter().map(shown).collect();
        output::json(&Report {
            files: rows,
            bytes,
            seconds: took.as_secs_f64(),
            skipped,
        })?;
    } else if !rows.is_empty() {
        output::line(summary("uploaded", rows.len() as u64, bytes, took))?;
    }
    let degraded: u64 = rows.iter().map(|row| u64::from(row.degraded_blocks)).sum();
    if degraded > 0 {
        output::note(&format!(
            "blockyard: warning: {} with fewer replicas than asked for, because too few volumes take blocks; \
             missing ones are made when there are more (see 'blockyard status')",
            output::count(degraded, "block", "blocks")
        ));
    }
    Ok(())
}

fn row(uploaded: Uploaded) -> Row {
    let Uploaded {
        file,
        degraded,
        retried_blocks,
    } = uploaded;
    Row {
        path: file.path,
        size: file.size_bytes,
        crc32c: output::crc(file.crc32c),
        blocks: file.blocks,
        replication: file.replication,
        degraded_blocks: degraded,
        retried_blocks,
    }
}

/// Which files go where.
async fn plan(flags: &flags::Upload, client: &Client) -> anyhow::Result<Plan> {
    let (locals, remote) = match flags.paths.as_slice() {
        [only] => (std::slice::from_ref(only), Remote::parse("/")),
        [locals @ .., remote] => {
            let text = remote
                .to_str()
                .ok_or_else(|| Problem::invalid("REMOTE is not UTF-8"))?;
            (locals, Remote::parse(text))
        }
        [] => return Err(Problem::invalid("nothing to upload").into()),
    };
    let into = remote.folder
        || look(client, &remote.path)
            .await?
            .is_some_and(|found| found.directory);
    if locals.len() > 1 && !into {
        let text = format!(
            "{} is no folder, so it can't take {} things; end it in '/' to make it one",
            remote.path,
            locals.len()
        );
        return Err(Problem::invalid(text).into());
    }
    let mut plan = Plan::default();
    for local in locals {
        let added = add(&mut plan, local, &remote, into, flags.recursive);
        match added {
            // A single one that fails is told as the command's own failure.
            Err(error) if locals.len() == 1 => return Err(error),
            Err(error) => plan.failed.push(error),
            Ok(()) => {}
        }
    }
    Ok(plan)
}

fn add(
    plan: &mut Plan,
    local: &OsString,
    remote: &Remote,
    into: bool,
    recursive: bool,
) -> anyhow::Result<()> {
    if local == "-" {
        if into {
            let text = "stdin has no name of its own; say which REMOTE it becomes: upload - NAME";
            return Err(Problem::invalid(text).into());
        }
        plan.items.push(Item {
            local: None,
            remote: remote.path.clone(),
            size_bytes: None,
        });
        return Ok(());
    }
    let local = Path::new(local);
    if into {
        // Not there is more to the point than not having a name.
        std::fs::metadata(local).map_err(|error| unreadable(local, error))?;
        return plan.add(local, &remote.join(&name_of(local)?), recursive);
    }
    plan.add(local, remote, recursive)
}

async fn one(client: &Client, item: Item, options: &UploadOptions, bar: &Bar) -> anyhow::Result<Uploaded> {
    let Item {
        local,
        remote,
        size_bytes,
    } = item;
    let options = UploadOptions {
        progress: Some(bar.of_one()),
        length_hint: size_bytes,
        ..options.clone()
    };
    let uploaded = match &local {
        None => client.upload(&remote, pipe::stdin()?, options).await,
        Some(path) => {
            let mut file = tokio::fs::File::open(path)
                .await
                .map_err(|error| unreadable(path, error))?;
            file.set_max_buf_size(READ_BYTES);
            client.upload(&remote, file, options).await
        }
    };
    uploaded.with_context(|| format!("uploading {remote}"))
}
