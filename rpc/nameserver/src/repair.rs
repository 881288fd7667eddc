//! Repair: blocks with too few good replicas get copies, damaged and surplus replicas go.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::ticket::Operation;
use blockyard_wire::types::{BlockId, Liveness, ReplicaState};
use blockyard_wire::{Problem, ProblemKind, Result};
use rand::seq::IndexedRandom as _;

use crate::core::Core;
use crate::placement::{Spot, choose};
use crate::redundancy::Need;
use crate::reports;
use crate::state::Command;
use crate::state::blocks::{Block, VolumeIndex};

/// Blocks in need that one round looks at.
const LOOK_MAX: usize = 512;
/// Pauses of a block whose repair has failed: the first, and the longest; each is twice the one before.
const PAUSE_MS: (u64, u64) = (1_000, 60_000);
/// Between rounds when nothing wakes them.
const ROUND: Duration = Duration::from_secs(1);
/// Blocks whose pauses are remembered, and damaged replicas since when they are known.
const REMEMBERED_MAX: usize = 65_536;

/// What is to be done for a block.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Plan {
    /// Have the second volume pull it from the first.
    Copy(VolumeIndex, VolumeIndex),
    /// Take the replica off the map and delete it, once so many good ones among these have verified.
    Drop {
        volume: VolumeIndex,
        verify: Vec<VolumeIndex>,
        good_min: usize,
    },
}

#[derive(Default)]
struct Work {
    busy: RefCell<BTreeSet<u64>>,
    /// Until when a block waits, and how long that was.
    pauses: RefCell<BTreeMap<u64, (u64, u64)>>,
    /// Since when damaged replicas are known.
    damaged: RefCell<BTreeMap<(VolumeIndex, u64), u64>>,
    /// Where the next round goes on.
    cursor: Cell<Option<(Need, u64)>>,
}

impl Work {
    /// Whether a damaged replica has been shown for long enough: copies to other volumes do not wait for this,
    /// but the damage itself stays in sight before it is deleted, so that nobody overlooks a dying disk.
    fn was_shown(&self, volume: VolumeIndex, id: BlockId, now_ms: u64, show_ms: u64) -> bool {
        let mut damaged = self.damaged.borrow_mut();
        if damaged.len() >= REMEMBERED_MAX {
            damaged.clear();
        }
        let since_ms = *damaged.entry((volume, id.0)).or_insert(now_ms);
        let shown = now_ms >= since_ms + show_ms;
        if shown {
            damaged.remove(&(volume, id.0));
        }
        shown
    }
}

/// Repairs until it is dropped.
pub async fn run(core: Rc<Core>) {
    let work = Rc::new(Work::default());
    loop {
        // Either way the next round is due.
        let _ = tokio::time::timeout(ROUND, core.repair_wake.notified()).await;
        if !core.safe_mode.get() {
            round(&core, &work);
        }
    }
}

/// Starts what can be started.
fn round(core: &Rc<Core>, work: &Rc<Work>) {
    let room = core.config.repairs_max.saturating_sub(work.busy.borrow().len());
    let mut started = 0;
    let in_need = look(core, work);
    for (need, id) in in_need {
        if started == room {
            return;
        }
        work.cursor.set(Some((need, id)));
        let waits = work
            .pauses
            .borrow()
            .get(&id)
            .is_some_and(|(until, _)| *until > core.now_ms());
        if waits || work.busy.borrow().contains(&id) {
            continue;
        }
        let Some(plan) = plan(core, work, need, BlockId(id)) else {
            continue;
        };
        started += 1;
        work.busy.borrow_mut().insert(id);
        core.repairing.set(core.repairing.get() + 1);
        let (core, work) = (core.clone(), work.clone());
        tokio::task::spawn_local(async move {
            let done = carry_out(&core, BlockId(id), plan).await;
            core.repairing.set(core.repairing.get() - 1);
            work.busy.borrow_mut().remove(&id);
            let mut pauses = work.pauses.borrow_mut();
            match done {
                Ok(()) => {
                    pauses.remove(&id);
                    core.repair_wake.notify_one();
                }
                Err(problem) => {
                    let last_ms = pauses.get(&id).map_or(PAUSE_MS.0 / 2, |(_, last_ms)| *last_ms);
                    let pause_ms = (last_ms * 2).min(PAUSE_MS.1);
                    tracing::warn!(block = %BlockId(id), %problem, pause_ms, "a repair has failed");
                    if pauses.len() >= REMEMBERED_MAX {
                        pauses.clear();
                    }
                    pauses.insert(id, (core.now_ms() + pause_ms, pause_ms));
                }
            }
        });
    }
}

/// The blocks that this round looks at: the most urgent ones first, but in the end all of them.
fn look(core: &Core, work: &Work) -> Vec<(Need, u64)> {
    let redundancy = core.redundancy.borrow();
    let ahead: Vec<_> = redundancy.urgent(work.cursor.get()).take(LOOK_MAX).collect();
    if ahead.len() < LOOK_MAX && work.cursor.take().is_some() {
        let more = redundancy.urgent(None).take(LOOK_MAX - ahead.len());
        let mut all: Vec<_> = more.chain(ahead).collect();
        all.sort_unstable();
        all.dedup();
        return all;
    }
    ahead
}

/// What can be done now, if anything.
fn plan(core: &Core, work: &Work, need: Need, id: BlockId) -> Option<Plan> {
    let state = core.state.borrow();
    let health = core.health.borrow();
    let now_ms = core.now_ms();
    let show_ms = u64::from(core.config.show_damage_ms);
    let block: &Block = state.blocks().get(id)?;
    let alive = |volume: VolumeIndex| {
        health.volume_liveness(volume, now_ms) == Liveness::Alive && core.control_of(volume).is_some()
    };
    let of_state = |wanted: ReplicaState| {
        block
            .replicas()
            .filter(move |(_, state)| *state == wanted)
            .map(|(volume, _)| volume)
    };
    let good: Vec<_> = of_state(ReplicaState::Good)
        .filter(|volume| alive(*volume))
        .collect();
    match need {
        Need::Copies(_) => {
            // A failed volume may still be read from, when there is no other.
            let sound: Vec<_> = good
                .iter()
                .copied()
                .filter(|volume| !health.is_lost(*volume))
                .collect();
            let sources = if sound.is_empty() { &good } else { &sound };
            let source = *sources.choose(&mut *core.lots.borrow_mut())?;
            if block.is_full() {
                let lost = block.replicas().find(|(volume, _)| health.is_lost(*volume))?.0;
                return Some(Plan::Drop {
                    volume: lost,
                    verify: sources.clone(),
                    good_min: 1,
                });
            }
            let held: Vec<Spot<'_>> = of_state(ReplicaState::Good)
                .filter(|volume| !health.is_lost(*volume))
                .filter_map(|volume| health.server_of(volume))
                .map(|(server, row)| Spot {
                    server,
                    zone: &row.zone,
                })
                .collect();
            let owes = |volume: VolumeIndex| {
                state
                    .blocks()
                    .volume(volume)
                    .is_some_and(|volume| volume.pending.contains(&id.0))
            };
            let mut candidates = core.candidates(&state, &health, &[]);
            candidates.retain(|c| block.state_on(c.volume).is_none() && !owes(c.volume));
            if let Some(target) = choose(&candidates, &held, 1, 0, &mut *core.lots.borrow_mut()).first() {
                return Some(Plan::Copy(source, *target));
            }
            // Where the only other place is the one that the damaged replica takes, it has to make room first.
            let in_the_way = of_state(ReplicaState::Corrupt).find(|volume| {
                let server = health.server_of(*volume);
                alive(*volume)
                    && server.is_some_and(|(server, _)| held.iter().all(|spot| spot.server != server))
            })?;
            if !work.was_shown(in_the_way, id, now_ms, show_ms) {
                return None;
            }
            Some(Plan::Drop {
                volume: in_the_way,
                verify: sources.clone(),
                good_min: 1,
            })
        }
        Need::Cleaning => {
            let corrupt = of_state(ReplicaState::Corrupt).next()?;
            if !work.was_shown(corrupt, id, now_ms, show_ms) {
                return None;
            }
            Some(Plan::Drop {
                volume: corrupt,
                verify: Vec::new(),
                good_min: 0,
            })
        }
        Need::Trimming => {
            let wanted = usize::from(block.wanted);
            if good.len() <= wanted {
                return None;
            }
            // The one whose server has another, else the one with the least room.
            let doubled = |volume: VolumeIndex| {
                let server = health.server_of(volume).map(|(server, _)| server);
                good.iter().any(|other| {
                    *other != volume && health.server_of(*other).map(|(server, _)| server) == server
                })
            };
            let free = |volume: VolumeIndex| health.report(volume).map_or(0, |report| report.free_bytes);
            let surplus = *good
                .iter()
                .min_by_key(|volume| (!doubled(**volume), free(**volume)))?;
            let verify = good.iter().copied().filter(|volume| *volume != surplus).collect();
            Some(Plan::Drop {
                volume: surplus,
                verify,
                good_min: wanted,
            })
        }
    }
}

async fn carry_out(core: &Rc<Core>, id: BlockId, plan: Plan) -> Result<()> {
    match plan {
        Plan::Copy(source, target) => copy(core, id, source, target).await,
        Plan::Drop {
            volume,
            verify,
            good_min,
        } => {
            let mut verified = 0;
            for good in verify {
                let Some(control) = core.control_of(good) else {
                    continue;
                };
                reports::examine(core, &control, good, id).await?;
                let block = core.state.borrow().blocks().get(id).copied();
                let state = block.and_then(|block| block.state_on(good));
                verified += usize::from(state == Some(ReplicaState::Good));
            }
            if verified < good_min {
                return Err(Problem::retry(format!(
                    "only {verified} of {good_min} good replicas have verified"
                )));
            }
            core.propose(Command::Drop { block: id, volume })
                .await
                .map(|_| ())
        }
    }
}

async fn copy(core: &Rc<Core>, id: BlockId, source: VolumeIndex, target: VolumeIndex) -> Result<()> {
    let gone = || Problem::new(ProblemKind::Gone, format!("block {id} has gone"));
    let (block, hop) = {
        let state = core.state.borrow();
        let block = *state.blocks().get(id).ok_or_else(gone)?;
        let expires_unix_ms = core.now_unix_ms() + core.config.ticket_ms;
        let what = (Operation::Copy, 0, block.length);
        (
            block,
            core.hop(&state, source, id, what, expires_unix_ms)
                .ok_or_else(gone)?,
        )
    };
    let control = core
        .control_of(target)
        .ok_or_else(|| Problem::retry("the target's dataserver is not connected"))?;
    let target_id = core.volume_id(target);
    let proof = match control.copy(target_id, id, &block, &hop).await {
        Ok(proof) => proof,
        Err(problem) => {
            let of_source = matches!(
                problem.kind,
                ProblemKind::Corrupt | ProblemKind::NotFound | ProblemKind::OtherReplica
            );
            if of_source {
                reports::doubt(core.clone(), source, id);
            }
            return Err(problem);
        }
    };
    if proof.volume != target_id || !core.keys.proves(&proof, id, block.length, block.crc32c) {
        return Err(Problem::new(
            ProblemKind::Denied,
            "the copy's proof does not hold",
        ));
    }
    core.propose(Command::Copied {
        block: id,
        volume: target,
    })
    .await
    .map(|_| ())
}
