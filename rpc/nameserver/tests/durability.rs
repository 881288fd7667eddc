//! What the nameserver keeps, over its sockets: mirrors, backups, newer epochs, adoption and quarantine.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use blockyard_engine::checksum::crc;
use blockyard_nameserver::{Config, Kind, backup, start};
use blockyard_schema::nameserver_capnp::custody;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{
    BlockId, CustodyState, Epoch, Incarnation, Orphan, Replica, ReplicaState, VolumeId,
};
use blockyard_wire::{ProblemKind, Result, convert};
use support::{Client, Node, Server, config, copy_folder, run, serve, until};

async fn custody_of(client: &Client) -> custody::Client {
    let response = client.session.custody_request().send().promise.await.unwrap();
    response.get().unwrap().get_custody().unwrap()
}

async fn state_of(client: &Client) -> Result<CustodyState> {
    let custody = custody_of(client).await;
    let response = custody.state_request().send().promise.await?;
    convert::read_custody_state(response.get()?)
}

async fn orphans_of(client: &Client, volume: VolumeId) -> Vec<Orphan> {
    let custody = custody_of(client).await;
    let mut all: Vec<Orphan> = Vec::new();
    loop {
        let mut request = custody.orphans_request();
        convert::write_id(&volume.0, request.get().init_volume());
        request
            .get()
            .set_after(all.last().map_or(0, |orphan| orphan.block.0));
        request.get().set_limit(1);
        let response = request.send().promise.await.unwrap();
        let response = response.get().unwrap();
        all.extend(convert::read_list(response.get_orphans().unwrap(), convert::read_orphan).unwrap());
        if !response.get_more() {
            return all;
        }
    }
}

/// Takes a backup in small pieces, the way the command does.
async fn back_up(client: &Client, dir: &Path) {
    let custody = custody_of(client).await;
    let response = custody.backup_request().send().promise.await.unwrap();
    let backup = response.get().unwrap().get_backup().unwrap();
    // Whatever comes now is not in it, and it stays what it is while files come and go.
    for number in 0..30 {
        client.mkdir(&format!("/later-{number}"), true).await.unwrap();
    }
    let response = backup.describe_request().send().promise.await.unwrap();
    let files = response.get().unwrap().get_files().unwrap();
    let files = convert::read_list(files, convert::read_backup_file).unwrap();
    for (at, file) in files.iter().enumerate() {
        assert!(backup::is_file_name(&file.name), "{}", file.name);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < file.bytes {
            let mut request = backup.read_request();
            request.get().set_file(at as u32);
            request.get().set_offset(bytes.len() as u64);
            request.get().set_bytes(u32::MAX);
            let response = request.send().promise.await.unwrap();
            let piece = response.get().unwrap().get_bytes().unwrap();
            assert!(!piece.is_empty() && piece.len() <= 512 * 1024);
            bytes.extend_from_slice(piece);
        }
        let path = dir.join(&file.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_backup_holds_what_was_there_and_is_restored_only_where_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let path = |name: &str| folder.path().join(name);
    let of = |name: &str| config(&path(name), &secret);
    // Snapshots come and go all the time.
    let handle = serve(Config {
        journal_bytes_max: 2048,
        ..of("one")
    });
    run(async {
        let client = Client::connect(&handle.address().to_string(), &secret)
            .await
            .unwrap();
        for number in 0..50 {
            client.mkdir(&format!("/early-{number}"), false).await.unwrap();
        }
        let is_snapshot = |entry: std::io::Result<fs::DirEntry>| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.starts_with("snapshot-0").then_some(())
        };
        until("there is a snapshot", async || {
            fs::read_dir(path("one")).unwrap().find_map(is_snapshot)
        })
        .await;
        back_up(&client, &path("backup")).await;
    });
    let cluster = handle.cluster();
    handle.stop().unwrap();
    let found = backup::check(&path("backup")).unwrap();
    assert_eq!(
        (found.cluster, found.directories, found.epoch.number),
        (cluster, 50, 1)
    );

    // Any file of it that is damaged shows.
    let snapshot_or_journal = fs::read_dir(path("backup"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.display().to_string().contains("snapshot-"))
        .unwrap();
    let good = fs::read(&snapshot_or_journal).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&snapshot_or_journal, bad).unwrap();
    assert_eq!(backup::check(&path("backup")).unwrap_err().kind(), Kind::Damaged);
    assert_eq!(
        backup::restore(&path("backup"), &path("never"), false)
            .unwrap_err()
            .kind(),
        Kind::Damaged
    );
    fs::write(&snapshot_or_journal, good).unwrap();

    let refused = backup::restore(&path("backup"), &path("one"), false).unwrap_err();
    assert!(
        refused.to_string().contains("holds a nameserver's data"),
        "{refused}"
    );
    let refused = backup::restore(&path("nothing"), &path("two"), false).unwrap_err();
    assert_eq!(refused.kind(), Kind::Usage, "{refused}");
    assert_eq!(
        backup::restore(&path("backup"), &path("two"), false).unwrap(),
        found
    );
    assert_eq!(backup::check(&path("two")).unwrap(), found);
    let refused = backup::restore(&path("backup"), &path("two"), false).unwrap_err();
    assert!(
        refused.to_string().contains("holds a nameserver's data"),
        "{refused}"
    );
}

/// A replica of a block that the volume has and the nameserver may not know.
fn hold(node: &Node, block: BlockId) {
    let replica = Replica {
        block,
        length: 5,
        crc32c: crc(b"bytes"),
        state: ReplicaState::Good,
    };
    node.replicas.borrow_mut().insert(block, replica);
}

fn epoch(number: u64, incarnation: u8) -> Epoch {
    Epoch {
        number,
        incarnation: Incarnation([incarnation; 16]),
    }
}

#[test]
fn an_older_state_serves_nothing_until_it_is_told_to_take_over() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let of = |adopt: bool| Config {
        adopt,
        orphan_age_ms: 200,
        // Adopting waits so long for volumes that say nothing, and safe mode for those that do not come.
        safe_mode_ms: 1_000,
        ..config(folder.path(), &secret)
    };
    let handle = serve(of(false));
    let cluster = handle.cluster();
    let nodes = [1, 2].map(|n| Node::new(n, &secret, cluster));
    let (old, after_backup, late) = (
        BlockId::new(0, 7).unwrap(),
        BlockId::new(1, 1 << 30).unwrap(),
        BlockId::new(4, 1).unwrap(),
    );
    let address = handle.address().to_string();
    run(async {
        let client = Client::connect(&address, &secret).await.unwrap();
        let one = Server::join(&nodes[0], &address, &secret).await.unwrap();
        let two = Server::join(&nodes[1], &address, &secret).await.unwrap();
        client.upload(&[&one, &two], "/f", &[b"data"]).await.unwrap();
        // Meanwhile the cluster went on under another nameserver, up to its fourth reign.
        drop((one, two));
        nodes[0].epoch.set(epoch(4, 4));
        for node in &nodes {
            [old, after_backup, late]
                .into_iter()
                .for_each(|block| hold(node, block));
        }
        // The first time its connection may be cut off before the answer is through.
        let refused = until("it is told why", async || {
            let refused = Server::join(&nodes[0], &address, &secret).await.err().unwrap();
            (refused.kind == ProblemKind::Stale).then_some(refused)
        })
        .await;
        for part in [&nodes[0].volume.to_string(), "epoch 4", "epoch 1", "--adopt"] {
            assert!(refused.message.contains(part), "{part} in {refused}");
        }
        // Nobody is served any more, and everybody is told why.
        let refused = until("new sessions are refused", async || {
            Client::connect(&address, &secret).await.err()
        })
        .await;
        assert_eq!(refused.kind, ProblemKind::Stale, "{refused}");
        until("the old one is cut off", async || {
            client.mkdir("/x", false).await.err()
        })
        .await;
        let refused = Server::join(&nodes[1], &address, &secret).await.err().unwrap();
        assert_eq!(
            refused.kind,
            ProblemKind::Stale,
            "nor is a volume that has seen less: {refused}"
        );
    });
    handle.stop().unwrap();

    // Nor by starting it often enough, until its epoch is above theirs.
    for _ in 0..5 {
        let handle = serve(of(false));
        run(async {
            let address = handle.address().to_string();
            let refused = Client::connect(&address, &secret).await.err().unwrap();
            assert_eq!(refused.kind, ProblemKind::Stale, "{refused}");
            let refused = Server::join(&nodes[0], &address, &secret).await.err().unwrap();
            assert!(refused.message.contains("epoch 4"), "{refused}");
        });
        handle.stop().unwrap();
    }

    let handle = serve(of(true));
    let address = handle.address().to_string();
    run(async {
        let refused = Client::connect(&address, &secret).await.err().unwrap();
        assert_eq!(refused.kind, ProblemKind::Retry, "{refused}");
        for node in &nodes {
            // Told, and asked to come again.
            let refused = Server::join(node, &address, &secret).await.err();
            assert!(refused.is_none_or(|refused| refused.kind == ProblemKind::Retry));
        }
        let client = until("it serves", async || {
            Client::connect(&address, &secret).await.ok()
        })
        .await;
        assert_eq!(client.status().await.unwrap().cluster.epoch.number, 5);
        let _servers = (
            Server::join(&nodes[0], &address, &secret).await.unwrap(),
            Server::join(&nodes[1], &address, &secret).await.unwrap(),
        );
        client.lookup("/f").await.unwrap();
        // What is older than the state is rubbish; what may have come after it is kept.
        until("the old orphan is deleted", async || {
            nodes
                .iter()
                .all(|node| node.deleted.borrow().contains(&old))
                .then_some(())
        })
        .await;
        let listed = until("the others are seen", async || {
            let listed = orphans_of(&client, nodes[1].volume).await;
            (listed.len() == 2 && listed.iter().all(|orphan| orphan.age_ms > 600)).then_some(listed)
        })
        .await;
        assert_eq!(
            listed
                .iter()
                .map(|orphan| (orphan.block, orphan.quarantined))
                .collect::<Vec<_>>(),
            [(after_backup, true), (late, true)],
            "three times as old as orphans get"
        );
        assert!(
            nodes
                .iter()
                .all(|node| node.replicas.borrow().contains_key(&late))
        );
        let state = state_of(&client).await.unwrap();
        assert_eq!(
            (state.quarantined, state.quarantined_reigns),
            (4, 4),
            "reigns 1 to 4"
        );
    });
    handle.stop().unwrap();

    // The next start needs no word, and still keeps them; then they are let go.
    let handle = serve(of(false));
    let address = handle.address().to_string();
    run(async {
        let client = Client::connect(&address, &secret).await.unwrap();
        nodes.iter().for_each(|node| node.epoch.set(epoch(5, 5)));
        let _servers = (
            Server::join(&nodes[0], &address, &secret).await.unwrap(),
            Server::join(&nodes[1], &address, &secret).await.unwrap(),
        );
        until("they are seen", async || {
            let seen = state_of(&client).await.unwrap().quarantined;
            (seen == 4).then_some(())
        })
        .await;
        let custody = custody_of(&client).await;
        let response = custody.release_request().send().promise.await.unwrap();
        assert_eq!(response.get().unwrap().get_reigns(), 4);
        until("they are deleted", async || {
            let gone = |node: &&std::rc::Rc<Node>| !node.replicas.borrow().contains_key(&late);
            nodes.iter().all(|node| gone(&node)).then_some(())
        })
        .await;
        assert_eq!(state_of(&client).await.unwrap(), CustodyState::default());
        client.lookup("/f").await.unwrap();
    });
    handle.stop().unwrap();
}

#[test]
fn a_twin_of_the_same_epoch_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let handle = serve(config(folder.path(), &secret));
    let node = Node::new(1, &secret, handle.cluster());
    node.epoch.set(epoch(1, 9));
    run(async {
        let address = handle.address().to_string();
        let refused = until("it is told why", async || {
            let refused = Server::join(&node, &address, &secret).await.err().unwrap();
            (refused.kind == ProblemKind::Stale).then_some(refused)
        })
        .await;
        assert!(refused.message.contains("of another nameserver"), "{refused}");
    });
}

#[test]
fn a_mirror_is_enough_to_start_from() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let dirs = ["one", "two"].map(|name| folder.path().join(name));
    let of = |mirror: Option<&PathBuf>, dir: &PathBuf| Config {
        mirror: mirror.cloned(),
        journal_bytes_max: 4096,
        secret: None,
        secret_for_user: false,
        ..config(dir, &secret)
    };
    let handle = serve(of(Some(&dirs[1]), &dirs[0]));
    let (cluster, own) = (handle.cluster(), handle.secret().clone());
    let acknowledged = run(async {
        let client = Client::connect(&handle.address().to_string(), &own)
            .await
            .unwrap();
        for number in 0..200 {
            client.mkdir(&format!("/d{number}"), false).await.unwrap();
        }
        // As a power cut leaves them.
        let copy = folder.path().join("copy");
        copy_folder(&dirs[1], &copy);
        copy
    });
    handle.stop().unwrap();
    fs::remove_dir_all(&dirs[0]).unwrap();
    for dir in [&dirs[1], &acknowledged] {
        let handle = serve(of(None, dir));
        assert_eq!((handle.cluster(), handle.secret()), (cluster, &own));
        run(async {
            let client = Client::connect(&handle.address().to_string(), &own)
                .await
                .unwrap();
            let listed = client.list("/", false).await.unwrap();
            assert_eq!(listed.len(), 200);
        });
        handle.stop().unwrap();
    }
    // The lost one comes back empty, and is filled.
    let handle = serve(of(Some(&dirs[1]), &dirs[0]));
    assert_eq!(handle.cluster(), cluster);
    handle.stop().unwrap();
    assert_eq!(backup::check(&dirs[0]).unwrap(), backup::check(&dirs[1]).unwrap());
    let refused = start(of(Some(&dirs[0]), &dirs[0]), |_| Box::pin(async {})).unwrap_err();
    assert!(refused.to_string().contains("its own mirror"), "{refused}");
}

#[test]
fn a_mirror_that_fails_is_told_of_and_brought_up_later() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let dirs = ["one", "two"].map(|name| folder.path().join(name));
    for lost in [1, 0] {
        let of = || Config {
            mirror: Some(dirs[1].clone()),
            ..config(&dirs[0], &secret)
        };
        let handle = serve(of());
        run(async {
            let client = Client::connect(&handle.address().to_string(), &secret)
                .await
                .unwrap();
            client.mkdir(&format!("/before-{lost}"), false).await.unwrap();
            assert_eq!(state_of(&client).await.unwrap(), CustodyState::default());
            // The next file can't be made there.
            fs::remove_dir_all(dirs[lost].join("journal")).unwrap();
            back_up(&client, &folder.path().join(format!("backup-{lost}"))).await;
            client.mkdir(&format!("/after-{lost}"), false).await.unwrap();
            let state = state_of(&client).await.unwrap();
            assert!(
                state.journal_trouble.contains(&dirs[lost].display().to_string()),
                "{state:?}"
            );
            assert_eq!(state.read_only, "");
        });
        handle.stop().unwrap();
        let handle = serve(of());
        run(async {
            let client = Client::connect(&handle.address().to_string(), &secret)
                .await
                .unwrap();
            assert_eq!(state_of(&client).await.unwrap(), CustodyState::default());
            client.lookup(&format!("/after-{lost}")).await.unwrap();
        });
        handle.stop().unwrap();
        let found = backup::check(&dirs[lost]).unwrap();
        assert_eq!(found, backup::check(&dirs[1 - lost]).unwrap());
    }
}

#[test]
fn more_snapshots_are_kept_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let of = |kept| Config {
        snapshots_kept: kept,
        ..config(folder.path(), &secret)
    };
    let snapshots = || {
        let names = fs::read_dir(folder.path()).unwrap();
        let is_one = |name: &String| name.starts_with("snapshot-");
        let mut found: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(is_one)
            .collect();
        found.sort();
        found
    };
    for (kept, starts, expected) in [(4, 6, 4), (2, 1, 2)] {
        for _ in 0..starts {
            serve(of(kept)).stop().unwrap();
        }
        assert_eq!(snapshots().len(), expected);
        // Any of them, with the journal behind it, is the same.
        let whole = backup::check(folder.path()).unwrap();
        let all = snapshots();
        let aside = tempfile::tempdir().unwrap();
        for name in all.iter().rev().take(expected - 1) {
            fs::rename(folder.path().join(name), aside.path().join(name)).unwrap();
            assert_eq!(backup::check(folder.path()).unwrap(), whole, "without {name}");
        }
        for name in all.iter().rev().take(expected - 1) {
            fs::rename(aside.path().join(name), folder.path().join(name)).unwrap();
        }
    }
    let refused = start(of(1), |_| Box::pin(async {})).unwrap_err();
    assert_eq!(refused.kind(), Kind::Usage);
}
