//! One block length at one depth: puts by kind of segment and gets, each with fio just before it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use blockyard_engine::Volume;
use blockyard_engine::block::BlockId;
use rand::seq::SliceRandom as _;

use super::super::common::add_percentiles;
use super::super::{BLOCK_BYTES, GIB, MIB};
use super::{DEPTHS, Length, SCENARIO, SMALL_BYTES, TIMED};
use crate::context::Context;
use crate::disk::Disk;
use crate::fio::{self, Job};
use crate::latency::Latencies;
use crate::process;
use crate::report::Series;
use crate::volume;

/// The fewest small puts that are worth timing.
const PUTS_MIN: u64 = 512;

/// What puts are written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Segments {
    /// Slots that were written before.
    Recycled,
    /// Extents that the filesystem has set aside and nobody has written.
    Fresh,
    /// Slots that an idle volume has filled with zeros ahead of need.
    ZeroFilled,
}

impl Segments {
    const ALL: [Self; 3] = [Self::Recycled, Self::ZeroFilled, Self::Fresh];

    fn name(self) -> &'static str {
        match self {
            Self::Recycled => "recycled",
            Self::Fresh => "fresh",
            Self::ZeroFilled => "zero-filled",
        }
    }
}

/// What a round works with.
pub(super) struct Session<'a> {
    pub fio: Option<&'a PathBuf>,
    pub disk: Option<&'a Disk>,
    pub lengths: &'a [Length],
    pub next_block: &'a mut u64,
    /// Whether this is not the warm-up.
    pub counts: bool,
}

pub(super) struct Case {
    length_bytes: u64,
    depth: u32,
    /// How many blocks a round puts.
    puts: u64,
    put: Vec<(Segments, Timed)>,
    get: Vec<(Reads, Timed)>,
    limit_put: Series,
    limit_get: Series,
    /// fio with huge pages and registered buffers, where the machine has set such pages aside.
    huge_put: Series,
    huge_get: Series,
}

/// What is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reads {
    /// Blocks of the case's own length, whole.
    Whole,
    /// Ranges of that length of 4 MiB blocks.
    Ranges,
}

/// Rows of something that is timed.
pub(super) struct Timed {
    pub series: Series,
    pub latencies: Latencies,
}

impl Timed {
    pub(super) fn new(case: String) -> Self {
        Self {
            series: Series::new(SCENARIO, case),
            latencies: Latencies::default(),
        }
    }

    /// Times `work` on `blocks` blocks; whether the time counts is `counts`.
    pub(super) fn time(
        &mut self,
        counts: bool,
        blocks: u64,
        length_bytes: u64,
        work: impl FnOnce(&mut Latencies) -> Result<()>,
    ) -> Result<()> {
        let mut latencies = Latencies::default();
        let (started, cpu_s) = (Instant::now(), process::own_cpu_s());
        work(&mut latencies)?;
        let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), process::own_cpu_s() - cpu_s);
        if counts {
            let (blocks, bytes) = (blocks as f64, (blocks * length_bytes) as f64);
            self.latencies.merge(&latencies);
            self.series.add("throughput", "MiB/s", bytes / MIB / wall_s);
            self.series.add("operations", "1/s", blocks / wall_s);
            self.series.add("cpu", "s/GiB", cpu_s / (bytes / GIB));
        }
        Ok(())
    }

    pub(super) fn report(&mut self, context: &mut Context, limit: Option<f64>) {
        add_percentiles(&mut self.series, "latency", &self.latencies);
        self.series.limit("throughput", limit);
        context.report.series(&self.series);
    }
}

impl Case {
    pub(super) fn new(length: &Length, depth: u32) -> Self {
        let at = format!("{}, depth {depth}", length.name);
        let (large, kept) = (length.bytes == BLOCK_BYTES, length.kept.len() as u64);
        // Small durable blocks one by one take a flush each: fewer of them take as long.
        let puts = if large {
            kept
        } else {
            (kept * u64::from(depth) / u64::from(DEPTHS[2]))
                .max(PUTS_MIN)
                .min(kept)
        };
        let (limit_put, limit_get) = if large {
            ("write", "read")
        } else {
            ("randwrite with fdatasync", "randread")
        };
        let mut get = vec![(Reads::Whole, Timed::new(format!("get {at}")))];
        if length.bytes == SMALL_BYTES {
            get.push((
                Reads::Ranges,
                Timed::new(format!("range {} of 4 MiB, depth {depth}", length.name)),
            ));
        }
        Self {
            length_bytes: length.bytes,
            depth,
            puts: puts.max(u64::from(depth)),
            put: Segments::ALL
                .map(|segments| (segments, Timed::new(format!("put {at}, {}", segments.name()))))
                .into(),
            get,
            limit_put: Series::new(SCENARIO, format!("limit: fio {limit_put} {at}")),
            limit_get: Series::new(SCENARIO, format!("limit: fio {limit_get} {at}")),
            huge_put: Series::new(SCENARIO, format!("put {at}, fio with huge pages")),
            huge_get: Series::new(SCENARIO, format!("get {at}, fio with huge pages")),
        }
    }

    /// Bytes that one round puts on one volume.
    pub(super) fn put_bytes(&self) -> u64 {
        self.puts * self.length_bytes
    }

    /// fio, then puts on segments of one kind; the blocks are deleted.
    pub(super) fn put(&mut self, session: &mut Session, on: &Volume, segments: Segments) -> Result<()> {
        let job = if self.length_bytes == BLOCK_BYTES {
            Job::Write
        } else {
            Job::RandWrite
        };
        let shape = self.shape(self.puts);
        run_fio(session, job, shape, &mut self.limit_put, fio::run)?;
        if segments == Segments::Recycled && fio::has_huge_pages(shape) {
            run_fio(session, job, shape, &mut self.huge_put, fio::run_huge)?;
        }
        let ids = volume::ids(TIMED, *session.next_block, self.puts)?;
        *session.next_block += self.puts;
        let (puts, length_bytes, depth) = (self.puts, self.length_bytes, self.depth as usize);
        let content = &find(session.lengths, length_bytes).content;
        let Some((_, timed)) = self.put.iter_mut().find(|(kind, _)| *kind == segments) else {
            return Ok(());
        };
        let flushes = || session.disk?.counters()?.flushes;
        let (before, own) = (flushes(), on.stat().flushes);
        timed.time(session.counts, puts, length_bytes, |latencies| {
            volume::put_all(on, content, &ids, depth, latencies)
        })?;
        if session.counts {
            let per_block = |count: u64| count as f64 / puts as f64;
            if let Some((after, before)) = flushes().zip(before) {
                let count = per_block(after.saturating_sub(before));
                timed.series.add("disk flushes", "per block", count);
            }
            let own = per_block(on.stat().flushes - own);
            timed
                .series
                .add("flushes by the volume's own count", "per block", own);
        }
        // Other segments are written once: what they hold goes with their volume.
        if segments == Segments::Recycled {
            volume::delete_all(on, &ids)?;
        }
        Ok(())
    }

    /// fio, then gets of the blocks that stay on the volume.
    pub(super) fn get(&mut self, session: &mut Session, on: &Volume) -> Result<()> {
        let job = if self.length_bytes == BLOCK_BYTES {
            Job::Read
        } else {
            Job::RandRead
        };
        let reads = find(session.lengths, self.length_bytes).kept.len() as u64;
        let (length_bytes, depth, shape) = (self.length_bytes, self.depth as usize, self.shape(reads));
        for (what, timed) in &mut self.get {
            run_fio(session, job, shape, &mut self.limit_get, fio::run)?;
            if *what == Reads::Whole && fio::has_huge_pages(shape) {
                run_fio(session, job, shape, &mut self.huge_get, fio::run_huge)?;
            }
            let source = match what {
                Reads::Whole => find(session.lengths, length_bytes),
                Reads::Ranges => find(session.lengths, BLOCK_BYTES),
            };
            let mut places: Vec<(BlockId, usize)> = source
                .kept
                .iter()
                .flat_map(|&id| {
                    (0..source.bytes)
                        .step_by(length_bytes as usize)
                        .map(move |at| (id, at as usize))
                })
                .collect();
            if length_bytes < BLOCK_BYTES {
                places.shuffle(&mut rand::rng());
            }
            places.truncate(reads as usize);
            timed.time(session.counts, places.len() as u64, length_bytes, |latencies| {
                volume::get_all(
                    on,
                    &source.content,
                    &places,
                    length_bytes as usize,
                    depth,
                    latencies,
                )
            })?;
        }
        Ok(())
    }

    fn shape(&self, blocks: u64) -> fio::Shape {
        fio::Shape {
            block_bytes: self.length_bytes,
            depth: self.depth,
            size_bytes: blocks * self.length_bytes,
        }
    }

    pub(super) fn report(&mut self, context: &mut Context) {
        let limit = self.limit_put.median("throughput");
        context.report.series(&self.limit_put);
        self.huge_put.limit("throughput", limit);
        context.report.series(&self.huge_put);
        self.put
            .iter_mut()
            .for_each(|(_, timed)| timed.report(context, limit));
        let limit = self.limit_get.median("throughput");
        context.report.series(&self.limit_get);
        self.huge_get.limit("throughput", limit);
        context.report.series(&self.huge_get);
        self.get
            .iter_mut()
            .for_each(|(_, timed)| timed.report(context, limit));
    }
}

fn find(lengths: &[Length], bytes: u64) -> &Length {
    let found = lengths.iter().find(|length| length.bytes == bytes);
    found.expect("cases are made from these lengths")
}

fn run_fio(
    session: &Session,
    job: Job,
    shape: fio::Shape,
    limit: &mut Series,
    run: fn(&Path, Job, fio::Shape) -> Result<fio::Figures>,
) -> Result<()> {
    if let Some(folder) = session.fio {
        let figures = run(folder, job, shape)?;
        if session.counts {
            super::super::beside::add_fio(limit, &figures);
        }
    }
    Ok(())
}
