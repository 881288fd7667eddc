//! Checking a volume that nobody has open, and what a rebuilt index gives back.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blockyard_engine::block::BlockId;
use blockyard_engine::{Epoch, Error, FsckOptions, ReplicaState, Volume, exec, fsck, inventory};
use common::{CLUSTER, MIB, Yard, assert_block, content, put};

const EPOCH: Epoch = Epoch {
    number: 5,
    incarnation: [9; 16],
};

fn length_of(block: u64) -> usize {
    1 + (block as usize * 77_003) % 300_000
}

/// A volume left as by a crash: several classes, deleted blocks, slots used again, a segment cut anew.
fn crashed() -> Yard {
    let yard = Yard::new(256 * MIB);
    let (volume, _) = yard.open();
    exec::run(&volume, volume.raise_epoch(EPOCH)).unwrap();
    let whole = 4 << 20;
    for block in 1000..1004 {
        put(&volume, block, whole).unwrap();
    }
    let gone: Vec<BlockId> = (1000..1004).map(BlockId).collect();
    exec::run(&volume, volume.delete(&gone)).unwrap();
    for block in 0..60 {
        put(&volume, block, length_of(block)).unwrap();
    }
    exec::run(&volume, volume.checkpoint()).unwrap();
    let gone: Vec<BlockId> = (0..60).step_by(6).map(BlockId).collect();
    exec::run(&volume, volume.delete(&gone)).unwrap();
    for block in 60..80 {
        put(&volume, block, length_of(block)).unwrap();
    }
    drop(volume);
    yard
}

fn kept() -> impl Iterator<Item = u64> {
    (0..80).filter(|block| *block >= 60 || block % 6 != 0)
}

fn check(yard: &Yard) -> blockyard_engine::FsckReport {
    let options = FsckOptions {
        data: true,
        ..FsckOptions::default()
    };
    fsck(yard.dir.path(), &options).unwrap()
}

fn rebuild(yard: &Yard) -> blockyard_engine::FsckReport {
    let options = FsckOptions {
        data: true,
        rebuild: true,
        cluster: Some(CLUSTER),
    };
    fsck(yard.dir.path(), &options).unwrap()
}

/// Every file of a volume and what is in it.
fn everything(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = ["", "journal", "segments"];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(dir.join(folder)).unwrap());
    let files = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file());
    files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn remove_checkpoints(yard: &Yard) {
    for entry in fs::read_dir(yard.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("checkpoint-")
        {
            fs::remove_file(path).unwrap();
        }
    }
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

/// All that was acknowledged is there, suspect until confirmed; then it reads, and the volume works on.
fn assert_rebuilt(yard: &Yard) {
    let (volume, report) = yard.open();
    let states: Vec<ReplicaState> = volume
        .list(None, usize::MAX)
        .iter()
        .map(|one| one.state)
        .collect();
    assert!(!states.is_empty() && states.iter().all(|state| *state == ReplicaState::Suspect));
    assert_eq!(report.suspects.len(), states.len());
    for block in kept() {
        let read = exec::run(
            &volume,
            volume.get(BlockId(block), 0, 1, blockyard_engine::Lane::Read),
        );
        assert!(
            matches!(read, Err(Error::Suspect { .. })),
            "block {block}: {read:?}"
        );
        exec::run(&volume, volume.confirm_suspect(BlockId(block))).unwrap();
        assert_block(&volume, block, length_of(block));
    }
    for suspect in report.suspects {
        if !kept().any(|block| BlockId(block) == suspect) {
            exec::run(&volume, volume.forget_suspect(suspect)).unwrap();
        }
    }
    let count = kept().count() as u64;
    assert_eq!((volume.stat().replicas, volume.stat().suspects), (count, 0));
    for block in 2000..2040 {
        put(&volume, block, length_of(block)).unwrap();
    }
    exec::run(&volume, volume.close()).unwrap();
    let (volume, report) = yard.open();
    assert_eq!(
        (report.replicas, report.notes),
        (count + 40, Vec::<String>::new())
    );
    kept()
        .chain(2000..2040)
        .for_each(|block| assert_block(&volume, block, length_of(block)));
    drop(volume);
    let report = check(yard);
    assert!(report.is_clean() && report.whole == count + 40, "{report:?}");
}

#[test]
fn a_volume_in_order_is_clean_and_left_alone() {
    let yard = crashed();
    let before = everything(yard.dir.path());
    let report = check(&yard);
    let count = kept().count() as u64;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.indexed, report.whole), (count, count));
    assert!(report.leftovers > 0, "deleted blocks leave their headers");
    // There is nothing to rebuild, so nothing is.
    assert!(!rebuild(&yard).rebuilt);
    assert!(everything(yard.dir.path()) == before);
    let (volume, _) = yard.open();
    kept().for_each(|block| assert_block(&volume, block, length_of(block)));
}

#[test]
fn an_open_volume_is_not_checked() {
    let yard = crashed();
    let (_volume, _) = yard.open();
    assert!(matches!(
        fsck(yard.dir.path(), &FsckOptions::default()),
        Err(Error::Locked { .. })
    ));
}

#[test]
fn damage_is_told_block_by_block() {
    let yard = crashed();
    let found = yard.segments().iter().find_map(|path| {
        let bytes = fs::read(path).unwrap();
        let wanted = &content(61, length_of(61))[..64];
        let at = bytes.windows(64).position(|window| window == wanted)?;
        Some((path.clone(), at as u64))
    });
    let (segment, at) = found.expect("the block is somewhere");
    flip(&segment, at);
    flip(&segment, 20); // the superblock
    // Headers are whole.
    let report = fsck(yard.dir.path(), &FsckOptions::default()).unwrap();
    assert!(report.damaged.is_empty() && report.notes.len() == 1, "{report:?}");
    let report = check(&yard);
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert_eq!(report.damaged[0].0, BlockId(61));
    assert!(report.index_trouble.is_none() && !report.is_clean());
}

#[test]
fn without_checkpoints_the_headers_tell() {
    let yard = crashed();
    remove_checkpoints(&yard);
    assert!(matches!(yard.try_open(), Err(Error::Damaged { .. })));
    let before = everything(yard.dir.path());
    let report = check(&yard);
    assert!(report.index_trouble.is_some() && !report.rebuilt && report.damaged.is_empty());
    assert!(everything(yard.dir.path()) == before, "only a rebuild writes");
    let report = rebuild(&yard);
    assert!(report.rebuilt && report.whole >= kept().count() as u64);
    assert_rebuilt(&yard);
}

#[test]
fn a_journal_damaged_in_the_middle_is_no_end() {
    let yard = crashed();
    // After the last checkpoint each put has a batch of its own. Spoil one that has others behind it.
    let mut batches = Vec::new();
    for file in 0..4 {
        let path = yard.dir.path().join(format!("journal/{file:04}.jnl"));
        let bytes = fs::read(&path).unwrap();
        let starts = (0..bytes.len())
            .step_by(4096)
            .filter(|&at| bytes[at..at + 4] == *b"BYjb");
        let sequence = |at: usize| u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap());
        batches.extend(starts.map(|at| (sequence(at), path.clone(), at)));
    }
    batches.sort();
    let (_, path, at) = &batches[batches.len() - 10];
    flip(path, *at as u64 + 70);
    assert!(matches!(yard.try_open(), Err(Error::Damaged { .. })));
    assert!(check(&yard).index_trouble.unwrap().contains("batch"));
    assert!(rebuild(&yard).rebuilt);
    let (volume, _) = yard.open();
    assert_eq!(
        volume.epoch(),
        Some(EPOCH),
        "a volume never forgets an epoch that it can read"
    );
    drop(volume);
    assert_rebuilt(&yard);
}

#[test]
fn without_volume_toml_the_superblocks_tell_whose_segments_they_are() {
    let yard = crashed();
    let (volume, _) = yard.open();
    let id = volume.identity().volume;
    drop(volume);
    fs::remove_file(yard.dir.path().join("volume.toml")).unwrap();
    let refused = fsck(yard.dir.path(), &FsckOptions::default()).unwrap_err();
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(refused.to_string().contains(&hex), "{refused}");
    let report = rebuild(&yard);
    assert!(report.rebuilt && report.identity.volume == id && report.identity.cluster == CLUSTER);
    assert_rebuilt(&yard);
}

#[test]
fn a_lost_superblock_is_made_up_for_by_what_is_left_of_the_index() {
    let yard = crashed();
    yard.segments().iter().for_each(|segment| flip(segment, 33));
    let checkpoints = fs::read_dir(yard.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let newest = checkpoints
        .filter(|path| path.to_str().unwrap().contains("checkpoint-0"))
        .max()
        .unwrap();
    flip(&newest, 40);
    fs::remove_file(yard.dir.path().join("journal/0003.jnl")).unwrap();
    assert!(yard.try_open().is_err());
    assert!(rebuild(&yard).rebuilt);
    assert_rebuilt(&yard);
}

#[test]
fn a_segment_that_nobody_can_read_is_set_aside() {
    let yard = crashed();
    remove_checkpoints(&yard);
    for file in 0..4 {
        fs::remove_file(yard.dir.path().join(format!("journal/{file:04}.jnl"))).unwrap();
    }
    let lost = yard.segments().into_iter().min().unwrap();
    flip(&lost, 33);
    let report = rebuild(&yard);
    assert!(
        report.notes.iter().any(|note| note.contains("can't be read")),
        "{report:?}"
    );
    assert!(lost.with_extension("seg.unreadable").exists() && !lost.exists());
    let (volume, _) = yard.open();
    assert!(volume.stat().suspects > 0);
    for block in 2000..2040 {
        put(&volume, block, length_of(block)).unwrap();
    }
}

#[test]
fn of_two_copies_the_whole_one_is_taken() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    put(&volume, 1, 100_000).unwrap();
    // A repair writes the block anew, elsewhere, while the damaged one is still in its slot.
    exec::run(&volume, volume.mark_corrupt(BlockId(1))).unwrap();
    put(&volume, 1, 100_000).unwrap();
    drop(volume);
    let bytes: Vec<(PathBuf, Vec<u8>)> = yard
        .segments()
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    let wanted = &content(1, 100_000)[..64];
    let places: Vec<(&PathBuf, usize)> = bytes
        .iter()
        .flat_map(|(path, bytes)| {
            let found = bytes
                .windows(64)
                .enumerate()
                .filter(|(_, window)| *window == wanted);
            found.map(move |(at, _)| (path, at))
        })
        .collect();
    assert_eq!(places.len(), 2);
    for (path, at) in places {
        flip(path, at as u64);
        remove_checkpoints(&yard);
        for data in [false, true] {
            let options = FsckOptions {
                data,
                rebuild: true,
                cluster: None,
            };
            let report = fsck(yard.dir.path(), &options).unwrap();
            assert!(report.rebuilt && report.damaged.is_empty(), "{report:?}");
            let (volume, _) = Volume::open(yard.options.clone(), Some(CLUSTER)).unwrap();
            exec::run(&volume, volume.confirm_suspect(BlockId(1))).unwrap();
            assert_block(&volume, 1, 100_000);
            drop(volume);
            remove_checkpoints(&yard);
        }
        flip(path, at as u64);
    }
}

#[test]
fn an_inventory_tells_what_is_there_and_where_it_came_from() {
    let yard = crashed();
    let found = inventory(yard.dir.path()).unwrap();
    assert_eq!(found.epoch, Some(EPOCH));
    assert_eq!(found.identity.cluster, CLUSTER);
    let blocks: Vec<u64> = found.blocks.iter().map(|held| held.block.0).collect();
    assert_eq!(blocks, kept().collect::<Vec<_>>(), "none of the deleted ones");
    for held in &found.blocks {
        assert_eq!(held.length as usize, length_of(held.block.0));
        assert_eq!(held.state, ReplicaState::Live);
        assert_eq!(held.origin, common::ORIGIN);
    }
    assert!(found.unreadable.is_empty());
    assert!(matches!(
        inventory(&yard.dir.path().join("segments")),
        Err(Error::NotAVolume { .. })
    ));
}
