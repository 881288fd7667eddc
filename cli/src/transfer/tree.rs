//! What there is to upload: files as named, and folders walked without running in circles.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use blockyard_wire::Problem;

use crate::remote::{Remote, parent};

/// A file to upload.
#[derive(Debug)]
pub struct Item {
    /// Where it lies here; `None` is stdin.
    pub local: Option<PathBuf>,
    /// Where it goes.
    pub remote: String,
    /// Bytes, where they are known.
    pub size_bytes: Option<u64>,
}

/// All that one command uploads.
#[derive(Default)]
pub struct Plan {
    /// Files.
    pub items: Vec<Item>,
    /// Folders found.
    pub folders: Vec<String>,
    /// What is left out, and why.
    pub skipped: Vec<(PathBuf, &'static str)>,
    /// What can't be read.
    pub failed: Vec<anyhow::Error>,
}

impl Plan {
    /// Bytes of all files, unless one's are unknown.
    pub fn total_bytes(&self) -> Option<u64> {
        self.items.iter().map(|item| item.size_bytes).sum()
    }

    /// The folders that hold nothing to upload: all others are made with their files.
    pub fn empty_folders(&self) -> impl Iterator<Item = &str> {
        let mut filled = HashSet::from(["/"]);
        for item in &self.items {
            let mut folder = parent(&item.remote);
            while filled.insert(folder) {
                folder = parent(folder);
            }
        }
        self.folders
            .iter()
            .map(String::as_str)
            .filter(move |folder| !filled.contains(folder))
    }

    /// Adds one file or folder as `remote`.
    ///
    /// # Errors
    /// It is not there or can't be read (`io::Error`); a folder without `recursive` (`Invalid`).
    pub fn add(&mut self, local: &Path, remote: &Remote, recursive: bool) -> anyhow::Result<()> {
        let meta = fs::metadata(local).map_err(|error| unreadable(local, error))?;
        if !meta.is_dir() {
            self.file(local, remote.path.clone(), &meta);
            return Ok(());
        }
        if !recursive {
            let text = format!("{} is a folder; upload it with -r", local.display());
            return Err(Problem::invalid(text).into());
        }
        self.folder(local, remote, &meta, &mut Vec::new());
        Ok(())
    }

    /// A named pipe or a device named on the command line is read like stdin; a socket can't be.
    fn file(&mut self, local: &Path, remote: String, meta: &Metadata) {
        if meta.file_type().is_socket() {
            self.skipped.push((local.to_owned(), "a socket"));
            return;
        }
        let size_bytes = meta.is_file().then_some(meta.len());
        self.items.push(Item {
            local: Some(local.to_owned()),
            remote,
            size_bytes,
        });
    }

    /// `above`: device and inode of each folder that this one lies in, by which a loop of links is known.
    fn folder(&mut self, local: &Path, remote: &Remote, meta: &Metadata, above: &mut Vec<(u64, u64)>) {
        let identity = (meta.dev(), meta.ino());
        if above.contains(&identity) {
            self.skipped
                .push((local.to_owned(), "a link to a folder that it lies in"));
            return;
        }
        let entries = fs::read_dir(local).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.failed.push(unreadable(local, error)),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        self.folders.push(remote.path.clone());
        above.push(identity);
        for entry in entries {
            self.entry(&entry.path(), &entry.file_name(), remote, above);
        }
        above.pop();
    }

    fn entry(&mut self, local: &Path, name: &OsStr, folder: &Remote, above: &mut Vec<(u64, u64)>) {
        let Some(name) = name.to_str() else {
            return self.skipped.push((local.to_owned(), "its name is not UTF-8"));
        };
        let remote = folder.join(name);
        let meta = match fs::metadata(local) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.skipped.push((local.to_owned(), "a link to nothing"));
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return self.skipped.push((local.to_owned(), "a link to itself"));
            }
            Err(error) => return self.failed.push(unreadable(local, error)),
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            self.folder(local, &remote, &meta, above);
        } else if kind.is_file() {
            self.file(local, remote.path, &meta);
        } else {
            // Found, not asked for: reading a pipe or device could last for ever.
            let what = if kind.is_fifo() {
                "a named pipe"
            } else if kind.is_socket() {
                "a socket"
            } else {
                "a device"
            };
            self.skipped.push((local.to_owned(), what));
        }
    }
}

/// The system's error with the path in front.
pub fn unreadable(path: &Path, error: io::Error) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("cannot read {}", path.display()))
}

/// The name under which `local` goes into a folder: `.` and `..` have the name of what they stand for.
///
/// # Errors
/// It is not there, has no name (`/`), or one that is not UTF-8.
pub fn name_of(local: &Path) -> anyhow::Result<String> {
    let name = match local.file_name() {
        Some(name) => name.to_owned(),
        None => {
            let real = local.canonicalize().map_err(|error| unreadable(local, error))?;
            real.file_name().map(OsStr::to_owned).unwrap_or_default()
        }
    };
    match name.into_string() {
        Ok(name) if !name.is_empty() => Ok(name),
        Ok(_) => Err(Problem::invalid("/ has no name of its own; say which REMOTE it becomes").into()),
        Err(name) => {
            let text = format!("{} is not UTF-8; say which REMOTE it becomes", name.display());
            Err(Problem::invalid(text).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_tree_is_walked_once_and_oddities_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("deep/empty")).unwrap();
        fs::write(root.join("a"), "12345").unwrap();
        fs::write(root.join("deep/b"), "1").unwrap();
        symlink(&root, root.join("deep/loop")).unwrap();
        symlink("self", root.join("self")).unwrap();
        symlink("nothing", root.join("dangling")).unwrap();
        symlink("../a", root.join("deep/link")).unwrap();
        let _listener = UnixListener::bind(root.join("socket")).unwrap();

        let mut plan = Plan::default();
        plan.add(&root, &Remote::parse("/r"), true).unwrap();
        let remotes: Vec<&str> = plan.items.iter().map(|item| item.remote.as_str()).collect();
        assert_eq!(remotes, ["/r/a", "/r/deep/b", "/r/deep/link"]);
        assert_eq!(plan.folders, ["/r", "/r/deep", "/r/deep/empty"]);
        assert_eq!(plan.empty_folders().collect::<Vec<_>>(), ["/r/deep/empty"]);
        assert_eq!(plan.total_bytes(), Some(11));
        let mut why: Vec<&str> = plan.skipped.iter().map(|(_, why)| *why).collect();
        why.sort_unstable();
        assert_eq!(
            why,
            [
                "a link to a folder that it lies in",
                "a link to itself",
                "a link to nothing",
                "a socket"
            ]
        );
        assert!(plan.failed.is_empty());

        assert!(Plan::default().add(&root, &Remote::parse("/r"), false).is_err());
        assert!(
            Plan::default()
                .add(&root.join("none"), &Remote::parse("/r"), true)
                .is_err()
        );
    }

    #[test]
    fn names() {
        assert_eq!(name_of(Path::new("a/b/")).unwrap(), "b");
        assert!(!name_of(Path::new(".")).unwrap().is_empty());
        assert!(name_of(Path::new("/")).is_err());
        assert!(name_of(Path::new("/nonexistent/..")).is_err());
    }
}
