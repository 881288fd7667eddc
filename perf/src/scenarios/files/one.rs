//! One small file: created, or read by its name and held against what was created.

use std::sync::Arc;

use anyhow::{Result, ensure};
use blockyard_client::types::FileInfo;
use blockyard_client::{DownloadOptions, Local, ReadTraceFn, TraceFn, UploadOptions};

use crate::workload::{Pool, Source};

/// Files of one length in one folder.
#[derive(Clone)]
pub(in crate::scenarios) struct Files {
    pub pool: Pool,
    pub folder: Arc<str>,
    pub length_bytes: u64,
}

impl Files {
    /// Durable on every replica and published when this returns.
    pub(super) async fn create(&self, client: &Local, number: u64) -> Result<FileInfo> {
        self.create_traced(client, number, None).await
    }

    /// The same; `trace` is told where the block's time went.
    pub(in crate::scenarios) async fn create_traced(
        &self,
        client: &Local,
        number: u64,
        trace: Option<TraceFn>,
    ) -> Result<FileInfo> {
        let source = Source::new(self.pool.file(number, self.length_bytes), None);
        let options = UploadOptions {
            length_hint: Some(self.length_bytes),
            trace,
            ..UploadOptions::default()
        };
        let path = format!("{}/{number}", self.folder);
        let uploaded = client.upload(&path, source, options).await?;
        ensure!(uploaded.degraded == 0, "a file has too few replicas");
        Ok(uploaded.file)
    }

    /// Looks the name up and reads the bytes, which the client verifies; then they are forgotten.
    pub(super) async fn read(&self, client: &Local, file: &FileInfo) -> Result<()> {
        self.read_traced(client, file, None).await
    }

    /// The same; `trace` is told where the block's time went.
    pub(in crate::scenarios) async fn read_traced(
        &self,
        client: &Local,
        file: &FileInfo,
        trace: Option<ReadTraceFn>,
    ) -> Result<()> {
        let options = DownloadOptions {
            trace,
            ..DownloadOptions::default()
        };
        let read = client.download(&file.path, tokio::io::sink(), options).await?;
        ensure!(
            read.crc32c == file.crc32c && read.bytes == file.size_bytes,
            "{} is not what was uploaded",
            file.path
        );
        Ok(())
    }
}

/// What a file of this length takes of a volume at the most: its slot, which no block wastes more than a quarter of.
pub(in crate::scenarios) fn slot_bytes(length_bytes: u64) -> u64 {
    (length_bytes + (8 << 10)) * 3 / 2
}
