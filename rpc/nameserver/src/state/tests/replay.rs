//! Random commands: a snapshot at any point and the rest of them give the same bytes as all of them.

use blockyard_wire::types::{BlockId, Epoch, Incarnation, ReplicaState, RequestId};
use proptest::prelude::*;

use super::super::rows::Reader;
use super::super::{Command, NewRow, State};
use super::{NO, commit, row, state};

/// Any command, over few names, leases and blocks, so that they meet.
fn any_command() -> impl Strategy<Value = Command> {
    let path =
        || prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..4).prop_map(|p| p.join("/"));
    let id = || (0u64..3, 0u64..40).prop_map(|(client, number)| RequestId { client, number });
    let block = || (0u64..300).prop_map(BlockId);
    let state = prop::sample::select(vec![
        ReplicaState::Good,
        ReplicaState::Suspect,
        ReplicaState::Corrupt,
    ]);
    let new_row = (0u64..300, 0u32..3, 1u32..3).prop_map(|(block, index, length)| NewRow {
        volumes: vec![(block % 3) as u16],
        ..row(block, index, length)
    });
    prop_oneof![
        (path(), any::<bool>(), id()).prop_map(|(path, parents, request)| Command::Mkdir {
            path,
            parents,
            at_unix_ms: 1,
            request
        }),
        (path(), path(), any::<bool>(), id()).prop_map(|(from, to, overwrite, request)| Command::Rename {
            from,
            to,
            overwrite,
            at_unix_ms: 2,
            request
        }),
        (path(), any::<bool>(), id()).prop_map(|(path, recursive, request)| Command::Remove {
            path,
            recursive,
            at_unix_ms: 3,
            request
        }),
        (path(), any::<bool>(), 1u8..4, id()).prop_map(|(path, overwrite, replication, request)| {
            Command::Begin {
                path,
                overwrite,
                replication,
                content_type: "x/y".into(),
                at_unix_ms: 4,
                request,
            }
        }),
        (0u64..30, prop::collection::vec(new_row, 1..3), id()).prop_map(|(lease, blocks, request)| {
            Command::AddBlocks {
                lease,
                blocks,
                request,
            }
        }),
        (0u64..30, id()).prop_map(|(lease, request)| commit(lease, &[], request)),
        (0u64..30, 0u64..300, 1u32..3).prop_map(|(lease, block, length)| commit(
            lease,
            &[row(block, 0, length)],
            NO
        )),
        (0u64..30, id()).prop_map(|(lease, request)| Command::Abandon { lease, request }),
        (0u64..30).prop_map(|lease| Command::Expire {
            leases: vec![lease],
            at_unix_ms: 5
        }),
        (0u64..30).prop_map(|version| Command::Reap {
            versions: vec![version]
        }),
        (0u16..4, block()).prop_map(|(volume, block)| Command::Deleted {
            volume,
            blocks: vec![block]
        }),
        (0u16..4, block()).prop_map(|(volume, block)| Command::Copied { block, volume }),
        (0u16..4, block()).prop_map(|(volume, block)| Command::Lost {
            volume,
            blocks: vec![block]
        }),
        (0u16..4, block(), state).prop_map(|(volume, block, state)| Command::Judged {
            volume,
            replicas: vec![(block, state)]
        }),
        (0u16..4, block()).prop_map(|(volume, block)| Command::Drop { block, volume }),
        (1u64..5).prop_map(|number| Command::Reign {
            epoch: Epoch {
                number,
                incarnation: Incarnation([number as u8; 16])
            },
            at_unix_ms: 9
        }),
    ]
}

fn restored(from: &State) -> State {
    let mut reader = Reader::default();
    from.write(&mut |section, rows, bytes| reader.chunk(section, rows, bytes))
        .unwrap();
    reader.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Snapshot at any point + the rest of the commands = all commands; and what was counted is what is there.
    #[test]
    fn snapshot_and_replay_give_the_same_bytes(
        commands in prop::collection::vec(any_command(), 1..120),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(commands.len());
        let mut whole = state();
        let mut again = None;
        for (at, command) in commands.iter().enumerate() {
            if at == cut {
                again = Some(restored(&whole));
            }
            let before = whole.bytes();
            let outcome = whole.apply(command);
            if let Some(again) = &mut again {
                prop_assert_eq!(&again.apply(command), &outcome);
            }
            if outcome.is_err() {
                // The count of commands is all that may differ: put it back and compare.
                let mut same = whole.clone();
                same.applied -= 1;
                prop_assert_eq!(same.bytes(), before, "a refused command changed something");
            }
        }
        let again = again.unwrap();
        prop_assert_eq!(again.bytes(), whole.bytes());
        prop_assert_eq!(again.file_bytes, whole.file_bytes);
        prop_assert_eq!(again.blocks.pending(), whole.blocks.pending());
        prop_assert_eq!(again.blocks.corrupt(), whole.blocks.corrupt());
        for (one, other) in again.blocks.volumes().iter().zip(whole.blocks.volumes()) {
            prop_assert_eq!(&one.digest, &other.digest);
            prop_assert_eq!(one.replicas, other.replicas);
        }
        // Every block belongs to a version or an upload, and those to nobody else.
        let mut owned: Vec<u64> = whole.versions.iter().flat_map(|(_, v)| v.blocks.ids().to_vec()).collect();
        owned.extend(whole.leases.values().flat_map(|lease| lease.blocks.values().copied()));
        owned.sort_unstable();
        let held: Vec<u64> = whole.blocks.table().iter().map(|(id, _)| id).collect();
        prop_assert_eq!(owned, held);
        let bytes: u64 = whole.versions.iter().filter(|(_, v)| v.file != 0).map(|(_, v)| v.size_bytes).sum();
        prop_assert_eq!(bytes, whole.file_bytes);
        prop_assert_eq!(whole.names.files() as usize, whole.versions.len() - whole.condemned.len());
    }
}
