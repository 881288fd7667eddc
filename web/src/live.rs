//! The page of a running cluster: looks through the nameserver's [`View`], moves bytes and changes names
//! through a [`Client`], which works on a thread of its own.

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use blockyard_client::{Client, Options, UploadOptions};
use blockyard_nameserver::View;
use blockyard_wire::types::{BlockId, BlockInfo, ClusterStatus, FileInfo, HeldBlock, VolumeId};
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
        let options = UploadOptions {
            overwrite: upload.overwrite,
            content_type: upload.content_type,
            length_hint: upload.length_bytes,
            ..UploadOptions::default()
        };
        self.with_client(move |client| async move {
            let uploaded = client.upload(&upload.path, body, options).await?;
            Ok(Uploaded {
                file: uploaded.file,
                degraded_blocks: uploaded.degraded,
            })
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
            let removed = client.discard(&path, recursive).await?;
            Ok(Removed {
                files: removed.files,
                bytes: removed.bytes,
            })
        })
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
