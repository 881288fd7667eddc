//! What callers ask for and what they are told.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{BlockInfo, ClusterId, Epoch, FileInfo};

use crate::trace::{ReadTraceFn, TraceFn};

/// How a [`Client`](crate::Client) reaches its cluster and how patient it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// `HOST:PORT` of each nameserver; the first that answers serves.
    pub nameservers: Vec<String>,
    /// The cluster's secret.
    pub secret: ClusterSecret,
    /// Blocks that one transfer has under way; each takes a buffer of 4 MiB, and two more are in use.
    pub blocks_in_flight: usize,
    /// Blocks that all uploads together have under way. More would wait in a queue somewhere, and be gone from the
    /// processor's caches by the time they are sent.
    pub uploads_in_flight: usize,
    /// Blocks' worth of bytes that all downloads together have asked for and not yet received, for the same reason.
    pub downloads_in_flight: usize,
    /// For one attempt to connect, hello included.
    pub connect_timeout: Duration,
    /// For one answer of the nameserver; after it the connection counts as lost.
    pub call_timeout: Duration,
    /// How long a lost nameserver is looked for, and a block is tried anew on other volumes.
    pub retry_for: Duration,
    /// A read without a byte for so long is tried at another replica.
    pub read_stall: Duration,
    /// A write without any progress for so long is tried with other volumes.
    pub write_stall: Duration,
    /// A volume that gives no sign of life for so long, though it was asked for one, is left for others; nor does
    /// connecting to one take longer. More than a dataserver gives its neighbour, so that the one to blame is named by
    /// the one beside it.
    pub silence: Duration,
    /// Where the client is: of replicas that are not on its own host it prefers those of its zone.
    pub zone: Option<String>,
}

impl Options {
    /// The usual patience, for the cluster behind `nameservers`.
    pub fn new(nameservers: Vec<String>, secret: ClusterSecret) -> Self {
        Self {
            nameservers,
            secret,
            blocks_in_flight: 4,
            uploads_in_flight: 8,
            downloads_in_flight: 12,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(20),
            retry_for: Duration::from_secs(30),
            read_stall: Duration::from_secs(5),
            write_stall: Duration::from_secs(20),
            silence: Duration::from_millis(3500),
            zone: None,
        }
    }
}

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes that are durable on their volumes (upload) or handed to the sink (download).
    pub bytes: u64,
    /// Bytes in all, where known.
    pub total_bytes: Option<u64>,
}

/// Told after each block, on the client's own thread: it must not block.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How a file is uploaded.
#[derive(Clone, Default)]
pub struct UploadOptions {
    /// Replace a file that is already there.
    pub overwrite: bool,
    /// Replicas of each block; 0 takes the cluster's default.
    pub replication: u8,
    /// MIME type, or empty.
    pub content_type: String,
    /// Told as blocks become durable.
    pub progress: Option<ProgressFn>,
    /// Bytes that the source is expected to give; only for progress and for allocating ahead.
    pub length_hint: Option<u64>,
    /// Told where the time of each block went.
    pub trace: Option<TraceFn>,
}

/// A published upload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uploaded {
    /// The file as published.
    pub file: FileInfo,
    /// Blocks with fewer replicas than asked for.
    pub degraded: u32,
    /// Blocks that had to be sent again to other volumes.
    pub retried_blocks: u32,
}

/// What part of a file is downloaded.
#[derive(Clone, Default)]
pub struct DownloadOptions {
    /// Bytes wanted, cut at the file's end; all when `None`.
    pub range: Option<Range<u64>>,
    /// Told as blocks are handed to the sink.
    pub progress: Option<ProgressFn>,
    /// Told where the time of each piece went.
    pub trace: Option<ReadTraceFn>,
}

/// A finished download.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Downloaded {
    /// The file that was read.
    pub file: FileInfo,
    /// Bytes handed to the sink.
    pub bytes: u64,
    /// CRC32C of those bytes.
    pub crc32c: u32,
    /// Whether they are the whole file and its CRC was found right. (Ranges are verified by their units.)
    pub verified_whole: bool,
    /// Reads that had to turn to another replica.
    pub failovers: u32,
}

/// Which entries of a directory are listed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListOptions {
    /// Only names (recursive: paths below the directory) that start so.
    pub prefix: String,
    /// Only what comes behind this name (recursive: path below the directory).
    pub after: String,
    /// Entries a page, at most 1000; 0 means 1000.
    pub limit: u32,
    /// Everything below, by path.
    pub recursive: bool,
}

/// What a removal took away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A backup of the nameserver's metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackupTaken {
    /// The cluster.
    pub cluster: ClusterId,
    /// The reign that it was taken in.
    pub epoch: Epoch,
    /// Files written.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Where a block belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// The block and its replicas, with read tickets.
    pub info: BlockInfo,
    /// The file that holds it; empty where none does now.
    pub path: String,
    /// The version it was made for.
    pub version: u64,
}
