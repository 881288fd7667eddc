//! The one table of metrics: names, units, what they mean and where their values come from.
//!
//! A name is `blockyard_<role>_<thing>_<unit>`, and `_total` for what only grows. No label names a file or a block: their
//! number has no bound.

use blockyard_wire::types::{
    Backlog, ClusterStatus, HostReport, LatencyReport, Liveness, RepairStatus, ServerStatus, VolumeReport,
    VolumeState,
};

/// What a value can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Rise and fall.
    Gauge,
    /// Only rise, until its process starts again.
    Counter,
}

/// What a value is counted in; a number of things has no unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    None,
    Bytes,
    Seconds,
    /// 0 to 1.
    Ratio,
}

impl Unit {
    /// As it stands in a name.
    pub(crate) fn word(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Bytes => Some("bytes"),
            Self::Seconds => Some("seconds"),
            Self::Ratio => Some("ratio"),
        }
    }
}

/// Takes values: the label's value where the metric has one of its own, and the number.
pub(crate) type Put<'a> = &'a mut dyn FnMut(&'static str, f64);

/// Where values come from, and so which labels they have.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// The cluster: no label.
    Cluster(fn(&ClusterStatus, Put<'_>)),
    /// Each server: `server`, `zone`.
    Server(fn(&ServerStatus, Put<'_>)),
    /// Each volume: `server` (only the nameserver says so), `volume`.
    Volume(fn(&VolumeReport, Put<'_>)),
}

/// One metric.
pub(crate) struct Metric {
    /// Its name without role, unit and `_total`.
    pub thing: &'static str,
    pub unit: Unit,
    pub kind: Kind,
    /// A label of its own, or empty.
    pub label: &'static str,
    /// What it means, for people.
    pub help: &'static str,
    pub source: Source,
}

use Kind::{Counter, Gauge};
use Source::{Cluster, Server, Volume};

const fn metric(thing: &'static str, unit: Unit, kind: Kind, help: &'static str, source: Source) -> Metric {
    Metric {
        thing,
        unit,
        kind,
        label: "",
        help,
        source,
    }
}

const fn by(label: &'static str, metric: Metric) -> Metric {
    Metric { label, ..metric }
}

/// All metrics, in the order in which they are told.
pub(crate) const METRICS: &[Metric] = &[
    metric(
        "files",
        Unit::None,
        Gauge,
        "Files, those in the trash not counted.",
        Cluster(|s, put| put("", s.files as f64)),
    ),
    metric(
        "directories",
        Unit::None,
        Gauge,
        "Directories, the root not counted.",
        Cluster(|s, put| put("", s.directories as f64)),
    ),
    metric(
        "file",
        Unit::Bytes,
        Gauge,
        "Bytes of all files, each counted once.",
        Cluster(|s, put| put("", s.file_bytes as f64)),
    ),
    metric(
        "trash_files",
        Unit::None,
        Gauge,
        "Files in the trash.",
        Cluster(|s, put| put("", s.trash_files as f64)),
    ),
    metric(
        "trash",
        Unit::Bytes,
        Gauge,
        "Bytes of the files in the trash.",
        Cluster(|s, put| put("", s.trash_bytes as f64)),
    ),
    metric(
        "blocks",
        Unit::None,
        Gauge,
        "Blocks wanted.",
        Cluster(|s, put| put("", s.blocks as f64)),
    ),
    metric(
        "missing_blocks",
        Unit::None,
        Gauge,
        "Blocks of which no good replica can be read.",
        Cluster(|s, put| put("", s.missing_blocks as f64)),
    ),
    metric(
        "under_replicated_blocks",
        Unit::None,
        Gauge,
        "Blocks with fewer good replicas than wanted, but at least one.",
        Cluster(|s, put| put("", s.under_replicated_blocks as f64)),
    ),
    metric(
        "corrupt_replicas",
        Unit::None,
        Gauge,
        "Replicas known to be damaged.",
        Cluster(|s, put| put("", s.corrupt_replicas as f64)),
    ),
    metric(
        "uploads",
        Unit::None,
        Gauge,
        "Uploads in progress.",
        Cluster(|s, put| put("", s.leases as f64)),
    ),
    metric(
        "pending_deletes",
        Unit::None,
        Gauge,
        "Replicas that volumes still have to delete.",
        Cluster(|s, put| put("", s.pending_deletes as f64)),
    ),
    metric(
        "uptime",
        Unit::Seconds,
        Gauge,
        "Since the nameserver started.",
        Cluster(|s, put| put("", s.uptime_ms as f64 / 1000.0)),
    ),
    metric(
        "journal",
        Unit::Bytes,
        Gauge,
        "Bytes of the journal since the last snapshot.",
        Cluster(|s, put| put("", s.journal_bytes as f64)),
    ),
    metric(
        "safe_mode",
        Unit::None,
        Gauge,
        "1 while repair and deletion wait for the dataservers that are known.",
        Cluster(|s, put| put("", flag(s.safe_mode))),
    ),
    metric(
        "read_only",
        Unit::None,
        Gauge,
        "1 while nothing can be changed, because the journal can't be written.",
        Cluster(|s, put| put("", flag(!s.read_only.is_empty()))),
    ),
    by(
        "class",
        metric(
            "repair_waiting_blocks",
            Unit::None,
            Gauge,
            "Blocks that wait for copies, by what they need them for.",
            Cluster(|s, put| classes(&s.repair, put, |b| b.blocks)),
        ),
    ),
    by(
        "class",
        metric(
            "repair_waiting",
            Unit::Bytes,
            Gauge,
            "Bytes of the blocks that wait for copies, by what they need them for.",
            Cluster(|s, put| classes(&s.repair, put, |b| b.bytes)),
        ),
    ),
    metric(
        "repair_copying_blocks",
        Unit::None,
        Gauge,
        "Copies under way.",
        Cluster(|s, put| put("", f64::from(s.repair.copying))),
    ),
    metric(
        "repair_copied_blocks",
        Unit::None,
        Counter,
        "Blocks copied for repair.",
        Cluster(|s, put| put("", s.repair.copied.blocks as f64)),
    ),
    metric(
        "repair_copied",
        Unit::Bytes,
        Counter,
        "Bytes copied for repair.",
        Cluster(|s, put| put("", s.repair.copied.bytes as f64)),
    ),
    metric(
        "repair_failed_blocks",
        Unit::None,
        Counter,
        "Copies that failed, and are tried again.",
        Cluster(|s, put| put("", s.repair.failed as f64)),
    ),
    metric(
        "repair_held",
        Unit::None,
        Gauge,
        "1 while repair is held back although there is work.",
        Cluster(|s, put| put("", flag(!s.repair.held.is_empty()))),
    ),
    metric(
        "balanced",
        Unit::Bytes,
        Counter,
        "Bytes moved from full volumes to empty ones.",
        Cluster(|s, put| put("", s.repair.balanced.bytes as f64)),
    ),
    by(
        "state",
        metric(
            "dataservers",
            Unit::None,
            Gauge,
            "Dataservers known, by whether they are heard from.",
            Cluster(servers),
        ),
    ),
    metric(
        "server_silence",
        Unit::Seconds,
        Gauge,
        "Since the last heartbeat of a server.",
        Server(|s, put| put("", s.since_heartbeat_ms as f64 / 1000.0)),
    ),
    metric(
        "server_cpu_busy",
        Unit::Ratio,
        Gauge,
        "How busy all cores of the server's machine are together.",
        Server(|s, put| host(s, put, |h| Some(f64::from(h.cpu_busy_permille?) / 1000.0))),
    ),
    metric(
        "server_load1",
        Unit::None,
        Gauge,
        "The load average over a minute of the server's machine.",
        Server(|s, put| host(s, put, |h| Some(f64::from(h.load1_permille?) / 1000.0))),
    ),
    metric(
        "server_memory",
        Unit::Bytes,
        Gauge,
        "Memory of the server's machine.",
        Server(|s, put| host(s, put, |h| Some(h.memory_bytes? as f64))),
    ),
    metric(
        "server_memory_available",
        Unit::Bytes,
        Gauge,
        "Memory that the server's machine could give to somebody.",
        Server(|s, put| host(s, put, |h| Some(h.memory_available_bytes? as f64))),
    ),
    by(
        "state",
        metric(
            "volume_state",
            Unit::None,
            Gauge,
            "1 for the state that a volume is in.",
            Volume(state),
        ),
    ),
    metric(
        "volume_capacity",
        Unit::Bytes,
        Gauge,
        "Bytes that the volume may fill.",
        Volume(|v, put| put("", v.capacity_bytes as f64)),
    ),
    metric(
        "volume_used",
        Unit::Bytes,
        Gauge,
        "Bytes of slots in use, headers and padding included.",
        Volume(|v, put| put("", v.used_bytes as f64)),
    ),
    metric(
        "volume_free",
        Unit::Bytes,
        Gauge,
        "Bytes that new blocks can still take.",
        Volume(|v, put| put("", v.free_bytes as f64)),
    ),
    metric(
        "volume_replicas",
        Unit::None,
        Gauge,
        "Replicas held.",
        Volume(|v, put| put("", v.replicas as f64)),
    ),
    metric(
        "volume_corrupt_replicas",
        Unit::None,
        Gauge,
        "Replicas known to be damaged.",
        Volume(|v, put| put("", v.corrupt as f64)),
    ),
    metric(
        "volume_suspect_replicas",
        Unit::None,
        Gauge,
        "Replicas that recovery could not vouch for.",
        Volume(|v, put| put("", v.suspects as f64)),
    ),
    metric(
        "volume_written",
        Unit::Bytes,
        Counter,
        "Payload bytes written.",
        Volume(|v, put| put("", v.write_bytes as f64)),
    ),
    metric(
        "volume_read",
        Unit::Bytes,
        Counter,
        "Payload bytes read.",
        Volume(|v, put| put("", v.read_bytes as f64)),
    ),
    metric(
        "volume_flushes",
        Unit::None,
        Counter,
        "Calls of fdatasync.",
        Volume(|v, put| put("", v.flushes as f64)),
    ),
    metric(
        "volume_client_requests",
        Unit::None,
        Counter,
        "Reads for clients and writes; copies for repair are not in it.",
        Volume(|v, put| put("", v.client_requests as f64)),
    ),
    metric(
        "volume_requests_in_flight",
        Unit::None,
        Gauge,
        "Requests being served.",
        Volume(|v, put| put("", f64::from(v.in_flight))),
    ),
    metric(
        "volume_io_errors",
        Unit::None,
        Counter,
        "Errors of the disk.",
        Volume(|v, put| put("", v.io_errors as f64)),
    ),
    metric(
        "volume_pool",
        Unit::Bytes,
        Gauge,
        "Bytes of buffers.",
        Volume(|v, put| put("", v.pool_bytes as f64)),
    ),
    metric(
        "volume_pool_used",
        Unit::Bytes,
        Gauge,
        "Bytes of buffers in use.",
        Volume(|v, put| put("", v.pool_used_bytes as f64)),
    ),
    by(
        "quantile",
        metric(
            "volume_write",
            Unit::Seconds,
            Gauge,
            "From the last packet until slot and record were written, over the last minute or two.",
            Volume(|v, put| latency(v.write, put)),
        ),
    ),
    by(
        "quantile",
        metric(
            "volume_flush",
            Unit::Seconds,
            Gauge,
            "From the write until all was durable, over the last minute or two.",
            Volume(|v, put| latency(v.flush, put)),
        ),
    ),
    by(
        "quantile",
        metric(
            "volume_read_time",
            Unit::Seconds,
            Gauge,
            "From a request until the disk had answered, over the last minute or two.",
            Volume(|v, put| latency(v.read, put)),
        ),
    ),
    metric(
        "volume_scrub_passes",
        Unit::None,
        Counter,
        "Passes of the scrub that have ended, over the volume's life.",
        Volume(|v, put| put("", v.scrub.passes as f64)),
    ),
    metric(
        "volume_scrub_pass",
        Unit::Bytes,
        Gauge,
        "Bytes that the present pass of the scrub has found whole.",
        Volume(|v, put| put("", v.scrub.pass_bytes as f64)),
    ),
    metric(
        "volume_scrub_damaged",
        Unit::None,
        Gauge,
        "What the present pass of the scrub has found damaged.",
        Volume(|v, put| put("", v.scrub.damaged as f64)),
    ),
    metric(
        "volume_scrub_last_pass_time",
        Unit::Seconds,
        Gauge,
        "When the last pass of the scrub ended, since 1970; 0: none has.",
        Volume(|v, put| put("", v.scrub.last_pass_unix_ms as f64 / 1000.0)),
    ),
];

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn classes(repair: &RepairStatus, put: Put<'_>, of: fn(&Backlog) -> u64) {
    for (class, backlog) in [
        ("one_left", &repair.one_left),
        ("under", &repair.under),
        ("leaving", &repair.leaving),
        ("misplaced", &repair.misplaced),
    ] {
        put(class, of(backlog) as f64);
    }
}

fn servers(status: &ClusterStatus, put: Put<'_>) {
    for (name, liveness) in [
        ("alive", Liveness::Alive),
        ("suspect", Liveness::Suspect),
        ("dead", Liveness::Dead),
    ] {
        let of = status.servers.iter().filter(|server| server.liveness == liveness);
        put(name, of.count() as f64);
    }
}

/// What could not be measured is not told: no figure is better than one that is made up.
fn host(server: &ServerStatus, put: Put<'_>, of: fn(&HostReport) -> Option<f64>) {
    if let Some(value) = of(&server.host_report) {
        put("", value);
    }
}

fn state(volume: &VolumeReport, put: Put<'_>) {
    for (name, state) in [
        ("serving", VolumeState::Serving),
        ("full", VolumeState::Full),
        ("failed", VolumeState::Failed),
    ] {
        put(name, flag(volume.state == state));
    }
}

fn latency(of_late: LatencyReport, put: Put<'_>) {
    if of_late.count > 0 {
        put("0.5", f64::from(of_late.p50_us) / 1e6);
        put("0.99", f64::from(of_late.p99_us) / 1e6);
    }
}
