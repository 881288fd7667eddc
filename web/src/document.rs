//! The state of the cluster as one JSON document: what `GET /api/v1/status` answers and the stream keeps up to date.
//! Servers and volumes stand under their names, so that a change names only what has changed.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use blockyard_wire::score::{Score, score};
use blockyard_wire::types::{
    Backlog, ClusterStatus, Duty, Flow, HostReport, LatencyReport, Liveness, RepairStatus, ScrubReport,
    ServerStatus, VolumeState, VolumeStatus,
};

use crate::health::{self, Health};
use crate::rates::Rates;

/// The whole cluster.
#[derive(Serialize, ToSchema)]
pub(crate) struct Document {
    health: Health,
    cluster: String,
    address: String,
    version: String,
    epoch: u64,
    replication: u8,
    min_replicas: u8,
    block_bytes: u32,
    started_unix_ms: u64,
    safe_mode: bool,
    /// Why nothing can be changed; empty when it can.
    read_only: String,
    files: u64,
    directories: u64,
    blocks: u64,
    file_bytes: u64,
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    under_replicated_blocks: u64,
    missing_blocks: u64,
    corrupt_replicas: u64,
    uploads: u64,
    repairing: u64,
    pending_deletes: u64,
    journal_bytes: u64,
    trash_files: u64,
    trash_bytes: u64,
    repair: Repair,
    /// By address.
    servers: BTreeMap<String, Server>,
    /// By id.
    volumes: BTreeMap<String, Volume>,
}

/// What repair has before it and behind it.
#[derive(Serialize, ToSchema)]
struct Repair {
    paused: bool,
    forced: bool,
    /// 0: what clients leave.
    limit_bytes_per_s: u64,
    balance_off: bool,
    /// Why it does nothing although there is work; empty otherwise.
    held: String,
    #[schema(value_type = Object)]
    one_left: Backlog,
    #[schema(value_type = Object)]
    under: Backlog,
    #[schema(value_type = Object)]
    leaving: Backlog,
    #[schema(value_type = Object)]
    misplaced: Backlog,
    copying: u32,
    #[schema(value_type = Object)]
    copied: Backlog,
    #[schema(value_type = Object)]
    balanced: Backlog,
    bytes_per_s: u64,
    /// Null where nothing can be said.
    eta_ms: Option<u64>,
    failed: u64,
}

/// A dataserver.
#[derive(Serialize, ToSchema)]
struct Server {
    address: String,
    #[schema(value_type = String)]
    state: Liveness,
    zone: String,
    host: String,
    version: String,
    heard_unix_ms: u64,
    #[schema(value_type = Object)]
    score: Score,
    /// What could not be measured is null.
    #[schema(value_type = Object)]
    machine: HostReport,
}

/// A volume.
#[derive(Serialize, ToSchema)]
struct Volume {
    id: String,
    server: String,
    state: &'static str,
    #[schema(value_type = String)]
    liveness: Liveness,
    reason: String,
    address: String,
    directory: String,
    duty: &'static str,
    /// When maintenance ends; 0 without.
    until_unix_ms: u64,
    returning: bool,
    suspicion: String,
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    blocks: u64,
    replicas: u64,
    corrupt: u64,
    suspects: u64,
    pending_deletes: u64,
    write_bytes: u64,
    read_bytes: u64,
    write_bytes_per_s: Option<u64>,
    read_bytes_per_s: Option<u64>,
    flushes: u64,
    in_flight: u32,
    io_errors: u64,
    /// Microseconds, of late; a count of 0 knows nothing.
    #[schema(value_type = Object)]
    write: LatencyReport,
    #[schema(value_type = Object)]
    flush: LatencyReport,
    #[schema(value_type = Object)]
    read: LatencyReport,
    #[schema(value_type = Object)]
    scrub: ScrubReport,
    flows: Vec<ChainFlow>,
}

/// Blocks that are written through a volume.
#[derive(Serialize, ToSchema)]
struct ChainFlow {
    from: String,
    /// 0: from a client; 1: from the hop before.
    position: u8,
    /// The next volume; empty at the end of the chain.
    next: String,
    in_flight: u32,
    blocks: u64,
    bytes_per_s: Option<u64>,
    lag_us: u32,
}

impl Document {
    /// What is known now, with how quickly it changes.
    pub(crate) fn new(status: ClusterStatus, rates: &Rates) -> Self {
        let health = health::judge(&status);
        let sum = |of: fn(&VolumeStatus) -> u64| {
            let volumes = status.servers.iter().flat_map(|server| &server.volumes);
            // What is not heard from offers no space.
            volumes
                .filter(|volume| volume.liveness != Liveness::Dead && volume.duty != Duty::Removed)
                .map(of)
                .sum()
        };
        let (mut servers, mut volumes) = (BTreeMap::new(), BTreeMap::new());
        for server in &status.servers {
            servers.insert(server.address.clone(), Server::new(server, rates));
            for volume in &server.volumes {
                let volume = Volume::new(volume, &server.address, rates);
                volumes.insert(volume.id.clone(), volume);
            }
        }
        Self {
            health,
            cluster: status.cluster.cluster.to_string(),
            epoch: status.cluster.epoch.number,
            replication: status.cluster.replication,
            min_replicas: status.cluster.min_replicas,
            block_bytes: status.cluster.block_bytes,
            started_unix_ms: rates.started_unix_ms(),
            safe_mode: status.safe_mode,
            files: status.files,
            directories: status.directories,
            blocks: status.blocks,
            file_bytes: status.file_bytes,
            capacity_bytes: sum(|volume| volume.report.capacity_bytes),
            used_bytes: sum(|volume| volume.report.used_bytes),
            free_bytes: sum(|volume| volume.report.free_bytes),
            under_replicated_blocks: status.under_replicated_blocks,
            missing_blocks: status.missing_blocks,
            corrupt_replicas: status.corrupt_replicas,
            uploads: status.leases,
            repairing: status.repairing,
            pending_deletes: status.pending_deletes,
            journal_bytes: status.journal_bytes,
            trash_files: status.trash_files,
            trash_bytes: status.trash_bytes,
            repair: status.repair.into(),
            version: status.version,
            read_only: status.read_only,
            address: status.cluster.address,
            servers,
            volumes,
        }
    }
}

impl From<RepairStatus> for Repair {
    fn from(repair: RepairStatus) -> Self {
        Self {
            paused: repair.tuning.repair_paused,
            forced: repair.tuning.repair_forced,
            limit_bytes_per_s: repair.tuning.repair_bytes_per_s,
            balance_off: repair.tuning.balance_off,
            held: repair.held,
            one_left: repair.one_left,
            under: repair.under,
            leaving: repair.leaving,
            misplaced: repair.misplaced,
            copying: repair.copying,
            copied: repair.copied,
            balanced: repair.balanced,
            bytes_per_s: repair.bytes_per_s,
            eta_ms: (repair.eta_ms > 0).then_some(repair.eta_ms),
            failed: repair.failed,
        }
    }
}

impl Server {
    fn new(server: &ServerStatus, rates: &Rates) -> Self {
        let mut score = score(server);
        // When it was last heard stands by itself, and would make a change of every look.
        let heartbeat = score.parts.iter_mut().find(|part| part.name == "heartbeat");
        heartbeat.into_iter().for_each(|part| part.figure.clear());
        Self {
            score,
            address: server.address.clone(),
            state: server.liveness,
            zone: server.zone.clone(),
            host: server.host.clone(),
            version: server.version.clone(),
            heard_unix_ms: rates.heard_unix_ms(&server.address),
            machine: server.host_report,
        }
    }
}

/// The operator's word, for programs.
pub(crate) fn duty_name(volume: &VolumeStatus) -> &'static str {
    match volume.duty {
        _ if volume.is_drained() => "drained",
        Duty::Serving => "serving",
        Duty::Maintenance { .. } => "maintenance",
        Duty::Draining => "draining",
        Duty::Removed => "removed",
    }
}

impl Volume {
    fn new(volume: &VolumeStatus, server: &str, rates: &Rates) -> Self {
        let report = volume.report.clone();
        let (write_bytes_per_s, read_bytes_per_s) = rates.of_volume(report.id);
        let flow = |flow: &Flow| ChainFlow {
            from: flow.from.clone(),
            position: u8::from(!flow.head),
            next: match flow.next.is_zero() {
                true => String::new(),
                false => flow.next.to_string(),
            },
            in_flight: flow.in_flight,
            blocks: flow.blocks,
            bytes_per_s: rates.of_flow(report.id, flow),
            lag_us: flow.lag_us,
        };
        Self {
            flows: report.flows.iter().map(flow).collect(),
            id: report.id.to_string(),
            server: server.to_owned(),
            // One word for people: a volume that is not heard from may say what it likes.
            state: match (volume.liveness, report.state) {
                (Liveness::Dead, _) => "dead",
                (Liveness::Suspect, _) => "suspect",
                (Liveness::Alive, VolumeState::Serving) => "serving",
                (Liveness::Alive, VolumeState::Full) => "full",
                (Liveness::Alive, VolumeState::Failed) => "failed",
            },
            liveness: volume.liveness,
            reason: report.reason,
            address: report.address,
            directory: report.directory,
            duty: duty_name(volume),
            until_unix_ms: match volume.duty {
                Duty::Maintenance { until_unix_ms } => until_unix_ms,
                _ => 0,
            },
            returning: volume.returning,
            suspicion: volume.suspicion.clone(),
            capacity_bytes: report.capacity_bytes,
            used_bytes: report.used_bytes,
            free_bytes: report.free_bytes,
            blocks: volume.blocks,
            replicas: report.replicas,
            corrupt: report.corrupt,
            suspects: report.suspects,
            pending_deletes: volume.pending_deletes,
            write_bytes: report.write_bytes,
            read_bytes: report.read_bytes,
            write_bytes_per_s,
            read_bytes_per_s,
            flushes: report.flushes,
            in_flight: report.in_flight,
            io_errors: report.io_errors,
            write: report.write,
            flush: report.flush,
            read: report.read,
            scrub: report.scrub,
        }
    }
}
