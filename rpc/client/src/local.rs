//! The client as its own thread sees it: the same transfers, for tasks that live beside its connections.
//!
//! A call on a [`Client`](crate::Client) crosses to the client's thread and back, which wakes a thread twice. Who moves
//! many small files runs its workers over there instead.

use std::rc::Rc;

use blockyard_wire::Result;
use blockyard_wire::types::FileInfo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::core::Core;
use crate::options::{DownloadOptions, Downloaded, UploadOptions, Uploaded};
use crate::{download, lookup, upload};

/// A client for tasks on its own thread; see [`Client::run_local`](crate::Client::run_local).
#[derive(Clone)]
pub struct Local {
    core: Rc<Core>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Local(…)")
    }
}

impl Local {
    pub(crate) fn new(core: Rc<Core>) -> Self {
        Self { core }
    }

    /// The file or directory at `path`; see [`Client::lookup`](crate::Client::lookup).
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a path that can't be.
    pub async fn lookup(&self, path: &str) -> Result<FileInfo> {
        Ok(lookup::lookup(&self.core, path, 0).await?.0)
    }

    /// Uploads all that `from` gives as `path`; see [`Client::upload`](crate::Client::upload).
    ///
    /// # Errors
    /// As there.
    pub async fn upload<R: AsyncRead + Unpin>(
        &self,
        path: &str,
        from: R,
        options: UploadOptions,
    ) -> Result<Uploaded> {
        upload::upload(self.core.clone(), path.to_owned(), from, options).await
    }

    /// Downloads `path` into `to`; see [`Client::download`](crate::Client::download).
    ///
    /// # Errors
    /// As there.
    pub async fn download<W: AsyncWrite + Unpin>(
        &self,
        path: &str,
        to: W,
        options: DownloadOptions,
    ) -> Result<Downloaded> {
        download::download(self.core.clone(), path.to_owned(), to, options).await
    }
}
