//! An upload: source, checksums, sending and waiting overlap; published by one commit. One block needs no lease.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use blockyard_engine::checksum;
use blockyard_engine::limits::BLOCK_BYTES_MAX;
use blockyard_wire::types::{AddedBlock, FileInfo, Lease};
use blockyard_wire::{Problem, ProblemKind, Result};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::AsyncRead;
use tokio::sync::{Notify, SemaphorePermit, SetOnce};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::core::Core;
use crate::options::{Progress, UploadOptions, Uploaded};
use crate::put::{Chains, Owner};
use crate::short;
use crate::source::{Filled, Source};

/// Blocks told to the nameserver in one call.
const ADD_MAX: usize = 64;
/// A source that takes longer for a block no longer keeps others from reading.
const TURN: Duration = Duration::from_millis(50);
/// How long a durable block waits for company before it is told.
const ADD_AFTER: Duration = Duration::from_secs(1);
/// How long an abandonment may take.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(2);

/// Uploads `from` as `path`.
///
/// # Errors
/// See [`Client::upload`](crate::Client::upload).
pub async fn upload<R: AsyncRead + Unpin>(
    core: Rc<Core>,
    path: String,
    from: R,
    options: UploadOptions,
) -> Result<Uploaded> {
    let mut source = Source::new(from, core.buffers.clone(), options.length_hint);
    let mut first = None;
    // One that may be short is read until that is known; a longer file opens its upload at once.
    if options
        .length_hint
        .is_none_or(|bytes| bytes < BLOCK_BYTES_MAX as u64)
    {
        first = source.next().await?;
        if first
            .as_ref()
            .is_none_or(|block| block.data.len() < BLOCK_BYTES_MAX)
        {
            return short::upload(&core, path, first, &options).await;
        }
    }
    let upload = Upload {
        core,
        path,
        options,
        begun: SetOnce::new(),
        claim: RefCell::new(None),
        pending: RefCell::default(),
        changed: Notify::new(),
        fed: Cell::new(false),
        durable_bytes: Cell::new(0),
        retried: Cell::new(0),
    };
    upload.run(source, first).await
}

struct Upload {
    core: Rc<Core>,
    path: String,
    options: UploadOptions,
    begun: SetOnce<Rc<Chains>>,
    claim: RefCell<Option<Claim>>,
    /// Durable blocks that the nameserver has not been told of. At most as many as were allocated.
    pending: RefCell<Vec<(Instant, AddedBlock)>>,
    changed: Notify,
    /// No more blocks will become pending.
    fed: Cell<bool>,
    durable_bytes: Cell<u64>,
    /// Blocks that had to be sent again.
    retried: Cell<u32>,
}

/// Waits for `wanted` while `writes` go on, the first failure of which ends it.
async fn meanwhile<W: Future<Output = Result<()>>, T>(
    writes: &mut FuturesUnordered<W>,
    mut wanted: Pin<&mut impl Future<Output = T>>,
) -> Result<T> {
    loop {
        tokio::select! {
            biased;
            Some(written) = writes.next() => written?,
            found = &mut wanted => return Ok(found),
        }
    }
}

/// What the source turned out to be.
#[derive(Default)]
struct Totals {
    blocks: u32,
    bytes: u64,
    crc32c: u32,
}

impl Upload {
    async fn run<R: AsyncRead + Unpin>(self, from: Source<R>, first: Option<Filled>) -> Result<Uploaded> {
        // The source is read on while the upload is being opened.
        let (totals, lease) = tokio::try_join!(self.feed(from, first), self.keep())?;
        let Totals {
            blocks,
            bytes,
            crc32c,
        } = totals;
        let (file, degraded) = commit(&self.core, &lease, blocks, bytes, crc32c).await?;
        if let Some(claim) = self.claim.take() {
            claim.published();
        }
        Ok(Uploaded {
            file,
            degraded,
            retried_blocks: self.retried.get(),
        })
    }

    /// Writes the first block, where it is there already, and those of the source, several at a time.
    async fn feed<R: AsyncRead + Unpin>(
        &self,
        mut source: Source<R>,
        mut first: Option<Filled>,
    ) -> Result<Totals> {
        let mut writes = FuturesUnordered::new();
        let mut totals = Totals::default();
        let in_flight = self.core.options.blocks_in_flight.max(1);
        loop {
            while writes.len() >= in_flight {
                writes.next().await.transpose()?;
            }
            let next = if let Some(first) = first.take() {
                Some((first, None))
            } else {
                let reading = std::pin::pin!(self.in_turn(source.next()));
                meanwhile(&mut writes, reading).await??
            };
            let Some((block, turn)) = next else { break };
            let permit = std::pin::pin!(self.core.uploading.acquire());
            let permit = meanwhile(&mut writes, permit).await?.ok();
            drop(turn);
            let length = block.data.len() as u64;
            totals.crc32c = checksum::combine(totals.crc32c, block.crc32c, length);
            totals.bytes += length;
            writes.push(self.write(totals.blocks, block, permit));
            totals.blocks = totals.blocks.checked_add(1).ok_or_else(|| {
                Problem::invalid(format!("{} has more blocks than a file can have", self.path))
            })?;
        }
        while let Some(written) = writes.next().await {
            written?;
        }
        self.fed.set(true);
        self.changed.notify_one();
        Ok(totals)
    }

    /// Reads a block when it is this upload's turn, which lasts until the block is sent: blocks that are read before
    /// they can be sent would only take memory. A source that is slow gives its turn away.
    async fn in_turn(
        &self,
        reading: impl Future<Output = Result<Option<Filled>>>,
    ) -> Result<Option<(Filled, Option<SemaphorePermit<'_>>)>> {
        let turn = self.core.reading.acquire().await.ok();
        let mut reading = std::pin::pin!(reading);
        let (block, turn) = match timeout(TURN, &mut reading).await {
            Ok(block) => (block?, turn),
            Err(_) => {
                drop(turn);
                (reading.await?, None)
            }
        };
        Ok(block.map(|block| (block, turn)))
    }

    async fn write(&self, index: u32, block: Filled, _permit: Option<SemaphorePermit<'_>>) -> Result<()> {
        let chains = self.begun.wait().await.clone();
        let written = chains
            .write(&self.core, index, &block)
            .await
            .map_err(|problem| problem.context(format!("uploading {}", self.path)))?;
        self.retried.set(self.retried.get() + u32::from(written.retried));
        self.pending.borrow_mut().push((Instant::now(), written.added));
        if let Some(trace) = &self.options.trace {
            trace(written.trace);
        }
        self.changed.notify_one();
        let durable = self.durable_bytes.get() + block.data.len() as u64;
        self.durable_bytes.set(durable);
        if let Some(progress) = &self.options.progress {
            progress(Progress {
                bytes: durable,
                total_bytes: self.options.length_hint,
            });
        }
        Ok(())
    }

    /// Opens the upload: to the end, even when nobody waits any more, so that the lease can be abandoned.
    async fn begin(&self) -> Result<(Lease, Claim)> {
        let (core, path, options) = (self.core.clone(), self.path.clone(), self.options.clone());
        let begun = self.core.tasks.spawn_local(async move {
            let UploadOptions {
                overwrite,
                replication,
                content_type,
                ..
            } = &options;
            let lease = core
                .session
                .begin(&path, *overwrite, *replication, content_type)
                .await?;
            Ok((lease, Claim::new(core.clone(), lease.id)))
        });
        begun
            .await
            .unwrap_or_else(|_| Err(Problem::retry("the client is closing")))
    }

    /// Opens the upload, tells the nameserver of durable blocks, and keeps the lease alive meanwhile.
    async fn keep(&self) -> Result<Lease> {
        let (lease, claim) = self.begin().await?;
        self.claim.replace(Some(claim));
        let options = &self.options;
        let blocks_hint = options
            .length_hint
            .map(|bytes| bytes.div_ceil(BLOCK_BYTES_MAX as u64));
        let chains = Chains::new(Owner::Upload(lease), blocks_hint);
        // Nobody else sets it.
        let _ = self.begun.set(Rc::new(chains));
        let renew_after = Duration::from_millis(u64::from(lease.lease_ms / 3).max(10));
        let mut renewed = Instant::now();
        loop {
            let (waiting, oldest) = {
                let pending = self.pending.borrow();
                (pending.len(), pending.first().map(|(since, _)| *since))
            };
            let fed = self.fed.get();
            let renew_at = renewed + renew_after;
            let add_at = oldest.map_or(renew_at, |since| since + ADD_AFTER);
            let now = Instant::now();
            if waiting >= ADD_MAX || (waiting > 0 && (fed || add_at <= now)) {
                let batch: Vec<AddedBlock> = {
                    let mut pending = self.pending.borrow_mut();
                    let count = waiting.min(ADD_MAX);
                    pending.drain(..count).map(|(_, added)| added).collect()
                };
                self.core.session.add_blocks(lease.id, &batch).await?;
                renewed = now;
            } else if fed {
                return Ok(lease);
            } else if renew_at <= now {
                self.core.session.renew(lease.id).await?;
                renewed = now;
            } else {
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = sleep_until(renew_at.min(add_at)) => {}
                }
            }
        }
    }
}

/// Publishes; a nameserver that misses a block's replicas for the moment is asked again.
pub async fn commit(
    core: &Core,
    lease: &Lease,
    blocks: u32,
    length_bytes: u64,
    crc32c: u32,
) -> Result<(FileInfo, u32)> {
    let deadline = Instant::now() + core.options.retry_for;
    let pause = Duration::from_millis(u64::from(lease.lease_ms / 10).clamp(50, 1000));
    loop {
        match core.session.commit(lease.id, blocks, length_bytes, crc32c).await {
            Err(problem) if problem.kind == ProblemKind::Retry && Instant::now() + pause < deadline => {
                tracing::debug!(%problem, "committing again");
                sleep(pause).await;
            }
            done => return done,
        }
    }
}

/// An open lease: abandoned when dropped before it is published.
struct Claim {
    core: Rc<Core>,
    lease: Option<u64>,
}

impl Claim {
    fn new(core: Rc<Core>, lease: u64) -> Self {
        Self {
            core,
            lease: Some(lease),
        }
    }

    fn published(mut self) {
        self.lease = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let core = self.core.clone();
        self.core.farewell(async move {
            match timeout(ABANDON_TIMEOUT, core.session.abandon(lease)).await {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => tracing::debug!(%problem, lease, "left to its expiry"),
                Err(_) => tracing::debug!(lease, "left to its expiry"),
            }
        });
    }
}
