//! tokio-uring: its files with `write_all_at`, `read_exact_at` and `sync_data`, on one thread.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_uring::fs::File;

use super::raw::Aligned;
use super::{Backend, Work, open_direct};
use crate::content::Content;
use crate::latency::Latencies;

pub(super) struct TokioUring {
    content: Content,
    path: PathBuf,
    /// Those that no operation has.
    buffers: RefCell<Vec<Aligned>>,
    block_bytes: u64,
    depth: usize,
}

impl TokioUring {
    pub(super) fn open(work: &Work) -> Result<Self> {
        let content = Content::new(work.block_bytes);
        let buffers = super::filled(&content, work.depth)?;
        Ok(Self {
            content,
            path: work.path.clone(),
            buffers: RefCell::new(buffers),
            block_bytes: work.block_bytes as u64,
            depth: work.depth,
        })
    }

    fn buffer(&self) -> Aligned {
        let free = self.buffers.borrow_mut().pop();
        free.expect("as many buffers as operations in flight")
    }
}

impl Backend for TokioUring {
    fn write(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        let this = &*self;
        tokio_uring::start(async {
            let file = &File::from_std(open_direct(&this.path)?);
            for batch in blocks.chunks(this.depth) {
                let writes = batch.iter().map(|block| async move {
                    let (started, buffer) = (Instant::now(), this.buffer());
                    this.content.check(&buffer)?;
                    let (result, buffer) = file.write_all_at(buffer, block * this.block_bytes).await;
                    this.buffers.borrow_mut().push(buffer);
                    result?;
                    anyhow::Ok(started)
                });
                let started = try_join_all(writes).await?;
                file.sync_data().await?;
                started.iter().for_each(|at| latencies.record(at.elapsed()));
            }
            Ok(())
        })
    }

    fn read(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        let this = &*self;
        tokio_uring::start(async {
            let file = &File::from_std(open_direct(&this.path)?);
            let reads = stream::iter(blocks).map(|block| async move {
                let (started, buffer) = (Instant::now(), this.buffer());
                let (result, buffer) = file.read_exact_at(buffer, block * this.block_bytes).await;
                let checked = result
                    .map_err(Into::into)
                    .and_then(|()| this.content.check(&buffer));
                this.buffers.borrow_mut().push(buffer);
                checked.map(|()| started.elapsed())
            });
            reads
                .buffer_unordered(this.depth)
                .try_for_each(|latency| {
                    latencies.record(latency);
                    std::future::ready(Ok(()))
                })
                .await
        })
    }
}
