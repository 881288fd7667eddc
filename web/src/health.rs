//! The cluster's health in one sentence, with the reasons it rests on: a pure function of the status.

use serde::Serialize;
use utoipa::ToSchema;

use blockyard_wire::types::{ClusterStatus, Duty, Liveness, VolumeState, VolumeStatus};

/// How bad it is, mildest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// All is as wanted.
    Ok,
    /// Data is safe, but something needs time or a hand.
    Warning,
    /// Data can't be read, or nothing can be stored.
    Critical,
}

/// What something is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(crate) struct Subject {
    /// `server`, `volume` or `cluster`.
    kind: &'static str,
    /// An address, or an id.
    id: String,
    /// For people.
    name: String,
}

impl Subject {
    /// The whole cluster.
    pub(crate) fn cluster() -> Self {
        Self {
            kind: "cluster",
            id: String::new(),
            name: String::new(),
        }
    }

    /// A dataserver.
    pub(crate) fn server(address: &str) -> Self {
        Self {
            kind: "server",
            id: address.to_owned(),
            name: address.to_owned(),
        }
    }

    /// A volume.
    pub(crate) fn volume(volume: &VolumeStatus) -> Self {
        Self {
            kind: "volume",
            id: volume.report.id.to_string(),
            name: volume.report.directory.clone(),
        }
    }
}

/// One thing that is not as wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(crate) struct Reason {
    #[schema(value_type = String)]
    level: Level,
    /// Names the reason for programs.
    code: &'static str,
    count: u64,
    /// For people.
    text: String,
    /// The evidence, as far as it has a name; the first few.
    subjects: Vec<Subject>,
}

/// The verdict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// The worst of the reasons.
    #[schema(value_type = String)]
    pub(crate) level: Level,
    /// For people.
    pub(crate) sentence: String,
    /// Worst first.
    reasons: Vec<Reason>,
}

/// Subjects that a reason names.
const SUBJECTS_MAX: usize = 8;

/// Judges what the nameserver sees.
pub(crate) fn judge(status: &ClusterStatus) -> Health {
    let mut reasons = Vec::new();
    let mut add = |level, code, count: u64, subjects: Vec<Subject>, text: String| {
        if count > 0 {
            reasons.push(Reason {
                level,
                code,
                count,
                text,
                subjects,
            });
        }
    };
    let servers = |liveness| {
        let of = status.servers.iter().filter(move |server| {
            let wanted = server.volumes.iter().any(|volume| volume.duty != Duty::Removed);
            server.liveness == liveness && (wanted || server.volumes.is_empty())
        });
        let subjects = of.clone().map(|server| Subject::server(&server.address));
        (of.count() as u64, subjects.take(SUBJECTS_MAX).collect())
    };
    let volumes = |is: &dyn Fn(&VolumeStatus) -> bool| {
        let all = status.servers.iter().flat_map(|server| &server.volumes);
        let of: Vec<_> = all
            .filter(|volume| volume.duty != Duty::Removed && is(volume))
            .collect();
        let subjects = of.iter().take(SUBJECTS_MAX).map(|volume| Subject::volume(volume));
        (of.len() as u64, subjects.collect::<Vec<_>>())
    };
    let in_state = |state| {
        volumes(&move |volume: &VolumeStatus| {
            volume.liveness == Liveness::Alive && volume.report.state == state
        })
    };
    let (serving, _) = in_state(VolumeState::Serving);
    let (full, full_ones) = in_state(VolumeState::Full);
    let (failed, failed_ones) = in_state(VolumeState::Failed);

    add(
        Level::Critical,
        "read_only",
        u64::from(!status.read_only.is_empty()),
        vec![Subject::cluster()],
        "nothing can be changed on the nameserver".into(),
    );
    let missing = status.missing_blocks;
    add(
        Level::Critical,
        "missing_blocks",
        missing,
        Vec::new(),
        format!("{} no readable replica", have(missing, "block")),
    );
    if status.servers.is_empty() {
        add(
            Level::Critical,
            "no_servers",
            1,
            Vec::new(),
            "no dataserver has joined yet".into(),
        );
    } else if serving == 0 && full > 0 {
        add(
            Level::Critical,
            "all_full",
            full,
            full_ones.clone(),
            "no volume has room for new blocks".into(),
        );
    } else if serving == 0 {
        add(
            Level::Critical,
            "none_serving",
            1,
            Vec::new(),
            "no volume is serving".into(),
        );
    }
    let (dead, subjects) = servers(Liveness::Dead);
    add(
        Level::Warning,
        "dead_servers",
        dead,
        subjects,
        format!("{} lost", are(dead, "server")),
    );
    let (silent, subjects) = servers(Liveness::Suspect);
    add(
        Level::Warning,
        "suspect_servers",
        silent,
        subjects,
        format!("{} silent", are(silent, "server")),
    );
    add(
        Level::Warning,
        "failed_volumes",
        failed,
        failed_ones,
        format!("{} failed", have(failed, "volume")),
    );
    if serving > 0 {
        add(
            Level::Warning,
            "full_volumes",
            full,
            full_ones,
            format!("{} full", are(full, "volume")),
        );
    }
    let corrupt = status.corrupt_replicas;
    let (_, subjects) = volumes(&|volume| volume.report.corrupt > 0);
    add(
        Level::Warning,
        "corrupt_replicas",
        corrupt,
        subjects,
        format!("{} damaged", are(corrupt, "replica")),
    );
    let (images, subjects) = volumes(&|volume| !volume.suspicion.is_empty());
    add(
        Level::Warning,
        "suspicious_volumes",
        images,
        subjects,
        match images {
            1 => "1 volume looks like a copy or an old image of itself".to_owned(),
            _ => format!("{images} volumes look like copies or old images of themselves"),
        },
    );
    let under = status.under_replicated_blocks;
    add(
        Level::Warning,
        "under_replicated_blocks",
        under,
        Vec::new(),
        format!("{} fewer replicas than wanted", have(under, "block")),
    );
    let held = !status.repair.held.is_empty() && !status.safe_mode && status.read_only.is_empty();
    add(
        Level::Warning,
        "repair_held",
        u64::from(held),
        Vec::new(),
        "repair is held".into(),
    );
    let wanted = u64::from(status.cluster.replication);
    if serving > 0 && serving < wanted {
        add(
            Level::Warning,
            "few_volumes",
            serving,
            Vec::new(),
            format!("only {serving} of the {wanted} volumes that a new block wants can take one"),
        );
    }
    add(
        Level::Warning,
        "safe_mode",
        u64::from(status.safe_mode),
        Vec::new(),
        "the nameserver has just started and waits for its dataservers".into(),
    );

    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
    let level = reasons.first().map_or(Level::Ok, |reason| reason.level);
    Health {
        level,
        sentence: sentence(level, &reasons, status),
        reasons,
    }
}

fn sentence(level: Level, reasons: &[Reason], status: &ClusterStatus) -> String {
    let opening = match level {
        Level::Ok => {
            return match status.blocks {
                0 => "All is well: the cluster is ready and empty.".to_owned(),
                1 => "All is well: the one block has all its replicas.".to_owned(),
                blocks => format!("All is well: all {blocks} blocks have all their replicas."),
            };
        }
        Level::Warning if status.missing_blocks == 0 => "Everything can be read, but",
        Level::Warning => "Something needs attention:",
        Level::Critical => "Action is needed:",
    };
    let texts: Vec<&str> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    let all = match texts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => texts.concat(),
    };
    format!("{opening} {all}.")
}

fn have(count: u64, thing: &str) -> String {
    match count {
        1 => format!("1 {thing} has"),
        _ => format!("{count} {thing}s have"),
    }
}

fn are(count: u64, thing: &str) -> String {
    match count {
        1 => format!("1 {thing} is"),
        _ => format!("{count} {thing}s are"),
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::ServerStatus;

    use super::*;

    fn server(liveness: Liveness, state: VolumeState) -> ServerStatus {
        let mut volume = VolumeStatus {
            liveness,
            ..VolumeStatus::default()
        };
        volume.report.state = state;
        ServerStatus {
            liveness,
            volumes: vec![volume],
            ..ServerStatus::default()
        }
    }

    fn cluster(servers: Vec<ServerStatus>) -> ClusterStatus {
        let mut status = ClusterStatus {
            servers,
            ..ClusterStatus::default()
        };
        status.cluster.replication = 2;
        status
    }

    fn codes(health: &Health) -> Vec<&str> {
        health.reasons.iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn a_whole_cluster_is_well() {
        let alive = || server(Liveness::Alive, VolumeState::Serving);
        let mut status = cluster(vec![alive(), alive()]);
        assert_eq!(judge(&status).level, Level::Ok);
        status.blocks = 7;
        assert!(judge(&status).sentence.contains("all 7 blocks"));
    }

    #[test]
    fn losses_are_named_worst_first() {
        let mut status = cluster(vec![
            server(Liveness::Alive, VolumeState::Serving),
            server(Liveness::Dead, VolumeState::Serving),
        ]);
        status.under_replicated_blocks = 1;
        let health = judge(&status);
        assert_eq!(health.level, Level::Warning);
        assert_eq!(
            codes(&health),
            ["dead_servers", "under_replicated_blocks", "few_volumes"]
        );
        assert_eq!(
            health.sentence,
            "Everything can be read, but 1 server is lost, 1 block has fewer replicas than wanted and only 1 of \
             the 2 volumes that a new block wants can take one."
        );
        status.missing_blocks = 2;
        let health = judge(&status);
        assert_eq!(
            (health.level, codes(&health)[0]),
            (Level::Critical, "missing_blocks")
        );
        assert!(health.sentence.contains("2 blocks have no readable replica"));
    }

    #[test]
    fn nothing_to_write_to_is_critical() {
        assert_eq!(codes(&judge(&cluster(vec![]))), ["no_servers"]);
        let full = cluster(vec![server(Liveness::Alive, VolumeState::Full)]);
        assert_eq!(codes(&judge(&full)), ["all_full"]);
        let failed = cluster(vec![server(Liveness::Alive, VolumeState::Failed)]);
        assert_eq!(codes(&judge(&failed)), ["none_serving", "failed_volumes"]);
    }
}
