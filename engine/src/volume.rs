//! A volume's public face.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;

use crate::block::{BlockId, Origin};
use crate::block_buffer::BlockBuffer;
use crate::error::{Error, Result};
use crate::pool::Lane;
use crate::types::{Epoch, Identity, OpenReport, Options, Receipt, ReplicaInfo, Stat, Verified};

/// How the thread's runtime waits for the disk ring.
pub trait CompletionWait {
    /// Resolves when `fd` (an eventfd, nonblocking) can be read.
    fn readable(&self, fd: BorrowedFd<'_>) -> impl Future<Output = io::Result<()>>;
}

/// An open volume. Lives on the thread that opened it; clones are the same volume.
#[derive(Clone)]
pub struct Volume {
    core: Rc<()>,
}

impl Volume {
    /// Makes `dir` an empty volume of `cluster`.
    pub fn format(dir: &Path, cluster: [u8; 16]) -> Result<Identity> {
        let _ = (dir, cluster);
        Err(Error::Closed)
    }

    /// Takes the volume's lock and recovers it. Blocks.
    pub fn open(options: Options, expected_cluster: Option<[u8; 16]>) -> Result<(Self, OpenReport)> {
        let _ = (options, expected_cluster);
        Err(Error::Closed)
    }

    /// Who the volume is.
    pub fn identity(&self) -> Identity {
        let _ = &self.core;
        unreachable!()
    }

    /// The highest epoch seen.
    pub fn epoch(&self) -> Option<Epoch> {
        None
    }

    /// Persists a higher epoch (or the same one again) before it returns.
    pub async fn raise_epoch(&self, epoch: Epoch) -> Result<()> {
        let _ = epoch;
        Err(Error::Closed)
    }

    /// Waits for a buffer for a block of `length_bytes`: first come first served per lane, safe to drop.
    /// Fails at once when no block has that length.
    pub async fn acquire(&self, lane: Lane, length_bytes: u32) -> Result<BlockBuffer> {
        let _ = (lane, length_bytes);
        Err(Error::Closed)
    }

    /// Makes a block durable.
    pub async fn put(&self, block: BlockId, origin: Origin, buffer: BlockBuffer) -> Result<Receipt> {
        let _ = (block, origin, buffer);
        Err(Error::Closed)
    }

    /// What the index knows of a block.
    pub fn lookup(&self, block: BlockId) -> Option<ReplicaInfo> {
        let _ = block;
        None
    }

    /// Reads the whole units that cover a range, verified.
    pub async fn get(&self, block: BlockId, offset: u32, length: u32, lane: Lane) -> Result<Verified> {
        let _ = (block, offset, length, lane);
        Err(Error::Closed)
    }

    /// Deletes durably; tells for each block whether it was here.
    pub async fn delete(&self, blocks: &[BlockId]) -> Result<Vec<(BlockId, bool)>> {
        let _ = blocks;
        Err(Error::Closed)
    }

    /// At most `max` replicas in order of their ids, those behind `after`.
    pub fn list(&self, after: Option<BlockId>, max: usize) -> Vec<ReplicaInfo> {
        let _ = (after, max);
        Vec::new()
    }

    /// Figures.
    pub fn stat(&self) -> Stat {
        unreachable!()
    }

    /// Takes a replica out of service as damaged. `false` when it is not here.
    pub async fn mark_corrupt(&self, block: BlockId) -> Result<bool> {
        let _ = block;
        Err(Error::Closed)
    }

    /// Verifies a suspect and puts it into service.
    pub async fn confirm_suspect(&self, block: BlockId) -> Result<()> {
        let _ = block;
        Err(Error::Closed)
    }

    /// Drops a suspect; its slot is free again.
    pub async fn forget_suspect(&self, block: BlockId) -> Result<()> {
        let _ = block;
        Err(Error::Closed)
    }

    /// Writes the index down, so that the next start replays less.
    pub async fn checkpoint(&self) -> Result<()> {
        Err(Error::Closed)
    }

    /// Finishes what runs, writes a checkpoint, and unlocks.
    pub async fn close(&self) -> Result<()> {
        Err(Error::Closed)
    }

    /// Drives the volume until it is closed: spawn it once on the thread's runtime.
    pub async fn drive(&self, waiter: impl CompletionWait) -> Result<()> {
        let _ = waiter;
        Err(Error::Closed)
    }
}
