//! What a volume asks of a disk: operations by file, and the names of files. `uring` and `sim` are the twins.

use std::io;
use std::os::fd::BorrowedFd;

use crate::buffer::{Chunk, View};

/// An open file of the volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FileId(pub u32);

/// An operation. It owns its buffer, so that dropping whoever asked can't free memory that the disk still uses.
pub(crate) enum Op {
    /// Fill `into` from the file.
    Read {
        file: FileId,
        offset_bytes: u64,
        into: Chunk,
    },
    /// Write `from` to the file.
    Write {
        file: FileId,
        offset_bytes: u64,
        from: View,
    },
    /// Make everything that completed before durable: this file's data and extents, and the device's cache.
    Sync { file: FileId },
    /// Allocate the file's first `bytes` bytes, reading as zeros where never written.
    Allocate { file: FileId, bytes: u64 },
}

impl Op {
    /// Bytes to transfer; none for the others.
    pub(crate) fn transfer_bytes(&self) -> usize {
        match self {
            Self::Read { into, .. } => into.len(),
            Self::Write { from, .. } => from.len(),
            Self::Sync { .. } | Self::Allocate { .. } => 0,
        }
    }
}

/// The end of an operation, which may be a short one.
pub(crate) struct Completion {
    pub(crate) token: u64,
    pub(crate) op: Op,
    pub(crate) result: io::Result<usize>,
}

/// Operations in flight, keyed by a token of the caller's.
pub(crate) trait Device {
    /// Queues an operation of which `done_bytes` are transferred already.
    fn submit(&mut self, token: u64, op: Op, done_bytes: usize);

    /// Hands what is queued to the disk and collects what has completed; with `wait` at least one, if any is in
    /// flight. An error means that the device itself is gone.
    fn turn(&mut self, wait: bool, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// Operations submitted and not yet returned.
    fn in_flight(&self) -> usize;

    /// Readable when a completion arrives while armed.
    fn event(&self) -> Option<BorrowedFd<'_>>;

    /// Whether completions signal the event.
    fn arm(&mut self, armed: bool);

    /// Takes the event back to unreadable.
    fn drain_event(&mut self);
}

/// How to open a file for operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// It must be there.
    Existing,
    /// It is made, or emptied when it is there.
    Empty,
}

/// The volume's folder. Names are relative to it, with at most one `/`. These calls block.
pub(crate) trait Files {
    /// Opens a file for operations; returns its length in bytes too.
    fn open(&mut self, name: &str, how: How) -> io::Result<(FileId, u64)>;
    /// Opens a folder to be synced; `""` is the volume's own.
    fn open_folder(&mut self, name: &str) -> io::Result<FileId>;
    /// Closes a file; operations in flight still finish.
    fn close(&mut self, file: FileId);
    /// Names and lengths of the files in a folder.
    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>>;
    /// A whole file. Read, not mapped: what a failing disk can't give must be an error, and not end the process.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Replaces a small file atomically and durably.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Renames a file over whatever has the new name. Durable after the folder's sync.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes a folder unless it is there, durably.
    fn create_folder(&mut self, name: &str) -> io::Result<()>;
    /// Bytes free on the filesystem for this process.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Whether syncing one file flushes the device's cache for the written extents of all others.
    fn sync_flushes_device(&self) -> bool;
    /// Random bytes.
    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()>;
    /// What the volume's files can't do as well as they could.
    fn notes(&self) -> Vec<String>;
    /// Whether files bypass the page cache.
    fn is_direct(&self) -> bool;
    /// Whether the pool is registered.
    fn has_registered_buffers(&self) -> bool;
}

/// Both sides of a disk.
pub(crate) trait Disk: Device + Files {}

impl<T: Device + Files> Disk for T {}
