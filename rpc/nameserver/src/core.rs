//! What the nameserver's tasks share: the state behind its journal, and all that is known only in memory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;

use blockyard_engine::limits::BLOCK_BYTES_MAX;
use blockyard_wire::ticket::Keys;
use blockyard_wire::types::{BlockId, ClusterId, ClusterInfo, Epoch, FileInfo, NewFile};
use blockyard_wire::{Problem, ProblemKind, Result};
use futures_util::future::{LocalBoxFuture, Shared};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::config::Config;
use crate::dataserver::Control;
use crate::health::{Change, Health, Limits};
use crate::journal::{self, PAYLOAD_BYTES_MAX};
use crate::orphans::Orphans;
use crate::readers::Readers;
use crate::redundancy::Redundancy;
use crate::repair::Work;
use crate::state::blocks::{Block, VolumeIndex};
use crate::state::{Command, Outcome, State};
use crate::uploads::Uploads;

/// Blocks that are looked at between two turns of other tasks.
const STEP: usize = 4096;
/// Commands that may wait for the journal.
const QUEUE_MAX: usize = 8192;

/// Milliseconds since 1970: the system's clock, unless a simulation brings its own.
pub type WallClock = Box<dyn Fn() -> u64>;

/// A command on its way into the journal.
pub struct Queued {
    /// It.
    pub command: Command,
    /// As it will stand there.
    pub encoded: Vec<u8>,
    /// Where its outcome goes.
    pub answer: oneshot::Sender<Result<Outcome>>,
}

/// Everything of a running nameserver. Lives on its one thread.
pub struct Core {
    /// How it is to run.
    pub config: Config,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Signs tickets and checks proofs.
    pub keys: Keys,
    /// `HOST:PORT` it listens on.
    pub address: String,
    clock: WallClock,
    started: Instant,
    /// All that is durable.
    pub state: RefCell<State>,
    /// Who is being heard from.
    pub health: RefCell<Health>,
    /// What repair has to do.
    pub redundancy: RefCell<Redundancy>,
    /// Who may still be reading which version.
    pub readers: RefCell<Readers>,
    /// Uploads: ids handed out, and when they expire.
    pub uploads: RefCell<Uploads>,
    /// Blocks that volumes hold and nobody wants.
    pub orphans: RefCell<Orphans>,
    /// Connected dataservers by address.
    pub controls: RefCell<BTreeMap<String, Rc<Control>>>,
    /// Volumes that are being compared for the first time since they came.
    pub comparing: RefCell<BTreeSet<VolumeIndex>>,
    /// Volumes that look like copies or old images of themselves, and why.
    pub suspicions: RefCell<BTreeMap<VolumeIndex, String>>,
    /// Replicas that volumes are being asked about because clients complained.
    pub doubts: RefCell<BTreeSet<(VolumeIndex, BlockId)>>,
    /// Lots for placement.
    pub lots: RefCell<StdRng>,
    /// What repair is doing.
    pub repair: Work,
    /// Copies under way.
    pub repairing: Cell<u64>,
    /// Bytes of journal since the last snapshot.
    pub journal_bytes: Cell<u64>,
    /// Wakes repair.
    pub repair_wake: Notify,
    /// Wakes the sending of deletions.
    pub delete_wake: Notify,
    /// Whether repair and deletion wait for the known servers.
    pub safe_mode: Cell<bool>,
    /// Whether somebody was refused for want of space that the trash has.
    pub trash_wanted: Cell<bool>,
    queue: RefCell<VecDeque<Queued>>,
    /// Commands handed to the journal whose outcome is not known yet.
    pub in_flight: Cell<usize>,
    /// Wakes the journal's task.
    pub queue_wake: Notify,
    /// Why nothing can be changed; empty when it can.
    pub read_only: RefCell<String>,
    /// What that is for a caller.
    pub read_only_kind: Cell<ProblemKind>,
    /// The commands that begin the reign, while there is no room for them: until then files are read under the reign
    /// before, and nothing else.
    pub begin: RefCell<Vec<Command>>,
    /// Which of two journal folders has failed, and why; empty when none has.
    pub journal_trouble: RefCell<String>,
    /// Folders that hold the whole journal.
    pub live_dirs: RefCell<Vec<PathBuf>>,
    /// Those who wait for the journal to begin a new file; they get the sequence of the last one that is closed.
    rotations: RefCell<VecDeque<oneshot::Sender<Result<u64>>>>,
    /// Set once the cluster has turned out to have gone on without this nameserver.
    outranked: RefCell<Option<Problem>>,
    stand_down: watch::Sender<bool>,
    stopping: Shared<LocalBoxFuture<'static, ()>>,
    registrations: Cell<u64>,
}

impl Core {
    /// A core around a state that reigns.
    pub fn new(
        config: Config,
        cluster: ClusterId,
        keys: Keys,
        (address, clock): (String, WallClock),
        state: State,
        stand_down: watch::Sender<bool>,
        stopping: Shared<LocalBoxFuture<'static, ()>>,
    ) -> Rc<Self> {
        let limits = Limits {
            suspect_ms: u64::from(config.suspect_ms),
            dead_ms: u64::from(config.dead_ms),
        };
        let seed = config.seed.unwrap_or_else(|| {
            let id = ClusterId::random().0;
            u64::from_le_bytes(id[..8].try_into().expect("8 bytes"))
        });
        let uploads = Uploads::new(&state, u64::from(config.lease_ms), config.leases_max);
        Rc::new(Self {
            cluster,
            keys,
            address,
            started: Instant::now(),
            health: RefCell::new(Health::new(limits, state.blocks(), 0)),
            redundancy: RefCell::default(),
            readers: RefCell::new(Readers::new(config.ticket_ms, state.last_id(), clock())),
            uploads: RefCell::new(uploads),
            orphans: RefCell::default(),
            controls: RefCell::default(),
            comparing: RefCell::default(),
            suspicions: RefCell::default(),
            doubts: RefCell::default(),
            lots: RefCell::new(StdRng::seed_from_u64(seed)),
            repair: Work::default(),
            repairing: Cell::new(0),
            journal_bytes: Cell::new(0),
            repair_wake: Notify::new(),
            delete_wake: Notify::new(),
            safe_mode: Cell::new(true),
            trash_wanted: Cell::new(false),
            queue: RefCell::default(),
            in_flight: Cell::new(0),
            queue_wake: Notify::new(),
            read_only: RefCell::default(),
            read_only_kind: Cell::new(ProblemKind::Failed),
            begin: RefCell::default(),
            journal_trouble: RefCell::default(),
            live_dirs: RefCell::new(config.dirs()),
            rotations: RefCell::default(),
            outranked: RefCell::default(),
            stand_down,
            stopping,
            registrations: Cell::new(0),
            state: RefCell::new(state),
            clock,
            config,
        })
    }

    /// Milliseconds since the start: the clock of health, uploads and safe mode.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Milliseconds since 1970: what stands in commands and tickets.
    pub fn now_unix_ms(&self) -> u64 {
        (self.clock)()
    }

    /// A number for a new connection of a dataserver.
    pub fn next_registration(&self) -> u64 {
        self.registrations.set(self.registrations.get() + 1);
        self.registrations.get()
    }

    /// Its reign.
    pub fn epoch(&self) -> Epoch {
        self.state.borrow().epoch()
    }

    /// Whether anything can be changed.
    ///
    /// # Errors
    /// Why not.
    pub fn writable(&self) -> Result<()> {
        if let Some(problem) = self.outranked() {
            return Err(problem);
        }
        match &*self.read_only.borrow() {
            why if why.is_empty() => Ok(()),
            why => Err(Problem::new(self.read_only_kind.get(), why.clone())),
        }
    }

    /// Nothing can be changed for now, or for good.
    pub fn set_read_only(&self, problem: &Problem) {
        if *self.read_only.borrow() != problem.message {
            tracing::error!(%problem, "read-only");
            self.read_only.replace(problem.message.clone());
            self.read_only_kind.set(problem.kind);
        }
    }

    /// The reign that had no room to begin has begun: its commands are durable.
    pub fn reign(&self) -> Result<()> {
        let begin = self.begin.take();
        let mut state = self.state.borrow_mut();
        for command in &begin {
            state.apply(command)?;
        }
        // No id was given out before.
        let mut uploads = Uploads::new(&state, u64::from(self.config.lease_ms), self.config.leases_max);
        let now_ms = self.now_ms();
        state
            .leases()
            .keys()
            .for_each(|lease| uploads.renew(*lease, now_ms));
        self.uploads.replace(uploads);
        tracing::info!(epoch = state.epoch().number, "there is room: the reign begins");
        Ok(())
    }

    /// Serves nothing from now on: a newer nameserver has been here.
    pub fn stand_down(&self, problem: Problem) {
        tracing::error!(%problem, "standing down");
        self.set_read_only(&problem);
        self.outranked.borrow_mut().get_or_insert(problem);
        self.stand_down.send_replace(true);
    }

    /// Why it serves nothing any more.
    pub fn outranked(&self) -> Option<Problem> {
        self.outranked.borrow().clone()
    }

    /// Has the journal begin a new file; the sequence of the one before it, which is not written any more.
    ///
    /// # Errors
    /// `NoSpace` or `Failed` when it can't; `Retry` when the nameserver stops.
    pub async fn close_file(&self) -> Result<u64> {
        let (answer, closed) = oneshot::channel();
        self.rotations.borrow_mut().push_back(answer);
        self.queue_wake.notify_one();
        closed
            .await
            .unwrap_or_else(|_| Err(Problem::retry("the nameserver is stopping")))
    }

    /// Who waits for a new file of the journal.
    pub fn take_rotations(&self) -> VecDeque<oneshot::Sender<Result<u64>>> {
        self.rotations.take()
    }

    /// Resolves when the nameserver stops, or stands down.
    pub fn stopping(&self) -> Shared<LocalBoxFuture<'static, ()>> {
        self.stopping.clone()
    }

    /// What a login answers.
    pub fn info(&self) -> ClusterInfo {
        ClusterInfo {
            cluster: self.cluster,
            epoch: self.epoch(),
            replication: self.config.replication,
            min_replicas: self.config.min_replicas,
            block_bytes: BLOCK_BYTES_MAX as u32,
            heartbeat_ms: self.config.heartbeat_ms,
            lease_ms: self.config.lease_ms,
            now_unix_ms: self.now_unix_ms(),
            address: self.address.clone(),
        }
    }

    /// Makes a command durable, applies it, and gives its outcome.
    ///
    /// # Errors
    /// What the state says to it; `Busy` when too many wait; `Failed` or `NoSpace` when the journal can't be
    /// written.
    pub async fn propose(&self, command: Command) -> Result<Outcome> {
        if self.outranked().is_some() || !self.begin.borrow().is_empty() {
            self.writable()?;
        }
        {
            let state = self.state.borrow();
            if let Some(outcome) = state.repeated(&command) {
                return Ok(outcome);
            }
            // What the state refuses need not be written; what is on its way may change its mind.
            if self.in_flight.get() == 0 && self.queue.borrow().is_empty() {
                state.check(&command)?;
            }
        }
        let encoded = journal::encode_command(&command);
        if encoded.len() >= PAYLOAD_BYTES_MAX {
            return Err(Problem::invalid(format!(
                "a change of {} bytes is too large",
                encoded.len()
            )));
        }
        let (answer, outcome) = oneshot::channel();
        {
            let mut queue = self.queue.borrow_mut();
            if queue.len() >= QUEUE_MAX {
                return Err(Problem::new(
                    ProblemKind::Busy,
                    "the nameserver's journal has a full queue; try again",
                ));
            }
            queue.push_back(Queued {
                command,
                encoded,
                answer,
            });
        }
        self.queue_wake.notify_one();
        outcome
            .await
            .unwrap_or_else(|_| Err(Problem::retry("the nameserver is stopping")))
    }

    /// Publishes a file whose blocks are durable, without an upload of its own; also how many of them have fewer
    /// replicas than wanted.
    ///
    /// # Errors
    /// As [`Core::proven_file`] and [`Core::propose`].
    pub async fn publish(&self, file: NewFile) -> Result<(FileInfo, u32)> {
        let mut command = Command::Publish {
            replication: self.replication_or_default(file.replication),
            path: file.path,
            overwrite: file.overwrite,
            content_type: file.content_type,
            blocks: Vec::new(),
            length_bytes: file.length_bytes,
            crc32c: file.crc32c,
            at_unix_ms: self.now_unix_ms(),
            request: file.request,
        };
        // A repeated one has used its reservations up.
        let repeated = self.state.borrow().repeated(&command).is_some();
        if let Command::Publish { path, blocks, .. } = &mut command
            && !repeated
        {
            *blocks = self.proven_file(path, &file.blocks)?;
        }
        let Outcome::Committed { file: info, degraded } = self.propose(command).await? else {
            return Err(Problem::invalid("this request id was used for another call"));
        };
        let mut uploads = self.uploads.borrow_mut();
        file.blocks
            .iter()
            .for_each(|added| uploads.published(added.block));
        Ok((*info, degraded))
    }

    /// The commands for the next frame, as many as fit.
    pub fn take_group(&self) -> Vec<Queued> {
        let mut queue = self.queue.borrow_mut();
        let mut bytes = 1;
        let fits = queue.iter().take_while(|queued| {
            bytes += queued.encoded.len();
            bytes <= PAYLOAD_BYTES_MAX
        });
        let count = fits.count();
        self.in_flight.set(count);
        queue.drain(..count).collect()
    }

    /// Answers commands that could not be made durable.
    pub fn refuse(&self, group: Vec<Queued>, problem: &Problem) {
        self.in_flight.set(0);
        for queued in group {
            // Whoever asked may be gone.
            let _ = queued.answer.send(Err(problem.clone()));
        }
    }

    /// Applies durable commands and answers them.
    pub fn apply(&self, group: Vec<Queued>) {
        let mut answers = Vec::with_capacity(group.len());
        {
            let mut state = self.state.borrow_mut();
            for Queued { command, answer, .. } in group {
                answers.push((answer, state.apply(&command)));
            }
            let changed = state.take_changed();
            let health = self.health.borrow();
            let mut redundancy = self.redundancy.borrow_mut();
            for id in &changed {
                let id = BlockId(*id);
                redundancy.update(id, state.blocks().get(id), health.standings());
            }
            if !changed.is_empty() {
                self.repair_wake.notify_one();
            }
            if state.blocks().pending() > 0 {
                self.delete_wake.notify_one();
            }
        }
        self.in_flight.set(0);
        for (answer, outcome) in answers {
            // Whoever asked may be gone; the outcome stands.
            let _ = answer.send(outcome);
        }
    }

    /// Looks at every server and volume; what replicas are worth follows.
    pub fn survey(&self) -> Change {
        let state = self.state.borrow();
        let now_ms = self.now_ms();
        self.health
            .borrow_mut()
            .tick(state.blocks(), now_ms, self.now_unix_ms())
    }

    /// Looks at the blocks that a change of volumes is about.
    pub async fn follow(&self, change: Change) {
        if change.spread {
            self.assess_all().await;
        } else if !change.volumes.is_empty() {
            self.reassess(&change.volumes).await;
        }
    }

    /// Looks at all blocks in need again, and at those of `volumes`: what replicas there are worth has changed.
    async fn reassess(&self, blocks_of: &[VolumeIndex]) {
        let look = |ids: &[BlockId]| {
            let (state, health) = (self.state.borrow(), self.health.borrow());
            let mut redundancy = self.redundancy.borrow_mut();
            for id in ids {
                redundancy.update(*id, state.blocks().get(*id), health.standings());
            }
        };
        let in_need: Vec<_> = self.redundancy.borrow().all().collect();
        for ids in in_need.chunks(STEP) {
            look(ids);
            tokio::task::yield_now().await;
        }
        if !blocks_of.is_empty() {
            let held = |block: &Block| blocks_of.iter().any(|volume| block.state_on(*volume).is_some());
            self.each_block(|id, block| {
                if held(block) {
                    self.assess(id, block);
                }
            })
            .await;
        }
        self.repair_wake.notify_one();
    }

    /// Looks at every block once, as after a start.
    pub async fn assess_all(&self) {
        self.each_block(|id, block| self.assess(id, block)).await;
        self.repair_wake.notify_one();
    }

    fn assess(&self, id: BlockId, block: &Block) {
        let health = self.health.borrow();
        self.redundancy
            .borrow_mut()
            .update(id, Some(block), health.standings());
    }

    /// Looks at every block, a part at a time: other tasks get their turns in between.
    pub async fn each_block(&self, look: impl FnMut(BlockId, &Block)) {
        self.each_block_in(BlockId(0)..=BlockId(u64::MAX), look).await;
    }

    /// The same with the blocks of a range.
    pub async fn each_block_in(&self, range: RangeInclusive<BlockId>, mut look: impl FnMut(BlockId, &Block)) {
        let mut after = range.start().0.checked_sub(1);
        loop {
            {
                let state = self.state.borrow();
                let rows = state.blocks().table().after(after);
                let rows = rows.take_while(|(id, _)| *id <= range.end().0);
                let mut last = None;
                for (id, block) in rows.take(STEP) {
                    look(BlockId(id), block);
                    last = Some(id);
                }
                if last.is_none() {
                    return;
                }
                after = last;
            }
            tokio::task::yield_now().await;
        }
    }
}
