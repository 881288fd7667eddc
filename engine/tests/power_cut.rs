//! Power cuts and a disk that fails or lies, under the true io_uring path: an in-memory FUSE disk under a loop device
//! under ext4. A few of each; the long run is the example `power_cuts`. Needs root.

mod crash;

use std::fs;

use blockyard_engine::{Volume, VolumeState};
use crash::disk::{Fault, Image, Verb};
use crash::mount::{self, Rig};
use crash::power::{DISK_BYTES, Plan, Tally, prepare, run};

/// The child's part; nothing to do when nobody asked for it.
#[test]
fn the_child() {
    crash::child();
}

/// A disk with an empty volume; None when this machine can't have one.
fn rig() -> Option<(Rig, Image)> {
    if crash::skipped(mount::missing()) {
        return None;
    }
    let rig = Rig::new(DISK_BYTES).expect("a disk in memory");
    let image = prepare(&rig).expect("a filesystem");
    Some((rig, image))
}

const FEW: Plan = Plan {
    operations: 150,
    cuts: 3,
    states: 3,
    cuts_of_recovery: 1,
};

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    let Some((rig, image)) = rig() else { return };
    let tally = run(&rig, &image, 3, FEW, &[]).unwrap();
    assert!(tally.findings.is_empty(), "{:#?}", tally.findings);
    assert!(
        tally.states >= 6 && tally.verified > 20,
        "nothing was tested: {tally:?}"
    );
}

/// The test of the test: a disk that acknowledges flushes and does nothing must be found out.
#[test]
fn a_disk_that_ignores_flushes_is_found_out() {
    let Some((rig, image)) = rig() else { return };
    let mut total = Tally::default();
    for seed in 1..=3 {
        total.add(run(&rig, &image, seed, FEW, &[Fault::IgnoreFlushes]).unwrap());
    }
    assert!(!total.findings.is_empty(), "{total:?}");
}
