//! The control thread: keeps the server joined to a nameserver, sends heartbeats, tells of damage.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use blockyard_schema::nameserver_capnp::registration;
use blockyard_wire::frame::Role;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{
    ClusterId, ClusterInfo, Replica, ReplicaState, ServerInfo, VolumeId, VolumeReport, VolumeState,
};
use blockyard_wire::{Problem, Result, control, convert};
use futures_channel::{mpsc, oneshot};
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::commands::{Answer, Command, ask_report};
use crate::host::Host;
use crate::service::Service;

/// The pause before the second attempt to reach a nameserver; it doubles up to the longest. A nameserver that is back has
/// nowhere to put blocks before its dataservers are, and one attempt a second is no more than their heartbeats.
const BACKOFF_MS: (u64, u64) = (50, 1_000);
/// For a nameserver's answer; a volume that has said nothing for as long counts as failed.
const ANSWER: Duration = Duration::from_secs(10);
/// What one heartbeat waits for a volume's report.
const REPORT: Duration = Duration::from_millis(500);

/// A volume as the control thread reaches it.
pub(crate) struct Port {
    commands: mpsc::Sender<Command>,
    directory: String,
    /// What it said last: what is told of it when it does not answer.
    pub last: RefCell<VolumeReport>,
    answered_at: Cell<Instant>,
    /// An answer that is still to come.
    pending: RefCell<Option<oneshot::Receiver<VolumeReport>>>,
}

/// What is known of a volume before the control thread has asked it anything.
pub(crate) struct PortSetup {
    pub commands: mpsc::Sender<Command>,
    pub directory: String,
}

/// What the control thread starts with.
pub(crate) struct Setup {
    pub nameservers: Vec<String>,
    pub secret: ClusterSecret,
    /// The cluster of the volumes that are formatted already.
    pub cluster: Option<ClusterId>,
    pub address: String,
    pub zone: String,
    pub ports: Vec<PortSetup>,
    pub reports: mpsc::Receiver<(VolumeId, Replica)>,
}

/// Runs until `stop` is sent or dropped.
pub(crate) fn run(setup: Setup, stop: oneshot::Receiver<()>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::select! {
            () = keep_joined(setup) => {}
            // Either way nobody wants this to go on.
            _ = stop => {}
        }
    });
    Ok(())
}

struct Link {
    ports: Rc<Vec<Port>>,
    secret: ClusterSecret,
    cluster: Option<ClusterId>,
    info: ServerInfo,
    host: RefCell<Host>,
}

async fn keep_joined(mut setup: Setup) {
    let mut link = Link {
        ports: Rc::new(setup.ports.into_iter().map(Port::new).collect()),
        secret: setup.secret,
        cluster: setup.cluster,
        info: ServerInfo {
            address: setup.address,
            zone: setup.zone,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            volumes: Vec::new(),
        },
        host: RefCell::default(),
    };
    let mut backoff_ms = BACKOFF_MS.0;
    let mut said = None;
    let mut turn = 0;
    loop {
        let nameserver = &setup.nameservers[turn % setup.nameservers.len()];
        turn += 1;
        let mut joined = false;
        let problem = match link.session(nameserver, &mut setup.reports, &mut joined).await {
            Ok(never) => match never {},
            Err(problem) => problem,
        };
        if joined {
            backoff_ms = BACKOFF_MS.0;
        }
        // Once per reason: this may go on for days.
        if joined || said.as_ref() != Some(&problem) {
            tracing::warn!(nameserver, "not joined: {problem}; trying again");
            said = Some(problem);
        }
        sleep(Duration::from_millis(backoff_ms)).await;
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
    }
}

impl Link {
    /// Joins one nameserver and stays with it until it is lost.
    async fn session(
        &mut self,
        nameserver: &str,
        reports: &mut mpsc::Receiver<(VolumeId, Replica)>,
        joined: &mut bool,
    ) -> Result<std::convert::Infallible> {
        let connected = control::connect(nameserver, &self.secret, Role::Dataserver, self.cluster);
        let control = soon(connected).await??;
        let cluster = control.agreed.cluster;
        let driver = Task(tokio::task::spawn_local(control.driver));
        self.open_volumes(cluster).await?;
        self.info.volumes = reports_of(&self.ports, ANSWER).await;
        let service = Service::new(self.ports.clone());
        let mut join = control.gate.join_request();
        convert::write_server_info(&self.info, join.get().init_server());
        join.get().set_control(capnp_rpc::new_client(service));
        let answer = soon(join.send().promise).await??;
        let answer = answer.get()?;
        let registration = answer.get_registration()?;
        let cluster = convert::read_cluster_info(answer.get_cluster()?)?;
        self.raise(&cluster).await?;
        *joined = true;
        tracing::info!(nameserver, cluster = %cluster.cluster, epoch = cluster.epoch.number, "joined");
        self.tell_unwell(&registration).await?;
        let lost = self.beat(&cluster, &registration, reports).await;
        drop(driver);
        Err(lost)
    }

    /// Has every volume that waits for it formatted, and opened, for this cluster.
    async fn open_volumes(&mut self, cluster: ClusterId) -> Result<()> {
        let mut serving = 0;
        let mut first = None;
        let asked = self
            .ports
            .iter()
            .map(|port| port.ask(|answer| Command::Open(cluster, answer)));
        for (port, opened) in self.ports.iter().zip(join_all(asked).await) {
            match opened {
                Ok(()) => serving += 1,
                Err(problem) => {
                    tracing::debug!(volume = port.directory, "{problem}");
                    first.get_or_insert(problem);
                }
            }
        }
        match first {
            Some(problem) if serving == 0 => Err(problem),
            _ => {
                self.cluster = Some(cluster);
                Ok(())
            }
        }
    }

    /// Makes the nameserver's epoch the lowest that the volumes obey.
    async fn raise(&self, cluster: &ClusterInfo) -> Result<()> {
        for port in self.ports.iter() {
            let raised = port.ask(|answer| Command::Raise(cluster.epoch, answer)).await;
            match raised {
                // It can't serve anyway, and says so in its report.
                Err(problem) if problem.kind != blockyard_wire::ProblemKind::Stale => {
                    tracing::debug!(volume = port.directory, "{problem}");
                }
                raised => raised?,
            }
        }
        Ok(())
    }

    async fn tell_unwell(&self, registration: &registration::Client) -> Result<()> {
        for port in self.ports.iter() {
            let volume = port.last.borrow().id;
            match port.ask(Command::Unwell).await {
                Ok(unwell) if !unwell.is_empty() => report_bad(registration, volume, &unwell).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Heartbeats, and word of damage as it is found, until the nameserver is lost.
    async fn beat(
        &self,
        cluster: &ClusterInfo,
        registration: &registration::Client,
        reports: &mut mpsc::Receiver<(VolumeId, Replica)>,
    ) -> Problem {
        let every = Duration::from_millis(u64::from(cluster.heartbeat_ms.clamp(20, 60_000)));
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                _ = ticks.tick() => self.heartbeat(registration).await,
                Some((volume, replica)) = reports.next() => {
                    report_bad(registration, volume, &[replica]).await
                }
            };
            if let Err(problem) = told {
                return problem;
            }
        }
    }

    async fn heartbeat(&self, registration: &registration::Client) -> Result<()> {
        let volumes = reports_of(&self.ports, REPORT).await;
        let mut request = registration.heartbeat_request();
        convert::write_list(
            &volumes,
            request.get().init_volumes(volumes.len() as u32),
            convert::write_volume_report,
        );
        convert::write_host_report(&self.host.borrow_mut().report(), request.get().init_host());
        soon(request.send().promise).await??;
        Ok(())
    }
}

/// Aborts its task when dropped: a connection ends with its session.
struct Task(tokio::task::JoinHandle<capnp::Result<()>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Port {
    fn new(setup: PortSetup) -> Self {
        Self {
            commands: setup.commands,
            directory: setup.directory,
            last: RefCell::default(),
            answered_at: Cell::new(Instant::now()),
            pending: RefCell::default(),
        }
    }

    /// Sends a command and waits for its answer.
    pub async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T> {
        let gone = || Problem::retry(format!("volume {} is being stopped", self.directory));
        let (answer, answered) = oneshot::channel();
        let mut commands = self.commands.clone();
        commands.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Its report; its last one when it is slow to answer, and that of a failed volume when it has been for long.
    /// One volume that hangs must not hold up the heartbeat of the others.
    async fn report(&self, wait: Duration) -> VolumeReport {
        let pending = self.pending.take();
        let mut answered = pending.unwrap_or_else(|| ask_report(&self.commands));
        match timeout(wait, &mut answered).await {
            Ok(Ok(report)) => {
                self.last.borrow_mut().clone_from(&report);
                self.answered_at.set(Instant::now());
                return report;
            }
            Ok(Err(_)) => {}
            // Asked once is enough: the next heartbeat waits for the same answer.
            Err(_) => *self.pending.borrow_mut() = Some(answered),
        }
        let last = self.last.borrow().clone();
        if self.answered_at.get().elapsed() < ANSWER {
            return last;
        }
        VolumeReport {
            state: VolumeState::Failed,
            reason: "its thread does not answer".to_owned(),
            ..last
        }
    }
}

/// Reports of all volumes that have an identity.
async fn reports_of(ports: &[Port], wait: Duration) -> Vec<VolumeReport> {
    let mut reports = join_all(ports.iter().map(|port| port.report(wait))).await;
    reports.retain(|report| !report.id.is_zero());
    reports
}

async fn report_bad(
    registration: &registration::Client,
    volume: VolumeId,
    replicas: &[Replica],
) -> Result<()> {
    debug_assert!(replicas.iter().all(|replica| replica.state != ReplicaState::Good));
    let mut request = registration.report_bad_request();
    convert::write_id(&volume.0, request.get().init_volume());
    convert::write_list(
        replicas,
        request.get().init_blocks(replicas.len() as u32),
        convert::write_replica,
    );
    soon(request.send().promise).await??;
    Ok(())
}

async fn soon<T>(future: impl Future<Output = T>) -> Result<T> {
    timeout(ANSWER, future)
        .await
        .map_err(|_| Problem::retry("the nameserver does not answer"))
}
