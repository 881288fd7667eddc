//! What Blockyard must show: limits derived from the machine's, and the bars set against them.

use crate::report::{Report, Row, number};

/// The fewest flushes a block can honestly take: each volume's flush covers at most the blocks in flight.
pub(crate) fn flushes_floor(replicas: u32, blocks_in_flight: u32) -> f64 {
    f64::from(replicas) / f64::from(blocks_in_flight.max(1))
}

/// What a machine allows a replicated upload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadLimit {
    pub fio_write_mib_per_s: f64,
    /// Replicas that land on the one disk.
    pub replicas: u32,
    pub cores: u32,
    /// Times each byte crosses loopback.
    pub hops: u32,
    pub iperf_cpu_s_per_gib: f64,
}

impl UploadLimit {
    /// MiB/s: the smaller of what the disk leaves each replica and what the cores leave for the hops.
    pub(crate) fn mib_per_s(&self) -> f64 {
        let disk = self.fio_write_mib_per_s / f64::from(self.replicas);
        let network = f64::from(self.cores) / (f64::from(self.hops) * self.iperf_cpu_s_per_gib) * 1024.0;
        disk.min(network)
    }
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    RatioAtLeast(f64),
    ValueAtLeast(f64),
    ValueAtMost(f64),
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    scenario: &'static str,
    case: &'static str,
    metric: &'static str,
    rule: Rule,
}

const fn bar(scenario: &'static str, case: &'static str, metric: &'static str, rule: Rule) -> Bar {
    Bar {
        scenario,
        case,
        metric,
        rule,
    }
}

use Rule::{RatioAtLeast, ValueAtLeast, ValueAtMost};

const BARS: &[Bar] = &[
    bar("cluster", "upload, 4 streams", "throughput", RatioAtLeast(0.85)),
    bar("cluster", "upload, 4 streams", "cpu", ValueAtMost(1.4)),
    bar("cluster", "upload, 4 streams", "disk flushes", RatioAtLeast(1.0)),
    bar("cluster", "upload, 1 stream", "throughput", RatioAtLeast(0.7)),
    bar(
        "cluster",
        "upload to recycled slots, 4 streams",
        "throughput",
        RatioAtLeast(0.85),
    ),
    bar(
        "cluster",
        "upload to recycled slots, 4 streams",
        "cpu",
        ValueAtMost(1.4),
    ),
    bar(
        "cluster",
        "upload to recycled slots, 1 stream",
        "throughput",
        RatioAtLeast(0.7),
    ),
    bar("cluster", "download, 4 streams", "throughput", RatioAtLeast(0.9)),
    bar("cluster", "download, 4 streams", "cpu", ValueAtMost(0.75)),
    bar(
        "cluster",
        "hot download, 4 streams",
        "throughput",
        RatioAtLeast(0.9),
    ),
    bar("growth", "upload, 1 to 64 streams", "± of cpu", ValueAtMost(0.05)),
    bar(
        "growth",
        "download, 1 to 64 streams",
        "± of cpu",
        ValueAtMost(0.05),
    ),
    bar(
        "growth",
        "upload, least to most stored",
        "± of cpu",
        ValueAtMost(0.05),
    ),
    bar(
        "growth",
        "download, least to most stored",
        "± of cpu",
        ValueAtMost(0.05),
    ),
    bar(
        "growth",
        "upload, least to most stored",
        "± of memory of dataserver 1",
        ValueAtMost(0.05),
    ),
    bar("scaling", "upload, 2 volumes", "throughput", RatioAtLeast(0.85)),
    bar("scaling", "upload, 4 volumes", "throughput", RatioAtLeast(0.85)),
    bar("scaling", "upload, 8 volumes", "throughput", RatioAtLeast(0.85)),
    bar("scaling", "download, 2 volumes", "throughput", RatioAtLeast(0.85)),
    bar("scaling", "download, 4 volumes", "throughput", RatioAtLeast(0.85)),
    bar("scaling", "download, 8 volumes", "throughput", RatioAtLeast(0.85)),
    bar("files", "create 64 KiB, 16 workers", "rate", ValueAtLeast(5000.0)),
    bar("files", "read 64 KiB, 16 workers", "rate", ValueAtLeast(20_000.0)),
    bar("files", "create 4 KiB, 16 workers", "rate", ValueAtLeast(8000.0)),
    bar("files", "read 4 KiB, 16 workers", "rate", ValueAtLeast(25_000.0)),
    bar(
        "engine",
        "put 4 MiB, depth 4, zero-filled",
        "throughput",
        RatioAtLeast(0.95),
    ),
    bar(
        "engine",
        "put 4 MiB, depth 4, recycled",
        "throughput",
        RatioAtLeast(0.95),
    ),
    bar(
        "engine",
        "put 4 MiB, depth 16, zero-filled",
        "throughput",
        RatioAtLeast(0.95),
    ),
    bar(
        "engine",
        "put 4 MiB, depth 16, recycled",
        "throughput",
        RatioAtLeast(0.95),
    ),
    bar(
        "engine",
        "put 4 MiB, depth 4, zero-filled",
        "cpu",
        ValueAtMost(0.15),
    ),
    bar("engine", "put 4 MiB, depth 4, recycled", "cpu", ValueAtMost(0.15)),
    bar(
        "engine",
        "put 4 MiB, depth 16, recycled",
        "cpu",
        ValueAtMost(0.15),
    ),
    bar("engine", "get 4 MiB, depth 4", "throughput", RatioAtLeast(0.95)),
    bar("engine", "get 4 MiB, depth 16", "throughput", RatioAtLeast(0.95)),
    bar("engine", "get 4 MiB, depth 4", "cpu", ValueAtMost(0.12)),
    bar("engine", "get 4 MiB, depth 16", "cpu", ValueAtMost(0.12)),
    bar(
        "engine",
        "put 64 KiB, depth 16, zero-filled",
        "throughput",
        RatioAtLeast(0.8),
    ),
    bar(
        "engine",
        "put 64 KiB, depth 16, recycled",
        "throughput",
        RatioAtLeast(0.8),
    ),
    bar("engine", "get 64 KiB, depth 16", "throughput", RatioAtLeast(0.9)),
    bar(
        "engine",
        "range 64 KiB of 4 MiB, depth 16",
        "throughput",
        RatioAtLeast(0.6),
    ),
    bar(
        "engine",
        "hot get 4 MiB",
        "throughput",
        ValueAtLeast(5.0 * 1024.0),
    ),
    bar(
        "engine",
        "hot get 64 KiB",
        "throughput",
        ValueAtLeast(5.0 * 1024.0),
    ),
    bar("index", "1000000 replicas", "clean start", ValueAtMost(1.0)),
    bar("index", "1000000 replicas", "crashed start", ValueAtMost(3.0)),
    bar("index", "1000000 replicas", "memory", ValueAtMost(64.0)),
    bar("index", "1000000 replicas", "puts", RatioAtLeast(0.9)),
];

/// The bar that a row is held against, as the number it is drawn at: a ratio for throughputs, else a value.
pub(crate) fn threshold(row: &Row) -> Option<f64> {
    let bar = BARS
        .iter()
        .find(|bar| bar.scenario == row.scenario && bar.case == row.case && bar.metric == row.metric)?;
    let (RatioAtLeast(value) | ValueAtLeast(value) | ValueAtMost(value)) = bar.rule;
    Some(value)
}

/// A bar held against a run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Judged {
    pub what: String,
    pub found: String,
    pub wanted: String,
    /// `None`: there was no limit to hold it against.
    pub met: Option<bool>,
}

/// Every bar whose row was measured.
pub(crate) fn judge(report: &Report) -> Vec<Judged> {
    let judged = |bar: &Bar| Some(hold(bar, report.find(bar.scenario, bar.case, bar.metric)?));
    let beside = report.rows().iter().filter_map(beside_peer);
    BARS.iter().filter_map(judged).chain(beside).collect()
}

/// How far Blockyard must be ahead in a row that has a peer's figure as its limit.
fn beside_peer(row: &Row) -> Option<Judged> {
    let (work, peer) = row.case.split_once(": Blockyard beside ")?;
    let (writes, ceph) = (work.starts_with("write"), peer == "ceph");
    let small = row.metric == "rate";
    let ratio = row.ratio?;
    let (word, wanted) = match row.metric.as_str() {
        "cpu" if ceph => ("at most", 0.5),
        "cpu" => return None,
        _ if ceph && small => ("at least", 3.0),
        _ if ceph && writes => ("at least", 1.6),
        _ if writes => ("at least", 2.5),
        _ => ("at least", 1.0),
    };
    Some(Judged {
        what: format!("{}: {}: {}", row.scenario, row.case, row.metric),
        found: format!("{ratio:.2} of the peer's"),
        wanted: format!("{word} {wanted}"),
        met: Some(if word == "at most" {
            ratio <= wanted
        } else {
            ratio >= wanted
        }),
    })
}

fn hold(bar: &Bar, row: &Row) -> Judged {
    let what = format!("{}: {}: {}", bar.scenario, bar.case, bar.metric);
    match bar.rule {
        RatioAtLeast(least) => Judged {
            what,
            found: match (row.ratio, row.limit) {
                (Some(ratio), Some(limit)) => {
                    let (value, limit) = (number(row.value), number(limit));
                    format!("{ratio:.3} of the limit ({value} of {limit} {})", row.unit)
                }
                _ => format!("{} {}, no limit measured", number(row.value), row.unit),
            },
            wanted: format!("at least {least:.2}"),
            met: row.ratio.map(|ratio| ratio >= least),
        },
        ValueAtLeast(least) => Judged {
            what,
            found: format!("{} {}", number(row.value), row.unit),
            wanted: format!("at least {}", number(least)),
            met: Some(row.value >= least),
        },
        ValueAtMost(most) => Judged {
            what,
            found: format!("{:.2} {}", row.value, row.unit),
            wanted: format!("at most {most:.2}"),
            met: Some(row.value <= most),
        },
    }
}

/// A line for each bar.
pub(crate) fn summary(judged: &[Judged]) -> String {
    let line = |judged: &Judged| {
        let word = match judged.met {
            Some(true) => "pass   ",
            Some(false) => "BELOW  ",
            None => "unknown",
        };
        format!(
            "{word} {}: {}; wanted {}\n",
            judged.what, judged.found, judged.wanted
        )
    };
    judged.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    #[test]
    fn the_upload_limit_is_the_smaller_one() {
        let mut limit = UploadLimit {
            fio_write_mib_per_s: 1500.0,
            replicas: 2,
            cores: 2,
            hops: 2,
            iperf_cpu_s_per_gib: 0.6,
        };
        assert_eq!(limit.mib_per_s(), 750.0);
        limit.fio_write_mib_per_s = 10_000.0;
        assert!((limit.mib_per_s() - 1024.0 / 0.6).abs() < 1e-9);
    }

    #[test]
    fn the_flush_floor_counts_every_replica() {
        assert_eq!(flushes_floor(2, 16), 0.125);
        assert_eq!(flushes_floor(3, 1), 3.0);
    }

    fn judged(throughput: f64, limit: Option<f64>, cpu: f64) -> Vec<Judged> {
        let mut series = Series::new("cluster", "upload, 4 streams");
        series.add("throughput", "MiB/s", throughput);
        series.add("cpu", "s/GiB", cpu);
        series.limit("throughput", limit);
        let mut report = Report::default();
        report.series(&series);
        judge(&report)
    }

    #[test]
    fn bars_are_met_missed_or_unknown() {
        let met = |judged: Vec<Judged>| judged.iter().map(|judged| judged.met).collect::<Vec<_>>();
        assert_eq!(met(judged(85.0, Some(100.0), 1.4)), [Some(true), Some(true)]);
        assert_eq!(met(judged(84.0, Some(100.0), 1.5)), [Some(false), Some(false)]);
        assert_eq!(met(judged(59.0, None, 1.0)), [None, Some(true)]);
        let text = summary(&judged(59.0, Some(100.0), 1.0));
        assert!(text.contains("BELOW") && text.contains("pass") && text.contains("0.59"));
    }

    #[test]
    fn peers_are_to_be_left_behind() {
        let met = |case: &str, metric: &str, ratio: f64| {
            let mut series = Series::new("peers", case);
            series.add(metric, "x", ratio);
            series.limit(metric, Some(1.0));
            let mut report = Report::default();
            report.series(&series);
            judge(&report).first().map(|judged| judged.met)
        };
        let (write, read) = (
            "write 4 MiB blocks, 4 at once: Blockyard beside ",
            "read 4 KiB files, 16 at once: Blockyard beside ",
        );
        let met =
            |case: &str, peer: &str, metric: &str, ratio: f64| met(&format!("{case}{peer}"), metric, ratio);
        assert_eq!(met(write, "ceph", "throughput", 1.6), Some(Some(true)));
        assert_eq!(met(write, "ceph", "throughput", 1.5), Some(Some(false)));
        assert_eq!(met(write, "ceph", "cpu", 0.6), Some(Some(false)));
        assert_eq!(met(write, "moosefs", "throughput", 2.0), Some(Some(false)));
        assert_eq!(met(read, "ceph", "rate", 2.9), Some(Some(false)));
        assert_eq!(met(read, "moosefs", "rate", 1.1), Some(Some(true)));
        assert_eq!(met(read, "moosefs", "cpu", 9.0), None);
    }

    #[test]
    fn nothing_measured_is_not_judged() {
        assert!(judge(&Report::default()).is_empty());
    }
}
