//! A simulated file's bytes: pages that images share until one of them writes, and what of a file is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{PAGE_BYTES, SECTOR_BYTES};
use crate::checksum::crc;

/// Pages that were ever written; the others are zeros. Clones cost nothing until they differ.
#[derive(Clone, Default)]
pub(super) struct Pages(Rc<BTreeMap<u64, Rc<[u8; PAGE_BYTES]>>>);

impl Pages {
    pub(super) fn write(&mut self, mut offset_bytes: u64, mut bytes: &[u8]) {
        let pages = Rc::make_mut(&mut self.0);
        while !bytes.is_empty() {
            let within = (offset_bytes % PAGE_BYTES as u64) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - within));
            let page = pages
                .entry(offset_bytes / PAGE_BYTES as u64)
                .or_insert_with(|| Rc::new([0; PAGE_BYTES]));
            Rc::make_mut(page)[within..within + now.len()].copy_from_slice(now);
            (offset_bytes, bytes) = (offset_bytes + now.len() as u64, rest);
        }
    }

    pub(super) fn read(&self, mut offset_bytes: u64, mut into: &mut [u8]) {
        while !into.is_empty() {
            let within = (offset_bytes % PAGE_BYTES as u64) as usize;
            let (now, rest) = into.split_at_mut(into.len().min(PAGE_BYTES - within));
            match self.0.get(&(offset_bytes / PAGE_BYTES as u64)) {
                Some(page) => now.copy_from_slice(&page[within..within + now.len()]),
                None => now.fill(0),
            }
            (offset_bytes, into) = (offset_bytes + now.len() as u64, rest);
        }
    }

    /// A whole file of this length.
    pub(super) fn all(&self, length_bytes: u64) -> Vec<u8> {
        let mut bytes = vec![0; length_bytes as usize];
        for (&page, content) in &*self.0 {
            let from = (page as usize * PAGE_BYTES).min(bytes.len());
            let to = (from + PAGE_BYTES).min(bytes.len());
            bytes[from..to].copy_from_slice(&content[..to - from]);
        }
        bytes
    }

    pub(super) fn sector(&self, at_bytes: u64) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        self.read(at_bytes / SECTOR_BYTES as u64 * SECTOR_BYTES as u64, &mut sector);
        sector
    }
}

/// What a power cut leaves of a file.
#[derive(Clone, Default)]
pub(super) struct Durable {
    pub(super) pages: Pages,
    pub(super) length_bytes: u64,
    /// Pages whose extents were made durable by a sync of the file, or found readable after a crash.
    extents: Rc<BTreeSet<u64>>,
    /// Of the bytes: the same bytes at the same places give the same hash, however they came there.
    hash: u64,
}

impl Durable {
    /// A file of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut whole = bytes.to_vec();
        whole.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
        let mut durable = Self {
            length_bytes: bytes.len() as u64,
            ..Self::default()
        };
        durable.write(0, &whole);
        durable
    }

    /// Whole sectors, in extents that are durable with them.
    pub(super) fn write(&mut self, offset_bytes: u64, bytes: &[u8]) {
        for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let at_bytes = offset_bytes + (at * SECTOR_BYTES) as u64;
            self.hash ^= sector_hash(at_bytes, &self.pages.sector(at_bytes)) ^ sector_hash(at_bytes, sector);
        }
        self.pages.write(offset_bytes, bytes);
        let pages = pages_of(offset_bytes, bytes.len());
        if !self.has_extents(pages.clone()) {
            Rc::make_mut(&mut self.extents).extend(pages);
        }
    }

    pub(super) fn has_extents(&self, mut pages: std::ops::Range<u64>) -> bool {
        pages.all(|page| self.extents.contains(&page))
    }

    pub(super) fn hash(&self) -> u64 {
        mix(self.hash ^ mix(self.length_bytes))
    }
}

/// The pages that so many bytes from there touch.
pub(super) fn pages_of(offset_bytes: u64, bytes: usize) -> std::ops::Range<u64> {
    offset_bytes / PAGE_BYTES as u64..(offset_bytes + bytes as u64).div_ceil(PAGE_BYTES as u64)
}

/// Zeros count for nothing, so that it does not matter whether they were written.
fn sector_hash(at_bytes: u64, sector: &[u8]) -> u64 {
    const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];
    if sector == &ZEROS[..sector.len()] {
        return 0;
    }
    mix(mix(at_bytes) ^ u64::from(crc(sector)))
}

/// The finalizer of SplitMix64.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
