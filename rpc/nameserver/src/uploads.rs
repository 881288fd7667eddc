//! What is known of uploads in memory only: block ids handed out, and when a silent upload expires. Pure.

use std::collections::{BTreeMap, BTreeSet};

use blockyard_wire::types::{BlockId, Epoch};
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::state::State;

/// Block ids that may be handed out without having come back.
const OUTSTANDING_MAX: usize = 1 << 20;

/// Uploads of this reign.
#[derive(Clone, Debug)]
pub struct Uploads {
    lease_ms: u64,
    leases_max: usize,
    reign: Epoch,
    /// The next block id's counter: ids of a reign need no journal, since the next reign has others.
    counter: u64,
    /// Handed out and not added yet, by the lease they belong to.
    outstanding: BTreeMap<u64, BTreeSet<BlockId>>,
    outstanding_count: usize,
    /// Handed out for files without an upload of their own, and when nobody can publish them any more.
    reserved: BTreeMap<BlockId, u64>,
    /// When each lease expires, on the clock of the caller, milliseconds.
    deadlines: BTreeMap<u64, u64>,
}

impl Uploads {
    /// The uploads that the state knows, their time in full.
    pub fn new(state: &State, lease_ms: u64, leases_max: usize) -> Self {
        Self {
            lease_ms,
            leases_max,
            reign: state.epoch(),
            counter: 0,
            outstanding: BTreeMap::new(),
            outstanding_count: 0,
            reserved: BTreeMap::new(),
            deadlines: state.leases().keys().map(|lease| (*lease, lease_ms)).collect(),
        }
    }

    /// Whether one more may begin.
    ///
    /// # Errors
    /// `Busy` when there are as many as may be.
    pub fn may_begin(&self) -> Result<()> {
        match self.deadlines.len() < self.leases_max {
            true => Ok(()),
            false => Err(Problem::new(
                ProblemKind::Busy,
                format!(
                    "{} uploads are in progress, which is the limit; try again",
                    self.leases_max
                ),
            )),
        }
    }

    /// The upload has been heard from.
    pub fn renew(&mut self, lease: u64, now_ms: u64) {
        self.deadlines.insert(lease, now_ms + self.lease_ms);
    }

    /// The upload has ended: its ids are nobody's.
    pub fn end(&mut self, lease: u64) {
        self.deadlines.remove(&lease);
        self.outstanding_count -= self.outstanding.remove(&lease).map_or(0, |blocks| blocks.len());
    }

    /// Uploads that have been silent for too long.
    pub fn expired(&self, now_ms: u64) -> Vec<u64> {
        self.deadlines
            .iter()
            .filter(|(_, deadline)| **deadline < now_ms)
            .map(|(lease, _)| *lease)
            .collect()
    }

    /// A fresh block id for `lease`.
    ///
    /// # Errors
    /// `Busy` when too many are outstanding; `Failed` when the reign has used all of its own.
    pub fn allocate(&mut self, lease: u64) -> Result<BlockId> {
        let id = self.fresh()?;
        self.outstanding.entry(lease).or_default().insert(id);
        self.outstanding_count += 1;
        Ok(id)
    }

    /// A fresh block id for a file without an upload of its own.
    ///
    /// # Errors
    /// As [`Uploads::allocate`].
    pub fn reserve(&mut self, until_ms: u64) -> Result<BlockId> {
        let id = self.fresh()?;
        self.reserved.insert(id, until_ms);
        Ok(id)
    }

    /// Whether `block` is reserved and not published. Those of earlier reigns are not: what became of them is not
    /// known.
    pub fn is_reserved(&self, block: BlockId, now_ms: u64) -> bool {
        self.reserved
            .get(&block)
            .is_some_and(|until_ms| *until_ms >= now_ms)
    }

    /// The block has been published.
    pub fn published(&mut self, block: BlockId) {
        self.reserved.remove(&block);
    }

    /// Lets go of what nobody can publish any more. Ids and their times rise together.
    pub fn expire_reserved(&mut self, now_ms: u64) {
        while let Some(first) = self.reserved.first_entry()
            && *first.get() < now_ms
        {
            first.remove();
        }
    }

    fn fresh(&mut self) -> Result<BlockId> {
        if self.outstanding_count + self.reserved.len() >= OUTSTANDING_MAX {
            return Err(Problem::new(
                ProblemKind::Busy,
                "too many blocks are being written; try again",
            ));
        }
        let id = BlockId::new(self.reign.number as u32, self.counter).ok_or_else(|| {
            Problem::new(
                ProblemKind::Failed,
                "this reign has used up its block ids; restart the nameserver",
            )
        })?;
        self.counter += 1;
        Ok(id)
    }

    /// Whether `block` can be one that `lease`, opened in the reign `began`, was given.
    pub fn may_be(&self, block: BlockId, lease: u64, began: u64) -> bool {
        // What earlier reigns handed out is not known any more.
        let earlier = u64::from(block.reign()) < self.reign.number && u64::from(block.reign()) >= began;
        earlier
            || self
                .outstanding
                .get(&lease)
                .is_some_and(|blocks| blocks.contains(&block))
    }

    /// The block has been added: it is on the map now.
    pub fn added(&mut self, lease: u64, block: BlockId) {
        if let Some(blocks) = self.outstanding.get_mut(&lease) {
            self.outstanding_count -= usize::from(blocks.remove(&block));
        }
    }

    /// Whether an upload in progress may still add `block`.
    pub fn may_want(&self, block: BlockId, state: &State) -> bool {
        self.reserved.contains_key(&block)
            || self.outstanding.values().any(|blocks| blocks.contains(&block))
            || state
                .leases()
                .iter()
                .any(|(id, lease)| self.may_be(block, *id, lease.reign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Command;
    use blockyard_wire::types::Incarnation;

    fn state() -> State {
        let mut state = State::default();
        let reign = |number| Command::Reign {
            epoch: Epoch {
                number,
                incarnation: Incarnation([1; 16]),
            },
            at_unix_ms: 0,
        };
        state.apply(&reign(4)).unwrap();
        let begin = Command::Begin {
            path: "/f".into(),
            overwrite: false,
            replication: 1,
            content_type: String::new(),
            at_unix_ms: 0,
            request: Default::default(),
        };
        state.apply(&begin).unwrap();
        state.apply(&reign(5)).unwrap();
        state
    }

    #[test]
    fn ids_belong_to_the_upload_that_asked() {
        let state = state();
        let mut uploads = Uploads::new(&state, 100, 2);
        let (one, two) = (uploads.allocate(7).unwrap(), uploads.allocate(8).unwrap());
        assert!(one != two && one.reign() == 5);
        assert!(uploads.may_be(one, 7, 5) && !uploads.may_be(one, 8, 5));
        let unknown = BlockId::new(5, 99).unwrap();
        assert!(!uploads.may_be(unknown, 7, 4), "nobody was given this one");
        let old = BlockId::new(4, 3).unwrap();
        assert!(uploads.may_be(old, 1, 4) && !uploads.may_be(old, 7, 5));
        assert!(
            !uploads.may_be(BlockId::new(3, 3).unwrap(), 1, 4),
            "older than the upload"
        );
        assert!(
            uploads.may_want(old, &state),
            "the upload of the last reign is still open"
        );
        assert!(uploads.may_want(one, &state));
        uploads.end(7);
        assert!(!uploads.may_want(one, &state));
        uploads.added(8, two);
        assert!(!uploads.may_want(two, &state));
    }

    #[test]
    fn what_is_reserved_is_anybodys_until_it_expires() {
        let state = state();
        let mut uploads = Uploads::new(&state, 100, 2);
        let (one, two) = (uploads.reserve(50).unwrap(), uploads.reserve(60).unwrap());
        assert!(uploads.is_reserved(one, 50) && !uploads.is_reserved(one, 51));
        assert!(uploads.may_want(one, &state), "late, but not yet let go");
        uploads.expire_reserved(51);
        assert!(!uploads.may_want(one, &state) && uploads.is_reserved(two, 51));
        uploads.published(two);
        assert!(!uploads.is_reserved(two, 51));
        let earlier = BlockId::new(4, 3).unwrap();
        assert!(!uploads.is_reserved(earlier, 0));
    }

    #[test]
    fn silence_expires_and_the_number_is_bounded() {
        let mut uploads = Uploads::new(&state(), 100, 2);
        assert_eq!(uploads.expired(100), []);
        assert_eq!(uploads.expired(101), [1], "a restart gives the full time");
        uploads.renew(1, 90);
        assert_eq!(uploads.expired(190), []);
        uploads.may_begin().unwrap();
        uploads.renew(2, 90);
        assert_eq!(uploads.may_begin().unwrap_err().kind, ProblemKind::Busy);
    }
}
