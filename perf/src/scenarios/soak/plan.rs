//! What the clients of a soak do, drawn from the seed: names, lengths, and one operation after another.
//!
//! Pure: what comes next does not depend on how anything went, so that a seed tries the same again.

use std::ops::RangeInclusive;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::super::BLOCK_BYTES;

/// Directories that the names are spread over.
pub(super) const DIRECTORIES: usize = 8;
/// The longest range that is read.
const RANGE_BYTES_MAX: u64 = 1 << 20;

/// Names whose files are of about one length, whoever writes them: so what lies stored stays what it is.
#[derive(Clone, Copy, Debug)]
struct Class {
    name: &'static str,
    /// Lengths at which something changes: checksum units, blocks.
    edges: &'static [u64],
    lengths: RangeInclusiveBytes,
    /// Names of this class, whatever the size; or its part of the size, in percent.
    names: Names,
    /// How often it is written and read, out of all.
    writes: u32,
    reads: u32,
}

type RangeInclusiveBytes = (u64, u64);

#[derive(Clone, Copy, Debug)]
enum Names {
    Count(usize),
    Percent(u64),
}

const CLASSES: [Class; 6] = [
    Class {
        name: "empty",
        edges: &[0],
        lengths: (0, 0),
        names: Names::Count(16),
        writes: 5,
        reads: 4,
    },
    Class {
        name: "byte",
        edges: &[1],
        lengths: (1, 2),
        names: Names::Count(16),
        writes: 5,
        reads: 4,
    },
    Class {
        name: "page",
        edges: &[4095, 4096, 4097],
        lengths: (100, 16 << 10),
        names: Names::Count(64),
        writes: 43,
        reads: 35,
    },
    Class {
        name: "unit",
        edges: &[(64 << 10) - 1, 64 << 10, (64 << 10) + 1, 128 << 10],
        lengths: (32 << 10, 256 << 10),
        names: Names::Count(64),
        writes: 42,
        reads: 35,
    },
    Class {
        name: "block",
        edges: &[BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1],
        lengths: (1 << 20, 6 << 20),
        names: Names::Percent(35),
        writes: 4,
        reads: 14,
    },
    Class {
        name: "large",
        edges: &[2 * BLOCK_BYTES, 5 * BLOCK_BYTES],
        lengths: (6 << 20, 20 << 20),
        names: Names::Percent(65),
        writes: 1,
        reads: 8,
    },
];

/// One operation. Names are numbers, see [`Plan::path`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// Upload where nothing may be yet.
    Create { name: usize, length_bytes: u64 },
    /// Upload in place of what is there, if anything is.
    Overwrite { name: usize, length_bytes: u64 },
    /// Read all of it.
    Read { name: usize },
    /// Read a part, cut at the file's end.
    Range {
        name: usize,
        from_bytes: u64,
        length_bytes: u64,
    },
    /// Ask what is there.
    Look { name: usize },
    /// List all of a directory.
    List { directory: usize },
    /// Give one the name of another, whatever is there.
    Rename { from: usize, to: usize },
    /// Remove it.
    Delete { name: usize },
}

impl Work {
    /// Bytes that it writes.
    pub(super) fn written_bytes(&self) -> u64 {
        match self {
            Self::Create { length_bytes, .. } | Self::Overwrite { length_bytes, .. } => *length_bytes,
            _ => 0,
        }
    }

    /// What the table calls it.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Create { .. } => Kind::Create,
            Self::Overwrite { .. } => Kind::Overwrite,
            Self::Read { .. } => Kind::Read,
            Self::Range { .. } => Kind::Range,
            Self::Look { .. } => Kind::Look,
            Self::List { .. } => Kind::List,
            Self::Rename { .. } => Kind::Rename,
            Self::Delete { .. } => Kind::Delete,
        }
    }
}

/// Kinds of operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Create,
    Overwrite,
    Read,
    Range,
    Look,
    List,
    Rename,
    Delete,
}

/// Each kind, what it is called, and how often it comes out of all.
const KINDS: [(Kind, &str, u32); 8] = [
    (Kind::Create, "create", 6),
    (Kind::Overwrite, "overwrite", 20),
    (Kind::Read, "read", 28),
    (Kind::Range, "range", 24),
    (Kind::Look, "lookup", 5),
    (Kind::List, "list", 4),
    (Kind::Rename, "rename", 7),
    (Kind::Delete, "delete", 6),
];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or("", |(_, name, _)| name)
    }
}

/// The names of a soak.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Numbers of the names of each class.
    classes: Vec<(Class, std::ops::Range<usize>)>,
}

impl Plan {
    /// Names that hold `size_bytes` when each has a file.
    pub(super) fn new(size_bytes: u64) -> Self {
        let mut classes = Vec::new();
        let mut next = 0;
        for class in CLASSES {
            let count = match class.names {
                Names::Count(count) => count,
                Names::Percent(percent) => {
                    let middle_bytes = (class.lengths.0 + class.lengths.1) / 2;
                    ((size_bytes / 100 * percent / middle_bytes) as usize).max(2)
                }
            };
            classes.push((class, next..next + count));
            next += count;
        }
        Self { classes }
    }

    /// The same, of which hardly any that are long are written again: where little is to be written, many short ones are.
    pub(super) fn short(size_bytes: u64) -> Self {
        let mut plan = Self::new(size_bytes);
        for (class, _) in &mut plan.classes {
            if matches!(class.names, Names::Percent(_)) {
                class.writes = u32::from(class.lengths.1 <= 2 * BLOCK_BYTES);
            }
        }
        plan
    }

    pub(super) fn names(&self) -> RangeInclusive<usize> {
        0..=self.classes.last().map_or(0, |(_, names)| names.end - 1)
    }

    pub(super) fn path(&self, name: usize) -> String {
        let class = self.class_of(name).0.name;
        format!("{}/{class}-{name:05}", directory(name % DIRECTORIES))
    }

    /// The number of the name that a path is of.
    pub(super) fn name_of(path: &str) -> Option<usize> {
        path.rsplit_once('-')?.1.parse().ok()
    }

    /// Names in a directory.
    pub(super) fn in_directory(&self, directory: usize) -> impl Iterator<Item = usize> {
        self.names().filter(move |name| name % DIRECTORIES == directory)
    }

    /// The first file of a name.
    pub(super) fn first(&self, name: usize, dice: &mut StdRng) -> Work {
        Work::Overwrite {
            name,
            length_bytes: length(&self.class_of(name).0, dice),
        }
    }

    /// The next operation of a client.
    pub(super) fn next(&self, dice: &mut StdRng) -> Work {
        let kind = KINDS
            .choose_weighted(dice, |(.., often)| *often)
            .map_or(Kind::Look, |(kind, ..)| *kind);
        let reads = matches!(kind, Kind::Read | Kind::Range | Kind::Look);
        let (class, names) = self
            .classes
            .choose_weighted(dice, |(class, _)| if reads { class.reads } else { class.writes })
            .unwrap_or(&self.classes[0]);
        let name = dice.random_range(names.clone());
        match kind {
            Kind::Create => Work::Create {
                name,
                length_bytes: length(class, dice),
            },
            Kind::Overwrite => Work::Overwrite {
                name,
                length_bytes: length(class, dice),
            },
            Kind::Read => Work::Read { name },
            Kind::Range => Work::Range {
                name,
                from_bytes: dice.random_range(0..=class.lengths.1),
                length_bytes: dice.random_range(1..=RANGE_BYTES_MAX),
            },
            Kind::Look => Work::Look { name },
            Kind::List => Work::List {
                directory: dice.random_range(0..DIRECTORIES),
            },
            Kind::Rename => {
                // To another one of the same class: lengths stay with their names.
                let step = dice.random_range(1..names.len());
                let to = names.start + (name - names.start + step) % names.len();
                Work::Rename { from: name, to }
            }
            Kind::Delete => Work::Delete { name },
        }
    }

    fn class_of(&self, name: usize) -> &(Class, std::ops::Range<usize>) {
        let holds = |(_, names): &&(Class, std::ops::Range<usize>)| names.contains(&name);
        self.classes.iter().find(holds).unwrap_or(&self.classes[0])
    }
}

/// The path of a directory.
pub(super) fn directory(number: usize) -> String {
    format!("/soak/{number}")
}

/// Dice of one part of a soak, whose throws depend on nothing else.
pub(super) fn dice(seed: u64, part: &str, number: u64) -> StdRng {
    // FNV-1a: any mixture will do, as long as it stays the same.
    let mut mixed: u64 = 0xcbf2_9ce4_8422_2325;
    let number = number.to_le_bytes();
    for byte in seed.to_le_bytes().into_iter().chain(part.bytes()).chain(number) {
        mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    StdRng::seed_from_u64(mixed)
}

fn length(class: &Class, dice: &mut StdRng) -> u64 {
    match class.edges.choose(dice) {
        Some(edge) if dice.random_ratio(1, 3) => *edge,
        _ => dice.random_range(class.lengths.0..=class.lengths.1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_seed_tries_the_same_again() {
        let plan = Plan::new(1 << 30);
        let works = |seed, client| {
            let mut dice = dice(seed, "client", client);
            (0..100).map(|_| plan.next(&mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(works(1, 2), works(1, 2));
        assert_ne!(works(1, 2), works(1, 3));
        assert_ne!(works(1, 2), works(2, 2));
    }

    #[test]
    fn every_kind_and_length_comes() {
        let plan = Plan::new(1 << 30);
        let mut dice = dice(3, "client", 0);
        let (mut kinds, mut lengths) = (BTreeMap::<Kind, u32>::new(), Vec::new());
        for _ in 0..5000 {
            let work = plan.next(&mut dice);
            *kinds.entry(work.kind()).or_default() += 1;
            match work {
                Work::Create { name, length_bytes } | Work::Overwrite { name, length_bytes } => {
                    assert!(plan.names().contains(&name));
                    lengths.push(length_bytes);
                }
                Work::Rename { from, to } => {
                    assert_ne!(from, to);
                    assert_eq!(plan.class_of(from).0.name, plan.class_of(to).0.name);
                }
                _ => {}
            }
        }
        assert!(kinds.len() == KINDS.len() && kinds.values().all(|count| *count > 50));
        for length in [0, 1, 4096, BLOCK_BYTES] {
            assert!(lengths.contains(&length), "{length}");
        }
        assert!(lengths.iter().any(|length| *length > 4 * BLOCK_BYTES));
    }

    #[test]
    fn a_plan_of_short_files_writes_little() {
        let mean = |plan: Plan| {
            let mut dice = dice(5, "client", 0);
            let bytes: u64 = (0..5000).map(|_| plan.next(&mut dice).written_bytes()).sum();
            bytes / 5000
        };
        let (short, all) = (mean(Plan::short(48 << 20)), mean(Plan::new(48 << 20)));
        assert!(short < 40 << 10 && short * 2 < all, "{short} of {all}");
    }

    #[test]
    fn names_hold_about_the_size() {
        for size in [64 << 20, 1 << 30, 10 << 30] {
            let plan = Plan::new(size);
            let mut dice = dice(4, "first", 0);
            let bytes: u64 = plan
                .names()
                .map(|name| plan.first(name, &mut dice).written_bytes())
                .sum();
            assert!(bytes > size * 3 / 4 && bytes < size * 7 / 4, "{bytes} of {size}");
        }
    }

    #[test]
    fn paths_and_directories_belong_together() {
        let plan = Plan::new(64 << 20);
        for name in plan.names() {
            assert_eq!(Plan::name_of(&plan.path(name)), Some(name));
            assert!(plan.path(name).starts_with(&directory(name % DIRECTORIES)));
        }
        let all: usize = (0..DIRECTORIES).map(|at| plan.in_directory(at).count()).sum();
        assert_eq!(all, plan.names().count());
    }
}
