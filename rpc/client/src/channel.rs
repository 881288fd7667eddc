//! Data connections: one to each volume, shared by all streams that read or write there.
//!
//! A channel's reader puts payloads straight into the block buffers of their streams; its writer sends
//! slices of them. Neither knows which file a block belongs to.

mod connection;
mod get;
mod pool;
mod put;
mod reader;
mod writer;

pub use get::Fetched;
pub use pool::Channels;

use blockyard_wire::types::VolumeId;
use blockyard_wire::{Problem, ProblemKind};

/// What ended a stream early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// There is no connection to the volume any more, or none could be made.
    Lost,
    /// Nothing moved for the whole deadline.
    Stalled,
    /// The volume refused.
    Refused,
    /// The volume's bytes or words were not what they should be.
    Wrong,
}

/// A stream that failed.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What ended it.
    pub cause: Cause,
    /// For people, and what a caller can do.
    pub problem: Problem,
    /// The volume that a refusal names as the one that failed.
    pub blame: Option<VolumeId>,
}

impl Trouble {
    fn lost(problem: Problem) -> Self {
        Self {
            cause: Cause::Lost,
            problem,
            blame: None,
        }
    }

    fn wrong(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self {
            cause: Cause::Wrong,
            problem: Problem::new(kind, message),
            blame: None,
        }
    }

    fn stalled(address: &str, stall: std::time::Duration) -> Self {
        Self {
            cause: Cause::Stalled,
            problem: Problem::retry(format!("{address} was silent for {stall:?}")),
            blame: None,
        }
    }
}
