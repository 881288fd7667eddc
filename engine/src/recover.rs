//! Opening a volume: checkpoint, journal, segments, and the puts whose durability is not known.
//!
//! Replay works on maps alone and is followed by one check of the whole, because a checkpoint is fuzzy: on the way
//! two blocks may stand in one slot, at the end they may not.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::rc::Rc;

use crate::ahead::Trial;
use crate::block::BlockId;
use crate::buffer::Chunk;
use crate::cache::{self, Cache};
use crate::checkpoint::{self, Checkpoints, Kept};
use crate::commit::{self, Log};
use crate::core::{Core, Counters, State};
use crate::device::{Disk, FileId, How};
use crate::error::{Error, Result};
use crate::exec::block_on;
use crate::get::{ReadError, verify};
use crate::identity;
use crate::index::Index;
use crate::io::Io;
use crate::journal::{self, Head, JOURNAL_FILES, JournalSeed, Ring};
use crate::layout::{CLASSES, Class, Place};
use crate::limits::BLOCK_BYTES_MAX;
use crate::pool::{Lane, Pool};
use crate::put::{superblock_page, write_superblock};
use crate::record::{Cut, Record, Replica};
use crate::replay::Replayed;
use crate::snapshot::{self, Snapshot};
use crate::space::{self, Space};
use crate::sync::each;
use crate::tasks::Tasks;
use crate::types::{Identity, OpenReport, Options, ReplicaState};

/// Bytes that are zeroed at a time.
const STEP_BYTES: usize = 64 * 1024;
/// Bytes of the journal that are read at a time, and how many such reads are in flight: a large buffer in all.
const READ_BYTES: usize = BLOCK_BYTES_MAX / READS_AT_ONCE;
const READS_AT_ONCE: usize = 4;
/// Puts that are read back at once, as far as there are buffers.
const VERIFIES_AT_ONCE: usize = 32;

/// Opens the volume on `disk`.
pub(crate) fn open(
    mut disk: Box<dyn Disk>,
    pool: Pool,
    options: &Options,
    expected_cluster: Option<[u8; 16]>,
) -> Result<(Rc<Core>, OpenReport)> {
    let identity = take_identity(&mut *disk, options, expected_cluster)?;
    let mut report = OpenReport::default();
    for folder in ["journal", "segments"] {
        disk.create_folder(folder)
            .map_err(Error::io(format!("making the folder {folder}")))?;
    }
    let seed = checkpoint::seed(&identity);
    let (snapshot, kept) = load_checkpoint(&mut *disk, seed, &mut report)?;
    let fresh = snapshot.is_none();
    let ring = snapshot
        .as_ref()
        .map_or(Ring::of_bytes(options.journal_bytes), |one| one.meta.ring);
    let from = snapshot.as_ref().map_or(Head::first(), |one| one.meta.head);
    if fresh {
        refuse_orphans(&*disk)?;
    }
    let how = if fresh { How::Empty } else { How::Existing };
    let files: io::Result<Vec<FileId>> = (0..JOURNAL_FILES)
        .map(|file| open_journal_file(&mut *disk, ring, file, how))
        .collect();
    let files = files.map_err(Error::io("opening the journal"))?;
    let folder = disk
        .open_folder("")
        .map_err(Error::io("opening the volume's folder"))?;
    let segments_folder = disk
        .open_folder("segments")
        .map_err(Error::io("opening the folder segments"))?;
    let sync_flushes_device = disk.sync_flushes_device();
    let tasks = Rc::new(Tasks::new());
    let core = Rc::new(Core {
        log: Log::new(
            ring,
            JournalSeed::new(&identity.volume, &identity.incarnation),
            identity.generation,
            files.clone(),
            from,
        ),
        identity,
        io: Rc::new(Io::new(disk, tasks.clone())),
        tasks,
        cache: Cache::new(pool.clone(), cache::shares(options.read_cache_bytes).1).map(RefCell::new),
        pool,
        state: RefCell::new(State {
            index: Index::default(),
            space: Space::new(),
            epoch: None,
            puts: HashMap::new(),
            deleting: HashSet::new(),
            new_segments: HashMap::new(),
            growing: None,
            filling: None,
            trials: vec![Trial::default(); CLASSES],
            failed: None,
            closed: false,
        }),
        checkpoints: Checkpoints::new(kept, folder),
        counters: Counters::default(),
        segments_folder,
        sync_flushes_device,
    });
    if let Err(error) = start(&core, snapshot, &files, options, &mut report) {
        // Its tasks and the volume keep each other alive.
        core.tasks.clear();
        core.io.shut();
        return Err(error);
    }
    Ok((core, report))
}

fn start(
    core: &Rc<Core>,
    snapshot: Option<Snapshot>,
    files: &[FileId],
    options: &Options,
    report: &mut OpenReport,
) -> Result<()> {
    if let Some(snapshot) = snapshot {
        let suspects = recover(core, snapshot, files, report)?;
        core.spawn(commit::run);
        settle(core, suspects, report)?;
    } else {
        lay_out(core, core.log.ring(), files)?;
        core.spawn(commit::run);
    }
    // A fresh volume has none, and the next opening would take it for fresh again.
    while !core.checkpoints.is_rotating() {
        let written = block_on(core, checkpoint::write(core));
        core.check_writable()?;
        written.map_err(|why| Error::NoSpace {
            length: 0,
            why: why.to_string(),
        })?;
    }
    set_capacity(core, options)?;
    core.check_writable()?;
    report.replicas = core.state.borrow().index.len() as u64;
    let _ = core.io.disk(|disk| {
        report.registered_buffers = disk.has_registered_buffers();
        report.direct_io = disk.is_direct();
        report.notes.extend(disk.notes());
        Ok(())
    });
    Ok(())
}

/// Reads who the volume is, and counts this opening.
fn take_identity(disk: &mut dyn Disk, options: &Options, expected: Option<[u8; 16]>) -> Result<Identity> {
    let content = disk
        .read(identity::FILE)
        .map_err(Error::io("reading volume.toml"))?;
    let mut identity = identity::decode(&content)?;
    if let Some(expected) = expected.filter(|expected| *expected != identity.cluster) {
        return Err(Error::OtherCluster {
            dir: options.dir.clone(),
            found: crate::core::hex(&identity.cluster),
            expected: crate::core::hex(&expected),
        });
    }
    identity.generation += 1;
    let text = identity::encode(&identity)?;
    disk.replace(identity::FILE, text.as_bytes())
        .map_err(Error::io("writing volume.toml"))?;
    Ok(identity)
}

/// The newest checkpoint that is whole, and those to keep, oldest first; none when there is no checkpoint at all.
fn load_checkpoint(
    disk: &mut dyn Disk,
    seed: u32,
    report: &mut OpenReport,
) -> Result<(Option<Snapshot>, Vec<Kept>)> {
    let names = disk.list("").map_err(Error::io("listing the volume"))?;
    let mut ordinals: Vec<u64> = names
        .iter()
        .filter_map(|(name, _)| checkpoint::ordinal_of(name))
        .collect();
    ordinals.sort_unstable();
    let mut newest = None;
    let mut kept = Vec::new();
    let mut unreadable = None;
    for &ordinal in ordinals.iter().rev() {
        let name = checkpoint::file_name(ordinal);
        if kept.len() == 2 {
            // Left by a crash before it was made the spare.
            disk.rename(&name, checkpoint::SPARE)
                .map_err(Error::io(format!("renaming {name}")))?;
            continue;
        }
        let content = match disk.read(&name) {
            Ok(content) => content,
            Err(error) => {
                let note = format!("{name} can't be read ({error}); an older one is used");
                report.notes.push(note);
                unreadable = Some(Error::io(format!("reading {name}"))(error));
                continue;
            }
        };
        // Of the older one only the place where its replay begins is needed, and that it is whole.
        let meta = match newest {
            None => snapshot::decode(seed, ordinal, &content).map(|found| newest.insert(found).meta),
            Some(_) => snapshot::check(seed, ordinal, &content),
        };
        match meta {
            Ok(meta) => kept.insert(
                0,
                Kept {
                    ordinal,
                    head: meta.head,
                },
            ),
            Err(what) => report
                .notes
                .push(format!("{name} is damaged ({what}); an older one is used")),
        }
    }
    if newest.is_none() && !ordinals.is_empty() {
        return Err(unreadable.unwrap_or_else(|| Error::damaged("no checkpoint is whole")));
    }
    Ok((newest, kept))
}

/// Without a checkpoint nothing was ever acknowledged here; a segment says otherwise.
fn refuse_orphans(disk: &dyn Disk) -> Result<()> {
    let segments = disk.list("segments").map_err(Error::io("listing segments"))?;
    match segments.first() {
        Some((name, _)) => Err(Error::damaged(format!(
            "there are segments ({name}, …) but no checkpoint"
        ))),
        None => Ok(()),
    }
}

fn open_journal_file(disk: &mut dyn Disk, ring: Ring, file: u32, how: How) -> io::Result<FileId> {
    let name = journal::file_name(file);
    let (id, bytes) = disk.open(&name, how)?;
    if how == How::Existing && bytes != ring.file_bytes() {
        let what = format!("{name} has {bytes} B instead of {}", ring.file_bytes());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(id)
}

/// Writes a fresh journal full of zeros, so that its extents are written and later batches are flushed at once.
fn lay_out(core: &Rc<Core>, ring: Ring, files: &[FileId]) -> Result<()> {
    let zeroed = block_on(core, async {
        let mut blank = core.pool.acquire(Lane::Own, STEP_BYTES).await?;
        let mut zeros = blank.take(STEP_BYTES).expect("a small buffer holds 64 KiB");
        zeros.as_mut().fill(0);
        let zeros = zeros.freeze();
        for &file in files {
            let mut offset_bytes = 0;
            while offset_bytes < ring.file_bytes() {
                let step_bytes = (ring.file_bytes() - offset_bytes).min(STEP_BYTES as u64);
                core.io
                    .write(file, offset_bytes, zeros.slice(0..step_bytes as usize))
                    .await?;
                offset_bytes += step_bytes;
            }
            core.io.sync(file).await?;
        }
        let folder = core.io.disk(|disk| disk.open_folder("journal"))?;
        core.io.sync(folder).await?;
        core.io.disk(|disk| {
            disk.close(folder);
            Ok(())
        })
    });
    zeroed.map_err(Error::io("laying out the journal"))
}

/// Replays the journal over the checkpoint and builds the volume's state; the puts that turned out bad.
fn recover(
    core: &Rc<Core>,
    snapshot: Snapshot,
    files: &[FileId],
    report: &mut OpenReport,
) -> Result<Vec<BlockId>> {
    let ring = core.log.ring();
    let pages = block_on(core, read_journal(core, ring, files)).map_err(Error::io("reading the journal"))?;
    let from = snapshot.meta.head;
    let scan = journal::scan(core.log.seed(), ring, from, &pages).map_err(Error::damaged)?;
    drop(pages);
    report.replayed_records = scan.records.len() as u64;
    report.torn_tail_cut = scan.torn_tail_cut;
    core.log.set_head(scan.head);
    let mut replayed = Replayed::new(snapshot);
    let mut cut_again = BTreeSet::new();
    for (sequence, record) in scan.records {
        if let Record::Segment { segment, .. } = record {
            cut_again.insert(segment);
        }
        replayed.apply(record, sequence <= scan.durable_through);
    }
    let unsure = std::mem::take(&mut replayed.unsure);
    let touched: BTreeSet<u16> = unsure.values().map(|place| place.segment).collect();
    enter(core, replayed, report)?;
    // A crash may have come between a record and its superblock, which fsck will want to agree. The record may be
    // in a checkpoint by then; but until the superblock is written no block comes to the segment.
    cut_again.extend(core.state.borrow().space.empty());
    for segment in cut_again {
        let state = core.state.borrow();
        if let Some((cut, Some(file))) = state.space.segment(segment).map(|one| (one.cut, one.file)) {
            drop(state);
            match block_on(core, renew_superblock(core, file, segment, &cut)) {
                // Only fsck would miss it, and deletes must be possible on a full disk.
                Err(error) if checkpoint::is_no_space(&error) => {
                    let what = format!("no room for the superblock of segment {segment} ({error})");
                    report.notes.push(what);
                }
                written => {
                    written.map_err(Error::io(format!("writing the superblock of segment {segment}")))?;
                }
            }
        }
    }
    // What a killed process wrote may be in caches only: first make it durable, then trust it.
    let synced = block_on(core, async {
        for &file in files {
            core.io.sync(file).await?;
        }
        core.checkpoints.sync_folder(core).await?;
        for segment in touched {
            let file = core
                .state
                .borrow()
                .space
                .segment(segment)
                .and_then(|segment| segment.file);
            if let Some(file) = file {
                core.io.sync(file).await?;
            }
        }
        Ok(())
    });
    synced.map_err(Error::io("flushing what the journal holds"))?;
    verify_unsure(core, unsure, report)
}

/// Reads back puts that may not have been flushed; those that turn out bad.
fn verify_unsure(
    core: &Rc<Core>,
    unsure: BTreeMap<BlockId, Place>,
    report: &mut OpenReport,
) -> Result<Vec<BlockId>> {
    let found = RefCell::new(BTreeMap::new());
    let verified = each(VERIFIES_AT_ONCE, unsure.into_iter(), |(block, place)| {
        let found = &found;
        async move {
            let replica = core.state.borrow().index.get(block);
            let live = |replica: &Replica| replica.place == place && replica.state == ReplicaState::Live;
            let Some(replica) = replica.filter(live) else {
                return;
            };
            let verified = verify(core, block, replica, Lane::Read).await;
            if verified.is_ok() {
                core.state.borrow_mut().space.note_written(place, replica.length);
            }
            found.borrow_mut().insert(block, verified);
        }
    });
    block_on(core, verified);
    let mut suspects = Vec::new();
    for (block, verified) in found.into_inner() {
        match verified {
            Ok(()) => {}
            Err(ReadError::Trouble(error)) => {
                return Err(Error::io(format!("verifying block {block}"))(error));
            }
            Err(ReadError::Damage(what)) => {
                report.notes.push(format!("block {block} is suspect: {what}"));
                suspects.push(block);
            }
        }
    }
    Ok(suspects)
}

/// Writes a superblock unless it is there.
async fn renew_superblock(core: &Rc<Core>, file: FileId, number: u16, cut: &Cut) -> io::Result<()> {
    let page = superblock_page(core, number, cut);
    let mut blank = core.pool.acquire(Lane::Own, page.len()).await?;
    let chunk = blank.take(page.len()).expect("a page fits a small buffer");
    // One that can't be read may become readable by being written.
    if core
        .io
        .read(file, 0, chunk)
        .await
        .is_ok_and(|found| found.as_ref() == page)
    {
        return Ok(());
    }
    drop(blank);
    write_superblock(core, file, number, cut).await
}

/// The whole ring, read a large buffer at a time with several reads in flight.
async fn read_journal(core: &Rc<Core>, ring: Ring, files: &[FileId]) -> io::Result<Vec<u8>> {
    let step_bytes = ring.file_bytes().min(READ_BYTES as u64);
    // The last step of a file may begin earlier than the one before it ended: the file is no shorter than a step.
    let starts = (0..ring.file_bytes())
        .step_by(step_bytes as usize)
        .map(|at| (at, at.min(ring.file_bytes() - step_bytes)));
    let mut steps = files
        .iter()
        .flat_map(|&file| starts.clone().map(move |(at, from)| (file, at, from)));
    let mut pages = Vec::with_capacity(ring.file_bytes() as usize * files.len());
    let mut blank = core.pool.acquire(Lane::Read, READS_AT_ONCE * READ_BYTES).await?;
    let mut free: Vec<Chunk> = std::iter::from_fn(|| blank.take(step_bytes as usize))
        .take(READS_AT_ONCE)
        .collect();
    let mut running = VecDeque::new();
    loop {
        while let Some(chunk) = free.pop() {
            let Some((file, at_bytes, from_bytes)) = steps.next() else {
                break;
            };
            let skip_bytes = (at_bytes - from_bytes) as usize;
            running.push_back((skip_bytes, Box::pin(core.io.read(file, from_bytes, chunk))));
        }
        let Some((skip_bytes, read)) = running.pop_front() else {
            return Ok(pages);
        };
        let chunk = read.await?;
        pages.extend_from_slice(&chunk.as_ref()[skip_bytes..]);
        free.push(chunk);
    }
}

/// Opens the segments and claims every replica's slot: each must be there, long enough, and taken once.
fn enter(core: &Rc<Core>, mut replayed: Replayed, report: &mut OpenReport) -> Result<()> {
    let mut state = core.state.borrow_mut();
    state.epoch = replayed.epoch;
    for (&number, (cut, written)) in &replayed.segments {
        let name = space::file_name(number);
        let opened = core.io.disk(|disk| disk.open(&name, How::Existing));
        let file = match opened {
            Ok((file, bytes)) if bytes >= cut.segment_bytes => Some(file),
            Ok((_, bytes)) => {
                report
                    .notes
                    .push(format!("{name} has {bytes} B instead of {}", cut.segment_bytes));
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                report.notes.push(format!("{name} is missing"));
                None
            }
            Err(error) => return Err(Error::io(format!("opening {name}"))(error)),
        };
        state.space.set_segment(number, *cut, file);
        state.space.restore_written(number, written);
    }
    let mut replicas = replayed.take_replicas();
    for (block, replica) in &mut replicas {
        seat(&mut state.space, *block, replica)?;
        let segment = state.space.segment(replica.place.segment);
        if segment.is_none_or(|one| one.file.is_none()) {
            replica.state = ReplicaState::Corrupt;
        }
    }
    state.space.file_all_under_lists();
    state.index = Index::from_sorted(replicas);
    Ok(())
}

/// Takes a replica's slot, which must hold it and be free. Which segments have free slots is settled later.
pub(crate) fn seat(space: &mut Space, block: BlockId, replica: &Replica) -> Result<()> {
    let place = replica.place;
    let needed_bytes = Class::for_length(replica.length as usize).slot_bytes();
    let segment = space.segment(place.segment);
    if segment.is_none_or(|one| one.cut.class.slot_bytes() < needed_bytes) {
        return Err(Error::damaged(format!(
            "block {block} stands in a slot that can't hold it ({place:?})"
        )));
    }
    if !space.mark_used(place) {
        return Err(Error::damaged(format!(
            "block {block} stands in a taken or missing slot ({place:?})"
        )));
    }
    Ok(())
}

/// Makes what recovery found last: the next batch moves the durable watermark past the suspects.
fn settle(core: &Rc<Core>, suspects: Vec<BlockId>, report: &mut OpenReport) -> Result<()> {
    let mut last = None;
    for &block in &suspects {
        last = Some(core.log.append(Record::State {
            block,
            state: ReplicaState::Suspect,
        }));
    }
    if let Some(last) = last {
        let outcome = block_on(core, last.wait());
        core.outcome(outcome, 0)?;
    }
    let state = core.state.borrow();
    let all = state
        .index
        .behind(None)
        .filter(|(_, replica)| replica.state == ReplicaState::Suspect);
    report.suspects = if state.index.totals().suspects > 0 {
        all.map(|(block, _)| block).collect()
    } else {
        Vec::new()
    };
    Ok(())
}

fn set_capacity(core: &Rc<Core>, options: &Options) -> Result<()> {
    let mut capacity_bytes = options.capacity_bytes;
    let mut state = core.state.borrow_mut();
    if capacity_bytes == 0 {
        let free_bytes = core
            .io
            .disk(|disk| disk.free_bytes())
            .map_err(Error::io("asking for free space"))?;
        capacity_bytes = (state.space.segment_bytes() + free_bytes).saturating_sub(options.reserve_bytes);
    }
    let most_bytes = space::SEGMENTS_MAX * space::segment_bytes_for(u64::MAX);
    state.space.set_capacity(capacity_bytes.min(most_bytes));
    Ok(())
}
