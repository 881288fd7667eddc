//! `cluster`: replicated, durable uploads and cold downloads of large files, beside fio and iperf3.

use std::path::PathBuf;

use anyhow::Result;
use blockyard_client::Client;
use blockyard_client::types::FileInfo;

use super::limits::add_fio;
use super::transfer::{self, Planned};
use super::{BLOCK_BYTES, GIB, MIB, fio_folder, runtime};
use crate::bars::{UploadLimit, flushes_floor};
use crate::context::{Context, drop_page_cache};
use crate::fio::{self, Job};
use crate::latency::{Latencies, PERCENTILES};
use crate::meter::{Meter, Used};
use crate::nodes::{self, Nodes};
use crate::report::Series;
use crate::workload::Pool;
use crate::{binary, iperf, process};

const SCENARIO: &str = "cluster";
const OTHER_LOAD: &str = "other load";
const REPLICAS: u32 = 2;
const DATASERVERS: usize = 2;
/// Blocks that the client keeps in flight for each stream (its default).
const BLOCKS_IN_FLIGHT: u32 = 4;
/// Random bytes that files are cut from: more than the processor's caches hold.
const POOL_BYTES: usize = 256 << 20;

/// The figures of one number of streams.
struct Case {
    streams: u32,
    upload: Series,
    download: Series,
    blocks: Latencies,
    uploads: Latencies,
    first_bytes: Latencies,
    downloads: Latencies,
}

/// The machine's limits, a series each; empty without the tools.
struct Limits {
    folder: PathBuf,
    fio: bool,
    iperf3: bool,
    write: Series,
    read: Series,
    network: Series,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let (fio, iperf3) = (context.has_tool("fio")?, context.has_tool("iperf3")?);
    let mut limits = Limits {
        folder: fio_folder(context)?,
        fio,
        iperf3,
        write: Series::new(SCENARIO, "limit: fio write 4 MiB, depth 4"),
        read: Series::new(SCENARIO, "limit: fio read 4 MiB, depth 4"),
        network: Series::new(SCENARIO, "limit: iperf3 on loopback"),
    };
    let mut cases: Vec<Case> = context
        .flags
        .streams
        .iter()
        .map(|&streams| Case::new(streams))
        .collect();
    let round_bytes: u64 = cases.iter().map(|case| case.bytes(context)).sum();
    let rounds = u64::from(context.flags.rounds()) + 1;
    // Removed files keep their slots until the last read ticket has expired, longer than a run: nothing is reused.
    let volume_bytes = round_bytes * rounds * 21 / 20 + (1 << 30);
    context.check_space(u64::from(REPLICAS) * volume_bytes + context.flags.size_bytes())?;
    let shape = nodes::Shape {
        dataservers: DATASERVERS,
        replication: REPLICAS as u8,
        capacity_bytes: volume_bytes,
    };
    let binary = binary::find(context.flags.blockyard.as_deref())?;
    context.say(format_args!("measuring {}", binary.display()));
    let pool = Pool::new(POOL_BYTES);
    let folder = context.folder.path().join("cluster");
    std::fs::create_dir_all(&folder)?;
    runtime()?.block_on(async {
        let nodes = Nodes::start(&binary, &folder, shape).await?;
        let mut outcome = Ok(());
        for round in 0..rounds as u32 {
            context.say(format_args!("round {round} of {}", rounds - 1));
            outcome = measure_round(context, &nodes, &pool, &mut limits, &mut cases, round).await;
            if outcome.is_err() {
                break;
            }
        }
        finish(context, &limits, &mut cases);
        outcome.map_err(|error| nodes.explain(error))?;
        memory_rows(context, &nodes)
    })
}

/// One round: every limit and every case once, the limits in between. Round 0 warms up, and compares every byte.
async fn measure_round(
    context: &mut Context,
    nodes: &Nodes,
    pool: &Pool,
    limits: &mut Limits,
    cases: &mut [Case],
    round: u32,
) -> Result<()> {
    let counts = round > 0;
    let plans: Vec<Vec<Planned>> = cases.iter().map(|case| case.plan(context, round)).collect();
    let mut uploaded: Vec<Vec<FileInfo>> = Vec::new();
    let clients = clients(context, nodes).await?;
    limits.disk(context, Job::Write, counts)?;
    for (case, plan) in cases.iter_mut().zip(&plans) {
        uploaded.push(case.upload(context, nodes, &clients, pool, plan, counts).await?);
    }
    limits.disk(context, Job::Read, counts)?;
    if !counts {
        for plan in &plans {
            transfer::compare(&clients[0], pool, plan).await?;
        }
    }
    for (case, files) in cases.iter_mut().zip(&uploaded) {
        if !drop_page_cache() {
            context.report.note(
                "the page cache can't be dropped (only root may); dataservers read past it all the same",
            );
        }
        case.download(context, nodes, &clients, files, counts).await?;
    }
    limits.network(context, counts)?;
    for client in clients {
        client.close().await;
    }
    Ok(())
}

/// One client for all streams, or one for each.
async fn clients(context: &Context, nodes: &Nodes) -> Result<Vec<Client>> {
    let most = context.flags.streams.iter().copied().max().unwrap_or(1);
    let count = if context.flags.client_per_stream { most } else { 1 };
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(nodes.client().await?);
    }
    Ok(clients)
}

fn folder_of(round: u32) -> String {
    format!("/perf-{round}")
}

impl Limits {
    fn disk(&mut self, context: &Context, job: Job, counts: bool) -> Result<()> {
        if !self.fio {
            return Ok(());
        }
        let shape = fio::Shape {
            block_bytes: BLOCK_BYTES,
            depth: 4,
            size_bytes: context.flags.size_bytes(),
        };
        let figures = fio::run(&self.folder, job, shape)?;
        if counts {
            add_fio(
                if job == Job::Write {
                    &mut self.write
                } else {
                    &mut self.read
                },
                &figures,
            );
        }
        Ok(())
    }

    fn network(&mut self, context: &Context, counts: bool) -> Result<()> {
        if !self.iperf3 {
            return Ok(());
        }
        let figures = iperf::run(if context.flags.quick { 1 } else { 2 })?;
        if counts {
            self.network.add("throughput", "MiB/s", figures.mib_per_s);
            self.network.add("cpu", "s/GiB", figures.cpu_s_per_gib);
        }
        Ok(())
    }

    /// MiB/s that the machine allows an upload, where both limits were measured.
    fn upload_mib_per_s(&self, cores: u32) -> Option<f64> {
        let limit = UploadLimit {
            fio_write_mib_per_s: self.write.median("throughput")?,
            replicas: REPLICAS,
            cores,
            hops: REPLICAS,
            iperf_cpu_s_per_gib: self.network.median("cpu")?,
        };
        Some(limit.mib_per_s())
    }
}

impl Case {
    fn new(streams: u32) -> Self {
        let plural = if streams == 1 { "stream" } else { "streams" };
        Self {
            streams,
            upload: Series::new(SCENARIO, format!("upload, {streams} {plural}")),
            download: Series::new(SCENARIO, format!("download, {streams} {plural}")),
            blocks: Latencies::default(),
            uploads: Latencies::default(),
            first_bytes: Latencies::default(),
            downloads: Latencies::default(),
        }
    }

    /// Bytes of each stream: whole blocks.
    fn file_bytes(&self, context: &Context) -> u64 {
        (context.flags.size_bytes() / u64::from(self.streams) / BLOCK_BYTES).max(1) * BLOCK_BYTES
    }

    fn bytes(&self, context: &Context) -> u64 {
        self.file_bytes(context) * u64::from(self.streams)
    }

    fn plan(&self, context: &Context, round: u32) -> Vec<Planned> {
        let length_bytes = self.file_bytes(context);
        let planned = |stream: u32| Planned {
            path: format!("{}/{}-streams/{stream}", folder_of(round), self.streams),
            number: (u64::from(round) * 1000 + u64::from(self.streams)) * 1000 + u64::from(stream),
            length_bytes,
        };
        (0..self.streams).map(planned).collect()
    }

    async fn upload(
        &mut self,
        context: &Context,
        nodes: &Nodes,
        clients: &[Client],
        pool: &Pool,
        plan: &[Planned],
        counts: bool,
    ) -> Result<Vec<FileInfo>> {
        let claimed = nodes::claimed_flushes(&clients[0].status().await?);
        let meter = Meter::start(&nodes.servers(), context.disk.as_ref())?;
        let outcome = transfer::upload(clients, pool, plan).await;
        let used = meter.stop()?;
        nodes.check()?;
        let outcome = outcome?;
        // What volumes say comes with their next heartbeats.
        let pause_ms = 2 * u64::from(clients[0].cluster().await?.heartbeat_ms);
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        let claimed = nodes::claimed_flushes(&clients[0].status().await?).saturating_sub(claimed);
        if counts {
            let bytes = self.bytes(context) as f64;
            let blocks = bytes / BLOCK_BYTES as f64;
            add_common(&mut self.upload, context, &used, bytes);
            if let Some(disk) = used.disk {
                if let Some(flushes) = disk.flushes {
                    self.upload
                        .add("disk flushes", "per block", flushes as f64 / blocks);
                }
                self.upload
                    .add("disk writes", "bytes per byte", disk.written_bytes as f64 / bytes);
            }
            self.upload.add(
                "flushes by the volumes' own count",
                "per block",
                claimed as f64 / blocks,
            );
            self.blocks.merge(&outcome.blocks);
            self.uploads.merge(&outcome.whole_files);
        }
        Ok(outcome.files)
    }

    async fn download(
        &mut self,
        context: &Context,
        nodes: &Nodes,
        clients: &[Client],
        files: &[FileInfo],
        counts: bool,
    ) -> Result<()> {
        let meter = Meter::start(&nodes.servers(), context.disk.as_ref())?;
        let outcome = transfer::download(clients, files).await;
        let used = meter.stop()?;
        nodes.check()?;
        let outcome = outcome?;
        if counts {
            let bytes = self.bytes(context) as f64;
            add_common(&mut self.download, context, &used, bytes);
            if let Some(disk) = used.disk {
                self.download
                    .add("disk reads", "bytes per byte", disk.read_bytes as f64 / bytes);
            }
            self.first_bytes.merge(&outcome.first_bytes);
            self.downloads.merge(&outcome.whole_files);
        }
        Ok(())
    }
}

/// Throughput, CPU by process, and what else the machine was busy with.
pub(super) fn add_common(series: &mut Series, context: &Context, used: &Used, bytes: f64) {
    series.add("throughput", "MiB/s", bytes / MIB / used.wall_s);
    series.add("cpu", "s/GiB", used.all_cpu_s() / (bytes / GIB));
    for (name, cpu_s) in &used.cpu_s {
        series.add(&format!("cpu of {name}"), "s/GiB", cpu_s / (bytes / GIB));
    }
    if let Some(other_s) = used.other_s {
        let share = other_s / used.wall_s / f64::from(context.machine.cores);
        series.add(OTHER_LOAD, "share of cores", share);
    }
}

/// Says so when somebody else took more than a tenth of the machine: limits and figures suffer unevenly.
pub(super) fn warn_if_disturbed(context: &mut Context, series: &Series) {
    if series.median(OTHER_LOAD).is_some_and(|share| share > 0.1) {
        context
            .report
            .note("other work kept the machine busy during the run (see 'other load'): repeat it when quiet");
    }
}

/// Adds the percentiles of a histogram of all rounds.
pub(super) fn add_percentiles(series: &mut Series, what: &str, latencies: &Latencies) {
    if latencies.count() > 0 {
        for (name, percentage) in PERCENTILES {
            series.add(&format!("{what} {name}"), "ms", latencies.ms(percentage));
        }
    }
}

fn memory_rows(context: &mut Context, nodes: &Nodes) -> Result<()> {
    let mut series = Series::new(SCENARIO, "peak memory");
    for (name, pid) in nodes.servers() {
        series.add(&name, "MiB", process::peak_rss_bytes(pid)? as f64 / MIB);
    }
    // The pool of random bytes is this program's, not the client's.
    let own = process::peak_rss_bytes(std::process::id())?.saturating_sub(POOL_BYTES as u64);
    series.add("client, less the random data", "MiB", own as f64 / MIB);
    context.report.series(&series);
    Ok(())
}

fn finish(context: &mut Context, limits: &Limits, cases: &mut [Case]) {
    for series in [&limits.write, &limits.read, &limits.network] {
        context.report.series(series);
    }
    let (upload_limit, download_limit) = (
        limits.upload_mib_per_s(context.machine.cores),
        limits.read.median("throughput"),
    );
    for case in cases {
        add_percentiles(&mut case.upload, "block acknowledged", &case.blocks);
        add_percentiles(&mut case.upload, "file", &case.uploads);
        add_percentiles(&mut case.download, "first byte", &case.first_bytes);
        add_percentiles(&mut case.download, "file", &case.downloads);
        case.upload.limit("throughput", upload_limit);
        case.download.limit("throughput", download_limit);
        let in_flight = case.streams * BLOCKS_IN_FLIGHT;
        case.upload
            .limit("disk flushes", Some(flushes_floor(REPLICAS, in_flight)));
        for series in [&case.upload, &case.download] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }
}
