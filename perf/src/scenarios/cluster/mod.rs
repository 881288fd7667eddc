//! `cluster`: replicated, durable uploads and cold or hot reads of large files, beside fio and iperf3.

pub(super) mod case;
mod hot;
mod mixed;
mod range;
mod recycled;

use anyhow::Result;

use self::case::{Case, Limits};
use self::mixed::Mixed;
use self::range::Ranges;
use super::BLOCK_BYTES;
use super::common::{Place, clients, close, memory_rows, on_cluster};
use super::transfer;
use crate::context::{Context, drop_page_cache};
use crate::fio::Job;
use crate::flags::ClusterCase;
use crate::nodes::{self, Nodes};
use crate::workload::Pool;

const SCENARIO: &str = "cluster";
/// What the bars are for; other factors stand in the cases' names.
const USUAL_REPLICAS: u8 = 2;
/// Random bytes that files are cut from: more than the processor's caches hold.
const POOL_BYTES: usize = 256 << 20;

/// All that one cluster is asked to do.
struct Plan {
    cases: Vec<Case>,
    ranges: Vec<Ranges>,
    mixed: Vec<Mixed>,
    limits: Limits,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let pool = Pool::new(POOL_BYTES);
    for replicas in context.flags.replication.clone() {
        cold(context, &pool, replicas)?;
        if context.flags.cases.contains(&ClusterCase::Recycled) {
            recycled::run(context, &pool, replicas)?;
        }
        if context.flags.hot {
            hot::run(context, &pool, replicas)?;
        }
    }
    Ok(())
}

/// A number of streams in a case's name.
pub(super) fn streams_name(streams: u32) -> String {
    let plural = if streams == 1 { "stream" } else { "streams" };
    format!("{streams} {plural}")
}

/// What stands behind the case's name for another factor than usual.
fn factor_name(replicas: u8) -> String {
    if replicas == USUAL_REPLICAS {
        String::new()
    } else {
        format!(", factor {replicas}")
    }
}

/// Bytes of each stream: whole blocks.
pub(super) fn file_bytes(context: &Context, streams: u32) -> u64 {
    (context.flags.size_bytes() / u64::from(streams) / BLOCK_BYTES).max(1) * BLOCK_BYTES
}

impl Plan {
    fn new(context: &mut Context, replicas: u8) -> Result<Self> {
        let streams = context.flags.streams.clone();
        let wanted = |kind| context.flags.cases.contains(&kind);
        let (ranges, mixed) = (wanted(ClusterCase::Range), wanted(ClusterCase::Mixed));
        let mut plan = Self {
            cases: streams
                .iter()
                .map(|&streams| Case::new(streams, replicas))
                .collect(),
            ranges: Vec::new(),
            mixed: Vec::new(),
            limits: Limits::new(
                context,
                Job::FreshWrite,
                Job::FlushedFreshWrite,
                &factor_name(replicas),
            )?,
        };
        for streams in streams {
            if ranges {
                plan.ranges.push(Ranges::new(context, streams, replicas)?);
            }
            if mixed {
                plan.mixed.push(Mixed::new(context, streams, replicas)?);
            }
        }
        Ok(plan)
    }

    /// What a round writes to each volume.
    fn round_bytes(&self, context: &Context) -> u64 {
        let uploads: u64 = self.cases.iter().map(|case| case.bytes(context)).sum();
        if self.mixed.is_empty() {
            uploads
        } else {
            2 * uploads
        }
    }
}

fn cold(context: &mut Context, pool: &Pool, replicas: u8) -> Result<()> {
    let mut plan = Plan::new(context, replicas)?;
    let rounds = u64::from(context.flags.rounds()) + 1;
    // Removed files keep their slots until the last read ticket has expired, longer than a run: nothing is reused.
    let volume_bytes = plan.round_bytes(context) * rounds * 21 / 20 + (1 << 30);
    context.check_space(u64::from(replicas) * volume_bytes + 2 * context.flags.size_bytes())?;
    let shape = nodes::Shape {
        dataservers: usize::from(replicas),
        replication: replicas,
        capacity_bytes: volume_bytes,
        ..nodes::Shape::default()
    };
    on_cluster(context, shape, async |context, nodes| {
        let mut outcome = Ok(());
        for round in 0..rounds as u32 {
            context.say(format_args!(
                "{replicas} replicas, round {round} of {}",
                rounds - 1
            ));
            outcome = measure_round(context, nodes, pool, &mut plan, round).await;
            if outcome.is_err() {
                break;
            }
        }
        finish(context, &mut plan);
        outcome?;
        let case = format!("peak memory{}", factor_name(replicas));
        memory_rows(context, SCENARIO, &case, nodes, POOL_BYTES)
    })
}

/// One round: every limit and every case once, the limits in between. Round 0 warms up, compares every byte and counts
/// system calls.
async fn measure_round(
    context: &mut Context,
    nodes: &Nodes,
    pool: &Pool,
    plan: &mut Plan,
    round: u32,
) -> Result<()> {
    let counts = round > 0;
    let most = context.flags.streams.iter().copied().max().unwrap_or(1);
    let count = if context.flags.client_per_stream { most } else { 1 };
    let clients = clients(nodes, count).await?;
    let place = Place {
        nodes,
        clients: &clients,
        pool,
    };
    plan.limits.measure_writes(counts)?;
    let mut uploaded = Vec::new();
    for case in &mut plan.cases {
        uploaded.push(case.upload(context, place, round).await?);
    }
    plan.limits.read.measure(counts)?;
    if !counts {
        for (planned, _) in &uploaded {
            transfer::compare(&clients[0], pool, planned).await?;
        }
    }
    if context.flags.cases.contains(&ClusterCase::Download) {
        for (case, (_, files)) in plan.cases.iter_mut().zip(&uploaded) {
            drop_pages(context);
            case.download(context, place, files, counts).await?;
        }
    }
    for (ranges, (planned, _)) in plan.ranges.iter_mut().zip(&uploaded) {
        drop_pages(context);
        ranges.measure(context, place, planned, counts).await?;
    }
    for (mixed, (_, files)) in plan.mixed.iter_mut().zip(&uploaded) {
        drop_pages(context);
        mixed.measure(context, place, files, round).await?;
    }
    plan.limits.network.measure(counts)?;
    close(clients).await;
    Ok(())
}

fn drop_pages(context: &mut Context) {
    if !drop_page_cache() {
        context
            .report
            .note("the page cache can't be dropped (only root may); dataservers read past it all the same");
    }
}

fn finish(context: &mut Context, plan: &mut Plan) {
    plan.limits.report(context);
    for case in &mut plan.cases {
        case.report(context, &plan.limits);
    }
    for ranges in &mut plan.ranges {
        ranges.report(context);
    }
    for mixed in &mut plan.mixed {
        mixed.report(context);
    }
}
