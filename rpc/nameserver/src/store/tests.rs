//! The folder against restarts, damage and twins.

use blockyard_wire::types::{Epoch, Incarnation, RequestId};

use super::*;
use crate::error::Kind;
use crate::journal::{FILE_BYTES_MIN, encode_command};
use crate::log::{Journal, Uring};
use crate::state::Command;

pub(super) fn mkdir(number: u64) -> Command {
    Command::Mkdir {
        path: format!("/d{number}"),
        parents: false,
        at_unix_ms: number,
        request: RequestId { client: 3, number },
    }
}

/// Opens the folder, applies commands as a serving nameserver does, and leaves without a snapshot.
fn reign(dir: &Path, commands: &[Command], rotate: bool) -> (State, u64) {
    reign_in(&[dir.to_owned()], commands, rotate, FILE_BYTES_MIN)
}

/// The same in several folders, with files of `file_bytes`.
pub(super) fn reign_in(
    dirs: &[PathBuf],
    commands: &[Command],
    rotate: bool,
    file_bytes: u64,
) -> (State, u64) {
    let Opened {
        store,
        mut state,
        tail,
        ..
    } = Store::open(dirs).unwrap();
    let (dirs, cluster) = (dirs.to_owned(), store.cluster);
    let epoch = Epoch {
        number: state.epoch().number + 1,
        incarnation: Incarnation([9; 16]),
    };
    let all: Vec<_> = [Command::Reign { epoch, at_unix_ms: 1 }]
        .into_iter()
        .chain(commands.to_vec())
        .collect();
    let result = tokio_uring::start(async move {
        let mut journal = Journal::new(Uring, &dirs, cluster, file_bytes, tail.sequence, tail.place);
        for command in &all {
            journal
                .append(epoch.number, &[encode_command(command)])
                .await
                .unwrap();
            state.apply(command).unwrap();
        }
        if rotate {
            journal.rotate().await.unwrap();
        }
        (state, journal.sequence())
    });
    drop(store);
    result
}

#[test]
fn snapshots_and_journal_together_are_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let dirs = [dir.to_owned()];
    let (state, _) = reign(dir, &[mkdir(1), mkdir(2)], false);
    let opened = Store::open(&dirs).unwrap();
    assert_eq!(opened.state.bytes(), state.bytes());
    let cluster = opened.store.cluster;
    assert_eq!(Store::open(&dirs).unwrap_err().kind(), Kind::Busy, "a twin");
    drop(opened);

    let (state, sequence) = reign(dir, &[mkdir(3)], true);
    Store::compact(&dirs, cluster, sequence - 1, 2).unwrap();
    assert_eq!(snapshot::list(&dirs).unwrap()[0].0, state.applied());
    assert_eq!(Store::open(&dirs).unwrap().state.bytes(), state.bytes());

    let (state, sequence) = reign(dir, &[mkdir(4)], true);
    Store::compact(&dirs, cluster, sequence - 1, 2).unwrap();
    let (state_last, sequence) = reign(dir, &[mkdir(5)], true);
    Store::compact(&dirs, cluster, sequence - 1, 2).unwrap();
    let snapshots = snapshot::list(&dirs).unwrap();
    assert_eq!(
        snapshots.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        [state_last.applied(), state.applied()]
    );
    let files = replay::files(&dirs).unwrap();
    let first = replay::read_header(dir, &files[0], cluster).unwrap();
    assert!(
        first.first.index > 1,
        "the journal is kept from the older snapshot on, not from the beginning"
    );

    // The newest snapshot is damaged, wherever: the one before and the journal give the same.
    let newest = &snapshots[0].1;
    let whole = fs::read(newest).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x20;
        fs::write(newest, &flipped).unwrap();
        assert!(snapshot::read(dir, newest, cluster).is_err(), "byte {at}");
    }
    for length in [0, 1, 47, 48, 60, whole.len() - 1] {
        fs::write(newest, &whole[..length]).unwrap();
        assert!(snapshot::read(dir, newest, cluster).is_err(), "cut at {length}");
    }
    assert_eq!(Store::open(&dirs).unwrap().state.bytes(), state_last.bytes());
    // Both are: nothing is guessed.
    fs::write(&snapshots[1].1, b"").unwrap();
    assert_eq!(Store::open(&dirs).unwrap_err().kind(), Kind::Damaged);
    fs::write(newest, &whole).unwrap();
    assert_eq!(Store::open(&dirs).unwrap().state.bytes(), state_last.bytes());
}

#[test]
fn an_identity_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("deep/ns");
    let dirs = [dir.clone()];
    let cluster = Store::open(&dirs).unwrap().store.cluster;
    assert_eq!(Store::open(&dirs).unwrap().store.cluster, cluster);
    reign(&dir, &[], false);
    fs::write(
        dir.join("nameserver.toml"),
        "format = 2\ncluster = \"00000000000000000000000000000001\"",
    )
    .unwrap();
    assert!(matches!(
        Store::open(&dirs).unwrap_err(),
        Error::Format { found: 2, .. }
    ));
    fs::remove_file(dir.join("nameserver.toml")).unwrap();
    assert_eq!(
        Store::open(&dirs).unwrap_err().kind(),
        Kind::Damaged,
        "a journal without an identity"
    );
}
