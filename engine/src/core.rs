//! What a volume is while it is open: its state in memory, and the parts that its tasks share.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ahead::Trial;
use crate::block::BlockId;
use crate::cache::Cache;
use crate::checkpoint::Checkpoints;
use crate::commit::Log;
use crate::device::FileId;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::io::Io;
use crate::pool::Pool;
use crate::record::Record;
use crate::space::Space;
use crate::sync::Promise;
use crate::tasks::Tasks;
use crate::types::{Epoch, Identity};
use crate::zero_fill;

/// How a change ended, for everybody who waits for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It is durable.
    Done,
    /// There was no room, for this reason.
    NoSpace(Arc<str>),
    /// The volume has failed.
    Failed,
}

/// How a put writes its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writing {
    /// In one operation: as quickly as the disk can.
    AtOnce,
    /// In pieces, one after the other, so that others' reads wait behind one piece only.
    InPieces,
}

/// A put under way.
pub(crate) struct PutInFlight {
    pub(crate) length: u32,
    pub(crate) crc32c: u32,
    pub(crate) writing: Writing,
    pub(crate) ended: Promise<Outcome>,
    pub(crate) begun: Instant,
    /// How long the slot's write took, once it has ended.
    pub(crate) written_after: Cell<Duration>,
}

/// What changes while the volume is open.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) space: Space,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) puts: HashMap<BlockId, Rc<PutInFlight>>,
    /// Blocks whose delete is queued: no longer served, not yet gone.
    pub(crate) deleting: HashSet<BlockId>,
    /// Files of segments whose record is queued.
    pub(crate) new_segments: HashMap<u16, FileId>,
    /// Kept when the growth under way has ended, however it did.
    pub(crate) growing: Option<Promise<()>>,
    /// The filling with zeros that is under way.
    pub(crate) filling: Option<zero_fill::Step>,
    /// Per class, whether short slots are filled ahead.
    pub(crate) trials: Vec<Trial>,
    /// The first I/O error.
    pub(crate) failed: Option<Arc<str>>,
    pub(crate) closed: bool,
}

/// Counts since the volume was opened.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) puts: Cell<u64>,
    pub(crate) gets: Cell<u64>,
    pub(crate) deletes: Cell<u64>,
    pub(crate) put_bytes: Cell<u64>,
    pub(crate) get_bytes: Cell<u64>,
    pub(crate) batches: Cell<u64>,
    pub(crate) zero_filled_bytes: Cell<u64>,
    pub(crate) checkpoints: Cell<u64>,
}

/// Adds to a counter.
pub(crate) fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

/// An open volume, shared by its handles and its tasks.
pub(crate) struct Core {
    pub(crate) identity: Identity,
    pub(crate) io: Rc<Io>,
    pub(crate) tasks: Rc<Tasks>,
    pub(crate) pool: Pool,
    /// None when the volume has no read cache.
    pub(crate) cache: Option<RefCell<Cache>>,
    pub(crate) state: RefCell<State>,
    pub(crate) log: Log,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) counters: Counters,
    /// The folder `segments`, to be synced.
    pub(crate) segments_folder: FileId,
    pub(crate) sync_flushes_device: bool,
}

impl Core {
    /// Latches the volume: the first reason stays.
    pub(crate) fn fail(&self, doing: &str, error: &io::Error) {
        let mut state = self.state.borrow_mut();
        if state.failed.is_none() {
            let reason: Arc<str> = format!("{doing}: {error}").into();
            tracing::error!(volume = %hex(&self.identity.volume), %reason, "volume has failed");
            state.failed = Some(reason);
        }
    }

    /// The latched error, or that the volume is closed.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let state = self.state.borrow();
        match &state.failed {
            Some(reason) => Err(Error::Failed {
                reason: reason.clone(),
            }),
            None if state.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    pub(crate) fn failed_error(&self) -> Error {
        let failed = self.state.borrow().failed.clone();
        failed.map_or(Error::Closed, |reason| Error::Failed { reason })
    }

    /// Turns the end of a change into what its caller gets.
    pub(crate) fn outcome(&self, outcome: Outcome, length: u32) -> Result<()> {
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::NoSpace(why) => Err(Error::NoSpace {
                length,
                why: why.to_string(),
            }),
            Outcome::Failed => Err(self.failed_error()),
        }
    }

    /// Does something with the read cache, where there is one.
    pub(crate) fn cache<T>(&self, act: impl FnOnce(&mut Cache) -> T) -> Option<T> {
        Some(act(&mut self.cache.as_ref()?.borrow_mut()))
    }

    /// Applies a record that is durable. In the order of the journal.
    pub(crate) fn apply(&self, record: Record) {
        let mut state = self.state.borrow_mut();
        match record {
            Record::Put { block, replica } => {
                state.space.note_written(replica.place, replica.length);
                if let Some(before) = state.index.insert(block, replica)
                    && before.place != replica.place
                {
                    self.cache(|cache| cache.forget(block, &before));
                    state.space.free(before.place);
                }
                count(&self.counters.puts, 1);
                count(&self.counters.put_bytes, u64::from(replica.length));
            }
            Record::Delete { block } => {
                state.deleting.remove(&block);
                if let Some(gone) = state.index.remove(block) {
                    self.cache(|cache| cache.forget(block, &gone));
                    state.space.free(gone.place);
                    count(&self.counters.deletes, 1);
                }
            }
            Record::Segment { segment, cut } => {
                let file = state.new_segments.remove(&segment);
                state.space.set_segment(segment, cut, file);
            }
            Record::Filled(run) => state.space.end_fill(run, true),
            Record::Epoch(epoch) => {
                if state.epoch.is_none_or(|seen| seen.number < epoch.number) {
                    state.epoch = Some(epoch);
                }
            }
            Record::State {
                block,
                state: replica_state,
            } => state.index.set_state(block, replica_state),
        }
    }

    /// Starts a task that has the volume to itself between its waits.
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(self: &Rc<Self>, task: impl FnOnce(Rc<Self>) -> F) {
        self.tasks.spawn(task(self.clone()));
    }

    /// Runs what can run and exchanges with the disk once; whether anything happened.
    pub(crate) fn work(&self, wait: bool) -> io::Result<bool> {
        self.tasks.seen();
        let ran = self.tasks.run_ready();
        let turned = self.io.turn(wait && !ran);
        if let Err(error) = &turned {
            if !self.state.borrow().closed {
                self.fail("driving the disk", error);
                self.pool.close();
            }
            // Whoever waited for an operation hears of it.
            self.tasks.run_ready();
        }
        let turned = turned?;
        Ok(self.tasks.run_ready() || ran || turned)
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
