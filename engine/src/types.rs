//! What goes into a volume's calls and comes out of them: plain values.

use std::time::Duration;

use std::path::PathBuf;

use bytes::Bytes;

use crate::block::BlockId;
use crate::cache::CacheUse;
use crate::pool::{PoolOptions, PoolUse};

/// Who a volume is: the contents of volume.toml.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: [u8; 16],
    /// The volume itself, for life.
    pub volume: [u8; 16],
    /// Random at formatting: tells this volume from one made anew under the same name.
    pub incarnation: [u8; 16],
    /// Counts the openings.
    pub generation: u64,
    /// Version of the format on disk.
    pub format: u32,
}

/// A nameserver's reign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epoch {
    /// The reign's number; volumes never go back.
    pub number: u64,
    /// Random per reign: two nameservers with one number are told apart by it.
    pub incarnation: [u8; 16],
}

/// How to open a volume.
#[derive(Clone, Debug)]
pub struct Options {
    /// The volume's folder.
    pub dir: PathBuf,
    /// Bytes that segments may take; 0 = what they take now plus the filesystem's free space, less the reserve.
    pub capacity_bytes: u64,
    /// Bytes to leave free on the filesystem when `capacity_bytes` is 0.
    pub reserve_bytes: u64,
    /// Entries of the submission ring.
    pub queue_depth: u32,
    /// Buffers per lane.
    pub pool: PoolOptions,
    /// Bytes of the read cache, which come on top of the pool's; 0 = none.
    pub read_cache_bytes: u64,
    /// Bytes of journal; fixed when the first open lays it out, a multiple of 1 MiB.
    pub journal_bytes: u64,
}

impl Options {
    /// Everything at its default: all of the filesystem but 1 GiB, a ring of 256, no read cache, 64 MiB of journal.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            capacity_bytes: 0,
            reserve_bytes: 1 << 30,
            queue_depth: 256,
            pool: PoolOptions::default(),
            read_cache_bytes: 0,
            journal_bytes: 64 << 20,
        }
    }
}

/// What opening a volume found and did.
#[derive(Clone, Default, Debug)]
pub struct OpenReport {
    /// Replicas in the index, suspects included.
    pub replicas: u64,
    /// Replicas that recovery could not verify: not served until confirmed or forgotten.
    pub suspects: Vec<BlockId>,
    /// Journal records replayed over the checkpoint.
    pub replayed_records: u64,
    /// Whether an unfinished batch at the journal's end was cut.
    pub torn_tail_cut: bool,
    /// Whether the pool is registered with the ring.
    pub registered_buffers: bool,
    /// Whether files bypass the page cache.
    pub direct_io: bool,
    /// What works less well than it could, and what to set.
    pub notes: Vec<String>,
}

/// Whether a replica is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaState {
    /// Served.
    Live,
    /// Recovery could not verify it; unserved until confirmed or forgotten.
    Suspect,
    /// A read or an operator found it damaged; unserved until put again or deleted.
    Corrupt,
}

/// What the index knows of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaInfo {
    /// The block.
    pub block: BlockId,
    /// Its bytes.
    pub length: u32,
    /// CRC32C of the whole block.
    pub crc32c: u32,
    /// Whether it is served.
    pub state: ReplicaState,
}

/// A durable put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// Bytes of the block.
    pub length: u32,
    /// CRC32C of the whole block.
    pub crc32c: u32,
    /// The block was here already, with the same content.
    pub already_had: bool,
    /// How long it took until the slot was written; what came after is the journal and the flush.
    pub written_after: Duration,
}

/// Bytes of a block, every checksum unit of them verified: whole units that cover the wanted range.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Where in the block `data` begins; a multiple of 64 KiB.
    pub offset: u32,
    /// Whole units (the block's last one may be short), in a pool buffer that returns on the last drop.
    pub data: Bytes,
    /// CRC32C of each unit in `data`.
    pub unit_crcs: Vec<u32>,
    /// Bytes of the whole block.
    pub block_length: u32,
    /// CRC32C of the whole block.
    pub block_crc32c: u32,
    /// How long it took.
    pub times: GetTimes,
}

/// Where a get's time went, counted from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GetTimes {
    /// Until it had a buffer to read into; nothing for what is cached.
    pub buffer: Duration,
    /// Until the disk had answered; nothing for what is cached.
    pub read: Duration,
    /// Until every unit was verified.
    pub checked: Duration,
}

/// Whether a volume takes puts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VolumeState {
    /// Puts and gets.
    Serving,
    /// No slot for a block of 4 MiB is left; smaller ones may still fit; gets and deletes work.
    Full,
    /// An I/O error latched: gets only.
    Failed(String),
    /// Closed.
    Closed,
}

/// Figures of a volume. Counters run since it was opened.
#[derive(Clone, Debug)]
pub struct Stat {
    /// Bytes that segments may take.
    pub capacity_bytes: u64,
    /// Bytes in slots that are taken.
    pub used_bytes: u64,
    /// Bytes in slots that are free or can still be made.
    pub free_bytes: u64,
    /// Part of `used_bytes` that holds neither block nor header.
    pub wasted_bytes: u64,
    /// Bytes of the blocks themselves.
    pub block_bytes: u64,
    /// Replicas, of whatever state.
    pub replicas: u64,
    /// Unverified since recovery.
    pub suspects: u64,
    /// Known to be damaged.
    pub corrupt: u64,
    /// Segment files.
    pub segments: u64,
    /// Durable puts.
    pub puts: u64,
    /// Verified gets.
    pub gets: u64,
    /// Durable deletes.
    pub deletes: u64,
    /// Bytes of the blocks put.
    pub put_bytes: u64,
    /// Bytes of the units got.
    pub get_bytes: u64,
    /// Journal batches written: groups of puts and deletes that one flush served.
    pub batches: u64,
    /// fdatasync calls.
    pub flushes: u64,
    /// Bytes of slots that were filled with zeros ahead of need.
    pub zero_filled_bytes: u64,
    /// Part of `free_bytes` that is known to be written: a put there makes no new extents.
    pub ready_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Buffers in use.
    pub pool: PoolUse,
    /// The read cache.
    pub cache: CacheUse,
    /// Whether it takes puts.
    pub state: VolumeState,
}
