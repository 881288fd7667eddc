//! `repair`: one of four dataservers is killed; how long until that is noticed, what a reader feels while the first part of
//! the lost replicas is copied, and at which rate the rest is, with nobody reading. Beside fio's reads among writes.

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
/// How long the reader is listened to before anything fails.
const BEFORE: Duration = Duration::from_secs(5);
/// How long it reads on beside the repair at the most, and the part of what was lost after which it stops anyway.
const BESIDE: Duration = Duration::from_secs(20);
const BESIDE_PART: u64 = 4;
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
    /// Repair has the cluster for itself.
    Alone,
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
        let (noticed, status) = wait(client, |status| status.under_replicated_blocks > 0).await?;
        part.set(Part::Repairing);
        let before_bytes = status.repair.copied.bytes;
        let enough = |status: &ClusterStatus| {
            let copied_bytes = status.repair.copied.bytes - before_bytes;
            is_healed(status) || noticed.elapsed() >= BESIDE || copied_bytes >= lost_bytes / BESIDE_PART
        };
        let (stopped, status) = wait(client, enough).await?;
        part.set(Part::Alone);
        let beside_bytes = status.repair.copied.bytes;
        let (healed, status) = wait(client, is_healed).await?;
        let all_bytes = status.repair.copied.bytes;
        Ok::<_, anyhow::Error>(Told {
            lost_bytes,
            beside_bytes: beside_bytes - before_bytes,
            alone_bytes: all_bytes - beside_bytes,
            killed,
            noticed,
            stopped,
            healed,
        })
    };
    let story = async {
        let told = story.await;
        part.set(Part::Over);
        told
    };
    let (told, read) = tokio::join!(story, keep_reading(client, pool, &plan, &part, reads));
    let told = told?;
    // Readers may not fail, whatever dies.
    read?;
    told.report(series);
    close(clients).await;
    context.say(format_args!(
        "healthy {:.1} s after the kill, {:.1} s of it repair",
        (told.healed - told.killed).as_secs_f64(),
        (told.healed - told.noticed).as_secs_f64()
    ));
    Ok(())
}

/// What came of the loss, and when.
struct Told {
    lost_bytes: u64,
    beside_bytes: u64,
    alone_bytes: u64,
    killed: Instant,
    noticed: Instant,
    /// From then on nobody read.
    stopped: Instant,
    healed: Instant,
}

impl Told {
    fn report(&self, series: &mut Series) {
        let rate = |bytes: u64, took: Duration| bytes as f64 / MIB / took.as_secs_f64().max(0.001);
        series.add(
            "time until noticed",
            "s",
            (self.noticed - self.killed).as_secs_f64(),
        );
        series.add(
            "time until healthy",
            "s",
            (self.healed - self.killed).as_secs_f64(),
        );
        series.add("repair time", "s", (self.healed - self.noticed).as_secs_f64());
        series.add(
            "data lost with the server",
            "MiB lost",
            self.lost_bytes as f64 / MIB,
        );
        let beside = rate(self.beside_bytes, self.stopped - self.noticed);
        series.add("repair rate beside a reader", "MiB/s", beside);
        series.add(
            "repair rate",
            "MiB/s",
            rate(self.alone_bytes, self.healed - self.stopped),
        );
    }
}

fn is_healed(status: &ClusterStatus) -> bool {
    status.under_replicated_blocks == 0 && status.repairing == 0 && status.missing_blocks == 0
}

/// Bytes of the blocks on the dataserver that will be killed: whole blocks, all of them.
fn first_server_bytes(status: &ClusterStatus, nodes: &Nodes) -> u64 {
    let address = nodes.first_data_address();
    let volumes = status.servers.iter().flat_map(|server| &server.volumes);
    let held = volumes.filter(|volume| volume.report.address == address);
    held.map(|volume| volume.report.replicas * BLOCK_BYTES).sum()
}

/// When something has come, and the status that showed it.
async fn wait(client: &Client, come: impl Fn(&ClusterStatus) -> bool) -> Result<(Instant, ClusterStatus)> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let status = client.status().await?;
        if come(&status) {
            return Ok((Instant::now(), status));
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("the cluster did not heal in {} s", PATIENCE.as_secs())
}

/// One reader of 64 KiB at random places, until the story is over; while repair is to be alone, it waits.
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
        match began {
            Part::Over => return Ok(()),
            Part::Alone => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            _ => {}
        }
        let file = &plan[turn % plan.len()];
        turn += 1;
        let (took, _) = transfer::one_range(client, pool, file, true).await?;
        match began {
            Part::Healthy => reads.healthy.record(took),
            Part::Unnoticed => reads.unnoticed.record(took),
            Part::Repairing => reads.repairing.record(took),
            Part::Alone | Part::Over => {}
        }
        // A reader of medium pace: repair is to be seen in its latency, not it in repair's.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
