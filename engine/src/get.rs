//! Reading a block: the slot's header against the index, every unit against the header, and nothing unverified.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

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
use crate::types::{GetTimes, ReplicaState, Verified};

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

/// The whole units that cover a range of a served replica, by way of the read cache or not. Damage is remembered.
pub(crate) async fn get(
    core: &Rc<Core>,
    block: BlockId,
    offset: u32,
    length: u32,
    lane: Lane,
    cached: bool,
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
    let range = offset as usize..end as usize;
    match read_units(core, block, replica, range, lane, cached).await {
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
    core.cache(|cache| cache.forget(block, &replica));
    state.index.set_state(block, ReplicaState::Corrupt);
    if state.failed.is_none() {
        core.log.append_unwatched(Record::State {
            block,
            state: ReplicaState::Corrupt,
        });
    }
}

/// Reads a whole replica from the disk and verifies it, whatever its state.
pub(crate) async fn verify(
    core: &Rc<Core>,
    block: BlockId,
    replica: Replica,
    lane: Lane,
) -> Result<(), ReadError> {
    let _pinned = Pinned::new(core, replica.place);
    let all = 0..replica.length as usize;
    read_units(core, block, replica, all, lane, false).await.map(drop)
}

/// A range of a replica's bytes, widened to whole units, verified. The error says what did not hold.
async fn read_units(
    core: &Rc<Core>,
    block: BlockId,
    replica: Replica,
    range: Range<usize>,
    lane: Lane,
    cached: bool,
) -> Result<Verified, ReadError> {
    let block_bytes = replica.length as usize;
    let units = range.start / UNIT_BYTES..range.end.div_ceil(UNIT_BYTES);
    let bytes = units.start * UNIT_BYTES..(units.end * UNIT_BYTES).min(block_bytes);
    let begun = Instant::now();
    let mut times = GetTimes::default();
    let verified = |data: View, unit_crcs: Vec<u32>, times: GetTimes| Verified {
        offset: bytes.start as u32,
        data: data.into_bytes(),
        unit_crcs,
        block_length: replica.length,
        block_crc32c: replica.crc32c,
        times: GetTimes {
            checked: begun.elapsed(),
            ..times
        },
    };
    let found = cached.then(|| core.cache(|cache| cache.find(block, &replica, units.clone())));
    if let Some((data, unit_crcs)) = found.flatten().flatten() {
        return Ok(verified(data, unit_crcs, times));
    }
    let (cut, file) = {
        let state = core.state.borrow();
        let segment = state
            .space
            .segment(replica.place.segment)
            .ok_or("its segment is gone")?;
        (segment.cut, segment.file.ok_or("its segment's file is missing")?)
    };
    // The header lies as the block's own class has it, also in a larger slot.
    let header_bytes = Class::for_length(block_bytes).header_bytes();
    let slot = Slot {
        file,
        offset_bytes: replica.place.offset_bytes(cut.class),
        wanted: header_bytes + bytes.start..header_bytes + bytes.end,
    };
    let known = cached.then(|| core.cache(|cache| cache.header(block, &replica).map(<[u32]>::to_vec)));
    let known = known.flatten().flatten().filter(|_| !slot.has_header_beside());
    let room_bytes = slot.read_bytes(known.is_none());
    let reserved = cached.then(|| core.cache(|cache| cache.reserve(block, units.clone(), room_bytes)));
    let reserved = reserved.flatten().flatten();
    let keeps = reserved.is_some();
    let blank = match reserved {
        Some(blank) => blank,
        None => core
            .pool
            .acquire(lane, bytes.len())
            .await
            .map_err(ReadError::Trouble)?,
    };
    times.buffer = begun.elapsed();
    let (data, unit_crcs) = match known {
        Some(unit_crcs) => (
            slot.read(core, blank).await.map_err(ReadError::of_read)?,
            unit_crcs,
        ),
        None => {
            let (header, data) = slot
                .read_with_header(core, blank)
                .await
                .map_err(ReadError::of_read)?;
            let seed = slot_seed(core, &cut, replica.place);
            let header = SlotHeader::decode(&header.as_ref()[..header_bytes], &seed, Some(replica.seal))?;
            if (header.block, header.length, header.crc32c) != (block, replica.length, replica.crc32c) {
                return Err("the slot holds another block than the index says".into());
            }
            if cached && !slot.has_header_beside() {
                core.cache(|cache| cache.keep_header(block, &replica, &header.unit_crcs));
            }
            (data, header.unit_crcs)
        }
    };
    times.read = begun.elapsed();
    let unit_crcs = &unit_crcs[units.clone()];
    for (unit, (data, &expected)) in units.clone().zip(data.as_ref().chunks(UNIT_BYTES).zip(unit_crcs)) {
        let actual = crc(data);
        if actual != expected {
            return Err(ReadError::Damage(format!(
                "unit {unit} has CRC {actual:08x} instead of {expected:08x}"
            )));
        }
    }
    if keeps {
        core.cache(|cache| cache.keep(block, &replica, units.start, data.clone(), unit_crcs));
    }
    Ok(verified(data, unit_crcs.to_vec(), times))
}

/// What is to be read of a slot.
struct Slot {
    file: FileId,
    offset_bytes: u64,
    /// Bytes of the slot. Units of large slots begin at pages.
    wanted: Range<usize>,
}

impl Slot {
    /// Whether the header's page touches what is wanted, so that both are one read.
    fn has_header_beside(&self) -> bool {
        self.wanted.start <= PAGE_BYTES
    }

    /// Bytes of buffer that a read takes.
    fn read_bytes(&self, with_header: bool) -> usize {
        let end = self.wanted.end.next_multiple_of(PAGE_BYTES);
        match (self.has_header_beside(), with_header) {
            (true, _) => end,
            (false, true) => PAGE_BYTES + end - self.wanted.start,
            (false, false) => end - self.wanted.start,
        }
    }

    /// What is wanted, without the header, which lies elsewhere. The read begins at once.
    fn read(&self, core: &Rc<Core>, mut blank: Blank) -> impl Future<Output = io::Result<View>> + use<> {
        let chunk = take(&mut blank, self.read_bytes(false));
        let read = core
            .io
            .read(self.file, self.offset_bytes + self.wanted.start as u64, chunk);
        let bytes = self.wanted.len();
        async move { Ok(read.await?.freeze().slice(0..bytes)) }
    }

    /// The header's page and what is wanted: in one read where they touch, in two at once otherwise.
    async fn read_with_header(&self, core: &Rc<Core>, mut blank: Blank) -> io::Result<(View, View)> {
        if self.has_header_beside() {
            let chunk = take(&mut blank, self.read_bytes(true));
            let whole = core.io.read(self.file, self.offset_bytes, chunk).await?.freeze();
            return Ok((whole.slice(0..PAGE_BYTES), whole.slice(self.wanted.clone())));
        }
        let header = core
            .io
            .read(self.file, self.offset_bytes, take(&mut blank, PAGE_BYTES));
        let data = self.read(core, blank);
        Ok((header.await?.freeze(), data.await?))
    }
}

fn take(blank: &mut Blank, bytes: usize) -> Chunk {
    blank
        .take(bytes)
        .expect("the buffer has room for header and units")
}
