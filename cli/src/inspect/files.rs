//! Files and folders: list, stat, info.

use std::pin::pin;

use anyhow::Context as _;
use blockyard_client::{Client, ListOptions};
use blockyard_wire::types::{BlockInfo, FileInfo, Location};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::flags;
use crate::names::Tally;
use crate::output::{self, JsonArray};
use crate::remote::Remote;

/// A file or folder in JSON.
#[derive(Serialize)]
pub(super) struct Entry<'a> {
    path: &'a str,
    name: &'a str,
    directory: bool,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc32c: Option<String>,
    blocks: u32,
    replication: u8,
    version: u64,
    children: u32,
    content_type: &'a str,
    created: Option<String>,
    modified: Option<String>,
    created_unix_ms: u64,
    modified_unix_ms: u64,
}

impl<'a> From<&'a FileInfo> for Entry<'a> {
    fn from(file: &'a FileInfo) -> Self {
        Self {
            path: &file.path,
            name: &file.name,
            directory: file.directory,
            size: file.size_bytes,
            crc32c: (!file.directory).then(|| output::crc(file.crc32c)),
            blocks: file.blocks,
            replication: file.replication,
            version: file.version,
            children: file.children,
            content_type: &file.content_type,
            created: output::rfc3339(file.created_unix_ms),
            modified: output::rfc3339(file.modified_unix_ms),
            created_unix_ms: file.created_unix_ms,
            modified_unix_ms: file.modified_unix_ms,
        }
    }
}

/// Calls `each` with every entry below `path`, page by page underneath, until `limit` or an error.
///
/// # Errors
/// The nameserver's, or that of `each`.
pub(super) async fn walk(
    client: &Client,
    path: &str,
    options: ListOptions,
    limit: Option<u64>,
    mut each: impl FnMut(FileInfo) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut entries = pin!(client.list_all(path, options).take(limit));
    while let Some(entry) = entries.try_next().await? {
        each(entry)?;
    }
    Ok(())
}

/// `path` without the folder that it lies in.
pub fn below<'a>(path: &'a str, folder: &str) -> &'a str {
    path.strip_prefix(folder.trim_end_matches('/'))
        .unwrap_or(path)
        .trim_start_matches('/')
}

/// Lists a folder, or shows one file.
///
/// # Errors
/// There is no such path, or the output is gone.
pub async fn list(flags: flags::List, client: &Client) -> anyhow::Result<()> {
    let path = Remote::parse(&flags.path).path;
    let target = client.lookup(&path).await?;
    let recursive = flags.recursive;
    let options = ListOptions {
        prefix: flags.prefix,
        recursive,
        ..ListOptions::default()
    };
    if flags.form.json {
        let mut array = JsonArray::open()?;
        if target.directory {
            let each = |entry: FileInfo| Ok(array.push(&Entry::from(&entry))?);
            walk(client, &path, options, flags.limit, each).await?;
        } else {
            array.push(&Entry::from(&target))?;
        }
        return Ok(array.close()?);
    }
    let long = flags.long || output::to_terminal();
    let (mut files, mut folders, mut bytes) = (0, 0, 0);
    if long {
        output::line(row("SIZE", "MODIFIED", "COPIES", "NAME"))?;
    }
    let mut show = |entry: FileInfo| -> anyhow::Result<()> {
        let shown = if recursive {
            below(&entry.path, &path)
        } else {
            &entry.name
        };
        let slash = if entry.directory { "/" } else { "" };
        let name = format!("{}{slash}", output::safe(shown));
        if !long {
            return Ok(output::line(name)?);
        }
        let (size, copies) = if entry.directory {
            folders += 1;
            ("-".to_owned(), "-".to_owned())
        } else {
            files += 1;
            bytes += entry.size_bytes;
            (output::size(entry.size_bytes), entry.replication.to_string())
        };
        Ok(output::line(row(
            &size,
            &output::time(entry.modified_unix_ms),
            &copies,
            &name,
        ))?)
    };
    if target.directory {
        walk(client, &path, options, flags.limit, &mut show).await?;
    } else {
        show(FileInfo {
            path: target.name.clone(),
            ..target
        })?;
    }
    if long {
        let files = output::count(files, "file", "files");
        let folders = output::count(folders, "folder", "folders");
        output::line(format!("{files}, {}, {folders}", output::size(bytes)))?;
    }
    Ok(())
}

/// A line of a listing: fixed columns, so that it can be printed as it comes.
fn row(size: &str, modified: &str, copies: &str, name: &str) -> String {
    format!("{size:>10}  {modified:<16}  {copies:>6}  {name}")
}

/// Shows what is known of files and folders.
///
/// # Errors
/// One of them is not there.
pub async fn stat(flags: flags::Stat, client: &Client) -> anyhow::Result<()> {
    let mut tally = Tally::default();
    let mut found = Vec::new();
    for text in &flags.paths {
        let path = Remote::parse(text).path;
        let looked = client.lookup(&path).await.map_err(anyhow::Error::from);
        if let Some(file) = tally.take(looked)? {
            if !flags.form.json {
                output::line(facts(&file))?;
            }
            found.push(file);
        }
    }
    if flags.form.json {
        match (&flags.paths[..], &found[..]) {
            // One path asked for: one object, not a list of one.
            ([_], [file]) => output::json(&Entry::from(file))?,
            ([_], _) => {}
            _ => output::json(&found.iter().map(Entry::from).collect::<Vec<_>>())?,
        }
    }
    tally.finish()
}

fn facts(file: &FileInfo) -> String {
    let mut facts = vec![("path", output::safe(&file.path).into_owned())];
    if file.directory {
        facts.push(("kind", "folder".into()));
        facts.push(("entries", file.children.to_string()));
    } else {
        facts.push(("kind", "file".into()));
        facts.push((
            "size",
            format!("{} ({} bytes)", output::size(file.size_bytes), file.size_bytes),
        ));
        facts.push(("crc32c", output::crc(file.crc32c)));
        facts.push(("blocks", file.blocks.to_string()));
        facts.push(("copies", file.replication.to_string()));
        facts.push(("version", file.version.to_string()));
        if !file.content_type.is_empty() {
            facts.push(("type", output::safe(&file.content_type).into_owned()));
        }
    }
    facts.push(("created", output::time(file.created_unix_ms)));
    facts.push(("modified", output::time(file.modified_unix_ms)));
    let lines: Vec<String> = facts
        .iter()
        .map(|(name, fact)| format!("{name:<9} {fact}"))
        .collect();
    lines.join("\n")
}

#[derive(Serialize)]
struct Block<'a> {
    id: String,
    index: u32,
    length: u32,
    crc32c: String,
    replicas: Vec<Replica<'a>>,
}

#[derive(Serialize)]
struct Replica<'a> {
    server: &'a str,
    volume: String,
    address: &'a str,
    zone: &'a str,
    state: blockyard_wire::types::ReplicaState,
    live: bool,
}

impl<'a> From<&'a BlockInfo> for Block<'a> {
    fn from(block: &'a BlockInfo) -> Self {
        let replica = |at: &'a Location| Replica {
            server: &at.hop.server,
            volume: at.hop.volume.to_string(),
            address: &at.hop.address,
            zone: &at.zone,
            state: at.state,
            live: at.live,
        };
        Self {
            id: block.block.to_string(),
            index: block.index,
            length: block.length,
            crc32c: output::crc(block.crc32c),
            replicas: block.replicas.iter().map(replica).collect(),
        }
    }
}

/// Shows a file's blocks and where each lies.
///
/// # Errors
/// There is no such file.
pub async fn info(flags: flags::Info, client: &Client) -> anyhow::Result<()> {
    let path = Remote::parse(&flags.path).path;
    let (file, blocks) = client.info(&path).await?;
    if flags.form.json {
        let mut value = serde_json::to_value(Entry::from(&file)).context("as JSON")?;
        value["blocks"] = blocks
            .iter()
            .map(|block| serde_json::json!(Block::from(block)))
            .collect();
        return Ok(output::json(&value)?);
    }
    output::line(facts(&file))?;
    if blocks.is_empty() {
        return Ok(());
    }
    let rows = blocks.iter().map(|block| {
        [
            block.index.to_string(),
            block.block.to_string(),
            block.length.to_string(),
            output::crc(block.crc32c),
            places(&block.replicas),
        ]
    });
    output::line("")?;
    output::line(output::table(
        ["INDEX>", "BLOCK", "LENGTH>", "CRC32C", "SERVER/VOLUME"],
        rows,
    ))?;
    Ok(())
}

/// `127.0.0.1:9001/1f2e3d4c, 127.0.0.1:9002/5b6a7988 (dead)`
fn places(replicas: &[Location]) -> String {
    use blockyard_wire::types::ReplicaState as State;
    if replicas.is_empty() {
        return "nowhere: lost".to_owned();
    }
    let place = |at: &Location| {
        let volume = at.hop.volume.to_string();
        let mark = match (at.state, at.live) {
            (State::Corrupt, _) => " (corrupt)",
            (State::Suspect, _) => " (suspect)",
            (State::Good, false) => " (not answering)",
            (State::Good, true) => "",
        };
        format!("{}/{}{mark}", at.hop.server, &volume[..8])
    };
    replicas.iter().map(place).collect::<Vec<_>>().join(", ")
}

/// A block, and the file that holds it, in JSON.
#[derive(Serialize)]
struct Found<'a> {
    #[serde(flatten)]
    block: Block<'a>,
    path: &'a str,
    version: u64,
}

/// Shows where blocks are, and which files hold them.
///
/// # Errors
/// One of them is not there.
pub async fn locate(flags: flags::Locate, client: &Client) -> anyhow::Result<()> {
    let mut tally = Tally::default();
    let mut found = Vec::new();
    for block in &flags.blocks {
        let located = client.locate(*block).await.map_err(anyhow::Error::from);
        found.extend(tally.take(located)?);
    }
    if flags.form.json {
        let rows = found.iter().map(|located| Found {
            block: Block::from(&located.info),
            path: &located.path,
            version: located.version,
        });
        output::json(&rows.collect::<Vec<_>>())?;
    } else if !found.is_empty() {
        let rows = found.iter().map(|located| {
            [
                located.info.block.to_string(),
                located.info.index.to_string(),
                located.info.length.to_string(),
                places(&located.info.replicas),
                match located.path.as_str() {
                    "" => format!("no file now (version {})", located.version),
                    path => path.to_owned(),
                },
            ]
        });
        output::line(output::table(
            ["BLOCK", "INDEX>", "LENGTH>", "SERVER/VOLUME", "FILE"],
            rows,
        ))?;
    }
    tally.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_a_folder() {
        assert_eq!(below("/a/b/c", "/a"), "b/c");
        assert_eq!(below("/a", "/"), "a");
    }

    #[test]
    fn json_of_a_file() {
        let file = FileInfo {
            path: "/a".into(),
            name: "a".into(),
            crc32c: 0xab,
            ..FileInfo::default()
        };
        let value = serde_json::json!(Entry::from(&file));
        assert_eq!(value["crc32c"], "000000ab");
        let folder = FileInfo {
            directory: true,
            ..file
        };
        assert!(serde_json::json!(Entry::from(&folder)).get("crc32c").is_none());
    }
}
