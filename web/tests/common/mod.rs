//! A cluster in memory behind the page, and a plain HTTP client to ask it with.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use blockyard_web::backend::{Answer, Backend, Located, Removed, Rows, Upload, Uploaded};
use blockyard_web::{BodyReader, PageConfig, serve_backend};
use blockyard_wire::types::{
    BlockId, BlockInfo, ClusterId, ClusterStatus, FileInfo, HeldBlock, Hop, Liveness, Location, ReplicaState,
    ServerStatus, VolumeId, VolumeState, VolumeStatus,
};
use blockyard_wire::{Problem, ProblemKind, Result};
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

/// Bytes of the fake's blocks: small, so that small files have many.
pub const BLOCK_BYTES: usize = 1000;

#[derive(Clone)]
enum Entry {
    Folder,
    File {
        version: u64,
        data: Bytes,
        content_type: String,
    },
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    versions: u64,
}

/// Files in memory; what is read as a block comes from there.
#[derive(Default, Clone)]
pub struct Fake(Rc<RefCell<State>>);

fn checked(path: &str) -> Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in &parts {
        if *part == ".." || *part == "." || part.chars().any(char::is_control) || part.len() > 255 {
            return Err(Problem::invalid("bad path"));
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

fn crc(data: &[u8]) -> u32 {
    data.iter().fold(7, |sum: u32, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(*byte))
    })
}

pub fn volume(number: u8) -> VolumeId {
    VolumeId([number; 16])
}

fn server(number: u8) -> String {
    format!("127.0.0.1:910{number}")
}

impl State {
    fn info(&self, path: &str) -> Result<FileInfo> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let below =
            |other: &str| other != path && other.starts_with(&format!("{}/", path.trim_end_matches('/')));
        match self.entries.get(path) {
            None if path == "/" || self.entries.keys().any(|other| below(other)) => Ok(FileInfo {
                path: path.into(),
                name,
                directory: true,
                children: self.entries.keys().filter(|other| below(other)).count() as u32,
                ..FileInfo::default()
            }),
            None => Err(Problem::not_found(format!("there is no {path}"))),
            Some(Entry::Folder) => Ok(FileInfo {
                path: path.into(),
                name,
                directory: true,
                ..FileInfo::default()
            }),
            Some(Entry::File {
                version,
                data,
                content_type,
            }) => Ok(FileInfo {
                path: path.into(),
                name,
                version: *version,
                size_bytes: data.len() as u64,
                crc32c: crc(data),
                blocks: data.len().div_ceil(BLOCK_BYTES) as u32,
                created_unix_ms: 1_700_000_000_000,
                modified_unix_ms: 1_700_000_100_000,
                replication: 2,
                content_type: content_type.clone(),
                ..FileInfo::default()
            }),
        }
    }

    fn blocks(&self, version: u64) -> Vec<(BlockInfo, String, Bytes)> {
        let file = self.entries.iter().find_map(|(path, entry)| match entry {
            Entry::File {
                version: at, data, ..
            } if *at == version => Some((path, data)),
            _ => None,
        });
        let Some((path, data)) = file else {
            return Vec::new();
        };
        let replica = |number| Location {
            hop: Hop {
                volume: volume(number),
                address: server(number),
                server: server(number),
                ticket: Default::default(),
            },
            state: ReplicaState::Good,
            live: true,
            zone: "rack".into(),
        };
        let pieces = (0..data.len()).step_by(BLOCK_BYTES).enumerate();
        pieces
            .map(|(index, at)| {
                let data = data.slice(at..data.len().min(at + BLOCK_BYTES));
                let info = BlockInfo {
                    block: BlockId::new(version as u32, index as u64 + 1).unwrap(),
                    index: index as u32,
                    length: data.len() as u32,
                    crc32c: crc(&data),
                    replicas: vec![replica(1), replica(2)],
                };
                (info, path.clone(), data)
            })
            .collect()
    }

    fn all_blocks(&self) -> Vec<(BlockInfo, String, Bytes)> {
        (1..=self.versions)
            .flat_map(|version| self.blocks(version))
            .collect()
    }
}

impl Fake {
    /// Puts a file there.
    pub fn store(&self, path: &str, data: &[u8], content_type: &str) -> FileInfo {
        let mut state = self.0.borrow_mut();
        state.versions += 1;
        let entry = Entry::File {
            version: state.versions,
            data: Bytes::copy_from_slice(data),
            content_type: content_type.into(),
        };
        state.entries.insert(path.into(), entry);
        state.info(path).unwrap()
    }
}

fn answer<T: 'static>(result: Result<T>) -> Answer<T> {
    Box::pin(std::future::ready(result))
}

impl Backend for Fake {
    fn status(&self) -> Result<ClusterStatus> {
        let state = self.0.borrow();
        let blocks = state.all_blocks().len() as u64;
        let servers = (1..=3).map(|number| {
            let liveness = if number == 3 {
                Liveness::Dead
            } else {
                Liveness::Alive
            };
            let mut held = VolumeStatus {
                liveness,
                blocks,
                ..VolumeStatus::default()
            };
            held.report.id = volume(number);
            held.report.address = server(number);
            held.report.directory = format!("/srv/blockyard/volume{number}");
            held.report.state = VolumeState::Serving;
            held.report.capacity_bytes = 100 << 30;
            held.report.used_bytes = u64::from(number) * (23 << 30);
            held.report.free_bytes = held.report.capacity_bytes - held.report.used_bytes;
            held.report.replicas = blocks;
            ServerStatus {
                address: server(number),
                zone: "rack".into(),
                host: "node<b>1</b>".into(),
                version: "0.1.0".into(),
                liveness,
                since_heartbeat_ms: if number == 3 { 61_000 } else { 400 },
                volumes: vec![held],
            }
        });
        let mut status = ClusterStatus {
            servers: servers.collect(),
            files: state.entries.len() as u64,
            blocks,
            uptime_ms: 93_784_000,
            version: "0.1.0".into(),
            under_replicated_blocks: 1,
            ..ClusterStatus::default()
        };
        status.cluster.cluster = ClusterId([0xab; 16]);
        status.cluster.address = "127.0.0.1:9000".into();
        status.cluster.replication = 2;
        status.cluster.min_replicas = 1;
        status.cluster.block_bytes = 4 << 20;
        status.cluster.now_unix_ms = 1_700_000_200_000;
        Ok(status)
    }

    fn lookup(&self, path: &str, from: u32, max: u32) -> Result<(FileInfo, Vec<BlockInfo>)> {
        let file = self.0.borrow().info(&checked(path)?)?;
        let blocks = self.blocks(file.version, from, max)?;
        Ok((file, blocks))
    }

    fn blocks(&self, version: u64, from: u32, max: u32) -> Result<Vec<BlockInfo>> {
        let all = self.0.borrow().blocks(version).into_iter().map(|(info, ..)| info);
        Ok(all.skip(from as usize).take(max as usize).collect())
    }

    fn list(&self, path: &str, prefix: &str, after: &str, limit: u32) -> Result<Rows<FileInfo>> {
        let path = checked(path)?;
        let state = self.0.borrow();
        if !state.info(&path)?.directory {
            return Err(Problem::invalid("no folder"));
        }
        let folder = format!("{}/", path.trim_end_matches('/'));
        let mut names: Vec<&str> = state
            .entries
            .keys()
            .filter_map(|other| other.strip_prefix(&folder)?.split('/').next())
            .filter(|name| name.starts_with(prefix) && *name > after && !name.is_empty())
            .collect();
        names.dedup();
        let more = names.len() > limit as usize;
        let rows = names
            .iter()
            .take(limit as usize)
            .map(|name| state.info(&format!("{folder}{name}")));
        Ok(Rows {
            rows: rows.collect::<Result<_>>()?,
            more,
        })
    }

    fn held(&self, on: VolumeId, after: BlockId, limit: u32) -> Result<Rows<HeldBlock>> {
        if ![volume(1), volume(2), volume(3)].contains(&on) {
            return Err(Problem::not_found("there is no such volume"));
        }
        let all = self.0.borrow().all_blocks();
        let mut rows: Vec<HeldBlock> = all
            .into_iter()
            .map(|(info, path, _)| HeldBlock {
                block: info.block,
                length: info.length,
                crc32c: info.crc32c,
                index: info.index,
                version: u64::from(info.block.reign()),
                path,
                state: ReplicaState::Good,
            })
            .filter(|held| held.block > after)
            .collect();
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Ok(Rows { rows, more })
    }

    fn locate(&self, block: BlockId) -> Result<Located> {
        let all = self.0.borrow().all_blocks();
        let (info, path, _) = all
            .into_iter()
            .find(|(info, ..)| info.block == block)
            .ok_or_else(|| Problem::not_found("there is no such block"))?;
        Ok(Located {
            info,
            path,
            version: u64::from(block.reign()),
        })
    }

    fn read_block(&self, block: BlockInfo) -> Answer<Bytes> {
        let all = self.0.borrow().all_blocks();
        let found = all.into_iter().find(|(info, ..)| info.block == block.block);
        answer(
            found
                .map(|(.., data)| data)
                .ok_or_else(|| Problem::new(ProblemKind::Gone, "gone")),
        )
    }

    fn upload(&self, upload: Upload, mut body: BodyReader) -> Answer<Uploaded> {
        let fake = self.clone();
        Box::pin(async move {
            let path = checked(&upload.path)?;
            if path == "/full" {
                return Err(Problem::new(ProblemKind::NoSpace, "no volume has room"));
            }
            if !upload.overwrite && fake.0.borrow().entries.contains_key(&path) {
                return Err(Problem::new(ProblemKind::Exists, "exists"));
            }
            let mut data = Vec::new();
            body.read_to_end(&mut data).await?;
            let file = fake.store(&path, &data, &upload.content_type);
            Ok(Uploaded {
                file,
                degraded_blocks: 0,
            })
        })
    }

    fn make_folder(&self, path: &str) -> Answer<FileInfo> {
        answer(checked(path).and_then(|path| {
            let mut state = self.0.borrow_mut();
            state.entries.insert(path.clone(), Entry::Folder);
            state.info(&path)
        }))
    }

    fn rename(&self, from: &str, to: &str, overwrite: bool) -> Answer<()> {
        let renamed = (|| {
            let (from, to) = (checked(from)?, checked(to)?);
            let mut state = self.0.borrow_mut();
            if state.entries.contains_key(&to) && !overwrite {
                return Err(Problem::new(ProblemKind::Exists, "exists"));
            }
            let entry = state
                .entries
                .remove(&from)
                .ok_or_else(|| Problem::not_found("no such file"))?;
            state.entries.insert(to, entry);
            Ok(())
        })();
        answer(renamed)
    }

    fn remove(&self, path: &str, recursive: bool) -> Answer<Removed> {
        let removed = (|| {
            let path = checked(path)?;
            let mut state = self.0.borrow_mut();
            let file = state.info(&path)?;
            if file.directory && file.children > 0 && !recursive {
                return Err(Problem::invalid("the folder is not empty"));
            }
            let before = state.entries.len();
            let below = format!("{path}/");
            state
                .entries
                .retain(|other, _| *other != path && !other.starts_with(&below));
            Ok(Removed {
                files: (before - state.entries.len()) as u64,
                bytes: file.size_bytes,
            })
        })();
        answer(removed)
    }
}

/// A page on a fake, served on a thread of its own until dropped.
pub struct Served {
    pub address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    /// Serves a fake that `fill` has filled.
    pub fn start(fill: impl FnOnce(&Fake) + Send + 'static) -> Self {
        Self::configured(|_| {}, fill)
    }

    /// The same, with a changed configuration.
    pub fn configured(
        change: impl FnOnce(&mut PageConfig),
        fill: impl FnOnce(&Fake) + Send + 'static,
    ) -> Self {
        let mut config = PageConfig::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        change(&mut config);
        let address = config.address();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let fake = Fake::default();
                fill(&fake);
                tokio::select! {
                    () = serve_backend(config, Rc::new(fake)) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Opens a connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        // Only so that a server that never answers fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes as they are, closes the sending side if told to, and reads the answer.
    pub fn raw(&self, request: &[u8], close: bool) -> Option<Reply> {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        if close {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        read_reply(&mut stream)
    }

    /// Asks, with `Host` and `Content-Length` made up unless given.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        let mut all = headers.to_vec();
        let (host, length) = (self.address.to_string(), body.len().to_string());
        for (name, value) in [("host", &host), ("content-length", &length)] {
            if !headers.iter().any(|(given, _)| *given == name) {
                all.push((name, value));
            }
        }
        for (name, value) in all {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let request = [request.as_bytes(), body].concat();
        self.raw(&request, false).expect("an answer")
    }

    /// A plain GET.
    pub fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[], b"")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Whether the body had its declared length.
    pub whole: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Reads one answer up to the end of the connection.
pub fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut all = Vec::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = all[end + 4..].to_vec();
    let whole = headers
        .get("content-length")
        .is_none_or(|length| length.parse() == Ok(body.len()));
    Some(Reply {
        status,
        headers,
        body,
        whole,
    })
}
