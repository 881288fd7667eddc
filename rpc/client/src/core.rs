//! What the client's thread owns, and its loop.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use blockyard_engine::limits::{BLOCK_BYTES_MAX, UNIT_BYTES};
use blockyard_wire::types::VolumeId;
use blockyard_wire::{Problem, ProblemKind, Result};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::batch::Batch;
use crate::buffers::Buffers;
use crate::channel::Channels;
use crate::lookup::Lookup;
use crate::options::Options;
use crate::pace::{Budget, Paces};
use crate::places::Places;
use crate::session::Session;
use crate::short::Short;
use crate::statistics::{Counters, Statistics, VolumeStatistics};
use crate::{hedge, hops};

/// How long the thread goes on for abandoned uploads after the last handle is dropped.
const FAREWELL: Duration = Duration::from_secs(2);

/// Blocks' worth of unused buffers that are kept while others are in use: several transfers' turnover.
const BUFFERS_KEPT: usize = 24;

/// No volume is slow for reads, or for writes, that take less than a few times this.
const READ_FLOOR: Duration = Duration::from_millis(2);
const WRITE_FLOOR: Duration = Duration::from_millis(5);

/// One call, to be started on the client's thread.
pub type Job = Box<dyn FnOnce(Rc<Core>) + Send>;

/// What every call on the thread shares.
pub struct Core {
    /// As the caller gave them.
    pub options: Options,
    /// To the nameserver.
    pub session: Session,
    /// To the volumes.
    pub channels: Channels,
    /// For what is sent and received.
    pub buffers: Arc<Buffers>,
    /// What a longer upload needs to read its next block: half as many as are sent at once.
    pub reading: Semaphore,
    /// What each block of a longer upload needs to be sent.
    pub uploading: Semaphore,
    /// What each read needs for every checksum unit that it asks for.
    pub downloading: Semaphore,
    /// What short uploads share.
    pub short: Short,
    /// Paths that wait to be looked up.
    pub lookups: Batch<Lookup>,
    /// What is known of where replicas are.
    pub places: Places,
    /// How quickly volumes answer reads.
    pub reads: Paces,
    /// How quickly volumes take blocks.
    pub writes: Paces,
    /// Reads that may be asked for twice.
    pub hedges: Budget,
    /// What happened so far.
    pub counters: Counters,
    /// Calls under way and what is still to be said behind them.
    pub tasks: TaskTracker,
    /// The thread is ending: nothing new may be spawned.
    ended: Cell<bool>,
}

impl Core {
    async fn connect(options: Options) -> Result<Rc<Self>> {
        let session = Session::connect(&options).await?;
        Ok(Rc::new(Self {
            channels: Channels::new(&options, session.cluster_id()),
            session,
            buffers: Buffers::new(BUFFERS_KEPT, options.blocks_in_flight + 2),
            reading: Semaphore::new(options.uploads_in_flight.div_ceil(2).max(1)),
            uploading: Semaphore::new(options.uploads_in_flight.max(1)),
            downloading: Semaphore::new(options.downloads_in_flight.max(1) * BLOCK_BYTES_MAX / UNIT_BYTES),
            short: Short::default(),
            lookups: Batch::default(),
            places: Places::new(options.zone.clone()),
            reads: Paces::new(READ_FLOOR, &hedge::GUESSES),
            writes: Paces::new(WRITE_FLOOR, &hops::GUESSES),
            hedges: Budget::new(hedge::HEDGED_PART, hedge::HEDGED_AT_ONCE),
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            ended: Cell::new(false),
            options,
        }))
    }

    /// Says something to the cluster that no caller waits for.
    pub fn farewell(&self, words: impl Future<Output = ()> + 'static) {
        if !self.ended.get() {
            self.tasks.spawn_local(words);
        }
    }

    /// What was counted so far.
    pub fn statistics(&self) -> Statistics {
        let mut volumes: BTreeMap<VolumeId, VolumeStatistics> = BTreeMap::new();
        for (volume, requests, slow) in self.reads.all() {
            let of = volumes.entry(volume).or_default();
            (of.reads, of.slow_to_read) = (requests, slow);
        }
        for (volume, requests, slow) in self.writes.all() {
            let of = volumes.entry(volume).or_default();
            (of.writes, of.slow_to_write) = (requests, slow);
        }
        let named = volumes
            .into_iter()
            .map(|(volume, of)| VolumeStatistics { volume, ..of });
        Statistics {
            reads: self.counters.reads.get(),
            hedged: self.counters.hedged.get(),
            hedges_won: self.counters.hedges_won.get(),
            cancelled: self.counters.cancelled.get(),
            probes: self.counters.probes.get(),
            volumes: named.collect(),
        }
    }

    /// Does something that nobody waits for: it ends when the client does.
    pub fn aside(&self, work: impl Future<Output = ()> + 'static) {
        if !self.ended.get() {
            tokio::task::spawn_local(work);
        }
    }
}

/// The thread: connects, tells `ready`, and serves `jobs` until the last handle is gone.
pub fn run(options: Options, mut jobs: mpsc::Receiver<Job>, ready: oneshot::Sender<Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let problem = Problem::new(ProblemKind::Failed, format!("cannot start tokio: {error}"));
            // Nobody waits any more: nothing to tell.
            let _ = ready.send(Err(problem));
            return;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let core = match Core::connect(options).await {
            Ok(core) => core,
            Err(problem) => {
                let _ = ready.send(Err(problem));
                return;
            }
        };
        if ready.send(Ok(())).is_err() {
            return;
        }
        while let Some(job) = jobs.recv().await {
            job(core.clone());
        }
        core.tasks.close();
        if tokio::time::timeout(FAREWELL, core.tasks.wait()).await.is_err() {
            tracing::debug!("some uploads were left to the expiry of their leases");
        }
        core.ended.set(true);
    });
}
