//! A cluster of fakes: a nameserver that speaks Cap'n Proto, volumes that speak frames, all on one
//! thread of their own, and the faults that tests ask them for.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod nameserver;
pub mod volume;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use blockyard_client::types::{AddedBlock, BlockId, ClusterId, FileInfo, Lease, RequestId, VolumeId};
use blockyard_client::{Client, ClusterSecret, DownloadOptions, Downloaded, Options, Problem, Result};
use blockyard_client::{ProblemKind, UploadOptions, Uploaded};
use blockyard_wire::ticket::Keys;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot};

pub const MIB: usize = 1 << 20;

/// What a volume does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Refuses puts without blaming anybody else.
    AbortPut,
    /// Refuses puts once they have begun, and blames the one behind it.
    BlameNext,
    /// Refuses the next puts and gets as busy.
    Busy(u32),
    /// Closes the connection in the middle of a put.
    DieInPut,
    /// Acknowledges a put with a checksum of other bytes.
    LieInPut,
    /// Sends a grant for part of the block first, and the rest later.
    GrantBitByBit,
    /// Says hello and nothing else.
    Silent,
    /// Answers pings, but gets on with nothing.
    Stuck,
    /// Flips a bit of what it reads, not of the checksums.
    FlipBit,
    /// Reads other bytes of the right length, with right checksums of these.
    OtherBytes,
    /// Has lost every block.
    NotFound,
    /// Closes the connection in the middle of a get.
    DieInGet,
    /// Says `last` too early.
    ShortGet,
    /// Sends a frame that is none.
    Garbage,
    /// Takes so many milliseconds for each get, one after the other, and does nothing else meanwhile.
    SlowGet(u64),
    /// The same, and flips a bit then.
    SlowFlip(u64),
}

/// A volume's blocks and manners.
#[derive(Default)]
pub struct VolumeState {
    pub address: String,
    pub blocks: HashMap<BlockId, Vec<u8>>,
    pub fault: Option<Fault>,
    /// Drops every connection and refuses new ones.
    pub down: bool,
    pub gets: u32,
    pub puts: u32,
    pub cancels: u32,
    /// What a hop is told to have taken longer than the others, in microseconds.
    pub lag_us: u32,
    /// Wakes its connections when `down` changes.
    pub changed: Arc<tokio::sync::Notify>,
}

/// What the fake nameserver knows and was told.
#[derive(Default)]
pub struct NameserverState {
    pub files: HashMap<String, (FileInfo, Vec<AddedBlock>)>,
    pub directories: Vec<String>,
    pub leases: HashMap<u64, (Lease, String, Vec<AddedBlock>)>,
    /// Blocks for files without an upload, not published yet.
    pub reserved: HashSet<BlockId>,
    pub abandoned: Vec<u64>,
    pub renewals: u32,
    pub commits: u32,
    pub logins: u32,
    pub allocations: u32,
    pub next_id: u64,
    pub lease_ms: u32,
    pub replication: u8,
    pub ticket_ms: u64,
    /// Blocks of one page of `lookup` and `blocks` at the most.
    pub page_max: u32,
    /// Answers of mutations by their request.
    pub answered: HashMap<RequestId, u64>,
    /// How often a request came that had been applied already.
    pub repeated: u32,
    /// Bad replicas as reported.
    pub reports: Vec<(BlockId, VolumeId, ProblemKind)>,
    /// Calls to apply and then to lose with the connection, by name.
    pub lose_answer_of: Vec<&'static str>,
    /// Calls to refuse once, by name.
    pub refuse: Vec<(&'static str, Problem)>,
    /// Volumes that `allocate` was asked to avoid, by call.
    pub avoided: Vec<Vec<VolumeId>>,
    /// Versions that are no longer kept.
    pub gone: Vec<u64>,
    pub down: bool,
    pub changed: Arc<tokio::sync::Notify>,
}

/// Everything that tests may look at and change.
pub struct World {
    pub secret: ClusterSecret,
    pub cluster: ClusterId,
    pub keys: Keys,
    pub volumes: Mutex<Vec<(VolumeId, VolumeState)>>,
    pub nameserver: Mutex<NameserverState>,
}

impl World {
    pub fn nameserver(&self) -> MutexGuard<'_, NameserverState> {
        self.nameserver.lock().unwrap()
    }

    pub fn volumes(&self) -> MutexGuard<'_, Vec<(VolumeId, VolumeState)>> {
        self.volumes.lock().unwrap()
    }

    pub fn volume<T>(&self, id: VolumeId, then: impl FnOnce(&mut VolumeState) -> T) -> T {
        let mut volumes = self.volumes();
        let (_, state) = volumes.iter_mut().find(|(known, _)| *known == id).unwrap();
        then(state)
    }
}

/// The fakes, until dropped.
pub struct Cluster {
    pub world: Arc<World>,
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Cluster {
    pub fn new(volumes: usize) -> Self {
        let (secret, cluster) = (ClusterSecret::generate(), ClusterId::random());
        let world = Arc::new(World {
            keys: Keys::derive(&secret, cluster),
            secret,
            cluster,
            volumes: Mutex::default(),
            nameserver: Mutex::new(NameserverState {
                next_id: 1,
                lease_ms: 60_000,
                replication: 2,
                ticket_ms: 600_000,
                page_max: 256,
                directories: vec!["/".into()],
                ..NameserverState::default()
            }),
        });
        let (ready, started) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let shared = world.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                for _ in 0..volumes {
                    volume::start(&shared).await;
                }
                ready.send(nameserver::start(&shared).await).unwrap();
                let _ = stopped.await;
            });
        });
        Self {
            address: started.recv().unwrap(),
            world,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Short deadlines where faults are to be waited for; long ones where a slow machine could reach them.
    pub fn options(&self) -> Options {
        Options {
            retry_for: Duration::from_secs(60),
            ..Options::new(vec![self.address.clone()], self.world.secret.clone())
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }

    pub fn volume_ids(&self) -> Vec<VolumeId> {
        self.world.volumes().iter().map(|(id, _)| *id).collect()
    }

    pub fn fault(&self, at: usize, fault: Option<Fault>) {
        self.world.volumes()[at].1.fault = fault;
    }

    pub fn volume_down(&self, at: usize, down: bool) {
        let state = &mut self.world.volumes()[at].1;
        state.down = down;
        state.changed.notify_waiters();
    }

    pub fn nameserver_down(&self, down: bool) {
        let mut state = self.world.nameserver();
        state.down = down;
        state.changed.notify_waiters();
    }

    /// The bytes of a file as its replicas on volume `of` hold them.
    pub fn stored(&self, path: &str, of: usize) -> Vec<u8> {
        let blocks = self.world.nameserver().files[path].1.clone();
        let volumes = self.world.volumes();
        blocks
            .iter()
            .flat_map(|block| volumes[of].1.blocks[&block.block].clone())
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let fine = thread.join().is_ok();
            assert!(fine || std::thread::panicking(), "the fakes panicked");
        }
    }
}

/// Bytes that no two places have in common.
pub fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::rngs::SmallRng::seed_from_u64(length as u64).fill(&mut bytes[..]);
    bytes
}

pub async fn upload(client: &Client, path: &str, data: &[u8]) -> Result<Uploaded> {
    let options = UploadOptions::default();
    client
        .upload(path, std::io::Cursor::new(data.to_vec()), options)
        .await
}

/// Downloads into memory.
pub async fn download(
    client: &Client,
    path: &str,
    range: Option<std::ops::Range<u64>>,
) -> Result<(Downloaded, Vec<u8>)> {
    let (sink, mut bytes) = Sink::new();
    let options = DownloadOptions {
        range,
        ..DownloadOptions::default()
    };
    let done = client.download(path, sink, options).await?;
    let mut all = Vec::new();
    while let Some(piece) = bytes.recv().await {
        all.extend(piece);
    }
    Ok((done, all))
}

/// Keeps everything written to it.
pub struct Sink(mpsc::UnboundedSender<Vec<u8>>);

impl Sink {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }
}

impl tokio::io::AsyncWrite for Sink {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Ready(match self.0.send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
        })
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// Waits for what comes about by itself.
pub async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
