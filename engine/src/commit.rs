//! The journal while the volume is open: one task that writes queued records in batches, and one a batch that makes
//! it durable.
//!
//! A batch's end: its write and the slot writes of its puts have completed, then the journal and every touched
//! segment whose extents are not known to be written were synced, and the batch before it has ended. One group of
//! flushes serves all that waited. Two batches are under way at a time, so that the disk writes the one while it
//! flushes the other.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::buffer::Blank;
use crate::checkpoint;
use crate::core::{Core, Outcome, count};
use crate::device::{FileId, Op};
use crate::io::Running;
use crate::journal::{
    BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_RECORDS_MAX, Head, JournalSeed, Ring, encode_batch,
};
use crate::limits::PAGE_BYTES;
use crate::pool::Lane;
use crate::record::Record;
use crate::sync::{Promise, Queue};

/// Pages of the longest batch.
const BATCH_PAGES_MAX: u32 = (BATCH_BYTES_MAX / PAGE_BYTES) as u32;
/// Batches under way at a time. A third would only wait: a disk does one flush after another.
const BATCHES_MAX: usize = 2;
/// From so many puts in flight on an idle journal takes half of them: in one batch they would all wait for one
/// flush together, and the disk for all of them.
const SPLIT_PUTS_MIN: usize = 4;

/// A change that waits for its batch.
pub(crate) struct Queued {
    record: Record,
    /// The end of the slot's write, where that may still be in flight.
    slot: Option<Promise<Outcome>>,
    done: Option<Promise<Outcome>>,
}

impl Queued {
    /// Why the slot was not written, though its volume works.
    fn refused(&self) -> Option<Outcome> {
        let end = self.slot.as_ref().and_then(Promise::peek);
        end.filter(|end| *end != Outcome::Done)
    }
}

/// The journal of an open volume.
pub(crate) struct Log {
    queue: Queue<Queued>,
    ring: Ring,
    seed: JournalSeed,
    generation: u64,
    files: Vec<FileId>,
    /// Behind the last batch that is durable and applied.
    head: Cell<Head>,
    /// Behind the last batch that was begun.
    next: Cell<Head>,
    stopped: Promise<()>,
}

impl Log {
    pub(crate) fn new(
        ring: Ring,
        seed: JournalSeed,
        generation: u64,
        files: Vec<FileId>,
        head: Head,
    ) -> Self {
        Self {
            queue: Queue::new(),
            ring,
            seed,
            generation,
            files,
            head: Cell::new(head),
            next: Cell::new(head),
            stopped: Promise::new(),
        }
    }

    pub(crate) fn ring(&self) -> Ring {
        self.ring
    }

    pub(crate) fn seed(&self) -> JournalSeed {
        self.seed
    }

    /// One of the ring's files.
    pub(crate) fn file(&self, number: u32) -> FileId {
        self.files[number as usize]
    }

    pub(crate) fn head(&self) -> Head {
        self.head.get()
    }

    /// Behind all that the journal holds or is about to.
    pub(crate) fn next(&self) -> Head {
        self.next.get()
    }

    /// Before the first batch is begun.
    pub(crate) fn set_head(&self, head: Head) {
        self.head.set(head);
        self.next.set(head);
    }

    /// Queues a change; the promise tells when it is durable.
    pub(crate) fn append(&self, record: Record) -> Promise<Outcome> {
        let done = Promise::new();
        self.queue.push(Queued {
            record,
            slot: None,
            done: Some(done.clone()),
        });
        done
    }

    /// Queues a change that nobody waits for.
    pub(crate) fn append_unwatched(&self, record: Record) {
        self.queue.push(Queued {
            record,
            slot: None,
            done: None,
        });
    }

    /// Queues a put whose slot may still be being written.
    pub(crate) fn append_put(&self, record: Record, slot: Option<Promise<Outcome>>) -> Promise<Outcome> {
        let done = Promise::new();
        self.queue.push(Queued {
            record,
            slot,
            done: Some(done.clone()),
        });
        done
    }

    /// Writes what is queued and then stops.
    pub(crate) async fn stop(&self) {
        self.queue.close();
        self.stopped.wait().await;
    }
}

/// The end of a batch: whether it is durable and applied, and so is every batch before it. If not, the volume has
/// failed.
type End = Promise<bool>;

/// A batch under way.
struct Batch {
    queued: Vec<Queued>,
    /// The write of its pages.
    writing: Running,
    journal_file: FileId,
    /// The head behind it.
    next: Head,
    /// The end of the batch before it, which may be under way too.
    before: Option<End>,
    ended: End,
}

/// The task of the journal: runs until the log is stopped.
pub(crate) async fn run(core: Rc<Core>) {
    let mut under_way: VecDeque<End> = VecDeque::new();
    loop {
        while core.log.queue.filled().await {
            if let Err(error) = checkpoint::make_room(&core, 2 * BATCH_PAGES_MAX).await {
                core.fail("making room in the journal", &error);
            }
            while under_way.len() == BATCHES_MAX {
                under_way[0].wait().await;
                under_way.pop_front();
            }
            under_way.retain(|batch| batch.peek().is_none());
            if let Some(before) = under_way.back() {
                gather(&core, before).await;
            }
            let blank = core.pool.acquire(Lane::Own, BATCH_BYTES_MAX).await;
            let blank = match blank {
                Ok(blank) if core.state.borrow().failed.is_none() => blank,
                failed => {
                    if let Err(error) = failed {
                        core.fail("writing the journal", &error);
                    }
                    answer(take(&core, BATCH_RECORDS_MAX), false);
                    continue;
                }
            };
            let puts = core.state.borrow().puts.len();
            let most = if under_way.is_empty() && puts >= SPLIT_PUTS_MIN {
                puts.div_ceil(2).min(BATCH_RECORDS_MAX)
            } else {
                BATCH_RECORDS_MAX
            };
            let batch = begin(&core, take(&core, most), blank, under_way.back().cloned());
            under_way.push_back(batch.ended.clone());
            core.spawn(|core| finish(core, batch));
        }
        // The end of a batch may queue more.
        match under_way.pop_front() {
            Some(batch) => drop(batch.wait().await),
            None => break,
        }
    }
    core.log.stopped.keep(());
}

/// Waits until the next batch is worth a flush of its own: half of the puts in flight are in it, or the one before it
/// has ended.
async fn gather(core: &Core, before: &End) {
    let enough = core.log.queue.until(|queued, closed| {
        let puts = core.state.borrow().puts.len();
        (closed || 2 * queued >= puts).then_some(())
    });
    let (mut enough, mut ended) = (pin!(enough), pin!(before.wait()));
    poll_fn(|context| {
        let ready = enough.as_mut().poll(context).is_ready() || ended.as_mut().poll(context).is_ready();
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn take(core: &Core, most: usize) -> Vec<Queued> {
    std::iter::from_fn(|| core.log.queue.pop()).take(most).collect()
}

/// Starts to write a batch's pages. Does not wait: what undoes a lost put of an older batch is either among the
/// records, or that batch does not count as durable yet.
fn begin(core: &Rc<Core>, queued: Vec<Queued>, mut blank: Blank, before: Option<End>) -> Batch {
    let log = &core.log;
    let durable_through = log.head.get().sequence - 1;
    let mut records = Vec::new();
    queued.iter().for_each(|one| one.record.encode(&mut records));
    let pages = (BATCH_HEADER_BYTES + records.len()).div_ceil(PAGE_BYTES) as u32;
    let head = log.next.get().fitting(log.ring, pages);
    let (bytes, next) = encode_batch(
        log.seed,
        log.ring,
        head,
        durable_through,
        log.generation,
        &records,
    );
    log.next.set(next);
    let mut chunk = blank.take(bytes.len()).expect("a batch fits a small buffer");
    chunk.as_mut().copy_from_slice(&bytes);
    let (file, offset_bytes) = log.ring.locate(head.page);
    let journal_file = log.files[file as usize];
    let writing = core.io.start(Op::Write {
        file: journal_file,
        offset_bytes,
        from: chunk.freeze(),
    });
    Batch {
        queued,
        writing,
        journal_file,
        next,
        before,
        ended: End::new(),
    }
}

/// Brings a batch to its end and answers who waits for it.
async fn finish(core: Rc<Core>, mut batch: Batch) {
    let committed = commit(&core, &mut batch).await.is_some();
    answer(batch.queued, committed);
    batch.ended.keep(committed);
    checkpoint::start_if_due(&core);
}

fn answer(queued: Vec<Queued>, committed: bool) {
    for one in queued {
        let refused = one.refused();
        if committed && refused.is_some() && matches!(one.record, Record::Put { .. }) {
            // Its caller hears of it when it is undone: until then a crash would bring the block back.
            continue;
        }
        if let Some(done) = one.done {
            done.keep(match committed {
                true => refused.unwrap_or(Outcome::Done),
                false => Outcome::Failed,
            });
        }
    }
}

/// Makes a batch durable and applies it; `None` when the volume has failed.
async fn commit(core: &Rc<Core>, batch: &mut Batch) -> Option<()> {
    if let Err(error) = (&mut batch.writing).await.1 {
        core.fail("writing the journal", &error);
        return None;
    }
    for queued in &batch.queued {
        if let Some(slot) = &queued.slot
            && slot.wait().await == Outcome::Failed
        {
            return None;
        }
    }
    for sync in start_syncs(core, batch) {
        if let Err(error) = sync.await.1 {
            core.fail("flushing", &error);
            return None;
        }
    }
    // Recovery stops at the first torn batch: this one is worth nothing without those before it.
    if let Some(before) = &batch.before
        && !before.wait().await
    {
        return None;
    }
    if core.state.borrow().failed.is_some() {
        // Some flush failed meanwhile, a checkpoint's say: what ours covers may have gone with it, though it says not.
        return None;
    }
    core.log.head.set(batch.next);
    count(&core.counters.batches, 1);
    for queued in &batch.queued {
        match queued.record {
            // The record is durable, its slot was never written: undo it before anything else.
            Record::Put { block, .. } if queued.refused().is_some() => {
                core.log.queue.push_front(Queued {
                    record: Record::Delete { block },
                    slot: queued.slot.clone(),
                    done: queued.done.clone(),
                });
            }
            record => core.apply(record),
        }
    }
    Some(())
}

/// Flushes what a batch touched: each segment with new extents, else the journal, and with either the device's cache.
fn start_syncs(core: &Rc<Core>, batch: &Batch) -> Vec<Running> {
    let mut files = BTreeSet::new();
    {
        let state = core.state.borrow();
        for queued in &batch.queued {
            if let Record::Put { replica, .. } = queued.record
                && !(core.sync_flushes_device && state.space.is_written(replica.place))
                && let Some(file) = state
                    .space
                    .segment(replica.place.segment)
                    .and_then(|segment| segment.file)
            {
                files.insert(file);
            }
        }
    }
    // The journal's own extents are written since it was laid out: whichever sync flushes the device makes its
    // batch durable too.
    if files.is_empty() || !core.sync_flushes_device {
        files.insert(batch.journal_file);
    }
    files
        .into_iter()
        .map(|file| core.io.start(Op::Sync { file }))
        .collect()
}
