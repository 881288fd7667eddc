//! Throughput against depth, streams or what else cases differ in: a curve for each variant and one for the limit, as SVG.

use std::fmt::Write as _;

use super::group::{Axis, Group};
use super::{colour, escaped};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;

/// `None` where there is only one depth, or a rate was kept up, which is no finding.
pub(super) fn throughput(group: &Group) -> Option<String> {
    if group.depths.len() < 2 || group.axis == Axis::Rate {
        return None;
    }
    // Small operations are counted, not weighed.
    let metric = group.first_metric(&["throughput", "rate"])?;
    let unit = group.unit(metric);
    let curves: Vec<Vec<(usize, f64)>> = group
        .variants
        .iter()
        .map(|variant| points(group, |depth| Some(group.find(variant, depth, metric)?.value)))
        .collect();
    let limits = limits(group, metric);
    let all = curves
        .iter()
        .chain(limits.iter().map(|(_, limit)| limit))
        .flatten();
    let highest = all.map(|(_, value)| *value).fold(0.0, f64::max);
    if highest <= 0.0 {
        return None;
    }
    let step = step_for(highest);
    let top_value = (highest / step).ceil() * step;
    let x = |index: usize| {
        LEFT + 14.0 + (WIDTH - LEFT - RIGHT - 28.0) * index as f64 / (group.depths.len() - 1) as f64
    };
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / top_value);

    let work = escaped(&format!("{}: {unit}", group.title()));
    let mut svg =
        format!("<h4>{work}</h4>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{work}\">\n");
    for tick in 0..=(top_value / step).round() as u32 {
        let value = f64::from(tick) * step;
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line class=axis x1={LEFT} x2={} y1={at:.1} y2={at:.1} /><text x={} y={:.1} text-anchor=end>{value}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    for (index, depth) in group.depths.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text x={:.1} y={} text-anchor=middle>{}</text>",
            x(index),
            HEIGHT - 6.0,
            if group.axis == Axis::Depth {
                group.axis.label(*depth)
            } else {
                depth.to_string()
            }
        );
    }
    let line = |points: &[(usize, f64)]| {
        let places = points
            .iter()
            .map(|&(index, value)| format!("{:.1},{:.1}", x(index), y(value)));
        places.collect::<Vec<_>>().join(" ")
    };
    for (number, limit) in &limits {
        let style = number.map(|number| format!(" style=\"stroke:{}\"", colour(number)));
        let _ = writeln!(
            svg,
            "<polyline class=limit{} points=\"{}\" />",
            style.unwrap_or_default(),
            line(limit)
        );
    }
    // Drawn backwards, so that the first variant lies on top.
    for (number, points) in curves.iter().enumerate().rev() {
        let colour = colour(number);
        let _ = writeln!(
            svg,
            "<polyline class=curve style=\"stroke:{colour}\" points=\"{}\" />",
            line(points)
        );
        for &(index, value) in points {
            let _ = writeln!(
                svg,
                "<circle cx={:.1} cy={:.1} r=3 style=\"fill:{colour}\"><title>{}: {value:.0} {unit}</title></circle>",
                x(index),
                y(value),
                escaped(&group.shown(group.variants[number]))
            );
        }
    }
    svg.push_str("</svg>\n<div class=key>");
    for (number, variant) in group.variants.iter().enumerate() {
        let _ = write!(
            svg,
            "<span><i style=\"background:{}\"></i>{}</span>",
            colour(number),
            escaped(&group.shown(variant))
        );
    }
    if !limits.is_empty() {
        svg.push_str("<span><i class=dash></i>limit</span>");
    }
    svg.push_str("</div>");
    Some(svg)
}

/// A limit's points, and the variant that it is for, unless it is for all.
type Limit = (Option<usize>, Vec<(usize, f64)>);

/// One limit where all variants have the same, else one for each that has any.
fn limits(group: &Group, metric: &str) -> Vec<Limit> {
    let of = |variant: &str| points(group, |depth| group.find(variant, depth, metric)?.limit);
    let mut each: Vec<Limit> = group
        .variants
        .iter()
        .enumerate()
        .map(|(number, variant)| (Some(number), of(variant)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    if let [(_, first), others @ ..] = each.as_slice()
        && others.iter().all(|(_, other)| other == first)
    {
        each.truncate(1);
        each[0].0 = None;
    }
    each
}

/// Place of the depth, and the value there, where there is one.
fn points(group: &Group, value: impl Fn(u32) -> Option<f64>) -> Vec<(usize, f64)> {
    let depths = group.depths.iter().enumerate();
    depths
        .filter_map(|(index, &depth)| Some((index, value(depth)?)))
        .collect()
}

/// A round distance between three to six lines up to `highest`.
pub(super) fn step_for(highest: f64) -> f64 {
    let rough = highest / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .find(|digit| digit * power >= rough);
    digit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_drawn_once_or_for_each_variant() {
        let drawn = |limits: [f64; 2]| {
            let mut report = crate::report::Report::default();
            for streams in [4, 16] {
                for (variant, limit) in ["", ", factor 1"].iter().zip(limits) {
                    let mut series =
                        crate::report::Series::new("cluster", format!("upload, {streams} streams{variant}"));
                    series.add("throughput", "MiB/s", 5.0);
                    series.limit("throughput", Some(limit));
                    report.series(&series);
                }
            }
            let rows: Vec<_> = report.rows().iter().collect();
            throughput(&super::super::group::groups(&rows)[0]).unwrap()
        };
        assert_eq!(drawn([10.0, 10.0]).matches("class=limit").count(), 1);
        let both = drawn([10.0, 20.0]);
        assert_eq!(both.matches("class=limit").count(), 2);
        assert!(both.contains("factor 2, as usual") && both.contains("factor 1"));
    }

    #[test]
    fn lines_stand_at_round_numbers() {
        for (highest, step) in [
            (4.0, 1.0),
            (1900.0, 500.0),
            (2100.0, 1000.0),
            (90.0, 25.0),
            (0.7, 0.2),
        ] {
            let found = step_for(highest);
            assert!((found - step).abs() < 1e-9, "{highest}: {found}");
        }
    }
}
