//! Commands of an upload: begin, blocks, commit, and letting go of what was not published.

use std::collections::BTreeSet;

use blockyard_engine::limits::BLOCK_BYTES_MAX;
use blockyard_wire::types::BlockId;
use blockyard_wire::{Problem, ProblemKind, Result};

use super::blocks::{Block, Blocks, REPLICATION_MAX};
use super::leases::Lease;
use super::namespace::{Found, taken};
use super::{BlockList, NewRow, Outcome, State, Version};
use crate::path;

/// Bytes of the longest content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

impl State {
    /// The upload that `lease` names.
    ///
    /// # Errors
    /// `Denied` when it has expired, was given up, or has published its file.
    pub fn held(&self, lease: u64) -> Result<&Lease> {
        self.leases.get(&lease).ok_or_else(|| {
            Problem::new(
                ProblemKind::Denied,
                format!("upload {lease} is not open: it was silent for too long, given up, or is published; start again"),
            )
        })
    }

    /// Whether a file can appear at `path`.
    ///
    /// # Errors
    /// `Exists` when something is there that may not be replaced; `Invalid` for a path that can't be.
    pub fn can_publish(&self, path: &str, overwrite: bool) -> Result<()> {
        let parts = path::parts(path)?;
        match self.names.walk(&parts)? {
            (Found::File(..), 0) if overwrite => Ok(()),
            (found, 0) => Err(taken(&path::joined(&parts), found)),
            _ => Ok(()),
        }
    }

    pub(super) fn begin(
        &mut self,
        path: &str,
        overwrite: bool,
        replication: u8,
        content_type: &str,
        at_unix_ms: u64,
    ) -> Result<Outcome> {
        let lease = self.last_id + 1;
        let version = lease + 1;
        let row = self.opened(version, path, overwrite, (replication, content_type), at_unix_ms)?;
        self.last_id = version;
        self.leases.insert(lease, row);
        Ok(Outcome::Begun {
            lease,
            version,
            replication,
        })
    }

    /// An upload that may publish its file under this version, as far as can be said before its blocks.
    fn opened(
        &self,
        version: u64,
        path: &str,
        overwrite: bool,
        (replication, content_type): (u8, &str),
        at_unix_ms: u64,
    ) -> Result<Lease> {
        self.can_publish(path, overwrite)?;
        path::attribute("content type", content_type, CONTENT_TYPE_BYTES_MAX)?;
        if replication == 0 || replication > REPLICATION_MAX {
            return Err(Problem::invalid(format!(
                "replication {replication} is not between 1 and {REPLICATION_MAX}"
            )));
        }
        let mut row = Lease::new(
            path::normal(path)?,
            version,
            replication,
            self.epoch.number,
            at_unix_ms,
        );
        row.overwrite = overwrite;
        content_type.clone_into(&mut row.content_type);
        Ok(row)
    }

    /// Whether these blocks can come under an upload; those that have not yet.
    ///
    /// # Errors
    /// `Denied` for a block that is another's; `Invalid` for what can't be.
    pub fn can_add<'a>(&self, held: &Lease, blocks: &'a [NewRow]) -> Result<Vec<&'a NewRow>> {
        let mut fresh = Vec::new();
        let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for row in blocks {
            let NewRow {
                block,
                index,
                length,
                crc32c,
                volumes,
            } = row;
            if *length == 0 || *length as usize > BLOCK_BYTES_MAX {
                return Err(Problem::invalid(format!(
                    "block {block} of {length} bytes: 1 to {BLOCK_BYTES_MAX} are allowed"
                )));
            }
            if volumes.is_empty() {
                return Err(Problem::invalid(format!("block {block} comes without a replica")));
            }
            volumes.iter().try_for_each(|volume| self.volume(*volume))?;
            if !places.insert(*index) || !ids.insert(*block) {
                return Err(Problem::invalid(format!(
                    "block {block} or place {index} stands twice in one call"
                )));
            }
            match self.blocks.get(*block) {
                Some(known) => {
                    let same = (known.version, known.index, known.length, known.crc32c)
                        == (held.version, *index, *length, *crc32c);
                    if !same || held.takes(*index, *block)? {
                        return Err(Problem::new(
                            ProblemKind::Denied,
                            format!("block {block} is another one already"),
                        ));
                    }
                }
                None => {
                    if !held.takes(*index, *block)? {
                        return Err(Problem::invalid(format!("block {block} has gone")));
                    }
                    let owed = |volume: &u16| {
                        self.blocks
                            .volume(*volume)
                            .is_some_and(|volume| volume.pending.contains(&block.0))
                    };
                    if volumes.iter().any(owed) {
                        return Err(Problem::new(
                            ProblemKind::Denied,
                            format!("block {block} is to be deleted; ids are never used again"),
                        ));
                    }
                    fresh.push(row);
                }
            }
        }
        Ok(fresh)
    }

    pub(super) fn add_blocks(&mut self, lease: u64, blocks: &[NewRow]) -> Result<Outcome> {
        let fresh = self.can_add(self.held(lease)?, blocks)?;
        let Some(held) = self.leases.get_mut(&lease) else {
            return Ok(Outcome::Done);
        };
        lay(&mut self.blocks, held, fresh);
        Ok(Outcome::Done)
    }

    pub(super) fn commit(
        &mut self,
        lease: u64,
        (blocks, length_bytes, crc32c): (u32, u64, u32),
        at_unix_ms: u64,
    ) -> Result<Outcome> {
        let held = self.held(lease)?;
        held.matches(blocks, length_bytes, crc32c)?;
        self.can_publish(&held.path, held.overwrite)?;
        match self.leases.remove(&lease) {
            Some(held) => self.appear(held, at_unix_ms),
            None => Ok(Outcome::Done),
        }
    }

    /// Begins, takes the blocks in, and commits, all in one: nothing of it is seen unless all of it can be.
    pub(super) fn publish(
        &mut self,
        path: &str,
        overwrite: bool,
        attributes: (u8, &str),
        rows: &[NewRow],
        (length_bytes, crc32c): (u64, u32),
        at_unix_ms: u64,
    ) -> Result<Outcome> {
        let version = self.last_id + 1;
        let mut held = self.opened(version, path, overwrite, attributes, at_unix_ms)?;
        let fresh = self.can_add(&held, rows)?;
        held.will_match(rows, length_bytes, crc32c)?;
        lay(&mut self.blocks, &mut held, fresh);
        self.last_id = version;
        self.appear(held, at_unix_ms)
    }

    /// The file of an upload appears, or its new version does.
    fn appear(&mut self, held: Lease, at_unix_ms: u64) -> Result<Outcome> {
        let (blocks, length_bytes, crc32c) = held.laid();
        let parts = path::parts(&held.path)?;
        let file = match self.names.walk(&parts)? {
            (Found::File(file, old), 0) => {
                self.names.switch(file, held.version);
                self.condemn(old, at_unix_ms);
                file
            }
            _ => {
                let (name, parents) = parts
                    .split_last()
                    .ok_or_else(|| Problem::invalid("the root is no file"))?;
                let parent = self.names.make_directories(parents, at_unix_ms)?;
                self.names.add_file(parent, name, held.version, at_unix_ms)
            }
        };
        let good = |id: &&u64| {
            self.blocks
                .get(BlockId(**id))
                .is_some_and(|block| block.good() >= usize::from(block.wanted))
        };
        let degraded = blocks - held.blocks.values().filter(good).count() as u32;
        let row = Version {
            file,
            size_bytes: length_bytes,
            published_unix_ms: at_unix_ms,
            content_type: self.shared(&held.content_type),
            blocks: held.blocks.into_values().collect(),
            crc32c,
            replication: held.replication,
        };
        self.versions.insert(held.version, row);
        self.file_bytes += length_bytes;
        Ok(Outcome::Committed {
            file: Box::new(self.info(file)),
            degraded,
        })
    }

    /// Ends an upload; what it has laid down is to be deleted.
    pub(super) fn let_go(&mut self, lease: u64) {
        let Some(held) = self.leases.remove(&lease) else {
            return;
        };
        held.blocks
            .into_values()
            .for_each(|block| self.blocks.release(BlockId(block)));
    }

    /// The blocks of a version from number `from` on, at most `max`, with their rows.
    ///
    /// # Errors
    /// `Gone` when the version is no longer kept.
    pub fn run_of(&self, version: u64, from: u32, max: usize) -> Result<Vec<(u32, BlockId, Block)>> {
        let row = self.versions.get(version).ok_or_else(|| gone(version))?;
        let ids = row.blocks.ids();
        let run = ids.iter().enumerate().skip(from as usize).take(max);
        run.map(|(index, &id)| {
            let block = self.blocks.get(BlockId(id)).ok_or_else(|| gone(version))?;
            Ok((index as u32, BlockId(id), *block))
        })
        .collect()
    }
}

/// Puts fresh blocks on the map and under their upload.
fn lay(map: &mut Blocks, held: &mut Lease, fresh: Vec<&NewRow>) {
    for NewRow {
        block,
        index,
        length,
        crc32c,
        volumes,
    } in fresh
    {
        let row = Block::new(held.version, *index, *length, *crc32c, held.replication);
        map.insert(*block, row, volumes);
        held.add(*index, *block, map);
    }
}

fn gone(version: u64) -> Problem {
    Problem::new(
        ProblemKind::Gone,
        format!("version {version} has been replaced or deleted; look the file up again"),
    )
}

/// An empty list: what an empty file has.
impl Default for BlockList {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}
