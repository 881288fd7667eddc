//! What Blockyard must show: limits derived from the machine's, and the bars set against them.

mod limits;
mod peers;
mod table;

pub(crate) use self::limits::{UploadLimit, flushes_floor};
pub(crate) use self::peers::{BESIDE, FLUSHED, ONE_BLOCK_EACH};
use self::peers::{beside_nobody, beside_peer};
use self::table::Rule::{RatioAtLeast, ValueAtLeast, ValueAtMost};
use self::table::{BARS, Bar};
use crate::report::{Report, Row, number};

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
    fn nothing_measured_is_not_judged() {
        assert!(judge(&Report::default()).is_empty());
    }
}
