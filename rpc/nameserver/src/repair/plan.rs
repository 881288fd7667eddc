//! What is done for a block in need: which volume copies it from which, or which gives its replica up. Starts nothing.

use blockyard_wire::types::{BlockId, Liveness, ReplicaState, VolumeReport};

use super::Work;
use super::balance::{self, Fill};
use crate::core::Core;
use crate::placement::{Candidate, Spot, choose};
use crate::redundancy::Need;
use crate::standing::Standing;
use crate::state::blocks::{Block, VolumeIndex};

/// Blocks that one look for something to even out goes over.
const BALANCE_STEP: usize = 4096;

/// What is to be done for a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Have the second volume pull it from the first.
    Copy(VolumeIndex, VolumeIndex),
    /// Take the replica off the map and delete it, once so many good ones among these have verified.
    Drop {
        volume: VolumeIndex,
        verify: Vec<VolumeIndex>,
        good_min: usize,
    },
}

/// What can be done for a block now, if anything.
pub fn plan(core: &Core, work: &Work, need: Need, id: BlockId) -> Option<Plan> {
    let state = core.state.borrow();
    let block = state.blocks().get(id)?;
    let scene = Scene {
        core,
        work,
        id,
        block,
    };
    match need {
        Need::Copies(_) | Need::Leaving => scene.copy(),
        Need::Misplaced => scene.spread(),
        Need::Cleaning => scene.clean(),
        Need::Trimming => scene.trim(),
    }
}

/// A block and all that decides what is done for it.
struct Scene<'a> {
    core: &'a Core,
    work: &'a Work,
    id: BlockId,
    block: &'a Block,
}

impl Scene<'_> {
    fn is_alive(&self, volume: VolumeIndex) -> bool {
        let liveness = self
            .core
            .health
            .borrow()
            .volume_liveness(volume, self.core.now_ms());
        liveness == Liveness::Alive && self.core.control_of(volume).is_some()
    }

    fn standing(&self, volume: VolumeIndex) -> Standing {
        self.core.health.borrow().standings().of(volume)
    }

    fn of_state(&self, wanted: ReplicaState) -> impl Iterator<Item = VolumeIndex> + '_ {
        self.block
            .replicas()
            .filter(move |(_, state)| *state == wanted)
            .map(|(volume, _)| volume)
    }

    /// Good replicas whose volumes can be asked now.
    fn good(&self) -> Vec<VolumeIndex> {
        self.of_state(ReplicaState::Good)
            .filter(|volume| self.is_alive(*volume))
            .collect()
    }

    /// Good replicas that count. Where lost ones were says nothing of where others should be.
    fn counted(&self) -> Vec<VolumeIndex> {
        let counts =
            |volume: &VolumeIndex| matches!(self.standing(*volume), Standing::Counts | Standing::Away);
        self.of_state(ReplicaState::Good).filter(counts).collect()
    }

    /// Replicas to copy from. A failed volume may still be read from, when there is no other.
    fn sources(&self) -> Vec<VolumeIndex> {
        let good = self.good();
        let sound: Vec<_> = good
            .iter()
            .copied()
            .filter(|volume| self.standing(*volume) != Standing::Lost)
            .collect();
        if sound.is_empty() { good } else { sound }
    }

    /// One more copy: on a server that has none yet, or on one of another zone.
    fn copy(&self) -> Option<Plan> {
        let sources = self.sources();
        let source = self.work.idlest(&sources, self.core)?;
        if self.block.is_full() {
            return self.make_room(sources);
        }
        let held = self.counted();
        if let Some(target) = self.target(&held) {
            return Some(Plan::Copy(source, target));
        }
        // Where the only other place is the one that the damaged replica takes, it has to make room first.
        let health = self.core.health.borrow();
        let standings = health.standings();
        let in_the_way = self.of_state(ReplicaState::Corrupt).find(|volume| {
            let server = standings.place(*volume).server;
            self.is_alive(*volume) && held.iter().all(|held| standings.place(*held).server != server)
        })?;
        self.was_shown(in_the_way).then_some(Plan::Drop {
            volume: in_the_way,
            verify: sources,
            good_min: 1,
        })
    }

    /// Where the map has no room for another replica of the block, one on a lost volume goes.
    fn make_room(&self, verify: Vec<VolumeIndex>) -> Option<Plan> {
        let mut replicas = self.block.replicas();
        let (volume, _) = replicas.find(|(volume, _)| self.standing(*volume) == Standing::Lost)?;
        Some(Plan::Drop {
            volume,
            verify,
            good_min: 1,
        })
    }

    /// A volume for another copy beside those `held`.
    fn target(&self, held: &[VolumeIndex]) -> Option<VolumeIndex> {
        let (state, health) = (self.core.state.borrow(), self.core.health.borrow());
        let spots: Vec<Spot<'_>> = held
            .iter()
            .filter_map(|volume| health.server_of(*volume))
            .map(|(server, row)| Spot {
                server,
                zone: &row.zone,
            })
            .collect();
        let owes = |volume: VolumeIndex| {
            let row = state.blocks().volume(volume);
            row.is_some_and(|row| row.pending.contains(&self.id.0))
        };
        let mut candidates = self.core.candidates(&state, &health, &[]);
        candidates.retain(|c| self.block.state_on(c.volume).is_none() && !owes(c.volume));
        // Copies go where few are under way, as far as the spread leaves a choice.
        let free = |c: &Candidate<'_>| self.work.has_room(self.core, c.volume);
        let idle: Vec<_> = candidates.iter().filter(|c| free(c)).cloned().collect();
        let chosen = choose(&idle, &spots, 1, 0, &mut *self.core.lots.borrow_mut());
        chosen.first().copied()
    }

    /// A copy that is further from the others than one that is there; the one too many is trimmed behind it.
    fn spread(&self) -> Option<Plan> {
        let sources = self.sources();
        let source = self.work.idlest(&sources, self.core)?;
        if self.block.is_full() {
            return self.make_room(sources);
        }
        let held = self.counted();
        let target = self.target(&held)?;
        let health = self.core.health.borrow();
        let standings = health.standings();
        // Without this or that replica, and with the new one: is it better than before?
        let before = standings.spread(held.iter().copied());
        let gains = held.iter().any(|gone| {
            let rest = held.iter().copied().filter(|volume| volume != gone);
            let after = standings.spread(rest.chain([target]));
            after.0 >= before.0 && after.1 >= before.1 && after != before
        });
        gains.then_some(Plan::Copy(source, target))
    }

    /// Whether a damaged replica has been shown for long enough.
    fn was_shown(&self, volume: VolumeIndex) -> bool {
        let show_ms = u64::from(self.core.config.show_damage_ms);
        self.work.was_shown(volume, self.id, self.core.now_ms(), show_ms)
    }

    fn clean(&self) -> Option<Plan> {
        let corrupt = self.of_state(ReplicaState::Corrupt).next()?;
        self.was_shown(corrupt).then_some(Plan::Drop {
            volume: corrupt,
            verify: Vec::new(),
            good_min: 0,
        })
    }

    /// Gives up the replica that is worth least: on a draining volume, else one beside which another is in the same
    /// server or zone, else the one with the least room.
    fn trim(&self) -> Option<Plan> {
        let wanted = usize::from(self.block.wanted);
        let good = self.good();
        if good.len() <= wanted {
            return None;
        }
        let health = self.core.health.borrow();
        let standings = health.standings();
        let surplus = *good.iter().min_by_key(|volume| {
            let rest = good.iter().copied().filter(|other| other != *volume);
            let (servers, zones) = standings.spread(rest);
            let free = health.report(**volume).map_or(0, |report| report.free_bytes);
            let leaves = standings.of(**volume) == Standing::Leaving;
            (!leaves, std::cmp::Reverse((servers, zones)), free)
        })?;
        let stays = |volume: &VolumeIndex| *volume != surplus && standings.of(*volume) == Standing::Counts;
        let verify: Vec<_> = good.iter().copied().filter(stays).collect();
        (verify.len() >= wanted).then_some(Plan::Drop {
            volume: surplus,
            verify,
            good_min: wanted,
        })
    }
}

/// The room that a replica takes on a volume, its slot and what is left of its segment included; a mean.
fn replica_bytes(report: &VolumeReport) -> u64 {
    report.used_bytes / report.replicas.max(1)
}

/// A block to move from a full volume to an empty one, found behind `cursor`.
pub fn even_out(core: &Core, work: &Work) -> Option<(BlockId, u32, Plan)> {
    let (state, health) = (core.state.borrow(), core.health.borrow());
    let candidates = core.candidates(&state, &health, &[]);
    // Reports are a heartbeat old, and what was dropped goes later still: the map tells at once how many replicas there
    // are, the report how much room each takes. With the report alone volumes would swing, each giving back what it was
    // given too much.
    let fills: Vec<Fill> = state
        .blocks()
        .volumes()
        .iter()
        .zip(0 as VolumeIndex..)
        .filter(|(_, volume)| health.standings().of(*volume) == Standing::Counts)
        .filter_map(|(row, volume)| {
            let report = health.report(volume)?;
            Some(Fill {
                volume,
                used_bytes: row.replicas * replica_bytes(report),
                capacity_bytes: report.used_bytes + report.free_bytes,
            })
        })
        .collect();
    let (givers, takers) = balance::sides(&fills);
    let fill = |volume: VolumeIndex| fills.iter().find(|fill| fill.volume == volume);
    let takes = |volume: &&VolumeIndex| {
        candidates.iter().any(|c| c.volume == **volume) && work.has_room(core, **volume)
    };
    let takers: Vec<_> = takers.iter().filter(takes).copied().collect();
    if givers.is_empty() || takers.is_empty() {
        return None;
    }
    let after = work.balance_cursor.take();
    let redundancy = core.redundancy.borrow();
    let mut seen = 0;
    for (id, block) in state.blocks().table().after(after).take(BALANCE_STEP) {
        seen += 1;
        work.balance_cursor.set(Some(id));
        if redundancy.is_in_need(BlockId(id)) || work.is_busy(id) {
            continue;
        }
        let sound = |volume: VolumeIndex| block.state_on(volume) == Some(ReplicaState::Good);
        let owes = |volume: VolumeIndex| {
            let row = state.blocks().volume(volume);
            row.is_some_and(|row| row.pending.contains(&id))
        };
        for &from in givers.iter().filter(|from| sound(**from)) {
            let is_worth = |to: VolumeIndex| {
                let (giver, taker) = (fill(from), fill(to));
                giver
                    .zip(taker)
                    .is_some_and(|(giver, taker)| balance::is_worth(giver, taker, u64::from(block.length)))
            };
            let to = takers.iter().find(|to| {
                !owes(**to) && is_worth(**to) && balance::may_move(block, from, **to, health.standings())
            });
            let sources: Vec<_> = block
                .replicas()
                .filter(|(volume, state)| *state == ReplicaState::Good && core.control_of(*volume).is_some())
                .map(|(volume, _)| volume)
                .collect();
            if let (Some(to), Some(source)) = (to, work.idlest(&sources, core)) {
                return Some((BlockId(id), block.length, Plan::Copy(source, *to)));
            }
        }
    }
    if seen < BALANCE_STEP {
        // The end: from the first again.
        work.balance_cursor.set(None);
    }
    None
}
