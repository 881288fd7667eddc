//! What a start makes of damaged checkpoints and journals: the same state from what is left, or a clear refusal.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use blockyard_engine::block::BlockId;
use blockyard_engine::{Epoch, Error, OpenReport, Options, ReplicaInfo, Result, Volume, exec};
use common::{CLUSTER, MIB, Yard, assert_block, content, put, put_bytes};
use tempfile::TempDir;

const PAGE: usize = 4096;

/// Length of a block of these tests.
fn length_of(block: u64) -> usize {
    1 + (block as usize * 7919) % 30_000
}

/// Puts, deletes, a damaged replica, a block put anew: something of everything that a journal can say.
fn live(volume: &Volume, from: u64) {
    for block in from..from + 30 {
        put(volume, block, length_of(block)).unwrap();
    }
    let gone: Vec<BlockId> = (from..from + 30).step_by(7).map(BlockId).collect();
    exec::run(volume, volume.delete(&gone)).unwrap();
    exec::run(volume, volume.mark_corrupt(BlockId(from + 1))).unwrap();
    exec::run(volume, volume.mark_corrupt(BlockId(from + 2))).unwrap();
    put(volume, from + 2, length_of(from + 2)).unwrap();
    let number = from + 1;
    let epoch = Epoch {
        number,
        incarnation: [from as u8; 16],
    };
    exec::run(volume, volume.raise_epoch(epoch)).unwrap();
}

/// A volume with two checkpoints and a journal behind each, left as by a crash. Its last change is in a batch alone.
fn crashed() -> Yard {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    for from in [0, 100, 200] {
        live(&volume, from);
        if from < 200 {
            exec::run(&volume, volume.checkpoint()).unwrap();
        }
    }
    put(&volume, 999, 10).unwrap();
    drop(volume);
    yard
}

/// Everything that a volume says of itself.
#[derive(PartialEq, Debug)]
struct Said {
    replicas: Vec<ReplicaInfo>,
    epoch: Option<Epoch>,
    used_bytes: u64,
    segments: u64,
}

fn said(volume: &Volume) -> Said {
    let stat = volume.stat();
    Said {
        replicas: volume.list(None, usize::MAX),
        epoch: volume.epoch(),
        used_bytes: stat.used_bytes,
        segments: stat.segments,
    }
}

/// A copy of a volume's folder. Its segments are the same files: what is put into a copy lies in slots that are free
/// in all the others.
struct Copy {
    dir: TempDir,
    options: Options,
}

impl Copy {
    fn of(yard: &Yard) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["", "journal", "segments"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            for entry in fs::read_dir(yard.dir.path().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let to = dir.path().join(folder).join(path.file_name().unwrap());
                match folder {
                    "segments" => fs::hard_link(&path, to).unwrap(),
                    _ if path.is_file() => drop(fs::copy(&path, to).unwrap()),
                    _ => {}
                }
            }
        }
        let mut options = yard.options.clone();
        options.dir = dir.path().to_owned();
        Self { dir, options }
    }

    fn open(&self) -> Result<(Volume, OpenReport)> {
        Volume::open(self.options.clone(), Some(CLUSTER))
    }

    /// Checkpoints, oldest first.
    fn checkpoints(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut found: Vec<PathBuf> = paths
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with("checkpoint-0")
            })
            .collect();
        found.sort();
        found
    }

    /// The pages where batches begin, by file within the folder, in the order of their sequences.
    fn batches(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for file in 0..4 {
            let name = format!("journal/{file:04}.jnl");
            for (page, bytes) in fs::read(self.dir.path().join(&name))
                .unwrap()
                .chunks(PAGE)
                .enumerate()
            {
                if bytes.starts_with(b"BYjb") {
                    let sequence = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
                    found.push((sequence, name.clone(), page * PAGE));
                }
            }
        }
        found.sort();
        found.into_iter().map(|(_, name, at)| (name, at)).collect()
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_older_checkpoint_and_a_longer_journal_give_the_same_state() {
    let yard = crashed();
    let untouched = Copy::of(&yard);
    let (volume, report) = untouched.open().unwrap();
    let (wanted, replayed) = (said(&volume), report.replayed_records);
    assert!(
        wanted.replicas.len() > 70 && report.suspects.is_empty(),
        "{report:?}"
    );
    type Spoil = (&'static str, fn(&Path));
    let spoilers: [Spoil; 5] = [
        ("its first bit", |path| edit(path, |bytes| bytes[0] ^= 1)),
        ("a replica", |path| edit(path, |bytes| bytes[1000] ^= 0x10)),
        ("its end", |path| edit(path, |bytes| bytes.truncate(1000))),
        ("all of it", |path| edit(path, |bytes| bytes.fill(0))),
        ("its name", |path| fs::remove_file(path).unwrap()),
    ];
    for (what, spoil) in spoilers {
        let copy = Copy::of(&yard);
        let newest = copy.checkpoints().pop().unwrap();
        spoil(&newest);
        let (volume, report) = copy.open().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(said(&volume), wanted, "{what}");
        assert!(report.replayed_records > replayed, "{what}: {report:?}");
        let told = report.notes.iter().any(|note| note.contains("damaged"));
        assert!(told || what == "its name", "{what}: {report:?}");
        // The volume goes on, and has two good checkpoints again.
        live(&volume, 300);
        exec::run(&volume, volume.checkpoint()).unwrap();
        let wanted = said(&volume);
        exec::run(&volume, volume.close()).unwrap();
        drop(volume);
        let (volume, report) = copy.open().unwrap();
        assert_eq!(said(&volume).replicas, wanted.replicas, "{what}");
        assert!(
            !report.notes.iter().any(|note| note.contains("damaged")),
            "{what}: {report:?}"
        );
        drop(volume);
        edit(&copy.checkpoints().pop().unwrap(), |bytes| bytes.fill(0));
        assert_eq!(said(&copy.open().unwrap().0).replicas, wanted.replicas, "{what}");
    }
}

#[test]
fn a_torn_last_batch_is_cut_and_what_it_said_is_gone() {
    let yard = crashed();
    let (name, at) = Copy::of(&yard).batches().pop().unwrap();
    for torn in [0..512, 20..24, 64..100] {
        let copy = Copy::of(&yard);
        edit(&copy.dir.path().join(&name), |bytes| {
            bytes[at + torn.start..at + torn.end].fill(0xee)
        });
        let (volume, report) = copy.open().unwrap();
        assert!(volume.lookup(BlockId(999)).is_none() && report.suspects.is_empty());
        assert_block(&volume, 205, length_of(205));
        // The cut batch's place is written again.
        exec::run(&volume, put_bytes(&volume, 1000, &content(1000, 50))).unwrap();
        drop(volume);
        let (volume, report) = copy.open().unwrap();
        assert!(!report.torn_tail_cut, "{report:?}");
        assert_block(&volume, 1000, 50);
    }
}

#[test]
fn a_bad_batch_before_whole_ones_is_damage_unless_a_checkpoint_covers_it() {
    let yard = crashed();
    let (batches, wanted) = {
        let copy = Copy::of(&yard);
        let batches = copy.batches();
        (batches, said(&copy.open().unwrap().0))
    };
    let mut refused = Vec::new();
    for (number, (name, at)) in batches[..batches.len() - 1].iter().enumerate() {
        let copy = Copy::of(&yard);
        edit(&copy.dir.path().join(name), |bytes| bytes[at + 70] ^= 1);
        match copy.open() {
            Ok((volume, report)) => {
                assert_eq!(said(&volume), wanted, "batch {number}");
                assert!(!report.torn_tail_cut);
                refused.push(false);
            }
            Err(error) => {
                assert!(matches!(error, Error::Damaged { .. }), "batch {number}: {error}");
                refused.push(true);
            }
        }
    }
    // Those that the newest checkpoint covers, and then all behind it.
    let covered = refused.iter().position(|&refused| refused).unwrap();
    assert!(covered > 10 && refused.len() - covered > 10, "{refused:?}");
    assert!(refused[covered..].iter().all(|&refused| refused), "{refused:?}");
    // From the older checkpoint on they are needed after all.
    let (name, at) = &batches[covered - 1];
    let copy = Copy::of(&yard);
    edit(&copy.dir.path().join(name), |bytes| bytes[at + 70] ^= 1);
    edit(&copy.checkpoints().pop().unwrap(), |bytes| bytes.fill(0));
    assert!(matches!(copy.open(), Err(Error::Damaged { .. })));
}
