//! Starting and stopping a dataserver: its listeners, its threads, and the handle on them.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use blockyard_engine as engine;
use blockyard_wire::types::{ClusterId, VolumeReport};
use blockyard_wire::{Problem, address};
use futures_channel::{mpsc, oneshot};

use crate::commands::{Command, ask_report};
use crate::config::Config;
use crate::control;
use crate::error::{Error, Result};
use crate::volume_thread::{self, Opened};

/// Longest wait for a volume to tell its figures.
const REPORT: std::time::Duration = std::time::Duration::from_secs(1);

/// Commands that may wait for a volume's thread.
const COMMANDS_WAITING: usize = 256;
/// Damage that may wait to be told.
const REPORTS_WAITING: usize = 256;

/// Where a volume lies and listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumePlace {
    /// Its folder.
    pub directory: PathBuf,
    /// `HOST:PORT` of its data listener, as others reach it.
    pub address: String,
    /// Why it can't be opened, where it can't.
    pub failed: Option<String>,
}

/// A running dataserver. Dropping it stops the server as [`Handle::stop`] does.
pub struct Handle {
    address: String,
    volumes: Vec<VolumePlace>,
    commands: Vec<mpsc::Sender<Command>>,
    stopper: Stopper,
    threads: Vec<JoinHandle<()>>,
}

/// Tells a dataserver to stop, from any thread.
#[derive(Clone)]
pub struct Stopper {
    commands: Vec<mpsc::Sender<Command>>,
    control: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

/// Starts a dataserver. Volumes that are formatted serve when this returns, others once a nameserver has been
/// reached. A volume that can't be opened is reported as failed; the others go on.
///
/// # Errors
/// A refused configuration, a taken port, or no volume that can be opened. Nothing is left running then.
pub fn start(config: Config) -> Result<Handle> {
    check(&config)?;
    let listeners = listen(&config)?;
    let host = config
        .advertise
        .clone()
        .unwrap_or_else(|| config.listen.ip().to_string());
    let addresses: Vec<String> = listeners
        .iter()
        .map(|(_, bound)| host_port(&host, bound.port()))
        .collect();
    let (reports, reported) = mpsc::channel(REPORTS_WAITING);
    let mut handle = Handle {
        address: addresses[0].clone(),
        volumes: Vec::new(),
        commands: Vec::new(),
        stopper: Stopper {
            commands: Vec::new(),
            control: Arc::default(),
        },
        threads: Vec::new(),
    };
    let mut openings = Vec::new();
    for (at, ((listener, _), address)) in listeners.into_iter().zip(&addresses).enumerate() {
        let (sender, commands) = mpsc::channel(COMMANDS_WAITING);
        let (opened, opening) = oneshot::channel();
        let setup = volume_thread::Setup {
            directory: config.volumes[at].clone(),
            listener,
            address: address.clone(),
            capacity_bytes: config.capacity_bytes,
            reserve_bytes: config.reserve_bytes,
            pool: config.pool.clone(),
            read_cache_bytes: config.read_cache_bytes,
            scrub_bytes_per_s: config.scrub_bytes_per_s,
            zero_fill: config.zero_fill,
            secret: config.secret.clone(),
            deadlines: config.deadlines,
            cpu: (!config.cpus.is_empty()).then(|| config.cpus[at % config.cpus.len()]),
            commands,
            reports: reports.clone(),
        };
        handle.commands.push(sender.clone());
        handle.stopper.commands.push(sender);
        handle.spawn(&format!("volume-{at}"), move || {
            volume_thread::run(setup, opened);
        })?;
        openings.push(opening);
    }
    let cluster = handle.gather(&config, &addresses, openings)?;
    let ports = handle.volumes.iter().zip(&handle.commands);
    let setup = control::Setup {
        nameservers: config.nameservers,
        secret: config.secret,
        cluster,
        address: handle.address.clone(),
        zone: config.zone,
        ports: ports
            .map(|(place, commands)| control::PortSetup {
                commands: commands.clone(),
                directory: place.directory.display().to_string(),
            })
            .collect(),
        reports: reported,
    };
    let (stop, stopped) = oneshot::channel();
    *lock(&handle.stopper.control) = Some(stop);
    handle.spawn("control", move || {
        if let Err(error) = control::run(setup, stopped) {
            tracing::error!("no control connection is possible: {error}");
        }
    })?;
    Ok(handle)
}

fn check(config: &Config) -> Result<()> {
    if config.volumes.is_empty() {
        return Err(Problem::invalid("a dataserver needs a folder for its volume; pass --volume DIR").into());
    }
    if config.nameservers.is_empty() {
        return Err(Problem::invalid("a dataserver needs a nameserver; pass --nameserver HOST:PORT").into());
    }
    for (at, one) in config.volumes.iter().enumerate() {
        if config.volumes[..at].contains(one) {
            let twice = format!("the volume {} is given twice", one.display());
            return Err(Problem::invalid(twice).into());
        }
    }
    Ok(address::closed_by_default(config.listen, config.secret_given)?)
}

fn listen(config: &Config) -> Result<Vec<(TcpListener, SocketAddr)>> {
    let mut listeners = Vec::new();
    for at in 0..config.volumes.len() {
        let mut address = config.listen;
        if address.port() != 0 {
            let port = usize::from(address.port()) + at;
            let port = u16::try_from(port).map_err(|_| {
                Problem::invalid(format!("volume {at} would listen on port {port}; start lower"))
            })?;
            address.set_port(port);
        }
        let bound = TcpListener::bind(address).and_then(|listener| {
            let bound = listener.local_addr()?;
            Ok((listener, bound))
        });
        listeners.push(bound.map_err(|source| Error::Listen { address, source })?);
    }
    Ok(listeners)
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Tells the figures of a dataserver's volumes, for as long as it runs.
#[derive(Clone, Debug)]
pub struct Reporter {
    commands: Vec<mpsc::Sender<Command>>,
}

impl Reporter {
    /// The figures of each volume as the next heartbeat would tell them; without those that wait for their cluster, or do
    /// not answer at once.
    pub async fn reports(&self) -> Vec<VolumeReport> {
        let asked = self.commands.iter().map(async |commands| {
            tokio::time::timeout(REPORT, ask_report(commands))
                .await
                .ok()?
                .ok()
        });
        let told = futures_util::future::join_all(asked).await;
        told.into_iter()
            .flatten()
            .filter(|report| !report.id.is_zero())
            .collect()
    }
}

impl Handle {
    /// `HOST:PORT` of the first volume: the server's name in the cluster.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where the volumes lie and listen, in the order of the configuration.
    pub fn volumes(&self) -> &[VolumePlace] {
        &self.volumes
    }

    /// The figures of each volume as the next heartbeat would tell them; a zero id where a volume still waits
    /// for its cluster. Blocks until all have answered.
    pub fn reports(&self) -> Vec<VolumeReport> {
        let asked: Vec<_> = self.commands.iter().map(ask_report).collect();
        asked
            .into_iter()
            .map(|answered| futures_util::future::FutureExt::map(answered, Result::unwrap_or_default))
            .map(wait_for)
            .collect()
    }

    /// What tells the same figures elsewhere.
    pub fn reporter(&self) -> Reporter {
        Reporter {
            commands: self.commands.clone(),
        }
    }

    /// What stops this server from elsewhere, a signal handler for instance.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Finishes requests in flight for a moment, closes the volumes, and returns when all threads have ended.
    pub fn stop(self) {
        self.stopper.stop();
        self.wait();
    }

    /// Returns when the server has been stopped.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the dataserver panicked");
            }
        }
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|source| Error::System {
                what: format!("the thread {name}"),
                source,
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for every volume's opening; the cluster that they belong to.
    fn gather(
        &mut self,
        config: &Config,
        addresses: &[String],
        openings: Vec<oneshot::Receiver<std::io::Result<Opened>>>,
    ) -> Result<Option<ClusterId>> {
        let mut cluster = None;
        let mut usable = 0;
        let mut first: Option<(PathBuf, engine::Error)> = None;
        for ((directory, address), opening) in config.volumes.iter().zip(addresses).zip(openings) {
            let system = |source| Error::System {
                what: format!("the volume {}", directory.display()),
                source,
            };
            let opened = wait_for(opening)
                .map_err(|_| system(std::io::Error::other("its thread has ended")))?
                .map_err(system)?;
            let mut place = VolumePlace {
                directory: directory.clone(),
                address: address.clone(),
                failed: None,
            };
            match opened {
                Ok(found) => {
                    usable += 1;
                    if let (Some(one), Some(other)) = (cluster, found)
                        && one != other
                    {
                        return Err(Problem::invalid(format!(
                            "the volume {} belongs to cluster {other}, those before it to {one}; \
                             give each cluster a dataserver of its own",
                            directory.display()
                        ))
                        .into());
                    }
                    cluster = cluster.or(found);
                }
                Err(source) => {
                    place.failed = Some(source.to_string());
                    first.get_or_insert((directory.clone(), source));
                }
            }
            self.volumes.push(place);
        }
        match first {
            Some((directory, source)) if usable == 0 => Err(Error::Volume { directory, source }),
            _ => Ok(cluster),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stopper.stop();
            self.join();
        }
    }
}

impl Stopper {
    /// Tells the server to stop; returns at once. A second call changes nothing.
    pub fn stop(&self) {
        // The nameserver hears no more of this server before the volumes close.
        if let Some(control) = lock(&self.control).take() {
            let _ = control.send(());
        }
        for commands in &self.commands {
            // A fresh sender always has room for one; an error says that the volume has ended.
            let _ = commands.clone().try_send(Command::Stop);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks this thread until `future` is ready.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => thread::park(),
        }
    }
}
