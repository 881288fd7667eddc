//! A volume's public face.

use std::path::Path;
use std::rc::Rc;

use crate::block::{BlockId, Origin};
use crate::block_buffer::BlockBuffer;
use crate::cache;
use crate::checkpoint;
use crate::core::{Core, Writing};
use crate::device::Disk;
use crate::drive::{self, CompletionWait};
use crate::error::{Error, Result};
use crate::get::{self, ReadError};
use crate::identity;
use crate::index::info;
use crate::limits::BLOCK_BYTES_MAX;
use crate::pool::{Lane, Pool};
use crate::put;
use crate::record::Record;
use crate::recover;
use crate::space::segment_bytes_for;
use crate::types::{
    Epoch, Identity, OpenReport, Options, Receipt, ReplicaInfo, ReplicaState, Stat, Verified, VolumeState,
};
use crate::uring::Uring;
use crate::zero_fill;

/// Files of a volume that are not segments, with room to spare.
const OTHER_FILES_MAX: u64 = 64;

/// An open volume. Lives on the thread that opened it; clones are the same volume. Somebody must drive it:
/// [`Volume::drive`] on a runtime, or [`crate::exec::run`]. Dropping the last clone without [`Volume::close`] is as
/// safe as a crash of the process.
#[derive(Clone)]
pub struct Volume {
    handle: Rc<Handle>,
}

/// The last of a volume's handles ends its tasks, which would otherwise keep it alive for ever.
struct Handle(Rc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.state.borrow_mut().closed = true;
        self.0.tasks.clear();
        self.0.io.shut();
    }
}

impl Volume {
    /// Makes `dir` (which must be missing or empty) a volume of `cluster`.
    pub fn format(dir: &Path, cluster: [u8; 16]) -> Result<Identity> {
        identity::format(dir, cluster)
    }

    /// Takes the volume's lock and recovers it. Blocks. The volume must be used on this thread only.
    pub fn open(options: Options, expected_cluster: Option<[u8; 16]>) -> Result<(Self, OpenReport)> {
        let identity = options.dir.join(identity::FILE);
        // A disk that can't tell is not an empty one, to be formatted.
        let is_there = identity.try_exists();
        if !is_there.map_err(Error::io(format!("looking for {}", identity.display())))? {
            return Err(Error::NotAVolume { dir: options.dir });
        }
        let filesystem = rustix::fs::statvfs(&options.dir).map_err(|errno| {
            Error::io(format!("asking for the size of {}", options.dir.display()))(errno.into())
        })?;
        let disk_bytes = filesystem.f_blocks * filesystem.f_frsize;
        let most_bytes = if options.capacity_bytes == 0 {
            disk_bytes
        } else {
            options.capacity_bytes
        };
        let files_max = (most_bytes / segment_bytes_for(most_bytes)).min(1 << 16) + OTHER_FILES_MAX;
        let pool = new_pool(&options)?;
        let disk = Uring::new(&options.dir, options.queue_depth, files_max as u32, pool.clone())?;
        Self::open_on(Box::new(disk), pool, &options, expected_cluster)
    }

    /// Opens the volume on any disk.
    pub(crate) fn open_on(
        disk: Box<dyn Disk>,
        pool: Pool,
        options: &Options,
        expected_cluster: Option<[u8; 16]>,
    ) -> Result<(Self, OpenReport)> {
        let (core, report) = recover::open(disk, pool, options, expected_cluster)?;
        Ok((
            Self {
                handle: Rc::new(Handle(core)),
            },
            report,
        ))
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.handle.0
    }

    /// Who the volume is.
    pub fn identity(&self) -> Identity {
        self.core().identity.clone()
    }

    /// The highest epoch seen.
    pub fn epoch(&self) -> Option<Epoch> {
        self.core().state.borrow().epoch
    }

    /// Persists a higher epoch (or the same one again) before it returns. A lower one is `StaleEpoch`, the same
    /// number of another incarnation `TwinEpoch`.
    pub async fn raise_epoch(&self, epoch: Epoch) -> Result<()> {
        self.check_epoch(epoch)?;
        if self.epoch() == Some(epoch) {
            return Ok(());
        }
        self.core().check_writable()?;
        let outcome = self.core().log.append(Record::Epoch(epoch)).wait().await;
        self.core().outcome(outcome, 0)?;
        // Another may have been raised meanwhile.
        self.check_epoch(epoch)
    }

    fn check_epoch(&self, epoch: Epoch) -> Result<()> {
        match self.epoch() {
            Some(seen) if seen.number > epoch.number => Err(Error::StaleEpoch {
                given: epoch.number,
                seen: seen.number,
            }),
            Some(seen) if seen.number == epoch.number && seen != epoch => {
                Err(Error::TwinEpoch { number: epoch.number })
            }
            _ => Ok(()),
        }
    }

    /// Waits for a buffer for a block of `length_bytes` (1 B to 4 MiB): first come first served per lane, safe to
    /// drop. Fails at once, with kind `Caller`, when no block has that length.
    pub async fn acquire(&self, lane: Lane, length_bytes: u32) -> Result<BlockBuffer> {
        let length_bytes = length_bytes as usize;
        if !(1..=BLOCK_BYTES_MAX).contains(&length_bytes) {
            return Err(Error::misuse(format!(
                "a block of {length_bytes} B; 1 to {BLOCK_BYTES_MAX} are possible"
            )));
        }
        if self.core().state.borrow().closed {
            return Err(Error::Closed);
        }
        let blank = self.core().pool.acquire(lane, length_bytes).await;
        let blank = blank.map_err(|_| self.core().failed_error())?;
        Ok(BlockBuffer::new(blank, length_bytes))
    }

    /// Makes a block durable: flushed when this returns. The same content again answers `already_had`, other
    /// content under the same id fails with kind `Conflict`. A replica that is suspect or corrupt is replaced.
    /// Dropping the future does not stop a put that has begun.
    pub async fn put(&self, block: BlockId, origin: Origin, buffer: BlockBuffer) -> Result<Receipt> {
        put::put(self.core(), block, origin, buffer, Writing::AtOnce).await
    }

    /// As [`Volume::put`], but more slowly: the slot is written in pieces of [`PIECE_BYTES`](crate::limits::PIECE_BYTES),
    /// one after the other, so that reads of the same disk wait behind one of them at the most.
    pub async fn put_in_pieces(
        &self,
        block: BlockId,
        origin: Origin,
        buffer: BlockBuffer,
    ) -> Result<Receipt> {
        put::put(self.core(), block, origin, buffer, Writing::InPieces).await
    }

    /// What the index knows of a block.
    pub fn lookup(&self, block: BlockId) -> Option<ReplicaInfo> {
        let state = self.core().state.borrow();
        let replica = state
            .index
            .get(block)
            .filter(|_| !state.deleting.contains(&block))?;
        Some(info(block, replica))
    }

    /// Reads the whole units that cover `length` bytes (at least 1) from `offset` on, every one verified. Bytes
    /// that fail verification are never returned: the replica is then out of service and counted as corrupt. Only what
    /// is read on [`Lane::Read`] goes through the read cache.
    pub async fn get(&self, block: BlockId, offset: u32, length: u32, lane: Lane) -> Result<Verified> {
        get::get(self.core(), block, offset, length, lane, lane == Lane::Read).await
    }

    /// As [`Volume::get`] on [`Lane::Read`], but from the disk, and not kept: that a block is copied is no sign that
    /// somebody will read it again.
    pub async fn get_past_cache(&self, block: BlockId, offset: u32, length: u32) -> Result<Verified> {
        get::get(self.core(), block, offset, length, Lane::Read, false).await
    }

    /// Deletes durably; tells for each block whether it was here. A slot is free again after its last reader.
    pub async fn delete(&self, blocks: &[BlockId]) -> Result<Vec<(BlockId, bool)>> {
        let core = self.core();
        core.check_writable()?;
        let mut answers = Vec::with_capacity(blocks.len());
        let mut last = None;
        for &block in blocks {
            let flying = core.state.borrow().puts.get(&block).map(|put| put.ended.clone());
            if let Some(ended) = flying {
                ended.wait().await;
                core.check_writable()?;
            }
            let here = core.state.borrow().index.get(block).is_some();
            answers.push((block, here));
            if here {
                core.state.borrow_mut().deleting.insert(block);
                // Records keep their order, so the last one's end is the end of all. Where another delete of the
                // block is under way this one changes nothing, but waits for it.
                last = Some(core.log.append(Record::Delete { block }));
            }
        }
        if let Some(last) = last {
            let outcome = last.wait().await;
            core.outcome(outcome, 0)?;
        }
        Ok(answers)
    }

    /// At most `max` replicas in the order of their ids, those behind `after`.
    pub fn list(&self, after: Option<BlockId>, max: usize) -> Vec<ReplicaInfo> {
        let state = self.core().state.borrow();
        let all = state
            .index
            .behind(after)
            .filter(|(block, _)| !state.deleting.contains(block));
        all.take(max)
            .map(|(block, replica)| info(block, replica))
            .collect()
    }

    /// Figures.
    pub fn stat(&self) -> Stat {
        let core = self.core();
        let state = core.state.borrow();
        let (totals, counters) = (state.index.totals(), &core.counters);
        let volume_state = match &state.failed {
            Some(reason) => VolumeState::Failed(reason.to_string()),
            None if state.closed => VolumeState::Closed,
            None if state.space.is_full() => VolumeState::Full,
            None => VolumeState::Serving,
        };
        Stat {
            capacity_bytes: state.space.capacity_bytes(),
            used_bytes: state.space.used_bytes(),
            free_bytes: state.space.free_bytes(),
            wasted_bytes: state
                .space
                .used_bytes()
                .saturating_sub(totals.block_bytes + totals.header_bytes),
            block_bytes: totals.block_bytes,
            replicas: state.index.len() as u64,
            suspects: totals.suspects,
            corrupt: totals.corrupt,
            segments: state.space.segments().count() as u64,
            puts: counters.puts.get(),
            gets: counters.gets.get(),
            deletes: counters.deletes.get(),
            put_bytes: counters.put_bytes.get(),
            get_bytes: counters.get_bytes.get(),
            batches: counters.batches.get(),
            flushes: core.io.syncs(),
            zero_filled_bytes: counters.zero_filled_bytes.get(),
            ready_bytes: state.space.all_ready_bytes(),
            checkpoints: counters.checkpoints.get(),
            pool: core.pool.usage(),
            cache: core.cache(|cache| cache.usage()).unwrap_or_default(),
            state: volume_state,
        }
    }

    /// Takes a replica out of service as damaged, durably. `false` when it is not here.
    pub async fn mark_corrupt(&self, block: BlockId) -> Result<bool> {
        self.set_state(block, ReplicaState::Corrupt).await
    }

    /// Reads a suspect and puts it into service when it is whole; marks it corrupt otherwise.
    pub async fn confirm_suspect(&self, block: BlockId) -> Result<()> {
        let replica = self
            .core()
            .state
            .borrow()
            .index
            .get(block)
            .ok_or(Error::NotFound { block })?;
        match replica.state {
            ReplicaState::Live => return Ok(()),
            ReplicaState::Suspect => {}
            ReplicaState::Corrupt => {
                return Err(Error::Corrupt {
                    block,
                    what: "it is known to be damaged".to_owned(),
                });
            }
        }
        match get::verify(self.core(), block, replica, Lane::Read).await {
            Ok(()) => {}
            Err(ReadError::Damage(what)) => {
                get::remember_damage(self.core(), block, replica, &what);
                return Err(Error::Corrupt { block, what });
            }
            Err(ReadError::Trouble(error)) => return Err(Error::io(format!("reading block {block}"))(error)),
        }
        self.set_state(block, ReplicaState::Live).await.map(drop)
    }

    /// Drops a suspect that nobody wants; its slot is free again. Kind `Caller` when it is no suspect.
    pub async fn forget_suspect(&self, block: BlockId) -> Result<()> {
        let state = self.lookup(block).ok_or(Error::NotFound { block })?.state;
        if state != ReplicaState::Suspect {
            return Err(Error::misuse(format!(
                "block {block} is no suspect; delete it instead"
            )));
        }
        self.delete(&[block]).await.map(drop)
    }

    async fn set_state(&self, block: BlockId, state: ReplicaState) -> Result<bool> {
        let core = self.core();
        core.check_writable()?;
        if core.state.borrow().index.get(block).is_none() {
            return Ok(false);
        }
        let outcome = core.log.append(Record::State { block, state }).wait().await;
        core.outcome(outcome, 0)?;
        Ok(true)
    }

    /// Fills free slots with zeros, about `most_bytes` of those that the next puts may take: to be called again and
    /// again while the volume has nothing else to do. Ends early when a put or a get comes. Returns the bytes filled:
    /// 0 when as many are ready as were put since the opening (at most 1 GiB of each slot class), or no room is left.
    pub async fn zero_fill(&self, most_bytes: u64) -> Result<u64> {
        zero_fill::step(self.core(), most_bytes).await
    }

    /// Writes the index down, so that the next start replays less.
    pub async fn checkpoint(&self) -> Result<()> {
        let core = self.core();
        core.check_writable()?;
        let written = checkpoint::write(core).await;
        core.check_writable()?;
        written.map_err(|why| Error::NoSpace {
            length: 0,
            why: why.to_string(),
        })
    }

    /// Refuses new work, finishes what runs, writes a checkpoint, flushes and unlocks. What could not be written
    /// is recovered from the journal at the next start. Every later call answers `Closed`.
    pub async fn close(&self) -> Result<()> {
        let core = self.core();
        if std::mem::replace(&mut core.state.borrow_mut().closed, true) {
            return Ok(());
        }
        loop {
            let flying = core
                .state
                .borrow()
                .puts
                .values()
                .next()
                .map(|put| put.ended.clone());
            match flying {
                Some(ended) => drop(ended.wait().await),
                None => break,
            }
        }
        let filling = core.state.borrow().filling.clone();
        if let Some(filling) = filling {
            let _ = filling.wait().await;
        }
        core.log.stop().await;
        let written = if core.state.borrow().failed.is_none() {
            checkpoint::write(core).await
        } else {
            Ok(())
        };
        if let Err(why) = written {
            tracing::warn!(%why, "closed without a checkpoint; the journal is replayed at the next start");
        }
        core.io.shut();
        core.tasks.kick();
        let failed = core.state.borrow().failed.clone();
        failed.map_or(Ok(()), |reason| Err(Error::Failed { reason }))
    }

    /// Drives the volume until it is closed: spawn it once on the thread's runtime.
    pub async fn drive(&self, waiter: impl CompletionWait) -> Result<()> {
        drive::drive(self.core(), waiter).await
    }
}

/// The pool that `options` ask for.
pub(crate) fn new_pool(options: &Options) -> Result<Pool> {
    let lanes = &options.pool;
    if [lanes.head, lanes.next, lanes.repair, lanes.read]
        .iter()
        .any(|lane| lane.large == 0)
    {
        return Err(Error::misuse("every lane of the pool needs a large buffer"));
    }
    let (cache_bytes, _) = cache::shares(options.read_cache_bytes);
    let bytes = lanes.bytes() + cache_bytes;
    Pool::new(lanes, cache_bytes).map_err(Error::io(format!("mapping {bytes} B for buffers")))
}
