//! Latency against the rate at which operations were due, a curve for each percentile on a logarithmic scale, as SVG.

use std::fmt::Write as _;

use super::group::{Axis, Group};
use super::{colour, escaped};
use crate::report::number;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
const PERCENTILES: [&str; 3] = ["p50", "p99", "p99.9"];
/// Nothing is timed more finely.
const MS_MIN: f64 = 1e-3;

/// `None` where the cases don't differ in their rate, or there is only one.
pub(super) fn latencies(group: &Group) -> Option<String> {
    if group.axis != Axis::Rate || group.depths.len() < 2 {
        return None;
    }
    let variant = group.variants.first()?;
    let curve = |percentile: &str| -> Vec<(f64, f64)> {
        let ms = |rate: u32| {
            let row = group.find(variant, rate, &format!("latency {percentile}"))?;
            Some((f64::from(rate), row.value.max(MS_MIN)))
        };
        group.depths.iter().filter_map(|&rate| ms(rate)).collect()
    };
    let curves = PERCENTILES.map(curve);
    let all = || curves.iter().flatten().map(|(_, ms)| *ms);
    let lowest = all().fold(f64::INFINITY, f64::min).log10().floor();
    let highest = all().fold(MS_MIN, f64::max).log10().ceil().max(lowest + 1.0);
    if !lowest.is_finite() {
        return None;
    }
    let (first, last) = (
        f64::from(*group.depths.first()?),
        f64::from(*group.depths.last()?),
    );
    let x = |rate: f64| LEFT + 14.0 + (WIDTH - LEFT - RIGHT - 28.0) * (rate - first) / (last - first);
    let y = |ms: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (ms.log10() - lowest) / (highest - lowest));

    let title = escaped(&format!("{}: ms", group.title()));
    let mut svg =
        format!("<h4>{title}</h4>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{title}\">\n");
    let mut power = lowest;
    while power <= highest {
        let ms = 10_f64.powf(power);
        let at = y(ms);
        let _ = writeln!(
            svg,
            "<line class=axis x1={LEFT} x2={} y1={at:.1} y2={at:.1} /><text x={} y={:.1} text-anchor=end>{ms}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
        power += 1.0;
    }
    for &rate in &group.depths {
        let _ = writeln!(
            svg,
            "<text x={:.1} y={} text-anchor=middle>{rate}</text>",
            x(f64::from(rate)),
            HEIGHT - 6.0
        );
    }
    for (index, (percentile, points)) in PERCENTILES.iter().zip(&curves).enumerate() {
        let colour = colour(index);
        let places = points
            .iter()
            .map(|&(rate, ms)| format!("{:.1},{:.1}", x(rate), y(ms)))
            .collect::<Vec<_>>()
            .join(" ");
        let _ = writeln!(
            svg,
            "<polyline class=curve style=\"stroke:{colour}\" points=\"{places}\" />"
        );
        for &(rate, ms) in points {
            let _ = writeln!(
                svg,
                "<circle cx={:.1} cy={:.1} r=3 style=\"fill:{colour}\"><title>{percentile} at {rate} a second: {} ms</title></circle>",
                x(rate),
                y(ms),
                number(ms)
            );
        }
    }
    svg.push_str("</svg>\n<div class=key>");
    for (index, percentile) in PERCENTILES.iter().enumerate() {
        let _ = write!(
            svg,
            "<span><i style=\"background:{}\"></i>{percentile}</span>",
            colour(index)
        );
    }
    svg.push_str("</div>");
    Some(svg)
}

#[cfg(test)]
mod tests {
    use super::super::group::groups;
    use super::*;
    use crate::report::{Report, Row, Series};

    fn drawn(rates: &[u32]) -> Option<String> {
        let mut report = Report::default();
        for rate in rates {
            let mut series = Series::new("files", format!("read 4 KiB, {rate} due a second"));
            for (percentile, ms) in PERCENTILES.iter().zip([0.5, 5.0, 50.0]) {
                series.add(&format!("latency {percentile}"), "ms", ms);
            }
            report.series(&series);
        }
        let rows: Vec<&Row> = report.rows().iter().collect();
        latencies(&groups(&rows)[0])
    }

    #[test]
    fn a_curve_for_each_percentile() {
        let svg = drawn(&[500, 1000, 2000]).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches("<circle").count(), 9);
        // 0.1 to 100 ms: three powers of ten, four lines.
        assert_eq!(svg.matches("<line").count(), 4);
        assert!(drawn(&[500]).is_none());
    }
}
