//! Rows that belong into one plot: the same work at several depths, by several variants.

use crate::report::Row;

/// `WORK, depth N, VARIANT`: what a case's name says.
#[derive(PartialEq, Debug)]
pub(super) struct Name<'a> {
    pub work: &'a str,
    pub depth: u32,
    pub variant: &'a str,
}

impl<'a> Name<'a> {
    /// `None` for cases without a depth, and for those that are limits themselves.
    fn of(case: &'a str) -> Option<Self> {
        let mut parts = case.split(", ");
        let work = parts.next().filter(|work| !work.starts_with("limit: "))?;
        let depth = parts.next()?.strip_prefix("depth ")?.parse().ok()?;
        Some(Self {
            work,
            depth,
            variant: parts.next().unwrap_or("blockyard"),
        })
    }
}

/// One work.
pub(super) struct Group<'a> {
    pub work: &'a str,
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
            .position(|group| group.work == name.work)
            .unwrap_or_else(|| {
                groups.push(Group {
                    work: name.work,
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

    /// What the machine allows at this depth.
    pub(super) fn limit(&self, depth: u32, metric: &str) -> Option<f64> {
        let row = |variant: &&str| self.find(variant, depth, metric)?.limit;
        self.variants.iter().find_map(row)
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
                        variant.to_owned()
                    } else {
                        format!("depth {depth}")
                    },
                    heading: std::mem::take(&mut first).then_some(depth),
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
    pub heading: Option<u32>,
    pub value: T,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Report, Series};

    #[test]
    fn names() {
        let name = |work, depth, variant| Some(Name { work, depth, variant });
        assert_eq!(
            Name::of("put 4 MiB, depth 4, fresh"),
            name("put 4 MiB", 4, "fresh")
        );
        assert_eq!(
            Name::of("get 64 KiB, depth 16"),
            name("get 64 KiB", 16, "blockyard")
        );
        assert_eq!(Name::of("limit: fio write 4 MiB, depth 4"), None);
        assert_eq!(Name::of("upload, 4 streams"), None);
        assert_eq!(Name::of("hot get 4 MiB"), None);
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
        assert_eq!(groups[0].limit(16, "throughput"), Some(10.0));
        assert!(groups[0].find("a", 16, "throughput").is_none());
        assert!(groups[0].has(rows[0]) && !groups[0].has(rows[2]) && !groups[1].has(rows[3]));
    }
}
