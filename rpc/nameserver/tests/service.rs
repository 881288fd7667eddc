//! The whole service over its sockets: uploads, names, deletion, restarts, repair, and refusals.

mod support;

use std::net::TcpListener;

use blockyard_engine::checksum::crc;
use blockyard_nameserver::{Error, start};
use blockyard_wire::frame::Role;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{BlockId, Liveness, Replica, ReplicaProof, ReplicaState};
use blockyard_wire::{ProblemKind, control};
use support::{Client, Node, Server, config, copy_folder, run, serve, until, write};

#[test]
fn a_file_from_join_to_restart() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let handle = serve(config(dir.path(), &secret));
    let cluster = handle.cluster();
    let nodes = run(async {
        let address = handle.address().to_string();
        let client = Client::connect(&address, &secret).await.unwrap();
        let (lease, _) = client.begin("/early", false).await.unwrap();
        let problem = client.allocate(lease, 1, &[]).await.unwrap_err();
        assert!(
            problem.kind == ProblemKind::Retry && problem.message.contains("no dataserver"),
            "{problem}"
        );

        let nodes = [1, 2, 3].map(|n| Node::new(n, &secret, cluster));
        let one = Server::join(&nodes[0], &address, &secret).await.unwrap();
        let two = Server::join(&nodes[1], &address, &secret).await.unwrap();
        let servers = [&one, &two];

        let (lease, version) = client.begin("/a/b/file.txt", false).await.unwrap();
        let blocks = client.allocate(lease, 2, &[]).await.unwrap();
        assert_eq!(blocks.len(), 2);
        for block in &blocks {
            assert_eq!(block.chain.len(), 2);
            assert_ne!(block.chain[0].server, block.chain[1].server);
        }
        let parts: [&[u8]; 2] = [b"block", b"yard"];
        let added: Vec<_> = blocks
            .iter()
            .zip(parts)
            .zip(0..)
            .map(|((block, part), index)| write(&servers, block, version, index, part))
            .collect();
        // Lies about blocks are found out.
        let mut forged = added.clone();
        forged[0].crc32c ^= 1;
        assert_eq!(
            client.add(lease, &forged).await.unwrap_err().kind,
            ProblemKind::Denied
        );
        forged[0] = added[0].clone();
        forged[0].proofs[0] = ReplicaProof {
            mac: [9; 32],
            ..forged[0].proofs[0]
        };
        assert_eq!(
            client.add(lease, &forged).await.unwrap_err().kind,
            ProblemKind::Denied
        );
        let (other, _) = client.begin("/other", false).await.unwrap();
        let problem = client.add(other, &added).await.unwrap_err();
        assert_eq!(
            problem.kind,
            ProblemKind::Denied,
            "another upload's blocks: {problem}"
        );
        client.add(lease, &added).await.unwrap();

        let sums = (2, 9, crc(b"blockyard"));
        let request = client.request();
        assert_eq!(
            client
                .commit(lease, (2, 9, 5), client.request())
                .await
                .unwrap_err()
                .kind,
            ProblemKind::Corrupt
        );
        let (file, degraded) = client.commit(lease, sums, request).await.unwrap();
        assert_eq!((file.size_bytes, file.version, degraded), (9, version, 0));
        let again = client.commit(lease, sums, request).await.unwrap();
        assert_eq!(again.0, file, "a retried commit has its first outcome");
        assert_eq!(
            client
                .commit(lease, sums, client.request())
                .await
                .unwrap_err()
                .kind,
            ProblemKind::Denied
        );
        assert_eq!(
            client.begin("a/b/file.txt", false).await.unwrap_err().kind,
            ProblemKind::Exists
        );

        let (found, blocks) = client.lookup("a/b/file.txt").await.unwrap();
        assert_eq!((found.content_type.as_str(), found.blocks), ("text/plain", 2));
        assert_eq!(
            blocks
                .iter()
                .map(|block| block.replicas.len())
                .collect::<Vec<_>>(),
            [2, 2]
        );
        assert!(
            blocks
                .iter()
                .flat_map(|b| &b.replicas)
                .all(|replica| replica.live)
        );
        assert_eq!(
            client.list("/", true).await.unwrap(),
            ["/a", "/a/b", "/a/b/file.txt"]
        );
        client.rename("/a/b/file.txt", "/a/renamed").await.unwrap();
        assert_eq!(
            client.lookup("/a/b/file.txt").await.unwrap_err().kind,
            ProblemKind::NotFound
        );

        // A file that nobody has read: its blocks are deleted at once.
        client.upload(&servers, "/gone", &[b"x", b"y"]).await.unwrap();
        assert_eq!(client.remove("/gone", false).await.unwrap(), (2 - 1, 2));
        until("deletions reach the dataservers", async || {
            let all = nodes[..2].iter().all(|node| node.deleted.borrow().len() == 2);
            (all && client.status().await.unwrap().pending_deletes == 0).then_some(())
        })
        .await;
        let status = client.status().await.unwrap();
        assert_eq!(
            (status.files, status.directories, status.blocks, status.file_bytes),
            (1, 2, 2, 9)
        );
        assert_eq!(status.leases, 2);
        assert!(
            status
                .servers
                .iter()
                .all(|server| server.liveness == Liveness::Alive)
        );
        // The condemned version that has been read stays until its tickets have expired.
        assert_eq!(client.remove("/a/renamed", false).await.unwrap(), (1, 9));
        assert_eq!(client.blocks(found.version).await.unwrap().len(), 2);
        client.upload(&servers, "/kept", &[b"kept"]).await.unwrap();
        nodes
    });
    // Killed or stopped, once each: all is there.
    handle.stop().unwrap();
    for stop in [true, false] {
        let handle = serve(config(dir.path(), &secret));
        assert_eq!(handle.cluster(), cluster);
        run(async {
            let address = handle.address().to_string();
            let client = Client::connect(&address, &secret).await.unwrap();
            let status = client.status().await.unwrap();
            assert!(status.safe_mode, "the known servers are not there yet");
            // What the round before has removed may still be being read: it stays for a while.
            let condemned = 2 + u64::from(!stop);
            assert_eq!(
                (status.files, status.blocks, status.leases),
                (1, 1 + condemned, 2 + u64::from(!stop))
            );
            let (file, blocks) = client.lookup("/kept").await.unwrap();
            assert_eq!((file.size_bytes, file.crc32c), (4, crc(b"kept")));
            assert_eq!(blocks[0].replicas.len(), 2, "locations are durable");
            assert!(!blocks[0].replicas[0].live);
            let (lease, _) = client.begin("/early too", true).await.unwrap();
            let one = Server::join(&nodes[0], &address, &secret).await.unwrap();
            let problem = client.allocate(lease, 1, &[]).await.unwrap_err();
            assert!(
                problem.kind == ProblemKind::Retry && problem.message.contains("just started"),
                "a copy less, only because one server was quicker: {problem}"
            );
            let two = Server::join(&nodes[1], &address, &secret).await.unwrap();
            assert_eq!(client.allocate(lease, 1, &[]).await.unwrap()[0].chain.len(), 2);
            until("safe mode ends when all have come", async || {
                (!client.status().await.unwrap().safe_mode).then_some(())
            })
            .await;
            let name = format!("/after {stop}");
            let file = client.upload(&[&one, &two], &name, &[b"more"]).await.unwrap();
            assert_eq!(client.lookup(&name).await.unwrap().0, file);
            client.remove(&name, false).await.unwrap();
        });
        if stop {
            handle.stop().unwrap();
        } else {
            drop(handle);
        }
    }
}

#[test]
fn damage_loss_and_orphans_are_healed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let handle = serve(blockyard_nameserver::Config {
        orphan_age_ms: 300,
        ..config(dir.path(), &secret)
    });
    run(async {
        let address = handle.address().to_string();
        let client = Client::connect(&address, &secret).await.unwrap();
        let nodes = [1, 2, 3].map(|n| Node::new(n, &secret, handle.cluster()));
        let one = Server::join(&nodes[0], &address, &secret).await.unwrap();
        let two = Server::join(&nodes[1], &address, &secret).await.unwrap();
        client.upload(&[&one, &two], "/f", &[b"data"]).await.unwrap();
        let block = client.lookup("/f").await.unwrap().1[0].block;
        let holds = |n: usize| nodes[n].replicas.borrow().get(&block).copied();
        let healed = async || {
            let status = client.status().await.unwrap();
            (status.under_replicated_blocks + status.corrupt_replicas + status.pending_deletes == 0)
                .then_some(())
        };

        // A reader complains of a good replica: nothing happens. Of a rotten one: its only place is its own.
        client.report_bad(block, nodes[0].volume).await.unwrap();
        nodes[1].rotten.borrow_mut().push(block);
        client.report_bad(block, nodes[1].volume).await.unwrap();
        until("the rotten replica is deleted", async || {
            nodes[1].deleted.borrow().contains(&block).then_some(())
        })
        .await;
        until("and copied anew", async || holds(1)).await;
        until("the map says so", healed).await;
        assert!(
            nodes[0].deleted.borrow().is_empty(),
            "the good one was left alone"
        );
        let (_, blocks) = client.lookup("/f").await.unwrap();
        assert_eq!(blocks[0].replicas.len(), 2);

        // With another server the copy goes there first, and the damaged one only then.
        let three = Server::join(&nodes[2], &address, &secret).await.unwrap();
        nodes[0].rotten.borrow_mut().push(block);
        client.report_bad(block, nodes[0].volume).await.unwrap();
        until("a third server has it", async || holds(2)).await;
        until("the rotten replica is deleted", async || {
            nodes[0].deleted.borrow().contains(&block).then_some(())
        })
        .await;
        until("the map says so", healed).await;

        // A volume has lost a replica, has one that recovery can't vouch for, and one that nobody knows.
        client
            .upload(&[&one, &two, &three], "/g", &[b"more"])
            .await
            .unwrap();
        nodes[1].replicas.borrow_mut().remove(&block);
        until("the lost replica is back", async || {
            (holds(0).is_some() || holds(1).is_some()).then_some(())
        })
        .await;
        let suspect = *nodes[2].replicas.borrow().keys().next().unwrap();
        nodes[2].replicas.borrow_mut().get_mut(&suspect).unwrap().state = ReplicaState::Suspect;
        until("the suspect is settled", async || {
            (nodes[2].replicas.borrow()[&suspect].state == ReplicaState::Good).then_some(())
        })
        .await;
        let orphan = BlockId::new(0, 99).unwrap();
        let replica = Replica {
            block: orphan,
            length: 5,
            crc32c: 6,
            state: ReplicaState::Good,
        };
        nodes[1].replicas.borrow_mut().insert(orphan, replica);
        until("the orphan is deleted", async || {
            nodes[1].deleted.borrow().contains(&orphan).then_some(())
        })
        .await;
        until("all is well", healed).await;
        assert_eq!(client.status().await.unwrap().blocks, 2);
    });
}

#[test]
fn a_dead_server_is_replaced_and_its_surplus_trimmed_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let handle = serve(blockyard_nameserver::Config {
        suspect_ms: 500,
        dead_ms: 1_000,
        ..config(dir.path(), &secret)
    });
    run(async {
        let address = handle.address().to_string();
        let client = Client::connect(&address, &secret).await.unwrap();
        let nodes = [1, 2, 3].map(|n| Node::new(n, &secret, handle.cluster()));
        let one = Server::join(&nodes[0], &address, &secret).await.unwrap();
        let two = Server::join(&nodes[1], &address, &secret).await.unwrap();
        client.upload(&[&one, &two], "/f", &[b"data"]).await.unwrap();
        let block = client.lookup("/f").await.unwrap().1[0].block;
        let three = Server::join(&nodes[2], &address, &secret).await.unwrap();
        drop(two);
        until("a lost connection makes suspect", async || {
            let status = client.status().await.unwrap();
            status
                .servers
                .iter()
                .any(|server| server.liveness == Liveness::Suspect)
                .then_some(())
        })
        .await;
        until("then dead, and a third server gets a copy", async || {
            nodes[2].replicas.borrow().contains_key(&block).then_some(())
        })
        .await;
        until("and all are good again", async || {
            (client.status().await.unwrap().under_replicated_blocks == 0).then_some(())
        })
        .await;
        let (lease, _) = client.begin("/g", false).await.unwrap();
        let chain = client.allocate(lease, 1, &[]).await.unwrap().remove(0).chain;
        assert!(
            chain.iter().all(|hop| hop.volume != nodes[1].volume),
            "none is written to the dead"
        );
        let _two = Server::join(&nodes[1], &address, &secret).await.unwrap();
        until("one too many is trimmed", async || {
            let held = nodes
                .iter()
                .filter(|node| node.replicas.borrow().contains_key(&block))
                .count();
            (held == 2).then_some(())
        })
        .await;
        drop(three);
    });
}

#[test]
fn silent_uploads_expire_and_their_blocks_go() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let handle = serve(blockyard_nameserver::Config {
        lease_ms: 200,
        ..config(dir.path(), &secret)
    });
    run(async {
        let address = handle.address().to_string();
        let client = Client::connect(&address, &secret).await.unwrap();
        let node = Node::new(1, &secret, handle.cluster());
        let server = Server::join(&node, &address, &secret).await.unwrap();
        let (lease, version) = client.begin("/f", false).await.unwrap();
        let block = client.allocate(lease, 1, &[]).await.unwrap().remove(0);
        assert_eq!(
            block.chain.len(),
            1,
            "fewer volumes than wanted: what is possible"
        );
        let added = write(&[&server], &block, version, 0, b"x");
        client.add(lease, &[added]).await.unwrap();
        until("the block is deleted", async || {
            node.deleted.borrow().contains(&block.block).then_some(())
        })
        .await;
        let problem = client
            .commit(lease, (1, 1, crc(b"x")), client.request())
            .await
            .unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Denied);
        assert_eq!(client.status().await.unwrap().leases, 0);
    });
}

#[test]
fn a_commit_waits_for_live_replicas_and_avoided_volumes_are_avoided() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let handle = serve(config(dir.path(), &secret));
    run(async {
        let address = handle.address().to_string();
        let client = Client::connect(&address, &secret).await.unwrap();
        let nodes = [1, 2].map(|n| Node::new(n, &secret, handle.cluster()));
        let one = Server::join(&nodes[0], &address, &secret).await.unwrap();
        let two = Server::join(&nodes[1], &address, &secret).await.unwrap();
        let (lease, version) = client.begin("/f", false).await.unwrap();
        let block = client
            .allocate(lease, 1, &[nodes[1].volume])
            .await
            .unwrap()
            .remove(0);
        assert_eq!(block.chain.len(), 1);
        let problem = client
            .allocate(lease, 1, &[nodes[0].volume, nodes[1].volume])
            .await
            .unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Retry);
        nodes[1].refuses_copies.set(true);
        client
            .add(lease, &[write(&[&one, &two], &block, version, 0, b"x")])
            .await
            .unwrap();
        until("repair would help, but is refused", async || {
            (client.status().await.unwrap().under_replicated_blocks == 1).then_some(())
        })
        .await;
        drop(one);
        until("the only server is suspect", async || {
            let status = client.status().await.unwrap();
            status
                .servers
                .iter()
                .any(|server| server.liveness == Liveness::Suspect)
                .then_some(())
        })
        .await;
        let sums = (1, 1, crc(b"x"));
        let problem = client.commit(lease, sums, client.request()).await.unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Retry);
        assert!(problem.message.contains(&block.block.to_string()), "{problem}");
        let _one = Server::join(&nodes[0], &address, &secret).await.unwrap();
        let (file, degraded) = client.commit(lease, sums, client.request()).await.unwrap();
        assert!(file.size_bytes == 1 && degraded <= 1);
    });
}

#[test]
fn who_may_not_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let handle = serve(blockyard_nameserver::Config {
        connections_max: 3,
        ..config(dir.path(), &secret)
    });
    run(async {
        let address = handle.address().to_string();
        let wrong = Client::connect(&address, &ClusterSecret::generate()).await;
        assert_eq!(wrong.err().unwrap().kind, ProblemKind::Denied);
        let client = Client::connect(&address, &secret).await.unwrap();
        let node = Node::new(1, &secret, handle.cluster());
        let refused = Server::join_as(&node, "127.0.0.1:5", &address, &secret, Role::Client).await;
        assert_eq!(refused.err().unwrap().kind, ProblemKind::Denied);
        let _server = until("the refused connection has ended", async || {
            Server::join(&node, &address, &secret).await.ok()
        })
        .await;
        until("a twin is told why", async || {
            let twin = Server::join_as(&node, "127.0.0.1:6", &address, &secret, Role::Dataserver).await;
            (twin.err().unwrap().kind == ProblemKind::Exists).then_some(())
        })
        .await;
        for path in ["../x", "/a/..", "a\0b", "a\nb", &"n".repeat(5000)] {
            assert_eq!(
                client.begin(path, false).await.unwrap_err().kind,
                ProblemKind::Invalid,
                "{path:?}"
            );
            assert_eq!(
                client.mkdir(path, true).await.unwrap_err().kind,
                ProblemKind::Invalid,
                "{path:?}"
            );
        }
        let third = until("the twin's connection has ended", async || {
            Client::connect(&address, &secret).await.ok()
        })
        .await;
        assert!(
            Client::connect(&address, &secret).await.is_err(),
            "a fourth connection"
        );
        drop(third);
        // Garbage and a huge declared length: dropped, and the others are served on.
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for garbage in [vec![0xff; 4096], vec![0; 64]] {
            let closed = until("garbage is dropped", async || {
                let mut stream = tokio::net::TcpStream::connect(&address).await.ok()?;
                stream.write_all(&garbage).await.ok();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.ok().map(|_| ()).or(Some(()))
            });
            closed.await;
        }
        client.status().await.unwrap();
    });
}

/// What a power cut leaves is what the files hold at any moment: a copy of them must start.
#[test]
fn a_copy_of_the_files_at_any_moment_holds_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let small = |dir: &std::path::Path| blockyard_nameserver::Config {
        // A snapshot every few calls.
        journal_bytes_max: 4096,
        ..config(dir, &secret)
    };
    let handle = serve(small(dir.path()));
    run(async {
        let address = handle.address().to_string();
        let client = Client::connect(&address, &secret).await.unwrap();
        for round in 0..6 {
            for n in 0..40 {
                client.mkdir(&format!("/{round}/{n}"), true).await.unwrap();
            }
            let copy = tempfile::tempdir().unwrap();
            copy_folder(dir.path(), copy.path());
            let second = serve(small(copy.path()));
            let client = Client::connect(&second.address().to_string(), &secret)
                .await
                .unwrap();
            let found = client.list("/", true).await.unwrap().len();
            assert!(found >= (round + 1) * 41, "round {round}: {found}");
        }
    });
    let snapshots = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("snapshot-");
    let kept = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|e| snapshots(&e.as_ref().unwrap().file_name()))
        .count();
    assert_eq!(kept, 2, "snapshots were made, and the older ones went");
    handle.stop().unwrap();
}

#[test]
fn starts_that_can_not_be() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = |listen| blockyard_nameserver::Config {
        listen,
        ..config(dir.path(), &secret)
    };
    let error = start(at(taken.local_addr().unwrap()), |_| Box::pin(async {})).unwrap_err();
    assert!(matches!(error, Error::AddressTaken { .. }));
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(
        error.to_string().contains(&port) && error.to_string().contains("--listen"),
        "{error}"
    );
    let open = blockyard_nameserver::Config {
        secret: None,
        ..at("0.0.0.0:0".parse().unwrap())
    };
    assert!(
        start(open, |_| Box::pin(async {}))
            .unwrap_err()
            .to_string()
            .contains("--cluster-secret")
    );
    let none = blockyard_nameserver::Config {
        replication: 0,
        ..at("127.0.0.1:0".parse().unwrap())
    };
    assert!(matches!(
        start(none, |_| Box::pin(async {})),
        Err(Error::Invalid { .. })
    ));
    let handle = serve(config(dir.path(), &secret));
    let twin = start(config(dir.path(), &secret), |_| Box::pin(async {}));
    assert!(matches!(twin, Err(Error::Locked { .. })));
    handle.stop().unwrap();
}

#[test]
fn its_own_secret_is_kept_and_the_page_sees_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let own = || blockyard_nameserver::Config {
        secret: None,
        secret_for_user: false,
        ..config(dir.path(), &ClusterSecret::generate())
    };
    let first = serve(own());
    let secret = first.secret().clone();
    assert!(ClusterSecret::load(&dir.path().join("cluster.secret")).unwrap() == secret);
    first.stop().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let handle = start(own(), move |view| {
        Box::pin(async move {
            let status = view.status();
            let (entries, more) = view.list("/", "", "", 10, true).unwrap();
            tell.send((status.cluster.epoch.number, entries.len(), more))
                .unwrap();
            assert_eq!(
                view.lookup("/none", 0, 1).unwrap_err().kind,
                ProblemKind::NotFound
            );
            std::future::pending::<()>().await;
        })
    })
    .unwrap();
    assert_eq!(told.recv().unwrap(), (2, 0, false), "the second reign");
    run(async {
        let address = handle.address().to_string();
        let agreed = control::connect(&address, &secret, Role::Client, Some(handle.cluster()))
            .await
            .unwrap();
        assert_eq!(agreed.agreed.cluster, handle.cluster());
    });
    handle.stop().unwrap();
}
