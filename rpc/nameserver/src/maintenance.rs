//! The clock's work: liveness, safe mode, silent uploads, versions that nobody reads any more, and the
//! deletions that follow.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::Result;
use blockyard_wire::types::{BlockId, RequestId};

use crate::core::Core;
use crate::dataserver::Control;
use crate::state::Command;
use crate::state::blocks::{Volume, VolumeIndex};

/// Uploads or versions of one command.
const BATCH: usize = 1000;
/// Blocks of one deletion.
const DELETES_MAX: usize = 4096;
/// The part of all space below which free space is short: then the trash is emptied sooner, so much of it at a time.
const SHORT_SHARE: f64 = 0.05;
const SHORT_STEP: usize = 16;
/// Pause after a deletion that failed.
const PAUSE_MS: u64 = 2_000;

/// Ticks until it is dropped.
pub async fn tick(core: Rc<Core>) {
    core.assess_all().await;
    crate::operate::forget_removed(&core).await;
    let step = Duration::from_millis(u64::from(core.config.heartbeat_ms / 2).clamp(20, 500));
    let mut clock = tokio::time::interval(step);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        leave_safe_mode(&core);
        let change = core.survey();
        if !change.volumes.is_empty() {
            tracing::info!(
                lost = change.lost.len(),
                others = change.volumes.len() - change.lost.len(),
                "what replicas on volumes are worth has changed"
            );
        }
        core.follow(change).await;
        if !core.read_only.borrow().is_empty() {
            continue;
        }
        for problem in [
            expire(&core).await,
            empty_trash(&core).await,
            reap(&core).await,
            make_good(&core).await,
        ]
        .into_iter()
        .filter_map(Result::err)
        {
            tracing::warn!(%problem, "the state could not be tidied; trying again");
        }
        if core.state.borrow().blocks().pending() > 0 {
            core.delete_wake.notify_one();
        }
    }
}

fn leave_safe_mode(core: &Core) {
    if !core.read_only.borrow().is_empty() {
        return;
    }
    let waited = core.now_ms() >= core.config.safe_mode_ms;
    if core.safe_mode.get() && (waited || core.health.borrow().is_complete()) {
        core.safe_mode.set(false);
        tracing::info!(waited, "repair and deletion begin");
        core.repair_wake.notify_one();
        core.delete_wake.notify_one();
    }
}

async fn expire(core: &Core) -> Result<()> {
    core.uploads.borrow_mut().expire_reserved(core.now_ms());
    let expired = core.uploads.borrow().expired(core.now_ms());
    for leases in expired.chunks(BATCH) {
        tracing::info!(count = leases.len(), "uploads have been silent for too long");
        core.propose(Command::Expire {
            leases: leases.to_vec(),
            at_unix_ms: core.now_unix_ms(),
        })
        .await?;
        leases
            .iter()
            .for_each(|lease| core.uploads.borrow_mut().end(*lease));
    }
    Ok(())
}

/// Notes which lost volumes are done without by now, and which of those have come back.
async fn make_good(core: &Core) -> Result<()> {
    let whole = {
        let redundancy = core.redundancy.borrow();
        !core.safe_mode.get() && !redundancy.waits_for_copies() && redundancy.missing() == 0
    };
    for made_good in [true, false] {
        let volumes: Vec<VolumeIndex> = {
            let (state, health) = (core.state.borrow(), core.health.borrow());
            let change = |(volume, index): (&Volume, VolumeIndex)| {
                let lost = health.is_lost(index);
                let changes = match made_good {
                    true => whole && lost && !volume.made_good,
                    // After a start nobody is lost yet: only a report says that it is back.
                    false => !lost && health.report(index).is_some() && volume.made_good,
                };
                changes.then_some(index)
            };
            state
                .blocks()
                .volumes()
                .iter()
                .zip(0..)
                .filter_map(change)
                .collect()
        };
        if !volumes.is_empty() {
            core.propose(Command::MadeGood { volumes, made_good }).await?;
        }
    }
    Ok(())
}

/// Empties the trash of what has been there for long enough, or of the oldest when space is short.
async fn empty_trash(core: &Core) -> Result<()> {
    let now = core.now_unix_ms();
    let entries: Vec<u64> = {
        let state = core.state.borrow();
        let trash = state.trash().entries();
        if trash.is_empty() {
            return Ok(());
        }
        let mut old: Vec<_> = trash
            .iter()
            .map(|(entry, told)| (told.at_unix_ms, *entry))
            .collect();
        old.sort_unstable();
        let short = core.trash_wanted.take() || space_is_short(core);
        let due = |(at, (since, _)): &(usize, &(u64, u64))| {
            now >= since.saturating_add(core.config.trash_ms) || short && *at < SHORT_STEP
        };
        let due = old.iter().enumerate().filter(due).map(|(_, (_, entry))| *entry);
        due.take(BATCH).collect()
    };
    if entries.is_empty() {
        return Ok(());
    }
    tracing::info!(count = entries.len(), "emptying the trash of the oldest");
    core.propose(Command::Empty {
        entries,
        at_unix_ms: now,
        request: RequestId::default(),
    })
    .await
    .map(|_| ())
}

/// Whether the volumes that take blocks have little room left, all together.
fn space_is_short(core: &Core) -> bool {
    let (state, health) = (core.state.borrow(), core.health.borrow());
    let reports =
        (0..state.blocks().volumes().len() as VolumeIndex).filter_map(|volume| health.report(volume));
    let (mut free, mut all) = (0u64, 0u64);
    for report in reports {
        free += report.free_bytes;
        all += report.free_bytes + report.used_bytes;
    }
    // Deletions under way will make room by themselves.
    all > 0 && (free as f64) < SHORT_SHARE * all as f64 && state.blocks().pending() == 0
}

async fn reap(core: &Core) -> Result<()> {
    let done: Vec<u64> = {
        let (state, readers, now) = (core.state.borrow(), core.readers.borrow(), core.now_unix_ms());
        let condemned = state.condemned().keys();
        condemned
            .filter(|version| readers.are_done(**version, now))
            .take(BATCH)
            .copied()
            .collect()
    };
    if done.is_empty() {
        return Ok(());
    }
    core.propose(Command::Reap {
        versions: done.clone(),
    })
    .await?;
    done.iter()
        .for_each(|version| core.readers.borrow_mut().forget(*version));
    Ok(())
}

/// Sends volumes the deletions that they owe until it is dropped; one call a volume at a time.
pub async fn delete(core: Rc<Core>) {
    let busy = Rc::new(RefCell::new(BTreeSet::<VolumeIndex>::new()));
    let pauses = Rc::new(RefCell::new(BTreeMap::<VolumeIndex, u64>::new()));
    loop {
        core.delete_wake.notified().await;
        // What can't be journaled as done would be done again and again.
        if core.safe_mode.get() || !core.read_only.borrow().is_empty() {
            continue;
        }
        let now_ms = core.now_ms();
        let controls: Vec<_> = core.controls.borrow().values().cloned().collect();
        for control in controls {
            for &volume in &control.volumes {
                let paused = pauses.borrow().get(&volume).is_some_and(|until| *until > now_ms);
                if paused || busy.borrow().contains(&volume) {
                    continue;
                }
                let owed: Vec<BlockId> = {
                    let state = core.state.borrow();
                    let pending = state
                        .blocks()
                        .volume(volume)
                        .into_iter()
                        .flat_map(|volume| &volume.pending);
                    pending.take(DELETES_MAX).map(|id| BlockId(*id)).collect()
                };
                if owed.is_empty() {
                    continue;
                }
                busy.borrow_mut().insert(volume);
                let (core, control) = (core.clone(), control.clone());
                let (busy, pauses) = (busy.clone(), pauses.clone());
                tokio::task::spawn_local(async move {
                    if let Err(problem) = delete_on(&core, &control, volume, owed).await {
                        let volume_id = core.volume_id(volume);
                        tracing::warn!(volume = %volume_id, %problem, "deletions are not done; trying again");
                        pauses.borrow_mut().insert(volume, core.now_ms() + PAUSE_MS);
                    }
                    busy.borrow_mut().remove(&volume);
                    core.delete_wake.notify_one();
                });
            }
        }
    }
}

async fn delete_on(core: &Core, control: &Control, volume: VolumeIndex, blocks: Vec<BlockId>) -> Result<()> {
    control.delete(core.volume_id(volume), &blocks).await?;
    // Those that were not there are gone as well.
    core.propose(Command::Deleted { volume, blocks }).await?;
    // The volume can be a target again for blocks whose damaged replica it had.
    core.repair_wake.notify_one();
    Ok(())
}
