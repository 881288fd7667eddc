//! `engine`: one volume in this process, durable puts and verified gets, beside fio at the same depth.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::checksum::unit_crcs;
use blockyard_engine::{BlockBuffer, Lane, LaneOptions, Options, PoolOptions, Volume, exec};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rand::seq::SliceRandom as _;

use super::cluster::add_percentiles;
use super::{BLOCK_BYTES, GIB, MIB, fio_folder};
use crate::context::{Context, drop_page_cache};
use crate::fio::{self, Job};
use crate::latency::Latencies;
use crate::process;
use crate::report::Series;
use crate::workload::{Pool, Source};

const SCENARIO: &str = "engine";
const DEPTHS: [u32; 3] = [1, 4, 16];
const LENGTHS: [(&str, u64); 2] = [("4 MiB", BLOCK_BYTES), ("64 KiB", 64 << 10)];

/// One block length at one depth.
struct Case {
    length_bytes: u64,
    depth: u32,
    blocks: u64,
    put: Series,
    get: Series,
    limit_put: Series,
    limit_get: Series,
    put_latencies: Latencies,
    get_latencies: Latencies,
}

/// What every block of a case holds, and the CRC of each of its units.
struct Template {
    data: Vec<u8>,
    crcs: Vec<u32>,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let fio = context.has_tool("fio")?;
    let size_bytes = context.flags.size_bytes();
    context.check_space(3 * size_bytes + (2 << 30))?;
    let fio_folder = fio_folder(context)?;
    let mut cases = Vec::new();
    for (name, length_bytes) in LENGTHS {
        cases.extend(DEPTHS.map(|depth| Case::new(name, length_bytes, depth, size_bytes)));
    }
    let volume = open(
        context,
        &context.folder.path().join("volume"),
        size_bytes + (1 << 30),
    )?;
    let pool = Pool::new(64 << 20);
    let mut next_block = 0;
    for round in 0..=context.flags.rounds() {
        context.say(format_args!("round {round} of {}", context.flags.rounds()));
        for case in &mut cases {
            let template = template(&pool, u64::from(round), case.length_bytes)?;
            case.round(
                context,
                &volume,
                &template,
                fio.then_some(&fio_folder),
                &mut next_block,
                round > 0,
            )?;
        }
    }
    exec::run(&volume, volume.close()).context("closing the volume")?;
    for case in &mut cases {
        add_percentiles(&mut case.put, "latency", &case.put_latencies);
        add_percentiles(&mut case.get, "latency", &case.get_latencies);
        case.put.limit("throughput", case.limit_put.median("throughput"));
        case.get.limit("throughput", case.limit_get.median("throughput"));
        for series in [&case.limit_put, &case.put, &case.limit_get, &case.get] {
            context.report.series(series);
        }
    }
    Ok(())
}

/// A fresh volume with room for `capacity_bytes` and buffers for the deepest case.
fn open(context: &mut Context, folder: &Path, capacity_bytes: u64) -> Result<Volume> {
    let cluster = [0x50; 16];
    Volume::format(folder, cluster).context("formatting a volume")?;
    let lane = LaneOptions { large: 20, small: 40 };
    let mut options = Options::new(folder);
    options.capacity_bytes = capacity_bytes;
    options.pool = PoolOptions {
        head: lane,
        read: lane,
        ..PoolOptions::small()
    };
    let (volume, opened) = Volume::open(options, Some(cluster)).context("opening a volume")?;
    for note in opened.notes {
        context.report.note(format!("engine: {note}"));
    }
    Ok(volume)
}

fn template(pool: &Pool, number: u64, length_bytes: u64) -> Result<Template> {
    let mut data = Vec::new();
    let mut source = Source::new(pool.file(number, length_bytes), None);
    super::runtime()?.block_on(tokio::io::AsyncReadExt::read_to_end(&mut source, &mut data))?;
    let crcs = unit_crcs(&data);
    Ok(Template { data, crcs })
}

/// A buffer with the template in it, each unit's CRC computed once. A pool buffer that still holds the template
/// from the put before is left as it is: a socket would have written there, and its copy is not the engine's.
async fn filled(volume: &Volume, template: &Template) -> blockyard_engine::Result<BlockBuffer> {
    let length = template.data.len();
    let mut buffer = volume.acquire(Lane::Head, length as u32).await?;
    let mut chunk = buffer.take_chunk(length as u32)?;
    let (held, wanted) = (chunk.as_mut(), template.data.as_slice());
    let probes = [0, length / 2, length - 64];
    if probes.iter().any(|&at| held[at..at + 64] != wanted[at..at + 64]) {
        held.copy_from_slice(wanted);
    }
    buffer.commit(chunk, &template.crcs)?;
    Ok(buffer)
}

impl Case {
    fn new(name: &str, length_bytes: u64, depth: u32, size_bytes: u64) -> Self {
        // Small durable blocks one by one take a flush each: fewer of them take as long.
        let bytes = match length_bytes {
            BLOCK_BYTES => size_bytes / 2,
            _ => size_bytes / 4 * u64::from(depth) / 16,
        };
        let at = format!("{name}, depth {depth}");
        Self {
            length_bytes,
            depth,
            blocks: (bytes / length_bytes).max(u64::from(depth)),
            put: Series::new(SCENARIO, format!("put {at}")),
            get: Series::new(SCENARIO, format!("get {at}")),
            limit_put: Series::new(SCENARIO, format!("limit: fio {} {at}", put_job(length_bytes).1)),
            limit_get: Series::new(SCENARIO, format!("limit: fio {} {at}", get_job(length_bytes).1)),
            put_latencies: Latencies::default(),
            get_latencies: Latencies::default(),
        }
    }

    /// fio, puts, fio, gets, and the blocks are deleted: after the warm-up, puts fill recycled slots.
    fn round(
        &mut self,
        context: &Context,
        volume: &Volume,
        template: &Template,
        fio: Option<&std::path::PathBuf>,
        next_block: &mut u64,
        counts: bool,
    ) -> Result<()> {
        let ids: Vec<BlockId> = (*next_block..*next_block + self.blocks)
            .map(|counter| BlockId::new(1, counter).context("block ids ran out"))
            .collect::<Result<_>>()?;
        *next_block += self.blocks;
        let shape = fio::Shape {
            block_bytes: self.length_bytes,
            depth: self.depth,
            size_bytes: self.blocks * self.length_bytes,
        };
        if let Some(folder) = fio {
            let figures = fio::run(folder, put_job(self.length_bytes).0, shape)?;
            add_limit(&mut self.limit_put, &figures, counts);
        }
        let disk = || context.disk.as_ref()?.counters()?.flushes;
        let (flushes, own) = (disk(), volume.stat().flushes);
        let (wall_s, cpu_s, latencies) = self.put_all(volume, template, &ids)?;
        if counts {
            self.put_latencies.merge(&latencies);
            let blocks = self.blocks as f64;
            add(
                &mut self.put,
                blocks * self.length_bytes as f64,
                blocks,
                wall_s,
                cpu_s,
            );
            if let Some((after, before)) = disk().zip(flushes) {
                self.put.add(
                    "disk flushes",
                    "per block",
                    after.saturating_sub(before) as f64 / blocks,
                );
            }
            let own = volume.stat().flushes - own;
            self.put.add(
                "flushes by the volume's own count",
                "per block",
                own as f64 / blocks,
            );
        }
        if let Some(folder) = fio {
            let figures = fio::run(folder, get_job(self.length_bytes).0, shape)?;
            add_limit(&mut self.limit_get, &figures, counts);
        }
        drop_page_cache();
        let mut order = ids.clone();
        if self.length_bytes < BLOCK_BYTES {
            order.shuffle(&mut rand::rng());
        }
        let (wall_s, cpu_s, latencies) = self.get_all(volume, template, &order)?;
        if counts {
            self.get_latencies.merge(&latencies);
            let blocks = self.blocks as f64;
            add(
                &mut self.get,
                blocks * self.length_bytes as f64,
                blocks,
                wall_s,
                cpu_s,
            );
        }
        for some in ids.chunks(1024) {
            exec::run(volume, volume.delete(some)).context("deleting")?;
        }
        Ok(())
    }

    fn put_all(
        &self,
        volume: &Volume,
        template: &Template,
        ids: &[BlockId],
    ) -> Result<(f64, f64, Latencies)> {
        let mut latencies = Latencies::default();
        let (started, cpu_s) = (Instant::now(), process::own_cpu_s());
        let puts = stream::iter(ids).map(|&id| async move {
            let buffer = filled(volume, template).await?;
            let started = Instant::now();
            volume.put(id, Origin::default(), buffer).await?;
            Ok::<_, blockyard_engine::Error>(started.elapsed())
        });
        exec::run(
            volume,
            puts.buffer_unordered(self.depth as usize)
                .try_for_each(|latency| {
                    latencies.record(latency);
                    std::future::ready(Ok(()))
                }),
        )
        .context("a put")?;
        Ok((
            started.elapsed().as_secs_f64(),
            process::own_cpu_s() - cpu_s,
            latencies,
        ))
    }

    fn get_all(
        &self,
        volume: &Volume,
        template: &Template,
        ids: &[BlockId],
    ) -> Result<(f64, f64, Latencies)> {
        let mut latencies = Latencies::default();
        let (started, cpu_s) = (Instant::now(), process::own_cpu_s());
        let gets = stream::iter(ids).map(|&id| async move {
            let started = Instant::now();
            let verified = volume.get(id, 0, template.data.len() as u32, Lane::Read).await?;
            Ok::<_, blockyard_engine::Error>((started.elapsed(), verified.unit_crcs == template.crcs))
        });
        exec::run(
            volume,
            gets.buffer_unordered(self.depth as usize)
                .map_err(anyhow::Error::from)
                .try_for_each(|(latency, same)| {
                    latencies.record(latency);
                    std::future::ready(if same {
                        Ok(())
                    } else {
                        Err(anyhow::anyhow!("other bytes came back"))
                    })
                }),
        )
        .context("a get")?;
        Ok((
            started.elapsed().as_secs_f64(),
            process::own_cpu_s() - cpu_s,
            latencies,
        ))
    }
}

fn put_job(length_bytes: u64) -> (Job, &'static str) {
    if length_bytes == BLOCK_BYTES {
        (Job::Write, "write")
    } else {
        (Job::RandWrite, "randwrite with fdatasync")
    }
}

fn get_job(length_bytes: u64) -> (Job, &'static str) {
    if length_bytes == BLOCK_BYTES {
        (Job::Read, "read")
    } else {
        (Job::RandRead, "randread")
    }
}

fn add_limit(series: &mut Series, figures: &fio::Figures, counts: bool) {
    if counts {
        super::limits::add_fio(series, figures);
    }
}

fn add(series: &mut Series, bytes: f64, blocks: f64, wall_s: f64, cpu_s: f64) {
    series.add("throughput", "MiB/s", bytes / MIB / wall_s);
    series.add("operations", "1/s", blocks / wall_s);
    series.add("cpu", "s/GiB", cpu_s / (bytes / GIB));
}
