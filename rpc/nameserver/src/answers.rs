//! What is told of files, blocks and the cluster: read from memory, with the tickets that reading needs.

use std::collections::BTreeMap;

use blockyard_wire::ticket::{Claim, Operation};
use blockyard_wire::types::{
    BlockId, BlockInfo, ClusterStatus, Duty, FileInfo, HeldBlock, Hop, Liveness, Location, ReplicaState,
    ServerStatus, Trashed, VolumeId, VolumeReport, VolumeStatus,
};
use blockyard_wire::{Problem, Result};

use crate::core::Core;
use crate::state::State;
use crate::state::blocks::{Block, VolumeIndex};

/// Blocks of one answer.
pub const BLOCKS_MAX: u32 = 256;
/// Held blocks of one answer.
const HELD_MAX: usize = 1000;
/// Bytes of paths after which such an answer ends.
const HELD_BYTES_MAX: usize = 512 * 1024;

/// Which replicas an answer names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Those to read from.
    Readable,
    /// All, the damaged ones too.
    All,
}

impl Core {
    /// A file or directory and a run of its blocks.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a path that can't be.
    pub fn lookup(&self, path: &str, from: u32, max: u32) -> Result<(FileInfo, Vec<BlockInfo>)> {
        let file = self.state.borrow().lookup(path)?;
        let blocks = if file.directory {
            Vec::new()
        } else {
            self.blocks(file.version, from, max)?
        };
        Ok((file, blocks))
    }

    /// A run of the blocks of a version.
    ///
    /// # Errors
    /// `Gone` when the version is no longer kept.
    pub fn blocks(&self, version: u64, from: u32, max: u32) -> Result<Vec<BlockInfo>> {
        let state = self.state.borrow();
        let run = state.run_of(version, from, max.min(BLOCKS_MAX) as usize)?;
        if run.is_empty() {
            return Ok(Vec::new());
        }
        let expires_unix_ms = self.readers.borrow_mut().give(version, self.now_unix_ms());
        Ok(run
            .into_iter()
            .map(|(index, id, block)| {
                self.describe(&state, (index, id, &block), Which::Readable, expires_unix_ms)
            })
            .collect())
    }

    /// A block, the file that holds it now (empty where none does), and its version.
    ///
    /// # Errors
    /// `NotFound` when there is no such block.
    pub fn locate(&self, id: BlockId) -> Result<(BlockInfo, String, u64)> {
        let state = self.state.borrow();
        let block = *state
            .blocks()
            .get(id)
            .ok_or_else(|| Problem::not_found(format!("there is no block {id}")))?;
        let expires_unix_ms = self.readers.borrow_mut().give(block.version, self.now_unix_ms());
        let info = self.describe(&state, (block.index, id, &block), Which::All, expires_unix_ms);
        Ok((info, path_of(&state, block.version), block.version))
    }

    /// What a volume should hold, by block id behind `after`; whether there is more.
    ///
    /// # Errors
    /// `NotFound` for a volume that has never joined.
    pub fn replicas_of(
        &self,
        volume: VolumeId,
        after: BlockId,
        limit: u32,
    ) -> Result<(Vec<HeldBlock>, bool)> {
        let state = self.state.borrow();
        let index = state.blocks().known(volume)?;
        let limit = (limit as usize).clamp(1, HELD_MAX);
        let mut held = Vec::new();
        let mut path_bytes = 0;
        // 0 stands for "from the first" and is no block's id: reigns begin with 1.
        for (id, block) in state.blocks().table().after(Some(after.0)) {
            let Some(replica_state) = block.state_on(index) else {
                continue;
            };
            if held.len() == limit || path_bytes > HELD_BYTES_MAX {
                return Ok((held, true));
            }
            let path = path_of(&state, block.version);
            path_bytes += path.len();
            held.push(HeldBlock {
                block: BlockId(id),
                length: block.length,
                crc32c: block.crc32c,
                index: block.index,
                version: block.version,
                path,
                state: replica_state,
            });
        }
        Ok((held, false))
    }

    /// What lies in the trash behind the entry `after`, by number; whether there is more.
    pub fn trash(&self, after: u64, limit: u32) -> (Vec<Trashed>, bool) {
        let state = self.state.borrow();
        let limit = (limit as usize).clamp(1, HELD_MAX);
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let mut entries = state.trash().entries().range(behind);
        let page = entries.by_ref().take(limit).filter_map(|(&entry, _)| {
            let (file, told) = state.trash_info(entry)?;
            Some(Trashed {
                entry,
                file,
                at_unix_ms: told.at_unix_ms,
                files: told.files,
            })
        });
        (page.collect(), entries.next().is_some())
    }

    /// The whole cluster.
    pub fn status(&self) -> ClusterStatus {
        let (state, health, now_ms) = (self.state.borrow(), self.health.borrow(), self.now_ms());
        let redundancy = self.redundancy.borrow();
        let volume_status = |index: VolumeIndex, liveness| {
            let volume = state.blocks().volume(index);
            let report = health.report(index).cloned().unwrap_or_else(|| {
                volume.map_or_else(VolumeReport::default, |volume| VolumeReport {
                    id: volume.row.id,
                    incarnation: volume.row.incarnation,
                    address: volume.row.address.clone(),
                    directory: volume.row.directory.clone(),
                    ..VolumeReport::default()
                })
            });
            VolumeStatus {
                report,
                liveness,
                blocks: volume.map_or(0, |volume| volume.replicas),
                pending_deletes: volume.map_or(0, |volume| volume.pending.len() as u64),
                duty: volume.map_or(Duty::Serving, |volume| volume.duty),
                returning: self.comparing.borrow().contains(&index),
                suspicion: self.suspicions.borrow().get(&index).cloned().unwrap_or_default(),
            }
        };
        let is_removed = |index: VolumeIndex| {
            let volume = state.blocks().volume(index);
            volume.is_some_and(|volume| volume.duty == Duty::Removed)
        };
        // A server that only had volumes that were removed is no part of the cluster any more.
        let known = health.servers().iter().filter(|(_, server)| {
            server.registration.is_some() || server.volumes.iter().any(|index| !is_removed(*index))
        });
        let servers = known.map(|(address, server)| {
            let liveness = health.liveness(server, now_ms);
            ServerStatus {
                address: address.clone(),
                zone: server.zone.clone(),
                host: server.host.clone(),
                version: server.version.clone(),
                liveness,
                since_heartbeat_ms: now_ms.saturating_sub(server.heard_ms),
                volumes: server
                    .volumes
                    .iter()
                    .filter(|index| !is_removed(**index))
                    .map(|index| volume_status(*index, liveness))
                    .collect(),
                host_report: server.machine,
            }
        });
        ClusterStatus {
            cluster: self.info(),
            servers: servers.collect(),
            files: state.names().files() - state.trash().files(),
            directories: state.names().directories() - state.trash().directories(),
            blocks: state.blocks().table().len() as u64,
            file_bytes: state.file_bytes() - state.trash().bytes(),
            under_replicated_blocks: redundancy.under(),
            missing_blocks: redundancy.missing(),
            corrupt_replicas: state.blocks().corrupt(),
            leases: state.leases().len() as u64,
            uptime_ms: now_ms,
            journal_bytes: self.journal_bytes.get(),
            repairing: self.repairing.get(),
            pending_deletes: state.blocks().pending(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            safe_mode: self.safe_mode.get(),
            repair: self.repair_status(),
            trash_files: state.trash().files(),
            trash_bytes: state.trash().bytes(),
            read_only: self.read_only.borrow().clone(),
        }
    }

    /// A block with its replicas, the best to read from first: heard from before silent, idle before busy.
    fn describe(
        &self,
        state: &State,
        (index, id, block): (u32, BlockId, &Block),
        which: Which,
        expires_unix_ms: u64,
    ) -> BlockInfo {
        let (health, now_ms) = (self.health.borrow(), self.now_ms());
        let mut ranked = BTreeMap::new();
        for (order, (volume, replica_state)) in block.replicas().enumerate() {
            if which == Which::Readable && replica_state != ReplicaState::Good {
                continue;
            }
            let Some(hop) = self.hop(
                state,
                volume,
                id,
                (Operation::Read, 0, block.length),
                expires_unix_ms,
            ) else {
                continue;
            };
            let server = health.server_of(volume);
            let liveness = server.map_or(Liveness::Dead, |(_, server)| health.liveness(server, now_ms));
            let busy = health.report(volume).map_or(0, |report| report.in_flight);
            // Equal ones take turns by block, so that readers spread.
            let turn = (u64::from(index) + order as u64) % u64::from(block.wanted.max(1));
            let rank = (replica_state, liveness, busy / 8, turn, order);
            let location = Location {
                hop,
                state: replica_state,
                live: liveness == Liveness::Alive,
                zone: server.map_or_else(String::new, |(_, server)| server.zone.clone()),
            };
            ranked.insert(rank, location);
        }
        BlockInfo {
            block: id,
            index,
            length: block.length,
            crc32c: block.crc32c,
            replicas: ranked.into_values().collect(),
        }
    }

    /// The right to do `operation` on a block at a volume, as hop number `hop`, for up to `length` bytes.
    pub fn hop(
        &self,
        state: &State,
        volume: VolumeIndex,
        block: BlockId,
        (operation, hop, length): (Operation, u8, u32),
        expires_unix_ms: u64,
    ) -> Option<Hop> {
        let health = self.health.borrow();
        let row = &state.blocks().volume(volume)?.row;
        let address = health
            .report(volume)
            .map_or(&row.address, |report| &report.address);
        let server = health
            .server_of(volume)
            .map_or(row.server.as_str(), |(address, _)| address);
        let grant = Claim {
            operation,
            block,
            volume: row.id,
            hop,
            length,
        };
        Some(Hop {
            volume: row.id,
            address: address.clone(),
            server: server.to_owned(),
            ticket: self.keys.sign(&grant, expires_unix_ms),
        })
    }
}

/// The path of the file whose current version this is; empty where none is.
pub(crate) fn path_of(state: &State, version: u64) -> String {
    match state.version(version) {
        Some(row) if row.file != 0 => state.names().path_of(row.file),
        _ => String::new(),
    }
}
