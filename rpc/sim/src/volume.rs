//! A volume: what is durable on its disk, what is on the way there, and what a crash makes of that. Follows the rules
//! of the engine (`engine/src/volume.rs`, `recover.rs`); knows no messages.
//!
//! Mirrored, not shared: the engine's own crash semantics are tested in the engine, on a simulated disk byte by byte.
//! Here a put is durable or not, and a crash before that leaves nothing, a whole replica, or a suspect one.

use std::collections::{BTreeMap, BTreeSet};

use blockyard_wire::digest::{Digest, bucket};
use blockyard_wire::types::{
    BlockId, Epoch, Incarnation, Replica, ReplicaState, VolumeId, VolumeReport, VolumeState,
};
use blockyard_wire::{Problem, ProblemKind, Result};
use rand::rngs::StdRng;
use rand::{Rng, RngExt as _};

use crate::messages::{Content, crc_of};

/// Bytes of a slot beside its block.
const HEADER_BYTES: u64 = 4096;

/// A replica on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Bytes.
    pub length: u32,
    /// CRC32C that its record names.
    pub crc32c: u32,
    /// What its slot says by now.
    pub content: Content,
    /// What the volume knows of it.
    pub state: ReplicaState,
}

impl Held {
    /// Whether its bytes are those that were put.
    pub fn is_true(&self) -> bool {
        crc_of(self.content, self.length) == self.crc32c
    }
}

/// A change that is not durable yet.
#[derive(Clone, Copy, Debug)]
enum Change {
    Put(u64, Held),
    Delete(u64),
    Epoch(Epoch),
}

/// A volume's disk: it outlives the process that serves it.
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    incarnation: Incarnation,
    generation: u64,
    /// Bytes that it may fill.
    pub capacity_bytes: u64,
    used_bytes: u64,
    /// An I/O error has latched.
    pub failed: bool,
    /// Until when flushes take long, milliseconds of simulated time.
    pub slow_until_ms: u64,
    held: BTreeMap<u64, Held>,
    /// Blocks whose right bytes have been durable here, whatever became of them.
    proven: BTreeSet<u64>,
    digest: Digest,
    epoch: Epoch,
    /// Of all that have been durable here; decides nothing.
    highest_epoch: u64,
    changes: BTreeMap<u64, Change>,
    next_change: u64,
}

impl Volume {
    /// An empty volume.
    pub fn format(capacity_bytes: u64, rng: &mut StdRng) -> Self {
        let mut ids = [[0; 16]; 2];
        ids.iter_mut().for_each(|id| rng.fill_bytes(id));
        Self {
            id: VolumeId(ids[0]),
            incarnation: Incarnation(ids[1]),
            generation: 0,
            capacity_bytes,
            used_bytes: 0,
            failed: false,
            slow_until_ms: 0,
            held: BTreeMap::new(),
            proven: BTreeSet::new(),
            digest: Digest::default(),
            epoch: Epoch::default(),
            highest_epoch: 0,
            changes: BTreeMap::new(),
            next_change: 0,
        }
    }

    /// Opens it: an error that had latched may not come again.
    pub fn open(&mut self) {
        self.generation += 1;
        self.failed = false;
    }

    /// The process that served it has ended: each change that was under way is durable or not.
    pub fn crash(&mut self, rng: &mut StdRng) {
        for (_, change) in std::mem::take(&mut self.changes) {
            match (change, rng.random_range(0..4)) {
                // Slot and record were written, the acknowledgement was not sent.
                (Change::Put(block, held), 0) => {
                    self.proven.insert(block);
                    self.set(block, Some(held));
                }
                // The record is durable, the slot may not be: recovery can't vouch for it.
                (Change::Put(block, held), lot @ (1 | 2)) => {
                    let torn = u64::from(lot == 1) << 17;
                    let suspect = Held {
                        content: held.content ^ torn,
                        state: ReplicaState::Suspect,
                        ..held
                    };
                    self.set(block, Some(suspect));
                }
                (Change::Delete(block), 0 | 1) => self.set(block, None),
                (Change::Epoch(epoch), 0 | 1) => self.obey(epoch),
                _ => {}
            }
        }
    }

    fn set(&mut self, block: u64, held: Option<Held>) {
        let as_replica = |held: &Held| Replica {
            block: BlockId(block),
            length: held.length,
            crc32c: held.crc32c,
            state: held.state,
        };
        let old = match held {
            Some(held) => {
                self.digest.add(&as_replica(&held));
                self.used_bytes += u64::from(held.length) + HEADER_BYTES;
                self.held.insert(block, held)
            }
            None => self.held.remove(&block),
        };
        if let Some(old) = old {
            self.digest.remove(&as_replica(&old));
            self.used_bytes -= u64::from(old.length) + HEADER_BYTES;
        }
    }

    fn begin(&mut self, change: Change) -> u64 {
        self.next_change += 1;
        self.changes.insert(self.next_change, change);
        self.next_change
    }

    fn is_writable(&self) -> Result<()> {
        match self.failed {
            true => Err(Problem::new(
                ProblemKind::Failed,
                "the volume has failed; it takes nothing more",
            )),
            false => Ok(()),
        }
    }

    /// A replica, if it is there.
    pub fn lookup(&self, block: BlockId) -> Option<Held> {
        self.held.get(&block.0).copied()
    }

    /// Begins to write a block; durable after [`Volume::durable`]. `None`: it is here already.
    ///
    /// # Errors
    /// `Exists` for other bytes under the same id, `NoSpace`, `Failed`; `Retry` while it is being written.
    pub fn put(&mut self, block: BlockId, length: u32, crc32c: u32, content: Content) -> Result<Option<u64>> {
        self.is_writable()?;
        if let Some(known) = self.held.get(&block.0)
            && known.state == ReplicaState::Good
        {
            return match (known.length, known.crc32c) == (length, crc32c) {
                true => Ok(None),
                false => Err(Problem::new(
                    ProblemKind::Exists,
                    "the block is here with other bytes",
                )),
            };
        }
        let under_way = |change: &Change| matches!(change, Change::Put(other, _) if *other == block.0);
        if self.changes.values().any(under_way) {
            return Err(Problem::retry("the block is being written"));
        }
        if self.free_bytes() < u64::from(length) + HEADER_BYTES {
            return Err(Problem::new(ProblemKind::NoSpace, "the volume is full"));
        }
        let held = Held {
            length,
            crc32c,
            content,
            state: ReplicaState::Good,
        };
        Ok(Some(self.begin(Change::Put(block.0, held))))
    }

    /// Begins to delete; `None` when it is not here.
    ///
    /// # Errors
    /// `Failed`.
    pub fn delete(&mut self, block: BlockId) -> Result<Option<u64>> {
        self.is_writable()?;
        let here = self.held.contains_key(&block.0);
        Ok(here.then(|| self.begin(Change::Delete(block.0))))
    }

    /// The number of the epoch that is obeyed.
    pub fn epoch(&self) -> u64 {
        self.epoch.number
    }

    /// The number of the highest epoch that has ever been durable here: what it must never go below.
    pub fn highest_epoch(&self) -> u64 {
        self.highest_epoch
    }

    fn obey(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.highest_epoch = self.highest_epoch.max(epoch.number);
    }

    /// Begins to persist an epoch; `None` when it is the one that is obeyed.
    ///
    /// # Errors
    /// `Stale` when a newer one or a twin has been here; `Failed`.
    pub fn raise(&mut self, epoch: Epoch) -> Result<Option<u64>> {
        self.check_epoch(epoch)?;
        if self.epoch == epoch {
            return Ok(None);
        }
        self.is_writable()?;
        Ok(Some(self.begin(Change::Epoch(epoch))))
    }

    /// Whether an epoch is obeyed.
    ///
    /// # Errors
    /// `Stale`.
    pub fn check_epoch(&self, epoch: Epoch) -> Result<()> {
        let stale = self.epoch.number > epoch.number;
        let twin = self.epoch.number == epoch.number && self.epoch != epoch;
        match stale || twin {
            true => Err(Problem::new(
                ProblemKind::Stale,
                format!("epoch {} has been here", self.epoch.number),
            )),
            false => Ok(()),
        }
    }

    /// A change has become durable.
    ///
    /// # Errors
    /// `Failed` when an error has latched meanwhile: nobody knows what is durable then.
    pub fn durable(&mut self, change: u64) -> Result<()> {
        self.is_writable()?;
        match self.changes.remove(&change) {
            Some(Change::Put(block, held)) => {
                if held.is_true() {
                    self.proven.insert(block);
                }
                self.set(block, Some(held));
            }
            Some(Change::Delete(block)) => self.set(block, None),
            Some(Change::Epoch(epoch)) if epoch.number > self.epoch.number => self.obey(epoch),
            _ => {}
        }
        Ok(())
    }

    /// Reads a replica whole.
    ///
    /// # Errors
    /// `NotFound`; `OtherReplica` for a suspect one; `Corrupt` for a damaged one, which is no longer served then.
    pub fn get(&mut self, block: BlockId) -> Result<Content> {
        let held = self
            .lookup(block)
            .ok_or_else(|| Problem::not_found(format!("block {block} is not here")))?;
        match held.state {
            ReplicaState::Suspect => Err(Problem::new(
                ProblemKind::OtherReplica,
                "the replica is a suspect",
            )),
            ReplicaState::Good if held.is_true() => Ok(held.content),
            ReplicaState::Good | ReplicaState::Corrupt => {
                self.mark(block, ReplicaState::Corrupt);
                Err(Problem::new(ProblemKind::Corrupt, "the replica is damaged"))
            }
        }
    }

    /// Notes what is known of a replica.
    pub fn mark(&mut self, block: BlockId, state: ReplicaState) {
        if let Some(held) = self.lookup(block) {
            self.set(block.0, Some(Held { state, ..held }));
        }
    }

    /// Verifies a suspect, and serves it from then on.
    ///
    /// # Errors
    /// `Invalid` when it is none; `Corrupt` when it does not verify.
    pub fn confirm(&mut self, block: BlockId) -> Result<()> {
        let suspect = self.suspect(block)?;
        if suspect.is_true() {
            self.proven.insert(block.0);
            self.mark(block, ReplicaState::Good);
            Ok(())
        } else {
            self.mark(block, ReplicaState::Corrupt);
            Err(Problem::new(ProblemKind::Corrupt, "the suspect is damaged"))
        }
    }

    /// Begins to free a suspect's slot.
    ///
    /// # Errors
    /// `Invalid` when it is none; `Failed`.
    pub fn forget(&mut self, block: BlockId) -> Result<u64> {
        self.is_writable()?;
        self.suspect(block)?;
        Ok(self.begin(Change::Delete(block.0)))
    }

    fn suspect(&self, block: BlockId) -> Result<Held> {
        self.lookup(block)
            .filter(|held| held.state == ReplicaState::Suspect)
            .ok_or_else(|| Problem::invalid(format!("block {block} is no suspect")))
    }

    /// The digest of what is here.
    pub fn digest(&self) -> Digest {
        self.digest.clone()
    }

    /// Replicas by id behind `after`, of one bucket or of all.
    pub fn list(&self, only: Option<u8>, after: BlockId) -> impl Iterator<Item = Replica> + '_ {
        let rows = self.held.range(after.0 + 1..);
        let of_bucket = move |block: u64| only.is_none_or(|only| bucket(BlockId(block)) == usize::from(only));
        rows.filter(move |(block, _)| of_bucket(**block))
            .map(|(block, held)| Replica {
                block: BlockId(*block),
                length: held.length,
                crc32c: held.crc32c,
                state: held.state,
            })
    }

    /// All replicas.
    pub fn all(&self) -> impl Iterator<Item = (BlockId, Held)> + '_ {
        self.held.iter().map(|(block, held)| (BlockId(*block), *held))
    }

    /// Whether the right bytes of a block have ever been durable here.
    pub fn was_durable(&self, block: BlockId) -> bool {
        self.proven.contains(&block.0)
    }

    /// Whether nothing is under way to the disk.
    pub fn is_quiet(&self) -> bool {
        self.changes.is_empty()
    }

    /// Forgets a replica, unasked.
    pub fn lose(&mut self, block: BlockId) {
        self.set(block.0, None);
    }

    /// Flips bits of a replica, unseen.
    pub fn rot(&mut self, block: BlockId, bits: u64) {
        if let Some(held) = self.held.get_mut(&block.0) {
            held.content ^= bits | 1;
        }
    }

    fn free_bytes(&self) -> u64 {
        let under_way = |change: &Change| match change {
            Change::Put(_, held) => u64::from(held.length) + HEADER_BYTES,
            _ => 0,
        };
        let reserved: u64 = self.changes.values().map(under_way).sum();
        self.capacity_bytes.saturating_sub(self.used_bytes + reserved)
    }

    /// What it tells of itself.
    pub fn report(&self, address: &str, in_flight: u32) -> VolumeReport {
        let of_state = |state| self.held.iter().filter(move |(_, held)| held.state == state);
        let state = match (self.failed, self.free_bytes()) {
            (true, _) => VolumeState::Failed,
            (false, 0..=HEADER_BYTES) => VolumeState::Full,
            _ => VolumeState::Serving,
        };
        VolumeReport {
            id: self.id,
            incarnation: self.incarnation,
            generation: self.generation,
            address: address.to_owned(),
            directory: address.to_owned(),
            state,
            capacity_bytes: self.capacity_bytes,
            used_bytes: self.used_bytes,
            free_bytes: self.free_bytes(),
            replicas: self.held.len() as u64,
            corrupt: of_state(ReplicaState::Corrupt).count() as u64,
            suspects: of_state(ReplicaState::Suspect).count() as u64,
            in_flight,
            corrupt_blocks: of_state(ReplicaState::Corrupt)
                .map(|(block, _)| BlockId(*block))
                .collect(),
            ..VolumeReport::default()
        }
    }
}
