//! A client's session: every call on names, uploads and the cluster's state.

use std::rc::Rc;

use blockyard_schema::nameserver_capnp::session;
use blockyard_wire::types::{BlockId, RequestId, VolumeId};
use blockyard_wire::{Problem, Result, convert};

use super::custody::Custody;
use crate::answers::BLOCKS_MAX;
use crate::calls::{NewUpload, Sent};
use crate::core::Core;
use crate::operate;

/// Volumes that a client may ask to avoid in one call.
const AVOID_MAX: u32 = 1024;
/// Paths that one call may look up.
const LOOKUP_MAX: u32 = 64;
/// Files that one call may publish.
const PUBLISH_MAX: u32 = 64;

/// Entries of the trash that one call may name.
const EMPTY_MAX: u32 = 1000;

/// A client's session.
pub struct Session {
    core: Rc<Core>,
}

impl Session {
    /// A session with the nameserver.
    pub fn new(core: Rc<Core>) -> Self {
        Self { core }
    }
}

type Text<'a> = capnp::Result<capnp::text::Reader<'a>>;

fn text(field: Text<'_>) -> Result<String> {
    convert::read_text(field?)
}

fn request(
    field: capnp::Result<blockyard_schema::nameserver_capnp::request_id::Reader<'_>>,
) -> Result<RequestId> {
    convert::read_request_id(field?)
}

/// Volumes that a client would rather not write to.
fn avoided(
    list: capnp::struct_list::Reader<'_, blockyard_schema::types_capnp::id128::Owned>,
) -> Result<Vec<VolumeId>> {
    if list.len() > AVOID_MAX {
        return Err(Problem::invalid(format!(
            "more than {AVOID_MAX} volumes to avoid"
        )));
    }
    convert::read_list(list, convert::read_volume_id)
}

impl session::Server for Session {
    async fn cluster(
        self: Rc<Self>,
        _: session::ClusterParams,
        mut results: session::ClusterResults,
    ) -> capnp::Result<()> {
        convert::write_cluster_info(&self.core.info(), results.get().init_cluster());
        Ok(())
    }

    async fn lookup(
        self: Rc<Self>,
        params: session::LookupParams,
        mut results: session::LookupResults,
    ) -> capnp::Result<()> {
        let sought = params.get()?.get_sought()?;
        if sought.len() > LOOKUP_MAX {
            return Err(Problem::invalid(format!("more than {LOOKUP_MAX} paths in one call")).into());
        }
        let mut blocks_left = BLOCKS_MAX;
        let found = convert::read_list(sought, |sought| {
            let sought = convert::read_sought(sought)?;
            let found = self
                .core
                .lookup(&sought.path, 0, sought.blocks_max.min(blocks_left));
            blocks_left -= found.as_ref().map_or(0, |(_, blocks)| blocks.len() as u32);
            Ok(found)
        })?;
        convert::write_list(
            &found,
            results.get().init_found(found.len() as u32),
            convert::write_found,
        );
        Ok(())
    }

    async fn blocks(
        self: Rc<Self>,
        params: session::BlocksParams,
        mut results: session::BlocksResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let blocks = self
            .core
            .blocks(params.get_version(), params.get_from(), params.get_max())?;
        convert::write_list(
            &blocks,
            results.get().init_blocks(blocks.len() as u32),
            convert::write_block_info,
        );
        Ok(())
    }

    async fn list(
        self: Rc<Self>,
        params: session::ListParams,
        mut results: session::ListResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (entries, more) = self.core.state.borrow().list(
            &text(params.get_path())?,
            &text(params.get_prefix())?,
            &text(params.get_after())?,
            params.get_limit() as usize,
            params.get_recursive(),
        )?;
        let mut results = results.get();
        results.set_more(more);
        convert::write_list(
            &entries,
            results.init_entries(entries.len() as u32),
            convert::write_file_info,
        );
        Ok(())
    }

    async fn mkdir(
        self: Rc<Self>,
        params: session::MkdirParams,
        mut results: session::MkdirResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (path, parents) = (text(params.get_path())?, params.get_parents());
        let request = request(params.get_request())?;
        let file = self.core.mkdir(path, parents, request).await?;
        convert::write_file_info(&file, results.get().init_file());
        Ok(())
    }

    async fn rename(
        self: Rc<Self>,
        params: session::RenameParams,
        _: session::RenameResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (from, to) = (text(params.get_from())?, text(params.get_to())?);
        let request = request(params.get_request())?;
        self.core
            .rename(from, to, params.get_overwrite(), request)
            .await?;
        Ok(())
    }

    async fn remove(
        self: Rc<Self>,
        params: session::RemoveParams,
        mut results: session::RemoveResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (path, recursive) = (text(params.get_path())?, params.get_recursive());
        let request = request(params.get_request())?;
        let (files, bytes) = self.core.remove(path, recursive, request).await?;
        let mut results = results.get();
        results.set_files(files);
        results.set_bytes(bytes);
        Ok(())
    }

    async fn begin(
        self: Rc<Self>,
        params: session::BeginParams,
        mut results: session::BeginResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let upload = NewUpload {
            path: text(params.get_path())?,
            overwrite: params.get_overwrite(),
            replication: params.get_replication(),
            content_type: text(params.get_content_type())?,
        };
        let lease = self.core.begin(upload, request(params.get_request())?).await?;
        let mut results = results.get();
        results.set_lease(lease.id);
        results.set_version(lease.version);
        results.set_lease_ms(lease.lease_ms);
        results.set_replication(lease.replication);
        Ok(())
    }

    async fn allocate(
        self: Rc<Self>,
        params: session::AllocateParams,
        mut results: session::AllocateResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let avoid = avoided(params.get_avoid()?)?;
        // What is written now could not be published.
        self.core.writable()?;
        let blocks = self
            .core
            .allocate(params.get_lease(), params.get_count(), &avoid)?;
        convert::write_list(
            &blocks,
            results.get().init_blocks(blocks.len() as u32),
            convert::write_new_block,
        );
        Ok(())
    }

    async fn add_blocks(
        self: Rc<Self>,
        params: session::AddBlocksParams,
        _: session::AddBlocksResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let added = convert::read_list(params.get_blocks()?, convert::read_added_block)?;
        let request = request(params.get_request())?;
        self.core.add_blocks(params.get_lease(), &added, request).await?;
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        params: session::CommitParams,
        mut results: session::CommitResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let sent = Sent {
            blocks: params.get_blocks(),
            length_bytes: params.get_length_bytes(),
            crc32c: params.get_crc32c(),
        };
        let request = request(params.get_request())?;
        let (file, degraded) = self.core.commit(params.get_lease(), sent, request).await?;
        let mut results = results.get();
        convert::write_file_info(&file, results.reborrow().init_file());
        results.set_degraded(degraded);
        Ok(())
    }

    async fn reserve(
        self: Rc<Self>,
        params: session::ReserveParams,
        mut results: session::ReserveResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let avoid = avoided(params.get_avoid()?)?;
        self.core.writable()?;
        let blocks = self
            .core
            .reserve(params.get_replication(), params.get_count(), &avoid)?;
        convert::write_list(
            &blocks,
            results.get().init_blocks(blocks.len() as u32),
            convert::write_new_block,
        );
        Ok(())
    }

    async fn publish(
        self: Rc<Self>,
        params: session::PublishParams,
        mut results: session::PublishResults,
    ) -> capnp::Result<()> {
        let files = params.get()?.get_files()?;
        if files.len() > PUBLISH_MAX {
            return Err(Problem::invalid(format!("more than {PUBLISH_MAX} files in one call")).into());
        }
        let files = convert::read_list(files, convert::read_new_file)?;
        // All at once, so that they share a flush of the journal.
        let published = files.into_iter().map(|file| self.core.publish(file));
        let published = futures_util::future::join_all(published).await;
        convert::write_list(
            &published,
            results.get().init_results(published.len() as u32),
            convert::write_published,
        );
        Ok(())
    }

    async fn renew(
        self: Rc<Self>,
        params: session::RenewParams,
        mut results: session::RenewResults,
    ) -> capnp::Result<()> {
        let lease = params.get()?.get_lease();
        results.get().set_lease_ms(self.core.renew(lease)?);
        Ok(())
    }

    async fn abandon(
        self: Rc<Self>,
        params: session::AbandonParams,
        _: session::AbandonResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let lease = params.get_lease();
        let request = request(params.get_request())?;
        self.core.abandon(lease, request).await?;
        Ok(())
    }

    async fn report_bad(
        self: Rc<Self>,
        params: session::ReportBadParams,
        _: session::ReportBadResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let block = BlockId(params.get_block());
        let volume = VolumeId(convert::read_id(params.get_volume()?));
        let kind = convert::problem_kind_from(params.get_kind());
        let message: String = text(params.get_message())?
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        tracing::info!(%block, %volume, kind = kind.name(), message, "a client could not read a replica");
        self.core.report_bad(block, volume, kind)?;
        Ok(())
    }

    async fn status(
        self: Rc<Self>,
        _: session::StatusParams,
        mut results: session::StatusResults,
    ) -> capnp::Result<()> {
        convert::write_cluster_status(&self.core.status(), results.get().init_status());
        Ok(())
    }

    async fn replicas_of(
        self: Rc<Self>,
        params: session::ReplicasOfParams,
        mut results: session::ReplicasOfResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let volume = VolumeId(convert::read_id(params.get_volume()?));
        let (blocks, more) =
            self.core
                .replicas_of(volume, BlockId(params.get_after()), params.get_limit())?;
        let mut results = results.get();
        results.set_more(more);
        convert::write_list(
            &blocks,
            results.init_blocks(blocks.len() as u32),
            convert::write_held_block,
        );
        Ok(())
    }

    async fn locate(
        self: Rc<Self>,
        params: session::LocateParams,
        mut results: session::LocateResults,
    ) -> capnp::Result<()> {
        let (info, path, version) = self.core.locate(BlockId(params.get()?.get_block()))?;
        let mut results = results.get();
        convert::write_block_info(&info, results.reborrow().init_info());
        results.set_path(&path);
        results.set_version(version);
        Ok(())
    }

    async fn assign(
        self: Rc<Self>,
        params: session::AssignParams,
        _: session::AssignResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let volumes = avoided(params.get_volumes()?)?;
        let duty = convert::read_duty(params.get_duty()?)?;
        let request = request(params.get_request())?;
        operate::assign(&self.core, &volumes, duty, params.get_force(), request).await?;
        Ok(())
    }

    async fn scrub(
        self: Rc<Self>,
        params: session::ScrubParams,
        _: session::ScrubResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let volumes = avoided(params.get_volumes()?)?;
        let order = convert::scrub_order_from(params.get_order());
        operate::scrub(&self.core, &volumes, order).await?;
        Ok(())
    }

    async fn set_replication(
        self: Rc<Self>,
        params: session::SetReplicationParams,
        mut results: session::SetReplicationResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (path, recursive) = (text(params.get_path())?, params.get_recursive());
        let (replication, request) = (params.get_replication(), request(params.get_request())?);
        let files = self
            .core
            .set_replication(path, recursive, replication, request)
            .await?;
        results.get().set_files(files);
        Ok(())
    }

    async fn tune(self: Rc<Self>, params: session::TuneParams, _: session::TuneResults) -> capnp::Result<()> {
        let params = params.get()?;
        let tuning = convert::read_tuning(params.get_tuning()?);
        let request = request(params.get_request())?;
        self.core.tune(tuning, request).await?;
        Ok(())
    }

    async fn discard(
        self: Rc<Self>,
        params: session::DiscardParams,
        mut results: session::DiscardResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (path, recursive) = (text(params.get_path())?, params.get_recursive());
        let request = request(params.get_request())?;
        let (files, bytes) = self.core.discard(path, recursive, request).await?;
        let mut results = results.get();
        results.set_files(files);
        results.set_bytes(bytes);
        Ok(())
    }

    async fn trash(
        self: Rc<Self>,
        params: session::TrashParams,
        mut results: session::TrashResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (entries, more) = self.core.trash(params.get_after(), params.get_limit());
        let mut results = results.get();
        results.set_more(more);
        convert::write_list(
            &entries,
            results.init_entries(entries.len() as u32),
            convert::write_trashed,
        );
        Ok(())
    }

    async fn restore(
        self: Rc<Self>,
        params: session::RestoreParams,
        mut results: session::RestoreResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (entry, to) = (params.get_entry(), text(params.get_to())?);
        let request = request(params.get_request())?;
        let file = self.core.restore(entry, to, request).await?;
        convert::write_file_info(&file, results.get().init_file());
        Ok(())
    }

    async fn empty_trash(
        self: Rc<Self>,
        params: session::EmptyTrashParams,
        mut results: session::EmptyTrashResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let named = params.get_entries()?;
        if named.len() > EMPTY_MAX {
            return Err(
                Problem::invalid(format!("more than {EMPTY_MAX} entries of the trash in one call")).into(),
            );
        }
        let entries = match params.get_all() {
            true => self
                .core
                .state
                .borrow()
                .trash()
                .entries()
                .keys()
                .copied()
                .collect(),
            false => named.iter().collect(),
        };
        let request = request(params.get_request())?;
        let (files, bytes) = self.core.empty_trash(entries, request).await?;
        let mut results = results.get();
        results.set_files(files);
        results.set_bytes(bytes);
        Ok(())
    }

    async fn custody(
        self: Rc<Self>,
        _: session::CustodyParams,
        mut results: session::CustodyResults,
    ) -> capnp::Result<()> {
        results
            .get()
            .set_custody(capnp_rpc::new_client(Custody::new(self.core.clone())));
        Ok(())
    }
}
