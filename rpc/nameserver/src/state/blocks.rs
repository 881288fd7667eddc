//! Blocks and the volumes that hold them: replicas, digests, and deletions that a volume still owes.

use std::collections::{BTreeMap, BTreeSet};

use blockyard_wire::digest::Digest;
use blockyard_wire::types::{BlockId, Duty, Incarnation, Replica, ReplicaState, VolumeId};
use blockyard_wire::{Problem, ProblemKind, Result};
use serde::{Deserialize, Serialize};

use super::table::Table;

/// The highest replication factor.
pub const REPLICATION_MAX: u8 = 8;
/// Replicas that one block can have on the map: room for damaged ones and those on dead volumes beside the good.
pub const REPLICAS_MAX: usize = 10;
/// Volumes that a cluster can ever have known.
pub const VOLUMES_MAX: usize = u16::MAX as usize;

/// A volume's place in the table of volumes: what a block's row holds instead of 16 bytes of id.
pub type VolumeIndex = u16;

const _: () = assert!(REPLICATION_MAX as usize + 2 <= REPLICAS_MAX);
const _: () = assert!(size_of::<Block>() <= 48);

/// A block: what it is, where it is, how often it is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// The version it was made for.
    pub version: u64,
    /// Its place in the file.
    pub index: u32,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// Replicas wanted.
    pub wanted: u8,
    count: u8,
    /// Two bits for each replica.
    states: u32,
    volumes: [VolumeIndex; REPLICAS_MAX],
}

impl Block {
    /// A block without replicas.
    pub fn new(version: u64, index: u32, length: u32, crc32c: u32, wanted: u8) -> Self {
        Self {
            version,
            index,
            length,
            crc32c,
            wanted,
            count: 0,
            states: 0,
            volumes: [0; REPLICAS_MAX],
        }
    }

    /// Its replicas, in the order in which they came.
    pub fn replicas(&self) -> impl Iterator<Item = (VolumeIndex, ReplicaState)> + Clone + '_ {
        (0..usize::from(self.count)).map(|at| (self.volumes[at], self.state_at(at)))
    }

    /// The state of the replica on `volume`.
    pub fn state_on(&self, volume: VolumeIndex) -> Option<ReplicaState> {
        self.place(volume).map(|at| self.state_at(at))
    }

    /// How many replicas are good.
    pub fn good(&self) -> usize {
        self.replicas()
            .filter(|(_, state)| *state == ReplicaState::Good)
            .count()
    }

    /// Whether there is no room for another replica on the map.
    pub fn is_full(&self) -> bool {
        usize::from(self.count) == REPLICAS_MAX
    }

    /// The replica on a volume, as the volume would tell of it.
    pub fn as_replica(&self, block: BlockId, state: ReplicaState) -> Replica {
        Replica {
            block,
            length: self.length,
            crc32c: self.crc32c,
            state,
        }
    }

    fn place(&self, volume: VolumeIndex) -> Option<usize> {
        self.volumes[..usize::from(self.count)]
            .iter()
            .position(|&held| held == volume)
    }

    fn state_at(&self, at: usize) -> ReplicaState {
        match self.states >> (2 * at) & 3 {
            0 => ReplicaState::Good,
            1 => ReplicaState::Suspect,
            _ => ReplicaState::Corrupt,
        }
    }

    fn set_state_at(&mut self, at: usize, state: ReplicaState) {
        let bits = match state {
            ReplicaState::Good => 0,
            ReplicaState::Suspect => 1,
            ReplicaState::Corrupt => 2,
        };
        self.states = self.states & !(3 << (2 * at)) | bits << (2 * at);
    }

    /// Adds a replica, where there is room for one.
    pub(crate) fn push(&mut self, volume: VolumeIndex, state: ReplicaState) {
        let at = usize::from(self.count);
        if let Some(place) = self.volumes.get_mut(at) {
            *place = volume;
            self.count += 1;
            self.set_state_at(at, state);
        }
    }

    /// Keeps the order of the others, so that the same commands give the same bytes.
    fn take(&mut self, at: usize) {
        for to in at..usize::from(self.count) - 1 {
            self.volumes[to] = self.volumes[to + 1];
            self.set_state_at(to, self.state_at(to + 1));
        }
        self.count -= 1;
        let last = usize::from(self.count);
        self.volumes[last] = 0;
        self.set_state_at(last, ReplicaState::Good);
    }
}

/// What is durably known of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VolumeRow {
    /// Its id.
    pub id: VolumeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// `HOST:PORT` of its data listener when last heard.
    pub address: String,
    /// Its folder, for people.
    pub directory: String,
    /// `HOST:PORT` of its dataserver.
    pub server: String,
    /// The dataserver's failure zone.
    pub zone: String,
    /// The dataserver's host name.
    pub host: String,
    /// The dataserver's version of Blockyard.
    pub version: String,
}

/// A volume and what it should hold.
#[derive(Clone, Debug)]
pub struct Volume {
    /// What is known of it.
    pub row: VolumeRow,
    /// Replicas on the map.
    pub replicas: u64,
    /// The digest of those replicas.
    pub digest: Digest,
    /// Blocks that it must delete, off the map already.
    pub pending: BTreeSet<u64>,
    /// What the operator wants of it.
    pub duty: Duty,
    /// How often it had been opened when it last joined.
    pub generation: u64,
    /// It is lost, and all that it held has enough replicas elsewhere since.
    pub made_good: bool,
}

/// All blocks and volumes.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    table: Table<Block>,
    volumes: Vec<Volume>,
    by_id: BTreeMap<VolumeId, VolumeIndex>,
    corrupt: u64,
    pending: u64,
    /// Blocks whose replicas have changed since [`Blocks::take_changed`]; no part of the state.
    changed: Vec<u64>,
}

impl Blocks {
    /// The block's row.
    pub fn get(&self, block: BlockId) -> Option<&Block> {
        self.table.get(block.0)
    }

    /// All blocks.
    pub fn table(&self) -> &Table<Block> {
        &self.table
    }

    /// Replicas known to be damaged.
    pub fn corrupt(&self) -> u64 {
        self.corrupt
    }

    /// Deletions that volumes still owe.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// All volumes ever known, by index.
    pub fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    /// The volume of `index`.
    pub fn volume(&self, index: VolumeIndex) -> Option<&Volume> {
        self.volumes.get(usize::from(index))
    }

    /// The index of the volume with this id.
    pub fn index_of(&self, id: VolumeId) -> Option<VolumeIndex> {
        self.by_id.get(&id).copied()
    }

    /// The index of the volume with this id.
    ///
    /// # Errors
    /// `NotFound` when it has never joined.
    pub fn known(&self, id: VolumeId) -> Result<VolumeIndex> {
        self.index_of(id)
            .ok_or_else(|| Problem::not_found(format!("volume {id} has never joined this cluster")))
    }

    /// Blocks whose replicas have changed since the last call.
    pub fn take_changed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.changed)
    }

    /// Takes a volume in, or what has changed of it.
    pub(super) fn join(&mut self, row: &VolumeRow) -> Result<VolumeIndex> {
        if let Some(index) = self.index_of(row.id) {
            self.volumes[usize::from(index)].row = row.clone();
            return Ok(index);
        }
        if self.volumes.len() >= VOLUMES_MAX {
            return Err(Problem::new(
                ProblemKind::Failed,
                format!("the cluster has known {VOLUMES_MAX} volumes, which is the limit"),
            ));
        }
        let index = self.volumes.len() as VolumeIndex;
        self.by_id.insert(row.id, index);
        self.volumes.push(Volume {
            row: row.clone(),
            replicas: 0,
            digest: Digest::default(),
            pending: BTreeSet::new(),
            duty: Duty::default(),
            generation: 0,
            made_good: false,
        });
        Ok(index)
    }

    /// Takes a block in with its first replicas.
    pub(super) fn insert(&mut self, id: BlockId, mut block: Block, volumes: &[VolumeIndex]) {
        for &index in volumes {
            if block.state_on(index).is_none() && !block.is_full() {
                block.push(index, ReplicaState::Good);
                self.count(index, id, &block, ReplicaState::Good, true);
            }
        }
        self.table.insert(id.0, block);
        self.changed.push(id.0);
    }

    /// Adds a verified replica. One that comes too late, or where the block is to be deleted, is to be deleted.
    /// Whether it is on the map now.
    pub(super) fn add_replica(&mut self, id: BlockId, index: VolumeIndex) -> bool {
        let Some(mut block) = self.table.get(id.0).copied() else {
            self.owe(index, id);
            return false;
        };
        if block.state_on(index).is_some() {
            return self.set_state(id, index, ReplicaState::Good);
        }
        if block.is_full() || self.volumes[usize::from(index)].pending.contains(&id.0) {
            self.owe(index, id);
            return false;
        }
        block.push(index, ReplicaState::Good);
        self.count(index, id, &block, ReplicaState::Good, true);
        self.table.insert(id.0, block);
        self.changed.push(id.0);
        true
    }

    /// Takes a replica off the map; `delete` when the volume still has it. Whether it was on the map.
    pub(super) fn drop_replica(&mut self, id: BlockId, index: VolumeIndex, delete: bool) -> bool {
        let Some(mut block) = self.table.get(id.0).copied() else {
            return false;
        };
        let Some(at) = block.place(index) else {
            return false;
        };
        self.count(index, id, &block, block.state_at(at), false);
        block.take(at);
        self.table.insert(id.0, block);
        self.changed.push(id.0);
        if delete {
            self.owe(index, id);
        }
        true
    }

    /// Sets what is known of a replica. Whether it is on the map.
    pub(super) fn set_state(&mut self, id: BlockId, index: VolumeIndex, state: ReplicaState) -> bool {
        let Some(mut block) = self.table.get(id.0).copied() else {
            return false;
        };
        let Some(at) = block.place(index) else {
            return false;
        };
        if block.state_at(at) != state {
            self.count(index, id, &block, block.state_at(at), false);
            block.set_state_at(at, state);
            self.count(index, id, &block, state, true);
            self.table.insert(id.0, block);
            self.changed.push(id.0);
        }
        true
    }

    /// Takes a block off the map: its volumes owe its deletion.
    pub(super) fn release(&mut self, id: BlockId) {
        let Some(block) = self.table.remove(id.0) else {
            return;
        };
        for (index, state) in block.replicas() {
            self.count(index, id, &block, state, false);
            self.owe(index, id);
        }
        self.changed.push(id.0);
    }

    /// The volume has deleted these, or never had them.
    pub(super) fn deleted(&mut self, index: VolumeIndex, blocks: &[BlockId]) {
        let Some(volume) = self.volumes.get_mut(usize::from(index)) else {
            return;
        };
        for block in blocks {
            self.pending -= u64::from(volume.pending.remove(&block.0));
        }
    }

    /// Restores a volume of a snapshot; volumes come before blocks, in the order of their indices.
    pub(super) fn restore_volume(&mut self, row: &VolumeRow) -> Result<()> {
        if self.index_of(row.id).is_some() {
            return Err(Problem::invalid(format!(
                "volume {} stands twice in the snapshot",
                row.id
            )));
        }
        self.join(row).map(|_| ())
    }

    /// Restores a block of a snapshot.
    pub(super) fn restore(&mut self, id: u64, block: Block) -> Result<()> {
        let known = block
            .replicas()
            .all(|(index, _)| usize::from(index) < self.volumes.len());
        if !known {
            return Err(Problem::invalid(format!(
                "block {} in the snapshot names unknown volumes",
                BlockId(id)
            )));
        }
        for (index, state) in block.replicas() {
            self.count(index, BlockId(id), &block, state, true);
        }
        self.table.insert(id, block);
        Ok(())
    }

    /// A volume owes the deletion of a block. One that was removed owes nothing more.
    pub(super) fn owe(&mut self, index: VolumeIndex, id: BlockId) {
        if let Some(volume) = self.volumes.get_mut(usize::from(index))
            && volume.duty != Duty::Removed
        {
            self.pending += u64::from(volume.pending.insert(id.0));
        }
    }

    /// Sets what is wanted of a volume.
    pub(super) fn assign(&mut self, index: VolumeIndex, duty: Duty) {
        let Some(volume) = self.volumes.get_mut(usize::from(index)) else {
            return;
        };
        volume.duty = duty;
        if duty == Duty::Removed {
            self.pending -= volume.pending.len() as u64;
            volume.pending.clear();
        }
    }

    /// The volume has been opened so often.
    pub(super) fn opened(&mut self, index: VolumeIndex, generation: u64) {
        if let Some(volume) = self.volumes.get_mut(usize::from(index)) {
            volume.generation = generation;
        }
    }

    /// The loss of the volume has been made good, or it is back.
    pub(super) fn make_good(&mut self, index: VolumeIndex, made_good: bool) {
        if let Some(volume) = self.volumes.get_mut(usize::from(index)) {
            volume.made_good = made_good;
        }
    }

    /// Another number of replicas is wanted of a block.
    pub(super) fn want(&mut self, id: BlockId, replicas: u8) {
        if let Some(block) = self.table.get_mut(id.0)
            && block.wanted != replicas
        {
            block.wanted = replicas;
            self.changed.push(id.0);
        }
    }

    fn count(&mut self, index: VolumeIndex, id: BlockId, block: &Block, state: ReplicaState, add: bool) {
        let volume = &mut self.volumes[usize::from(index)];
        let replica = block.as_replica(id, state);
        let corrupt = u64::from(state == ReplicaState::Corrupt);
        if add {
            volume.replicas += 1;
            volume.digest.add(&replica);
            self.corrupt += corrupt;
        } else {
            volume.replicas -= 1;
            volume.digest.remove(&replica);
            self.corrupt -= corrupt;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(count: u8) -> Blocks {
        let mut blocks = Blocks::default();
        for n in 0..count {
            blocks
                .join(&VolumeRow {
                    id: VolumeId([n; 16]),
                    ..VolumeRow::default()
                })
                .unwrap();
        }
        blocks
    }

    #[test]
    fn digests_follow_every_change() {
        let mut blocks = volumes(3);
        for n in 0..600 {
            blocks.insert(BlockId(n), Block::new(1, n as u32, 7, n as u32, 2), &[0, 1, 1]);
        }
        blocks.set_state(BlockId(3), 0, ReplicaState::Corrupt);
        assert!(blocks.add_replica(BlockId(4), 2));
        assert!(blocks.drop_replica(BlockId(5), 1, true));
        assert!(!blocks.drop_replica(BlockId(5), 1, true));
        blocks.release(BlockId(6));
        assert!(
            !blocks.add_replica(BlockId(6), 2),
            "a copy that comes after the block has gone"
        );
        assert!(
            !blocks.add_replica(BlockId(5), 1),
            "a copy where the block is to be deleted"
        );
        assert_eq!((blocks.corrupt(), blocks.pending()), (1, 4));
        for index in 0..3 {
            let held: Vec<_> = blocks
                .table()
                .iter()
                .filter_map(|(id, b)| b.state_on(index).map(|state| b.as_replica(BlockId(id), state)))
                .collect();
            let volume = blocks.volume(index).unwrap();
            assert_eq!(volume.replicas, held.len() as u64);
            assert_eq!(volume.digest, Digest::of(held));
        }
        blocks.deleted(1, &[BlockId(5), BlockId(6), BlockId(99)]);
        assert_eq!(blocks.pending(), 2);
    }

    #[test]
    fn a_row_holds_ten_replicas_in_order() {
        let mut blocks = volumes(11);
        blocks.insert(BlockId(1), Block::new(1, 0, 1, 1, 2), &[9, 8]);
        for index in 0..8 {
            assert!(blocks.add_replica(BlockId(1), index));
        }
        assert!(!blocks.add_replica(BlockId(1), 10), "the row is full");
        blocks.set_state(BlockId(1), 2, ReplicaState::Corrupt);
        blocks.set_state(BlockId(1), 5, ReplicaState::Suspect);
        blocks.drop_replica(BlockId(1), 8, false);
        blocks.drop_replica(BlockId(1), 1, false);
        let row = blocks.get(BlockId(1)).unwrap();
        let held: Vec<_> = row.replicas().map(|(index, _)| index).collect();
        assert_eq!(held, [9, 0, 2, 3, 4, 5, 6, 7]);
        assert_eq!(row.state_on(2), Some(ReplicaState::Corrupt));
        assert_eq!(row.state_on(5), Some(ReplicaState::Suspect));
        assert_eq!(row.good(), 6);
    }
}
