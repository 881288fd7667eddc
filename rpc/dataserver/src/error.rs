//! Why a dataserver does not start, and how the engine's errors look to a peer.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use blockyard_engine as engine;
use blockyard_wire::{Problem, ProblemKind};

/// What [`start`](crate::start) returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a dataserver could not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is refused.
    #[error("{0}")]
    Refused(Problem),
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {source}; choose another port with --listen, or stop what uses it")]
    Listen {
        /// The address wanted.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// No volume can be opened; this is the first one's reason.
    #[error("volume {directory}: {source}", directory = directory.display())]
    Volume {
        /// The volume's folder.
        directory: PathBuf,
        /// Why it can't be opened.
        source: engine::Error,
    },
    /// The system refuses what a thread needs.
    #[error("cannot start {what}: {source}")]
    System {
        /// What was to be started.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ProblemKind {
        match self {
            Self::Refused(problem) => problem.kind,
            Self::Listen { .. } => ProblemKind::Exists,
            Self::Volume { source, .. } => kind_of(source),
            Self::System { .. } => ProblemKind::Failed,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

/// What a peer can do about an error of the engine.
pub(crate) fn kind_of(error: &engine::Error) -> ProblemKind {
    use engine::Error as E;
    match error {
        E::NotFound { .. } => ProblemKind::NotFound,
        E::Corrupt { .. } | E::ChecksumMismatch { .. } => ProblemKind::Corrupt,
        E::StaleEpoch { .. } | E::TwinEpoch { .. } => ProblemKind::Stale,
        _ => match error.kind() {
            engine::Kind::Retry => ProblemKind::Retry,
            engine::Kind::OtherReplica => ProblemKind::OtherReplica,
            engine::Kind::NoSpace => ProblemKind::NoSpace,
            engine::Kind::Caller => ProblemKind::Invalid,
            engine::Kind::Conflict => ProblemKind::Exists,
            engine::Kind::Fatal => ProblemKind::Failed,
        },
    }
}

/// The engine's error as a peer is told of it.
pub(crate) fn problem_of(error: &engine::Error) -> Problem {
    Problem::new(kind_of(error), error.to_string())
}
