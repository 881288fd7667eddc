//! Which replica of which block stands where: ordered by block, 24 bytes an entry and about 55 with the tree.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::block::BlockId;
use crate::layout::{Class, Place};
use crate::record::{Replica, state_code, state_of};
use crate::types::{ReplicaInfo, ReplicaState};

/// The lengths and states of entries are packed: a block's length less one takes 22 bits.
const STATE_SHIFT: u32 = 24;
const LENGTH_MASK: u32 = (1 << STATE_SHIFT) - 1;

const _: () = assert!(crate::limits::BLOCK_BYTES_MAX <= LENGTH_MASK as usize);
// With half-filled nodes of 11 entries an entry costs at most 8 + 16 bytes × 11 ÷ 5 and its share of the tree.
const _: () = assert!(size_of::<Entry>() == 16);

/// A replica, packed.
#[derive(Clone, Copy)]
struct Entry {
    place: u32,
    length_and_state: u32,
    crc32c: u32,
    seal: u32,
}

impl From<Replica> for Entry {
    fn from(replica: Replica) -> Self {
        let state = u32::from(state_code(replica.state));
        Self {
            place: replica.place.packed(),
            length_and_state: replica.length | state << STATE_SHIFT,
            crc32c: replica.crc32c,
            seal: replica.seal,
        }
    }
}

impl From<Entry> for Replica {
    fn from(entry: Entry) -> Self {
        Self {
            place: Place::unpacked(entry.place),
            length: entry.length_and_state & LENGTH_MASK,
            crc32c: entry.crc32c,
            seal: entry.seal,
            state: state_of((entry.length_and_state >> STATE_SHIFT) as u8).unwrap_or(ReplicaState::Corrupt),
        }
    }
}

/// Sums over the index.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    pub(crate) block_bytes: u64,
    pub(crate) header_bytes: u64,
    pub(crate) suspects: u64,
    pub(crate) corrupt: u64,
}

/// All replicas of a volume.
#[derive(Default)]
pub(crate) struct Index {
    entries: BTreeMap<u64, Entry>,
    totals: Totals,
}

impl Index {
    /// The index of replicas that come in the order of their blocks: built in one go, with full nodes.
    pub(crate) fn from_sorted(replicas: Vec<(BlockId, Replica)>) -> Self {
        let mut index = Self::default();
        for &(_, replica) in &replicas {
            index.account(replica, u64::wrapping_add);
        }
        let entries = replicas
            .into_iter()
            .map(|(block, replica)| (block.0, replica.into()));
        index.entries = entries.collect();
        index
    }

    pub(crate) fn get(&self, block: BlockId) -> Option<Replica> {
        self.entries.get(&block.0).map(|&entry| entry.into())
    }

    /// Enters a replica; returns the one it takes the place of.
    pub(crate) fn insert(&mut self, block: BlockId, replica: Replica) -> Option<Replica> {
        let before = self.entries.insert(block.0, replica.into()).map(Replica::from);
        if let Some(before) = before {
            self.account(before, u64::wrapping_sub);
        }
        self.account(replica, u64::wrapping_add);
        before
    }

    pub(crate) fn remove(&mut self, block: BlockId) -> Option<Replica> {
        let gone = Replica::from(self.entries.remove(&block.0)?);
        self.account(gone, u64::wrapping_sub);
        Some(gone)
    }

    pub(crate) fn set_state(&mut self, block: BlockId, state: ReplicaState) {
        if let Some(replica) = self.get(block) {
            self.insert(block, Replica { state, ..replica });
        }
    }

    fn account(&mut self, replica: Replica, with: fn(u64, u64) -> u64) {
        let totals = &mut self.totals;
        totals.block_bytes = with(totals.block_bytes, u64::from(replica.length));
        let header_bytes = Class::for_length(replica.length as usize).header_bytes() as u64;
        totals.header_bytes = with(totals.header_bytes, header_bytes);
        match replica.state {
            ReplicaState::Live => {}
            ReplicaState::Suspect => totals.suspects = with(totals.suspects, 1),
            ReplicaState::Corrupt => totals.corrupt = with(totals.corrupt, 1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Replicas behind `after`, in order of their blocks.
    pub(crate) fn behind(&self, after: Option<BlockId>) -> impl Iterator<Item = (BlockId, Replica)> {
        let from = after.map_or(Bound::Unbounded, |block| Bound::Excluded(block.0));
        let range = self.entries.range((from, Bound::Unbounded));
        range.map(|(&block, &entry)| (BlockId(block), entry.into()))
    }
}

/// A replica as callers see it.
pub(crate) fn info(block: BlockId, replica: Replica) -> ReplicaInfo {
    ReplicaInfo {
        block,
        length: replica.length,
        crc32c: replica.crc32c,
        state: replica.state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(length: u32, state: ReplicaState) -> Replica {
        Replica {
            place: Place {
                segment: 65535,
                slot: 65534,
            },
            length,
            crc32c: 1,
            seal: 2,
            state,
        }
    }

    #[test]
    fn entries_come_back_as_they_went_in() {
        let mut index = Index::default();
        for length in [1, 4 << 20] {
            for state in [ReplicaState::Live, ReplicaState::Suspect, ReplicaState::Corrupt] {
                index.insert(BlockId(9), replica(length, state));
                assert_eq!(index.get(BlockId(9)), Some(replica(length, state)));
            }
        }
    }

    #[test]
    fn totals_follow_every_change() {
        let mut index = Index::default();
        index.insert(BlockId(1), replica(100, ReplicaState::Live));
        index.insert(BlockId(2), replica(50, ReplicaState::Suspect));
        index.set_state(BlockId(1), ReplicaState::Corrupt);
        assert_eq!(
            (
                index.totals().block_bytes,
                index.totals().suspects,
                index.totals().corrupt
            ),
            (150, 1, 1)
        );
        index.remove(BlockId(1));
        index.insert(BlockId(2), replica(60, ReplicaState::Live));
        assert_eq!(
            (
                index.totals().block_bytes,
                index.totals().suspects,
                index.totals().corrupt
            ),
            (60, 0, 0)
        );
        index.remove(BlockId(2));
        assert_eq!((index.totals(), index.len()), (Totals::default(), 0));
    }

    #[test]
    fn built_in_one_go_is_as_entered_one_by_one() {
        let replicas: Vec<_> = (0..1000)
            .map(|n| {
                let state =
                    [ReplicaState::Live, ReplicaState::Suspect, ReplicaState::Corrupt][n as usize % 3];
                (BlockId(n * 7), replica(n as u32 + 1, state))
            })
            .collect();
        let mut one_by_one = Index::default();
        for &(block, replica) in &replicas {
            one_by_one.insert(block, replica);
        }
        let at_once = Index::from_sorted(replicas.clone());
        assert_eq!(at_once.totals(), one_by_one.totals());
        assert_eq!(at_once.behind(None).collect::<Vec<_>>(), replicas);
    }

    #[test]
    fn listing_goes_on_behind_a_block() {
        let mut index = Index::default();
        for block in [5, 1, 9] {
            index.insert(BlockId(block), replica(1, ReplicaState::Live));
        }
        let ids = |after| index.behind(after).map(|(block, _)| block.0).collect::<Vec<_>>();
        assert_eq!(
            (ids(None), ids(Some(BlockId(1))), ids(Some(BlockId(9)))),
            (vec![1, 5, 9], vec![5, 9], vec![])
        );
    }
}
