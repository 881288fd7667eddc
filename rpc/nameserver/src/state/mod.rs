//! The pure state machine: names, versions, blocks, uploads. No clock, no I/O, no randomness.
//!
//! The same commands give the same bytes, whoever applies them. `apply` runs only on commands that are
//! durable; one that is refused has changed nothing.

mod block_row;
pub mod blocks;
mod check;
pub mod command;
mod files;
pub mod leases;
pub mod namespace;
mod requests;
pub mod rows;
pub mod table;
pub mod trash;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use blockyard_wire::types::{BlockId, Epoch, Tuning};
use blockyard_wire::{Problem, ProblemKind, Result};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub use command::{Command, NewRow, Outcome};

use blocks::Blocks;
use leases::Lease;
use namespace::Namespace;
use requests::Requests;
use table::Table;
use trash::Trash;

/// Reigns that block ids have bits for.
pub const REIGNS_MAX: u64 = 1 << 24;

/// An immutable state of a file.
#[derive(Clone, Debug)]
pub struct Version {
    /// The file whose current version it is; 0 once it is condemned.
    pub file: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// When it was published, milliseconds since 1970.
    pub published_unix_ms: u64,
    /// MIME type.
    pub content_type: Option<Arc<str>>,
    /// Its blocks in order.
    pub blocks: BlockList,
    /// CRC32C of the whole.
    pub crc32c: u32,
    /// Replicas wanted of each block.
    pub replication: u8,
}

const _: () = assert!(size_of::<Version>() <= 64);

/// The blocks of a version: most have one, which needs no allocation.
#[derive(Clone, Debug)]
pub enum BlockList {
    /// One block.
    One([u64; 1]),
    /// None, or several.
    Many(Box<[u64]>),
}

impl BlockList {
    /// The ids.
    pub fn ids(&self) -> &[u64] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// As a list of numbers, of which there is one for each of millions of versions: nothing is allocated for one.
impl<'de> Deserialize<'de> for BlockList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = BlockList;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("block ids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> std::result::Result<BlockList, A::Error> {
                let Some(first) = ids.next_element()? else {
                    return Ok(BlockList::Many(Box::default()));
                };
                let Some(second) = ids.next_element()? else {
                    return Ok(BlockList::One([first]));
                };
                let mut all = vec![first, second];
                while let Some(id) = ids.next_element()? {
                    all.push(id);
                }
                Ok(BlockList::Many(all.into()))
            }
        }
        deserializer.deserialize_seq(Ids)
    }
}

impl FromIterator<u64> for BlockList {
    fn from_iter<I: IntoIterator<Item = u64>>(ids: I) -> Self {
        let ids: Box<[u64]> = ids.into_iter().collect();
        match *ids {
            [one] => Self::One([one]),
            _ => Self::Many(ids),
        }
    }
}

/// Everything the nameserver knows durably.
#[derive(Clone, Debug, Default)]
pub struct State {
    applied: u64,
    epoch: Epoch,
    names: Namespace,
    versions: Table<Version>,
    /// Versions that no file points at any more, and since when, milliseconds since 1970.
    condemned: BTreeMap<u64, u64>,
    blocks: Blocks,
    leases: BTreeMap<u64, Lease>,
    requests: Requests,
    content_types: BTreeSet<Arc<str>>,
    tuning: Tuning,
    trash: Trash,
    /// The last id given to a version or lease.
    last_id: u64,
    file_bytes: u64,
    /// First and last reigns of which unknown blocks are kept.
    quarantine: Vec<(u64, u64)>,
}

impl State {
    /// Commands applied since the cluster began: the journal index of the last one.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The reign.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The tree of names.
    pub fn names(&self) -> &Namespace {
        &self.names
    }

    /// Blocks and volumes.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// A version, current or condemned.
    pub fn version(&self, id: u64) -> Option<&Version> {
        self.versions.get(id)
    }

    /// Versions that wait to be reaped, and since when, milliseconds since 1970.
    pub fn condemned(&self) -> &BTreeMap<u64, u64> {
        &self.condemned
    }

    /// Uploads in progress.
    pub fn leases(&self) -> &BTreeMap<u64, Lease> {
        &self.leases
    }

    /// The last id given to a version or lease.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Reigns of which unknown blocks are kept, first and last of each run.
    pub fn quarantine(&self) -> &[(u64, u64)] {
        &self.quarantine
    }

    /// Whether `block`, unknown here, is kept until an operator lets it go.
    pub fn is_quarantined(&self, block: BlockId) -> bool {
        let reign = u64::from(block.reign());
        self.quarantine
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&reign))
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// How repair and balance are to work.
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// Blocks whose replicas have changed since the last call.
    pub fn take_changed(&mut self) -> Vec<u64> {
        self.blocks.take_changed()
    }

    /// Whether the outcome of this command's request is known already.
    pub fn repeated(&self, command: &Command) -> Option<Outcome> {
        self.requests.get(command.request()?).cloned()
    }

    /// Changes the state as `command` says; of a repeated request the outcome it had.
    ///
    /// # Errors
    /// Why it can't be; then nothing has changed but the count of commands.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome> {
        self.applied += 1;
        if let Some(outcome) = self.repeated(command) {
            return Ok(outcome);
        }
        let outcome = self.change(command)?;
        if let Some(request) = command.request() {
            self.requests.insert(request, outcome.clone());
        }
        Ok(outcome)
    }

    fn change(&mut self, command: &Command) -> Result<Outcome> {
        match command {
            Command::Reign { epoch, .. } => self.reign(*epoch),
            Command::Join { volumes } => {
                for row in volumes {
                    self.blocks.join(row)?;
                }
                Ok(Outcome::Done)
            }
            Command::Mkdir {
                path,
                parents,
                at_unix_ms,
                ..
            } => self.mkdir(path, *parents, *at_unix_ms),
            Command::Rename {
                from,
                to,
                overwrite,
                at_unix_ms,
                ..
            } => self.rename(from, to, *overwrite, *at_unix_ms),
            Command::Remove {
                path,
                recursive,
                at_unix_ms,
                ..
            } => self.remove(path, *recursive, *at_unix_ms),
            Command::Discard {
                path,
                recursive,
                at_unix_ms,
                ..
            } => self.discard(path, *recursive, *at_unix_ms),
            Command::Restore {
                entry,
                to,
                at_unix_ms,
                ..
            } => self.restore(*entry, to, *at_unix_ms),
            Command::Empty {
                entries, at_unix_ms, ..
            } => Ok(self.empty(entries, *at_unix_ms)),
            Command::Begin {
                path,
                overwrite,
                replication,
                content_type,
                at_unix_ms,
                ..
            } => self.begin(path, *overwrite, *replication, content_type, *at_unix_ms),
            Command::AddBlocks { lease, blocks, .. } => self.add_blocks(*lease, blocks),
            Command::Commit {
                lease,
                blocks,
                length_bytes,
                crc32c,
                at_unix_ms,
                ..
            } => self.commit(*lease, (*blocks, *length_bytes, *crc32c), *at_unix_ms),
            Command::Publish {
                path,
                overwrite,
                replication,
                content_type,
                blocks,
                length_bytes,
                crc32c,
                at_unix_ms,
                ..
            } => self.publish(
                path,
                *overwrite,
                (*replication, content_type),
                blocks,
                (*length_bytes, *crc32c),
                *at_unix_ms,
            ),
            Command::Abandon { lease, .. } => {
                self.held(*lease)?;
                self.let_go(*lease);
                Ok(Outcome::Done)
            }
            Command::Expire { leases, .. } => {
                leases.iter().for_each(|lease| self.let_go(*lease));
                Ok(Outcome::Done)
            }
            Command::Reap { versions } => {
                versions.iter().for_each(|version| self.reap(*version));
                Ok(Outcome::Done)
            }
            Command::Deleted { volume, blocks } => {
                self.blocks.deleted(*volume, blocks);
                Ok(Outcome::Done)
            }
            Command::Copied { block, volume } => {
                self.volume(*volume)?;
                match self.blocks.add_replica(*block, *volume) {
                    true => Ok(Outcome::Done),
                    false => Ok(Outcome::Unwanted),
                }
            }
            Command::Lost { volume, blocks } => {
                for block in blocks {
                    self.blocks.drop_replica(*block, *volume, false);
                }
                Ok(Outcome::Done)
            }
            Command::Judged { volume, replicas } => {
                for (block, state) in replicas {
                    self.blocks.set_state(*block, *volume, *state);
                }
                Ok(Outcome::Done)
            }
            Command::Adopted {
                first_reign,
                last_reign,
                ..
            } => {
                /// Ids of versions and leases that the reigns in between may have given: none is given again.
                const SKIPPED_IDS: u64 = 1 << 40;
                self.quarantine.push((*first_reign, *last_reign));
                self.last_id = self.last_id.saturating_add(SKIPPED_IDS);
                Ok(Outcome::Done)
            }
            Command::Released { .. } => {
                let reigns = self.quarantine.iter().map(|(first, last)| last + 1 - first).sum();
                self.quarantine.clear();
                Ok(Outcome::Released { reigns })
            }
            Command::Drop { block, volume } => match self.blocks.drop_replica(*block, *volume, true) {
                true => Ok(Outcome::Done),
                false => Err(Problem::not_found(format!(
                    "block {block} has no replica on that volume"
                ))),
            },
            Command::Assign { volumes, duty, .. } => {
                volumes.iter().try_for_each(|volume| self.volume(*volume))?;
                volumes
                    .iter()
                    .for_each(|volume| self.blocks.assign(*volume, *duty));
                Ok(Outcome::Done)
            }
            Command::SetReplication {
                path,
                recursive,
                replication,
                ..
            } => self.set_replication(path, *recursive, *replication),
            Command::Tune { tuning, .. } => {
                self.tuning = *tuning;
                Ok(Outcome::Done)
            }
            Command::Opened { volume, generation } => {
                self.volume(*volume)?;
                self.blocks.opened(*volume, *generation);
                Ok(Outcome::Done)
            }
            Command::MadeGood { volumes, made_good } => {
                for volume in volumes {
                    self.volume(*volume)?;
                }
                for volume in volumes {
                    self.blocks.make_good(*volume, *made_good);
                }
                Ok(Outcome::Done)
            }
        }
    }

    fn reign(&mut self, epoch: Epoch) -> Result<Outcome> {
        if epoch.number <= self.epoch.number {
            return Err(Problem::new(
                ProblemKind::Stale,
                format!("epoch {} has begun already", self.epoch.number),
            ));
        }
        if epoch.number >= REIGNS_MAX {
            return Err(Problem::new(
                ProblemKind::Failed,
                format!("{REIGNS_MAX} starts are what block ids have room for; this cluster has had them"),
            ));
        }
        self.epoch = epoch;
        Ok(Outcome::Done)
    }

    fn volume(&self, index: blocks::VolumeIndex) -> Result<()> {
        match self.blocks.volume(index) {
            Some(_) => Ok(()),
            None => Err(Problem::invalid(format!("there is no volume number {index}"))),
        }
    }

    /// Takes a version off: it waits until nobody can be reading it.
    fn condemn(&mut self, version: u64, at_unix_ms: u64) -> u64 {
        let Some(row) = self.versions.get_mut(version) else {
            return 0;
        };
        row.file = 0;
        self.file_bytes -= row.size_bytes;
        self.condemned.insert(version, at_unix_ms);
        row.size_bytes
    }

    fn reap(&mut self, version: u64) {
        if self.condemned.remove(&version).is_none() {
            return;
        }
        if let Some(row) = self.versions.remove(version) {
            row.blocks
                .ids()
                .iter()
                .for_each(|block| self.blocks.release(BlockId(*block)));
        }
    }

    /// The one copy of a content type that all versions share.
    fn shared(&mut self, content_type: &str) -> Option<Arc<str>> {
        /// Different types beyond which each version keeps its own copy.
        const SHARED_MAX: usize = 4096;
        if content_type.is_empty() {
            return None;
        }
        if let Some(known) = self.content_types.get(content_type) {
            return Some(known.clone());
        }
        let fresh: Arc<str> = content_type.into();
        if self.content_types.len() < SHARED_MAX {
            self.content_types.insert(fresh.clone());
        }
        Some(fresh)
    }
}

#[cfg(test)]
mod tests;
