//! Commands to a connected dataserver, down the connection that it opened.

use std::collections::BTreeSet;
use std::time::Duration;

use blockyard_schema::dataserver_capnp::dataserver;
use blockyard_wire::digest::{BUCKETS, Digest};
use blockyard_wire::types::{BlockId, Epoch, Hop, Replica, ReplicaProof, ReplicaState, VolumeId};
use blockyard_wire::{Problem, Result, convert};

use crate::state::blocks::{Block, VolumeIndex};

/// Longest wait for an answer. A connection that is lost ends the wait at once; this is for servers that hang.
const ANSWER: Duration = Duration::from_secs(120);
/// Replicas of one answer.
const REPLICAS_MAX: u32 = 8192;

/// A connected dataserver.
pub struct Control {
    /// The number of its connection.
    pub registration: u64,
    /// Its volumes.
    pub volumes: BTreeSet<VolumeIndex>,
    client: dataserver::Client,
    epoch: Epoch,
}

impl Control {
    /// The control interface of a server that has joined in this reign.
    pub fn new(
        registration: u64,
        volumes: BTreeSet<VolumeIndex>,
        client: dataserver::Client,
        epoch: Epoch,
    ) -> Self {
        Self {
            registration,
            volumes,
            client,
            epoch,
        }
    }

    /// The digest of what a volume holds.
    ///
    /// # Errors
    /// What the server answers; `Retry` when it is lost.
    pub async fn digest(&self, volume: VolumeId) -> Result<Digest> {
        let mut request = self.client.digest_request();
        convert::write_id(&volume.0, request.get().init_volume());
        let answer = soon(request.send().promise).await?;
        let buckets: Vec<u64> = answer.get()?.get_buckets()?.iter().collect();
        match buckets.len() == BUCKETS {
            true => Ok(Digest(buckets)),
            false => Err(Problem::invalid(format!("a digest of {} buckets", buckets.len()))),
        }
    }

    /// All replicas in a bucket, by id.
    ///
    /// # Errors
    /// What the server answers; `Retry` when it is lost.
    pub async fn replicas(&self, volume: VolumeId, bucket: u8) -> Result<Vec<Replica>> {
        let mut all: Vec<Replica> = Vec::new();
        loop {
            let mut request = self.client.replicas_request();
            let mut fields = request.get();
            convert::write_id(&volume.0, fields.reborrow().init_volume());
            fields.set_bucket(u16::from(bucket));
            fields.set_after(all.last().map_or(0, |replica| replica.block.0));
            fields.set_limit(REPLICAS_MAX);
            let answer = soon(request.send().promise).await?;
            let answer = answer.get()?;
            let page = convert::read_list(answer.get_replicas()?, convert::read_replica)?;
            let in_order = |pair: &[Replica]| pair[0].block < pair[1].block;
            let goes_on = all
                .last()
                .zip(page.first())
                .is_none_or(|(last, next)| last.block < next.block);
            if !goes_on || !page.windows(2).all(in_order) {
                return Err(Problem::invalid("a list of replicas that is not in order"));
            }
            let more = answer.get_more() && !page.is_empty();
            all.extend(page);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Deletes replicas; they are gone, durably, when this returns.
    ///
    /// # Errors
    /// What the server answers; `Retry` when it is lost.
    pub async fn delete(&self, volume: VolumeId, blocks: &[BlockId]) -> Result<()> {
        let mut request = self.client.delete_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        convert::write_epoch(&self.epoch, fields.reborrow().init_epoch());
        convert::write_block_ids(blocks, fields.init_blocks(blocks.len() as u32));
        soon(request.send().promise).await.map(|_| ())
    }

    /// Has a volume pull a block from `source`; its proof that it holds a durable replica.
    ///
    /// # Errors
    /// What the server answers; `Retry` when it is lost.
    pub async fn copy(
        &self,
        volume: VolumeId,
        id: BlockId,
        block: &Block,
        source: &Hop,
    ) -> Result<ReplicaProof> {
        let mut request = self.client.copy_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        fields.set_block(id.0);
        fields.set_version(block.version);
        fields.set_index(block.index);
        fields.set_length(block.length);
        fields.set_crc32c(block.crc32c);
        convert::write_hop(source, fields.reborrow().init_source());
        convert::write_epoch(&self.epoch, fields.init_epoch());
        let answer = soon(request.send().promise).await?;
        convert::read_proof(answer.get()?.get_proof()?)
    }

    /// Has a volume read a whole replica.
    ///
    /// # Errors
    /// `NotFound` when it has none; what else the server answers; `Retry` when it is lost.
    pub async fn verify(&self, volume: VolumeId, block: BlockId) -> Result<ReplicaState> {
        let mut request = self.client.verify_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        fields.set_block(block.0);
        let answer = soon(request.send().promise).await?;
        Ok(convert::replica_state_from(answer.get()?.get_state()))
    }

    /// The word on a suspect: to be verified and served, or forgotten.
    ///
    /// # Errors
    /// What the server answers; `Retry` when it is lost.
    pub async fn settle(&self, volume: VolumeId, block: BlockId, wanted: bool) -> Result<()> {
        let mut request = self.client.settle_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        fields.set_block(block.0);
        fields.set_wanted(wanted);
        convert::write_epoch(&self.epoch, fields.init_epoch());
        soon(request.send().promise).await.map(|_| ())
    }
}

async fn soon<T>(answer: impl Future<Output = capnp::Result<T>>) -> Result<T> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Problem::retry(format!(
            "the dataserver did not answer for {} s",
            ANSWER.as_secs()
        ))),
    }
}
