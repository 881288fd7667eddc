//! What all requests of one volume's thread share, and the watch over its connections.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use blockyard_engine::{self as engine, Volume};
use blockyard_wire::frame::Message;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::ticket::Keys;
use blockyard_wire::types::{BlockId, ClusterId, Replica, ReplicaState, VolumeId};
use futures_channel::mpsc;

use crate::config::Deadlines;
use crate::flows::Flows;
use crate::latency::Latency;
use crate::link::Links;
use crate::outbox::Outbox;
use crate::positions::Positions;
use crate::report;
use crate::scrub::Scrubbing;
use crate::signal::{Signal, within};

/// A volume that serves, and what its requests need.
pub(crate) struct Node {
    pub volume: Volume,
    pub id: VolumeId,
    pub cluster: ClusterId,
    pub secret: ClusterSecret,
    pub keys: Keys,
    pub deadlines: Deadlines,
    pub links: Links,
    pub positions: Positions,
    /// How long its disk takes.
    pub times: Times,
    /// Its scrub.
    pub scrubbing: Scrubbing,
    /// Chains that lead through it.
    pub flows: Flows,
    pub connections: Cell<u32>,
    pub stopping: Cell<bool>,
    /// Everything has ended: the watch may too.
    pub closed: Cell<bool>,
    /// Damaged blocks on their way to the nameserver; when it is full the heartbeat's list must do.
    reports: RefCell<mpsc::Sender<(VolumeId, Replica)>>,
    damaged: RefCell<Damaged>,
    in_flight: Cell<u32>,
    client_requests: Cell<u64>,
    /// A request or a connection has ended.
    pub ended: Signal,
    lifelines: RefCell<Vec<Weak<Lifeline>>>,
}

/// How long a volume's disk takes.
#[derive(Default)]
pub(crate) struct Times {
    /// From the last packet until slot and record were written.
    pub write: Latency,
    /// From there until all was durable.
    pub flush: Latency,
    /// From the request until the disk had answered.
    pub read: Latency,
}

impl Node {
    pub fn new(
        volume: Volume,
        secret: ClusterSecret,
        deadlines: Deadlines,
        positions: Positions,
        reports: mpsc::Sender<(VolumeId, Replica)>,
    ) -> Self {
        let identity = volume.identity();
        let cluster = ClusterId(identity.cluster);
        Self {
            id: VolumeId(identity.volume),
            keys: Keys::derive(&secret, cluster),
            cluster,
            volume,
            secret,
            deadlines,
            links: Links::default(),
            positions,
            times: Times::default(),
            scrubbing: Scrubbing::default(),
            flows: Flows::default(),
            connections: Cell::new(0),
            stopping: Cell::new(false),
            closed: Cell::new(false),
            reports: RefCell::new(reports),
            damaged: RefCell::default(),
            in_flight: Cell::new(0),
            client_requests: Cell::new(0),
            ended: Signal::default(),
            lifelines: RefCell::default(),
        }
    }

    /// Counts a request until the guard is dropped.
    pub fn begin(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(self.clone())
    }

    /// A client has asked for something, itself or through the volume before this in a chain.
    pub fn asked_by_client(&self) {
        self.client_requests.set(self.client_requests.get() + 1);
    }

    /// How often one has.
    pub fn client_requests(&self) -> u64 {
        self.client_requests.get()
    }

    /// Requests being served.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Remembers that a block's replica here is damaged; the engine no longer serves it.
    pub fn report_damaged(&self, block: BlockId) {
        tracing::error!(volume = %self.id, %block, "a replica is damaged; it is no longer served");
        if let Some(info) = self.volume.lookup(block) {
            let replica = Replica {
                state: ReplicaState::Corrupt,
                ..report::replica(&info)
            };
            // Full: the heartbeat's list tells of it too.
            let _ = self.reports.borrow_mut().try_send((self.id, replica));
        }
    }

    /// At most `max` damaged blocks, lowest ids first, where the engine counts `count` of them.
    pub fn damaged_blocks(&self, count: u64, max: usize) -> Vec<BlockId> {
        let mut damaged = self.damaged.borrow_mut();
        // Looking through the whole index is for when there is something new to find.
        if damaged.count != count {
            let all = self.volume.list(None, usize::MAX);
            let corrupt = all
                .iter()
                .filter(|info| info.state == engine::ReplicaState::Corrupt);
            damaged.blocks = corrupt.map(|info| info.block).take(max).collect();
            damaged.count = count;
        }
        damaged.blocks.clone()
    }

    /// Watches a connection until it is dropped.
    pub fn watch(&self, lifeline: &Rc<Lifeline>) {
        self.lifelines.borrow_mut().push(Rc::downgrade(lifeline));
    }

    /// Cuts connections that stand still within a frame or idle for long, and those to volumes that give no sign of
    /// life. Runs as a task of the thread.
    pub async fn sweep(self: Rc<Self>) {
        let Deadlines {
            progress_ms,
            idle_ms,
            silence_ms,
            ..
        } = self.deadlines;
        let every_ms = (progress_ms.min(idle_ms).min(silence_ms) / 4).clamp(10, 1000);
        loop {
            let closed = self.ended.until(|| self.closed.get().then_some(()));
            if within(every_ms, closed).await.is_some() {
                return;
            }
            let now = Instant::now();
            self.lifelines.borrow_mut().retain(|lifeline| {
                let Some(lifeline) = lifeline.upgrade() else {
                    return false;
                };
                if let Some(why) = lifeline.overdue(now, &self.deadlines) {
                    tracing::info!(peer = %lifeline.peer, "closing a connection: {why}");
                    lifeline.cut_for.set(Some(why));
                    lifeline.cut();
                }
                true
            });
        }
    }

    /// Cuts every connection.
    pub fn cut_all(&self) {
        let lifelines: Vec<_> = self.lifelines.borrow().iter().filter_map(Weak::upgrade).collect();
        lifelines.iter().for_each(|lifeline| lifeline.cut());
    }

    /// Whether every connection has written all it had to.
    pub fn all_written(&self) -> bool {
        let lifelines = self.lifelines.borrow();
        lifelines
            .iter()
            .filter_map(Weak::upgrade)
            .all(|lifeline| lifeline.outbox.is_idle())
    }

    /// Whether any connection, either way, is still open.
    pub fn is_connected(&self) -> bool {
        self.lifelines
            .borrow()
            .iter()
            .any(|lifeline| lifeline.strong_count() > 0)
    }
}

/// What was found at the last look for damaged blocks.
#[derive(Default)]
struct Damaged {
    count: u64,
    blocks: Vec<BlockId>,
}

/// A request being served.
pub(crate) struct InFlight(Rc<Node>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.ended.notify();
    }
}

/// What is known of a connection's life, and the means to end it.
pub(crate) struct Lifeline {
    pub peer: String,
    pub outbox: Rc<Outbox>,
    handle: OwnedFd,
    reading_since: Rc<Cell<Option<Instant>>>,
    used_at: Cell<Instant>,
    /// When the last frame came in.
    heard_at: Cell<Instant>,
    /// The peer is asked for signs of life while there are streams.
    minded: bool,
    /// When it was asked and has not answered yet.
    asked_at: Cell<Option<Instant>>,
    /// Why it was cut, where it was.
    pub cut_for: Cell<Option<&'static str>>,
    /// Streams open on it.
    pub streams: Cell<usize>,
}

impl Lifeline {
    pub fn new(
        peer: String,
        handle: OwnedFd,
        outbox: Rc<Outbox>,
        reading_since: Rc<Cell<Option<Instant>>>,
        minded: bool,
    ) -> Self {
        Self {
            peer,
            outbox,
            handle,
            reading_since,
            used_at: Cell::new(Instant::now()),
            heard_at: Cell::new(Instant::now()),
            minded,
            asked_at: Cell::new(None),
            cut_for: Cell::new(None),
            streams: Cell::new(0),
        }
    }

    /// Something has happened on it.
    pub fn touch(&self) {
        self.used_at.set(Instant::now());
    }

    /// A frame has come in.
    pub fn hear(&self) {
        self.heard_at.set(Instant::now());
    }

    /// Ends the connection: pending reads and writes fail, its tasks end.
    pub fn cut(&self) {
        // An error says that the peer was quicker.
        let _ = rustix::net::shutdown(&self.handle, rustix::net::Shutdown::Both);
        self.outbox.close();
    }

    fn overdue(&self, now: Instant, deadlines: &Deadlines) -> Option<&'static str> {
        let longer =
            |since: Instant, ms: u64| now.saturating_duration_since(since) > Duration::from_millis(ms);
        if self
            .reading_since
            .get()
            .is_some_and(|since| longer(since, deadlines.progress_ms))
        {
            return Some("the rest of a frame does not come");
        }
        if self
            .outbox
            .stalled_since()
            .is_some_and(|since| longer(since, deadlines.progress_ms))
        {
            return Some("the peer does not read");
        }
        if self.is_silent(now, Duration::from_millis(deadlines.silence_ms)) {
            return Some("the peer gives no sign of life");
        }
        (self.streams.get() == 0 && self.outbox.is_idle() && longer(self.used_at.get(), deadlines.idle_ms))
            .then_some("idle")
    }

    /// Whether the peer is silent though requests wait for it and it was asked: for half of the `silence` before the
    /// question, and half after. Asks it, when it is time to.
    fn is_silent(&self, now: Instant, silence: Duration) -> bool {
        if !self.minded || self.streams.get() == 0 {
            self.asked_at.set(None);
            return false;
        }
        // Parts of a frame are a sign of life, and what the socket takes may be ahead of the question.
        let moved = [
            Some(self.heard_at.get()),
            self.reading_since.get(),
            self.outbox.stalled_since(),
        ];
        let moved = moved.into_iter().flatten().max().unwrap_or(now);
        match self.asked_at.get() {
            Some(asked) if self.heard_at.get() <= asked => {
                now.saturating_duration_since(moved.max(asked)) > silence / 2
            }
            _ => {
                // A request may have been opened on a connection that was silent for want of any.
                let quiet_since = moved.max(self.used_at.get());
                let ask = now.saturating_duration_since(quiet_since) > silence / 2;
                self.asked_at.set(ask.then_some(now));
                if ask {
                    self.outbox.say_first(0, Message::Ping);
                }
                false
            }
        }
    }
}
