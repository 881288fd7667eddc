//! Backups: a fixed set of files for a consistent copy, checking such a copy, and making a nameserver's folder of
//! it. It knows no connections.
//!
//! A backup is a folder as a nameserver keeps it: `nameserver.toml`, a snapshot, the journal behind it.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockyard_wire::ticket::now_unix_ms;
use blockyard_wire::types::{BackupFile, ClusterId, Epoch};

use crate::error::Error;
use crate::mirror::{SECRET, copy_whole, write_whole};
use crate::state::State;
use crate::store::{IDENTITY, RESTORED, Restored, read_identity, refuse_used, synced};
use crate::{journal, replay, snapshot};

/// What a folder holds, read whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The cluster.
    pub cluster: ClusterId,
    /// The reign that it ends in.
    pub epoch: Epoch,
    /// Commands since the cluster began.
    pub applied: u64,
    /// Files published.
    pub files: u64,
    /// Directories, the root not counted.
    pub directories: u64,
    /// Blocks on the map.
    pub blocks: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
}

/// The files of one backup, open: they can be read even when the nameserver has let go of them meanwhile.
pub(crate) struct Pinned {
    /// Their names and lengths.
    pub files: Vec<BackupFile>,
    open: Vec<Arc<fs::File>>,
}

impl Pinned {
    /// Opens the newest snapshot and the journal behind it up to the file `closed`, which is not written any more.
    ///
    /// # Errors
    /// `Io`, also when files have gone meanwhile: the next try finds their successors.
    pub fn open(dirs: &[PathBuf], closed: u64) -> Result<Self, Error> {
        let mut pinned = Self {
            files: Vec::new(),
            open: Vec::new(),
        };
        let first = dirs
            .first()
            .ok_or_else(|| Error::invalid("no folder holds the whole journal any more"))?;
        pinned.add(IDENTITY.to_owned(), &first.join(IDENTITY))?;
        let mut after = 0;
        if let Some((applied, path)) = snapshot::list(dirs)?.first() {
            pinned.add(snapshot::file_name(*applied), path)?;
            after = *applied;
        }
        let cluster = read_identity(first)?.unwrap_or_default();
        let mut files = replay::files(dirs)?;
        files.retain(|file| file.sequence <= closed);
        for (at, file) in files.iter().enumerate() {
            let next = files
                .get(at + 1)
                .map(|next| replay::read_header(first, next, cluster));
            if let Some(next) = next
                && next?.first.index <= after + 1
            {
                // The snapshot holds all of it.
                continue;
            }
            let name = format!("{}/{}", journal::FOLDER, replay::file_name(file.sequence));
            pinned.add(name, &file.paths[0])?;
        }
        Ok(pinned)
    }

    fn add(&mut self, name: String, path: &Path) -> Result<(), Error> {
        let file = fs::File::open(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        let bytes = file
            .metadata()
            .map_err(Error::io(format!("cannot read {}", path.display())))?
            .len();
        self.files.push(BackupFile { name, bytes });
        self.open.push(Arc::new(file));
        Ok(())
    }

    /// A file, to be read by [`piece`].
    pub fn file(&self, at: usize) -> Option<Arc<fs::File>> {
        self.open.get(at).cloned()
    }
}

/// At most `bytes` of a file from `offset` on; fewer only at its end. Blocks.
///
/// # Errors
/// `Io`.
pub(crate) fn piece(file: &fs::File, offset: u64, bytes: usize) -> Result<Vec<u8>, Error> {
    let mut piece = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut piece[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("cannot read a file of the backup")(error)),
        }
    }
    piece.truncate(filled);
    Ok(piece)
}

/// Whether a backup may have a file of this name: nothing else is written from what comes over a connection.
pub fn is_file_name(name: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let journal = name
        .strip_prefix("journal/")
        .and_then(|name| name.strip_suffix(".log"));
    name == IDENTITY
        || name
            .strip_prefix("snapshot-")
            .is_some_and(|rest| digits(rest, 20))
        || journal.is_some_and(|rest| digits(rest, 10))
}

/// Reads a backup, or the folder of a nameserver that does not run, whole: every checksum, every command. Changes
/// nothing.
///
/// # Errors
/// `Damaged`, `Format` or `Io`: what can't be read, and where.
pub fn check(dir: &Path) -> Result<Summary, Error> {
    let cluster = read_identity(dir)?.ok_or_else(|| {
        Error::invalid(format!(
            "{} is no backup and no nameserver's folder: it has no {IDENTITY}",
            dir.display()
        ))
    })?;
    let dirs = [dir.to_owned()];
    let mut state = State::default();
    if let Some((_, path)) = snapshot::list(&dirs)?.first() {
        state = snapshot::read(dir, path, cluster)?;
    }
    let files = replay::files(&dirs)?;
    let after = state.applied();
    replay::replay(&dirs, cluster, &files, after, &mut |_, command| {
        // A refused command was refused the first time, too.
        let _ = state.apply(&command);
        Ok(())
    })?;
    Ok(Summary {
        cluster,
        epoch: state.epoch(),
        applied: state.applied(),
        files: state.names().files(),
        directories: state.names().directories(),
        blocks: state.blocks().table().len() as u64,
        file_bytes: state.file_bytes(),
    })
}

/// Makes a nameserver's folder of a backup. It serves nothing before its operator has said that it is to take the
/// cluster over: now, with `adopt`, or at its start.
///
/// # Errors
/// `Invalid` when `dir` holds a nameserver's data; as [`check`] of the backup, and of what was made of it.
pub fn restore(backup: &Path, dir: &Path, adopt: bool) -> Result<Summary, Error> {
    let found = check(backup)?;
    let journal = dir.join(journal::FOLDER);
    fs::create_dir_all(&journal).map_err(Error::io(format!("cannot make {}", journal.display())))?;
    refuse_used(dir)?;
    // First the word that it is a backup, last the one that it is a nameserver's: half of a restore is neither.
    let mark = Restored {
        at_unix_ms: now_unix_ms(),
        adopt,
    };
    let mark = toml::to_string(&mark).expect("a mark has a form in TOML");
    write_whole(&dir.join(RESTORED), mark.as_bytes())?;
    let backups = [backup.to_owned()];
    for file in replay::files(&backups)? {
        copy_whole(&file.paths[0], &journal.join(replay::file_name(file.sequence)))?;
    }
    if let Some((applied, path)) = snapshot::list(&backups)?.first() {
        copy_whole(path, &dir.join(snapshot::file_name(*applied)))?;
    }
    if backup.join(SECRET).exists() {
        copy_whole(&backup.join(SECRET), &dir.join(SECRET))?;
    }
    copy_whole(&backup.join(IDENTITY), &dir.join(IDENTITY))?;
    synced(dir)?;
    let made = check(dir)?;
    match made == found {
        true => Ok(made),
        false => Err(Error::damaged(
            dir,
            "what was restored is not what the backup holds".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for good in [
            "nameserver.toml",
            "snapshot-00000000000000000007",
            "journal/0000000001.log",
        ] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in [
            "",
            "lock",
            "../nameserver.toml",
            "journal/../x.log",
            "/journal/0000000001.log",
            "journal/000000001.log",
            "journal/0000000001.log/x",
            "snapshot-0000000000000000000x",
            "cluster.secret",
        ] {
            assert!(!is_file_name(bad), "{bad}");
        }
    }
}
