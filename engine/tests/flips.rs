//! A share of all single flipped bits of a volume: each is told or harmless. `examples/flips.rs` flips all of them.

mod common;
mod flip;

use flip::made::Left;
use flip::{Share, Tally};

/// Each run takes other bits.
fn share() -> Share {
    let seed = std::env::var("BLOCKYARD_FLIPS_SEED").ok();
    let seed = seed.map_or_else(rand::random, |seed| seed.parse().expect("a number"));
    Share {
        stride: 71,
        samples: 1,
        data_bits: 2000,
        seed,
    }
}

fn assert_told(share: &Share, tally: &Tally) {
    for line in tally.lines() {
        println!("{line}");
    }
    let failures = tally.failures.join("\n");
    assert!(
        tally.failures.is_empty(),
        "BLOCKYARD_FLIPS_SEED={}:\n{failures}",
        share.seed
    );
}

#[test]
fn flipped_metadata_of_a_closed_volume_is_told() {
    let share = share();
    assert_told(&share, &flip::metadata(Left::Closed, &share, |_| {}));
}

#[test]
fn flipped_metadata_of_a_killed_volume_is_told() {
    let share = share();
    assert_told(&share, &flip::metadata(Left::Killed, &share, |_| {}));
}

#[test]
fn flipped_data_is_never_read_and_always_found() {
    let share = share();
    let tally = flip::data(&share, |_| {});
    assert_told(&share, &tally);
    assert_eq!(tally.flips(), share.data_bits);
}
