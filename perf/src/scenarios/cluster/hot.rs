//! Downloads from the dataservers' read caches, beside iperf3.

use anyhow::{Result, ensure};
use blockyard_client::types::FileInfo;

use super::case::plan;
use super::{POOL_BYTES, SCENARIO, factor_name, file_bytes, streams_name};
use crate::context::Context;
use crate::latency::Latencies;
use crate::nodes;
use crate::report::Series;
use crate::scenarios::beside::NetworkLimit;
use crate::scenarios::common::{
    Place, Work, add_percentiles, clients, close, memory_rows, on_cluster, record, start_meter,
    warn_if_disturbed,
};
use crate::scenarios::{BLOCK_BYTES, transfer};
use crate::workload::Pool;

/// Reads before the first that is timed: every replica of each block is to be in its server's cache, and a block gets
/// its pages at the second read at the latest.
const WARMING_READS: u32 = 6;

struct Case {
    streams: u32,
    files: Vec<FileInfo>,
    series: Series,
    first_bytes: Latencies,
}

pub(super) fn run(context: &mut Context, pool: &Pool, replicas: u8) -> Result<()> {
    let streams = context.flags.streams.clone();
    let bytes: u64 = streams
        .iter()
        .map(|&streams| file_bytes(context, streams) * u64::from(streams))
        .sum();
    let volume_bytes = bytes * 21 / 20 + (1 << 30);
    context.check_space(u64::from(replicas) * volume_bytes)?;
    let cache_bytes = bytes * 9 / 8 + (64 << 20);
    let (needed_bytes, memory_bytes) = (u64::from(replicas) * cache_bytes, context.machine.memory_bytes);
    ensure!(
        needed_bytes <= memory_bytes / 4 * 3,
        "hot reads need {} MiB of read caches, too much beside {} MiB of memory: pass a smaller --size or fewer --streams",
        needed_bytes >> 20,
        memory_bytes >> 20
    );
    let shape = nodes::Shape {
        dataservers: usize::from(replicas),
        replication: replicas,
        capacity_bytes: volume_bytes,
        read_cache_bytes: cache_bytes,
        ..nodes::Shape::default()
    };
    let factor = factor_name(replicas);
    let mut limit = NetworkLimit::new(
        context,
        SCENARIO,
        format!("limit: iperf3 on loopback, beside hot reads{factor}"),
        crate::iperf::Options::default(),
    )?;
    on_cluster(context, shape, async |context, nodes| {
        let clients = clients(nodes, 1).await?;
        let place = Place {
            nodes,
            clients: &clients,
            pool,
        };
        let mut cases = Vec::new();
        for streams in streams {
            let planned = plan(context, "hot", streams, 0);
            let files = transfer::upload(&clients, pool, &planned).await?.files;
            let name = format!("hot download, {}{factor}", streams_name(streams));
            for _ in 0..WARMING_READS {
                transfer::download(&clients, &files).await?;
            }
            cases.push(Case {
                streams,
                files,
                series: Series::new(SCENARIO, name),
                first_bytes: Latencies::default(),
            });
        }
        for round in 0..=context.flags.rounds() {
            let rounds = context.flags.rounds();
            context.say(format_args!(
                "hot, {replicas} replicas, round {round} of {rounds}"
            ));
            limit.measure(round > 0)?;
            for case in &mut cases {
                case.measure(context, place, round > 0).await?;
            }
        }
        limit.report(context);
        for case in &mut cases {
            add_percentiles(&mut case.series, "first byte", &case.first_bytes);
            case.series.limit("throughput", limit.mib_per_s());
            warn_if_disturbed(context, &case.series);
            context.report.series(&case.series);
        }
        close(clients).await;
        let case = format!("peak memory with the read cache{factor}");
        memory_rows(context, SCENARIO, &case, nodes, POOL_BYTES)
    })
}

impl Case {
    async fn measure(&mut self, context: &mut Context, place: Place<'_>, counts: bool) -> Result<()> {
        let meter = start_meter(context, place.nodes, counts)?;
        let outcome = transfer::download(place.clients, &self.files).await;
        let used = meter.stop()?;
        place.nodes.check()?;
        let outcome = outcome?;
        let bytes = file_bytes(context, self.streams) * u64::from(self.streams);
        let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
        record(&mut self.series, context, &used, work, counts);
        if counts {
            if let Some(disk) = used.disk {
                let per_byte = disk.read_bytes as f64 / bytes as f64;
                // Near 0, or the figure is not of the cache.
                self.series.add("disk reads", "bytes per byte", per_byte);
            }
            self.first_bytes.merge(&outcome.first_bytes);
        }
        Ok(())
    }
}
