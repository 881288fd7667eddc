//! Where time and CPU go: a block's life as a bar of stages above what client and volumes did meanwhile, and each
//! process's CPU as a bar of purposes. Inline SVG.

use std::fmt::Write as _;

use super::escaped;
use super::group::Group;
use crate::explain::write::{HOPS, MOMENTS};
use crate::explain::{CPU, HOP, TIME, TIME_P99};
use crate::report::number;

const WIDTH: f64 = 420.0;
/// Where bars begin: names stand before.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 44.0;
const LANE: f64 = 14.0;
const GAP: f64 = 6.0;
const AXIS: f64 = 22.0;

/// The colour of a stage's place.
const PLACES: [(&str, usize); 5] = [
    ("file", 6),
    ("client", 1),
    ("head", 0),
    ("tail", 2),
    ("volume", 0),
];
/// How strong the colour is, by what is done there: neighbours differ.
const DOINGS: [(&str, f64); 16] = [
    ("until its block is read", 0.4),
    ("is published", 0.7),
    ("is looked up", 0.4),
    ("is handed over", 0.7),
    ("reads the slot", 0.7),
    ("reads", 0.95),
    ("checksums", 0.4),
    ("waits for a chain", 0.7),
    ("waits for its turn", 0.7),
    ("is asked", 0.25),
    ("sends", 0.25),
    ("gives a buffer", 0.95),
    ("receives", 0.4),
    ("writes the slot", 0.7),
    ("waits for its flush", 0.25),
    ("answers", 0.55),
];

/// Colour and strength of each purpose: relatives share a colour.
const PURPOSES: [(&str, usize, f64); 19] = [
    ("checksums", 5, 0.95),
    ("HMAC", 5, 0.6),
    ("capnp", 5, 0.35),
    ("copy into sockets", 0, 0.95),
    ("copy out of sockets", 0, 0.65),
    ("copies in memory", 0, 0.35),
    ("TCP/IP", 1, 0.85),
    ("scheduling and wakeups", 3, 0.9),
    ("entering and leaving the kernel", 3, 0.5),
    ("disk submission and completion", 2, 0.95),
    ("filesystem and journal", 2, 0.65),
    ("io_uring", 2, 0.35),
    ("page faults and memory", 4, 0.9),
    ("allocation", 4, 0.5),
    ("runtimes", 6, 0.95),
    ("own code", 6, 0.6),
    ("other", 6, 0.3),
    ("user", 1, 0.85),
    ("system", 0, 0.85),
];

/// A bar of a picture.
struct Part<'a> {
    name: &'a str,
    from: f64,
    value: f64,
    colour: usize,
    strength: f64,
}

/// What a block's life consists of.
pub(super) fn stages(group: &Group) -> Option<String> {
    let cases = group.cases(|variant, depth| {
        let value = |metric: String| group.find(variant, depth, &metric).map(|row| row.value);
        let mut from = 0.0;
        let mut parts: Vec<Part> = Vec::new();
        for name in group.behind(TIME) {
            let Some(ms) = value(format!("{TIME}{name}")) else {
                continue;
            };
            let (place, doing) = name.split_once(": ").unwrap_or_default();
            let (colour, strength) = look_of_stage(place, doing);
            parts.push(Part {
                name,
                from,
                value: ms,
                colour,
                strength,
            });
            from += ms;
        }
        let p99 = |name: &str| value(format!("{TIME_P99}{name}"));
        let p99s: Vec<Option<f64>> = parts.iter().map(|part| p99(part.name)).collect();
        let hops: Vec<(&str, Vec<f64>)> = HOPS
            .iter()
            .map(|hop| {
                (
                    *hop,
                    MOMENTS
                        .iter()
                        .filter_map(|moment| value(format!("{HOP}{hop} {moment}")))
                        .collect(),
                )
            })
            .collect();
        (from > 0.0).then_some((parts, p99s, hops, from))
    });
    let mut html = String::new();
    for case in &cases {
        let (parts, p99s, hops, whole) = &case.value;
        let title = format!("{}, {}: {} ms", group.work, case.name, number(*whole));
        let mut lanes: Vec<(String, Vec<&Part>)> = vec![("waited for".to_owned(), parts.iter().collect())];
        let of_client = |part: &&Part| part.name.starts_with("client");
        lanes.push(("client".to_owned(), parts.iter().filter(of_client).collect()));
        let of_volume: Vec<&Part> = parts
            .iter()
            .filter(|part| part.name.starts_with("volume"))
            .collect();
        if !of_volume.is_empty() {
            lanes.push(("volume".to_owned(), of_volume));
        }
        let own: Vec<(&str, Vec<Part>)> = hops
            .iter()
            .map(|(hop, moments)| (*hop, lane_of_hop(hop, moments)))
            .collect();
        for (hop, parts) in &own {
            if !parts.is_empty() {
                lanes.push(((*hop).to_owned(), parts.iter().collect()));
            }
        }
        svg(&mut html, &title, &lanes, *whole, "ms", false);
        html.push_str("<table class=legend>\n<tr><th>stage<th class=number>mean ms<th class=number>share<th class=number>p99 ms</tr>\n");
        for (part, p99) in parts.iter().zip(p99s) {
            let p99 = p99.map(number).unwrap_or_default();
            legend(
                &mut html,
                part,
                &[number(part.value), percent(part.value / whole), p99],
            );
        }
        html.push_str("</table>\n");
    }
    (!html.is_empty()).then_some(html)
}

/// Colour and strength of `PLACE: DOING`.
fn look_of_stage(place: &str, doing: &str) -> (usize, f64) {
    let colour = PLACES.iter().find(|(known, _)| *known == place);
    let strength = DOINGS.iter().find(|(known, _)| doing.starts_with(known));
    (
        colour.map_or(6, |(_, colour)| *colour),
        strength.map_or(1.0, |(_, strength)| *strength),
    )
}

/// What a hop did by its own account, whether or not it was waited for.
fn lane_of_hop<'a>(hop: &str, moments: &[f64]) -> Vec<Part<'a>> {
    let names = [
        "gives a buffer",
        "receives",
        "writes the slot",
        "waits for its flush",
    ];
    // A hop that never was in the chain has no moments but zeros.
    if moments.len() < MOMENTS.len() || moments.last().is_none_or(|last| *last <= 0.0) {
        return Vec::new();
    }
    let spans = moments.windows(2).zip(names);
    spans
        .map(|(span, name)| {
            let (colour, strength) = look_of_stage(hop, name);
            Part {
                name,
                from: span[0],
                value: (span[1] - span[0]).max(0.0),
                colour,
                strength,
            }
        })
        .collect()
}

/// What each process's CPU went for.
pub(super) fn purposes(group: &Group) -> Option<String> {
    let names: Vec<(&str, &str)> = group
        .behind(CPU)
        .into_iter()
        .filter_map(|name| name.split_once(": "))
        .collect();
    let mut processes: Vec<&str> = Vec::new();
    for (process, _) in &names {
        if !processes.contains(process) {
            processes.push(process);
        }
    }
    let cases = group.cases(|variant, depth| {
        let value = |process: &str, purpose: &str| {
            let metric = format!("{CPU}{process}: {purpose}");
            group.find(variant, depth, &metric).map_or(0.0, |row| row.value)
        };
        let lane = |value: &dyn Fn(&str) -> f64| -> Vec<Part> {
            let mut from = 0.0;
            let mut parts = Vec::new();
            for (name, colour, strength) in PURPOSES {
                let value = value(name);
                if value > 0.0 {
                    parts.push(Part {
                        name,
                        from,
                        value,
                        colour,
                        strength,
                    });
                    from += value;
                }
            }
            parts
        };
        let all = lane(&|purpose| processes.iter().map(|process| value(process, purpose)).sum());
        let each = processes
            .iter()
            .map(|process| (*process, lane(&|purpose| value(process, purpose))));
        let each: Vec<_> = each.filter(|(_, parts)| !parts.is_empty()).collect();
        let whole = end(&all);
        (whole > 0.0).then_some((all, each, whole))
    });
    let unit = names
        .first()
        .map(|(process, purpose)| group.unit(&format!("{CPU}{process}: {purpose}")))?;
    let mut html = String::new();
    for case in &cases {
        let (all, each, whole) = &case.value;
        let title = format!("{}, {}: {} {unit}", group.work, case.name, number(*whole));
        let mut lanes: Vec<(String, Vec<&Part>)> = vec![("all".to_owned(), all.iter().collect())];
        lanes.extend(
            each.iter()
                .map(|(name, parts)| ((*name).to_owned(), parts.iter().collect())),
        );
        svg(&mut html, &title, &lanes, *whole, unit, true);
        let _ = writeln!(
            html,
            "<table class=legend>\n<tr><th>purpose<th class=number>{}<th class=number>share</tr>",
            escaped(unit)
        );
        let mut sorted: Vec<&Part> = all.iter().collect();
        sorted.sort_by(|a, b| b.value.total_cmp(&a.value));
        for part in sorted {
            legend(
                &mut html,
                part,
                &[number(part.value), percent(part.value / whole)],
            );
        }
        html.push_str("</table>\n");
    }
    (!html.is_empty()).then_some(html)
}

fn end<'a>(parts: impl IntoIterator<Item = &'a Part<'a>>) -> f64 {
    parts
        .into_iter()
        .map(|part| part.from + part.value)
        .fold(0.0, f64::max)
}

/// Lanes of bars over one axis; with `sums` each lane's end stands behind it.
fn svg(html: &mut String, title: &str, lanes: &[(String, Vec<&Part>)], whole: f64, unit: &str, sums: bool) {
    let height = lanes.len() as f64 * (LANE + GAP) + AXIS;
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / whole;
    let title = escaped(title);
    let _ = writeln!(
        html,
        "<h4>{title}</h4>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"{title}\">"
    );
    let bottom = height - AXIS;
    let step = step_for(whole);
    let mut tick = 0.0;
    while tick <= whole {
        let at = x(tick);
        let _ = writeln!(
            html,
            "<line class=axis x1={at:.1} x2={at:.1} y1=0 y2={bottom} /><text x={at:.1} y={} text-anchor=middle>{}</text>",
            height - 8.0,
            tick_name(tick, step)
        );
        tick += step;
    }
    let _ = writeln!(
        html,
        "<text x={WIDTH} y={} text-anchor=end>{}</text>",
        height - 8.0,
        escaped(unit)
    );
    for (index, (name, parts)) in lanes.iter().enumerate() {
        let top = index as f64 * (LANE + GAP);
        let middle = top + LANE / 2.0 + 4.0;
        let _ = writeln!(
            html,
            "<text x={} y={middle} text-anchor=end>{}</text>",
            LEFT - 6.0,
            escaped(name)
        );
        for part in parts {
            let _ = writeln!(
                html,
                "<rect x={:.2} y={top} width={:.2} height={LANE} style=\"fill:{}\" fill-opacity={}>\
                 <title>{}: {}</title></rect>",
                x(part.from),
                (x(part.from + part.value) - x(part.from)).max(0.0),
                super::colour(part.colour),
                part.strength,
                escaped(part.name),
                number(part.value)
            );
        }
        if sums {
            let sum = end(parts.iter().copied());
            let _ = writeln!(
                html,
                "<text x={:.1} y={middle}>{}</text>",
                x(sum) + 4.0,
                number(sum)
            );
        }
    }
    html.push_str("</svg>\n");
}

fn legend(html: &mut String, part: &Part, cells: &[String]) {
    let _ = write!(
        html,
        "<tr><td><i style=\"background:{};opacity:{}\"></i>{}",
        super::colour(part.colour),
        part.strength,
        escaped(part.name)
    );
    for cell in cells {
        let _ = write!(html, "<td class=number>{cell}");
    }
    html.push_str("</tr>\n");
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Four to eight steps of 1, 2 or 5 of some power of ten.
fn step_for(whole: f64) -> f64 {
    let power = 10_f64.powf((whole / 4.0).log10().floor());
    let most = whole / 4.0 / power;
    let factor = [5.0, 2.0, 1.0].into_iter().find(|factor| *factor <= most);
    power * factor.unwrap_or(1.0)
}

fn tick_name(tick: f64, step: f64) -> String {
    let places = (-step.log10().floor()).max(0.0) as usize;
    format!("{tick:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{purpose, read, write};
    use crate::page::group::groups;
    use crate::report::{Report, Row, Series};

    #[test]
    fn every_stage_and_purpose_has_a_look() {
        for name in purpose::purposes() {
            assert!(PURPOSES.iter().any(|(known, ..)| *known == name), "{name}");
        }
        for stage in write::STAGES.into_iter().chain(read::STAGES) {
            let (place, doing) = stage.split_once(": ").unwrap();
            assert!(PLACES.iter().any(|(known, _)| *known == place), "{stage}");
            assert!(
                DOINGS.iter().any(|(known, _)| doing.starts_with(known)),
                "{stage}"
            );
        }
    }

    #[test]
    fn bars_are_as_long_as_what_they_show() {
        let mut series = Series::new("explain", "upload, 4 streams");
        for (metric, value) in [
            ("time: client: reads", 10.0),
            ("time: head: writes the slot", 30.0),
            ("time p99: head: writes the slot", 99.0),
            ("moment: head asked", 12.0),
            ("moment: head buffer", 13.0),
            ("moment: head received", 14.0),
            ("moment: head written", 34.0),
            ("moment: head durable", 39.0),
        ] {
            series.add(metric, "ms", value);
        }
        series.add("cpu for: client: checksums", "s/GiB", 0.25);
        series.add("cpu for: nameserver: TCP/IP", "s/GiB", 0.75);
        let mut report = Report::default();
        report.series(&series);
        let rows: Vec<&Row> = report.rows().iter().collect();
        let groups = groups(&rows);
        let space = WIDTH - LEFT - RIGHT;
        let bar =
            |from: f64, share: f64| format!("x={:.2} y=0 width={:.2}", LEFT + space * from, space * share);
        let html = stages(&groups[0]).unwrap();
        assert!(
            html.contains(&bar(0.25, 0.75)) && html.contains(">75.0 %<"),
            "{html}"
        );
        assert!(html.contains("99.0") && html.contains(">head</text>") && !html.contains(">tail</text>"));
        assert!(
            html.contains(&format!("width={:.2}", space / 2.0)),
            "the head wrote for 20 of 40: {html}"
        );
        let html = purposes(&groups[0]).unwrap();
        assert!(
            html.contains(&bar(0.25, 0.75)) && html.contains("1.00 s/GiB"),
            "{html}"
        );
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    }

    #[test]
    fn axes_have_few_steps() {
        for whole in [0.5, 0.911, 3.0, 34.5, 275.0, 1000.0] {
            let steps = whole / step_for(whole);
            assert!((4.0..=10.0).contains(&steps), "{whole}: {steps}");
        }
        assert_eq!(tick_name(0.4, 0.2), "0.4");
        assert_eq!(tick_name(40.0, 20.0), "40");
    }
}
