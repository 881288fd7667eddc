//! `files`: small files, 16 workers, each waiting for its own acknowledgement before the next file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use blockyard_client::types::FileInfo;
use blockyard_client::{Client, DownloadOptions, UploadOptions};
use futures_util::future::try_join_all;

use super::cluster::{add_common, add_percentiles, warn_if_disturbed};
use super::runtime;
use crate::binary;
use crate::context::{Context, drop_page_cache};
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::nodes::{self, Nodes};
use crate::report::Series;
use crate::workload::{Pool, Sink, Source};

const SCENARIO: &str = "files";
const WORKERS: u64 = 16;
const POOL_BYTES: usize = 64 << 20;

struct Case {
    length_bytes: u64,
    name: &'static str,
    creates: Series,
    reads: Series,
    create_latencies: Latencies,
    read_latencies: Latencies,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    // Whole rounds of small files are short: their number is set, not their bytes.
    let files: u64 = if context.flags.quick { 256 } else { 4096 };
    let mut cases = [case("64 KiB", 64 << 10), case("4 KiB", 4 << 10)];
    let rounds = context.flags.rounds();
    let capacity_bytes = (files * (96 << 10) * u64::from(rounds + 1)) + (1 << 30);
    context.check_space(2 * capacity_bytes)?;
    let shape = nodes::Shape {
        dataservers: 2,
        replication: 2,
        capacity_bytes,
    };
    let binary = binary::find(context.flags.blockyard.as_deref())?;
    let pool = Pool::new(POOL_BYTES);
    let folder = context.folder.path().join("files");
    std::fs::create_dir_all(&folder)?;
    runtime()?.block_on(async {
        let nodes = Nodes::start(&binary, &folder, shape).await?;
        let client = nodes.client().await?;
        for round in 0..=rounds {
            context.say(format_args!("round {round} of {rounds}"));
            for case in &mut cases {
                measure(context, &nodes, &client, &pool, case, files, round)
                    .await
                    .map_err(|error| nodes.explain(error))?;
            }
        }
        client.close().await;
        Ok::<_, anyhow::Error>(())
    })?;
    for case in &mut cases {
        add_percentiles(&mut case.creates, "latency", &case.create_latencies);
        add_percentiles(&mut case.reads, "latency", &case.read_latencies);
        for series in [&case.creates, &case.reads] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }
    Ok(())
}

fn case(name: &'static str, length_bytes: u64) -> Case {
    Case {
        length_bytes,
        name,
        creates: Series::new(SCENARIO, format!("create {name}, {WORKERS} at once")),
        reads: Series::new(SCENARIO, format!("read {name}, {WORKERS} at once")),
        create_latencies: Latencies::default(),
        read_latencies: Latencies::default(),
    }
}

async fn measure(
    context: &Context,
    nodes: &Nodes,
    client: &Client,
    pool: &Pool,
    case: &mut Case,
    files: u64,
    round: u32,
) -> Result<()> {
    let counts = round > 0;
    let folder = format!("/files-{round}-{}", case.name.replace(' ', "-"));
    client.mkdir(&folder, true).await?;
    let bytes = (files * case.length_bytes) as f64;

    let meter = Meter::start(&nodes.servers(), context.disk.as_ref())?;
    let (created, latencies) = create(client, pool, &folder, files, case.length_bytes).await?;
    let used = meter.stop()?;
    if counts {
        case.creates.add("rate", "files/s", files as f64 / used.wall_s);
        add_common(&mut case.creates, context, &used, bytes);
        case.creates
            .add("cpu per file", "ms", used.all_cpu_s() * 1000.0 / files as f64);
        if let Some(flushes) = used.disk.and_then(|disk| disk.flushes) {
            case.creates
                .add("disk flushes", "per file", flushes as f64 / files as f64);
        }
        case.create_latencies.merge(&latencies);
    }

    drop_page_cache();
    let meter = Meter::start(&nodes.servers(), context.disk.as_ref())?;
    let latencies = read(client, &created).await?;
    let used = meter.stop()?;
    if counts {
        case.reads.add("rate", "files/s", files as f64 / used.wall_s);
        add_common(&mut case.reads, context, &used, bytes);
        case.reads
            .add("cpu per file", "ms", used.all_cpu_s() * 1000.0 / files as f64);
        case.read_latencies.merge(&latencies);
    }
    Ok(())
}

async fn create(
    client: &Client,
    pool: &Pool,
    folder: &str,
    files: u64,
    length_bytes: u64,
) -> Result<(Vec<FileInfo>, Latencies)> {
    let next = AtomicU64::new(0);
    let workers = (0..WORKERS).map(|_| async {
        let (mut created, mut latencies) = (Vec::new(), Latencies::default());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= files {
                return Ok::<_, anyhow::Error>((created, latencies));
            }
            let started = Instant::now();
            let source = Source::new(pool.file(number, length_bytes), None);
            let options = UploadOptions {
                length_hint: Some(length_bytes),
                ..UploadOptions::default()
            };
            let uploaded = client
                .upload(&format!("{folder}/{number}"), source, options)
                .await?;
            latencies.record(started.elapsed());
            anyhow::ensure!(uploaded.degraded == 0, "a file has too few replicas");
            created.push(uploaded.file);
        }
    });
    let mut all = (Vec::new(), Latencies::default());
    for (created, latencies) in try_join_all(workers).await? {
        all.0.extend(created);
        all.1.merge(&latencies);
    }
    Ok(all)
}

async fn read(client: &Client, files: &[FileInfo]) -> Result<Latencies> {
    let next = AtomicU64::new(0);
    let workers = (0..WORKERS).map(|_| async {
        let mut latencies = Latencies::default();
        loop {
            let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed) as usize) else {
                return Ok::<_, anyhow::Error>(latencies);
            };
            let (sink, _) = Sink::discard()?;
            let started = Instant::now();
            let read = client
                .download(&file.path, sink, DownloadOptions::default())
                .await?;
            latencies.record(started.elapsed());
            anyhow::ensure!(
                read.crc32c == file.crc32c,
                "{} is not what was uploaded",
                file.path
            );
        }
    });
    let mut all = Latencies::default();
    for latencies in try_join_all(workers).await? {
        all.merge(&latencies);
    }
    Ok(all)
}
