//! The shapes of the JSON API: what is told of a cluster, its files and blocks. Ids are text, because a
//! browser's numbers end at 2^53.

use serde::{Deserialize, Serialize};

use blockyard_wire::types::{
    BlockInfo, ClusterStatus, FileInfo, HeldBlock, Liveness, Location, ReplicaState, ServerStatus,
    VolumeState, VolumeStatus,
};

use crate::backend::{Located, Removed, Rows, Uploaded};
use crate::conditions::etag;
use crate::health::{self, Health};

/// `GET /api/v1/status`.
#[derive(Serialize)]
pub(crate) struct Status {
    health: Health,
    cluster: String,
    address: String,
    version: String,
    epoch: u64,
    replication: u8,
    min_replicas: u8,
    block_bytes: u32,
    now_unix_ms: u64,
    uptime_ms: u64,
    safe_mode: bool,
    files: u64,
    directories: u64,
    blocks: u64,
    file_bytes: u64,
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    under_replicated_blocks: u64,
    missing_blocks: u64,
    corrupt_replicas: u64,
    uploads: u64,
    repairing: u64,
    pending_deletes: u64,
    journal_bytes: u64,
    servers: Vec<Server>,
}

/// A server of `GET /api/v1/servers`.
#[derive(Serialize)]
pub(crate) struct Server {
    address: String,
    state: Liveness,
    zone: String,
    host: String,
    version: String,
    since_heartbeat_ms: u64,
    volumes: Vec<Volume>,
}

#[derive(Serialize)]
struct Volume {
    id: String,
    server: String,
    state: &'static str,
    liveness: Liveness,
    reason: String,
    address: String,
    directory: String,
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    blocks: u64,
    replicas: u64,
    corrupt: u64,
    suspects: u64,
    pending_deletes: u64,
    written_bytes: u64,
    read_bytes: u64,
    flushes: u64,
    in_flight: u32,
    io_errors: u64,
}

/// A file or folder.
#[derive(Serialize)]
pub(crate) struct File {
    path: String,
    name: String,
    directory: bool,
    version: String,
    size: u64,
    crc32c: String,
    etag: String,
    blocks: u32,
    created_unix_ms: u64,
    modified_unix_ms: u64,
    replication: u8,
    content_type: String,
    children: u32,
}

/// `GET /api/v1/file`.
#[derive(Serialize)]
pub(crate) struct FileBlocks {
    #[serde(flatten)]
    file: File,
    block_list: Vec<Block>,
    more: bool,
}

/// A block with its replicas.
#[derive(Serialize)]
struct Block {
    id: String,
    index: u32,
    length: u32,
    crc32c: String,
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    server: String,
    volume: String,
    address: String,
    zone: String,
    state: ReplicaState,
    live: bool,
}

/// `GET /api/v1/files`.
#[derive(Serialize)]
pub(crate) struct Listing {
    path: String,
    files: Vec<File>,
    more: bool,
}

/// `GET /api/v1/volumes/{id}/blocks`.
#[derive(Serialize)]
pub(crate) struct HeldBlocks {
    volume: String,
    blocks: Vec<Held>,
    more: bool,
}

#[derive(Serialize)]
struct Held {
    id: String,
    index: u32,
    length: u32,
    crc32c: String,
    version: String,
    path: String,
    state: ReplicaState,
}

/// A stored upload.
#[derive(Serialize)]
pub(crate) struct Stored {
    #[serde(flatten)]
    file: File,
    degraded_blocks: u32,
}

/// All files of one form.
#[derive(Serialize)]
pub(crate) struct StoredAll {
    /// In the order of the form.
    pub(crate) files: Vec<Stored>,
}

/// What a removal took away.
#[derive(Serialize)]
pub(crate) struct Gone {
    files: u64,
    bytes: u64,
}

/// `POST /api/v1/rename`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rename {
    /// The path now.
    pub(crate) from: String,
    /// The path wanted.
    pub(crate) to: String,
    /// Whether a file there may be replaced.
    #[serde(default)]
    pub(crate) overwrite: bool,
}

fn crc(crc32c: u32) -> String {
    format!("{crc32c:08x}")
}

impl From<ClusterStatus> for Status {
    fn from(status: ClusterStatus) -> Self {
        let health = health::judge(&status);
        let sum = |of: fn(&VolumeStatus) -> u64| {
            let volumes = status.servers.iter().flat_map(|server| &server.volumes);
            // What is not heard from offers no space.
            volumes
                .filter(|volume| volume.liveness != Liveness::Dead)
                .map(of)
                .sum()
        };
        Self {
            health,
            cluster: status.cluster.cluster.to_string(),
            version: status.version.clone(),
            epoch: status.cluster.epoch.number,
            replication: status.cluster.replication,
            min_replicas: status.cluster.min_replicas,
            block_bytes: status.cluster.block_bytes,
            now_unix_ms: status.cluster.now_unix_ms,
            uptime_ms: status.uptime_ms,
            safe_mode: status.safe_mode,
            files: status.files,
            directories: status.directories,
            blocks: status.blocks,
            file_bytes: status.file_bytes,
            capacity_bytes: sum(|volume| volume.report.capacity_bytes),
            used_bytes: sum(|volume| volume.report.used_bytes),
            free_bytes: sum(|volume| volume.report.free_bytes),
            under_replicated_blocks: status.under_replicated_blocks,
            missing_blocks: status.missing_blocks,
            corrupt_replicas: status.corrupt_replicas,
            uploads: status.leases,
            repairing: status.repairing,
            pending_deletes: status.pending_deletes,
            journal_bytes: status.journal_bytes,
            address: status.cluster.address,
            servers: status.servers.into_iter().map(Server::from).collect(),
        }
    }
}

impl From<ServerStatus> for Server {
    fn from(server: ServerStatus) -> Self {
        let volumes = server.volumes.into_iter();
        Self {
            volumes: volumes
                .map(|volume| Volume::new(volume, &server.address))
                .collect(),
            address: server.address,
            state: server.liveness,
            zone: server.zone,
            host: server.host,
            version: server.version,
            since_heartbeat_ms: server.since_heartbeat_ms,
        }
    }
}

impl Volume {
    fn new(volume: VolumeStatus, server: &str) -> Self {
        let report = volume.report;
        Self {
            id: report.id.to_string(),
            server: server.to_owned(),
            // One word for people: a volume that is not heard from may say what it likes.
            state: match (volume.liveness, report.state) {
                (Liveness::Dead, _) => "dead",
                (Liveness::Suspect, _) => "suspect",
                (Liveness::Alive, VolumeState::Serving) => "serving",
                (Liveness::Alive, VolumeState::Full) => "full",
                (Liveness::Alive, VolumeState::Failed) => "failed",
            },
            liveness: volume.liveness,
            reason: report.reason,
            address: report.address,
            directory: report.directory,
            capacity_bytes: report.capacity_bytes,
            used_bytes: report.used_bytes,
            free_bytes: report.free_bytes,
            blocks: volume.blocks,
            replicas: report.replicas,
            corrupt: report.corrupt,
            suspects: report.suspects,
            pending_deletes: volume.pending_deletes,
            written_bytes: report.write_bytes,
            read_bytes: report.read_bytes,
            flushes: report.flushes,
            in_flight: report.in_flight,
            io_errors: report.io_errors,
        }
    }
}

impl From<FileInfo> for File {
    fn from(file: FileInfo) -> Self {
        Self {
            etag: etag(&file),
            path: file.path,
            name: file.name,
            directory: file.directory,
            version: format!("{:x}", file.version),
            size: file.size_bytes,
            crc32c: crc(file.crc32c),
            blocks: file.blocks,
            created_unix_ms: file.created_unix_ms,
            modified_unix_ms: file.modified_unix_ms,
            replication: file.replication,
            content_type: file.content_type,
            children: file.children,
        }
    }
}

impl From<BlockInfo> for Block {
    fn from(block: BlockInfo) -> Self {
        Self {
            id: block.block.to_string(),
            index: block.index,
            length: block.length,
            crc32c: crc(block.crc32c),
            replicas: block.replicas.into_iter().map(Replica::from).collect(),
        }
    }
}

// The ticket of a location is a right to read it: it must not leave this process.
impl From<Location> for Replica {
    fn from(location: Location) -> Self {
        Self {
            server: location.hop.server,
            volume: location.hop.volume.to_string(),
            address: location.hop.address,
            zone: location.zone,
            state: location.state,
            live: location.live,
        }
    }
}

impl FileBlocks {
    /// `blocks` are those of `file` from the `from`th on.
    pub(crate) fn new(file: FileInfo, blocks: Vec<BlockInfo>, from: u32) -> Self {
        let reached = u64::from(from) + blocks.len() as u64;
        Self {
            more: !blocks.is_empty() && reached < u64::from(file.blocks),
            file: file.into(),
            block_list: blocks.into_iter().map(Block::from).collect(),
        }
    }
}

impl Listing {
    /// The entries of the folder `path`.
    pub(crate) fn new(path: &str, rows: Rows<FileInfo>) -> Self {
        Self {
            path: path.to_owned(),
            files: rows.rows.into_iter().map(File::from).collect(),
            more: rows.more,
        }
    }
}

impl HeldBlocks {
    /// The blocks of `volume`.
    pub(crate) fn new(volume: String, rows: Rows<HeldBlock>) -> Self {
        let held = |block: HeldBlock| Held {
            id: block.block.to_string(),
            index: block.index,
            length: block.length,
            crc32c: crc(block.crc32c),
            version: format!("{:x}", block.version),
            path: block.path,
            state: block.state,
        };
        Self {
            volume,
            blocks: rows.rows.into_iter().map(held).collect(),
            more: rows.more,
        }
    }
}

/// One block and where it belongs.
#[derive(Serialize)]
pub(crate) struct OneBlock {
    #[serde(flatten)]
    block: Block,
    path: String,
    version: String,
}

impl From<Located> for OneBlock {
    fn from(located: Located) -> Self {
        Self {
            block: located.info.into(),
            path: located.path,
            version: format!("{:x}", located.version),
        }
    }
}

impl From<Uploaded> for Stored {
    fn from(uploaded: Uploaded) -> Self {
        Self {
            file: uploaded.file.into(),
            degraded_blocks: uploaded.degraded_blocks,
        }
    }
}

impl From<Removed> for Gone {
    fn from(removed: Removed) -> Self {
        Self {
            files: removed.files,
            bytes: removed.bytes,
        }
    }
}
