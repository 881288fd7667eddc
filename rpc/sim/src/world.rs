//! The world of one run: its time, its hosts, and what is on its way between them. Knows no roles and no rules of the
//! cluster.
//!
//! A connection keeps the order of its messages, as TCP does; one that loses a message is broken, which its ends learn
//! in their own time. Calls without a connection (those that move blocks) are each on their own. A host that is
//! paused is not polled, while its clock and what is sent to it go on.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::messages::{Answer, Failure, Outcome, Request, blocks_of};

/// A process on a machine of its own.
pub type HostId = usize;
/// A connection; 0 stands for none.
pub type ConnectionId = u64;

/// When the simulated time begins, milliseconds since 1970.
pub const EPOCH_UNIX_MS: u64 = 1_700_000_000_000;
/// Entries of the trace.
const TRACE_MAX: usize = 20_000;

/// What answers questions on a host, as long as its process lives.
pub trait Serve {
    /// Answers one question.
    fn serve(
        &self,
        connection: ConnectionId,
        from: HostId,
        request: Request,
    ) -> LocalBoxFuture<'static, Outcome>;

    /// A connection has ended.
    fn closed(&self, connection: ConnectionId);
}

/// Something that happens at its time.
pub enum Happening {
    /// A question arrives.
    Request {
        /// On which connection.
        connection: ConnectionId,
        /// Which call.
        call: u64,
        /// From where.
        from: HostId,
        /// To where.
        to: HostId,
        /// To which life of that host.
        life: u64,
        /// It.
        request: Request,
    },
    /// The answer to a call arrives.
    Answer(u64, Outcome),
    /// A host learns that a connection has ended.
    Closed(ConnectionId, HostId),
    /// A sleep has ended.
    Wake(oneshot::Sender<()>),
    /// The process of a host starts.
    Boot(HostId),
    /// The process of a host ends.
    Kill(HostId),
    /// The host may have been paused until now.
    Resume(HostId),
    /// Time for a fault.
    Fault,
    /// Time to see how the run goes.
    Look,
}

struct Entry {
    at_ms: u64,
    /// Orders what happens at the same time.
    lot: u32,
    sequence: u64,
    /// Boxed: the heap moves entries about.
    what: Box<Happening>,
}

impl Entry {
    fn key(&self) -> (u64, u32, u64) {
        (self.at_ms, self.lot, self.sequence)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.key().cmp(&self.key())
    }
}

/// A host's circumstances.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    /// Counts its processes.
    pub life: u64,
    /// Whether its process runs.
    pub up: bool,
    /// Until when it handles nothing, milliseconds of simulated time.
    pub paused_until_ms: u64,
    /// What its wall clock is off by.
    pub wall_offset_ms: i64,
}

struct Connection {
    ends: [HostId; 2],
    open: [bool; 2],
    /// When the last message towards each end arrives.
    last_ms: [u64; 2],
    broken: bool,
}

struct Pending {
    connection: ConnectionId,
    from: HostId,
    to: HostId,
    name: &'static str,
    answer: oneshot::Sender<Outcome>,
}

/// How the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The usual delay, milliseconds.
    pub delay_ms: u64,
    /// One message of so many is slow.
    pub slow_one_in: u32,
    /// A slow one takes up to so long.
    pub slow_ms: u64,
    /// One message of so many is lost.
    pub lost_one_in: u32,
    /// One block of so many is damaged on its way.
    pub damaged_one_in: u32,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Self = Self {
        delay_ms: 2,
        slow_one_in: 0,
        slow_ms: 0,
        lost_one_in: 0,
        damaged_one_in: 0,
    };
}

/// One line of the trace.
#[derive(Clone, Debug)]
pub struct Line {
    /// When, milliseconds of simulated time.
    pub at_ms: u64,
    /// From where.
    pub from: HostId,
    /// To where.
    pub to: HostId,
    /// What.
    pub what: &'static str,
    /// The block, lease or version it is about.
    pub key: u64,
    /// Further ones.
    pub keys: Vec<u64>,
    /// The path it is about, or more about it.
    pub note: String,
}

/// The world.
pub struct World {
    started: Instant,
    now_ms: Cell<u64>,
    queue: RefCell<BinaryHeap<Entry>>,
    sequence: Cell<u64>,
    rng: RefCell<StdRng>,
    hosts: RefCell<Vec<Host>>,
    connections: RefCell<BTreeMap<ConnectionId, Connection>>,
    pending: RefCell<BTreeMap<u64, Pending>>,
    blocked: RefCell<BTreeMap<(HostId, HostId), u64>>,
    /// How the network is.
    pub weather: Cell<Weather>,
    messages: Cell<u64>,
    kinds: RefCell<BTreeMap<&'static str, u64>>,
    digest: Cell<u64>,
    trace: RefCell<VecDeque<Line>>,
    violation: RefCell<Option<(String, Vec<u64>, String)>>,
}

/// What becomes of a message.
enum Fate {
    Arrives(u64),
    Lost,
}

impl World {
    /// A world of `hosts` hosts, none of which runs yet.
    pub fn new(seed: u64, hosts: usize) -> Self {
        Self {
            started: Instant::now(),
            now_ms: Cell::new(0),
            queue: RefCell::default(),
            sequence: Cell::new(0),
            rng: RefCell::new(StdRng::seed_from_u64(seed)),
            hosts: RefCell::new(vec![Host::default(); hosts]),
            connections: RefCell::default(),
            pending: RefCell::default(),
            blocked: RefCell::default(),
            weather: Cell::new(Weather::CALM),
            messages: Cell::new(0),
            kinds: RefCell::default(),
            digest: Cell::new(0xcbf2_9ce4_8422_2325),
            trace: RefCell::default(),
            violation: RefCell::default(),
        }
    }

    /// Milliseconds of simulated time since the start.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// Looks at the clock: time only goes on between two looks.
    pub fn look_at_clock(&self) {
        self.now_ms.set(self.started.elapsed().as_millis() as u64);
    }

    /// The instant of the simulated time `ms`.
    pub fn instant(&self, ms: u64) -> Instant {
        self.started + Duration::from_millis(ms)
    }

    /// What the wall clock of a host says, milliseconds since 1970.
    pub fn wall_ms(&self, host: HostId) -> u64 {
        let offset_ms = self.hosts.borrow()[host].wall_offset_ms;
        (EPOCH_UNIX_MS + self.now_ms()).saturating_add_signed(offset_ms)
    }

    /// Draws from the run's lots.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// A number below `bound`; 0 for 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.draw(|rng| rng.random_range(0..bound))
        }
    }

    /// Whether a lot of one in `n` is drawn; never for 0.
    pub fn one_in(&self, n: u32) -> bool {
        n > 0 && self.below(u64::from(n)) == 0
    }

    /// A host's circumstances.
    pub fn host(&self, host: HostId) -> Host {
        self.hosts.borrow()[host]
    }

    /// Changes a host's circumstances.
    pub fn change_host(&self, host: HostId, change: impl FnOnce(&mut Host)) {
        change(&mut self.hosts.borrow_mut()[host]);
    }

    /// Messages that have arrived.
    pub fn messages(&self) -> u64 {
        self.messages.get()
    }

    /// The same by kind.
    pub fn kinds(&self) -> BTreeMap<&'static str, u64> {
        self.kinds.borrow().clone()
    }

    /// Differs between any two runs that did not go the same way.
    pub fn digest(&self) -> u64 {
        self.digest.get()
    }

    /// Has something happen in `after_ms`.
    pub fn schedule(&self, after_ms: u64, what: Happening) {
        self.schedule_at(self.now_ms() + after_ms, what);
    }

    fn schedule_at(&self, at_ms: u64, what: Happening) {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        let lot = self.draw(|rng| rng.random::<u32>());
        self.queue.borrow_mut().push(Entry {
            at_ms,
            lot,
            sequence,
            what: Box::new(what),
        });
    }

    /// When the next thing happens.
    pub fn next_ms(&self) -> Option<u64> {
        self.queue.borrow().peek().map(|entry| entry.at_ms)
    }

    /// What happens now, if anything.
    pub fn take_due(&self) -> Option<Happening> {
        let now_ms = self.now_ms();
        let mut queue = self.queue.borrow_mut();
        match queue.peek() {
            Some(entry) if entry.at_ms <= now_ms => queue.pop().map(|entry| *entry.what),
            _ => None,
        }
    }

    /// Waits.
    pub async fn sleep(&self, ms: u64) {
        let (wake, woken) = oneshot::channel();
        self.schedule(ms, Happening::Wake(wake));
        // The world only ends with the run.
        let _ = woken.await;
    }

    /// Lets nothing through from one host to another until `until_ms`.
    pub fn block(&self, from: HostId, to: HostId, until_ms: u64) {
        self.blocked.borrow_mut().insert((from, to), until_ms);
    }

    /// Ends all partitions.
    pub fn unblock_all(&self) {
        self.blocked.borrow_mut().clear();
    }

    fn delay_ms(&self) -> u64 {
        let weather = self.weather.get();
        if self.one_in(weather.slow_one_in) {
            self.below(weather.slow_ms)
        } else {
            1 + self.below(weather.delay_ms)
        }
    }

    fn fate(&self, from: HostId, to: HostId) -> Fate {
        let now_ms = self.now_ms();
        let blocked_until = self.blocked.borrow().get(&(from, to)).copied();
        if let Some(until_ms) = blocked_until
            && until_ms > now_ms
        {
            // What is sent again after the partition arrives late; or the sender's system has given up by then.
            return match self.below(2) {
                0 => Fate::Arrives(until_ms + self.delay_ms()),
                _ => Fate::Lost,
            };
        }
        if self.one_in(self.weather.get().lost_one_in) {
            return Fate::Lost;
        }
        Fate::Arrives(now_ms + self.delay_ms())
    }

    /// A connection from one host to another, before either has said anything on it; `None` when nobody listens.
    pub fn connect(&self, from: HostId, to: HostId) -> Option<ConnectionId> {
        let number = self.sequence.get() + 1;
        self.sequence.set(number);
        if !self.host(to).up {
            return None;
        }
        let connection = Connection {
            ends: [from, to],
            open: [true; 2],
            last_ms: [0; 2],
            broken: false,
        };
        self.connections.borrow_mut().insert(number, connection);
        Some(number)
    }

    /// Whether a host has its end of a connection open.
    pub fn is_open(&self, connection: ConnectionId, host: HostId) -> bool {
        let connections = self.connections.borrow();
        connections
            .get(&connection)
            .is_some_and(|known| known.open[usize::from(known.ends[1] == host)])
    }

    /// Ends a connection from the side of `host`: its calls are lost, and the other end learns of it.
    pub fn close(&self, connection: ConnectionId, host: HostId) {
        if connection == 0 || !self.is_open(connection, host) {
            return;
        }
        let other = {
            let mut connections = self.connections.borrow_mut();
            let Some(known) = connections.get_mut(&connection) else {
                return;
            };
            let own = usize::from(known.ends[1] == host);
            known.open[own] = false;
            if !known.open[1 - own] {
                connections.remove(&connection);
                None
            } else {
                Some((known.ends[1 - own], known.last_ms[1 - own]))
            }
        };
        self.lose_calls(|call| call.connection == connection && call.from == host);
        if let Some((other, last_ms)) = other {
            let at_ms = match self.fate(host, other) {
                Fate::Arrives(at_ms) => at_ms.max(last_ms + 1),
                // The other side finds out by itself when it sends something the next time.
                Fate::Lost => self.now_ms() + 1_000 + self.below(60_000),
            };
            self.schedule_at(at_ms, Happening::Closed(connection, other));
        }
    }

    /// A connection can carry nothing more; both ends learn of it.
    pub fn break_connection(&self, connection: ConnectionId, within_ms: u64) {
        let ends = {
            let mut connections = self.connections.borrow_mut();
            let Some(known) = connections.get_mut(&connection) else {
                return;
            };
            if std::mem::replace(&mut known.broken, true) {
                return;
            }
            known.ends
        };
        for end in ends {
            let after_ms = 1 + self.below(within_ms);
            self.schedule(after_ms, Happening::Closed(connection, end));
        }
    }

    /// All connections that are not broken.
    pub fn connections(&self) -> Vec<ConnectionId> {
        let connections = self.connections.borrow();
        let whole = connections.iter().filter(|(_, known)| !known.broken);
        whole.map(|(id, _)| *id).collect()
    }

    /// A host has learnt that a connection has ended; whether that was news.
    pub fn learn_closed(&self, connection: ConnectionId, host: HostId) -> bool {
        if !self.is_open(connection, host) {
            return false;
        }
        {
            let mut connections = self.connections.borrow_mut();
            if let Some(known) = connections.get_mut(&connection) {
                known.open[usize::from(known.ends[1] == host)] = false;
                if known.open == [false; 2] {
                    connections.remove(&connection);
                }
            }
        }
        self.lose_calls(|call| call.connection == connection && call.from == host);
        true
    }

    fn lose_calls(&self, is_lost: impl Fn(&Pending) -> bool) {
        let lost: Vec<u64> = {
            let pending = self.pending.borrow();
            let lost = pending.iter().filter(|(_, call)| is_lost(call));
            lost.map(|(id, _)| *id).collect()
        };
        for id in lost {
            let call = self.pending.borrow_mut().remove(&id);
            if let Some(call) = call {
                // Whoever called may be gone.
                let _ = call.answer.send(Err(Failure::Lost));
            }
        }
    }

    /// The process of a host has ended: all that it had under way is lost, and others learn of it.
    pub fn crashed(&self, host: HostId) {
        self.change_host(host, |host| {
            host.up = false;
            host.paused_until_ms = 0;
        });
        let own: Vec<ConnectionId> = {
            let connections = self.connections.borrow();
            let own = connections.iter().filter(|(_, known)| known.ends.contains(&host));
            own.map(|(id, _)| *id).collect()
        };
        self.pending.borrow_mut().retain(|_, call| call.from != host);
        for connection in own {
            self.close(connection, host);
        }
        let refused: Vec<u64> = {
            let pending = self.pending.borrow();
            let direct = pending
                .iter()
                .filter(|(_, call)| call.connection == 0 && call.to == host);
            direct.map(|(id, _)| *id).collect()
        };
        for call in refused {
            self.schedule(1 + self.below(50), Happening::Answer(call, Err(Failure::Lost)));
        }
    }

    /// Asks the other end of `connection`, or, without one, `to`; at most `patience_ms` for the answer.
    pub async fn call(
        &self,
        from: HostId,
        to: HostId,
        connection: ConnectionId,
        request: Request,
        patience_ms: u64,
    ) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let id = self.sequence.get() + 1;
        self.sequence.set(id);
        if connection != 0 && !self.is_open(connection, from) {
            return Err(Failure::Lost);
        }
        let call = Pending {
            connection,
            from,
            to,
            name: request.name(),
            answer,
        };
        self.pending.borrow_mut().insert(id, call);
        let life = self.host(to).life;
        let at_ms = self.sent(from, to, connection);
        match at_ms {
            Some(at_ms) => {
                let what = Happening::Request {
                    connection,
                    call: id,
                    from,
                    to,
                    life,
                    request,
                };
                self.schedule_at(at_ms, what);
            }
            None if connection == 0 && self.below(2) == 0 => {
                self.schedule(1 + self.below(1_000), Happening::Answer(id, Err(Failure::Lost)));
            }
            None => {}
        }
        let outcome = timeout(Duration::from_millis(patience_ms), answered).await;
        if outcome.is_err() {
            self.pending.borrow_mut().remove(&id);
        }
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Failure::Lost),
        }
    }

    /// When a message that is sent now arrives; `None` when it does not.
    fn sent(&self, from: HostId, to: HostId, connection: ConnectionId) -> Option<u64> {
        let fate = self.fate(from, to);
        if connection == 0 {
            return match fate {
                Fate::Arrives(at_ms) => Some(at_ms),
                Fate::Lost => None,
            };
        }
        let broken = self
            .connections
            .borrow()
            .get(&connection)
            .is_none_or(|known| known.broken);
        match fate {
            Fate::Arrives(at_ms) if !broken => {
                let mut connections = self.connections.borrow_mut();
                let known = connections.get_mut(&connection)?;
                let end = usize::from(known.ends[1] == to);
                let at_ms = at_ms.max(known.last_ms[end] + 1);
                known.last_ms[end] = at_ms;
                Some(at_ms)
            }
            _ => {
                self.break_connection(connection, 20_000);
                None
            }
        }
    }

    /// Sends the answer to a call back.
    pub fn answer(&self, id: u64, outcome: Outcome) {
        let Some((connection, from, to)) = self
            .pending
            .borrow()
            .get(&id)
            .map(|call| (call.connection, call.from, call.to))
        else {
            // Nobody waits any more.
            return;
        };
        if connection != 0 && !self.is_open(connection, to) {
            return;
        }
        if let Some(at_ms) = self.sent(to, from, connection) {
            self.schedule_at(at_ms, Happening::Answer(id, outcome));
        }
    }

    /// An answer has arrived.
    pub fn answered(&self, id: u64, outcome: Outcome) {
        let call = self.pending.borrow_mut().remove(&id);
        if let Some(call) = call {
            if !matches!(outcome, Err(Failure::Lost)) {
                let (what, note) = match &outcome {
                    Ok(Answer::Stored(_)) => ("stored", String::new()),
                    Err(Failure::Refused(problem) | Failure::Aborted(problem, _)) => {
                        ("refused", problem.kind.name().to_owned())
                    }
                    _ => ("answer", String::new()),
                };
                self.count(call.to, call.from, what, &[id], note);
                let _ = call.name;
            }
            let _ = call.answer.send(outcome);
        }
    }

    /// A question has arrived.
    pub fn arrived(&self, from: HostId, to: HostId, request: &Request) {
        let note = request.path().to_owned();
        match blocks_of(request) {
            Some(blocks) => self.count(from, to, request.name(), &blocks, note),
            None => self.count(from, to, request.name(), &[request.key()], note),
        }
    }

    fn count(&self, from: HostId, to: HostId, what: &'static str, keys: &[u64], note: String) {
        self.messages.set(self.messages.get() + 1);
        *self.kinds.borrow_mut().entry(what).or_insert(0) += 1;
        self.note(from, to, what, keys, note);
    }

    /// Notes something in the trace.
    pub fn note(&self, from: HostId, to: HostId, what: &'static str, keys: &[u64], note: String) {
        let at_ms = self.now_ms();
        let mut digest = self.digest.get();
        let first = keys.first().copied().unwrap_or_default();
        for word in [at_ms, (from as u64) << 32 | to as u64, what.len() as u64, first] {
            digest = (digest ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(17);
        }
        self.digest.set(digest);
        let mut trace = self.trace.borrow_mut();
        if trace.len() == TRACE_MAX {
            trace.pop_front();
        }
        trace.push_back(Line {
            at_ms,
            from,
            to,
            what,
            key: first,
            keys: keys.get(1..).unwrap_or_default().to_vec(),
            note,
        });
    }

    /// A promise is broken. `keys` and `path` say which lines of the trace concern it. The first one counts.
    pub fn violated(&self, what: impl Into<String>, keys: &[u64], path: &str) {
        let what = format!("at {} ms: {}", self.now_ms(), what.into());
        self.violation
            .borrow_mut()
            .get_or_insert((what, keys.to_vec(), path.to_owned()));
    }

    /// The first broken promise, if any, with the lines of the trace that concern it, and the last ones.
    pub fn violation(&self) -> Option<(String, Vec<Line>)> {
        /// Lines about anything at the end.
        const LAST: usize = 25;
        let (what, keys, path) = self.violation.borrow().clone()?;
        let trace = self.trace.borrow();
        let last = trace.len().saturating_sub(LAST);
        let concerned = |line: &Line| {
            line.key != 0 && keys.contains(&line.key)
                || line.keys.iter().any(|key| keys.contains(key))
                || !path.is_empty() && line.note.contains(&path)
        };
        let lines = trace
            .iter()
            .enumerate()
            .filter(|(at, line)| *at >= last || concerned(line));
        Some((what, lines.map(|(_, line)| line.clone()).collect()))
    }

    /// Whether a promise is broken.
    pub fn is_violated(&self) -> bool {
        self.violation.borrow().is_some()
    }
}
