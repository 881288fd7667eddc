//! One timed transfer of several streams through the client library.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use blockyard_client::types::FileInfo;
use blockyard_client::{Client, DownloadOptions, UploadOptions};
use futures_util::future::try_join_all;

use crate::latency::Latencies;
use crate::workload::{BlockClock, Pool, Sink, Source};

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
    let streams = files
        .iter()
        .zip(clients.iter().cycle())
        .map(|(file, client)| async move {
            let (sink, first_byte) = Sink::discard().context("cannot open /dev/null")?;
            let started = Instant::now();
            let downloaded = client
                .download(&file.path, sink, DownloadOptions::default())
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
