//! Doors into everything that a volume decodes, for `engine/fuzz`: each takes one input and checks what must hold.
//!
//! A door panics where a property fails. It answers whether the input was decoded, so that a run can tell how much of
//! its work got past the CRCs. Half of the inputs, chosen by their own CRC so that an input always does the same, get
//! their seals recomputed first: a mutation alone would never pass them.

use crate::checksum::{crc, crc_seeded};
use crate::identity;
use crate::journal::{self, Head, JOURNAL_FILES, JournalSeed, Ring};
use crate::layout::{Place, SlotHeader, SlotSeed, Superblock};
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_UNITS_MAX, PAGE_BYTES};
use crate::record::{Reader, Replica};
use crate::recover::seat;
use crate::replay::Replayed;
use crate::snapshot::{self, Meta, Snapshot};
use crate::space::Space;

/// The fuzzed journal's ring: small, so that a few batches go around it.
const RING: Ring = Ring { file_pages: 3 };
/// Bytes of the volume's and its incarnation's ids before a journal or a checkpoint.
const IDS_BYTES: usize = 32;
/// Bytes of a head before a journal's batches.
const HEAD_BYTES: usize = 20;

/// Whether this input's seals are recomputed.
pub fn is_repaired(input: &[u8]) -> bool {
    crc(input) & 1 == 1
}

/// A slot's header: volume 16, segment's seed 8, place 4, then the header.
pub fn slot_header(input: &[u8]) -> bool {
    let mut reader = Reader(input);
    let seed = (|| {
        Some(SlotSeed {
            volume: reader.take()?,
            segment_seed: reader.u64()?,
            place: Place::unpacked(reader.u32()?),
        })
    })();
    let Some(seed) = seed else { return false };
    let mut bytes = reader.0.to_vec();
    if is_repaired(input) && bytes.len() >= 64 {
        let units = u16::from_le_bytes([bytes[10], bytes[11]]) as usize;
        let end = bytes.len().min(64 + 4 * units);
        repair(&mut bytes[..end], seed.crc());
    }
    let Ok(header) = SlotHeader::decode(&bytes, &seed, None) else {
        return false;
    };
    assert!((1..=BLOCK_BYTES_MAX as u32).contains(&header.length));
    assert!((1..=BLOCK_UNITS_MAX).contains(&header.unit_crcs.len()));
    let (again, seal) = header.encode(&seed);
    assert_eq!(again, bytes[..again.len()]);
    assert_eq!(SlotHeader::decode(&again, &seed, Some(seal)), Ok(header));
    assert!(SlotHeader::decode(&bytes, &seed, Some(!seal)).is_err());
    true
}

/// A superblock; what the input lacks to a page is zero.
pub fn superblock(input: &[u8]) -> bool {
    let mut page = input.to_vec();
    // Short inputs stay short now and then: they must be refused, not read past their end.
    if input.len() >= 12 {
        page.resize(PAGE_BYTES, 0);
    }
    if is_repaired(input) && page.len() == PAGE_BYTES {
        let seal = crc(&page[12..]);
        page[8..12].copy_from_slice(&seal.to_le_bytes());
    }
    let Ok(superblock) = Superblock::decode(&page) else {
        return false;
    };
    assert_eq!(superblock.encode()[..], page[..PAGE_BYTES]);
    let last = superblock.class.slots_in(superblock.segment_bytes).checked_sub(1);
    if let Some(slot) = last {
        let place = Place {
            segment: superblock.segment,
            slot: slot as u16,
        };
        let end = place.offset_bytes(superblock.class) + superblock.class.slot_bytes() as u64;
        assert!(end <= superblock.segment_bytes);
    }
    true
}

/// A journal and its replay: ids 32, head 20, then batches, each behind pages to skip (1 B) and its length (2 B).
pub fn journal(input: &[u8]) -> bool {
    let mut reader = Reader(input);
    let Some((ids, head)) = (|| Some((reader.take::<IDS_BYTES>()?, head(&mut reader)?)))() else {
        return false;
    };
    let seed = JournalSeed::new(ids_of(&ids).0, ids_of(&ids).1);
    let sealing = crc_seeded(crc(&ids[..16]), &ids[16..]);
    let mut pages = vec![0; RING.pages() as usize * PAGE_BYTES];
    let (mut page, mut previous, mut starts) = (head.page as usize, head.previous_crc, Vec::new());
    while let Some((skip, mut batch)) = section(&mut reader) {
        page = (page + skip as usize) % RING.pages() as usize;
        batch.truncate(pages.len() - page * PAGE_BYTES);
        if is_repaired(input) && batch.len() >= journal::BATCH_HEADER_BYTES {
            // Chained too, or the first mutation would hide all batches behind it.
            if batch[28..32] != [0xff; 4] {
                batch[28..32].copy_from_slice(&previous.to_le_bytes());
            }
            let length = u32::from_le_bytes(batch[12..16].try_into().expect("4 bytes")) as usize;
            let end = length.clamp(journal::BATCH_HEADER_BYTES, batch.len());
            repair(&mut batch[..end], sealing);
            previous = u32::from_le_bytes(batch[4..8].try_into().expect("4 bytes"));
        }
        pages[page * PAGE_BYTES..][..batch.len()].copy_from_slice(&batch);
        starts.push(page);
        page += batch.len().div_ceil(PAGE_BYTES);
        page %= RING.pages() as usize;
    }
    let mut decoded = false;
    for page in starts {
        let bytes = &pages[page * PAGE_BYTES..];
        if let Some(batch) = journal::decode_batch(seed, bytes) {
            decoded = true;
            batch_comes_back(seed, &batch, bytes);
        }
    }
    let Ok(scan) = journal::scan(seed, RING, head, &pages) else {
        return decoded;
    };
    assert!(scan.head.page < RING.pages() && scan.head.sequence >= head.sequence);
    assert!(scan.records.len() <= pages.len() / 4);
    assert!(scan.durable_through < scan.head.sequence);
    let mut replayed = Replayed::new(Snapshot {
        meta: Meta {
            head,
            ring: RING,
            epoch: None,
        },
        segments: Vec::new(),
        replicas: Vec::new(),
    });
    for (sequence, record) in scan.records {
        assert!((head.sequence..scan.head.sequence).contains(&sequence));
        replayed.apply(record, sequence <= scan.durable_through);
    }
    nothing_out_of_bounds(replayed);
    decoded
}

/// A checkpoint and its replay: ids 32, ordinal 8, then blocks of 64 KiB, each as its first bytes behind a zero (1 B)
/// and their length (2 B).
pub fn checkpoint(input: &[u8]) -> bool {
    let mut reader = Reader(input);
    let Some((ids, ordinal)) = (|| Some((reader.take::<IDS_BYTES>()?, reader.u64()?)))() else {
        return false;
    };
    let seed = crc_seeded(crc(&ids[..16]), &ids[16..]);
    let mut bytes = Vec::new();
    while let Some((_, mut block)) = section(&mut reader) {
        if is_repaired(input) && block.len() >= snapshot::HEADER_BYTES {
            block[8..16].copy_from_slice(&ordinal.to_le_bytes());
            let length = u32::from_le_bytes(block[20..24].try_into().expect("4 bytes")) as usize;
            let end = length.clamp(snapshot::HEADER_BYTES, block.len());
            repair(&mut block[..end], seed);
        }
        bytes.resize(bytes.len().next_multiple_of(snapshot::BLOCK_BYTES), 0);
        bytes.extend_from_slice(&block);
    }
    let Ok(found) = snapshot::decode(seed, ordinal, &bytes) else {
        return false;
    };
    assert!(found.meta.head.page < found.meta.ring.pages());
    // What it takes in memory is bounded by what was read: no count is believed.
    let words: usize = found.segments.iter().map(|one| one.written.len()).sum();
    assert!(28 * found.segments.len() + 8 * words + 32 * found.replicas.len() <= bytes.len());
    let mut writer = snapshot::Writer::new(seed, ordinal, &found.meta);
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for segment in &found.segments {
        blocks.extend(writer.segment(segment.number, &segment.cut, &segment.written));
    }
    for (block, replica) in &found.replicas {
        blocks.extend(writer.replica(*block, replica));
    }
    blocks.extend(writer.finish());
    // Not always the same bytes: blocks may be less full than the writer's, and items stand in another order.
    assert_eq!(
        snapshot::decode(seed, ordinal, &blocks.concat()).as_ref(),
        Ok(&found)
    );
    nothing_out_of_bounds(Replayed::new(found));
    true
}

/// volume.toml. It has no seal; what is read must come back from what is written.
pub fn volume_toml(input: &[u8]) -> bool {
    let Ok(found) = identity::decode(input) else {
        return false;
    };
    let text = identity::encode(&found).expect("what was read can be written");
    assert_eq!(
        identity::decode(text.as_bytes()).expect("what was written can be read"),
        found
    );
    true
}

fn repair(bytes: &mut [u8], seed: u32) {
    let seal = crc_seeded(seed, &bytes[8..]);
    bytes[4..8].copy_from_slice(&seal.to_le_bytes());
}

fn ids_of(ids: &[u8; IDS_BYTES]) -> (&[u8; 16], &[u8; 16]) {
    let (volume, incarnation) = ids.split_at(16);
    let whole = "half of the ids";
    (
        volume.try_into().expect(whole),
        incarnation.try_into().expect(whole),
    )
}

fn head(reader: &mut Reader<'_>) -> Option<Head> {
    let mut fields = Reader(reader.slice(HEAD_BYTES)?);
    let head = Head {
        sequence: fields.u64()?,
        page: fields.u32()?,
        lap: fields.u32()?,
        previous_crc: fields.u32()?,
    };
    head.is_possible(RING).then_some(head)
}

/// The next byte and the bytes that follow behind their length; the last ones may be fewer.
fn section(reader: &mut Reader<'_>) -> Option<(u8, Vec<u8>)> {
    let [first] = reader.take()?;
    let length = reader.u16()? as usize;
    let bytes = reader.slice(length.min(reader.0.len()))?;
    Some((first, bytes.to_vec()))
}

fn batch_comes_back(seed: JournalSeed, batch: &journal::Batch, bytes: &[u8]) {
    let mut records = Vec::new();
    batch
        .records
        .iter()
        .for_each(|record| record.encode(&mut records));
    // Places on disk alone, so any ring will do that holds the page.
    let wide = Ring {
        file_pages: u32::MAX / JOURNAL_FILES,
    };
    if !batch.head.is_possible(wide) || batch.head.page >= wide.pages() / 2 {
        return; // whole, but no scan would follow it
    }
    let generation = u64::from_le_bytes(bytes[40..48].try_into().expect("8 bytes"));
    let (again, _) = journal::encode_batch(
        seed,
        wide,
        batch.head,
        batch.durable_through,
        generation,
        &records,
    );
    let length = journal::BATCH_HEADER_BYTES + records.len();
    assert_eq!(again[..length], bytes[..length]);
}

/// Every replica that recovery would take lies within its segment, and no two in one slot.
fn nothing_out_of_bounds(mut replayed: Replayed) {
    let mut space = Space::new();
    for (&number, (cut, written)) in &replayed.segments {
        space.set_segment(number, *cut, None);
        space.restore_written(number, written);
    }
    let mut taken = std::collections::BTreeSet::new();
    for (block, replica) in replayed.take_replicas() {
        if seat(&mut space, block, &replica).is_err() {
            continue;
        }
        let Replica { place, length, .. } = replica;
        let segment = space.segment(place.segment).expect("a replica's segment");
        let class = segment.cut.class;
        let end = place.offset_bytes(class) + class.written_bytes(length as usize) as u64;
        assert!(end <= segment.cut.segment_bytes);
        assert!(taken.insert(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockId, Origin};
    use proptest::prelude::*;

    fn header_input() -> Vec<u8> {
        let seed = SlotSeed {
            volume: [1; 16],
            segment_seed: 2,
            place: Place { segment: 3, slot: 4 },
        };
        let header = SlotHeader {
            block: BlockId(5),
            origin: Origin::default(),
            length: 70_000,
            generation: 6,
            crc32c: 7,
            unit_crcs: vec![8, 9],
        };
        let place = seed.place.packed().to_le_bytes();
        let seed_bytes = [&seed.volume[..], &seed.segment_seed.to_le_bytes(), &place].concat();
        [seed_bytes, header.encode(&seed).0].concat()
    }

    #[test]
    fn a_whole_header_is_decoded_and_a_longer_one_refused() {
        let input = header_input();
        assert!(slot_header(&input));
        let mut bad = input.clone();
        bad[28 + 10] = 65; // units
        assert!(!slot_header(&bad));
        assert!(!slot_header(&input[..40]));
    }

    proptest! {
        #[test]
        fn no_door_breaks(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0..100usize, byte: u8) {
            for door in [slot_header, superblock, journal, checkpoint, volume_toml] {
                door(&bytes);
            }
            let mut input = header_input();
            input[at] = byte;
            slot_header(&input);
        }
    }
}
