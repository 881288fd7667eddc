//! Rows that belong into one plot: the same work at several depths, by several variants.

use crate::report::Row;

/// What a group's cases differ in, beside the variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Axis {
    /// Operations in flight of one volume.
    Depth,
    Streams,
    Workers,
    Clients,
    Volumes,
    /// Operations due a second.
    Rate,
}

impl Axis {
    const COUNTED: [(Self, &'static str, &'static str); 5] = [
        (Self::Streams, " stream", " streams"),
        (Self::Workers, " worker", " workers"),
        (Self::Clients, " client", " clients"),
        (Self::Volumes, " volume", " volumes"),
        (Self::Rate, " due a second", " due a second"),
    ];

    /// Reads `depth 4`, `1 stream`, `16 workers`.
    fn of(part: &str) -> Option<(Self, u32)> {
        if let Some(depth) = part.strip_prefix("depth ") {
            return Some((Self::Depth, depth.parse().ok()?));
        }
        Self::COUNTED.iter().find_map(|(axis, one, many)| {
            let number = part.strip_suffix(many).or_else(|| part.strip_suffix(one))?;
            Some((*axis, number.parse().ok()?))
        })
    }

    /// A place on the axis, in words.
    pub(super) fn label(self, value: u32) -> String {
        match Self::COUNTED.iter().find(|(axis, ..)| *axis == self) {
            None => format!("depth {value}"),
            Some((_, one, _)) if value == 1 => format!("{value}{one}"),
            Some((.., many)) => format!("{value}{many}"),
        }
    }

    /// What the axis counts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Depth => "operations in flight",
            Self::Streams => "streams",
            Self::Workers => "workers",
            Self::Clients => "clients",
            Self::Volumes => "volumes",
            Self::Rate => "operations due a second",
        }
    }
}

/// `WORK, depth N, VARIANT`: what a case's name says.
#[derive(PartialEq, Debug)]
pub(super) struct Name<'a> {
    pub work: &'a str,
    pub axis: Axis,
    pub depth: u32,
    pub variant: &'a str,
}

impl<'a> Name<'a> {
    /// `None` for cases without a number, and for those that are limits themselves.
    fn of(case: &'a str) -> Option<Self> {
        let mut parts = case.splitn(3, ", ");
        let work = parts.next().filter(|work| !work.starts_with("limit: "))?;
        let (axis, depth) = Axis::of(parts.next()?)?;
        Some(Self {
            work,
            axis,
            depth,
            variant: parts.next().unwrap_or("blockyard"),
        })
    }
}

/// One work.
pub(super) struct Group<'a> {
    pub work: &'a str,
    pub axis: Axis,
    /// In the order in which they came.
    pub variants: Vec<&'a str>,
    /// Rising.
    pub depths: Vec<u32>,
    rows: Vec<(Name<'a>, &'a Row)>,
}

/// The works among `rows`, in the order in which they came.
pub(super) fn groups<'a>(rows: &[&'a Row]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let Some(name) = Name::of(&row.case) else { continue };
        let at = groups
            .iter()
            .position(|group| group.work == name.work && group.axis == name.axis)
            .unwrap_or_else(|| {
                groups.push(Group {
                    work: name.work,
                    axis: name.axis,
                    variants: Vec::new(),
                    depths: Vec::new(),
                    rows: Vec::new(),
                });
                groups.len() - 1
            });
        let group = &mut groups[at];
        if !group.variants.contains(&name.variant) {
            group.variants.push(name.variant);
        }
        if !group.depths.contains(&name.depth) {
            group.depths.push(name.depth);
            group.depths.sort_unstable();
        }
        group.rows.push((name, row));
    }
    groups
}

impl<'a> Group<'a> {
    pub(super) fn find(&self, variant: &str, depth: u32, metric: &str) -> Option<&'a Row> {
        let found = |(name, row): &&(Name, &Row)| {
            name.variant == variant && name.depth == depth && row.metric == metric
        };
        self.rows.iter().find(found).map(|(_, row)| *row)
    }

    /// The first of these metrics that any case has.
    pub(super) fn first_metric(&self, metrics: &[&'static str]) -> Option<&'static str> {
        let has = |metric: &&&str| self.rows.iter().any(|(_, row)| row.metric == ***metric);
        metrics.iter().find(has).copied()
    }

    /// The unit of a metric.
    pub(super) fn unit(&self, metric: &str) -> &'a str {
        let found = self.rows.iter().find(|(_, row)| row.metric == metric);
        found.map_or("", |(_, row)| row.unit.as_str())
    }

    /// What stands behind `prefix` in the names of metrics, in the order in which they came.
    pub(super) fn behind(&self, prefix: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        for (_, row) in &self.rows {
            let row: &'a Row = row;
            if let Some(name) = row.metric.strip_prefix(prefix)
                && !found.contains(&name)
            {
                found.push(name);
            }
        }
        found
    }

    /// The heading of a plot.
    pub(super) fn title(&self) -> String {
        match self.axis {
            Axis::Depth => self.work.to_owned(),
            axis => format!("{}, by {}", self.work, axis.name()),
        }
    }

    /// A variant's name for people: the usual factor has none of its own.
    pub(super) fn shown(&self, variant: &str) -> String {
        let factors = self.variants.iter().any(|other| other.starts_with("factor "));
        match variant {
            "blockyard" if factors => "factor 2, as usual".to_owned(),
            variant => variant.to_owned(),
        }
    }

    /// Whether some plot may show the row.
    pub(super) fn has(&self, row: &Row) -> bool {
        self.rows.iter().any(|(_, mine)| std::ptr::eq(*mine, row))
    }

    /// What there is of every case, depth by depth and for each variant in turn.
    pub(super) fn cases<T>(&self, value: impl Fn(&str, u32) -> Option<T>) -> Vec<Case<T>> {
        let mut cases = Vec::new();
        for &depth in &self.depths {
            let mut first = self.variants.len() > 1;
            for (index, &variant) in self.variants.iter().enumerate() {
                let Some(value) = value(variant, depth) else {
                    continue;
                };
                cases.push(Case {
                    index,
                    name: if self.variants.len() > 1 {
                        self.shown(variant)
                    } else {
                        self.axis.label(depth)
                    },
                    heading: std::mem::take(&mut first).then(|| self.axis.label(depth)),
                    value,
                });
            }
        }
        cases
    }
}

/// One line of a strip.
pub(super) struct Case<T> {
    /// The variant's place.
    pub index: usize,
    pub name: String,
    /// Stands above the line: the depth, before the first of several variants.
    pub heading: Option<String>,
    pub value: T,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Report, Series};

    #[test]
    fn names() {
        let name = |work, axis, depth, variant| {
            Some(Name {
                work,
                axis,
                depth,
                variant,
            })
        };
        assert_eq!(
            Name::of("put 4 MiB, depth 4, fresh"),
            name("put 4 MiB", Axis::Depth, 4, "fresh")
        );
        assert_eq!(
            Name::of("upload, 1 stream"),
            name("upload", Axis::Streams, 1, "blockyard")
        );
        assert_eq!(
            Name::of("upload, 16 streams, factor 3"),
            name("upload", Axis::Streams, 16, "factor 3")
        );
        assert_eq!(
            Name::of("read 4 KiB, 500 due a second"),
            name("read 4 KiB", Axis::Rate, 500, "blockyard")
        );
        assert_eq!(Name::of("limit: fio write 4 MiB, depth 4"), None);
        assert_eq!(Name::of("upload, 1 to 64 streams"), None);
        assert_eq!(Name::of("hot get 4 MiB"), None);
    }

    #[test]
    fn places_on_an_axis_read_as_they_came() {
        for part in [
            "depth 4",
            "1 stream",
            "16 workers",
            "1 client",
            "8 volumes",
            "500 due a second",
        ] {
            let (axis, value) = Axis::of(part).unwrap();
            assert_eq!(axis.label(value), part);
        }
    }

    #[test]
    fn rows_are_gathered_by_work() {
        let mut report = Report::default();
        for case in ["put, depth 16, b", "put, depth 1, a", "get, depth 1", "other"] {
            let mut series = Series::new("engine", case);
            series.add("throughput", "MiB/s", 5.0);
            series.limit("throughput", Some(10.0));
            report.series(&series);
        }
        let rows: Vec<&Row> = report.rows().iter().collect();
        let groups = groups(&rows);
        assert_eq!(groups.len(), 2);
        assert_eq!(
            (groups[0].depths.as_slice(), groups[0].variants.as_slice()),
            (&[1, 16][..], &["b", "a"][..])
        );
        let found = groups[0].find("b", 16, "throughput");
        assert_eq!(found.and_then(|row| row.limit), Some(10.0));
        assert!(groups[0].find("a", 16, "throughput").is_none());
        assert!(groups[0].has(rows[0]) && !groups[0].has(rows[2]) && !groups[1].has(rows[3]));
    }
}
