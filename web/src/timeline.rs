//! What has happened to the cluster: the differences between two looks at it, as events for people and programs.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use utoipa::ToSchema;

use blockyard_wire::types::{ClusterStatus, Liveness, VolumeId, VolumeState};

use crate::document::duty_name;
use crate::health::{Level, Subject};

/// Events that are kept.
const EVENTS_MAX: usize = 1000;

/// Something that has happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    /// Counts up.
    pub(crate) id: u64,
    at_unix_ms: u64,
    /// Names it for programs.
    kind: &'static str,
    #[schema(value_type = String)]
    level: Level,
    subject: Subject,
    /// Of what, where it is a number of things.
    count: u64,
}

/// `GET /api/v1/timeline`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Events {
    /// The newest last.
    events: Vec<Event>,
    /// Whether there are older ones.
    more: bool,
}

/// What events are told from.
struct Seen {
    servers: BTreeMap<String, Liveness>,
    volumes: BTreeMap<VolumeId, (VolumeState, &'static str)>,
    repairing: bool,
    held: bool,
    paused: bool,
    missing: bool,
    read_only: bool,
}

/// The events of the nameserver's life.
#[derive(Default)]
pub(crate) struct Timeline {
    seen: Option<Seen>,
    events: VecDeque<Event>,
    last_id: u64,
}

impl Timeline {
    /// Looks at the cluster; what has happened since the last look.
    pub(crate) fn look(&mut self, status: &ClusterStatus) -> Vec<Event> {
        let now = Seen::of(status);
        let Some(before) = self.seen.take() else {
            self.seen = Some(now);
            return vec![self.event(status, "nameserver_started", Level::Ok, Subject::cluster(), 0)];
        };
        let mut found = Vec::new();
        let mut say = |kind, level, subject, count| found.push((kind, level, subject, count));
        for server in &status.servers {
            let subject = || Subject::server(&server.address);
            match (before.servers.get(&server.address), server.liveness) {
                (None, Liveness::Alive) => say("server_joined", Level::Ok, subject(), 0),
                (Some(Liveness::Alive), Liveness::Suspect) => {
                    say("server_silent", Level::Warning, subject(), 0)
                }
                (Some(Liveness::Alive | Liveness::Suspect), Liveness::Dead) => {
                    say("server_lost", Level::Critical, subject(), 0)
                }
                (Some(Liveness::Suspect | Liveness::Dead), Liveness::Alive) => {
                    say("server_returned", Level::Ok, subject(), 0)
                }
                _ => {}
            }
            for volume in &server.volumes {
                let report = &volume.report;
                let Some((state, duty)) = before.volumes.get(&report.id) else {
                    continue;
                };
                let subject = || Subject::volume(volume);
                match report.state {
                    now if now == *state => {}
                    VolumeState::Failed => say("volume_failed", Level::Critical, subject(), 0),
                    VolumeState::Full => say("volume_full", Level::Warning, subject(), 0),
                    VolumeState::Serving => say("volume_serving", Level::Ok, subject(), 0),
                }
                let now = duty_name(volume);
                if now != *duty {
                    let kind = match now {
                        "draining" => "volume_draining",
                        "drained" => "volume_drained",
                        "maintenance" => "volume_maintenance",
                        "removed" => "volume_removed",
                        _ => "volume_serving",
                    };
                    say(kind, Level::Ok, subject(), 0);
                }
            }
        }
        let repair = &status.repair;
        let blocks = repair.waiting().blocks;
        for (was, is, kinds, levels, count) in [
            (
                before.repairing,
                now.repairing,
                ("repair_started", "repair_ended"),
                (Level::Warning, Level::Ok),
                blocks,
            ),
            (
                before.held && !before.paused,
                now.held && !now.paused,
                ("repair_held", "repair_resumed"),
                (Level::Warning, Level::Ok),
                blocks,
            ),
            (
                before.paused,
                now.paused,
                ("repair_paused", "repair_resumed"),
                (Level::Warning, Level::Ok),
                blocks,
            ),
            (
                before.missing,
                now.missing,
                ("blocks_missing", "blocks_readable"),
                (Level::Critical, Level::Ok),
                status.missing_blocks,
            ),
            (
                before.read_only,
                now.read_only,
                ("read_only", "writable"),
                (Level::Critical, Level::Ok),
                0,
            ),
        ] {
            match (was, is) {
                (false, true) => say(kinds.0, levels.0, Subject::cluster(), count),
                (true, false) => say(kinds.1, levels.1, Subject::cluster(), 0),
                _ => {}
            }
        }
        self.seen = Some(now);
        found
            .into_iter()
            .map(|(kind, level, subject, count)| self.event(status, kind, level, subject, count))
            .collect()
    }

    fn event(
        &mut self,
        status: &ClusterStatus,
        kind: &'static str,
        level: Level,
        subject: Subject,
        count: u64,
    ) -> Event {
        self.last_id += 1;
        let event = Event {
            id: self.last_id,
            at_unix_ms: status.cluster.now_unix_ms,
            kind,
            level,
            subject,
            count,
        };
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event.clone());
        event
    }

    /// At most `limit` events before the number `before`.
    pub(crate) fn events(&self, before: u64, limit: usize) -> Events {
        let older = self.events.iter().take_while(|event| event.id < before);
        let older: Vec<_> = older.cloned().collect();
        let from = older.len().saturating_sub(limit);
        Events {
            more: from > 0,
            events: older.into_iter().skip(from).collect(),
        }
    }

    /// The last `limit` events.
    pub(crate) fn last(&self, limit: usize) -> Vec<Event> {
        self.events(u64::MAX, limit).events
    }
}

impl Seen {
    fn of(status: &ClusterStatus) -> Self {
        let volumes = status.servers.iter().flat_map(|server| &server.volumes);
        let repair = &status.repair;
        let work = repair.waiting().blocks > 0;
        Self {
            servers: status
                .servers
                .iter()
                .map(|server| (server.address.clone(), server.liveness))
                .collect(),
            volumes: volumes
                .map(|volume| {
                    let is = (volume.report.state, duty_name(volume));
                    (volume.report.id, is)
                })
                .collect(),
            repairing: work && repair.held.is_empty(),
            // A nameserver that has just started waits, which is no news.
            held: work && !repair.held.is_empty() && !status.safe_mode,
            paused: repair.tuning.repair_paused,
            missing: status.missing_blocks > 0 && !status.safe_mode,
            read_only: !status.read_only.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::{Duty, ServerStatus, VolumeStatus};

    use super::*;

    fn status() -> ClusterStatus {
        let mut volume = VolumeStatus {
            blocks: 1,
            ..VolumeStatus::default()
        };
        volume.report.id = VolumeId([1; 16]);
        volume.report.state = VolumeState::Serving;
        ClusterStatus {
            servers: vec![ServerStatus {
                address: "d:1".into(),
                volumes: vec![volume],
                ..ServerStatus::default()
            }],
            ..ClusterStatus::default()
        }
    }

    fn kinds(timeline: &mut Timeline, status: &ClusterStatus) -> Vec<&'static str> {
        timeline.look(status).iter().map(|event| event.kind).collect()
    }

    #[test]
    fn changes_become_events_once() {
        let mut timeline = Timeline::default();
        let mut now = ClusterStatus::default();
        assert_eq!(kinds(&mut timeline, &now), ["nameserver_started"]);
        now = status();
        assert_eq!(kinds(&mut timeline, &now), ["server_joined"]);
        assert!(kinds(&mut timeline, &now).is_empty());
        now.servers[0].liveness = Liveness::Suspect;
        assert_eq!(kinds(&mut timeline, &now), ["server_silent"]);
        now.servers[0].liveness = Liveness::Dead;
        now.missing_blocks = 3;
        assert_eq!(kinds(&mut timeline, &now), ["server_lost", "blocks_missing"]);
        now = status();
        assert_eq!(kinds(&mut timeline, &now), ["server_returned", "blocks_readable"]);
        now.servers[0].volumes[0].duty = Duty::Draining;
        assert_eq!(kinds(&mut timeline, &now), ["volume_draining"]);
        now.servers[0].volumes[0].blocks = 0;
        now.servers[0].volumes[0].report.state = VolumeState::Failed;
        assert_eq!(kinds(&mut timeline, &now), ["volume_failed", "volume_drained"]);
        now.repair.under.blocks = 5;
        assert_eq!(kinds(&mut timeline, &now), ["repair_started"]);
        now.repair.held = "paused".into();
        now.repair.tuning.repair_paused = true;
        assert_eq!(kinds(&mut timeline, &now), ["repair_ended", "repair_paused"]);

        let all = timeline.events(u64::MAX, 100);
        assert!(!all.more && all.events.windows(2).all(|pair| pair[0].id + 1 == pair[1].id));
        let some = timeline.events(4, 2);
        assert!(some.more && some.events.iter().map(|event| event.id).eq([2, 3]));
        assert_eq!(timeline.last(1)[0].kind, "repair_paused");
    }
}
