//! Over many files: du, find, tree. Entries are taken page by page, so that a namespace of any size can be walked.

use std::io::Write as _;

use blockyard_client::{Client, ListOptions};
use blockyard_wire::types::FileInfo;
use serde::Serialize;

use super::files::{self, Entry, below};
use crate::flags::{self, Kind};
use crate::names::Tally;
use crate::output::{self, JsonArray};
use crate::remote::Remote;

/// Calls `each` with everything below `path`, in the order of paths.
///
/// # Errors
/// The nameserver's, or that of `each`.
async fn walk(
    client: &Client,
    path: &str,
    each: impl FnMut(FileInfo) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let options = ListOptions {
        recursive: true,
        ..ListOptions::default()
    };
    files::walk(client, path, options, None, each).await
}

/// What a folder comes to, all below it counted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
struct Sum {
    path: String,
    files: u64,
    bytes: u64,
    /// With all copies that are wanted.
    copies_bytes: u64,
}

impl Sum {
    fn add(&mut self, file: &FileInfo) {
        self.files += 1;
        self.bytes += file.size_bytes;
        self.copies_bytes += file.size_bytes * u64::from(file.replication);
    }
}

/// Sums over folders, told as each is left behind: only those on the way to the current entry are kept.
struct Sums<'a, F> {
    depth: usize,
    /// The folders that are open, from the top down.
    open: Vec<Sum>,
    tell: &'a mut F,
}

impl<F: FnMut(&Sum) -> anyhow::Result<()>> Sums<'_, F> {
    fn take(&mut self, entry: &FileInfo) -> anyhow::Result<()> {
        let parent = entry.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        while self.open.len() > 1
            && self
                .open
                .last()
                .is_some_and(|open| !is_within(parent, &open.path))
        {
            self.close()?;
        }
        if entry.directory {
            if self.open.len() <= self.depth {
                self.open.push(Sum {
                    path: entry.path.clone(),
                    ..Sum::default()
                });
            }
        } else {
            self.open.iter_mut().for_each(|open| open.add(entry));
        }
        Ok(())
    }

    fn close(&mut self) -> anyhow::Result<()> {
        match self.open.pop() {
            Some(sum) => (self.tell)(&sum),
            None => Ok(()),
        }
    }
}

/// Whether `path` is `folder` or lies below it.
fn is_within(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Shows how much folders hold.
///
/// # Errors
/// One of them is not there.
pub async fn du(flags: flags::Du, client: &Client) -> anyhow::Result<()> {
    let mut tally = Tally::default();
    let mut array = if flags.form.json {
        Some(JsonArray::open()?)
    } else {
        None
    };
    if array.is_none() {
        output::line(row("SIZE", "ON DISKS", "FILES", "PATH"))?;
    }
    for text in &flags.paths {
        let path = Remote::parse(text).path;
        let mut tell = |sum: &Sum| {
            let told = match &mut array {
                Some(array) => array.push(sum),
                None => output::line(row(
                    &output::size(sum.bytes),
                    &output::size(sum.copies_bytes),
                    &sum.files.to_string(),
                    &output::safe(&sum.path),
                )),
            };
            Ok(told?)
        };
        let summed = sum_up(client, &path, flags.depth, &mut tell).await;
        tally.take(summed)?;
    }
    if let Some(array) = array {
        array.close()?;
    }
    tally.finish()
}

async fn sum_up(
    client: &Client,
    path: &str,
    depth: usize,
    tell: &mut impl FnMut(&Sum) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let top = client.lookup(path).await?;
    let mut sums = Sums {
        depth,
        open: vec![Sum {
            path: top.path.clone(),
            ..Sum::default()
        }],
        tell,
    };
    if top.directory {
        walk(client, path, |entry| sums.take(&entry)).await?;
    } else {
        sums.open[0].add(&top);
    }
    while !sums.open.is_empty() {
        sums.close()?;
    }
    Ok(())
}

/// A line of sums: fixed columns, so that it can be printed as it comes.
fn row(size: &str, copies: &str, files: &str, path: &str) -> String {
    format!("{size:>10}  {copies:>10}  {files:>9}  {path}")
}

/// Prints the paths of all that fits.
///
/// # Errors
/// There is no such folder, or the output is gone.
pub async fn find(flags: flags::Find, client: &Client) -> anyhow::Result<()> {
    let path = Remote::parse(&flags.path).path;
    let now_unix_ms = client.cluster().await?.now_unix_ms;
    let mut array = if flags.form.json {
        Some(JsonArray::open()?)
    } else {
        None
    };
    walk(client, &path, |entry| {
        if !fits(&flags, &entry, now_unix_ms) {
            return Ok(());
        }
        let told = match &mut array {
            Some(array) => array.push(&Entry::from(&entry)),
            None if flags.print0 => write!(std::io::stdout().lock(), "{}\0", entry.path),
            None => output::line(output::safe(&entry.path)),
        };
        Ok(told?)
    })
    .await?;
    if let Some(array) = array {
        array.close()?;
    }
    Ok(())
}

fn fits(flags: &flags::Find, entry: &FileInfo, now_unix_ms: u64) -> bool {
    let age_ms = u128::from(now_unix_ms.saturating_sub(entry.modified_unix_ms));
    let file = |fits: bool| !entry.directory && fits;
    flags.name.as_ref().is_none_or(|name| name.is_match(&entry.name))
        && flags.kind.is_none_or(|kind| entry.directory == (kind == Kind::D))
        && flags.size.is_none_or(|size| file(size.holds(entry.size_bytes)))
        && flags.newer.is_none_or(|newer| age_ms <= newer.as_millis())
        && flags.older.is_none_or(|older| age_ms > older.as_millis())
        && flags
            .copies
            .is_none_or(|copies| file(entry.replication == copies))
}

/// Draws a folder with all below it.
///
/// # Errors
/// There is no such folder, or the output is gone.
pub async fn tree(flags: flags::Tree, client: &Client) -> anyhow::Result<()> {
    let path = Remote::parse(&flags.path).path;
    let top = client.lookup(&path).await?;
    output::line(output::safe(&top.path))?;
    let (mut files, mut folders) = (0, 0);
    let mut drawing = Drawing::default();
    let depth_max = flags.depth.map_or(usize::MAX, usize::from);
    if top.directory {
        walk(client, &path, |entry| {
            let depth = below(&entry.path, &top.path).split('/').count();
            if entry.directory {
                folders += 1;
            } else {
                files += 1;
            }
            if depth <= depth_max {
                drawing.take(depth, entry, output::line)?;
            }
            Ok(())
        })
        .await?;
    }
    drawing.finish(output::line)?;
    output::line(format!(
        "\n{}, {}",
        output::count(folders, "folder", "folders"),
        output::count(files, "file", "files")
    ))?;
    Ok(())
}

/// Draws entries as they come. Whether one is the last of its folder shows in those behind it: a line waits until the
/// next entry that is no deeper tells, and with it all lines below it.
#[derive(Default)]
struct Drawing {
    waiting: Vec<(usize, FileInfo)>,
    /// For each level above the waiting ones, whether its folder was the last.
    last: Vec<bool>,
}

/// Lines that wait at the most; beyond, the branch is drawn as if more came.
const WAITING_MAX: usize = 10_000;

impl Drawing {
    fn take(
        &mut self,
        depth: usize,
        entry: FileInfo,
        mut line: impl FnMut(String) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let base = self.waiting.first().map_or(depth, |(depth, _)| *depth);
        if depth <= base || self.waiting.len() >= WAITING_MAX {
            self.draw(depth == base || self.waiting.len() >= WAITING_MAX, &mut line)?;
        }
        self.waiting.push((depth, entry));
        Ok(())
    }

    fn finish(&mut self, mut line: impl FnMut(String) -> std::io::Result<()>) -> std::io::Result<()> {
        self.draw(false, &mut line)
    }

    /// Draws what waits; `goes_on`: the first of it has a sister behind it.
    fn draw(
        &mut self,
        goes_on: bool,
        line: &mut impl FnMut(String) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        for (at, (depth, entry)) in rows.iter().enumerate() {
            let next = rows[at + 1..].iter().find(|(other, _)| other <= depth);
            let is_last = match next {
                Some((other, _)) => other < depth,
                None => !(at == 0 && goes_on),
            };
            self.last.truncate(depth - 1);
            let stems: String = self
                .last
                .iter()
                .map(|last| if *last { "    " } else { "│   " })
                .collect();
            let branch = if is_last { "└── " } else { "├── " };
            let slash = if entry.directory { "/" } else { "" };
            line(format!("{stems}{branch}{}{slash}", output::safe(&entry.name)))?;
            self.last.push(is_last);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, size_bytes: u64) -> FileInfo {
        FileInfo {
            path: path.trim_end_matches('/').to_owned(),
            name: path.trim_end_matches('/').rsplit('/').next().unwrap().to_owned(),
            directory: path.ends_with('/'),
            size_bytes,
            replication: 2,
            ..FileInfo::default()
        }
    }

    #[test]
    fn sums_are_of_all_below() {
        let mut told = Vec::new();
        let mut tell = |sum: &Sum| {
            told.push((sum.path.clone(), sum.files, sum.bytes, sum.copies_bytes));
            Ok(())
        };
        let mut sums = Sums {
            depth: 2,
            open: vec![Sum {
                path: "/".into(),
                ..Sum::default()
            }],
            tell: &mut tell,
        };
        for (path, size) in [
            ("/a/", 0),
            ("/a/b/", 0),
            ("/a/b/c/", 0),
            ("/a/b/c/f", 1),
            ("/a/g", 2),
            ("/ab", 4),
        ] {
            sums.take(&entry(path, size)).unwrap();
        }
        while !sums.open.is_empty() {
            sums.close().unwrap();
        }
        let told: Vec<_> = told
            .iter()
            .map(|(path, files, bytes, copies)| (path.as_str(), *files, *bytes, *copies))
            .collect();
        assert_eq!(told, [("/a/b", 1, 1, 2), ("/a", 2, 3, 6), ("/", 3, 7, 14)]);
    }

    #[test]
    fn a_tree_has_its_branches() {
        let mut lines = Vec::new();
        let mut drawing = Drawing::default();
        let paths = ["/a/", "/a/b/", "/a/b/c", "/a/d", "/e/", "/e/f", "/g"];
        for path in paths {
            let depth = path.trim_end_matches('/').matches('/').count();
            drawing
                .take(depth, entry(path, 0), |line| {
                    lines.push(line);
                    Ok(())
                })
                .unwrap();
        }
        drawing
            .finish(|line| {
                lines.push(line);
                Ok(())
            })
            .unwrap();
        let drawn = "├── a/\n│   ├── b/\n│   │   └── c\n│   └── d\n├── e/\n│   └── f\n└── g";
        assert_eq!(lines.join("\n"), drawn);
    }
}
