//! The nameserver's own data with real processes: backup and restore, a mirror, no room, and fsck.

mod harness;

use std::fs;
use std::os::unix::fs::FileExt as _;

use harness::{BLOCK, Cluster, text, wait_for};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

/// Lets the nameserver write files of at most so many bytes.
fn limit_files(cluster: &Cluster, bytes: Option<u64>) {
    let pid = Pid::from_raw(cluster.nameserver.as_ref().unwrap().pid() as i32);
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

#[test]
fn without_room_nothing_is_changed_all_is_read_and_it_heals() {
    let cluster = Cluster::start(2);
    let bytes = cluster.upload_random("file", 3 * BLOCK / 2);
    // A limit on the size of files is as good as a full disk: nothing can be written behind the first pages.
    limit_files(&cluster, Some(4096));
    let message = cluster.fails(1, &["mkdir", "/new"]);
    assert!(
        message.contains("read-only") && message.contains("no room"),
        "{message}"
    );
    let status = cluster.wait_for_status("it says so", |status| status["read_only"] != "");
    assert_eq!(status["health"], "failing");
    let shown = cluster.ok(&["status"]);
    assert!(shown.contains("the nameserver is read-only"), "{shown}");
    cluster.expect("/file", &bytes);
    cluster.ok(&["ls", "/"]);
    cluster.fails(1, &["upload", "file", "/another"]);
    cluster.fails(3, &["stat", "/another"]);
    limit_files(&cluster, None);
    // By itself: nobody has to try.
    cluster.wait_for_status("it heals", |status| status["read_only"] == "");
    cluster.ok(&["mkdir", "/new"]);
    cluster.ok(&["upload", "file", "/another"]);
    cluster.expect("/another", &bytes);
}

#[test]
fn a_start_without_room_reads_and_begins_its_reign_later() {
    let mut cluster = Cluster::start(2);
    let bytes = cluster.upload_random("file", BLOCK + 1);
    cluster.nameserver = None;
    // Less than a file of the journal.
    cluster.nameserver_file_kib = Some(1024);
    cluster.start_nameserver();
    let status = cluster.wait_for_status("it says so", |status| status["read_only"] != "");
    assert_eq!(status["epoch"], 1, "it reigns no longer, and not yet again");
    cluster.wait_for_servers(2);
    cluster.expect("/file", &bytes);
    for args in [
        &["mkdir", "/new"][..],
        &["upload", "file", "/other"],
        &["rm", "/file"],
    ] {
        let message = cluster.fails(1, args);
        assert!(message.contains("read-only"), "{message}");
    }
    limit_files(&cluster, None);
    let status = cluster.wait_for_status("it heals", |status| status["read_only"] == "");
    assert_eq!(status["epoch"], 2);
    cluster.ok(&["upload", "file", "/other"]);
    cluster.expect("/other", &bytes);
    cluster.nameserver_file_kib = None;
    cluster.nameserver.take().unwrap().kill();
    cluster.start_nameserver();
    cluster.wait_for_servers(2);
    cluster.expect("/other", &bytes);
    fsck(&cluster, 0, &["--repair"]);
}

#[test]
fn a_backup_is_restored_and_takes_the_cluster_over() {
    let mut cluster = Cluster::start(2);
    let before = cluster.upload_random("before", BLOCK + 5);
    let said = cluster.json(&["backup", "copies/monday", "--json"]);
    assert_eq!(said["files"], 1);
    assert_eq!(cluster.local_names("copies"), ["monday"]);
    let message = cluster.fails(4, &["backup", "copies/monday"]);
    assert!(message.contains("is there already"), "{message}");
    let message = cluster.fails(2, &["restore", "copies/monday", "--dir", "nameserver-data"]);
    assert!(message.contains("holds a nameserver's data"), "{message}");

    cluster.upload_random("after", 100_000);
    cluster.nameserver = None;
    cluster.start_nameserver();
    cluster.wait_for_servers(2);
    cluster.upload_random("later", 1000);
    cluster.nameserver = None;
    fs::rename(cluster.path("nameserver-data"), cluster.path("lost")).unwrap();
    cluster.ok(&["restore", "copies/monday", "--dir", "nameserver-data"]);

    // It knows less than its volumes: it says so, and serves nothing.
    cluster.start_nameserver();
    let message = wait_for("it names a volume and both epochs", || {
        let output = cluster.run(&["ls", "/"]);
        let said = text(&output);
        (output.status.code() == Some(5) && said.contains("has seen epoch 2") && said.contains("epoch 1"))
            .then_some(said)
    });
    assert!(message.contains("--adopt"), "{message}");

    cluster.nameserver = None;
    cluster.nameserver_flags = vec!["--adopt".into()];
    cluster.start_nameserver();
    cluster.wait_for_servers(2);
    cluster.expect("/before", &before);
    cluster.fails(3, &["stat", "/after"]);
    let status = cluster.json(&["status", "--json"]);
    assert_eq!(status["epoch"], 3);
    // What came after the backup is kept, and told of.
    let report = fsck(&cluster, 1, &[]);
    assert_eq!(report["quarantined"]["count"], 4, "{report}");
    assert_eq!(report["missing"]["count"], 0);
    assert!(cluster.ok(&["status"]).contains("quarantine 4 replicas"));
    cluster.nameserver = None;
    cluster.nameserver_flags.clear();
    cluster.start_nameserver();
    cluster.wait_for_servers(2);
    assert_eq!(
        fsck(&cluster, 1, &[])["quarantined"]["count"],
        4,
        "after a restart, too"
    );
    let report = fsck(&cluster, 0, &["--release-quarantine"]);
    assert_eq!(report["orphaned"]["count"], 4, "{report}");
    cluster.upload_random("new", 1000);
    cluster.expect("/before", &before);
}

/// `fsck --json` with an exit code.
#[track_caller]
fn fsck(cluster: &Cluster, code: i32, flags: &[&str]) -> Value {
    let output = cluster.run(&[&["fsck", "--json"], flags].concat());
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn fsck_finds_what_is_wrong_and_waits_for_repair() {
    let mut cluster = Cluster::start(3);
    let bytes = cluster.upload_random("file", 2 * BLOCK);
    let report = fsck(&cluster, 0, &[]);
    assert_eq!(
        (report["files"].as_u64(), report["blocks"].as_u64()),
        (Some(1), Some(2))
    );
    assert_eq!(report["volumes_compared"], 3);
    assert!(cluster.ok(&["fsck"]).contains("all is in order"));

    // A server is gone, and is not dead yet.
    let held = cluster.json(&["status", "--json"]);
    let holder = held["servers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|server| server["volumes"][0]["blocks"] != 0)
        .unwrap()["address"]
        .clone();
    let at = (0..3)
        .find(|at| cluster.server_address(*at) == *holder.as_str().unwrap())
        .unwrap();
    cluster.kill_dataserver(at);
    let report = wait_for("it is missed", || {
        let report = cluster.run(&["fsck", "--json"]);
        let report: Value = serde_json::from_slice(&report.stdout).ok()?;
        (report["under_replicated"]["count"] != 0).then_some(report)
    });
    assert_eq!(report["healthy"], false);
    assert_eq!(report["under_replicated"]["list"][0]["path"], "/file");
    cluster.start_dataserver(at);
    cluster.wait_for_servers(3);
    fsck(&cluster, 0, &["--repair"]);

    // Rotten bytes on a disk: a scrub or reader finds them, repair makes them good.
    cluster.kill_dataserver(at);
    let segments = cluster.volume_dir(at).join("segments");
    for segment in fs::read_dir(segments).unwrap() {
        let path = segment.unwrap().path();
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        // Within the data of every slot of the largest class.
        let slot = BLOCK as u64 + 4096;
        for slot_at in (4096..length.saturating_sub(slot) + 1).step_by(slot as usize) {
            file.write_all_at(&[0x55; 512], slot_at + 4096 + 100_000).unwrap();
        }
    }
    cluster.start_dataserver(at);
    cluster.wait_for_servers(3);
    wait_for("a reader has found it", || {
        cluster.expect("/file", &bytes);
        let status = cluster.json(&["status", "--json"]);
        (status["corrupt_replicas"] != 0 || status["under_replicated_blocks"] != 0).then_some(())
    });
    let report = fsck(&cluster, 0, &["--repair"]);
    assert_eq!(report["damaged"]["count"], 0);
    cluster.expect("/file", &bytes);
}

#[test]
fn either_folder_of_two_is_enough() {
    let mut cluster = Cluster::empty();
    cluster.nameserver_flags = vec![
        "--mirror".into(),
        "second".into(),
        "--snapshots".into(),
        "3".into(),
    ];
    cluster.start_nameserver();
    cluster.dataservers.push(None);
    cluster.start_dataserver(0);
    cluster.wait_for_servers(1);
    cluster.random_file("file", 50_000);
    cluster.ok(&["upload", "file", "/file", "--replication", "1"]);
    // The disk of the first folder is lost with the machine's power, and replaced.
    cluster.nameserver.take().unwrap().kill();
    fs::remove_dir_all(cluster.path("nameserver-data")).unwrap();
    cluster.start_nameserver();
    cluster.wait_for_servers(1);
    cluster.expect("/file", &fs::read(cluster.path("file")).unwrap());
    cluster.ok(&["mkdir", "/more"]);
    // Then that of the second.
    cluster.nameserver.take().unwrap().kill();
    fs::remove_dir_all(cluster.path("second")).unwrap();
    cluster.start_nameserver();
    cluster.wait_for_servers(1);
    cluster.ok(&["stat", "/more"]);
    cluster.expect("/file", &fs::read(cluster.path("file")).unwrap());
}

#[test]
fn files_come_back_from_what_volumes_hold() {
    let mut cluster = Cluster::start(2);
    let long = cluster.upload_random("long", 2 * BLOCK + 77);
    let short = cluster.upload_random("short", 5000);
    cluster.upload_random("gone", 70_000);
    cluster.ok(&["rm", "/gone"]);
    let version = cluster.json(&["stat", "/long", "--json"]);
    let version = version["version"].as_u64().unwrap_or_else(|| panic!("{version}"));
    cluster.wait_for_status("the deleted file is gone", |status| {
        status["blocks"] == 4 && status["pending_deletes"] == 0
    });
    cluster.kill_everything();
    // Journal, snapshots and all are lost; the secret was kept elsewhere.
    let data = cluster.path("nameserver-data");
    let secret = fs::read(data.join("cluster.secret")).unwrap();
    fs::remove_dir_all(&data).unwrap();
    for at in 0..2 {
        let output = cluster.run(&["volume", "inventory", &format!("volume-{at}")]);
        assert!(output.status.success(), "{}", text(&output));
        fs::write(cluster.path(&format!("inventory-{at}")), output.stdout).unwrap();
    }
    let args = [
        "rebuild",
        "inventory-0",
        "inventory-1",
        "--dir",
        "nameserver-data",
        "--json",
    ];
    let made = cluster.json(&args);
    assert_eq!(
        (made["files"].as_u64(), made["blocks"].as_u64()),
        (Some(2), Some(4)),
        "{made}"
    );
    let message = cluster.fails(2, &args);
    assert!(message.contains("holds a nameserver's data"), "{message}");
    fs::write(data.join("cluster.secret"), secret).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(data.join("cluster.secret"), mode).unwrap();

    cluster.nameserver_flags = vec!["--adopt".into()];
    cluster.start_nameserver();
    (0..2).for_each(|at| cluster.start_dataserver(at));
    cluster.wait_for_servers(2);
    cluster.expect(&format!("/lost+found/{version}"), &long);
    let listed = cluster.ok(&["ls", "/lost+found"]);
    let block = listed.lines().find(|line| line.contains("block-")).unwrap();
    let name = block.split_whitespace().last().unwrap();
    cluster.expect(
        &format!("/lost+found/{}", name.trim_start_matches("/lost+found/")),
        &short,
    );
    fsck(&cluster, 0, &["--repair"]);
}
