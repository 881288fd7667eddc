//! A file shorter than a block: its block goes to a chain that was reserved ahead, then it is published, together with
//! others that are ready. Two round trips, of which one moves the data; no lease.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::types::{FileInfo, NewFile};
use blockyard_wire::{Problem, ProblemKind, Result};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::options::{Progress, UploadOptions, Uploaded};
use crate::put::{Chains, Owner};
use crate::source::Filled;

/// Files that one call publishes at the most.
const PUBLISH_MAX: usize = 64;
/// Calls that publish at the same time: while one waits for the journal, the next one fills.
const CALLS_MAX: usize = 2;
/// Writings of a block whose reservation the nameserver no longer knows.
const WRITES_MAX: u32 = 3;
/// Pause before a nameserver that misses a replica for the moment is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// What short files of one client share.
#[derive(Default)]
pub struct Short {
    /// By the replication factor asked for.
    chains: RefCell<BTreeMap<u8, Rc<Chains>>>,
    waiting: RefCell<VecDeque<Waiting>>,
    calls: Cell<usize>,
}

/// A file whose block is durable, and who waits for its publication.
struct Waiting {
    file: NewFile,
    answer: oneshot::Sender<Result<(FileInfo, u32)>>,
}

/// Writes and publishes a file shorter than a block; `None` is an empty one.
pub async fn upload(
    core: &Rc<Core>,
    path: String,
    block: Option<Filled>,
    options: &UploadOptions,
) -> Result<Uploaded> {
    let mut retried_blocks = 0;
    for write in 1.. {
        let mut blocks = Vec::new();
        if let Some(block) = &block {
            let written = core.short.chains(options.replication).write(core, 0, block).await;
            if written.as_ref().map_or(true, |written| written.retried) {
                // What was found to be failing may be back for the next file.
                core.short.forget(options.replication);
            }
            let written = written.map_err(|problem| problem.context(format!("uploading {path}")))?;
            retried_blocks += u32::from(written.retried);
            blocks.push(written.added);
        }
        let length_bytes = block.as_ref().map_or(0, |block| block.data.len() as u64);
        let file = NewFile {
            path: path.clone(),
            overwrite: options.overwrite,
            replication: options.replication,
            content_type: options.content_type.clone(),
            blocks,
            length_bytes,
            crc32c: block.as_ref().map_or(0, |block| block.crc32c),
            request: core.session.request_id(),
        };
        match publish(core, file).await {
            // A nameserver that has restarted knows no reservations: the block gets another id.
            Err(problem) if problem.kind == ProblemKind::Denied && write < WRITES_MAX => {
                tracing::debug!(%problem, "writing the block again");
                core.short.forget(options.replication);
            }
            Err(problem) => return Err(problem),
            Ok((file, degraded)) => {
                if let Some(progress) = &options.progress {
                    progress(Progress {
                        bytes: length_bytes,
                        total_bytes: options.length_hint,
                    });
                }
                return Ok(Uploaded {
                    file,
                    degraded,
                    retried_blocks,
                });
            }
        }
    }
    unreachable!("the last try returns")
}

/// Publishes; a nameserver that misses a block's replicas for the moment is asked again.
async fn publish(core: &Rc<Core>, file: NewFile) -> Result<(FileInfo, u32)> {
    let deadline = Instant::now() + core.options.retry_for;
    loop {
        let (answer, published) = oneshot::channel();
        core.short.waiting.borrow_mut().push_back(Waiting {
            file: file.clone(),
            answer,
        });
        call(core);
        let published = published.await;
        match published.unwrap_or_else(|_| Err(Problem::retry("the client is closing"))) {
            Err(problem) if problem.kind == ProblemKind::Retry && Instant::now() + PAUSE < deadline => {
                tracing::debug!(%problem, "publishing again");
                sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Starts another call for what waits, unless enough are under way.
fn call(core: &Rc<Core>) {
    let short = &core.short;
    if short.calls.get() == CALLS_MAX {
        return;
    }
    short.calls.set(short.calls.get() + 1);
    let publishing = core.clone();
    core.tasks.spawn_local(async move {
        let core = publishing;
        loop {
            let group: Vec<Waiting> = {
                let mut waiting = core.short.waiting.borrow_mut();
                let count = waiting.len().min(PUBLISH_MAX);
                waiting.drain(..count).collect()
            };
            if group.is_empty() {
                break;
            }
            let (files, answers): (Vec<NewFile>, Vec<_>) =
                group.into_iter().map(|one| (one.file, one.answer)).unzip();
            let results = core.session.publish(&files).await;
            let results = results.unwrap_or_else(|problem| vec![Err(problem); files.len()]);
            for (answer, result) in answers.into_iter().zip(results) {
                // Whoever asked may have given up; the file is published all the same.
                let _ = answer.send(result);
            }
        }
        core.short.calls.set(core.short.calls.get() - 1);
    });
}

impl Short {
    fn chains(&self, replication: u8) -> Rc<Chains> {
        let mut chains = self.chains.borrow_mut();
        let new = || Rc::new(Chains::new(Owner::Reserved(replication), None));
        chains.entry(replication).or_insert_with(new).clone()
    }

    /// Reserves anew for the next file.
    fn forget(&self, replication: u8) {
        self.chains.borrow_mut().remove(&replication);
    }
}
