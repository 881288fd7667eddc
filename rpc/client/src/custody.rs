//! What an operator asks of the nameserver's own data: backups, orphans, comparisons.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use blockyard_schema::nameserver_capnp::custody;
use blockyard_wire::types::{BackupFile, BlockId, ClusterId, CustodyState, Orphan, VolumeId};
use blockyard_wire::{Problem, ProblemKind, Result, convert};
use tokio::time::timeout;

use crate::client::Client;
use crate::options::BackupTaken;
use crate::session::Session;

/// Bytes asked for at a time.
const PIECE_BYTES: u32 = 512 * 1024;

impl Session {
    /// The capability behind the calls below; it goes with its connection.
    async fn custody(&self) -> Result<custody::Client> {
        self.call(async |session| {
            let response = session.custody_request().send().promise.await?;
            Ok(response.get()?.get_custody()?)
        })
        .await
    }

    async fn custody_state(&self) -> Result<CustodyState> {
        self.call(async |session| {
            let custody = session.custody_request().send().pipeline.get_custody();
            let response = custody.state_request().send().promise.await?;
            Ok(convert::read_custody_state(response.get()?)?)
        })
        .await
    }

    async fn orphans(&self, volume: VolumeId, after: BlockId, limit: u32) -> Result<(Vec<Orphan>, bool)> {
        self.call(async |session| {
            let custody = session.custody_request().send().pipeline.get_custody();
            let mut request = custody.orphans_request();
            let mut params = request.get();
            convert::write_id(&volume.0, params.reborrow().init_volume());
            params.set_after(after.0);
            params.set_limit(limit);
            let response = request.send().promise.await?;
            let response = response.get()?;
            let orphans = convert::read_list(response.get_orphans()?, convert::read_orphan)?;
            Ok((orphans, response.get_more()))
        })
        .await
    }

    async fn release(&self) -> Result<u64> {
        self.call(async |session| {
            let custody = session.custody_request().send().pipeline.get_custody();
            let response = custody.release_request().send().promise.await?;
            Ok(response.get()?.get_reigns())
        })
        .await
    }

    /// Takes as long as the volumes need: only a lost connection ends the wait.
    async fn reconcile(&self) -> Result<u32> {
        let custody = self.custody().await?;
        let response = custody.reconcile_request().send().promise.await?;
        Ok(response.get()?.get_volumes())
    }

    /// A connection that is lost ends it: the files are kept no longer than that.
    async fn backup(&self, dir: &Path) -> Result<BackupTaken> {
        let patience = self.patience();
        let slow = |_| Problem::retry(format!("no answer within {patience:?}"));
        let custody = self.custody().await?;
        let answer = timeout(patience, custody.backup_request().send().promise).await;
        let backup = answer.map_err(slow)??.get()?.get_backup()?;
        let described = timeout(patience, backup.describe_request().send().promise).await;
        let described = described.map_err(slow)??;
        let described = described.get()?;
        let files = convert::read_list(described.get_files()?, convert::read_backup_file)?;
        let mut taken = BackupTaken {
            cluster: ClusterId(convert::read_id(described.get_cluster()?)),
            epoch: convert::read_epoch(described.get_epoch()?)?,
            files: files.len(),
            bytes: 0,
        };
        for (at, file) in files.iter().enumerate() {
            let mut to = create(dir, file)?;
            let mut offset = 0;
            while offset < file.bytes {
                let mut request = backup.read_request();
                let mut params = request.get();
                params.set_file(at as u32);
                params.set_offset(offset);
                params.set_bytes(PIECE_BYTES.min((file.bytes - offset).min(u64::from(u32::MAX)) as u32));
                let answer = timeout(patience, request.send().promise).await;
                let answer = answer.map_err(slow)??;
                let piece = answer.get()?.get_bytes()?;
                if piece.is_empty() || piece.len() > PIECE_BYTES as usize {
                    return Err(Problem::invalid(format!("{} ended too early", file.name)));
                }
                to.write_all(piece).map_err(failed(dir, file))?;
                offset += piece.len() as u64;
            }
            to.sync_all().map_err(failed(dir, file))?;
            taken.bytes += offset;
        }
        Ok(taken)
    }
}

/// Makes a file of the backup in its place: only what a backup can have, so that no name leads elsewhere.
fn create(dir: &Path, file: &BackupFile) -> Result<fs::File> {
    let part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
    };
    let parts: Vec<_> = file.name.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|name| part(name)) {
        return Err(Problem::invalid(format!(
            "the nameserver sends a file of the name '{}', which no backup has",
            file.name
        )));
    }
    let path = dir.join(&file.name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed(dir, file))?;
    }
    fs::File::create_new(&path).map_err(failed(dir, file))
}

fn failed(dir: &Path, file: &BackupFile) -> impl FnOnce(std::io::Error) -> Problem {
    let path = dir.join(&file.name);
    move |error| {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ProblemKind::NoSpace,
            _ => ProblemKind::Failed,
        };
        Problem::new(kind, format!("cannot write {}: {error}", path.display()))
    }
}

impl Client {
    /// What the nameserver says of its own data.
    ///
    /// # Errors
    /// `Retry` when no nameserver can be reached; `Failed` when it is older than this call.
    pub async fn custody_state(&self) -> Result<CustodyState> {
        self.run(|core| async move { core.session.custody_state().await })
            .await
    }

    /// Copies all metadata, consistent as of now, into the empty folder `dir`, every file flushed.
    ///
    /// # Errors
    /// `Retry` when the nameserver is lost meanwhile; `NoSpace`, there or here; `Failed` when `dir` can't be written.
    /// What was written is left.
    pub async fn backup(&self, dir: &Path) -> Result<BackupTaken> {
        let dir = dir.to_owned();
        self.run(|core| async move { core.session.backup(&dir).await })
            .await
    }

    /// Has every connected volume compared with the map, and doubtful replicas examined; the volumes compared.
    ///
    /// # Errors
    /// The first volume's that could not be compared.
    pub async fn reconcile(&self) -> Result<u32> {
        self.run(|core| async move { core.session.reconcile().await })
            .await
    }

    /// Blocks seen on a volume that nobody knows, by id above `after`, and whether there are more; `limit` at most
    /// 1000.
    ///
    /// # Errors
    /// `NotFound` for an unknown volume.
    pub async fn orphans(&self, volume: VolumeId, after: BlockId, limit: u32) -> Result<(Vec<Orphan>, bool)> {
        self.run(move |core| async move { core.session.orphans(volume, after, limit).await })
            .await
    }

    /// Lets go of what is quarantined since a restore: it is deleted like other orphans from now on. The reigns
    /// released.
    ///
    /// # Errors
    /// `Failed` or `NoSpace` when the nameserver is read-only.
    pub async fn release_quarantine(&self) -> Result<u64> {
        self.run(|core| async move { core.session.release().await }).await
    }
}
