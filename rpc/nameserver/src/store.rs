//! The nameserver's folder, or two that mirror each other: lock, identity, snapshots and journal; opened to a
//! state, and kept small.

use std::fs;
use std::path::{Path, PathBuf};

use blockyard_wire::types::ClusterId;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::replay::{self, LogFile, Tail};
use crate::state::State;
use crate::{journal, mirror, snapshot};

/// Format of the folder.
const FORMAT: u32 = 1;

/// What `nameserver.toml` says.
#[derive(Serialize, Deserialize)]
struct Identity {
    format: u32,
    cluster: ClusterId,
}

/// Says that the folder was made from a backup: `restored.toml`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// When, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Whether the operator has said already that it is to take the cluster over.
    pub adopt: bool,
}

/// The name of the file that holds [`Restored`].
pub const RESTORED: &str = "restored.toml";

/// An open folder, or two that mirror each other.
#[derive(Debug)]
pub struct Store {
    /// The folders: at least one.
    pub dirs: Vec<PathBuf>,
    /// The cluster it is the nameserver of.
    pub cluster: ClusterId,
    /// Hold the folders as long as they are open.
    _locks: Vec<fs::File>,
}

/// What a folder was opened to.
#[derive(Debug)]
pub struct Opened {
    /// The folders, locked.
    pub store: Store,
    /// All that was acknowledged.
    pub state: State,
    /// Where the journal goes on.
    pub tail: Tail,
    /// Set when it was made from a backup and has not taken the cluster over yet.
    pub restored: Option<Restored>,
}

impl Store {
    /// Opens the folders, making them at the first start, and reads the newest good snapshot and the journal
    /// behind it. Of two folders what is sound in either counts, and both hold it afterwards.
    ///
    /// # Errors
    /// `Locked` when another process has one; `Damaged` when their files contradict each other. Two are opened, or
    /// none: one that can't be read may be the one that knows more.
    pub fn open(dirs: &[PathBuf]) -> Result<Opened, Error> {
        let mut locks = Vec::new();
        for dir in dirs {
            let folder = dir.join(journal::FOLDER);
            let advice = match dirs.len() {
                0 | 1 => "",
                _ => {
                    " (if its disk is lost for good, start with the other folder alone, or with a new one beside it)"
                }
            };
            fs::create_dir_all(&folder)
                .map_err(Error::io(format!("cannot make {}{advice}", folder.display())))?;
            locks.push(lock(dir)?);
        }
        let snapshots = snapshot::list(dirs)?;
        let files = replay::files(dirs)?;
        let store = Self {
            dirs: dirs.to_owned(),
            cluster: identity(dirs, snapshots.is_empty() && files.is_empty())?,
            _locks: locks,
        };
        let mut failed = None;
        for (_, path) in &snapshots {
            match snapshot::read(&dirs[0], path, store.cluster) {
                Ok(state) => return store.opened(state, &files),
                Err(error) => {
                    tracing::error!(%error, "trying the snapshot before it");
                    failed.get_or_insert(error);
                }
            }
        }
        // Without any snapshot the journal must begin with the first command, which `replay` checks.
        match failed {
            Some(error) if files.first().is_none_or(|file| file.sequence != 1) => Err(error),
            _ => store.opened(State::default(), &files),
        }
    }

    /// Makes a folder for the nameserver of `cluster`, with nothing in it but that.
    ///
    /// # Errors
    /// `Invalid` when it holds a nameserver's data already; `Locked`; `Io`.
    pub fn create(dir: &Path, cluster: ClusterId) -> Result<Self, Error> {
        let folder = dir.join(journal::FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io(format!("cannot make {}", folder.display())))?;
        let lock = lock(dir)?;
        refuse_used(dir)?;
        write_identity(dir, cluster)?;
        Ok(Self {
            dirs: vec![dir.to_owned()],
            cluster,
            _locks: vec![lock],
        })
    }

    fn opened(self, mut state: State, files: &[LogFile]) -> Result<Opened, Error> {
        let after = state.applied();
        let tail = replay::replay(&self.dirs, self.cluster, files, after, &mut |_, command| {
            // A refused command was refused the first time, too.
            let _ = state.apply(&command);
            Ok(())
        })?;
        // What was read may never have been flushed: a process that is killed leaves it to the system.
        for path in files.last().iter().flat_map(|file| &file.paths) {
            fs::File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(Error::io(format!("cannot flush {}", path.display())))?;
        }
        mirror::bring_up(&self.dirs, self.cluster, files, tail.files)?;
        state.take_changed();
        Ok(Opened {
            restored: restored(&self.dirs)?,
            store: self,
            state,
            tail,
        })
    }

    /// Writes a snapshot of `state` to each of `dirs`, and lets go of what no start needs any more: all but the
    /// newest `kept` of them, and the journal before the oldest of those.
    ///
    /// # Errors
    /// `Io`, after all folders were tried; the older snapshots and the journal are there then.
    pub fn snapshot(dirs: &[PathBuf], cluster: ClusterId, state: &State, kept: usize) -> Result<(), Error> {
        let mut failed = None;
        for dir in dirs {
            let written = (|| {
                let has = snapshot::list(std::slice::from_ref(dir))?
                    .first()
                    .is_some_and(|(applied, _)| *applied == state.applied());
                if !has {
                    snapshot::write(dir, cluster, state)?;
                }
                prune(dir, cluster, kept)
            })();
            if let Err(error) = written {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes a snapshot out of the newest one and the journal files up to `sequence`, which are not written any
    /// more: the state that serves is not touched, so that this may take its time on another thread.
    ///
    /// # Errors
    /// `Damaged` or `Io`; what was there is there then.
    pub fn compact(dirs: &[PathBuf], cluster: ClusterId, sequence: u64, kept: usize) -> Result<(), Error> {
        let mut state = State::default();
        for (_, path) in snapshot::list(dirs)? {
            match snapshot::read(&dirs[0], &path, cluster) {
                Ok(found) => {
                    state = found;
                    break;
                }
                // Without it the journal is longer; where it does not reach back so far, replaying refuses.
                Err(error) => tracing::error!(%error, "making the next snapshot from the one before it"),
            }
        }
        let mut files = replay::files(dirs)?;
        files.retain(|file| file.sequence <= sequence);
        let after = state.applied();
        replay::replay(dirs, cluster, &files, after, &mut |_, command| {
            let _ = state.apply(&command);
            Ok(())
        })?;
        Self::snapshot(dirs, cluster, &state, kept)
    }
}

/// Refuses a folder that holds a nameserver's data, or a part of it.
///
/// # Errors
/// `Invalid`; `Io`.
pub fn refuse_used(dir: &Path) -> Result<(), Error> {
    let used = dir.join(IDENTITY).exists()
        || dir.join(RESTORED).exists()
        || !snapshot::list(&[dir.to_owned()])?.is_empty()
        || !replay::all(dir)?.is_empty();
    match used {
        true => Err(Error::invalid(format!(
            "{} holds a nameserver's data already, and is left as it is: name another folder, or move that one away",
            dir.display()
        ))),
        false => Ok(()),
    }
}

/// Removes all but the newest snapshots of a folder, and the journal files that the oldest kept one holds.
fn prune(dir: &PathBuf, cluster: ClusterId, kept: usize) -> Result<(), Error> {
    let remove =
        |path: &Path| fs::remove_file(path).map_err(Error::io(format!("cannot remove {}", path.display())));
    let only = std::slice::from_ref(dir);
    let snapshots = snapshot::list(only)?;
    for (_, path) in snapshots.iter().skip(kept) {
        remove(path)?;
    }
    // With fewer snapshots the journal from the first command on is their reserve.
    let Some((oldest, _)) = snapshots.get(kept.max(1) - 1) else {
        return Ok(());
    };
    let files = replay::files(only)?;
    for pair in files.windows(2) {
        let next = replay::read_header(dir, &pair[1], cluster)?;
        if next.first.index > oldest + 1 {
            break;
        }
        remove(&pair[0].paths[0])?;
    }
    Ok(())
}

/// What the folder says of a backup that it was made from.
fn restored(dirs: &[PathBuf]) -> Result<Option<Restored>, Error> {
    for dir in dirs {
        let path = dir.join(RESTORED);
        match fs::read_to_string(&path) {
            Ok(text) => {
                return toml::from_str(&text).map(Some).map_err(|error| {
                    Error::damaged(dir, format!("{} can't be read: {error}", path.display()))
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("cannot read {}", path.display()))(error)),
        }
    }
    Ok(None)
}

/// The cluster has gone on without this nameserver: it serves nothing until its operator has it take over, however
/// often it is started.
///
/// # Errors
/// `Io`.
pub fn mark_outranked(dirs: &[PathBuf], at_unix_ms: u64) -> Result<(), Error> {
    let mark = Restored {
        at_unix_ms,
        adopt: false,
    };
    let mark = toml::to_string(&mark).expect("a mark has a form in TOML");
    dirs.iter()
        .try_for_each(|dir| mirror::write_whole(&dir.join(RESTORED), mark.as_bytes()))
}

/// The cluster has been taken over: the folders are a nameserver's like any other.
///
/// # Errors
/// `Io`.
pub fn forget_restored(dirs: &[PathBuf]) -> Result<(), Error> {
    for dir in dirs {
        let path = dir.join(RESTORED);
        match fs::remove_file(&path) {
            Ok(()) => synced(dir)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("cannot remove {}", path.display()))(error)),
        }
    }
    Ok(())
}

/// Flushes a folder: what was renamed into it is durable then.
///
/// # Errors
/// `Io`.
pub fn synced(dir: &Path) -> Result<(), Error> {
    fs::File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io(format!("cannot flush {}", dir.display())))
}

fn lock(dir: &Path) -> Result<fs::File, Error> {
    let path = dir.join("lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io(format!("cannot open {}", path.display())))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(error) => Err(Error::io(format!("cannot lock {}", path.display()))(error.into())),
    }
}

/// The name of the file that says whose folder it is.
pub const IDENTITY: &str = "nameserver.toml";

/// Reads who the folder's cluster is; a `fresh` folder becomes a new one.
fn identity(dirs: &[PathBuf], fresh: bool) -> Result<ClusterId, Error> {
    let mut found: Option<(ClusterId, &PathBuf)> = None;
    for dir in dirs {
        let Some(cluster) = read_identity(dir)? else {
            continue;
        };
        match found {
            Some((other, first)) if other != cluster => {
                return Err(Error::invalid(format!(
                    "{} is of cluster {other}, and {} of cluster {cluster}: they can't mirror each other",
                    first.display(),
                    dir.display()
                )));
            }
            Some(_) => {}
            None => found = Some((cluster, dir)),
        }
    }
    let cluster = match found {
        Some((cluster, _)) => cluster,
        None if fresh => ClusterId::random(),
        None => {
            let path = dirs[0].join(IDENTITY);
            return Err(Error::damaged(
                &dirs[0],
                format!("{} is missing beside a journal", path.display()),
            ));
        }
    };
    for dir in dirs {
        if read_identity(dir)?.is_none() {
            write_identity(dir, cluster)?;
        }
    }
    Ok(cluster)
}

/// Whose folder it is; `None` when it does not say.
///
/// # Errors
/// `Damaged`, `Format` or `Io`.
pub fn read_identity(dir: &Path) -> Result<Option<ClusterId>, Error> {
    let path = dir.join(IDENTITY);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("cannot read {}", path.display()))(error)),
    };
    let unreadable = |why: String| Error::damaged(dir, format!("{} can't be read: {why}", path.display()));
    let text = String::from_utf8(text).map_err(|error| unreadable(error.to_string()))?;
    let found: Identity = toml::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    match found.format > FORMAT {
        true => Err(Error::Format {
            path,
            found: found.format,
            supported: FORMAT,
        }),
        false => Ok(Some(found.cluster)),
    }
}

/// Says whose folder it is, durably.
fn write_identity(dir: &Path, cluster: ClusterId) -> Result<(), Error> {
    let made = Identity {
        format: FORMAT,
        cluster,
    };
    let text = toml::to_string(&made).expect("an identity has a form in TOML");
    mirror::write_whole(&dir.join(IDENTITY), text.as_bytes())
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;
