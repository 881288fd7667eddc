//! Uploads to slots that were written before, beside fio, which writes over a written file too. What is uploaded is removed
//! unread, so that its slots are free at once.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use blockyard_client::Client;

use super::case::{Limits, plan};
use super::{SCENARIO, factor_name, file_bytes, streams_name};
use crate::context::Context;
use crate::fio::Job;
use crate::latency::Latencies;
use crate::nodes;
use crate::report::Series;
use crate::scenarios::BLOCK_BYTES;
use crate::scenarios::common::{
    Work, add_percentiles, clients, close, on_cluster, record, start_meter, warn_if_disturbed,
};
use crate::scenarios::transfer;
use crate::workload::Pool;

/// How long volumes may take to give slots back: a few heartbeats.
const FREE_TIMEOUT: Duration = Duration::from_secs(30);

struct Case {
    streams: u32,
    series: Series,
    blocks: Latencies,
}

pub(super) fn run(context: &mut Context, pool: &Pool, replicas: u8) -> Result<()> {
    let factor = factor_name(replicas);
    let case = |&streams: &u32| {
        let name = format!("upload to recycled slots, {}{factor}", streams_name(streams));
        Case {
            streams,
            series: Series::new(SCENARIO, name),
            blocks: Latencies::default(),
        }
    };
    let mut cases: Vec<Case> = context.flags.streams.iter().map(case).collect();
    let mut limits = Limits::new(
        context,
        Job::Write,
        Job::FlushedWrite,
        &format!(", beside recycled slots{factor}"),
    )?;
    let volume_bytes = 2 * context.flags.size_bytes() + (1 << 30);
    context.check_space(u64::from(replicas) * volume_bytes + context.flags.size_bytes())?;
    let shape = nodes::Shape {
        dataservers: usize::from(replicas),
        replication: replicas,
        capacity_bytes: volume_bytes,
        ..nodes::Shape::default()
    };
    on_cluster(context, shape, async |context, nodes| {
        let clients = clients(nodes, 1).await?;
        for round in 0..=context.flags.rounds() {
            let rounds = context.flags.rounds();
            context.say(format_args!(
                "recycled slots, {replicas} replicas, round {round} of {rounds}"
            ));
            let counts = round > 0;
            for case in &mut cases {
                limits.measure_writes(counts)?;
                let plan = plan(context, "recycled", case.streams, round);
                let meter = start_meter(context, nodes, counts)?;
                let outcome = transfer::upload(&clients, pool, &plan).await;
                let used = meter.stop()?;
                nodes.check()?;
                let outcome = outcome?;
                let bytes = file_bytes(context, case.streams) * u64::from(case.streams);
                let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
                record(&mut case.series, context, &used, work, counts);
                if counts {
                    case.blocks.merge(&outcome.blocks);
                }
                clients[0].remove(&format!("/perf-{round}"), true).await?;
                until_free(&clients[0]).await?;
            }
            limits.network.measure(counts)?;
        }
        close(clients).await;
        Ok(())
    })?;
    limits.write.report(context);
    limits.flushed.report(context);
    limits.network.report(context);
    let limit = limits.upload_mib_per_s(context.machine.cores, replicas);
    for case in &mut cases {
        add_percentiles(&mut case.series, "block acknowledged", &case.blocks);
        case.series.limit("throughput", limit);
        limits.beside_flushed(&mut case.series, replicas);
        warn_if_disturbed(context, &case.series);
        context.report.series(&case.series);
    }
    Ok(())
}

/// Waits until no volume holds a replica any more.
async fn until_free(client: &Client) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < FREE_TIMEOUT {
        let status = client.status().await?;
        let mut volumes = status.servers.iter().flat_map(|server| &server.volumes);
        if volumes.all(|volume| volume.report.replicas == 0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!(
        "removed files still take slots after {} s",
        FREE_TIMEOUT.as_secs()
    )
}
