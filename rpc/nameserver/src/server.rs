//! Starting and stopping: the nameserver's thread, its tasks, and the handle that others hold.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::thread::JoinHandle;

use blockyard_wire::ProblemKind;
use blockyard_wire::address::closed_by_default;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::ticket::{Keys, now_unix_ms};
use blockyard_wire::types::{ClusterId, Epoch, Incarnation};
use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Config;
use crate::core::Core;
use crate::error::Error;
use crate::log::{Journal, Log, Uring};
use crate::state::{Command, State};
use crate::store::{Opened, Store};
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
    mut stopped: watch::Receiver<bool>,
    ready: impl FnOnce(Ready),
) -> Result<(), Error> {
    let Opened {
        store,
        mut state,
        tail,
    } = Store::open(&config.dir)?;
    let listener = listen(config.listen).await?;
    let address = listener
        .local_addr()
        .map_err(Error::io("cannot tell the listener's address"))?;
    let secret = secret(&config, address)?;
    let keys = Keys::derive(&secret, store.cluster);

    let mut journal = Journal::new(
        Uring,
        &store.dir,
        store.cluster,
        config.journal_file_bytes,
        tail.sequence,
        tail.place,
    );
    journal.forget_bytes(tail.bytes);
    reign(
        &mut state,
        &mut journal,
        tail.term,
        Incarnation::random(),
        now_unix_ms(),
    )
    .await?;
    let number = state.epoch().number;

    let stopping = async move {
        // A handle that is gone stops as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let stopping = stopping.boxed_local().shared();
    let dir = store.dir.clone();
    let core = Core::new(
        config,
        store.cluster,
        keys,
        address.to_string(),
        Box::new(now_unix_ms),
        state,
        stopping.clone(),
    );
    let tasks = [
        tokio::task::spawn_local(service::serve(core.clone(), listener, secret.clone())),
        tokio::task::spawn_local(maintenance::tick(core.clone())),
        tokio::task::spawn_local(maintenance::delete(core.clone())),
        tokio::task::spawn_local(repair::run(core.clone())),
        tokio::task::spawn_local(page(View::new(core.clone()))),
    ];
    let writing = tokio::task::spawn_local(writer::run(core.clone(), journal, dir.clone(), tail.files));
    tracing::info!(%address, cluster = %store.cluster, epoch = number, "the nameserver is listening");
    ready(Ready {
        address,
        cluster: store.cluster,
        secret,
    });

    stopping.await;
    for task in tasks {
        task.abort();
    }
    let journal = writing.await.map_err(|panic| Error::Crashed {
        what: panic.to_string(),
    })?;
    drop(journal);
    let core: Rc<Core> = core;
    Store::snapshot(&dir, store.cluster, &core.state.borrow())?;
    tracing::info!("the nameserver has stopped");
    Ok(())
}

/// Begins a reign, one above all that were: it is durable before anybody is served, so that two reigns never hand out
/// the same block ids.
///
/// # Errors
/// `Io` when the journal can't be written; `Invalid` when there have been too many.
pub(crate) async fn reign<L: Log>(
    state: &mut State,
    journal: &mut Journal<L>,
    term: u64,
    incarnation: Incarnation,
    at_unix_ms: u64,
) -> Result<(), Error> {
    let number = state.epoch().number.max(term) + 1;
    let reign = Command::Reign {
        epoch: Epoch { number, incarnation },
        at_unix_ms,
    };
    let begun = journal
        .append(number, &[crate::journal::encode_command(&reign)])
        .await;
    begun.map_err(|refused| Error::Io {
        doing: "cannot begin to reign".to_owned(),
        source: std::io::Error::other(format!("{refused:?}")),
    })?;
    state.apply(&reign)?;
    Ok(())
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
    let path = config.dir.join("cluster.secret");
    let secret = match ClusterSecret::load(&path) {
        Ok(secret) => secret,
        Err(problem) if problem.kind == ProblemKind::NotFound => {
            let made = ClusterSecret::generate();
            made.save_new(&path)?;
            synced(&config.dir)?;
            made
        }
        Err(problem) => return Err(problem.into()),
    };
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

fn synced(dir: &Path) -> Result<(), Error> {
    fs::File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io(format!("cannot flush {}", dir.display())))
}
