//! Why a nameserver can't start or go on, and what its operator can do.

use std::io;
use std::path::{Path, PathBuf};

use blockyard_wire::{Problem, ProblemKind};

/// What an operator can do about an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Start it differently: a flag, a port, a folder.
    Usage,
    /// Something else holds what it needs; stop that, or wait.
    Busy,
    /// The folder's files contradict each other; nothing was guessed or changed.
    Damaged,
    /// The system refused an operation.
    System,
}

/// A nameserver's refusal to start, or the reason it stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting can't work.
    #[error("{what}")]
    Invalid {
        /// Which, and what could.
        what: String,
    },
    /// The port is taken.
    #[error("port {} is already in use on {}: another nameserver may be running; stop it or choose another \
             port with --port (up) or --listen (nameserver)", address.port(), address.ip())]
    AddressTaken {
        /// The address wanted.
        address: std::net::SocketAddr,
    },
    /// Another process has the folder.
    #[error("{} is in use by another nameserver; stop that one first", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The files in the folder do not hold together.
    #[error("{what}; nothing was changed: restore the folder {} from a copy, or ask for help with it", dir.display())]
    Damaged {
        /// What did not hold, and where.
        what: String,
        /// The folder.
        dir: PathBuf,
    },
    /// A file has a format this version does not read.
    #[error("{} has format {found}, this version reads up to {supported}; use a newer blockyard", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is read here.
        supported: u32,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried, on what.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The nameserver's thread ended by a panic.
    #[error("the nameserver's thread has failed: {what}; its journal holds all that was acknowledged")]
    Crashed {
        /// The panic's message.
        what: String,
    },
}

impl Error {
    /// What the operator can do.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } => Kind::Usage,
            Self::AddressTaken { .. } | Self::Locked { .. } => Kind::Busy,
            Self::Damaged { .. } | Self::Format { .. } => Kind::Damaged,
            Self::Io { .. } | Self::Crashed { .. } => Kind::System,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(crate) fn damaged(dir: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            what: what.into(),
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        match problem.kind {
            ProblemKind::Failed | ProblemKind::Retry => Self::Io {
                doing: "nameserver".to_owned(),
                source: io::Error::other(problem.message),
            },
            _ => Self::Invalid {
                what: problem.message,
            },
        }
    }
}
