//! How well a dataserver does, as a number with its parts in sight. A figure that is missing makes no part.

use serde::Serialize;

use crate::types::{Duty, LatencyReport, Liveness, ServerStatus, VolumeState};

/// A flush or a read that takes so long in the worst hundredth is as it should be, and one that takes so long is worth
/// nothing; microseconds.
const LATENCY_US: (f64, f64) = (50_000.0, 2_000_000.0);
/// Fewer pieces of work than this say nothing of latency.
const LATENCY_COUNT_MIN: u64 = 20;
/// A disk this full is as it should be, and one so full is worth nothing.
const FULL: (f64, f64) = (0.80, 1.0);
/// The same of memory in use, and of processors' time.
const MEMORY: (f64, f64) = (0.85, 1.0);
const CPU: (f64, f64) = (0.85, 1.2);

/// A part of a score.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Part {
    /// Of what.
    pub name: &'static str,
    /// 0 to 100.
    pub points: u8,
    /// What was measured, for people.
    pub figure: String,
}

/// How well a dataserver does.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Score {
    /// 0 to 100: the worst of its parts, because one that fails is not made good by the others.
    pub points: u8,
    /// Only those that were measured, the worst first.
    pub parts: Vec<Part>,
}

/// Scores a dataserver by what was measured of it.
pub fn score(server: &ServerStatus) -> Score {
    let mut parts = vec![liveness(server)];
    let host = &server.host_report;
    if let Some(busy) = host.cpu_busy_permille {
        let share = f64::from(busy) / 1000.0;
        parts.push(part(
            "cpu",
            falling(share, CPU),
            format!("{:.0}% busy", share * 100.0),
        ));
    }
    if let (Some(all), Some(available)) = (host.memory_bytes, host.memory_available_bytes) {
        let share = 1.0 - available as f64 / all.max(1) as f64;
        parts.push(part(
            "memory",
            falling(share, MEMORY),
            format!("{:.0}% in use", share * 100.0),
        ));
    }
    let volumes = server
        .volumes
        .iter()
        .filter(|volume| volume.duty != Duty::Removed);
    for volume in volumes {
        let report = &volume.report;
        let share = report.used_bytes as f64 / (report.used_bytes + report.free_bytes).max(1) as f64;
        let of = format!("of {}", report.directory);
        if report.capacity_bytes > 0 {
            parts.push(part(
                "space",
                falling(share, FULL),
                format!("{:.0}% {of} in use", share * 100.0),
            ));
        }
        let times = [
            ("flush", report.flush),
            ("write", report.write),
            ("read", report.read),
        ];
        for (name, latency) in times
            .into_iter()
            .filter(|(_, latency)| latency.count >= LATENCY_COUNT_MIN)
        {
            parts.push(slowness(name, latency, &of));
        }
        let errors = report.io_errors + report.corrupt;
        let failed = report.state == VolumeState::Failed;
        if failed || errors > 0 {
            let points = if failed { 0 } else { 50 };
            let figure = match failed {
                true => format!("{} has failed: {}", report.directory, report.reason),
                false => format!("{errors} errors {of}"),
            };
            parts.push(part("errors", points, figure));
        }
    }
    parts.sort_by_key(|part| part.points);
    Score {
        points: parts.first().map_or(0, |part| part.points),
        parts,
    }
}

fn part(name: &'static str, points: u8, figure: String) -> Part {
    Part { name, points, figure }
}

fn liveness(server: &ServerStatus) -> Part {
    let points = match server.liveness {
        Liveness::Alive => 100,
        Liveness::Suspect => 30,
        Liveness::Dead => 0,
    };
    let heard = server.since_heartbeat_ms as f64 / 1000.0;
    part("heartbeat", points, format!("heard {heard:.1} s ago"))
}

fn slowness(name: &'static str, latency: LatencyReport, of: &str) -> Part {
    let us = f64::from(latency.p99_us);
    // Ten times as long is as bad wherever it happens: logarithms.
    let points = falling(us.max(1.0).ln(), (LATENCY_US.0.ln(), LATENCY_US.1.ln()));
    part(name, points, format!("p99 {:.1} ms {of}", us / 1000.0))
}

/// 100 up to the first bound, 0 from the second on.
fn falling(value: f64, (good, bad): (f64, f64)) -> u8 {
    (((bad - value) / (bad - good)).clamp(0.0, 1.0) * 100.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{HostReport, VolumeReport, VolumeStatus};

    fn server() -> ServerStatus {
        ServerStatus {
            volumes: vec![VolumeStatus {
                report: VolumeReport {
                    capacity_bytes: 100,
                    used_bytes: 50,
                    free_bytes: 50,
                    directory: "/d".into(),
                    ..VolumeReport::default()
                },
                ..VolumeStatus::default()
            }],
            ..ServerStatus::default()
        }
    }

    #[test]
    fn what_was_not_measured_makes_no_part() {
        let score = score(&server());
        let names: Vec<_> = score.parts.iter().map(|part| part.name).collect();
        assert_eq!((score.points, names), (100, vec!["heartbeat", "space"]));
    }

    #[test]
    fn the_worst_part_is_the_score() {
        let mut server = server();
        server.host_report = HostReport {
            cpu_busy_permille: Some(950),
            memory_bytes: Some(100),
            memory_available_bytes: Some(40),
            ..HostReport::default()
        };
        server.volumes[0].report.flush = LatencyReport {
            count: 100,
            p50_us: 10_000,
            p99_us: 400_000,
        };
        let told = score(&server);
        assert_eq!((told.parts[0].name, told.points), ("flush", 44));
        assert!(told.parts[0].figure.contains("400.0 ms of /d"));
        let points = |name| told.parts.iter().find(|part| part.name == name).unwrap().points;
        assert_eq!((points("cpu"), points("memory"), points("space")), (71, 100, 100));
        server.volumes[0].report.flush.count = 3;
        assert_eq!(score(&server).parts[0].name, "cpu", "too few to tell");
        server.volumes[0].report.state = VolumeState::Failed;
        assert_eq!(
            (score(&server).points, score(&server).parts[0].name),
            (0, "errors")
        );
    }
}
