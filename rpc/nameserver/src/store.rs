//! The nameserver's folder: its lock, identity, snapshots and journal; opened to a state, and kept small.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use blockyard_wire::types::ClusterId;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::journal::{self, Tail};
use crate::snapshot;
use crate::state::State;

/// Format of the folder.
const FORMAT: u32 = 1;

/// What `nameserver.toml` says.
#[derive(Serialize, Deserialize)]
struct Identity {
    format: u32,
    cluster: ClusterId,
}

/// An open folder.
#[derive(Debug)]
pub struct Store {
    /// The folder.
    pub dir: PathBuf,
    /// The cluster it is the nameserver of.
    pub cluster: ClusterId,
    /// Holds the folder as long as it is open.
    _lock: fs::File,
}

/// What a folder was opened to.
#[derive(Debug)]
pub struct Opened {
    /// The folder, locked.
    pub store: Store,
    /// All that was acknowledged.
    pub state: State,
    /// Where the journal goes on.
    pub tail: Tail,
}

impl Store {
    /// Opens the folder, making it at the first start, and reads the newest good snapshot and the journal
    /// behind it.
    ///
    /// # Errors
    /// `Locked` when another process has it; `Damaged` when its files contradict each other.
    pub fn open(dir: &Path) -> Result<Opened, Error> {
        let folder = dir.join(journal::FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io(format!("cannot make {}", folder.display())))?;
        let store = Self {
            dir: dir.to_owned(),
            _lock: lock(dir)?,
            cluster: ClusterId::default(),
        };
        let snapshots = snapshot::list(dir)?;
        let files = journal::files(dir)?;
        let store = Self {
            cluster: identity(dir, snapshots.is_empty() && files.is_empty())?,
            ..store
        };
        let mut failed = None;
        for (_, path) in &snapshots {
            match snapshot::read(dir, path, store.cluster) {
                Ok(state) => return store.opened(state, &files),
                Err(error) => {
                    tracing::error!(%error, "trying the snapshot before it");
                    failed.get_or_insert(error);
                }
            }
        }
        // Without any snapshot the journal must begin with the first command, which `replay` checks.
        match failed {
            Some(error) if files.first().is_none_or(|(sequence, _)| *sequence != 1) => Err(error),
            _ => store.opened(State::default(), &files),
        }
    }

    fn opened(self, mut state: State, files: &[(u64, PathBuf)]) -> Result<Opened, Error> {
        let after = state.applied();
        let tail = journal::replay(&self.dir, self.cluster, files, after, &mut |_, command| {
            // A refused command was refused the first time, too.
            let _ = state.apply(&command);
            Ok(())
        })?;
        state.take_changed();
        Ok(Opened {
            store: self,
            state,
            tail,
        })
    }

    /// Writes a snapshot of `state`, and lets go of what no start needs any more.
    ///
    /// # Errors
    /// `Io`; the older snapshots and the journal are there then.
    pub fn snapshot(dir: &Path, cluster: ClusterId, state: &State) -> Result<(), Error> {
        if snapshot::list(dir)?
            .first()
            .is_none_or(|(applied, _)| *applied != state.applied())
        {
            snapshot::write(dir, cluster, state)?;
        }
        prune(dir, cluster)
    }

    /// Makes a snapshot out of the newest one and the journal files up to `sequence`, which are not written any
    /// more: the state that serves is not touched, so that this may take its time on another thread.
    ///
    /// # Errors
    /// `Damaged` or `Io`; what was there is there then.
    pub fn compact(dir: &Path, cluster: ClusterId, sequence: u64) -> Result<(), Error> {
        let mut state = match snapshot::list(dir)?.first() {
            Some((_, path)) => snapshot::read(dir, path, cluster)?,
            None => State::default(),
        };
        let mut files = journal::files(dir)?;
        files.retain(|(file, _)| *file <= sequence);
        let after = state.applied();
        journal::replay(dir, cluster, &files, after, &mut |_, command| {
            let _ = state.apply(&command);
            Ok(())
        })?;
        Self::snapshot(dir, cluster, &state)
    }
}

/// Removes all but the newest snapshots, and the journal files that the oldest kept one holds.
fn prune(dir: &Path, cluster: ClusterId) -> Result<(), Error> {
    let remove =
        |path: &Path| fs::remove_file(path).map_err(Error::io(format!("cannot remove {}", path.display())));
    let snapshots = snapshot::list(dir)?;
    for (_, path) in snapshots.iter().skip(snapshot::KEPT) {
        remove(path)?;
    }
    // With a single snapshot the journal from the first command on is its reserve.
    let Some((oldest, _)) = snapshots.get(snapshot::KEPT - 1) else {
        return Ok(());
    };
    let files = journal::files(dir)?;
    for pair in files.windows(2) {
        let next = journal::read_header(dir, &pair[1].1, cluster, pair[1].0)?;
        if next.first.index > oldest + 1 {
            break;
        }
        remove(&pair[0].1)?;
    }
    Ok(())
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

/// Reads who the folder's cluster is; a `fresh` folder becomes a new one.
fn identity(dir: &Path, fresh: bool) -> Result<ClusterId, Error> {
    let path = dir.join("nameserver.toml");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found: Identity = toml::from_str(&text)
                .map_err(|error| Error::damaged(dir, format!("{} can't be read: {error}", path.display())))?;
            match found.format > FORMAT {
                true => Err(Error::Format {
                    path,
                    found: found.format,
                    supported: FORMAT,
                }),
                false => Ok(found.cluster),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && fresh => {
            let made = Identity {
                format: FORMAT,
                cluster: ClusterId::random(),
            };
            let text = toml::to_string(&made).expect("an identity has a form in TOML");
            let draft = dir.join("nameserver.toml.tmp");
            let written = (|| {
                let mut file = fs::File::create(&draft)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&draft, &path)?;
                fs::File::open(dir)?.sync_all()
            })();
            written.map_err(Error::io(format!("cannot write {}", path.display())))?;
            Ok(made.cluster)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::damaged(
            dir,
            format!("{} is missing beside a journal", path.display()),
        )),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()))(error)),
    }
}

#[cfg(test)]
mod tests;
