//! Raw io-uring: one thread, a registered file, registered buffers, nothing between it and the ring.

use std::time::Instant;

use anyhow::Result;

use super::raw::{Done, Ring};
use super::{Backend, Work, open_direct};
use crate::content::Content;
use crate::latency::Latencies;

pub(super) struct Uring {
    content: Content,
    ring: Ring,
    block_bytes: u64,
    depth: usize,
}

impl Uring {
    pub(super) fn open(work: &Work) -> Result<Self> {
        let content = Content::new(work.block_bytes);
        let mut ring = Ring::new(open_direct(&work.path)?, work.depth, work.block_bytes)?;
        for number in 0..work.depth {
            ring.buffer(number).copy_from_slice(&content.data);
        }
        Ok(Self {
            content,
            ring,
            block_bytes: work.block_bytes as u64,
            depth: work.depth,
        })
    }
}

impl Backend for Uring {
    fn write(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        for batch in blocks.chunks(self.depth) {
            let mut started = Vec::with_capacity(batch.len());
            for (number, block) in batch.iter().enumerate() {
                started.push(Instant::now());
                self.content.check(self.ring.buffer(number))?;
                self.ring.write(number, block * self.block_bytes)?;
            }
            let mut left = batch.len();
            while left > 0 {
                left -= self.ring.wait()?.len();
            }
            self.ring.sync()?;
            self.ring.wait()?;
            started.iter().for_each(|at| latencies.record(at.elapsed()));
        }
        Ok(())
    }

    fn read(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        let mut next = blocks.iter();
        let mut started = vec![Instant::now(); self.depth];
        let mut left = blocks.len();
        for (number, block) in next.by_ref().take(self.depth).enumerate() {
            started[number] = Instant::now();
            self.ring.read(number, block * self.block_bytes)?;
        }
        while left > 0 {
            for done in self.ring.wait()? {
                let Done::Buffer(number) = done else { continue };
                self.content.check(self.ring.buffer(number))?;
                latencies.record(started[number].elapsed());
                left -= 1;
                if let Some(block) = next.next() {
                    started[number] = Instant::now();
                    self.ring.read(number, block * self.block_bytes)?;
                }
            }
        }
        Ok(())
    }
}
