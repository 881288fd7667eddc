//! A scrub finds what rots on the disk, wherever it does, and keeps its progress.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blockyard_engine::block::BlockId;
use blockyard_engine::{Finding, ReplicaState, Scrub, ScrubStep, Volume, exec};
use common::{MIB, Yard, assert_block, put};

const LENGTHS: [usize; 6] = [1, 4096, 16_257, 200_000, 1_000_000, 4 << 20];

fn filled() -> (Yard, Volume) {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    for (block, length) in (1..).zip(LENGTHS) {
        put(&volume, block, length).unwrap();
    }
    (yard, volume)
}

/// All steps to the end of the pass.
fn pass(scrub: &mut Scrub, volume: &Volume, most_bytes: u64) -> Vec<ScrubStep> {
    let mut steps = Vec::new();
    while !steps.last().is_some_and(|step: &ScrubStep| step.pass_ended) {
        steps.push(exec::run(volume, scrub.step(most_bytes)).unwrap());
    }
    steps
}

fn findings(volume: &Volume) -> Vec<Finding> {
    let mut scrub = Scrub::resume(volume);
    let steps = pass(&mut scrub, volume, MIB);
    steps.into_iter().flat_map(|step| step.findings).collect()
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    file.sync_all().unwrap();
}

fn checkpoint_files(yard: &Yard) -> Vec<PathBuf> {
    let names = fs::read_dir(yard.dir.path()).unwrap();
    let paths = names.map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("checkpoint-0")
    };
    let mut found: Vec<PathBuf> = paths.filter(is_one).collect();
    found.sort();
    found
}

#[test]
fn a_whole_volume_has_no_findings_and_every_byte_is_read() {
    let (_yard, volume) = filled();
    let mut scrub = Scrub::resume(&volume);
    for round in 1..=2 {
        let steps = pass(&mut scrub, &volume, 1);
        assert!(steps.iter().all(|step| step.findings.is_empty()), "{steps:?}");
        // Three steps for the rest, one for each replica, one that finds the end.
        assert_eq!(steps.len(), 3 + LENGTHS.len() + 1);
        let data_bytes: u64 = steps[3..].iter().map(|step| step.bytes).sum();
        assert_eq!(data_bytes, LENGTHS.iter().sum::<usize>() as u64);
        assert!(steps[..3].iter().all(|step| step.bytes > 0), "{steps:?}");
        assert_eq!(scrub.status().passes, round);
        assert!(scrub.status().last_pass_ended_ms.is_some());
    }
}

#[test]
fn progress_survives_a_restart() {
    let (yard, volume) = filled();
    let mut scrub = Scrub::resume(&volume);
    for _ in 0..3 + 4 {
        exec::run(&volume, scrub.step(1)).unwrap();
    }
    assert_eq!(scrub.status().position, Some(BlockId(4)));
    scrub.save().unwrap();
    let before = scrub.status().clone();
    exec::run(&volume, volume.close()).unwrap();
    assert!(exec::run(&volume, scrub.step(1)).is_err());
    drop((scrub, volume));
    let (volume, _) = yard.open();
    let mut scrub = Scrub::resume(&volume);
    assert_eq!(scrub.status(), &before);
    assert_eq!(pass(&mut scrub, &volume, 1).len(), 2 + 1);
    // What is no record begins a new pass.
    fs::write(yard.dir.path().join("scrub.toml"), "garbage").unwrap();
    assert_eq!(Scrub::resume(&volume).status(), &Default::default());
}

#[test]
fn damaged_replicas_are_found_and_go_out_of_service() {
    let (yard, volume) = filled();
    let needle = &common::content(4, 200_000)[70_000..70_064];
    let mut flipped = 0;
    for path in yard.segments() {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(64).position(|window| window == needle) {
            flip(&path, at as u64);
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
    let found = findings(&volume);
    assert!(
        matches!(
            found[..],
            [Finding::Replica {
                block: BlockId(4),
                ..
            }]
        ),
        "{found:?}"
    );
    assert_eq!(volume.lookup(BlockId(4)).unwrap().state, ReplicaState::Corrupt);
    // Known by now, and no finding any more.
    assert!(findings(&volume).is_empty());
    put(&volume, 4, 200_000).unwrap();
    assert!(findings(&volume).is_empty());
    assert_block(&volume, 4, 200_000);
}

/// Damages a file of a filled volume; the scrub must find and mend it, and the next start find all blocks.
fn mended(spoil: impl Fn(&Yard), named: &str) {
    let (yard, volume) = filled();
    spoil(&yard);
    let found = findings(&volume);
    assert!(
        matches!(&found[..], [Finding::Metadata { what, repaired: true }] if what.contains(named)),
        "{found:?}"
    );
    let again = findings(&volume);
    assert!(again.is_empty(), "{again:?}");
    drop(volume);
    let (volume, report) = yard.open();
    assert!(
        report.notes.iter().all(|note| !note.contains("damaged")),
        "{report:?}"
    );
    for (block, length) in (1..).zip(LENGTHS) {
        assert_block(&volume, block, length);
    }
}

#[test]
fn a_damaged_superblock_is_written_again() {
    for at in [3, 4095] {
        mended(|yard| flip(&yard.segments()[0], at), "superblock");
    }
}

#[test]
fn damaged_checkpoints_are_replaced() {
    for (which, at) in [(0, 1), (1, 10), (0, 60)] {
        mended(|yard| flip(&checkpoint_files(yard)[which], at), "checkpoint-");
    }
    mended(
        |yard| fs::remove_file(&checkpoint_files(yard)[1]).unwrap(),
        "checkpoint-",
    );
}

#[test]
fn a_damaged_journal_is_left_behind_by_checkpoints() {
    // Each put made a batch of a page: the first, one in the middle, the last.
    for (page, at) in [(0, 2), (3, 20), (LENGTHS.len() as u64 - 1, 70)] {
        mended(
            |yard| flip(&yard.dir.path().join("journal/0000.jnl"), page * 4096 + at),
            "journal batch",
        );
    }
}

#[test]
fn a_lost_identity_is_written_again() {
    mended(
        |yard| fs::write(yard.dir.path().join("volume.toml"), "gone").unwrap(),
        "volume.toml",
    );
}

#[test]
fn the_journal_is_followed_around_the_ring() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    let mut scrub = Scrub::resume(&volume);
    for block in 0..700 {
        put(&volume, block, 10).unwrap();
        if block % 90 == 0 {
            let steps = pass(&mut scrub, &volume, MIB);
            assert!(
                steps.iter().all(|step| step.findings.is_empty()),
                "{block}: {steps:?}"
            );
        }
    }
    assert!(volume.stat().checkpoints > 2);
}
