//! Putting a block: a slot, one write of header and data, one record, and the flushes that both share with others.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ahead::Way;
use crate::block::{BlockId, Origin};
use crate::block_buffer::{BlockBuffer, FilledBlock};
use crate::buffer::View;
use crate::checkpoint::{ensure_room, is_no_space};
use crate::core::{Core, Outcome, PutInFlight, Writing};
use crate::device::{FileId, How};
use crate::error::{Error, Result};
use crate::layout::{Class, Place, SlotHeader, SlotSeed, Superblock};
use crate::limits::{PAGE_BYTES, PIECE_BYTES};
use crate::pool::Lane;
use crate::record::{Cut, Record, Replica};
use crate::space::{Growth, file_name};
use crate::sync::Promise;
use crate::types::{Receipt, ReplicaState};
use crate::zero_fill;

/// Up to this many bytes the record is queued while the slot is still being written. A larger slot's write takes
/// longer than a batch: its record would only keep the batch, and all others in it, from being flushed.
const EAGER_RECORD_BYTES: usize = 256 * 1024;

/// Makes a block durable. Once it has begun, dropping the future does not stop it.
pub(crate) async fn put(
    core: &Rc<Core>,
    block: BlockId,
    origin: Origin,
    buffer: BlockBuffer,
    writing: Writing,
) -> Result<Receipt> {
    let filled = buffer.into_filled()?;
    let (length, crc32c) = (filled.length, filled.crc32c);
    loop {
        core.check_writable()?;
        let known = {
            let state = core.state.borrow();
            let flying = state
                .puts
                .get(&block)
                .map(|put| (put.length, put.crc32c, put.ended.clone()));
            let there = state
                .index
                .get(block)
                .filter(|replica| replica.state == ReplicaState::Live && !state.deleting.contains(&block));
            let there = there.map(|replica| (replica.length, replica.crc32c));
            (flying, there)
        };
        match known {
            (Some((other_length, other_crc, ended)), _) => {
                if (other_length, other_crc) != (length, crc32c) {
                    return Err(Error::Conflict { block });
                }
                // The same put again: its end is ours, unless it found no room, or was deleted since.
                ended.wait().await;
            }
            (None, Some(there)) if there == (length, crc32c) => {
                return Ok(Receipt {
                    length,
                    crc32c,
                    already_had: true,
                    written_after: Duration::ZERO,
                });
            }
            (None, Some(_)) => return Err(Error::Conflict { block }),
            (None, None) => break,
        }
    }
    let ended = Promise::new();
    let flight = Rc::new(PutInFlight {
        length,
        crc32c,
        writing,
        ended: ended.clone(),
        begun: Instant::now(),
        written_after: Cell::default(),
    });
    core.state.borrow_mut().puts.insert(block, flight.clone());
    let (end, own) = (ended.clone(), flight.clone());
    core.spawn(|core| async move {
        let outcome = write(&core, block, origin, filled, &own).await;
        core.state.borrow_mut().puts.remove(&block);
        end.keep(outcome);
    });
    core.outcome(ended.wait().await, length)?;
    Ok(Receipt {
        length,
        crc32c,
        already_had: false,
        written_after: flight.written_after.get(),
    })
}

async fn write(
    core: &Rc<Core>,
    block: BlockId,
    origin: Origin,
    filled: FilledBlock,
    flight: &PutInFlight,
) -> Outcome {
    let class = filled.class();
    let (place, way) = match take_slot(core, class).await {
        Ok(taken) => taken,
        Err(outcome) => return outcome,
    };
    let outcome = write_to(core, block, origin, filled, place, flight).await;
    // What is slow on purpose says nothing about either way.
    if let (Outcome::Done, Some(way), Writing::AtOnce) = (&outcome, way, flight.writing) {
        let trial = &mut core.state.borrow_mut().trials[class.number() as usize];
        trial.note(way, class.slot_bytes() as u64, flight.begun.elapsed());
    }
    if let Outcome::NoSpace(_) = outcome {
        core.state.borrow_mut().space.free(place);
    }
    outcome
}

async fn write_to(
    core: &Rc<Core>,
    block: BlockId,
    origin: Origin,
    filled: FilledBlock,
    place: Place,
    flight: &PutInFlight,
) -> Outcome {
    let (cut, file) = {
        let state = core.state.borrow();
        match state
            .space
            .segment(place.segment)
            .map(|segment| (segment.cut, segment.file))
        {
            Some((cut, Some(file))) => (cut, file),
            _ => return Outcome::Failed,
        }
    };
    let header = SlotHeader {
        block,
        origin,
        length: filled.length,
        generation: cut.generation,
        crc32c: filled.crc32c,
        unit_crcs: filled.unit_crcs.clone(),
    };
    let (bytes, seal) = header.encode(&slot_seed(core, &cut, place));
    let replica = Replica {
        place,
        length: filled.length,
        crc32c: filled.crc32c,
        seal,
        state: ReplicaState::Live,
    };
    let record = Record::Put { block, replica };
    let slot = filled.seal(&bytes);
    let offset_bytes = place.offset_bytes(cut.class);
    if slot.len() <= EAGER_RECORD_BYTES {
        let write = core.io.write(file, offset_bytes, slot);
        let written = Promise::new();
        let done = core.log.append_put(record, Some(written.clone()));
        written.keep(slot_outcome(core, flight, write.await));
        return done.wait().await;
    }
    let write = match flight.writing {
        Writing::AtOnce => core.io.write(file, offset_bytes, slot).await,
        Writing::InPieces => write_in_pieces(core, file, offset_bytes, &slot).await,
    };
    match slot_outcome(core, flight, write) {
        Outcome::Done => core.log.append_put(record, None).wait().await,
        refused => refused,
    }
}

/// Writes the piece with the slot's header last: nothing half written looks like a block.
async fn write_in_pieces(core: &Core, file: FileId, offset_bytes: u64, slot: &View) -> io::Result<()> {
    let pieces = (PIECE_BYTES..slot.len()).step_by(PIECE_BYTES).chain([0]);
    for from in pieces {
        let piece = slot.slice(from..slot.len().min(from + PIECE_BYTES));
        core.io.write(file, offset_bytes + from as u64, piece).await?;
    }
    Ok(())
}

fn slot_outcome(core: &Core, flight: &PutInFlight, written: io::Result<()>) -> Outcome {
    flight.written_after.set(flight.begun.elapsed());
    match written {
        Ok(()) => Outcome::Done,
        Err(error) if is_no_space(&error) => Outcome::NoSpace(error.to_string().into()),
        Err(error) => {
            core.fail("writing a slot", &error);
            Outcome::Failed
        }
    }
}

/// What seals the header of a slot.
pub(crate) fn slot_seed(core: &Core, cut: &Cut, place: Place) -> SlotSeed {
    SlotSeed {
        volume: core.identity.volume,
        segment_seed: cut.seed,
        place,
    }
}

/// Takes a free slot; makes some where there is none. With it comes the way of filling ahead that the put can tell of.
async fn take_slot(core: &Rc<Core>, class: Class) -> Result<(Place, Option<Way>), Outcome> {
    loop {
        if core.check_writable().is_err() {
            return Err(Outcome::Failed);
        }
        let (growing, filling, growth) = {
            let mut state = core.state.borrow_mut();
            if let Some(place) = state.space.take(class) {
                drop(state);
                let way = zero_fill::keep_ahead(core, class, place);
                return Ok((place, way));
            }
            let state = &*state;
            (
                state.growing.clone(),
                state.filling.clone(),
                state.space.growth(class),
            )
        };
        if let Some(growing) = growing {
            growing.wait().await;
            continue;
        }
        let grown = match growth {
            Some(growth) => grow(core, class, growth).await,
            None => Err(Outcome::NoSpace("its capacity is used up".into())),
        };
        if let Err(outcome) = grown {
            if let (Outcome::NoSpace(_), Some(filling)) = (&outcome, filling) {
                // The last slots may be those that are being filled with zeros.
                let _ = filling.wait().await;
                continue;
            }
            if matches!(outcome, Outcome::NoSpace(_))
                && let Some(place) = core.state.borrow_mut().space.take_larger(class)
            {
                return Ok((place, None));
            }
            return Err(outcome);
        }
    }
}

/// Makes slots of a class: one growth at a time.
pub(crate) async fn grow(core: &Rc<Core>, class: Class, growth: Growth) -> Result<(), Outcome> {
    let ended = Promise::new();
    core.state.borrow_mut().growing = Some(ended.clone());
    let grown = match growth {
        Growth::Recut(number) => recut(core, class, number).await,
        Growth::Create(number) => create(core, class, number).await,
    };
    core.state.borrow_mut().growing = None;
    ended.keep(());
    grown
}

/// Cuts an empty segment anew. The record comes first: once it is durable the journal says what the segment is,
/// and the superblock (which only `fsck` reads) follows.
async fn recut(core: &Rc<Core>, class: Class, number: u16) -> Result<(), Outcome> {
    let (before, file) = {
        let mut state = core.state.borrow_mut();
        state.space.set_busy(number, true);
        match state
            .space
            .segment(number)
            .map(|segment| (segment.cut, segment.file))
        {
            Some((cut, Some(file))) => (cut, file),
            _ => return Err(Outcome::Failed),
        }
    };
    let cut = Cut {
        class,
        generation: before.generation + 1,
        seed: random(core)?,
        segment_bytes: before.segment_bytes,
    };
    ended(
        core.log
            .append(Record::Segment { segment: number, cut })
            .wait()
            .await,
    )?;
    let written = write_superblock(core, file, number, &cut).await;
    written.map_err(|error| refused(core, "writing a superblock", &error))?;
    core.state.borrow_mut().space.set_busy(number, false);
    Ok(())
}

/// Makes a segment. The record comes last: until it is durable the file means nothing.
async fn create(core: &Rc<Core>, class: Class, number: u16) -> Result<(), Outcome> {
    let (segment_bytes, replicas) = {
        let state = core.state.borrow();
        (
            state.space.new_segment_bytes(),
            state.space.replicas_max_after_growth(class),
        )
    };
    let doing = "making a segment";
    ensure_room(core, replicas)
        .await
        .map_err(|error| refused(core, doing, &error))?;
    let name = file_name(number);
    let opened = core.io.disk(|disk| disk.open(&name, How::Empty));
    let (file, _) = opened.map_err(|error| refused(core, doing, &error))?;
    let cut = Cut {
        class,
        generation: 1,
        seed: random(core)?,
        segment_bytes,
    };
    let made = async {
        core.io.allocate(file, segment_bytes).await?;
        write_superblock(core, file, number, &cut).await?;
        core.io.sync(core.segments_folder).await
    };
    if let Err(error) = made.await {
        let outcome = refused(core, doing, &error);
        let _ = core.io.disk(|disk| {
            disk.close(file);
            disk.remove(&name)
        });
        return Err(outcome);
    }
    core.state.borrow_mut().new_segments.insert(number, file);
    ended(
        core.log
            .append(Record::Segment { segment: number, cut })
            .wait()
            .await,
    )
}

/// A segment's first page.
pub(crate) fn superblock_page(core: &Core, number: u16, cut: &Cut) -> [u8; PAGE_BYTES] {
    let superblock = Superblock {
        volume: core.identity.volume,
        segment: number,
        class: cut.class,
        generation: cut.generation,
        seed: cut.seed,
        segment_bytes: cut.segment_bytes,
    };
    superblock.encode()
}

/// Writes a segment's first page, durably.
pub(crate) async fn write_superblock(
    core: &Rc<Core>,
    file: FileId,
    number: u16,
    cut: &Cut,
) -> io::Result<()> {
    let page = superblock_page(core, number, cut);
    let mut blank = core.pool.acquire(Lane::Own, page.len()).await?;
    let mut chunk = blank.take(page.len()).expect("a page fits a small buffer");
    chunk.as_mut().copy_from_slice(&page);
    core.io.write(file, 0, chunk.freeze()).await?;
    core.io.sync(file).await
}

fn random(core: &Core) -> Result<u64, Outcome> {
    let mut bytes = [0; 8];
    match core.io.disk(|disk| disk.random(&mut bytes)) {
        Ok(()) => Ok(u64::from_le_bytes(bytes)),
        Err(error) => Err(refused(core, "drawing a segment's seed", &error)),
    }
}

/// What an error on the way to more slots means: no room, or the end.
fn refused(core: &Core, doing: &str, error: &io::Error) -> Outcome {
    if is_no_space(error) {
        return Outcome::NoSpace(Arc::from(format!("the filesystem is full ({error})")));
    }
    core.fail(doing, error);
    Outcome::Failed
}

fn ended(outcome: Outcome) -> Result<(), Outcome> {
    if outcome == Outcome::Done {
        Ok(())
    } else {
        Err(outcome)
    }
}
