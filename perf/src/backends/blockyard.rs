//! Blockyard's engine: blocks with a header, a journal and an index, on one thread. It decides where blocks go.

use anyhow::Result;
use blockyard_engine::Volume;

use super::{Backend, Work};
use crate::content::Content;
use crate::latency::Latencies;
use crate::volume;

pub(super) struct Blockyard {
    volume: Volume,
    content: Content,
    reign: u32,
    depth: usize,
}

/// Makes a volume and, so that later work finds recycled slots, fills it with `blocks` and deletes them again.
pub(crate) fn prepare(work: &Work) -> Result<()> {
    volume::format(&work.path)?;
    let opened = Blockyard::open(work)?;
    let ids = volume::ids(0, 0, work.blocks)?;
    let mut latencies = Latencies::default();
    volume::put_all(&opened.volume, &opened.content, &ids, 16, &mut latencies)?;
    volume::delete_all(&opened.volume, &ids)
}

impl Blockyard {
    pub(super) fn open(work: &Work) -> Result<Self> {
        // Segments of both sizes, and room to cut them.
        let capacity_bytes = work.blocks * work.block_bytes as u64 * 5 / 4 + (256 << 20);
        Ok(Self {
            volume: volume::open(volume::options(&work.path, capacity_bytes))?.0,
            content: Content::new(work.block_bytes),
            reign: work.number,
            depth: work.depth,
        })
    }
}

impl Backend for Blockyard {
    fn write(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        let ids = volume::ids(self.reign, 0, blocks.len() as u64)?;
        volume::put_all(&self.volume, &self.content, &ids, self.depth, latencies)
    }

    fn read(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        // What was put in this run, in the order that was asked for, as often as was asked for.
        let ids = volume::ids(self.reign, 0, self.volume.stat().replicas)?;
        let place = |&block: &u64| (ids[block as usize % ids.len()], 0);
        let places: Vec<_> = blocks.iter().map(place).collect();
        let length = self.content.data.len();
        volume::get_all(
            &self.volume,
            &self.content,
            &places,
            length,
            self.depth,
            latencies,
        )
    }
}

impl Drop for Blockyard {
    /// Leaves the volume empty for the next work; what can't be deleted shows there as a volume too full.
    fn drop(&mut self) {
        let ids: Vec<_> = self
            .volume
            .list(None, usize::MAX)
            .iter()
            .map(|found| found.block)
            .collect();
        let emptied = volume::delete_all(&self.volume, &ids).and_then(|()| volume::close(&self.volume));
        if let Err(error) = emptied {
            eprintln!("# note: {error:#}");
        }
    }
}
