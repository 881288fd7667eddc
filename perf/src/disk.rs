//! The disk under a folder, and its counters in /sys/block/DISK/stat.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor, stat, statfs};

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
/// What a sector is in the counters, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// A whole disk (not a partition).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Disk {
    /// Its name, such as `nvme0n1`.
    pub name: String,
    stat: PathBuf,
}

/// What a disk has done so far, by everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counters {
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Flushes completed; `None` before Linux 5.5.
    pub flushes: Option<u64>,
}

impl Disk {
    /// The disk that `folder` lies on; `None` where that is not one disk (tmpfs, btrfs, overlay, network).
    pub(crate) fn under(folder: &Path) -> Option<Self> {
        let device = stat(folder).ok()?.st_dev;
        Self::of_device(Path::new("/sys"), major(device), minor(device))
    }

    fn of_device(sys: &Path, major: u32, minor: u32) -> Option<Self> {
        let mut found = sys
            .join(format!("dev/block/{major}:{minor}"))
            .canonicalize()
            .ok()?;
        // Flushes are counted at the whole disk only.
        if found.join("partition").exists() {
            found.pop();
        }
        let name = found.file_name()?.to_str()?.to_owned();
        let stat = found.join("stat");
        stat.exists().then_some(Self { name, stat })
    }

    pub(crate) fn counters(&self) -> Option<Counters> {
        parse(&fs::read_to_string(&self.stat).ok()?)
    }
}

/// Fields of Documentation/block/stat.rst: 3 sectors read, 7 sectors written, 16 flushes completed.
fn parse(text: &str) -> Option<Counters> {
    let fields: Vec<u64> = text
        .split_ascii_whitespace()
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    Some(Counters {
        read_bytes: fields.get(2)? * SECTOR_BYTES,
        written_bytes: fields.get(6)? * SECTOR_BYTES,
        flushes: fields.get(15).copied(),
    })
}

/// Whether `folder` lies in memory, where no figure about a disk means anything.
pub(crate) fn is_memory(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|fs| {
        let kind = fs.f_type & 0xffff_ffff;
        kind == TMPFS_MAGIC || kind == RAMFS_MAGIC
    })
}

/// Bytes that the caller may still write to the filesystem of `folder`.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let fs = rustix::fs::statvfs(folder).ok()?;
    Some(fs.f_bavail * fs.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters() {
        let text = "   92691    35151 16602362   137423    78426    46121 20057464   222746        0    41660   \
                    362742     9551       56  5146704     1379    24474     1193\n";
        let counters = parse(text).unwrap();
        assert_eq!(counters.read_bytes, 16_602_362 * 512);
        assert_eq!(counters.written_bytes, 20_057_464 * 512);
        assert_eq!(counters.flushes, Some(24_474));
        assert_eq!(parse("1 2 3 4 5 6 7 8 9 10 11").unwrap().flushes, None);
        assert_eq!(parse("1 2 3"), None);
        assert_eq!(parse("a b c"), None);
    }

    #[test]
    fn a_partition_leads_to_its_disk() {
        let sys = tempfile::tempdir().unwrap();
        let partition = sys.path().join("devices/vda/vda1");
        fs::create_dir_all(&partition).unwrap();
        fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        fs::write(partition.join("partition"), "1\n").unwrap();
        fs::write(partition.join("../stat"), "0 0 2 0 0 0 4 0 0 0 0 0 0 0 0 7 0\n").unwrap();
        std::os::unix::fs::symlink(&partition, sys.path().join("dev/block/254:1")).unwrap();
        let disk = Disk::of_device(sys.path(), 254, 1).unwrap();
        assert_eq!(disk.name, "vda");
        assert_eq!(disk.counters().unwrap().flushes, Some(7));
        assert_eq!(Disk::of_device(sys.path(), 254, 2), None);
    }

    #[test]
    fn memory_is_told_from_disks() {
        assert!(!is_memory(Path::new("/proc")));
        if Path::new("/dev/shm").exists() {
            assert!(is_memory(Path::new("/dev/shm")));
        }
        assert!(free_bytes(Path::new("/")).is_some());
    }
}
