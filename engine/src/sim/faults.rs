//! Chance, and which faults a simulated disk has in store.

/// A small, good enough generator: xorshift64*.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    /// True in `per_mille` of 1000 cases.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// The kinds of operation that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    Sync,
    Allocate,
}

/// What an operation does instead of its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It fails with this errno.
    Error(i32),
    /// A write that reports success and does nothing.
    Lost,
    /// A write that reports success and went this many bytes further on.
    Misdirected(u64),
}

/// The nth operation of a kind (from 0) on files whose name begins so.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) name_prefix: &'static str,
    pub(crate) nth: u64,
    pub(crate) for_ever: bool,
    pub(crate) fault: Fault,
}

/// Which faults happen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Transfers that come short, of 1000.
    pub(crate) short_per_mille: u64,
    /// Operations that are interrupted, of 1000.
    pub(crate) interrupted_per_mille: u64,
    /// The power goes at this sync (counted from 0 since the last crash).
    pub(crate) crash_at_sync: Option<u64>,
    pub(crate) plans: Vec<Plan>,
}
