//! A read that is late is asked for at a second replica too: the first right answer counts, the other one is cancelled.
//!
//! Late is what takes twice as long as most reads of its size, to its first bytes or in all. Only a few percent of the
//! reads may be asked for twice, so that a cluster with too much to do does not get twice as much; but one late read is
//! enough for others to pass its volume by until it is answered, and several make the volume slow (`pace.rs`). Slow
//! volumes are asked last, and probed with single units that nobody waits for.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use blockyard_engine::limits::UNIT_BYTES;
use blockyard_wire::types::{Location, VolumeId};
use tokio::time::{Instant, sleep_until};

use crate::channel::{Fetched, Trouble};
use crate::core::Core;
use crate::pace::{SIZES, size_class};
use crate::places;
use crate::read::{self, Piece};

/// The part of the reads that may be asked for twice, and how many at once.
pub const HEDGED_PART: f64 = 0.05;
pub const HEDGED_AT_ONCE: u32 = 10;
/// No read is late before this: what a busy machine's scheduler does to a process is no reason to work twice.
const LATE_MIN: Duration = Duration::from_millis(5);
/// Times that most reads take: later is late.
const LATE_RATIO: u32 = 2;
/// How often a slow volume is probed.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Classes of times: reads of each size in all, and to their first bytes.
pub const GUESSES: [Duration; 2 * SIZES] = {
    let ms = Duration::from_millis;
    [ms(10), ms(20), ms(50), ms(10), ms(15), ms(25)]
};

/// The piece from `first`, or from one of those `left` when it is late; whoever fails joins the `troubles`.
pub async fn fetch(
    core: &Rc<Core>,
    piece: &Piece,
    first: Location,
    left: &mut VecDeque<Location>,
    rounds: u32,
    troubles: &mut Vec<(Location, Trouble)>,
) -> Option<Fetched> {
    core.counters.reads.count();
    core.hedges.earn();
    let bytes = piece.units().len();
    // Never closed, and given back before the sink is served: who reads slowly holds up nobody. A second try at the same
    // piece takes no second share, or what holds the shares would keep its own rescue waiting.
    let share = bytes.div_ceil(UNIT_BYTES) as u32;
    let _share = core.downloading.acquire_many(share).await;
    let (begun, answered) = (Instant::now(), Rc::new(Cell::new(false)));
    let mut reading = pin!(read::fetch_from(core, piece, &first, rounds, &answered));
    if left.is_empty() {
        let outcome = reading.await;
        return settle(outcome, &first, troubles);
    }
    let class = size_class(bytes);
    tokio::select! {
        biased;
        outcome = &mut reading => return settle(outcome, &first, troubles),
        () = late(core, class, begun, &answered) => {}
    }
    let waiting = core.reads.late(first.hop.volume);
    let rival = loop {
        if let Some(rival) = take_rival(core, first.hop.volume, left) {
            break rival;
        }
        let again = Instant::now() + LATE_MIN;
        tokio::select! {
            biased;
            outcome = &mut reading => return settle(outcome, &first, troubles),
            () = sleep_until(again) => {}
        }
    };
    core.counters.hedged.count();
    let rival_answered = Rc::default();
    // On the heap, for few reads ever need it.
    let mut hedging = Box::pin(read::fetch_from(core, piece, &rival, rounds, &rival_answered));
    let (outcome, rival_was_sooner) = tokio::select! {
        biased;
        outcome = &mut reading => (outcome, false),
        outcome = &mut hedging => (outcome, true),
    };
    if outcome.is_ok() {
        // The other one is cancelled by being dropped.
        core.counters.cancelled.count();
        if rival_was_sooner {
            core.counters.hedges_won.count();
            let now = Instant::now();
            core.reads.overtaken(first.hop.volume, class, now - begun, now);
        }
        return outcome.ok();
    }
    if rival_was_sooner {
        settle(outcome, &rival, troubles);
        let outcome = reading.await;
        settle(outcome, &first, troubles)
    } else {
        drop(waiting);
        settle(outcome, &first, troubles);
        let outcome = hedging.await;
        if outcome.is_ok() {
            core.counters.hedges_won.count();
        }
        settle(outcome, &rival, troubles)
    }
}

fn settle(
    outcome: Result<Fetched, Trouble>,
    replica: &Location,
    troubles: &mut Vec<(Location, Trouble)>,
) -> Option<Fetched> {
    match outcome {
        Ok(fetched) => Some(fetched),
        Err(trouble) => {
            troubles.push((replica.clone(), trouble));
            None
        }
    }
}

/// Returns when a read that was begun then is late.
async fn late(core: &Core, class: usize, begun: Instant, answered: &Cell<bool>) {
    let late_after = |class| (core.reads.usual(class) * LATE_RATIO).max(LATE_MIN);
    let (whole, to_answer) = (late_after(class), late_after(class + SIZES));
    sleep_until(begun + to_answer.min(whole)).await;
    if answered.get() {
        sleep_until(begun + whole).await;
    }
}

/// Another replica that may do better, if the budget has one more read.
fn take_rival(core: &Core, first: VolumeId, left: &mut VecDeque<Location>) -> Option<Location> {
    let at = left
        .iter()
        .position(|replica| places::may_rescue(core, first, replica))?;
    if core.hedges.spend() {
        left.remove(at)
    } else {
        None
    }
}

/// Remembers how long a read of `volume` took.
pub fn took(core: &Core, volume: VolumeId, fetched: &Fetched) {
    let (class, times) = (size_class(fetched.bytes), &fetched.times);
    core.reads
        .took(volume, class, times.done, times.begun + times.done);
    if !core.reads.is_slow(volume) {
        core.reads.note(class + SIZES, times.answered);
    }
}

/// Reads a unit of the piece from those of its volumes that are slow and due to be looked at again, aside.
pub fn probe(core: &Rc<Core>, piece: &Piece, replicas: &VecDeque<Location>) {
    if !core.reads.is_any_behind() {
        return;
    }
    let now = Instant::now();
    // The first is read anyway.
    for replica in replicas.iter().skip(1) {
        let volume = replica.hop.volume;
        if !replica.live || !core.reads.begin_probe(volume, PROBE_EVERY, now) {
            continue;
        }
        let unit = Piece {
            length: 1,
            ..piece.clone()
        };
        let (reader, replica) = (core.clone(), replica.clone());
        core.aside(async move {
            reader.counters.probes.count();
            // Its time or failure is remembered; nobody wants the bytes.
            let _ = read::fetch_from(&reader, &unit, &replica, 0, &Rc::default()).await;
            reader.reads.end_probe(volume, Instant::now());
        });
    }
}
