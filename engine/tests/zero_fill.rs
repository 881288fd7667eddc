//! Zeros ahead of need: as much as was put, never over a block, and known again after a restart.

mod common;

use blockyard_engine::{Volume, exec};
use common::{MIB, Yard, assert_block, content, put, put_bytes};

/// Lengths of several slot classes, one of them written short of its slot's end.
const LENGTHS: [usize; 5] = [1000, 12_000, 100_000, 3_500_000, 4 << 20];

fn fill_all(volume: &Volume) -> u64 {
    let mut bytes = 0;
    loop {
        match exec::run(volume, volume.zero_fill(1 << 20)).unwrap() {
            0 => return bytes,
            more => bytes += more,
        }
    }
}

#[test]
fn zeros_are_as_much_as_was_put_and_never_over_a_block() {
    let yard = Yard::new(1024 * MIB);
    let (volume, _) = yard.open();
    assert_eq!(fill_all(&volume), 0, "nothing was put, so nothing is needed");
    for (block, length) in (1..).zip(LENGTHS) {
        put(&volume, block, length).unwrap();
    }
    let used_bytes = volume.stat().used_bytes;
    let filled = fill_all(&volume);
    let stat = volume.stat();
    assert!(
        (used_bytes..used_bytes * 3).contains(&filled),
        "{filled} of {used_bytes}"
    );
    assert_eq!((stat.zero_filled_bytes, stat.used_bytes), (filled, used_bytes));
    assert_eq!(stat.ready_bytes, filled);
    // Put to what was filled, and beyond.
    for (block, length) in (100..).zip(LENGTHS.iter().cycle().take(20)) {
        put(&volume, block, *length).unwrap();
    }
    fill_all(&volume);
    let ready_bytes = volume.stat().ready_bytes;
    // A crash: what was filled stands in the journal.
    drop(volume);
    let (volume, _) = yard.open();
    let found = volume.stat().ready_bytes;
    assert!(found > 0 && found <= ready_bytes, "{found} of {ready_bytes}");
    for (block, length) in (1..)
        .zip(LENGTHS)
        .chain((100..).zip(LENGTHS.into_iter().cycle().take(20)))
    {
        assert_block(&volume, block, length);
    }
    assert_eq!(fill_all(&volume), 0, "nothing was put since the opening");
    exec::run(&volume, volume.close()).unwrap();
}

/// Bytes of a volume's segments that hold data: extents that are only allocated are holes to this question.
fn data_bytes(yard: &Yard) -> u64 {
    use rustix::fs::{SeekFrom, seek};
    let mut bytes = 0;
    for path in yard.segments() {
        let file = std::fs::File::open(path).unwrap();
        let mut at = 0;
        while let Ok(from) = seek(&file, SeekFrom::Data(at)) {
            at = seek(&file, SeekFrom::Hole(from)).unwrap();
            bytes += at - from;
        }
    }
    bytes
}

#[test]
fn a_step_that_ends_early_says_how_far_it_came() {
    let yard = Yard::new(1152 * MIB);
    let (volume, _) = yard.open();
    put(&volume, 0, 4 << 20).unwrap();
    put(&volume, 1, 1000).unwrap();
    let puts = (2..10).map(|block| {
        let volume = &volume;
        async move { put_bytes(volume, block, &content(block, 1000)).await.map(drop) }
    });
    let wanted = 16 << 20;
    let both = futures_util::future::join(futures_util::future::join_all(puts), volume.zero_fill(wanted));
    let (put, filled) = exec::run(&volume, both);
    put.into_iter().for_each(|put| put.unwrap());
    let (filled, stat) = (filled.unwrap(), volume.stat());
    assert!(filled > 0);
    let data = data_bytes(&yard);
    assert!(
        stat.used_bytes + stat.ready_bytes <= data,
        "{stat:?}: but {data} B of segments are written"
    );
}

#[test]
fn the_last_slots_are_not_lost_to_zeros() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    let mut blocks = 0;
    while put(&volume, blocks, 4 << 20).is_ok() {
        blocks += 1;
        fill_all(&volume);
    }
    assert_eq!(blocks, 15, "as many as without zeros");
    assert_eq!(fill_all(&volume), 0);
    for block in 0..blocks {
        assert_block(&volume, block, 4 << 20);
    }
}

#[test]
fn as_many_whole_blocks_are_readied_as_were_put() {
    let yard = Yard::new(1152 * MIB);
    let (volume, _) = yard.open();
    for block in 0..64 {
        put(&volume, block, 4 << 20).unwrap();
    }
    let mut steps = Vec::new();
    loop {
        match exec::run(&volume, volume.zero_fill(16 << 20)).unwrap() {
            0 => break,
            bytes => steps.push(bytes >> 20),
        }
    }
    let ready_bytes = volume.stat().ready_bytes;
    assert!(
        ready_bytes >= 64 << 22,
        "{ready_bytes} B after steps of {steps:?} MiB"
    );
}
