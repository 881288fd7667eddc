//! The nameserver's process: the real one, over a simulated disk, behind messages.
//!
//! What the Cap'n Proto service does with bytes is done here with values; below that all is what ships: state, journal
//! with its frames, placement, health, repair, reports, leases and readers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use blockyard_nameserver::Config;
use blockyard_nameserver::simulated::{
    self, Answer as Answering, CopyOrder, Log, Nameserver, NewUpload, Registered, Remote, Snapshot, Start,
};
use blockyard_wire::digest::Digest;
use blockyard_wire::ticket::Keys;
use blockyard_wire::types::{
    AddedBlock, BlockId, ClusterId, Epoch, HostReport, Incarnation, Replica, ReplicaProof, ReplicaState,
    ScrubOrder, VolumeId,
};
use blockyard_wire::{Problem, Result};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use crate::messages::{Answer, Failure, Outcome, Request};
use crate::server::Site;
use crate::world::{ConnectionId, HostId, Serve, World};

/// Bytes of journal after which a start makes a snapshot.
const SNAPSHOT_BYTES: u64 = 64 * 1024;
/// Longest wait for a dataserver's answer: longer than the nameserver itself waits, milliseconds.
const ANSWER_MS: u64 = 600_000;
/// Entries of the trash in one answer.
const TRASH_PAGE: u32 = 16;
/// A sector: written whole or not at all.
const SECTOR: usize = 512;

/// A file of the nameserver's disk.
#[derive(Clone, Default)]
struct File {
    /// Bytes that it was made with: zeros, until they are written.
    made_bytes: usize,
    durable: Vec<u8>,
    /// Written and not flushed.
    pending: Vec<(usize, Vec<u8>)>,
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[offset..end].copy_from_slice(bytes);
    }
}

/// What goes wrong on the nameserver's disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ailing {
    /// Nothing.
    Well,
    /// Writes find no room.
    Full,
    /// Flushes fail.
    Broken,
}

/// The nameserver's disk: it outlives the process.
#[derive(Clone)]
pub struct NameDisk {
    files: BTreeMap<u64, File>,
    names: BTreeMap<PathBuf, u64>,
    next_file: u64,
    snapshot: Option<Snapshot>,
    /// What goes wrong on it.
    pub ailing: Ailing,
    /// Whether it has failed a flush since the process started: the journal has latched that.
    pub has_failed: bool,
    /// Until when it is slow, milliseconds of simulated time.
    pub slow_until_ms: u64,
}

impl Default for NameDisk {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            next_file: 1,
            snapshot: None,
            ailing: Ailing::Well,
            has_failed: false,
            slow_until_ms: 0,
        }
    }
}

impl NameDisk {
    /// The process has ended: of what was not flushed, any sectors may be there.
    pub fn crash(&mut self, world: &World) {
        for file in self.files.values_mut() {
            for (offset, bytes) in std::mem::take(&mut file.pending) {
                // Often all or nothing, else torn.
                let odds = world.below(3);
                let (mut at, end) = (offset, offset + bytes.len());
                while at < end {
                    let next = (at + 1).next_multiple_of(SECTOR).min(end);
                    if odds == 0 || odds == 1 && world.below(2) == 0 {
                        file.write(at, &bytes[at - offset..next - offset]);
                    }
                    at = next;
                }
            }
        }
    }

    /// The journal's files by sequence.
    fn journal(&self) -> Vec<(u64, PathBuf)> {
        let sequence = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            name.strip_suffix(".log")?.parse().ok()
        };
        let files = self.names.keys();
        files
            .filter_map(|path| Some((sequence(path)?, path.clone())))
            .collect()
    }

    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let file = self
            .names
            .get(path)
            .and_then(|file| self.files.get(file))
            .ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = file.durable[..file.durable.len().min(bytes_max)].to_vec();
        if file.made_bytes > bytes.len() {
            bytes.resize(file.made_bytes.min(bytes_max), 0);
        }
        Ok(bytes)
    }

    /// Lets go of the files that the snapshot holds.
    fn prune(&mut self, applied: u64) {
        let files = self.journal();
        for pair in files.windows(2) {
            let next = self.read(&pair[1].1, usize::MAX).ok();
            let first = next.and_then(|page| simulated::first_index(&page));
            if first.is_none_or(|first| first > applied + 1) {
                break;
            }
            if let Some(file) = self.names.remove(&pair[0].1) {
                self.files.remove(&file);
            }
        }
    }
}

/// The disk as the journal's writer has it.
#[derive(Clone)]
struct Disk {
    world: Rc<World>,
    disk: Rc<RefCell<NameDisk>>,
}

impl Disk {
    async fn takes(&self) -> io::Result<()> {
        let slow = self.disk.borrow().slow_until_ms > self.world.now_ms();
        let ms = if slow {
            self.world.below(3_000)
        } else {
            1 + self.world.below(3)
        };
        self.world.sleep(ms).await;
        let mut disk = self.disk.borrow_mut();
        match disk.ailing {
            Ailing::Broken => {
                disk.has_failed = true;
                Err(io::Error::other("the disk is broken"))
            }
            _ => Ok(()),
        }
    }
}

impl Log for Disk {
    type File = u64;

    async fn create(&self, path: &Path, bytes: u64) -> io::Result<u64> {
        self.takes().await?;
        let mut disk = self.disk.borrow_mut();
        if disk.ailing == Ailing::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = disk.next_file;
        disk.next_file += 1;
        let made = File {
            made_bytes: bytes as usize,
            ..File::default()
        };
        disk.files.insert(file, made);
        if let Some(old) = disk.names.insert(path.to_owned(), file) {
            disk.files.remove(&old);
        }
        Ok(file)
    }

    async fn write(&self, file: &u64, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        if self.disk.borrow().ailing == Ailing::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(file) = self.disk.borrow_mut().files.get_mut(file) {
            file.pending.push((offset as usize, bytes));
        }
        Ok(())
    }

    async fn sync(&self, file: &u64) -> io::Result<()> {
        self.takes().await?;
        if let Some(file) = self.disk.borrow_mut().files.get_mut(file) {
            for (offset, bytes) in std::mem::take(&mut file.pending) {
                file.write(offset, &bytes);
            }
        }
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.takes().await?;
        let mut disk = self.disk.borrow_mut();
        let file = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), file);
        Ok(())
    }
}

/// A dataserver at the other end of a connection.
struct Far {
    world: Rc<World>,
    host: HostId,
    server: HostId,
    connection: ConnectionId,
    sites: Rc<Vec<Site>>,
}

impl Far {
    fn ask<'a, T: 'a>(
        &'a self,
        request: Request,
        read: impl FnOnce(Answer) -> Option<T> + 'a,
    ) -> Answering<'a, T> {
        async move {
            let lost = || Problem::retry("the dataserver's connection is lost");
            let asked = self
                .world
                .call(self.host, self.server, self.connection, request, ANSWER_MS);
            match asked.await {
                Ok(answer) => read(answer).ok_or_else(lost),
                Err(Failure::Refused(problem) | Failure::Aborted(problem, _)) => Err(problem),
                Err(Failure::Lost) => Err(lost()),
            }
        }
        .boxed_local()
    }
}

fn done(answer: Answer) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}

impl Remote for Far {
    fn digest(&self, volume: VolumeId) -> Answering<'_, Digest> {
        self.ask(Request::Digest(volume), |answer| match answer {
            Answer::Digest(digest) => Some(digest),
            _ => None,
        })
    }

    fn replicas(
        &self,
        volume: VolumeId,
        bucket: u8,
        after: BlockId,
        limit: u32,
    ) -> Answering<'_, (Vec<Replica>, bool)> {
        let request = Request::Replicas {
            volume,
            bucket,
            after,
            limit,
        };
        self.ask(request, |answer| match answer {
            Answer::Replicas(page, more) => Some((page, more)),
            _ => None,
        })
    }

    fn delete(&self, volume: VolumeId, epoch: Epoch, blocks: &[BlockId]) -> Answering<'_, ()> {
        let request = Request::Delete {
            volume,
            epoch,
            blocks: blocks.to_vec(),
        };
        self.ask(request, done)
    }

    fn copy(&self, volume: VolumeId, epoch: Epoch, order: CopyOrder) -> Answering<'_, ReplicaProof> {
        let block = order.block;
        let request = Request::Copy {
            volume,
            epoch,
            order: Box::new(order),
        };
        self.ask(request, move |answer| match answer {
            Answer::Proof(proof) => {
                attest(&self.world, &self.sites, &proof, block);
                Some(proof)
            }
            _ => None,
        })
    }

    fn verify(&self, volume: VolumeId, block: BlockId) -> Answering<'_, ReplicaState> {
        self.ask(Request::Verify { volume, block }, |answer| match answer {
            Answer::State(state) => Some(state),
            _ => None,
        })
    }

    fn settle(&self, volume: VolumeId, epoch: Epoch, block: BlockId, wanted: bool) -> Answering<'_, ()> {
        let request = Request::Settle {
            volume,
            epoch,
            block,
            wanted,
        };
        self.ask(request, done)
    }

    /// Volumes here have no disk that rots while nobody reads: checks of replicas stand for their scrubs.
    fn scrub(&self, _: VolumeId, _: ScrubOrder) -> Answering<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// What a nameserver is started with, life after life.
#[derive(Clone)]
pub struct Setup {
    /// Where it runs.
    pub host: HostId,
    /// How.
    pub config: Config,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its keys.
    pub keys: Keys,
    /// Its disk.
    pub disk: Rc<RefCell<NameDisk>>,
    /// All volumes: what is claimed of them is compared with what is true.
    pub sites: Rc<Vec<Site>>,
}

/// A nameserver's process.
pub struct Process {
    world: Rc<World>,
    host: HostId,
    name: RefCell<Option<Nameserver>>,
    registered: RefCell<BTreeMap<ConnectionId, Registered>>,
    sites: Rc<Vec<Site>>,
    /// Whether it could not begin to reign.
    pub refused: Cell<bool>,
}

impl Process {
    /// Starts one, in the tasks of the `LocalSet` that this is called in.
    pub fn start(world: Rc<World>, setup: Setup) -> Rc<Self> {
        let process = Rc::new(Self {
            world: world.clone(),
            host: setup.host,
            name: RefCell::new(None),
            registered: RefCell::default(),
            sites: setup.sites.clone(),
            refused: Cell::new(false),
        });
        let starting = process.clone();
        tokio::task::spawn_local(async move {
            match reign(&world, setup).await {
                Ok(name) => *starting.name.borrow_mut() = Some(name),
                Err(error) if error.kind() == blockyard_nameserver::Kind::Damaged => {
                    world.violated(format!("the nameserver does not start: {error}"), &[], "");
                }
                // Its disk: another start will do.
                Err(_) => starting.refused.set(true),
            }
        });
        process
    }

    /// The nameserver, once it reigns.
    pub fn nameserver(&self) -> Option<Nameserver> {
        self.name.borrow().clone()
    }
}

async fn reign(
    world: &Rc<World>,
    setup: Setup,
) -> std::result::Result<Nameserver, blockyard_nameserver::Error> {
    let recovered = {
        let mut disk = setup.disk.borrow_mut();
        let files = disk.journal();
        let read = |path: &Path, bytes_max: usize| disk.read(path, bytes_max);
        let recovered = simulated::recover(setup.cluster, disk.snapshot.as_ref(), &files, &read)?;
        if recovered.journal_bytes() > SNAPSHOT_BYTES {
            disk.snapshot = Some(recovered.snapshot());
            disk.prune(recovered.applied());
        }
        recovered
    };
    let clock = {
        let (world, host) = (world.clone(), setup.host);
        Box::new(move || world.wall_ms(host))
    };
    let mut incarnation = Incarnation::default();
    world.draw(|rng| rand::Rng::fill_bytes(rng, &mut incarnation.0));
    let config = Config {
        seed: Some(world.draw(rand::RngExt::random)),
        ..setup.config
    };
    let start = Start {
        config,
        cluster: setup.cluster,
        keys: setup.keys,
        address: "nameserver:9000".to_owned(),
        log: Disk {
            world: world.clone(),
            disk: setup.disk,
        },
        clock,
        incarnation,
    };
    Nameserver::start(start, recovered).await
}

/// A process that runs, as its host reaches it.
pub struct Running(pub Rc<Process>);

impl Serve for Running {
    fn serve(
        &self,
        connection: ConnectionId,
        from: HostId,
        request: Request,
    ) -> LocalBoxFuture<'static, Outcome> {
        let process = self.0.clone();
        async move {
            let Some(name) = process.nameserver() else {
                // It does not listen yet.
                return Err(Failure::Lost);
            };
            Ok(answer(&process, &name, connection, from, request).await?)
        }
        .boxed_local()
    }

    fn closed(&self, connection: ConnectionId) {
        self.0.registered.borrow_mut().remove(&connection);
    }
}

/// The service's gate.rs, session.rs and registration.rs, with values.
async fn answer(
    process: &Rc<Process>,
    name: &Nameserver,
    connection: ConnectionId,
    from: HostId,
    asked: Request,
) -> Result<Answer> {
    match asked {
        Request::Login => Ok(Answer::Cluster(Box::new(name.info()))),
        Request::Lookup { path } => {
            let (file, blocks) = name.lookup(&path, 256)?;
            Ok(Answer::Found(Box::new(file), blocks))
        }
        Request::Blocks { version, from } => Ok(Answer::Blocks(name.blocks(version, from, 1)?)),
        Request::Mkdir { path, request } => {
            name.mkdir(path, request).await?;
            Ok(Answer::Done)
        }
        Request::Rename {
            from,
            to,
            overwrite,
            request,
        } => {
            name.rename(from, to, overwrite, request).await?;
            Ok(Answer::Done)
        }
        Request::Remove { path, request } => {
            name.remove(path, request).await?;
            Ok(Answer::Done)
        }
        Request::Discard { path, request } => {
            name.discard(path, request).await?;
            Ok(Answer::Done)
        }
        Request::Trash { after } => Ok(Answer::Trashed(name.trash(after, TRASH_PAGE))),
        Request::Restore { entry, request } => Ok(Answer::Found(
            Box::new(name.restore(entry, request).await?),
            Vec::new(),
        )),
        Request::SetReplication {
            path,
            replication,
            request,
        } => {
            name.set_replication(path, replication, request).await?;
            Ok(Answer::Done)
        }
        Request::Tune { tuning, request } => {
            name.tune(tuning, request).await?;
            Ok(Answer::Done)
        }
        Request::Begin {
            path,
            overwrite,
            replication,
            content_type,
            request,
        } => {
            let upload = NewUpload {
                path,
                overwrite,
                replication,
                content_type,
            };
            Ok(Answer::Begun(name.begin(upload, request).await?))
        }
        Request::Allocate { lease, count, avoid } => Ok(Answer::New(name.allocate(lease, count, &avoid)?)),
        Request::Reserve {
            replication,
            count,
            avoid,
        } => Ok(Answer::New(name.reserve(replication, count, &avoid)?)),
        Request::AddBlocks {
            lease,
            blocks,
            request,
        } => {
            compare(process, &blocks);
            name.add_blocks(lease, &blocks, request).await?;
            Ok(Answer::Done)
        }
        Request::Commit { lease, sent, request } => {
            let (file, _) = name.commit(lease, sent, request).await?;
            Ok(Answer::Published(Box::new(file)))
        }
        Request::Publish(file) => {
            compare(process, &file.blocks);
            let (file, _) = name.publish(*file).await?;
            Ok(Answer::Published(Box::new(file)))
        }
        Request::Renew(lease) => {
            name.renew(lease)?;
            Ok(Answer::Done)
        }
        Request::Abandon { lease, request } => {
            name.abandon(lease, request).await?;
            Ok(Answer::Done)
        }
        Request::ReportBad {
            block,
            volume,
            problem,
        } => {
            name.report_bad(block, volume, problem.kind)?;
            Ok(Answer::Done)
        }
        Request::Join(info) => {
            let far = Far {
                world: process.world.clone(),
                host: process.host,
                server: from,
                connection,
                sites: process.sites.clone(),
            };
            let registered = name.join(*info, Rc::new(far)).await?;
            if process.world.is_open(connection, process.host) {
                process.registered.borrow_mut().insert(connection, registered);
            }
            Ok(Answer::Cluster(Box::new(name.info())))
        }
        Request::Heartbeat(volumes) => with(process, connection, |registered| {
            registered.beat(volumes, HostReport::default()).map(|_| ())
        }),
        Request::Damage { volume, replicas } => with(process, connection, |registered| {
            registered.report_bad(volume, replicas)
        }),
        _ => Err(Problem::invalid("that is asked of a dataserver")),
    }
}

/// Compares proofs with what is true: whoever proves a replica has had it.
fn compare(process: &Process, blocks: &[AddedBlock]) {
    for added in blocks {
        for proof in &added.proofs {
            attest(&process.world, &process.sites, proof, added.block);
        }
    }
}

fn attest(world: &World, sites: &[Site], proof: &ReplicaProof, block: BlockId) {
    let of_volume = sites.iter().find(|site| site.disk.borrow().id == proof.volume);
    if let Some(site) = of_volume
        && !site.disk.borrow().was_durable(block)
    {
        world.violated(
            format!("{} has proven block {block} and never had it", site.address),
            &[block.0],
            "",
        );
    }
}

fn with(
    process: &Process,
    connection: ConnectionId,
    tell: impl FnOnce(&Registered) -> Result<()>,
) -> Result<Answer> {
    let registered = process.registered.borrow();
    let registered = registered
        .get(&connection)
        .ok_or_else(|| Problem::retry("this connection has not joined"))?;
    tell(registered)?;
    Ok(Answer::Done)
}
