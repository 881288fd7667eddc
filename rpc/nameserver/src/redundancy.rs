//! Which blocks need something done: kept up to date change by change, so that repair never scans. Pure.

use std::collections::{BTreeMap, BTreeSet};

use blockyard_wire::types::{Backlog, BlockId, ReplicaState};

use crate::standing::{Standing, Standings};
use crate::state::blocks::{Block, VolumeIndex};

/// What a block needs; the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Need {
    /// More copies; so many good replicas can be read.
    Copies(u8),
    /// Copies elsewhere, because volumes that it is on are draining.
    Leaving,
    /// A copy elsewhere, because replicas share a server or a zone.
    Misplaced,
    /// Damaged replicas are to go.
    Cleaning,
    /// Replicas are to go: too many, or on draining volumes.
    Trimming,
}

/// Needs that are told apart in figures.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// No good replica can be read.
    Missing,
    /// One is left.
    OneLeft,
    /// More than one is left, fewer than wanted.
    Under,
    /// On draining volumes.
    Leaving,
    /// Two in one server or zone.
    Misplaced,
    /// Replicas that are to go.
    Surplus,
}

impl Need {
    /// The class it counts in.
    pub fn class(self) -> Class {
        match self {
            Self::Copies(0) => Class::Missing,
            Self::Copies(1) => Class::OneLeft,
            Self::Copies(_) => Class::Under,
            Self::Leaving => Class::Leaving,
            Self::Misplaced => Class::Misplaced,
            Self::Cleaning | Self::Trimming => Class::Surplus,
        }
    }
}

/// All blocks in need.
#[derive(Clone, Debug, Default)]
pub struct Redundancy {
    /// What each needs, and its bytes.
    needs: BTreeMap<u64, (Need, u32)>,
    order: BTreeSet<(Need, u64)>,
    backlogs: BTreeMap<Class, Backlog>,
}

impl Redundancy {
    /// Blocks without a good replica that can be read.
    pub fn missing(&self) -> u64 {
        self.backlog(Class::Missing).blocks
    }

    /// Blocks with fewer good replicas than wanted, but at least one.
    pub fn under(&self) -> u64 {
        self.backlog(Class::OneLeft).blocks + self.backlog(Class::Under).blocks
    }

    /// Blocks of a class.
    pub fn backlog(&self, class: Class) -> Backlog {
        self.backlogs.get(&class).copied().unwrap_or_default()
    }

    /// Whether any block waits for a copy that can be made.
    pub fn waits_for_copies(&self) -> bool {
        [Class::OneLeft, Class::Under, Class::Leaving, Class::Misplaced]
            .into_iter()
            .any(|class| self.backlog(class).blocks > 0)
    }

    /// Whether a block needs anything.
    pub fn is_in_need(&self, block: BlockId) -> bool {
        self.needs.contains_key(&block.0)
    }

    /// The class of a block in need.
    pub fn class(&self, block: BlockId) -> Option<Class> {
        self.needs.get(&block.0).map(|(need, _)| need.class())
    }

    /// What a block needs.
    #[cfg(test)]
    pub fn need(&self, block: BlockId) -> Option<Need> {
        self.needs.get(&block.0).map(|(need, _)| *need)
    }

    /// Looks at a block again; `None` when it has gone.
    pub fn update(&mut self, id: BlockId, block: Option<&Block>, standings: &Standings) {
        let need = block.and_then(|block| Some((assess(block, standings)?, block.length)));
        if let Some((old, length)) = self.needs.remove(&id.0) {
            self.order.remove(&(old, id.0));
            let backlog = self.backlogs.entry(old.class()).or_default();
            backlog.blocks -= 1;
            backlog.bytes -= u64::from(length);
        }
        if let Some((need, length)) = need {
            self.needs.insert(id.0, (need, length));
            self.order.insert((need, id.0));
            let backlog = self.backlogs.entry(need.class()).or_default();
            backlog.blocks += 1;
            backlog.bytes += u64::from(length);
        }
    }

    /// Blocks in need behind `after`, the most urgent first.
    pub fn urgent(&self, after: Option<(Need, u64)>) -> impl Iterator<Item = (Need, u64)> + '_ {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.order.range((from, std::ops::Bound::Unbounded)).copied()
    }

    /// Every block in need.
    pub fn all(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.needs.keys().map(|id| BlockId(*id))
    }
}

fn assess(block: &Block, standings: &Standings) -> Option<Need> {
    let mut counted = [VolumeIndex::default(); crate::state::blocks::REPLICAS_MAX];
    let (mut counts, mut leaving, mut away, mut corrupt) = (0, 0, 0, false);
    for (volume, state) in block.replicas() {
        match (state, standings.of(volume)) {
            (ReplicaState::Good, standing @ (Standing::Counts | Standing::Away)) => {
                counted[counts] = volume;
                counts += 1;
                away += usize::from(standing == Standing::Away);
            }
            (ReplicaState::Good, Standing::Leaving) => leaving += 1,
            (ReplicaState::Corrupt, _) => corrupt = true,
            _ => {}
        }
    }
    let wanted = usize::from(block.wanted);
    let readable = counts + leaving - away;
    if counts + leaving < wanted || readable == 0 {
        Some(Need::Copies(readable as u8))
    } else if counts < wanted {
        Some(Need::Leaving)
    } else if corrupt {
        Some(Need::Cleaning)
    } else if counts > wanted || leaving > 0 {
        Some(Need::Trimming)
    } else {
        standings
            .is_misplaced(&counted[..counts], wanted)
            .then_some(Need::Misplaced)
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::VolumeId;

    use super::*;
    use crate::standing::Spot;
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
        let standings = |special: u16, standing| {
            let spot = |volume| Spot {
                volume,
                standing: if volume == special {
                    standing
                } else {
                    Standing::Counts
                },
                takes_blocks: volume != special,
                server: ["a", "b", "c", "d"][usize::from(volume)],
                zone: "z",
            };
            Standings::new(4, (0..4).map(spot))
        };
        let look = |redundancy: &mut Redundancy, special: u16, standing| {
            let standings = standings(special, standing);
            for id in 1..6 {
                redundancy.update(BlockId(id), state.blocks().get(BlockId(id)), &standings);
            }
            redundancy.urgent(None).collect::<Vec<_>>()
        };
        let order = look(&mut redundancy, 99, Standing::Lost);
        let all = [
            (Need::Copies(1), 2),
            (Need::Copies(1), 4),
            (Need::Cleaning, 5),
            (Need::Trimming, 3),
        ];
        assert_eq!(order, all);
        assert_eq!(redundancy.urgent(Some(all[1])).collect::<Vec<_>>(), all[2..]);
        assert_eq!((redundancy.under(), redundancy.missing()), (2, 0));
        let one_left = redundancy.backlog(Class::OneLeft);
        assert_eq!((one_left.blocks, one_left.bytes), (2, 2));
        assert!(redundancy.waits_for_copies());
        let order = look(&mut redundancy, 1, Standing::Leaving);
        assert_eq!(
            order,
            [
                (Need::Copies(1), 2),
                (Need::Copies(1), 4),
                (Need::Leaving, 1),
                (Need::Leaving, 5),
                (Need::Trimming, 3),
            ],
            "a draining volume's replicas can be read, and do not count"
        );
        let order = look(&mut redundancy, 3, Standing::Lost);
        assert_eq!(
            order,
            [(Need::Copies(0), 4), (Need::Copies(1), 2), (Need::Cleaning, 5)]
        );
        assert_eq!((redundancy.under(), redundancy.missing()), (1, 1));
        redundancy.update(BlockId(4), None, &Standings::default());
        assert_eq!((redundancy.need(BlockId(4)), redundancy.missing()), (None, 0));
        assert_eq!(redundancy.all().count(), 2);
        let together = Standings::new(
            4,
            (0..4).map(|volume| Spot {
                volume,
                standing: Standing::Counts,
                takes_blocks: true,
                server: ["a", "a", "b", "c"][usize::from(volume)],
                zone: "z",
            }),
        );
        redundancy.update(BlockId(1), state.blocks().get(BlockId(1)), &together);
        assert_eq!(redundancy.need(BlockId(1)), Some(Need::Misplaced));
    }
}
