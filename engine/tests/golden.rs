//! A volume that today's format wrote, kept in the repository: it must be read exactly, and written on byte by byte.
//!
//! `BLOCKYARD_BLESS=1 cargo test -p blockyard-engine --test golden --test worked_example` writes it anew.

#[path = "golden/listing.rs"]
mod listing;

use std::fs;
use std::path::Path;
use std::sync::Once;

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::{
    Epoch, Error, Finding, Lane, OpenReport, Options, PoolOptions, ReplicaState, Scrub, Volume, exec,
};
use listing::{AFTER, BEFORE, difference, lay_out, list};

const CLUSTER: [u8; 16] = [0xc1; 16];
/// Ids are random otherwise; the seeds of the segments still are.
const IDENTITY: &str = "format = 1
cluster = \"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1\"
volume = \"000102030405060708090a0b0c0d0e0f\"
incarnation = \"101112131415161718191a1b1c1d1e1f\"
generation = 0
";
const EPOCH: Epoch = Epoch {
    number: 5,
    incarnation: [0xe5; 16],
};
const CHANGED: &str = "The format changed: raise FORMAT (engine/src/layout.rs), tell it in FORMAT.md and bless \
                       anew, or mend what changed it.";

/// Block `counter` of reign 5.
fn id(counter: u64) -> BlockId {
    BlockId::new(5, counter).expect("a small number")
}

/// The block's bytes: text, or mostly zeros, which are left out of the listing.
fn content(counter: u64) -> Vec<u8> {
    let mostly_zeros = |length: usize| {
        let mut bytes = vec![0; length];
        bytes
            .iter_mut()
            .step_by(10_007)
            .for_each(|byte| *byte = counter as u8);
        bytes
    };
    match counter {
        1 => b"A block of one line.\n".to_vec(),
        2 => mostly_zeros(70_000),
        3 => mostly_zeros(16_256),
        6 => mostly_zeros(90_000),
        _ => format!("Block {counter}.\n").into_bytes(),
    }
}

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.capacity_bytes = 64 << 20;
    options.journal_bytes = 1 << 19;
    options.pool = PoolOptions::small();
    options
}

fn open(dir: &Path) -> (Volume, OpenReport) {
    Volume::open(options(dir), Some(CLUSTER)).unwrap_or_else(|error| panic!("{error}. {CHANGED}"))
}

fn put(volume: &Volume, counter: u64) {
    let bytes = content(counter);
    exec::run(volume, async {
        let mut buffer = volume.acquire(Lane::Head, bytes.len() as u32).await?;
        buffer.fill(&bytes)?;
        let origin = Origin {
            version: 42,
            index: counter as u32 - 1,
        };
        volume.put(id(counter), origin, buffer).await
    })
    .expect("putting");
}

/// The volume that is kept: records of every kind behind a checkpoint, and before it.
fn make(dir: &Path) {
    fs::write(dir.join("volume.toml"), IDENTITY).expect("volume.toml");
    let (volume, _) = open(dir);
    exec::run(&volume, volume.raise_epoch(Epoch { number: 4, ..EPOCH })).expect("an epoch");
    (1..=4).for_each(|counter| put(&volume, counter));
    exec::run(&volume, volume.checkpoint()).expect("a checkpoint");
    exec::run(&volume, volume.delete(&[id(4)])).expect("deleting");
    exec::run(&volume, volume.mark_corrupt(id(3))).expect("marking");
    exec::run(&volume, volume.raise_epoch(EPOCH)).expect("an epoch");
    exec::run(&volume, volume.zero_fill(8192)).expect("filling");
    put(&volume, 5);
    put(&volume, 6);
}

/// What is done with it: something of everything that draws no random numbers.
fn go_on(dir: &Path) {
    let (volume, _) = open(dir);
    put(&volume, 7);
    let epoch = Epoch { number: 6, ..EPOCH };
    exec::run(&volume, async {
        volume.mark_corrupt(id(5)).await?;
        volume.delete(&[id(2)]).await?;
        volume.raise_epoch(epoch).await?;
        volume.checkpoint().await
    })
    .expect("going on");
    put(&volume, 8);
}

/// Writes the listings where that is asked for; the program has to be built again to know them.
fn bless() {
    static BLESSED: Once = Once::new();
    BLESSED.call_once(|| {
        if std::env::var_os("BLOCKYARD_BLESS").is_none_or(|value| value != "1") {
            return;
        }
        let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let dir = tempfile::tempdir().expect("a folder");
        make(dir.path());
        fs::write(to.join("before.txt"), list(dir.path())).expect("a listing");
        go_on(dir.path());
        fs::write(to.join("after.txt"), list(dir.path())).expect("a listing");
        eprintln!("blessed: run the tests again");
        std::process::exit(0);
    });
}

fn golden() -> tempfile::TempDir {
    bless();
    let dir = tempfile::tempdir().expect("a folder");
    lay_out(BEFORE, dir.path());
    dir
}

#[test]
fn the_volume_of_the_repository_is_read_exactly() {
    let dir = golden();
    let (volume, report) = open(dir.path());
    assert_eq!(volume.epoch(), Some(EPOCH), "{CHANGED}");
    let identity = volume.identity();
    assert_eq!((identity.volume[15], identity.incarnation[15]), (0x0f, 0x1f));
    assert!(report.suspects.is_empty() && !report.torn_tail_cut, "{report:?}");
    // A deletion, a state, an epoch, zeros, a put, a segment and a put since the checkpoint.
    assert_eq!(report.replayed_records, 7, "{CHANGED}");
    let states: Vec<_> = volume
        .list(None, 100)
        .iter()
        .map(|one| (one.block, one.length as usize, one.crc32c, one.state))
        .collect();
    let wanted = [1, 2, 3, 5, 6].map(|counter| {
        let state = match counter {
            3 => ReplicaState::Corrupt,
            _ => ReplicaState::Live,
        };
        let bytes = content(counter);
        (
            id(counter),
            bytes.len(),
            blockyard_engine::checksum::crc(&bytes),
            state,
        )
    });
    assert_eq!(states, wanted, "{CHANGED}");
    for counter in [1, 2, 5, 6] {
        let bytes = content(counter);
        let read = volume.get(id(counter), 0, bytes.len() as u32, Lane::Read);
        let read = exec::run(&volume, read).unwrap_or_else(|error| panic!("{error}. {CHANGED}"));
        assert!(
            read.data == bytes,
            "block {counter} came back different. {CHANGED}"
        );
    }
    let gone = exec::run(&volume, volume.get(id(4), 0, 1, Lane::Read));
    assert!(matches!(gone, Err(Error::NotFound { .. })));
}

#[test]
fn what_is_written_on_is_the_same_byte_by_byte() {
    let dir = golden();
    go_on(dir.path());
    if let Some(difference) = difference(AFTER, &list(dir.path())) {
        panic!(
            "slots, batches or a checkpoint are written otherwise, {difference}\n{CHANGED} (If only slots are chosen \
             otherwise, or files have another length, bless anew.)"
        );
    }
}

#[test]
fn superblocks_and_the_identity_are_written_the_same() {
    let dir = golden();
    let (volume, _) = open(dir.path());
    let before = list(dir.path());
    let mut damaged = vec![dir.path().join("volume.toml")];
    for entry in fs::read_dir(dir.path().join("segments")).expect("segments") {
        damaged.push(entry.expect("an entry").path());
    }
    for path in &damaged {
        let mut bytes = fs::read(path).expect("a file");
        bytes[..60].fill(b'x');
        fs::write(path, bytes).expect("a file");
    }
    let mut scrub = Scrub::resume(&volume);
    let findings = exec::run(&volume, scrub.step(1)).expect("scrubbing").findings;
    assert_eq!(findings.len(), damaged.len());
    assert!(
        findings
            .iter()
            .all(|finding| matches!(finding, Finding::Metadata { repaired: true, .. }))
    );
    if let Some(difference) = difference(&before, &list(dir.path())) {
        panic!("{difference}\n{CHANGED}");
    }
}
