//! Filling free slots with zeros ahead of need, so that puts to them need one flush and no new extents.
//!
//! In a segment that was only allocated the filesystem has to convert extents at each flush. That costs a long put
//! about as much as writing it twice, and zeros cost the same bandwidth beforehand: so long slots are filled in steps
//! that the caller asks for when the volume has nothing else to do, and that end early when a put or a get comes. A
//! short put pays for a flush more than for bandwidth: some short slots are kept filled while puts go on, on disks where
//! that makes puts quicker (see [`ahead`](crate::ahead)). The slots of a
//! step are taken meanwhile, so that no put goes there; a record says that they are written once that is durable.
//! Nothing is filled that may never be needed: for each class at most as many bytes as were put since the opening.

use std::rc::Rc;

use crate::ahead::Way;
use crate::checkpoint::is_no_space;
use crate::core::{Core, Outcome, State, count};
use crate::error::Result;
use crate::layout::{CLASSES, Class, Place};
use crate::pool::{LARGE_FRAME_BYTES, Lane};
use crate::put::grow;
use crate::record::{Record, Run};
use crate::sync::Promise;

/// Free slots of a class that are filled ahead, at most.
const AHEAD_BYTES_MAX: u64 = 1 << 30;

/// Slots up to this long may be filled while puts go on.
const SHORT_SLOT_BYTES_MAX: usize = 256 << 10;
/// Of these, so many bytes of each class at the most, some hundredths of a second of puts, and no more than an eighth
/// of a segment. As many go into one step.
const SHORT_AHEAD_BYTES_MAX: u64 = 8 << 20;
/// A class is worth it once this share of that was put.
const SHORT_DEMAND_SHARE: u64 = 8;
/// The longest write beside puts: what they wait for at the disk.
const SHORT_WRITE_BYTES: usize = 1 << 20;

/// How a step ended: the bytes it filled.
pub(crate) type Step = Promise<Result<u64, Outcome>>;

/// Fills up to about `most_bytes` of free slots. Joins the step that is under way.
pub(crate) async fn step(core: &Rc<Core>, most_bytes: u64) -> Result<u64> {
    core.check_writable()?;
    let running = core.state.borrow().filling.clone();
    let ended = running.unwrap_or_else(|| {
        let ended = Step::new();
        core.state.borrow_mut().filling = Some(ended.clone());
        let end = ended.clone();
        core.spawn(|core| async move {
            let filled = fill(&core, most_bytes).await;
            core.state.borrow_mut().filling = None;
            end.keep(filled);
        });
        ended
    });
    match ended.wait().await {
        Ok(bytes) => Ok(bytes),
        Err(outcome) => core.outcome(outcome, 0).map(|()| 0),
    }
}

/// A put takes this slot. Of a class of short slots this begins a step where few are left that are filled and none is
/// under way, if that is how the class is served now. Returns the way that the put can tell of.
pub(crate) fn keep_ahead(core: &Rc<Core>, class: Class, place: Place) -> Option<Way> {
    let mut state = core.state.borrow_mut();
    let demand_bytes = state.space.demand_bytes(class);
    let ahead_bytes = (state.space.new_segment_bytes() / 8).min(SHORT_AHEAD_BYTES_MAX);
    if class.slot_bytes() > SHORT_SLOT_BYTES_MAX || demand_bytes < ahead_bytes / SHORT_DEMAND_SHARE {
        return None;
    }
    if state.trials[class.number() as usize].way() == Way::Leave {
        return (!state.space.is_written(place)).then_some(Way::Leave);
    }
    let wanted_bytes = demand_bytes.min(ahead_bytes);
    let ready_bytes = state.space.ready_bytes(class, 2 * wanted_bytes);
    // Where there is more than filling makes, idle time or old blocks made it, and the put tells of neither way.
    let tells = (ready_bytes < 2 * wanted_bytes).then_some(Way::Fill);
    if state.filling.is_none() && ready_bytes < wanted_bytes / 2 {
        begin_ahead(core, &mut state, class, wanted_bytes);
    }
    tells
}

fn begin_ahead(core: &Rc<Core>, state: &mut State, class: Class, wanted_bytes: u64) {
    let Some(run) = state.space.hold_unwritten(class, wanted_bytes) else {
        return;
    };
    let ended = Step::new();
    state.filling = Some(ended.clone());
    core.spawn(|core| async move {
        let filled = fill_run(&core, run, Beside::Puts).await;
        core.state.borrow_mut().filling = None;
        ended.keep(filled);
    });
}

/// What goes on meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// Nothing: the step ends when that changes.
    Nothing,
    /// Puts, which the writes are not to hold up for long.
    Puts,
}

async fn fill(core: &Rc<Core>, most_bytes: u64) -> Result<u64, Outcome> {
    match next_run(core, most_bytes).await? {
        Some(run) => fill_run(core, run, Beside::Nothing).await,
        None => Ok(0),
    }
}

async fn fill_run(core: &Rc<Core>, run: Run, beside: Beside) -> Result<u64, Outcome> {
    let written = match write_zeros(core, &run, beside).await {
        Ok(slots) => slots,
        Err(error) if is_no_space(&error) => 0,
        Err(error) => {
            core.fail("filling slots with zeros", &error);
            return Err(Outcome::Failed);
        }
    };
    let run = core.state.borrow_mut().space.shorten(run, written);
    if run.slots == 0 {
        return Ok(0);
    }
    match core.log.append(Record::Filled(run)).wait().await {
        Outcome::Done => {}
        outcome => return Err(outcome),
    }
    let bytes = run.bytes();
    count(&core.counters.zero_filled_bytes, bytes);
    Ok(bytes)
}

/// Takes the next free slots to be filled, if any are.
async fn next_run(core: &Rc<Core>, most_bytes: u64) -> Result<Option<Run>, Outcome> {
    for class in (0..CLASSES as u8).filter_map(Class::new) {
        let growth = {
            let mut state = core.state.borrow_mut();
            let wanted_bytes = state.space.demand_bytes(class).min(AHEAD_BYTES_MAX);
            if state.space.ready_bytes(class, wanted_bytes) >= wanted_bytes {
                continue;
            }
            if let Some(run) = state.space.hold_unwritten(class, most_bytes) {
                return Ok(Some(run));
            }
            // One more segment only where one more was filled with blocks.
            let due = state.growing.is_none() && wanted_bytes >= state.space.new_segment_bytes();
            match state.space.creation().filter(|_| due) {
                Some(growth) => growth,
                None => continue,
            }
        };
        match grow(core, class, growth).await {
            Ok(()) => return Ok(core.state.borrow_mut().space.hold_unwritten(class, most_bytes)),
            Err(Outcome::NoSpace(_)) => {}
            Err(outcome) => return Err(outcome),
        }
    }
    Ok(None)
}

/// Writes zeros to slots and makes them durable; how many slots it came to.
async fn write_zeros(core: &Rc<Core>, run: &Run, beside: Beside) -> std::io::Result<u16> {
    let Some(file) = core
        .state
        .borrow()
        .space
        .segment(run.segment)
        .and_then(|one| one.file)
    else {
        return Ok(0);
    };
    let mut blank = core.pool.acquire(Lane::Own, LARGE_FRAME_BYTES).await?;
    let at_once_bytes = match beside {
        Beside::Nothing => LARGE_FRAME_BYTES,
        Beside::Puts => SHORT_WRITE_BYTES,
    };
    let mut zeros = blank.take(at_once_bytes).expect("no more than a large buffer");
    zeros.as_mut().fill(0);
    let zeros = zeros.freeze();
    let slot_bytes = run.class.slot_bytes();
    let slots_at_once = (at_once_bytes / slot_bytes) as u16;
    let mut done = 0;
    while done < run.slots && (done == 0 || beside == Beside::Puts || !has_other_work(core)) {
        let slots = slots_at_once.min(run.slots - done);
        let place = Place {
            segment: run.segment,
            slot: run.first_slot + done,
        };
        let part = zeros.slice(0..slots as usize * slot_bytes);
        core.io.write(file, place.offset_bytes(run.class), part).await?;
        done += slots;
    }
    core.io.sync(file).await?;
    Ok(done)
}

/// Whether a put or a get waits for the disk.
fn has_other_work(core: &Core) -> bool {
    let state = core.state.borrow();
    !state.puts.is_empty() || state.space.has_readers()
}
