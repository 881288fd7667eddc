//! Volumes looked after: the background scrub, and fsck on a folder that nobody serves.

mod harness;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use harness::{BLOCK, Cluster, text, wait_for};
use serde_json::Value;

/// Flips a byte where `pattern` lies in the segments of a volume.
fn damage(volume: &Path, pattern: &[u8]) {
    let mut found = 0;
    for entry in fs::read_dir(volume.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let mut places = bytes.windows(pattern.len()).enumerate();
        if let Some((at, _)) = places.find(|(_, part)| part[0] == pattern[0] && *part == pattern) {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[pattern[0] ^ 1], at as u64).unwrap();
            found += 1;
        }
    }
    assert!(found > 0, "the bytes are nowhere");
}

#[test]
fn damage_that_nobody_reads_is_found_and_healed() {
    let mut cluster = Cluster::start(2);
    let bytes = cluster.upload_random("file", 2 * BLOCK);
    cluster.kill_dataserver(1);
    damage(&cluster.volume_dir(1), &bytes[BLOCK + 500_000..BLOCK + 500_064]);
    // A pass begins at once where none has ended yet.
    let _ = fs::remove_file(cluster.volume_dir(1).join("scrub.toml"));
    cluster.start_dataserver(1);
    cluster.wait_for_status("the scrub finds it", |status| status["corrupt_replicas"] == 1);
    cluster.wait_for_status("it is healed", |status| {
        status["corrupt_replicas"] == 0 && status["under_replicated_blocks"] == 0
    });
    cluster.kill_dataserver(0);
    cluster.expect("/file", &bytes);
}

#[test]
fn a_scrub_begins_and_pauses_by_word() {
    let mut cluster = Cluster::start(2);
    let bytes = cluster.upload_random("file", BLOCK);
    let scrubs = |cluster: &Cluster| cluster.json(&["scrub", "status", "--json"]);
    let all = |cluster: &Cluster, fits: &dyn Fn(&Value) -> bool| {
        wait_for("the scrub's status", || {
            scrubs(cluster).as_array().unwrap().iter().all(fits).then_some(())
        });
    };
    all(&cluster, &|row| row["state"] == "waiting" && row["passes"] == 1);
    // The next one is an hour away, unless it is asked for.
    damage(&cluster.volume_dir(1), &bytes[500_000..500_064]);
    let id = scrubs(&cluster).as_array().unwrap().iter().find_map(|row| {
        let directory = row["directory"].as_str().unwrap();
        directory
            .ends_with("volume-1")
            .then(|| row["volume"].as_str().unwrap().to_owned())
    });
    let id = id.unwrap();
    assert!(cluster.ok(&["scrub", "start", &id[..8]]).starts_with("scrubbing"));
    cluster.wait_for_status("the damage is found and healed", |status| {
        status["repair"]["copied"]["blocks"] == 1 && status["under_replicated_blocks"] == 0
    });

    cluster.ok(&["scrub", "pause"]);
    all(&cluster, &|row| row["state"] == "paused");
    cluster.kill_dataserver(0);
    cluster.start_dataserver(0);
    cluster.wait_for_servers(2);
    all(&cluster, &|row| row["state"] == "paused");
    assert!(cluster.ok(&["scrub", "status"]).contains("paused"));
    cluster.ok(&["scrub", "start"]);
    all(&cluster, &|row| {
        row["state"] == "waiting" && row["passes"].as_u64() >= Some(2)
    });
    cluster.fails(3, &["scrub", "start", "no-such"]);
}

#[test]
fn a_volume_without_an_index_is_rebuilt_and_serves_again() {
    let mut cluster = Cluster::start(2);
    let bytes = cluster.upload_random("file", 2 * BLOCK + 5);
    let gone = cluster.upload_random("gone", BLOCK);
    cluster.ok(&["delete", "--now", "/gone"]);
    let volume = cluster.volume_dir(1);
    let dir = volume.to_str().unwrap();

    // Nobody checks a volume that is served.
    let output = cluster.run(&["volume", "fsck", dir]);
    assert!(
        !output.status.success() && text(&output).contains("in use"),
        "{}",
        text(&output)
    );
    cluster.kill_dataserver(1);
    assert!(
        cluster
            .ok(&["volume", "fsck", dir, "--data"])
            .contains("all is in order")
    );

    for entry in fs::read_dir(&volume).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("checkpoint-")
        {
            fs::remove_file(path).unwrap();
        }
    }
    let output = cluster.run(&["volume", "fsck", dir]);
    assert!(
        !output.status.success() && text(&output).contains("--rebuild"),
        "{}",
        text(&output)
    );
    let said: serde_json::Value =
        serde_json::from_str(&cluster.ok(&["volume", "fsck", dir, "--rebuild", "--json"])).unwrap();
    assert_eq!(said["rebuilt"], true);
    assert!(said["whole"].as_u64().unwrap() >= 3);

    cluster.start_dataserver(1);
    cluster.wait_for_servers(2);
    // The deleted file's block is nobody's: it stays suspect until the nameserver dares to have it forgotten.
    cluster.wait_for_status("its blocks are confirmed", |status| {
        let volumes = status["volumes"].as_array().unwrap();
        status["under_replicated_blocks"] == 0
            && status["corrupt_replicas"] == 0
            && volumes
                .iter()
                .all(|volume| volume["suspects"].as_u64().unwrap() <= 1)
    });
    cluster.kill_dataserver(0);
    cluster.expect("/file", &bytes);
    assert!(!cluster.run(&["cat", "/gone"]).status.success());
    drop(gone);
}

#[test]
fn what_is_no_volume_is_not_checked() {
    let cluster = Cluster::empty();
    let output = cluster.run(&["volume", "fsck", "/nonexistent"]);
    assert!(
        !output.status.success() && text(&output).contains("no Blockyard volume"),
        "{}",
        text(&output)
    );
}
