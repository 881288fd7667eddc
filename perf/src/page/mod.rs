//! A run as one self-contained page: what met its bar, plots, the machine, and every row.

mod account;
mod curves;
mod group;
mod rates;
mod strips;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use self::group::{Group, groups};
use crate::Verdict;
use crate::bars::{self, Judged};
use crate::flags::ReportFlags;
use crate::report::{self, Report, Row, number};

/// Makes a page of what runs have left.
///
/// # Errors
/// Files that can't be read or written, or are of several machines.
pub(crate) fn remake(flags: &ReportFlags) -> Result<Verdict> {
    let mut report = Report::default();
    for path in &flags.rows {
        let rows = report::read_json(path)?;
        let machine = rows.iter().find(|row| row.scenario == report::MACHINE);
        if let (Some(known), Some(machine)) = (report.machine(), machine)
            && known.case != machine.case
        {
            bail!(
                "{} is of another machine ({}) than those before it ({}): make a page for each",
                path.display(),
                machine.case,
                known.case
            );
        }
        if let (Some(known), Some(machine)) = (report.machine(), machine)
            && known.commit != machine.commit
        {
            let note = format!("{} is of another commit than those before it", path.display());
            report.note(note);
        }
        report.merge(rows);
    }
    let judged = bars::judge(&report);
    print!("{}", bars::summary(&judged));
    write(&flags.html, &report, &judged)?;
    Ok(Verdict::Done)
}

/// Writes the page, whole or not at all.
pub(crate) fn write(path: &Path, report: &Report, judged: &[Judged]) -> Result<()> {
    let machine = report.machine();
    let said = |text: Option<&str>| text.unwrap_or("not recorded").to_owned();
    let about = [
        ("machine", said(machine.map(|row| row.case.as_str()))),
        ("commit", said(machine.and_then(|row| row.commit.as_deref()))),
        ("command", std::env::args().skip(1).collect::<Vec<_>>().join(" ")),
        (
            "written",
            jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z").to_string(),
        ),
    ];
    let beside = path.with_added_extension("part");
    fs::write(&beside, page(report, judged, &about))
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn page(report: &Report, judged: &[Judged], about: &[(&str, String)]) -> String {
    let mut body = String::new();
    head(&mut body, judged, about);
    bar_table(&mut body, judged);
    let mut scenarios: Vec<&str> = Vec::new();
    for row in report.rows().iter().filter(|row| row.scenario != report::MACHINE) {
        if !scenarios.contains(&row.scenario.as_str()) {
            scenarios.push(&row.scenario);
        }
    }
    for scenario in scenarios {
        let rows: Vec<&Row> = report
            .rows()
            .iter()
            .filter(|row| row.scenario == scenario)
            .collect();
        section(&mut body, scenario, &rows);
    }
    if !report.notes().is_empty() {
        body.push_str("<h2>Notes</h2>\n");
        for note in report.notes() {
            let _ = writeln!(body, "<p class=soft>{}</p>", escaped(note));
        }
    }
    all_rows(&mut body, report);
    format!(
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n<title>Blockyard beside the machine</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        include_str!("style.css")
    )
}

fn head(body: &mut String, judged: &[Judged], about: &[(&str, String)]) {
    let _ = writeln!(body, "<h1>Blockyard beside the machine</h1>");
    let met = judged.iter().filter(|judged| judged.met == Some(true)).count();
    if !judged.is_empty() {
        let _ = writeln!(body, "<p class=soft>{met} of {} bars met.</p>", judged.len());
    }
    body.push_str("<dl>\n");
    for (name, value) in about {
        let _ = writeln!(body, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    }
    body.push_str("</dl>\n");
}

/// What misses its bar is in sight; what meets it is there to be unfolded.
fn bar_table(body: &mut String, judged: &[Judged]) {
    if judged.is_empty() {
        return;
    }
    let (met, missed): (Vec<&Judged>, Vec<&Judged>) =
        judged.iter().partition(|judged| judged.met == Some(true));
    body.push_str("<h2>Bars</h2>\n");
    if !missed.is_empty() {
        bar_rows(body, &missed);
    }
    if !met.is_empty() {
        let _ = writeln!(body, "<details><summary>{} met</summary>", met.len());
        bar_rows(body, &met);
        body.push_str("</details>\n");
    }
}

fn bar_rows(body: &mut String, judged: &[&Judged]) {
    body.push_str("<div class=\"card table\"><table>\n<tr><th><th>what<th>found<th>wanted</tr>\n");
    for judged in judged {
        let (class, word) = match judged.met {
            Some(true) => ("pass", "pass"),
            Some(false) => ("missed", "below"),
            None => ("unknown", "unknown"),
        };
        let _ = writeln!(
            body,
            "<tr><td class={class}>{word}<td>{}<td>{}<td>{}</tr>",
            escaped(&judged.what),
            escaped(&judged.found),
            escaped(&judged.wanted)
        );
    }
    body.push_str("</table></div>\n");
}

fn section(body: &mut String, scenario: &str, rows: &[&Row]) {
    let groups = groups(rows);
    let _ = writeln!(body, "<h2>{}</h2>", escaped(scenario));
    let mut part = |title: &str, about: &str, draw: &dyn Fn(&Group) -> Option<String>| {
        let cards: Vec<String> = groups.iter().filter_map(draw).collect();
        if !cards.is_empty() {
            let _ = writeln!(
                body,
                "<h3>{title}</h3>\n<p class=soft>{about}</p>\n<div class=grid>"
            );
            for card in cards {
                let _ = writeln!(body, "<div class=card>{card}</div>");
            }
            body.push_str("</div>\n");
        }
    };
    part(
        "Throughput",
        "By operations in flight, streams, clients or volumes; dashed: the limit measured in the same run.",
        &curves::throughput,
    );
    part(
        "Share of the limit",
        "Throughput as a part of the limit; the grey line is all of it, the dark one the bar.",
        &strips::shares,
    );
    part(
        "Latency against rate",
        "From when each operation was due, on a logarithmic scale.",
        &rates::latencies,
    );
    part(
        "Latency",
        "Milliseconds on a logarithmic scale: p50, p99 and p99.9 as dots from left to right.",
        &strips::latencies,
    );
    part(
        "CPU",
        "CPU-seconds per GiB, by process where there are several; less is better. The dark line is the bar.",
        &strips::cpu,
    );
    part(
        "Where the time goes",
        "Means over all blocks of all rounds. What was waited for adds up to the whole of a block's life, or of a short file's; \
         below, what client, head and tail, or the volume, did meanwhile.",
        &account::stages,
    );
    part(
        "Where the CPU goes",
        "By the innermost symbol of each sample that speaks for a purpose. Ring workers belong to the servers; kernel threads \
         come on top of what the processes used.",
        &account::purposes,
    );
    part(
        "Memory",
        "Resident memory in MiB: of each server right after the case, or the peak of the one process that did it (for mmap \
         with the pages of the file).",
        &strips::memory,
    );
    let others: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| !groups.iter().any(|group| group.has(row)))
        .collect();
    let others: Vec<&Row> = others
        .into_iter()
        .filter(|row| !row.case.starts_with("limit: "))
        .collect();
    if !others.is_empty() {
        body.push_str("<h3>Other figures</h3>\n<div class=\"card table\">");
        table(body, others.into_iter());
        body.push_str("</div>\n");
    }
}

fn all_rows(body: &mut String, report: &Report) {
    body.push_str("<details><summary>Every row</summary>\n<div class=\"card table\">");
    table(body, report.rows().iter());
    body.push_str("</div></details>\n");
}

fn table<'a>(body: &mut String, rows: impl Iterator<Item = &'a Row>) {
    body.push_str(
        "<table>\n<tr><th>scenario<th>case<th>metric<th class=number>median<th>unit<th class=number>low – high\
         <th class=number>limit<th class=number>ratio</tr>\n",
    );
    for row in rows {
        let range = row
            .low
            .zip(row.high)
            .map(|(low, high)| format!("{} – {}", number(low), number(high)));
        let _ = writeln!(
            body,
            "<tr><td>{}<td>{}<td>{}<td class=number>{}<td>{}<td class=number>{}<td class=number>{}<td class=number>{}</tr>",
            escaped(&row.scenario),
            escaped(&row.case),
            escaped(&row.metric),
            number(row.value),
            escaped(&row.unit),
            range.unwrap_or_default(),
            row.limit.map(number).unwrap_or_default(),
            row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        );
    }
    body.push_str("</table>");
}

/// Text as it stands in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The colour of a variant: its place in the group.
fn colour(index: usize) -> String {
    format!("var(--c{})", index % 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    fn report() -> Report {
        let mut report = Report::default();
        for (depth, rate) in [(1, 400.0), (4, 900.0), (16, 1000.0)] {
            for way in ["blockyard", "<raw>"] {
                let mut series = Series::new("backends", format!("write 4 MiB, depth {depth}, {way}"));
                series.add("throughput", "MiB/s", rate);
                series.add("cpu", "s/GiB", 0.1);
                series.add("latency p50", "ms", 1.0);
                series.add("latency p99", "ms", 10.0);
                series.add("latency p99.9", "ms", 20.0);
                series.limit("throughput", Some(1100.0));
                report.series(&series);
            }
        }
        let mut series = Series::new("index", "1000000 replicas");
        series.add("clean start", "s", 0.5);
        report.series(&series);
        report
    }

    #[test]
    fn a_page_has_every_part_and_needs_nothing_from_outside() {
        let report = report();
        let text = page(
            &report,
            &crate::bars::judge(&report),
            &[("machine", "2 < 3 cores".to_owned())],
        );
        for wanted in [
            "Throughput",
            "Share of the limit",
            "Latency",
            "CPU",
            "<svg",
            "2 &lt; 3",
            "1 of 1 bars",
            "clean start",
        ] {
            assert!(text.contains(wanted), "{wanted}");
        }
        assert!(text.contains("&lt;raw&gt;") && !text.contains("<raw>"));
        for outside in ["http://", "https://", "<script", "url("] {
            assert!(!text.contains(outside), "{outside}");
        }
        assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
        assert_eq!(text.matches("<div").count(), text.matches("</div>").count());
        assert!(!text.contains("NaN") && !text.contains("inf%"));
    }

    #[test]
    fn a_page_is_remade_from_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (rows, html) = (folder.path().join("rows.json"), folder.path().join("page.html"));
        let machine = |case: &str| Row {
            scenario: report::MACHINE.into(),
            case: case.into(),
            commit: Some("abc".into()),
            ..Row::default()
        };
        let mut measured = report();
        measured.push(machine("2 cores"));
        measured.write_json(&rows).unwrap();
        let flags = ReportFlags {
            rows: vec![rows.clone(), rows.clone()],
            html: html.clone(),
        };
        remake(&flags).unwrap();
        let text = fs::read_to_string(&html).unwrap();
        assert!(text.contains("2 cores") && text.contains("abc"));
        let other = folder.path().join("other.json");
        fs::write(&other, serde_json::to_string(&[machine("4 cores")]).unwrap()).unwrap();
        let rows = vec![rows, other];
        assert!(remake(&ReportFlags { rows, html }).is_err());
    }

    #[test]
    fn a_file_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        write(&path, &report(), &[]).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("</html>\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
