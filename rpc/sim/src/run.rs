//! One run: a seed's cluster in a storm of faults, then in calm weather until it is whole, then looked at file by file.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use blockyard_wire::types::Tuning;
use tokio::task::LocalSet;
use tokio::time::Sleep;

use crate::client::Client;
use crate::cluster::{Cluster, NAMESERVER, Role, Shape};
use crate::faults::{self, Blow, Counts};
use crate::messages::Failure;
use crate::model::SLOTS;
use crate::nameserver::{self, Ailing, Process};
use crate::server::{self, Server};
use crate::workload::Tally;
use crate::world::{Happening, HostId, Line, Serve, Weather, World};

/// Between two looks at how the run goes, milliseconds.
const LOOK_MS: u64 = 500;
/// Simulated time that a cluster has to become whole when nothing goes wrong any more, milliseconds.
const WHOLE_MS: u64 = 4 * 3_600_000;
/// Simulated time that an operator waits for disks to come back before going on without them, milliseconds.
const OPERATOR_WAITS_MS: u64 = 30 * 60_000;
/// Simulated time after which a storm ends, however few messages there were, milliseconds.
const STORM_MS: u64 = 400 * 24 * 3_600_000;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Messages that arrived.
    pub messages: u64,
    /// The same by kind.
    pub kinds: Counts,
    /// Faults by kind.
    pub faults: Counts,
    /// Simulated time, milliseconds.
    pub simulated_ms: u64,
    /// Of which it took to become whole after the storm.
    pub whole_after_ms: u64,
    /// How operations went.
    pub tally: Tally,
    /// The same for runs that went the same way.
    pub digest: u64,
    /// The first broken promise, and the lines of the trace that concern it.
    pub violation: Option<(String, Vec<Line>)>,
}

/// Runs a seed for about so many messages.
///
/// # Panics
/// When the system has no memory for a runtime.
pub fn run(seed: u64, messages: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without threads needs nothing of the system");
    runtime.block_on(async { Driver::new(seed, messages).await })
}

/// Whether a host has something to do.
struct Flag {
    raised: AtomicBool,
    root: Waker,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raised.store(true, Ordering::Relaxed);
        self.root.wake_by_ref();
    }
}

/// A process.
struct Life {
    tasks: LocalSet,
    serves: Option<Rc<dyn Serve>>,
    flag: Arc<Flag>,
    waker: Waker,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Storm,
    /// Since when, milliseconds.
    Calm(u64),
    Audit(u64),
    Over,
}

/// Owns the processes, and has everything happen in its order.
struct Driver {
    seed: u64,
    messages: u64,
    world: Rc<World>,
    cluster: Rc<Cluster>,
    lives: Vec<Option<Life>>,
    faults: Counts,
    phase: Phase,
    whole_after_ms: u64,
    clients: u64,
    audited: Rc<std::cell::Cell<bool>>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    fn new(seed: u64, messages: u64) -> Self {
        // The shape comes from the seed, and the number of hosts from the shape.
        let shape = Shape::draw(&World::new(seed, 0));
        let world = Rc::new(World::new(seed ^ 0x5eed, Cluster::hosts(&shape)));
        let cluster = Cluster::new(world.clone(), shape);
        for host in 0..=cluster.shape.servers + cluster.shape.clients {
            world.schedule(0, Happening::Boot(host));
        }
        world.schedule(LOOK_MS, Happening::Look);
        world.schedule(10_000, Happening::Fault);
        Self {
            seed,
            messages,
            lives: (0..Cluster::hosts(&cluster.shape)).map(|_| None).collect(),
            world,
            cluster,
            faults: Counts::new(),
            phase: Phase::Storm,
            whole_after_ms: 0,
            clients: 0,
            audited: Rc::default(),
            sleep: None,
        }
    }

    fn boot(&mut self, host: HostId, root: &Waker) {
        if self.lives[host].is_some() {
            return;
        }
        let flag = Arc::new(Flag {
            raised: AtomicBool::new(true),
            root: root.clone(),
        });
        let tasks = LocalSet::new();
        let world = self.world.clone();
        self.world.change_host(host, |host| {
            host.up = true;
            host.life += 1;
        });
        let serves: Option<Rc<dyn Serve>> = {
            let _in_tasks = tasks.enter();
            match self.cluster.role(host) {
                Role::Nameserver => {
                    {
                        let mut disk = self.cluster.name_disk.borrow_mut();
                        disk.ailing = Ailing::Well;
                        disk.has_failed = false;
                    }
                    let process = Process::start(world, self.cluster.nameserver_setup(host));
                    *self.cluster.process.borrow_mut() = Some(process.clone());
                    Some(Rc::new(nameserver::Running(process)))
                }
                Role::Old => {
                    let process = Process::start(world, self.cluster.nameserver_setup(host));
                    Some(Rc::new(nameserver::Running(process)))
                }
                Role::Server => {
                    let server = Server::start(world, self.cluster.server_setup(host));
                    Some(Rc::new(server::Running(server)))
                }
                Role::Client => {
                    let client = self.client(host);
                    tokio::task::spawn_local(self.cluster.workload.clone().run(client));
                    None
                }
            }
        };
        let waker = Waker::from(flag.clone());
        self.lives[host] = Some(Life {
            tasks,
            serves,
            flag,
            waker,
        });
    }

    fn client(&mut self, host: HostId) -> Rc<Client> {
        self.clients += 1;
        Client::new(
            self.world.clone(),
            host,
            NAMESERVER,
            self.cluster.sites.clone(),
            self.clients,
        )
    }

    fn crash(&mut self, host: HostId) {
        let Some(life) = self.lives[host].take() else {
            return;
        };
        let role = self.cluster.role(host);
        if role == Role::Nameserver {
            *self.cluster.process.borrow_mut() = None;
        }
        drop(life);
        self.world.crashed(host);
        match role {
            Role::Nameserver => self.cluster.name_disk.borrow_mut().crash(&self.world),
            Role::Server => {
                for site in self.cluster.sites.iter().filter(|site| site.host == host) {
                    self.world.draw(|rng| site.disk.borrow_mut().crash(rng));
                }
            }
            Role::Client | Role::Old => {}
        }
    }

    fn happen(&mut self, what: Happening, root: &Waker) {
        match what {
            Happening::Request {
                connection,
                call,
                from,
                to,
                life,
                request,
            } => {
                let host = self.world.host(to);
                let open = connection == 0 || self.world.is_open(connection, to);
                match &self.lives[to] {
                    Some(Life {
                        tasks,
                        serves: Some(serves),
                        ..
                    }) if host.life == life && open => {
                        self.world.arrived(from, to, &request);
                        let answer = serves.serve(connection, from, request);
                        let world = self.world.clone();
                        tasks.spawn_local(async move { world.answer(call, answer.await) });
                    }
                    _ if connection == 0 => {
                        let refused = Happening::Answer(call, Err(Failure::Lost));
                        self.world.schedule(1, refused);
                    }
                    _ => {}
                }
            }
            Happening::Answer(call, outcome) => self.world.answered(call, outcome),
            Happening::Closed(connection, host) => {
                if self.world.learn_closed(connection, host)
                    && let Some(Life {
                        tasks,
                        serves: Some(serves),
                        ..
                    }) = &self.lives[host]
                {
                    let serves = serves.clone();
                    tasks.spawn_local(async move { serves.closed(connection) });
                }
            }
            // Whoever slept may be gone.
            Happening::Wake(wake) => drop(wake.send(())),
            Happening::Boot(host) => self.boot(host, root),
            Happening::Kill(host) => self.crash(host),
            // Its flag is up if it has something to do.
            Happening::Resume(_) => {}
            Happening::Fault => self.fault(root),
            Happening::Look => self.look(root),
        }
    }

    fn fault(&mut self, root: &Waker) {
        if self.phase != Phase::Storm {
            return;
        }
        match faults::strike(&self.cluster, &mut self.faults) {
            Blow::None => {}
            Blow::Crash(host, down_ms) => {
                self.crash(host);
                self.world.schedule(down_ms, Happening::Boot(host));
            }
            Blow::Return(host, after_ms) => self.world.schedule(after_ms, Happening::Boot(host)),
            Blow::Start(host, up_ms) => {
                self.boot(host, root);
                self.world.schedule(up_ms, Happening::Kill(host));
            }
        }
        let fault_ms = self.cluster.shape.fault_ms;
        let gap_ms = 1 + self.world.below(2 * fault_ms);
        self.world.schedule(gap_ms, Happening::Fault);
    }

    fn look(&mut self, root: &Waker) {
        let now_ms = self.world.now_ms();
        let stormy = self.phase == Phase::Storm;
        self.tend(stormy);
        if self.world.one_in(4)
            && let Some(name) = self.cluster.nameserver()
            && let Some(wrong) = name.inconsistency()
        {
            self.world.violated(wrong, &[], "");
        }
        match self.phase {
            Phase::Storm => {
                if self.world.messages() >= self.messages || now_ms >= STORM_MS {
                    self.strike_last();
                    self.calm(root);
                    self.phase = Phase::Calm(now_ms);
                }
            }
            Phase::Calm(since_ms) => {
                let left = match self.cluster.workload.is_quiet() {
                    true => self.cluster.unsettled(),
                    false => Some("clients are busy".to_owned()),
                };
                match left {
                    None => {
                        self.whole_after_ms = now_ms - since_ms;
                        self.audit();
                        self.phase = Phase::Audit(now_ms);
                    }
                    Some(left) if now_ms > since_ms + WHOLE_MS => {
                        let left = format!("{left}; {}", self.cluster.describe());
                        self.world
                            .violated(format!("the cluster does not become whole: {left}"), &[], "");
                    }
                    Some(_) if now_ms > since_ms + OPERATOR_WAITS_MS => self.go_on_without(),
                    Some(_) => {}
                }
            }
            Phase::Audit(since_ms) => {
                if self.audited.get() {
                    self.phase = Phase::Over;
                } else if now_ms > since_ms + WHOLE_MS {
                    self.world.violated("the audit does not end", &[], "");
                }
            }
            Phase::Over => {}
        }
        self.world.schedule(LOOK_MS, Happening::Look);
    }

    /// What an operator does: restarts what has latched an error, once the disk is well again.
    fn tend(&mut self, stormy: bool) {
        let odds = if stormy { 20 } else { 1 };
        let (ailing, has_failed) = {
            let disk = self.cluster.name_disk.borrow();
            (disk.ailing, disk.has_failed)
        };
        let refused = self
            .cluster
            .process
            .borrow()
            .as_ref()
            .is_some_and(|process| process.refused.get());
        if (ailing == Ailing::Broken || has_failed || refused) && self.world.one_in(odds) {
            self.crash(NAMESERVER);
            self.world.schedule(100, Happening::Boot(NAMESERVER));
        } else if ailing == Ailing::Full && self.world.one_in(odds) {
            self.cluster.name_disk.borrow_mut().ailing = Ailing::Well;
        }
        let is_failed = |site: &&server::Site| site.disk.borrow().failed;
        let failed: Vec<HostId> = self
            .cluster
            .sites
            .iter()
            .filter(is_failed)
            .map(|site| site.host)
            .collect();
        for host in failed {
            if self.world.host(host).up && self.world.one_in(4 * odds) {
                self.crash(host);
                self.world.schedule(100, Happening::Boot(host));
            }
        }
    }

    /// What an operator does who knows that most disks are gone for good: has repair go on, as the nameserver says.
    fn go_on_without(&mut self) {
        let Some(name) = self.cluster.nameserver() else {
            return;
        };
        let repair = name.status().repair;
        if repair.held.contains("--force") {
            let tuning = Tuning {
                repair_forced: true,
                ..repair.tuning
            };
            // Where it fails, the next look has it tried again.
            self.at_client(async move |client| drop(client.tune(tuning).await));
        }
    }

    /// Damage and losses that nobody comes upon by reading: the cluster has to find them by itself.
    fn strike_last(&mut self) {
        for host in faults::strike_last(&self.cluster, &mut self.faults) {
            self.crash(host);
        }
    }

    /// The storm is over: all hosts run, their clocks are right, and the network is whole.
    fn calm(&mut self, root: &Waker) {
        self.cluster.workload.stopping.set(true);
        self.world.weather.set(Weather::CALM);
        self.world.unblock_all();
        for host in 0..Cluster::hosts(&self.cluster.shape) {
            self.world.change_host(host, |host| {
                host.paused_until_ms = 0;
                host.wall_offset_ms = 0;
            });
            match self.cluster.role(host) {
                Role::Old => self.crash(host),
                _ => self.boot(host, root),
            }
        }
        self.cluster.name_disk.borrow_mut().slow_until_ms = 0;
        for site in self.cluster.sites.iter() {
            let mut disk = site.disk.borrow_mut();
            disk.slow_until_ms = 0;
            // Whatever the clients have left there, all of it fits as often as it is wanted.
            disk.capacity_bytes *= 16;
        }
    }

    /// Has one client read all names.
    fn audit(&mut self) {
        let (workload, audited) = (self.cluster.workload.clone(), self.audited.clone());
        self.at_client(async move |client| {
            for group in 0..workload.groups() {
                for slot in 0..SLOTS {
                    workload.audit(&client, group, slot).await;
                }
                workload.try_out(&client, group, 0).await;
                workload.audit(&client, group, 0).await;
            }
            audited.set(true);
        });
    }

    /// Starts something at the first client's host.
    fn at_client(&mut self, what: impl AsyncFnOnce(Rc<Client>) + 'static) {
        let host = 1 + self.cluster.shape.servers;
        let client = self.client(host);
        if let Some(life) = &self.lives[host] {
            life.tasks.spawn_local(async move { what(client).await });
        }
    }

    /// Polls the hosts that have something to do; whether there was one.
    fn poll_hosts(&mut self) -> bool {
        let now_ms = self.world.now_ms();
        let mut any = false;
        for (host, life) in self.lives.iter_mut().enumerate() {
            let Some(life) = life else { continue };
            if !life.flag.raised.load(Ordering::Relaxed) || self.world.host(host).paused_until_ms > now_ms {
                continue;
            }
            life.flag.raised.store(false, Ordering::Relaxed);
            any = true;
            // It never ends by itself: where it has nothing to do, it is not polled.
            let _ = Pin::new(&mut life.tasks).poll(&mut Context::from_waker(&life.waker));
        }
        any
    }

    fn report(&mut self) -> Report {
        Report {
            seed: self.seed,
            messages: self.world.messages(),
            kinds: self.world.kinds(),
            faults: std::mem::take(&mut self.faults),
            simulated_ms: self.world.now_ms(),
            whole_after_ms: self.whole_after_ms,
            tally: self.cluster.workload.tally(),
            digest: self.world.digest(),
            violation: self.world.violation(),
        }
    }
}

impl Future for Driver {
    type Output = Report;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Report> {
        let driver = self.get_mut();
        driver.world.look_at_clock();
        loop {
            if driver.world.is_violated() || driver.phase == Phase::Over {
                let report = driver.report();
                // Processes end before the world does.
                for host in 0..driver.lives.len() {
                    driver.crash(host);
                }
                return Poll::Ready(report);
            }
            if driver.poll_hosts() {
                continue;
            }
            if let Some(what) = driver.world.take_due() {
                driver.happen(what, context.waker());
                continue;
            }
            let Some(next_ms) = driver.world.next_ms() else {
                driver.world.violated("nothing happens any more", &[], "");
                continue;
            };
            let at = driver.world.instant(next_ms);
            let sleep = driver
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            sleep.as_mut().reset(at);
            match sleep.as_mut().poll(context) {
                Poll::Ready(()) => driver.world.look_at_clock(),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
