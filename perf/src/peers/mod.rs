//! Systems that a user has installed, driven through what each offers its own users.
//!
//! It knows how files go in and out of them; how they are set up is told by the scripts in `peers/`.

mod blockyard;
pub(crate) mod given;
mod mount;
mod ppydfs;
mod rados;
mod s3;
pub(crate) mod script;

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use futures_util::future::try_join_all;

pub(crate) use self::blockyard::Blockyard;
use self::mount::Mount;
use self::ppydfs::Ppydfs;
use self::rados::Rados;
use self::s3::S3;
use crate::disk::Disk;
use crate::meter::{Meter, Used};
use crate::workload::Pool;

/// What stands beside a system's figures.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub name: String,
    pub version: String,
    pub copies: String,
    /// What is on stable storage when a write is acknowledged.
    pub flush: String,
    /// Whether nothing is: then perf also tells what a write costs that is flushed at its end.
    pub unflushed: bool,
    /// How files go in and out.
    pub way: String,
}

/// Files of one length, written and read by so many workers at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Work {
    pub files: u64,
    pub length_bytes: u64,
    pub workers: u64,
    /// Blocks that each worker keeps under way, where the system lets its user say so.
    pub blocks_in_flight: u64,
    /// Tells this work's names and contents from those of others.
    pub id: u64,
}

impl Work {
    pub(crate) fn bytes(self) -> u64 {
        self.files * self.length_bytes
    }

    /// Which contents of the pool file `index` has.
    fn number(self, index: u64) -> u64 {
        self.id * 1_000_000 + index
    }

    /// Has the workers take files in turn, on one thread, until all are done.
    async fn each<F: Future<Output = Result<()>>>(self, job: impl Fn(u64) -> F) -> Result<()> {
        let next = AtomicU64::new(0);
        let workers = (0..self.workers).map(|_| async {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.files {
                    return Ok(());
                }
                job(index).await?;
            }
        });
        try_join_all(workers).await.map(drop)
    }
}

/// What a piece of work took.
#[derive(Clone, Debug)]
pub(crate) struct Took {
    pub used: Used,
    /// The time that the work itself took, without the start of a tool.
    pub wall_s: f64,
    /// CPU seconds of the tools that did it, beside those in `used`.
    pub tool_cpu_s: f64,
    /// How many files went well, and of how many, where a system is known to fail at some: figures are of those.
    pub succeeded: Option<(u64, u64)>,
    /// Bytes found stored for each that was written, where that can be looked up.
    pub copies: Option<f64>,
}

/// A system under test.
pub(crate) trait System {
    fn facts(&self) -> &Facts;

    /// Name and process id of each of its servers, a FUSE client included.
    fn servers(&self) -> Vec<(String, u32)>;

    /// Whether it can be told how many blocks to keep under way.
    fn keeps_blocks_in_flight(&self) -> bool {
        false
    }

    /// So many files of any work say all there is to say.
    fn files_max(&self) -> u64 {
        u64::MAX
    }

    /// Writes the files, each acknowledged as [`Facts::flush`] says.
    fn write(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took>;

    /// Reads them all; the page cache was dropped before.
    fn read(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took>;

    /// Removes them.
    fn remove(&mut self, work: Work) -> Result<()>;
}

/// Runs work of this process beside servers.
fn timed(servers: &[(String, u32)], disk: Option<&Disk>, work: impl FnOnce() -> Result<()>) -> Result<Took> {
    let meter = Meter::start(servers, disk)?;
    work()?;
    let used = meter.stop()?;
    Ok(Took {
        wall_s: used.wall_s,
        used,
        tool_cpu_s: 0.0,
        succeeded: None,
        copies: None,
    })
}
