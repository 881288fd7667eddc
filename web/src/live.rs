//! The page of a running cluster: looks through the nameserver's [`View`], moves bytes and changes names
//! through a [`Client`], which works on a thread of its own.

use std::ops::RangeInclusive;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use blockyard_client::{Client, Options, UploadOptions};
use blockyard_nameserver::survey::{BlockMap, WhatIf};
use blockyard_nameserver::{UploadSoFar, View};
use blockyard_wire::types::{
    AddedBlock, BlockId, BlockInfo, ClusterStatus, Duty, FileInfo, HeldBlock, Lease, ScrubOrder, Trashed,
    Tuning, VolumeId,
};
use blockyard_wire::{Problem, Result};

use crate::backend::{Answer, Backend, Located, Removed, Rows, Upload, Uploaded};
use crate::pipe::BodyReader;
use crate::server::{PageConfig, serve_backend};

/// Serves the page of the nameserver behind `view` until dropped. To be run on the nameserver's own thread,
/// inside its `LocalSet`.
pub async fn serve(config: PageConfig, view: View) {
    let client = Rc::new(OnceCell::new());
    serve_backend(config, Rc::new(Live { view, client })).await;
}

struct Live {
    view: View,
    /// Connected when first needed: the nameserver may not be listening yet when the page is.
    client: Rc<OnceCell<Client>>,
}

impl Live {
    /// Does `work` with the client, connecting it first where it is not.
    fn with_client<T, F>(&self, work: impl FnOnce(Client) -> F + 'static) -> Answer<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let (view, cell) = (self.view.clone(), self.client.clone());
        Box::pin(async move {
            let client = cell.get_or_try_init(|| connect(&view)).await?.clone();
            work(client).await
        })
    }
}

async fn connect(view: &View) -> Result<Client> {
    let address = reachable(&view.cluster().address);
    Client::connect(Options::new(vec![address], view.secret()?))
        .await
        .map_err(|problem| problem.context("the page cannot reach its own nameserver"))
}

/// Who listens on every address is reached by the loopback one.
fn reachable(address: &str) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(mut parsed) if parsed.ip().is_unspecified() => {
            parsed.set_ip(match parsed {
                std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
            parsed.to_string()
        }
        _ => address.to_owned(),
    }
}

impl Backend for Live {
    fn status(&self) -> Result<ClusterStatus> {
        Ok(self.view.status())
    }

    fn lookup(&self, path: &str, from: u32, max: u32) -> Result<(FileInfo, Vec<BlockInfo>)> {
        self.view.lookup(path, from, max)
    }

    fn blocks(&self, version: u64, from: u32, max: u32) -> Result<Vec<BlockInfo>> {
        self.view.blocks(version, from, max)
    }

    fn list(&self, path: &str, prefix: &str, after: &str, limit: u32) -> Result<Rows<FileInfo>> {
        let (rows, more) = self.view.list(path, prefix, after, limit as usize, false)?;
        Ok(Rows { rows, more })
    }

    fn list_below(&self, path: &str, after: &str, limit: u32) -> Result<Rows<FileInfo>> {
        let (rows, more) = self.view.list(path, "", after, limit as usize, true)?;
        Ok(Rows { rows, more })
    }

    fn blocks_in(&self, range: RangeInclusive<BlockId>, limit: u32) -> Rows<(BlockInfo, String)> {
        let (rows, more) = self.view.run_of_blocks(range, limit as usize);
        Rows { rows, more }
    }

    fn block_map(&self, range: RangeInclusive<BlockId>, cells_max: usize) -> Answer<BlockMap> {
        let view = self.view.clone();
        Box::pin(async move { Ok(view.block_map(range, cells_max).await) })
    }

    fn what_if(&self, lost: Vec<VolumeId>) -> Answer<WhatIf> {
        let view = self.view.clone();
        Box::pin(async move { view.what_if(&lost).await })
    }

    fn trash(&self, after: u64, limit: u32) -> Rows<Trashed> {
        let (rows, more) = self.view.trash(after, limit);
        Rows { rows, more }
    }

    fn newest_in_trash(&self, path: &str) -> Option<u64> {
        self.view.newest_in_trash(path)
    }

    fn upload_so_far(&self, lease: u64) -> Result<UploadSoFar> {
        self.view.upload(lease)
    }

    fn held(&self, volume: VolumeId, after: BlockId, limit: u32) -> Result<Rows<HeldBlock>> {
        let (rows, more) = self.view.replicas_of(volume, after, limit)?;
        Ok(Rows { rows, more })
    }

    fn locate(&self, block: BlockId) -> Result<Located> {
        let (info, path, version) = self.view.locate(block)?;
        Ok(Located { info, path, version })
    }

    fn read_block(&self, block: BlockInfo) -> Answer<Bytes> {
        self.with_client(move |client| async move { client.read_block(&block).await })
    }

    fn upload(&self, upload: Upload, body: BodyReader) -> Answer<Uploaded> {
        let (path, options) = options_of(upload);
        self.with_client(move |client| async move {
            let uploaded = client.upload(&path, body, options).await?;
            Ok(Uploaded::from(uploaded))
        })
    }

    fn make_folder(&self, path: &str) -> Answer<FileInfo> {
        let path = path.to_owned();
        self.with_client(move |client| async move { client.mkdir(&path, true).await })
    }

    fn rename(&self, from: &str, to: &str, overwrite: bool) -> Answer<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.with_client(move |client| async move { client.rename(&from, &to, overwrite).await })
    }

    fn remove(&self, path: &str, recursive: bool) -> Answer<Removed> {
        let path = path.to_owned();
        self.with_client(move |client| async move {
            // The root is no entry of a folder; removing "everything" must be said entry by entry.
            if path.trim_matches('/').is_empty() {
                return Err(Problem::invalid("the root folder can't be removed"));
            }
            Ok(Removed::from(client.discard(&path, recursive).await?))
        })
    }

    fn restore(&self, entry: u64, to: Option<String>) -> Answer<FileInfo> {
        self.with_client(move |client| async move { client.restore(entry, to.as_deref()).await })
    }

    fn empty_trash(&self, entry: Option<u64>) -> Answer<Removed> {
        self.with_client(move |client| async move {
            let removed = client
                .empty_trash(entry.as_ref().map(std::slice::from_ref))
                .await?;
            Ok(Removed::from(removed))
        })
    }

    fn set_replication(&self, path: &str, recursive: bool, replication: u8) -> Answer<u64> {
        let path = path.to_owned();
        self.with_client(
            move |client| async move { client.set_replication(&path, recursive, replication).await },
        )
    }

    fn assign(&self, volumes: Vec<VolumeId>, duty: Duty, force: bool) -> Answer<()> {
        self.with_client(move |client| async move { client.assign(&volumes, duty, force).await })
    }

    fn tune(&self, tuning: Tuning) -> Answer<()> {
        self.with_client(move |client| async move { client.tune(tuning).await })
    }

    fn scrub(&self, volumes: Vec<VolumeId>, order: ScrubOrder) -> Answer<()> {
        self.with_client(move |client| async move { client.scrub(&volumes, order).await })
    }

    fn open_upload(&self, upload: Upload) -> Answer<Lease> {
        let (path, options) = options_of(upload);
        self.with_client(move |client| async move { client.open_upload(&path, &options).await })
    }

    fn upload_block(&self, lease: Lease, index: u32, data: Bytes) -> Answer<AddedBlock> {
        self.with_client(move |client| async move { client.upload_block(lease, index, data).await })
    }

    fn renew_upload(&self, lease: u64) -> Answer<()> {
        self.with_client(move |client| async move { client.renew_upload(lease).await })
    }

    fn commit_upload(&self, lease: Lease, blocks: u32, length_bytes: u64, crc32c: u32) -> Answer<Uploaded> {
        self.with_client(move |client| async move {
            let published = client.commit_upload(lease, blocks, length_bytes, crc32c).await?;
            Ok(Uploaded::from(published))
        })
    }

    fn abandon_upload(&self, lease: u64) -> Answer<()> {
        self.with_client(move |client| async move { client.abandon_upload(lease).await })
    }
}

fn options_of(upload: Upload) -> (String, UploadOptions) {
    let options = UploadOptions {
        overwrite: upload.overwrite,
        replication: upload.replication,
        content_type: upload.content_type,
        length_hint: upload.length_bytes,
        ..UploadOptions::default()
    };
    (upload.path, options)
}

impl From<blockyard_client::Uploaded> for Uploaded {
    fn from(uploaded: blockyard_client::Uploaded) -> Self {
        Self {
            file: uploaded.file,
            degraded_blocks: uploaded.degraded,
        }
    }
}

impl From<blockyard_client::Removed> for Removed {
    fn from(removed: blockyard_client::Removed) -> Self {
        Self {
            files: removed.files,
            bytes: removed.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_connect_to() {
        assert_eq!(reachable("0.0.0.0:9000"), "127.0.0.1:9000");
        assert_eq!(reachable("[::]:9000"), "[::1]:9000");
        assert_eq!(reachable("10.0.0.1:9000"), "10.0.0.1:9000");
    }
}
