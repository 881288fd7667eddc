//! Where a download goes: a temporary file beside the target, renamed once all is there and verified.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use blockyard_wire::{Problem, ProblemKind};
use tempfile::NamedTempFile;

/// A local file to be written.
pub enum Target {
    /// A file that appears whole or not at all; dropped before [`Target::finish`] it leaves nothing.
    Whole {
        /// What is written meanwhile.
        part: NamedTempFile,
        /// What it becomes.
        path: PathBuf,
        /// Whether it may take the place of a file.
        overwrite: bool,
    },
    /// A device or named pipe: it takes bytes as they come.
    Special(File),
}

impl Target {
    /// Prepares to write `path`.
    ///
    /// # Errors
    /// It is there already (`Exists`), is a folder (`Invalid`), or its folder can't be written.
    pub fn open(path: &Path, overwrite: bool) -> anyhow::Result<Self> {
        let unwritable = || format!("cannot write {}", path.display());
        let mut path_buf = path.to_owned();
        let mut rights = 0o666;
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                return Err(Problem::invalid(format!("{} is a folder", path.display())).into());
            }
            Ok(meta) if !meta.is_file() => {
                let file = File::options().write(true).open(path).with_context(unwritable)?;
                return Ok(Self::Special(file));
            }
            Ok(_) if !overwrite => return Err(exists(path).into()),
            Ok(meta) => {
                // Through a link, the file that it points at is replaced, and its rights stay.
                path_buf = path.canonicalize().with_context(unwritable)?;
                rights = meta.permissions().mode() & 0o777;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(unwritable),
        }
        let folder = match path_buf.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let part = tempfile::Builder::new()
            .prefix(".blockyard-")
            .suffix(".part")
            .permissions(Permissions::from_mode(rights))
            .tempfile_in(folder)
            .with_context(unwritable)?;
        Ok(Self::Whole {
            part,
            path: path_buf,
            overwrite,
        })
    }

    /// The file to write into.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn file(&self) -> io::Result<File> {
        match self {
            Self::Whole { part, .. } => part.as_file().try_clone(),
            Self::Special(file) => file.try_clone(),
        }
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// A file of this name has appeared meanwhile (`Exists`), or it can't be renamed.
    pub fn finish(self) -> anyhow::Result<()> {
        let Self::Whole {
            part,
            path,
            overwrite,
        } = self
        else {
            return Ok(());
        };
        let persisted = if overwrite {
            part.persist(&path)
        } else {
            part.persist_noclobber(&path)
        };
        match persisted {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&path).into()),
            Err(error) => {
                Err(anyhow::Error::from(error.error).context(format!("cannot write {}", path.display())))
            }
        }
    }
}

fn exists(path: &Path) -> Problem {
    let text = format!("{} is there already; replace it with --overwrite", path.display());
    Problem::new(ProblemKind::Exists, text)
}

/// `folder` + the path `below` it, as the cluster names it: nothing may lead out of `folder`.
///
/// # Errors
/// `Invalid`: a part of the path is no plain name here.
pub fn inside(folder: &Path, below: &str) -> Result<PathBuf, Problem> {
    let mut path = folder.to_owned();
    for part in below.split('/').filter(|part| !part.is_empty()) {
        if part == "." || part == ".." || part.contains('\0') {
            return Err(Problem::invalid(format!(
                "'{below}' can't be a path on this machine"
            )));
        }
        path.push(part);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_target_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let target = Target::open(&path, false).unwrap();
        target.file().unwrap().write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(target);
        assert!(names(dir.path()).is_empty());

        let target = Target::open(&path, false).unwrap();
        target.file().unwrap().write_all(b"whole").unwrap();
        target.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let kind = |error: anyhow::Error| error.downcast_ref::<Problem>().unwrap().kind;
        let late = Target::open(&path, false).unwrap();
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(kind(late.finish().unwrap_err()), ProblemKind::Exists);
        assert_eq!(
            kind(Target::open(&path, false).err().unwrap()),
            ProblemKind::Exists
        );
        assert_eq!(
            kind(Target::open(dir.path(), true).err().unwrap()),
            ProblemKind::Invalid
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");

        let link = dir.path().join("link");
        symlink("a", &link).unwrap();
        let target = Target::open(&link, true).unwrap();
        target.file().unwrap().write_all(b"new").unwrap();
        target.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(names(dir.path()), ["a", "link"]);
    }

    #[test]
    fn a_device_stays_a_device() {
        let target = Target::open(Path::new("/dev/null"), false).unwrap();
        target.file().unwrap().write_all(b"x").unwrap();
        target.finish().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn nothing_leads_out_of_a_folder() {
        let at = |below| inside(Path::new("/t"), below);
        assert_eq!(at("a/b").unwrap(), Path::new("/t/a/b"));
        assert_eq!(at("/a").unwrap(), Path::new("/t/a"));
        for bad in ["../a", "a/../../b", "./a", "a\0b"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
