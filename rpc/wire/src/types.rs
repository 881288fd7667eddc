//! Plain types of the control plane: what every room passes around instead of Cap'n Proto readers.

use std::fmt;
use std::str::FromStr;

pub use blockyard_engine::block::{BlockId, Origin};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ticket::Ticket;

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A fresh random id.
            ///
            /// # Panics
            /// When the operating system has no randomness to give.
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
                Self(bytes)
            }

            /// Whether this is the zero id, which stands for "none" on the wire.
            pub fn is_zero(&self) -> bool {
                self.0 == [0; 16]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(BadId);
                }
                u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| BadId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    let text = String::deserialize(from)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(from).map(Self)
                }
            }
        }
    };
}

id128!(
    /// A cluster.
    ClusterId
);
id128!(
    /// A volume of a dataserver.
    VolumeId
);
id128!(
    /// One life of a nameserver or of a volume: tells twins apart.
    Incarnation
);

/// The text was not 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an id is 32 hexadecimal digits")]
pub struct BadId;

/// The reign of a nameserver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// Counts up by one with each start.
    pub number: u64,
    /// Random, of this start.
    pub incarnation: Incarnation,
}

/// One place of a chain, or one replica to read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// The volume there.
    pub volume: VolumeId,
    /// `HOST:PORT` of the volume's data listener.
    pub address: String,
    /// `HOST:PORT` of its dataserver, for people.
    pub server: String,
    /// The right to use it.
    pub ticket: Ticket,
}

/// What is known of a replica's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaState {
    /// Served.
    #[default]
    Good,
    /// Recovered past the durable watermark and not verified: not served.
    Suspect,
    /// Failed its checksum: not served.
    Corrupt,
}

/// A replica as its volume tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replica {
    /// Which block.
    pub block: BlockId,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// Whether it is served.
    pub state: ReplicaState,
}

/// What a volume hands out once a replica is durable: HMAC over block, length, CRC and volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaProof {
    /// The volume that holds it.
    pub volume: VolumeId,
    /// HMAC-SHA256.
    pub mac: [u8; 32],
}

/// Whether a volume takes blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeState {
    /// Reads and writes.
    #[default]
    Serving,
    /// Reads and deletes only: no space.
    Full,
    /// An I/O error has latched: reads where they still succeed.
    Failed,
}

/// What a dataserver tells of one of its volumes with each heartbeat.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VolumeReport {
    /// The volume.
    pub id: VolumeId,
    /// Its life: changes when it is formatted or cloned.
    pub incarnation: Incarnation,
    /// Counts up with each opening.
    pub generation: u64,
    /// `HOST:PORT` of its data listener.
    pub address: String,
    /// Its folder, for people.
    pub directory: String,
    /// Whether it takes blocks.
    pub state: VolumeState,
    /// Why it failed; empty otherwise.
    pub reason: String,
    /// Bytes it may fill.
    pub capacity_bytes: u64,
    /// Bytes of slots in use, headers and padding included.
    pub used_bytes: u64,
    /// Bytes that new blocks can still take.
    pub free_bytes: u64,
    /// Replicas held.
    pub replicas: u64,
    /// Replicas known to be damaged.
    pub corrupt: u64,
    /// Replicas that recovery could not vouch for.
    pub suspects: u64,
    /// Payload bytes written since the process started.
    pub write_bytes: u64,
    /// Payload bytes read since then.
    pub read_bytes: u64,
    /// fdatasync calls since then.
    pub flushes: u64,
    /// Pool bytes in use.
    pub pool_used_bytes: u64,
    /// Pool bytes in all.
    pub pool_bytes: u64,
    /// Requests being served.
    pub in_flight: u32,
    /// Reads for clients and writes since the start; copies for repair are not in it.
    pub client_requests: u64,
    /// I/O errors since the start.
    pub io_errors: u64,
    /// At most 256 damaged blocks, lowest ids first.
    pub corrupt_blocks: Vec<BlockId>,
    /// The highest epoch that it has seen; number 0 where it has seen none, or does not say.
    pub epoch: Epoch,
    /// From the last packet until slot and record were written.
    pub write: LatencyReport,
    /// From there until all was durable.
    pub flush: LatencyReport,
    /// From the request until the disk had answered.
    pub read: LatencyReport,
    /// How far its scrub is.
    pub scrub: ScrubReport,
    /// Chains that lead through it, the busiest first; at most [`FLOWS_MAX`].
    pub flows: Vec<Flow>,
}

/// Flows that a volume tells of at the most.
pub const FLOWS_MAX: usize = 32;

/// Blocks that are written through a volume, of one sender and to one next hop.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Flow {
    /// Address of the client's host, or of the hop's before this one.
    pub from: String,
    /// Whether it comes from a client.
    pub head: bool,
    /// The next volume; 0 at the end of the chain.
    pub next: VolumeId,
    /// Blocks that are under way.
    pub in_flight: u32,
    /// Blocks written since the flow began.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How much later than this volume those behind it had a block durable, of late, microseconds.
    pub lag_us: u32,
}

/// What a volume's scrub is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScrubState {
    /// Nothing, ever: it has no pace.
    #[default]
    Off,
    /// It waits for its next pass.
    Waiting,
    /// It reads and verifies.
    Running,
    /// It waits until it is started again.
    Paused,
}

/// How far a volume's scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// What it is doing.
    pub state: ScrubState,
    /// Passes that have ended.
    pub passes: u64,
    /// When the last of them ended, milliseconds since 1970; 0: none has.
    pub last_pass_unix_ms: u64,
    /// Bytes that this pass found whole.
    pub pass_bytes: u64,
    /// Findings of this pass.
    pub damaged: u64,
    /// Its pace.
    pub bytes_per_s: u64,
}

/// What a scrub is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScrubOrder {
    /// To begin a pass at once, or to go on with the one that is paused.
    Start,
    /// To wait until it is started again, also after restarts.
    Pause,
}

/// How long work took of late.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LatencyReport {
    /// Pieces of work; with none, nothing is known.
    pub count: u64,
    /// The median, microseconds.
    pub p50_us: u32,
    /// What one in a hundred exceeds, microseconds.
    pub p99_us: u32,
}

/// What could be measured of a dataserver's machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HostReport {
    /// How busy all cores together were since the last heartbeat.
    pub cpu_busy_permille: Option<u16>,
    /// The kernel's load average over a minute, times 1000.
    pub load1_permille: Option<u32>,
    /// Cores.
    pub cores: Option<u32>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory that could be given to somebody.
    pub memory_available_bytes: Option<u64>,
    /// Bytes per second that its network interfaces took in since the last heartbeat.
    pub net_in_bytes_per_s: Option<u64>,
    /// And gave out.
    pub net_out_bytes_per_s: Option<u64>,
}

/// What a dataserver tells of itself when it joins.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServerInfo {
    /// `HOST:PORT`: its name in the cluster.
    pub address: String,
    /// Its failure zone.
    pub zone: String,
    /// Blockyard's version.
    pub version: String,
    /// Host name, for people.
    pub host: String,
    /// Its volumes.
    pub volumes: Vec<VolumeReport>,
}

/// What a login answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Its id.
    pub cluster: ClusterId,
    /// The nameserver's reign.
    pub epoch: Epoch,
    /// The default replication factor.
    pub replication: u8,
    /// Fewer live volumes than this refuse a write.
    pub min_replicas: u8,
    /// Bytes of the longest block.
    pub block_bytes: u32,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u32,
    /// Milliseconds that an upload may be silent.
    pub lease_ms: u32,
    /// The nameserver's clock, milliseconds since 1970.
    pub now_unix_ms: u64,
    /// `HOST:PORT` it listens on.
    pub address: String,
}

/// Names a mutation, so that a retry applies once. Zero: never retried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RequestId {
    /// Random, of one client session.
    pub client: u64,
    /// Counts up.
    pub number: u64,
}

/// A file or a directory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileInfo {
    /// From the root, `/a/b`.
    pub path: String,
    /// Last part of the path.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Id of the current version, also its ETag; 0 for a directory.
    pub version: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// CRC32C of the whole file.
    pub crc32c: u32,
    /// Blocks of the version.
    pub blocks: u32,
    /// First published, milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Last published, milliseconds since 1970.
    pub modified_unix_ms: u64,
    /// Replicas wanted of each block.
    pub replication: u8,
    /// MIME type given at upload, or empty.
    pub content_type: String,
    /// Entries of a directory.
    pub children: u32,
}

/// A replica as the nameserver tells of it, with the right to read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// Where, and the read ticket.
    pub hop: Hop,
    /// What is known of its bytes.
    pub state: ReplicaState,
    /// Whether its volume is being heard from.
    pub live: bool,
    /// The zone of its server.
    pub zone: String,
}

/// A block of a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Its id.
    pub block: BlockId,
    /// Its place in the file.
    pub index: u32,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// The best to read from first.
    pub replicas: Vec<Location>,
}

/// A block id and the chain to write it through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewBlock {
    /// Its id.
    pub block: BlockId,
    /// Head first.
    pub chain: Vec<Hop>,
}

/// A block that is durable, told to the nameserver.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddedBlock {
    /// Its id.
    pub block: BlockId,
    /// Its place in the file.
    pub index: u32,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// One for each replica.
    pub proofs: Vec<ReplicaProof>,
}

/// A path to be looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sought {
    /// Of a file or directory.
    pub path: String,
    /// How many of its first blocks are wanted with it.
    pub blocks_max: u32,
}

/// A file of few blocks, all durable, to be published in one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewFile {
    /// Where it will appear.
    pub path: String,
    /// Whether a file that is there is replaced.
    pub overwrite: bool,
    /// Replicas wanted of each block; 0 takes the cluster's default.
    pub replication: u8,
    /// MIME type, or empty.
    pub content_type: String,
    /// All of its blocks.
    pub blocks: Vec<AddedBlock>,
    /// Bytes of the file.
    pub length_bytes: u64,
    /// CRC32C of the file.
    pub crc32c: u32,
    /// Of the publication.
    pub request: RequestId,
}

/// An upload in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Names the upload.
    pub id: u64,
    /// The version it will publish.
    pub version: u64,
    /// Milliseconds it may be silent.
    pub lease_ms: u32,
    /// Replicas wanted of each block.
    pub replication: u8,
}

/// Whether a server or volume is being heard from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Heartbeats arrive.
    #[default]
    Alive,
    /// Some are missing.
    Suspect,
    /// Given up; its blocks count as lost there.
    Dead,
}

/// An operator's word on a volume: it beats every timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    /// Takes blocks and keeps them.
    #[default]
    Serving,
    /// May be away: gets no new blocks, and what it has is not copied elsewhere.
    Maintenance {
        /// Until then, milliseconds since 1970.
        until_unix_ms: u64,
    },
    /// Gets no new blocks, and those it has move elsewhere.
    Draining,
    /// Out of the cluster for good: what it had counts as lost, and it may not join again.
    Removed,
}

/// A volume as the nameserver sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its last report.
    pub report: VolumeReport,
    /// Whether it is being heard from.
    pub liveness: Liveness,
    /// Replicas that the nameserver has on it.
    pub blocks: u64,
    /// Deletions not yet done there.
    pub pending_deletes: u64,
    /// What the operator wants of it.
    pub duty: Duty,
    /// Back after it counted as lost: what it holds is still being compared.
    pub returning: bool,
    /// Why it looks like a copy or an old image of itself; empty where it doesn't.
    pub suspicion: String,
}

impl VolumeStatus {
    /// Whether it is heard from, reads and writes.
    pub fn serves(&self) -> bool {
        self.liveness == Liveness::Alive && self.report.state == VolumeState::Serving
    }

    /// Whether it is draining and nothing is left on it that is needed.
    pub fn is_drained(&self) -> bool {
        self.duty == Duty::Draining && self.blocks == 0 && self.pending_deletes == 0
    }
}

/// How repair and balance are to work, as the operator has set them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tuning {
    /// Nothing is copied, moved or trimmed.
    pub repair_paused: bool,
    /// Repair goes on although more servers are gone than the share that holds it back.
    pub repair_forced: bool,
    /// Bytes per second that copies may take, over the whole cluster; 0: what clients leave.
    pub repair_bytes_per_s: u64,
    /// Full volumes give nothing to empty ones.
    pub balance_off: bool,
}

/// Blocks that wait for one kind of work, and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes, each counted once.
    pub bytes: u64,
}

/// What repair has before it and behind it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RepairStatus {
    /// How it is to work.
    pub tuning: Tuning,
    /// Why it does nothing although there is work; empty otherwise.
    pub held: String,
    /// Blocks of which one good replica is left.
    pub one_left: Backlog,
    /// Other blocks with too few.
    pub under: Backlog,
    /// Blocks on draining volumes.
    pub leaving: Backlog,
    /// Blocks with two replicas in one server or zone, where there is another.
    pub misplaced: Backlog,
    /// Copies under way.
    pub copying: u32,
    /// Blocks and bytes copied since the nameserver started, for repair and drain.
    pub copied: Backlog,
    /// Blocks and bytes moved since then to even out how full volumes are.
    pub balanced: Backlog,
    /// Bytes per second of late.
    pub bytes_per_s: u64,
    /// Milliseconds until what is before it is done at that pace; 0 where nothing can be said.
    pub eta_ms: u64,
    /// Replicas that could not be copied since the start.
    pub failed: u64,
}

impl RepairStatus {
    /// All blocks that wait for a copy.
    pub fn waiting(&self) -> Backlog {
        let all = [self.one_left, self.under, self.leaving, self.misplaced];
        Backlog {
            blocks: all.iter().map(|backlog| backlog.blocks).sum(),
            bytes: all.iter().map(|backlog| backlog.bytes).sum(),
        }
    }
}

/// A dataserver as the nameserver sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServerStatus {
    /// `HOST:PORT`.
    pub address: String,
    /// Its failure zone.
    pub zone: String,
    /// Host name.
    pub host: String,
    /// Blockyard's version there.
    pub version: String,
    /// Whether it is being heard from.
    pub liveness: Liveness,
    /// Milliseconds since the last heartbeat.
    pub since_heartbeat_ms: u64,
    /// Its volumes.
    pub volumes: Vec<VolumeStatus>,
    /// What its machine is doing.
    pub host_report: HostReport,
}

/// The whole cluster as the nameserver sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Ids, defaults, clock.
    pub cluster: ClusterInfo,
    /// All dataservers known.
    pub servers: Vec<ServerStatus>,
    /// Files published.
    pub files: u64,
    /// Directories, the root not counted.
    pub directories: u64,
    /// Blocks wanted.
    pub blocks: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Blocks with fewer live good replicas than wanted, but at least one.
    pub under_replicated_blocks: u64,
    /// Blocks without a live good replica.
    pub missing_blocks: u64,
    /// Replicas known to be damaged.
    pub corrupt_replicas: u64,
    /// Uploads in progress.
    pub leases: u64,
    /// Milliseconds since the nameserver started.
    pub uptime_ms: u64,
    /// Bytes of the journal since the last snapshot.
    pub journal_bytes: u64,
    /// Copies under way.
    pub repairing: u64,
    /// Deletions not yet done.
    pub pending_deletes: u64,
    /// The nameserver's version.
    pub version: String,
    /// Just started: repair and deletion wait for reports.
    pub safe_mode: bool,
    /// Why nothing can be changed; empty when it can.
    pub read_only: String,
    /// What repair and balance are doing.
    pub repair: RepairStatus,
    /// Files in the trash, not counted among `files`.
    pub trash_files: u64,
    /// Their bytes, not counted among `file_bytes`.
    pub trash_bytes: u64,
}

/// Something in the trash.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trashed {
    /// Its number there.
    pub entry: u64,
    /// What it is: with the path where it was, and the bytes of all that is in it.
    pub file: FileInfo,
    /// Since when, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Files in it.
    pub files: u64,
}

/// What the nameserver says of its own data.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CustodyState {
    /// Why nothing can be changed; empty when it can.
    pub read_only: String,
    /// Which of two journal folders has failed, and why; empty when none has.
    pub journal_trouble: String,
    /// Replicas seen of quarantined blocks.
    pub quarantined: u64,
    /// The reigns that they may be of.
    pub quarantined_reigns: u64,
}

/// A file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BackupFile {
    /// Its name below the nameserver's folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A block on a volume that nobody knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Orphan {
    /// The block.
    pub block: BlockId,
    /// Milliseconds since it was first seen in this reign.
    pub age_ms: u64,
    /// Kept after a restore, until an operator lets it go.
    pub quarantined: bool,
}

/// A block that a volume should hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldBlock {
    /// Its id.
    pub block: BlockId,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// Its place in the file.
    pub index: u32,
    /// The version it was made for.
    pub version: u64,
    /// The file that holds it now; empty where none does.
    pub path: String,
    /// What is known of its bytes.
    pub state: ReplicaState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_digits_for_people() {
        let id = VolumeId([0xab, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xff]);
        assert_eq!(id.to_string(), "ab000102030405060708090a0b0c0dff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        for bad in [
            "",
            "ab",
            "+b000102030405060708090a0b0c0dff",
            "zz000102030405060708090a0b0c0dff",
        ] {
            assert_eq!(bad.parse::<VolumeId>(), Err(BadId), "{bad}");
        }
    }
}
