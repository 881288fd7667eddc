//! The connection to the nameserver: made anew when it is lost, so that a call outlives a restart.
//!
//! Mutations carry a `RequestId` that stays the same over all tries of one call: they apply once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use blockyard_schema::nameserver_capnp::session;
use blockyard_wire::frame::Role;
use blockyard_wire::types::{ClusterId, ClusterInfo, RequestId};
use blockyard_wire::{Problem, ProblemKind, Result, control, convert};
use tokio::time::{Instant, sleep, timeout};

use crate::options::Options;

/// First and longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The nameserver as this client sees it.
pub struct Session {
    nameservers: Vec<String>,
    options: Options,
    cluster: ClusterId,
    replication: Cell<u8>,
    /// Which of `nameservers` is asked.
    turn: Cell<usize>,
    live: RefCell<Option<Rc<Live>>>,
    connecting: tokio::sync::Mutex<()>,
    client: u64,
    next_request: Cell<u64>,
}

/// One connection and its session.
struct Live {
    session: session::Client,
    info: ClusterInfo,
    driver: Driver,
}

/// The task that drives a connection; dropping this closes it.
struct Driver(tokio::task::AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a call gave no answer.
pub enum Failure {
    /// The connection is lost; whether the call was applied is not known.
    Lost(Problem),
    /// The nameserver said no, or said something malformed.
    Refused(Problem),
}

impl From<capnp::Error> for Failure {
    fn from(error: capnp::Error) -> Self {
        // Only the nameserver's own answers are marked with a kind; all else is the transport's.
        let marked = error.extra.contains("[blockyard:");
        let unknown = error.kind == capnp::ErrorKind::Unimplemented;
        let problem = Problem::from(error);
        match (marked, unknown) {
            (true, _) => Self::Refused(problem),
            (_, true) => {
                Self::Refused(problem.context("the nameserver does not know this call (is it older?)"))
            }
            _ => Self::Lost(Problem::retry(problem.message)),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl Session {
    /// Connects to the first nameserver that answers, each tried once.
    ///
    /// # Errors
    /// What the last one said.
    pub async fn connect(options: &Options) -> Result<Self> {
        let session = Self {
            nameservers: options.nameservers.clone(),
            options: options.clone(),
            cluster: ClusterId::default(),
            replication: Cell::new(0),
            turn: Cell::new(0),
            live: RefCell::new(None),
            connecting: tokio::sync::Mutex::new(()),
            client: rand::random(),
            next_request: Cell::new(1),
        };
        let live = session.open_any(None).await?;
        let cluster = live.info.cluster;
        session.live.replace(Some(Rc::new(live)));
        Ok(Self { cluster, ..session })
    }

    /// The cluster that this client belongs to from its first connection on.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// How long one answer may take.
    pub fn patience(&self) -> Duration {
        self.options.call_timeout
    }

    /// The replicas that the cluster keeps unless asked for another number, as it last said.
    pub fn replication(&self) -> u8 {
        self.replication.get()
    }

    /// A fresh name for a mutation.
    pub fn request_id(&self) -> RequestId {
        let number = self.next_request.get();
        self.next_request.set(number + 1);
        RequestId {
            client: self.client,
            number,
        }
    }

    /// Makes one call, over a new connection and as long as `retry_for` allows when the nameserver is
    /// lost, busy, or not the leader.
    pub async fn call<T>(
        &self,
        call: impl AsyncFn(&session::Client) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut pause = PAUSE_MIN;
        let mut deadline = None;
        loop {
            let problem = match self.live().await {
                Err(problem) if problem.kind == ProblemKind::Retry => problem,
                Err(problem) => return Err(problem),
                Ok(live) => {
                    let answer = timeout(self.options.call_timeout, call(&live.session)).await;
                    match answer {
                        Ok(Ok(value)) => return Ok(value),
                        Ok(Err(Failure::Refused(problem))) => match problem.kind {
                            ProblemKind::NotLeader => {
                                self.lose(&live, true);
                                problem
                            }
                            ProblemKind::Busy => problem,
                            _ => return Err(problem),
                        },
                        Ok(Err(Failure::Lost(problem))) => {
                            self.lose(&live, false);
                            problem
                        }
                        Err(_) => {
                            self.lose(&live, true);
                            Problem::retry(format!("no answer within {:?}", self.options.call_timeout))
                        }
                    }
                }
            };
            let now = Instant::now();
            let deadline = *deadline.get_or_insert(now + self.options.retry_for);
            if now + pause > deadline {
                return Err(problem.context(format!(
                    "the nameserver {} did not serve this call for {:?}",
                    self.nameservers.join(", "),
                    self.options.retry_for
                )));
            }
            tracing::debug!(%problem, "asking the nameserver again");
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The connection in use, or a new one.
    async fn live(&self) -> Result<Rc<Live>> {
        if let Some(live) = self.usable() {
            return Ok(live);
        }
        let _only_one_connects = self.connecting.lock().await;
        if let Some(live) = self.usable() {
            return Ok(live);
        }
        let live = Rc::new(self.open_any(Some(self.cluster)).await?);
        self.live.replace(Some(live.clone()));
        Ok(live)
    }

    fn usable(&self) -> Option<Rc<Live>> {
        self.live
            .borrow()
            .clone()
            .filter(|live| !live.driver.0.is_finished())
    }

    /// Gives `live` up; `elsewhere`: the next nameserver of the list is asked then.
    fn lose(&self, live: &Rc<Live>, elsewhere: bool) {
        let mut current = self.live.borrow_mut();
        // Another call may have replaced it already.
        if current.as_ref().is_some_and(|current| Rc::ptr_eq(current, live)) {
            *current = None;
            if elsewhere {
                self.turn.set(self.turn.get() + 1);
            }
        }
    }

    async fn open_any(&self, cluster: Option<ClusterId>) -> Result<Live> {
        let mut worst: Option<Problem> = None;
        for _ in 0..self.nameservers.len() {
            let address = &self.nameservers[self.turn.get() % self.nameservers.len()];
            let opened = match timeout(self.options.connect_timeout, self.open(address, cluster)).await {
                Ok(opened) => opened,
                Err(_) => Err(Problem::retry(format!(
                    "{address} did not answer within {:?}",
                    self.options.connect_timeout
                ))),
            };
            match opened {
                Ok(live) => return Ok(live),
                Err(problem) => {
                    // A refusal tells more than silence.
                    if worst
                        .as_ref()
                        .is_none_or(|worst| worst.kind == ProblemKind::Retry)
                    {
                        worst = Some(problem);
                    }
                    self.turn.set(self.turn.get() + 1);
                }
            }
        }
        let worst = worst.unwrap_or_else(|| Problem::invalid("no nameserver is named"));
        Err(match worst.kind {
            ProblemKind::Retry => worst.context("no nameserver can be reached (is it running there?)"),
            _ => worst,
        })
    }

    async fn open(&self, address: &str, cluster: Option<ClusterId>) -> Result<Live> {
        let control = control::connect(address, &self.options.secret, Role::Client, cluster).await?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = control.driver.await {
                tracing::debug!(%error, "the nameserver's connection ended");
            }
        });
        let driver = Driver(task.abort_handle());
        let response = control.gate.login_request().send().promise.await?;
        let response = response.get()?;
        let info = convert::read_cluster_info(response.get_cluster()?)?;
        self.replication.set(info.replication);
        Ok(Live {
            session: response.get_session()?,
            info,
            driver,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_lost_connections() {
        let kind = |error: capnp::Error| match Failure::from(error) {
            Failure::Lost(problem) => (true, problem.kind),
            Failure::Refused(problem) => (false, problem.kind),
        };
        assert_eq!(
            kind(Problem::new(ProblemKind::Busy, "full").into()),
            (false, ProblemKind::Busy)
        );
        assert_eq!(
            kind(capnp::Error::disconnected("gone".into())),
            (true, ProblemKind::Retry)
        );
        assert_eq!(
            kind(capnp::Error::failed("premature end".into())),
            (true, ProblemKind::Retry)
        );
        assert_eq!(
            kind(capnp::Error::unimplemented("locate".into())),
            (false, ProblemKind::Failed)
        );
    }
}
