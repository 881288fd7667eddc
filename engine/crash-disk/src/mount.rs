//! The disk in memory under a loop device under ext4, and what takes all of it away again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fuser::BackgroundSession;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

use crate::disk::{Disk, Image};
use crate::fuse::{FILE, Shared, serve};

/// Folders of these tests begin so, and go on with the process's id.
const PREFIX: &str = "blockyard-crash-";
const TOOLS: [&str; 4] = ["losetup", "mkfs.ext4", "mount", "umount"];
/// The ring of a process that ended lets go of its files a little after it; on a busy machine not so little.
const BUSY_MAX: Duration = Duration::from_secs(120);

/// A disk that can be mounted. Dropping it takes its mounts, its loop device and its folder away.
pub struct Rig {
    pub shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    folder: TempDir,
}

/// What is missing for a rig on this machine.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root".to_owned());
    }
    for file in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(file).exists() {
            return Some(file.to_owned());
        }
    }
    let lacks = |tool: &&&str| Command::new(tool).arg("--version").output().is_err();
    TOOLS.iter().find(lacks).map(|tool| (*tool).to_owned())
}

impl Rig {
    /// A blank disk. What earlier processes left behind when they were killed is removed first.
    pub fn new(disk_bytes: u64) -> io::Result<Self> {
        remove_leftovers();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()?;
        let shared = Shared::new(Disk::new(disk_bytes));
        let mut rig = Self {
            shared,
            session: None,
            folder,
        };
        fs::create_dir(rig.point("fuse"))?;
        fs::create_dir(rig.point("ext4"))?;
        rig.session = Some(serve(&rig.shared, &rig.point("fuse"))?);
        Ok(rig)
    }

    fn point(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder on the machine's own disk, for logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes an ext4 on the disk, with a folder `volume` that `prepare` fills; all of it durable.
    pub fn make_filesystem(&self, prepare: impl FnOnce(&Path)) -> io::Result<Image> {
        self.make_filesystem_for(256, prepare)
    }

    /// The same with room for so many files.
    pub fn make_filesystem_for(&self, files: u32, prepare: impl FnOnce(&Path)) -> io::Result<Image> {
        let device = attach(&self.point("fuse").join(FILE))?;
        let made = run(
            "mkfs.ext4",
            &[
                "-q",
                "-F",
                "-b",
                "4096",
                "-m",
                "0",
                "-N",
                &files.to_string(),
                "-J",
                "size=4",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
                &device.path,
            ],
        );
        drop(device);
        made?;
        let mounted = self.mount()?;
        fs::create_dir(mounted.volume())?;
        prepare(&mounted.volume());
        mounted.unmount()?;
        Ok(self.shared.disk().image())
    }

    /// Mounts what is on the disk; ext4 replays its journal.
    pub fn mount(&self) -> io::Result<Mounted> {
        let device = attach(&self.point("fuse").join(FILE))?;
        let point = self.point("ext4");
        run("mount", &["-t", "ext4", &device.path, text(&point)])?;
        Ok(Mounted {
            point,
            is_mounted: true,
            _device: device,
        })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Requests must be answered, not refused, while the mounts go; what they write is not wanted any more.
        if let Some(session) = self.session.take()
            && session.umount_and_join().is_err()
        {
            let _ = run("umount", &["-l", text(&self.point("fuse"))]);
        }
    }
}

/// A mounted disk. Unmount it before the disk gets another image: what a mount still writes would spoil that.
pub struct Mounted {
    point: PathBuf,
    is_mounted: bool,
    // Dropped, and so detached, after the mount is gone.
    _device: Loop,
}

impl Mounted {
    pub fn volume(&self) -> PathBuf {
        self.point.join("volume")
    }

    pub fn unmount(mut self) -> io::Result<()> {
        self.wait_and_unmount()
    }

    fn wait_and_unmount(&mut self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            match rustix::mount::unmount(&self.point, UnmountFlags::empty()) {
                Ok(()) => break,
                Err(Errno::BUSY) if began.elapsed() < BUSY_MAX => thread::sleep(Duration::from_millis(5)),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted && self.wait_and_unmount().is_err() {
            let _ = run("umount", &["-l", text(&self.point)]);
        }
    }
}

/// An attached loop device.
struct Loop {
    path: String,
}

fn attach(file: &Path) -> io::Result<Loop> {
    let path = run("losetup", &["--find", "--show", "--direct-io=on", text(file)])?;
    let device = Loop { path };
    let direct = run("losetup", &["--noheadings", "--output", "DIO", &device.path])?;
    if direct.trim() != "1" {
        return Err(io::Error::other(format!("{} refuses direct I/O", device.path)));
    }
    Ok(device)
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = run("losetup", &["--detach", &self.path]) {
            eprintln!("{} stays: {error}", self.path);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is text")
}

/// Runs a tool; what it printed.
fn run(tool: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(tool).args(arguments).output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{tool}: {}", why.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Takes away what a killed process could not: mounts first, loop devices, folders.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_none_or(|process| Path::new(&format!("/proc/{process}")).exists()) {
            continue;
        }
        clear(&entry.path());
    }
}

/// Takes away what lies mounted in the folder of a rig, and the folder: for when the rig can't do so itself.
pub fn clear(folder: &Path) {
    let _ = run("umount", &["-l", text(&folder.join("ext4"))]);
    let devices = run("losetup", &["--noheadings", "--output", "NAME,BACK-FILE"]).unwrap_or_default();
    for line in devices.lines().filter(|line| line.contains(text(folder))) {
        if let Some(device) = line.split_whitespace().next() {
            let _ = run("losetup", &["--detach", device]);
        }
    }
    let _ = run("umount", &["-l", text(&folder.join("fuse"))]);
    let _ = fs::remove_dir_all(folder);
}
