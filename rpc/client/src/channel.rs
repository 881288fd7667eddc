//! Data connections: one to each volume, shared by all streams that read or write there.
//!
//! A channel's reader puts payloads straight into the block buffers of their streams; its writer sends
//! slices of them. Neither knows which file a block belongs to.

mod connection;
mod get;
mod patience;
mod pool;
mod put;
mod reader;
mod writer;

pub use get::{Fetched, units_of};
pub use patience::Deadlines;
pub use pool::Channels;

use blockyard_wire::types::VolumeId;
use blockyard_wire::{Problem, ProblemKind};

/// What ended a stream early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// There is no connection to the volume any more, or none could be made.
    Lost,
    /// The volume said nothing at all for the whole deadline.
    Silent,
    /// The volume is there, but this stream did not move for the whole deadline.
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
    pub fn of(cause: Cause, problem: Problem) -> Self {
        Self {
            cause,
            problem,
            blame: None,
        }
    }

    fn lost(problem: Problem) -> Self {
        Self::of(Cause::Lost, problem)
    }

    fn wrong(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self::of(Cause::Wrong, Problem::new(kind, message))
    }
}
