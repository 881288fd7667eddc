//! `index`: a volume of a million replicas: how long it takes to start, clean and after a crash, what its index
//! takes in memory, and whether puts are as quick as on a small volume.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use blockyard_engine::{Options, PoolOptions};
use serde::{Deserialize, Serialize};

use crate::child;
use crate::content::Content;
use crate::context::{Context, drop_page_cache};
use crate::latency::Latencies;
use crate::process;
use crate::report::Series;
use crate::stats::Samples;
use crate::volume;

const SCENARIO: &str = "index";
/// A block of these takes the smallest slot, one page.
const BLOCK_BYTES: usize = 100;
const SLOT_BYTES: u64 = 4096;
const DEPTH: usize = 256;
/// What puts on the large volume are compared with.
const FEW: u64 = 10_000;
/// Openings of each kind.
const OPENINGS: usize = 5;

/// What a child does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    task: Task,
    folder: PathBuf,
    capacity_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Task {
    /// Puts so many blocks, counted from `first`, and closes the volume, or ends as a crash would.
    Put { first: u64, count: u64, close: bool },
    /// Opens the volume, and closes it or not.
    Open { close: bool },
    /// Puts and deletes blocks here and on another volume, turn and turn about.
    Compare { other: PathBuf, rounds: u32, puts: u64 },
}

/// What a child found.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    wall_s: f64,
    cpu_s: f64,
    replicas: u64,
    replayed_records: u64,
    rss_bytes: u64,
    peak_rss_bytes: u64,
    /// Puts a second, by round: here, and on the other volume.
    puts_per_s: Vec<(f64, f64)>,
}

/// The child's side.
pub(crate) fn work(job: &Job) -> Result<Found> {
    let started = Instant::now();
    let cpu_s = process::own_cpu_s();
    let (volume, opened) = volume::open(job.options(&job.folder))?;
    let mut found = Found {
        wall_s: started.elapsed().as_secs_f64(),
        cpu_s: process::own_cpu_s() - cpu_s,
        replicas: opened.replicas,
        replayed_records: opened.replayed_records,
        rss_bytes: process::rss_bytes(std::process::id())?,
        peak_rss_bytes: process::peak_rss_bytes(std::process::id())?,
        ..Found::default()
    };
    match &job.task {
        Task::Open { close } => {
            if *close {
                volume::close(&volume)?;
            }
        }
        Task::Put { first, count, close } => {
            let started = Instant::now();
            let content = Content::new(BLOCK_BYTES);
            let ids = volume::ids(1, *first, *count)?;
            volume::put_all(&volume, &content, &ids, DEPTH, &mut Latencies::default())?;
            found.wall_s = started.elapsed().as_secs_f64();
            if *close {
                volume::close(&volume)?;
            }
        }
        Task::Compare { other, rounds, puts } => {
            let (other, _) = volume::open(job.options(other))?;
            for round in 0..=*rounds {
                let ids = volume::ids(2 + round, 0, *puts)?;
                let rate = |volume| {
                    let content = Content::new(BLOCK_BYTES);
                    let started = Instant::now();
                    volume::put_all(volume, &content, &ids, DEPTH, &mut Latencies::default())?;
                    let rate = *puts as f64 / started.elapsed().as_secs_f64();
                    volume::delete_all(volume, &ids)?;
                    anyhow::Ok(rate)
                };
                let rates = if round % 2 == 0 {
                    let here = rate(&volume)?;
                    (here, rate(&other)?)
                } else {
                    let there = rate(&other)?;
                    (rate(&volume)?, there)
                };
                // The first round warms up.
                if round > 0 {
                    found.puts_per_s.push(rates);
                }
            }
            volume::close(&other)?;
            volume::close(&volume)?;
        }
    }
    Ok(found)
}

impl Job {
    fn options(&self, folder: &Path) -> Options {
        let mut options = volume::options(folder, self.capacity_bytes);
        // Few large buffers: registering them takes longer than to start. Small ones for the puts in flight.
        options.pool = PoolOptions::small();
        options.pool.head.small = DEPTH as u32 + 8;
        options
    }
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let quick = context.flags.quick;
    let many: u64 = if quick { 50_000 } else { 1_000_000 };
    let capacity_bytes = many * SLOT_BYTES * 5 / 4 + (1 << 30);
    context.check_space(many * SLOT_BYTES * 3 / 2 + (2 << 30))?;
    let folder = |name: &str| context.folder.path().join(name);
    let (empty, small, large) = (folder("empty"), folder("small"), folder("large"));
    let child = |folder: &Path, task: Task| -> Result<Found> {
        child::run(&child::Job::Index(Job {
            task,
            folder: folder.to_owned(),
            capacity_bytes,
        }))
    };
    for folder in [&empty, &small, &large] {
        volume::format(folder)?;
    }
    let put = |folder: &Path, first, count, close| child(folder, Task::Put { first, count, close });
    let crashed = many / 5;
    context.say(format_args!("{many} durable puts, {DEPTH} in flight"));
    let filled = put(&large, 0, many - crashed, true)?;
    put(&large, many - crashed, crashed, false)?;
    put(&small, 0, FEW, true)?;
    put(&empty, 0, 0, true)?;

    context.say("starts");
    let mut series = Series::new(SCENARIO, format!("{many} replicas"));
    series.add("puts to fill it", "1/s", (many - crashed) as f64 / filled.wall_s);
    for _ in 0..OPENINGS {
        drop_page_cache();
        let found = child(&large, Task::Open { close: false })?;
        ensure!(
            found.replicas == many,
            "{} of {many} replicas after a crash",
            found.replicas
        );
        series.add("crashed start", "s", found.wall_s);
        series.add("crashed start: cpu", "s", found.cpu_s);
        series.add(
            "crashed start: records replayed",
            "",
            found.replayed_records as f64,
        );
    }
    child(&large, Task::Open { close: true })?;
    for _ in 0..OPENINGS {
        drop_page_cache();
        let bare = child(&empty, Task::Open { close: true })?;
        let found = child(&large, Task::Open { close: true })?;
        ensure!(
            found.replicas == many,
            "{} of {many} replicas after a clean end",
            found.replicas
        );
        series.add("clean start", "s", found.wall_s);
        series.add("clean start: cpu", "s", found.cpu_s);
        series.add("clean start: records replayed", "", found.replayed_records as f64);
        let per_replica = |full: u64, bare: u64| full.saturating_sub(bare) as f64 / many as f64;
        series.add(
            "memory",
            "B/replica",
            per_replica(found.rss_bytes, bare.rss_bytes),
        );
        series.add(
            "peak memory while starting",
            "B/replica",
            per_replica(found.peak_rss_bytes, bare.peak_rss_bytes),
        );
    }

    context.say(format_args!("puts beside {FEW} replicas"));
    let compared = child(
        &large,
        Task::Compare {
            other: small,
            rounds: if quick { 2 } else { 10 },
            puts: if quick { 2_000 } else { 10_000 },
        },
    )?;
    for rates in &compared.puts_per_s {
        series.add("puts", "1/s", rates.0);
    }
    let there: Samples = compared.puts_per_s.iter().map(|rates| rates.1).collect();
    series.limit("puts", Some(there.median().context("no round was timed")?));
    context.report.series(&series);
    context.report.note(format!(
        "index: blocks of {BLOCK_BYTES} B, {DEPTH} in flight; each start in a process of its own; memory is the \
         difference of VmRSS to an empty volume opened alike; the limit of puts is their rate beside {FEW} replicas"
    ));
    Ok(())
}
