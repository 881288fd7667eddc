//! What an operator asks of the nameserver's own data, and of what volumes hold beside it.

use std::rc::Rc;

use blockyard_schema::nameserver_capnp::{backup, custody};
use blockyard_wire::ticket::now_unix_ms;
use blockyard_wire::types::{BlockId, CustodyState, Orphan, VolumeId};
use blockyard_wire::{Problem, ProblemKind, Result, convert};

use crate::backup::{Pinned, piece};
use crate::core::Core;
use crate::reconcile;
use crate::state::{Command, Outcome};

/// Bytes of one piece of a backup: half of the longest message.
const PIECE_BYTES_MAX: u32 = 512 * 1024;
/// Orphans of one answer.
const ORPHANS_MAX: usize = 1000;
/// Tries to find files that have not been replaced meanwhile.
const TRIES: u32 = 5;

/// The custody of a session.
pub struct Custody {
    core: Rc<Core>,
}

impl Custody {
    /// The custody of the nameserver.
    pub fn new(core: Rc<Core>) -> Self {
        Self { core }
    }

    fn state(&self) -> CustodyState {
        let core = &self.core;
        let state = core.state.borrow();
        CustodyState {
            read_only: core.read_only.borrow().clone(),
            journal_trouble: core.journal_trouble.borrow().clone(),
            quarantined: core.orphans.borrow().count(|block| state.is_quarantined(block)),
            quarantined_reigns: state
                .quarantine()
                .iter()
                .map(|(first, last)| last + 1 - first)
                .sum(),
        }
    }

    /// The journal goes on in another file, so that the ones before stay as they are.
    async fn pin(&self) -> Result<Pinned> {
        let mut failed = None;
        for _ in 0..TRIES {
            let closed = self.core.close_file().await?;
            let dirs = self.core.live_dirs.borrow().clone();
            let pinned = tokio::task::spawn_blocking(move || Pinned::open(&dirs, closed)).await;
            match pinned.map_err(|panic| Problem::new(ProblemKind::Failed, panic.to_string()))? {
                Ok(pinned) => return Ok(pinned),
                // A snapshot may just have taken the place of the one that was listed.
                Err(error) => failed = Some(error),
            }
        }
        let why = failed.map_or_else(String::new, |error| error.to_string());
        Err(Problem::retry(format!("the backup could not begin: {why}")))
    }

    fn orphans(&self, volume: VolumeId, after: BlockId, limit: usize) -> Result<(Vec<Orphan>, bool)> {
        let core = &self.core;
        let state = core.state.borrow();
        let index = state.blocks().known(volume)?;
        let mut found = core.orphans.borrow().on(index, after, core.now_ms());
        // What has come onto the map since the last comparison is none any more.
        found.retain(|(block, _)| state.blocks().get(*block).is_none());
        found.sort_unstable();
        let more = found.len() > limit;
        found.truncate(limit);
        let orphan = |(block, age_ms)| Orphan {
            block,
            age_ms,
            quarantined: state.is_quarantined(block),
        };
        Ok((found.into_iter().map(orphan).collect(), more))
    }
}

impl custody::Server for Custody {
    async fn state(
        self: Rc<Self>,
        _: custody::StateParams,
        mut results: custody::StateResults,
    ) -> capnp::Result<()> {
        convert::write_custody_state(&Custody::state(&self), results.get());
        Ok(())
    }

    async fn backup(
        self: Rc<Self>,
        _: custody::BackupParams,
        mut results: custody::BackupResults,
    ) -> capnp::Result<()> {
        let pinned = self.pin().await?;
        tracing::info!(files = pinned.files.len(), "a backup begins");
        let backup = Backup {
            core: self.core.clone(),
            pinned,
        };
        results.get().set_backup(capnp_rpc::new_client(backup));
        Ok(())
    }

    async fn reconcile(
        self: Rc<Self>,
        _: custody::ReconcileParams,
        mut results: custody::ReconcileResults,
    ) -> capnp::Result<()> {
        let volumes = reconcile::reconcile(&self.core).await?;
        results.get().set_volumes(volumes);
        Ok(())
    }

    async fn orphans(
        self: Rc<Self>,
        params: custody::OrphansParams,
        mut results: custody::OrphansResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let volume = VolumeId(convert::read_id(params.get_volume()?));
        let limit = (params.get_limit() as usize).clamp(1, ORPHANS_MAX);
        let (orphans, more) = Custody::orphans(&self, volume, BlockId(params.get_after()), limit)?;
        let mut results = results.get();
        results.set_more(more);
        convert::write_list(
            &orphans,
            results.init_orphans(orphans.len() as u32),
            convert::write_orphan,
        );
        Ok(())
    }

    async fn release(
        self: Rc<Self>,
        _: custody::ReleaseParams,
        mut results: custody::ReleaseResults,
    ) -> capnp::Result<()> {
        let command = Command::Released {
            at_unix_ms: now_unix_ms(),
        };
        if let Outcome::Released { reigns } = self.core.propose(command).await? {
            tracing::warn!(reigns, "the quarantine is lifted");
            results.get().set_reigns(reigns);
        }
        Ok(())
    }
}

/// The files of a backup under way: kept until the one who asked, or its connection, is gone.
struct Backup {
    core: Rc<Core>,
    pinned: Pinned,
}

impl backup::Server for Backup {
    async fn describe(
        self: Rc<Self>,
        _: backup::DescribeParams,
        mut results: backup::DescribeResults,
    ) -> capnp::Result<()> {
        let mut results = results.get();
        convert::write_id(&self.core.cluster.0, results.reborrow().init_cluster());
        convert::write_epoch(&self.core.epoch(), results.reborrow().init_epoch());
        let files = &self.pinned.files;
        convert::write_list(
            files,
            results.init_files(files.len() as u32),
            convert::write_backup_file,
        );
        Ok(())
    }

    async fn read(
        self: Rc<Self>,
        params: backup::ReadParams,
        mut results: backup::ReadResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (offset, bytes) = (params.get_offset(), params.get_bytes().clamp(1, PIECE_BYTES_MAX));
        let file = self
            .pinned
            .file(params.get_file() as usize)
            .ok_or_else(|| Problem::not_found("the backup has no such file"))?;
        let piece = tokio::task::spawn_blocking(move || piece(&file, offset, bytes as usize)).await;
        let piece = piece
            .map_err(|panic| Problem::new(ProblemKind::Failed, panic.to_string()))?
            .map_err(|error| Problem::new(ProblemKind::Failed, error.to_string()))?;
        results.get().set_bytes(&piece);
        Ok(())
    }
}
