//! Blockyard itself, through its client library.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use blockyard_client::{Client, DownloadOptions, UploadOptions};
use futures_util::future::try_join_all;
use tokio::runtime::Runtime;

use super::{Facts, System, Took, Work, timed};
use crate::disk::Disk;
use crate::nodes::Nodes;
use crate::workload::{Pool, Sink, Source};

pub(crate) struct Blockyard {
    facts: Facts,
    nodes: Nodes,
    client: Client,
    runtime: Runtime,
}

impl Blockyard {
    pub(crate) fn new(facts: Facts, nodes: Nodes, client: Client, runtime: Runtime) -> Self {
        Self {
            facts,
            nodes,
            client,
            runtime,
        }
    }
}

fn folder_of(work: Work) -> String {
    format!("/peers-{}", work.id)
}

impl System for Blockyard {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn servers(&self) -> Vec<(String, u32)> {
        self.nodes.servers()
    }

    fn write(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        let folder = folder_of(work);
        self.runtime.block_on(self.client.mkdir(&folder, true))?;
        timed(&self.nodes.servers(), disk, || {
            let next = AtomicU64::new(0);
            let workers = (0..work.workers).map(|_| async {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= work.files {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let source = Source::new(pool.file(work.number(index), work.length_bytes), None);
                    let options = UploadOptions {
                        length_hint: Some(work.length_bytes),
                        ..UploadOptions::default()
                    };
                    let path = format!("{folder}/{index}");
                    let uploaded = self.client.upload(&path, source, options).await?;
                    ensure!(uploaded.degraded == 0, "{path} has too few replicas");
                }
            });
            self.runtime.block_on(try_join_all(workers)).map(drop)
        })
    }

    fn read(&mut self, _: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        let folder = folder_of(work);
        timed(&self.nodes.servers(), disk, || {
            let next = AtomicU64::new(0);
            let workers = (0..work.workers).map(|_| async {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= work.files {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let path = format!("{folder}/{index}");
                    // The client holds every unit against the CRC of what was uploaded.
                    let (sink, _) = Sink::discard()?;
                    let read = self
                        .client
                        .download(&path, sink, DownloadOptions::default())
                        .await?;
                    ensure!(
                        read.bytes == work.length_bytes && read.verified_whole,
                        "{path} is not what was uploaded"
                    );
                }
            });
            self.runtime.block_on(try_join_all(workers)).map(drop)
        })
    }

    fn remove(&mut self, work: Work) -> Result<()> {
        self.runtime
            .block_on(self.client.remove(&folder_of(work), true))?;
        Ok(())
    }
}
