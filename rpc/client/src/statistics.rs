//! What a client has counted since it was connected.

use std::cell::Cell;

use blockyard_wire::types::VolumeId;

/// Counters of a [`Client`](crate::Client); see [`Client::statistics`](crate::Client::statistics).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Pieces of blocks that were asked for.
    pub reads: u64,
    /// Of those, how many were asked for at a second replica too, because the first was late.
    pub hedged: u64,
    /// Of those, how many the second replica gave.
    pub hedges_won: u64,
    /// Reads that were cancelled, because another replica had answered.
    pub cancelled: u64,
    /// Units that were read only to learn whether a slow volume still is.
    pub probes: u64,
    /// Volumes that this client has read from or written to.
    pub volumes: Vec<VolumeStatistics>,
}

/// What a client has asked of a volume, and thinks of it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VolumeStatistics {
    /// The volume.
    pub volume: VolumeId,
    /// Reads, hedges and probes included.
    pub reads: u64,
    /// Blocks of whose chains it was a hop.
    pub writes: u64,
    /// It is asked last, and probed.
    pub slow_to_read: bool,
    /// New chains go round it.
    pub slow_to_write: bool,
}

/// The counters as they count.
#[derive(Default)]
pub struct Counters {
    pub reads: Counter,
    pub hedged: Counter,
    pub hedges_won: Counter,
    pub cancelled: Counter,
    pub probes: Counter,
}

/// One of them.
#[derive(Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    pub fn count(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}
