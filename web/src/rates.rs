//! How quickly counters rise: from one heartbeat to the next, never invented where there were not two.

use std::collections::BTreeMap;

use blockyard_wire::types::{ClusterStatus, Flow, Liveness, VolumeId};

/// Heartbeats that lie closer together are the same one, told with another rounding.
const SAME_MS: u64 = 40;

/// What was seen of counters, and how quickly they rose.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    started_unix_ms: u64,
    heard: BTreeMap<String, u64>,
    volumes: BTreeMap<VolumeId, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    heard_unix_ms: u64,
    write: Counter,
    read: Counter,
    requests: Counter,
    flows: BTreeMap<(String, bool, VolumeId), Counter>,
}

/// A counter that begins again with its process.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    value: u64,
    per_s: Option<u64>,
}

impl Counter {
    fn first(value: u64) -> Self {
        Self { value, per_s: None }
    }

    fn rise_to(&mut self, value: u64, after_ms: u64) {
        let risen = value.checked_sub(self.value);
        self.per_s = risen.and_then(|risen| (risen * 1000).checked_div(after_ms));
        self.value = value;
    }
}

impl Rates {
    /// Looks at what has come.
    pub(crate) fn look(&mut self, status: &ClusterStatus) {
        let now_unix_ms = status.cluster.now_unix_ms;
        // Its clock may be set: the start is told anew only when it has clearly moved.
        let started = now_unix_ms.saturating_sub(status.uptime_ms);
        if started.abs_diff(self.started_unix_ms) > 2_000 {
            self.started_unix_ms = started;
        }
        let mut volumes = BTreeMap::new();
        for server in &status.servers {
            let heard = now_unix_ms.saturating_sub(server.since_heartbeat_ms);
            let known = self.heard.entry(server.address.clone()).or_insert(heard);
            if heard.abs_diff(*known) > SAME_MS {
                *known = heard;
            }
            let heard_unix_ms = *known;
            for volume in &server.volumes {
                let report = &volume.report;
                let counts = (report.write_bytes, report.read_bytes, report.client_requests);
                let seen = match self.volumes.remove(&report.id) {
                    _ if volume.liveness != Liveness::Alive => continue,
                    Some(seen) if seen.heard_unix_ms == heard_unix_ms => seen,
                    Some(mut seen) => {
                        let after_ms = heard_unix_ms.saturating_sub(seen.heard_unix_ms);
                        seen.heard_unix_ms = heard_unix_ms;
                        seen.write.rise_to(counts.0, after_ms);
                        seen.read.rise_to(counts.1, after_ms);
                        seen.requests.rise_to(counts.2, after_ms);
                        seen.flow(&report.flows, after_ms);
                        seen
                    }
                    None => Seen {
                        heard_unix_ms,
                        write: Counter::first(counts.0),
                        read: Counter::first(counts.1),
                        requests: Counter::first(counts.2),
                        flows: BTreeMap::new(),
                    },
                };
                volumes.insert(report.id, seen);
            }
        }
        self.volumes = volumes;
    }

    /// When the nameserver started, milliseconds since 1970.
    pub(crate) fn started_unix_ms(&self) -> u64 {
        self.started_unix_ms
    }

    /// When a server was last heard from, milliseconds since 1970; 0 where it is unknown.
    pub(crate) fn heard_unix_ms(&self, server: &str) -> u64 {
        self.heard.get(server).copied().unwrap_or(0)
    }

    /// Bytes written and read per second.
    pub(crate) fn of_volume(&self, volume: VolumeId) -> (Option<u64>, Option<u64>) {
        let seen = self.volumes.get(&volume);
        seen.map_or((None, None), |seen| (seen.write.per_s, seen.read.per_s))
    }

    /// Bytes per second of a flow.
    pub(crate) fn of_flow(&self, volume: VolumeId, flow: &Flow) -> Option<u64> {
        self.volumes.get(&volume)?.flows.get(&key(flow))?.per_s
    }

    /// Bytes written, bytes read and requests per second of all volumes together; `None` where none is known.
    pub(crate) fn of_all(&self) -> [Option<u64>; 3] {
        let sum = |of: fn(&Seen) -> Counter| {
            let known = self.volumes.values().filter_map(|seen| of(seen).per_s);
            known.reduce(|sum, more| sum + more)
        };
        [
            sum(|seen| seen.write),
            sum(|seen| seen.read),
            sum(|seen| seen.requests),
        ]
    }
}

fn key(flow: &Flow) -> (String, bool, VolumeId) {
    (flow.from.clone(), flow.head, flow.next)
}

impl Seen {
    fn flow(&mut self, flows: &[Flow], after_ms: u64) {
        let before = std::mem::take(&mut self.flows);
        for flow in flows {
            // One that was not there has begun since.
            let mut counter = before.get(&key(flow)).copied().unwrap_or_default();
            counter.rise_to(flow.bytes, after_ms);
            self.flows.insert(key(flow), counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::{ServerStatus, VolumeStatus};

    use super::*;

    fn status(now_unix_ms: u64, since_heartbeat_ms: u64, written: u64) -> ClusterStatus {
        let mut volume = VolumeStatus::default();
        volume.report.id = VolumeId([1; 16]);
        volume.report.write_bytes = written;
        volume.report.flows = vec![Flow {
            from: "10.0.0.1".into(),
            bytes: written,
            ..Flow::default()
        }];
        let mut status = ClusterStatus {
            servers: vec![ServerStatus {
                address: "d:1".into(),
                since_heartbeat_ms,
                volumes: vec![volume],
                ..ServerStatus::default()
            }],
            ..ClusterStatus::default()
        };
        status.cluster.now_unix_ms = now_unix_ms;
        status
    }

    #[test]
    fn rates_are_those_between_heartbeats() {
        let volume = VolumeId([1; 16]);
        let mut rates = Rates::default();
        rates.look(&status(10_000, 0, 5_000));
        assert_eq!(rates.of_volume(volume), (None, None), "one look knows no rate");
        rates.look(&status(10_500, 498, 5_000));
        assert_eq!(rates.of_volume(volume).0, None, "the same heartbeat");
        rates.look(&status(11_000, 0, 9_000));
        assert_eq!(rates.of_volume(volume), (Some(4_000), Some(0)));
        assert_eq!(rates.of_all(), [Some(4_000), Some(0), Some(0)]);
        let flow = &status(0, 0, 0).servers[0].volumes[0].report.flows[0];
        assert_eq!(rates.of_flow(volume, flow), Some(9_000));
        rates.look(&status(12_000, 0, 10));
        assert_eq!(rates.of_volume(volume).0, None, "it has started again");
        let mut silent = status(13_000, 0, 20);
        silent.servers[0].volumes[0].liveness = Liveness::Suspect;
        rates.look(&silent);
        assert_eq!(rates.of_all(), [None; 3]);
    }
}
