//! The whole cluster as the nameserver sees it, and the operator's words on it.

use blockyard_schema::nameserver_capnp as name;

use super::{
    liveness_from, liveness_to, malformed, read_cluster_info, read_file_info, read_host_report, read_list,
    read_volume_report, text, write_cluster_info, write_file_info, write_host_report, write_list,
    write_volume_report,
};
use crate::types::{Backlog, ClusterStatus, Duty, RepairStatus, ServerStatus, Trashed, Tuning, VolumeStatus};
use crate::{Problem, Result};

/// Reads the operator's word on a volume.
///
/// # Errors
/// `Invalid` when malformed, or of a newer version.
pub fn read_duty(from: name::duty::Reader<'_>) -> Result<Duty> {
    use name::duty::Which;
    match from.which() {
        Ok(Which::Serving(())) => Ok(Duty::Serving),
        Ok(Which::Maintenance(until_unix_ms)) => Ok(Duty::Maintenance { until_unix_ms }),
        Ok(Which::Draining(())) => Ok(Duty::Draining),
        Ok(Which::Removed(())) => Ok(Duty::Removed),
        Err(_) => Err(Problem::invalid("a duty that this version does not know")),
    }
}

/// Writes the operator's word on a volume.
pub fn write_duty(from: Duty, mut to: name::duty::Builder<'_>) {
    match from {
        Duty::Serving => to.set_serving(()),
        Duty::Maintenance { until_unix_ms } => to.set_maintenance(until_unix_ms),
        Duty::Draining => to.set_draining(()),
        Duty::Removed => to.set_removed(()),
    }
}

/// Reads how repair and balance are to work.
pub fn read_tuning(from: name::tuning::Reader<'_>) -> Tuning {
    Tuning {
        repair_paused: from.get_repair_paused(),
        repair_forced: from.get_repair_forced(),
        repair_bytes_per_s: from.get_repair_bytes_per_s(),
        balance_off: from.get_balance_off(),
    }
}

/// Writes how repair and balance are to work.
pub fn write_tuning(from: &Tuning, mut to: name::tuning::Builder<'_>) {
    to.set_repair_paused(from.repair_paused);
    to.set_repair_forced(from.repair_forced);
    to.set_repair_bytes_per_s(from.repair_bytes_per_s);
    to.set_balance_off(from.balance_off);
}

/// Reads something in the trash.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_trashed(from: name::trashed::Reader<'_>) -> Result<Trashed> {
    Ok(Trashed {
        entry: from.get_entry(),
        file: read_file_info(from.get_file().map_err(malformed)?)?,
        at_unix_ms: from.get_at_unix_ms(),
        files: from.get_files(),
    })
}

/// Writes something in the trash.
pub fn write_trashed(from: &Trashed, mut to: name::trashed::Builder<'_>) {
    to.set_entry(from.entry);
    write_file_info(&from.file, to.reborrow().init_file());
    to.set_at_unix_ms(from.at_unix_ms);
    to.set_files(from.files);
}

fn read_backlog(from: capnp::Result<name::backlog::Reader<'_>>) -> Result<Backlog> {
    let from = from.map_err(malformed)?;
    Ok(Backlog {
        blocks: from.get_blocks(),
        bytes: from.get_bytes(),
    })
}

fn write_backlog(from: Backlog, mut to: name::backlog::Builder<'_>) {
    to.set_blocks(from.blocks);
    to.set_bytes(from.bytes);
}

fn read_repair(from: name::repair_status::Reader<'_>) -> Result<RepairStatus> {
    Ok(RepairStatus {
        tuning: read_tuning(from.get_tuning().map_err(malformed)?),
        held: text(from.get_held())?,
        one_left: read_backlog(from.get_one_left())?,
        under: read_backlog(from.get_under())?,
        leaving: read_backlog(from.get_leaving())?,
        misplaced: read_backlog(from.get_misplaced())?,
        copying: from.get_copying(),
        copied: read_backlog(from.get_copied())?,
        balanced: read_backlog(from.get_balanced())?,
        bytes_per_s: from.get_bytes_per_s(),
        eta_ms: from.get_eta_ms(),
        failed: from.get_failed(),
    })
}

fn write_repair(from: &RepairStatus, mut to: name::repair_status::Builder<'_>) {
    write_tuning(&from.tuning, to.reborrow().init_tuning());
    to.set_held(&from.held);
    write_backlog(from.one_left, to.reborrow().init_one_left());
    write_backlog(from.under, to.reborrow().init_under());
    write_backlog(from.leaving, to.reborrow().init_leaving());
    write_backlog(from.misplaced, to.reborrow().init_misplaced());
    to.set_copying(from.copying);
    write_backlog(from.copied, to.reborrow().init_copied());
    write_backlog(from.balanced, to.reborrow().init_balanced());
    to.set_bytes_per_s(from.bytes_per_s);
    to.set_eta_ms(from.eta_ms);
    to.set_failed(from.failed);
}

/// Reads a volume as the nameserver sees it.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_volume_status(from: name::volume_status::Reader<'_>) -> Result<VolumeStatus> {
    Ok(VolumeStatus {
        report: read_volume_report(from.get_report().map_err(malformed)?)?,
        liveness: liveness_from(from.get_liveness()),
        blocks: from.get_blocks(),
        pending_deletes: from.get_pending_deletes(),
        duty: read_duty(from.get_duty().map_err(malformed)?)?,
        returning: from.get_returning(),
        suspicion: text(from.get_suspicion())?,
    })
}

/// Writes a volume as the nameserver sees it.
pub fn write_volume_status(from: &VolumeStatus, mut to: name::volume_status::Builder<'_>) {
    write_volume_report(&from.report, to.reborrow().init_report());
    to.set_liveness(liveness_to(from.liveness));
    to.set_blocks(from.blocks);
    to.set_pending_deletes(from.pending_deletes);
    write_duty(from.duty, to.reborrow().init_duty());
    to.set_returning(from.returning);
    to.set_suspicion(&from.suspicion);
}

/// Reads a dataserver as the nameserver sees it.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_server_status(from: name::server_status::Reader<'_>) -> Result<ServerStatus> {
    Ok(ServerStatus {
        address: text(from.get_address())?,
        zone: text(from.get_zone())?,
        host: text(from.get_host())?,
        version: text(from.get_version())?,
        liveness: liveness_from(from.get_liveness()),
        since_heartbeat_ms: from.get_since_heartbeat_ms(),
        volumes: read_list(from.get_volumes().map_err(malformed)?, read_volume_status)?,
        host_report: read_host_report(from.get_host_report().map_err(malformed)?),
    })
}

/// Writes a dataserver as the nameserver sees it.
pub fn write_server_status(from: &ServerStatus, mut to: name::server_status::Builder<'_>) {
    to.set_address(&from.address);
    to.set_zone(&from.zone);
    to.set_host(&from.host);
    to.set_version(&from.version);
    to.set_liveness(liveness_to(from.liveness));
    to.set_since_heartbeat_ms(from.since_heartbeat_ms);
    write_host_report(&from.host_report, to.reborrow().init_host_report());
    write_list(
        &from.volumes,
        to.init_volumes(from.volumes.len() as u32),
        write_volume_status,
    );
}

/// Reads the whole cluster.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_cluster_status(from: name::cluster_status::Reader<'_>) -> Result<ClusterStatus> {
    Ok(ClusterStatus {
        cluster: read_cluster_info(from.get_cluster().map_err(malformed)?)?,
        servers: read_list(from.get_servers().map_err(malformed)?, read_server_status)?,
        files: from.get_files(),
        directories: from.get_directories(),
        blocks: from.get_blocks(),
        file_bytes: from.get_file_bytes(),
        under_replicated_blocks: from.get_under_replicated_blocks(),
        missing_blocks: from.get_missing_blocks(),
        corrupt_replicas: from.get_corrupt_replicas(),
        leases: from.get_leases(),
        uptime_ms: from.get_uptime_ms(),
        journal_bytes: from.get_journal_bytes(),
        repairing: from.get_repairing(),
        pending_deletes: from.get_pending_deletes(),
        version: text(from.get_version())?,
        safe_mode: from.get_safe_mode(),
        read_only: text(from.get_read_only())?,
        repair: read_repair(from.get_repair().map_err(malformed)?)?,
        trash_files: from.get_trash_files(),
        trash_bytes: from.get_trash_bytes(),
    })
}

/// Writes the whole cluster.
pub fn write_cluster_status(from: &ClusterStatus, mut to: name::cluster_status::Builder<'_>) {
    write_cluster_info(&from.cluster, to.reborrow().init_cluster());
    write_list(
        &from.servers,
        to.reborrow().init_servers(from.servers.len() as u32),
        write_server_status,
    );
    to.set_files(from.files);
    to.set_directories(from.directories);
    to.set_blocks(from.blocks);
    to.set_file_bytes(from.file_bytes);
    to.set_under_replicated_blocks(from.under_replicated_blocks);
    to.set_missing_blocks(from.missing_blocks);
    to.set_corrupt_replicas(from.corrupt_replicas);
    to.set_leases(from.leases);
    to.set_uptime_ms(from.uptime_ms);
    to.set_journal_bytes(from.journal_bytes);
    to.set_repairing(from.repairing);
    to.set_pending_deletes(from.pending_deletes);
    to.set_version(&from.version);
    to.set_safe_mode(from.safe_mode);
    to.set_read_only(&from.read_only);
    write_repair(&from.repair, to.reborrow().init_repair());
    to.set_trash_files(from.trash_files);
    to.set_trash_bytes(from.trash_bytes);
}
