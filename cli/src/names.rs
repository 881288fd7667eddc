//! What changes names and nothing else: mkdir, mv, delete.

use anyhow::Context as _;
use blockyard_client::Client;
use blockyard_wire::{Problem, ProblemKind};
use serde::Serialize;

use crate::exit::SomeFailed;
use crate::remote::{Remote, join, parent};
use crate::{exit, flags, output};

/// What a series of like operations came to: each failure is told at once, the first one's code is kept.
#[derive(Default)]
pub struct Tally {
    all: usize,
    failed: usize,
    code: u8,
}

impl Tally {
    /// Takes one outcome; `Err` ends the series: nobody answers any more, so trying on is of no use.
    ///
    /// # Errors
    /// The failure itself, where it would meet the rest too.
    pub fn take<T>(&mut self, outcome: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        self.all += 1;
        let error = match outcome {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        let code = exit::code_of(&error);
        if matches!(code, exit::RETRY | exit::INTERRUPTED | exit::DONE) {
            return Err(error);
        }
        output::complain(&format!("{error:#}"));
        self.failed += 1;
        if self.failed == 1 {
            self.code = code;
        }
        Ok(None)
    }

    /// Whether all went well.
    ///
    /// # Errors
    /// How many did not, with the first one's exit code.
    pub fn finish(self) -> anyhow::Result<()> {
        match self.failed {
            0 => Ok(()),
            failed => Err(SomeFailed {
                failed,
                all: self.all,
                code: self.code,
            }
            .into()),
        }
    }
}

/// Makes folders with their parents.
///
/// # Errors
/// One of them could not be made.
pub async fn mkdir(flags: flags::Mkdir, client: &Client) -> anyhow::Result<()> {
    let mut tally = Tally::default();
    for text in &flags.paths {
        let path = Remote::parse(text).path;
        let made = make_folder(client, &path, flags.parents).await;
        if tally.take(made)?.is_some() {
            output::line(format!("made {}", output::safe(&path)))?;
        }
    }
    tally.finish()
}

/// Makes one folder with its parents; an existing one is a failure unless `existing_too`.
async fn make_folder(client: &Client, path: &str, existing_too: bool) -> anyhow::Result<()> {
    // First without parents: only so does the nameserver tell of a folder that is there already.
    match client.mkdir(path, existing_too).await {
        Err(problem) if problem.kind == ProblemKind::NotFound && !existing_too => {
            client.mkdir(path, true).await?;
        }
        outcome => {
            outcome?;
        }
    }
    Ok(())
}

/// What is at `path`: `None` where there is nothing.
///
/// # Errors
/// Anything but "not found".
pub async fn look(client: &Client, path: &str) -> anyhow::Result<Option<blockyard_wire::types::FileInfo>> {
    match client.lookup(path).await {
        Ok(found) => Ok(Some(found)),
        Err(problem) if problem.kind == ProblemKind::NotFound => Ok(None),
        Err(problem) => Err(problem.into()),
    }
}

/// Renames or moves files and folders.
///
/// # Errors
/// One of them could not be moved.
pub async fn mv(flags: flags::Mv, client: &Client) -> anyhow::Result<()> {
    let (to, from) = flags.paths.split_last().context("FROM and TO are needed")?;
    let to = Remote::parse(to);
    let into = to.folder || look(client, &to.path).await?.is_some_and(|found| found.directory);
    if !into && from.len() > 1 {
        let text = format!(
            "{} is no folder, so it can't take {} things; end it in '/'",
            to.path,
            from.len()
        );
        return Err(Problem::invalid(text).into());
    }
    let mut tally = Tally::default();
    for text in from {
        let from = Remote::parse(text);
        let target = if into {
            join(&to.path, from.name())
        } else {
            to.path.clone()
        };
        let moved = move_one(client, &from.path, &target, flags.overwrite).await;
        if tally.take(moved)?.is_some() {
            output::line(format!(
                "moved {} to {}",
                output::safe(&from.path),
                output::safe(&target)
            ))?;
        }
    }
    tally.finish()
}

async fn move_one(client: &Client, from: &str, to: &str, overwrite: bool) -> anyhow::Result<()> {
    // What is not there must not leave new folders behind.
    client.lookup(from).await?;
    if parent(to) != "/" {
        client.mkdir(parent(to), true).await?;
    }
    client.rename(from, to, overwrite).await?;
    Ok(())
}

#[derive(Serialize)]
struct Deleted {
    path: String,
    files: u64,
    bytes: u64,
}

/// Deletes files, and folders with `-r`.
///
/// # Errors
/// One of them could not be deleted.
pub async fn delete(flags: flags::Delete, client: &Client) -> anyhow::Result<()> {
    let mut tally = Tally::default();
    let mut gone = Vec::new();
    for text in &flags.paths {
        let path = Remote::parse(text).path;
        let removed = match flags.now {
            true => client.remove(&path, flags.recursive).await,
            false => client.discard(&path, flags.recursive).await,
        };
        let Some(removed) = tally.take(removed.map_err(anyhow::Error::from))? else {
            continue;
        };
        if !flags.form.json {
            let files = output::count(removed.files, "file", "files");
            let shown = output::safe(&path);
            let how = if flags.now {
                "for good"
            } else {
                "'blockyard trash' has it"
            };
            output::line(format!(
                "deleted {shown} ({files}, {}; {how})",
                output::size(removed.bytes)
            ))?;
        }
        gone.push(Deleted {
            path,
            files: removed.files,
            bytes: removed.bytes,
        });
    }
    if flags.form.json {
        output::json(&gone)?;
    }
    tally.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: ProblemKind) -> anyhow::Result<()> {
        Err(Problem::new(kind, "why").into())
    }

    #[test]
    fn the_first_failure_names_the_code_and_a_lost_cluster_ends_it() {
        let mut tally = Tally::default();
        assert!(tally.take(Ok(1)).unwrap().is_some());
        assert!(tally.take(failed(ProblemKind::Exists)).unwrap().is_none());
        assert!(tally.take(failed(ProblemKind::NotFound)).unwrap().is_none());
        assert!(tally.take(failed(ProblemKind::Retry)).is_err());
        let error = tally.finish().unwrap_err();
        assert_eq!(exit::code_of(&error), exit::EXISTS);
        assert_eq!(error.to_string(), "2 of 4 failed");
        assert!(Tally::default().finish().is_ok());
    }
}
