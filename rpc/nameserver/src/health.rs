//! Who is being heard from: servers and their volumes, alive, suspect or dead. Pure: the time comes in.

use std::collections::{BTreeMap, BTreeSet};

use blockyard_wire::types::{Duty, HostReport, Liveness, VolumeReport, VolumeState};
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::standing::{Spot, Standing, Standings};
use crate::state::blocks::{Blocks, VolumeIndex};

/// For how long clients are remembered that ask nothing more, milliseconds: two heartbeats.
const CLIENTS_MS: u64 = 2_000;

/// Milliseconds of silence that count.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From here on a server is suspect.
    pub suspect_ms: u64,
    /// From here on it is dead.
    pub dead_ms: u64,
}

/// A dataserver.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its failure zone.
    pub zone: String,
    /// Its host, for people.
    pub host: String,
    /// Its version of Blockyard.
    pub version: String,
    /// Its volumes: those that it has joined with, or had when last known.
    pub volumes: BTreeSet<VolumeIndex>,
    /// When it was last heard, on the clock of the caller, milliseconds.
    pub heard_ms: u64,
    /// The registration of its connection, while that lasts.
    pub registration: Option<u64>,
    /// What its machine was doing when it was last heard.
    pub machine: HostReport,
}

/// A server that has come.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// `HOST:PORT`: its name.
    pub address: String,
    /// Its failure zone.
    pub zone: String,
    /// Its host, for people.
    pub host: String,
    /// Its version of Blockyard.
    pub version: String,
    /// Its volumes.
    pub volumes: Vec<(VolumeIndex, VolumeReport)>,
}

/// All servers and volumes.
#[derive(Clone, Debug)]
pub struct Health {
    limits: Limits,
    servers: BTreeMap<String, Server>,
    reports: BTreeMap<VolumeIndex, VolumeReport>,
    /// When a report last told of more requests of clients than the one before.
    asked_ms: BTreeMap<VolumeIndex, u64>,
    /// What replicas are worth, as of the last [`Health::tick`].
    standings: Standings,
    /// Volumes with replicas that are silent for too long, and all with replicas, as of then; without those whose losses
    /// have been made good.
    silent: (usize, usize),
}

/// What has changed from one [`Health::tick`] to the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Volumes whose replicas are worth something else now.
    pub volumes: Vec<VolumeIndex>,
    /// Those of them that are lost now.
    pub lost: Vec<VolumeIndex>,
    /// There are other servers or zones to spread blocks over.
    pub spread: bool,
}

impl Health {
    /// The servers that the state knows: silent, but their dead timers start in full.
    pub fn new(limits: Limits, known: &Blocks, now_ms: u64) -> Self {
        let mut servers = BTreeMap::<String, Server>::new();
        for (index, volume) in (0..).zip(known.volumes()) {
            let row = &volume.row;
            let server = servers.entry(row.server.clone()).or_insert_with(|| Server {
                zone: row.zone.clone(),
                host: row.host.clone(),
                version: row.version.clone(),
                volumes: BTreeSet::new(),
                heard_ms: now_ms,
                registration: None,
                machine: HostReport::default(),
            });
            server.volumes.insert(index);
        }
        let mut health = Self {
            limits,
            servers,
            reports: BTreeMap::new(),
            asked_ms: BTreeMap::new(),
            standings: Standings::default(),
            silent: (0, 0),
        };
        // Nobody is dead yet, whatever the operator has said of them.
        health.tick(known, now_ms, 0);
        health
    }

    /// All servers by address.
    pub fn servers(&self) -> &BTreeMap<String, Server> {
        &self.servers
    }

    /// The server that a volume is at.
    pub fn server_of(&self, volume: VolumeIndex) -> Option<(&str, &Server)> {
        // Few servers hold many volumes: the list is short.
        self.servers
            .iter()
            .find(|(_, s)| s.volumes.contains(&volume))
            .map(|(address, s)| (address.as_str(), s))
    }

    /// The last report of a volume, of this reign.
    pub fn report(&self, volume: VolumeIndex) -> Option<&VolumeReport> {
        self.reports.get(&volume)
    }

    /// Whether clients have read from a volume or written to it of late.
    pub fn has_clients(&self, volume: VolumeIndex, now_ms: u64) -> bool {
        let asked_ms = self.asked_ms.get(&volume);
        asked_ms.is_some_and(|asked_ms| now_ms.saturating_sub(*asked_ms) < CLIENTS_MS)
    }

    /// Whether a server is being heard from.
    pub fn liveness(&self, server: &Server, now_ms: u64) -> Liveness {
        let silent_ms = now_ms.saturating_sub(server.heard_ms);
        if silent_ms >= self.limits.dead_ms {
            Liveness::Dead
        } else if server.registration.is_none() || silent_ms >= self.limits.suspect_ms {
            Liveness::Suspect
        } else {
            Liveness::Alive
        }
    }

    /// Whether a volume is being heard from.
    pub fn volume_liveness(&self, volume: VolumeIndex, now_ms: u64) -> Liveness {
        self.server_of(volume)
            .map_or(Liveness::Dead, |(_, server)| self.liveness(server, now_ms))
    }

    /// What replicas on each volume are worth, and where it is.
    pub fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Whether the replicas on a volume count as lost: its server is dead, or it has failed.
    pub fn is_lost(&self, volume: VolumeIndex) -> bool {
        self.standings.of(volume) == Standing::Lost
    }

    /// The share of volumes with replicas that have been silent for too long.
    pub fn silent_share(&self) -> f64 {
        let (silent, all) = self.silent;
        silent as f64 / all.max(1) as f64
    }

    /// Whether all known servers are connected.
    pub fn is_complete(&self) -> bool {
        self.servers.values().all(|server| server.registration.is_some())
    }

    /// Whether a server may join with these volumes.
    ///
    /// # Errors
    /// `Exists` when another server that is alive has one of them.
    pub fn may_join(&self, address: &str, volumes: &[VolumeIndex], now_ms: u64) -> Result<()> {
        for volume in volumes {
            if let Some((other, server)) = self.server_of(*volume)
                && other != address
                && self.liveness(server, now_ms) == Liveness::Alive
            {
                return Err(Problem::new(
                    ProblemKind::Exists,
                    format!(
                        "a volume of {address} is already served by {other}: a folder was copied, or one server \
                         runs twice; stop one of them"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A server has come, or come back, on the connection `registration`.
    pub fn join(&mut self, arrival: Arrival, registration: u64, now_ms: u64) {
        let volumes: BTreeSet<_> = arrival.volumes.iter().map(|(index, _)| *index).collect();
        for (address, server) in &mut self.servers {
            if *address != arrival.address {
                server.volumes.retain(|volume| !volumes.contains(volume));
            }
        }
        self.reports.extend(arrival.volumes);
        let server = Server {
            zone: arrival.zone,
            host: arrival.host,
            version: arrival.version,
            // Volumes that it no longer has stay known as its own, and turn dead with it or move elsewhere.
            volumes,
            heard_ms: now_ms,
            registration: Some(registration),
            machine: HostReport::default(),
        };
        self.servers.insert(arrival.address, server);
        self.servers
            .retain(|_, server| !server.volumes.is_empty() || server.registration.is_some());
    }

    /// A heartbeat has come; whether the connection is still the server's.
    pub fn heartbeat(
        &mut self,
        registration: u64,
        volumes: impl IntoIterator<Item = (VolumeIndex, VolumeReport)>,
        now_ms: u64,
    ) -> bool {
        let Some(server) = self
            .servers
            .values_mut()
            .find(|s| s.registration == Some(registration))
        else {
            return false;
        };
        server.heard_ms = now_ms;
        for (index, report) in volumes {
            if server.volumes.contains(&index) {
                let requests = report.client_requests;
                let before = self.reports.insert(index, report);
                if before.is_some_and(|before| before.client_requests < requests) {
                    self.asked_ms.insert(index, now_ms);
                }
            }
        }
        true
    }

    /// What the machine of a server is doing has come with a heartbeat.
    pub fn machine(&mut self, registration: u64, report: HostReport) {
        let server = self
            .servers
            .values_mut()
            .find(|s| s.registration == Some(registration));
        if let Some(server) = server {
            server.machine = report;
        }
    }

    /// A connection has been lost: its server is suspect at once.
    pub fn gone(&mut self, registration: u64) {
        for server in self.servers.values_mut() {
            if server.registration == Some(registration) {
                server.registration = None;
            }
        }
    }

    /// Looks at every volume anew, and compares with the last call.
    pub fn tick(&mut self, known: &Blocks, now_ms: u64, now_unix_ms: u64) -> Change {
        let mut spots = Vec::with_capacity(known.volumes().len());
        let mut silent = (0, 0);
        for (volume, row) in (0..).zip(known.volumes()) {
            let server = self.server_of(volume);
            let liveness = server.map_or(Liveness::Dead, |(_, server)| self.liveness(server, now_ms));
            let state = self.report(volume).map(|report| report.state);
            let excused =
                matches!(row.duty, Duty::Maintenance { until_unix_ms } if until_unix_ms > now_unix_ms);
            let dead = liveness == Liveness::Dead && !excused;
            // Those that were lost one by one, and are done without, are no outage.
            let done_without = dead && row.made_good;
            if row.replicas > 0 && row.duty != Duty::Removed && !done_without {
                silent.0 += usize::from(dead);
                silent.1 += 1;
            }
            let standing = match row.duty {
                Duty::Removed => Standing::Lost,
                _ if dead || state == Some(VolumeState::Failed) => Standing::Lost,
                Duty::Draining => Standing::Leaving,
                _ if liveness == Liveness::Dead => Standing::Away,
                Duty::Serving | Duty::Maintenance { .. } => Standing::Counts,
            };
            spots.push(Spot {
                volume,
                standing,
                takes_blocks: liveness == Liveness::Alive
                    && standing == Standing::Counts
                    && !excused
                    && state == Some(VolumeState::Serving),
                server: server.map_or(&row.row.server, |(address, _)| address),
                zone: server.map_or(&row.row.zone, |(_, server)| &server.zone),
            });
        }
        let standings = Standings::new(known.volumes().len(), spots);
        let volumes = standings.changed_since(&self.standings);
        let lost = volumes
            .iter()
            .filter(|volume| standings.of(**volume) == Standing::Lost);
        let change = Change {
            lost: lost.copied().collect(),
            spread: standings.spreads_otherwise_than(&self.standings),
            volumes,
        };
        self.standings = standings;
        self.silent = silent;
        change
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::VolumeId;

    use super::*;
    use crate::state::blocks::VolumeRow;
    use crate::state::{Command, State};

    fn volumes(count: u8) -> State {
        let row = |n| VolumeRow {
            id: VolumeId([n; 16]),
            ..VolumeRow::default()
        };
        let mut state = State::default();
        let volumes = (0..count).map(row).collect();
        state.apply(&Command::Join { volumes }).unwrap();
        state
    }

    /// Volumes lost by a tick, and all that changed.
    fn tick(health: &mut Health, state: &State, now_ms: u64) -> (Vec<VolumeIndex>, Vec<VolumeIndex>) {
        let change = health.tick(state.blocks(), now_ms, now_ms);
        (change.lost, change.volumes)
    }

    const LIMITS: Limits = Limits {
        suspect_ms: 50,
        dead_ms: 300,
    };

    fn arrival(address: &str, volumes: &[VolumeIndex]) -> Arrival {
        Arrival {
            address: address.into(),
            zone: "z".into(),
            host: "h".into(),
            version: "1".into(),
            volumes: volumes
                .iter()
                .map(|index| (*index, VolumeReport::default()))
                .collect(),
        }
    }

    #[test]
    fn silence_makes_suspect_then_dead_and_a_heartbeat_alive() {
        let state = volumes(3);
        let mut health = Health::new(LIMITS, state.blocks(), 0);
        health.join(arrival("a:1", &[0, 1]), 1, 0);
        health.join(arrival("b:1", &[2]), 2, 0);
        assert_eq!(tick(&mut health, &state, 0), (vec![], vec![]));
        let at = |health: &Health, now_ms| health.volume_liveness(0, now_ms);
        assert_eq!(
            (at(&health, 49), at(&health, 50)),
            (Liveness::Alive, Liveness::Suspect)
        );
        assert_eq!(
            (at(&health, 299), at(&health, 300)),
            (Liveness::Suspect, Liveness::Dead)
        );
        assert!(health.heartbeat(2, [], 250));
        assert_eq!(tick(&mut health, &state, 310), (vec![0, 1], vec![0, 1]));
        assert!(health.heartbeat(
            1,
            [(
                0,
                VolumeReport {
                    replicas: 5,
                    ..VolumeReport::default()
                }
            )],
            320
        ));
        assert_eq!(
            (at(&health, 321), health.report(0).unwrap().replicas),
            (Liveness::Alive, 5)
        );
        assert_eq!(tick(&mut health, &state, 321), (vec![], vec![0, 1]));
        health.gone(1);
        assert_eq!(
            at(&health, 321),
            Liveness::Suspect,
            "a lost connection is suspect at once"
        );
        assert!(!health.heartbeat(1, [], 322));
        assert!(!health.is_complete());
        health.join(arrival("a:1", &[0, 1]), 3, 330);
        assert!(health.is_complete() && at(&health, 331) == Liveness::Alive);
    }

    #[test]
    fn a_failed_volume_counts_as_lost_beside_its_sisters() {
        let state = volumes(2);
        let mut health = Health::new(LIMITS, state.blocks(), 0);
        health.join(arrival("a:1", &[0, 1]), 1, 0);
        let failed = VolumeReport {
            state: VolumeState::Failed,
            ..VolumeReport::default()
        };
        assert!(health.heartbeat(1, [(1, failed)], 1));
        assert_eq!(tick(&mut health, &state, 2), (vec![1], vec![1]));
        assert!(health.is_lost(1) && !health.is_lost(0));
    }

    #[test]
    fn the_operators_word_beats_the_timers() {
        let mut state = volumes(3);
        let mut health = Health::new(LIMITS, state.blocks(), 0);
        for (address, volume) in [("a:1", 0), ("b:1", 1), ("c:1", 2)] {
            health.join(arrival(address, &[volume]), u64::from(volume), 0);
        }
        let assign = |state: &mut State, volume, duty| {
            let command = Command::Assign {
                volumes: vec![volume],
                duty,
                request: Default::default(),
            };
            state.apply(&command).unwrap();
        };
        assign(&mut state, 0, Duty::Maintenance { until_unix_ms: 1000 });
        assign(&mut state, 1, Duty::Draining);
        let standing = |health: &Health| [0, 1, 2].map(|volume| health.standings().of(volume));
        tick(&mut health, &state, 100);
        assert_eq!(
            standing(&health),
            [Standing::Counts, Standing::Leaving, Standing::Counts]
        );
        tick(&mut health, &state, 400);
        assert_eq!(
            standing(&health),
            [Standing::Away, Standing::Lost, Standing::Lost],
            "all are dead, one of them is excused"
        );
        tick(&mut health, &state, 1000);
        assert_eq!(
            standing(&health),
            [Standing::Lost; 3],
            "maintenance does not last for ever"
        );
        assert!(health.heartbeat(0, [], 1001) && health.heartbeat(2, [], 1001));
        assign(&mut state, 2, Duty::Removed);
        tick(&mut health, &state, 1002);
        assert_eq!(
            standing(&health),
            [Standing::Counts, Standing::Lost, Standing::Lost]
        );
    }

    #[test]
    fn a_volume_is_in_one_place() {
        let mut health = Health::new(LIMITS, &Blocks::default(), 0);
        health.join(arrival("a:1", &[0]), 1, 0);
        assert_eq!(
            health.may_join("b:1", &[0], 1).unwrap_err().kind,
            ProblemKind::Exists
        );
        health.may_join("a:1", &[0], 1).unwrap();
        health.gone(1);
        health.may_join("b:1", &[0], 1).unwrap();
        health.join(arrival("b:1", &[0]), 2, 1);
        assert_eq!(health.server_of(0).unwrap().0, "b:1");
        assert_eq!(
            health.servers().len(),
            1,
            "a server without a volume or connection is forgotten"
        );
    }

    #[test]
    fn clients_show_in_requests_that_become_more() {
        let mut health = Health::new(LIMITS, volumes(2).blocks(), 0);
        health.join(arrival("a:1", &[0, 1]), 7, 0);
        let mut heartbeat = |client_requests: [u64; 2], now_ms| {
            let reports = (0..).zip(client_requests.map(|client_requests| VolumeReport {
                client_requests,
                ..VolumeReport::default()
            }));
            health.heartbeat(7, reports, now_ms);
            [0, 1].map(|volume| health.has_clients(volume, now_ms))
        };
        assert_eq!(heartbeat([0, 0], 1_000), [false, false]);
        assert_eq!(heartbeat([5, 0], 2_000), [true, false]);
        assert_eq!(
            heartbeat([5, 0], 3_000),
            [true, false],
            "they may be between two requests"
        );
        assert_eq!(heartbeat([5, 0], 4_000), [false, false]);
        assert_eq!(
            heartbeat([0, 1], 5_000),
            [false, true],
            "a server that has restarted counts anew"
        );
    }
}
