//! The names of a volume's files on a real filesystem: opening, renaming, locking. Knows no ring.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::device::How;
use crate::error::{Error, Result};

/// Filesystems on which a sync of one file flushes the device's cache, and data in written extents needs no more.
const FLUSHING_FILESYSTEMS: [i64; 2] = [0xef53, 0x5846_5342]; // ext4, xfs

/// How long a lock may outlive its process: the kernel clears a ring away after that has ended, and a child that is
/// being started holds a copy until its program runs.
const LETTING_GO: Duration = Duration::from_secs(2);

/// A volume's folder and whether its files bypass the page cache.
pub(crate) struct Folder {
    root: PathBuf,
    direct: bool,
    sync_flushes_device: bool,
    /// Held for as long as the volume is open.
    _lock: File,
}

impl Folder {
    /// Takes the lock of the volume in `root`.
    pub(crate) fn lock(root: &Path) -> Result<Self> {
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(format!("opening {}", path.display())))?;
        let asked = Instant::now();
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if asked.elapsed() < LETTING_GO => {
                    std::thread::sleep(LETTING_GO / 100);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked { dir: root.to_owned() }),
                Err(errno) => return Err(Error::io(format!("locking {}", path.display()))(errno.into())),
            }
        }
        let filesystem = rustix::fs::fstatfs(&lock).map_err(|errno| Error::io("statfs")(errno.into()))?;
        #[allow(clippy::unnecessary_cast)] // its width differs by architecture
        let sync_flushes_device = FLUSHING_FILESYSTEMS.contains(&(filesystem.f_type as i64));
        Ok(Self {
            root: root.to_owned(),
            direct: true,
            sync_flushes_device,
            _lock: lock,
        })
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(crate) fn sync_flushes_device(&self) -> bool {
        self.sync_flushes_device
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.root.clone()
        } else {
            self.root.join(name)
        }
    }

    /// Opens with O_DIRECT; where the filesystem refuses that, without, from then on.
    pub(crate) fn open(&mut self, name: &str, how: How) -> io::Result<(File, u64)> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(how == How::Empty)
            .truncate(how == How::Empty);
        let file = if self.direct {
            match options.custom_flags(libc::O_DIRECT).open(self.path(name)) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.direct = false;
                    options.custom_flags(0).open(self.path(name))
                }
                opened => opened,
            }
        } else {
            options.open(self.path(name))
        }?;
        let length_bytes = file.metadata()?.len();
        Ok((file, length_bytes))
    }

    pub(crate) fn open_folder(&self, name: &str) -> io::Result<File> {
        File::open(self.path(name))
    }

    pub(crate) fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.path(folder))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = self.path(&format!("{name}.new"));
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.path(name))?;
        self.open_folder("")?.sync_all()
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    pub(crate) fn create_folder(&self, name: &str) -> io::Result<()> {
        match fs::create_dir(self.path(name)) {
            Ok(()) => self.open_folder("")?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let filesystem = rustix::fs::statvfs(&self.root)?;
        Ok(filesystem.f_bavail * filesystem.f_frsize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lock_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::lock(dir.path()).unwrap();
        assert!(matches!(Folder::lock(dir.path()), Err(Error::Locked { .. })));
        drop(first);
        Folder::lock(dir.path()).unwrap();
    }

    #[test]
    fn replacing_leaves_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::lock(dir.path()).unwrap();
        folder.replace("name", b"one").unwrap();
        folder.replace("name", b"two").unwrap();
        assert_eq!(folder.read("name").unwrap(), b"two");
        assert_eq!(
            folder.list("").unwrap(),
            [("lock".to_owned(), 0), ("name".to_owned(), 3)]
        );
    }
}
