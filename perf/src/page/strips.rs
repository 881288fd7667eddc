//! Rows of bars and dots, one for each case: shares of the limit, CPU, latencies. Plain HTML, so that they fit phones.

use std::fmt::Write as _;

use super::group::Group;
use super::{colour, escaped};
use crate::bars::threshold;
use crate::report::number;

/// Ratios to the limit.
pub(super) fn shares(group: &Group) -> Option<String> {
    let value = |variant: &str, depth| {
        let row = group.find(variant, depth, "throughput")?;
        Some((row.ratio?, threshold(row)))
    };
    bars(group, value, Some(1.0))
}

/// CPU-seconds per GiB.
pub(super) fn cpu(group: &Group) -> Option<String> {
    let value = |variant: &str, depth| {
        let row = group.find(variant, depth, "cpu")?;
        Some((row.value, threshold(row)))
    };
    bars(group, value, None)
}

/// A bar for each case with a value (and a threshold to be marked); `full` is marked on all.
fn bars(
    group: &Group,
    value: impl Fn(&str, u32) -> Option<(f64, Option<f64>)>,
    full: Option<f64>,
) -> Option<String> {
    let cases: Vec<_> = group
        .cases()
        .filter_map(|(index, variant, depth)| Some((index, variant, depth, value(variant, depth)?)))
        .collect();
    let marks = cases.iter().filter_map(|(.., (_, mark))| *mark).chain(full);
    let highest = cases
        .iter()
        .map(|(.., (value, _))| *value)
        .chain(marks)
        .fold(0.0, f64::max);
    if cases.is_empty() || highest <= 0.0 {
        return None;
    }
    // A little room, so that marks at the end are seen.
    let percent = |value: f64| value / (highest * 1.03) * 100.0;
    let mut html = format!("<h4>{}</h4>\n", escaped(group.work));
    for (index, variant, depth, (value, mark)) in cases {
        let _ = write!(
            html,
            "<div class=bar><span class=name>{}</span><div class=track>\
             <div class=fill style=\"width:{:.1}%;background:{}\"></div>",
            escaped(&group.label(variant, depth)),
            percent(value),
            colour(index)
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
    let cases: Vec<_> = group
        .cases()
        .filter_map(|(index, variant, depth)| {
            let ms = |name: &str| {
                Some(
                    group
                        .find(variant, depth, &format!("latency {name}"))?
                        .value
                        .max(1e-3),
                )
            };
            Some((index, variant, depth, [ms("p50")?, ms("p99")?, ms("p99.9")?]))
        })
        .collect();
    let all = || cases.iter().flat_map(|(.., ms)| ms);
    let lowest = all().copied().fold(f64::INFINITY, f64::min).log10().floor();
    let highest = all()
        .copied()
        .fold(0.0, f64::max)
        .log10()
        .ceil()
        .max(lowest + 1.0);
    if cases.is_empty() {
        return None;
    }
    let percent = |ms: f64| (ms.log10() - lowest) / (highest - lowest) * 100.0;
    let mut html = format!("<h4>{}</h4>\n", escaped(group.work));
    for (index, variant, depth, ms) in &cases {
        let colour = colour(*index);
        let [first, .., last] = ms.map(percent);
        let _ = write!(
            html,
            "<div class=bar><span class=name>{}</span><div class=track>\
             <div class=span style=\"left:{first:.1}%;width:{:.1}%;background:{colour}\"></div>",
            escaped(&group.label(variant, *depth)),
            last - first
        );
        for (name, ms) in ["p50", "p99", "p99.9"].into_iter().zip(ms) {
            let _ = write!(
                html,
                "<div class=dot style=\"left:{:.1}%;background:{colour}\" title=\"{name} {} ms\"></div>",
                percent(*ms),
                number(*ms)
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
