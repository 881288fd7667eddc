//! The child that drives a volume: puts of mixed sizes, deletes, reads and checkpoints, several in flight, until its
//! work is done, the volume refuses, or it is killed.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::{Error, Kind, Lane, Options, PoolOptions, Result, Volume, VolumeState, exec};
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::log::{Event, Fate, Known, Log};

pub const CLUSTER: [u8; 16] = [0xc7; 16];
/// Segments of one largest slot each: they fill, empty and are cut anew soon.
const CAPACITY_BYTES: u64 = 72 << 20;
/// So short that the journal goes around and checkpoints follow.
const JOURNAL_BYTES: u64 = 1 << 20;
/// Operations after which other sizes come in, and most of what is there goes.
const PHASE_OPERATIONS: u64 = 60;

const ORIGIN: Origin = Origin { version: 1, index: 0 };

/// What to do, as a child's arguments.
#[derive(Clone, Debug)]
pub struct Work {
    pub volume: PathBuf,
    pub log: PathBuf,
    pub seed: u64,
    pub operations: u64,
    pub in_flight: usize,
}

pub fn options(volume: &Path) -> Options {
    let mut options = Options::new(volume);
    options.capacity_bytes = CAPACITY_BYTES;
    options.journal_bytes = JOURNAL_BYTES;
    options.pool = PoolOptions::small();
    options
}

/// Bytes that differ from block to block and from place to place.
pub fn content(block: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::Rng::fill_bytes(&mut SmallRng::seed_from_u64(block), &mut bytes);
    bytes
}

/// What the tasks of a workload share.
struct Shared {
    volume: Volume,
    log: RefCell<Log>,
    rng: RefCell<SmallRng>,
    /// Acknowledged and not being deleted.
    there: RefCell<Vec<(u64, usize)>>,
    next_block: RefCell<u64>,
    done: RefCell<u64>,
}

/// Does the work. An error of the volume ends it; that is no finding, for disks may fail here.
pub fn work(work: &Work) -> Result<()> {
    let known = Known::read(&work.log).unwrap_or_default();
    let (volume, _) = Volume::open(options(&work.volume), Some(CLUSTER))?;
    let there = known
        .blocks
        .iter()
        .filter(|(_, (_, fate))| *fate == Fate::Put)
        .map(|(block, (length, _))| (*block, *length))
        .collect();
    let shared = Shared {
        volume,
        log: RefCell::new(Log::append(&work.log).expect("a log")),
        rng: RefCell::new(SmallRng::seed_from_u64(work.seed)),
        there: RefCell::new(there),
        next_block: RefCell::new(known.next_block()),
        done: RefCell::new(0),
    };
    let tasks = (0..work.in_flight).map(|_| shared.run(work.operations));
    let ended = exec::run(&shared.volume, join_all(tasks)).into_iter().collect();
    if let VolumeState::Failed(why) = shared.volume.stat().state {
        shared.stays_failed(&why);
    }
    ended
}

impl Shared {
    /// A volume that has failed takes nothing more, and serves what it can.
    fn stays_failed(&self, why: &str) {
        self.refusal(&format!("failed: {why}"));
        let block = self.next_block.replace_with(|next| *next + 1);
        let taken = exec::run(&self.volume, async {
            let mut buffer = self.volume.acquire(Lane::Head, 10).await?;
            buffer.fill(&content(block, 10))?;
            self.volume.put(BlockId(block), ORIGIN, buffer).await
        });
        if !matches!(taken, Err(Error::Failed { .. })) {
            self.finding(&format!("went on: a put on a failed volume ended with {taken:?}"));
        }
        let gone = exec::run(&self.volume, self.volume.delete(&[BlockId(1)]));
        if !matches!(gone, Err(Error::Failed { .. })) {
            self.finding(&format!(
                "went on: a delete on a failed volume ended with {gone:?}"
            ));
        }
        for &(block, length) in self.there.borrow().iter() {
            match exec::run(&self.volume, read(&self.volume, block, length)) {
                Ok(None) => {}
                Ok(Some(what)) => self.finding(&what),
                Err(error) => self.refusal(&format!("read: {error}")),
            }
        }
    }

    fn finding(&self, what: &str) {
        self.log.borrow_mut().write(Event::Finding(what));
    }

    fn refusal(&self, what: &str) {
        self.log.borrow_mut().write(Event::Refusal(what));
    }

    async fn run(&self, operations: u64) -> Result<()> {
        loop {
            let done = self.done.replace_with(|done| *done + 1);
            if done >= operations {
                return Ok(());
            }
            if done % PHASE_OPERATIONS == PHASE_OPERATIONS - 1 {
                self.delete_most().await?;
            }
            let die: usize = self.rng.borrow_mut().random_range(0..100);
            match die {
                0..60 => self.put((done / PHASE_OPERATIONS) % 3).await?,
                60..74 => self.delete_some(1 + die % 3).await?,
                74..98 => self.get().await?,
                _ => match self.volume.checkpoint().await {
                    Err(error) if error.kind() == Kind::NoSpace => {}
                    written => written?,
                },
            }
        }
    }

    async fn put(&self, phase: u64) -> Result<()> {
        let length = {
            let mut rng = self.rng.borrow_mut();
            let most = match (phase, rng.random_range(0..10)) {
                (_, 0..4) => 16 << 10,
                (0, _) => 64 << 10,
                (1, 4..9) => 300 << 10,
                (1, _) | (_, 4..8) => 1 << 20,
                _ => 4 << 20,
            };
            rng.random_range(1..=most)
        };
        let block = self.next_block.replace_with(|next| *next + 1);
        let bytes = content(block, length);
        let mut buffer = self.volume.acquire(Lane::Head, length as u32).await?;
        buffer.fill(&bytes)?;
        self.log.borrow_mut().block(block, length, Fate::Begun);
        match self.volume.put(BlockId(block), ORIGIN, buffer).await {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::NoSpace => {
                self.refusal(&format!("put: {error}"));
                return self.delete_some(8).await;
            }
            Err(error) => return Err(error),
        }
        self.log.borrow_mut().block(block, length, Fate::Put);
        self.there.borrow_mut().push((block, length));
        Ok(())
    }

    async fn delete_most(&self) -> Result<()> {
        let most = self.there.borrow().len() * 2 / 3;
        self.delete_some(most).await
    }

    async fn delete_some(&self, most: usize) -> Result<()> {
        let mut leaving = Vec::new();
        while leaving.len() < most
            && let Some(at) = self.choose()
        {
            let (block, length) = self.there.borrow_mut().swap_remove(at);
            self.log.borrow_mut().block(block, length, Fate::Leaving);
            leaving.push((block, length));
        }
        let ids: Vec<BlockId> = leaving.iter().map(|&(block, _)| BlockId(block)).collect();
        for (id, was_here) in self.volume.delete(&ids).await? {
            if !was_here {
                let what = format!("lost: block {} was not there to be deleted", id.0);
                self.finding(&what);
            }
        }
        for (block, length) in leaving {
            self.log.borrow_mut().block(block, length, Fate::Gone);
        }
        Ok(())
    }

    fn choose(&self) -> Option<usize> {
        let count = self.there.borrow().len();
        (count > 0).then(|| self.rng.borrow_mut().random_range(0..count))
    }

    async fn get(&self) -> Result<()> {
        let Some(at) = self.choose() else {
            return Ok(());
        };
        let (block, length) = self.there.borrow()[at];
        match read(&self.volume, block, length).await {
            Ok(None) => {}
            Ok(Some(what)) => self.finding(&what),
            // Deleted while it was read.
            Err(_) if !self.there.borrow().contains(&(block, length)) => {}
            Err(error) if error.kind() == Kind::OtherReplica => self.finding(&format!("lost: {error}")),
            Err(error) => self.refusal(&format!("read: {error}")),
        }
        Ok(())
    }
}

/// Reads a whole block and compares; what is wrong with it, if anything.
pub async fn read(volume: &Volume, block: u64, length: usize) -> Result<Option<String>> {
    let got = volume.get(BlockId(block), 0, length as u32, Lane::Read).await?;
    Ok((got.data != content(block, length)).then(|| format!("wrong: block {block} came back different")))
}
