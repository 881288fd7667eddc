//! A nameserver whose state is older than what its volumes have seen: it serves nothing, says why, and takes the
//! cluster over when its operator says so.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use blockyard_schema::nameserver_capnp::gate;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{ClusterId, Epoch, VolumeId, VolumeReport};
use blockyard_wire::{Problem, ProblemKind, control, convert};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::state::{Command, State};

/// For the hello of a connection.
const HELLO: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken, as when files run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a nameserver in `own` epoch must not serve, when a volume tells of a newer one or of a twin.
pub fn outranked(own: Epoch, volume: &VolumeReport) -> Option<Problem> {
    let seen = volume.epoch;
    let newer = seen.number > own.number;
    let twin = seen.number == own.number && seen.incarnation != own.incarnation;
    (newer || twin).then(|| {
        Problem::new(
            ProblemKind::Stale,
            format!(
                "this nameserver serves nothing: volume {} has seen epoch {}{}, and this is epoch {}: its state is \
                 older than the cluster's, as after a restore; if no newer nameserver runs, restart it with --adopt",
                volume.id,
                seen.number,
                if twin { " of another nameserver" } else { "" },
                own.number
            ),
        )
    })
}

/// What adopting makes of the state: what may have been written after it is kept, should nobody know it.
pub fn command(state: &State, number: u64, at_unix_ms: u64) -> Command {
    // Blocks of this very reign may have come after the backup, and ids of an earlier one to an upload that is
    // still open.
    let open = state.leases().values().map(|lease| lease.reign).min();
    let first_reign = open.unwrap_or(u64::MAX).min(state.epoch().number).max(1);
    Command::Adopted {
        first_reign,
        last_reign: number.saturating_sub(1).max(first_reign),
        at_unix_ms,
    }
}

/// Stands at the door instead of a gate: nobody gets in, dataservers are heard.
pub struct Outpost {
    /// What is answered to everybody.
    answer: RefCell<Problem>,
    own: Epoch,
    highest: Cell<u64>,
    heard: Cell<usize>,
    /// Volumes that have said nothing yet.
    silent: RefCell<BTreeSet<VolumeId>>,
    wake: Notify,
    adopting: bool,
}

impl Outpost {
    /// One that only refuses, with `why`.
    pub fn refusing(state: &State, why: Problem) -> Rc<Self> {
        Rc::new(Self::new(state, why, false))
    }

    /// One that refuses, for nobody has said yet whether a nameserver made of a backup is to take the cluster over.
    pub fn restored(state: &State) -> Rc<Self> {
        let why = Problem::new(
            ProblemKind::Stale,
            "this nameserver serves nothing: it was restored, rebuilt or outranked, and the cluster may have gone on \
             since; if no newer nameserver runs, restart it with --adopt",
        );
        Rc::new(Self::new(state, why, false))
    }

    /// One that waits for what the volumes have seen.
    pub fn adopting(state: &State) -> Rc<Self> {
        let why =
            Problem::retry("the nameserver is taking the cluster over and waits for the volumes' epochs");
        Rc::new(Self::new(state, why, true))
    }

    fn new(state: &State, answer: Problem, adopting: bool) -> Self {
        Self {
            answer: RefCell::new(answer),
            own: state.epoch(),
            highest: Cell::new(state.epoch().number),
            heard: Cell::new(0),
            silent: RefCell::new(
                state
                    .blocks()
                    .volumes()
                    .iter()
                    .map(|volume| volume.row.id)
                    .collect(),
            ),
            wake: Notify::new(),
            adopting,
        }
    }

    /// Answers connections until it is dropped.
    pub async fn stand(
        self: Rc<Self>,
        listener: &TcpListener,
        secret: &ClusterSecret,
        cluster: ClusterId,
        connections_max: usize,
    ) {
        let seats = std::sync::Arc::new(tokio::sync::Semaphore::new(connections_max));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
                // Their ends are collected, or the set would grow.
                Some(_) = tasks.join_next() => continue,
            };
            let Ok(seat) = seats.clone().try_acquire_owned() else {
                tracing::warn!(%peer, "refused: too many connections");
                continue;
            };
            let (post, secret) = (self.clone(), secret.clone());
            tasks.spawn_local(async move {
                let _seat = seat;
                connection(post, stream, &secret, cluster).await;
            });
        }
    }

    /// The highest epoch that any volume has seen, once all known ones have told theirs, or once some have and
    /// `patience` is over.
    pub async fn highest(&self, patience: Duration) -> u64 {
        let deadline = tokio::time::Instant::now() + patience;
        let known = self.silent.borrow().len();
        loop {
            let (silent, heard) = (self.silent.borrow().len(), self.heard.get());
            let waited = tokio::time::Instant::now() >= deadline;
            if silent == 0 && (heard > 0 || waited) || waited && heard > 0 {
                tracing::info!(
                    known,
                    silent,
                    heard,
                    highest = self.highest.get(),
                    "volumes have told their epochs"
                );
                return self.highest.get();
            }
            // Either way it is looked again.
            let _ = tokio::time::timeout(Duration::from_millis(200), self.wake.notified()).await;
        }
    }

    fn hear(&self, volumes: &[VolumeReport]) {
        for volume in volumes {
            self.highest.set(self.highest.get().max(volume.epoch.number));
            self.heard.set(self.heard.get() + 1);
            self.silent.borrow_mut().remove(&volume.id);
            if !self.adopting
                && let Some(problem) = outranked(self.own, volume)
            {
                self.answer.replace(problem);
            }
        }
        self.wake.notify_one();
    }
}

async fn connection(post: Rc<Outpost>, stream: TcpStream, secret: &ClusterSecret, cluster: ClusterId) {
    let accepted = match tokio::time::timeout(HELLO, control::accept(stream, secret, cluster)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(problem)) => return tracing::info!(%problem, "a connection was refused"),
        Err(_) => return tracing::info!("a connection said no hello in time"),
    };
    // Its end is no news: everybody is sent away.
    let _ = accepted.serve(capnp_rpc::new_client(Door(post))).await;
}

struct Door(Rc<Outpost>);

impl gate::Server for Door {
    async fn login(self: Rc<Self>, _: gate::LoginParams, _: gate::LoginResults) -> capnp::Result<()> {
        Err(self.0.answer.borrow().clone().into())
    }

    async fn join(self: Rc<Self>, params: gate::JoinParams, _: gate::JoinResults) -> capnp::Result<()> {
        let info = convert::read_server_info(params.get()?.get_server()?)?;
        self.0.hear(&info.volumes);
        Err(self.0.answer.borrow().clone().into())
    }
}
