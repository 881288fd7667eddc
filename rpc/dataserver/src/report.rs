//! What a volume tells of itself: the engine's figures as the nameserver wants them.

use std::path::Path;

use blockyard_engine as engine;
use blockyard_wire::types::{Epoch, Incarnation, Replica, ReplicaState, VolumeId, VolumeReport, VolumeState};

use crate::node::Node;

/// Damaged blocks named in a report.
const CORRUPT_MAX: usize = 256;

/// A replica as the nameserver knows it.
pub(crate) fn replica(info: &engine::ReplicaInfo) -> Replica {
    Replica {
        block: info.block,
        length: info.length,
        crc32c: info.crc32c,
        state: replica_state(info.state),
    }
}

/// A replica's state as the nameserver knows it.
pub(crate) fn replica_state(state: engine::ReplicaState) -> ReplicaState {
    match state {
        engine::ReplicaState::Live => ReplicaState::Good,
        engine::ReplicaState::Suspect => ReplicaState::Suspect,
        engine::ReplicaState::Corrupt => ReplicaState::Corrupt,
    }
}

/// The report of a volume that serves.
pub(crate) fn of(node: &Node, address: &str, directory: &Path, pool_bytes: u64) -> VolumeReport {
    let stat = node.volume.stat();
    let identity = node.volume.identity();
    let (state, reason) = match stat.state {
        engine::VolumeState::Serving => (VolumeState::Serving, String::new()),
        engine::VolumeState::Full => (VolumeState::Full, String::new()),
        engine::VolumeState::Failed(reason) => (VolumeState::Failed, reason),
        engine::VolumeState::Closed => (VolumeState::Failed, "it was closed".to_owned()),
    };
    VolumeReport {
        id: node.id,
        incarnation: Incarnation(identity.incarnation),
        generation: identity.generation,
        address: address.to_owned(),
        directory: directory.display().to_string(),
        io_errors: u64::from(state == VolumeState::Failed),
        state,
        reason,
        capacity_bytes: stat.capacity_bytes,
        used_bytes: stat.used_bytes,
        free_bytes: stat.free_bytes,
        replicas: stat.replicas,
        corrupt: stat.corrupt,
        suspects: stat.suspects,
        write_bytes: stat.put_bytes,
        read_bytes: stat.get_bytes,
        flushes: stat.flushes,
        pool_used_bytes: pool_used_bytes(&stat.pool) + stat.cache.used_bytes,
        pool_bytes,
        in_flight: node.in_flight(),
        client_requests: node.client_requests(),
        corrupt_blocks: node.damaged_blocks(stat.corrupt, CORRUPT_MAX),
        epoch: node.volume.epoch().map_or_else(Epoch::default, |epoch| Epoch {
            number: epoch.number,
            incarnation: Incarnation(epoch.incarnation),
        }),
        write: node.times.write.report(),
        flush: node.times.flush.report(),
        read: node.times.read.report(),
        scrub: node.scrubbing.report(),
        flows: node.flows.report(),
    }
}

/// The report of a volume that can't be opened, or has lost its disk ring.
pub(crate) fn of_failed(
    id: VolumeId,
    incarnation: Incarnation,
    address: &str,
    directory: &Path,
    reason: &str,
) -> VolumeReport {
    VolumeReport {
        id,
        incarnation,
        address: address.to_owned(),
        directory: directory.display().to_string(),
        state: VolumeState::Failed,
        reason: reason.to_owned(),
        io_errors: 1,
        ..VolumeReport::default()
    }
}

fn pool_used_bytes(pool: &engine::PoolUse) -> u64 {
    use engine::limits::{BLOCK_BYTES_MAX, PAGE_BYTES, UNIT_BYTES};
    u64::from(pool.large_used) * (BLOCK_BYTES_MAX + PAGE_BYTES) as u64
        + u64::from(pool.small_used) * (UNIT_BYTES + PAGE_BYTES) as u64
}
