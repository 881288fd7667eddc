//! The cluster as a whole: status and df.

use std::time::Duration;

use blockyard_client::Client;
use blockyard_wire::types::{ClusterStatus, CustodyState, Liveness, ServerStatus, VolumeState, VolumeStatus};
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
    since_heartbeat_ms: u64,
    volumes: Vec<Volume<'a>>,
}

#[derive(Serialize)]
struct Volume<'a> {
    id: String,
    server: &'a str,
    address: &'a str,
    directory: &'a str,
    state: &'static str,
    reason: &'a str,
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
            reason: &report.reason,
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
        }
    }
}

/// One word for a volume: what it says of itself, unless it says nothing any more.
fn state(volume: &VolumeStatus) -> &'static str {
    match (volume.liveness, volume.report.state) {
        (_, VolumeState::Failed) => "failed",
        (Liveness::Dead, _) => "dead",
        (Liveness::Suspect, _) => "suspect",
        (Liveness::Alive, VolumeState::Full) => "full",
        (Liveness::Alive, VolumeState::Serving) => "serving",
    }
}

fn volumes(status: &ClusterStatus) -> impl Iterator<Item = (&ServerStatus, &VolumeStatus)> {
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
    let status = client.status().await?;
    // An older nameserver does not know this call.
    let custody = client.custody_state().await.unwrap_or_default();
    let (health, summary) = health::with_custody(health::judge(&status), &custody);
    if flags.form.json {
        return Ok(output::json(&as_json(&status, &custody, health, &summary))?);
    }
    output::line(summary)?;
    output::line("")?;
    output::line(counts(&status))?;
    if !custody.journal_trouble.is_empty() {
        output::line(format!(
            "journal    one folder has failed: {}",
            output::safe(&custody.journal_trouble)
        ))?;
    }
    if custody.quarantined_reigns > 0 {
        output::line(format!(
            "quarantine {} of a time before this nameserver took over (fsck lists them)",
            output::count(custody.quarantined, "replica", "replicas")
        ))?;
    }
    if status.servers.is_empty() {
        return Ok(());
    }
    let rows = volumes(&status).map(|(server, volume)| {
        let report = &volume.report;
        let silent = Duration::from_millis(server.since_heartbeat_ms);
        let state = match (server.liveness, state(volume)) {
            (Liveness::Alive, state) => state.to_owned(),
            (_, state) => format!("{state} for {}", output::duration(silent)),
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
    output::line("")?;
    output::line(output::table(header, rows))?;
    Ok(())
}

fn as_json<'a>(
    status: &'a ClusterStatus,
    custody: &'a CustodyState,
    health: Health,
    summary: &'a str,
) -> Status<'a> {
    let server = |server: &'a ServerStatus| Server {
        address: &server.address,
        host: &server.host,
        zone: &server.zone,
        version: &server.version,
        state: server.liveness,
        since_heartbeat_ms: server.since_heartbeat_ms,
        volumes: server
            .volumes
            .iter()
            .map(|volume| Volume::of(server, volume))
            .collect(),
    };
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
        servers: status.servers.iter().map(server).collect(),
        volumes: volumes(status)
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

fn percent(part: u64, whole: u64) -> String {
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
    let sum = |of: fn(&VolumeStatus) -> u64| volumes(&status).map(|(_, volume)| of(volume)).sum::<u64>();
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
            volumes: volumes(&status)
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
    let mut rows: Vec<_> = volumes(&status)
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
