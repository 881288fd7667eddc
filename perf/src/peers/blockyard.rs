//! Blockyard itself, through its client library.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{Result, ensure};
use blockyard_client::{Client, DownloadOptions, UploadOptions};
use blockyard_engine::limits::BLOCK_BYTES_MAX;
use tokio::runtime::Runtime;

use super::{Facts, System, Took, Work, timed};
use crate::disk::Disk;
use crate::nodes::Nodes;
use crate::workload::{Pool, Sink, Source};

/// What the client keeps under way by itself; files of less than a block leave it at that.
const BLOCKS_IN_FLIGHT: u64 = 4;

pub(crate) struct Blockyard {
    facts: Facts,
    nodes: Nodes,
    /// By the number of blocks that each keeps under way.
    clients: BTreeMap<u64, Client>,
    runtime: Runtime,
}

impl Blockyard {
    pub(crate) fn new(facts: Facts, nodes: Nodes, runtime: Runtime) -> Self {
        Self {
            facts,
            nodes,
            clients: BTreeMap::new(),
            runtime,
        }
    }

    /// The client for such work.
    fn client(&mut self, work: Work) -> Result<Client> {
        let blocks_in_flight = if work.length_bytes < BLOCK_BYTES_MAX as u64 {
            BLOCKS_IN_FLIGHT
        } else {
            work.blocks_in_flight
        };
        Ok(match self.clients.entry(blocks_in_flight) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(missing) => {
                let blocks_in_flight = usize::try_from(blocks_in_flight)?;
                let client = self
                    .runtime
                    .block_on(self.nodes.client_keeping(blocks_in_flight))?;
                missing.insert(client).clone()
            }
        })
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

    fn keeps_blocks_in_flight(&self) -> bool {
        true
    }

    fn write(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        let (folder, client) = (folder_of(work), self.client(work)?);
        self.runtime.block_on(client.mkdir(&folder, true))?;
        let pool = pool.clone();
        timed(&self.nodes.servers(), disk, || {
            // Workers run on the client's thread, as those of `files` do.
            self.runtime.block_on(client.run_local(move |local| async move {
                let each = work.each(async |index| {
                    let source = Source::new(pool.file(work.number(index), work.length_bytes), None);
                    let options = UploadOptions {
                        length_hint: Some(work.length_bytes),
                        ..UploadOptions::default()
                    };
                    let path = format!("{folder}/{index}");
                    let uploaded = local.upload(&path, source, options).await?;
                    ensure!(uploaded.degraded == 0, "{path} has too few replicas");
                    Ok(())
                });
                Ok(each.await)
            }))?
        })
    }

    fn read(&mut self, _: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        let (folder, client) = (folder_of(work), self.client(work)?);
        timed(&self.nodes.servers(), disk, || {
            self.runtime.block_on(client.run_local(move |local| async move {
                let each = work.each(async |index| {
                    let path = format!("{folder}/{index}");
                    // The client holds every unit against the CRC of what was uploaded.
                    let (sink, _) = Sink::discard()?;
                    let read = local.download(&path, sink, DownloadOptions::default()).await?;
                    ensure!(
                        read.bytes == work.length_bytes && read.verified_whole,
                        "{path} is not what was uploaded"
                    );
                    Ok(())
                });
                Ok(each.await)
            }))?
        })
    }

    fn remove(&mut self, work: Work) -> Result<()> {
        let client = self.client(work)?;
        self.runtime.block_on(client.remove(&folder_of(work), true))?;
        Ok(())
    }
}
