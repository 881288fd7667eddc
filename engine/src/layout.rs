//! Where bytes lie in a segment: slot classes, slot headers and superblocks. Pure: bytes in, values out.
//!
//! FORMAT.md draws what is encoded here. All numbers are little-endian.

use crate::block::{BlockId, Origin};
use crate::checksum::{crc, crc_seeded};
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_UNITS_MAX, PAGE_BYTES, UNIT_BYTES};

/// The version of everything on disk.
pub const FORMAT: u32 = 1;

/// Slots of at most this many pages keep the header before the data in their first page.
const SMALL_PAGES_MAX: usize = 4;
/// Header bytes in small slots: they hold at most one checksum unit.
const SMALL_HEADER_BYTES: usize = 128;
/// Bytes of a header before the unit CRCs.
const HEADER_FIXED_BYTES: usize = 64;
/// Bytes of a header that mean something, before the unit CRCs; zeros follow.
const HEADER_NAMED_BYTES: usize = 48;
/// Bytes of a superblock that mean something; zeros follow.
const SUPERBLOCK_NAMED_BYTES: usize = 55;
const SLOT_MAGIC: [u8; 4] = *b"BYsl";
const SEGMENT_MAGIC: [u8; 8] = *b"BYsegmnt";
/// Pages of the largest slot: a whole block and its header.
pub const SLOT_PAGES_MAX: usize = BLOCK_BYTES_MAX / PAGE_BYTES + 1;

/// Bytes of the longest segment that places can reach into: what is longer on disk is nonsense, and sums overflow.
pub const SEGMENT_BYTES_MAX: u64 = (PAGE_BYTES + u16::MAX as usize * SLOT_PAGES_MAX * PAGE_BYTES) as u64;

/// The kinds of slots, by pages: each at most a third larger than the one before, so no block wastes over 25%.
const CLASS_PAGES: [u16; CLASSES] = class_pages();
/// How many slot classes there are.
pub const CLASSES: usize = count_classes();

const fn next_class(pages: usize) -> usize {
    if pages < SMALL_PAGES_MAX {
        return pages + 1;
    }
    let next = pages * 4 / 3;
    if next > SLOT_PAGES_MAX {
        SLOT_PAGES_MAX
    } else {
        next
    }
}

const fn count_classes() -> usize {
    let (mut pages, mut count) = (1, 1);
    while pages < SLOT_PAGES_MAX {
        pages = next_class(pages);
        count += 1;
    }
    count
}

const fn class_pages() -> [u16; CLASSES] {
    let mut table = [1; CLASSES];
    let mut class = 1;
    while class < CLASSES {
        table[class] = next_class(table[class - 1] as usize) as u16;
        class += 1;
    }
    table
}

const _: () = assert!(CLASS_PAGES[CLASSES - 1] as usize == SLOT_PAGES_MAX);
const _: () = assert!(SMALL_PAGES_MAX * PAGE_BYTES <= UNIT_BYTES);
const _: () = assert!(HEADER_FIXED_BYTES + 4 <= SMALL_HEADER_BYTES);
const _: () = assert!(HEADER_FIXED_BYTES + 4 * BLOCK_UNITS_MAX <= PAGE_BYTES);

/// One of the [`CLASSES`] sizes of slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Class(u8);

impl Class {
    /// The class with this number, if there is one.
    pub fn new(number: u8) -> Option<Self> {
        ((number as usize) < CLASSES).then_some(Self(number))
    }

    /// The smallest class that holds a block of `length_bytes` (1 B to 4 MiB) and its header.
    pub fn for_length(length_bytes: usize) -> Self {
        assert!((1..=BLOCK_BYTES_MAX).contains(&length_bytes));
        let small_pages = (SMALL_HEADER_BYTES + length_bytes).div_ceil(PAGE_BYTES);
        let pages = if small_pages <= SMALL_PAGES_MAX {
            small_pages
        } else {
            1 + length_bytes.div_ceil(PAGE_BYTES)
        };
        Self(CLASS_PAGES.partition_point(|&class| (class as usize) < pages) as u8)
    }

    /// Its place among the classes, smallest first.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Bytes of a slot.
    pub fn slot_bytes(self) -> usize {
        CLASS_PAGES[self.0 as usize] as usize * PAGE_BYTES
    }

    /// Bytes before the block's own in a slot.
    pub fn header_bytes(self) -> usize {
        if self.slot_bytes() <= SMALL_PAGES_MAX * PAGE_BYTES {
            SMALL_HEADER_BYTES
        } else {
            PAGE_BYTES
        }
    }

    /// Bytes of header, block and padding that are written for a block: whole pages.
    pub fn written_bytes(self, length_bytes: usize) -> usize {
        (self.header_bytes() + length_bytes).next_multiple_of(PAGE_BYTES)
    }

    /// Slots in a segment file of `segment_bytes`.
    pub fn slots_in(self, segment_bytes: u64) -> u32 {
        let slots = segment_bytes.saturating_sub(PAGE_BYTES as u64) / self.slot_bytes() as u64;
        slots.min(u64::from(u16::MAX)) as u32
    }

    /// The largest class: whole blocks.
    pub fn largest() -> Self {
        Self((CLASSES - 1) as u8)
    }
}

/// Bytes of the slot that a block of `length_bytes` (1 B to 4 MiB) takes, where there is room for its own class.
pub fn slot_bytes_for(length_bytes: usize) -> usize {
    Class::for_length(length_bytes).slot_bytes()
}

/// A slot: which segment, which of its slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The segment's number.
    pub segment: u16,
    /// The slot's number within it.
    pub slot: u16,
}

impl Place {
    /// Where in the segment file the slot begins.
    pub fn offset_bytes(self, class: Class) -> u64 {
        PAGE_BYTES as u64 + u64::from(self.slot) * class.slot_bytes() as u64
    }

    pub(crate) fn packed(self) -> u32 {
        u32::from(self.segment) << 16 | u32::from(self.slot)
    }

    pub(crate) fn unpacked(packed: u32) -> Self {
        Self {
            segment: (packed >> 16) as u16,
            slot: packed as u16,
        }
    }
}

/// What makes a slot's header belong to that slot and no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotSeed {
    /// The volume's id.
    pub volume: [u8; 16],
    /// Random, drawn when the segment was cut for its class.
    pub segment_seed: u64,
    /// The slot.
    pub place: Place,
}

impl SlotSeed {
    pub(crate) fn crc(&self) -> u32 {
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&self.volume);
        bytes[16..24].copy_from_slice(&self.segment_seed.to_le_bytes());
        bytes[24..].copy_from_slice(&self.place.packed().to_le_bytes());
        crc(&bytes)
    }
}

/// What opens a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotHeader {
    /// The block in the slot.
    pub block: BlockId,
    /// Where the block came from.
    pub origin: Origin,
    /// Bytes of the block.
    pub length: u32,
    /// The segment's generation when the slot was written.
    pub generation: u32,
    /// CRC32C of the whole block.
    pub crc32c: u32,
    /// CRC32C of each checksum unit.
    pub unit_crcs: Vec<u32>,
}

impl SlotHeader {
    /// The header's bytes, and the CRC that seals them.
    pub fn encode(&self, seed: &SlotSeed) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(HEADER_FIXED_BYTES + 4 * self.unit_crcs.len());
        bytes.extend_from_slice(&SLOT_MAGIC);
        bytes.extend_from_slice(&[0; 4]); // the seal, below
        bytes.extend_from_slice(&(FORMAT as u16).to_le_bytes());
        bytes.extend_from_slice(&(self.unit_crcs.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes()); // stored encoding: 0 = as is
        bytes.extend_from_slice(&self.block.0.to_le_bytes());
        bytes.extend_from_slice(&self.origin.version.to_le_bytes());
        bytes.extend_from_slice(&self.origin.index.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.crc32c.to_le_bytes());
        bytes.resize(HEADER_FIXED_BYTES, 0);
        for unit in &self.unit_crcs {
            bytes.extend_from_slice(&unit.to_le_bytes());
        }
        let seal = crc_seeded(seed.crc(), &bytes[8..]);
        bytes[4..8].copy_from_slice(&seal.to_le_bytes());
        (bytes, seal)
    }

    /// Reads a header that must be whole, of this slot, and sealed by `expected_seal` (when that is known).
    pub fn decode(bytes: &[u8], seed: &SlotSeed, expected_seal: Option<u32>) -> Result<Self, &'static str> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes.len() < HEADER_FIXED_BYTES || bytes[..4] != SLOT_MAGIC {
            return Err("the slot has no header");
        }
        let units = u16::from_le_bytes([bytes[10], bytes[11]]) as usize;
        let end = HEADER_FIXED_BYTES + 4 * units;
        if units > BLOCK_UNITS_MAX || end > bytes.len() {
            return Err("the slot's header has an impossible length");
        }
        let seal = word(4);
        if seal != crc_seeded(seed.crc(), &bytes[8..end]) {
            return Err("the slot's header fails its CRC (damaged, or written to another slot)");
        }
        if expected_seal.is_some_and(|expected| expected != seal) {
            return Err("the slot's header is not the one that was put (a lost or misdirected write)");
        }
        let header = Self {
            block: BlockId(long(16)),
            origin: Origin {
                version: long(24),
                index: word(32),
            },
            length: word(36),
            generation: word(40),
            crc32c: word(44),
            unit_crcs: bytes[HEADER_FIXED_BYTES..end]
                .chunks_exact(4)
                .map(read_word)
                .collect(),
        };
        if u16::from_le_bytes([bytes[8], bytes[9]]) as u32 != FORMAT || word(12) != 0 {
            return Err("the slot was written by a newer format");
        }
        if bytes[HEADER_NAMED_BYTES..HEADER_FIXED_BYTES]
            .iter()
            .any(|&byte| byte != 0)
        {
            return Err("the slot's header holds what this format doesn't know");
        }
        if header.length == 0 || (header.length as usize).div_ceil(UNIT_BYTES) != units {
            return Err("the slot's header contradicts itself");
        }
        Ok(header)
    }
}

fn read_word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("4 bytes"))
}

/// The first page of a segment: what the segment is. For `fsck`; the journal has the authority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The volume it belongs to.
    pub volume: [u8; 16],
    /// The segment's number.
    pub segment: u16,
    /// The class of its slots.
    pub class: Class,
    /// Counts how often the segment was cut.
    pub generation: u32,
    /// Random, drawn with the generation.
    pub seed: u64,
    /// Bytes of the file.
    pub segment_bytes: u64,
}

impl Superblock {
    /// The superblock's page.
    pub fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        page[..8].copy_from_slice(&SEGMENT_MAGIC);
        page[12..16].copy_from_slice(&FORMAT.to_le_bytes());
        page[16..32].copy_from_slice(&self.volume);
        page[32..40].copy_from_slice(&self.seed.to_le_bytes());
        page[40..48].copy_from_slice(&self.segment_bytes.to_le_bytes());
        page[48..52].copy_from_slice(&self.generation.to_le_bytes());
        page[52..54].copy_from_slice(&self.segment.to_le_bytes());
        page[54] = self.class.number();
        let seal = crc(&page[12..]);
        page[8..12].copy_from_slice(&seal.to_le_bytes());
        page
    }

    /// Reads a superblock's page.
    pub fn decode(page: &[u8]) -> Result<Self, &'static str> {
        if page.len() < PAGE_BYTES || page[..8] != SEGMENT_MAGIC {
            return Err("no superblock");
        }
        if read_word(&page[8..12]) != crc(&page[12..PAGE_BYTES]) {
            return Err("the superblock fails its CRC");
        }
        if read_word(&page[12..16]) != FORMAT {
            return Err("the superblock was written by another format");
        }
        if page[SUPERBLOCK_NAMED_BYTES..PAGE_BYTES]
            .iter()
            .any(|&byte| byte != 0)
        {
            return Err("the superblock holds what this format doesn't know");
        }
        let long = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("8 bytes"));
        if long(40) > SEGMENT_BYTES_MAX {
            return Err("the superblock names an impossible length");
        }
        Ok(Self {
            volume: page[16..32].try_into().expect("16 bytes"),
            seed: long(32),
            segment_bytes: long(40),
            generation: read_word(&page[48..52]),
            segment: u16::from_le_bytes([page[52], page[53]]),
            class: Class::new(page[54]).ok_or("the superblock names an unknown class")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: SlotSeed = SlotSeed {
        volume: [3; 16],
        segment_seed: 99,
        place: Place { segment: 4, slot: 5 },
    };

    fn header() -> SlotHeader {
        SlotHeader {
            block: BlockId(0x0102_0304_0506_0708),
            origin: Origin {
                version: 11,
                index: 12,
            },
            length: UNIT_BYTES as u32 + 1,
            generation: 3,
            crc32c: 0xabcd,
            unit_crcs: vec![1, 2],
        }
    }

    #[test]
    fn no_block_wastes_over_a_quarter_of_its_slot() {
        for length in 1..=BLOCK_BYTES_MAX {
            let class = Class::for_length(length);
            let used = class.header_bytes() + length;
            assert!(used <= class.slot_bytes(), "length {length}");
            // A block of under a page can't use three quarters of it.
            assert!(class.0 == 0 || (class.slot_bytes() - used) * 4 <= class.slot_bytes() + 3 * PAGE_BYTES);
            if class.slot_bytes() > SMALL_PAGES_MAX * PAGE_BYTES {
                assert!(
                    (class.slot_bytes() - used) * 4 <= class.slot_bytes(),
                    "length {length}"
                );
            }
        }
        assert_eq!(Class::for_length(BLOCK_BYTES_MAX), Class::largest());
    }

    #[test]
    fn header_comes_back_and_fits_its_slot_only() {
        let (bytes, seal) = header().encode(&SEED);
        assert_eq!(SlotHeader::decode(&bytes, &SEED, Some(seal)), Ok(header()));
        assert!(SlotHeader::decode(&bytes, &SEED, Some(seal ^ 1)).is_err());
        let others = [
            SlotSeed {
                volume: [4; 16],
                ..SEED
            },
            SlotSeed {
                segment_seed: 98,
                ..SEED
            },
            SlotSeed {
                place: Place { segment: 4, slot: 6 },
                ..SEED
            },
        ];
        for other in others {
            assert!(SlotHeader::decode(&bytes, &other, None).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let (bytes, seal) = header().encode(&SEED);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SlotHeader::decode(&bad, &SEED, Some(seal)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn superblock_comes_back_and_flips_are_seen() {
        let superblock = Superblock {
            volume: [9; 16],
            segment: 7,
            class: Class::largest(),
            generation: 2,
            seed: 5,
            segment_bytes: 1 << 28,
        };
        let page = superblock.encode();
        assert_eq!(Superblock::decode(&page), Ok(superblock));
        for byte in [0, 9, 20, 33, 54, 4095] {
            let mut bad = page;
            bad[byte] ^= 4;
            assert!(Superblock::decode(&bad).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn slots_never_overlap_nor_leave_the_segment() {
        for class in (0..CLASSES as u8).filter_map(Class::new) {
            let segment_bytes = 8 * 1024 * 1024;
            let last = Place {
                segment: 0,
                slot: (class.slots_in(segment_bytes) - 1) as u16,
            };
            assert!(last.offset_bytes(class) + class.slot_bytes() as u64 <= segment_bytes);
        }
    }
}
