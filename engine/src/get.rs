//! Reading a block: the slot's header against the index, every unit against the header, and nothing unverified.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use crate::block::BlockId;
use crate::buffer::{Blank, Chunk, View};
use crate::checksum::crc;
use crate::core::{Core, count};
use crate::device::FileId;
use crate::error::{Error, Result};
use crate::layout::{Class, Place, SlotHeader};
use crate::limits::{PAGE_BYTES, UNIT_BYTES};
use crate::pool::Lane;
use crate::put::slot_seed;
use crate::record::{Record, Replica};
use crate::types::{ReplicaState, Verified};

/// Keeps a slot from being reused, for as long as it lives.
struct Pinned<'a> {
    core: &'a Core,
    place: Place,
}

impl<'a> Pinned<'a> {
    fn new(core: &'a Core, place: Place) -> Self {
        core.state.borrow_mut().space.pin(place);
        Self { core, place }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.core.state.borrow_mut().space.unpin(self.place);
    }
}

/// The whole units that cover a range of a served replica. Damage is remembered.
pub(crate) async fn get(
    core: &Rc<Core>,
    block: BlockId,
    offset: u32,
    length: u32,
    lane: Lane,
) -> Result<Verified> {
    let replica = served(core, block)?;
    let end = offset
        .checked_add(length)
        .filter(|&end| length > 0 && end <= replica.length);
    let Some(end) = end else {
        return Err(Error::OutOfRange {
            block,
            offset,
            length,
            block_length: replica.length,
        });
    };
    let _pinned = Pinned::new(core, replica.place);
    match read_units(core, block, replica, offset as usize, end as usize, lane).await {
        Ok(verified) => {
            count(&core.counters.gets, 1);
            count(&core.counters.get_bytes, verified.data.len() as u64);
            Ok(verified)
        }
        Err(ReadError::Damage(what)) => {
            remember_damage(core, block, replica, &what);
            Err(Error::Corrupt { block, what })
        }
        Err(ReadError::Trouble(source)) => {
            let state = core.state.borrow();
            Err(match &state.failed {
                _ if state.closed => Error::Closed,
                Some(reason) if core.io.is_broken() => Error::Failed {
                    reason: reason.clone(),
                },
                _ => Error::Io {
                    doing: format!("reading block {block}"),
                    source,
                },
            })
        }
    }
}

/// Why a replica could not be read.
pub(crate) enum ReadError {
    /// The replica is bad: what did not hold.
    Damage(String),
    /// The system would not read; the replica may be fine.
    Trouble(io::Error),
}

impl ReadError {
    fn of_read(error: io::Error) -> Self {
        // What disks and filesystems say of data that they can't give back.
        let medium = [
            libc::EIO,
            libc::EILSEQ,
            libc::ENODATA,
            libc::EREMOTEIO,
            libc::EUCLEAN,
            libc::EBADMSG,
        ];
        let lost = error.raw_os_error().is_some_and(|code| medium.contains(&code))
            || error.kind() == io::ErrorKind::UnexpectedEof;
        if lost {
            Self::Damage(format!("reading it failed: {error}"))
        } else {
            Self::Trouble(error)
        }
    }
}

impl From<&str> for ReadError {
    fn from(what: &str) -> Self {
        Self::Damage(what.to_owned())
    }
}

fn served(core: &Core, block: BlockId) -> Result<Replica> {
    let state = core.state.borrow();
    if state.closed {
        return Err(Error::Closed);
    }
    let replica = state
        .index
        .get(block)
        .filter(|_| !state.deleting.contains(&block));
    let replica = replica.ok_or(Error::NotFound { block })?;
    match replica.state {
        ReplicaState::Live => Ok(replica),
        ReplicaState::Suspect => Err(Error::Suspect { block }),
        ReplicaState::Corrupt => Err(Error::Corrupt {
            block,
            what: "an earlier read found it damaged".to_owned(),
        }),
    }
}

/// Takes a damaged replica out of service, for good when the volume can still be written.
pub(crate) fn remember_damage(core: &Core, block: BlockId, replica: Replica, what: &str) {
    let mut state = core.state.borrow_mut();
    if state.closed
        || state
            .index
            .get(block)
            .is_none_or(|now| now.place != replica.place)
    {
        return;
    }
    tracing::error!(%block, what, "replica is damaged");
    state.index.set_state(block, ReplicaState::Corrupt);
    if state.failed.is_none() {
        core.log.append_unwatched(Record::State {
            block,
            state: ReplicaState::Corrupt,
        });
    }
}

/// Reads and verifies a whole replica, whatever its state.
pub(crate) async fn verify(core: &Rc<Core>, block: BlockId, replica: Replica) -> Result<(), ReadError> {
    let _pinned = Pinned::new(core, replica.place);
    read_units(core, block, replica, 0, replica.length as usize, Lane::Read)
        .await
        .map(drop)
}

/// Bytes `start..end` of a replica, widened to whole units, verified. The error says what did not hold.
async fn read_units(
    core: &Rc<Core>,
    block: BlockId,
    replica: Replica,
    start: usize,
    end: usize,
    lane: Lane,
) -> Result<Verified, ReadError> {
    let block_bytes = replica.length as usize;
    let first_unit = start / UNIT_BYTES;
    let start = first_unit * UNIT_BYTES;
    let end = end.next_multiple_of(UNIT_BYTES).min(block_bytes);
    let blank = core
        .pool
        .acquire(lane, end - start)
        .await
        .map_err(ReadError::Trouble)?;
    let (cut, file) = {
        let state = core.state.borrow();
        let segment = state
            .space
            .segment(replica.place.segment)
            .ok_or("its segment is gone")?;
        (segment.cut, segment.file.ok_or("its segment's file is missing")?)
    };
    // The header lies as the block's own class has it, also in a larger slot.
    let layout = Class::for_length(block_bytes);
    let slot_offset_bytes = replica.place.offset_bytes(cut.class);
    let wanted = layout.header_bytes() + start..layout.header_bytes() + end;
    let slot = read_slot(core, file, slot_offset_bytes, blank, wanted).await;
    let (header, data) = slot.map_err(ReadError::of_read)?;
    let seed = slot_seed(core, &cut, replica.place);
    let header = SlotHeader::decode(
        &header.as_ref()[..layout.header_bytes()],
        &seed,
        Some(replica.seal),
    )?;
    if (header.block, header.length, header.crc32c) != (block, replica.length, replica.crc32c) {
        return Err("the slot holds another block than the index says".into());
    }
    let unit_crcs = &header.unit_crcs[first_unit..end.div_ceil(UNIT_BYTES)];
    for (at, (unit, &expected)) in data.as_ref().chunks(UNIT_BYTES).zip(unit_crcs).enumerate() {
        let actual = crc(unit);
        if actual != expected {
            let unit = first_unit + at;
            return Err(ReadError::Damage(format!(
                "unit {unit} has CRC {actual:08x} instead of {expected:08x}"
            )));
        }
    }
    Ok(Verified {
        offset: start as u32,
        data: data.into_bytes(),
        unit_crcs: unit_crcs.to_vec(),
        block_length: replica.length,
        block_crc32c: replica.crc32c,
    })
}

/// A slot's header page and the bytes `wanted` of it: in one read where they touch, in two at once otherwise.
async fn read_slot(
    core: &Rc<Core>,
    file: FileId,
    slot_offset_bytes: u64,
    mut blank: Blank,
    wanted: Range<usize>,
) -> io::Result<(View, View)> {
    let mut take =
        |bytes: usize| -> Chunk { blank.take(bytes).expect("a buffer has room for header and units") };
    let end = wanted.end.next_multiple_of(PAGE_BYTES);
    if wanted.start <= PAGE_BYTES {
        let whole = core.io.read(file, slot_offset_bytes, take(end)).await?.freeze();
        return Ok((whole.slice(0..PAGE_BYTES), whole.slice(wanted)));
    }
    // Units of large slots begin at pages.
    let (header, data) = (take(PAGE_BYTES), take(end - wanted.start));
    let header = core.io.read(file, slot_offset_bytes, header);
    let data = core.io.read(file, slot_offset_bytes + wanted.start as u64, data);
    let (header, data) = (header.await?.freeze(), data.await?.freeze());
    Ok((header, data.slice(0..wanted.len())))
}
