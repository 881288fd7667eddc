//! A dataserver on folders of its own, and a small client of the data protocol to try it with.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::net::SocketAddr;

use blockyard_dataserver::{Config, Deadlines, Handle, start};
use blockyard_engine::limits::{PACKET_BYTES_MAX, UNIT_BYTES};
use blockyard_engine::{PoolOptions, Volume, checksum};
use blockyard_wire::control::open_data;
use blockyard_wire::frame::{Abort, Frame, Get, Message, PREFIX_BYTES, Packet, Prefix, Put, PutDone, Role};
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::ticket::{Claim, Keys, Operation, Ticket, now_unix_ms};
use blockyard_wire::types::{BlockId, ClusterId, Hop, Origin, VolumeId};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const MIB: usize = 1 << 20;
/// A nameserver that nobody is.
const NOBODY: &str = "127.0.0.1:1";

/// A dataserver with volumes that are formatted already.
pub struct Server {
    pub handle: Option<Handle>,
    pub secret: ClusterSecret,
    pub cluster: ClusterId,
    pub keys: Keys,
    pub ids: Vec<VolumeId>,
    pub addresses: Vec<String>,
    pub folder: TempDir,
    config: Config,
}

impl Server {
    pub fn new(volumes: usize) -> Self {
        Self::with(volumes, |_| {})
    }

    pub fn with(volumes: usize, change: impl FnOnce(&mut Config)) -> Self {
        let (secret, cluster) = (ClusterSecret::generate(), ClusterId::random());
        let folder = tempfile::tempdir().unwrap();
        let directories: Vec<_> = (0..volumes)
            .map(|at| folder.path().join(format!("v{at}")))
            .collect();
        for directory in &directories {
            std::fs::create_dir(directory).unwrap();
            Volume::format(directory, cluster.0).unwrap();
        }
        let mut config = config(directories, vec![NOBODY.to_owned()], &secret);
        change(&mut config);
        let mut server = Self {
            handle: None,
            keys: Keys::derive(&secret, cluster),
            secret,
            cluster,
            ids: Vec::new(),
            addresses: Vec::new(),
            folder,
            config,
        };
        server.start();
        server
    }

    pub fn start(&mut self) {
        let handle = start(self.config.clone()).unwrap();
        self.ids = handle.reports().iter().map(|report| report.id).collect();
        self.addresses = handle
            .volumes()
            .iter()
            .map(|place| place.address.clone())
            .collect();
        self.handle = Some(handle);
    }

    pub fn stop(&mut self) {
        self.handle.take().unwrap().stop();
    }

    pub fn reports(&self) -> Vec<blockyard_wire::types::VolumeReport> {
        self.handle.as_ref().unwrap().reports()
    }

    pub fn ticket(&self, operation: Operation, block: BlockId, at: usize, hop: u8) -> Ticket {
        let claim = Claim {
            operation,
            block,
            volume: self.ids[at],
            hop,
            length: 4 << 20,
        };
        self.keys.sign(&claim, now_unix_ms() + 600_000)
    }

    pub fn hop(&self, operation: Operation, block: BlockId, at: usize, hop: u8) -> Hop {
        Hop {
            volume: self.ids[at],
            address: self.addresses[at].clone(),
            server: self.addresses[0].clone(),
            ticket: self.ticket(operation, block, at, hop),
        }
    }

    /// A chain through volumes `places`, with write tickets.
    pub fn chain(&self, block: BlockId, places: &[usize]) -> Vec<Hop> {
        places
            .iter()
            .enumerate()
            .map(|(hop, &at)| self.hop(Operation::Write, block, at, hop as u8))
            .collect()
    }

    pub async fn client(&self, at: usize) -> Client {
        let stream = open_data(&self.addresses[at], &self.secret, Role::Client, self.cluster)
            .await
            .unwrap();
        Client::new(stream)
    }

    /// Writes a block through `places` over a connection of its own.
    pub async fn put(&self, block: BlockId, data: &[u8], places: &[usize]) -> Result<PutDone, Abort> {
        let mut client = self.client(places[0]).await;
        client.put(1, block, data, self.chain(block, places)).await
    }

    /// Reads a range from volume `at`: the units around it.
    pub async fn get(&self, block: BlockId, at: usize, offset: u32, length: u32) -> Result<Vec<u8>, Abort> {
        let ticket = self.ticket(Operation::Read, block, at, 0);
        self.client(at).await.get(1, block, offset, length, ticket).await
    }

    /// Waits until no request is served and no pool buffer is out.
    pub async fn settled(&self) {
        loop {
            let reports = self.reports();
            if reports
                .iter()
                .all(|report| report.pool_used_bytes == 0 && report.in_flight == 0)
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// A configuration on loopback with small pools and volumes.
pub fn config(
    directories: Vec<std::path::PathBuf>,
    nameservers: Vec<String>,
    secret: &ClusterSecret,
) -> Config {
    let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = Config::new(directories, listen, nameservers, secret.clone());
    config.pool = PoolOptions::small();
    config.capacity_bytes = Some(1 << 30);
    // What is cached counts as used, and would hide what a test does to a disk.
    config.read_cache_bytes = 0;
    config
}

/// Deadlines for tests in which something is to be given up.
pub fn short() -> Deadlines {
    Deadlines {
        hello_ms: 300,
        connect_ms: 500,
        buffer_ms: 500,
        progress_ms: 500,
        silence_ms: 500,
        answer_ms: 1_000,
        stop_ms: 2_000,
        idle_ms: 60_000,
    }
}

/// Bytes that look random and are the same each time.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data
}

pub fn block(counter: u64) -> BlockId {
    BlockId::new(1, counter).unwrap()
}

/// One data connection.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream }
    }

    pub async fn send(&mut self, stream: u32, message: Message, payload: &[u8]) {
        let mut out = Frame { stream, message }.encode(payload.len());
        out.extend_from_slice(payload);
        // The server may have closed; what it said before is what the test looks at.
        let _ = self.stream.write_all(&out).await;
    }

    pub async fn receive(&mut self) -> (Frame, Vec<u8>) {
        self.try_receive().await.expect("the server keeps the connection")
    }

    pub async fn try_receive(&mut self) -> Option<(Frame, Vec<u8>)> {
        let mut prefix = [0; PREFIX_BYTES];
        self.stream.read_exact(&mut prefix).await.ok()?;
        let prefix = Prefix::parse(&prefix).unwrap();
        let mut header = vec![0; prefix.header_bytes];
        self.stream.read_exact(&mut header).await.ok()?;
        let mut payload = vec![0; prefix.payload_bytes];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((prefix.decode(&header).unwrap(), payload))
    }

    /// Opens a write; the server answers with a grant or an abort.
    pub async fn open(&mut self, stream: u32, block: BlockId, length: usize, chain: Vec<Hop>) {
        let put = Put {
            block,
            origin: Origin { version: 7, index: 3 },
            length: length as u32,
            position: 0,
            chain,
            unit_crcs: vec![],
        };
        self.send(stream, Message::Put(put), &[]).await;
    }

    /// Sends a short block along with its put.
    pub async fn open_eager(&mut self, stream: u32, block: BlockId, data: &[u8], chain: Vec<Hop>) {
        let put = Put {
            block,
            origin: Origin { version: 7, index: 0 },
            length: data.len() as u32,
            position: 0,
            chain,
            unit_crcs: checksum::unit_crcs(data),
        };
        self.send(stream, Message::Put(put), data).await;
    }

    pub async fn put(
        &mut self,
        stream: u32,
        block: BlockId,
        data: &[u8],
        chain: Vec<Hop>,
    ) -> Result<PutDone, Abort> {
        self.open(stream, block, data.len(), chain).await;
        match self.receive().await.0.message {
            Message::Grant(bytes) => assert_eq!(bytes as usize, data.len()),
            Message::Abort(abort) => return Err(abort),
            other => panic!("{other:?}"),
        }
        for packet in packets(data) {
            self.send(stream, Message::Packet(packet.0), packet.1).await;
        }
        match self.receive().await.0.message {
            Message::PutDone(done) => Ok(done),
            Message::Abort(abort) => Err(abort),
            other => panic!("{other:?}"),
        }
    }

    pub async fn get(
        &mut self,
        stream: u32,
        block: BlockId,
        offset: u32,
        length: u32,
        ticket: Ticket,
    ) -> Result<Vec<u8>, Abort> {
        let get = Get {
            block,
            offset,
            length,
            ticket,
        };
        self.send(stream, Message::Get(get), &[]).await;
        let mut data = Vec::new();
        let start = offset / UNIT_BYTES as u32 * UNIT_BYTES as u32;
        loop {
            let (frame, payload) = self.receive().await;
            assert_eq!(frame.stream, stream);
            match frame.message {
                Message::Packet(packet) => {
                    assert_eq!(packet.offset as usize, start as usize + data.len());
                    assert_eq!(packet.unit_crcs, checksum::unit_crcs(&payload));
                    data.extend_from_slice(&payload);
                    if packet.last {
                        return Ok(data);
                    }
                }
                Message::Abort(abort) => return Err(abort),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A block cut into packets.
pub fn packets(data: &[u8]) -> impl Iterator<Item = (Packet, &[u8])> {
    let count = data.len().div_ceil(PACKET_BYTES_MAX);
    data.chunks(PACKET_BYTES_MAX)
        .enumerate()
        .map(move |(at, payload)| {
            let packet = Packet {
                offset: (at * PACKET_BYTES_MAX) as u32,
                unit_crcs: checksum::unit_crcs(payload),
                last: at + 1 == count,
                spans: None,
            };
            (packet, payload)
        })
}

/// Changes a byte where `pattern` lies on disk.
pub fn flip(folder: &std::path::Path, pattern: &[u8]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(pattern.len()).position(|window| window == pattern) {
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("the block is nowhere on disk");
}
