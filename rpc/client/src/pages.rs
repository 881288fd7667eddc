//! The blocks of a file in order, page by page, and what a range needs of each.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use blockyard_engine::limits::BLOCK_BYTES_MAX;
use blockyard_wire::types::{BlockInfo, FileInfo};
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::admin::BLOCKS_PAGE;
use crate::core::Core;
use crate::lookup::lookup;
use crate::read::Piece;

const BLOCK_BYTES: u64 = BLOCK_BYTES_MAX as u64;

/// Where a download is in its list of blocks.
pub struct Pages {
    core: Rc<Core>,
    /// The file being read.
    pub file: FileInfo,
    /// Bytes of it that are wanted.
    pub range: Range<u64>,
    page: VecDeque<BlockInfo>,
    next_index: u32,
    /// Where block `next_index` starts in the file.
    next_start: u64,
}

impl Pages {
    /// Looks `path` up and gets ready for `range` of it, cut at its end.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a directory or a range that starts behind the end.
    pub async fn open(core: Rc<Core>, path: &str, range: Option<Range<u64>>) -> Result<Self> {
        let (file, page) = lookup(&core, path, BLOCKS_PAGE).await?;
        if file.directory {
            return Err(Problem::invalid(format!("{path} is a directory")));
        }
        let size = file.size_bytes;
        let range = match range {
            None => 0..size,
            Some(range) if range.start > size => {
                return Err(Problem::invalid(format!(
                    "the range starts at byte {} of {path}, which has {size}",
                    range.start
                )));
            }
            Some(range) => range.start..range.end.clamp(range.start, size),
        };
        let mut pages = Self {
            core,
            file,
            range,
            page: page.into(),
            next_index: 0,
            next_start: 0,
        };
        pages.skip_ahead().await?;
        Ok(pages)
    }

    /// Jumps over pages in front of the range, where all blocks are provably full.
    async fn skip_ahead(&mut self) -> Result<()> {
        let index = (self.range.start / BLOCK_BYTES) as u32;
        let Some(last) = self.file.blocks.checked_sub(1) else {
            return Ok(());
        };
        if index < BLOCKS_PAGE || index > last {
            return Ok(());
        }
        let tail = self.core.session.blocks(self.file.version, last, 1).await?;
        let tail_bytes = tail.first().map_or(0, |block| u64::from(block.length));
        // The others can be no longer than this, so they are just as long.
        if self.file.size_bytes == u64::from(last) * BLOCK_BYTES + tail_bytes {
            self.page.clear();
            self.next_index = index;
            self.next_start = u64::from(index) * BLOCK_BYTES;
        }
        Ok(())
    }

    /// The next piece of the range.
    ///
    /// # Errors
    /// `Gone` when the version is no longer kept; `Failed` when blocks and file do not agree.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        while self.next_start < self.range.end {
            if self.page.is_empty() {
                let session = &self.core.session;
                self.page = session
                    .blocks(self.file.version, self.next_index, BLOCKS_PAGE)
                    .await?
                    .into();
            }
            let block = self.page.pop_front();
            let sound = block.filter(|block| {
                block.index == self.next_index && (1..=BLOCK_BYTES).contains(&u64::from(block.length))
            });
            let Some(block) = sound else {
                return Err(Problem::new(
                    ProblemKind::Failed,
                    format!(
                        "the nameserver's blocks of {} do not make up its {} bytes",
                        self.file.path, self.file.size_bytes
                    ),
                ));
            };
            let start = self.next_start;
            let end = start + u64::from(block.length);
            self.next_index += 1;
            self.next_start = end;
            if end > self.range.start {
                let from = start.max(self.range.start);
                return Ok(Some(Piece {
                    block,
                    from: (from - start) as u32,
                    length: (end.min(self.range.end) - from) as u32,
                    version: Some(self.file.version),
                }));
            }
        }
        Ok(None)
    }
}
