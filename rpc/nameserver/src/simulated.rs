//! The running nameserver for a simulation: its real state, tasks and journal over files, dataservers and clocks that
//! are given. No part of what ships (feature `simulated`).
//!
//! What the service does with Cap'n Proto, whoever simulates does with plain values. All runs in tasks of the
//! `LocalSet` that [`Nameserver::start`] is called in: dropping that is the crash of the process.

use std::convert::Infallible;
use std::path::PathBuf;
use std::rc::Rc;

use blockyard_wire::Result;
use blockyard_wire::digest::Digest;
use blockyard_wire::ticket::Keys;
use blockyard_wire::types::{
    AddedBlock, BlockId, BlockInfo, ClusterId, ClusterInfo, ClusterStatus, Epoch, FileInfo, Incarnation,
    Lease, NewBlock, NewFile, ReplicaState, RequestId, ServerInfo, Trashed, Tuning, VolumeId,
};
use blockyard_wire::{Problem, ProblemKind};
use futures_util::FutureExt as _;
use tokio::sync::watch;

pub use crate::calls::{NewUpload, Sent};
pub use crate::core::WallClock;
pub use crate::dataserver::{Answer, CopyOrder, Remote};
pub use crate::join::Registered;
pub use crate::log::Log;

use crate::config::Config;
use crate::core::Core;
use crate::error::Error;
use crate::journal;
use crate::log::Journal;
use crate::replay::{LogFile, Read, Tail, replay_with};
use crate::state::rows::{Reader, Section};
use crate::state::{Command, State};
use crate::{maintenance, repair, writer};

/// A snapshot's chunks: section, rows, their bytes.
pub type Snapshot = Vec<(u32, u32, Vec<u8>)>;

/// What a start finds: all that was acknowledged.
pub struct Recovered {
    state: State,
    tail: Tail,
}

/// Reads a snapshot and the journal's files behind it, which `read` gives, as a start does.
///
/// # Errors
/// `Damaged` when they contradict each other.
pub fn recover(
    cluster: ClusterId,
    snapshot: Option<&Snapshot>,
    files: &[(u64, PathBuf)],
    read: Read<'_>,
) -> std::result::Result<Recovered, Error> {
    let mut state = State::default();
    if let Some(chunks) = snapshot {
        let mut reader = Reader::default();
        for (section, rows, bytes) in chunks {
            let section = Section::from_number(*section)
                .ok_or_else(|| Problem::invalid(format!("a snapshot with a section {section}")))?;
            reader.chunk(section, *rows, bytes)?;
        }
        state = reader.finish()?;
    }
    let after = state.applied();
    let files: Vec<LogFile> = files
        .iter()
        .map(|(sequence, path)| LogFile {
            sequence: *sequence,
            paths: vec![path.clone()],
        })
        .collect();
    let dirs = [PathBuf::from("/")];
    let tail = replay_with(read, &dirs, cluster, &files, after, &mut |_, command| {
        // A refused command was refused the first time, too.
        let _ = state.apply(&command);
        Ok(())
    })?;
    state.take_changed();
    Ok(Recovered { state, tail })
}

/// The index of the first command of a journal file, and its name; `None` for what is no such file.
pub fn first_index(page: &[u8]) -> Option<u64> {
    journal::Header::decode(page).map(|header| header.first.index)
}

impl Recovered {
    /// The state as a snapshot's chunks: equal for equal states.
    pub fn snapshot(&self) -> Snapshot {
        snapshot(&self.state)
    }

    /// Commands that it holds.
    pub fn applied(&self) -> u64 {
        self.state.applied()
    }

    /// Bytes of the journal behind the snapshot.
    pub fn journal_bytes(&self) -> u64 {
        self.tail.bytes
    }
}

fn snapshot(state: &State) -> Snapshot {
    let mut chunks = Vec::new();
    let written: std::result::Result<(), Infallible> = state.write(&mut |section, rows, bytes| {
        chunks.push((section as u32, rows, bytes.to_vec()));
        Ok(())
    });
    match written {
        Ok(()) => chunks,
    }
}

/// What a life of a nameserver is given.
pub struct Start<L> {
    /// How it is to run; folder, listener and secret are not used.
    pub config: Config,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its keys.
    pub keys: Keys,
    /// `HOST:PORT`: what it is called.
    pub address: String,
    /// Its disk.
    pub log: L,
    /// Its wall clock.
    pub clock: WallClock,
    /// Of this life.
    pub incarnation: Incarnation,
}

/// A nameserver that reigns.
#[derive(Clone)]
pub struct Nameserver {
    core: Rc<Core>,
}

/// A block on the map.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// The block.
    pub block: BlockId,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// Replicas wanted.
    pub wanted: u8,
    /// Where they are, and what is known of them.
    pub replicas: Vec<(VolumeId, ReplicaState)>,
}

impl Nameserver {
    /// Begins to reign and starts the tasks.
    ///
    /// # Errors
    /// `Io` when the journal can't be written.
    pub async fn start<L: Log>(start: Start<L>, recovered: Recovered) -> std::result::Result<Self, Error> {
        let Recovered { mut state, tail } = recovered;
        let mut journal = Journal::new(
            start.log,
            &start.config.dirs(),
            start.cluster,
            start.config.journal_file_bytes,
            tail.sequence,
            tail.place,
        );
        let number = state.epoch().number.max(tail.term) + 1;
        let reign = Command::Reign {
            epoch: Epoch {
                number,
                incarnation: start.incarnation,
            },
            at_unix_ms: (start.clock)(),
        };
        let begun = journal.append(number, &[journal::encode_command(&reign)]).await;
        begun.map_err(|refused| Error::Io {
            doing: "cannot begin to reign".to_owned(),
            source: std::io::Error::other(format!("{refused:?}")),
        })?;
        state.apply(&reign)?;
        let (stand_down, mut down) = watch::channel(false);
        let stopping = async move {
            // Whoever keeps the sender keeps it running.
            let _ = down.wait_for(|down| *down).await;
        };
        let core = Core::new(
            start.config,
            start.cluster,
            start.keys,
            (start.address, start.clock),
            state,
            stand_down,
            stopping.boxed_local().shared(),
        );
        tokio::task::spawn_local(maintenance::tick(core.clone()));
        tokio::task::spawn_local(maintenance::delete(core.clone()));
        tokio::task::spawn_local(repair::run(core.clone()));
        tokio::task::spawn_local(writer::run(core.clone(), journal, 0));
        Ok(Self { core })
    }

    /// What a login answers.
    pub fn info(&self) -> ClusterInfo {
        self.core.info()
    }

    /// The whole cluster.
    pub fn status(&self) -> ClusterStatus {
        self.core.status()
    }

    /// Its reign.
    pub fn epoch(&self) -> Epoch {
        self.core.epoch()
    }

    /// Takes a dataserver in; dropping what this gives ends its connection.
    ///
    /// # Errors
    /// As the service's `join`.
    pub async fn join(&self, info: ServerInfo, remote: Rc<dyn Remote>) -> Result<Registered> {
        self.core.join(info, remote).await
    }

    /// See the service's `lookup`.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`.
    pub fn lookup(&self, path: &str, max: u32) -> Result<(FileInfo, Vec<BlockInfo>)> {
        self.core.lookup(path, 0, max)
    }

    /// See the service's `blocks`.
    ///
    /// # Errors
    /// `Gone`.
    pub fn blocks(&self, version: u64, from: u32, max: u32) -> Result<Vec<BlockInfo>> {
        self.core.blocks(version, from, max)
    }

    /// See the service's `mkdir`.
    ///
    /// # Errors
    /// As that.
    pub async fn mkdir(&self, path: String, request: RequestId) -> Result<FileInfo> {
        self.core.mkdir(path, true, request).await
    }

    /// See the service's `rename`.
    ///
    /// # Errors
    /// As that.
    pub async fn rename(&self, from: String, to: String, overwrite: bool, request: RequestId) -> Result<()> {
        self.core.rename(from, to, overwrite, request).await
    }

    /// See the service's `remove`.
    ///
    /// # Errors
    /// As that.
    pub async fn remove(&self, path: String, request: RequestId) -> Result<(u64, u64)> {
        self.core.remove(path, false, request).await
    }

    /// See the service's `discard`.
    ///
    /// # Errors
    /// As that.
    pub async fn discard(&self, path: String, request: RequestId) -> Result<(u64, u64)> {
        self.core.discard(path, false, request).await
    }

    /// See the service's `trash`.
    pub fn trash(&self, after: u64, limit: u32) -> Vec<Trashed> {
        self.core.trash(after, limit).0
    }

    /// See the service's `restore`: to where it was.
    ///
    /// # Errors
    /// As that.
    pub async fn restore(&self, entry: u64, request: RequestId) -> Result<FileInfo> {
        self.core.restore(entry, String::new(), request).await
    }

    /// See the service's `set_replication`.
    ///
    /// # Errors
    /// As that.
    pub async fn set_replication(&self, path: String, replication: u8, request: RequestId) -> Result<u64> {
        self.core.set_replication(path, false, replication, request).await
    }

    /// See the service's `tune`.
    ///
    /// # Errors
    /// As that.
    pub async fn tune(&self, tuning: Tuning, request: RequestId) -> Result<()> {
        self.core.tune(tuning, request).await
    }

    /// See the service's `begin`.
    ///
    /// # Errors
    /// As that.
    pub async fn begin(&self, upload: NewUpload, request: RequestId) -> Result<Lease> {
        self.core.begin(upload, request).await
    }

    /// See the service's `allocate`.
    ///
    /// # Errors
    /// As that.
    pub fn allocate(&self, lease: u64, count: u32, avoid: &[VolumeId]) -> Result<Vec<NewBlock>> {
        self.core.allocate(lease, count, avoid)
    }

    /// See the service's `reserve`.
    ///
    /// # Errors
    /// As that.
    pub fn reserve(&self, replication: u8, count: u32, avoid: &[VolumeId]) -> Result<Vec<NewBlock>> {
        self.core.reserve(replication, count, avoid)
    }

    /// See the service's `addBlocks`.
    ///
    /// # Errors
    /// As that.
    pub async fn add_blocks(&self, lease: u64, added: &[AddedBlock], request: RequestId) -> Result<()> {
        self.core.add_blocks(lease, added, request).await
    }

    /// See the service's `commit`.
    ///
    /// # Errors
    /// As that.
    pub async fn commit(&self, lease: u64, sent: Sent, request: RequestId) -> Result<(FileInfo, u32)> {
        self.core.commit(lease, sent, request).await
    }

    /// See the service's `publish`.
    ///
    /// # Errors
    /// As that.
    pub async fn publish(&self, file: NewFile) -> Result<(FileInfo, u32)> {
        self.core.publish(file).await
    }

    /// See the service's `renew`.
    ///
    /// # Errors
    /// As that.
    pub fn renew(&self, lease: u64) -> Result<u32> {
        self.core.renew(lease)
    }

    /// See the service's `abandon`.
    ///
    /// # Errors
    /// As that.
    pub async fn abandon(&self, lease: u64, request: RequestId) -> Result<()> {
        self.core.abandon(lease, request).await
    }

    /// See the service's `reportBad`.
    ///
    /// # Errors
    /// As that.
    pub fn report_bad(&self, block: BlockId, volume: VolumeId, kind: ProblemKind) -> Result<()> {
        self.core.report_bad(block, volume, kind)
    }

    /// A block on the map.
    pub fn mapped(&self, block: BlockId) -> Option<Mapped> {
        let state = self.core.state.borrow();
        state.blocks().get(block).map(|row| mapped(&state, block, row))
    }

    /// All blocks on the map.
    pub fn all_mapped(&self) -> Vec<Mapped> {
        let state = self.core.state.borrow();
        let rows = state.blocks().table().iter();
        rows.map(|(id, row)| mapped(&state, BlockId(id), row)).collect()
    }

    /// Whether an upload in progress may still add a block.
    pub fn may_want(&self, block: BlockId) -> bool {
        let state = self.core.state.borrow();
        self.core.uploads.borrow().may_want(block, &state)
    }

    /// Whether repair is doing something for a block.
    pub fn is_repairing(&self, block: BlockId) -> bool {
        self.core.repair.is_busy(block.0)
    }

    /// What does not hold together in the state, if anything: it never may.
    pub fn inconsistency(&self) -> Option<String> {
        let state = self.core.state.borrow();
        let mut digests = vec![Digest::default(); state.blocks().volumes().len()];
        for (id, block) in state.blocks().table().iter() {
            for (volume, known) in block.replicas() {
                digests[usize::from(volume)].add(&block.as_replica(BlockId(id), known));
            }
            let of_version = state
                .version(block.version)
                .is_some_and(|version| version.file != 0 || state.condemned().contains_key(&block.version));
            let of_lease = || {
                state
                    .leases()
                    .values()
                    .any(|lease| lease.version == block.version)
            };
            if !of_version && !of_lease() {
                return Some(format!("block {} belongs to no file and no upload", BlockId(id)));
            }
        }
        for (volume, digest) in state.blocks().volumes().iter().zip(digests) {
            if volume.digest != digest {
                return Some(format!("the digest of volume {} is wrong", volume.row.id));
            }
        }
        let volumes = state.blocks().volumes().iter().zip(0..);
        for (volume, index) in volumes {
            let on_map = |id: &&u64| {
                let block = state.blocks().get(BlockId(**id));
                block.is_some_and(|block| block.state_on(index).is_some())
            };
            if let Some(id) = volume.pending.iter().find(on_map) {
                return Some(format!(
                    "block {} is on the map and to be deleted on volume {}",
                    BlockId(*id),
                    volume.row.id
                ));
            }
        }
        None
    }

    /// What is left to be done where the volumes `there` are all that there are; `None` when nothing is.
    pub fn unsettled(&self, there: &[VolumeId]) -> Option<String> {
        let state = self.core.state.borrow();
        let redundancy = self.core.redundancy.borrow();
        if self.core.safe_mode.get() || !self.core.health.borrow().is_complete() {
            return Some("not all servers have come".to_owned());
        }
        if let Some((need, block)) = redundancy.urgent(None).next() {
            let health = self.core.health.borrow();
            let standings = health.standings();
            let told = state.blocks().get(BlockId(block)).map(|row| {
                let replicas = row.replicas().map(|(volume, replica)| {
                    let (place, standing) = (standings.place(volume), standings.of(volume));
                    format!("{replica:?} on {volume} ({standing:?}, {place:?})")
                });
                format!(
                    "wanted {}: {}",
                    row.wanted,
                    replicas.collect::<Vec<_>>().join(", ")
                )
            });
            return Some(format!(
                "block {} needs {need:?}, {}",
                BlockId(block),
                told.unwrap_or_default()
            ));
        }
        let owes = |volume: &&crate::state::blocks::Volume| {
            there.contains(&volume.row.id) && !volume.pending.is_empty()
        };
        if let Some(volume) = state.blocks().volumes().iter().find(owes) {
            return Some(format!("{} owes deletions", volume.row.id));
        }
        let left = state.condemned().len() + state.leases().len();
        (left > 0).then(|| format!("{left} versions or uploads wait to be let go"))
    }

    /// The state as a snapshot's chunks.
    pub fn snapshot(&self) -> Snapshot {
        snapshot(&self.core.state.borrow())
    }
}

fn mapped(state: &State, block: BlockId, row: &crate::state::blocks::Block) -> Mapped {
    let id_of = |index| state.blocks().volume(index).map(|volume| volume.row.id);
    Mapped {
        block,
        length: row.length,
        crc32c: row.crc32c,
        wanted: row.wanted,
        replicas: row
            .replicas()
            .filter_map(|(index, known)| Some((id_of(index)?, known)))
            .collect(),
    }
}
