//! The task that owns the journal: groups of commands go in, and are applied once they are durable; and a
//! snapshot is made on the side when the journal has grown.

use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::types::ClusterId;
use blockyard_wire::{Problem, ProblemKind};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::core::Core;
use crate::error::Error;
use crate::journal::encode_command;
use crate::log::{Journal, Log, Refused};
use crate::state::Command;
use crate::store::Store;

/// Files that a start reads at the most, however little is in them.
const FILES_MAX: u64 = 8;
/// Pause after a snapshot that failed.
const PAUSE: Duration = Duration::from_secs(30);
/// Pause between two looks whether there is room again.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Snapshots made out of the journal's closed files, on a thread of their own.
struct Snapshots {
    cluster: ClusterId,
    /// The one being made, and the journal's bytes that it leaves.
    running: Option<JoinHandle<Result<(), Error>>>,
    /// Files that no snapshot holds.
    files: u64,
    not_before: Option<Instant>,
}

/// Runs until the core stops, and gives the journal back with all that was queued written.
pub async fn run<L: Log>(core: Rc<Core>, mut journal: Journal<L>, files: u64) -> Journal<L> {
    let mut snapshots = Snapshots {
        cluster: core.cluster,
        running: None,
        files,
        not_before: None,
    };
    // While there is no room: when to look again, and what is said until then.
    let mut no_room = match core.writable() {
        Err(problem) if !core.begin.borrow().is_empty() => Some((Instant::now() + ROOM_PAUSE, problem)),
        _ => None,
    };
    let stopping = core.stopping();
    loop {
        for waiting in core.take_rotations() {
            let rotated = journal.rotate().await;
            snapshots.files += u64::from(rotated.is_ok());
            tell_of_folders(&core, &journal);
            // Whoever asked may be gone.
            let _ = waiting.send(rotated.map_err(|refused| problem(&refused)));
        }
        let group = core.take_group();
        if group.is_empty() {
            let look_again = async {
                match &no_room {
                    Some((at, _)) => tokio::time::sleep_until(*at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = core.queue_wake.notified() => {}
                () = look_again => {
                    let made = make_room(&core, &mut journal).await;
                    snapshots.files += u64::from(made.is_ok());
                    tell_of_folders(&core, &journal);
                    no_room = tell(&core, made);
                }
                () = stopping.clone() => break,
            }
            continue;
        }
        if let Some((at, problem)) = &no_room
            && *at > Instant::now()
        {
            core.refuse(group, problem);
            continue;
        }
        let encoded: Vec<_> = group.iter().map(|queued| queued.encoded.clone()).collect();
        let written = journal.append(core.epoch().number, &encoded).await;
        tell_of_folders(&core, &journal);
        no_room = tell(&core, written.clone());
        match written {
            Ok(()) => core.apply(group),
            Err(refused) => core.refuse(group, &problem(&refused)),
        }
        core.journal_bytes.set(journal.bytes());
        snapshots.look(&core, &mut journal).await;
        tell_of_folders(&core, &journal);
    }
    if let Some(running) = snapshots.running {
        // It must not write beside the one that the stop makes.
        let _ = running.await;
    }
    journal
}

/// Tries whether there is room again: for what begins the reign, where that is still to be written, or for a file.
async fn make_room<L: Log>(core: &Core, journal: &mut Journal<L>) -> Result<(), Refused> {
    let begin = core.begin.borrow().clone();
    let reign = begin.iter().find_map(|command| match command {
        Command::Reign { epoch, .. } => Some(epoch.number),
        _ => None,
    });
    let Some(number) = reign else {
        return journal.rotate().await.map(|_| ());
    };
    let encoded: Vec<_> = begin.iter().map(encode_command).collect();
    journal.append(number, &encoded).await?;
    core.reign()
        .map_err(|problem| Refused::Latched(format!("the reign can't begin: {problem}")))
}

/// Tells the core which folders hold the whole journal.
fn tell_of_folders<L: Log>(core: &Core, journal: &Journal<L>) {
    if journal.live().len() != core.live_dirs.borrow().len() {
        core.journal_trouble.replace(journal.trouble());
        core.live_dirs.replace(journal.live());
    }
}

/// Tells the core whether anything can be changed; where there is no room, when to look again.
fn tell(core: &Core, written: Result<(), Refused>) -> Option<(Instant, Problem)> {
    let refused = match written {
        Ok(()) => {
            if !core.read_only.borrow().is_empty() && core.outranked().is_none() {
                tracing::info!("the journal can be written again");
                core.read_only.replace(String::new());
            }
            return None;
        }
        Err(refused) => refused,
    };
    let problem = problem(&refused);
    core.set_read_only(&problem);
    matches!(refused, Refused::NoSpace(_)).then(|| (Instant::now() + ROOM_PAUSE, problem))
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
                self.not_before = Some(Instant::now() + PAUSE);
                self.files += FILES_MAX;
            }
        }
        let due = journal.bytes() >= core.config.journal_bytes_max || self.files >= FILES_MAX;
        let may = self.running.is_none() && self.not_before.is_none_or(|at| at <= Instant::now());
        if !due || !may {
            return;
        }
        // The snapshot is made of files that are not written any more.
        let Ok(closed) = journal.rotate().await else {
            self.not_before = Some(Instant::now() + PAUSE);
            return;
        };
        journal.forget_bytes(0);
        core.journal_bytes.set(0);
        self.files = 0;
        let (dirs, cluster, kept) = (journal.live(), self.cluster, core.config.snapshots_kept);
        self.running = Some(tokio::task::spawn_blocking(move || {
            Store::compact(&dirs, cluster, closed, kept)
        }));
    }
}

/// What a refusal is for whoever wanted a change.
pub fn problem(refused: &Refused) -> Problem {
    match refused {
        Refused::NoSpace(why) => Problem::new(
            ProblemKind::NoSpace,
            format!(
                "the nameserver is read-only, for it has no room for its journal ({why}); free some space there, and \
                 it goes on by itself"
            ),
        ),
        Refused::Latched(why) => Problem::new(
            ProblemKind::Failed,
            format!("the nameserver is read-only: {why}; check its disk, then restart it"),
        ),
    }
}

#[cfg(test)]
mod tests;
