//! `explain`: where the time of a block goes, stage by stage, and the CPU of every process, by purpose.

mod cpu;
mod large;
mod small;

use anyhow::Result;

use self::cpu::Profiler;
use self::large::Large;
use self::small::Small;
use super::common::{clients, close, on_cluster};
use crate::context::Context;
use crate::explain::account::Account;
use crate::explain::write::{HOPS, MOMENTS, Writes};
use crate::explain::{HOP, TIME, TIME_P99};
use crate::latency::Latencies;
use crate::nodes;
use crate::report::Series;
use crate::workload::Pool;

const REPLICAS: u8 = 2;
/// Random bytes that files are cut from: more than the processor's caches hold.
const POOL_BYTES: usize = 256 << 20;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let profiler = Profiler::new(context)?;
    let rounds = context.flags.rounds();
    let mut large: Vec<Large> = context
        .flags
        .streams
        .iter()
        .map(|&streams| Large::new(streams))
        .collect();
    let lengths = context.flags.file_sizes.clone();
    let mut small: Vec<Small> = lengths.iter().map(|&bytes| Small::new(context, bytes)).collect();
    let round_bytes: u64 = large.iter().map(|case| case.bytes(context)).sum::<u64>()
        + small.iter().map(Small::slots_bytes).sum::<u64>();
    // Every round writes to segments that are fresh, as those of `cluster` and `files` do.
    let volume_bytes = round_bytes * u64::from(rounds + 1) * 21 / 20 + (1 << 30);
    context.check_space(u64::from(REPLICAS) * volume_bytes)?;
    let shape = nodes::Shape {
        dataservers: usize::from(REPLICAS),
        replication: REPLICAS,
        capacity_bytes: volume_bytes,
        ..nodes::Shape::default()
    };
    let pool = Pool::new(POOL_BYTES);
    on_cluster(context, shape, async |context, nodes| {
        for round in 0..=rounds {
            context.say(format_args!("round {round} of {rounds}"));
            let clients = clients(nodes, 1).await?;
            let place = super::common::Place {
                nodes,
                clients: &clients,
                pool: &pool,
            };
            for case in &mut large {
                case.measure(context, place, &profiler, round).await?;
            }
            for case in &mut small {
                case.measure(context, place, &profiler, round).await?;
            }
            close(clients).await;
        }
        Ok(())
    })?;
    for case in &mut large {
        case.report(context);
    }
    for case in &mut small {
        case.report(context);
    }
    Ok(())
}

/// The stages, as rows whose values add up to the whole: means over all rounds.
fn add_account(series: &mut Series, account: &Account, whole: &str) {
    let add = |series: &mut Series, latencies: &Latencies| {
        super::common::add_percentiles(series, whole, latencies);
        series.add(&format!("{TIME_P99}whole"), "ms", latencies.ms(99.0));
    };
    if account.blocks() == 0 {
        return;
    }
    series.add(whole, "ms", account.mean_s().iter().sum::<f64>() * 1000.0);
    for (stage, mean_ms, p99_ms) in account.stages() {
        series.add(&format!("{TIME}{stage}"), "ms", mean_ms);
        series.add(&format!("{TIME_P99}{stage}"), "ms", p99_ms);
    }
    add(series, account.whole());
}

/// The same of blocks that were written, with what each hop did meanwhile.
fn add_writes(series: &mut Series, writes: &Writes, whole: &str) {
    add_account(series, &writes.account, whole);
    if writes.account.blocks() == 0 {
        return;
    }
    for (hop, moments) in HOPS.iter().zip(writes.mean_moments_s()) {
        for (name, seconds) in MOMENTS.iter().zip(moments) {
            series.add(&format!("{HOP}{hop} {name}"), "ms", seconds * 1000.0);
        }
    }
}
