//! What blocks take on disk: the bars that hold for every length, and figures that agree with the filesystem's.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use blockyard_engine::block::BlockId;
use blockyard_engine::{exec, slot_bytes_for};
use common::{MIB, Yard, put};

const PAGE: usize = 4096;
const WHOLE: usize = 4 << 20;

#[test]
fn every_length_stays_within_the_bars() {
    assert!(slot_bytes_for(WHOLE) * 100 <= WHOLE * 101);
    for length in (1..=64 * 1024).chain((64 * 1024..=WHOLE).step_by(997)) {
        let (slot, pages) = (slot_bytes_for(length), length.next_multiple_of(PAGE));
        if length <= 16 * 1024 - 128 {
            // One class per page: at most the page that the header's 128 B may open.
            assert!(slot == (length + 128).next_multiple_of(PAGE), "length {length}");
        } else {
            // A quarter of the slot, beside the page of the header.
            assert!((slot - pages - PAGE) * 4 <= slot, "length {length}");
        }
    }
}

#[test]
fn figures_agree_with_the_files() {
    let yard = Yard::new(300 * MIB);
    let (volume, _) = yard.open();
    let lengths: Vec<usize> = [
        1,
        3968,
        3969,
        16_256,
        16_257,
        65_536,
        100_000,
        1_000_000,
        WHOLE - 1,
        WHOLE,
    ]
    .into_iter()
    .cycle()
    .take(40)
    .collect();
    let agrees = |lengths: &[usize]| {
        let stat = volume.stat();
        let slots: usize = lengths.iter().map(|&length| slot_bytes_for(length)).sum();
        let headers: usize = lengths
            .iter()
            .map(|&length| if length <= 16_256 { 128 } else { PAGE })
            .sum();
        let bytes: usize = lengths.iter().sum();
        assert_eq!(stat.used_bytes, slots as u64);
        assert_eq!(stat.block_bytes, bytes as u64);
        assert_eq!(stat.wasted_bytes, (slots - headers - bytes) as u64);
        // Whole segments are allocated: on disk lies what is used, what is free in them, and what no slot covers.
        let (mut on_disk, mut segment_bytes) = (0, 0);
        for path in yard.segments() {
            let file = fs::metadata(path).expect("a segment");
            on_disk += file.blocks() * 512;
            segment_bytes += file.len();
        }
        assert!(
            on_disk >= segment_bytes,
            "{on_disk} B of {segment_bytes} B are allocated"
        );
        // The filesystem's own blocks for a file's extents count too.
        assert!(on_disk <= segment_bytes + 64 * 1024 * stat.segments);
        assert!(stat.used_bytes <= segment_bytes);
        assert!(stat.used_bytes + stat.free_bytes <= stat.capacity_bytes);
        // What is neither: superblocks, ends of segments too short for a slot, the end of the capacity.
        let lost = stat.capacity_bytes - stat.used_bytes - stat.free_bytes;
        let per_segment = segment_bytes / stat.segments.max(1);
        assert!(
            lost <= stat.segments * per_segment / 4 + per_segment,
            "{lost} B are nowhere"
        );
    };
    for (block, &length) in lengths.iter().enumerate() {
        put(&volume, block as u64, length).expect("a put");
        agrees(&lengths[..=block]);
    }
    // What is deleted is free at once.
    let half: Vec<BlockId> = (20..40).map(BlockId).collect();
    exec::run(&volume, volume.delete(&half)).expect("a delete");
    agrees(&lengths[..20]);
    exec::run(&volume, volume.close()).expect("closing");
    // And the same after a start.
    drop(volume);
    let (volume, _) = yard.open();
    let slots: usize = lengths[..20].iter().map(|&length| slot_bytes_for(length)).sum();
    assert_eq!(volume.stat().used_bytes, slots as u64);
}
