//! One small file: created, or read by its name and held against what was created.

use anyhow::{Result, ensure};
use blockyard_client::types::FileInfo;
use blockyard_client::{Client, DownloadOptions, UploadOptions};

use crate::workload::{Pool, Sink, Source};

/// Files of one length in one folder.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    pub client: &'a Client,
    pub pool: &'a Pool,
    pub folder: &'a str,
    pub length_bytes: u64,
}

impl Files<'_> {
    /// Durable on every replica and published when this returns.
    pub(super) async fn create(&self, number: u64) -> Result<FileInfo> {
        let source = Source::new(self.pool.file(number, self.length_bytes), None);
        let options = UploadOptions {
            length_hint: Some(self.length_bytes),
            ..UploadOptions::default()
        };
        let path = format!("{}/{number}", self.folder);
        let uploaded = self.client.upload(&path, source, options).await?;
        ensure!(uploaded.degraded == 0, "a file has too few replicas");
        Ok(uploaded.file)
    }

    /// Looks the name up, reads the bytes to /dev/null.
    pub(super) async fn read(&self, file: &FileInfo) -> Result<()> {
        let (sink, _) = Sink::discard()?;
        let read = self
            .client
            .download(&file.path, sink, DownloadOptions::default())
            .await?;
        ensure!(
            read.crc32c == file.crc32c && read.bytes == file.size_bytes,
            "{} is not what was uploaded",
            file.path
        );
        Ok(())
    }
}

/// What a file of this length takes of a volume at the most: its slot, which no block wastes more than a quarter of.
pub(super) fn slot_bytes(length_bytes: u64) -> u64 {
    (length_bytes + (8 << 10)) * 3 / 2
}
