//! Starting and stopping: the nameserver's thread, its tasks, and the handle that others hold.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use blockyard_wire::ProblemKind;
use blockyard_wire::address::closed_by_default;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::ticket::{Keys, now_unix_ms};
use blockyard_wire::types::{ClusterId, Epoch, Incarnation};
use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::adopt::{self, Outpost};
use crate::config::Config;
use crate::core::Core;
use crate::error::Error;
use crate::log::{Journal, Refused, Uring};
use crate::mirror::SECRET;
use crate::state::Command;
use crate::store::{self, Opened, Store};
use crate::view::View;
use crate::{maintenance, repair, service, writer};

/// What runs beside the nameserver on its thread, such as the page.
pub type Page = Pin<Box<dyn Future<Output = ()>>>;

/// A running nameserver. Dropped, it is stopped cleanly.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    cluster: ClusterId,
    secret: ClusterSecret,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// What the thread tells once it listens.
#[derive(Clone)]
struct Ready {
    address: SocketAddr,
    cluster: ClusterId,
    secret: ClusterSecret,
}

/// Starts a nameserver on a thread of its own, and returns when it is listening. `page` is called on that
/// thread with a view of it; what it returns runs there until the nameserver stops.
///
/// # Errors
/// `AddressTaken`, `Locked`, `Damaged`, `Invalid` settings, or what the system refuses.
pub fn start(config: Config, page: impl FnOnce(View) -> Page + Send + 'static) -> Result<Handle, Error> {
    config.check()?;
    closed_by_default(config.listen, config.secret.is_some())?;
    let (stop, stopped) = watch::channel(false);
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("nameserver".to_owned())
        .spawn(move || {
            let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(Error::io(
                "cannot use io_uring (is it allowed here? see /proc/sys/kernel/io_uring_disabled)",
            ))?;
            runtime.block_on(run(config, page, stopped, move |ready| {
                // A starter that has given up drops the handle's end as well, which stops this.
                let _ = tell.send(ready);
            }))
        })
        .map_err(Error::io("cannot start the nameserver's thread"))?;
    match told.recv() {
        Ok(Ready {
            address,
            cluster,
            secret,
        }) => Ok(Handle {
            address,
            cluster,
            secret,
            stop,
            thread: Some(thread),
        }),
        // It ended without having listened.
        Err(_) => match joined(thread) {
            Ok(()) => Err(Error::Crashed {
                what: "it ended at once".to_owned(),
            }),
            Err(error) => Err(error),
        },
    }
}

fn joined(thread: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    thread.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let what = text
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Error::Crashed { what })
    })
}

impl Handle {
    /// Where it listens: with the actual port where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster that it is the nameserver of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The cluster's secret.
    pub fn secret(&self) -> &ClusterSecret {
        &self.secret
    }

    /// Stops it cleanly: what was queued is durable, and a snapshot makes the next start quick. Blocks.
    ///
    /// # Errors
    /// What has kept it from that; nothing acknowledged is lost.
    pub fn stop(mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        self.thread.take().map_or(Ok(()), joined)
    }

    /// Waits until it ends by itself. Blocks.
    ///
    /// # Errors
    /// Why it ended.
    pub fn wait(mut self) -> Result<(), Error> {
        self.thread.take().map_or(Ok(()), joined)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && let Err(error) = joined(thread)
        {
            tracing::error!(%error, "the nameserver did not stop cleanly");
        }
    }
}

/// The whole life of a nameserver, on its thread.
async fn run(
    config: Config,
    page: impl FnOnce(View) -> Page,
    stopped: watch::Receiver<bool>,
    ready: impl FnOnce(Ready),
) -> Result<(), Error> {
    let Opened {
        store,
        mut state,
        tail,
        restored,
    } = Store::open(&config.dirs())?;
    let listener = Rc::new(listen(config.listen).await?);
    let address = listener
        .local_addr()
        .map_err(Error::io("cannot tell the listener's address"))?;
    let secret = secret(&config, address)?;
    let cluster = store.cluster;
    let keys = Keys::derive(&secret, cluster);
    let told = Ready {
        address,
        cluster,
        secret: secret.clone(),
    };
    let door = Door {
        listener: listener.clone(),
        secret: secret.clone(),
        cluster,
        connections_max: config.connections_max,
        stopped: stopped.clone(),
    };

    let adopt = config.adopt || restored.as_ref().is_some_and(|restored| restored.adopt);
    let mut ready = Some(ready);
    let mut lowest = state.epoch().number.max(tail.term);
    if adopt {
        tracing::warn!(%address, "taking the cluster over: waiting for the volumes' epochs");
        if let Some(ready) = ready.take() {
            ready(told.clone());
        }
        let outpost = Outpost::adopting(&state);
        let patience = Duration::from_millis(config.safe_mode_ms);
        tokio::select! {
            () = door.refuse(outpost.clone()) => return Ok(()),
            highest = outpost.highest(patience) => lowest = lowest.max(highest),
        }
    } else if restored.is_some() {
        let outpost = Outpost::restored(&state);
        if let Some(ready) = ready.take() {
            ready(told.clone());
        }
        door.refuse(outpost).await;
        return Ok(());
    }

    // The reign is durable before anybody is served: two reigns never hand out the same block ids.
    let number = lowest + 1;
    let reign = Command::Reign {
        epoch: Epoch {
            number,
            incarnation: Incarnation::random(),
        },
        at_unix_ms: now_unix_ms(),
    };
    let adopted = adopt.then(|| adopt::command(&state, number, now_unix_ms()));
    let begin: Vec<_> = std::iter::once(reign).chain(adopted).collect();
    let mut journal = Journal::new(
        Uring,
        &store.dirs,
        cluster,
        config.journal_file_bytes,
        tail.sequence,
        tail.place,
    );
    journal.forget_bytes(tail.bytes);
    let encoded: Vec<_> = begin.iter().map(crate::journal::encode_command).collect();
    let waits = match journal.append(number, &encoded).await {
        Ok(()) => None,
        // Files can be read meanwhile, where there are any and nothing is to be taken over.
        Err(refused @ Refused::NoSpace(_)) if !adopt && state.epoch().number > 0 => {
            Some(writer::problem(&refused))
        }
        Err(Refused::NoSpace(why) | Refused::Latched(why)) => {
            return Err(Error::Io {
                doing: "cannot begin to reign".to_owned(),
                source: std::io::Error::other(why),
            });
        }
    };
    if waits.is_none() {
        for command in &begin {
            state.apply(command)?;
        }
    }
    if adopt {
        store::forget_restored(&store.dirs)?;
        tracing::warn!(epoch = number, quarantine = ?state.quarantine(), "the cluster is taken over");
    }

    let (stand_down, mut standing) = watch::channel(false);
    let mut stop = stopped.clone();
    let stopping = async move {
        tokio::select! {
            // A handle that is gone stops as well.
            _ = stop.wait_for(|stop| *stop) => {}
            _ = standing.wait_for(|down| *down) => {}
        }
    };
    let stopping = stopping.boxed_local().shared();
    let kept = config.snapshots_kept;
    let core = Core::new(
        config,
        cluster,
        keys,
        (address.to_string(), Box::new(now_unix_ms)),
        state,
        stand_down,
        stopping.clone(),
    );
    if let Some(problem) = &waits {
        core.set_read_only(problem);
        core.begin.replace(begin);
    }
    let tasks = [
        tokio::task::spawn_local(service::serve(core.clone(), listener, secret.clone())),
        tokio::task::spawn_local(maintenance::tick(core.clone())),
        tokio::task::spawn_local(maintenance::delete(core.clone())),
        tokio::task::spawn_local(repair::run(core.clone())),
    ];
    let page = tokio::task::spawn_local(page(View::new(core.clone())));
    let writing = tokio::task::spawn_local(writer::run(core.clone(), journal, tail.files));
    let epoch = core.epoch().number;
    tracing::info!(%address, %cluster, epoch, "the nameserver is listening");
    if let Some(ready) = ready {
        ready(told);
    }

    stopping.await;
    for task in tasks {
        task.abort();
    }
    let journal = writing.await.map_err(|panic| Error::Crashed {
        what: panic.to_string(),
    })?;
    let live = journal.live();
    drop(journal);
    if let Some(problem) = core.outranked() {
        // Or some starts later its epoch would pass for a newer one.
        store::mark_outranked(&live, now_unix_ms())?;
        // The page stays, and shows why.
        let outpost = Outpost::refusing(&core.state.borrow(), problem);
        door.refuse(outpost).await;
    }
    page.abort();
    Store::snapshot(&live, cluster, &core.state.borrow(), kept)?;
    tracing::info!("the nameserver has stopped");
    Ok(())
}

/// Where nobody gets in.
struct Door {
    listener: Rc<TcpListener>,
    secret: ClusterSecret,
    cluster: ClusterId,
    connections_max: usize,
    stopped: watch::Receiver<bool>,
}

impl Door {
    /// Refuses everybody, as `outpost` says, until the nameserver is stopped.
    async fn refuse(&self, outpost: Rc<Outpost>) {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            () = outpost.stand(&self.listener, &self.secret, self.cluster, self.connections_max) => {}
            // A handle that is gone stops as well.
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::AddressTaken { address },
            _ => Error::io(format!("cannot listen on {address}"))(error),
        })
}

/// The secret given, or the nameserver's own: made at the first start, and copied to where this user's clients
/// look for it.
fn secret(config: &Config, address: SocketAddr) -> Result<ClusterSecret, Error> {
    if let Some(secret) = &config.secret {
        return Ok(secret.clone());
    }
    let mut found = None;
    for dir in config.dirs() {
        match ClusterSecret::load(&dir.join(SECRET)) {
            Ok(secret) => found = found.or(Some(secret)),
            Err(problem) if problem.kind == ProblemKind::NotFound => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    let secret = found.unwrap_or_else(ClusterSecret::generate);
    for dir in config.dirs() {
        let path = dir.join(SECRET);
        if !path.exists() {
            secret.save_new(&path)?;
            store::synced(&dir)?;
        }
    }
    if config.secret_for_user
        && let Some(path) = ClusterSecret::user_path(&address.to_string())
    {
        // A home that can't be written is no reason not to serve: the flag names the secret then.
        if let Err(problem) = secret.save(&path) {
            tracing::warn!(%problem, "clients need --cluster-secret");
        }
    }
    Ok(secret)
}
