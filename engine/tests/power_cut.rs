//! Power cuts and a disk that fails or lies, under the true io_uring path: an in-memory FUSE disk under a loop device
//! under ext4. A few of each; the long run is the example `power_cuts`. Needs root.

mod crash;

use crash::disk::{Fault, Image, Verb};
use crash::mount::{self, Rig};
use crash::power::{DISK_BYTES, Plan, Tally, is_noticed, prepare, run};

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

/// Less than the volume is allowed to take.
const SMALL_DISK_BYTES: u64 = 40 << 20;

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

/// The test of the test: a disk that acknowledges flushes and leaves writes out must be found out, also when it keeps
/// all but the slots or all but the journal.
#[test]
fn a_disk_that_ignores_flushes_is_found_out() {
    let Some((rig, image)) = rig() else { return };
    for magic in [None, Some(*b"BYsl"), Some(*b"BYjb")] {
        let fault = Fault::ForgetFlushed { magic };
        let tally = run(&rig, &image, 1, Plan { cuts: 1, ..FEW }, &[fault]).unwrap();
        let lost = tally.findings.iter().any(|finding| finding.contains("lost:"));
        assert!(lost, "{fault:?}: {tally:#?}");
    }
}

/// Only the end of the work is a cut.
const ONCE: Plan = Plan {
    operations: 80,
    cuts: 0,
    states: 3,
    cuts_of_recovery: 0,
};
/// A seed with one operation in flight at a time: the same operations each time.
const ORDERLY: u64 = 12;

/// Works on a disk with a fault, which must have struck.
fn with(rig: &Rig, image: &Image, plan: Plan, fault: Fault) -> Tally {
    let tally = run(rig, image, ORDERLY, plan, &[fault]).unwrap();
    assert!(tally.faults_struck > 0, "{fault:?}: {tally:?}");
    tally
}

#[test]
fn a_write_or_flush_that_fails_latches_and_loses_nothing_acknowledged() {
    let Some((rig, image)) = rig() else { return };
    for (verb, nth, for_ever) in [
        (Verb::Flush, 2, false),
        (Verb::Flush, 30, false),
        (Verb::Write, 60, false),
        (Verb::Write, 90, true),
    ] {
        let fault = Fault::Fail { verb, nth, for_ever };
        let tally = with(&rig, &image, ONCE, fault);
        assert!(tally.findings.is_empty(), "{fault:?}: {:#?}", tally.findings);
        let failed = tally
            .refusals
            .iter()
            .any(|refusal| refusal.starts_with("failed:"));
        // At the second flush the volume is not open yet.
        assert!(failed || nth == 2, "{fault:?}: {tally:#?}");
    }
}

#[test]
fn a_read_that_fails_takes_the_replica_out_of_service_and_no_other() {
    let Some((rig, image)) = rig() else { return };
    let mut failed = 0;
    for (nth, for_ever) in [(6, false), (9, true)] {
        let verb = Verb::Read;
        let tally = with(&rig, &image, ONCE, Fault::Fail { verb, nth, for_ever });
        assert!(
            tally.findings.iter().all(|finding| is_noticed(finding)),
            "{tally:#?}"
        );
        assert!(tally.verified > 0, "{tally:#?}");
        failed += tally
            .findings
            .iter()
            .filter(|finding| finding.contains("Input/output error"))
            .count();
    }
    assert!(failed > 0, "no read of a block failed");
}

/// No signal must end the process: it may have other volumes, on other disks.
#[test]
fn a_volume_that_can_t_be_read_at_all_is_refused() {
    let Some((rig, image)) = rig() else { return };
    for nth in [2, 3] {
        let fault = Fault::Fail {
            verb: Verb::Read,
            nth,
            for_ever: true,
        };
        let tally = with(&rig, &image, ONCE, fault);
        assert!(tally.findings.is_empty(), "{fault:?}: {tally:#?}");
        let told = tally
            .refusals
            .iter()
            .any(|refusal| refusal.contains("Input/output error"));
        assert!(told && tally.acknowledged.0 == 0, "{fault:?}: {tally:#?}");
    }
}

#[test]
fn a_slot_that_the_disk_lost_or_misplaced_is_noticed_and_never_returned() {
    let Some((rig, image)) = rig() else { return };
    let mut noticed = 0;
    let magic = *b"BYsl";
    for nth in [8, 16] {
        for fault in [Fault::Lose { magic, nth }, Fault::Misdirect { magic, nth }] {
            let tally = with(&rig, &image, ONCE, fault);
            assert!(
                tally.findings.iter().all(|finding| is_noticed(finding)),
                "{tally:#?}"
            );
            noticed += tally.findings.len();
        }
    }
    assert!(noticed > 0, "each was deleted before it was read");
}

#[test]
fn a_journal_batch_that_the_disk_lost_is_told_not_guessed() {
    let Some((rig, image)) = rig() else { return };
    let mut told = 0;
    let magic = *b"BYjb";
    // So few operations that no checkpoint comes after all of these.
    let plan = Plan {
        operations: 30,
        ..ONCE
    };
    for nth in [8, 20] {
        let tally = with(&rig, &image, plan, Fault::Lose { magic, nth });
        let is_told = |finding: &String| finding.contains("volume is damaged: journal batch");
        assert!(tally.findings.iter().all(is_told), "{tally:#?}");
        told += tally.findings.len();
    }
    assert!(told > 0, "nothing was told");
}

#[test]
fn a_full_filesystem_refuses_puts_and_deletes_make_room() {
    if crash::skipped(mount::missing()) {
        return;
    }
    let rig = Rig::new(SMALL_DISK_BYTES).expect("a disk in memory");
    let image = prepare(&rig).expect("a filesystem");
    let plan = Plan {
        operations: 200,
        ..ONCE
    };
    let tally = run(&rig, &image, 5, plan, &[]).unwrap();
    assert!(tally.findings.is_empty(), "{:#?}", tally.findings);
    let full = tally
        .refusals
        .iter()
        .filter(|refusal| refusal.contains("the filesystem is full"));
    assert!(full.count() > 0, "{tally:#?}");
}
