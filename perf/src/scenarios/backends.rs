//! `backends`: the same durable writes and verified reads through the engine and through other ways to the disk.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{BLOCK_BYTES, GIB, MIB, fio_folder};
use crate::backends::{self, Figures, Side, Way, Work};
use crate::child;
use crate::context::Context;
use crate::fio;
use crate::latency::PERCENTILES;
use crate::report::Series;

const SCENARIO: &str = "backends";
const DEPTHS: [u32; 3] = [1, 4, 16];
const LENGTHS: [(&str, u64); 2] = [("4 MiB", BLOCK_BYTES), ("64 KiB", 64 << 10)];
/// The fewest small writes that are worth timing.
const WRITES_MIN: u64 = 256;

/// One block length at one depth, by every way.
struct Case {
    shape: fio::Shape,
    work: Work,
    ways: Vec<(Way, Series, Series)>,
    limit_write: Series,
    limit_read: Series,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let fio = context.has_tool("fio")?;
    let size_bytes = context.flags.size_bytes();
    context.check_space(3 * size_bytes + (2 << 30))?;
    let fio_folder = fio_folder(context)?;
    let folder = context.folder.path().to_owned();
    let mut cases = Vec::new();
    for (name, block_bytes) in LENGTHS {
        cases.extend(DEPTHS.map(|depth| Case::new(name, block_bytes, depth, size_bytes)));
    }
    for case in cases.chunks(DEPTHS.len()).map(|same_length| &same_length[0]) {
        for way in [Way::Blockyard, Way::IoUring] {
            backends::prepare(way, &case.work_for(way, &folder, 0))?;
        }
    }
    let mut number = 0;
    let warm_up = u32::from(!context.flags.quick);
    for round in 1 - warm_up..=context.flags.rounds() {
        context.say(format_args!("round {round} of {}", context.flags.rounds()));
        for case in &mut cases {
            number += 1;
            case.round(&folder, number, fio.then_some(&fio_folder), round > 0)?;
        }
    }
    for case in &mut cases {
        case.finish(context);
    }
    context.report.note(
        "backends: each way in a process of its own; CRC32C of every 64 KiB written and read; one flush for each \
         batch of `depth` writes, before any of it is acknowledged. O_DIRECT on a written file, but for mmap, which \
         has the page cache (msync a batch, reads from a dropped cache). fio's 4 MiB writes are not flushed, its \
         64 KiB writes once a batch",
    );
    Ok(())
}

impl Case {
    fn new(name: &str, block_bytes: u64, depth: u32, size_bytes: u64) -> Self {
        let large = block_bytes == BLOCK_BYTES;
        let bytes = if large { size_bytes / 2 } else { size_bytes / 4 };
        let multiple = |blocks: u64| blocks.next_multiple_of(u64::from(depth));
        let blocks = (bytes / block_bytes).next_multiple_of(u64::from(DEPTHS[2]));
        // Small durable writes one by one take a flush each: fewer of them take as long.
        let writes = if large {
            blocks
        } else {
            multiple((blocks * u64::from(depth) / 16).max(WRITES_MIN)).min(blocks)
        };
        let case =
            |what: &str, way: &str| Series::new(SCENARIO, format!("{what} {name}, depth {depth}, {way}"));
        Self {
            shape: fio::Shape {
                block_bytes,
                depth,
                size_bytes: blocks * block_bytes,
            },
            work: Work {
                path: PathBuf::new(),
                block_bytes: block_bytes as usize,
                blocks,
                writes,
                reads: blocks,
                depth: depth as usize,
                number: 0,
            },
            ways: Way::ALL
                .map(|way| (way, case("write", way.name()), case("read", way.name())))
                .into(),
            limit_write: case("limit: fio write", "fio"),
            limit_read: case("limit: fio read", "fio"),
        }
    }

    fn work_for(&self, way: Way, folder: &Path, number: u32) -> Work {
        let kind = if way == Way::Blockyard { "volume" } else { "file" };
        Work {
            path: folder.join(format!("{kind}-{}", self.work.block_bytes)),
            number,
            ..self.work.clone()
        }
    }

    /// fio and every way once, each round beginning with another way.
    fn round(&mut self, folder: &Path, number: u32, fio: Option<&PathBuf>, counts: bool) -> Result<()> {
        if let Some(folder) = fio {
            let large = self.shape.block_bytes == BLOCK_BYTES;
            let (write, read) = if large {
                (fio::Job::Write, fio::Job::Read)
            } else {
                (fio::Job::RandWrite, fio::Job::RandRead)
            };
            // As many writes as the others do: a flush each takes long.
            let mut shape = self.shape;
            shape.size_bytes = self.work.writes * shape.block_bytes;
            let figures = [
                fio::run(folder, write, shape)?,
                fio::run(folder, read, self.shape)?,
            ];
            for (series, figures) in [&mut self.limit_write, &mut self.limit_read]
                .into_iter()
                .zip(&figures)
            {
                if counts {
                    super::beside::add_fio(series, figures);
                }
            }
        }
        let first = number as usize % self.ways.len();
        for at in 0..self.ways.len() {
            let at = (first + at) % self.ways.len();
            let way = self.ways[at].0;
            let work = self.work_for(way, folder, number);
            let figures: Figures = child::run(&child::Job::Backend(backends::Job { way, work }))?;
            if counts {
                let (_, write, read) = &mut self.ways[at];
                add(write, &figures.write);
                add(read, &figures.read);
                write.add("peak memory", "MiB", figures.peak_rss_bytes as f64 / MIB);
            }
        }
        Ok(())
    }

    fn finish(&mut self, context: &mut Context) {
        context.report.series(&self.limit_write);
        for (_, write, _) in &mut self.ways {
            write.limit("throughput", self.limit_write.median("throughput"));
            context.report.series(write);
        }
        context.report.series(&self.limit_read);
        for (_, _, read) in &mut self.ways {
            read.limit("throughput", self.limit_read.median("throughput"));
            context.report.series(read);
        }
    }
}

fn add(series: &mut Series, side: &Side) {
    let bytes = side.bytes as f64;
    series.add("throughput", "MiB/s", bytes / MIB / side.wall_s);
    series.add("operations", "1/s", side.blocks as f64 / side.wall_s);
    series.add("cpu", "s/GiB", side.cpu_s / (bytes / GIB));
    for ((name, _), ms) in PERCENTILES.iter().zip(&side.percentiles_ms) {
        series.add(&format!("latency {name}"), "ms", *ms);
    }
}
