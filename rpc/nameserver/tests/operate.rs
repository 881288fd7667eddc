//! What an operator asks for, and how repair and balance follow: drain, maintenance, removal, pauses, outages, zones.

mod support;

use std::collections::BTreeSet;
use std::rc::Rc;

use blockyard_nameserver::Config;
use blockyard_wire::ProblemKind;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{BlockId, Duty, Liveness, Tuning, VolumeId};

use support::{Client, Node, Server, config, run, serve, until};

/// A nameserver, a client, and dataservers of one volume each.
struct Cluster {
    handle: Option<blockyard_nameserver::Handle>,
    secret: ClusterSecret,
    address: String,
    client: Client,
    nodes: Vec<Rc<Node>>,
    servers: Vec<Option<Server>>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start(count: u8, zone: impl Fn(u8) -> &'static str, times: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secret = ClusterSecret::generate();
        let mut config = config(dir.path(), &secret);
        times(&mut config);
        let handle = serve(config);
        let address = handle.address().to_string();
        let mut cluster = Self {
            client: Client::connect(&address, &secret).await.unwrap(),
            handle: Some(handle),
            secret,
            address,
            nodes: Vec::new(),
            servers: Vec::new(),
            _dir: dir,
        };
        for number in 1..=count {
            cluster.add(zone(number), |_| {}).await;
        }
        cluster
    }

    /// One more dataserver.
    async fn add(&mut self, zone: &str, change: impl FnOnce(&Node)) {
        let number = self.nodes.len() as u8 + 1;
        let node = Node::new(number, &self.secret, self.handle.as_ref().unwrap().cluster());
        zone.clone_into(&mut node.zone.borrow_mut());
        change(&node);
        let server = Server::join(&node, &self.address, &self.secret).await.unwrap();
        self.nodes.push(node);
        self.servers.push(Some(server));
    }

    fn id(&self, at: usize) -> VolumeId {
        self.nodes[at].volume
    }

    /// Uploads a file of so many blocks.
    async fn upload(&self, path: &str, blocks: usize) -> Vec<BlockId> {
        let servers: Vec<&Server> = self.servers.iter().flatten().collect();
        let parts: Vec<Vec<u8>> = (0..blocks).map(|n| format!("{path} {n}").into_bytes()).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        self.client.upload(&servers, path, &parts).await.unwrap();
        let (_, blocks) = self.client.lookup(path).await.unwrap();
        blocks.iter().map(|block| block.block).collect()
    }

    /// The nodes that hold a block.
    fn holders(&self, block: BlockId) -> Vec<usize> {
        let holds = |at: &usize| self.nodes[*at].replicas.borrow().contains_key(&block);
        (0..self.nodes.len()).filter(holds).collect()
    }

    async fn rejoin(&mut self, at: usize) -> blockyard_wire::Result<()> {
        self.servers[at] = None;
        self.servers[at] = Some(Server::join(&self.nodes[at], &self.address, &self.secret).await?);
        Ok(())
    }
}

/// Times after which a silent server is dead that a test can wait for.
fn impatient(config: &mut Config) {
    (config.suspect_ms, config.dead_ms) = (500, 1_000);
}

fn patient(_: &mut Config) {}

#[test]
fn a_drained_volume_holds_nothing_and_can_go() {
    run(async {
        let mut cluster = Cluster::start(3, |_| "z", patient).await;
        let blocks = cluster.upload("/f", 12).await;
        let id = cluster.id(0);
        let client = &cluster.client;
        let refused = client.assign(&[id], Duty::Removed, false).await.unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Invalid);
        assert!(refused.message.contains("drain first"), "{refused}");
        client.assign(&[id], Duty::Draining, false).await.unwrap();
        until("the volume is drained", async || {
            client.volume(id).await.filter(|volume| volume.is_drained())
        })
        .await;
        assert!(cluster.nodes[0].replicas.borrow().is_empty());
        for block in &blocks {
            assert_eq!(
                cluster.holders(*block),
                [1, 2],
                "every block has two replicas elsewhere"
            );
        }
        let more = cluster.upload("/g", 4).await;
        assert!(
            more.iter().all(|block| cluster.holders(*block) == [1, 2]),
            "no new blocks either"
        );
        client.assign(&[id], Duty::Removed, false).await.unwrap();
        assert!(client.volume(id).await.is_none());
        let refused = cluster.rejoin(0).await.unwrap_err();
        assert!(
            refused.message.contains("was removed") && refused.message.contains("resume"),
            "{refused}"
        );
        cluster.client.assign(&[id], Duty::Serving, false).await.unwrap();
        cluster.rejoin(0).await.unwrap();
        assert_eq!(cluster.client.volume(id).await.unwrap().duty, Duty::Serving);
    });
}

#[test]
fn the_last_replica_is_only_removed_by_force() {
    run(async {
        let mut cluster = Cluster::start(1, |_| "z", impatient).await;
        cluster.upload("/f", 3).await;
        let id = cluster.id(0);
        cluster.servers[0] = None;
        let client = &cluster.client;
        until("the server is dead", async || {
            (client.status().await.unwrap().missing_blocks == 3).then_some(())
        })
        .await;
        let refused = client.assign(&[id], Duty::Removed, false).await.unwrap_err();
        assert!(
            refused
                .message
                .contains("3 blocks have no good replica elsewhere"),
            "{refused}"
        );
        client.assign(&[id], Duty::Removed, true).await.unwrap();
        until("its replicas are off the map", async || {
            client
                .lookup("/f")
                .await
                .unwrap()
                .1
                .iter()
                .all(|block| block.replicas.is_empty())
                .then_some(())
        })
        .await;
    });
}

#[test]
fn maintenance_keeps_repair_away_and_ends_by_itself() {
    run(async {
        let mut cluster = Cluster::start(4, |_| "z", impatient).await;
        let blocks = cluster.upload("/f", 24).await;
        let (away, dead) = (cluster.id(0), cluster.id(1));
        let until_unix_ms = blockyard_wire::ticket::now_unix_ms() + 3_600_000;
        let duty = Duty::Maintenance { until_unix_ms };
        cluster.client.assign(&[away], duty, false).await.unwrap();
        let on_away: Vec<_> = blocks
            .iter()
            .filter(|block| cluster.holders(**block).contains(&0))
            .collect();
        let others_of: Vec<_> = on_away.iter().map(|block| cluster.holders(**block)).collect();
        assert!(on_away.len() > 2, "{}", on_away.len());
        // One with leave and one without go at once.
        cluster.servers[0] = None;
        cluster.servers[1] = None;
        let client = &cluster.client;
        let both = blocks
            .iter()
            .filter(|block| cluster.holders(**block) == [0, 1])
            .count() as u64;
        until("what the dead one had is repaired", async || {
            let status = client.status().await.unwrap();
            let dead = client.volume(dead).await?;
            let gone = dead.liveness == Liveness::Dead;
            // Blocks on these two alone can neither be read nor copied, which is told.
            (gone && status.under_replicated_blocks == 0 && status.missing_blocks == both).then_some(())
        })
        .await;
        for (block, before) in on_away.iter().zip(&others_of) {
            if !before.contains(&1) {
                assert_eq!(
                    &cluster.holders(**block),
                    before,
                    "nothing was copied for the one in maintenance"
                );
            }
        }
        let over = Duty::Maintenance {
            until_unix_ms: blockyard_wire::ticket::now_unix_ms(),
        };
        client.assign(&[away], over, false).await.unwrap();
        until("after it, its blocks are repaired too", async || {
            let mut readable = on_away
                .iter()
                .zip(&others_of)
                .filter(|(_, before)| !before.contains(&1));
            readable
                .all(|(block, _)| cluster.holders(**block).len() > 2)
                .then_some(())
        })
        .await;
    });
}

#[test]
fn a_mass_outage_holds_repair_until_told_otherwise() {
    run(async {
        let mut cluster = Cluster::start(5, |_| "z", impatient).await;
        let blocks = cluster.upload("/f", 40).await;
        for at in 0..3 {
            cluster.servers[at] = None;
        }
        let client = &cluster.client;
        let status = until("repair is held", async || {
            let status = client.status().await.unwrap();
            (status.under_replicated_blocks > 0 && !status.repair.held.is_empty()).then_some(status)
        })
        .await;
        assert!(
            status.repair.held.contains("60%") && status.repair.held.contains("--force"),
            "{}",
            status.repair.held
        );
        let one_left: Vec<_> = blocks
            .iter()
            .filter(|block| {
                let holders = cluster.holders(**block);
                holders.contains(&3) != holders.contains(&4)
            })
            .collect();
        assert!(!one_left.is_empty());
        let forced = Tuning {
            repair_forced: true,
            ..Tuning::default()
        };
        client.tune(forced).await.unwrap();
        until("repair goes on without them", async || {
            let all = one_left.iter().all(|block| {
                let holders = cluster.holders(**block);
                holders.contains(&3) && holders.contains(&4)
            });
            all.then_some(())
        })
        .await;
    });
}

#[test]
fn a_lost_replica_keeps_no_place_for_others() {
    run(async {
        let zone = |number| if number == 1 { "a" } else { "b" };
        let mut cluster = Cluster::start(3, zone, impatient).await;
        let blocks = cluster.upload("/f", 20).await;
        cluster.servers[0] = None;
        let both = |cluster: &Cluster, nodes: [usize; 2]| {
            let holds = |block: &BlockId| nodes.iter().all(|node| cluster.holders(*block).contains(node));
            blocks.iter().all(holds).then_some(())
        };
        until("they are where they can be", async || both(&cluster, [1, 2])).await;
        // The lost one was in this zone too, and is still on the map.
        cluster.add("a", |_| {}).await;
        until("each is in both zones", async || {
            let spread = |block: &BlockId| cluster.holders(*block).contains(&3);
            blocks.iter().all(spread).then_some(())
        })
        .await;
    });
}

#[test]
fn volumes_that_are_lost_one_by_one_are_no_outage() {
    run(async {
        let mut cluster = Cluster::start(6, |_| "z", impatient).await;
        let blocks = cluster.upload("/f", 40).await;
        for at in 0..4 {
            cluster.servers[at] = None;
            until("its loss is made good", async || {
                let status = cluster.client.status().await.unwrap();
                assert!(status.repair.held.is_empty(), "{}", status.repair.held);
                let left: Vec<usize> = (at + 1..6).collect();
                let whole = |block: &BlockId| {
                    let holders = cluster.holders(*block);
                    left.iter().filter(|node| holders.contains(node)).count() >= 2
                };
                (blocks.iter().all(whole) && status.under_replicated_blocks == 0).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn what_has_one_replica_left_comes_first_however_much_else_there_is() {
    run(async {
        let mut cluster = Cluster::start(5, |_| "z", impatient).await;
        let paused = Tuning {
            repair_paused: true,
            ..Tuning::default()
        };
        cluster.client.tune(paused).await.unwrap();
        let mut blocks = Vec::new();
        for n in 0..8 {
            let path = format!("/{n}");
            blocks.extend(cluster.upload(&path, 250).await);
            // Half of them are to have one more.
            if n % 2 == 0 {
                cluster.client.set_replication(&path, false, 3).await.unwrap();
            }
        }
        let one_left: BTreeSet<BlockId> = blocks
            .into_iter()
            .filter(|block| cluster.holders(*block).contains(&4))
            .collect();
        cluster.servers[4] = None;
        until("they are known to have one left", async || {
            let repair = cluster.client.status().await.unwrap().repair;
            (repair.one_left.blocks == one_left.len() as u64).then_some(())
        })
        .await;
        cluster.client.tune(Tuning::default()).await.unwrap();
        until("all have what they are to have", async || {
            let status = cluster.client.status().await.unwrap();
            (status.under_replicated_blocks == 0).then_some(())
        })
        .await;
        let mut copies: Vec<(u64, BlockId)> = Vec::new();
        for node in &cluster.nodes {
            copies.extend(node.copied.borrow().iter());
        }
        copies.sort_unstable();
        // Where the only source has no room just then, another block may go ahead.
        let first = &copies[..one_left.len()];
        let urgent = first.iter().filter(|(_, block)| one_left.contains(block)).count();
        assert!(
            urgent * 10 >= first.len() * 9,
            "{urgent} of the first {}",
            first.len()
        );
    });
}

#[test]
fn a_pause_holds_and_is_told() {
    run(async {
        let mut cluster = Cluster::start(3, |_| "z", impatient).await;
        cluster.upload("/f", 10).await;
        let paused = Tuning {
            repair_paused: true,
            ..Tuning::default()
        };
        cluster.client.tune(paused).await.unwrap();
        cluster.servers[0] = None;
        let client = &cluster.client;
        let status = until("blocks wait", async || {
            let status = client.status().await.unwrap();
            (status.under_replicated_blocks > 0).then_some(status)
        })
        .await;
        assert!(
            status.repair.held.contains("repair resume"),
            "{}",
            status.repair.held
        );
        assert_eq!(status.repair.copied.blocks, 0);
        assert_eq!(status.repair.one_left.blocks, status.under_replicated_blocks);
        client.tune(Tuning::default()).await.unwrap();
        let status = until("repair goes on", async || {
            let status = client.status().await.unwrap();
            (status.under_replicated_blocks == 0).then_some(status)
        })
        .await;
        assert!(status.repair.copied.blocks > 0 && status.repair.held.is_empty());
    });
}

#[test]
fn a_new_zone_takes_one_replica_of_each_block() {
    run(async {
        let mut cluster = Cluster::start(2, |_| "here", patient).await;
        let blocks = cluster.upload("/f", 10).await;
        assert!(blocks.iter().all(|block| cluster.holders(*block) == [0, 1]));
        cluster.add("there", |_| {}).await;
        until(
            "each block has a replica there, and one too many has gone",
            async || {
                let spread = |block: &BlockId| {
                    let holders = cluster.holders(*block);
                    holders.len() == 2 && holders.contains(&2)
                };
                blocks.iter().all(spread).then_some(())
            },
        )
        .await;
        let status = until("nothing is left to do", async || {
            let status = cluster.client.status().await.unwrap();
            (status.repair.misplaced.blocks == 0 && status.pending_deletes == 0).then_some(status)
        })
        .await;
        assert_eq!(status.under_replicated_blocks, 0);
    });
}

#[test]
fn a_new_volume_is_filled_by_the_full_ones_until_all_are_even() {
    const CAPACITY: u64 = 1 << 30;
    run(async {
        let sized = |node: &Node| {
            node.capacity_bytes.set(CAPACITY);
            node.replica_bytes.set(CAPACITY / 100);
        };
        let mut cluster = Cluster::start(2, |_| "z", patient).await;
        cluster.nodes.iter().for_each(|node| sized(node));
        let blocks = cluster.upload("/f", 60).await;
        let off = Tuning {
            balance_off: true,
            ..Tuning::default()
        };
        cluster.client.tune(off).await.unwrap();
        cluster.add("z", sized).await;
        cluster.client.tune(Tuning::default()).await.unwrap();
        let held = |at: usize| cluster.nodes[at].replicas.borrow().len();
        until("volumes are even", async || {
            // One copy may be there before the one it replaces has gone.
            assert!(
                held(0) <= 60 && held(1) <= 60,
                "the fullest got fuller: {} {}",
                held(0),
                held(1)
            );
            let status = cluster.client.status().await.unwrap();
            let calm = status.repairing == 0 && status.pending_deletes == 0;
            let even = (0..3).all(|at| (32..=48).contains(&held(at)));
            (calm && even).then_some(())
        })
        .await;
        for block in blocks {
            assert_eq!(cluster.holders(block).len(), 2);
        }
        assert!(cluster.client.status().await.unwrap().repair.balanced.blocks >= 30);
    });
}

#[test]
fn another_number_of_replicas_is_made_or_trimmed() {
    run(async {
        let cluster = Cluster::start(4, |_| "z", patient).await;
        let client = &cluster.client;
        client.mkdir("/d", true).await.unwrap();
        let (more, fewer) = (
            cluster.upload("/d/more", 5).await,
            cluster.upload("/d/fewer", 5).await,
        );
        assert_eq!(client.set_replication("/d/more", false, 4).await.unwrap(), 1);
        assert_eq!(client.set_replication("/d/fewer", false, 1).await.unwrap(), 1);
        until("four of one, one of the other", async || {
            let count =
                |blocks: &[BlockId], wanted| blocks.iter().all(|b| cluster.holders(*b).len() == wanted);
            (count(&more, 4) && count(&fewer, 1)).then_some(())
        })
        .await;
        assert_eq!(client.lookup("/d/more").await.unwrap().0.replication, 4);
        let kind = |path, recursive, replication| async move {
            client
                .set_replication(path, recursive, replication)
                .await
                .unwrap_err()
                .kind
        };
        assert_eq!(kind("/d", false, 2).await, ProblemKind::Invalid);
        assert_eq!(kind("/d", true, 9).await, ProblemKind::Invalid);
        assert_eq!(kind("/none", true, 2).await, ProblemKind::NotFound);
        assert_eq!(client.set_replication("/", true, 2).await.unwrap(), 2);
    });
}

#[test]
fn an_old_image_of_a_volume_is_noticed() {
    run(async {
        let mut cluster = Cluster::start(2, |_| "z", patient).await;
        cluster.nodes[0].generation.set(7);
        cluster.rejoin(0).await.unwrap();
        let id = cluster.id(0);
        assert_eq!(cluster.client.volume(id).await.unwrap().suspicion, "");
        cluster.nodes[0].generation.set(3);
        cluster.rejoin(0).await.unwrap();
        let told = cluster.client.volume(id).await.unwrap().suspicion;
        assert!(told.contains("3 times") && told.contains("7 times"), "{told}");
        cluster.nodes[0].generation.set(8);
        cluster.rejoin(0).await.unwrap();
        assert_eq!(cluster.client.volume(id).await.unwrap().suspicion, "");
    });
}
