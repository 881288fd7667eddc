//! `slow`: one of four dataservers is stopped again and again by SIGSTOP; what readers and writers feel, beside a healthy
//! cluster, and how long writes go on through it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use blockyard_client::types::VolumeId;
use blockyard_client::{BlockTrace, Client, DownloadOptions, Statistics, UploadOptions};
use futures_util::future::try_join_all;
use rand::RngExt as _;
use rustix::process::{Pid, Signal, kill_process};

use super::common::{clients, close, on_cluster};
use super::transfer::{self, Planned};
use super::{BLOCK_BYTES, MIB};
use crate::context::Context;
use crate::latency::{Latencies, PERCENTILES};
use crate::nodes::{Nodes, Shape};
use crate::report::Series;
use crate::workload::{Pool, Sink, Source};

const SCENARIO: &str = "slow";
const DATASERVERS: usize = 4;
const REPLICAS: u8 = 2;
const FILES: u64 = 16;
const POOL_BYTES: usize = 64 << 20;
/// Readers of 64 KiB ranges, readers of whole blocks, and writers, of whom each kind has its time for itself.
const RANGE_READERS: u64 = 4;
const BLOCK_READERS: u64 = 2;
const WRITERS: u64 = 2;
/// Of the files that are written, and removed again.
const WRITTEN_BLOCKS: u64 = 4;
/// So long readers of each kind are measured; writers four times as long, for they come back to who was slow.
const SECONDS: u64 = 4;
/// The part of the blocks that may still go through the slow one when writes are said to go round it.
const ROUND_PART: f64 = 0.02;
const WINDOW: Duration = Duration::from_millis(500);

/// How the dataserver is stopped.
#[derive(Clone, Copy)]
struct Pulses {
    name: &'static str,
    stopped: Duration,
    running: Duration,
    /// Only writers are measured, and as long as one pulse lasts.
    once: bool,
}

const CASES: [Option<Pulses>; 4] = [
    None,
    Some(Pulses {
        name: "one stopped for 45 of 50 ms",
        stopped: Duration::from_millis(45),
        running: Duration::from_millis(5),
        once: false,
    }),
    Some(Pulses {
        name: "one stopped for 2 of 4 s",
        stopped: Duration::from_secs(2),
        running: Duration::from_secs(2),
        once: false,
    }),
    Some(Pulses {
        name: "one stopped for 10 s",
        stopped: Duration::from_secs(10),
        running: Duration::from_secs(1),
        once: true,
    }),
];

/// What was felt in one case, over all rounds.
struct Case {
    pulses: Option<Pulses>,
    series: Series,
    ranges: Latencies,
    blocks: Latencies,
    writes: Latencies,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let bytes = (context.flags.size_bytes() / FILES / BLOCK_BYTES).max(1) * BLOCK_BYTES * FILES;
    let mut cases: Vec<Case> = CASES.map(Case::new).into();
    let shape = Shape {
        dataservers: DATASERVERS,
        replication: REPLICAS,
        capacity_bytes: bytes + (2 << 30),
        ..Shape::default()
    };
    context.check_space(u64::from(REPLICAS) * bytes + DATASERVERS as u64 * (2 << 30))?;
    let pool = Pool::new(POOL_BYTES);
    on_cluster(context, shape, async |context, nodes| {
        let first = clients(nodes, 1).await?;
        let plan: Vec<Planned> = (0..FILES)
            .map(|number| Planned {
                path: format!("/slow/{number}"),
                number,
                length_bytes: bytes / FILES,
            })
            .collect();
        for some in plan.chunks(4) {
            transfer::upload(&first, &pool, some).await?;
        }
        close(first).await;
        for round in 1..=context.flags.rounds() {
            for case in &mut cases {
                let name = case.pulses.map_or("healthy", |pulses| pulses.name);
                context.say(format_args!(
                    "round {round} of {}: {name}",
                    context.flags.rounds()
                ));
                // One that has learned nothing yet, least of all from the case before.
                let fresh = clients(nodes, 1).await?;
                let work = Work::new(nodes, &fresh[0], &pool, &plan, context.flags.quick).await?;
                case.measure(&work).await?;
                close(fresh).await;
            }
        }
        Ok(())
    })?;
    let healthy = Case {
        series: cases[0].series.clone(),
        pulses: None,
        ranges: cases[0].ranges.clone(),
        blocks: cases[0].blocks.clone(),
        writes: cases[0].writes.clone(),
    };
    for mut case in cases {
        case.report(&healthy);
        context.report.series(&case.series);
    }
    Ok(())
}

/// What all cases work with.
struct Work<'a> {
    client: &'a Client,
    pool: &'a Pool,
    plan: &'a [Planned],
    /// The dataserver that is stopped.
    pid: Pid,
    volume: VolumeId,
    second: Duration,
}

impl<'a> Work<'a> {
    async fn new(
        nodes: &Nodes,
        client: &'a Client,
        pool: &'a Pool,
        plan: &'a [Planned],
        quick: bool,
    ) -> Result<Self> {
        let status = client.status().await?;
        let mut volumes = status.servers.iter().flat_map(|server| &server.volumes);
        let slow = volumes.find(|volume| volume.report.address == nodes.first_data_address());
        let pid = Pid::from_raw(nodes.pid("dataserver 1")?.cast_signed());
        Ok(Self {
            client,
            pool,
            plan,
            pid: pid.context("the first dataserver has no process")?,
            volume: slow.context("the first dataserver has no volume")?.report.id,
            second: Duration::from_millis(if quick { 250 } else { 1000 }),
        })
    }

    fn seconds(&self, count: u64) -> Duration {
        self.second * count as u32
    }

    /// So many readers of ranges, or of whole blocks, for so long.
    async fn read(&self, readers: u64, length_bytes: u64, lasting: Duration) -> Result<Latencies> {
        let until = Instant::now() + lasting;
        let reader = async |_| {
            let mut latencies = Latencies::default();
            while Instant::now() < until {
                let file = &self.plan[rand::rng().random_range(0..self.plan.len())];
                let at = rand::rng().random_range(0..file.length_bytes / length_bytes) * length_bytes;
                let options = DownloadOptions {
                    range: Some(at..at + length_bytes),
                    ..DownloadOptions::default()
                };
                let (sink, _) = Sink::discard()?;
                let started = Instant::now();
                let read = self.client.download(&file.path, sink, options).await?;
                latencies.record(started.elapsed());
                ensure!(read.bytes == length_bytes, "a piece of {} came short", file.path);
            }
            Ok(latencies)
        };
        merged(try_join_all((0..readers).map(reader)).await?)
    }

    /// Writers of files that are removed again; each block's time is told, tries that failed included.
    async fn write(&self, lasting: Duration) -> Result<(Latencies, f64)> {
        let (started, blocks) = (Instant::now(), Cell::new(0_u64));
        let until = started + lasting;
        let writer = async |writer: u64| {
            let latencies = Arc::new(Mutex::new(Latencies::default()));
            let mut number = writer;
            while Instant::now() < until {
                let told = latencies.clone();
                let options = UploadOptions {
                    length_hint: Some(WRITTEN_BLOCKS * BLOCK_BYTES),
                    trace: Some(Arc::new(move |block: BlockTrace| {
                        let mut latencies = told.lock().unwrap_or_else(PoisonError::into_inner);
                        latencies.record(block.queued + block.done);
                    })),
                    ..UploadOptions::default()
                };
                let path = format!("/slow-written/{number}");
                let source = Source::new(self.pool.file(number, WRITTEN_BLOCKS * BLOCK_BYTES), None);
                let uploaded = self.client.upload(&path, source, options).await?;
                ensure!(
                    uploaded.degraded == 0,
                    "{path}: {} blocks got too few replicas, though three volumes are well",
                    uploaded.degraded
                );
                self.client.remove(&path, false).await?;
                blocks.set(blocks.get() + WRITTEN_BLOCKS);
                number += WRITERS;
            }
            let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(latencies)
        };
        let latencies = merged(try_join_all((0..WRITERS).map(writer)).await?)?;
        let mib = blocks.get() as f64 * BLOCK_BYTES as f64 / MIB;
        Ok((latencies, mib / started.elapsed().as_secs_f64()))
    }

    /// Until when blocks went through the slow volume: the end of the last window but those in which it was on trial
    /// again, which is how `part` counts too: of all blocks of the time, those through it.
    async fn watch(&self, lasting: Duration) -> Result<Round> {
        let started = Instant::now();
        let first = self.through(&self.client.statistics().await?);
        let (mut before, mut round_after) = (first, None);
        while started.elapsed() < lasting {
            tokio::time::sleep(WINDOW).await;
            let now = self.through(&self.client.statistics().await?);
            let (all, slow) = (now.0 - before.0, now.1 - before.1);
            if round_after.is_none() && all > 0 && slow as f64 <= ROUND_PART * all as f64 {
                round_after = Some(started.elapsed() - WINDOW);
            }
            before = now;
        }
        let (all, slow) = (before.0 - first.0, before.1 - first.1);
        Ok(Round {
            after: round_after.unwrap_or(lasting),
            part: slow as f64 / all.max(1) as f64,
        })
    }

    /// Blocks written so far, and those of them through the slow volume.
    fn through(&self, statistics: &Statistics) -> (u64, u64) {
        let hops: u64 = statistics.volumes.iter().map(|of| of.writes).sum();
        let slow = statistics.volumes.iter().find(|of| of.volume == self.volume);
        (hops / u64::from(REPLICAS), slow.map_or(0, |of| of.writes))
    }
}

/// How writes went round the slow volume.
struct Round {
    /// When the first half second began in which they did.
    after: Duration,
    /// The part of all blocks that went through it all the same.
    part: f64,
}

fn merged(all: Vec<Latencies>) -> Result<Latencies> {
    let mut merged = Latencies::default();
    all.iter().for_each(|latencies| merged.merge(latencies));
    Ok(merged)
}

impl Case {
    fn new(pulses: Option<Pulses>) -> Self {
        Self {
            pulses,
            series: Series::new(SCENARIO, pulses.map_or("healthy", |pulses| pulses.name)),
            ranges: Latencies::default(),
            blocks: Latencies::default(),
            writes: Latencies::default(),
        }
    }

    async fn measure(&mut self, work: &Work<'_>) -> Result<()> {
        let before = work.client.statistics().await?;
        let stopper = self
            .pulses
            .map(|pulses| Stopper::start(work.pid, pulses))
            .transpose()?;
        let once = self.pulses.is_some_and(|pulses| pulses.once);
        if !once {
            let ranges = work.read(RANGE_READERS, transfer::RANGE_BYTES, work.seconds(SECONDS));
            self.ranges.merge(&ranges.await?);
            let blocks = work.read(BLOCK_READERS, BLOCK_BYTES, work.seconds(SECONDS));
            self.blocks.merge(&blocks.await?);
        }
        let lasting = match self.pulses {
            Some(pulses) if pulses.once => pulses.stopped,
            Some(_) => work.seconds(4 * SECONDS),
            None => work.seconds(SECONDS),
        };
        let (written, round) = tokio::join!(work.write(lasting), work.watch(lasting));
        let ((writes, rate), round) = (written?, round?);
        if let Some(stopper) = stopper {
            stopper.stop()?;
        }
        self.writes.merge(&writes);
        self.series.add("write rate", "MiB/s", rate);
        if self.pulses.is_some() {
            self.series
                .add("until writes go round", "s", round.after.as_secs_f64());
            self.series
                .add("blocks through the slow one", "%", 100.0 * round.part);
        }
        let after = work.client.statistics().await?;
        let reads = (after.reads - before.reads).max(1) as f64;
        let part = |count: u64| 100.0 * count as f64 / reads;
        let touched = |statistics: &Statistics| {
            let slow = statistics.volumes.iter().find(|of| of.volume == work.volume);
            slow.map_or(0, |of| of.reads)
        };
        if !once {
            self.series
                .add("hedged reads", "%", part(after.hedged - before.hedged));
            let reads_of_slow = touched(&after) - touched(&before);
            self.series.add("reads of the slow one", "%", part(reads_of_slow));
        }
        Ok(())
    }

    fn report(&mut self, healthy: &Self) {
        let all = [
            ("range", &self.ranges, &healthy.ranges),
            ("block", &self.blocks, &healthy.blocks),
            ("write", &self.writes, &healthy.writes),
        ];
        for (name, latencies, usual) in all.into_iter().filter(|(_, found, _)| found.count() > 0) {
            for (percentile, percentage) in PERCENTILES {
                let metric = format!("{name} {percentile}");
                self.series.add(&metric, "ms", latencies.ms(percentage));
            }
            if self.pulses.is_some() {
                let times = latencies.ms(99.0) / usual.ms(99.0).max(0.001);
                self.series
                    .add(&format!("{name} p99 over healthy"), "times", times);
            }
        }
    }
}

/// Stops a process again and again, on a thread of its own, until it is told to end; then the process runs.
struct Stopper {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<rustix::io::Result<()>>>,
}

impl Stopper {
    fn start(pid: Pid, pulses: Pulses) -> Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let told = end.clone();
        let thread = std::thread::Builder::new()
            .name("stopper".into())
            .spawn(move || {
                let mut stopping = Ok(());
                while stopping.is_ok() && !told.load(Ordering::Relaxed) {
                    stopping = kill_process(pid, Signal::STOP);
                    sleep_unless(&told, pulses.stopped);
                    stopping = stopping.and(kill_process(pid, Signal::CONT));
                    sleep_unless(&told, pulses.running);
                }
                stopping
            })?;
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }

    /// Ends it.
    fn stop(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        thread.thread().unpark();
        let ended = thread
            .join()
            .map_err(|_| anyhow::anyhow!("the stopper panicked"))?;
        ended.context("the dataserver can't be stopped")
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        // A measurement that failed tells why by itself.
        let _ = self.join();
    }
}

/// Sleeps, but no longer once it is to end.
fn sleep_unless(end: &AtomicBool, how_long: Duration) {
    let until = Instant::now() + how_long;
    while !end.load(Ordering::Relaxed)
        && let Some(left) = until.checked_duration_since(Instant::now())
    {
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_stopped_and_runs_again() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        let pulses = Pulses {
            name: "for ever",
            stopped: Duration::from_secs(1000),
            running: Duration::ZERO,
            once: true,
        };
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let stopper = Stopper::start(pid, pulses).unwrap();
        while state() != 'T' {
            std::thread::sleep(Duration::from_millis(1));
        }
        stopper.stop().unwrap();
        while state() == 'T' {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
