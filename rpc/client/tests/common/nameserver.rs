//! A fake nameserver: a flat map of files behind the real gate, with leases and repeated requests.

use std::sync::Arc;

use blockyard_client::types::{
    AddedBlock, BlockId, BlockInfo, ClusterInfo, FileInfo, Hop, Lease, Location, NewBlock, NewFile,
    ReplicaState, RequestId, Sought, VolumeId,
};
use blockyard_client::{Problem, ProblemKind};
use blockyard_engine::checksum;
use blockyard_engine::limits::BLOCK_BYTES_MAX;
use blockyard_schema::nameserver_capnp::{gate, session};
use blockyard_wire::ticket::{Claim, Operation, Ticket, now_unix_ms};
use blockyard_wire::{control, convert};
use capnp::capability::Rc;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::{NameserverState, World};

type Done = std::result::Result<(), capnp::Error>;

pub async fn start(world: &Arc<World>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let world = world.clone();
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if world.nameserver().down {
                continue;
            }
            let world = world.clone();
            tokio::task::spawn_local(async move {
                let changed = world.nameserver().changed.clone();
                let hangup = std::rc::Rc::new(Notify::new());
                let gate = FakeGate {
                    world: world.clone(),
                    hangup: hangup.clone(),
                };
                let serving = async {
                    let accepted = control::accept(stream, &world.secret, world.cluster).await;
                    if let Ok(accepted) = accepted {
                        let _ = accepted.serve(capnp_rpc::new_client(gate)).await;
                    }
                };
                tokio::select! {
                    () = serving => {}
                    () = changed.notified() => {}
                    () = hangup.notified() => {}
                }
            });
        }
    });
    address
}

struct FakeGate {
    world: Arc<World>,
    hangup: std::rc::Rc<Notify>,
}

struct FakeSession {
    world: Arc<World>,
    hangup: std::rc::Rc<Notify>,
}

impl gate::Server for FakeGate {
    async fn login(self: Rc<Self>, _: gate::LoginParams, mut results: gate::LoginResults) -> Done {
        self.world.nameserver().logins += 1;
        let session = FakeSession {
            world: self.world.clone(),
            hangup: self.hangup.clone(),
        };
        let mut to = results.get();
        to.set_session(capnp_rpc::new_client(session));
        convert::write_cluster_info(&info(&self.world), to.init_cluster());
        Ok(())
    }
}

fn info(world: &World) -> ClusterInfo {
    let state = world.nameserver();
    ClusterInfo {
        cluster: world.cluster,
        replication: state.replication,
        min_replicas: 1,
        block_bytes: BLOCK_BYTES_MAX as u32,
        lease_ms: state.lease_ms,
        now_unix_ms: now_unix_ms(),
        ..ClusterInfo::default()
    }
}

impl FakeSession {
    /// Whether a test wants this call refused.
    fn may(&self, call: &'static str) -> Done {
        let mut state = self.world.nameserver();
        match state.refuse.iter().position(|(refused, _)| *refused == call) {
            Some(at) => Err(state.refuse.remove(at).1.into()),
            None => Ok(()),
        }
    }

    /// Applies a mutation once for each request, then loses the answer if a test wants that.
    async fn once(
        &self,
        call: &'static str,
        request: RequestId,
        apply: impl FnOnce(&mut NameserverState) -> Result<u64, Problem>,
    ) -> Result<u64, capnp::Error> {
        self.may(call)?;
        let (value, lost) = {
            let mut state = self.world.nameserver();
            assert_ne!(request, RequestId::default(), "{call} is named");
            let value = match state.answered.get(&request).copied() {
                Some(value) => {
                    state.repeated += 1;
                    value
                }
                None => {
                    let value = apply(&mut state)?;
                    state.answered.insert(request, value);
                    value
                }
            };
            (value, state.take_lost(call))
        };
        if lost {
            self.hangup.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(value)
    }

    fn ticket(&self, operation: Operation, block: BlockId, volume: VolumeId, hop: u8) -> Ticket {
        let grant = Claim {
            operation,
            block,
            volume,
            hop,
            length: BLOCK_BYTES_MAX as u32,
        };
        let expires = now_unix_ms() + self.world.nameserver().ticket_ms;
        self.world.keys.sign(&grant, expires)
    }

    fn hop(&self, operation: Operation, block: BlockId, volume: VolumeId, position: u8) -> Hop {
        let address = self.world.volume(volume, |state| state.address.clone());
        Hop {
            volume,
            server: format!("server-of-{address}"),
            address,
            ticket: self.ticket(operation, block, volume, position),
        }
    }

    fn check_proofs(&self, added: &AddedBlock) {
        let proven = |proof| {
            self.world
                .keys
                .proves(proof, added.block, added.length, added.crc32c)
        };
        assert!(!added.proofs.is_empty() && added.proofs.iter().all(proven));
    }

    /// Fresh blocks, all with the same chain.
    fn chains(
        &self,
        count: u32,
        replication: u8,
        avoid: Vec<VolumeId>,
    ) -> Result<Vec<NewBlock>, capnp::Error> {
        let mut usable: Vec<VolumeId> = self.world.volumes().iter().map(|(id, _)| *id).collect();
        usable.retain(|id| !avoid.contains(id));
        let first = {
            let mut state = self.world.nameserver();
            state.allocations += 1;
            state.avoided.push(avoid);
            let first = state.next_id;
            state.next_id += u64::from(count);
            first
        };
        if usable.is_empty() {
            return Err(Problem::new(ProblemKind::NoSpace, "no volume is left").into());
        }
        usable.truncate(usize::from(replication));
        let blocks = (0..count).map(|at| {
            let block = BlockId(first + u64::from(at));
            let hops = usable.iter().zip(0..);
            let chain = hops.map(|(volume, position)| self.hop(Operation::Write, block, *volume, position));
            NewBlock {
                block,
                chain: chain.collect(),
            }
        });
        Ok(blocks.collect())
    }

    fn block_infos(&self, blocks: &[AddedBlock], from: u32, max: u32) -> Vec<BlockInfo> {
        let max = max.min(self.world.nameserver().page_max) as usize;
        let page = blocks.iter().skip(from as usize).take(max);
        page.map(|added| BlockInfo {
            block: added.block,
            index: added.index,
            length: added.length,
            crc32c: added.crc32c,
            replicas: self.locations(added),
        })
        .collect()
    }

    fn locations(&self, added: &AddedBlock) -> Vec<Location> {
        let volumes = added.proofs.iter().map(|proof| proof.volume);
        volumes
            .map(|volume| Location {
                hop: self.hop(Operation::Read, added.block, volume, 0),
                state: ReplicaState::Good,
                live: true,
                zone: String::new(),
            })
            .collect()
    }
}

impl NameserverState {
    fn or_default(&self, replication: u8) -> u8 {
        match replication {
            0 => self.replication,
            asked => asked,
        }
    }

    /// Whether a test wants the answer of this call lost.
    fn take_lost(&mut self, call: &str) -> bool {
        let at = self.lose_answer_of.iter().position(|lost| *lost == call);
        at.map(|at| self.lose_answer_of.remove(at)).is_some()
    }

    /// A file appears; also how many of its blocks have fewer replicas than wanted.
    fn appear(
        &mut self,
        lease: &Lease,
        path: String,
        blocks: Vec<AddedBlock>,
        whole: (u64, u32),
    ) -> (FileInfo, u32) {
        let indexes = blocks.iter().map(|block| block.index);
        assert!(indexes.eq(0..blocks.len() as u32));
        let summed = blocks.iter().fold((0, 0), |(bytes, crc), block| {
            let length = u64::from(block.length);
            (bytes + length, checksum::combine(crc, block.crc32c, length))
        });
        assert_eq!(summed, whole);
        let file = FileInfo {
            name: path.rsplit('/').next().unwrap_or_default().to_owned(),
            path: path.clone(),
            version: lease.version,
            size_bytes: whole.0,
            crc32c: whole.1,
            blocks: blocks.len() as u32,
            replication: lease.replication,
            ..FileInfo::default()
        };
        let few = |block: &&AddedBlock| block.proofs.len() < usize::from(lease.replication);
        let degraded = blocks.iter().filter(few).count() as u32;
        self.files.insert(path, (file.clone(), blocks));
        (file, degraded)
    }

    /// Publishes once for each request.
    fn publish(&mut self, file: NewFile) -> Result<(FileInfo, u32), Problem> {
        assert_ne!(file.request, RequestId::default(), "publications are named");
        if self.answered.contains_key(&file.request) {
            self.repeated += 1;
            return Ok((self.files[&file.path].0.clone(), 0));
        }
        if self.files.contains_key(&file.path) && !file.overwrite {
            return Err(Problem::new(ProblemKind::Exists, format!("{} exists", file.path)));
        }
        if !file.blocks.iter().all(|added| self.reserved.remove(&added.block)) {
            return Err(Problem::new(ProblemKind::Denied, "not reserved"));
        }
        self.commits += 1;
        let version = self.next_id;
        self.next_id += 1;
        self.answered.insert(file.request, version);
        let lease = Lease {
            id: 0,
            version,
            lease_ms: self.lease_ms,
            replication: self.or_default(file.replication),
        };
        Ok(self.appear(&lease, file.path, file.blocks, (file.length_bytes, file.crc32c)))
    }
}

impl session::Server for FakeSession {
    async fn cluster(
        self: Rc<Self>,
        _: session::ClusterParams,
        mut results: session::ClusterResults,
    ) -> Done {
        self.may("cluster")?;
        convert::write_cluster_info(&info(&self.world), results.get().init_cluster());
        Ok(())
    }

    async fn lookup(
        self: Rc<Self>,
        params: session::LookupParams,
        mut results: session::LookupResults,
    ) -> Done {
        self.may("lookup")?;
        let found = convert::read_list(params.get()?.get_sought()?, |sought| {
            let Sought { path, blocks_max } = convert::read_sought(sought)?;
            let found = self.world.nameserver().files.get(&path).cloned();
            let found = found.ok_or_else(|| Problem::not_found(format!("no such file: {path}")));
            Ok(found.map(|(file, blocks)| (file, self.block_infos(&blocks, 0, blocks_max))))
        })?;
        let to = results.get().init_found(found.len() as u32);
        convert::write_list(&found, to, convert::write_found);
        Ok(())
    }

    async fn blocks(
        self: Rc<Self>,
        params: session::BlocksParams,
        mut results: session::BlocksResults,
    ) -> Done {
        self.may("blocks")?;
        let params = params.get()?;
        let version = params.get_version();
        let found = {
            let state = self.world.nameserver();
            let kept = !state.gone.contains(&version);
            let mut files = state.files.values();
            files.find(|(file, _)| file.version == version && kept).cloned()
        };
        let (_, blocks) =
            found.ok_or_else(|| Problem::new(ProblemKind::Gone, "this version is no longer kept"))?;
        let infos = self.block_infos(&blocks, params.get_from(), params.get_max());
        let to = results.get().init_blocks(infos.len() as u32);
        convert::write_list(&infos, to, convert::write_block_info);
        Ok(())
    }

    async fn list(self: Rc<Self>, params: session::ListParams, mut results: session::ListResults) -> Done {
        let params = params.get()?;
        let after = convert::read_text(params.get_after()?)?;
        let prefix = convert::read_text(params.get_prefix()?)?;
        let limit = params.get_limit() as usize;
        let mut files: Vec<FileInfo> = {
            let state = self.world.nameserver();
            state.files.values().map(|(file, _)| file.clone()).collect()
        };
        files.retain(|file| file.name > after && file.name.starts_with(&prefix));
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let more = files.len() > limit;
        files.truncate(limit);
        let mut to = results.get();
        to.set_more(more);
        convert::write_list(
            &files,
            to.init_entries(files.len() as u32),
            convert::write_file_info,
        );
        Ok(())
    }

    async fn mkdir(self: Rc<Self>, params: session::MkdirParams, mut results: session::MkdirResults) -> Done {
        let params = params.get()?;
        let path = convert::read_text(params.get_path()?)?;
        let request = convert::read_request_id(params.get_request()?)?;
        self.once("mkdir", request, |state| {
            if state.directories.contains(&path) {
                return Err(Problem::new(ProblemKind::Exists, format!("{path} exists")));
            }
            state.directories.push(path.clone());
            Ok(0)
        })
        .await?;
        let file = FileInfo {
            path,
            directory: true,
            ..FileInfo::default()
        };
        convert::write_file_info(&file, results.get().init_file());
        Ok(())
    }

    async fn remove(
        self: Rc<Self>,
        params: session::RemoveParams,
        mut results: session::RemoveResults,
    ) -> Done {
        let params = params.get()?;
        let path = convert::read_text(params.get_path()?)?;
        let request = convert::read_request_id(params.get_request()?)?;
        let bytes = self
            .once("remove", request, |state| {
                let removed = state.files.remove(&path);
                let (file, _) = removed.ok_or_else(|| Problem::not_found(format!("no such file: {path}")))?;
                Ok(file.size_bytes)
            })
            .await?;
        results.get().set_files(1);
        results.get().set_bytes(bytes);
        Ok(())
    }

    async fn begin(self: Rc<Self>, params: session::BeginParams, mut results: session::BeginResults) -> Done {
        let params = params.get()?;
        let path = convert::read_text(params.get_path()?)?;
        let (overwrite, replication) = (params.get_overwrite(), params.get_replication());
        let request = convert::read_request_id(params.get_request()?)?;
        let id = self
            .once("begin", request, |state| {
                if state.files.contains_key(&path) && !overwrite {
                    return Err(Problem::new(ProblemKind::Exists, format!("{path} exists")));
                }
                let id = state.next_id;
                state.next_id += 2;
                let lease = Lease {
                    id,
                    version: id + 1,
                    lease_ms: state.lease_ms,
                    replication: state.or_default(replication),
                };
                state.leases.insert(id, (lease, path, Vec::new()));
                Ok(id)
            })
            .await?;
        let lease = self.world.nameserver().leases[&id].0;
        let mut to = results.get();
        to.set_lease(lease.id);
        to.set_version(lease.version);
        to.set_lease_ms(lease.lease_ms);
        to.set_replication(lease.replication);
        Ok(())
    }

    async fn allocate(
        self: Rc<Self>,
        params: session::AllocateParams,
        mut results: session::AllocateResults,
    ) -> Done {
        self.may("allocate")?;
        let params = params.get()?;
        let avoid = convert::read_list(params.get_avoid()?, convert::read_volume_id)?;
        let replication = {
            let state = self.world.nameserver();
            let lease = state.leases.get(&params.get_lease()).map(|(lease, ..)| *lease);
            lease
                .ok_or_else(|| Problem::new(ProblemKind::Denied, "no such lease"))?
                .replication
        };
        let blocks = self.chains(params.get_count(), replication, avoid)?;
        let to = results.get().init_blocks(blocks.len() as u32);
        convert::write_list(&blocks, to, convert::write_new_block);
        Ok(())
    }

    async fn reserve(
        self: Rc<Self>,
        params: session::ReserveParams,
        mut results: session::ReserveResults,
    ) -> Done {
        self.may("reserve")?;
        let params = params.get()?;
        let avoid = convert::read_list(params.get_avoid()?, convert::read_volume_id)?;
        let replication = self.world.nameserver().or_default(params.get_replication());
        let blocks = self.chains(params.get_count(), replication, avoid)?;
        let mut state = self.world.nameserver();
        state.reserved.extend(blocks.iter().map(|new| new.block));
        let to = results.get().init_blocks(blocks.len() as u32);
        convert::write_list(&blocks, to, convert::write_new_block);
        Ok(())
    }

    async fn publish(
        self: Rc<Self>,
        params: session::PublishParams,
        mut results: session::PublishResults,
    ) -> Done {
        let files = convert::read_list(params.get()?.get_files()?, convert::read_new_file)?;
        self.may("publish")?;
        let (mut published, mut lose) = (Vec::new(), false);
        for file in files {
            file.blocks.iter().for_each(|added| self.check_proofs(added));
            let mut state = self.world.nameserver();
            lose |= state.take_lost("publish");
            published.push(state.publish(file));
        }
        if lose {
            self.hangup.notify_one();
            std::future::pending::<()>().await;
        }
        let to = results.get().init_results(published.len() as u32);
        convert::write_list(&published, to, convert::write_published);
        Ok(())
    }

    async fn add_blocks(
        self: Rc<Self>,
        params: session::AddBlocksParams,
        _: session::AddBlocksResults,
    ) -> Done {
        let params = params.get()?;
        let blocks = convert::read_list(params.get_blocks()?, convert::read_added_block)?;
        let request = convert::read_request_id(params.get_request()?)?;
        blocks.iter().for_each(|added| self.check_proofs(added));
        let lease = params.get_lease();
        self.once("add_blocks", request, |state| {
            let open = state.leases.get_mut(&lease);
            let (.., known) = open.ok_or_else(|| Problem::new(ProblemKind::Denied, "no such lease"))?;
            known.extend(blocks);
            Ok(0)
        })
        .await?;
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        params: session::CommitParams,
        mut results: session::CommitResults,
    ) -> Done {
        let params = params.get()?;
        let (lease, count) = (params.get_lease(), params.get_blocks());
        let (bytes, crc32c) = (params.get_length_bytes(), params.get_crc32c());
        let request = convert::read_request_id(params.get_request()?)?;
        let mut published = None;
        self.once("commit", request, |state| {
            state.commits += 1;
            let open = state.leases.remove(&lease);
            let (lease, path, mut blocks) =
                open.ok_or_else(|| Problem::new(ProblemKind::Denied, "no such lease"))?;
            blocks.sort_by_key(|block| block.index);
            assert_eq!(blocks.len(), count as usize);
            published = Some(state.appear(&lease, path, blocks, (bytes, crc32c)));
            Ok(lease.version)
        })
        .await
        .map(|version| {
            let (file, degraded) = published.unwrap_or_else(|| {
                let state = self.world.nameserver();
                let mut files = state.files.values();
                let found = files.find(|(file, _)| file.version == version);
                (found.unwrap().0.clone(), 0)
            });
            let mut to = results.get();
            to.set_degraded(degraded);
            convert::write_file_info(&file, to.init_file());
        })
    }

    async fn renew(self: Rc<Self>, params: session::RenewParams, mut results: session::RenewResults) -> Done {
        let mut state = self.world.nameserver();
        if !state.leases.contains_key(&params.get()?.get_lease()) {
            return Err(Problem::new(ProblemKind::Denied, "no such lease").into());
        }
        state.renewals += 1;
        results.get().set_lease_ms(state.lease_ms);
        Ok(())
    }

    async fn abandon(self: Rc<Self>, params: session::AbandonParams, _: session::AbandonResults) -> Done {
        let params = params.get()?;
        let (lease, request) = (
            params.get_lease(),
            convert::read_request_id(params.get_request()?)?,
        );
        self.once("abandon", request, |state| {
            state.leases.remove(&lease);
            state.abandoned.push(lease);
            Ok(0)
        })
        .await?;
        Ok(())
    }

    async fn report_bad(
        self: Rc<Self>,
        params: session::ReportBadParams,
        _: session::ReportBadResults,
    ) -> Done {
        let params = params.get()?;
        let report = (
            BlockId(params.get_block()),
            convert::read_volume_id(params.get_volume()?)?,
            convert::problem_kind_from(params.get_kind()),
        );
        self.world.nameserver().reports.push(report);
        Ok(())
    }

    async fn locate(
        self: Rc<Self>,
        params: session::LocateParams,
        mut results: session::LocateResults,
    ) -> Done {
        let block = BlockId(params.get()?.get_block());
        let found = {
            let state = self.world.nameserver();
            let mut all = state.files.values().flat_map(|(file, blocks)| {
                let each = blocks.iter().filter(move |added| added.block == block);
                each.map(move |added| (file.clone(), added.clone()))
            });
            all.next()
        };
        let (file, added) = found.ok_or_else(|| Problem::not_found(format!("no block {block}")))?;
        let mut to = results.get();
        to.set_path(&file.path);
        to.set_version(file.version);
        let info = self.block_infos(&[added], 0, 1).remove(0);
        convert::write_block_info(&info, to.init_info());
        Ok(())
    }
}
