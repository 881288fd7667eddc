//! The account and the CPU's purposes as text.

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;

use super::{CPU, SCENARIO, TIME, TIME_P99};
use crate::report::{Report, Row, aligned, number};

const BAR_CELLS: f64 = 30.0;

/// A table of stages and one of purposes for each case that has them.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    for case in cases(report) {
        let rows: Vec<&Row> = of_case(report, case).collect();
        text.push_str(&stages(case, &rows).unwrap_or_default());
        text.push_str(&purposes(case, &rows).unwrap_or_default());
    }
    text
}

fn cases(report: &Report) -> Vec<&str> {
    let mut cases: Vec<&str> = Vec::new();
    for row in report.rows().iter().filter(|row| row.scenario == SCENARIO) {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    cases
}

fn of_case<'a>(report: &'a Report, case: &'a str) -> impl Iterator<Item = &'a Row> {
    report
        .rows()
        .iter()
        .filter(move |row| row.scenario == SCENARIO && row.case == case)
}

fn stages(case: &str, rows: &[&Row]) -> Option<String> {
    let parts: Vec<(&str, f64)> = rows
        .iter()
        .filter_map(|row| Some((row.metric.strip_prefix(TIME)?, row.value)))
        .collect();
    let whole: f64 = parts.iter().map(|(_, ms)| ms).sum();
    if whole <= 0.0 {
        return None;
    }
    let p99 = |stage: &str| {
        let found = rows
            .iter()
            .find(|row| row.metric.strip_prefix(TIME_P99) == Some(stage));
        found.map_or_else(String::new, |row| number(row.value))
    };
    let mut table = new_table(&[case, "mean ms", "share", "p99 ms", ""]);
    for (stage, ms) in parts {
        let share = ms / whole;
        let cells = "█".repeat((share * BAR_CELLS).round() as usize);
        table.add_row([
            aligned(stage.to_owned(), false),
            aligned(number(ms), true),
            aligned(percent(share), true),
            aligned(p99(stage), true),
            aligned(cells, false),
        ]);
    }
    table.add_row([
        aligned("whole".to_owned(), false),
        aligned(number(whole), true),
        aligned(percent(1.0), true),
        aligned(p99("whole"), true),
        aligned(String::new(), false),
    ]);
    Some(format!("{table}\n"))
}

fn purposes(case: &str, rows: &[&Row]) -> Option<String> {
    let parts: Vec<(&str, &str, f64)> = rows
        .iter()
        .filter_map(|row| {
            let (who, purpose) = row.metric.strip_prefix(CPU)?.split_once(": ")?;
            Some((who, purpose, row.value))
        })
        .collect();
    let unit = rows.iter().find(|row| row.metric.starts_with(CPU))?.unit.as_str();
    let sum = |wanted: &dyn Fn(&str, &str) -> bool| -> f64 {
        parts
            .iter()
            .filter(|(who, purpose, _)| wanted(who, purpose))
            .map(|(.., value)| value)
            .sum()
    };
    let whole = sum(&|_, _| true);
    let (mut processes, mut purposes): (Vec<&str>, Vec<&str>) = Default::default();
    for (who, purpose, _) in &parts {
        if !processes.contains(who) {
            processes.push(who);
        }
        if !purposes.contains(purpose) {
            purposes.push(purpose);
        }
    }
    purposes.sort_by(|a, b| sum(&|_, purpose| purpose == *b).total_cmp(&sum(&|_, purpose| purpose == *a)));
    let head = format!("{case}: CPU, {unit}");
    let mut columns = vec![head.as_str()];
    columns.extend(&processes);
    columns.extend(["all", "share"]);
    let mut table = new_table(&columns);
    let mut line = |name: &str, wanted: &dyn Fn(&str) -> bool| {
        let mut cells = vec![aligned(name.to_owned(), false)];
        for process in &processes {
            let value = sum(&|who, purpose| who == *process && wanted(purpose));
            let text = if value > 0.0 {
                short(value, whole)
            } else {
                String::new()
            };
            cells.push(aligned(text, true));
        }
        let all = sum(&|_, purpose| wanted(purpose));
        cells.push(aligned(short(all, whole), true));
        cells.push(aligned(percent(all / whole), true));
        table.add_row(cells);
    };
    for name in &purposes {
        line(name, &|purpose| purpose == *name);
    }
    line("whole", &|_| true);
    Some(format!("{table}\n"))
}

/// As many places behind the point for all, so that they line up: the whole gets three digits that count.
fn short(value: f64, whole: f64) -> String {
    let places = if whole >= 100.0 { 1 } else { 3 };
    format!("{value:.places$}")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn new_table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(
        head.iter()
            .enumerate()
            .map(|(at, name)| aligned((*name).to_owned(), at > 0)),
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    #[test]
    fn parts_stand_beside_their_whole() {
        let mut series = Series::new(SCENARIO, "upload, 4 streams");
        series.add("throughput", "MiB/s", 500.0);
        for (metric, unit, value) in [
            ("time: client: reads", "ms", 1.0),
            ("time: head: writes", "ms", 3.0),
            ("time p99: head: writes", "ms", 9.0),
            ("cpu for: client: checksums", "s/GiB", 0.25),
            ("cpu for: client: TCP/IP", "s/GiB", 0.5),
            ("cpu for: nameserver: checksums", "s/GiB", 0.25),
        ] {
            series.add(metric, unit, value);
        }
        let mut report = Report::default();
        report.series(&series);
        let text = table(&report);
        let line = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.contains(name))
                .unwrap_or_else(|| panic!("{name}: {text}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(line("head: writes").contains("3.00 75.0 % 9.00"), "{text}");
        assert!(line("whole").contains("4.00 100.0 %"), "{text}");
        assert!(line("checksums").contains("0.250 0.250 0.500 50.0 %"), "{text}");
        assert!(line("TCP/IP").contains("0.500 0.500 50.0 %"), "{text}");
        assert!(text.contains("CPU, s/GiB"));
        assert!(table(&Report::default()).is_empty());
    }
}
