//! One timed transfer of several streams through the client library.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use blockyard_client::types::FileInfo;
use blockyard_client::{Client, DownloadOptions, ReadTraceFn, TraceFn, UploadOptions};
use futures_util::future::try_join_all;
use rand::RngExt as _;

use super::common::Place;
use crate::latency::Latencies;
use crate::workload::{BlockClock, Pool, Sink, Source};

/// Of one range.
pub(super) const RANGE_BYTES: u64 = 64 << 10;

/// A file of the workload.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub path: String,
    /// Which contents of the pool.
    pub number: u64,
    pub length_bytes: u64,
}

/// What an upload of several streams found out beside its time.
#[derive(Default)]
pub(crate) struct UploadOutcome {
    pub files: Vec<FileInfo>,
    /// From a block's last byte read to its acknowledgement.
    pub blocks: Latencies,
    /// From a file's start to its publication.
    pub whole_files: Latencies,
}

/// What a download of several streams found out beside its time.
#[derive(Default)]
pub(crate) struct DownloadOutcome {
    pub first_bytes: Latencies,
    pub whole_files: Latencies,
}

/// Uploads the files at once, each through the next of the clients; refuses a degraded or resent one.
pub(crate) async fn upload(clients: &[Client], pool: &Pool, plan: &[Planned]) -> Result<UploadOutcome> {
    upload_traced(clients, pool, plan, None).await
}

/// The same; `trace` is told where each block's time went.
pub(crate) async fn upload_traced(
    clients: &[Client],
    pool: &Pool,
    plan: &[Planned],
    trace: Option<TraceFn>,
) -> Result<UploadOutcome> {
    let trace = &trace;
    let streams = plan.iter().zip(clients.iter().cycle()).map(|(file, client)| async move {
        let clock = Arc::new(Mutex::new(BlockClock::default()));
        let source = Source::new(pool.file(file.number, file.length_bytes), Some(clock.clone()));
        let acknowledged = clock.clone();
        let options = UploadOptions {
            progress: Some(Arc::new(move |progress: blockyard_client::Progress| {
                let mut clock = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                clock.acknowledge(progress.bytes, Instant::now());
            })),
            length_hint: Some(file.length_bytes),
            trace: trace.clone(),
            ..UploadOptions::default()
        };
        let started = Instant::now();
        let uploaded = client
            .upload(&file.path, source, options)
            .await
            .with_context(|| format!("upload of {}", file.path))?;
        if uploaded.degraded > 0 || uploaded.retried_blocks > 0 {
            bail!(
                "upload of {}: {} blocks with too few replicas, {} sent again: no figure of a healthy cluster",
                file.path,
                uploaded.degraded,
                uploaded.retried_blocks
            );
        }
        let blocks = clock.lock().unwrap_or_else(PoisonError::into_inner).latencies().clone();
        Ok((uploaded.file, blocks, started.elapsed()))
    });
    let mut outcome = UploadOutcome::default();
    for (file, blocks, took) in try_join_all(streams).await? {
        outcome.files.push(file);
        outcome.blocks.merge(&blocks);
        outcome.whole_files.record(took);
    }
    Ok(outcome)
}

/// Downloads the files at once to /dev/null, and holds length and CRC against what was uploaded.
pub(crate) async fn download(clients: &[Client], files: &[FileInfo]) -> Result<DownloadOutcome> {
    download_traced(clients, files, None).await
}

/// The same; `trace` is told where each block's time went.
pub(crate) async fn download_traced(
    clients: &[Client],
    files: &[FileInfo],
    trace: Option<ReadTraceFn>,
) -> Result<DownloadOutcome> {
    let trace = &trace;
    let streams = files
        .iter()
        .zip(clients.iter().cycle())
        .map(|(file, client)| async move {
            let (sink, first_byte) = Sink::discard().context("cannot open /dev/null")?;
            let options = DownloadOptions {
                trace: trace.clone(),
                ..DownloadOptions::default()
            };
            let started = Instant::now();
            let downloaded = client
                .download(&file.path, sink, options)
                .await
                .with_context(|| format!("download of {}", file.path))?;
            let took = started.elapsed();
            let (bytes, crc32c) = (downloaded.bytes, downloaded.crc32c);
            if (bytes, crc32c) != (file.size_bytes, file.crc32c) || !downloaded.verified_whole {
                bail!(
                    "download of {}: {bytes} bytes with CRC {crc32c:08x} are not what was uploaded",
                    file.path
                );
            }
            if downloaded.failovers > 0 {
                bail!("download of {}: reads had to turn to another replica", file.path);
            }
            let first_byte = *first_byte.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((first_byte, took))
        });
    let mut outcome = DownloadOutcome::default();
    for (first_byte, took) in try_join_all(streams).await? {
        first_byte
            .into_iter()
            .for_each(|latency| outcome.first_bytes.record(latency));
        outcome.whole_files.record(took);
    }
    Ok(outcome)
}

/// Downloads the files one by one and compares every byte.
pub(crate) async fn compare(client: &Client, pool: &Pool, plan: &[Planned]) -> Result<()> {
    for file in plan {
        let sink = Sink::Compare(pool.file(file.number, file.length_bytes));
        let downloaded = client
            .download(&file.path, sink, DownloadOptions::default())
            .await
            .with_context(|| format!("comparing {}", file.path))?;
        if downloaded.bytes != file.length_bytes {
            bail!("comparing {}: {} bytes came", file.path, downloaded.bytes);
        }
    }
    Ok(())
}

/// Reads so many ranges, as many at a time as there are files, each stream of its own file.
pub(super) async fn ranges(
    place: Place<'_>,
    files: &[Planned],
    count: u64,
    compare: bool,
) -> Result<Latencies> {
    let each = (count / files.len() as u64).max(1);
    let streams = files
        .iter()
        .zip(place.clients.iter().cycle())
        .map(|(file, client)| async move {
            let mut latencies = Latencies::default();
            for _ in 0..each {
                let (took, failovers) = one_range(client, place.pool, file, compare).await?;
                latencies.record(took);
                ensure!(
                    failovers == 0,
                    "reads of {} had to turn to another replica",
                    file.path
                );
            }
            Ok(latencies)
        });
    let mut all = Latencies::default();
    for latencies in try_join_all(streams).await? {
        all.merge(&latencies);
    }
    Ok(all)
}

/// Reads a random range of the file; tells how long it took and how many replicas failed before one gave it.
pub(super) async fn one_range(
    client: &Client,
    pool: &Pool,
    file: &Planned,
    compare: bool,
) -> Result<(Duration, u32)> {
    let units = file.length_bytes / RANGE_BYTES;
    let offset = rand::rng().random_range(0..units) * RANGE_BYTES;
    let sink = if compare {
        Sink::Compare(pool.part(file.number, offset, RANGE_BYTES))
    } else {
        Sink::discard()?.0
    };
    let options = DownloadOptions {
        range: Some(offset..offset + RANGE_BYTES),
        ..DownloadOptions::default()
    };
    let started = Instant::now();
    let read = client
        .download(&file.path, sink, options)
        .await
        .with_context(|| format!("a range of {}", file.path))?;
    let took = started.elapsed();
    ensure!(read.bytes == RANGE_BYTES, "a range of {} came short", file.path);
    Ok((took, read.failovers))
}
