//! The health of a cluster in one word and one sentence.

use blockyard_wire::types::{ClusterStatus, CustodyState, Duty, Liveness, ServerStatus, VolumeState};
use serde::Serialize;

use crate::output::count;

/// How well the cluster keeps its promises just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Every block has all its replicas, every server answers.
    Healthy,
    /// Just started: reports are awaited.
    Starting,
    /// Everything can be read; something is missing that repair or an operator will bring back.
    Degraded,
    /// Something can't be read, or nothing can be written.
    Failing,
}

/// Judges a status: the word, and a sentence for people.
pub fn judge(status: &ClusterStatus) -> (Health, String) {
    let servers = status.servers.len() as u64;
    let is_alive = |server: &&ServerStatus| server.liveness == Liveness::Alive;
    let alive = status.servers.iter().filter(is_alive).count() as u64;
    // Away as the operator knows they are.
    let excused = |server: &&ServerStatus| {
        let mut duties = server.volumes.iter().map(|volume| volume.duty);
        !is_alive(server) && duties.all(|duty| matches!(duty, Duty::Maintenance { .. }))
    };
    let excused = status.servers.iter().filter(excused).count() as u64;
    let volumes = || status.servers.iter().flat_map(|server| &server.volumes);
    let in_state = |state| volumes().filter(|volume| volume.report.state == state).count() as u64;
    let (failed, full) = (in_state(VolumeState::Failed), in_state(VolumeState::Full));
    let mut wrong = Vec::new();
    if !status.read_only.is_empty() {
        wrong.push("the nameserver is read-only".to_owned());
    }
    if status.missing_blocks > 0 {
        wrong.push(format!(
            "{} without a replica that answers",
            count(status.missing_blocks, "block", "blocks")
        ));
    }
    if alive + excused < servers {
        wrong.push(format!(
            "{} not answering",
            count(servers - alive - excused, "server", "servers")
        ));
    }
    if excused > 0 {
        wrong.push(format!(
            "{} away for maintenance",
            count(excused, "server", "servers")
        ));
    }
    if failed > 0 {
        wrong.push(format!("{} failed", count(failed, "volume", "volumes")));
    }
    if status.corrupt_replicas > 0 {
        wrong.push(format!(
            "{} damaged",
            count(status.corrupt_replicas, "replica", "replicas")
        ));
    }
    if status.under_replicated_blocks > 0 {
        let blocks = count(status.under_replicated_blocks, "block", "blocks");
        wrong.push(format!("{blocks} with fewer replicas than wanted"));
    }
    if !status.repair.held.is_empty() && status.under_replicated_blocks > 0 {
        wrong.push("repair is held back".to_owned());
    }
    if full > 0 {
        wrong.push(format!("{} full", count(full, "volume", "volumes")));
    }
    let health = if servers == 0 || alive == 0 {
        if servers == 0 {
            wrong = vec!["no dataserver has joined yet; start one with 'blockyard dataserver'".to_owned()];
        }
        if status.safe_mode {
            Health::Starting
        } else {
            Health::Failing
        }
    } else if status.safe_mode && !wrong.is_empty() && failed == 0 && status.corrupt_replicas == 0 {
        Health::Starting
    } else if status.missing_blocks > 0 || !status.read_only.is_empty() {
        Health::Failing
    } else if wrong.is_empty() {
        Health::Healthy
    } else {
        Health::Degraded
    };
    let sentence = match health {
        Health::Healthy => {
            let servers = count(servers, "server answers", "servers answer");
            format!("healthy: {servers}, every block has all its replicas")
        }
        Health::Starting => format!("starting: {}", wrong.join(", ")),
        Health::Degraded => format!("degraded, everything is readable: {}", wrong.join(", ")),
        Health::Failing => format!("failing: {}", wrong.join(", ")),
    };
    (health, sentence)
}

/// The same, with what the nameserver says of its own data.
pub fn with_custody((health, sentence): (Health, String), custody: &CustodyState) -> (Health, String) {
    if custody.journal_trouble.is_empty() {
        return (health, sentence);
    }
    let trouble = "one of the nameserver's two folders has failed";
    match health {
        Health::Healthy => (
            Health::Degraded,
            format!("degraded, everything is readable: {trouble}"),
        ),
        _ => (health, format!("{sentence}, {trouble}")),
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::VolumeStatus;

    use super::*;

    fn cluster(livenesses: &[Liveness]) -> ClusterStatus {
        let server = |liveness: &Liveness| ServerStatus {
            liveness: *liveness,
            volumes: vec![VolumeStatus::default()],
            ..ServerStatus::default()
        };
        ClusterStatus {
            servers: livenesses.iter().map(server).collect(),
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn every_state_has_its_word() {
        use Liveness::{Alive, Dead, Suspect};
        let word = |status: &ClusterStatus| judge(status).0;
        assert_eq!(word(&cluster(&[Alive, Alive])), Health::Healthy);
        assert_eq!(word(&cluster(&[Alive, Suspect])), Health::Degraded);
        assert_eq!(word(&cluster(&[Dead])), Health::Failing);
        assert_eq!(word(&cluster(&[])), Health::Failing);
        let starting = ClusterStatus {
            safe_mode: true,
            ..cluster(&[])
        };
        assert_eq!(word(&starting), Health::Starting);
        let under = ClusterStatus {
            under_replicated_blocks: 1,
            ..cluster(&[Alive])
        };
        assert_eq!(word(&under), Health::Degraded);
        assert!(judge(&under).1.contains("1 block with fewer replicas"));
        let missing = ClusterStatus {
            missing_blocks: 2,
            ..cluster(&[Alive])
        };
        assert_eq!(word(&missing), Health::Failing);
        let custody = CustodyState {
            journal_trouble: "why".to_owned(),
            ..CustodyState::default()
        };
        let told = with_custody(judge(&cluster(&[Alive])), &custody);
        assert_eq!(told.0, Health::Degraded);
        assert!(told.1.contains("has failed"), "{}", told.1);
        let fine = judge(&cluster(&[Alive]));
        assert_eq!(with_custody(fine.clone(), &CustodyState::default()), fine);
        let read_only = ClusterStatus {
            read_only: "no room".to_owned(),
            ..cluster(&[Alive])
        };
        assert_eq!(word(&read_only), Health::Failing);
        let corrupt = ClusterStatus {
            corrupt_replicas: 1,
            safe_mode: true,
            ..cluster(&[Alive])
        };
        assert_eq!(word(&corrupt), Health::Degraded);
    }
}
