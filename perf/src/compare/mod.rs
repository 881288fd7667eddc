//! `compare`: two runs' rows side by side, and what changed beyond the noise.

mod noise;

use std::path::Path;

use anyhow::{Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;

use crate::Verdict;
use crate::flags::Compare;
use crate::report::{MACHINE, Row, aligned, number, read_json};

/// Below the table, so that nobody has to guess.
const HOW: &str = "noise: three standard errors of both medians together, taken from each row's extremes and number of rounds, and \
                   never less than 3%. A row whose limit changed in the same run is judged by its share of the limit. Rows of \
                   fewer than three rounds, and the machine's own, are shown but not judged.\n";

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Better {
    Higher,
    Lower,
    /// It describes the moment or the machine.
    Neither,
}

/// What a row's change means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Better,
    Worse,
    /// As much as its limit did.
    AsLimit,
    /// Of the machine, beyond the noise.
    Machine,
    Noise,
    /// Too few rounds to tell.
    Unknown,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::AsLimit => "as its limit",
            Self::Machine => "machine",
            Self::Noise => "",
            Self::Unknown => "?",
        }
    }
}

struct Pair<'a> {
    before: &'a Row,
    after: &'a Row,
    noise: Option<f64>,
    change: Change,
}

/// Prints the comparison; with `--strict`, [`Verdict::Below`] when something got worse.
///
/// # Errors
/// Files that can't be read, or have nothing in common.
pub(crate) fn run(flags: &Compare) -> Result<Verdict> {
    let (before, after) = (read_json(&flags.before)?, read_json(&flags.after)?);
    for warning in warnings(&before, &after, &flags.before, &flags.after) {
        println!("warning: {warning}");
    }
    let pairs = pairs(&before, &after);
    if pairs.is_empty() {
        bail!(
            "{} and {} have no row in common: they are of different scenarios",
            flags.before.display(),
            flags.after.display()
        );
    }
    print!("{}", table(&pairs, flags.all));
    for (rows, others, name) in [(&before, &after, &flags.before), (&after, &before, &flags.after)] {
        let alone = rows
            .iter()
            .filter(|row| row.scenario != MACHINE && find(others, row).is_none());
        match alone.count() {
            0 => {}
            count => println!("{count} rows are in {} only", name.display()),
        }
    }
    let count = |change| pairs.iter().filter(|pair| pair.change == change).count();
    println!(
        "{} rows in both: {} better, {} worse, {} changed with their limits",
        pairs.len(),
        count(Change::Better),
        count(Change::Worse),
        count(Change::AsLimit)
    );
    print!("{HOW}");
    Ok(if flags.strict && count(Change::Worse) > 0 {
        Verdict::Below
    } else {
        Verdict::Done
    })
}

/// What makes the two runs hard to compare.
fn warnings(before: &[Row], after: &[Row], before_path: &Path, after_path: &Path) -> Vec<String> {
    let machine = |rows: &[Row]| rows.iter().find(|row| row.scenario == MACHINE).cloned();
    let mut warnings = Vec::new();
    let machines = [machine(before), machine(after)];
    for (machine, path) in machines.iter().zip([before_path, after_path]) {
        let path = path.display();
        match machine {
            None => warnings.push(format!("{path} does not say on what machine it was made")),
            Some(machine) if machine.commit.is_none() => {
                warnings.push(format!("{path} does not say which commit was measured"));
            }
            Some(machine)
                if machine
                    .commit
                    .as_deref()
                    .is_some_and(|commit| commit.ends_with("-dirty")) =>
            {
                warnings.push(format!("{path} was measured with changes that no commit has"));
            }
            Some(_) => {}
        }
    }
    if let [Some(before), Some(after)] = machines {
        if before.case != after.case {
            warnings.push(format!("other machines: {} against {}", before.case, after.case));
        }
        if let (Some(before), Some(after)) = (before.commit, after.commit)
            && before != after
        {
            warnings.push(format!("other commits: {before} against {after}"));
        }
    }
    warnings
}

fn find<'a>(rows: &'a [Row], like: &Row) -> Option<&'a Row> {
    rows.iter()
        .find(|row| row.scenario == like.scenario && row.case == like.case && row.metric == like.metric)
}

/// The rows that both runs have, in the order of the second.
fn pairs<'a>(before: &'a [Row], after: &'a [Row]) -> Vec<Pair<'a>> {
    let paired = |after: &'a Row| {
        let before = find(before, after).filter(|before| before.unit == after.unit)?;
        let noise = noise::between(before, after);
        Some(Pair {
            before,
            after,
            noise,
            change: judge(before, after, noise),
        })
    };
    after
        .iter()
        .filter(|row| row.scenario != MACHINE)
        .filter_map(paired)
        .collect()
}

fn judge(before: &Row, after: &Row, noise: Option<f64>) -> Change {
    let (Some(noise), Some(change)) = (noise, relative(before.value, after.value)) else {
        return Change::Unknown;
    };
    if change.abs() <= noise {
        return Change::Noise;
    }
    let better = match direction(after) {
        Better::Neither => return Change::Machine,
        Better::Higher => change > 0.0,
        Better::Lower => change < 0.0,
    };
    // A quicker disk makes a quicker upload: the share tells whether Blockyard had a part in it.
    if let (Some(before), Some(after)) = (before.ratio, after.ratio)
        && let Some(share) = relative(before, after)
        && (share.abs() <= noise || (share > 0.0) != (change > 0.0))
    {
        return Change::AsLimit;
    }
    if better { Change::Better } else { Change::Worse }
}

/// The change as a part of what was before.
fn relative(before: f64, after: f64) -> Option<f64> {
    (before != 0.0).then(|| (after - before) / before.abs())
}

/// Which way is better, by the unit and, where that leaves it open, by what is measured.
fn direction(row: &Row) -> Better {
    if row.case.starts_with("limit: ") || row.scenario == "limits" || row.metric == "other load" {
        return Better::Neither;
    }
    match row.unit.as_str() {
        "MiB/s" | "GiB/s" => Better::Higher,
        unit if unit.ends_with("/s") && unit != "s/s" => Better::Higher,
        "share" => Better::Higher,
        "s" | "ms" | "us" | "s/GiB" | "calls" | "MiB" | "B" | "bytes" => Better::Lower,
        unit if unit.starts_with("per ") || unit.starts_with("bytes per ") => Better::Lower,
        unit if unit.ends_with("/GiB") || unit.ends_with("/file") || unit.ends_with(" per file") => {
            Better::Lower
        }
        _ => Better::Neither,
    }
}

fn table(pairs: &[Pair], all: bool) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    let head = [
        "", "scenario", "case", "metric", "before", "after", "unit", "change", "noise", "share",
    ];
    let numeric = |column: usize| matches!(column, 4 | 5 | 7 | 8 | 9);
    table.set_header(
        head.iter()
            .enumerate()
            .map(|(column, name)| aligned((*name).to_owned(), numeric(column))),
    );
    let mut shown = 0;
    for pair in pairs {
        if !all && matches!(pair.change, Change::Noise | Change::Unknown) {
            continue;
        }
        shown += 1;
        let share = match (pair.before.ratio, pair.after.ratio) {
            (Some(before), Some(after)) => format!("{before:.2} → {after:.2}"),
            _ => String::new(),
        };
        let change = relative(pair.before.value, pair.after.value);
        let cells = [
            pair.change.word().to_owned(),
            pair.after.scenario.clone(),
            pair.after.case.clone(),
            pair.after.metric.clone(),
            number(pair.before.value),
            number(pair.after.value),
            pair.after.unit.clone(),
            change
                .map(|change| format!("{:+.1}%", change * 100.0))
                .unwrap_or_default(),
            pair.noise
                .map(|noise| format!("±{:.1}%", noise * 100.0))
                .unwrap_or_default(),
            share,
        ];
        table.add_row(
            cells
                .into_iter()
                .enumerate()
                .map(|(column, text)| aligned(text, numeric(column))),
        );
    }
    if shown == 0 {
        return "nothing changed beyond the noise (--all shows every row)\n".to_owned();
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, metric: &str, unit: &str, value: f64, limit: Option<f64>) -> Row {
        Row {
            scenario: "cluster".into(),
            case: case.into(),
            metric: metric.into(),
            unit: unit.into(),
            value,
            limit,
            ratio: limit.map(|limit| value / limit),
            low: Some(value * 0.99),
            high: Some(value * 1.01),
            rounds: Some(5),
            ..Row::default()
        }
    }

    fn change(before: &Row, after: &Row) -> Change {
        pairs(std::slice::from_ref(before), std::slice::from_ref(after))[0].change
    }

    #[test]
    fn better_and_worse_go_by_the_unit() {
        let case = |unit: &str, metric: &str, before, after| {
            change(
                &row("upload", metric, unit, before, None),
                &row("upload", metric, unit, after, None),
            )
        };
        assert_eq!(case("MiB/s", "throughput", 100.0, 120.0), Change::Better);
        assert_eq!(case("MiB/s", "throughput", 100.0, 80.0), Change::Worse);
        assert_eq!(case("MiB/s", "throughput", 100.0, 101.0), Change::Noise);
        assert_eq!(case("s/GiB", "cpu", 1.0, 1.2), Change::Worse);
        assert_eq!(case("ms", "latency p50", 1.0, 0.5), Change::Better);
        assert_eq!(case("files/s", "rate", 1.0, 0.5), Change::Worse);
        assert_eq!(case("per block", "disk flushes", 1.0, 0.5), Change::Better);
        assert_eq!(case("share of cores", "other load", 0.1, 0.5), Change::Machine);
        assert_eq!(case("ms", "latency p50", 0.0, 0.5), Change::Unknown);
        let (mut before, after) = (
            row("limit: fio", "throughput", "MiB/s", 1.0, None),
            row("limit: fio", "throughput", "MiB/s", 2.0, None),
        );
        assert_eq!(change(&before, &after), Change::Machine);
        before.rounds = Some(1);
        assert_eq!(change(&before, &after), Change::Unknown);
    }

    #[test]
    fn what_moves_with_its_limit_is_not_blamed() {
        let upload = |value, limit| row("upload", "throughput", "MiB/s", value, Some(limit));
        assert_eq!(
            change(&upload(500.0, 1000.0), &upload(400.0, 800.0)),
            Change::AsLimit
        );
        assert_eq!(
            change(&upload(500.0, 1000.0), &upload(400.0, 1000.0)),
            Change::Worse
        );
        assert_eq!(
            change(&upload(500.0, 1000.0), &upload(600.0, 1000.0)),
            Change::Better
        );
        // Quicker, but the disk got quicker by more.
        assert_eq!(
            change(&upload(500.0, 1000.0), &upload(600.0, 2000.0)),
            Change::AsLimit
        );
    }

    #[test]
    fn other_machines_and_commits_are_told() {
        let machine = |case: &str, commit: Option<&str>| Row {
            scenario: MACHINE.into(),
            case: case.into(),
            commit: commit.map(str::to_owned),
            ..Row::default()
        };
        let told = |before: &[Row], after: &[Row]| {
            warnings(before, after, Path::new("a.json"), Path::new("b.json")).join("\n")
        };
        let same = [machine("2 cores", Some("abc"))];
        assert_eq!(told(&same, &same), "");
        assert!(told(&same, &[]).contains("b.json does not say on what machine"));
        assert!(told(&[machine("2 cores", None)], &same).contains("a.json does not say which commit"));
        let other = told(&same, &[machine("4 cores", Some("abd-dirty"))]);
        assert!(other.contains("2 cores against 4 cores") && other.contains("abc against abd-dirty"));
        assert!(other.contains("changes that no commit has"));
    }

    #[test]
    fn files_are_compared_and_strictness_tells() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: &[Row]| {
            let path = folder.path().join(name);
            std::fs::write(&path, serde_json::to_string(rows).unwrap()).unwrap();
            path
        };
        let compare = |before, after, strict| {
            run(&Compare {
                before,
                after,
                strict,
                all: true,
            })
        };
        let fast = write("fast", &[row("upload", "throughput", "MiB/s", 100.0, None)]);
        let slow = write("slow", &[row("upload", "throughput", "MiB/s", 50.0, None)]);
        let other = write("other", &[row("download", "throughput", "MiB/s", 50.0, None)]);
        assert_eq!(compare(fast.clone(), slow.clone(), true).unwrap(), Verdict::Below);
        assert_eq!(compare(fast.clone(), slow.clone(), false).unwrap(), Verdict::Done);
        assert_eq!(compare(slow, fast.clone(), true).unwrap(), Verdict::Done);
        assert!(
            compare(fast, other, false)
                .unwrap_err()
                .to_string()
                .contains("no row in common")
        );
    }

    #[test]
    fn only_changes_are_shown_without_all() {
        let (before, after) = (
            [
                row("a", "cpu", "s/GiB", 1.0, None),
                row("b", "cpu", "s/GiB", 1.0, None),
            ],
            [
                row("a", "cpu", "s/GiB", 1.0, None),
                row("b", "cpu", "s/GiB", 2.0, None),
            ],
        );
        let pairs = pairs(&before, &after);
        let short = table(&pairs, false);
        assert!(
            short.contains("WORSE") && short.contains("+100.0%") && short.lines().count() == 5,
            "{short}"
        );
        assert!(table(&pairs, true).lines().count() > 5);
        assert!(table(&pairs[..1], false).contains("nothing changed"));
    }
}
