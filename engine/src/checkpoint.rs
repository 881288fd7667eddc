//! Writing checkpoints beside the running volume: in slices, from a spare file, two kept.
//!
//! A checkpoint is fuzzy: what changes while it is written may or may not be in it, and replaying the journal from
//! its head on settles that, because every record says what is so after it, whatever was before. The spare's space
//! is allocated before it is needed, so that a full disk never stops checkpoints, nor deletes with them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::block::BlockId;
use crate::checksum::crc_seeded;
use crate::core::{Core, count};
use crate::device::{FileId, How};
use crate::journal::Head;
use crate::pool::Lane;
use crate::snapshot::{BLOCK_BYTES, Meta, REPLICAS_PER_BLOCK, Writer};
use crate::sync::Promise;
use crate::types::Identity;

/// The file that the next checkpoint is written to.
pub(crate) const SPARE: &str = "checkpoint-spare";
const PREFIX: &str = "checkpoint-";
const KEPT: usize = 2;
/// A checkpoint is due when this part of the journal was written since the last.
const DUE_PART: u32 = 4;
/// Replicas looked at before others get a turn.
const SLICE: usize = REPLICAS_PER_BLOCK as usize;

/// The name of a checkpoint.
pub(crate) fn file_name(ordinal: u64) -> String {
    format!("{PREFIX}{ordinal:016x}")
}

/// The ordinal in a checkpoint's name.
pub(crate) fn ordinal_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// What ties a checkpoint to its volume.
pub(crate) fn seed(identity: &Identity) -> u32 {
    crc_seeded(crc_seeded(0, &identity.volume), &identity.incarnation)
}

/// A checkpoint on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) ordinal: u64,
    /// Where replay from it begins.
    pub(crate) head: Head,
}

type End = Promise<Result<(), Arc<str>>>;

/// The checkpoints of an open volume.
pub(crate) struct Checkpoints {
    /// Oldest first, at most two.
    kept: RefCell<VecDeque<Kept>>,
    running: RefCell<Option<End>>,
    /// Bytes that each of the files in rotation is known to have.
    room_bytes: Cell<u64>,
    folder: FileId,
}

impl Checkpoints {
    pub(crate) fn new(kept: Vec<Kept>, folder: FileId) -> Self {
        Self {
            kept: RefCell::new(kept.into()),
            running: RefCell::new(None),
            room_bytes: Cell::new(0),
            folder,
        }
    }

    /// Makes the names of checkpoints durable.
    pub(crate) async fn sync_folder(&self, core: &Core) -> io::Result<()> {
        core.io.sync(self.folder).await
    }

    /// Whether as many are there as are kept: from then on files rotate and none need be made.
    pub(crate) fn is_rotating(&self) -> bool {
        self.kept.borrow().len() == KEPT
    }

    /// Those that a start may need, oldest first.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        self.kept.borrow().iter().copied().collect()
    }

    fn newest(&self) -> Option<Kept> {
        self.kept.borrow().back().copied()
    }
}

/// Bytes of a checkpoint of so many replicas.
fn bytes_for(core: &Core, replicas: u64) -> u64 {
    let state = core.state.borrow();
    let segment_bytes: u64 = state
        .space
        .segments()
        .map(|(_, one)| 64 + u64::from(one.slots()) / 8)
        .sum();
    (replicas / REPLICAS_PER_BLOCK + segment_bytes / (BLOCK_BYTES as u64 / 2) + 4) * BLOCK_BYTES as u64
}

/// Allocates the files that checkpoints rotate through for that many replicas, so that writing one needs no space
/// later, however full the disk.
pub(crate) async fn ensure_room(core: &Rc<Core>, replicas: u64) -> io::Result<()> {
    let wanted_bytes = bytes_for(core, replicas);
    loop {
        if core.checkpoints.room_bytes.get() >= wanted_bytes {
            return Ok(());
        }
        let running = core.checkpoints.running.borrow().clone();
        match running {
            Some(running) => {
                let _ = running.wait().await;
            }
            None => break,
        }
    }
    // Ahead of need, so that this is rare.
    let bytes = wanted_bytes + wanted_bytes / 2;
    for kept in core.checkpoints.kept() {
        allocate(core, &file_name(kept.ordinal), bytes).await?;
    }
    allocate(core, SPARE, bytes).await?;
    core.checkpoints.room_bytes.set(bytes);
    Ok(())
}

/// Makes a file at least `bytes` long, all of it allocated. What was in it stays.
async fn allocate(core: &Rc<Core>, name: &str, bytes: u64) -> io::Result<()> {
    let (file, length_bytes) = core.io.disk(|disk| match disk.open(name, How::Existing) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.open(name, How::Empty),
        opened => opened,
    })?;
    let allocated = if length_bytes < bytes {
        core.io.allocate(file, bytes).await
    } else {
        Ok(())
    };
    core.io.disk(|disk| {
        disk.close(file);
        Ok(())
    })?;
    allocated
}

/// Waits until the journal has `pages` free pages.
pub(crate) async fn make_room(core: &Rc<Core>, pages: u32) -> io::Result<()> {
    let ring = core.log.ring();
    loop {
        let oldest = core
            .checkpoints
            .kept
            .borrow()
            .front()
            .map_or(0, |kept| kept.head.page);
        if ring.distance(oldest, core.log.next().page) + pages < ring.pages() {
            return Ok(());
        }
        write(core)
            .await
            .map_err(|why| io::Error::other(why.to_string()))?;
    }
}

/// Begins a checkpoint when much of the journal was written since the last.
pub(crate) fn start_if_due(core: &Rc<Core>) {
    let ring = core.log.ring();
    let since = ring.distance(
        core.checkpoints.newest().map_or(0, |kept| kept.head.page),
        core.log.head().page,
    );
    if since > ring.pages() / DUE_PART && core.state.borrow().failed.is_none() {
        start(core);
    }
}

/// Writes a checkpoint and waits for it; joins the one that is being written.
pub(crate) async fn write(core: &Rc<Core>) -> Result<(), Arc<str>> {
    start(core).wait().await
}

fn start(core: &Rc<Core>) -> End {
    if let Some(running) = &*core.checkpoints.running.borrow() {
        return running.clone();
    }
    let end = End::new();
    *core.checkpoints.running.borrow_mut() = Some(end.clone());
    let ended = end.clone();
    core.spawn(|core| async move {
        let written = write_one(&core).await;
        *core.checkpoints.running.borrow_mut() = None;
        ended.keep(match written {
            Ok(()) => Ok(()),
            Err(error) if is_no_space(&error) => {
                // No failure of the disk: the journal still holds everything.
                tracing::warn!(%error, "no room for a checkpoint");
                Err(error.to_string().into())
            }
            Err(error) => {
                core.fail("writing a checkpoint", &error);
                Err(error.to_string().into())
            }
        });
    });
    end
}

/// Whether an error only says that space has run out.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

async fn write_one(core: &Rc<Core>) -> io::Result<()> {
    let replicas = core.state.borrow().index.len() as u64;
    allocate(core, SPARE, bytes_for(core, replicas)).await?;
    let kept = Kept {
        ordinal: core.checkpoints.newest().map_or(1, |kept| kept.ordinal + 1),
        head: core.log.head(),
    };
    let (file, _) = core.io.disk(|disk| disk.open(SPARE, How::Existing))?;
    let written = write_blocks(core, file, kept.ordinal).await;
    core.io.disk(|disk| {
        disk.close(file);
        Ok(())
    })?;
    written?;
    core.io
        .disk(|disk| disk.rename(SPARE, &file_name(kept.ordinal)))?;
    core.io.sync(core.checkpoints.folder).await?;
    // Only now is the new one there for certain, and the oldest one spare.
    let oldest = {
        let mut all = core.checkpoints.kept.borrow_mut();
        all.push_back(kept);
        if all.len() > KEPT { all.pop_front() } else { None }
    };
    if let Some(oldest) = oldest {
        match core
            .io
            .disk(|disk| disk.rename(&file_name(oldest.ordinal), SPARE))
        {
            // Somebody took it away; the next checkpoint makes the spare anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
    }
    count(&core.counters.checkpoints, 1);
    Ok(())
}

async fn write_blocks(core: &Rc<Core>, file: FileId, ordinal: u64) -> io::Result<()> {
    let meta = Meta {
        head: core.log.head(),
        ring: core.log.ring(),
        epoch: core.state.borrow().epoch,
    };
    let mut writer = Writer::new(seed(&core.identity), ordinal, &meta);
    let mut full = Vec::new();
    for (number, segment) in core.state.borrow().space.segments() {
        full.extend(writer.segment(number, &segment.cut, segment.written().words()));
    }
    let mut offset_bytes = 0;
    write_full(core, file, &mut offset_bytes, &mut full).await?;
    let mut after: Option<BlockId> = None;
    loop {
        let mut looked_at = 0;
        for (block, replica) in core.state.borrow().index.behind(after).take(SLICE) {
            full.extend(writer.replica(block, &replica));
            after = Some(block);
            looked_at += 1;
        }
        write_full(core, file, &mut offset_bytes, &mut full).await?;
        if looked_at < SLICE {
            break;
        }
    }
    full.extend(writer.finish());
    write_full(core, file, &mut offset_bytes, &mut full).await?;
    core.io.sync(file).await
}

async fn write_full(
    core: &Rc<Core>,
    file: FileId,
    offset_bytes: &mut u64,
    full: &mut Vec<Vec<u8>>,
) -> io::Result<()> {
    for block in full.drain(..) {
        let mut blank = core.pool.acquire(Lane::Own, block.len()).await?;
        let mut chunk = blank.take(block.len()).expect("a block fits a small buffer");
        chunk.as_mut().copy_from_slice(&block);
        core.io.write(file, *offset_bytes, chunk.freeze()).await?;
        *offset_bytes += block.len() as u64;
    }
    Ok(())
}
