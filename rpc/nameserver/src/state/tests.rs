//! The state machine against its promises: once, whole or not at all.

use blockyard_engine::checksum::combine;
use blockyard_wire::types::{Incarnation, ReplicaState, RequestId, VolumeId};

use super::blocks::VolumeRow;
use super::rows::Reader;
use super::*;

mod replay;

fn request(number: u64) -> RequestId {
    RequestId { client: 1, number }
}

const NO: RequestId = RequestId { client: 0, number: 0 };

/// A state that reigns over three volumes.
fn state() -> State {
    let mut state = State::default();
    let epoch = Epoch {
        number: 1,
        incarnation: Incarnation([1; 16]),
    };
    state.apply(&Command::Reign { epoch, at_unix_ms: 1 }).unwrap();
    let volume = |n| VolumeRow {
        id: VolumeId([n; 16]),
        server: format!("s{n}:1"),
        ..VolumeRow::default()
    };
    state
        .apply(&Command::Join {
            volumes: vec![volume(0), volume(1), volume(2)],
        })
        .unwrap();
    state
}

fn begin(state: &mut State, path: &str, overwrite: bool) -> Result<(u64, u64)> {
    let command = Command::Begin {
        path: path.into(),
        overwrite,
        replication: 2,
        content_type: "text/plain".into(),
        at_unix_ms: 5,
        request: NO,
    };
    match state.apply(&command)? {
        Outcome::Begun { lease, version, .. } => Ok((lease, version)),
        other => panic!("{other:?}"),
    }
}

fn row(block: u64, index: u32, length: u32) -> NewRow {
    NewRow {
        block: BlockId(block),
        index,
        length,
        crc32c: block as u32 * 77,
        volumes: vec![0, 1],
    }
}

fn add(lease: u64, rows: Vec<NewRow>) -> Command {
    Command::AddBlocks {
        lease,
        blocks: rows,
        request: NO,
    }
}

fn commit(lease: u64, rows: &[NewRow], request: RequestId) -> Command {
    let length_bytes = rows.iter().map(|row| u64::from(row.length)).sum();
    let crc32c = rows
        .iter()
        .fold(0, |crc, row| combine(crc, row.crc32c, u64::from(row.length)));
    Command::Commit {
        lease,
        blocks: rows.len() as u32,
        length_bytes,
        crc32c,
        at_unix_ms: 6,
        request,
    }
}

/// Publishes a file of these blocks; its version.
fn publish(state: &mut State, path: &str, blocks: &[u64]) -> u64 {
    let rows: Vec<_> = blocks
        .iter()
        .zip(0..)
        .map(|(&block, index)| row(block, index, 10))
        .collect();
    let (lease, version) = begin(state, path, true).unwrap();
    state.apply(&add(lease, rows.clone())).unwrap();
    state.apply(&commit(lease, &rows, NO)).unwrap();
    version
}

#[test]
fn a_file_appears_whole_and_not_before() {
    let mut state = state();
    let (lease, version) = begin(&mut state, "/a/b/f", false).unwrap();
    let rows = [row(10, 0, 4096), row(11, 1, 17)];
    // Out of order, as several blocks in flight come.
    state.apply(&add(lease, vec![rows[1].clone()])).unwrap();
    assert_eq!(
        state.apply(&commit(lease, &rows, NO)).unwrap_err().kind,
        ProblemKind::Invalid
    );
    state.apply(&add(lease, rows.to_vec())).unwrap();
    state.apply(&add(lease, rows.to_vec())).unwrap();
    assert_eq!(
        state.lookup("/a").unwrap_err().kind,
        ProblemKind::NotFound,
        "parents come with the commit"
    );
    let Command::Commit { crc32c, .. } = commit(lease, &rows, NO) else {
        unreachable!()
    };
    let wrong = |blocks, length_bytes, crc32c| Command::Commit {
        lease,
        blocks,
        length_bytes,
        crc32c,
        at_unix_ms: 6,
        request: NO,
    };
    for (command, kind) in [
        (wrong(3, 4113, crc32c), ProblemKind::Invalid),
        (wrong(1, 4096, crc32c), ProblemKind::Invalid),
        (wrong(2, 4112, crc32c), ProblemKind::Invalid),
        (wrong(2, 4113, crc32c ^ 1), ProblemKind::Corrupt),
    ] {
        assert_eq!(state.apply(&command).unwrap_err().kind, kind);
    }
    let Outcome::Committed { file, degraded } = state.apply(&commit(lease, &rows, NO)).unwrap() else {
        panic!("committed")
    };
    assert_eq!(
        (file.version, file.size_bytes, file.blocks, degraded),
        (version, 4113, 2, 0)
    );
    assert_eq!(state.lookup("a/b/f").unwrap(), *file);
    assert_eq!(
        (
            state.names().files(),
            state.names().directories(),
            state.file_bytes()
        ),
        (1, 2, 4113)
    );
    assert_eq!(
        state.apply(&commit(lease, &rows, NO)).unwrap_err().kind,
        ProblemKind::Denied,
        "published"
    );
}

#[test]
fn an_empty_file_has_no_blocks() {
    let mut state = state();
    let (lease, _) = begin(&mut state, "/empty", false).unwrap();
    state.apply(&commit(lease, &[], NO)).unwrap();
    let file = state.lookup("/empty").unwrap();
    assert_eq!((file.size_bytes, file.blocks, file.crc32c), (0, 0, 0));
    assert_eq!(state.run_of(file.version, 0, 9).unwrap().len(), 0);
}

#[test]
fn a_repeated_request_applies_once() {
    let mut state = state();
    let mkdir = Command::Mkdir {
        path: "/d".into(),
        parents: false,
        at_unix_ms: 3,
        request: request(1),
    };
    let first = state.apply(&mkdir).unwrap();
    let rename = Command::Rename {
        from: "/d".into(),
        to: "/e".into(),
        overwrite: false,
        at_unix_ms: 4,
        request: request(2),
    };
    state.apply(&rename).unwrap();
    assert_eq!(state.apply(&mkdir).unwrap(), first, "the outcome it had");
    assert!(state.lookup("/d").is_err(), "and not made again");
    assert_eq!(state.apply(&rename), Ok(Outcome::Done));
    let (lease, _) = begin(&mut state, "/f", false).unwrap();
    let committed = state.apply(&commit(lease, &[], request(3))).unwrap();
    assert_eq!(state.apply(&commit(lease, &[], request(3))).unwrap(), committed);
}

#[test]
fn overwriting_switches_and_condemns() {
    let mut state = state();
    let old = publish(&mut state, "/f", &[1, 2]);
    assert_eq!(
        begin(&mut state, "/f", false).unwrap_err().kind,
        ProblemKind::Exists
    );
    let created = state.lookup("/f").unwrap().created_unix_ms;
    let new = publish(&mut state, "/f", &[3]);
    assert_eq!(state.lookup("/f").unwrap().version, new);
    assert_eq!(state.lookup("/f").unwrap().created_unix_ms, created);
    assert_eq!(
        state.run_of(old, 0, 9).unwrap().len(),
        2,
        "readers finish on the old version"
    );
    assert_eq!(state.condemned().keys().collect::<Vec<_>>(), [&old]);
    assert_eq!(state.file_bytes(), 10);
    state
        .apply(&Command::Reap {
            versions: vec![old, new, 99],
        })
        .unwrap();
    assert_eq!(state.run_of(old, 0, 9).unwrap_err().kind, ProblemKind::Gone);
    assert_eq!(
        state.run_of(new, 0, 9).unwrap().len(),
        1,
        "only condemned ones are reaped"
    );
    assert_eq!(state.blocks().pending(), 4);
    state
        .apply(&Command::Deleted {
            volume: 0,
            blocks: vec![BlockId(1), BlockId(2)],
        })
        .unwrap();
    assert_eq!(state.blocks().pending(), 2);
    let (lease, _) = begin(&mut state, "/g", false).unwrap();
    let again = NewRow {
        volumes: vec![1],
        ..row(1, 0, 10)
    };
    assert_eq!(
        state.apply(&add(lease, vec![again])).unwrap_err().kind,
        ProblemKind::Denied,
        "owed"
    );
}

#[test]
fn a_race_for_a_name_has_one_winner() {
    let mut state = state();
    let (one, _) = begin(&mut state, "/f", false).unwrap();
    let (two, _) = begin(&mut state, "/f", false).unwrap();
    let (three, _) = begin(&mut state, "/f/below", false).unwrap();
    state.apply(&commit(one, &[], NO)).unwrap();
    assert_eq!(
        state.apply(&commit(two, &[], NO)).unwrap_err().kind,
        ProblemKind::Exists
    );
    assert_eq!(
        state.apply(&commit(three, &[], NO)).unwrap_err().kind,
        ProblemKind::Invalid
    );
    assert_eq!(
        state.leases().len(),
        2,
        "a refused commit leaves the upload as it was"
    );
}

#[test]
fn an_upload_that_ends_unpublished_gives_its_blocks_back() {
    let mut state = state();
    for expire in [false, true] {
        let base = if expire { 100 } else { 200 };
        let (lease, _) = begin(&mut state, "/f", false).unwrap();
        state
            .apply(&add(lease, vec![row(base, 0, 1), row(base + 1, 1, 1)]))
            .unwrap();
        let end = match expire {
            true => Command::Expire {
                leases: vec![lease, 12345],
                at_unix_ms: 9,
            },
            false => Command::Abandon { lease, request: NO },
        };
        let owed = state.blocks().pending();
        state.apply(&end).unwrap();
        assert_eq!(state.blocks().pending(), owed + 4);
        let late = add(lease, vec![row(base + 2, 2, 1)]);
        assert_eq!(state.apply(&late).unwrap_err().kind, ProblemKind::Denied);
    }
    assert_eq!(state.blocks().table().len(), 0);
}

#[test]
fn blocks_that_can_not_be_are_refused() {
    let mut state = state();
    publish(&mut state, "/f", &[1]);
    let (lease, _) = begin(&mut state, "/g", false).unwrap();
    state.apply(&add(lease, vec![row(5, 0, 9)])).unwrap();
    let bad = [
        row(6, 1, 0),
        row(6, 1, 4 * 1024 * 1024 + 1),
        row(6, 0, 9),
        row(6, leases::FILE_BLOCKS_MAX, 9),
        NewRow {
            volumes: vec![],
            ..row(6, 1, 9)
        },
        NewRow {
            volumes: vec![3],
            ..row(6, 1, 9)
        },
        row(1, 1, 10),
        row(5, 1, 9),
        row(5, 0, 8),
    ];
    let before = state.bytes();
    for row in bad {
        let shown = format!("{row:?}");
        assert!(state.apply(&add(lease, vec![row])).is_err(), "{shown}");
    }
    assert!(
        state
            .apply(&add(lease, vec![row(7, 2, 9), row(8, 2, 9)]))
            .is_err(),
        "one place twice"
    );
    assert!(state.blocks().get(BlockId(7)).is_none(), "all or nothing");
    assert_eq!(before.len(), state.bytes().len());
}

#[test]
fn names_are_made_moved_and_removed() {
    let mut state = state();
    let mkdir = |path: &str, parents| Command::Mkdir {
        path: path.into(),
        parents,
        at_unix_ms: 1,
        request: NO,
    };
    let mv = |from: &str, to: &str, overwrite| Command::Rename {
        from: from.into(),
        to: to.into(),
        overwrite,
        at_unix_ms: 2,
        request: NO,
    };
    let rm = |path: &str, recursive| Command::Remove {
        path: path.into(),
        recursive,
        at_unix_ms: 3,
        request: NO,
    };
    assert_eq!(
        state.apply(&mkdir("/a/b", false)).unwrap_err().kind,
        ProblemKind::NotFound
    );
    state.apply(&mkdir("/a/b", true)).unwrap();
    state.apply(&mkdir("/a/b", true)).unwrap();
    assert_eq!(
        state.apply(&mkdir("/a/b", false)).unwrap_err().kind,
        ProblemKind::Exists
    );
    publish(&mut state, "/a/f", &[1]);
    publish(&mut state, "/a/g", &[2]);
    let refused = [
        (mkdir("/a/f/x", true), ProblemKind::Invalid),
        (mv("/a", "/a/b/c", true), ProblemKind::Invalid),
        (mv("/", "/x", true), ProblemKind::Invalid),
        (mv("/a/f", "/", true), ProblemKind::Invalid),
        (mv("/a/f", "/a/g", false), ProblemKind::Exists),
        (mv("/a/f", "/a/b", true), ProblemKind::Exists),
        (mv("/a/b", "/a/f", true), ProblemKind::Exists),
        (mv("/a/f", "/no/f", true), ProblemKind::NotFound),
        (mv("/no", "/x", true), ProblemKind::NotFound),
        (rm("/a", false), ProblemKind::Invalid),
        (rm("/", true), ProblemKind::Invalid),
        (rm("/no", true), ProblemKind::NotFound),
    ];
    for (command, kind) in refused {
        assert_eq!(state.apply(&command).unwrap_err().kind, kind, "{command:?}");
    }
    state.apply(&mv("/a/f", "/a/f", false)).unwrap();
    state.apply(&mv("/a/f", "/a/g", true)).unwrap();
    assert_eq!(state.condemned().len(), 1);
    state.apply(&mv("/a", "/z", false)).unwrap();
    assert_eq!(state.lookup("/z/g").unwrap().path, "/z/g");
    assert_eq!(
        state.apply(&rm("/z", true)),
        Ok(Outcome::Removed { files: 1, bytes: 10 })
    );
    assert_eq!(
        (
            state.names().files(),
            state.names().directories(),
            state.file_bytes()
        ),
        (0, 0, 0)
    );
    assert_eq!(state.condemned().len(), 2);
}

#[test]
fn lists_page_and_filter() {
    let mut state = state();
    for path in ["/d/ab/1", "/d/ab/2", "/d/abc", "/d/b", "/d/z/ab"] {
        publish(&mut state, path, &[]);
    }
    let list = |prefix: &str, after: &str, limit, recursive| {
        let (entries, more) = state.list("/d", prefix, after, limit, recursive).unwrap();
        (
            entries
                .iter()
                .map(|e| e.path["/d/".len()..].to_owned())
                .collect::<Vec<_>>(),
            more,
        )
    };
    let names = |names: &[&str], more| (names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>(), more);
    assert_eq!(list("", "", 10, false), names(&["ab", "abc", "b", "z"], false));
    assert_eq!(list("", "", 2, false), names(&["ab", "abc"], true));
    assert_eq!(list("", "abc", 2, false), names(&["b", "z"], false));
    assert_eq!(list("ab", "", 10, false), names(&["ab", "abc"], false));
    assert_eq!(list("ab", "ab", 10, false), names(&["abc"], false));
    assert_eq!(list("b", "a", 10, false), names(&["b"], false));
    assert_eq!(list("x", "", 10, false), names(&[], false));
    let all = ["ab", "ab/1", "ab/2", "abc", "b", "z", "z/ab"];
    assert_eq!(list("", "", 10, true), names(&all, false));
    for (at, after) in all.iter().enumerate() {
        assert_eq!(
            list("", after, 10, true),
            names(&all[at + 1..], false),
            "after {after}"
        );
    }
    assert_eq!(list("ab", "", 10, true), names(&all[..4], false));
    assert_eq!(list("ab", "ab/1", 1, true), names(&["ab/2"], true));
    assert_eq!(list("ab/", "", 10, true), names(&["ab/1", "ab/2"], false));
    assert_eq!(list("ab/2", "ab/1", 10, true), names(&["ab/2"], false));
    assert_eq!(list("ab/", "ab/2", 10, true), names(&[], false));
    assert_eq!(list("ab/", "b", 10, true), names(&[], false));
    assert_eq!(list("z/", "ab", 10, true), names(&["z/ab"], false));
    assert_eq!(
        state.list("/d/b", "", "", 9, false).unwrap_err().kind,
        ProblemKind::Invalid
    );
    assert_eq!(
        state.list("/no", "", "", 9, false).unwrap_err().kind,
        ProblemKind::NotFound
    );
}

#[test]
fn copies_losses_and_judgements() {
    let mut state = state();
    publish(&mut state, "/f", &[1]);
    state.take_changed();
    let block = BlockId(1);
    state
        .apply(&Command::Judged {
            volume: 0,
            replicas: vec![(block, ReplicaState::Corrupt)],
        })
        .unwrap();
    assert_eq!(
        (
            state.blocks().corrupt(),
            state.blocks().get(block).unwrap().good()
        ),
        (1, 1)
    );
    state.apply(&Command::Copied { block, volume: 2 }).unwrap();
    state.apply(&Command::Drop { block, volume: 0 }).unwrap();
    assert_eq!((state.blocks().corrupt(), state.blocks().pending()), (0, 1));
    let late = state.apply(&Command::Copied { block, volume: 0 });
    assert_eq!(late, Ok(Outcome::Unwanted), "the deletion is on its way");
    state
        .apply(&Command::Deleted {
            volume: 0,
            blocks: vec![block],
        })
        .unwrap();
    state.apply(&Command::Copied { block, volume: 0 }).unwrap();
    state
        .apply(&Command::Lost {
            volume: 1,
            blocks: vec![block, BlockId(50)],
        })
        .unwrap();
    assert_eq!(state.blocks().get(block).unwrap().good(), 2);
    assert_eq!(state.blocks().pending(), 0, "what is lost need not be deleted");
    assert!(state.take_changed().iter().all(|id| *id == 1));
}

#[test]
fn damaged_rows_are_refused() {
    let mut state = state();
    publish(&mut state, "/a/f", &[1, 2]);
    let mut chunks = Vec::new();
    let written: std::result::Result<(), ()> = state.write(&mut |section, rows, bytes| {
        chunks.push((section, rows, bytes.to_vec()));
        Ok(())
    });
    written.unwrap();
    let read = |chunks: &[(rows::Section, u32, Vec<u8>)]| {
        let mut reader = Reader::default();
        chunks
            .iter()
            .try_for_each(|(section, rows, bytes)| reader.chunk(*section, *rows, bytes))?;
        reader.finish()
    };
    assert_eq!(read(&chunks).unwrap().bytes(), state.bytes());
    assert!(read(&[]).is_err());
    assert!(read(&chunks[1..]).is_err(), "no counters");
    let without_volumes: Vec<_> = chunks
        .iter()
        .filter(|chunk| chunk.0 != rows::Section::Volumes)
        .cloned()
        .collect();
    assert!(read(&without_volumes).is_err(), "blocks on unknown volumes");
    let mut more = chunks.clone();
    more[0].2.push(0);
    assert!(read(&more).is_err(), "a byte too many");
}

fn file_of(path: &str, overwrite: bool, rows: &[NewRow], request: RequestId) -> Command {
    let Command::Commit {
        length_bytes, crc32c, ..
    } = commit(0, rows, NO)
    else {
        unreachable!()
    };
    Command::Publish {
        path: path.into(),
        overwrite,
        replication: 2,
        content_type: "text/plain".into(),
        blocks: rows.to_vec(),
        length_bytes,
        crc32c,
        at_unix_ms: 6,
        request,
    }
}

#[test]
fn a_file_without_an_upload_appears_whole_or_not_at_all() {
    let mut state = state();
    let rows = [row(10, 0, 4096), row(11, 1, 17)];
    let before = state.bytes();
    let refused = |state: &mut State, command: &Command, kind| {
        let applied = state.applied;
        assert_eq!(state.apply(command).unwrap_err().kind, kind, "{command:?}");
        // Nothing has changed but the count.
        state.applied = applied;
    };
    let whole = file_of("/a/f", false, &rows, NO);
    for spoil in 0..4 {
        let mut command = whole.clone();
        if let Command::Publish {
            blocks,
            length_bytes,
            crc32c,
            replication,
            ..
        } = &mut command
        {
            match spoil {
                0 => *length_bytes += 1,
                1 => *crc32c ^= 1,
                2 => blocks[1].index = 2,
                _ => *replication = 0,
            }
        }
        let kind = if spoil == 1 {
            ProblemKind::Corrupt
        } else {
            ProblemKind::Invalid
        };
        refused(&mut state, &command, kind);
    }
    assert!(state.bytes() == before);
    let named = file_of("/a/f", false, &rows, request(1));
    let Outcome::Committed { file, degraded } = state.apply(&named).unwrap() else {
        panic!("published")
    };
    assert_eq!((file.size_bytes, file.blocks, degraded), (4113, 2, 0));
    assert_eq!(
        state.apply(&named),
        Ok(Outcome::Committed {
            file: file.clone(),
            degraded
        })
    );
    // Its blocks are its own, and so is its name.
    refused(&mut state, &file_of("/b", false, &rows, NO), ProblemKind::Denied);
    let other = [row(12, 0, 5)];
    refused(
        &mut state,
        &file_of("/a/f", false, &other, NO),
        ProblemKind::Exists,
    );
    let Ok(Outcome::Committed { file: second, .. }) = state.apply(&file_of("/a/f", true, &other, NO)) else {
        panic!("replaced")
    };
    assert!(second.version > file.version && state.condemned().contains_key(&file.version));
    let Ok(Outcome::Committed { file: empty, .. }) = state.apply(&file_of("/empty", false, &[], NO)) else {
        panic!("published")
    };
    assert_eq!((empty.size_bytes, empty.blocks), (0, 0));
}
