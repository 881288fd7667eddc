//! The journal while the volume is open: one task that writes queued records in batches and makes them durable.
//!
//! A batch's end: its write and the slot writes of its puts have completed, then the journal and every touched
//! segment whose extents are not known to be written were synced. One group of flushes serves all that waited.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use crate::checkpoint;
use crate::core::{Core, Outcome, count};
use crate::device::{FileId, Op};
use crate::journal::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Head, JournalSeed, Ring, encode_batch};
use crate::limits::PAGE_BYTES;
use crate::pool::Lane;
use crate::record::Record;
use crate::sync::{Promise, Queue};

/// Pages of the longest batch.
const BATCH_PAGES_MAX: u32 = (BATCH_BYTES_MAX / PAGE_BYTES) as u32;

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

    pub(crate) fn set_head(&self, head: Head) {
        self.head.set(head);
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

/// The task of the journal: runs until the log is stopped.
pub(crate) async fn run(core: Rc<Core>) {
    while core.log.queue.filled().await {
        if let Err(error) = checkpoint::make_room(&core, 2 * BATCH_PAGES_MAX).await {
            core.fail("making room in the journal", &error);
        }
        let batch: Vec<Queued> = std::iter::from_fn(|| core.log.queue.pop())
            .take(BATCH_RECORDS_MAX)
            .collect();
        let committed = if core.state.borrow().failed.is_some() {
            None
        } else {
            commit(&core, &batch).await
        };
        for queued in batch {
            let refused = queued.refused();
            if committed.is_some() && refused.is_some() && matches!(queued.record, Record::Put { .. }) {
                // Its caller hears of it when it is undone: until then a crash would bring the block back.
                continue;
            }
            if let Some(done) = queued.done {
                done.keep(match committed {
                    Some(()) => refused.unwrap_or(Outcome::Done),
                    None => Outcome::Failed,
                });
            }
        }
        checkpoint::start_if_due(&core);
    }
    core.log.stopped.keep(());
}

/// Makes a batch durable and applies it; `None` when the volume has failed.
async fn commit(core: &Rc<Core>, batch: &[Queued]) -> Option<()> {
    let (journal_file, next) = match write(core, batch).await {
        Ok(written) => written,
        Err(error) => {
            core.fail("writing the journal", &error);
            return None;
        }
    };
    for queued in batch {
        if let Some(slot) = &queued.slot
            && slot.wait().await == Outcome::Failed
        {
            return None;
        }
    }
    if let Err(error) = sync(core, journal_file, batch).await {
        core.fail("flushing", &error);
        return None;
    }
    if core.state.borrow().failed.is_some() {
        // Some flush failed meanwhile, a checkpoint's say: what ours covers may have gone with it, though it says not.
        return None;
    }
    core.log.head.set(next);
    count(&core.counters.batches, 1);
    for queued in batch {
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

/// Writes a batch's pages; the file they went to and the head behind them.
async fn write(core: &Rc<Core>, batch: &[Queued]) -> io::Result<(FileId, Head)> {
    let log = &core.log;
    let mut records = Vec::new();
    batch.iter().for_each(|queued| queued.record.encode(&mut records));
    let pages = (crate::journal::BATCH_HEADER_BYTES + records.len()).div_ceil(PAGE_BYTES) as u32;
    let head = log.head.get().fitting(log.ring, pages);
    // Each batch waits for the one before to be durable in full, so all before this one are.
    let (bytes, next) = encode_batch(
        log.seed,
        log.ring,
        head,
        head.sequence - 1,
        log.generation,
        &records,
    );
    let mut blank = core.pool.acquire(Lane::Own, bytes.len()).await?;
    let mut chunk = blank.take(bytes.len()).expect("a batch fits a small buffer");
    chunk.as_mut().copy_from_slice(&bytes);
    let (file, offset_bytes) = log.ring.locate(head.page);
    let file = log.files[file as usize];
    core.io.write(file, offset_bytes, chunk.freeze()).await?;
    Ok((file, next))
}

/// Flushes what a batch touched: each segment with new extents, else the journal, and with either the device's cache.
async fn sync(core: &Rc<Core>, journal_file: FileId, batch: &[Queued]) -> io::Result<()> {
    let mut files = BTreeSet::new();
    {
        let state = core.state.borrow();
        for queued in batch {
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
        files.insert(journal_file);
    }
    let running: Vec<_> = files
        .into_iter()
        .map(|file| core.io.start(Op::Sync { file }))
        .collect();
    for sync in running {
        sync.await.1?;
    }
    Ok(())
}
