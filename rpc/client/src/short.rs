//! A file shorter than a block: its block goes to a chain that was reserved ahead, then it is published, together with
//! others that are ready. Two round trips, of which one moves the data; no lease.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::types::{FileInfo, NewFile};
use blockyard_wire::{ProblemKind, Result};
use tokio::time::{Instant, sleep};

use crate::batch::{self, Batch, Call};
use crate::core::Core;
use crate::options::{Progress, UploadOptions, Uploaded};
use crate::put::{Chains, Owner};
use crate::source::Filled;

/// Writings of a block whose reservation the nameserver no longer knows.
const WRITES_MAX: u32 = 3;
/// Pause before a nameserver that misses a replica for the moment is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// What short files of one client share.
#[derive(Default)]
pub struct Short {
    /// By the replication factor asked for.
    chains: RefCell<BTreeMap<u8, Rc<Chains>>>,
    publishing: Batch<Publish>,
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
            if let Some(trace) = &options.trace {
                trace(written.trace);
            }
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
        match batch::ask::<Publish>(core, file.clone()).await {
            Err(problem) if problem.kind == ProblemKind::Retry && Instant::now() + PAUSE < deadline => {
                tracing::debug!(%problem, "publishing again");
                sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

/// The publication of files whose blocks are durable: some at a time in one call.
pub struct Publish;

impl Call for Publish {
    type Question = NewFile;
    type Answer = (FileInfo, u32);
    const TOGETHER_MAX: usize = 64;
    // One waits for the nameserver's journal while the next one fills.
    const CALLS_MAX: usize = 1;

    fn batch(core: &Core) -> &Batch<Self> {
        &core.short.publishing
    }

    async fn call(core: &Core, files: &[NewFile]) -> Result<Vec<Result<(FileInfo, u32)>>> {
        core.session.publish(files).await
    }
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
