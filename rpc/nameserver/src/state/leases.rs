//! Uploads in progress: what each has laid down so far, and whether that makes the file it wants to publish.

use std::collections::BTreeMap;

use blockyard_engine::checksum;
use blockyard_wire::types::BlockId;
use blockyard_wire::{Problem, ProblemKind, Result};
use serde::{Deserialize, Serialize};

use super::NewRow;
use super::blocks::{Block, Blocks};

/// Blocks of the longest file: 64 TiB of full ones.
pub const FILE_BLOCKS_MAX: u32 = 1 << 24;

/// An upload in progress.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// Where the file will appear, as it is kept.
    pub path: String,
    /// Whether a file that is there is replaced.
    pub overwrite: bool,
    /// The version it will publish.
    pub version: u64,
    /// Replicas wanted of each block.
    pub replication: u8,
    /// MIME type, or empty.
    pub content_type: String,
    /// The reign in which it was opened: blocks of that reign or later can be its own.
    pub reign: u64,
    /// When, milliseconds since 1970.
    pub begun_unix_ms: u64,
    /// Blocks by their place in the file.
    pub blocks: BTreeMap<u32, u64>,
    /// The run of blocks from the first on that has no gap, summed up, so that a commit need not.
    run: Run,
}

/// Blocks without a gap from the first on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Run {
    blocks: u32,
    length_bytes: u64,
    crc32c: u32,
}

impl Run {
    fn push(&mut self, length_bytes: u32, crc32c: u32) {
        self.blocks += 1;
        self.length_bytes += u64::from(length_bytes);
        self.crc32c = checksum::combine(self.crc32c, crc32c, u64::from(length_bytes));
    }
}

impl Lease {
    /// An upload that has laid nothing down.
    pub fn new(path: String, version: u64, replication: u8, reign: u64, begun_unix_ms: u64) -> Self {
        Self {
            path,
            overwrite: false,
            version,
            replication,
            content_type: String::new(),
            reign,
            begun_unix_ms,
            blocks: BTreeMap::new(),
            run: Run::default(),
        }
    }

    /// Whether `block` may become the one at `index`; `false` when it is that already.
    ///
    /// # Errors
    /// `Invalid` for a place that is taken or too far.
    pub fn takes(&self, index: u32, block: BlockId) -> Result<bool> {
        if index >= FILE_BLOCKS_MAX {
            return Err(Problem::invalid(format!(
                "a file has at most {FILE_BLOCKS_MAX} blocks"
            )));
        }
        match self.blocks.get(&index) {
            Some(&there) if there == block.0 => Ok(false),
            Some(&there) => Err(Problem::invalid(format!(
                "block {block} can't be number {index} of {}: block {} is",
                self.path,
                BlockId(there)
            ))),
            None => Ok(true),
        }
    }

    /// Takes a block in that [`Lease::takes`] has let through, and goes on with the run as far as it leads.
    pub fn add(&mut self, index: u32, block: BlockId, rows: &Blocks) {
        self.blocks.insert(index, block.0);
        while let Some(row) = self
            .blocks
            .get(&self.run.blocks)
            .and_then(|&id| rows.get(BlockId(id)))
        {
            let Block { length, crc32c, .. } = *row;
            self.run.push(length, crc32c);
        }
    }

    /// Blocks, bytes and CRC32C of the file that [`Lease::matches`] has let through.
    pub fn laid(&self) -> (u32, u64, u32) {
        (self.run.blocks, self.run.length_bytes, self.run.crc32c)
    }

    /// Whether these blocks, in the order of their places, will make the file that the client has sent.
    ///
    /// # Errors
    /// As [`Lease::matches`].
    pub fn will_match(&self, rows: &[NewRow], length_bytes: u64, crc32c: u32) -> Result<()> {
        let mut laid = self.clone();
        for (row, place) in rows.iter().zip(0..) {
            if row.index == place {
                laid.run.push(row.length, row.crc32c);
            }
            laid.blocks.insert(row.index, row.block.0);
        }
        laid.matches(rows.len() as u32, length_bytes, crc32c)
    }

    /// Whether what was laid down is the file that the client has sent.
    ///
    /// # Errors
    /// `Invalid` for missing blocks or another length; `Corrupt` when the CRC differs.
    pub fn matches(&self, blocks: u32, length_bytes: u64, crc32c: u32) -> Result<()> {
        let Self { path, run, .. } = self;
        if run.blocks != blocks || self.blocks.len() != blocks as usize {
            return Err(Problem::invalid(format!(
                "{path} can't be published: {blocks} blocks were announced, {} have come, {} of them without a gap",
                self.blocks.len(),
                run.blocks
            )));
        }
        if run.length_bytes != length_bytes {
            return Err(Problem::invalid(format!(
                "{path} can't be published: {length_bytes} bytes were announced, its blocks have {}",
                run.length_bytes
            )));
        }
        if run.crc32c != crc32c {
            return Err(Problem::new(
                ProblemKind::Corrupt,
                format!(
                    "{path} can't be published: its CRC32C is {crc32c:08x}, that of its blocks {:08x}",
                    run.crc32c
                ),
            ));
        }
        Ok(())
    }
}
