//! Looks over all blocks for people: how the map looks from afar, and what the loss of volumes would mean. A part at a
//! time, so that the nameserver's other tasks get their turns.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use blockyard_wire::Result;
use blockyard_wire::types::{BlockId, BlockInfo, ReplicaState, VolumeId, VolumeState};

use crate::core::Core;
use crate::redundancy::Class;
use crate::standing::Standing;
use crate::state::blocks::{Block, VolumeIndex};

/// Cells of a map at the most.
pub const CELLS_MAX: usize = 16_384;
/// Files that are told by name.
const NAMED_MAX: usize = 100;
/// Files that are told apart; beyond that their number is "at least".
const COUNTED_MAX: usize = 1 << 20;

/// A run of blocks that lie side by side in the order of their ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// The first of them.
    pub from: BlockId,
    /// The last of them.
    pub to: BlockId,
    /// How many there are.
    pub blocks: u64,
    /// Those without a good replica that can be read.
    pub missing: u64,
    /// Those of which one is left, though more are wanted.
    pub one_left: u64,
    /// Those with more than one, though fewer than wanted.
    pub under: u64,
    /// Those with a damaged replica.
    pub damaged: u64,
    /// Those whose replicas stand too close together, or on draining volumes.
    pub misplaced: u64,
    /// When the one that was longest without it was last verified or written, milliseconds since 1970; 0 where none has
    /// a good replica.
    pub verified_unix_ms: u64,
    /// How often rights to read the file of the most wanted one were given of late.
    pub reads: u32,
}

/// All blocks of a range, from afar.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlockMap {
    /// In the order of ids.
    pub cells: Vec<Cell>,
    /// Blocks in all of them.
    pub blocks: u64,
}

/// Blocks that would share a fate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fate {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes, each counted once.
    pub bytes: u64,
    /// Files (and uploads) that they belong to.
    pub files: u64,
    /// Whether there are more files than were counted.
    pub more_files: bool,
    /// The first of the files with so many of these blocks each; empty for one that is being uploaded or was replaced.
    pub named: Vec<(String, u64)>,
}

/// What the loss of some volumes would mean.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WhatIf {
    /// Replicas on them that count.
    pub replicas: u64,
    /// What would keep at least one good replica.
    pub lose_copy: Fate,
    /// What would keep none.
    pub lost: Fate,
    /// Blocks that lack replicas as it is.
    pub at_risk_blocks: u64,
    /// Bytes of the copies that repair would have to make.
    pub needed_bytes: u64,
    /// Bytes that the volumes left would have room for.
    pub room_bytes: u64,
}

impl Cell {
    fn join(&mut self, next: &Self) {
        self.to = next.to;
        self.blocks += next.blocks;
        self.missing += next.missing;
        self.one_left += next.one_left;
        self.under += next.under;
        self.damaged += next.damaged;
        self.misplaced += next.misplaced;
        self.verified_unix_ms = self.verified_unix_ms.min(next.verified_unix_ms);
        self.reads = self.reads.max(next.reads);
    }
}

/// Cells of growing width, so that one walk does whatever the number of blocks.
struct Cells {
    cells: Vec<Cell>,
    cells_max: usize,
    width: u64,
}

impl Cells {
    fn push(&mut self, cell: &Cell) {
        match self.cells.last_mut() {
            Some(last) if last.blocks < self.width => return last.join(cell),
            _ => {}
        }
        if self.cells.len() == self.cells_max {
            self.width *= 2;
            let halved = self.cells.chunks(2).map(|pair| {
                let mut joined = pair[0];
                pair[1..].iter().for_each(|next| joined.join(next));
                joined
            });
            self.cells = halved.collect();
            return self.push(cell);
        }
        self.cells.push(*cell);
    }
}

impl Core {
    /// The blocks of a range in at most `cells_max` cells, each of equally many.
    pub async fn block_map(&self, range: RangeInclusive<BlockId>, cells_max: usize) -> BlockMap {
        let (passes, now_unix_ms) = (self.passes(), self.now_unix_ms());
        let mut cells = Cells {
            cells: Vec::new(),
            cells_max: cells_max.clamp(2, CELLS_MAX),
            width: 1,
        };
        self.each_block_in(range, |id, block| {
            cells.push(&self.cell(id, block, &passes, now_unix_ms))
        })
        .await;
        BlockMap {
            blocks: cells.cells.iter().map(|cell| cell.blocks).sum(),
            cells: cells.cells,
        }
    }

    /// When each volume's scrub last ended a pass.
    fn passes(&self) -> Vec<u64> {
        let (state, health) = (self.state.borrow(), self.health.borrow());
        (0..state.blocks().volumes().len())
            .map(|volume| {
                let report = health.report(volume as VolumeIndex);
                report.map_or(0, |report| report.scrub.last_pass_unix_ms)
            })
            .collect()
    }

    fn cell(&self, id: BlockId, block: &Block, passes: &[u64], now_unix_ms: u64) -> Cell {
        let class = self.redundancy.borrow().class(id);
        let is = |these: &[Class]| u64::from(class.is_some_and(|class| these.contains(&class)));
        let written = self
            .state
            .borrow()
            .version(block.version)
            .map_or(0, |row| row.published_unix_ms);
        let good = || block.replicas().filter(|(_, state)| *state == ReplicaState::Good);
        let verified = good().map(|(volume, _)| passes[usize::from(volume)].max(written));
        Cell {
            from: id,
            to: id,
            blocks: 1,
            missing: is(&[Class::Missing]),
            one_left: is(&[Class::OneLeft]),
            under: is(&[Class::Under]),
            damaged: u64::from(block.replicas().any(|(_, state)| state == ReplicaState::Corrupt)),
            misplaced: is(&[Class::Misplaced, Class::Leaving]),
            verified_unix_ms: verified.min().unwrap_or(0),
            reads: self.readers.borrow().times(block.version, now_unix_ms),
        }
    }

    /// What it would mean if these volumes were lost.
    ///
    /// # Errors
    /// `NotFound` for one that has never joined.
    pub async fn what_if(&self, lost: &[VolumeId]) -> Result<WhatIf> {
        let lost: BTreeSet<VolumeIndex> = {
            let state = self.state.borrow();
            let known = lost.iter().map(|volume| state.blocks().known(*volume));
            known.collect::<Result<_>>()?
        };
        let mut found = WhatIf {
            room_bytes: self.room_without(&lost),
            ..WhatIf::default()
        };
        let (mut copies, mut gone) = (Tally::default(), Tally::default());
        let everything = BlockId(0)..=BlockId(u64::MAX);
        self.each_block_in(everything, |_, block| {
            let (mut before, mut after) = (0, 0);
            {
                let health = self.health.borrow();
                for (volume, state) in block.replicas() {
                    let counts = health.standings().of(volume) != Standing::Lost;
                    if counts && state == ReplicaState::Good {
                        before += 1;
                        after += u64::from(!lost.contains(&volume));
                    }
                }
            }
            found.at_risk_blocks += u64::from(before < u64::from(block.wanted));
            found.replicas += before - after;
            if after < before {
                match after {
                    0 => gone.add(block),
                    _ => {
                        copies.add(block);
                        let missing = u64::from(block.wanted).saturating_sub(after);
                        found.needed_bytes += missing * u64::from(block.length);
                    }
                }
            }
        })
        .await;
        found.lose_copy = copies.told(self);
        found.lost = gone.told(self);
        Ok(found)
    }

    fn room_without(&self, lost: &BTreeSet<VolumeIndex>) -> u64 {
        let health = self.health.borrow();
        let volumes = 0..self.state.borrow().blocks().volumes().len() as VolumeIndex;
        volumes
            .filter(|volume| !lost.contains(volume) && health.standings().of(*volume) == Standing::Counts)
            .filter_map(|volume| health.report(volume))
            .filter(|report| report.state == VolumeState::Serving)
            .map(|report| report.free_bytes)
            .sum()
    }

    /// Blocks of a range with their files, at most `limit` (256), in the order of ids; whether there are more.
    pub fn run_of_blocks(
        &self,
        range: RangeInclusive<BlockId>,
        limit: usize,
    ) -> (Vec<(BlockInfo, String)>, bool) {
        let ids: Vec<BlockId> = {
            let state = self.state.borrow();
            let ids = state.blocks().table().after(range.start().0.checked_sub(1));
            let ids = ids.map(|(id, _)| BlockId(id)).take_while(|id| id <= range.end());
            ids.take(limit + 1).collect()
        };
        let more = ids.len() > limit;
        let located = ids.iter().take(limit).filter_map(|id| self.locate(*id).ok());
        (located.map(|(info, path, _)| (info, path)).collect(), more)
    }
}

/// Blocks of one fate while they are counted.
#[derive(Default)]
struct Tally {
    blocks: u64,
    bytes: u64,
    versions: BTreeMap<u64, u64>,
    more: bool,
}

impl Tally {
    fn add(&mut self, block: &Block) {
        self.blocks += 1;
        self.bytes += u64::from(block.length);
        let room = self.versions.len() < COUNTED_MAX;
        match self.versions.get_mut(&block.version) {
            Some(blocks) => *blocks += 1,
            None if room => drop(self.versions.insert(block.version, 1)),
            None => self.more = true,
        }
    }

    fn told(self, core: &Core) -> Fate {
        let state = core.state.borrow();
        let named = self.versions.iter().take(NAMED_MAX);
        Fate {
            blocks: self.blocks,
            bytes: self.bytes,
            files: self.versions.len() as u64,
            more_files: self.more,
            named: named
                .map(|(version, blocks)| (crate::answers::path_of(&state, *version), *blocks))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_grow_so_that_they_suffice() {
        let mut cells = Cells {
            cells: Vec::new(),
            cells_max: 4,
            width: 1,
        };
        for id in 1..=100 {
            cells.push(&Cell {
                from: BlockId(id),
                to: BlockId(id),
                blocks: 1,
                under: u64::from(id % 10 == 0),
                verified_unix_ms: id,
                ..Cell::default()
            });
        }
        let cells = cells.cells;
        assert!(cells.len() > 2 && cells.len() <= 4, "{cells:?}");
        assert_eq!(cells.iter().map(|cell| cell.blocks).sum::<u64>(), 100);
        assert_eq!(cells.iter().map(|cell| cell.under).sum::<u64>(), 10);
        assert!(cells.windows(2).all(|pair| pair[0].to.0 + 1 == pair[1].from.0));
        assert!(cells.iter().all(|cell| cell.verified_unix_ms == cell.from.0));
        let (first, rest) = cells.split_first().unwrap();
        let full = rest
            .iter()
            .take(rest.len() - 1)
            .all(|cell| cell.blocks == first.blocks);
        assert!(full, "all but the last are equally wide: {cells:?}");
    }
}
