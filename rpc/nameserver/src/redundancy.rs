//! Which blocks have fewer good replicas than wanted, damaged ones, or too many: kept up to date change by
//! change, so that repair never scans. Pure.

use std::collections::{BTreeMap, BTreeSet};

use blockyard_wire::types::{BlockId, ReplicaState};

use crate::state::blocks::{Block, VolumeIndex};

/// What is wrong with a block, most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Need {
    /// Fewer good replicas than wanted; how many there are.
    Copies(u8),
    /// Enough good ones, and damaged ones beside.
    Cleaning,
    /// More good ones than wanted.
    Trimming,
}

/// Blocks that need something.
#[derive(Clone, Debug, Default)]
pub struct Redundancy {
    needs: BTreeMap<u64, Need>,
    order: BTreeSet<(Need, u64)>,
    missing: u64,
    under: u64,
}

impl Redundancy {
    /// Blocks without a good replica that counts.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Blocks with at least one, but fewer than wanted.
    pub fn under(&self) -> u64 {
        self.under
    }

    /// What a block needs.
    #[cfg(test)]
    pub fn need(&self, block: BlockId) -> Option<Need> {
        self.needs.get(&block.0).copied()
    }

    /// Looks at a block again; `None` when it is no longer on the map.
    pub fn update(&mut self, id: BlockId, block: Option<&Block>, is_lost: impl Fn(VolumeIndex) -> bool) {
        let need = block.and_then(|block| assess(block, is_lost));
        if let Some(old) = self.needs.remove(&id.0) {
            self.order.remove(&(old, id.0));
            self.count(old, false);
        }
        if let Some(need) = need {
            self.needs.insert(id.0, need);
            self.order.insert((need, id.0));
            self.count(need, true);
        }
    }

    /// Blocks in need behind `after`, most urgent first.
    pub fn urgent(&self, after: Option<(Need, u64)>) -> impl Iterator<Item = (Need, u64)> + '_ {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.order.range((from, std::ops::Bound::Unbounded)).copied()
    }

    /// The ids of all blocks in need.
    pub fn all(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.needs.keys().map(|id| BlockId(*id))
    }

    fn count(&mut self, need: Need, add: bool) {
        let counter = match need {
            Need::Copies(0) => &mut self.missing,
            Need::Copies(_) => &mut self.under,
            Need::Cleaning | Need::Trimming => return,
        };
        if add { *counter += 1 } else { *counter -= 1 }
    }
}

fn assess(block: &Block, is_lost: impl Fn(VolumeIndex) -> bool) -> Option<Need> {
    let good = block
        .replicas()
        .filter(|(volume, state)| *state == ReplicaState::Good && !is_lost(*volume))
        .count();
    let corrupt = block.replicas().any(|(_, state)| state == ReplicaState::Corrupt);
    let wanted = usize::from(block.wanted);
    if good < wanted {
        Some(Need::Copies(good as u8))
    } else if corrupt {
        Some(Need::Cleaning)
    } else {
        (good > wanted).then_some(Need::Trimming)
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::VolumeId;

    use super::*;
    use crate::state::blocks::VolumeRow;
    use crate::state::{Command, NewRow, State};

    #[test]
    fn the_most_urgent_comes_first_and_counts_hold() {
        let mut state = State::default();
        let volumes = (0..4)
            .map(|n| VolumeRow {
                id: VolumeId([n; 16]),
                ..VolumeRow::default()
            })
            .collect();
        state.apply(&Command::Join { volumes }).unwrap();
        let begin = Command::Begin {
            path: "/f".into(),
            overwrite: false,
            replication: 2,
            content_type: String::new(),
            at_unix_ms: 0,
            request: Default::default(),
        };
        state.apply(&begin).unwrap();
        let block = |n: u64, volumes: &[u16]| NewRow {
            block: BlockId(n),
            index: n as u32,
            length: 1,
            crc32c: 0,
            volumes: volumes.to_vec(),
        };
        let blocks = vec![
            block(1, &[0, 1]),
            block(2, &[0]),
            block(3, &[1, 2, 3]),
            block(4, &[3]),
            block(5, &[0, 1, 2]),
        ];
        state
            .apply(&Command::AddBlocks {
                lease: 1,
                blocks,
                request: Default::default(),
            })
            .unwrap();
        let corrupt = Command::Judged {
            volume: 0,
            replicas: vec![(BlockId(5), ReplicaState::Corrupt)],
        };
        state.apply(&corrupt).unwrap();
        let mut redundancy = Redundancy::default();
        let look = |redundancy: &mut Redundancy, lost: u16| {
            for id in 1..6 {
                redundancy.update(BlockId(id), state.blocks().get(BlockId(id)), |volume| {
                    volume == lost
                });
            }
            redundancy.urgent(None).collect::<Vec<_>>()
        };
        let order = look(&mut redundancy, 99);
        let all = [
            (Need::Copies(1), 2),
            (Need::Copies(1), 4),
            (Need::Cleaning, 5),
            (Need::Trimming, 3),
        ];
        assert_eq!(order, all);
        assert_eq!(redundancy.urgent(Some(all[1])).collect::<Vec<_>>(), all[2..]);
        assert_eq!((redundancy.under(), redundancy.missing()), (2, 0));
        let order = look(&mut redundancy, 3);
        assert_eq!(
            order,
            [(Need::Copies(0), 4), (Need::Copies(1), 2), (Need::Cleaning, 5)]
        );
        assert_eq!((redundancy.under(), redundancy.missing()), (1, 1));
        redundancy.update(BlockId(4), None, |_| false);
        assert_eq!((redundancy.need(BlockId(4)), redundancy.missing()), (None, 0));
        assert_eq!(redundancy.all().count(), 2);
    }
}
