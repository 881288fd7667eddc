//! Commands to a connected dataserver, down the connection that it opened.
//!
//! What carries them stands behind [`Remote`]: Cap'n Proto, or the messages of a simulation.

mod wired;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::digest::Digest;
use blockyard_wire::types::{BlockId, Epoch, Hop, Replica, ReplicaProof, ReplicaState, ScrubOrder, VolumeId};
use blockyard_wire::{Problem, Result};
use futures_util::future::LocalBoxFuture;

use crate::state::blocks::{Block, VolumeIndex};

pub use wired::Wired;

/// Longest wait for an answer. A connection that is lost ends the wait at once; this is for servers that hang.
const ANSWER: Duration = Duration::from_secs(120);
/// Replicas of one answer.
const REPLICAS_MAX: u32 = 8192;

/// A block that a volume is to pull from another.
#[derive(Clone, Debug)]
pub struct CopyOrder {
    /// The block.
    pub block: BlockId,
    /// The version it was made for.
    pub version: u64,
    /// Its place in the file.
    pub index: u32,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// Where it is, and the right to pull it.
    pub source: Hop,
    /// Whether either volume has clients, who are not to wait behind it for long.
    pub beside_clients: bool,
}

/// The answer to come.
pub type Answer<'a, T> = LocalBoxFuture<'a, Result<T>>;

/// A dataserver at the other end of a connection: each call is one question. Errors are what the server answers;
/// `Retry` when it is lost.
pub trait Remote {
    /// The digest of what a volume holds.
    fn digest(&self, volume: VolumeId) -> Answer<'_, Digest>;

    /// At most `limit` replicas in a bucket behind `after`, by id, and whether there are more.
    fn replicas(
        &self,
        volume: VolumeId,
        bucket: u8,
        after: BlockId,
        limit: u32,
    ) -> Answer<'_, (Vec<Replica>, bool)>;

    /// Deletes replicas durably.
    fn delete(&self, volume: VolumeId, epoch: Epoch, blocks: &[BlockId]) -> Answer<'_, ()>;

    /// Has a volume pull a block; its proof.
    fn copy(&self, volume: VolumeId, epoch: Epoch, order: CopyOrder) -> Answer<'_, ReplicaProof>;

    /// Has a volume read a whole replica.
    fn verify(&self, volume: VolumeId, block: BlockId) -> Answer<'_, ReplicaState>;

    /// The word on a suspect.
    fn settle(&self, volume: VolumeId, epoch: Epoch, block: BlockId, wanted: bool) -> Answer<'_, ()>;

    /// Has a volume begin a scrub, or pause.
    fn scrub(&self, volume: VolumeId, order: ScrubOrder) -> Answer<'_, ()>;
}

/// A connected dataserver.
pub struct Control {
    /// The number of its connection.
    pub registration: u64,
    /// Its volumes.
    pub volumes: BTreeSet<VolumeIndex>,
    remote: Rc<dyn Remote>,
    epoch: Epoch,
}

impl Control {
    /// The control interface of a server that has joined in this reign.
    pub fn new(
        registration: u64,
        volumes: BTreeSet<VolumeIndex>,
        remote: Rc<dyn Remote>,
        epoch: Epoch,
    ) -> Self {
        Self {
            registration,
            volumes,
            remote,
            epoch,
        }
    }

    /// The digest of what a volume holds.
    ///
    /// # Errors
    /// What the server answers; `Retry` when it is lost.
    pub async fn digest(&self, volume: VolumeId) -> Result<Digest> {
        soon(self.remote.digest(volume)).await
    }

    /// All replicas in a bucket, by id.
    ///
    /// # Errors
    /// What the server answers; `Retry` when it is lost.
    pub async fn replicas(&self, volume: VolumeId, bucket: u8) -> Result<Vec<Replica>> {
        let mut all: Vec<Replica> = Vec::new();
        loop {
            let after = all.last().map_or(BlockId(0), |replica| replica.block);
            let asked = self.remote.replicas(volume, bucket, after, REPLICAS_MAX);
            let (page, more) = soon(asked).await?;
            let in_order = |pair: &[Replica]| pair[0].block < pair[1].block;
            let goes_on = all
                .last()
                .zip(page.first())
                .is_none_or(|(last, next)| last.block < next.block);
            if !goes_on || !page.windows(2).all(in_order) {
                return Err(Problem::invalid("a list of replicas that is not in order"));
            }
            let more = more && !page.is_empty();
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
        soon(self.remote.delete(volume, self.epoch, blocks)).await
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
        beside_clients: bool,
    ) -> Result<ReplicaProof> {
        let order = CopyOrder {
            block: id,
            version: block.version,
            index: block.index,
            length: block.length,
            crc32c: block.crc32c,
            source: source.clone(),
            beside_clients,
        };
        soon(self.remote.copy(volume, self.epoch, order)).await
    }

    /// Has a volume read a whole replica.
    ///
    /// # Errors
    /// `NotFound` when it has none; what else the server answers; `Retry` when it is lost.
    pub async fn verify(&self, volume: VolumeId, block: BlockId) -> Result<ReplicaState> {
        soon(self.remote.verify(volume, block)).await
    }

    /// The word on a suspect: to be verified and served, or forgotten.
    ///
    /// # Errors
    /// What the server answers; `Retry` when it is lost.
    pub async fn settle(&self, volume: VolumeId, block: BlockId, wanted: bool) -> Result<()> {
        soon(self.remote.settle(volume, self.epoch, block, wanted)).await
    }

    /// Has a volume begin a scrub, or pause.
    ///
    /// # Errors
    /// `Invalid` where its scrub is off; what else the server answers; `Retry` when it is lost.
    pub async fn scrub(&self, volume: VolumeId, order: ScrubOrder) -> Result<()> {
        soon(self.remote.scrub(volume, order)).await
    }
}

async fn soon<T>(answer: Answer<'_, T>) -> Result<T> {
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| {
        Err(Problem::retry(format!(
            "the dataserver did not answer for {} s",
            ANSWER.as_secs()
        )))
    })
}
