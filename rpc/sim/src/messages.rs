//! What hosts say to each other: one question, one answer. Plain values; no bytes, but names of bytes.

use blockyard_nameserver::simulated::{CopyOrder, Sent};
use blockyard_wire::Problem;
use blockyard_wire::digest::Digest;
use blockyard_wire::ticket::Ticket;
use blockyard_wire::types::{
    AddedBlock, BlockId, BlockInfo, ClusterInfo, Epoch, FileInfo, Hop, Lease, NewBlock, NewFile, Replica,
    ReplicaProof, ReplicaState, RequestId, ServerInfo, Trashed, Tuning, VolumeId, VolumeReport,
};

/// A block's bytes, by name: two blocks are equal when their contents are.
pub type Content = u64;

/// The CRC32C that stands for a content: 32 bits that change with every bit of it and of the length.
pub fn crc_of(content: Content, length: u32) -> u32 {
    let mut z = content.wrapping_add(u64::from(length).rotate_left(40));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as u32
}

/// A block on its way through a chain; it comes with its bytes, as short ones do.
#[derive(Clone, Debug)]
pub struct Put {
    /// The block.
    pub block: BlockId,
    /// Bytes.
    pub length: u32,
    /// CRC32C that the sender has computed.
    pub crc32c: u32,
    /// What it says.
    pub content: Content,
    /// Place of the receiver in the chain, 0 the head.
    pub position: u8,
    /// The receiver and all behind it.
    pub chain: Vec<Hop>,
}

/// What a chain answers to a put.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// One of each hop, the answering one first.
    pub proofs: Vec<ReplicaProof>,
}

/// A question.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Request {
    // To the nameserver, from clients.
    Login,
    Lookup {
        path: String,
    },
    Blocks {
        version: u64,
        from: u32,
    },
    Mkdir {
        path: String,
        request: RequestId,
    },
    Rename {
        from: String,
        to: String,
        overwrite: bool,
        request: RequestId,
    },
    Remove {
        path: String,
        request: RequestId,
    },
    Discard {
        path: String,
        request: RequestId,
    },
    Trash {
        after: u64,
    },
    Restore {
        entry: u64,
        request: RequestId,
    },
    SetReplication {
        path: String,
        replication: u8,
        request: RequestId,
    },
    Tune {
        tuning: Tuning,
        request: RequestId,
    },
    Begin {
        path: String,
        overwrite: bool,
        replication: u8,
        content_type: String,
        request: RequestId,
    },
    Allocate {
        lease: u64,
        count: u32,
        avoid: Vec<VolumeId>,
    },
    Reserve {
        replication: u8,
        count: u32,
        avoid: Vec<VolumeId>,
    },
    AddBlocks {
        lease: u64,
        blocks: Vec<AddedBlock>,
        request: RequestId,
    },
    Commit {
        lease: u64,
        sent: Sent,
        request: RequestId,
    },
    Publish(Box<NewFile>),
    Renew(u64),
    Abandon {
        lease: u64,
        request: RequestId,
    },
    ReportBad {
        block: BlockId,
        volume: VolumeId,
        problem: Problem,
    },
    // To the nameserver, from dataservers.
    Join(Box<ServerInfo>),
    Heartbeat(Vec<VolumeReport>),
    Damage {
        volume: VolumeId,
        replicas: Vec<Replica>,
    },
    // To dataservers, from the nameserver.
    Digest(VolumeId),
    Replicas {
        volume: VolumeId,
        bucket: u8,
        after: BlockId,
        limit: u32,
    },
    Delete {
        volume: VolumeId,
        epoch: Epoch,
        blocks: Vec<BlockId>,
    },
    Copy {
        volume: VolumeId,
        epoch: Epoch,
        order: Box<CopyOrder>,
    },
    Verify {
        volume: VolumeId,
        block: BlockId,
    },
    Settle {
        volume: VolumeId,
        epoch: Epoch,
        block: BlockId,
        wanted: bool,
    },
    // To dataservers, from clients and each other.
    Put(Box<Put>),
    Get {
        address: String,
        block: BlockId,
        length: u32,
        ticket: Ticket,
        of_dataserver: bool,
    },
}

/// An answer.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Answer {
    Done,
    Cluster(Box<ClusterInfo>),
    Found(Box<FileInfo>, Vec<BlockInfo>),
    Blocks(Vec<BlockInfo>),
    New(Vec<NewBlock>),
    Begun(Lease),
    Trashed(Vec<Trashed>),
    Published(Box<FileInfo>),
    Digest(Digest),
    Replicas(Vec<Replica>, bool),
    Proof(ReplicaProof),
    State(ReplicaState),
    Stored(Stored),
    Bytes(Content),
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The connection is lost; whether anything was done is not known.
    Lost,
    /// The other side said no.
    Refused(Problem),
    /// A hop of a chain said no, and names the one to blame.
    Aborted(Problem, VolumeId),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

/// What comes of a step of a question.
pub type Answered<T> = std::result::Result<T, Failure>;

/// How a question ended.
pub type Outcome = Answered<Answer>;

impl Request {
    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Lookup { .. } => "lookup",
            Self::Blocks { .. } => "blocks",
            Self::Mkdir { .. } => "mkdir",
            Self::Rename { .. } => "rename",
            Self::Remove { .. } => "remove",
            Self::Discard { .. } => "discard",
            Self::Trash { .. } => "trash",
            Self::Restore { .. } => "restore",
            Self::SetReplication { .. } => "setrep",
            Self::Tune { .. } => "tune",
            Self::Begin { .. } => "begin",
            Self::Allocate { .. } => "allocate",
            Self::Reserve { .. } => "reserve",
            Self::AddBlocks { .. } => "add-blocks",
            Self::Commit { .. } => "commit",
            Self::Publish(_) => "publish",
            Self::Renew(_) => "renew",
            Self::Abandon { .. } => "abandon",
            Self::ReportBad { .. } => "report-bad",
            Self::Join(_) => "join",
            Self::Heartbeat(_) => "heartbeat",
            Self::Damage { .. } => "damage",
            Self::Digest(_) => "digest",
            Self::Replicas { .. } => "replicas",
            Self::Delete { .. } => "delete",
            Self::Copy { .. } => "copy",
            Self::Verify { .. } => "verify",
            Self::Settle { .. } => "settle",
            Self::Put(_) => "put",
            Self::Get { .. } => "get",
        }
    }

    /// The block or lease it is about, 0 for none: what a trace is searched by.
    pub fn key(&self) -> u64 {
        match self {
            Self::ReportBad { block, .. }
            | Self::Verify { block, .. }
            | Self::Settle { block, .. }
            | Self::Get { block, .. } => block.0,
            Self::Put(put) => put.block.0,
            Self::Copy { order, .. } => order.block.0,
            Self::Publish(file) => file.blocks.first().map_or(0, |added| added.block.0),
            Self::AddBlocks { blocks, .. } => blocks.first().map_or(0, |added| added.block.0),
            Self::Delete { blocks, .. } => blocks.first().map_or(0, |block| block.0),
            Self::Damage { replicas, .. } => replicas.first().map_or(0, |replica| replica.block.0),
            Self::Allocate { lease, .. }
            | Self::Commit { lease, .. }
            | Self::Renew(lease)
            | Self::Abandon { lease, .. } => *lease,
            Self::Blocks { version, .. } => *version,
            _ => 0,
        }
    }

    /// The path it is about, if any.
    pub fn path(&self) -> &str {
        match self {
            Self::Lookup { path }
            | Self::Mkdir { path, .. }
            | Self::Remove { path, .. }
            | Self::Discard { path, .. }
            | Self::SetReplication { path, .. }
            | Self::Begin { path, .. } => path,
            Self::Rename { from, .. } => from,
            Self::Publish(file) => &file.path,
            _ => "",
        }
    }
}

/// The blocks that a question names, where they are several.
pub fn blocks_of(request: &Request) -> Option<Vec<u64>> {
    match request {
        Request::Delete { blocks, .. } => Some(blocks.iter().map(|block| block.0).collect()),
        Request::AddBlocks { blocks, .. } => Some(blocks.iter().map(|added| added.block.0).collect()),
        _ => None,
    }
}
