//! The task that owns the journal: groups of commands go in, and are applied once they are durable; and a
//! snapshot is made on the side when the journal has grown.

use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::types::ClusterId;
use blockyard_wire::{Problem, ProblemKind};
use std::path::PathBuf;
use tokio::task::JoinHandle;

use crate::core::Core;
use crate::error::Error;
use crate::log::{Journal, Log, Refused};
use crate::store::Store;

/// Files that a start reads at the most, however little is in them.
const FILES_MAX: u64 = 8;
/// Pause after a snapshot that failed.
const PAUSE: Duration = Duration::from_secs(30);

/// Snapshots made out of the journal's closed files, on a thread of their own.
struct Snapshots {
    dir: PathBuf,
    cluster: ClusterId,
    /// The one being made, and the journal's bytes that it leaves.
    running: Option<JoinHandle<Result<(), Error>>>,
    /// Files that no snapshot holds.
    files: u64,
    not_before: Option<tokio::time::Instant>,
}

/// Runs until the core stops, and gives the journal back with all that was queued written.
pub async fn run<L: Log>(core: Rc<Core>, mut journal: Journal<L>, dir: PathBuf, files: u64) -> Journal<L> {
    let mut snapshots = Snapshots {
        dir,
        cluster: core.cluster,
        running: None,
        files,
        not_before: None,
    };
    let stopping = core.stopping();
    loop {
        let group = core.take_group();
        if group.is_empty() {
            tokio::select! {
                () = core.queue_wake.notified() => {}
                () = stopping.clone() => break,
            }
            continue;
        }
        let encoded: Vec<_> = group.iter().map(|queued| queued.encoded.clone()).collect();
        match journal.append(core.epoch.number, &encoded).await {
            Ok(()) => core.apply(group),
            Err(refused) => {
                let problem = problem(&refused);
                core.in_flight.set(0);
                for queued in group {
                    let _ = queued.answer.send(Err(problem.clone()));
                }
            }
        }
        core.journal_bytes.set(journal.bytes());
        snapshots.look(&core, &mut journal).await;
    }
    if let Some(running) = snapshots.running {
        // It must not write beside the one that the stop makes.
        let _ = running.await;
    }
    journal
}

impl Snapshots {
    async fn look<L: Log>(&mut self, core: &Core, journal: &mut Journal<L>) {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(running) = self.running.take()
        {
            let failed = match running.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(panic.to_string()),
            };
            if let Some(error) = failed {
                tracing::error!(error, "no snapshot could be made; the journal grows on");
                self.not_before = Some(tokio::time::Instant::now() + PAUSE);
                self.files += FILES_MAX;
            }
        }
        let due = journal.bytes() >= core.config.journal_bytes_max || self.files >= FILES_MAX;
        let may =
            self.running.is_none() && self.not_before.is_none_or(|at| at <= tokio::time::Instant::now());
        if !due || !may {
            return;
        }
        // The snapshot is made of files that are not written any more.
        let Ok(closed) = journal.rotate().await else {
            self.not_before = Some(tokio::time::Instant::now() + PAUSE);
            return;
        };
        journal.forget_bytes(0);
        core.journal_bytes.set(0);
        self.files = 0;
        let (dir, cluster) = (self.dir.clone(), self.cluster);
        self.running = Some(tokio::task::spawn_blocking(move || {
            Store::compact(&dir, cluster, closed)
        }));
    }
}

fn problem(refused: &Refused) -> Problem {
    match refused {
        Refused::NoSpace(why) => Problem::new(
            ProblemKind::NoSpace,
            format!("the nameserver's disk has no room for its journal ({why}); free some space there"),
        ),
        Refused::Latched(why) => Problem::new(
            ProblemKind::Failed,
            format!("the nameserver is read-only: {why}; check its disk, then restart it"),
        ),
    }
}
