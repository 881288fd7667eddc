//! The page's window into the running nameserver: synchronous, read-only, on the nameserver's own thread.

use std::rc::Rc;

use blockyard_wire::Result;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{BlockId, BlockInfo, ClusterInfo, ClusterStatus, FileInfo, HeldBlock, VolumeId};

use crate::core::Core;

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
}
