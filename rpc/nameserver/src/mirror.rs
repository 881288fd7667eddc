//! Two folders that hold the same: what one lacks, or has in a worse state, is copied from the other.
//!
//! The files of both are the same byte for byte, as far as each was written. It knows no commands and no state.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use blockyard_wire::types::ClusterId;

use crate::error::Error;
use crate::replay::{self, LogFile};
use crate::store::{RESTORED, synced};
use crate::{journal, snapshot};

/// The nameserver's own secret.
pub const SECRET: &str = "cluster.secret";

/// Brings each folder up to the other, after what they hold together was read well, and makes good what is damaged in
/// a file where its twin holds. The last `replayed` of the journal's files were read whole.
///
/// # Errors
/// `Io`; `Damaged` when a file changes meanwhile.
pub fn bring_up(dirs: &[PathBuf], cluster: ClusterId, files: &[LogFile], replayed: u64) -> Result<(), Error> {
    for dir in dirs.iter().filter(|_| dirs.len() > 1) {
        // What a folder had when it failed, before the other let go of the files in between.
        for stale in replay::all(dir)? {
            if files.first().is_some_and(|first| stale.0 < first.sequence) {
                fs::remove_file(&stale.1)
                    .map_err(Error::io(format!("cannot remove {}", stale.1.display())))?;
            }
        }
    }
    let read_from = files.len().saturating_sub(replayed as usize);
    for (at, file) in files.iter().enumerate() {
        let name = Path::new(journal::FOLDER).join(replay::file_name(file.sequence));
        if at < read_from {
            // Only an older snapshot would need it: it is not known which is the better one of two.
            spread(dirs, &name, &file.paths[0])?;
            continue;
        }
        let header = replay::read_header(&dirs[0], file, cluster)?;
        let until = match files.get(at + 1) {
            Some(next) => Some(replay::read_header(&dirs[0], next, cluster)?.first),
            None => None,
        };
        let (mut made, bytes) = replay::mended(file, &header, until)?;
        for dir in dirs {
            let path = dir.join(&name);
            let same = match fs::read(&path) {
                Ok(found) => found.len() as u64 >= bytes && found.starts_with(&made),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
                Err(error) => return Err(Error::io(format!("cannot read {}", path.display()))(error)),
            };
            if !same {
                tracing::warn!(file = %path.display(), "made whole again from what holds");
                made.resize(bytes as usize, 0);
                match write_whole(&path, &made) {
                    // Alone it holds all it did, one bad place less well.
                    Err(error) if dirs.len() < 2 => tracing::error!(%error, "not made whole"),
                    written => written?,
                }
            }
        }
    }
    if dirs.len() < 2 {
        return Ok(());
    }
    if let Some((applied, path)) = snapshot::list(dirs)?.first() {
        spread(dirs, Path::new(&snapshot::file_name(*applied)), path)?;
    }
    if let Some(dir) = dirs.iter().find(|dir| dir.join(RESTORED).exists()) {
        spread(dirs, Path::new(RESTORED), &dir.join(RESTORED))?;
    }
    Ok(())
}

/// Copies `from` to each folder that has no file of this name.
fn spread(dirs: &[PathBuf], name: &Path, from: &Path) -> Result<(), Error> {
    for dir in dirs {
        let path = dir.join(name);
        if !path.exists() {
            tracing::warn!(file = %path.display(), "copied from the other folder");
            copy_whole(from, &path)?;
        }
    }
    Ok(())
}

/// Copies a file so that it is there whole or not at all, durably.
///
/// # Errors
/// `Io`; what was there is there then.
pub fn copy_whole(from: &Path, to: &Path) -> Result<(), Error> {
    let draft = draft_of(to);
    let copied = (|| {
        fs::copy(from, &draft)?;
        fs::File::open(&draft)?.sync_all()?;
        fs::rename(&draft, to)
    })();
    copied.map_err(Error::io(format!(
        "cannot copy {} to {}",
        from.display(),
        to.display()
    )))?;
    synced(to.parent().unwrap_or(Path::new(".")))
}

fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".tmp");
    draft.into()
}

/// Writes a file so that it is there whole or not at all: beside, flushed, renamed in, folder flushed.
///
/// # Errors
/// `Io`; what was there is there then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let draft = draft_of(path);
    let written = (|| {
        let mut file = fs::File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    written.map_err(Error::io(format!("cannot write {}", path.display())))?;
    synced(path.parent().unwrap_or(Path::new(".")))
}
