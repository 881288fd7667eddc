//! `files`: small files, created and read by workers that each wait for their own answer, or at a fixed rate.

pub(super) mod one;
mod rate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use blockyard_client::types::FileInfo;
use blockyard_client::{Client, Local};
use futures_util::future::try_join_all;
use rand::seq::SliceRandom as _;

use self::one::Files;
use super::beside::{FioLimit, size_name};
use super::common::{
    Work, add_percentiles, clients, close, memory_rows, on_cluster, record, start_meter, warn_if_disturbed,
};
use crate::context::{Context, drop_page_cache};
use crate::fio::{Job, Shape};
use crate::latency::Latencies;
use crate::nodes::{self, Nodes};
use crate::report::Series;
use crate::workload::Pool;

const SCENARIO: &str = "files";
const REPLICAS: u8 = 2;
const POOL_BYTES: usize = 64 << 20;
/// Whole rounds of small files are short: their number is set, not their bytes.
pub(super) const FILES_MAX: u64 = 4096;
pub(super) const FILES_QUICK: u64 = 256;
/// fio needs some room to be random in.
const FIO_BYTES_MIN: u64 = 64 << 20;

struct Case {
    length_bytes: u64,
    files: u64,
    creates: Series,
    reads: Series,
    write_limit: FioLimit,
    read_limit: FioLimit,
    create_latencies: Latencies,
    read_latencies: Latencies,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    if !context.flags.rate.is_empty() {
        return rate::run(context);
    }
    let mut cases = Vec::new();
    for length_bytes in context.flags.file_sizes.clone() {
        cases.push(Case::new(context, length_bytes)?);
    }
    let rounds = context.flags.rounds();
    let round_bytes: u64 = cases
        .iter()
        .map(|case| case.files * one::slot_bytes(case.length_bytes))
        .sum();
    run_on(
        context,
        round_bytes * u64::from(rounds + 1),
        async |context, nodes, pool| {
            let count = if context.flags.client_per_stream {
                context.flags.workers
            } else {
                1
            };
            let clients = clients(nodes, count).await?;
            for round in 0..=rounds {
                context.say(format_args!("round {round} of {rounds}"));
                for case in &mut cases {
                    case.measure(context, nodes, &clients, pool, round).await?;
                }
            }
            close(clients).await;
            memory_rows(context, SCENARIO, "peak memory", nodes, POOL_BYTES)
        },
    )?;
    for case in &mut cases {
        case.report(context);
    }
    Ok(())
}

/// Does `work` on a cluster whose volumes take so many bytes.
fn run_on(
    context: &mut Context,
    bytes: u64,
    work: impl AsyncFnOnce(&mut Context, &Nodes, &Pool) -> Result<()>,
) -> Result<()> {
    let capacity_bytes = bytes + (1 << 30);
    context.check_space(u64::from(REPLICAS) * capacity_bytes)?;
    let shape = nodes::Shape {
        dataservers: usize::from(REPLICAS),
        replication: REPLICAS,
        capacity_bytes,
        ..nodes::Shape::default()
    };
    let pool = Pool::new(POOL_BYTES);
    on_cluster(context, shape, async |context, nodes| {
        work(context, nodes, &pool).await
    })
}

impl Case {
    fn new(context: &mut Context, length_bytes: u64) -> Result<Self> {
        let (workers, name) = (context.flags.workers, size_name(length_bytes));
        let most = if context.flags.quick {
            FILES_QUICK
        } else {
            FILES_MAX
        };
        let files = (context.flags.size_bytes() / length_bytes).clamp(u64::from(workers), most);
        let shape = Shape {
            block_bytes: length_bytes,
            depth: workers,
            size_bytes: (files * length_bytes).max(FIO_BYTES_MIN),
        };
        let suffix = if workers == 1 { "worker" } else { "workers" };
        Ok(Self {
            length_bytes,
            files,
            creates: Series::new(SCENARIO, format!("create {name}, {workers} {suffix}")),
            reads: Series::new(SCENARIO, format!("read {name}, {workers} {suffix}")),
            write_limit: FioLimit::new(context, SCENARIO, Job::RandWrite, shape)?,
            read_limit: FioLimit::new(context, SCENARIO, Job::RandRead, shape)?,
            create_latencies: Latencies::default(),
            read_latencies: Latencies::default(),
        })
    }

    async fn measure(
        &mut self,
        context: &mut Context,
        nodes: &Nodes,
        clients: &[Client],
        pool: &Pool,
        round: u32,
    ) -> Result<()> {
        let (counts, count) = (round > 0, self.files);
        let workers = context.flags.workers;
        let files = Files {
            pool: pool.clone(),
            folder: format!("/files-{round}-{}", self.length_bytes).into(),
            length_bytes: self.length_bytes,
        };
        clients[0].mkdir(&files.folder, true).await?;
        let work = Work::of("file", count, count * self.length_bytes);

        self.write_limit.measure(counts)?;
        let meter = start_meter(context, nodes, counts)?;
        let (mut created, latencies) = create(&files, clients, count, workers).await?;
        let used = meter.stop()?;
        record(&mut self.creates, context, &used, work, counts);
        if counts {
            self.creates.add("rate", "files/s", count as f64 / used.wall_s);
            if let Some(flushes) = used.disk.and_then(|disk| disk.flushes) {
                self.creates
                    .add("disk flushes", "per file", flushes as f64 / count as f64);
            }
            self.create_latencies.merge(&latencies);
        }

        // Neither the order of writing nor that of names.
        created.shuffle(&mut rand::rng());
        let created = Arc::new(created);
        self.read_limit.measure(counts)?;
        drop_page_cache();
        let meter = start_meter(context, nodes, counts)?;
        let latencies = read(&files, clients, &created, workers).await?;
        let used = meter.stop()?;
        record(&mut self.reads, context, &used, work, counts);
        if counts {
            self.reads.add("rate", "files/s", count as f64 / used.wall_s);
            self.read_latencies.merge(&latencies);
        }
        Ok(())
    }

    fn report(&mut self, context: &mut Context) {
        self.write_limit.report(context);
        self.read_limit.report(context);
        add_percentiles(&mut self.creates, "latency", &self.create_latencies);
        add_percentiles(&mut self.reads, "latency", &self.read_latencies);
        // Both copies land on the one disk.
        let writes = self.write_limit.operations_per_s();
        self.creates
            .limit("rate", writes.map(|rate| rate / f64::from(REPLICAS)));
        self.reads.limit("rate", self.read_limit.operations_per_s());
        for series in [&self.creates, &self.reads] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }
}

async fn create(
    files: &Files,
    clients: &[Client],
    count: u64,
    workers: u32,
) -> Result<(Vec<FileInfo>, Latencies)> {
    let files = files.clone();
    let done = share_out(clients, workers, count, move |client, number| {
        let files = files.clone();
        async move {
            let started = Instant::now();
            let file = files.create(&client, number).await?;
            Ok((file, started.elapsed()))
        }
    });
    let (created, took): (Vec<FileInfo>, Vec<Duration>) = done.await?.into_iter().unzip();
    Ok((created, latencies_of(took)))
}

async fn read(
    files: &Files,
    clients: &[Client],
    created: &Arc<Vec<FileInfo>>,
    workers: u32,
) -> Result<Latencies> {
    let (files, count) = (files.clone(), created.len() as u64);
    let created = created.clone();
    let done = share_out(clients, workers, count, move |client, number| {
        let (files, created) = (files.clone(), created.clone());
        async move {
            let started = Instant::now();
            files.read(&client, &created[number as usize]).await?;
            Ok(started.elapsed())
        }
    });
    Ok(latencies_of(done.await?))
}

fn latencies_of(took: Vec<Duration>) -> Latencies {
    let mut latencies = Latencies::default();
    for took in took {
        latencies.record(took);
    }
    latencies
}

/// Has so many workers do `count` jobs, shared out among the clients, each on its client's thread: where `put -r` has them
/// too. A worker takes the next job when its last one is done. What the jobs gave comes in no order.
pub(super) async fn share_out<T, F, J>(clients: &[Client], workers: u32, count: u64, job: J) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + 'static,
    J: Fn(Local, u64) -> F + Send + Clone + 'static,
{
    let (workers, next) = (workers as usize, Arc::new(AtomicU64::new(0)));
    let shares = clients.iter().enumerate().map(|(at, client)| {
        let share = (workers + clients.len() - 1 - at) / clients.len();
        let (job, next) = (job.clone(), next.clone());
        client.run_local(move |local| async move {
            let worker = || async {
                let mut done = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(done);
                    }
                    done.push(job(local.clone(), number).await?);
                }
            };
            Ok(try_join_all((0..share).map(|_| worker())).await)
        })
    });
    let mut all = Vec::new();
    for share in try_join_all(shares).await? {
        all.extend(share?.into_iter().flatten());
    }
    Ok(all)
}
