//! The engine's one error, and what a caller can do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::block::BlockId;

/// What the engine's operations return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Transient: the same call may succeed later, on this volume.
    Retry,
    /// This replica can't be had here; ask another volume that holds the block.
    OtherReplica,
    /// No room for this block; use another volume or delete something.
    NoSpace,
    /// The caller's mistake: repeating it changes nothing.
    Caller,
    /// The block is there with other content; ids are never reused, so something upstream is wrong.
    Conflict,
    /// The volume can't be used (again) without an operator.
    Fatal,
}

/// Everything that can go wrong on a volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The volume holds no replica of the block.
    #[error("block {block} is not on this volume; ask another replica")]
    NotFound {
        /// The block asked for.
        block: BlockId,
    },
    /// The wanted range does not lie within the block.
    #[error("bytes {offset}..{offset}+{length} do not lie within block {block} of {block_length} B")]
    OutOfRange {
        /// The block asked for.
        block: BlockId,
        /// First byte wanted.
        offset: u32,
        /// Bytes wanted.
        length: u32,
        /// Bytes the block has.
        block_length: u32,
    },
    /// What is on disk is not what was put; nothing of it is returned.
    #[error("replica of block {block} is damaged: {what}; read another replica and repair this one")]
    Corrupt {
        /// The damaged block.
        block: BlockId,
        /// What did not hold.
        what: String,
    },
    /// Recovery could not verify the replica, and nobody has confirmed it since.
    #[error("replica of block {block} is suspect since recovery; read another replica")]
    Suspect {
        /// The suspect block.
        block: BlockId,
    },
    /// Arriving bytes do not have the checksum that came with them.
    #[error(
        "checksum unit {unit} arrived damaged (expected CRC {expected:08x}, got {actual:08x}); send again"
    )]
    ChecksumMismatch {
        /// Index of the 64 KiB unit within the block.
        unit: u32,
        /// The CRC32C announced.
        expected: u32,
        /// The CRC32C of what arrived.
        actual: u32,
    },
    /// The block is here with another length or CRC.
    #[error("block {block} is already here with other content; a block is immutable, use a new id")]
    Conflict {
        /// The block that was put.
        block: BlockId,
    },
    /// There is no slot for a block of this length.
    #[error(
        "no room for a block of {length} B on this volume: {why}; delete something or use another volume"
    )]
    NoSpace {
        /// Bytes of the block.
        length: u32,
        /// Which limit was met.
        why: String,
    },
    /// The epoch is lower than one seen before.
    #[error("epoch {given} is below epoch {seen} that this volume has seen; a newer nameserver reigns")]
    StaleEpoch {
        /// The epoch given.
        given: u64,
        /// The highest epoch seen.
        seen: u64,
    },
    /// The epoch's number was seen with another incarnation.
    #[error("epoch {number} was seen from another incarnation: two nameservers reign at once; stop one")]
    TwinEpoch {
        /// The number both claim.
        number: u64,
    },
    /// An I/O error has latched: no more changes until the volume is replaced or reopened.
    #[error("volume has failed: {reason}; its blocks must be re-replicated elsewhere")]
    Failed {
        /// The first error, which latched.
        reason: Arc<str>,
    },
    /// The volume was closed.
    #[error("volume is closed")]
    Closed,
    /// Another process has the volume open.
    #[error("{dir} is in use by another process; stop that one first")]
    Locked {
        /// The volume's folder.
        dir: PathBuf,
    },
    /// The folder holds something that is not a volume.
    #[error("{dir} is not empty and not a Blockyard volume; give an empty folder")]
    ForeignFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder holds no volume.
    #[error("{dir} holds no Blockyard volume (no volume.toml); format it first")]
    NotAVolume {
        /// The folder.
        dir: PathBuf,
    },
    /// The volume belongs to another cluster.
    #[error("{dir} belongs to cluster {found}, not to {expected}; use another folder")]
    OtherCluster {
        /// The volume's folder.
        dir: PathBuf,
        /// Cluster of the volume, in hexadecimal.
        found: String,
        /// Cluster expected, in hexadecimal.
        expected: String,
    },
    /// The volume was written by a format this version does not read.
    #[error("volume has format {found}; this version reads {supported}; use the version that wrote it")]
    Format {
        /// The format found.
        found: u32,
        /// The newest format read here.
        supported: u32,
    },
    /// The volume's own records contradict each other: nothing is guessed.
    #[error("volume is damaged: {what}; run fsck, or replace the volume and let its blocks be re-replicated")]
    Damaged {
        /// What did not hold, and where.
        what: String,
    },
    /// The call does not fit the state of what it is called on.
    #[error("wrong use: {what}")]
    Misuse {
        /// What the caller did wrong.
        what: String,
    },
    /// The system refuses what a volume needs.
    #[error("can't use io_uring: {what}")]
    Setup {
        /// What was refused and what to set.
        what: String,
    },
    /// The operating system refused an operation.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried, on which file.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::ChecksumMismatch { .. } => Kind::Retry,
            Self::NotFound { .. } | Self::Corrupt { .. } | Self::Suspect { .. } => Kind::OtherReplica,
            Self::NoSpace { .. } => Kind::NoSpace,
            Self::Conflict { .. } => Kind::Conflict,
            Self::OutOfRange { .. }
            | Self::Misuse { .. }
            | Self::StaleEpoch { .. }
            | Self::TwinEpoch { .. } => Kind::Caller,
            Self::Failed { .. }
            | Self::Closed
            | Self::Locked { .. }
            | Self::ForeignFolder { .. }
            | Self::NotAVolume { .. }
            | Self::OtherCluster { .. }
            | Self::Format { .. }
            | Self::Damaged { .. }
            | Self::Setup { .. } => Kind::Fatal,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Kind::NoSpace,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                    Kind::Retry
                }
                _ => Kind::Fatal,
            },
        }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    pub(crate) fn misuse(what: impl Into<String>) -> Self {
        Self::Misuse { what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_tell_the_caller_what_to_do() {
        let block = BlockId(7);
        assert_eq!(Error::NotFound { block }.kind(), Kind::OtherReplica);
        assert_eq!(Error::Conflict { block }.kind(), Kind::Conflict);
        let full = Error::Io {
            doing: "write".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        assert_eq!(full.kind(), Kind::NoSpace);
        let broken = Error::Io {
            doing: "write".into(),
            source: io::Error::from_raw_os_error(5),
        };
        assert_eq!(broken.kind(), Kind::Fatal);
    }

    #[test]
    fn messages_say_what_to_do() {
        let text = Error::Locked { dir: "/v".into() }.to_string();
        assert!(text.contains("/v") && text.contains("stop"), "{text}");
    }
}
