//! How far Blockyard must be ahead of other systems, measured in the same rounds.

use super::Judged;
use crate::report::{Report, Row};

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
pub(super) fn beside_peer(report: &Report, row: &Row) -> Option<Judged> {
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
pub(super) fn beside_nobody(report: &Report) -> Vec<Judged> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::judge;
    use crate::report::Series;

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
}
