//! Uploads beyond the state: volumes for fresh blocks, proofs of written ones, and what a commit waits for.

use blockyard_engine::limits::BLOCK_BYTES_MAX;
use blockyard_wire::ticket::Operation;
use blockyard_wire::types::{
    AddedBlock, BlockId, Duty, Liveness, NewBlock, ReplicaState, VolumeId, VolumeState,
};
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::core::Core;
use crate::placement::{Candidate, choose};
use crate::state::blocks::VolumeIndex;
use crate::state::{NewRow, State};

/// Blocks of one allocation.
pub const ALLOCATE_MAX: u32 = 64;
/// Blocks of one addition.
pub const ADD_MAX: usize = 256;
/// Bytes that a volume must have room for to get a block: a whole one, and its slot's header.
const ROOM_BYTES: u64 = (BLOCK_BYTES_MAX + 4096) as u64;

impl Core {
    /// Fresh ids for an upload, each with a chain of volumes and the tickets to write to them.
    ///
    /// # Errors
    /// `Denied` without the upload; `NoSpace` when all volumes are full; `Retry` when too few are there.
    pub fn allocate(&self, lease: u64, count: u32, avoid: &[VolumeId]) -> Result<Vec<NewBlock>> {
        let state = self.state.borrow();
        let held = state.held(lease)?;
        self.uploads.borrow_mut().renew(lease, self.now_ms());
        self.chains(&state, held.replication, count, avoid, || {
            self.uploads.borrow_mut().allocate(lease)
        })
    }

    /// Fresh ids for files without an upload of their own: publishable as long as their tickets hold, and a little
    /// longer, for what is written last.
    ///
    /// # Errors
    /// As [`Core::allocate`]; `Invalid` for a replication factor that can't be.
    pub fn reserve(&self, replication: u8, count: u32, avoid: &[VolumeId]) -> Result<Vec<NewBlock>> {
        let replication = self.replication_or_default(replication);
        if replication > crate::state::blocks::REPLICATION_MAX {
            return Err(Problem::invalid(format!("replication {replication} is too high")));
        }
        let until_ms = self.now_ms() + self.config.ticket_ms + u64::from(self.config.lease_ms);
        self.chains(&self.state.borrow(), replication, count, avoid, || {
            self.uploads.borrow_mut().reserve(until_ms)
        })
    }

    /// The replication factor asked for, or the cluster's.
    pub fn replication_or_default(&self, asked: u8) -> u8 {
        match asked {
            0 => self.config.replication,
            asked => asked,
        }
    }

    /// A chain of volumes, and the tickets to write to them, for each of `count` blocks.
    fn chains(
        &self,
        state: &State,
        replication: u8,
        count: u32,
        avoid: &[VolumeId],
        mut fresh: impl FnMut() -> Result<BlockId>,
    ) -> Result<Vec<NewBlock>> {
        let avoid: Vec<_> = avoid
            .iter()
            .filter_map(|id| state.blocks().index_of(*id))
            .collect();
        let expires_unix_ms = self.now_unix_ms() + self.config.ticket_ms;
        let least = usize::from(self.config.min_replicas.min(replication));
        let health = self.health.borrow();
        let candidates = self.candidates(state, &health, &avoid);
        let soon = self.servers_soon(&health);
        let mut blocks = Vec::new();
        for _ in 0..count.clamp(1, ALLOCATE_MAX) {
            let wanted = usize::from(replication);
            let chain = choose(&candidates, &[], wanted, least, &mut *self.lots.borrow_mut());
            if chain.len() < soon.min(wanted) {
                return Err(Problem::retry(format!(
                    "the nameserver has just started, and {} volumes of {soon} dataservers are back: in a moment \
                     there are more",
                    candidates.len()
                )));
            }
            if chain.len() < least {
                return Err(self.no_volumes(state, chain.len(), least));
            }
            let block = fresh()?;
            let hops = chain.iter().zip(0..).filter_map(|(volume, hop)| {
                self.hop(
                    state,
                    *volume,
                    block,
                    (Operation::Write, hop, BLOCK_BYTES_MAX as u32),
                    expires_unix_ms,
                )
            });
            blocks.push(NewBlock {
                block,
                chain: hops.collect(),
            });
        }
        Ok(blocks)
    }

    /// Servers that are to be reckoned with. Those of a nameserver that has just started come back one after the other:
    /// as long as they are not even suspect, no chain is shorter because one was quicker than the others.
    fn servers_soon(&self, health: &crate::health::Health) -> usize {
        let just_started = self.safe_mode.get() && self.now_ms() < u64::from(self.config.suspect_ms);
        if just_started { health.servers().len() } else { 0 }
    }

    /// Volumes that take new blocks: heard from, serving, with room.
    pub fn candidates<'a>(
        &self,
        state: &'a State,
        health: &'a crate::health::Health,
        avoid: &[VolumeIndex],
    ) -> Vec<Candidate<'a>> {
        let now_ms = self.now_ms();
        let alive = health
            .servers()
            .iter()
            .filter(|(_, s)| health.liveness(s, now_ms) == Liveness::Alive);
        alive
            .flat_map(|(address, server)| {
                server
                    .volumes
                    .iter()
                    .map(move |volume| (address, server, *volume))
            })
            .filter(|(_, _, volume)| {
                let row = state.blocks().volume(*volume);
                !avoid.contains(volume) && row.is_some_and(|row| takes_blocks(row.duty))
            })
            .filter_map(|(address, server, volume)| {
                let report = health.report(volume)?;
                let takes = report.state == VolumeState::Serving && report.free_bytes >= ROOM_BYTES;
                takes.then_some(Candidate {
                    volume,
                    server: address,
                    zone: &server.zone,
                    free_bytes: report.free_bytes,
                })
            })
            .collect()
    }

    /// Why there are not enough volumes.
    fn no_volumes(&self, state: &State, found: usize, least: usize) -> Problem {
        let health = self.health.borrow();
        let now_ms = self.now_ms();
        let alive: Vec<_> = health
            .servers()
            .values()
            .filter(|s| health.liveness(s, now_ms) == Liveness::Alive)
            .collect();
        let known = health.servers().len();
        if alive.is_empty() {
            return Problem::retry(format!(
                "no dataserver is connected ({known} known): start one with 'blockyard dataserver', or wait for it"
            ));
        }
        let reports: Vec<_> = alive
            .iter()
            .flat_map(|s| &s.volumes)
            .filter_map(|volume| health.report(*volume))
            .collect();
        let full = |state: VolumeState, free: u64| {
            state == VolumeState::Full || state == VolumeState::Serving && free < ROOM_BYTES
        };
        if !reports.is_empty() && reports.iter().all(|r| full(r.state, r.free_bytes)) {
            if state.trash().files() > 0 {
                self.trash_wanted.set(true);
                return Problem::retry("all volumes are full; the trash is being emptied to make room");
            }
            let pending = state.blocks().pending();
            return Problem::new(
                ProblemKind::NoSpace,
                format!(
                    "all {} volumes are full ({pending} deletions are under way): delete something or add a volume",
                    reports.len()
                ),
            );
        }
        Problem::retry(format!(
            "{found} volumes can take a block and at least {least} are needed: of {} connected the others are full, \
             failed, draining, in maintenance, or have just failed for this client",
            reports.len()
        ))
    }

    /// Checks blocks that a client says are durable: ids it was given, and a proof of each volume.
    ///
    /// # Errors
    /// `Denied` for another's id or a proof that does not hold; `Invalid` for too many; `NotFound` for volumes
    /// that have never joined.
    pub fn proven(&self, lease: u64, blocks: &[AddedBlock]) -> Result<Vec<NewRow>> {
        if blocks.len() > ADD_MAX {
            return Err(Problem::invalid(format!(
                "{} blocks in one call, at most {ADD_MAX} are allowed",
                blocks.len()
            )));
        }
        let state = self.state.borrow();
        let held = state.held(lease)?;
        let uploads = self.uploads.borrow();
        let given = |block: BlockId| {
            let known = state.blocks().get(block);
            known.is_some_and(|row| row.version == held.version) || uploads.may_be(block, lease, held.reign)
        };
        let rows = blocks.iter().map(|added| match given(added.block) {
            true => self.proven_one(&state, added),
            false => Err(denied(added.block, "it was not given to this upload")),
        });
        rows.collect()
    }

    /// Checks the blocks of a file that is published without an upload of its own.
    ///
    /// # Errors
    /// `Denied` for ids that are not reserved (any more) or a proof that does not hold; `Invalid` for too many;
    /// `Retry` when a block has no live replica.
    pub fn proven_file(&self, path: &str, blocks: &[AddedBlock]) -> Result<Vec<NewRow>> {
        if blocks.len() > ALLOCATE_MAX as usize {
            return Err(Problem::invalid(format!(
                "{} blocks in a file without an upload, at most {ALLOCATE_MAX} are allowed",
                blocks.len()
            )));
        }
        let (state, health, now_ms) = (self.state.borrow(), self.health.borrow(), self.now_ms());
        let uploads = self.uploads.borrow();
        let mut rows = Vec::with_capacity(blocks.len());
        for added in blocks {
            if !uploads.is_reserved(added.block, now_ms) {
                return Err(denied(added.block, "it is not reserved (any more)"));
            }
            let row = self.proven_one(&state, added)?;
            let mut volumes = row.volumes.iter();
            if !volumes.any(|volume| health.volume_liveness(*volume, now_ms) == Liveness::Alive) {
                return Err(Problem::retry(format!(
                    "{path} can't be published yet: block {} has no live replica; wait for its servers or upload again",
                    added.block
                )));
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// A block whose proofs hold.
    fn proven_one(&self, state: &State, added: &AddedBlock) -> Result<NewRow> {
        let AddedBlock {
            block,
            index,
            length,
            crc32c,
            proofs,
        } = added;
        if proofs.is_empty() || proofs.len() > crate::state::blocks::REPLICAS_MAX {
            return Err(Problem::invalid(format!(
                "block {block} comes with {} proofs",
                proofs.len()
            )));
        }
        let volumes = proofs.iter().map(|proof| {
            if !self.keys.proves(proof, *block, *length, *crc32c) {
                return Err(denied(*block, "a proof of a replica does not hold"));
            }
            state.blocks().known(proof.volume)
        });
        Ok(NewRow {
            block: *block,
            index: *index,
            length: *length,
            crc32c: *crc32c,
            volumes: volumes.collect::<Result<_>>()?,
        })
    }

    /// Whether every block of an upload can be read right now.
    ///
    /// # Errors
    /// `Retry` with the blocks that can't.
    pub fn readable(&self, lease: u64) -> Result<()> {
        /// Blocks that the message names.
        const NAMED_MAX: usize = 8;
        let state = self.state.borrow();
        let (health, now_ms) = (self.health.borrow(), self.now_ms());
        let mut live = std::collections::BTreeMap::new();
        let mut is_live = |volume: VolumeIndex| {
            *live
                .entry(volume)
                .or_insert_with(|| health.volume_liveness(volume, now_ms) == Liveness::Alive)
        };
        let held = state.held(lease)?;
        let lacking = held.blocks.values().filter(|id| {
            let block = state.blocks().get(BlockId(**id));
            !block.is_some_and(|block| {
                block
                    .replicas()
                    .any(|(volume, state)| state == ReplicaState::Good && is_live(volume))
            })
        });
        let lacking: Vec<_> = lacking.copied().collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let named: Vec<_> = lacking
            .iter()
            .take(NAMED_MAX)
            .map(|id| BlockId(*id).to_string())
            .collect();
        Err(Problem::retry(format!(
            "{} can't be published yet: {} of its blocks have no live replica ({}{}); wait for their servers or upload again",
            held.path,
            lacking.len(),
            named.join(", "),
            if lacking.len() > NAMED_MAX { " …" } else { "" },
        )))
    }
}

/// Whether a volume of this duty gets new blocks. Maintenance that nobody has ended goes on: the volume may be touched at
/// any moment.
fn takes_blocks(duty: Duty) -> bool {
    duty == Duty::Serving
}

fn denied(block: BlockId, why: &str) -> Problem {
    Problem::new(ProblemKind::Denied, format!("block {block} is refused: {why}"))
}
