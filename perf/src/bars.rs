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
    bar(
        "page",
        "put by the page, 4 streams",
        "throughput",
        RatioAtLeast(0.7),
    ),
    bar(
        "page",
        "put by the page, 1 stream",
        "throughput",
        RatioAtLeast(0.7),
    ),
    bar(
        "page",
        "get by the page, 4 streams",
        "throughput",
        RatioAtLeast(0.7),
    ),
    bar(
        "page",
        "get by the page, 1 stream",
        "throughput",
        RatioAtLeast(0.7),
    ),
    bar(
        "page",
        "put by the page, one file 8 times the size",
        "± of the nameserver's memory",
        ValueAtMost(32.0),
    ),
    bar(
        "page",
        "get by the page, one file 8 times the size",
        "± of the nameserver's memory",
        ValueAtMost(32.0),
    ),
    bar(
        "page",
        "100 open pages",
        "until the last page knows of a change",
        ValueAtMost(1000.0),
    ),
    bar(
        "page",
        "100 open pages",
        "nameserver's processor",
        ValueAtMost(0.05),
    ),
    bar(
        "page",
        "look up beside 100 open pages, 64 clients",
        "rate",
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
    bar(
        "slow",
        "one stopped for 45 of 50 ms",
        "range p99 over healthy",
        ValueAtMost(3.0),
    ),
    bar(
        "slow",
        "one stopped for 45 of 50 ms",
        "block p99 over healthy",
        ValueAtMost(3.0),
    ),
    bar(
        "slow",
        "one stopped for 45 of 50 ms",
        "until writes go round",
        ValueAtMost(10.0),
    ),
    bar(
        "slow",
        "one stopped for 2 of 4 s",
        "range p99 over healthy",
        ValueAtMost(3.0),
    ),
    bar(
        "slow",
        "one stopped for 2 of 4 s",
        "block p99 over healthy",
        ValueAtMost(3.0),
    ),
    bar(
        "slow",
        "one stopped for 2 of 4 s",
        "until writes go round",
        ValueAtMost(10.0),
    ),
    bar(
        "repair",
        "one of 4 dataservers killed",
        "repair rate",
        RatioAtLeast(0.6),
    ),
    bar(
        "repair",
        "one of 4 dataservers killed",
        "time until noticed",
        ValueAtMost(31.0),
    ),
    bar(
        "repair",
        "one of 4 dataservers killed",
        "range p99 during repair, beside before",
        ValueAtMost(2.0),
    ),
    bar("meta", "many files", "memory", ValueAtMost(264.0)),
    bar(
        "meta",
        "many files",
        "time from start to first answer",
        ValueAtMost(10.0),
    ),
    bar(
        "meta",
        "many files",
        "lookups beside few files",
        ValueAtLeast(0.8),
    ),
    bar(
        "meta",
        "many files: look up, 64 clients",
        "rate",
        RatioAtLeast(0.6),
    ),
    bar(
        "meta",
        "many files: create, 64 tasks of one client",
        "rate",
        ValueAtLeast(20_000.0),
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
    bar(
        "soak",
        "16 clients",
        "acknowledged files lost or changed",
        ValueAtMost(0.0),
    ),
    bar("soak", "16 clients", "failed", ValueAtMost(1.0)),
    bar(
        "soak",
        "16 clients",
        "failures that did not say retry",
        ValueAtMost(0.0),
    ),
    bar(
        "soak",
        "16 clients",
        "retries without success in 30 s",
        ValueAtMost(0.0),
    ),
    bar(
        "soak",
        "16 clients",
        "operations that never came back",
        ValueAtMost(0.0),
    ),
    bar(
        "soak",
        "16 clients",
        "processes that ended by themselves",
        ValueAtMost(0.0),
    ),
    bar(
        "soak",
        "16 clients",
        "rounds without full replication in 60 s",
        ValueAtMost(0.0),
    ),
    bar("soak", "16 clients", "replicas lost or damaged", ValueAtMost(0.0)),
    bar(
        "soak",
        "16 clients",
        "longest way to full replication",
        ValueAtMost(60.0),
    ),
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

/// Every bar whose row was measured; in a run beside other systems, those of the four that were not measured too.
pub(crate) fn judge(report: &Report) -> Vec<Judged> {
    let judged = |bar: &Bar| Some(hold(bar, report.find(bar.scenario, bar.case, bar.metric)?));
    let beside = report.rows().iter().filter_map(|row| beside_peer(report, row));
    let mut all: Vec<Judged> = BARS.iter().filter_map(judged).chain(beside).collect();
    all.extend(beside_nobody(report));
    all
}

/// Between the work and the peer in the name of a case.
pub(crate) const BESIDE: &str = ": Blockyard beside ";
/// Behind a metric or a peer: with a flush at the end counted, of a system that flushes nothing by itself.
pub(crate) const FLUSHED: &str = ", flushed at the end";
/// Work of which only systems take part that can be told how many blocks to keep under way.
pub(crate) const ONE_BLOCK_EACH: &str = "4 files, 4 blocks in flight";
/// The part of fio's write rate ÷ 2 from which on the disk is the limit.
const AT_THE_DISK: f64 = 0.85;
const FOUR_PEERS: [&str; 4] = ["ceph", "glusterfs", "moosefs", "ppydfs"];

/// How far Blockyard must be ahead in a row that has a peer's figure as its limit.
fn beside_peer(report: &Report, row: &Row) -> Option<Judged> {
    let (work, peer) = row.case.split_once(BESIDE)?;
    let writes = work.starts_with("write");
    let (ceph, one_of_four) = (
        peer == "ceph",
        FOUR_PEERS.iter().any(|name| peer.starts_with(name)),
    );
    let (small, cpu) = (row.metric == "rate", row.metric == "cpu");
    let ratio = row.ratio?;
    let wanted = match (cpu, ceph) {
        (true, true) => 0.5,
        (true, false) => 1.0,
        (false, true) if small => 3.0,
        (false, true) if writes => 1.6,
        (false, false) if writes && one_of_four => 2.5,
        (false, _) => 1.0,
    };
    let mut judged = Judged {
        what: format!("{}: {}: {}", row.scenario, row.case, row.metric),
        found: format!("{ratio:.2} of the peer's"),
        wanted: format!("at {} {wanted}", if cpu { "most" } else { "least" }),
        met: Some(if cpu { ratio <= wanted } else { ratio >= wanted }),
    };
    let disk = report.find(&row.scenario, "limit: fio write 4 MiB, depth 4", "throughput");
    if let Some(disk) = disk.filter(|_| ceph && writes && row.metric == "throughput") {
        let share = row.value / (disk.value / 2.0);
        judged.found.push_str(&format!(", {share:.2} of fio write ÷ 2"));
        judged
            .wanted
            .push_str(&format!(", or ahead and {AT_THE_DISK} of fio write ÷ 2"));
        judged.met = Some(ratio >= wanted || (ratio >= 1.0 && share >= AT_THE_DISK));
    }
    Some(judged)
}

/// A line for each work of which one of the four peers has no figure.
fn beside_nobody(report: &Report) -> Vec<Judged> {
    let measured = report.rows().iter().filter(|row| {
        let main = matches!(row.metric.as_str(), "throughput" | "rate");
        row.scenario == "peers" && main && row.case.ends_with(": Blockyard")
    });
    let mut missing = Vec::new();
    for row in measured {
        let work = row.case.trim_end_matches(": Blockyard");
        for peer in FOUR_PEERS {
            let case = format!("{work}{BESIDE}{peer}");
            let asked = peer == "ceph" || !work.ends_with(ONE_BLOCK_EACH);
            if asked && report.find("peers", &case, &row.metric).is_none() {
                missing.push(Judged {
                    what: format!("peers: {case}: {}", row.metric),
                    found: "the peer was not measured".into(),
                    wanted: "a figure of both".into(),
                    met: None,
                });
            }
        }
    }
    missing
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
        assert_eq!(
            met(write, "ppydfs-repaired", "throughput", 2.0),
            Some(Some(false))
        );
        assert_eq!(met(write, "nas", "throughput", 2.0), Some(Some(true)));
        assert_eq!(met(read, "ceph", "rate", 2.9), Some(Some(false)));
        assert_eq!(met(read, "moosefs", "rate", 1.1), Some(Some(true)));
        assert_eq!(met(read, "moosefs", "cpu", 1.1), Some(Some(false)));
    }

    fn row(case: &str, metric: &str, value: f64, limit: Option<f64>) -> Series {
        let mut series = Series::new("peers", case);
        series.add(metric, "MiB/s", value);
        series.limit(metric, limit);
        series
    }

    #[test]
    fn at_the_disks_limit_less_than_the_factor_will_do() {
        let met = |ours: f64, theirs: f64, fio: f64| {
            let mut report = Report::default();
            report.series(&row("limit: fio write 4 MiB, depth 4", "throughput", fio, None));
            let case = "write 1 file, 4 blocks in flight: Blockyard beside ceph";
            report.series(&row(case, "throughput", ours, Some(theirs)));
            judge(&report).first().and_then(|judged| judged.met)
        };
        assert_eq!(met(850.0, 600.0, 2000.0), Some(true));
        assert_eq!(met(840.0, 600.0, 2000.0), Some(false));
        assert_eq!(met(960.0, 600.0, 9000.0), Some(true));
        // At the limit, and yet behind.
        assert_eq!(met(850.0, 900.0, 2000.0), Some(false));
    }

    #[test]
    fn peers_that_were_not_measured_are_unknown() {
        let unknown = |work: &str| {
            let mut report = Report::default();
            report.series(&row(&format!("{work}: Blockyard"), "throughput", 9.0, None));
            let case = format!("{work}: Blockyard beside moosefs");
            report.series(&row(&case, "throughput", 9.0, Some(1.0)));
            let judged = judge(&report);
            let unknown = judged.iter().filter(|judged| judged.met.is_none());
            unknown
                .filter_map(|judged| Some(judged.what.split_once("beside ")?.1.to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            unknown("read 1 file, 4 blocks in flight"),
            ["ceph: throughput", "glusterfs: throughput", "ppydfs: throughput"]
        );
        assert_eq!(unknown(&format!("read {ONE_BLOCK_EACH}")), ["ceph: throughput"]);
    }

    #[test]
    fn nothing_measured_is_not_judged() {
        assert!(judge(&Report::default()).is_empty());
    }
}
