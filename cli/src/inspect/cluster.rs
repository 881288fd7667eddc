//! The cluster as a whole: status and df.

use std::time::Duration;

use blockyard_client::Client;
use blockyard_wire::score::{Score, score};
use blockyard_wire::types::{
    ClusterStatus, CustodyState, Duty, HostReport, LatencyReport, Liveness, RepairStatus, ServerStatus,
    VolumeState, VolumeStatus,
};
use serde::Serialize;

use super::health::{self, Health};
use crate::{flags, output};

#[derive(Serialize)]
struct Status<'a> {
    health: Health,
    summary: &'a str,
    cluster: String,
    address: &'a str,
    version: &'a str,
    epoch: u64,
    uptime_ms: u64,
    safe_mode: bool,
    /// Why nothing can be changed; empty when it can.
    read_only: &'a str,
    /// Which of the nameserver's two folders has failed, and why; empty when none has.
    journal_trouble: &'a str,
    quarantined: u64,
    replication: u8,
    min_replicas: u8,
    block_bytes: u32,
    files: u64,
    directories: u64,
    blocks: u64,
    file_bytes: u64,
    under_replicated_blocks: u64,
    missing_blocks: u64,
    corrupt_replicas: u64,
    uploads: u64,
    repairing: u64,
    pending_deletes: u64,
    journal_bytes: u64,
    repair: &'a RepairStatus,
    trash_files: u64,
    trash_bytes: u64,
    servers: Vec<Server<'a>>,
    volumes: Vec<Volume<'a>>,
}

#[derive(Serialize)]
struct Server<'a> {
    address: &'a str,
    host: &'a str,
    zone: &'a str,
    version: &'a str,
    state: Liveness,
    /// With what the operator wants of it.
    word: &'static str,
    since_heartbeat_ms: u64,
    score: Score,
    machine: HostReport,
    volumes: Vec<Volume<'a>>,
}

#[derive(Serialize)]
struct Volume<'a> {
    id: String,
    server: &'a str,
    address: &'a str,
    directory: &'a str,
    state: &'static str,
    duty: Duty,
    reason: &'a str,
    suspicion: &'a str,
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    blocks: u64,
    replicas: u64,
    corrupt: u64,
    suspects: u64,
    pending_deletes: u64,
    in_flight: u32,
    io_errors: u64,
    flushes: u64,
    write_bytes: u64,
    read_bytes: u64,
    pool_used_bytes: u64,
    pool_bytes: u64,
    write: LatencyReport,
    flush: LatencyReport,
    read: LatencyReport,
}

impl<'a> Server<'a> {
    fn of(server: &'a ServerStatus) -> Self {
        Self {
            address: &server.address,
            host: &server.host,
            zone: &server.zone,
            version: &server.version,
            state: server.liveness,
            word: server_state(server),
            since_heartbeat_ms: server.since_heartbeat_ms,
            score: score(server),
            machine: server.host_report,
            volumes: server
                .volumes
                .iter()
                .map(|volume| Volume::of(server, volume))
                .collect(),
        }
    }
}

impl<'a> Volume<'a> {
    fn of(server: &'a ServerStatus, volume: &'a VolumeStatus) -> Self {
        let report = &volume.report;
        Self {
            id: report.id.to_string(),
            server: &server.address,
            address: &report.address,
            directory: &report.directory,
            state: state(volume),
            duty: volume.duty,
            reason: &report.reason,
            suspicion: &volume.suspicion,
            capacity_bytes: report.capacity_bytes,
            used_bytes: report.used_bytes,
            free_bytes: report.free_bytes,
            blocks: volume.blocks,
            replicas: report.replicas,
            corrupt: report.corrupt,
            suspects: report.suspects,
            pending_deletes: volume.pending_deletes,
            in_flight: report.in_flight,
            io_errors: report.io_errors,
            flushes: report.flushes,
            write_bytes: report.write_bytes,
            read_bytes: report.read_bytes,
            pool_used_bytes: report.pool_used_bytes,
            pool_bytes: report.pool_bytes,
            write: report.write,
            flush: report.flush,
            read: report.read,
        }
    }
}

/// One word for a volume: what is wrong with it, else what the operator wants of it, else what it says of itself.
pub(super) fn state(volume: &VolumeStatus) -> &'static str {
    match (volume.liveness, volume.report.state, volume.duty) {
        (_, VolumeState::Failed, _) => "failed",
        (_, _, Duty::Removed) => "removed",
        (Liveness::Alive, _, Duty::Draining) if volume.is_drained() => "drained",
        (Liveness::Alive, _, Duty::Draining) => "draining",
        (_, _, Duty::Maintenance { .. }) => "maintenance",
        (Liveness::Dead, ..) => "dead",
        (Liveness::Suspect, ..) => "suspect",
        (Liveness::Alive, ..) if volume.returning => "returning",
        (Liveness::Alive, VolumeState::Full, _) => "full",
        (Liveness::Alive, VolumeState::Serving, _) => "serving",
    }
}

/// One word for a server: that of its volumes where they all say the same.
fn server_state(server: &ServerStatus) -> &'static str {
    match server.liveness {
        Liveness::Dead if !server.volumes.iter().all(is_excused) => "dead",
        Liveness::Suspect if !server.volumes.iter().all(is_excused) => "suspect",
        _ => {
            let mut states = server.volumes.iter().map(state);
            let first = states.next().unwrap_or("alive");
            if first != "serving" && states.all(|state| state == first) {
                first
            } else {
                "alive"
            }
        }
    }
}

fn is_excused(volume: &VolumeStatus) -> bool {
    matches!(volume.duty, Duty::Maintenance { .. })
}

pub(super) fn all_volumes(status: &ClusterStatus) -> impl Iterator<Item = (&ServerStatus, &VolumeStatus)> {
    status
        .servers
        .iter()
        .flat_map(|server| server.volumes.iter().map(move |volume| (server, volume)))
}

/// Shows the health of the cluster.
///
/// # Errors
/// The nameserver does not answer.
pub async fn status(flags: flags::Status, client: &Client) -> anyhow::Result<()> {
    if flags.watching {
        return super::watch::status(&flags.watch, client).await;
    }
    let status = client.status().await?;
    // An older nameserver does not know this call.
    let custody = client.custody_state().await.unwrap_or_default();
    if flags.form.json {
        let (health, summary) = health::with_custody(health::judge(&status), &custody);
        return Ok(output::json(&as_json(&status, &custody, health, &summary))?);
    }
    Ok(output::line(text(&status, &custody))?)
}

/// The health of a cluster, its counts and its volumes.
pub(super) fn text(status: &ClusterStatus, custody: &CustodyState) -> String {
    let (_, summary) = health::with_custody(health::judge(status), custody);
    let mut head = format!("{summary}\n\n{}", counts(status));
    if !custody.journal_trouble.is_empty() {
        let trouble = output::safe(&custody.journal_trouble);
        head.push_str(&format!("\njournal    one folder has failed: {trouble}"));
    }
    if custody.quarantined_reigns > 0 {
        head.push_str(&format!(
            "\nquarantine {} of a time before this nameserver took over (fsck lists them)",
            output::count(custody.quarantined, "replica", "replicas")
        ));
    }
    match status.servers.is_empty() {
        true => head,
        false => format!("{head}\n\n{}", volume_table(status)),
    }
}

fn volume_table(status: &ClusterStatus) -> String {
    let rows = all_volumes(status).map(|(server, volume)| {
        let report = &volume.report;
        let silent = Duration::from_millis(server.since_heartbeat_ms);
        let state = match (server.liveness, state(volume)) {
            (Liveness::Alive, state) => state.to_owned(),
            (_, state) => format!("{state}, silent for {}", output::duration(silent)),
        };
        let damage = report.corrupt + report.suspects;
        [
            server.address.clone(),
            report.id.to_string()[..8].to_owned(),
            if report.reason.is_empty() {
                state
            } else {
                format!("{state}: {}", report.reason)
            },
            volume.blocks.to_string(),
            if damage == 0 {
                "-".to_owned()
            } else {
                damage.to_string()
            },
            percent(report.used_bytes, report.capacity_bytes),
            output::size(report.free_bytes),
            report.directory.clone(),
        ]
    });
    let header = [
        "SERVER", "VOLUME", "STATE", "BLOCKS>", "DAMAGED>", "USED>", "FREE>", "FOLDER",
    ];
    output::table(header, rows)
}

/// Lists volumes.
///
/// # Errors
/// The nameserver does not answer.
pub async fn volumes(form: flags::Form, client: &Client) -> anyhow::Result<()> {
    let status = client.status().await?;
    if form.json {
        let all: Vec<_> = all_volumes(&status)
            .map(|(server, volume)| Volume::of(server, volume))
            .collect();
        return Ok(output::json(&all)?);
    }
    Ok(output::line(volume_table(&status))?)
}

/// Lists dataservers.
///
/// # Errors
/// The nameserver does not answer.
pub async fn nodes(form: flags::Form, client: &Client) -> anyhow::Result<()> {
    let status = client.status().await?;
    if form.json {
        let all: Vec<_> = status.servers.iter().map(Server::of).collect();
        return Ok(output::json(&all)?);
    }
    let rows = status.servers.iter().map(|server| {
        let sum = |of: fn(&VolumeStatus) -> u64| server.volumes.iter().map(of).sum::<u64>();
        [
            server.address.clone(),
            server.host.clone(),
            server.zone.clone(),
            server_state(server).to_owned(),
            output::duration(Duration::from_millis(server.since_heartbeat_ms)),
            score(server).points.to_string(),
            server.volumes.len().to_string(),
            sum(|volume| volume.blocks).to_string(),
            percent(
                sum(|volume| volume.report.used_bytes),
                sum(|volume| volume.report.capacity_bytes),
            ),
            server.version.clone(),
        ]
    });
    let header = [
        "SERVER", "HOST", "ZONE", "STATE", "HEARD>", "SCORE>", "VOLUMES>", "BLOCKS>", "USED>", "VERSION",
    ];
    Ok(output::line(output::table(header, rows))?)
}

fn as_json<'a>(
    status: &'a ClusterStatus,
    custody: &'a CustodyState,
    health: Health,
    summary: &'a str,
) -> Status<'a> {
    Status {
        health,
        summary,
        cluster: status.cluster.cluster.to_string(),
        address: &status.cluster.address,
        version: &status.version,
        epoch: status.cluster.epoch.number,
        uptime_ms: status.uptime_ms,
        safe_mode: status.safe_mode,
        read_only: &status.read_only,
        journal_trouble: &custody.journal_trouble,
        quarantined: custody.quarantined,
        replication: status.cluster.replication,
        min_replicas: status.cluster.min_replicas,
        block_bytes: status.cluster.block_bytes,
        files: status.files,
        directories: status.directories,
        blocks: status.blocks,
        file_bytes: status.file_bytes,
        under_replicated_blocks: status.under_replicated_blocks,
        missing_blocks: status.missing_blocks,
        corrupt_replicas: status.corrupt_replicas,
        uploads: status.leases,
        repairing: status.repairing,
        pending_deletes: status.pending_deletes,
        journal_bytes: status.journal_bytes,
        repair: &status.repair,
        trash_files: status.trash_files,
        trash_bytes: status.trash_bytes,
        servers: status.servers.iter().map(Server::of).collect(),
        volumes: all_volumes(status)
            .map(|(server, volume)| Volume::of(server, volume))
            .collect(),
    }
}

fn counts(status: &ClusterStatus) -> String {
    let cluster = &status.cluster;
    let mut lines = vec![
        format!(
            "files      {} in {}, {}",
            status.files,
            output::count(status.directories, "folder", "folders"),
            output::size(status.file_bytes)
        ),
        format!(
            "blocks     {} of at most {}, {} wanted of each",
            status.blocks,
            output::size(u64::from(cluster.block_bytes)),
            output::count(u64::from(cluster.replication), "replica", "replicas")
        ),
        format!(
            "replicas   {} under-replicated, {} missing, {} corrupt",
            output::count(status.under_replicated_blocks, "block", "blocks"),
            output::count(status.missing_blocks, "block", "blocks"),
            output::count(status.corrupt_replicas, "replica", "replicas"),
        ),
        format!(
            "under way  {}, {}, {}",
            output::count(status.leases, "upload", "uploads"),
            output::count(status.repairing, "repair", "repairs"),
            output::count(status.pending_deletes, "deletion", "deletions"),
        ),
        format!(
            "nameserver {} (version {}) up for {}",
            cluster.address,
            status.version,
            output::duration(Duration::from_millis(status.uptime_ms))
        ),
    ];
    if status.trash_files > 0 {
        lines.insert(
            1,
            format!(
                "trash      {}, {}",
                output::count(status.trash_files, "file", "files"),
                output::size(status.trash_bytes)
            ),
        );
    }
    if !status.repair.held.is_empty() {
        lines.push(format!("repair     held back: {}", status.repair.held));
    }
    for (server, volume) in all_volumes(status).filter(|(_, volume)| !volume.suspicion.is_empty()) {
        lines.push(format!(
            "beware     {} of {}: {}",
            volume.report.directory, server.address, volume.suspicion
        ));
    }
    if !status.read_only.is_empty() {
        lines.push(format!("read-only  {}", status.read_only));
    }
    if status.safe_mode {
        lines.push("just started: repair and deletion wait for the servers' reports".to_owned());
    }
    lines
        .iter()
        .map(|line| output::safe(line))
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{}%", (u128::from(part) * 100).div_ceil(u128::from(whole)))
}

#[derive(Serialize)]
struct Space<'a> {
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    /// What files can still take, every block with all its replicas.
    free_for_files_bytes: u64,
    replication: u8,
    volumes: Vec<Volume<'a>>,
}

/// Shows the space of the cluster.
///
/// # Errors
/// The nameserver does not answer.
pub async fn df(flags: flags::Df, client: &Client) -> anyhow::Result<()> {
    let status = client.status().await?;
    let sum = |of: fn(&VolumeStatus) -> u64| all_volumes(&status).map(|(_, volume)| of(volume)).sum::<u64>();
    let capacity_bytes = sum(|volume| volume.report.capacity_bytes);
    let used_bytes = sum(|volume| volume.report.used_bytes);
    // Only what answers takes new blocks.
    let free_bytes = sum(|volume| match state(volume) {
        "serving" => volume.report.free_bytes,
        _ => 0,
    });
    let replication = status.cluster.replication;
    let free_for_files_bytes = free_bytes / u64::from(replication.max(1));
    if flags.form.json {
        return Ok(output::json(&Space {
            capacity_bytes,
            used_bytes,
            free_bytes,
            free_for_files_bytes,
            replication,
            volumes: all_volumes(&status)
                .map(|(server, volume)| Volume::of(server, volume))
                .collect(),
        })?);
    }
    let row = |names: [String; 3], [capacity, used, free]: [u64; 3], directory: &str| {
        let [server, volume, state] = names;
        let figures = [capacity, used, free].map(output::size);
        let [shown_capacity, shown_used, shown_free] = figures;
        let directory = directory.to_owned();
        [
            server,
            volume,
            state,
            shown_capacity,
            shown_used,
            shown_free,
            percent(used, capacity),
            directory,
        ]
    };
    let mut rows: Vec<_> = all_volumes(&status)
        .map(|(server, volume)| {
            let report = &volume.report;
            let names = [
                server.address.clone(),
                report.id.to_string()[..8].to_owned(),
                state(volume).to_owned(),
            ];
            let figures = [report.capacity_bytes, report.used_bytes, report.free_bytes];
            row(names, figures, &report.directory)
        })
        .collect();
    let names = ["total".to_owned(), String::new(), String::new()];
    rows.push(row(names, [capacity_bytes, used_bytes, free_bytes], ""));
    let header = [
        "SERVER",
        "VOLUME",
        "STATE",
        "CAPACITY>",
        "USED>",
        "FREE>",
        "USED>",
        "FOLDER",
    ];
    output::line(output::table(header, rows))?;
    output::line(format!(
        "\nroom for {} of files with {} of each block",
        output::size(free_for_files_bytes),
        output::count(u64::from(replication), "replica", "replicas")
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_the_fields_that_scripts_rely_on() {
        let status = ClusterStatus {
            servers: vec![ServerStatus {
                volumes: vec![VolumeStatus::default()],
                ..ServerStatus::default()
            }],
            ..ClusterStatus::default()
        };
        let value = serde_json::json!(as_json(
            &status,
            &CustodyState::default(),
            Health::Healthy,
            "fine"
        ));
        assert_eq!(value["servers"][0]["state"], "alive");
        assert_eq!(value["servers"][0]["volumes"][0]["state"], "serving");
        assert_eq!(value["volumes"][0]["state"], "serving");
        let numbers = [
            "under_replicated_blocks",
            "missing_blocks",
            "corrupt_replicas",
            "files",
            "blocks",
        ];
        for name in numbers {
            assert_eq!(value[name], 0, "{name}");
        }
    }

    #[test]
    fn a_volume_has_one_word() {
        let mut volume = VolumeStatus::default();
        assert_eq!(state(&volume), "serving");
        volume.report.state = VolumeState::Full;
        assert_eq!(state(&volume), "full");
        volume.liveness = Liveness::Suspect;
        assert_eq!(state(&volume), "suspect");
        volume.report.state = VolumeState::Failed;
        assert_eq!(state(&volume), "failed");
    }

    #[test]
    fn percents() {
        assert_eq!(percent(0, 10), "0%");
        assert_eq!(percent(1, 1000), "1%");
        assert_eq!(percent(10, 10), "100%");
        assert_eq!(percent(0, 0), "-");
    }
}
