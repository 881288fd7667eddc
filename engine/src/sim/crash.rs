//! What a power cut may leave: the durable image, and every choice among what was not durable yet.
//!
//! A choice is free per sector of each unflushed write, per file's new length, and for a prefix of each folder's new
//! names. Where there are few choices all of them are made; else prefixes, whole and torn writes, and chance.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::SECTOR_BYTES;
use super::faults::Rng;
use super::pages::{Durable, mix};
use super::world::{NameChange, World, apply_name, folder_of};

/// A disk at rest: names and durable files.
#[derive(Clone, Default)]
pub struct Image {
    pub(super) names: BTreeMap<String, usize>,
    pub(super) files: Vec<Durable>,
}

impl Image {
    /// Equal for equal names and bytes.
    pub fn hash(&self) -> u64 {
        self.names.iter().fold(0, |sum, (name, &file)| {
            let name = name.bytes().fold(1, |hash, byte| mix(hash ^ u64::from(byte)));
            sum ^ mix(name ^ self.files[file].hash())
        })
    }
}

/// A write that may arrive in any part.
#[derive(Clone)]
pub(super) struct Unflushed {
    pub(super) file: usize,
    pub(super) offset_bytes: u64,
    pub(super) bytes: Rc<[u8]>,
}

impl Unflushed {
    fn sector(&self, number: usize) -> (u64, &[u8]) {
        let from = number * SECTOR_BYTES;
        let to = self.bytes.len().min(from + SECTOR_BYTES);
        (self.offset_bytes + from as u64, &self.bytes[from..to])
    }
}

/// A moment at which the power may go.
#[derive(Clone)]
pub struct CrashPoint {
    durable: Image,
    /// Oldest first; what is in flight comes last.
    writes: Vec<Unflushed>,
    /// Files that have grown, and their new lengths.
    grown: Vec<(usize, u64)>,
    /// New names of each folder, oldest first.
    names: Vec<Vec<NameChange>>,
}

/// Sectors that would change the image, by write.
pub struct Choices<'a> {
    point: &'a CrashPoint,
    sectors: Vec<(usize, usize)>,
}

/// One choice.
struct Choice {
    sectors: Vec<bool>,
    grown: Vec<bool>,
    names: Vec<usize>,
}

impl CrashPoint {
    pub(super) fn of(world: &World) -> Self {
        let mut writes = Vec::new();
        let mut grown = Vec::new();
        for (file, inode) in world.inodes.iter().enumerate() {
            for write in &inode.pending {
                writes.push(Unflushed {
                    file,
                    offset_bytes: write.offset_bytes,
                    bytes: write.bytes.clone(),
                });
            }
            if inode.length_bytes != inode.durable.length_bytes {
                grown.push((file, inode.length_bytes));
            }
        }
        writes.extend(world.writes_in_flight());
        let mut names: BTreeMap<&str, Vec<NameChange>> = BTreeMap::new();
        for change in &world.new_names {
            names
                .entry(folder_of(change.name()))
                .or_default()
                .push(change.clone());
        }
        Self {
            durable: Image {
                names: world.durable_names.clone(),
                files: world.inodes.iter().map(|inode| inode.durable.clone()).collect(),
            },
            writes,
            grown,
            names: names.into_values().collect(),
        }
    }

    /// What can be chosen.
    pub fn choices(&self) -> Choices<'_> {
        let mut sectors = Vec::new();
        let mut touched = HashSet::new();
        for (number, write) in self.writes.iter().enumerate() {
            let durable = &self.durable.files[write.file].pages;
            for sector in 0..write.bytes.len().div_ceil(SECTOR_BYTES) {
                let (at_bytes, bytes) = write.sector(sector);
                // A sector that is there already is no choice, unless an earlier write may have changed it.
                let changes = durable.sector(at_bytes)[..bytes.len()] != *bytes;
                if changes || touched.contains(&(write.file, at_bytes)) {
                    touched.insert((write.file, at_bytes));
                    sectors.push((number, sector));
                }
            }
        }
        Choices { point: self, sectors }
    }
}

impl Choices<'_> {
    /// All choices there are, if that can be counted.
    pub fn count(&self) -> Option<u64> {
        let bits = self.sectors.len() + self.point.grown.len();
        let names = self.point.names.iter().map(|folder| folder.len() as u64 + 1);
        let all = 1u64.checked_shl(bits as u32).filter(|_| bits < 64)?;
        names.into_iter().try_fold(all, u64::checked_mul)
    }

    /// Images that the power cut may leave, at most `bound` of them: all, where there are no more.
    pub fn images(&self, bound: u64, rng: &mut Rng, mut each: impl FnMut(Image)) {
        if let Some(count) = self.count().filter(|&count| count <= bound) {
            (0..count).for_each(|number| each(self.image(&self.numbered(number))));
            return;
        }
        let all = self.sectors.len() as u64;
        for number in 0..bound {
            let choice = match number {
                0 => self.dense(0, rng),
                1 => self.dense(1000, rng),
                _ if number % 3 == 2 => self.prefix(rng.below(all + 1), rng),
                _ if number % 3 == 0 => self.by_write(rng),
                _ => {
                    let per_mille = [100, 500, 900][rng.below(3) as usize];
                    self.dense(per_mille, rng)
                }
            };
            each(self.image(&choice));
        }
    }

    /// One image, by chance.
    pub fn any(&self, rng: &mut Rng) -> Image {
        // Sometimes all or nothing survives, mostly anything.
        let choice = match rng.below(6) {
            0 => self.dense(0, rng),
            1 => self.dense(1000, rng),
            2 => self.by_write(rng),
            3 => self.prefix(rng.below(self.sectors.len() as u64 + 1), rng),
            4 => self.dense(900, rng),
            _ => self.dense(500, rng),
        };
        self.image(&choice)
    }

    fn numbered(&self, mut number: u64) -> Choice {
        let mut digit = |base: u64| {
            let digit = number % base;
            number /= base;
            digit
        };
        Choice {
            sectors: self.sectors.iter().map(|_| digit(2) == 1).collect(),
            grown: self.point.grown.iter().map(|_| digit(2) == 1).collect(),
            names: (self.point.names.iter())
                .map(|folder| digit(folder.len() as u64 + 1) as usize)
                .collect(),
        }
    }

    /// Everything survives with this chance.
    fn dense(&self, per_mille: u64, rng: &mut Rng) -> Choice {
        Choice {
            sectors: self.sectors.iter().map(|_| rng.chance(per_mille)).collect(),
            ..self.around(per_mille, rng)
        }
    }

    /// The first sectors survive, in the order in which they were written.
    fn prefix(&self, count: u64, rng: &mut Rng) -> Choice {
        Choice {
            sectors: (0..self.sectors.len() as u64)
                .map(|number| number < count)
                .collect(),
            ..self.around(500, rng)
        }
    }

    /// Each write survives, is lost, or is torn.
    fn by_write(&self, rng: &mut Rng) -> Choice {
        let fates: Vec<u64> = self
            .point
            .writes
            .iter()
            .map(|_| [0, 1000, 500][rng.below(3) as usize])
            .collect();
        Choice {
            sectors: self
                .sectors
                .iter()
                .map(|&(write, _)| rng.chance(fates[write]))
                .collect(),
            ..self.around(500, rng)
        }
    }

    fn around(&self, per_mille: u64, rng: &mut Rng) -> Choice {
        let names = self.point.names.iter().map(|folder| {
            let survive = folder.iter().take_while(|_| rng.chance(per_mille));
            survive.count()
        });
        let names = names.collect();
        Choice {
            sectors: Vec::new(),
            grown: self.point.grown.iter().map(|_| rng.chance(per_mille)).collect(),
            names,
        }
    }

    fn image(&self, choice: &Choice) -> Image {
        let mut image = self.point.durable.clone();
        for (&(write, sector), _) in self
            .sectors
            .iter()
            .zip(&choice.sectors)
            .filter(|(_, keep)| **keep)
        {
            let write = &self.point.writes[write];
            let (at_bytes, bytes) = write.sector(sector);
            image.files[write.file].write(at_bytes, bytes);
        }
        for (&(file, length_bytes), _) in self
            .point
            .grown
            .iter()
            .zip(&choice.grown)
            .filter(|(_, keep)| **keep)
        {
            image.files[file].length_bytes = length_bytes;
        }
        for (folder, &count) in self.point.names.iter().zip(&choice.names) {
            folder[..count]
                .iter()
                .for_each(|change| apply_name(&mut image.names, change));
        }
        image
    }
}
