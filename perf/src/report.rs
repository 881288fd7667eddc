//! Rows of figures: collected, shown as a table, written as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use serde::{Deserialize, Serialize};

use crate::explain;
use crate::stats::Samples;

/// The scenario of the rows that describe the machine.
pub(crate) const MACHINE: &str = "machine";

/// One figure.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub scenario: String,
    pub case: String,
    pub metric: String,
    pub unit: String,
    /// The median of the rounds.
    pub value: f64,
    /// What the machine allows, in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// `value / limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The lowest round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// The highest round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// How many rounds there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<usize>,
    /// Of the machine's row: the commit that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl Row {
    /// Whether the row is left out of the short table.
    fn is_detail(&self) -> bool {
        let metric = self.metric.as_str();
        let detail = metric.starts_with("cpu of ")
            || metric.starts_with("memory of ")
            || (metric.starts_with("system calls ") && metric.contains(" of "))
            || metric.starts_with("flushes by ")
            || metric.ends_with("p99.9")
            || metric.ends_with("max")
            || metric == "operations"
            || explain::is_part(metric);
        detail || (self.case.starts_with("limit: ") && !matches!(metric, "throughput" | "cpu"))
    }
}

/// The figures of one case over its rounds.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    scenario: &'static str,
    case: String,
    metrics: Vec<Metric>,
}

#[derive(Clone, Debug)]
struct Metric {
    name: String,
    unit: &'static str,
    samples: Samples,
    limit: Option<f64>,
}

impl Series {
    pub(crate) fn new(scenario: &'static str, case: impl Into<String>) -> Self {
        Self {
            scenario,
            case: case.into(),
            metrics: Vec::new(),
        }
    }

    /// The same with `suffix` behind the case's name.
    pub(crate) fn renamed(mut self, suffix: &str) -> Self {
        self.case.push_str(suffix);
        self
    }

    /// Adds what `metric` was in one more round.
    pub(crate) fn add(&mut self, metric: &str, unit: &'static str, value: f64) {
        let known = self.metrics.iter().position(|known| known.name == metric);
        let at = known.unwrap_or_else(|| {
            self.metrics.push(Metric {
                name: metric.to_owned(),
                unit,
                samples: Samples::default(),
                limit: None,
            });
            self.metrics.len() - 1
        });
        self.metrics[at].samples.push(value);
    }

    /// States what the machine allows; nothing happens while the metric or the limit is unknown.
    pub(crate) fn limit(&mut self, metric: &str, limit: Option<f64>) {
        if let Some(found) = self.metrics.iter_mut().find(|known| known.name == metric) {
            found.limit = limit;
        }
    }

    /// Names of all that was added.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &str> {
        self.metrics.iter().map(|metric| metric.name.as_str())
    }

    pub(crate) fn median(&self, metric: &str) -> Option<f64> {
        self.metrics
            .iter()
            .find(|known| known.name == metric)?
            .samples
            .median()
    }

    fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        // System calls are counted in the round that warms up, and stand last all the same.
        let late = |metric: &&Metric| metric.name.starts_with("system calls");
        let early = self.metrics.iter().filter(move |metric| !late(metric));
        early
            .chain(self.metrics.iter().filter(late))
            .filter_map(|metric| {
                let value = metric.samples.median()?;
                let (low, high) = metric.samples.range()?;
                Some(Row {
                    scenario: self.scenario.to_owned(),
                    case: self.case.clone(),
                    metric: metric.name.clone(),
                    unit: metric.unit.to_owned(),
                    value,
                    limit: metric.limit,
                    ratio: metric
                        .limit
                        .filter(|limit| *limit > 0.0)
                        .map(|limit| value / limit),
                    low: Some(low),
                    high: Some(high),
                    rounds: Some(metric.samples.count()),
                    commit: None,
                })
            })
    }
}

/// The rows that a run left in a file.
///
/// # Errors
/// When the file can't be read or holds something else.
pub(crate) fn read_json(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} does not hold the rows of a run (--json)", path.display()))
}

/// All rows of a run, and notes about what they lack.
#[derive(Default, Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn series(&mut self, series: &Series) {
        self.rows.extend(series.rows());
    }

    /// Takes rows over; those of the same figure that are there already go.
    pub(crate) fn merge(&mut self, rows: Vec<Row>) {
        for row in rows {
            let same = |known: &Row| {
                known.scenario == row.scenario
                    && known.metric == row.metric
                    && (known.case == row.case || row.scenario == MACHINE)
            };
            self.rows.retain(|known| !same(known));
            self.rows.push(row);
        }
    }

    /// The machine's row.
    pub(crate) fn machine(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.scenario == MACHINE)
    }

    /// A remark below the table; said at once too. Repeated ones count once.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            eprintln!("# note: {note}");
            self.notes.push(note);
        }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn find(&self, scenario: &str, case: &str, metric: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.scenario == scenario && row.case == case && row.metric == metric)
    }

    /// The rows as a table, with the notes below; without `all`, those that a first look can spare stay out.
    pub(crate) fn table(&self, all: bool) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        let head = [
            "scenario",
            "case",
            "metric",
            "median",
            "unit",
            "low – high",
            "limit",
            "ratio",
        ];
        let numeric = |column: usize| matches!(column, 3 | 5 | 6 | 7);
        table.set_header(
            head.iter()
                .enumerate()
                .map(|(column, name)| aligned((*name).to_owned(), numeric(column))),
        );
        let mut before = ("", "");
        for row in self.rows.iter().filter(|row| all || !row.is_detail()) {
            let now = (row.scenario.as_str(), row.case.as_str());
            let range = match (row.low, row.high, row.rounds) {
                (Some(low), Some(high), Some(2..)) => format!("{} – {}", number(low), number(high)),
                _ => String::new(),
            };
            let cells = [
                if now.0 == before.0 {
                    String::new()
                } else {
                    row.scenario.clone()
                },
                if now == before {
                    String::new()
                } else {
                    row.case.clone()
                },
                row.metric.clone(),
                number(row.value),
                row.unit.clone(),
                range,
                row.limit.map(number).unwrap_or_default(),
                row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            ];
            table.add_row(
                cells
                    .into_iter()
                    .enumerate()
                    .map(|(column, text)| aligned(text, numeric(column))),
            );
            before = now;
        }
        let mut text = format!("{table}\n");
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }

    /// Writes the rows as a JSON array, one row a line, whole or not at all.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let rows: Vec<String> = self
            .rows
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        let beside = path.with_added_extension("part");
        fs::write(&beside, format!("[\n{}\n]\n", rows.join(",\n")))
            .and_then(|()| fs::rename(&beside, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A cell, numbers to the right.
pub(crate) fn aligned(text: String, numeric: bool) -> Cell {
    Cell::new(text).set_alignment(if numeric {
        CellAlignment::Right
    } else {
        CellAlignment::Left
    })
}

/// Three digits that count, and no more.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut series = Series::new("cluster", "upload");
        for value in [400.0, 600.0, 500.0] {
            series.add("throughput", "MiB/s", value);
        }
        series.add("cpu", "s/GiB", 1.5);
        series.limit("throughput", Some(1000.0));
        series.limit("unknown", Some(1.0));
        let mut report = Report::default();
        report.series(&series);
        report.note("said once");
        report.note("said once");
        report
    }

    #[test]
    fn a_series_becomes_rows() {
        let report = sample();
        let row = report.find("cluster", "upload", "throughput").unwrap();
        assert_eq!(
            (row.value, row.limit, row.ratio),
            (500.0, Some(1000.0), Some(0.5))
        );
        assert_eq!(
            (row.low, row.high, row.rounds),
            (Some(400.0), Some(600.0), Some(3))
        );
        let row = report.find("cluster", "upload", "cpu").unwrap();
        assert_eq!((row.limit, row.ratio), (None, None));
        assert!(report.find("cluster", "upload", "unknown").is_none());
    }

    #[test]
    fn table_and_notes() {
        let text = sample().table(false);
        assert!(text.contains("throughput") && text.contains("400 – 600") && text.contains("0.50"));
        assert_eq!(text.matches("said once").count(), 1);
    }

    #[test]
    fn details_are_in_the_long_table_only() {
        let mut series = Series::new("cluster", "upload");
        series.add("latency p99.9", "ms", 1.0);
        let mut report = sample();
        report.series(&series);
        assert!(!report.table(false).contains("p99.9"));
        assert!(report.table(true).contains("p99.9"));
    }

    #[test]
    fn json_has_the_named_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        sample().write_json(&path).unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["scenario"], "cluster");
        assert_eq!(rows[0]["case"], "upload");
        assert_eq!(rows[0]["metric"], "throughput");
        assert_eq!(rows[0]["unit"], "MiB/s");
        assert_eq!(rows[0]["value"], 500.0);
        assert_eq!(rows[0]["limit"], 1000.0);
        assert_eq!(rows[0]["ratio"], 0.5);
        assert!(rows[1].get("limit").is_none() && rows[0].get("commit").is_none());
        assert_eq!(read_json(&path).unwrap(), sample().rows);
        fs::write(&path, "{}").unwrap();
        assert!(read_json(&path).unwrap_err().to_string().contains("--json"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_last_of_several_runs_counts() {
        let mut report = sample();
        let mut again = sample().rows;
        again[0].value = 7.0;
        report.merge(again);
        assert_eq!(report.rows.len(), 2);
        assert_eq!(report.find("cluster", "upload", "throughput").unwrap().value, 7.0);
    }

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in [
            (1234.5, "1234"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.0123, "0.0123"),
            (0.0, "0.00"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
