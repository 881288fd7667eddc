//! Registration and commands, with a nameserver that is only a gate.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use blockyard_dataserver::{Handle, start};
use blockyard_engine::{checksum, limits};
use blockyard_schema::{dataserver_capnp::dataserver, nameserver_capnp as schema};
use blockyard_wire::digest::Digest;
use blockyard_wire::frame::Role;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::ticket::{Claim, Keys, Operation, now_unix_ms};
use blockyard_wire::types::{
    BlockId, ClusterId, ClusterInfo, Epoch, Hop, Incarnation, Replica, ReplicaState, ServerInfo, VolumeId,
    VolumeReport, VolumeState,
};
use blockyard_wire::{Problem, ProblemKind, control, convert};
use common::{Client, block, bytes, config, flip};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

/// What a nameserver has heard.
struct Fake {
    cluster: ClusterId,
    epoch: Epoch,
    joined: RefCell<Vec<ServerInfo>>,
    control: RefCell<Option<dataserver::Client>>,
    beats: RefCell<Vec<Vec<VolumeReport>>>,
    bad: RefCell<Vec<(VolumeId, Vec<Replica>)>>,
}

struct Gate(Rc<Fake>);
struct Registration(Rc<Fake>);

impl schema::gate::Server for Gate {
    async fn join(
        self: Rc<Self>,
        params: schema::gate::JoinParams,
        mut results: schema::gate::JoinResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let server = convert::read_server_info(params.get_server()?)?;
        self.0.joined.borrow_mut().push(server);
        *self.0.control.borrow_mut() = Some(params.get_control()?);
        let cluster = ClusterInfo {
            cluster: self.0.cluster,
            epoch: self.0.epoch,
            heartbeat_ms: 20,
            ..ClusterInfo::default()
        };
        convert::write_cluster_info(&cluster, results.get().init_cluster());
        results
            .get()
            .set_registration(capnp_rpc::new_client(Registration(self.0.clone())));
        Ok(())
    }
}

impl schema::registration::Server for Registration {
    async fn heartbeat(
        self: Rc<Self>,
        params: schema::registration::HeartbeatParams,
        _: schema::registration::HeartbeatResults,
    ) -> capnp::Result<()> {
        let reports = convert::read_list(params.get()?.get_volumes()?, convert::read_volume_report)?;
        self.0.beats.borrow_mut().push(reports);
        Ok(())
    }

    async fn report_bad(
        self: Rc<Self>,
        params: schema::registration::ReportBadParams,
        _: schema::registration::ReportBadResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let volume = VolumeId(convert::read_id(params.get_volume()?));
        let blocks = convert::read_list(params.get_blocks()?, convert::read_replica)?;
        self.0.bad.borrow_mut().push((volume, blocks));
        Ok(())
    }
}

/// A nameserver's listener, its reign, and what is behind it.
struct World {
    fake: Rc<Fake>,
    secret: ClusterSecret,
    keys: Keys,
    address: String,
    folder: TempDir,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let secret = ClusterSecret::generate();
        Self::reign(
            listener,
            secret,
            ClusterId::random(),
            5,
            tempfile::tempdir().unwrap(),
        )
    }

    fn reign(
        listener: TcpListener,
        secret: ClusterSecret,
        cluster: ClusterId,
        number: u64,
        folder: TempDir,
    ) -> Self {
        let fake = Rc::new(Fake {
            cluster,
            epoch: Epoch {
                number,
                incarnation: Incarnation::random(),
            },
            joined: RefCell::default(),
            control: RefCell::default(),
            beats: RefCell::default(),
            bad: RefCell::default(),
        });
        let address = listener.local_addr().unwrap().to_string();
        let serving = spawn_local({
            let (fake, secret) = (fake.clone(), secret.clone());
            async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (fake, secret) = (fake.clone(), secret.clone());
                    connections.spawn_local(async move {
                        if let Ok(accepted) = control::accept(stream, &secret, fake.cluster).await {
                            assert_eq!(accepted.agreed.role, Role::Dataserver);
                            let gate = capnp_rpc::new_client(Gate(fake));
                            let _ = accepted.serve(gate).await;
                        }
                    });
                }
            }
        });
        Self {
            keys: Keys::derive(&secret, cluster),
            fake,
            secret,
            address,
            folder,
            serving,
        }
    }

    fn start(&self, name: &str, volumes: usize) -> Handle {
        let directories = (0..volumes)
            .map(|at| self.folder.path().join(format!("{name}-{at}")))
            .collect();
        start(config(directories, vec![self.address.clone()], &self.secret)).unwrap()
    }

    /// Waits until a heartbeat says what `wanted` asks for; gives its reports.
    async fn beat(&self, wanted: impl Fn(&[VolumeReport]) -> bool) -> Vec<VolumeReport> {
        self.fake.beats.borrow_mut().clear();
        loop {
            let last = self.fake.beats.borrow().last().cloned();
            if let Some(reports) = last
                && wanted(&reports)
            {
                return reports;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn control(&self) -> dataserver::Client {
        self.fake.control.borrow().clone().unwrap()
    }

    fn hop(&self, operation: Operation, block: BlockId, report: &VolumeReport) -> Hop {
        let claim = Claim {
            operation,
            block,
            volume: report.id,
            hop: 0,
            length: 4 << 20,
        };
        Hop {
            volume: report.id,
            address: report.address.clone(),
            server: report.address.clone(),
            ticket: self.keys.sign(&claim, now_unix_ms() + 60_000),
        }
    }

    async fn put(&self, id: BlockId, data: &[u8], report: &VolumeReport) {
        let mut client = self.client(report).await;
        let chain = vec![self.hop(Operation::Write, id, report)];
        client.put(1, id, data, chain).await.unwrap();
    }

    async fn client(&self, report: &VolumeReport) -> Client {
        let opened = control::open_data(&report.address, &self.secret, Role::Client, self.fake.cluster);
        Client::new(opened.await.unwrap())
    }

    async fn delete(
        &self,
        volume: VolumeId,
        blocks: &[BlockId],
        epoch: Epoch,
    ) -> Result<Vec<BlockId>, Problem> {
        let mut request = self.control().delete_request();
        convert::write_id(&volume.0, request.get().init_volume());
        convert::write_block_ids(blocks, request.get().init_blocks(blocks.len() as u32));
        convert::write_epoch(&epoch, request.get().init_epoch());
        let answer = request.send().promise.await?;
        Ok(convert::read_block_ids(answer.get()?.get_deleted()?))
    }

    async fn copy(
        &self,
        to: VolumeId,
        id: BlockId,
        length: u32,
        crc32c: u32,
        source: &Hop,
        beside_clients: bool,
    ) -> Result<blockyard_wire::types::ReplicaProof, Problem> {
        let mut request = self.control().copy_request();
        let mut params = request.get();
        convert::write_id(&to.0, params.reborrow().init_volume());
        params.set_block(id.0);
        params.set_version(7);
        params.set_index(3);
        params.set_length(length);
        params.set_crc32c(crc32c);
        params.set_beside_clients(beside_clients);
        convert::write_hop(source, params.reborrow().init_source());
        convert::write_epoch(&self.fake.epoch, params.init_epoch());
        let answer = request.send().promise.await?;
        convert::read_proof(answer.get()?.get_proof()?)
    }

    async fn verify(&self, volume: VolumeId, id: BlockId) -> Result<ReplicaState, Problem> {
        let mut request = self.control().verify_request();
        convert::write_id(&volume.0, request.get().init_volume());
        request.get().set_block(id.0);
        let answer = request.send().promise.await?;
        Ok(convert::replica_state_from(answer.get()?.get_state()))
    }

    async fn replicas(&self, volume: VolumeId, bucket: u16, after: u64, limit: u32) -> (Vec<Replica>, bool) {
        let mut request = self.control().replicas_request();
        convert::write_id(&volume.0, request.get().init_volume());
        request.get().set_bucket(bucket);
        request.get().set_after(after);
        request.get().set_limit(limit);
        let answer = request.send().promise.await.unwrap();
        let answer = answer.get().unwrap();
        let replicas = convert::read_list(answer.get_replicas().unwrap(), convert::read_replica);
        (replicas.unwrap(), answer.get_more())
    }
}

/// Stops a server without holding up the nameserver, which it may be talking to.
async fn stop(handle: Handle) {
    tokio::task::spawn_blocking(|| handle.stop()).await.unwrap();
}

#[tokio::test]
async fn a_first_start_formats_joins_beats_and_obeys() {
    let local = LocalSet::new();
    let scenario = async {
        let world = World::new().await;
        let handle = world.start("ds", 2);
        let reports = world.beat(|reports| reports.len() == 2).await;
        let joined = world.fake.joined.borrow().last().cloned().unwrap();
        assert_eq!(
            (joined.address.as_str(), joined.zone.as_str()),
            (handle.address(), "default")
        );
        assert_eq!(joined.volumes.len(), 2);
        for (report, place) in reports.iter().zip(handle.volumes()) {
            assert_eq!(report.address, place.address);
            assert_eq!(report.state, VolumeState::Serving);
            assert!(!report.incarnation.is_zero() && report.pool_bytes > 0 && report.free_bytes > 0);
        }
        let (first, second) = (&reports[0], &reports[1]);

        // Two blocks on the first volume; one is copied to the second.
        let data = bytes(1, 1 << 20);
        let crc = checksum::crc(&data);
        world.put(block(1), &data, first).await;
        world.put(block(258), &data[..70_000], first).await;
        let source = world.hop(Operation::Copy, block(1), first);
        let proof = world
            .copy(second.id, block(1), 1 << 20, crc, &source, false)
            .await
            .unwrap();
        assert!(world.keys.proves(&proof, block(1), 1 << 20, crc) && proof.volume == second.id);
        let again = world
            .copy(second.id, block(1), 1 << 20, crc, &source, true)
            .await
            .unwrap();
        assert_eq!(again, proof);
        let got = world
            .client(second)
            .await
            .get(
                1,
                block(1),
                0,
                1 << 20,
                world.hop(Operation::Read, block(1), second).ticket,
            )
            .await
            .unwrap();
        assert!(got == data);
        // What is not as expected is not stored.
        let other = world.hop(Operation::Copy, block(258), first);
        for (length, crc) in [(70_000, 1), (69_999, checksum::crc(&data[..70_000]))] {
            for in_pieces in [false, true] {
                let copied = world.copy(second.id, block(258), length, crc, &other, in_pieces);
                assert!(copied.await.is_err());
            }
        }
        let absent = world.verify(second.id, block(258)).await.unwrap_err();
        assert_eq!(absent.kind, ProblemKind::NotFound);
        assert_eq!(
            world.verify(first.id, block(258)).await.unwrap(),
            ReplicaState::Good
        );

        // Lists and digests agree.
        let (all, more) = world.replicas(first.id, 256, 0, 100).await;
        assert_eq!((all.len(), more), (2, false));
        assert_eq!(all[0].block, block(1));
        let (page, more) = world.replicas(first.id, 256, 0, 1).await;
        assert_eq!((page.as_slice(), more), (&all[..1], true));
        let (rest, more) = world.replicas(first.id, 256, page[0].block.0, 1).await;
        assert_eq!((rest.as_slice(), more), (&all[1..], false));
        let (bucket, _) = world.replicas(first.id, 2, 0, 100).await;
        assert_eq!(bucket, all[1..]);
        let mut request = world.control().digest_request();
        convert::write_id(&first.id.0, request.get().init_volume());
        let answer = request.send().promise.await.unwrap();
        let buckets: Vec<u64> = answer.get().unwrap().get_buckets().unwrap().iter().collect();
        assert_eq!(Digest(buckets), Digest::of(all));

        // Deletion, and the epoch that it needs.
        let epoch = world.fake.epoch;
        let lower = Epoch { number: 4, ..epoch };
        let twin = Epoch {
            incarnation: Incarnation::random(),
            ..epoch
        };
        for wrong in [lower, twin] {
            let refused = world.delete(first.id, &[block(1)], wrong).await.unwrap_err();
            assert_eq!(refused.kind, ProblemKind::Stale, "{refused}");
        }
        let deleted = world
            .delete(first.id, &[block(1), block(9)], epoch)
            .await
            .unwrap();
        assert_eq!(deleted, [block(1)]);
        assert_eq!(world.replicas(first.id, 256, 0, 100).await.0.len(), 1);
        let unknown = world
            .delete(VolumeId::random(), &[block(1)], epoch)
            .await
            .unwrap_err();
        assert_eq!(unknown.kind, ProblemKind::NotFound);
        let counted = world
            .beat(|reports| reports[0].replicas == 1 && reports[1].replicas == 1)
            .await;
        assert!(counted[0].write_bytes > 1 << 20 && counted[0].flushes > 0);
        stop(handle).await;
    };
    local.run_until(scenario).await;
}

#[tokio::test]
async fn beside_clients_a_copy_comes_in_pieces_and_is_the_same() {
    let local = LocalSet::new();
    let scenario = async {
        let world = World::new().await;
        let handle = world.start("ds", 2);
        let reports = world.beat(|reports| reports.len() == 2).await;
        let (first, second) = (&reports[0], &reports[1]);
        let piece = limits::PIECE_BYTES;
        for (number, length) in (1..).zip([
            1,
            piece - 1,
            piece,
            piece + 1,
            3 * piece + 70_000,
            limits::BLOCK_BYTES_MAX,
        ]) {
            let (id, data) = (block(number), bytes(number, length));
            world.put(id, &data, first).await;
            let source = world.hop(Operation::Copy, id, first);
            let copied = world.copy(second.id, id, length as u32, checksum::crc(&data), &source, true);
            let proof = copied.await.unwrap();
            assert!(world.keys.proves(&proof, id, length as u32, checksum::crc(&data)));
            let ticket = world.hop(Operation::Read, id, second).ticket;
            let mut client = world.client(second).await;
            let got = client.get(1, id, 0, length as u32, ticket);
            assert!(got.await.unwrap() == data, "{length} B");
        }
        stop(handle).await;
    };
    local.run_until(scenario).await;
}

#[tokio::test]
async fn a_server_joins_again_and_refuses_a_nameserver_of_the_past() {
    let local = LocalSet::new();
    let scenario = async {
        let mut world = World::new().await;
        let handle = world.start("ds", 1);
        let before = world.beat(|reports| reports.len() == 1).await;
        // The nameserver restarts on the same port with the next epoch: the server comes back by itself.
        for (number, comes) in [(6, true), (5, false), (7, true)] {
            world.serving.abort();
            let _ = (&mut world.serving).await;
            let listener = loop {
                match TcpListener::bind(&world.address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            let folder = std::mem::replace(&mut world.folder, tempfile::tempdir().unwrap());
            world = World::reign(listener, world.secret.clone(), world.fake.cluster, number, folder);
            if comes {
                let after = world.beat(|reports| reports.len() == 1).await;
                assert_eq!(after[0].id, before[0].id);
            } else {
                // It knocks, hears the epoch, and leaves without a heartbeat.
                while world.fake.joined.borrow().len() < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                assert!(world.fake.beats.borrow().is_empty());
            }
        }
        stop(handle).await;
    };
    local.run_until(scenario).await;
}

#[tokio::test]
async fn a_volume_that_cannot_be_opened_is_reported_and_the_other_serves() {
    let local = LocalSet::new();
    let scenario = async {
        let world = World::new().await;
        let handle = world.start("ds", 2);
        let reports = world.beat(|reports| reports.len() == 2).await;
        world.put(block(1), &bytes(1, 1000), &reports[1]).await;
        stop(handle).await;
        let ruined = world.folder.path().join("ds-0/journal");
        std::fs::remove_dir_all(&ruined).unwrap();
        std::fs::write(&ruined, "not a folder").unwrap();
        let handle = world.start("ds", 2);
        assert!(handle.volumes()[0].failed.is_some() && handle.volumes()[1].failed.is_none());
        let after = world.beat(|reports| reports.len() == 2).await;
        assert_eq!(
            (after[0].id, after[0].state),
            (reports[0].id, VolumeState::Failed)
        );
        assert!(!after[0].reason.is_empty());
        assert_eq!((after[1].id, after[1].replicas), (reports[1].id, 1));
        world.put(block(2), &bytes(2, 1000), &after[1]).await;
        stop(handle).await;
    };
    local.run_until(scenario).await;
}

#[tokio::test]
async fn damage_is_told_at_once() {
    let local = LocalSet::new();
    let scenario = async {
        let world = World::new().await;
        let handle = world.start("ds", 1);
        let reports = world.beat(|reports| reports.len() == 1).await;
        let data = bytes(5, 300_000);
        world.put(block(1), &data, &reports[0]).await;
        stop(handle).await;
        flip(
            &world.folder.path().join("ds-0/segments"),
            &data[200_000..200_064],
        );
        let handle = world.start("ds", 1);
        let reports = world.beat(|reports| reports.len() == 1).await;
        assert_eq!(
            world.verify(reports[0].id, block(1)).await.unwrap(),
            ReplicaState::Corrupt
        );
        while world.fake.bad.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (volume, replicas) = world.fake.bad.borrow()[0].clone();
        assert_eq!(volume, reports[0].id);
        assert_eq!(
            (replicas[0].block, replicas[0].state),
            (block(1), ReplicaState::Corrupt)
        );
        world
            .beat(|reports| reports[0].corrupt_blocks == [block(1)])
            .await;
        stop(handle).await;
    };
    local.run_until(scenario).await;
}

#[tokio::test]
async fn starts_that_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let volume = folder.path().join("v");
    let good = || config(vec![volume.clone()], vec!["127.0.0.1:1".to_owned()], &secret);
    let mut open = good();
    open.listen = "0.0.0.0:0".parse().unwrap();
    let mut twice = good();
    twice.volumes.push(volume.clone());
    let mut none = good();
    none.volumes.clear();
    let mut alone = good();
    alone.nameservers.clear();
    for refused in [open, twice, none, alone] {
        let error = start(refused).err().unwrap();
        assert_eq!(error.kind(), ProblemKind::Invalid, "{error}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut late = good();
    late.listen = taken.local_addr().unwrap();
    let error = start(late).err().unwrap();
    assert!(error.to_string().contains("--listen"), "{error}");
    assert!(!volume.exists());
}
