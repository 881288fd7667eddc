//! The cluster's health in one sentence, with the reasons it rests on: a pure function of the status.

use serde::Serialize;

use blockyard_wire::types::{ClusterStatus, Liveness, VolumeState};

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

/// One thing that is not as wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Reason {
    level: Level,
    /// Names the reason for programs.
    code: &'static str,
    count: u64,
    /// For people.
    text: String,
}

/// The verdict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Health {
    /// The worst of the reasons.
    pub(crate) level: Level,
    /// For people.
    pub(crate) sentence: String,
    /// Worst first.
    reasons: Vec<Reason>,
}

/// Judges what the nameserver sees.
pub(crate) fn judge(status: &ClusterStatus) -> Health {
    let mut reasons = Vec::new();
    let mut add = |level, code, count: u64, text: String| {
        if count > 0 {
            reasons.push(Reason {
                level,
                code,
                count,
                text,
            });
        }
    };
    let volumes = || status.servers.iter().flat_map(|server| &server.volumes);
    let count = |state| {
        volumes()
            .filter(|v| v.liveness == Liveness::Alive && v.report.state == state)
            .count() as u64
    };
    let servers = |liveness| {
        let of = status.servers.iter().filter(|server| server.liveness == liveness);
        of.count() as u64
    };
    let (serving, full, failed) = (
        count(VolumeState::Serving),
        count(VolumeState::Full),
        count(VolumeState::Failed),
    );

    add(
        Level::Critical,
        "read_only",
        u64::from(!status.read_only.is_empty()),
        "nothing can be changed on the nameserver".into(),
    );
    let missing = status.missing_blocks;
    add(
        Level::Critical,
        "missing_blocks",
        missing,
        format!("{} no readable replica", have(missing, "block")),
    );
    if status.servers.is_empty() {
        add(
            Level::Critical,
            "no_servers",
            1,
            "no dataserver has joined yet".into(),
        );
    } else if serving == 0 && full > 0 {
        add(
            Level::Critical,
            "all_full",
            full,
            "no volume has room for new blocks".into(),
        );
    } else if serving == 0 {
        add(Level::Critical, "none_serving", 1, "no volume is serving".into());
    }
    let dead = servers(Liveness::Dead);
    add(
        Level::Warning,
        "dead_servers",
        dead,
        format!("{} lost", are(dead, "server")),
    );
    let silent = servers(Liveness::Suspect);
    add(
        Level::Warning,
        "suspect_servers",
        silent,
        format!("{} silent", are(silent, "server")),
    );
    add(
        Level::Warning,
        "failed_volumes",
        failed,
        format!("{} failed", have(failed, "volume")),
    );
    if serving > 0 {
        add(
            Level::Warning,
            "full_volumes",
            full,
            format!("{} full", are(full, "volume")),
        );
    }
    let corrupt = status.corrupt_replicas;
    add(
        Level::Warning,
        "corrupt_replicas",
        corrupt,
        format!("{} damaged", are(corrupt, "replica")),
    );
    let under = status.under_replicated_blocks;
    add(
        Level::Warning,
        "under_replicated_blocks",
        under,
        format!("{} fewer replicas than wanted", have(under, "block")),
    );
    let wanted = u64::from(status.cluster.replication);
    if serving > 0 && serving < wanted {
        add(
            Level::Warning,
            "few_volumes",
            serving,
            format!("only {serving} of the {wanted} volumes that a new block wants can take one"),
        );
    }
    add(
        Level::Warning,
        "safe_mode",
        u64::from(status.safe_mode),
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
    use blockyard_wire::types::{ServerStatus, VolumeStatus};

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
