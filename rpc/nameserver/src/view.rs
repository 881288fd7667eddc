//! The page's window into the running nameserver: synchronous, read-only, on the nameserver's own thread.

use std::ops::RangeInclusive;
use std::rc::Rc;

use blockyard_wire::Result;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{
    BlockId, BlockInfo, ClusterInfo, ClusterStatus, FileInfo, HeldBlock, Lease, Trashed, VolumeId,
};

use crate::core::Core;
use crate::survey::{BlockMap, WhatIf};

/// Read-only access to a running nameserver. Cheap to clone; `!Send`.
#[derive(Clone)]
pub struct View {
    core: Rc<Core>,
}

impl View {
    pub(crate) fn new(core: Rc<Core>) -> Self {
        Self { core }
    }

    /// What a login answers: ids, defaults, clock, address.
    pub fn cluster(&self) -> ClusterInfo {
        self.core.info()
    }

    /// The cluster's secret, for a client that runs beside the nameserver. Reads a file where it is the
    /// nameserver's own.
    ///
    /// # Errors
    /// When that file can't be read.
    pub fn secret(&self) -> Result<ClusterSecret> {
        match &self.core.config.secret {
            Some(secret) => Ok(secret.clone()),
            None => ClusterSecret::load(&self.core.config.dir.join("cluster.secret")),
        }
    }

    /// The whole cluster.
    pub fn status(&self) -> ClusterStatus {
        self.core.status()
    }

    /// A file or directory and at most `max` (256) of its blocks from the `from`th on, with read tickets.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a path that can't be.
    pub fn lookup(&self, path: &str, from: u32, max: u32) -> Result<(FileInfo, Vec<BlockInfo>)> {
        self.core.lookup(path, from, max)
    }

    /// At most `max` (256) blocks of a version from the `from`th on, with read tickets.
    ///
    /// # Errors
    /// `Gone` when the version is no longer kept.
    pub fn blocks(&self, version: u64, from: u32, max: u32) -> Result<Vec<BlockInfo>> {
        self.core.blocks(version, from, max)
    }

    /// Entries of a directory in the order of their names, or all below it in the order of their paths, part
    /// by part; at most `limit` (1000). Whether there are more.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a path that can't be, or is a file's.
    pub fn list(
        &self,
        path: &str,
        prefix: &str,
        after: &str,
        limit: usize,
        recursive: bool,
    ) -> Result<(Vec<FileInfo>, bool)> {
        self.core
            .state
            .borrow()
            .list(path, prefix, after, limit, recursive)
    }

    /// What a volume should hold, behind the block `after`; at most `limit` (1000). Whether there is more.
    ///
    /// # Errors
    /// `NotFound` for a volume that has never joined.
    pub fn replicas_of(
        &self,
        volume: VolumeId,
        after: BlockId,
        limit: u32,
    ) -> Result<(Vec<HeldBlock>, bool)> {
        self.core.replicas_of(volume, after, limit)
    }

    /// A block with all its replicas, the path of the file that holds it now (empty where none does), and the
    /// version it was made for.
    ///
    /// # Errors
    /// `NotFound` when there is no such block.
    pub fn locate(&self, block: BlockId) -> Result<(BlockInfo, String, u64)> {
        self.core.locate(block)
    }

    /// Blocks whose ids lie in a range, with their files, in the order of ids; at most `limit` (256). Whether there are
    /// more. No path where no file has the block now.
    pub fn run_of_blocks(
        &self,
        range: RangeInclusive<BlockId>,
        limit: usize,
    ) -> (Vec<(BlockInfo, String)>, bool) {
        self.core.run_of_blocks(range, limit.clamp(1, 256))
    }

    /// The blocks of a range from afar, in at most `cells_max` cells.
    pub async fn block_map(&self, range: RangeInclusive<BlockId>, cells_max: usize) -> BlockMap {
        self.core.block_map(range, cells_max).await
    }

    /// What it would mean if these volumes were lost.
    ///
    /// # Errors
    /// `NotFound` for one that has never joined.
    pub async fn what_if(&self, lost: &[VolumeId]) -> Result<WhatIf> {
        self.core.what_if(lost).await
    }

    /// Entries of the trash behind `after`, at most `limit`; whether there are more.
    pub fn trash(&self, after: u64, limit: u32) -> (Vec<Trashed>, bool) {
        self.core.trash(after, limit)
    }

    /// The entry of the trash that came last from `path`; `None` where it is not among the last thousand.
    pub fn newest_in_trash(&self, path: &str) -> Option<u64> {
        let state = self.core.state.borrow();
        let newest = state.trash().entries().keys().rev().take(1000);
        let from = |entry: &&u64| {
            let told = state.trash_info(**entry);
            told.is_some_and(|(file, _)| file.path == path)
        };
        newest.into_iter().find(from).copied()
    }

    /// An upload in progress, as far as it has come.
    ///
    /// # Errors
    /// `Denied` when no such upload is open.
    pub fn upload(&self, lease: u64) -> Result<UploadSoFar> {
        let state = self.core.state.borrow();
        let held = state.held(lease)?;
        let blocks = held.blocks.iter().filter_map(|(index, id)| {
            let block = state.blocks().get(BlockId(*id))?;
            Some((*index, block.length, block.crc32c))
        });
        Ok(UploadSoFar {
            lease: Lease {
                id: lease,
                version: held.version,
                lease_ms: self.core.config.lease_ms,
                replication: held.replication,
            },
            path: held.path.clone(),
            blocks: blocks.collect(),
        })
    }
}

/// An upload in progress.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UploadSoFar {
    /// What names it.
    pub lease: Lease,
    /// Where its file will appear.
    pub path: String,
    /// Index, bytes and CRC32C of each block that is durable, by index.
    pub blocks: Vec<(u32, u32, u32)>,
}
