//! What a dataserver is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;

use blockyard_engine::{LaneOptions, PoolOptions};
use blockyard_wire::secret::ClusterSecret;

/// Everything that [`start`](crate::start) needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folders of the volumes, one each; made and formatted at first start.
    pub volumes: Vec<PathBuf>,
    /// Volume k listens on this port + k; port 0: any free port for each.
    pub listen: SocketAddr,
    /// `HOST:PORT` of nameservers; any that answers is used.
    pub nameservers: Vec<String>,
    /// The host that others reach this server by; the listening address where `None`.
    pub advertise: Option<String>,
    /// The failure zone.
    pub zone: String,
    /// Bytes that each volume may fill; all of its filesystem less the reserve where `None`.
    pub capacity_bytes: Option<u64>,
    /// Bytes to leave free on the filesystem where no capacity is given; the engine's default where `None`.
    pub reserve_bytes: Option<u64>,
    /// Volume k's thread is pinned to the kth of these CPUs, round and round; not at all when empty.
    pub cpus: Vec<usize>,
    /// Buffers of each volume: the bound on its memory.
    pub pool: PoolOptions,
    /// Bytes of each volume's read cache, on top of the buffers; 0 = none.
    pub read_cache_bytes: u64,
    /// Bytes per second at which each volume reads and verifies what it keeps, in the background; 0 = not at all.
    pub scrub_bytes_per_s: u64,
    /// Whether each volume fills free slots with zeros while nobody uses it, so that later puts are quicker.
    pub zero_fill: bool,
    /// The cluster's secret.
    pub secret: ClusterSecret,
    /// Whether the operator gave the secret; without that nothing listens beyond loopback.
    pub secret_given: bool,
    /// How long to wait for what.
    pub deadlines: Deadlines,
}

impl Config {
    /// Everything else at its default.
    pub fn new(
        volumes: Vec<PathBuf>,
        listen: SocketAddr,
        nameservers: Vec<String>,
        secret: ClusterSecret,
    ) -> Self {
        Self {
            volumes,
            listen,
            nameservers,
            advertise: None,
            zone: "default".to_owned(),
            capacity_bytes: None,
            reserve_bytes: None,
            cpus: Vec::new(),
            pool: default_pool(),
            read_cache_bytes: DEFAULT_READ_CACHE_BYTES,
            scrub_bytes_per_s: DEFAULT_SCRUB_BYTES_PER_S,
            zero_fill: true,
            secret,
            secret_given: false,
            deadlines: Deadlines::default(),
        }
    }
}

/// The read cache of a volume unless told otherwise: small beside its buffers, so that several volumes fit any machine.
pub const DEFAULT_READ_CACHE_BYTES: u64 = 64 << 20;

/// The pace of the scrub unless told otherwise: 4 TB in three days.
pub const DEFAULT_SCRUB_BYTES_PER_S: u64 = 16 << 20;

/// The buffers of a volume unless told otherwise: about 104 MiB, touched as they are used.
pub fn default_pool() -> PoolOptions {
    let lane = LaneOptions { large: 8, small: 16 };
    PoolOptions {
        head: lane,
        next: lane,
        repair: LaneOptions { large: 1, small: 4 },
        read: lane,
    }
}

/// How long a dataserver waits before it gives something up, in milliseconds.
///
/// Most are generous: they free what a lost peer holds, they don't pace a slow one. Those for other volumes are short,
/// because a write that waits for a stopped one can go elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For a peer's hello.
    pub hello_ms: u64,
    /// For a connection to another volume, hello included.
    pub connect_ms: u64,
    /// For a pool buffer; then the request is refused as busy.
    pub buffer_ms: u64,
    /// For the next byte of a frame, a packet or a write's progress.
    pub progress_ms: u64,
    /// For a sign of life from a volume that requests wait for, asked for halfway: one that is stopped gives none, one
    /// that is only slow does.
    pub silence_ms: u64,
    /// For the durable answer of each hop behind, once it has all bytes.
    pub answer_ms: u64,
    /// For requests in flight when the server stops.
    pub stop_ms: u64,
    /// A connection without requests is closed after this.
    pub idle_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            hello_ms: 10_000,
            connect_ms: 2_500,
            buffer_ms: 15_000,
            progress_ms: 30_000,
            silence_ms: 2_500,
            answer_ms: 30_000,
            stop_ms: 5_000,
            idle_ms: 600_000,
        }
    }
}
