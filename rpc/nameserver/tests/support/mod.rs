//! A cluster for tests: a real nameserver, a client's session, and dataservers that keep blocks in memory.

#![allow(dead_code)] // each test file uses its own part

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blockyard_nameserver::{Config, Handle, start};
use blockyard_schema::dataserver_capnp::dataserver;
use blockyard_schema::nameserver_capnp::{registration, session};
use blockyard_wire::digest::Digest;
use blockyard_wire::frame::Role;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::ticket::{Claim, Keys, Operation, now_unix_ms};
use blockyard_wire::types::{
    AddedBlock, BlockId, BlockInfo, ClusterId, ClusterStatus, Duty, Epoch, FileInfo, Incarnation, NewBlock,
    Replica, ReplicaState, RequestId, ServerInfo, Sought, Tuning, VolumeId, VolumeReport, VolumeStatus,
};
use blockyard_wire::{Problem, Result, control, convert};

/// Times that let a test see what takes minutes elsewhere; long enough for a slow machine to keep up.
pub fn config(dir: &Path, secret: &ClusterSecret) -> Config {
    Config {
        dir: dir.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        heartbeat_ms: 100,
        suspect_ms: 30_000,
        dead_ms: 60_000,
        lease_ms: 60_000,
        safe_mode_ms: 60_000,
        reconcile_ms: 100,
        show_damage_ms: 200,
        secret: Some(secret.clone()),
        seed: Some(1),
        journal_file_bytes: 3 << 20,
        ..Config::default()
    }
}

/// Starts a nameserver without a page.
pub fn serve(config: Config) -> Handle {
    start(config, |_| Box::pin(async {})).unwrap()
}

/// Runs a test's body on a `LocalSet`.
pub fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, body)
}

/// Waits until `holds` gives something. A test that never gets there hangs, and says on what.
pub async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    for round in 0u64.. {
        if let Some(found) = holds().await {
            return found;
        }
        if round > 0 && round.is_multiple_of(500) {
            eprintln!("still waiting: {what}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unreachable!()
}

/// A client.
pub struct Client {
    pub session: session::Client,
    driver: tokio::task::JoinHandle<capnp::Result<()>>,
    requests: Cell<u64>,
    name: u64,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub async fn connect(address: &str, secret: &ClusterSecret) -> Result<Self> {
        let control = control::connect(address, secret, Role::Client, None).await?;
        let driver = tokio::task::spawn_local(control.driver);
        let answer = control.gate.login_request().send().promise.await?;
        let session = answer.get()?.get_session()?;
        Ok(Self {
            session,
            driver,
            requests: Cell::new(0),
            name: random(),
        })
    }

    pub fn request(&self) -> RequestId {
        self.requests.set(self.requests.get() + 1);
        RequestId {
            client: self.name,
            number: self.requests.get(),
        }
    }

    pub async fn mkdir(&self, path: &str, parents: bool) -> Result<FileInfo> {
        let mut call = self.session.mkdir_request();
        call.get().set_path(path);
        call.get().set_parents(parents);
        let answer = call.send().promise.await?;
        convert::read_file_info(answer.get()?.get_file()?)
    }

    pub async fn lookup(&self, path: &str) -> Result<(FileInfo, Vec<BlockInfo>)> {
        let mut call = self.session.lookup_request();
        let sought = Sought {
            path: path.to_owned(),
            blocks_max: 256,
        };
        convert::write_list(&[sought], call.get().init_sought(1), convert::write_sought);
        let answer = call.send().promise.await?;
        let mut found = convert::read_list(answer.get()?.get_found()?, convert::read_found)?;
        found.swap_remove(0)
    }

    pub async fn blocks(&self, version: u64) -> Result<Vec<BlockInfo>> {
        let mut call = self.session.blocks_request();
        call.get().set_version(version);
        call.get().set_max(256);
        let answer = call.send().promise.await?;
        convert::read_list(answer.get()?.get_blocks()?, convert::read_block_info)
    }

    pub async fn list(&self, path: &str, recursive: bool) -> Result<Vec<String>> {
        let mut call = self.session.list_request();
        call.get().set_path(path);
        call.get().set_limit(1000);
        call.get().set_recursive(recursive);
        let answer = call.send().promise.await?;
        let entries = convert::read_list(answer.get()?.get_entries()?, convert::read_file_info)?;
        Ok(entries.into_iter().map(|entry| entry.path).collect())
    }

    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut call = self.session.rename_request();
        call.get().set_from(from);
        call.get().set_to(to);
        call.send().promise.await?;
        Ok(())
    }

    pub async fn remove(&self, path: &str, recursive: bool) -> Result<(u64, u64)> {
        let mut call = self.session.remove_request();
        call.get().set_path(path);
        call.get().set_recursive(recursive);
        let answer = call.send().promise.await?;
        let answer = answer.get()?;
        Ok((answer.get_files(), answer.get_bytes()))
    }

    pub async fn begin(&self, path: &str, overwrite: bool) -> Result<(u64, u64)> {
        let mut call = self.session.begin_request();
        call.get().set_path(path);
        call.get().set_overwrite(overwrite);
        call.get().set_content_type("text/plain");
        convert::write_request_id(&self.request(), call.get().init_request());
        let answer = call.send().promise.await?;
        let answer = answer.get()?;
        Ok((answer.get_lease(), answer.get_version()))
    }

    pub async fn allocate(&self, lease: u64, count: u32, avoid: &[VolumeId]) -> Result<Vec<NewBlock>> {
        let mut call = self.session.allocate_request();
        call.get().set_lease(lease);
        call.get().set_count(count);
        let list = call.get().init_avoid(avoid.len() as u32);
        convert::write_list(avoid, list, |id, to| convert::write_id(&id.0, to));
        let answer = call.send().promise.await?;
        convert::read_list(answer.get()?.get_blocks()?, convert::read_new_block)
    }

    pub async fn add(&self, lease: u64, blocks: &[AddedBlock]) -> Result<()> {
        let mut call = self.session.add_blocks_request();
        call.get().set_lease(lease);
        let list = call.get().init_blocks(blocks.len() as u32);
        convert::write_list(blocks, list, convert::write_added_block);
        convert::write_request_id(&self.request(), call.get().init_request());
        call.send().promise.await?;
        Ok(())
    }

    pub async fn commit(
        &self,
        lease: u64,
        (blocks, length_bytes, crc32c): (u32, u64, u32),
        request: RequestId,
    ) -> Result<(FileInfo, u32)> {
        let mut call = self.session.commit_request();
        call.get().set_lease(lease);
        call.get().set_blocks(blocks);
        call.get().set_length_bytes(length_bytes);
        call.get().set_crc32c(crc32c);
        convert::write_request_id(&request, call.get().init_request());
        let answer = call.send().promise.await?;
        let answer = answer.get()?;
        Ok((
            convert::read_file_info(answer.get_file()?)?,
            answer.get_degraded(),
        ))
    }

    pub async fn status(&self) -> Result<ClusterStatus> {
        let answer = self.session.status_request().send().promise.await?;
        convert::read_cluster_status(answer.get()?.get_status()?)
    }

    pub async fn assign(&self, volumes: &[VolumeId], duty: Duty, force: bool) -> Result<()> {
        let mut call = self.session.assign_request();
        let list = call.get().init_volumes(volumes.len() as u32);
        convert::write_list(volumes, list, |id, to| convert::write_id(&id.0, to));
        convert::write_duty(duty, call.get().init_duty());
        call.get().set_force(force);
        call.send().promise.await?;
        Ok(())
    }

    pub async fn tune(&self, tuning: Tuning) -> Result<()> {
        let mut call = self.session.tune_request();
        convert::write_tuning(&tuning, call.get().init_tuning());
        call.send().promise.await?;
        Ok(())
    }

    pub async fn set_replication(&self, path: &str, recursive: bool, replication: u8) -> Result<u64> {
        let mut call = self.session.set_replication_request();
        call.get().set_path(path);
        call.get().set_recursive(recursive);
        call.get().set_replication(replication);
        let answer = call.send().promise.await?;
        Ok(answer.get()?.get_files())
    }

    pub async fn report_bad(&self, block: BlockId, volume: VolumeId) -> Result<()> {
        let mut call = self.session.report_bad_request();
        call.get().set_block(block.0);
        convert::write_id(&volume.0, call.get().init_volume());
        call.get()
            .set_kind(convert::problem_kind_to(blockyard_wire::ProblemKind::Corrupt));
        call.get().set_message("did not verify");
        call.send().promise.await?;
        Ok(())
    }

    /// What the nameserver tells of a volume; `None` where it tells nothing.
    pub async fn volume(&self, id: VolumeId) -> Option<VolumeStatus> {
        let status = self.status().await.unwrap();
        let mut all = status.servers.into_iter().flat_map(|server| server.volumes);
        all.find(|volume| volume.report.id == id)
    }

    /// Uploads `parts` as a file of so many blocks to these servers.
    pub async fn upload(&self, servers: &[&Server], path: &str, parts: &[&[u8]]) -> Result<FileInfo> {
        let (lease, version) = self.begin(path, true).await?;
        let mut added = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let block = self.allocate(lease, 1, &[]).await?.remove(0);
            added.push(write(servers, &block, version, index as u32, part));
        }
        self.add(lease, &added).await?;
        let whole = parts.concat();
        let sums = (
            parts.len() as u32,
            whole.len() as u64,
            blockyard_engine::checksum::crc(&whole),
        );
        Ok(self.commit(lease, sums, self.request()).await?.0)
    }
}

/// Writes a block through its chain as a client's chain write does: tickets checked, proofs given.
pub fn write(servers: &[&Server], block: &NewBlock, version: u64, index: u32, data: &[u8]) -> AddedBlock {
    let crc32c = blockyard_engine::checksum::crc(data);
    let length = data.len() as u32;
    let proofs = block.chain.iter().enumerate().map(|(hop, at)| {
        let server = servers
            .iter()
            .find(|server| server.node.volume == at.volume)
            .expect("a known volume");
        let node = &server.node;
        let claim = Claim {
            operation: Operation::Write,
            block: block.block,
            volume: at.volume,
            hop: hop as u8,
            length,
        };
        node.keys.check(&at.ticket, &claim, now_unix_ms()).unwrap();
        let replica = Replica {
            block: block.block,
            length,
            crc32c,
            state: ReplicaState::Good,
        };
        node.replicas.borrow_mut().insert(block.block, replica);
        assert!(version > 0);
        node.keys.prove(block.block, length, crc32c, at.volume)
    });
    AddedBlock {
        block: block.block,
        index,
        length,
        crc32c,
        proofs: proofs.collect(),
    }
}

/// Sessions must not share request ids: a nameserver remembers them beyond its restart.
fn random() -> u64 {
    u64::from_le_bytes(VolumeId::random().0[..8].try_into().unwrap())
}

/// Copies that nodes were told to pull so far.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// What a dataserver of one volume holds.
pub struct Node {
    pub volume: VolumeId,
    pub keys: Keys,
    pub replicas: RefCell<BTreeMap<BlockId, Replica>>,
    /// Blocks it was told to delete.
    pub deleted: RefCell<Vec<BlockId>>,
    /// Copies that it was told to pull, and the number of each among all nodes'.
    pub copied: RefCell<Vec<(u64, BlockId)>>,
    /// Blocks whose bytes have rotted without the volume knowing yet.
    pub rotten: RefCell<Vec<BlockId>>,
    /// Whether copies from others are refused.
    pub refuses_copies: Cell<bool>,
    /// Its failure zone.
    pub zone: RefCell<String>,
    /// Bytes it may fill, and how many of them a replica takes, whatever its length.
    pub capacity_bytes: Cell<u64>,
    pub replica_bytes: Cell<u64>,
    /// How often it was opened.
    pub generation: Cell<u64>,
    /// The highest epoch that it says it has seen.
    pub epoch: Cell<Epoch>,
}

/// A task that ends with its owner.
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connected dataserver.
pub struct Server {
    pub node: Rc<Node>,
    pub address: String,
    pub registration: Option<registration::Client>,
    tasks: Vec<Task>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.registration = None;
        self.tasks.clear();
    }
}

struct Service(Rc<Node>);

impl dataserver::Server for Service {
    async fn digest(
        self: Rc<Self>,
        _: dataserver::DigestParams,
        mut results: dataserver::DigestResults,
    ) -> capnp::Result<()> {
        let digest = Digest::of(self.0.replicas.borrow().values().copied());
        let mut buckets = results.get().init_buckets(digest.0.len() as u32);
        for (at, bucket) in digest.0.iter().enumerate() {
            buckets.set(at as u32, *bucket);
        }
        Ok(())
    }

    async fn replicas(
        self: Rc<Self>,
        params: dataserver::ReplicasParams,
        mut results: dataserver::ReplicasResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let bucket = u64::from(params.get_bucket());
        let held: Vec<_> = self
            .0
            .replicas
            .borrow()
            .values()
            .filter(|replica| replica.block.0 % 256 == bucket && replica.block.0 > params.get_after())
            .copied()
            .collect();
        // Pages of one, to have several.
        let page = &held[..held.len().min(1)];
        let mut results = results.get();
        results.set_more(held.len() > page.len());
        convert::write_list(
            page,
            results.init_replicas(page.len() as u32),
            convert::write_replica,
        );
        Ok(())
    }

    async fn delete(
        self: Rc<Self>,
        params: dataserver::DeleteParams,
        mut results: dataserver::DeleteResults,
    ) -> capnp::Result<()> {
        let blocks = convert::read_block_ids(params.get()?.get_blocks()?);
        let there: Vec<_> = blocks
            .iter()
            .copied()
            .filter(|id| self.0.replicas.borrow_mut().remove(id).is_some())
            .collect();
        self.0.deleted.borrow_mut().extend(&blocks);
        self.0.rotten.borrow_mut().retain(|id| !blocks.contains(id));
        convert::write_block_ids(&there, results.get().init_deleted(there.len() as u32));
        Ok(())
    }

    async fn copy(
        self: Rc<Self>,
        params: dataserver::CopyParams,
        mut results: dataserver::CopyResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let node = &self.0;
        if node.refuses_copies.get() {
            return Err(Problem::retry("busy with other things").into());
        }
        let source = convert::read_hop(params.get_source()?)?;
        let (block, length, crc32c) = (
            BlockId(params.get_block()),
            params.get_length(),
            params.get_crc32c(),
        );
        let claim = Claim {
            operation: Operation::Copy,
            block,
            volume: source.volume,
            hop: 0,
            length,
        };
        node.keys.check(&source.ticket, &claim, now_unix_ms())?;
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        node.copied.borrow_mut().push((number, block));
        let replica = Replica {
            block,
            length,
            crc32c,
            state: ReplicaState::Good,
        };
        node.replicas.borrow_mut().insert(block, replica);
        let proof = node.keys.prove(block, length, crc32c, node.volume);
        convert::write_proof(&proof, results.get().init_proof());
        Ok(())
    }

    async fn verify(
        self: Rc<Self>,
        params: dataserver::VerifyParams,
        mut results: dataserver::VerifyResults,
    ) -> capnp::Result<()> {
        let block = BlockId(params.get()?.get_block());
        let mut replicas = self.0.replicas.borrow_mut();
        let replica = replicas
            .get_mut(&block)
            .ok_or_else(|| Problem::not_found("no such replica"))?;
        if self.0.rotten.borrow().contains(&block) {
            replica.state = ReplicaState::Corrupt;
        }
        results.get().set_state(convert::replica_state_to(replica.state));
        Ok(())
    }

    async fn settle(
        self: Rc<Self>,
        params: dataserver::SettleParams,
        _: dataserver::SettleResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let block = BlockId(params.get_block());
        let mut replicas = self.0.replicas.borrow_mut();
        if !params.get_wanted() {
            replicas.remove(&block);
        } else if let Some(replica) = replicas.get_mut(&block) {
            replica.state = match self.0.rotten.borrow().contains(&block) {
                true => ReplicaState::Corrupt,
                false => ReplicaState::Good,
            };
        }
        Ok(())
    }
}

impl Node {
    pub fn new(number: u8, secret: &ClusterSecret, cluster: ClusterId) -> Rc<Self> {
        Rc::new(Self {
            volume: VolumeId([number; 16]),
            keys: Keys::derive(secret, cluster),
            replicas: RefCell::default(),
            deleted: RefCell::default(),
            copied: RefCell::default(),
            rotten: RefCell::default(),
            refuses_copies: Cell::new(false),
            zone: RefCell::new("z".to_owned()),
            capacity_bytes: Cell::new(1 << 40),
            replica_bytes: Cell::new(0),
            generation: Cell::new(1),
            epoch: Cell::default(),
        })
    }

    fn report(&self) -> VolumeReport {
        let used_bytes = self.replica_bytes.get() * self.replicas.borrow().len() as u64;
        VolumeReport {
            id: self.volume,
            incarnation: Incarnation([1; 16]),
            generation: self.generation.get(),
            address: format!("127.0.0.1:{}", 1000 + u16::from(self.volume.0[0])),
            capacity_bytes: self.capacity_bytes.get(),
            used_bytes,
            free_bytes: self.capacity_bytes.get() - used_bytes,
            replicas: self.replicas.borrow().len() as u64,
            epoch: self.epoch.get(),
            ..VolumeReport::default()
        }
    }
}

impl Server {
    /// Joins as a dataserver, and sends heartbeats until it is dropped.
    pub async fn join(node: &Rc<Node>, address: &str, secret: &ClusterSecret) -> Result<Self> {
        let own = format!("127.0.0.1:{}", 1000 + u16::from(node.volume.0[0]));
        Self::join_as(node, &own, address, secret, Role::Dataserver).await
    }

    pub async fn join_as(
        node: &Rc<Node>,
        own: &str,
        address: &str,
        secret: &ClusterSecret,
        role: Role,
    ) -> Result<Self> {
        let control = control::connect(address, secret, role, None).await?;
        let driver = Task(tokio::task::spawn_local(async move {
            // Its end shows in the calls.
            let _ = control.driver.await;
        }));
        let info = ServerInfo {
            address: own.to_owned(),
            zone: node.zone.borrow().clone(),
            host: "test".to_owned(),
            version: "0".to_owned(),
            volumes: vec![node.report()],
        };
        let mut call = control.gate.join_request();
        convert::write_server_info(&info, call.get().init_server());
        call.get()
            .set_control(capnp_rpc::new_client(Service(node.clone())));
        let answer = call.send().promise.await?;
        let registration = answer.get()?.get_registration()?;
        let beat = {
            let (node, registration) = (node.clone(), registration.clone());
            Task(tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let mut call = registration.heartbeat_request();
                    let volumes = call.get().init_volumes(1);
                    convert::write_list(&[node.report()], volumes, convert::write_volume_report);
                    if call.send().promise.await.is_err() {
                        return;
                    }
                }
            }))
        };
        Ok(Self {
            node: node.clone(),
            address: own.to_owned(),
            registration: Some(registration),
            tasks: vec![driver, beat],
        })
    }
}

/// Copies files as they are; one that goes in the meantime has been replaced by a newer one.
pub fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    // The journal first, its newest file before the older ones: what is removed meanwhile is the oldest, and is
    // held by a snapshot that is still to be copied.
    for folder in ["journal", "."] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
        let entries = std::fs::read_dir(from.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_file()))
            .collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.file_name()));
        for file in files {
            if let Err(error) = std::fs::copy(file.path(), to.join(folder).join(file.file_name())) {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            }
        }
    }
}
