//! What changes the state, and what came of it: all that the journal ever holds.
//!
//! Variants and fields are only ever appended: journals of older versions are read by newer ones. Whatever
//! is chosen (times, volumes) stands in the command; nothing is chosen while it is applied.

use blockyard_wire::types::{BlockId, Duty, Epoch, FileInfo, ReplicaState, RequestId, Tuning};
use serde::{Deserialize, Serialize};

use super::blocks::{VolumeIndex, VolumeRow};

/// A block that has become durable, its proofs checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewRow {
    /// Its id.
    pub block: BlockId,
    /// Its place in the file.
    pub index: u32,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// Where it is.
    pub volumes: Vec<VolumeIndex>,
}

/// A change of the state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// A nameserver starts to reign.
    Reign {
        /// One above the last.
        epoch: Epoch,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
    },
    /// A dataserver has come, or what is known of its volumes has changed.
    Join {
        /// Its volumes.
        volumes: Vec<VolumeRow>,
    },
    /// Makes a directory.
    Mkdir {
        /// Where.
        path: String,
        /// Whether missing parents are made, and one that is there is no mistake.
        parents: bool,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// Moves a file or directory.
    Rename {
        /// From where.
        from: String,
        /// To where.
        to: String,
        /// Whether a file that is there is replaced.
        overwrite: bool,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// Removes a file or directory.
    Remove {
        /// Which.
        path: String,
        /// Whether a directory may have entries.
        recursive: bool,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// Opens an upload.
    Begin {
        /// Where the file will appear.
        path: String,
        /// Whether a file that is there is replaced.
        overwrite: bool,
        /// Replicas wanted of each block.
        replication: u8,
        /// MIME type, or empty.
        content_type: String,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// Takes blocks of an upload in: from now on they are wanted.
    AddBlocks {
        /// The upload.
        lease: u64,
        /// The blocks.
        blocks: Vec<NewRow>,
        /// Of the call.
        request: RequestId,
    },
    /// Publishes an upload.
    Commit {
        /// The upload.
        lease: u64,
        /// Blocks of the file.
        blocks: u32,
        /// Bytes of the file.
        length_bytes: u64,
        /// CRC32C of the file.
        crc32c: u32,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// Gives an upload up.
    Abandon {
        /// The upload.
        lease: u64,
        /// Of the call.
        request: RequestId,
    },
    /// Gives up uploads that have been silent for too long.
    Expire {
        /// The uploads.
        leases: Vec<u64>,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
    },
    /// Lets go of replaced or deleted versions that nobody can be reading any more.
    Reap {
        /// The versions.
        versions: Vec<u64>,
    },
    /// A volume has deleted replicas that it owed.
    Deleted {
        /// The volume.
        volume: VolumeIndex,
        /// The blocks.
        blocks: Vec<BlockId>,
    },
    /// A copy has become durable, its proof checked.
    Copied {
        /// The block.
        block: BlockId,
        /// Where it is now, too.
        volume: VolumeIndex,
    },
    /// A volume no longer has replicas that it should.
    Lost {
        /// The volume.
        volume: VolumeIndex,
        /// The blocks.
        blocks: Vec<BlockId>,
    },
    /// What is known of replicas has changed.
    Judged {
        /// The volume.
        volume: VolumeIndex,
        /// The blocks, and what is known of them there.
        replicas: Vec<(BlockId, ReplicaState)>,
    },
    /// A replica is no longer wanted on a volume: damaged, or one too many.
    Drop {
        /// The block.
        block: BlockId,
        /// The volume.
        volume: VolumeIndex,
    },
    /// Makes a file of blocks that are durable already, without an upload of its own.
    Publish {
        /// Where the file will appear.
        path: String,
        /// Whether a file that is there is replaced.
        overwrite: bool,
        /// Replicas wanted of each block.
        replication: u8,
        /// MIME type, or empty.
        content_type: String,
        /// All of its blocks.
        blocks: Vec<NewRow>,
        /// Bytes of the file.
        length_bytes: u64,
        /// CRC32C of the file.
        crc32c: u32,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// The operator's word on some volumes.
    Assign {
        /// Which.
        volumes: Vec<VolumeIndex>,
        /// What is wanted of them.
        duty: Duty,
        /// Of the call.
        request: RequestId,
    },
    /// Another number of replicas for a file's current version, or for all below a directory.
    SetReplication {
        /// Where.
        path: String,
        /// Whether a directory may be meant.
        recursive: bool,
        /// Replicas wanted of each block.
        replication: u8,
        /// Of the call.
        request: RequestId,
    },
    /// How repair and balance are to work.
    Tune {
        /// So.
        tuning: Tuning,
        /// Of the call.
        request: RequestId,
    },
    /// A volume has been opened once more.
    Opened {
        /// The volume.
        volume: VolumeIndex,
        /// Its count of openings.
        generation: u64,
    },
    /// Puts a file or directory into the trash.
    Discard {
        /// Which.
        path: String,
        /// Whether a directory may have entries.
        recursive: bool,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// Takes something out of the trash.
    Restore {
        /// Its number there.
        entry: u64,
        /// Where it is to go; empty for where it was.
        to: String,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// Removes what lies in the trash.
    Empty {
        /// Numbers there.
        entries: Vec<u64>,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
        /// Of the call.
        request: RequestId,
    },
    /// A nameserver whose state is older than what volumes hold has taken the cluster over: blocks of these reigns
    /// that it does not know are kept until an operator lets them go.
    Adopted {
        /// The first of the reigns.
        first_reign: u64,
        /// The last of them.
        last_reign: u64,
        /// Milliseconds since 1970.
        at_unix_ms: u64,
    },
    /// The operator lets go of all that is quarantined.
    Released {
        /// Milliseconds since 1970.
        at_unix_ms: u64,
    },
    /// The losses of volumes have been made good: all that they held has enough replicas elsewhere. Or they are back.
    MadeGood {
        /// The volumes.
        volumes: Vec<VolumeIndex>,
        /// Whether they are still lost.
        made_good: bool,
    },
}

impl Command {
    /// The id under which its outcome is kept.
    pub fn request(&self) -> Option<RequestId> {
        let request = match self {
            Self::Mkdir { request, .. }
            | Self::Rename { request, .. }
            | Self::Remove { request, .. }
            | Self::Begin { request, .. }
            | Self::Assign { request, .. }
            | Self::Discard { request, .. }
            | Self::Restore { request, .. }
            | Self::Empty { request, .. }
            | Self::SetReplication { request, .. }
            | Self::Tune { request, .. }
            | Self::AddBlocks { request, .. }
            | Self::Commit { request, .. }
            | Self::Abandon { request, .. }
            | Self::Publish { request, .. } => *request,
            _ => return None,
        };
        (request != RequestId::default()).then_some(request)
    }
}

/// What a command led to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// A directory was made or was there.
    Made {
        /// It.
        file: Box<FileInfo>,
    },
    /// An upload was opened.
    Begun {
        /// Its name.
        lease: u64,
        /// The version it will publish.
        version: u64,
        /// Replicas wanted of each block.
        replication: u8,
    },
    /// A file was published.
    Committed {
        /// It.
        file: Box<FileInfo>,
        /// Blocks with fewer good replicas than wanted.
        degraded: u32,
    },
    /// Files were removed.
    Removed {
        /// How many.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A copy has come too late; its volume owes the deletion.
    Unwanted,
    /// Files got another number of replicas.
    Replicated {
        /// How many.
        files: u64,
    },
    /// Reigns are no longer quarantined.
    Released {
        /// How many.
        reigns: u64,
    },
}
