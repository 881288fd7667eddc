//! The disk in memory as the one file of a FUSE filesystem. Its threads never touch what is mounted on it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, SessionACL, WriteFlags,
};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::disk::{Answer, Disk};

/// The file's name under the mount point.
pub const FILE: &str = "disk";
const INODE: INodeNo = INodeNo(2);
const FOR_EVER: Duration = Duration::from_secs(1 << 30);
/// One write in so many is told late: a flush that overtakes it does not cover it.
const LATE_ONE_IN: u32 = 4;
const LATE: Duration = Duration::from_micros(700);

/// The disk and the log by which cuts know what was acknowledged.
pub struct Shared {
    disk: Mutex<Disk>,
    log: Mutex<Option<File>>,
    dice: Mutex<SmallRng>,
}

impl Shared {
    pub fn new(disk: Disk) -> Arc<Self> {
        Arc::new(Self {
            disk: Mutex::new(disk),
            log: Mutex::new(None),
            dice: Mutex::new(rand::SeedableRng::seed_from_u64(1)),
        })
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log whose length a cut remembers.
    pub fn watch(&self, log: File) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    pub fn log_bytes(&self) -> u64 {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.as_ref()
            .map_or(0, |log| log.metadata().expect("a log's length").len())
    }

    fn is_late(&self) -> bool {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        dice.random_ratio(1, LATE_ONE_IN)
    }
}

/// A write whose end is told later.
struct Late {
    due: Instant,
    request: u64,
    bytes: u32,
    reply: ReplyWrite,
}

struct Served {
    shared: Arc<Shared>,
    late: Mutex<Sender<Late>>,
}

/// Mounts the disk's file at `point`. It is unmounted when the session is dropped.
pub fn serve(shared: &Arc<Shared>, point: &Path) -> io::Result<BackgroundSession> {
    let (late, arrivals) = channel();
    let teller = shared.clone();
    thread::spawn(move || tell_late(&teller, &arrivals));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("blockyard-crash".to_owned())];
    config.acl = SessionACL::All;
    let served = Served {
        shared: shared.clone(),
        late: Mutex::new(late),
    };
    fuser::spawn_mount(served, point, &config)
}

fn tell_late(shared: &Shared, arrivals: &Receiver<Late>) {
    for late in arrivals {
        thread::sleep(late.due.saturating_duration_since(Instant::now()));
        let mut disk = shared.disk();
        disk.write_ended(late.request);
        late.reply.written(late.bytes);
    }
}

impl Served {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_root = inode == INodeNo::ROOT;
        FileAttr {
            ino: inode,
            size: if is_root {
                0
            } else {
                self.shared.disk().length_bytes()
            },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_root {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if is_root { 0o755 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }

    /// The disk, before a request that changes it.
    fn before_change(&self) -> MutexGuard<'_, Disk> {
        let mut disk = self.shared.disk();
        if disk.wants_cut() {
            let log_bytes = self.shared.log_bytes();
            disk.remember_cut(log_bytes);
        }
        disk
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Several requests of the loop device at once.
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO)
            .map_err(|_| io::Error::other("this kernel's FUSE has no asynchronous direct I/O"))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE {
            reply.entry(&FOR_EVER, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache in between: every request of the loop device arrives here.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset_bytes: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut disk = self.shared.disk();
        let end = disk.length_bytes().min(offset_bytes + u64::from(bytes));
        let mut data = vec![0; end.saturating_sub(offset_bytes) as usize];
        match disk.read(offset_bytes, &mut data) {
            Answer::Done => reply.data(&data),
            Answer::Failed => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset_bytes: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = self.before_change();
        let (answer, request) = disk.write(offset_bytes, data);
        if answer == Answer::Failed {
            return reply.error(Errno::EIO);
        }
        let late = Late {
            due: Instant::now() + LATE,
            request,
            bytes: data.len() as u32,
            reply,
        };
        if self.shared.is_late() {
            drop(disk);
            let sender = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            sender
                .send(late)
                .expect("the teller lives as long as the session");
        } else {
            disk.write_ended(request);
            late.reply.written(late.bytes);
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A descriptor was closed; that flushes no disk.
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.before_change().flush() {
            Answer::Done => reply.ok(),
            Answer::Failed => reply.error(Errno::EIO),
        }
    }
}
