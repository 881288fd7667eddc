//! What a checkpoint and the journal behind it add up to. Pure: values in, the volume's state out.
//!
//! A checkpoint has its replicas in the order of their blocks. What the journal says is kept beside, sorted once and
//! merged in at the end: so a million replicas are never held as a second tree.

use std::collections::BTreeMap;

use crate::block::BlockId;
use crate::layout::Place;
use crate::record::{Cut, Record, Replica};
use crate::snapshot::Snapshot;
use crate::space::mark;
use crate::types::{Epoch, ReplicaState};

/// What a record says of a block.
#[derive(Clone, Copy)]
enum Change {
    Put(Replica),
    Delete,
    State(ReplicaState),
}

/// The state that replay builds.
pub(crate) struct Replayed {
    pub(crate) segments: BTreeMap<u16, (Cut, Vec<u64>)>,
    pub(crate) epoch: Option<Epoch>,
    /// Puts in batches that may not have been flushed, slots and all.
    pub(crate) unsure: BTreeMap<BlockId, Place>,
    /// The checkpoint's, by block.
    replicas: Vec<(BlockId, Replica)>,
    /// The journal's, in its order.
    changes: Vec<(BlockId, Change)>,
}

impl Replayed {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let segments = snapshot
            .segments
            .into_iter()
            .map(|item| (item.number, (item.cut, item.written)));
        let mut replicas = snapshot.replicas;
        replicas.sort_by_key(|&(block, _)| block);
        Self {
            segments: segments.collect(),
            epoch: snapshot.meta.epoch,
            unsure: BTreeMap::new(),
            replicas,
            changes: Vec::new(),
        }
    }

    /// Applies the journal's next record; `sure` when it was durable, slot and all.
    pub(crate) fn apply(&mut self, record: Record, sure: bool) {
        match record {
            Record::Put { block, replica } => {
                self.changes.push((block, Change::Put(replica)));
                if sure {
                    self.unsure.remove(&block)
                } else {
                    self.unsure.insert(block, replica.place)
                };
            }
            Record::Delete { block } => {
                self.changes.push((block, Change::Delete));
                self.unsure.remove(&block);
            }
            Record::Segment { segment, cut } => {
                // A snapshot that saw this cut already knows more of it.
                if self.segments.get(&segment).is_none_or(|(known, _)| *known != cut) {
                    self.segments.insert(segment, (cut, Vec::new()));
                }
            }
            Record::Filled(run) => {
                if let Some((cut, written)) = self.segments.get_mut(&run.segment)
                    && cut.generation == run.generation
                {
                    mark(written, run.first_slot, run.slots);
                }
            }
            Record::Epoch(epoch) => {
                if self.epoch.is_none_or(|seen| seen.number < epoch.number) {
                    self.epoch = Some(epoch);
                }
            }
            Record::State { block, state } => self.changes.push((block, Change::State(state))),
        }
    }

    /// The replicas in the order of their blocks: at most one of each. Takes them out.
    pub(crate) fn take_replicas(&mut self) -> Vec<(BlockId, Replica)> {
        let before = std::mem::take(&mut self.replicas);
        let mut changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return before;
        }
        // Stable: a block's changes keep their order.
        changes.sort_by_key(|&(block, _)| block);
        let mut after = Vec::with_capacity(before.len() + changes.len());
        let mut before = before.into_iter().peekable();
        for changes in changes.chunk_by(|one, next| one.0 == next.0) {
            let block = changes[0].0;
            while let Some(untouched) = before.next_if(|&(other, _)| other < block) {
                after.push(untouched);
            }
            let known = before.next_if(|&(other, _)| other == block);
            let mut replica = known.map(|(_, replica)| replica);
            for (_, change) in changes {
                match *change {
                    Change::Put(put) => replica = Some(put),
                    Change::Delete => replica = None,
                    Change::State(state) => {
                        if let Some(replica) = &mut replica {
                            replica.state = state;
                        }
                    }
                }
            }
            after.extend(replica.map(|replica| (block, replica)));
        }
        after.extend(before);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Head, Ring};
    use crate::snapshot::Meta;
    use proptest::prelude::*;

    fn replica(place: u32) -> Replica {
        Replica {
            place: Place::unpacked(place),
            length: 1 + place % 100,
            crc32c: place,
            seal: !place,
            state: ReplicaState::Live,
        }
    }

    fn replayed(replicas: &BTreeMap<BlockId, Replica>) -> Replayed {
        Replayed::new(Snapshot {
            meta: Meta {
                head: Head::first(),
                ring: Ring { file_pages: 64 },
                epoch: None,
            },
            segments: Vec::new(),
            replicas: replicas
                .iter()
                .map(|(&block, &replica)| (block, replica))
                .collect(),
        })
    }

    #[test]
    fn zeros_of_an_older_cut_say_nothing_of_the_newer() {
        let class = crate::layout::Class::for_length(1);
        let cut = |generation| Cut {
            class,
            generation,
            seed: u64::from(generation),
            segment_bytes: 1 << 20,
        };
        let run = crate::record::Run {
            segment: 3,
            generation: 1,
            class,
            first_slot: 2,
            slots: 1,
        };
        let mut replayed = replayed(&BTreeMap::new());
        // As where the checkpoint has the newer cut already: records before it are replayed too.
        for (generation, words) in [(2, vec![]), (1, vec![0b100])] {
            let cut = cut(generation);
            replayed.segments.insert(3, (cut, Vec::new()));
            replayed.apply(Record::Filled(run), true);
            assert_eq!(replayed.segments[&3], (cut, words));
        }
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let block = || (0u64..40).prop_map(BlockId);
        let states = [ReplicaState::Live, ReplicaState::Suspect, ReplicaState::Corrupt];
        let one = prop_oneof![
            (block(), any::<u32>()).prop_map(|(block, place)| Record::Put {
                block,
                replica: replica(place)
            }),
            block().prop_map(|block| Record::Delete { block }),
            (block(), prop::sample::select(states.to_vec()))
                .prop_map(|(block, state)| Record::State { block, state }),
        ];
        prop::collection::vec(one, 0..200)
    }

    proptest! {
        /// The model is a plain map, to which each record is done at once.
        #[test]
        fn replay_is_every_record_in_turn(
            before in prop::collection::btree_map((0u64..40).prop_map(BlockId), any::<u32>().prop_map(replica), 0..30),
            records in records(),
            unsure_from in 0usize..200,
        ) {
            let mut replayed = replayed(&before);
            let (mut model, mut unsure) = (before, BTreeMap::new());
            for (at, &record) in records.iter().enumerate() {
                let sure = at < unsure_from;
                replayed.apply(record, sure);
                match record {
                    Record::Put { block, replica } => {
                        model.insert(block, replica);
                        unsure.remove(&block);
                        if !sure {
                            unsure.insert(block, replica.place);
                        }
                    }
                    Record::Delete { block } => {
                        model.remove(&block);
                        unsure.remove(&block);
                    }
                    Record::State { block, state } => {
                        model.entry(block).and_modify(|replica| replica.state = state);
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(replayed.take_replicas(), model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(replayed.unsure, unsure);
        }
    }
}
