//! What every scenario with a cluster of processes records: throughput, CPU, memory and system calls of each of them.

use std::path::Path;

use anyhow::Result;
use blockyard_client::Client;

use super::{GIB, MIB, runtime};
use crate::binary;
use crate::context::Context;
use crate::latency::{Latencies, PERCENTILES};
use crate::meter::{Meter, Used};
use crate::nodes::{Nodes, Shape};
use crate::process;
use crate::report::Series;
use crate::workload::Pool;

const OTHER_LOAD: &str = "other load";

/// Where a case does its work.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub nodes: &'a Nodes,
    pub clients: &'a [Client],
    pub pool: &'a Pool,
}

/// How much was done while a meter ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Of user data.
    pub bytes: f64,
    /// What one is called, and how many there were; CPU and system calls are told for each of them too.
    pub operations: Option<(&'static str, f64)>,
}

impl Work {
    pub(super) fn of(name: &'static str, count: u64, bytes: u64) -> Self {
        Self {
            bytes: bytes as f64,
            operations: Some((name, count as f64)),
        }
    }
}

/// Starts a meter for the cluster. In a round that doesn't count, system calls are counted: it costs a little time.
pub(super) fn start_meter(context: &mut Context, nodes: &Nodes, counts: bool) -> Result<Meter> {
    let mut meter = Meter::start(&nodes.servers(), context.disk.as_ref())?;
    if !counts && let Err(error) = meter.count_syscalls() {
        context
            .report
            .note(format!("skipped: system calls are not counted: {error:#}"));
    }
    Ok(meter)
}

/// What a round used: throughput, CPU and memory by process and what else the machine was busy with; of a round that
/// doesn't count, the system calls only.
pub(super) fn record(series: &mut Series, context: &Context, used: &Used, work: Work, counts: bool) {
    if !counts {
        record_syscalls(series, used, work);
        return;
    }
    let Work { bytes, operations } = work;
    if bytes > 0.0 {
        series.add("throughput", "MiB/s", bytes / MIB / used.wall_s);
        series.add("cpu", "s/GiB", used.all_cpu_s() / (bytes / GIB));
        for (name, cpu_s) in &used.cpu_s {
            series.add(&format!("cpu of {name}"), "s/GiB", cpu_s / (bytes / GIB));
        }
    }
    if let Some((name, count)) = operations {
        let ms = used.all_cpu_s() * 1000.0 / count;
        series.add(&format!("cpu per {name}"), "ms", ms);
    }
    for (name, rss_bytes) in &used.rss_bytes {
        series.add(&format!("memory of {name}"), "MiB", *rss_bytes as f64 / MIB);
    }
    if let Some(other_s) = used.other_s {
        let share = other_s / used.wall_s / f64::from(context.machine.cores);
        series.add(OTHER_LOAD, "share of cores", share);
    }
}

fn record_syscalls(series: &mut Series, used: &Used, work: Work) {
    let Some(calls) = &used.syscalls else { return };
    let all: u64 = calls.iter().map(|(_, calls)| calls).sum();
    if work.bytes > 0.0 {
        series.add("system calls", "calls/GiB", all as f64 / (work.bytes / GIB));
        for (name, calls) in calls {
            let per_gib = *calls as f64 / (work.bytes / GIB);
            series.add(&format!("system calls of {name}"), "calls/GiB", per_gib);
        }
    }
    if let Some((operation, count)) = work.operations {
        let what = format!("system calls per {operation}");
        series.add(&what, "calls", all as f64 / count);
        for (name, calls) in calls {
            series.add(&format!("{what} of {name}"), "calls", *calls as f64 / count);
        }
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

/// The most memory that each process took; of this one without `own_bytes` of random data.
pub(super) fn memory_rows(
    context: &mut Context,
    scenario: &'static str,
    case: &str,
    nodes: &Nodes,
    own_bytes: usize,
) -> Result<()> {
    let mut series = Series::new(scenario, case);
    add_server_memory(&mut series, nodes)?;
    add_client_memory(&mut series, own_bytes)?;
    context.report.series(&series);
    Ok(())
}

pub(super) fn add_server_memory(series: &mut Series, nodes: &Nodes) -> Result<()> {
    for (name, pid) in nodes.servers() {
        series.add(&name, "MiB", process::peak_rss_bytes(pid)? as f64 / MIB);
    }
    Ok(())
}

/// Of this process, less `own_bytes` of data that it keeps for the measurement.
pub(super) fn add_client_memory(series: &mut Series, own_bytes: usize) -> Result<()> {
    let own = process::peak_rss_bytes(std::process::id())?.saturating_sub(own_bytes as u64);
    series.add("client, less the random data", "MiB", own as f64 / MIB);
    Ok(())
}

/// So many clients of the cluster.
pub(super) async fn clients(nodes: &Nodes, count: u32) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(nodes.client().await?);
    }
    Ok(clients)
}

pub(super) async fn close(clients: Vec<Client>) {
    for client in clients {
        client.close().await;
    }
}

/// Does `work` on a cluster of this shape, whose folder is removed afterwards.
pub(super) fn on_cluster(
    context: &mut Context,
    shape: Shape,
    work: impl AsyncFnOnce(&mut Context, &mut Nodes) -> Result<()>,
) -> Result<()> {
    let parent = context.folder.path().to_owned();
    on_cluster_in(context, &parent, shape, work)
}

/// The same below another folder than that of the run.
pub(super) fn on_cluster_in(
    context: &mut Context,
    parent: &Path,
    shape: Shape,
    work: impl AsyncFnOnce(&mut Context, &mut Nodes) -> Result<()>,
) -> Result<()> {
    on_clusters_in(context, parent, &[shape], async |context, nodes| {
        work(context, &mut nodes[0]).await
    })
}

/// Does `work` on clusters that stand side by side, one of each shape, so that rounds on them can take turns.
pub(super) fn on_clusters(
    context: &mut Context,
    shapes: &[Shape],
    work: impl AsyncFnOnce(&mut Context, &mut [Nodes]) -> Result<()>,
) -> Result<()> {
    let parent = context.folder.path().to_owned();
    on_clusters_in(context, &parent, shapes, work)
}

fn on_clusters_in(
    context: &mut Context,
    parent: &Path,
    shapes: &[Shape],
    work: impl AsyncFnOnce(&mut Context, &mut [Nodes]) -> Result<()>,
) -> Result<()> {
    let binary = binary::find(context.flags.blockyard.as_deref())?;
    context.say(format_args!("measuring {}", binary.display()));
    let folder = parent.join("nodes");
    let outcome = runtime()?.block_on(async {
        let mut nodes = Vec::new();
        for (number, &shape) in shapes.iter().enumerate() {
            let folder = folder.join(number.to_string());
            std::fs::create_dir_all(&folder)?;
            nodes.push(Nodes::start(&binary, &folder, shape).await?);
        }
        let outcome = work(context, &mut nodes).await;
        outcome.map_err(|error| nodes.iter().fold(error, |error, nodes| nodes.explain(error)))
    });
    std::fs::remove_dir_all(&folder)?;
    outcome
}
