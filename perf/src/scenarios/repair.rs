//! `repair`: one of four dataservers is killed; how long until every block has all its replicas again, at which rate, and
//! what readers feel meanwhile. Beside fio's reads among writes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use blockyard_client::Client;
use blockyard_client::types::ClusterStatus;

use super::beside::FioLimit;
use super::common::{clients, close, on_cluster};
use super::transfer::{self, Planned};
use super::{BLOCK_BYTES, MIB};
use crate::context::Context;
use crate::fio::{Job, Shape as FioShape};
use crate::latency::{Latencies, PERCENTILES};
use crate::nodes::{Nodes, Shape};
use crate::report::Series;
use crate::workload::Pool;

const SCENARIO: &str = "repair";
const DATASERVERS: usize = 4;
const REPLICAS: u8 = 2;
const FILES: u64 = 16;
const POOL_BYTES: usize = 64 << 20;
/// How long readers are listened to before anything fails.
const BEFORE: Duration = Duration::from_secs(3);
/// A cluster that has not healed by then won't.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(20);

/// What readers felt in each part of the story.
#[derive(Default)]
struct Reads {
    healthy: Latencies,
    unnoticed: Latencies,
    repairing: Latencies,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Healthy,
    /// The server is gone, and the nameserver still hopes.
    Unnoticed,
    Repairing,
    Over,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let bytes = (context.flags.size_bytes() / FILES / BLOCK_BYTES).max(1) * BLOCK_BYTES * FILES;
    let fio_shape = FioShape {
        block_bytes: BLOCK_BYTES,
        depth: 4,
        size_bytes: context.flags.size_bytes(),
    };
    let mut limit = FioLimit::new(context, SCENARIO, Job::Mixed { reads_percent: 50 }, fio_shape)?;
    let mut series = Series::new(SCENARIO, format!("one of {DATASERVERS} dataservers killed"));
    let mut reads = Reads::default();
    // Whatever three volumes hold after the fourth is gone, and some room: placement is not even.
    let shape = Shape {
        dataservers: DATASERVERS,
        replication: REPLICAS,
        capacity_bytes: bytes + (1 << 30),
        ..Shape::default()
    };
    context.check_space(u64::from(REPLICAS) * bytes * 3 / 2 + DATASERVERS as u64 * (512 << 20))?;
    let pool = Pool::new(POOL_BYTES);
    for round in 1..=context.flags.rounds() {
        context.say(format_args!("round {round} of {}", context.flags.rounds()));
        limit.measure(true)?;
        on_cluster(context, shape, async |context, nodes| {
            one(context, nodes, &pool, bytes, &mut series, &mut reads).await
        })?;
    }
    limit.report(context);
    // A byte that is copied is read once and written once.
    series.limit("repair rate", limit.mib_per_s().map(|mixed| mixed / 2.0));
    for (name, latencies) in [
        ("range before", &reads.healthy),
        ("range with the server gone", &reads.unnoticed),
        ("range during repair", &reads.repairing),
    ] {
        for (percentile, percentage) in PERCENTILES.iter().filter(|_| latencies.count() > 0) {
            series.add(&format!("{name} {percentile}"), "ms", latencies.ms(*percentage));
        }
    }
    let p99 = |latencies: &Latencies| latencies.ms(99.0);
    if reads.healthy.count() > 0 && reads.repairing.count() > 0 {
        let times = p99(&reads.repairing) / p99(&reads.healthy).max(f64::MIN_POSITIVE);
        series.add("range p99 during repair, beside before", "×", times);
    }
    context.report.series(&series);
    Ok(())
}

async fn one(
    context: &mut Context,
    nodes: &mut Nodes,
    pool: &Pool,
    bytes: u64,
    series: &mut Series,
    reads: &mut Reads,
) -> Result<()> {
    let clients = clients(nodes, 1).await?;
    let planned = |number| Planned {
        path: format!("/repair/{number}"),
        number,
        length_bytes: bytes / FILES,
    };
    let plan: Vec<Planned> = (0..FILES).map(planned).collect();
    for some in plan.chunks(4) {
        transfer::upload(&clients, pool, some).await?;
    }
    let part = Cell::new(Part::Healthy);
    let client = &clients[0];
    let story = async {
        tokio::time::sleep(BEFORE).await;
        let lost_bytes = first_server_bytes(&client.status().await?, nodes);
        nodes.kill_dataserver()?;
        let killed = Instant::now();
        part.set(Part::Unnoticed);
        let noticed = wait(client, |status| status.under_replicated_blocks > 0).await?;
        part.set(Part::Repairing);
        let healed = wait(client, |status| {
            status.under_replicated_blocks == 0 && status.repairing == 0 && status.missing_blocks == 0
        })
        .await?;
        Ok::<_, anyhow::Error>((lost_bytes, killed, noticed, healed))
    };
    let story = async {
        let told = story.await;
        part.set(Part::Over);
        told
    };
    let (told, read) = tokio::join!(story, keep_reading(client, pool, &plan, &part, reads));
    let (lost_bytes, killed, noticed, healed) = told?;
    // Readers may not fail, whatever dies.
    read?;
    let repairing_s = (healed - noticed).as_secs_f64();
    series.add("time until noticed", "s", (noticed - killed).as_secs_f64());
    series.add("time until healthy", "s", (healed - killed).as_secs_f64());
    series.add("repair time", "s", repairing_s);
    series.add("data lost with the server", "MiB lost", lost_bytes as f64 / MIB);
    series.add(
        "repair rate",
        "MiB/s",
        lost_bytes as f64 / MIB / repairing_s.max(0.001),
    );
    close(clients).await;
    context.say(format_args!(
        "healthy {:.1} s after the kill, {repairing_s:.1} s of it repair",
        (healed - killed).as_secs_f64()
    ));
    Ok(())
}

/// Bytes of the blocks on the dataserver that will be killed: whole blocks, all of them.
fn first_server_bytes(status: &ClusterStatus, nodes: &Nodes) -> u64 {
    let address = nodes.first_data_address();
    let volumes = status.servers.iter().flat_map(|server| &server.volumes);
    let held = volumes.filter(|volume| volume.report.address == address);
    held.map(|volume| volume.report.replicas * BLOCK_BYTES).sum()
}

async fn wait(client: &Client, come: impl Fn(&ClusterStatus) -> bool) -> Result<Instant> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if come(&client.status().await?) {
            return Ok(Instant::now());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("the cluster did not heal in {} s", PATIENCE.as_secs())
}

/// One reader of 64 KiB at random places, until the story is over.
async fn keep_reading(
    client: &Client,
    pool: &Pool,
    plan: &[Planned],
    part: &Cell<Part>,
    reads: &mut Reads,
) -> Result<()> {
    let mut turn = 0;
    loop {
        let began = part.get();
        let file = &plan[turn % plan.len()];
        turn += 1;
        let (took, _) = transfer::one_range(client, pool, file, true).await?;
        match began {
            Part::Healthy => reads.healthy.record(took),
            Part::Unnoticed => reads.unnoticed.record(took),
            Part::Repairing => reads.repairing.record(took),
            Part::Over => return Ok(()),
        }
        // A reader of medium pace: repair is to be seen in its latency, not it in repair's.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
