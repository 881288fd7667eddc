//! Where the time of a block's way went: what the client saw, and what the volumes told with their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use blockyard_wire::frame::{GetSpans, HopSpans};

/// A block that has become durable, and how long each step took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockTrace {
    /// Its number in the file.
    pub index: u32,
    /// Bytes of it.
    pub bytes: u32,
    /// Taking it from the source, checksums included.
    pub read: Duration,
    /// Of that: the checksums.
    pub checksum: Duration,
    /// From being read to the first attempt's Put: waiting for a chain, a connection and a free stream.
    pub queued: Duration,
    /// From the Put to the head's grant; zero where the block went along with the Put.
    pub granted: Duration,
    /// From the Put to the last byte handed to the socket.
    pub sent: Duration,
    /// From the Put to the head's word that the whole chain has the block.
    pub done: Duration,
    /// What each hop tells, the head's first.
    pub hops: Vec<HopSpans>,
}

/// Told of each block, on the client's own thread: it must not block.
pub type TraceFn = Arc<dyn Fn(BlockTrace) + Send + Sync>;

/// A piece of a file that has been read, and how long each step took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadTrace {
    /// The number of its block in the file.
    pub index: u32,
    /// Bytes that were read of it: whole checksum units.
    pub bytes: u32,
    /// Until the Get that was answered: for a connection, its turn, a buffer, and replicas that failed.
    pub queued: Duration,
    /// From the Get to the head of the first packet.
    pub answered: Duration,
    /// From the Get until all was there and verified.
    pub done: Duration,
    /// Of that: the client's own checksums.
    pub checksum: Duration,
    /// What the volume tells.
    pub volume: GetSpans,
}

/// Told of each piece as it arrives, on the client's own thread: it must not block.
pub type ReadTraceFn = Arc<dyn Fn(ReadTrace) + Send + Sync>;

/// What a put saw.
#[derive(Clone, Copy, Debug)]
pub struct PutSpans {
    /// When it had a free stream: the rest counts from here.
    pub begun: Instant,
    pub granted: Duration,
    pub sent: Duration,
    pub done: Duration,
}
