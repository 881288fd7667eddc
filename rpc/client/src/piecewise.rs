//! An upload whose blocks come one by one, in any order, from a caller who may go away and come back: whoever knows
//! its lease goes on with it.

use std::time::{Duration, Instant};

use blockyard_engine::checksum;
use blockyard_engine::limits::BLOCK_BYTES_MAX;
use blockyard_wire::types::{AddedBlock, Lease};
use blockyard_wire::{Problem, Result};
use bytes::Bytes;

use crate::client::Client;
use crate::options::{UploadOptions, Uploaded};
use crate::put::{Chains, Owner};
use crate::source::Filled;
use crate::upload;

impl Client {
    /// Opens an upload as `path`. Its lease lives as long as it is renewed or blocks come.
    ///
    /// # Errors
    /// `Exists` when a file is there that may not be replaced, `Invalid` for a path that can't be, `Busy` when too many
    /// uploads are in progress.
    pub async fn open_upload(&self, path: &str, options: &UploadOptions) -> Result<Lease> {
        let (path, overwrite, replication) = (path.to_owned(), options.overwrite, options.replication);
        let content_type = options.content_type.clone();
        self.run(move |core| async move {
            core.session
                .begin(&path, overwrite, replication, &content_type)
                .await
        })
        .await
    }

    /// Stores the `index`th block, of 1 B to 4 MiB, and returns once it is durable on its whole chain and the
    /// nameserver knows.
    ///
    /// # Errors
    /// `Denied` when the upload is no longer open; `Invalid` when another block is there already; `NoSpace` or `Retry`
    /// when no chain took it.
    pub async fn upload_block(&self, lease: Lease, index: u32, data: Bytes) -> Result<AddedBlock> {
        if data.is_empty() || data.len() > BLOCK_BYTES_MAX {
            return Err(Problem::invalid(format!(
                "a block has 1 to {BLOCK_BYTES_MAX} bytes, not {}",
                data.len()
            )));
        }
        self.run(move |core| async move {
            // Nobody closes it.
            let _turn = core.uploading.acquire().await;
            let block = filled(data);
            let chains = Chains::new(Owner::Upload(lease), None);
            let added = chains.write(&core, index, &block).await?.added;
            core.session
                .add_blocks(lease.id, std::slice::from_ref(&added))
                .await?;
            Ok(added)
        })
        .await
    }

    /// Tells the nameserver that an upload goes on.
    ///
    /// # Errors
    /// `Denied` when it is no longer open.
    pub async fn renew_upload(&self, lease: u64) -> Result<()> {
        self.run(move |core| async move { core.session.renew(lease).await })
            .await
    }

    /// Publishes what `blocks` blocks of together `length_bytes` and `crc32c` make.
    ///
    /// # Errors
    /// `Invalid` when blocks are missing, `Corrupt` when the CRC32C differs, `Exists`, `Denied` when it is not open.
    pub async fn commit_upload(
        &self,
        lease: Lease,
        blocks: u32,
        length_bytes: u64,
        crc32c: u32,
    ) -> Result<Uploaded> {
        self.run(move |core| async move {
            let (file, degraded) = upload::commit(&core, &lease, blocks, length_bytes, crc32c).await?;
            Ok(Uploaded {
                file,
                degraded,
                retried_blocks: 0,
            })
        })
        .await
    }

    /// Gives an upload up: what it has laid down is deleted.
    ///
    /// # Errors
    /// `Denied` when it is not open.
    pub async fn abandon_upload(&self, lease: u64) -> Result<()> {
        self.run(move |core| async move { core.session.abandon(lease).await })
            .await
    }
}

fn filled(data: Bytes) -> Filled {
    let begun = Instant::now();
    let unit_crcs = checksum::unit_crcs(&data);
    Filled {
        crc32c: checksum::combine_units(&unit_crcs, data.len()),
        unit_crcs,
        data,
        read: Duration::ZERO,
        checksum: begun.elapsed(),
        ready: Instant::now(),
    }
}
