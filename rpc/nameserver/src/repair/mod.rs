//! Repair: blocks with too few good replicas get copies, damaged and surplus replicas go, full volumes give to empty ones.
//!
//! What is done for a block is told in `plan`; here it is decided when, how much at a time, and what comes of it.

mod balance;
mod pace;
mod plan;
mod turns;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::ticket::Operation;
use blockyard_wire::types::{Backlog, BlockId, RepairStatus, ReplicaState};
use blockyard_wire::{Problem, ProblemKind, Result};

use self::pace::Pace;
use self::plan::{Plan, even_out, plan};
use self::turns::{Beside, Turns};
use crate::core::Core;
use crate::redundancy::{Class, Need};
use crate::reports;
use crate::state::Command;
use crate::state::blocks::VolumeIndex;

/// Blocks in need that one round looks at: the most urgent ones, and further ones, which other volumes may have room for.
const URGENT_MAX: usize = 256;
const FURTHER_MAX: usize = 256;
/// Behind the blocks of which no replica can be read: nothing can be done for them.
const BEHIND_MISSING: (Need, u64) = (Need::Copies(0), u64::MAX);
/// Pauses of a block whose repair has failed: the first, and the longest; each is twice the one before.
const PAUSE_MS: (u64, u64) = (1_000, 60_000);
/// Between rounds when nothing wakes them.
const ROUND: Duration = Duration::from_secs(1);
/// Blocks whose pauses are remembered, and damaged replicas since when they are known.
const REMEMBERED_MAX: usize = 65_536;
/// Moves at a time that even out how full volumes are.
const MOVES_MAX: usize = 2;

/// What repair is doing, and has done since the start.
#[derive(Default)]
pub struct Work {
    /// Blocks that something is being done for.
    busy: RefCell<BTreeSet<u64>>,
    /// Copies under way from and to each volume.
    turns: RefCell<Turns>,
    /// Moves under way.
    moves: Cell<usize>,
    /// Until when a block waits, and how long that was.
    pauses: RefCell<BTreeMap<u64, (u64, u64)>>,
    /// Since when damaged replicas are known.
    damaged: RefCell<BTreeMap<(VolumeIndex, u64), u64>>,
    /// Where the next round looks further.
    further: Cell<Option<(Need, u64)>>,
    /// Where the search for something to even out goes on.
    balance_cursor: Cell<Option<u64>>,
    pace: RefCell<Pace>,
    copied: Cell<Backlog>,
    balanced: Cell<Backlog>,
    failed: Cell<u64>,
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

    /// Whether something is being done for a block.
    pub fn is_busy(&self, id: u64) -> bool {
        self.busy.borrow().contains(&id)
    }

    /// Whether a volume may take part in one more copy.
    fn has_room(&self, core: &Core, volume: VolumeIndex) -> bool {
        let now_ms = core.now_ms();
        let paced = core.state.borrow().tuning().repair_bytes_per_s > 0;
        let beside = match core.health.borrow().has_clients(volume, now_ms) {
            false => Beside::Idle,
            true if paced => Beside::ClientsPaced,
            true => Beside::Clients,
        };
        self.turns.borrow().has_room(volume, beside, now_ms)
    }

    /// Whether a copy could begin: two volumes may take part in one.
    fn may_copy(&self, core: &Core) -> bool {
        let health = core.health.borrow();
        let volumes = health.servers().values().flat_map(|server| &server.volumes);
        volumes
            .filter(|volume| self.has_room(core, **volume))
            .nth(1)
            .is_some()
    }

    /// The volume with the fewest copies under way, where one may take part in another.
    fn idlest(&self, volumes: &[VolumeIndex], core: &Core) -> Option<VolumeIndex> {
        let free = volumes.iter().filter(|volume| self.has_room(core, **volume));
        let turns = self.turns.borrow();
        free.min_by_key(|volume| turns.copies_of(**volume)).copied()
    }

    fn add(to: &Cell<Backlog>, bytes: u32) {
        let so_far = to.get();
        to.set(Backlog {
            blocks: so_far.blocks + 1,
            bytes: so_far.bytes + u64::from(bytes),
        });
    }
}

impl Core {
    /// Why repair does nothing, whatever there is to do.
    fn repair_is_held(&self) -> Option<String> {
        let tuning = self.state.borrow().tuning();
        if tuning.repair_paused {
            return Some("paused by the operator; go on with 'blockyard repair resume'".to_owned());
        }
        // A copy that can't be put on the map would be made again and again.
        let read_only = self.read_only.borrow();
        if !read_only.is_empty() {
            return Some(format!("the nameserver is read-only: {read_only}"));
        }
        if self.safe_mode.get() {
            return Some("just started: waiting for the dataservers that are known".to_owned());
        }
        let share = self.health.borrow().silent_share();
        let outage = share > self.config.outage_share && !tuning.repair_forced;
        outage.then(|| {
            format!(
                "{:.0}% of all volumes have been silent for too long: that is rather the network or the power than \
                 their disks; bring them back, or go on without them with 'blockyard repair resume --force'",
                share * 100.0
            )
        })
    }

    /// What repair has before it and behind it.
    pub fn repair_status(&self) -> RepairStatus {
        let (redundancy, work) = (self.redundancy.borrow(), &self.repair);
        let [one_left, under, leaving, misplaced] =
            [Class::OneLeft, Class::Under, Class::Leaving, Class::Misplaced]
                .map(|class| redundancy.backlog(class));
        let waiting: u64 = [one_left, under, leaving, misplaced]
            .iter()
            .map(|b| b.bytes)
            .sum();
        let held = self
            .repair_is_held()
            .filter(|_| waiting > 0 || self.state.borrow().tuning().repair_paused);
        let bytes_per_s = work.pace.borrow_mut().bytes_per_s(self.now_ms());
        RepairStatus {
            tuning: self.state.borrow().tuning(),
            eta_ms: match (waiting, bytes_per_s, &held) {
                (1.., 1.., None) => (waiting.saturating_mul(1000) / bytes_per_s).max(1),
                _ => 0,
            },
            held: held.unwrap_or_default(),
            one_left,
            under,
            leaving,
            misplaced,
            copying: self.repairing.get() as u32,
            copied: work.copied.get(),
            balanced: work.balanced.get(),
            bytes_per_s,
            failed: work.failed.get(),
        }
    }
}

/// Repairs until it is dropped.
pub async fn run(core: Rc<Core>) {
    let mut said = None;
    let mut pause = ROUND;
    loop {
        // Either way the next round is due.
        let _ = tokio::time::timeout(pause, core.repair_wake.notified()).await;
        let held = core.repair_is_held();
        if held != said && core.redundancy.borrow().waits_for_copies() {
            match &held {
                Some(why) => tracing::warn!(why, "repair is held back"),
                None => tracing::info!("repair goes on"),
            }
            said.clone_from(&held);
        }
        pause = match held {
            None => round(&core),
            Some(_) => ROUND,
        };
    }
}

/// Starts what can be started; how long until more of it can, should nothing wake it before.
fn round(core: &Rc<Core>) -> Duration {
    let paced_ms = start_some(core).err();
    let rest_ms = core.repair.turns.borrow_mut().rest_ms(core.now_ms());
    let soonest_ms = paced_ms.into_iter().chain(rest_ms).min();
    soonest_ms.map_or(ROUND, |ms| ROUND.min(Duration::from_millis(ms.max(1))))
}

/// Starts what can be started, unless the pace forbids it for so many milliseconds.
fn start_some(core: &Rc<Core>) -> std::result::Result<(), u64> {
    let work = &core.repair;
    let room = core.config.repairs_max.saturating_sub(work.busy.borrow().len());
    let mut started = 0;
    let mut may_copy = work.may_copy(core);
    for (need, id) in look(core) {
        if started == room {
            return Ok(());
        }
        let waits = work
            .pauses
            .borrow()
            .get(&id)
            .is_some_and(|(until, _)| *until > core.now_ms());
        // Hundreds of plans that can't begin cost more than to know it.
        if waits || work.is_busy(id) || (need.class() < Class::Surplus && !may_copy) {
            continue;
        }
        let Some(plan) = plan(core, work, need, BlockId(id)) else {
            continue;
        };
        let length = core
            .state
            .borrow()
            .blocks()
            .get(BlockId(id))
            .map_or(0, |block| block.length);
        if matches!(plan, Plan::Copy(..)) {
            begin(core, length)?;
        }
        started += 1;
        start(core, BlockId(id), length, plan, false);
        may_copy = work.may_copy(core);
    }
    // Only with nothing else to do.
    let calm = !core.redundancy.borrow().waits_for_copies() && !core.state.borrow().tuning().balance_off;
    while calm && may_copy && work.moves.get() < MOVES_MAX && started < room {
        let Some((id, length, plan)) = even_out(core, work) else {
            break;
        };
        begin(core, length)?;
        started += 1;
        start(core, id, length, plan, true);
    }
    Ok(())
}

/// Counts a copy of so many bytes as begun, unless it has to wait so many milliseconds for the operator's pace.
fn begin(core: &Core, length: u32) -> std::result::Result<(), u64> {
    let limit_bytes_per_s = core.state.borrow().tuning().repair_bytes_per_s;
    let mut pace = core.repair.pace.borrow_mut();
    pace.begin(u64::from(length), limit_bytes_per_s, core.now_ms())
}

fn start(core: &Rc<Core>, id: BlockId, length: u32, plan: Plan, moves: bool) {
    let work = &core.repair;
    work.busy.borrow_mut().insert(id.0);
    let between = match plan {
        Plan::Copy(source, target) => Some([source, target]),
        Plan::Drop { .. } => None,
    };
    let copies = between.is_some();
    let began_ms = core.now_ms();
    if let Some(volumes) = between {
        work.turns.borrow_mut().begun(volumes);
    }
    core.repairing.set(core.repairing.get() + u64::from(copies));
    work.moves.set(work.moves.get() + usize::from(moves));
    let core = core.clone();
    tokio::task::spawn_local(async move {
        let done = carry_out(&core, id, &plan).await;
        let work = &core.repair;
        if let Some(volumes) = between {
            work.turns.borrow_mut().ended(volumes, began_ms, core.now_ms());
        }
        core.repairing.set(core.repairing.get() - u64::from(copies));
        work.moves.set(work.moves.get() - usize::from(moves));
        work.busy.borrow_mut().remove(&id.0);
        let mut pauses = work.pauses.borrow_mut();
        match done {
            Ok(()) => {
                pauses.remove(&id.0);
                if copies {
                    work.pace.borrow_mut().ended(u64::from(length), core.now_ms());
                    Work::add(if moves { &work.balanced } else { &work.copied }, length);
                }
                core.repair_wake.notify_one();
            }
            Err(problem) => {
                let last_ms = pauses.get(&id.0).map_or(PAUSE_MS.0 / 2, |(_, last_ms)| *last_ms);
                let pause_ms = (last_ms * 2).min(PAUSE_MS.1);
                tracing::warn!(block = %id, %problem, pause_ms, "a repair has failed");
                work.failed.set(work.failed.get() + u64::from(copies));
                if pauses.len() >= REMEMBERED_MAX {
                    pauses.clear();
                }
                pauses.insert(id.0, (core.now_ms() + pause_ms, pause_ms));
            }
        }
    });
}

/// The blocks that this round looks at: the most urgent ones each time, and in the end all of them.
fn look(core: &Core) -> Vec<(Need, u64)> {
    let (redundancy, work) = (core.redundancy.borrow(), &core.repair);
    let mut looked: Vec<_> = redundancy.urgent(Some(BEHIND_MISSING)).take(URGENT_MAX).collect();
    let from = work.further.get().max(looked.last().copied());
    let urgent = looked.len();
    looked.extend(redundancy.urgent(from).take(FURTHER_MAX));
    let more = looked.len() == urgent + FURTHER_MAX;
    work.further.set(looked.last().copied().filter(|_| more));
    looked
}

async fn carry_out(core: &Rc<Core>, id: BlockId, plan: &Plan) -> Result<()> {
    match plan {
        Plan::Copy(source, target) => copy(core, id, *source, *target).await,
        Plan::Drop {
            volume,
            verify,
            good_min,
        } => {
            let mut verified = 0;
            for &good in verify {
                let Some(control) = core.control_of(good) else {
                    continue;
                };
                reports::examine(core, &control, good, id).await?;
                let block = core.state.borrow().blocks().get(id).copied();
                let state = block.and_then(|block| block.state_on(good));
                verified += usize::from(state == Some(ReplicaState::Good));
            }
            if verified < *good_min {
                return Err(Problem::retry(format!(
                    "only {verified} of {good_min} good replicas have verified"
                )));
            }
            let volume = *volume;
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
    let beside_clients = {
        let (health, now_ms) = (core.health.borrow(), core.now_ms());
        health.has_clients(source, now_ms) || health.has_clients(target, now_ms)
    };
    let proof = match control.copy(target_id, id, &block, &hop, beside_clients).await {
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
