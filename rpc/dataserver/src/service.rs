//! The control interface that the nameserver commands this server through: each call goes to a volume's thread.

use std::rc::Rc;

use blockyard_schema::dataserver_capnp::dataserver;
use blockyard_wire::types::{BlockId, Origin, VolumeId};
use blockyard_wire::{Problem, convert};

use crate::commands::Command;
use crate::control::Port;
use crate::repair::Order;

/// Blocks of one delete call.
const DELETES_MAX: u32 = 65_536;

/// The server's side of the control interface.
pub(crate) struct Service {
    ports: Rc<Vec<Port>>,
}

impl Service {
    pub fn new(ports: Rc<Vec<Port>>) -> Self {
        Self { ports }
    }

    fn port(
        &self,
        volume: capnp::Result<blockyard_schema::types_capnp::id128::Reader<'_>>,
    ) -> capnp::Result<&Port> {
        let volume = VolumeId(convert::read_id(volume?));
        self.ports
            .iter()
            .find(|port| !volume.is_zero() && port.last.borrow().id == volume)
            .ok_or_else(|| Problem::not_found(format!("volume {volume} is not on this server")).into())
    }
}

impl dataserver::Server for Service {
    async fn digest(
        self: Rc<Self>,
        params: dataserver::DigestParams,
        mut results: dataserver::DigestResults,
    ) -> capnp::Result<()> {
        let port = self.port(params.get()?.get_volume())?;
        let digest = port.ask(Command::Digest).await?;
        let mut buckets = results.get().init_buckets(digest.0.len() as u32);
        for (at, bucket) in digest.0.iter().enumerate() {
            buckets.set(at as u32, *bucket);
        }
        Ok(())
    }

    async fn replicas(
        self: Rc<Self>,
        params: dataserver::ReplicasParams,
        mut results: dataserver::ReplicasResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let port = self.port(params.get_volume())?;
        let (bucket, after) = (params.get_bucket(), BlockId(params.get_after()));
        let limit = params.get_limit() as usize;
        let (replicas, more) = port
            .ask(|answer| Command::Replicas {
                bucket,
                after,
                limit,
                answer,
            })
            .await?;
        let mut results = results.get();
        results.set_more(more);
        convert::write_list(
            &replicas,
            results.init_replicas(replicas.len() as u32),
            convert::write_replica,
        );
        Ok(())
    }

    async fn delete(
        self: Rc<Self>,
        params: dataserver::DeleteParams,
        mut results: dataserver::DeleteResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let port = self.port(params.get_volume())?;
        let epoch = convert::read_epoch(params.get_epoch()?)?;
        let blocks = params.get_blocks()?;
        if blocks.len() > DELETES_MAX {
            let problem = Problem::invalid(format!("more than {DELETES_MAX} blocks to delete in one call"));
            return Err(problem.into());
        }
        let blocks = convert::read_block_ids(blocks);
        let deleted = port
            .ask(|answer| Command::Delete {
                blocks,
                epoch,
                answer,
            })
            .await?;
        convert::write_block_ids(&deleted, results.get().init_deleted(deleted.len() as u32));
        Ok(())
    }

    async fn copy(
        self: Rc<Self>,
        params: dataserver::CopyParams,
        mut results: dataserver::CopyResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let port = self.port(params.get_volume())?;
        let epoch = convert::read_epoch(params.get_epoch()?)?;
        let order = Box::new(Order {
            block: BlockId(params.get_block()),
            origin: Origin {
                version: params.get_version(),
                index: params.get_index(),
            },
            length: params.get_length(),
            crc32c: params.get_crc32c(),
            source: convert::read_hop(params.get_source()?)?,
            beside_clients: params.get_beside_clients(),
        });
        let proof = port.ask(|answer| Command::Copy { order, epoch, answer }).await?;
        convert::write_proof(&proof, results.get().init_proof());
        Ok(())
    }

    async fn verify(
        self: Rc<Self>,
        params: dataserver::VerifyParams,
        mut results: dataserver::VerifyResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let port = self.port(params.get_volume())?;
        let block = BlockId(params.get_block());
        let state = port.ask(|answer| Command::Verify(block, answer)).await?;
        results.get().set_state(convert::replica_state_to(state));
        Ok(())
    }

    async fn settle(
        self: Rc<Self>,
        params: dataserver::SettleParams,
        _: dataserver::SettleResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let port = self.port(params.get_volume())?;
        let epoch = convert::read_epoch(params.get_epoch()?)?;
        let (block, wanted) = (BlockId(params.get_block()), params.get_wanted());
        port.ask(|answer| Command::Settle {
            block,
            wanted,
            epoch,
            answer,
        })
        .await?;
        Ok(())
    }

    async fn scrub(
        self: Rc<Self>,
        params: dataserver::ScrubParams,
        _: dataserver::ScrubResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let port = self.port(params.get_volume())?;
        let order = convert::scrub_order_from(params.get_order());
        port.ask(|answer| Command::Scrub(order, answer)).await?;
        Ok(())
    }
}
