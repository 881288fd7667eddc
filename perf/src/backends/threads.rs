//! Threads: `depth` of them, each with one `pwrite` or `pread` at a time; whoever ends a batch last flushes it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Error, Result};

use super::raw::Aligned;
use super::{Backend, Work, open_direct};
use crate::content::Content;
use crate::latency::Latencies;

pub(super) struct Threads {
    content: Content,
    file: File,
    /// One for each thread.
    buffers: Vec<Aligned>,
    block_bytes: u64,
}

impl Threads {
    pub(super) fn open(work: &Work) -> Result<Self> {
        let content = Content::new(work.block_bytes);
        Ok(Self {
            buffers: super::filled(&content, work.depth)?,
            content,
            file: open_direct(&work.path)?,
            block_bytes: work.block_bytes as u64,
        })
    }
}

/// The first thing that went wrong on any thread.
#[derive(Default)]
struct Outcome(Mutex<Option<Error>>);

impl Outcome {
    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
        }
    }

    fn into_result(self) -> Result<()> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Backend for Threads {
    fn write(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        let (content, file, block_bytes) = (&self.content, &self.file, self.block_bytes);
        let depth = self.buffers.len();
        let (outcome, barrier) = (Outcome::default(), Barrier::new(depth));
        thread::scope(|scope| {
            let writer = |(number, buffer): (usize, &Aligned)| {
                let mut latencies = Latencies::default();
                // After a failure the others still wait at the barrier: everybody goes on to the end.
                for batch in blocks.chunks(depth) {
                    let started = Instant::now();
                    let mine = batch.get(number);
                    outcome.note(mine.map_or(Ok(()), |block| {
                        content.check(buffer)?;
                        Ok(file.write_all_at(buffer, block * block_bytes)?)
                    }));
                    if barrier.wait().is_leader() {
                        outcome.note(file.sync_data().map_err(Error::from));
                    }
                    barrier.wait();
                    mine.inspect(|_| latencies.record(started.elapsed()));
                }
                latencies
            };
            let running: Vec<_> = self
                .buffers
                .iter()
                .enumerate()
                .map(|mine| scope.spawn(move || writer(mine)))
                .collect();
            for thread in running {
                latencies.merge(&thread.join().expect("writers don't panic"));
            }
        });
        outcome.into_result()
    }

    fn read(&mut self, blocks: &[u64], latencies: &mut Latencies) -> Result<()> {
        let (content, file, block_bytes) = (&self.content, &self.file, self.block_bytes);
        let depth = self.buffers.len();
        let outcome = Outcome::default();
        thread::scope(|scope| {
            let reader = |(number, buffer): (usize, &mut Aligned)| {
                let mut latencies = Latencies::default();
                for block in blocks.iter().skip(number).step_by(depth) {
                    let started = Instant::now();
                    let read = file.read_exact_at(buffer, block * block_bytes);
                    outcome.note(read.map_err(Error::from).and_then(|()| content.check(buffer)));
                    latencies.record(started.elapsed());
                }
                latencies
            };
            let running: Vec<_> = self
                .buffers
                .iter_mut()
                .enumerate()
                .map(|mine| scope.spawn(move || reader(mine)))
                .collect();
            for thread in running {
                latencies.merge(&thread.join().expect("readers don't panic"));
            }
        });
        outcome.into_result()
    }
}
