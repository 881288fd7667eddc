//! The main job over real processes: files in, replicated, out again byte for byte, and every way to say it.

mod harness;

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use harness::{BLOCK, Cluster, feed, random, text};
use serde_json::Value;

fn strings(list: &Value, field: &str) -> Vec<String> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|entry| entry[field].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_size_goes_in_replicated_and_comes_out_the_same() {
    let cluster = Cluster::start(3);
    for (name, length) in [
        ("empty", 0),
        ("one", 1),
        ("below", BLOCK - 1),
        ("exact", BLOCK),
        ("above", BLOCK + 1),
        ("nine", 9 * 1024 * 1024),
    ] {
        let bytes = cluster.upload_random(name, length);
        cluster.expect(&format!("/{name}"), &bytes);
        cluster.ok(&["download", &format!("/{name}"), "copy", "--overwrite"]);
        assert!(std::fs::read(cluster.path("copy")).unwrap() == bytes, "{name}");

        let info = cluster.json(&["info", name, "--json"]);
        assert_eq!(info["size"], length);
        let blocks = info["blocks"].as_array().unwrap();
        assert_eq!(blocks.len(), length.div_ceil(BLOCK), "{name}");
        let total: u64 = blocks.iter().map(|block| block["length"].as_u64().unwrap()).sum();
        assert_eq!(total, length as u64);
        assert_eq!(info["crc32c"].as_str().unwrap().len(), 8);
        for block in blocks {
            let mut servers = strings(&block["replicas"], "server");
            servers.sort();
            servers.dedup();
            assert_eq!(servers.len(), 2, "{name}: each block lies on two servers");
            assert_eq!(block["id"].as_str().unwrap().len(), 16);
        }
    }
    // Known answers: CRC32C of nothing, and of "123456789" (RFC 3720's check value).
    assert_eq!(cluster.json(&["stat", "empty", "--json"])["crc32c"], "00000000");
    std::fs::write(cluster.path("digits"), "123456789").unwrap();
    cluster.ok(&["upload", "digits"]);
    assert_eq!(cluster.json(&["stat", "digits", "--json"])["crc32c"], "e3069283");

    let listed = cluster.json(&["list", "--json"]);
    assert_eq!(
        strings(&listed, "name"),
        ["above", "below", "digits", "empty", "exact", "nine", "one"]
    );
    assert_eq!(cluster.ok(&["ls"]).lines().count(), 7);
    assert!(cluster.ok(&["ls", "-l"]).contains("4.0 MiB"));

    let bytes = std::fs::read(cluster.path("nine")).unwrap();
    for (range, part) in [
        ("0-99", &bytes[..100]),
        ("4194303-4194305", &bytes[BLOCK - 1..BLOCK + 2]),
        ("9437180-", &bytes[9_437_180..]),
        ("-5", &bytes[bytes.len() - 5..]),
        ("65535-65536", &bytes[65_535..65_537]),
        ("5-5", &bytes[5..6]),
        ("99999999-", &[]),
    ] {
        let output = cluster.run(&["cat", "nine", "--range", range]);
        assert!(
            output.status.success() && output.stdout == part,
            "{range}: {}",
            text(&output)
        );
    }

    let status = cluster.json(&["status", "--json"]);
    assert_eq!(status["files"], 7);
    assert_eq!(status["blocks"], 9);
    assert_eq!(status["missing_blocks"], 0);
    assert_eq!(status["corrupt_replicas"], 0);
    assert_eq!(strings(&status["servers"], "state"), ["alive"; 3]);
    assert_eq!(strings(&status["volumes"], "state"), ["serving"; 3]);
    assert!(cluster.ok(&["status"]).starts_with("healthy"));
    assert!(cluster.ok(&["df"]).contains("total"));
    assert!(
        cluster
            .ok(&["info", "nine"])
            .contains(&cluster.server_address(0)[..4])
    );
}

#[test]
fn names_folders_and_exit_codes() {
    let cluster = Cluster::start(1);
    let first = cluster.random_file("a", 1000);
    let second = cluster.random_file("b", 2000);

    cluster.ok(&["upload", "a", "/deep/down/"]);
    cluster.expect("deep/down/a", &first);
    cluster.ok(&["upload", "a", "b", "many/"]);
    assert_eq!(cluster.ok(&["ls", "many"]), "a\nb\n");
    cluster.ok(&["upload", "a", "/deep"]);
    cluster.expect("/deep/a", &first);
    cluster.fails(2, &["upload", "a", "b", "/nofolder"]);

    // Already there.
    cluster.fails(4, &["upload", "b", "/deep/a"]);
    cluster.expect("/deep/a", &first);
    cluster.ok(&["upload", "b", "/deep/a", "--overwrite"]);
    cluster.expect("/deep/a", &second);
    cluster.fails(4, &["download", "/deep/a", "a"]);
    assert_eq!(std::fs::read(cluster.path("a")).unwrap(), first);
    cluster.ok(&["download", "/deep/a", "a", "--overwrite"]);
    assert_eq!(std::fs::read(cluster.path("a")).unwrap(), second);
    cluster.fails(4, &["mkdir", "/deep"]);
    cluster.ok(&["mkdir", "-p", "/deep"]);
    cluster.ok(&["mkdir", "/x/y/z"]);
    cluster.fails(4, &["mv", "/many/b", "/deep/a"]);
    cluster.ok(&["mv", "/many/b", "/many/a", "--overwrite"]);
    cluster.expect("/many/a", &second);

    // Not there.
    for args in [
        &["download", "/none", "x"][..],
        &["download", "/none", "-"],
        &["cat", "/none"],
        &["stat", "/none"],
        &["stat", "/none", "--json"],
        &["info", "/none"],
        &["ls", "/none"],
        &["rm", "/none"],
        &["mv", "/none", "/other"],
        &["upload", "none-here"],
    ] {
        cluster.fails(3, args);
    }
    assert!(!cluster.path("x").exists());
    cluster.fails(3, &["stat", "/other"]);

    // Wrong.
    let long = format!("/{}", "n".repeat(5000));
    let part = format!("/{}", "n".repeat(256));
    for name in [
        "/a/../b",
        "/..",
        "/.",
        "/a\nb",
        "/a\u{1b}[2Jb",
        "/a\u{7f}",
        &long,
        &part,
    ] {
        cluster.fails(2, &["upload", "b", name]);
        cluster.fails(2, &["mkdir", name]);
        cluster.fails(2, &["mv", "/many/a", name]);
    }
    for args in [
        &["upload"][..],
        &["upload", "-"],
        &["upload", "."],
        &["download", "/deep", "there"],
        &["fly"],
        &["cat", "a", "--range", "9-1"],
        &["upload", "a", "/z", "--replication", "0"],
        &["ls", "--nameserver", "nowhere:x"],
    ] {
        cluster.fails(2, args);
    }
    assert!(
        !cluster
            .fails(2, &["upload", "b", "/a\u{1b}[2Jb"])
            .contains('\u{1b}')
    );

    // Odd, but right.
    for name in [
        "/ü 名 🚀",
        "/--help",
        "/a b",
        "/<img src=x onerror=alert(1)>",
        "/%2e%2e",
        "/-",
    ] {
        cluster.ok(&["upload", "b", name]);
        cluster.expect(name, &second);
        cluster.ok(&["rm", name]);
    }

    // Folders: moved whole, deleted only when asked to.
    cluster.ok(&["mv", "/deep", "/moved/here"]);
    cluster.expect("/moved/here/down/a", &first);
    cluster.fails(2, &["rm", "/moved"]);
    cluster.expect("/moved/here/down/a", &first);
    assert!(cluster.ok(&["rm", "-r", "/moved"]).contains("2 files"));
    cluster.fails(3, &["stat", "/moved"]);
    cluster.ok(&["rm", "/x/y/z"]);
    // Several: what can be deleted is, and the failure is told.
    cluster.ok(&["upload", "b", "/one"]);
    cluster.fails(3, &["rm", "/none", "/one"]);
    cluster.fails(3, &["stat", "/one"]);

    // A reader that has had enough is no failure.
    for number in 0..5 {
        cluster.ok(&["upload", "b", &format!("/list/{number}")]);
    }
    let head = cluster
        .command(&["ls", "/list"])
        .stdout(Stdio::from(
            std::fs::File::options().write(true).open("/dev/full").unwrap(),
        ))
        .output()
        .unwrap();
    assert_eq!(
        head.status.code(),
        Some(1),
        "a full disk behind stdout is a failure"
    );
    let mut ls = cluster
        .command(&["ls", "-r"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(ls.stdout.take());
    let output = ls.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        text(&output)
    );
}

#[test]
fn pipes_folders_and_devices() {
    let cluster = Cluster::start(2);
    let bytes = random(9 * 1024 * 1024 + 7);
    let mut upload = cluster
        .command(&["upload", "-", "/piped"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for piece in bytes.chunks(1_000_003) {
        feed(&mut upload, piece);
    }
    drop(upload.stdin.take());
    let output = upload.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(
        line.starts_with("uploaded 1 file, 9.0 MiB") && line.lines().count() == 1,
        "{line}"
    );
    cluster.expect("/piped", &bytes);
    let cat = cluster.run(&["cat", "/piped", "/piped"]);
    assert!(cat.stdout == [&bytes[..], &bytes].concat());

    // Devices are written to, not replaced.
    cluster.ok(&["download", "/piped", "/dev/null"]);
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    cluster.ok(&["upload", "/dev/null", "/nothing"]);
    cluster.expect("/nothing", b"");

    // A reader that goes away in the middle of a download is no failure, a full disk is one.
    let mut cat = cluster
        .command(&["cat", "/piped"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 1000];
    cat.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(some, bytes[..1000]);
    drop(cat.stdout.take());
    let output = cat.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        text(&output)
    );
    cluster.fails(1, &["download", "/piped", "/dev/full"]);

    // A folder there and back.
    let tree = cluster.path("tree");
    std::fs::create_dir_all(tree.join("sub/empty")).unwrap();
    let mut wanted = Vec::new();
    for number in 0..20_usize {
        let name = format!("sub/file {number}");
        let bytes = random(number * 10_007);
        std::fs::write(tree.join(&name), &bytes).unwrap();
        wanted.push((name, bytes));
    }
    std::os::unix::fs::symlink(&tree, tree.join("loop")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    cluster.fails(2, &["upload", "tree", "/"]);
    let output = cluster.run(&["upload", "-r", "tree", "/kept/"]);
    assert!(output.status.success(), "{}", text(&output));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("loop") && told.contains("socket"),
        "what is skipped is told: {told}"
    );
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .starts_with("uploaded 20 files")
    );
    assert_eq!(
        cluster
            .json(&["ls", "-r", "/kept", "--json"])
            .as_array()
            .unwrap()
            .len(),
        23
    );
    let line = cluster.ok(&["download", "-r", "/kept/tree", "back"]);
    assert!(line.contains("20 files") && line.contains("verified"), "{line}");
    for (name, bytes) in &wanted {
        assert!(
            &std::fs::read(cluster.path("back").join(name)).unwrap() == bytes,
            "{name}"
        );
    }
    assert!(cluster.path("back/sub/empty").is_dir());
    // Once more goes into the folder that is there now, and again would overwrite.
    cluster.ok(&["download", "-r", "/kept/tree", "back"]);
    assert!(cluster.path("back/tree/sub/file 1").is_file());
    cluster.fails(4, &["download", "-r", "/kept/tree", "back"]);
    let names = cluster.local_names("back/tree/sub");
    assert!(names.iter().all(|name| !name.ends_with(".part")), "{names:?}");
    // `dir/.` is a folder with a name.
    cluster.ok(&["upload", "-r", "tree/sub/.", "/dot/"]);
    assert_eq!(cluster.ok(&["ls", "/dot"]), "sub/\n");
}

#[test]
fn ppydfs_spellings_keep_working() {
    let mut cluster = Cluster::empty();
    let start = |args: &[&str]| {
        let mut command = cluster.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Killed(command.spawn().unwrap())
    };
    // PPYDFS's `nameserver [WEB_PORT]` fixes the rest; another address keeps tests apart.
    let listen = cluster.address(9000);
    let _nameserver = start(&[
        "nameserver",
        "--listen",
        &listen,
        "--dir",
        "names",
        "--web",
        "off",
    ]);
    let _dataserver = start(&["dataserver", &cluster.host.clone(), "9001", "data", &listen]);
    cluster.wait_for_servers(1);
    let bytes = cluster.random_file("file", 5_000_000);
    cluster.ok(&["client", "upload", "file"]);
    cluster.ok(&["client", "upload", "file", "other"]);
    assert_eq!(cluster.ok(&["client", "list"]), "file\nother\n");
    std::fs::create_dir(cluster.path("elsewhere")).unwrap();
    let mut download = cluster.command(&["client", "download", "file"]);
    assert!(
        download
            .current_dir(cluster.path("elsewhere"))
            .status()
            .unwrap()
            .success()
    );
    assert!(std::fs::read(cluster.path("elsewhere/file")).unwrap() == bytes);
    cluster.ok(&["client", "download", "other", "here"]);
    assert!(std::fs::read(cluster.path("here")).unwrap() == bytes);
    cluster.ok(&["client", "delete", "file"]);
    assert_eq!(cluster.ok(&["client", "list"]), "other\n");
    cluster.fails(2, &["client", "fly"]);
    cluster.kill_everything();
}

/// A child that does not outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn interrupted_transfers_leave_nothing() {
    let cluster = Cluster::start(1);
    let bytes = cluster.upload_random("big", 64 * 1024 * 1024);
    let interrupt = |child: &std::process::Child| {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    };

    // An upload that waits for its source.
    let mut upload = cluster
        .command(&["upload", "-", "/never"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    upload
        .stdin
        .as_mut()
        .unwrap()
        .write_all(&bytes[..8 * 1024 * 1024])
        .unwrap();
    cluster.wait_for_status("the upload has begun", |status| status["uploads"] == 1);
    interrupt(&upload);
    let output = upload.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    cluster.fails(3, &["stat", "/never"]);
    cluster.wait_for_status("the upload is abandoned", |status| status["uploads"] == 0);

    // A download into a folder, whose file only appears whole.
    std::fs::create_dir(cluster.path("into")).unwrap();
    let mut seen_part = false;
    for _ in 0..20 {
        let download = cluster
            .command(&["download", "/big", "into/"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut download = Killed(download);
        let part = || {
            cluster
                .local_names("into")
                .iter()
                .any(|name| name.ends_with(".part"))
        };
        while !part() && download.0.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        interrupt(&download.0);
        let code = download.0.wait().unwrap().code();
        match code {
            Some(130) => {
                seen_part = true;
                assert!(
                    cluster.local_names("into").is_empty(),
                    "{:?}",
                    cluster.local_names("into")
                );
                break;
            }
            // It was quicker than the signal: once more.
            Some(0) => std::fs::remove_file(cluster.path("into/big")).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert!(seen_part, "no download could be interrupted");
}
