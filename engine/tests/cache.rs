//! The read cache of a volume over real files: hot reads need neither disk nor copy, and nothing wrong comes of it.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use blockyard_engine::block::BlockId;
use blockyard_engine::{Error, Lane, Result, Verified, Volume, exec};
use common::{MIB, Yard, content, put};

const UNIT: usize = 64 * 1024;
const WHOLE: usize = 4 << 20;

fn yard(cache_bytes: u64) -> Yard {
    let mut yard = Yard::new(256 * MIB);
    yard.options.read_cache_bytes = cache_bytes;
    yard
}

fn read(volume: &Volume, block: u64, offset: usize, length: usize, lane: Lane) -> Result<Verified> {
    exec::run(
        volume,
        volume.get(BlockId(block), offset as u32, length as u32, lane),
    )
}

/// Flips a bit in each unit of everything on the disk but superblocks.
fn spoil_the_disk(yard: &Yard) {
    for path in yard.segments() {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        for at in (4096 + 4096..file.metadata().unwrap().len()).step_by(UNIT / 2) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        }
    }
}

#[test]
fn hot_reads_come_from_the_same_memory_and_not_from_the_disk() {
    let yard = yard(32 * MIB);
    let (volume, _) = yard.open();
    let lengths = [1, 5000, UNIT, 3 * UNIT + 7, WHOLE];
    for (block, length) in (1..).zip(lengths) {
        put(&volume, block, length).unwrap();
    }
    // That a block is copied says nothing of readers.
    for (block, length) in (1..).zip(lengths) {
        let copied = exec::run(&volume, volume.get_past_cache(BlockId(block), 0, length as u32));
        assert!(copied.unwrap().data == content(block, length));
    }
    assert_eq!(volume.stat().cache.used_bytes, 0);
    let first: Vec<Verified> = (1..)
        .zip(lengths)
        .map(|(block, length)| read(&volume, block, 0, length, Lane::Read).unwrap())
        .collect();
    spoil_the_disk(&yard);
    for ((block, length), first) in (1..).zip(lengths).zip(&first) {
        let again = read(&volume, block, 0, length, Lane::Read).unwrap();
        assert!(again.data == content(block, length) && again.unit_crcs == first.unit_crcs);
        assert_eq!(again.data.as_ptr(), first.data.as_ptr());
        let last = read(&volume, block, length - 1, 1, Lane::Read).unwrap();
        assert_eq!(last.data.last(), content(block, length).last());
    }
    let cache = volume.stat().cache;
    assert_eq!((cache.hits, cache.misses), (10, 5));
    assert!(cache.used_bytes >= WHOLE as u64 && cache.used_bytes <= cache.total_bytes);
    // Who checks a replica wants the disk's word, and damage ends the cache's.
    let whole = lengths.len() as u64;
    assert!(matches!(
        read(&volume, whole, 0, WHOLE, Lane::Repair),
        Err(Error::Corrupt { .. })
    ));
    assert!(matches!(
        read(&volume, whole, 0, WHOLE, Lane::Read),
        Err(Error::Corrupt { .. })
    ));
    drop(first);
    assert!(volume.stat().cache.used_bytes < WHOLE as u64);
}

#[test]
fn ranges_of_large_blocks_need_their_header_once() {
    let yard = yard(8 * MIB);
    let (volume, _) = yard.open();
    put(&volume, 1, WHOLE).unwrap();
    let units = WHOLE / UNIT;
    for round in 0..3 {
        for unit in (0..units).rev() {
            let verified = read(&volume, 1, unit * UNIT + 5, 100, Lane::Read).unwrap();
            assert!(
                verified.data == content(1, WHOLE)[unit * UNIT..(unit + 1) * UNIT],
                "round {round}, unit {unit}"
            );
        }
    }
    assert!(volume.stat().cache.hits >= units as u64);
}

#[test]
fn deleting_drops_what_is_cached() {
    let yard = yard(16 * MIB);
    let (volume, _) = yard.open();
    for round in 0..6 {
        let length = if round % 2 == 0 { WHOLE } else { 9 * UNIT };
        put(&volume, round, length).unwrap();
        read(&volume, round, UNIT, 1, Lane::Read).unwrap();
        let held = read(&volume, round, 0, length, Lane::Read).unwrap();
        exec::run(&volume, volume.delete(&[BlockId(round)])).unwrap();
        let gone = read(&volume, round, 0, length, Lane::Read);
        assert!(matches!(gone, Err(Error::NotFound { .. })));
        assert!(
            held.data == content(round, length),
            "a reader's bytes changed under it"
        );
        drop(held);
        assert_eq!(volume.stat().cache.used_bytes, 0);
    }
}

#[test]
fn readers_that_hold_buffers_starve_nobody() {
    let yard = yard(8 * MIB);
    let (volume, _) = yard.open();
    let length = 5 * UNIT;
    for block in 0..40 {
        put(&volume, block, length).unwrap();
    }
    let mut held = Vec::new();
    while volume.stat().cache.used_bytes + length as u64 + 8192 < 8 * MIB - 8 * MIB / 32 {
        let block = held.len() as u64;
        held.push(read(&volume, block, 0, length, Lane::Read).unwrap());
    }
    for block in 0..40 {
        let verified = read(&volume, block, 0, length, Lane::Read).unwrap();
        assert!(verified.data == content(block, length));
    }
    for (block, verified) in held.iter().enumerate() {
        assert!(verified.data == content(block as u64, length));
    }
}

/// Random reads, puts and deletes, a few answers held for a while: the right bytes, whatever is cached.
#[test]
fn a_cached_volume_answers_as_one_without() {
    for seed in 1..=2u64 {
        let yard = yard(3 * MIB);
        let (volume, _) = yard.open();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % limit as u64) as usize
        };
        let mut blocks: BTreeMap<u64, usize> = BTreeMap::new();
        let mut held: VecDeque<(u64, Verified)> = VecDeque::new();
        let check = |(block, verified): (u64, Verified), length: usize| {
            let from = verified.offset as usize;
            let wanted = &content(block, length)[from..from + verified.data.len()];
            assert!(verified.data == *wanted, "seed {seed}, block {block}");
        };
        let mut lengths: BTreeMap<u64, usize> = BTreeMap::new();
        for step in 0..250u64 {
            let known = blocks.len();
            match below(10) {
                0 | 1 => {
                    let most = [300, 20_000, 3 * UNIT, 12 * UNIT][below(4)];
                    let length = 1 + below(most);
                    put(&volume, step, length).unwrap();
                    blocks.insert(step, length);
                    lengths.insert(step, length);
                }
                2 if known > 10 => {
                    let block = *blocks.keys().nth(below(known)).unwrap();
                    blocks.remove(&block);
                    exec::run(&volume, volume.delete(&[BlockId(block)])).unwrap();
                }
                _ if known > 0 => {
                    // Mostly the same few.
                    let among = if below(3) > 0 { known.min(4) } else { known };
                    let (&block, &length) = blocks.iter().nth(below(among)).unwrap();
                    let offset = below(length);
                    let count = 1 + below(length - offset);
                    held.push_back((block, read(&volume, block, offset, count, Lane::Read).unwrap()));
                }
                _ => {}
            }
            while held.len() > below(3) {
                let (block, verified) = held.pop_front().unwrap();
                check((block, verified), lengths[&block]);
            }
        }
        let cache = volume.stat().cache;
        assert!(cache.hits > 20 && cache.misses > 20, "seed {seed}: {cache:?}");
    }
}
