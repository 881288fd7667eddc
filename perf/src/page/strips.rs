//! Rows of bars and dots, one for each case: shares of the limit, CPU, latencies. Plain HTML, so that they fit phones.

use std::fmt::Write as _;

use super::group::{Case, Group};
use super::{colour, escaped};
use crate::bars::threshold;
use crate::report::number;

/// The left end of all scales: nothing is timed more finely.
const MS_MIN: f64 = 1e-3;

/// What memory of several processes is called.
const MEMORY: &str = "memory of ";
/// What is timed, the most telling first.
const LATENCIES: [&str; 3] = ["latency", "block acknowledged", "first byte"];

/// Ratios to the limit.
pub(super) fn shares(group: &Group) -> Option<String> {
    let value = |variant: &str, depth| {
        // Of ranges and files the rate is what counts; both have a limit, and the same share of it.
        let with_limit = |metric| {
            group
                .find(variant, depth, metric)
                .filter(|row| row.ratio.is_some())
        };
        let row = with_limit("throughput").or_else(|| with_limit("rate"))?;
        // A bar for a rate is no share.
        Some((row.ratio?, threshold(row).filter(|_| row.metric == "throughput")))
    };
    bars(group, value, Some(1.0))
}

/// CPU-seconds per GiB, of each process where they are known.
pub(super) fn cpu(group: &Group) -> Option<String> {
    if !group.behind("cpu of ").is_empty() {
        return stacked(group, "cpu of ", "cpu");
    }
    let value = |variant: &str, depth| {
        let row = group.find(variant, depth, "cpu")?;
        Some((row.value, threshold(row)))
    };
    bars(group, value, None)
}

/// The most memory that a process took, or what each of several servers holds after the case.
pub(super) fn memory(group: &Group) -> Option<String> {
    if !group.behind(MEMORY).is_empty() {
        return stacked(group, MEMORY, "");
    }
    let value = |variant: &str, depth| Some((group.find(variant, depth, "peak memory")?.value, None));
    bars(group, value, None)
}

/// A bar for each case, made of parts: the metrics whose names begin with `prefix`. The whole is marked with `total`'s bar.
fn stacked(group: &Group, prefix: &str, total: &str) -> Option<String> {
    let mut names = group.behind(prefix);
    if prefix == MEMORY {
        // Perf itself is the client, and most of its memory is random data.
        names.retain(|name| *name != "client");
    }
    let cases = group.cases(|variant, depth| {
        let part = |name: &&str| group.find(variant, depth, &format!("{prefix}{name}"));
        let parts: Vec<f64> = names
            .iter()
            .map(|name| part(name).map_or(0.0, |row| row.value))
            .collect();
        let mark = group.find(variant, depth, total).and_then(threshold);
        (parts.iter().sum::<f64>() > 0.0).then_some((parts, mark))
    });
    let sum = |case: &Case<(Vec<f64>, Option<f64>)>| case.value.0.iter().sum::<f64>();
    let marks = cases.iter().filter_map(|case| case.value.1);
    let highest = cases.iter().map(sum).chain(marks).fold(0.0, f64::max);
    if highest <= 0.0 {
        return None;
    }
    let percent = |value: f64| value / (highest * 1.03) * 100.0;
    let mut html = format!("<h4>{}</h4>\n", escaped(group.work));
    for case in &cases {
        heading(&mut html, case);
        let _ = write!(
            html,
            "<div class=bar><span class=name>{}</span><div class=track>",
            escaped(&case.name)
        );
        let mut left = 0.0;
        for (index, (name, value)) in names.iter().zip(&case.value.0).enumerate() {
            let _ = write!(
                html,
                "<div class=part style=\"left:{:.1}%;width:{:.1}%;background:{}\" title=\"{} {}\"></div>",
                percent(left),
                percent(*value),
                colour(index),
                escaped(name),
                number(*value)
            );
            left += value;
        }
        if let Some(mark) = case.value.1 {
            let _ = write!(
                html,
                "<div class=mark style=\"left:{:.1}%\"></div>",
                percent(mark)
            );
        }
        let _ = writeln!(html, "</div><span class=value>{}</span></div>", number(sum(case)));
    }
    html.push_str("<div class=key>");
    for (index, name) in names.iter().enumerate() {
        let _ = write!(
            html,
            "<span><i class=block style=\"background:{}\"></i>{}</span>",
            colour(index),
            escaped(name)
        );
    }
    html.push_str("</div>\n");
    Some(html)
}

/// A bar for each case with a value (and a threshold to be marked); `full` is marked on all.
fn bars(
    group: &Group,
    value: impl Fn(&str, u32) -> Option<(f64, Option<f64>)>,
    full: Option<f64>,
) -> Option<String> {
    let cases = group.cases(value);
    let marks = cases.iter().filter_map(|case| case.value.1).chain(full);
    let highest = cases
        .iter()
        .map(|case| case.value.0)
        .chain(marks)
        .fold(0.0, f64::max);
    if cases.is_empty() || highest <= 0.0 {
        return None;
    }
    // A little room, so that marks at the end are seen.
    let percent = |value: f64| value / (highest * 1.03) * 100.0;
    let mut html = format!("<h4>{}</h4>\n", escaped(group.work));
    for case in cases {
        heading(&mut html, &case);
        let (value, mark) = case.value;
        let _ = write!(
            html,
            "<div class=bar><span class=name>{}</span><div class=track>\
             <div class=fill style=\"width:{:.1}%;background:{}\"></div>",
            escaped(&case.name),
            percent(value),
            colour(case.index)
        );
        if let Some(full) = full {
            let _ = write!(
                html,
                "<div class=\"mark full\" style=\"left:{:.1}%\"></div>",
                percent(full)
            );
        }
        if let Some(mark) = mark {
            let _ = write!(
                html,
                "<div class=mark style=\"left:{:.1}%\"></div>",
                percent(mark)
            );
        }
        let _ = writeln!(html, "</div><span class=value>{}</span></div>", number(value));
    }
    Some(html)
}

/// p50, p99 and p99.9 of each case, on one logarithmic scale.
pub(super) fn latencies(group: &Group) -> Option<String> {
    let what = LATENCIES
        .iter()
        .find(|what| group.behind(what).contains(&" p50"))?;
    let cases = group.cases(|variant, depth| {
        let ms = |name: &str| Some(group.find(variant, depth, &format!("{what} {name}"))?.value);
        Some([ms("p50")?, ms("p99")?, ms("p99.9")?].map(|ms| ms.max(MS_MIN)))
    });
    if cases.is_empty() {
        return None;
    }
    let all = || cases.iter().flat_map(|case| case.value);
    let lowest = all().fold(f64::INFINITY, f64::min).log10().floor();
    let highest = all().fold(MS_MIN, f64::max).log10().ceil().max(lowest + 1.0);
    let percent = |ms: f64| (ms.log10() - lowest) / (highest - lowest) * 100.0;
    let title = if *what == "latency" {
        group.work.to_owned()
    } else {
        format!("{}: {what}", group.work)
    };
    let mut html = format!("<h4>{}</h4>\n", escaped(&title));
    for case in &cases {
        heading(&mut html, case);
        let (ms, colour) = (case.value, colour(case.index));
        let [first, .., last] = ms.map(percent);
        let _ = write!(
            html,
            "<div class=bar><span class=name>{}</span><div class=track>\
             <div class=span style=\"left:{first:.1}%;width:{:.1}%;background:{colour}\"></div>",
            escaped(&case.name),
            last - first
        );
        for (name, ms) in ["p50", "p99", "p99.9"].into_iter().zip(ms) {
            let _ = write!(
                html,
                "<div class=dot style=\"left:{:.1}%;background:{colour}\" title=\"{name} {} ms\"></div>",
                percent(ms),
                number(ms)
            );
        }
        let _ = writeln!(html, "</div><span class=value>{}</span></div>", number(ms[1]));
    }
    html.push_str("<div class=bar><span class=name>p99 on the right</span><div class=scale>");
    let mut power = lowest;
    while power <= highest {
        let ms = 10_f64.powf(power);
        let _ = write!(html, "<span style=\"left:{:.1}%\">{ms}</span>", percent(ms));
        power += 1.0;
    }
    html.push_str("</div><span class=value>ms</span></div>\n");
    Some(html)
}

fn heading<T>(html: &mut String, case: &Case<T>) {
    if let Some(depth) = &case.heading {
        let _ = writeln!(html, "<div class=depth>{depth}</div>");
    }
}
