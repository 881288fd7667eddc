//! The one place where Cap'n Proto types become plain ones and back.
//!
//! `read_x` gives the plain `X` or a `Problem` of kind `Invalid`; `write_x` fills a builder. Readers are
//! bounded by the connection's limits (`control::reader_options`), so nothing here needs its own.

mod custody;
mod host;
mod lookup;
mod publish;
mod status;

use blockyard_engine::block::BlockId;
use blockyard_schema::{dataserver_capnp as data, nameserver_capnp as name, types_capnp as types};
use capnp::struct_list;
use capnp::traits::OwnedStruct;

use crate::error::{Problem, ProblemKind, Result};
use crate::ticket::Ticket;
use crate::types::{
    AddedBlock, BlockInfo, ClusterId, ClusterInfo, Epoch, FileInfo, HeldBlock, Hop, Incarnation, Liveness,
    Location, NewBlock, Replica, ReplicaProof, ReplicaState, RequestId, ScrubOrder, ScrubState, ServerInfo,
    VolumeId, VolumeReport, VolumeState,
};

pub use custody::{
    read_backup_file, read_custody_state, read_orphan, write_backup_file, write_custody_state, write_orphan,
};
pub use host::{read_host_report, write_host_report};
pub use lookup::{read_found, read_sought, write_found, write_sought};
pub use publish::{read_new_file, read_published, write_new_file, write_published};
pub use status::{
    read_cluster_status, read_duty, read_server_status, read_trashed, read_tuning, read_volume_status,
    write_cluster_status, write_duty, write_server_status, write_trashed, write_tuning, write_volume_status,
};

fn malformed(error: capnp::Error) -> Problem {
    Problem::invalid(format!("a malformed message: {error}"))
}

/// A text of the message.
///
/// # Errors
/// `Invalid` when it is not UTF-8.
pub fn read_text(text: capnp::text::Reader<'_>) -> Result<String> {
    text.to_string()
        .map_err(|_| Problem::invalid("a text that is not UTF-8"))
}

fn text(field: capnp::Result<capnp::text::Reader<'_>>) -> Result<String> {
    read_text(field.map_err(malformed)?)
}

fn read_refusal(from: name::refusal::Reader<'_>) -> Result<Problem> {
    let kind = problem_kind_from(from.get_kind());
    Ok(Problem::new(kind, text(from.get_message())?))
}

fn write_refusal(from: &Problem, mut to: name::refusal::Builder<'_>) {
    to.set_kind(problem_kind_to(from.kind));
    to.set_message(&from.message);
}

/// `N` bytes of data.
///
/// # Errors
/// `Invalid` when there are more or fewer.
pub fn read_array<const N: usize>(field: capnp::Result<capnp::data::Reader<'_>>) -> Result<[u8; N]> {
    let bytes = field.map_err(malformed)?;
    bytes
        .try_into()
        .map_err(|_| Problem::invalid(format!("{} bytes where {N} belong", bytes.len())))
}

/// Every element of a list of structs.
///
/// # Errors
/// The first that `read` gives.
pub fn read_list<'a, T: OwnedStruct, X>(
    list: struct_list::Reader<'a, T>,
    read: impl FnMut(T::Reader<'a>) -> Result<X>,
) -> Result<Vec<X>> {
    list.iter().map(read).collect()
}

/// Fills a list of structs that was made as long as `from`.
pub fn write_list<T: OwnedStruct, X>(
    from: &[X],
    mut to: struct_list::Builder<'_, T>,
    write: impl for<'b> Fn(&X, T::Builder<'b>),
) {
    for (at, item) in from.iter().enumerate() {
        write(item, to.reborrow().get(at as u32));
    }
}

/// 16 bytes of identity.
pub fn read_id(id: types::id128::Reader<'_>) -> [u8; 16] {
    (u128::from(id.get_high()) << 64 | u128::from(id.get_low())).to_be_bytes()
}

/// Writes 16 bytes of identity.
pub fn write_id(id: &[u8; 16], mut to: types::id128::Builder<'_>) {
    let id = u128::from_be_bytes(*id);
    to.set_high((id >> 64) as u64);
    to.set_low(id as u64);
}

fn id(field: capnp::Result<types::id128::Reader<'_>>) -> Result<[u8; 16]> {
    field.map(read_id).map_err(malformed)
}

/// A list of volume ids.
///
/// # Errors
/// Never; for use as any other reader.
pub fn read_volume_id(from: types::id128::Reader<'_>) -> Result<VolumeId> {
    Ok(VolumeId(read_id(from)))
}

/// Block ids of a list of numbers.
pub fn read_block_ids(from: capnp::primitive_list::Reader<'_, u64>) -> Vec<BlockId> {
    from.iter().map(BlockId).collect()
}

/// Fills a list that was made as long as `from`.
pub fn write_block_ids(from: &[BlockId], mut to: capnp::primitive_list::Builder<'_, u64>) {
    for (at, block) in from.iter().enumerate() {
        to.set(at as u32, block.0);
    }
}

macro_rules! enums {
    ($($from:ident $to:ident $plain:ident $wire:path { $($kind:ident)* } else $unknown:ident)*) => {$(
        /// The plain kind; what a newer peer knows and this one does not counts as the least.
        pub fn $from(from: std::result::Result<$wire, capnp::NotInSchema>) -> $plain {
            use $wire as Wire;
            match from {
                $(Ok(Wire::$kind) => $plain::$kind,)*
                Err(_) => $plain::$unknown,
            }
        }

        /// The kind on the wire.
        pub fn $to(from: $plain) -> $wire {
            use $wire as Wire;
            match from {
                $($plain::$kind => Wire::$kind,)*
            }
        }
    )*};
}

enums! {
    replica_state_from replica_state_to ReplicaState types::ReplicaState
        { Good Suspect Corrupt } else Suspect
    volume_state_from volume_state_to VolumeState data::VolumeState
        { Serving Full Failed } else Failed
    scrub_state_from scrub_state_to ScrubState data::ScrubState
        { Off Waiting Running Paused } else Off
    scrub_order_from scrub_order_to ScrubOrder types::ScrubOrder
        { Start Pause } else Start
    liveness_from liveness_to Liveness name::Liveness
        { Alive Suspect Dead } else Suspect
    problem_kind_from problem_kind_to ProblemKind types::ProblemKind
        { Failed Retry OtherReplica NotFound Exists Invalid NoSpace Denied Corrupt Gone Stale NotLeader Busy }
        else Failed
}

/// Reads an epoch.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_epoch(from: types::epoch::Reader<'_>) -> Result<Epoch> {
    Ok(Epoch {
        number: from.get_number(),
        incarnation: Incarnation(id(from.get_incarnation())?),
    })
}

/// Writes an epoch.
pub fn write_epoch(from: &Epoch, mut to: types::epoch::Builder<'_>) {
    to.set_number(from.number);
    write_id(&from.incarnation.0, to.init_incarnation());
}

/// Reads a ticket.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_ticket(from: types::ticket::Reader<'_>) -> Result<Ticket> {
    Ok(Ticket {
        key_id: from.get_key_id(),
        length_max: from.get_length_max(),
        hop: from.get_hop(),
        expires_unix_ms: from.get_expires_unix_ms(),
        mac: read_array(from.get_mac())?,
    })
}

/// Writes a ticket.
pub fn write_ticket(from: &Ticket, mut to: types::ticket::Builder<'_>) {
    to.set_key_id(from.key_id);
    to.set_length_max(from.length_max);
    to.set_hop(from.hop);
    to.set_expires_unix_ms(from.expires_unix_ms);
    to.set_mac(&from.mac);
}

/// Reads a hop.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_hop(from: types::hop::Reader<'_>) -> Result<Hop> {
    Ok(Hop {
        volume: VolumeId(id(from.get_volume())?),
        address: text(from.get_address())?,
        server: text(from.get_server())?,
        ticket: read_ticket(from.get_ticket().map_err(malformed)?)?,
    })
}

/// Writes a hop.
pub fn write_hop(from: &Hop, mut to: types::hop::Builder<'_>) {
    write_id(&from.volume.0, to.reborrow().init_volume());
    to.set_address(&from.address);
    to.set_server(&from.server);
    write_ticket(&from.ticket, to.init_ticket());
}

/// Reads a proof.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_proof(from: types::replica_proof::Reader<'_>) -> Result<ReplicaProof> {
    Ok(ReplicaProof {
        volume: VolumeId(id(from.get_volume())?),
        mac: read_array(from.get_mac())?,
    })
}

/// Writes a proof.
pub fn write_proof(from: &ReplicaProof, mut to: types::replica_proof::Builder<'_>) {
    write_id(&from.volume.0, to.reborrow().init_volume());
    to.set_mac(&from.mac);
}

/// Reads a replica.
///
/// # Errors
/// Never; for use as any other reader.
pub fn read_replica(from: types::replica::Reader<'_>) -> Result<Replica> {
    Ok(Replica {
        block: BlockId(from.get_block()),
        length: from.get_length(),
        crc32c: from.get_crc32c(),
        state: replica_state_from(from.get_state()),
    })
}

/// Writes a replica.
pub fn write_replica(from: &Replica, mut to: types::replica::Builder<'_>) {
    to.set_block(from.block.0);
    to.set_length(from.length);
    to.set_crc32c(from.crc32c);
    to.set_state(replica_state_to(from.state));
}

use host::{read_flow, read_latency, read_scrub, write_flow, write_latency, write_scrub};

/// Reads a volume's report.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_volume_report(from: data::volume_report::Reader<'_>) -> Result<VolumeReport> {
    Ok(VolumeReport {
        id: VolumeId(id(from.get_id())?),
        incarnation: Incarnation(id(from.get_incarnation())?),
        generation: from.get_generation(),
        address: text(from.get_address())?,
        directory: text(from.get_directory())?,
        state: volume_state_from(from.get_state()),
        reason: text(from.get_reason())?,
        capacity_bytes: from.get_capacity_bytes(),
        used_bytes: from.get_used_bytes(),
        free_bytes: from.get_free_bytes(),
        replicas: from.get_replicas(),
        corrupt: from.get_corrupt(),
        suspects: from.get_suspects(),
        write_bytes: from.get_write_bytes(),
        read_bytes: from.get_read_bytes(),
        flushes: from.get_flushes(),
        pool_used_bytes: from.get_pool_used_bytes(),
        pool_bytes: from.get_pool_bytes(),
        in_flight: from.get_in_flight(),
        client_requests: from.get_client_requests(),
        io_errors: from.get_io_errors(),
        corrupt_blocks: read_block_ids(from.get_corrupt_blocks().map_err(malformed)?),
        epoch: read_epoch(from.get_epoch().map_err(malformed)?)?,
        write: read_latency(from.get_write().map_err(malformed)?),
        flush: read_latency(from.get_flush().map_err(malformed)?),
        read: read_latency(from.get_read().map_err(malformed)?),
        scrub: read_scrub(from.get_scrub().map_err(malformed)?),
        flows: read_list(from.get_flows().map_err(malformed)?, read_flow)?,
    })
}

/// Writes a volume's report.
pub fn write_volume_report(from: &VolumeReport, mut to: data::volume_report::Builder<'_>) {
    write_id(&from.id.0, to.reborrow().init_id());
    write_id(&from.incarnation.0, to.reborrow().init_incarnation());
    to.set_generation(from.generation);
    to.set_address(&from.address);
    to.set_directory(&from.directory);
    to.set_state(volume_state_to(from.state));
    to.set_reason(&from.reason);
    to.set_capacity_bytes(from.capacity_bytes);
    to.set_used_bytes(from.used_bytes);
    to.set_free_bytes(from.free_bytes);
    to.set_replicas(from.replicas);
    to.set_corrupt(from.corrupt);
    to.set_suspects(from.suspects);
    to.set_write_bytes(from.write_bytes);
    to.set_read_bytes(from.read_bytes);
    to.set_flushes(from.flushes);
    to.set_pool_used_bytes(from.pool_used_bytes);
    to.set_pool_bytes(from.pool_bytes);
    to.set_in_flight(from.in_flight);
    to.set_client_requests(from.client_requests);
    to.set_io_errors(from.io_errors);
    write_epoch(&from.epoch, to.reborrow().init_epoch());
    write_latency(from.write, to.reborrow().init_write());
    write_latency(from.flush, to.reborrow().init_flush());
    write_latency(from.read, to.reborrow().init_read());
    write_scrub(from.scrub, to.reborrow().init_scrub());
    write_list(
        &from.flows,
        to.reborrow().init_flows(from.flows.len() as u32),
        write_flow,
    );
    write_block_ids(
        &from.corrupt_blocks,
        to.init_corrupt_blocks(from.corrupt_blocks.len() as u32),
    );
}

/// Reads what a dataserver tells of itself.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_server_info(from: name::server_info::Reader<'_>) -> Result<ServerInfo> {
    Ok(ServerInfo {
        address: text(from.get_address())?,
        zone: text(from.get_zone())?,
        version: text(from.get_version())?,
        host: text(from.get_host())?,
        volumes: read_list(from.get_volumes().map_err(malformed)?, read_volume_report)?,
    })
}

/// Writes what a dataserver tells of itself.
pub fn write_server_info(from: &ServerInfo, mut to: name::server_info::Builder<'_>) {
    to.set_address(&from.address);
    to.set_zone(&from.zone);
    to.set_version(&from.version);
    to.set_host(&from.host);
    write_list(
        &from.volumes,
        to.init_volumes(from.volumes.len() as u32),
        write_volume_report,
    );
}

/// Reads what a login answers.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_cluster_info(from: name::cluster_info::Reader<'_>) -> Result<ClusterInfo> {
    Ok(ClusterInfo {
        cluster: ClusterId(id(from.get_cluster())?),
        epoch: read_epoch(from.get_epoch().map_err(malformed)?)?,
        replication: from.get_replication(),
        min_replicas: from.get_min_replicas(),
        block_bytes: from.get_block_bytes(),
        heartbeat_ms: from.get_heartbeat_ms(),
        lease_ms: from.get_lease_ms(),
        now_unix_ms: from.get_now_unix_ms(),
        address: text(from.get_address())?,
    })
}

/// Writes what a login answers.
pub fn write_cluster_info(from: &ClusterInfo, mut to: name::cluster_info::Builder<'_>) {
    write_id(&from.cluster.0, to.reborrow().init_cluster());
    write_epoch(&from.epoch, to.reborrow().init_epoch());
    to.set_replication(from.replication);
    to.set_min_replicas(from.min_replicas);
    to.set_block_bytes(from.block_bytes);
    to.set_heartbeat_ms(from.heartbeat_ms);
    to.set_lease_ms(from.lease_ms);
    to.set_now_unix_ms(from.now_unix_ms);
    to.set_address(&from.address);
}

/// Reads the name of a mutation.
///
/// # Errors
/// Never; for use as any other reader.
pub fn read_request_id(from: name::request_id::Reader<'_>) -> Result<RequestId> {
    Ok(RequestId {
        client: from.get_client(),
        number: from.get_number(),
    })
}

/// Writes the name of a mutation.
pub fn write_request_id(from: &RequestId, mut to: name::request_id::Builder<'_>) {
    to.set_client(from.client);
    to.set_number(from.number);
}

/// Reads a file or directory.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_file_info(from: name::file_info::Reader<'_>) -> Result<FileInfo> {
    Ok(FileInfo {
        path: text(from.get_path())?,
        name: text(from.get_name())?,
        directory: from.get_directory(),
        version: from.get_version(),
        size_bytes: from.get_size_bytes(),
        crc32c: from.get_crc32c(),
        blocks: from.get_blocks(),
        created_unix_ms: from.get_created_unix_ms(),
        modified_unix_ms: from.get_modified_unix_ms(),
        replication: from.get_replication(),
        content_type: text(from.get_content_type())?,
        children: from.get_children(),
    })
}

/// Writes a file or directory.
pub fn write_file_info(from: &FileInfo, mut to: name::file_info::Builder<'_>) {
    to.set_path(&from.path);
    to.set_name(&from.name);
    to.set_directory(from.directory);
    to.set_version(from.version);
    to.set_size_bytes(from.size_bytes);
    to.set_crc32c(from.crc32c);
    to.set_blocks(from.blocks);
    to.set_created_unix_ms(from.created_unix_ms);
    to.set_modified_unix_ms(from.modified_unix_ms);
    to.set_replication(from.replication);
    to.set_content_type(&from.content_type);
    to.set_children(from.children);
}

/// Reads a replica with the right to read it.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_location(from: name::location::Reader<'_>) -> Result<Location> {
    Ok(Location {
        hop: read_hop(from.get_hop().map_err(malformed)?)?,
        state: replica_state_from(from.get_state()),
        live: from.get_live(),
        zone: text(from.get_zone())?,
    })
}

/// Writes a replica with the right to read it.
pub fn write_location(from: &Location, mut to: name::location::Builder<'_>) {
    write_hop(&from.hop, to.reborrow().init_hop());
    to.set_state(replica_state_to(from.state));
    to.set_live(from.live);
    to.set_zone(&from.zone);
}

/// Reads a block of a version.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_block_info(from: name::block_info::Reader<'_>) -> Result<BlockInfo> {
    Ok(BlockInfo {
        block: BlockId(from.get_block()),
        index: from.get_index(),
        length: from.get_length(),
        crc32c: from.get_crc32c(),
        replicas: read_list(from.get_replicas().map_err(malformed)?, read_location)?,
    })
}

/// Writes a block of a version.
pub fn write_block_info(from: &BlockInfo, mut to: name::block_info::Builder<'_>) {
    to.set_block(from.block.0);
    to.set_index(from.index);
    to.set_length(from.length);
    to.set_crc32c(from.crc32c);
    write_list(
        &from.replicas,
        to.init_replicas(from.replicas.len() as u32),
        write_location,
    );
}

/// Reads a block id and its chain.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_new_block(from: name::new_block::Reader<'_>) -> Result<NewBlock> {
    Ok(NewBlock {
        block: BlockId(from.get_block()),
        chain: read_list(from.get_chain().map_err(malformed)?, read_hop)?,
    })
}

/// Writes a block id and its chain.
pub fn write_new_block(from: &NewBlock, mut to: name::new_block::Builder<'_>) {
    to.set_block(from.block.0);
    write_list(&from.chain, to.init_chain(from.chain.len() as u32), write_hop);
}

/// Reads a block that is durable.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_added_block(from: name::added_block::Reader<'_>) -> Result<AddedBlock> {
    Ok(AddedBlock {
        block: BlockId(from.get_block()),
        index: from.get_index(),
        length: from.get_length(),
        crc32c: from.get_crc32c(),
        proofs: read_list(from.get_proofs().map_err(malformed)?, read_proof)?,
    })
}

/// Writes a block that is durable.
pub fn write_added_block(from: &AddedBlock, mut to: name::added_block::Builder<'_>) {
    to.set_block(from.block.0);
    to.set_index(from.index);
    to.set_length(from.length);
    to.set_crc32c(from.crc32c);
    write_list(
        &from.proofs,
        to.init_proofs(from.proofs.len() as u32),
        write_proof,
    );
}

/// Reads a block that a volume should hold.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_held_block(from: name::held_block::Reader<'_>) -> Result<HeldBlock> {
    Ok(HeldBlock {
        block: BlockId(from.get_block()),
        length: from.get_length(),
        crc32c: from.get_crc32c(),
        index: from.get_index(),
        version: from.get_version(),
        path: text(from.get_path())?,
        state: replica_state_from(from.get_state()),
    })
}

/// Writes a block that a volume should hold.
pub fn write_held_block(from: &HeldBlock, mut to: name::held_block::Builder<'_>) {
    to.set_block(from.block.0);
    to.set_length(from.length);
    to.set_crc32c(from.crc32c);
    to.set_index(from.index);
    to.set_version(from.version);
    to.set_path(&from.path);
    to.set_state(replica_state_to(from.state));
}
