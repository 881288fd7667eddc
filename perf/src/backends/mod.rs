//! The same work through several ways to the disk: blocks written durably, then read and verified.
//!
//! What all have in common: one file that was written before (the engine: recycled slots), O_DIRECT where the way
//! allows it, CRC32C of every 64 KiB of what is written and read, and one flush for each `depth` writes, all of
//! which are acknowledged behind it. Buffers hold their block before the clock starts: filling them is a socket's
//! work.

mod blockyard;
mod io_uring;
mod mmap;
mod monoio;
#[allow(unsafe_code)]
mod raw;
mod threads;
mod tokio_uring;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use blockyard_engine::limits::UNIT_BYTES;
use rand::seq::SliceRandom as _;
use rustix::fs::{Advice, OFlags, fadvise};
use serde::{Deserialize, Serialize};

use crate::content::Content;
use crate::latency::{Latencies, PERCENTILES};
use crate::process;

/// A way to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Way {
    Blockyard,
    IoUring,
    TokioUring,
    Monoio,
    Mmap,
    Threads,
}

impl Way {
    pub(crate) const ALL: [Self; 6] = [
        Self::Blockyard,
        Self::IoUring,
        Self::TokioUring,
        Self::Monoio,
        Self::Mmap,
        Self::Threads,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blockyard => "blockyard",
            Self::IoUring => "io-uring",
            Self::TokioUring => "tokio-uring",
            Self::Monoio => "monoio",
            Self::Mmap => "mmap",
            Self::Threads => "threads",
        }
    }

    fn open(self, work: &Work) -> Result<Box<dyn Backend>> {
        let backend: Box<dyn Backend> = match self {
            Self::Blockyard => Box::new(blockyard::Blockyard::open(work)?),
            Self::IoUring => Box::new(io_uring::Uring::open(work)?),
            Self::TokioUring => Box::new(tokio_uring::TokioUring::open(work)?),
            Self::Monoio => Box::new(monoio::Monoio::open(work)?),
            Self::Mmap => Box::new(mmap::Mmap::open(work)?),
            Self::Threads => Box::new(threads::Threads::open(work)?),
        };
        Ok(backend)
    }
}

/// One way to the disk, opened for one shape of work.
trait Backend {
    /// Writes each of `blocks` (places in the file), `depth` at a time, and flushes before it acknowledges.
    fn write(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()>;

    /// Reads each of `blocks`, `depth` at a time, and verifies every unit.
    fn read(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()>;
}

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// What [`prepare`] made: a file, or for the engine the folder of a volume.
    pub path: PathBuf,
    pub block_bytes: usize,
    /// Blocks that the file holds.
    pub blocks: u64,
    /// How many of them are written, and how many read: multiples of `depth`.
    pub writes: u64,
    pub reads: u64,
    pub depth: usize,
    /// Tells this work from others on the same volume.
    pub number: u32,
}

/// A process of its own does one work by one way, so that its memory and CPU are that way's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub way: Way,
    pub work: Work,
}

/// What it took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub write: Side,
    pub read: Side,
    pub peak_rss_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Side {
    pub blocks: u64,
    pub bytes: u64,
    pub wall_s: f64,
    pub cpu_s: f64,
    /// Milliseconds, in the order of [`PERCENTILES`].
    pub percentiles_ms: Vec<f64>,
}

/// Does a job in this process.
pub(crate) fn run(job: &Job) -> Result<Figures> {
    let work = &job.work;
    let mut backend = job.way.open(work)?;
    let write = side(work, work.writes, |blocks, latencies| {
        backend.write(blocks, latencies)
    })?;
    let read = side(work, work.reads, |blocks, latencies| {
        backend.read(blocks, latencies)
    })?;
    Ok(Figures {
        write,
        read,
        peak_rss_bytes: process::peak_rss_bytes(std::process::id())?,
    })
}

fn side(work: &Work, count: u64, run: impl FnOnce(&[u64], &mut Latencies) -> Result<()>) -> Result<Side> {
    let blocks = places(work, count);
    let mut latencies = Latencies::default();
    let (started, cpu_s) = (Instant::now(), process::own_cpu_s());
    run(&blocks, &mut latencies)?;
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), process::own_cpu_s() - cpu_s);
    ensure!(latencies.count() == count, "not every block was acknowledged");
    Ok(Side {
        blocks: count,
        bytes: count * work.block_bytes as u64,
        wall_s,
        cpu_s,
        percentiles_ms: PERCENTILES
            .iter()
            .map(|(_, percentage)| latencies.ms(*percentage))
            .collect(),
    })
}

/// The first `count` places of the file when blocks are large; when they are small, as many of all, in disorder.
fn places(work: &Work, count: u64) -> Vec<u64> {
    let mut places: Vec<u64> = (0..work.blocks).collect();
    if work.block_bytes <= UNIT_BYTES {
        places.shuffle(&mut rand::rng());
    }
    places.truncate(count as usize);
    places
}

/// Makes what `work` is done on: a volume with recycled slots for the engine, for all others a file that holds
/// [`Content`] in each of its blocks, flushed and out of the page cache.
pub(crate) fn prepare(way: Way, work: &Work) -> Result<()> {
    if way == Way::Blockyard {
        return blockyard::prepare(work);
    }
    let content = Content::new(work.block_bytes);
    let mut file =
        File::create(&work.path).with_context(|| format!("cannot make {}", work.path.display()))?;
    for _ in 0..work.blocks {
        file.write_all(&content.data)?;
    }
    file.sync_all()?;
    forget_cached(&file)
}

/// Has the kernel drop what it caches of a file that is flushed.
fn forget_cached(file: &File) -> Result<()> {
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

/// Opens a file past the page cache.
fn open_direct(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .with_context(|| format!("cannot open {} with O_DIRECT", path.display()))
}

/// So many buffers that hold a block each.
fn filled(content: &Content, count: usize) -> Result<Vec<raw::Aligned>> {
    let buffer = |_| {
        let mut buffer = raw::Aligned::new(content.data.len())?;
        buffer.copy_from_slice(&content.data);
        Ok(buffer)
    };
    (0..count).map(buffer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(folder: &Path, way: Way) -> Work {
        let work = Work {
            path: folder.join("data"),
            block_bytes: UNIT_BYTES,
            blocks: 8,
            writes: 4,
            reads: 8,
            depth: 4,
            number: 1,
        };
        prepare(way, &work).unwrap();
        work
    }

    #[test]
    fn every_way_writes_and_reads() {
        for way in Way::ALL {
            let folder = tempfile::tempdir().unwrap();
            let work = work(folder.path(), way);
            let figures = run(&Job { way, work }).unwrap_or_else(|error| panic!("{way:?}: {error:#}"));
            assert_eq!((figures.write.blocks, figures.read.blocks), (4, 8), "{way:?}");
            assert_eq!(figures.read.bytes, 8 * UNIT_BYTES as u64);
        }
    }

    #[test]
    fn other_bytes_are_noticed() {
        for way in Way::ALL.into_iter().filter(|&way| way != Way::Blockyard) {
            let folder = tempfile::tempdir().unwrap();
            let mut work = work(folder.path(), way);
            let file = OpenOptions::new().write(true).open(&work.path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0; 16], 7 * UNIT_BYTES as u64).unwrap();
            file.sync_all().unwrap();
            work.writes = 0;
            assert!(run(&Job { way, work }).is_err(), "{way:?}");
        }
    }

    #[test]
    fn small_blocks_are_visited_in_disorder_and_once() {
        let mut work = work(tempfile::tempdir().unwrap().path(), Way::Mmap);
        work.blocks = 1000;
        let mut places = places(&work, 1000);
        assert!(!places.is_sorted());
        places.sort_unstable();
        assert_eq!(places, (0..1000).collect::<Vec<u64>>());
    }
}
