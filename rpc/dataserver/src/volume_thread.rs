//! The thread of one volume: the runtime for its sockets, the volume's disk ring beside it, and one loop that
//! takes connections and commands.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use blockyard_engine::{self as engine, CompletionWait, Options, PoolOptions, Volume};
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{ClusterId, Incarnation, Replica, VolumeId, VolumeReport};
use blockyard_wire::{Problem, Result};
use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use monoio::{FusionDriver, FusionRuntime, RuntimeBuilder};

use crate::commands::{COMMANDS_MAX, Command, obey};
use crate::config::Deadlines;
use crate::connection;
use crate::error::problem_of;
use crate::node::Node;
use crate::positions::Positions;
use crate::report;
use crate::scrub;
use crate::signal::{Signal, within};
use crate::zero_fill;

/// What a volume's thread starts with.
pub(crate) struct Setup {
    pub directory: PathBuf,
    pub listener: TcpListener,
    /// `HOST:PORT` that others reach it by.
    pub address: String,
    pub capacity_bytes: Option<u64>,
    pub reserve_bytes: Option<u64>,
    pub pool: PoolOptions,
    pub read_cache_bytes: u64,
    pub scrub_bytes_per_s: u64,
    pub zero_fill: bool,
    pub secret: ClusterSecret,
    pub deadlines: Deadlines,
    pub cpu: Option<usize>,
    pub commands: mpsc::Receiver<Command>,
    pub reports: mpsc::Sender<(VolumeId, Replica)>,
}

/// How the opening went: the cluster of a volume that serves, nothing yet for one that waits to be formatted.
pub(crate) type Opened = std::result::Result<Option<ClusterId>, engine::Error>;

/// Runs a volume until it is told to stop. `opened` gets word once, as soon as it is known how the opening went.
pub(crate) fn run(setup: Setup, opened: oneshot::Sender<io::Result<Opened>>) {
    if let Some(cpu) = setup.cpu
        && let Err(error) = pin_to(cpu)
    {
        tracing::warn!(volume = %setup.directory.display(), cpu, "cannot pin the volume's thread: {error}");
    }
    let runtime = RuntimeBuilder::<FusionDriver>::new().enable_timer().build();
    match runtime {
        Ok(mut runtime) => {
            if let FusionRuntime::Legacy(_) = &runtime {
                tracing::warn!("sockets go through epoll: io_uring is refused for them");
                if let Err(error) = setup.listener.set_nonblocking(true) {
                    let _ = opened.send(Err(error));
                    return;
                }
            }
            runtime.block_on(live(setup, opened));
        }
        Err(error) => {
            let _ = opened.send(Err(error));
        }
    }
}

fn pin_to(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(io::Error::from)
}

async fn live(mut setup: Setup, opened: oneshot::Sender<io::Result<Opened>>) {
    let formatted = is_formatted(&setup);
    let volume = if formatted {
        open(&setup, None)
    } else {
        let _ = opened.send(Ok(Ok(None)));
        return match wait_for_cluster(&mut setup).await {
            Some((Ok(volume), answer)) => {
                let node = node(&setup, volume);
                let _ = answer.send(Ok(()));
                serve(setup, node).await;
            }
            Some((Err(error), answer)) => {
                let _ = answer.send(Err(problem_of(&error)));
                fail(
                    setup,
                    VolumeId::default(),
                    Incarnation::default(),
                    error.to_string(),
                )
                .await;
            }
            None => {}
        };
    };
    match volume {
        Ok(volume) => {
            let node = node(&setup, volume);
            let _ = opened.send(Ok(Ok(Some(node.cluster))));
            serve(setup, node).await;
        }
        Err(error) => {
            let reason = error.to_string();
            let _ = opened.send(Ok(Err(error)));
            let (id, incarnation) = remembered(&setup);
            fail(setup, id, incarnation, reason).await;
        }
    }
}

fn is_formatted(setup: &Setup) -> bool {
    setup.directory.join("volume.toml").exists()
}

/// Who a volume is that can't be opened, as far as its folder tells.
fn remembered(setup: &Setup) -> (VolumeId, Incarnation) {
    let text = std::fs::read_to_string(setup.directory.join("volume.toml")).unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().trim_matches('"'))
    };
    (
        field("volume").and_then(|id| id.parse().ok()).unwrap_or_default(),
        field("incarnation")
            .and_then(|id| id.parse().ok())
            .unwrap_or_default(),
    )
}

fn open(setup: &Setup, cluster: Option<ClusterId>) -> engine::Result<Volume> {
    let mut options = Options::new(&setup.directory);
    options.pool = setup.pool.clone();
    options.read_cache_bytes = setup.read_cache_bytes;
    options.capacity_bytes = setup.capacity_bytes.unwrap_or(0);
    if let Some(reserve_bytes) = setup.reserve_bytes {
        options.reserve_bytes = reserve_bytes;
    }
    let (volume, report) = Volume::open(options, cluster.map(|cluster| cluster.0))?;
    let directory = setup.directory.display();
    tracing::info!(
        %directory,
        address = setup.address,
        replicas = report.replicas,
        suspects = report.suspects.len(),
        replayed = report.replayed_records,
        "volume {} serves", VolumeId(volume.identity().volume)
    );
    for note in &report.notes {
        tracing::warn!(%directory, "{note}");
    }
    Ok(volume)
}

type Formatted = (engine::Result<Volume>, oneshot::Sender<Result<()>>);

/// Waits until the control thread has learnt the cluster; `None` when the server stops before.
async fn wait_for_cluster(setup: &mut Setup) -> Option<Formatted> {
    let waiting = Problem::retry("the volume waits for the nameserver, to be formatted for its cluster");
    while let Some(command) = setup.commands.next().await {
        match command {
            Command::Open(cluster, answer) => {
                let volume = std::fs::create_dir_all(&setup.directory)
                    .map_err(|source| engine::Error::Io {
                        doing: format!("make the folder {}", setup.directory.display()),
                        source,
                    })
                    .and_then(|()| Volume::format(&setup.directory, cluster.0))
                    .and_then(|_| open(setup, Some(cluster)));
                return Some((volume, answer));
            }
            Command::Stop => return None,
            Command::Report(answer) => {
                // Zero ids: it is nobody yet.
                let _ = answer.send(VolumeReport::default());
            }
            other => other.refuse(&waiting),
        }
    }
    None
}

/// Answers for a volume that can't serve, so that the others of the process go on.
async fn fail(mut setup: Setup, id: VolumeId, incarnation: Incarnation, reason: String) {
    let directory = setup.directory.clone();
    tracing::error!(directory = %directory.display(), "the volume has failed: {reason}");
    // Nobody is to wait on a listener that nobody accepts from.
    drop(setup.listener);
    let problem = Problem::new(
        blockyard_wire::ProblemKind::Failed,
        format!("volume {}: {reason}", directory.display()),
    );
    while let Some(command) = setup.commands.next().await {
        match command {
            Command::Stop => return,
            Command::Report(answer) => {
                let failed = report::of_failed(id, incarnation, &setup.address, &directory, &reason);
                let _ = answer.send(failed);
            }
            other => other.refuse(&problem),
        }
    }
}

fn node(setup: &Setup, volume: Volume) -> Rc<Node> {
    Rc::new(Node::new(
        volume,
        setup.secret.clone(),
        setup.deadlines,
        Positions::new(&setup.pool),
        setup.reports.clone(),
    ))
}

/// Why the loop of a volume that serves has ended.
enum End {
    Stopped,
    /// The disk ring is lost: nothing on this volume completes any more.
    Lost(String),
}

async fn serve(mut setup: Setup, node: Rc<Node>) {
    let gone = Rc::new((Signal::default(), RefCell::new(None)));
    let driver = monoio::spawn({
        let (node, gone) = (node.clone(), gone.clone());
        async move {
            let driven = node.volume.drive(Eventfd::default()).await;
            *gone.1.borrow_mut() = Some(driven);
            gone.0.notify();
        }
    });
    let sweeper = monoio::spawn(node.clone().sweep());
    let scrubber = monoio::spawn(scrub::run(node.clone(), setup.scrub_bytes_per_s));
    let filler = setup
        .zero_fill
        .then(|| monoio::spawn(zero_fill::run(node.clone())));
    let end = {
        let requests = async {
            // Its own future, so that the listener goes when the loop ends.
            let accept = pin!(accept(&node, &setup.listener));
            let obey = pin!(take_commands(
                &node,
                &mut setup.commands,
                &setup.address,
                &setup.directory,
                setup.pool.bytes() + setup.read_cache_bytes
            ));
            select(accept, obey).await;
        };
        let lost = gone.0.until(|| gone.1.borrow_mut().take());
        match select(pin!(requests), pin!(lost)).await {
            Either::Left(_) => End::Stopped,
            Either::Right((Ok(()), _)) => End::Lost("the volume was closed".to_owned()),
            Either::Right((Err(error), _)) => End::Lost(error.to_string()),
        }
    };
    node.stopping.set(true);
    match end {
        End::Stopped => {
            wind_down(&node).await;
            scrubber.await;
            if let Some(filler) = filler {
                filler.await;
            }
            if let Err(error) = node.volume.close().await {
                tracing::error!(volume = %node.id, "closing the volume: {error}");
            }
            driver.await;
            node.closed.set(true);
            node.ended.notify();
            sweeper.await;
            tracing::info!(volume = %node.id, "volume closed");
        }
        End::Lost(reason) => {
            node.cut_all();
            let incarnation = Incarnation(node.volume.identity().incarnation);
            fail(setup, node.id, incarnation, reason).await;
        }
    }
}

/// Lets requests finish for a while, then closes all connections.
async fn wind_down(node: &Rc<Node>) {
    let finished = async {
        // Answers may still be on their way out when the last request ends.
        while node.in_flight() > 0 || !node.all_written() {
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if within(node.deadlines.stop_ms, finished).await.is_none() {
        tracing::warn!(volume = %node.id, requests = node.in_flight(), "stopping amid requests");
    }
    // Nothing may be in flight on a socket when its buffers' owner is closed.
    let closed = async {
        while node.connections.get() > 0 || node.is_connected() || node.in_flight() > 0 {
            node.cut_all();
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(node.deadlines.stop_ms, closed).await;
}

async fn accept(node: &Rc<Node>, listener: &TcpListener) {
    let listener = match listener.try_clone().and_then(monoio::net::TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(volume = %node.id, "cannot accept connections: {error}");
            return std::future::pending().await;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                monoio::spawn(connection::serve(node.clone(), stream, peer));
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back.
                tracing::warn!(volume = %node.id, "cannot accept a connection: {error}");
                monoio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn take_commands(
    node: &Rc<Node>,
    commands: &mut mpsc::Receiver<Command>,
    address: &str,
    directory: &std::path::Path,
    pool_bytes: u64,
) {
    let running = Rc::new((std::cell::Cell::new(0u32), Signal::default()));
    loop {
        running
            .1
            .until(|| (running.0.get() < COMMANDS_MAX).then_some(()))
            .await;
        match commands.next().await {
            None | Some(Command::Stop) => return,
            Some(Command::Report(answer)) => {
                let _ = answer.send(report::of(node, address, directory, pool_bytes));
            }
            Some(command) => {
                running.0.set(running.0.get() + 1);
                let (node, running) = (node.clone(), running.clone());
                monoio::spawn(async move {
                    obey(node, command).await;
                    running.0.set(running.0.get() - 1);
                    running.1.notify();
                });
            }
        }
    }
}

/// Waits for the disk ring's eventfd on the thread's runtime.
#[derive(Default)]
struct Eventfd {
    /// The runtime polls sockets only; to it, any pollable descriptor is one.
    watched: RefCell<Option<(RawFd, Rc<monoio::net::TcpStream>)>>,
}

impl CompletionWait for Eventfd {
    async fn readable(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let known = match &*self.watched.borrow() {
            Some((raw, watched)) if *raw == fd.as_raw_fd() => Some(watched.clone()),
            _ => None,
        };
        let watched = match known {
            Some(watched) => watched,
            None => {
                let copy = std::net::TcpStream::from(fd.try_clone_to_owned()?);
                let watched = Rc::new(monoio::net::TcpStream::from_std(copy)?);
                *self.watched.borrow_mut() = Some((fd.as_raw_fd(), watched.clone()));
                watched
            }
        };
        watched.readable(false).await
    }
}
