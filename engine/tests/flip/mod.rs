//! Every bit of a volume's metadata flipped, one by one, and bits of its blocks: what a user then sees is judged.
//!
//! A flip must be told (the opening is refused, falls back to the older checkpoint and says so, a read fails, the scrub
//! finds it), or be mended by the opening, or lie where nothing depends on it; and nothing may ever be lost, come back
//! or differ without a word.
#![allow(dead_code)] // each program uses a part

mod judge;
pub mod made;
mod map;

use std::collections::BTreeMap;

pub use judge::How;
use judge::Judge;
use made::{Left, Made};
use map::Part;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How much is flipped.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Of all that matters every so manieth bit.
    pub stride: u64,
    /// Of what does not matter so many bits in each stretch.
    pub samples: u64,
    /// Bits of blocks.
    pub data_bits: u64,
    pub seed: u64,
}

/// What came of the flips.
#[derive(Default)]
pub struct Tally {
    pub counts: BTreeMap<(Part, How), u64>,
    /// What must not be, with the flip.
    pub failures: Vec<String>,
}

impl Tally {
    fn count(&mut self, part: Part, how: How) {
        *self.counts.entry((part, how)).or_default() += 1;
    }

    pub fn add(&mut self, other: Self) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    pub fn flips(&self) -> u64 {
        self.counts.values().sum::<u64>() + self.failures.len() as u64
    }

    /// A line for each kind of structure.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = BTreeMap::<Part, (u64, String)>::new();
        for (&(part, how), count) in &self.counts {
            let line = lines.entry(part).or_default();
            line.0 += count;
            line.1 += &format!(", {count} {}", how.name());
        }
        let line = |(part, (sum, hows)): (Part, (u64, String))| format!("{}: {sum} bits{hows}", part.name());
        lines.into_iter().map(line).collect()
    }
}

/// Flips the metadata of a volume that was left in this way. `progress` hears of each part.
pub fn metadata(left: Left, share: &Share, progress: impl Fn(&str)) -> Tally {
    let made = Made::varied(left);
    let mut judge = Judge::new(&made, left == Left::Killed);
    let mut random = StdRng::seed_from_u64(share.seed);
    let mut tally = Tally::default();
    let areas = judge.map.areas.clone();
    for area in &areas {
        // Superblocks are independent of each other, and flipped all at once below.
        if matches!(area.part, Part::Superblock | Part::SuperblockRest) {
            continue;
        }
        let bits = area.bytes * 8;
        let every = area.part.matters() || matches!(area.part, Part::VolumeTomlSpare | Part::ScrubToml);
        let chosen: Vec<u64> = match every {
            true => (share.seed % share.stride..bits)
                .step_by(share.stride as usize)
                .collect(),
            false => (0..share.samples).map(|_| random.random_range(0..bits)).collect(),
        };
        if every {
            progress(&format!(
                "{left:?}: {} at {} of {}, {} bits",
                area.part.name(),
                area.at,
                area.file,
                chosen.len()
            ));
        }
        for bit in chosen {
            judge.metadata(area, bit, &mut tally);
        }
    }
    progress(&format!("{left:?}: superblocks and slot headers"));
    for bit in (share.seed % share.stride..55 * 8).step_by(share.stride as usize) {
        judge.superblocks(bit, Part::Superblock, &mut tally);
    }
    for _ in 0..share.samples {
        let bit = random.random_range(55 * 8..map::PAGE as u64 * 8);
        judge.superblocks(bit, Part::SuperblockRest, &mut tally);
    }
    let header_bits = judge.map.seats.iter().map(|seat| seat.header_bytes * 8).max();
    for bit in (share.seed % share.stride..header_bits.unwrap_or(0)).step_by(share.stride as usize) {
        judge.headers(bit, &mut tally);
    }
    judge.finish(&mut tally);
    tally
}

/// Flips bits of blocks, one in each block of a volume at a time.
pub fn data(share: &Share, progress: impl Fn(&str)) -> Tally {
    let made = Made::many(400.min(share.data_bits));
    let mut judge = Judge::new(&made, false);
    let mut random = StdRng::seed_from_u64(share.seed);
    let mut tally = Tally::default();
    let mut left = share.data_bits;
    while left > 0 {
        let blocks = left.min(judge.map.seats.len() as u64);
        judge.blocks(blocks as usize, &mut random, &mut tally);
        left -= blocks;
        if left.is_multiple_of(20_000) {
            progress(&format!("{left} bits of blocks are left"));
        }
    }
    judge.finish(&mut tally);
    tally
}
