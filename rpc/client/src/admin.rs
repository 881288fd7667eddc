//! Every call of a session, from plain types to plain types.

use blockyard_schema::nameserver_capnp::{file_info, session};
use blockyard_wire::convert;
use blockyard_wire::types::{
    AddedBlock, BlockId, BlockInfo, ClusterInfo, ClusterStatus, Duty, FileInfo, HeldBlock, Lease, NewBlock,
    NewFile, ScrubOrder, Sought, Trashed, Tuning, VolumeId,
};
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::options::{ListOptions, Located, Removed};
use crate::session::{Failure, Session};

/// Blocks that one `lookup` or `blocks` may answer.
pub const BLOCKS_PAGE: u32 = 256;
/// Entries that one `list` may answer.
const LIST_MAX: u32 = 1000;

type Answer<T> = std::result::Result<T, Failure>;

impl Session {
    pub async fn cluster(&self) -> Result<ClusterInfo> {
        self.call(async |session| {
            let response = session.cluster_request().send().promise.await?;
            Ok(convert::read_cluster_info(response.get()?.get_cluster()?)?)
        })
        .await
    }

    /// The current versions at some paths, at most 64, each with its first blocks. With several of them, a file may
    /// come with fewer blocks than it has and were wanted.
    pub async fn lookup(&self, sought: &[Sought]) -> Result<Vec<Result<(FileInfo, Vec<BlockInfo>)>>> {
        let found = self
            .call(async |session| {
                let mut request = session.lookup_request();
                convert::write_list(
                    sought,
                    request.get().init_sought(sought.len() as u32),
                    convert::write_sought,
                );
                let response = request.send().promise.await?;
                Ok(convert::read_list(
                    response.get()?.get_found()?,
                    convert::read_found,
                )?)
            })
            .await?;
        as_many(found, sought.len())
    }

    /// More blocks of a version that a lookup has named.
    pub async fn blocks(&self, version: u64, from: u32, max: u32) -> Result<Vec<BlockInfo>> {
        self.call(async |session| {
            let mut request = session.blocks_request();
            let mut params = request.get();
            params.set_version(version);
            params.set_from(from);
            params.set_max(max);
            let response = request.send().promise.await?;
            Ok(convert::read_list(
                response.get()?.get_blocks()?,
                convert::read_block_info,
            )?)
        })
        .await
    }

    /// The file at `path` with every block.
    pub async fn all_blocks(&self, path: &str) -> Result<(FileInfo, Vec<BlockInfo>)> {
        let sought = Sought {
            path: path.to_owned(),
            blocks_max: BLOCKS_PAGE,
        };
        let (file, mut blocks) = self.lookup(&[sought]).await?.swap_remove(0)?;
        while (blocks.len() as u32) < file.blocks {
            let more = self
                .blocks(file.version, blocks.len() as u32, BLOCKS_PAGE)
                .await?;
            if more.is_empty() {
                return Err(Problem::new(
                    ProblemKind::Failed,
                    format!(
                        "the nameserver names {} of the {} blocks of {path}",
                        blocks.len(),
                        file.blocks
                    ),
                ));
            }
            blocks.extend(more);
        }
        Ok((file, blocks))
    }

    pub async fn list(&self, path: &str, options: &ListOptions) -> Result<(Vec<FileInfo>, bool)> {
        self.call(async |session| {
            let mut request = session.list_request();
            let mut params = request.get();
            params.set_path(path);
            params.set_prefix(&options.prefix);
            params.set_after(&options.after);
            params.set_limit(match options.limit {
                0 => LIST_MAX,
                limit => limit.min(LIST_MAX),
            });
            params.set_recursive(options.recursive);
            let response = request.send().promise.await?;
            let response = response.get()?;
            let entries = convert::read_list(response.get_entries()?, convert::read_file_info)?;
            Ok((entries, response.get_more()))
        })
        .await
    }

    pub async fn mkdir(&self, path: &str, parents: bool) -> Result<FileInfo> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.mkdir_request();
            let mut params = request.get();
            params.set_path(path);
            params.set_parents(parents);
            convert::write_request_id(&id, params.init_request());
            let response = request.send().promise.await?;
            file_of(response.get()?.get_file()?)
        })
        .await
    }

    pub async fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<()> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.rename_request();
            let mut params = request.get();
            params.set_from(from);
            params.set_to(to);
            params.set_overwrite(overwrite);
            convert::write_request_id(&id, params.init_request());
            request.send().promise.await?;
            Ok(())
        })
        .await
    }

    pub async fn remove(&self, path: &str, recursive: bool) -> Result<Removed> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.remove_request();
            let mut params = request.get();
            params.set_path(path);
            params.set_recursive(recursive);
            convert::write_request_id(&id, params.init_request());
            let response = request.send().promise.await?;
            let response = response.get()?;
            Ok(Removed {
                files: response.get_files(),
                bytes: response.get_bytes(),
            })
        })
        .await
    }

    /// Opens an upload.
    pub async fn begin(
        &self,
        path: &str,
        overwrite: bool,
        replication: u8,
        content_type: &str,
    ) -> Result<Lease> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.begin_request();
            let mut params = request.get();
            params.set_path(path);
            params.set_overwrite(overwrite);
            params.set_replication(replication);
            params.set_content_type(content_type);
            convert::write_request_id(&id, params.init_request());
            let response = request.send().promise.await?;
            let response = response.get()?;
            Ok(Lease {
                id: response.get_lease(),
                version: response.get_version(),
                lease_ms: response.get_lease_ms(),
                replication: response.get_replication(),
            })
        })
        .await
    }

    /// Ids and chains for `count` blocks, none through a volume of `avoid`.
    pub async fn allocate(&self, lease: u64, count: u32, avoid: &[VolumeId]) -> Result<Vec<NewBlock>> {
        self.call(async |session| {
            let mut request = session.allocate_request();
            let mut params = request.get();
            params.set_lease(lease);
            params.set_count(count);
            let list = params.init_avoid(avoid.len() as u32);
            convert::write_list(avoid, list, |id, to| convert::write_id(&id.0, to));
            let response = request.send().promise.await?;
            Ok(convert::read_list(
                response.get()?.get_blocks()?,
                convert::read_new_block,
            )?)
        })
        .await
    }

    /// Ids and chains for `count` blocks of files without an upload, none through a volume of `avoid`.
    pub async fn reserve(&self, count: u32, replication: u8, avoid: &[VolumeId]) -> Result<Vec<NewBlock>> {
        self.call(async |session| {
            let mut request = session.reserve_request();
            let mut params = request.get();
            params.set_count(count);
            params.set_replication(replication);
            let list = params.init_avoid(avoid.len() as u32);
            convert::write_list(avoid, list, |id, to| convert::write_id(&id.0, to));
            let response = request.send().promise.await?;
            Ok(convert::read_list(
                response.get()?.get_blocks()?,
                convert::read_new_block,
            )?)
        })
        .await
    }

    /// Publishes files of reserved blocks, each for itself; with each, how many blocks have fewer replicas than asked
    /// for.
    pub async fn publish(&self, files: &[NewFile]) -> Result<Vec<Result<(FileInfo, u32)>>> {
        let published = self
            .call(async |session| {
                let mut request = session.publish_request();
                convert::write_list(
                    files,
                    request.get().init_files(files.len() as u32),
                    convert::write_new_file,
                );
                let response = request.send().promise.await?;
                Ok(convert::read_list(
                    response.get()?.get_results()?,
                    convert::read_published,
                )?)
            })
            .await?;
        as_many(published, files.len())
    }

    /// Tells of durable blocks, and renews the lease.
    pub async fn add_blocks(&self, lease: u64, blocks: &[AddedBlock]) -> Result<()> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.add_blocks_request();
            let mut params = request.get();
            params.set_lease(lease);
            convert::write_request_id(&id, params.reborrow().init_request());
            convert::write_list(
                blocks,
                params.init_blocks(blocks.len() as u32),
                convert::write_added_block,
            );
            request.send().promise.await?;
            Ok(())
        })
        .await
    }

    /// Publishes; also how many blocks have fewer replicas than asked for.
    pub async fn commit(
        &self,
        lease: u64,
        blocks: u32,
        length_bytes: u64,
        crc32c: u32,
    ) -> Result<(FileInfo, u32)> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.commit_request();
            let mut params = request.get();
            params.set_lease(lease);
            params.set_blocks(blocks);
            params.set_length_bytes(length_bytes);
            params.set_crc32c(crc32c);
            convert::write_request_id(&id, params.init_request());
            let response = request.send().promise.await?;
            let response = response.get()?;
            Ok((file_of(response.get_file()?)?, response.get_degraded()))
        })
        .await
    }

    pub async fn renew(&self, lease: u64) -> Result<()> {
        self.call(async |session| {
            let mut request = session.renew_request();
            request.get().set_lease(lease);
            request.send().promise.await?;
            Ok(())
        })
        .await
    }

    pub async fn abandon(&self, lease: u64) -> Result<()> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.abandon_request();
            let mut params = request.get();
            params.set_lease(lease);
            convert::write_request_id(&id, params.init_request());
            request.send().promise.await?;
            Ok(())
        })
        .await
    }

    /// Tells of a read that failed at `volume`.
    pub async fn report_bad(&self, block: BlockId, volume: VolumeId, problem: &Problem) -> Result<()> {
        self.call(async |session| {
            let mut request = session.report_bad_request();
            let mut params = request.get();
            params.set_block(block.0);
            convert::write_id(&volume.0, params.reborrow().init_volume());
            params.set_kind(convert::problem_kind_to(problem.kind));
            params.set_message(&problem.message);
            request.send().promise.await?;
            Ok(())
        })
        .await
    }

    pub async fn status(&self) -> Result<ClusterStatus> {
        self.call(async |session| {
            let response = session.status_request().send().promise.await?;
            Ok(convert::read_cluster_status(response.get()?.get_status()?)?)
        })
        .await
    }

    pub async fn replicas_of(
        &self,
        volume: VolumeId,
        after: BlockId,
        limit: u32,
    ) -> Result<(Vec<HeldBlock>, bool)> {
        self.call(async |session| {
            let mut request = session.replicas_of_request();
            let mut params = request.get();
            convert::write_id(&volume.0, params.reborrow().init_volume());
            params.set_after(after.0);
            params.set_limit(limit);
            let response = request.send().promise.await?;
            let response = response.get()?;
            let blocks = convert::read_list(response.get_blocks()?, convert::read_held_block)?;
            Ok((blocks, response.get_more()))
        })
        .await
    }

    pub async fn locate(&self, block: BlockId) -> Result<Located> {
        self.call(async |session: &session::Client| {
            let mut request = session.locate_request();
            request.get().set_block(block.0);
            let response = request.send().promise.await?;
            let response = response.get()?;
            Ok(Located {
                info: convert::read_block_info(response.get_info()?)?,
                path: convert::read_text(response.get_path()?)?,
                version: response.get_version(),
            })
        })
        .await
    }
}

/// What an operator sets.
impl Session {
    /// Sets what is wanted of some volumes.
    pub async fn assign(&self, volumes: &[VolumeId], duty: Duty, force: bool) -> Result<()> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.assign_request();
            let mut params = request.get();
            let list = params.reborrow().init_volumes(volumes.len() as u32);
            convert::write_list(volumes, list, |id, to| convert::write_id(&id.0, to));
            convert::write_duty(duty, params.reborrow().init_duty());
            params.set_force(force);
            convert::write_request_id(&id, params.init_request());
            request.send().promise.await?;
            Ok(())
        })
        .await
    }

    /// Has some volumes, or all that are connected, begin a scrub or pause.
    pub async fn scrub(&self, volumes: &[VolumeId], order: ScrubOrder) -> Result<()> {
        self.call(async |session| {
            let mut request = session.scrub_request();
            let mut params = request.get();
            let list = params.reborrow().init_volumes(volumes.len() as u32);
            convert::write_list(volumes, list, |id, to| convert::write_id(&id.0, to));
            params.set_order(convert::scrub_order_to(order));
            request.send().promise.await?;
            Ok(())
        })
        .await
    }

    /// Sets how many replicas a file, or all files below a directory, are to have; how many files those are.
    pub async fn set_replication(&self, path: &str, recursive: bool, replication: u8) -> Result<u64> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.set_replication_request();
            let mut params = request.get();
            params.set_path(path);
            params.set_recursive(recursive);
            params.set_replication(replication);
            convert::write_request_id(&id, params.init_request());
            let response = request.send().promise.await?;
            Ok(response.get()?.get_files())
        })
        .await
    }

    /// Sets how repair and balance are to work.
    pub async fn tune(&self, tuning: Tuning) -> Result<()> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.tune_request();
            let mut params = request.get();
            convert::write_tuning(&tuning, params.reborrow().init_tuning());
            convert::write_request_id(&id, params.init_request());
            request.send().promise.await?;
            Ok(())
        })
        .await
    }
}

/// The trash.
impl Session {
    /// Puts a file or directory into the trash.
    pub async fn discard(&self, path: &str, recursive: bool) -> Result<Removed> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.discard_request();
            let mut params = request.get();
            params.set_path(path);
            params.set_recursive(recursive);
            convert::write_request_id(&id, params.init_request());
            let response = request.send().promise.await?;
            let response = response.get()?;
            Ok(Removed {
                files: response.get_files(),
                bytes: response.get_bytes(),
            })
        })
        .await
    }

    /// A page of what lies in the trash, and whether there is more.
    pub async fn trash(&self, after: u64, limit: u32) -> Result<(Vec<Trashed>, bool)> {
        self.call(async |session| {
            let mut request = session.trash_request();
            request.get().set_after(after);
            request.get().set_limit(limit);
            let response = request.send().promise.await?;
            let response = response.get()?;
            let entries = convert::read_list(response.get_entries()?, convert::read_trashed)?;
            Ok((entries, response.get_more()))
        })
        .await
    }

    /// Takes something out of the trash: to where it was when `to` is empty.
    pub async fn restore(&self, entry: u64, to: &str) -> Result<FileInfo> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.restore_request();
            let mut params = request.get();
            params.set_entry(entry);
            params.set_to(to);
            convert::write_request_id(&id, params.init_request());
            let response = request.send().promise.await?;
            file_of(response.get()?.get_file()?)
        })
        .await
    }

    /// Removes some of the trash, or (`None`) all of it.
    pub async fn empty_trash(&self, entries: Option<&[u64]>) -> Result<Removed> {
        let id = self.request_id();
        self.call(async |session| {
            let mut request = session.empty_trash_request();
            let mut params = request.get();
            params.set_all(entries.is_none());
            let named = entries.unwrap_or_default();
            let mut list = params.reborrow().init_entries(named.len() as u32);
            for (at, entry) in (0..).zip(named) {
                list.set(at, *entry);
            }
            convert::write_request_id(&id, params.init_request());
            let response = request.send().promise.await?;
            let response = response.get()?;
            Ok(Removed {
                files: response.get_files(),
                bytes: response.get_bytes(),
            })
        })
        .await
    }
}

/// As many answers as questions.
fn as_many<T>(answers: Vec<T>, questions: usize) -> Result<Vec<T>> {
    if answers.len() == questions {
        return Ok(answers);
    }
    let got = answers.len();
    Err(Problem::new(
        ProblemKind::Failed,
        format!("the nameserver gives {got} answers to {questions} questions"),
    ))
}

fn file_of(file: file_info::Reader<'_>) -> Answer<FileInfo> {
    Ok(convert::read_file_info(file)?)
}
