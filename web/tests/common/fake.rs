//! A cluster in memory: files are kept as they came, blocks are cut from them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

use blockyard_nameserver::UploadSoFar;
use blockyard_nameserver::survey::{BlockMap, WhatIf};
use blockyard_web::BodyReader;
use blockyard_web::backend::{Answer, Backend, Located, Removed, Rows, Upload, Uploaded};
use blockyard_wire::types::{
    AddedBlock, BlockId, BlockInfo, ClusterId, ClusterStatus, Duty, FileInfo, HeldBlock, Hop, Lease,
    Liveness, Location, ReplicaState, ScrubOrder, ServerStatus, Trashed, Tuning, VolumeId, VolumeState,
    VolumeStatus,
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

fn at_once<T: 'static>(question: impl FnOnce() -> Result<T>) -> Answer<T> {
    answer(question())
}

fn answer<T: 'static>(result: Result<T>) -> Answer<T> {
    Box::pin(std::future::ready(result))
}

impl Backend for Fake {
    fn status(&self) -> Answer<ClusterStatus> {
        at_once(|| {
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
                    host_report: Default::default(),
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
        })
    }

    fn lookup(&self, path: &str, from: u32, max: u32) -> Answer<(FileInfo, Vec<BlockInfo>)> {
        at_once(|| {
            let file = self.0.borrow().info(&checked(path)?)?;
            let all = self
                .0
                .borrow()
                .blocks(file.version)
                .into_iter()
                .map(|(info, ..)| info);
            let blocks = all.skip(from as usize).take(max as usize).collect();
            Ok((file, blocks))
        })
    }

    fn blocks(&self, version: u64, from: u32, max: u32) -> Answer<Vec<BlockInfo>> {
        at_once(|| {
            let all = self.0.borrow().blocks(version).into_iter().map(|(info, ..)| info);
            Ok(all.skip(from as usize).take(max as usize).collect())
        })
    }

    fn list(&self, path: &str, prefix: &str, after: &str, limit: u32) -> Answer<Rows<FileInfo>> {
        at_once(|| {
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
        })
    }

    fn held(&self, on: VolumeId, after: BlockId, limit: u32) -> Answer<Rows<HeldBlock>> {
        at_once(|| {
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
        })
    }

    fn locate(&self, block: BlockId) -> Answer<Located> {
        at_once(|| {
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
        })
    }

    /// Blocks of files whose names begin with `lost` can't be read, those of `breaks` only at first.
    fn read_block(&self, block: BlockInfo) -> Answer<Bytes> {
        let all = self.0.borrow().all_blocks();
        let found = all.into_iter().find(|(info, ..)| info.block == block.block);
        answer(match found {
            None => Err(Problem::new(ProblemKind::Gone, "gone")),
            Some((info, path, _))
                if path.starts_with("/lost") || path.starts_with("/breaks") && info.index > 5 =>
            {
                Err(Problem::retry("no server that has this block answers"))
            }
            Some((.., data)) => Ok(data),
        })
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

    fn list_below(&self, path: &str, after: &str, limit: u32) -> Answer<Rows<FileInfo>> {
        at_once(|| {
            let folder = format!("{}/", checked(path)?.trim_end_matches('/'));
            let state = self.0.borrow();
            let below = state
                .entries
                .keys()
                .filter_map(|other| other.strip_prefix(&folder));
            let mut behind = below.filter(|below| *below > after);
            let rows = behind.by_ref().take(limit as usize);
            let rows = rows.map(|below| state.info(&format!("{folder}{below}")));
            Ok(Rows {
                rows: rows.collect::<Result<_>>()?,
                more: behind.next().is_some(),
            })
        })
    }

    fn blocks_in(&self, range: RangeInclusive<BlockId>, limit: u32) -> Answer<Rows<(BlockInfo, String)>> {
        let all = self.0.borrow().all_blocks().into_iter();
        let mut rows: Vec<_> = all
            .filter(|(info, ..)| range.contains(&info.block))
            .map(|(info, path, _)| (info, path))
            .collect();
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        answer(Ok(Rows { rows, more }))
    }

    fn trash(&self, _: u64, _: u32) -> Answer<Rows<Trashed>> {
        answer(Err(not_here()))
    }

    fn newest_in_trash(&self, _: &str) -> Answer<Option<u64>> {
        answer(Ok(None))
    }

    fn upload_so_far(&self, _: u64) -> Answer<UploadSoFar> {
        answer(Err(not_here()))
    }

    fn block_map(&self, _: RangeInclusive<BlockId>, _: usize) -> Answer<BlockMap> {
        answer(Err(not_here()))
    }

    fn what_if(&self, _: Vec<VolumeId>) -> Answer<WhatIf> {
        answer(Err(not_here()))
    }

    fn restore(&self, _: u64, _: Option<String>) -> Answer<FileInfo> {
        answer(Err(not_here()))
    }

    fn empty_trash(&self, _: Option<u64>) -> Answer<Removed> {
        answer(Err(not_here()))
    }

    fn set_replication(&self, _: &str, _: bool, _: u8) -> Answer<u64> {
        answer(Err(not_here()))
    }

    fn assign(&self, _: Vec<VolumeId>, _: Duty, _: bool) -> Answer<()> {
        answer(Err(not_here()))
    }

    fn tune(&self, _: Tuning) -> Answer<()> {
        answer(Err(not_here()))
    }

    fn scrub(&self, _: Vec<VolumeId>, _: ScrubOrder) -> Answer<()> {
        answer(Err(not_here()))
    }

    fn open_upload(&self, _: Upload) -> Answer<Lease> {
        answer(Err(not_here()))
    }

    fn upload_block(&self, _: Lease, _: u32, _: Bytes) -> Answer<AddedBlock> {
        answer(Err(not_here()))
    }

    fn renew_upload(&self, _: u64) -> Answer<()> {
        answer(Err(not_here()))
    }

    fn commit_upload(&self, _: Lease, _: u32, _: u64, _: u32) -> Answer<Uploaded> {
        answer(Err(not_here()))
    }

    fn abandon_upload(&self, _: u64) -> Answer<()> {
        answer(Err(not_here()))
    }
}

/// What only a real cluster does.
fn not_here() -> Problem {
    Problem::invalid("a cluster in memory does not do that")
}
