//! A dataserver behind Cap'n Proto: each call is one request and one response.

use blockyard_schema::dataserver_capnp::dataserver;
use blockyard_wire::digest::{BUCKETS, Digest};
use blockyard_wire::types::{BlockId, Epoch, Replica, ReplicaProof, ReplicaState, ScrubOrder, VolumeId};
use blockyard_wire::{Problem, convert};
use futures_util::FutureExt as _;

use super::{Answer, CopyOrder, Remote};

/// [`Remote`] by Cap'n Proto.
pub struct Wired(pub dataserver::Client);

impl Remote for Wired {
    fn digest(&self, volume: VolumeId) -> Answer<'_, Digest> {
        let mut request = self.0.digest_request();
        convert::write_id(&volume.0, request.get().init_volume());
        async move {
            let answer = request.send().promise.await?;
            let buckets: Vec<u64> = answer.get()?.get_buckets()?.iter().collect();
            match buckets.len() == BUCKETS {
                true => Ok(Digest(buckets)),
                false => Err(Problem::invalid(format!("a digest of {} buckets", buckets.len()))),
            }
        }
        .boxed_local()
    }

    fn replicas(
        &self,
        volume: VolumeId,
        bucket: u8,
        after: BlockId,
        limit: u32,
    ) -> Answer<'_, (Vec<Replica>, bool)> {
        let mut request = self.0.replicas_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        fields.set_bucket(u16::from(bucket));
        fields.set_after(after.0);
        fields.set_limit(limit);
        async move {
            let answer = request.send().promise.await?;
            let answer = answer.get()?;
            let page = convert::read_list(answer.get_replicas()?, convert::read_replica)?;
            Ok((page, answer.get_more()))
        }
        .boxed_local()
    }

    fn delete(&self, volume: VolumeId, epoch: Epoch, blocks: &[BlockId]) -> Answer<'_, ()> {
        let mut request = self.0.delete_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        convert::write_epoch(&epoch, fields.reborrow().init_epoch());
        convert::write_block_ids(blocks, fields.init_blocks(blocks.len() as u32));
        async move {
            request.send().promise.await?;
            Ok(())
        }
        .boxed_local()
    }

    fn copy(&self, volume: VolumeId, epoch: Epoch, order: CopyOrder) -> Answer<'_, ReplicaProof> {
        let mut request = self.0.copy_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        fields.set_block(order.block.0);
        fields.set_version(order.version);
        fields.set_index(order.index);
        fields.set_length(order.length);
        fields.set_crc32c(order.crc32c);
        fields.set_beside_clients(order.beside_clients);
        convert::write_hop(&order.source, fields.reborrow().init_source());
        convert::write_epoch(&epoch, fields.init_epoch());
        async move {
            let answer = request.send().promise.await?;
            convert::read_proof(answer.get()?.get_proof()?)
        }
        .boxed_local()
    }

    fn verify(&self, volume: VolumeId, block: BlockId) -> Answer<'_, ReplicaState> {
        let mut request = self.0.verify_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        fields.set_block(block.0);
        async move {
            let answer = request.send().promise.await?;
            Ok(convert::replica_state_from(answer.get()?.get_state()))
        }
        .boxed_local()
    }

    fn settle(&self, volume: VolumeId, epoch: Epoch, block: BlockId, wanted: bool) -> Answer<'_, ()> {
        let mut request = self.0.settle_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        fields.set_block(block.0);
        fields.set_wanted(wanted);
        convert::write_epoch(&epoch, fields.init_epoch());
        async move {
            request.send().promise.await?;
            Ok(())
        }
        .boxed_local()
    }

    fn scrub(&self, volume: VolumeId, order: ScrubOrder) -> Answer<'_, ()> {
        let mut request = self.0.scrub_request();
        let mut fields = request.get();
        convert::write_id(&volume.0, fields.reborrow().init_volume());
        fields.set_order(convert::scrub_order_to(order));
        async move {
            request.send().promise.await?;
            Ok(())
        }
        .boxed_local()
    }
}
