//! `download`: files and folders out of the cluster, to files, a folder or stdout.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use blockyard_client::{Client, DownloadOptions, Downloaded, ListOptions};
use blockyard_wire::Problem;
use blockyard_wire::types::FileInfo;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::FILES_AT_ONCE;
use super::pipe::Stdout;
use super::progress::{Bar, summary};
use super::target::{Target, inside};
use crate::inspect::below;
use crate::names::Tally;
use crate::remote::Remote;
use crate::{flags, output};

/// Bytes that a file is written by at the most: as many as a block has.
const WRITE_BYTES: usize = 4 * 1024 * 1024;

/// A file to fetch and where it goes; `None` is stdout.
struct Item {
    file: FileInfo,
    local: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    path: String,
    local: String,
    size: u64,
    crc32c: String,
    verified: bool,
    failovers: u32,
}

#[derive(Serialize)]
struct Report<'a> {
    files: &'a [Row],
    bytes: u64,
    seconds: f64,
}

/// Downloads all that the flags name.
///
/// # Errors
/// One of the files could not be downloaded; the others were.
pub async fn download(flags: flags::Download, client: &Client) -> anyhow::Result<()> {
    let (remotes, local) = match flags.paths.as_slice() {
        [only] => (std::slice::from_ref(only), Path::new(".")),
        [remotes @ .., local] => (remotes, Path::new(local)),
        [] => return Err(Problem::invalid("nothing to download").into()),
    };
    let mut texts = Vec::new();
    for remote in remotes {
        texts.push(
            remote
                .to_str()
                .ok_or_else(|| Problem::invalid("REMOTE is not UTF-8"))?,
        );
    }
    let stdout = local.as_os_str() == "-";
    let mut tally = Tally::default();
    let mut items = Vec::new();
    let destination = Destination::of(local, texts.len())?;
    for text in texts {
        let found = find(client, &Remote::parse(text), &destination, flags.recursive).await;
        // A single one that fails is told as the command's own failure.
        if remotes.len() == 1 {
            items.extend(found?);
        } else if let Some(found) = tally.take(found)? {
            items.extend(found);
        }
    }
    let bar = Bar::new(
        "downloading",
        Some(items.iter().map(|item| item.file.size_bytes).sum()),
    );
    // To stdout one after the other, in the order asked for.
    let at_once = if stdout { 1 } else { FILES_AT_ONCE };
    let mut rows = Vec::new();
    let started = stream::iter(items).map(|item| one(client, item, flags.overwrite, &bar));
    let mut running = started.buffer_unordered(at_once);
    while let Some(outcome) = running.next().await {
        if let Some(row) = bar.hide_while(|| tally.take(outcome))? {
            rows.push(row);
        }
    }
    drop(running);
    let took = bar.elapsed();
    drop(bar);
    tell(&rows, took, flags.form.json, stdout)?;
    tally.finish()
}

fn tell(rows: &[Row], took: Duration, json: bool, stdout: bool) -> anyhow::Result<()> {
    let bytes = rows.iter().map(|row| row.size).sum();
    if json && !stdout {
        output::json(&Report {
            files: rows,
            bytes,
            seconds: took.as_secs_f64(),
        })?;
        return Ok(());
    }
    if rows.is_empty() {
        return Ok(());
    }
    let verified = if rows.iter().all(|row| row.verified) {
        ", verified"
    } else {
        ""
    };
    let text = format!(
        "{}{verified}",
        summary("downloaded", rows.len() as u64, bytes, took)
    );
    if stdout {
        output::note(&text);
    } else {
        output::line(text)?;
    }
    Ok(())
}

/// What LOCAL means.
enum Destination {
    /// Standard output.
    Stdout,
    /// A folder that takes things under their own names.
    Into(PathBuf),
    /// The very name to write.
    As(PathBuf),
}

impl Destination {
    fn of(local: &Path, things: usize) -> anyhow::Result<Self> {
        if local.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let slash = local.as_os_str().as_encoded_bytes().ends_with(b"/");
        if local.is_dir() || slash {
            return Ok(Self::Into(local.to_owned()));
        }
        if things > 1 {
            let shown = local.display();
            let text = format!("{shown} is no folder, so it can't take {things} things; end it in '/'");
            return Err(Problem::invalid(text).into());
        }
        Ok(Self::As(local.to_owned()))
    }

    fn of_thing(&self, name: &str) -> Result<Option<PathBuf>, Problem> {
        match self {
            Self::Stdout => Ok(None),
            Self::Into(folder) => inside(folder, name).map(Some),
            Self::As(path) => Ok(Some(path.clone())),
        }
    }
}

/// The files that one REMOTE stands for.
async fn find(
    client: &Client,
    remote: &Remote,
    destination: &Destination,
    recursive: bool,
) -> anyhow::Result<Vec<Item>> {
    let file = client.lookup(&remote.path).await?;
    let local = destination.of_thing(&file.name)?;
    if !file.directory {
        return Ok(vec![Item { file, local }]);
    }
    if !recursive {
        return Err(Problem::invalid(format!("{} is a folder; download it with -r", file.path)).into());
    }
    let Some(local) = local else {
        return Err(Problem::invalid(format!("{} is a folder: it can't go to stdout", file.path)).into());
    };
    make_folder(&local)?;
    let options = ListOptions {
        recursive: true,
        ..ListOptions::default()
    };
    let mut entries = std::pin::pin!(client.list_all(&file.path, options));
    let mut items = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let path = inside(&local, below(&entry.path, &file.path))?;
        if entry.directory {
            make_folder(&path)?;
        } else {
            items.push(Item {
                file: entry,
                local: Some(path),
            });
        }
    }
    Ok(items)
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

async fn one(client: &Client, item: Item, overwrite: bool, bar: &Bar) -> anyhow::Result<Row> {
    let Item { file, local } = item;
    let path = file.path;
    let doing = || format!("downloading {path}");
    let options = DownloadOptions {
        progress: Some(bar.of_one()),
        ..DownloadOptions::default()
    };
    let Some(local) = local else {
        let (stdout, broken) = Stdout::open()?;
        let outcome = client.download(&path, stdout, options).await;
        let done = outcome
            .map_err(|problem| broken.explain(problem.into()))
            .with_context(doing)?;
        return Ok(row(done, "-".to_owned()));
    };
    if let Some(folder) = local.parent() {
        make_folder(folder)?;
    }
    // What is there already is found before any byte is moved.
    let target = Target::open(&local, overwrite)?;
    let mut sink = tokio::fs::File::from_std(target.file().with_context(doing)?);
    sink.set_max_buf_size(WRITE_BYTES);
    let done = client.download(&path, sink, options).await.with_context(doing)?;
    target.finish()?;
    Ok(row(done, local.display().to_string()))
}

fn row(done: Downloaded, local: String) -> Row {
    Row {
        path: done.file.path,
        local,
        size: done.bytes,
        crc32c: output::crc(done.crc32c),
        verified: done.verified_whole,
        failovers: done.failovers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &Path, things| Destination::of(path, things).map(|to| to.of_thing("n").unwrap());
        assert_eq!(of(Path::new("-"), 1).unwrap(), None);
        assert_eq!(of(dir.path(), 2).unwrap(), Some(dir.path().join("n")));
        assert_eq!(
            of(&dir.path().join("new/"), 1).unwrap(),
            Some(dir.path().join("new/n"))
        );
        assert_eq!(
            of(&dir.path().join("new"), 1).unwrap(),
            Some(dir.path().join("new"))
        );
        assert!(of(&dir.path().join("new"), 2).is_err());
    }
}
