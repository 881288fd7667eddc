//! What an operator does by hand: drain and remove, replication, pauses; and what looks over many files.

mod harness;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::{BLOCK, Cluster, wait_for};

#[test]
fn a_volume_is_drained_and_replaced_while_all_stays_readable() {
    let mut cluster = Cluster::start(3);
    let files: Vec<Vec<u8>> = (0..6)
        .map(|n| cluster.upload_random(&format!("file-{n}"), BLOCK / 2 + n))
        .collect();
    let volumes = cluster.json(&["volume", "list", "--json"]);
    let id = volumes[0]["id"].as_str().unwrap().to_owned();
    let refused = cluster.fails(2, &["volume", "remove", &id]);
    assert!(refused.contains("drain first"), "{refused}");

    cluster.ok(&["volume", "drain", &id[..12], "--wait"]);
    let status = cluster.wait_for_status("it is drained", |status| {
        let volumes = status["volumes"].as_array().unwrap();
        volumes
            .iter()
            .any(|volume| volume["id"] == id.as_str() && volume["state"] == "drained")
    });
    assert_eq!(status["under_replicated_blocks"], 0);
    assert!(cluster.ok(&["volume", "list"]).contains("drained"));
    cluster.ok(&["volume", "resume", &id]);
    let told = cluster.ok(&["volume", "replace", &id]);
    assert!(told.contains("its folder can go"), "{told}");
    let left = cluster.json(&["volume", "list", "--json"]);
    assert_eq!(left.as_array().unwrap().len(), 2);
    assert!(
        cluster
            .fails(3, &["volume", "drain", "no-such"])
            .contains("volume list")
    );

    // What is there is enough: the server can go, too.
    let server = (0..3).find(|at| volumes[0]["server"] == cluster.server_address(*at).as_str());
    cluster.kill_dataserver(server.unwrap());
    for (n, bytes) in files.iter().enumerate() {
        cluster.expect(&format!("/file-{n}"), bytes);
    }
    cluster.wait_for_status("nobody misses it", |status| {
        status["servers"].as_array().unwrap().len() == 2
    });
}

#[test]
fn a_server_is_drained_under_load_and_no_client_sees_it() {
    let mut cluster = Cluster::start(3);
    let (stay, moved) = (
        cluster.upload_random("stay", 3 * BLOCK),
        cluster.server_address(0),
    );
    cluster.random_file("small", 100_000);
    cluster.random_file("large", BLOCK + BLOCK / 2);
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = |name: &str| {
        // Each of these ends the test when it fails.
        while !done.load(Ordering::Relaxed) {
            let path = format!("/load/{name}");
            cluster.ok(&["upload", name, &path]);
            cluster.expect(&path, &std::fs::read(cluster.path(name)).unwrap());
            cluster.expect("/stay", &stay);
            cluster.ok(&["delete", &path, "--now"]);
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        // Also when something here fails: the load would go on for ever.
        let _done = Done(&done);
        let clients = ["small", "large"].map(|name| scope.spawn(move || load(name)));
        wait_for("there is load", || {
            (rounds.load(Ordering::Relaxed) >= 4).then_some(())
        });
        let refused = cluster.fails(2, &["node", "remove", &moved]);
        assert!(refused.contains("drain first"), "{refused}");
        cluster.ok(&["node", "drain", &moved, "--wait"]);
        cluster.wait_for_status("its volume holds nothing", |status| {
            let servers = status["servers"].as_array().unwrap();
            let server = servers.iter().find(|server| server["address"] == moved.as_str());
            server.unwrap()["volumes"][0]["replicas"] == 0
        });
        let seen = rounds.load(Ordering::Relaxed);
        wait_for("the load goes on", || {
            (rounds.load(Ordering::Relaxed) >= seen + 4).then_some(())
        });
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    cluster.ok(&["node", "remove", &moved]);
    cluster.kill_dataserver(0);
    cluster.expect("/stay", &stay);
    let status = cluster.json(&["status", "--json"]);
    assert_eq!(status["under_replicated_blocks"], 0, "{status}");
}

/// Ends the load when it is dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn servers_go_into_maintenance_and_come_back() {
    let cluster = Cluster::start(2);
    let server = cluster.server_address(0);
    let told = cluster.ok(&["node", "maintain", &server, "--for", "30m"]);
    assert!(told.contains("in maintenance until"), "{told}");
    assert!(cluster.ok(&["node", "list"]).contains("maintenance"));
    let bytes = cluster.upload_random("one", 1000);
    let info = cluster.json(&["info", "/one", "--json"]);
    assert_eq!(
        info["blocks"][0]["replicas"].as_array().unwrap().len(),
        1,
        "the other gets no new blocks"
    );
    cluster.ok(&["node", "resume", &server]);
    cluster.wait_for_status("it has both replicas", |status| {
        status["under_replicated_blocks"] == 0
    });
    cluster.expect("/one", &bytes);
    let nodes = cluster.json(&["node", "list", "--json"]);
    assert!(
        nodes
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["word"] == "alive")
    );
    let twice = cluster.ok(&["status", "--watch", "--times", "2", "--interval", "100ms"]);
    assert_eq!(twice.matches("healthy:").count(), 2, "{twice}");
    let top = cluster.ok(&["top", "--times", "2", "--interval", "100ms"]);
    assert!(top.contains("FLUSH/S") && top.contains("volumes write"), "{top}");
    cluster.fails(3, &["node", "drain", "10.9.9.9:1"]);
    cluster.fails(2, &["node", "maintain", &server, "--for", "soon"]);
}

#[test]
fn a_dead_server_is_made_up_for_after_the_time_that_was_set() {
    let mut cluster = Cluster::empty();
    cluster.nameserver_flags = ["--suspect", "2s", "--dead", "4s", "--outage", "40"]
        .map(str::to_owned)
        .to_vec();
    cluster.start_nameserver();
    for at in 0..3 {
        cluster.dataservers.push(None);
        cluster.start_dataserver(at);
    }
    cluster.wait_for_servers(3);
    let files: Vec<Vec<u8>> = (0..8)
        .map(|n| cluster.upload_random(&format!("file-{n}"), 70_000 + n))
        .collect();
    let server = cluster.server_address(0);
    let volumes = cluster.json(&["volume", "list", "--json"]);
    let mut volumes = volumes.as_array().unwrap().iter();
    let lost = volumes
        .find(|volume| volume["server"] == server.as_str())
        .unwrap()["blocks"]
        .clone();
    cluster.kill_dataserver(0);
    cluster.wait_for_status("what it had is elsewhere", |status| {
        status["repair"]["copied"]["blocks"] == lost && status["under_replicated_blocks"] == 0
    });
    cluster.kill_dataserver(1);
    let status = cluster.wait_for_status("two of three are too many at once", |status| {
        !status["repair"]["held"].as_str().unwrap().is_empty()
    });
    assert!(
        status["repair"]["held"].as_str().unwrap().contains("--force"),
        "{status}"
    );
    for (n, bytes) in files.iter().enumerate() {
        cluster.expect(&format!("/file-{n}"), bytes);
    }
    cluster.fails(2, &["nameserver", "--dead", "soon"]);
}

#[test]
fn replication_repair_and_balance_are_set_by_hand() {
    let mut cluster = Cluster::start(3);
    cluster.ok(&["mkdir", "-p", "/d"]);
    cluster.upload_random("a", 5000);
    cluster.ok(&["mv", "/a", "/d/a"]);
    assert!(
        cluster
            .ok(&["setrep", "3", "-r", "/d", "--wait"])
            .contains("3 copies of each block of 1 file")
    );
    let copies = |cluster: &Cluster| {
        let info = cluster.json(&["info", "/d/a", "--json"]);
        info["blocks"][0]["replicas"].as_array().unwrap().len()
    };
    cluster.wait_for_status("three copies", |_| copies(&cluster) == 3);
    cluster.fails(2, &["setrep", "2", "/d"]);
    cluster.fails(2, &["setrep", "9", "/d/a"]);

    cluster.ok(&["repair", "pause"]);
    cluster.ok(&["repair", "pace", "10MiB"]);
    cluster.ok(&["balance", "off"]);
    // Kept over restarts.
    cluster.kill_everything();
    cluster.start_nameserver();
    (0..3).for_each(|at| cluster.start_dataserver(at));
    cluster.wait_for_servers(3);
    let status = cluster.json(&["repair", "status", "--json"]);
    assert_eq!(status["tuning"]["repair_paused"], true);
    assert_eq!(status["tuning"]["repair_bytes_per_s"], 10 << 20);
    assert!(
        cluster
            .ok(&["repair", "status"])
            .contains("paused by the operator")
    );
    assert!(cluster.ok(&["balance", "status"]).contains("balance is off"));
    cluster.ok(&["repair", "resume"]);
    cluster.ok(&["repair", "pace", "0"]);
    cluster.ok(&["balance", "on"]);
    assert!(cluster.ok(&["repair", "status"]).contains("nothing to repair"));
}

#[test]
fn many_files_are_looked_over() {
    let cluster = Cluster::start(2);
    cluster.ok(&["mkdir", "-p", "/logs/old", "/empty"]);
    for (name, length) in [("a.log", 100), ("b.txt", 3000)] {
        cluster.upload_random(name, length);
        cluster.ok(&["mv", &format!("/{name}"), "/logs/"]);
    }
    cluster.upload_random("c.log", 7);
    cluster.ok(&["mv", "/c.log", "/logs/old/"]);
    assert_eq!(
        cluster.ok(&["find", "/", "--name", "*.log"]),
        "/logs/a.log\n/logs/old/c.log\n"
    );
    assert_eq!(cluster.ok(&["find", "/logs", "--size", "+1KiB"]), "/logs/b.txt\n");
    assert_eq!(
        cluster.ok(&["find", "/", "--type", "d", "--name", "o*", "--print0"]),
        "/logs/old\0"
    );
    assert_eq!(cluster.ok(&["find", "/", "--older", "1d"]), "");
    let sums = cluster.json(&["du", "/", "--json"]);
    let sums: Vec<_> = sums
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            (
                s["path"].as_str().unwrap(),
                s["bytes"].as_u64().unwrap(),
                s["files"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(sums, [("/empty", 0, 0), ("/logs", 3107, 3), ("/", 3107, 3)]);
    let tree = cluster.ok(&["tree", "/"]);
    assert!(
        tree.contains("└── logs/\n    ├── a.log\n    ├── b.txt\n    └── old/\n        └── c.log\n"),
        "{tree}"
    );
    let block = cluster.json(&["info", "/logs/a.log", "--json"])["blocks"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(cluster.ok(&["locate", &block]).contains("/logs/a.log"));
    cluster.fails(3, &["locate", "00000000000000ff"]);
}

#[test]
fn what_was_deleted_comes_back_from_the_trash() {
    let cluster = Cluster::start(2);
    let first = cluster.upload_random("file", 3000);
    assert!(cluster.ok(&["rm", "/file"]).contains("trash"));
    cluster.fails(3, &["stat", "/file"]);
    let second = cluster.upload_random("file", 4000);
    cluster.fails(4, &["trash", "restore", "/file"]);
    cluster.ok(&["trash", "restore", "/file", "--to", "/old/file"]);
    cluster.expect("/old/file", &first);
    cluster.expect("/file", &second);
    cluster.ok(&["rm", "-r", "/old"]);
    cluster.ok(&["rm", "/file"]);
    let list = cluster.json(&["trash", "list", "--json"]);
    let paths: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["path"].as_str().unwrap())
        .collect();
    assert_eq!((paths.len(), paths.contains(&"/old")), (2, true), "{paths:?}");
    assert!(cluster.ok(&["trash", "ls"]).contains("2 files, 6.8 KiB"));
    assert!(cluster.ok(&["status"]).contains("trash      2 files"));
    cluster.ok(&["trash", "restore", &list[0]["number"].to_string()]);
    assert!(
        cluster
            .ok(&["trash", "empty", "--older", "1h"])
            .contains("0 files")
    );
    assert!(cluster.ok(&["trash", "empty"]).contains("1 file"));
    cluster.fails(3, &["trash", "restore", "/gone"]);
    cluster.ok(&["rm", "--now", "/file"]);
    assert_eq!(
        cluster
            .json(&["trash", "list", "--json"])
            .as_array()
            .unwrap()
            .len(),
        0
    );
}
