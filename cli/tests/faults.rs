//! What must not break the promises: kill -9, lost servers, flipped bytes, garbage, full volumes.

mod harness;

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use harness::{BLOCK, Cluster, feed, random, text, wait_for};
use rustix::process::Signal;

const MIB: usize = 1024 * 1024;

/// An upload whose source is fed by the test.
fn piped_upload(cluster: &Cluster, remote: &str) -> Child {
    cluster
        .command(&["upload", "-", remote])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn acknowledged_files_survive_kill_9_of_everything() {
    let mut cluster = Cluster::start(3);
    let mut files = Vec::new();
    for round in 0..3 {
        for (at, length) in [0, 1, 70_000, BLOCK, 2 * BLOCK + 1].into_iter().enumerate() {
            let name = format!("r{round}-{at}");
            files.push((name.clone(), cluster.upload_random(&name, length)));
        }
        if round == 0 {
            cluster.ok(&["rm", "r0-1"]);
        }
        // In the middle of an upload: it must not be there afterwards, nor be in the way.
        let mut upload = piped_upload(&cluster, &format!("/unfinished-{round}"));
        feed(&mut upload, &random(6 * MIB));
        cluster.wait_for_status("the upload has begun", |status| {
            status["uploads"].as_u64().unwrap() >= 1
        });
        cluster.kill_everything();
        let _ = upload.kill();
        upload.wait().unwrap();

        cluster.start_nameserver();
        (0..3).for_each(|index| cluster.start_dataserver(index));
        cluster.wait_for_servers(3);
        for (name, bytes) in files.iter().filter(|(name, _)| name != "r0-1") {
            cluster.expect(&format!("/{name}"), bytes);
        }
        cluster.fails(3, &["stat", "/r0-1"]);
        cluster.fails(3, &["stat", &format!("/unfinished-{round}")]);
        let listed = cluster.json(&["ls", "--json"]);
        assert_eq!(listed.as_array().unwrap().len(), files.len() - 1);
    }
    // A stop by signal is clean, and what follows finds everything too.
    for process in cluster
        .dataservers
        .iter_mut()
        .flatten()
        .chain(&mut cluster.nameserver)
    {
        process.signal(Signal::TERM);
        assert!(process.wait().success(), "{}", process.log());
    }
    cluster.start_nameserver();
    (0..3).for_each(|index| cluster.start_dataserver(index));
    cluster.wait_for_servers(3);
    let (name, bytes) = files.last().unwrap();
    cluster.expect(&format!("/{name}"), bytes);
}

#[test]
fn an_upload_outlives_a_killed_dataserver() {
    let mut cluster = Cluster::start(3);
    let bytes = random(48 * MIB + 5);
    let mut upload = piped_upload(&cluster, "/file");
    feed(&mut upload, &bytes[..20 * MIB]);
    // Blocks are told to the nameserver while the source goes on: the transfer is well under way.
    cluster.wait_for_status("blocks are durable", |status| {
        status["blocks"].as_u64().unwrap() >= 2
    });
    cluster.kill_dataserver(1);
    feed(&mut upload, &bytes[20 * MIB..]);
    drop(upload.stdin.take());
    let output = upload.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    cluster.expect("/file", &bytes);
    assert_eq!(cluster.json(&["info", "/file", "--json"])["size"], bytes.len());
    // New uploads do without it.
    let other = cluster.upload_random("other", 9 * MIB);
    cluster.expect("/other", &other);
    cluster.start_dataserver(1);
    cluster.wait_for_servers(3);
    cluster.expect("/file", &bytes);
}

#[test]
fn a_download_outlives_a_killed_dataserver() {
    let mut cluster = Cluster::start(3);
    // More than client and pipe hold back, so that most of it is still to be read.
    let bytes = cluster.upload_random("file", 96 * MIB + 1);
    for victim in 0..2 {
        let mut download = cluster
            .command(&["download", "/file", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut got = vec![0; 5 * MIB];
        let mut stdout = download.stdout.take().unwrap();
        stdout.read_exact(&mut got).unwrap();
        cluster.kill_dataserver(victim);
        stdout.read_to_end(&mut got).unwrap();
        let output = download.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(
            got == bytes,
            "{} of {} bytes came, or others",
            got.len(),
            bytes.len()
        );
        // One is left of three: every block has two replicas, so only a return makes the next loss bearable.
        cluster.start_dataserver(victim);
        cluster.wait_for_servers(3);
    }
}

/// Flips a byte of `pattern` wherever it lies in the segments of a volume; how often that was.
fn damage(volume: &Path, pattern: &[u8]) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(volume.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let head = pattern[0];
        let places = bytes.windows(pattern.len()).enumerate();
        let places = places.filter(|(_, part)| part[0] == head && *part == pattern);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for (at, _) in places {
            file.write_all_at(&[head ^ 1], at as u64).unwrap();
            found += 1;
        }
        file.sync_all().unwrap();
    }
    found
}

#[test]
fn a_flipped_byte_never_reaches_a_reader_and_is_told_and_healed() {
    let mut cluster = Cluster::start(2);
    let bytes = cluster.upload_random("file", BLOCK + 100_000);
    let pattern = &bytes[1_000_000..1_000_064];
    // In the replica that is read first.
    let info = cluster.json(&["info", "/file", "--json"]);
    let first = info["blocks"][0]["replicas"][0]["server"].as_str().unwrap();
    let bad = (0..2)
        .find(|index| cluster.server_address(*index) == first)
        .unwrap();
    let good = 1 - bad;
    assert_eq!(damage(&cluster.volume_dir(bad), pattern), 1);
    cluster.expect("/file", &bytes);
    let range = cluster.run(&["cat", "/file", "--range", "1000000-1000063"]);
    assert!(
        range.status.success() && range.stdout == pattern,
        "{}",
        text(&range)
    );
    // Told in `status` for some seconds, then the copy is made anew from the good one.
    cluster.wait_for_status("the damage is told", |status| {
        cluster.expect("/file", &bytes);
        status["corrupt_replicas"] == 1
    });
    let whole = |status: &serde_json::Value| {
        status["corrupt_replicas"] == 0 && status["under_replicated_blocks"] == 0
    };
    cluster.wait_for_status("it is healed", whole);

    // The same with the good one away: nothing can be read or healed, and nothing wrong is given out.
    cluster.kill_dataserver(good);
    cluster.expect("/file", &bytes);
    assert!(damage(&cluster.volume_dir(bad), pattern) >= 1);
    let output = cluster.run(&["download", "/file", "copy"]);
    assert!(!output.status.success() && !cluster.path("copy").exists());
    let status = cluster.wait_for_status("the damage is told", |status| {
        status["corrupt_replicas"].as_u64().unwrap() >= 1
    });
    assert_ne!(status["health"], "healthy");
    assert!(cluster.ok(&["status"]).contains("damaged"));
    cluster.start_dataserver(good);
    cluster.wait_for_servers(2);
    cluster.expect("/file", &bytes);
    cluster.wait_for_status("it is healed again", whole);
    cluster.kill_dataserver(good);
    cluster.expect("/file", &bytes);
}

#[test]
fn both_replicas_damaged_is_an_error_and_never_wrong_bytes() {
    let cluster = Cluster::start(2);
    let bytes = cluster.upload_random("file", 2 * BLOCK);
    for index in 0..2 {
        assert_eq!(
            damage(&cluster.volume_dir(index), &bytes[BLOCK + 77..BLOCK + 141]),
            1
        );
    }
    let output = cluster.run(&["download", "/file", "copy"]);
    assert!(!output.status.success());
    assert!(!output.stderr.is_empty());
    assert!(!cluster.path("copy").exists());
    assert!(
        !cluster
            .local_names(".")
            .iter()
            .any(|name| name.ends_with(".part"))
    );
    // The block before it is untouched.
    let range = cluster.run(&["cat", "/file", "--range", "0-99"]);
    assert!(range.stdout == bytes[..100], "{}", text(&range));
    cluster.wait_for_status("the damage is told", |status| {
        cluster.run(&["download", "/file", "/dev/null"]);
        status["corrupt_replicas"].as_u64().unwrap() >= 2
    });
}

#[test]
fn garbage_on_every_port_does_no_harm() {
    let mut cluster = Cluster::start(2);
    let bytes = cluster.upload_random("file", 5 * MIB);
    let noise = random(200_000);
    // Lengths of 4 GiB wherever a length may stand.
    let huge = [0xff; 64];
    let capnp_huge = [&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..], &[0; 64]].concat();
    let http_huge = format!(
        "PUT /api/v1/content/evil HTTP/1.1\r\nHost: {}\r\nContent-Length: 4294967296\r\n\r\nshort",
        cluster.address(8080)
    );
    let slow = &b"GET / HT"[..];
    let pieces: [&[u8]; 6] = [&noise, &huge, &capnp_huge, http_huge.as_bytes(), slow, b""];
    let ports = ["9000", "8080", "9001", "9011"].map(|port| format!("{}:{port}", cluster.host));
    let mut open = Vec::new();
    for address in &ports {
        for piece in pieces {
            for _ in 0..4 {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
                // Being cut off in the middle of it is what should happen.
                let _ = stream.write_all(piece);
                open.push(stream);
            }
        }
    }
    // While they are all open, and once more when they are gone.
    for _ in 0..2 {
        cluster.expect("/file", &bytes);
        let more = cluster.random_file("more", BLOCK + 1);
        cluster.ok(&["upload", "more", "/more", "--overwrite"]);
        cluster.expect("/more", &more);
        open.clear();
    }
    cluster.fails(3, &["stat", "/evil"]);
    let servers = cluster.dataservers.iter_mut().flatten();
    for process in servers.chain(&mut cluster.nameserver) {
        assert!(process.is_running(), "{}", process.log());
        assert!(!process.log().contains("panicked"), "{}", process.log());
        let resident = process.resident_bytes();
        assert!(resident < 300 * MIB as u64, "{resident} bytes resident");
    }
}

#[test]
fn a_full_volume_says_so_and_still_deletes() {
    let mut cluster = Cluster::empty();
    cluster.capacity = "192MiB".to_owned();
    cluster.start_nameserver();
    cluster.dataservers.push(None);
    cluster.start_dataserver(0);
    cluster.wait_for_servers(1);
    let bytes = cluster.random_file("file", 24 * MIB);
    let mut kept = Vec::new();
    let refused = loop {
        let remote = format!("/{}", kept.len());
        let output = cluster.run(&["upload", "file", &remote]);
        if !output.status.success() {
            break (remote, output);
        }
        kept.push(remote);
        assert!(kept.len() < 9, "more went in than there is room for");
    };
    let (remote, output) = refused;
    assert!(!kept.is_empty(), "nothing went in: {}", text(&output));
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(
        said.contains("space") || said.contains("room") || said.contains("full"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1), "{said}");
    cluster.fails(3, &["stat", &remote]);
    for remote in &kept {
        cluster.expect(remote, &bytes);
    }
    // Only the last one was never read, so only its blocks are free at once.
    let fresh = format!("/{}", kept.len() - 1);
    for remote in &kept {
        cluster.ok(&["rm", remote]);
    }
    assert_eq!(cluster.ok(&["ls"]), "", "{fresh} is gone with the others");
    cluster.ok(&["df"]);
}

#[test]
fn deleted_space_is_used_again() {
    let mut cluster = Cluster::empty();
    cluster.capacity = "192MiB".to_owned();
    cluster.start_nameserver();
    cluster.dataservers.push(None);
    cluster.start_dataserver(0);
    cluster.wait_for_servers(1);
    // Five times what fits, never read: what lies in the trash must make room each time.
    for round in 0..5 {
        let bytes = cluster.random_file("file", 96 * MIB);
        wait_for("deleting makes room", || {
            let output = cluster.run(&["upload", "file", "/file"]);
            output.status.success().then_some(())
        });
        if round == 4 {
            cluster.expect("/file", &bytes);
        } else {
            cluster.ok(&["rm", "/file"]);
        }
    }
}
