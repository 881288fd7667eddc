//! mmap: blocks copied into a mapping and one msync a batch; reads asked for `depth` blocks ahead, then touched.
//!
//! The page cache is its buffer, so it alone copies what it writes, and what it reads costs page faults.

use std::fs::{File, OpenOptions};
use std::time::Instant;

use anyhow::{Context as _, Result};
use memmap2::{Advice, MmapMut};

use super::raw::{Aligned, map};
use super::{Backend, Work, forget_cached};
use crate::content::Content;
use crate::latency::Latencies;

pub(super) struct Mmap {
    content: Content,
    /// The block as it came in, as the other ways have it.
    source: Aligned,
    file: File,
    block_bytes: usize,
    depth: usize,
}

impl Mmap {
    pub(super) fn open(work: &Work) -> Result<Self> {
        let content = Content::new(work.block_bytes);
        let source = super::filled(&content, 1)?.remove(0);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&work.path)
            .with_context(|| format!("cannot open {}", work.path.display()))?;
        Ok(Self {
            content,
            source,
            file,
            block_bytes: work.block_bytes,
            depth: work.depth,
        })
    }

    fn start_of(&self, block: u64) -> usize {
        block as usize * self.block_bytes
    }

    fn ask(&self, map: &MmapMut, block: u64) -> Result<()> {
        Ok(map.advise_range(Advice::WillNeed, self.start_of(block), self.block_bytes)?)
    }
}

impl Backend for Mmap {
    fn write(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        let mut map = map(&self.file)?;
        for batch in blocks.chunks(self.depth) {
            let mut started = Vec::with_capacity(batch.len());
            for &block in batch {
                started.push(Instant::now());
                self.content.check(&self.source)?;
                let start = self.start_of(block);
                map[start..start + self.block_bytes].copy_from_slice(&self.source);
            }
            map.flush()?;
            started.iter().for_each(|at| latencies.record(at.elapsed()));
        }
        Ok(())
    }

    fn read(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        // What was written is still cached, and would be read from memory.
        forget_cached(&self.file)?;
        let map = map(&self.file)?;
        let mut started = Vec::with_capacity(blocks.len());
        for (at, &block) in blocks.iter().enumerate() {
            while started.len() < blocks.len().min(at + self.depth) {
                let ahead = blocks[started.len()];
                started.push(Instant::now());
                self.ask(&map, ahead)?;
            }
            let start = self.start_of(block);
            self.content.check(&map[start..start + self.block_bytes])?;
            latencies.record(started[at].elapsed());
        }
        Ok(())
    }
}
