//! Volumes on simulated disks: formatting, and opening many after each other with one pool of buffers.

use super::SimDisk;
use crate::device::Files;
use crate::error::Result;
use crate::identity;
use crate::pool::{LaneOptions, Pool, PoolOptions};
use crate::types::{OpenReport, Options};
use crate::volume::{Volume, new_pool};

/// The cluster of every simulated volume.
pub const CLUSTER: [u8; 16] = [1; 16];

/// How volumes are opened here.
pub struct Yard {
    /// What each is opened with; the pool is made once.
    pub options: Options,
    pool: Pool,
    /// For a volume that is opened while another one, with work under way, is open too.
    pool_beside: Pool,
}

impl Default for Yard {
    fn default() -> Self {
        Self::new(48 << 20)
    }
}

impl Yard {
    /// For volumes of this capacity, with the shortest journal.
    pub fn new(capacity_bytes: u64) -> Self {
        let mut options = Options::new("simulated");
        options.capacity_bytes = capacity_bytes;
        options.journal_bytes = 1 << 19;
        let lane = LaneOptions { large: 1, small: 2 };
        options.pool = PoolOptions {
            head: LaneOptions { large: 4, small: 24 },
            next: lane,
            repair: lane,
            read: lane,
        };
        Self::with(options)
    }

    fn with(options: Options) -> Self {
        let pool = || new_pool(&options).expect("memory for buffers");
        Self {
            pool: pool(),
            pool_beside: pool(),
            options,
        }
    }

    /// The same, with a read cache.
    pub fn caching(capacity_bytes: u64, read_cache_bytes: u64) -> Self {
        let mut options = Self::new(capacity_bytes).options;
        options.read_cache_bytes = read_cache_bytes;
        Self::with(options)
    }

    /// A disk with a formatted volume on it.
    pub fn format(&self, seed: u64) -> Result<SimDisk> {
        let disk = SimDisk::new(seed);
        let io = crate::error::Error::io("formatting");
        let mut random = [0; 32];
        let made = disk.device().random(&mut random).map_err(io);
        made?;
        let text = identity::encode(&identity::new_identity(CLUSTER, &random))?;
        let written = disk.device().replace(identity::FILE, text.as_bytes());
        written.map_err(crate::error::Error::io("formatting"))?;
        Ok(disk)
    }

    /// Opens the volume on `disk`: one at a time.
    pub fn open(&self, disk: &SimDisk) -> Result<(Volume, OpenReport)> {
        self.open_with(&self.pool, disk)
    }

    /// Opens the volume on `disk` while another one is open.
    pub fn open_beside(&self, disk: &SimDisk) -> Result<(Volume, OpenReport)> {
        self.open_with(&self.pool_beside, disk)
    }

    fn open_with(&self, pool: &Pool, disk: &SimDisk) -> Result<(Volume, OpenReport)> {
        pool.reopen();
        let device = Box::new(disk.device());
        Volume::open_on(device, pool.clone(), &self.options, Some(CLUSTER))
    }
}
