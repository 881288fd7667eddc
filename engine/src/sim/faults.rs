//! Chance, and which faults a simulated disk has in store.

/// A small, good enough generator: xorshift64*.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d | 1)
    }

    /// Any number.
    #[allow(clippy::should_implement_trait)] // it never ends
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    /// True in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize])
    }
}

/// The kinds of operation that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reads of open files.
    Read,
    /// Writes.
    Write,
    /// Syncs of files and folders.
    Sync,
    /// Allocations.
    Allocate,
    /// Calls on names: opening, renaming, removing, replacing.
    Name,
}

/// What an operation does instead of its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails with this errno.
    Error(i32),
    /// It transfers less than was asked for.
    Short,
    /// A write or a sync that reports success and does nothing.
    Lost,
    /// A write that reports success and went this many bytes further on.
    Misdirected(u64),
}

/// The nth operation of a kind (from 0) on files whose name begins so.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which operations are counted.
    pub kind: Kind,
    /// And on which files.
    pub name_prefix: &'static str,
    /// Which of them fails.
    pub nth: u64,
    /// Whether all later ones do too.
    pub for_ever: bool,
    /// How.
    pub fault: Fault,
}

/// Which faults happen.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Transfers that come short, of 1000.
    pub short_per_mille: u64,
    /// Operations that are interrupted, of 1000.
    pub interrupted_per_mille: u64,
    /// The power goes at this sync (counted from 0 since the last crash).
    pub crash_at_sync: Option<u64>,
    /// The ring itself fails at this exchange (counted from 0 since the last crash).
    pub ring_dies_at_turn: Option<u64>,
    /// Operations that fail.
    pub plans: Vec<Plan>,
}
