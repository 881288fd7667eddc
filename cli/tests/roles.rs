//! Roles as operators meet them: `up`, taken ports, secrets, too few volumes.

mod harness;

use std::fs::File;
use std::process::Stdio;

use harness::{Cluster, text, wait_for};
use rustix::process::Signal;

const MIB: usize = 1024 * 1024;

#[test]
fn up_serves_stops_and_tells_of_taken_ports() {
    let mut cluster = Cluster::empty();
    cluster.up(&[]);
    cluster.wait_for_servers(2);
    let bytes = cluster.upload_random("file", 9 * MIB);
    let said = cluster.nameserver.as_ref().unwrap().log();
    assert!(
        said.contains(&cluster.address(8080)) && said.contains("up") && said.contains("blockyard upload")
    );

    // A second one finds every port taken, names the flags, and disturbs nothing.
    let host = cluster.host.clone();
    let message = cluster.fails(4, &["up", "--host", &host, "--dir", "second"]);
    for part in ["9000", "9001", "9002", "8080", "--port", "--web-port"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let listen = cluster.address(9000);
    let message = cluster.fails(
        4,
        &[
            "nameserver",
            "--listen",
            &listen,
            "--web",
            "off",
            "--dir",
            "third",
        ],
    );
    assert!(
        message.contains("9000") && message.contains("--listen"),
        "{message}"
    );
    let page = cluster.address(8080);
    let message = cluster.fails(4, &["nameserver", "--web", &page, "--dir", "third"]);
    assert!(message.contains("8080") && message.contains("--web"), "{message}");
    let taken = cluster.address(9001);
    let message = cluster.fails(4, &["dataserver", "--listen", &taken, "--volume", "fourth"]);
    assert!(
        message.contains("9001") && message.contains("--listen"),
        "{message}"
    );
    // Its folder is in use, too.
    let message = cluster.fails(
        4,
        &[
            "nameserver",
            "--listen",
            &cluster.address(9100),
            "--web",
            "off",
            "--dir",
            "up/nameserver",
        ],
    );
    assert!(message.contains("in use"), "{message}");
    cluster.expect("/file", &bytes);

    for signal in [Signal::INT, Signal::TERM] {
        let process = cluster.nameserver.as_mut().unwrap();
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
        cluster.fails(5, &["ls"]);
        cluster.up(&[]);
        cluster.wait_for_servers(2);
        cluster.expect("/file", &bytes);
    }
}

#[test]
fn nobody_gets_in_without_the_secret() {
    let mut cluster = Cluster::start(1);
    let bytes = cluster.upload_random("file", 1000);
    cluster.ok(&["init", "stranger.secret"]);
    cluster.fails(4, &["init", "stranger.secret"]);
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(cluster.path("stranger.secret")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let message = cluster.fails(1, &["ls", "--cluster-secret", "stranger.secret"]);
    assert!(message.contains("secret"), "{message}");
    cluster.fails(3, &["ls", "--cluster-secret", "no.secret"]);
    File::create(cluster.path("empty.secret")).unwrap();
    let message = cluster.fails(1, &["ls", "--cluster-secret", "empty.secret"]);
    assert!(message.contains("chmod 600"), "{message}");
    // Without a home there is no copy; the message says what to do.
    let output = cluster
        .command(&["ls"])
        .env_remove("XDG_CONFIG_HOME")
        .env("HOME", "/nonexistent")
        .output();
    let message = text(&output.unwrap());
    assert!(message.contains("--cluster-secret"), "{message}");

    // Open to others only with a secret.
    for args in [
        &[
            "nameserver",
            "--listen",
            "0.0.0.0:0",
            "--web",
            "off",
            "--dir",
            "x",
        ][..],
        &[
            "nameserver",
            "--listen",
            "127.0.0.1:0",
            "--web",
            "0.0.0.0:0",
            "--dir",
            "x",
        ],
        &["dataserver", "--listen", "0.0.0.0:0", "--volume", "x"],
        &["up", "--host", "0.0.0.0", "--dir", "x"],
    ] {
        let message = cluster.fails(2, args);
        assert!(message.contains("--cluster-secret"), "{message}");
    }

    // With one, others must still be told where to go.
    let message = cluster.fails(
        2,
        &[
            "dataserver",
            "--listen",
            "0.0.0.0:0",
            "--volume",
            "x",
            "--cluster-secret",
            "stranger.secret",
        ],
    );
    assert!(message.contains("--advertise"), "{message}");

    // A dataserver with another secret does not join.
    let mut stranger = cluster.command(&[
        "dataserver",
        "--volume",
        "alien",
        "--cluster-secret",
        "stranger.secret",
    ]);
    stranger
        .args(["--listen", &cluster.address(9500)])
        .stderr(Stdio::null())
        .stdout(Stdio::null());
    let mut stranger = stranger.spawn().unwrap();
    let beats = std::cell::Cell::new(0);
    cluster.wait_for_status("ten looks later", |status| {
        beats.set(beats.get() + 1);
        assert_eq!(status["servers"].as_array().unwrap().len(), 1);
        beats.get() == 10
    });
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    cluster.expect("/file", &bytes);

    // A secret of the operator's own works for all roles and commands.
    cluster.kill_everything();
    let mut own = Cluster::empty();
    own.ok(&["init", "own.secret"]);
    own.nameserver_flags = vec!["--cluster-secret".into(), "own.secret".into()];
    own.start_nameserver();
    let mut server = own.command(&["dataserver", "--volume", "v", "--cluster-secret", "own.secret"]);
    server.args(["--capacity", "1GiB", "--listen", &own.address(9001)]);
    let mut server = server
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    own.random_file("file", 100);
    wait_for("it takes files", || {
        let done = own.run(&["upload", "file", "--cluster-secret", "own.secret"]);
        done.status.success().then_some(())
    });
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn too_few_volumes_are_told() {
    let cluster = Cluster::start(1);
    cluster.random_file("file", 100_000);
    let output = cluster.run(&["upload", "file"]);
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("fewer replicas"), "{said}");
    let status = cluster.wait_for_status("it counts", |status| status["under_replicated_blocks"] == 1);
    assert_eq!(status["health"], "degraded");
    // Asked for one replica there is nothing to warn of.
    let output = cluster.run(&["upload", "file", "/single", "--replication", "1"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        text(&output)
    );
}

#[test]
fn every_role_tells_its_figures() {
    let cluster = Cluster::start(2);
    cluster.upload_random("file", 100_000);
    wait_for("the nameserver has heard of it", || {
        let told = cluster.get(8080, "/metrics");
        let holds =
            |line: &&str| line.starts_with("blockyard_nameserver_volume_replicas{") && line.ends_with(" 1.0");
        (told.lines().filter(holds).count() == 2).then_some(())
    });
    let own = cluster.get(9111, "/metrics");
    assert!(
        own.starts_with("HTTP/1.1 200") && own.contains("blockyard_dataserver_volume_client_requests_total{"),
        "{own}"
    );
    assert!(cluster.get(9101, "/livez").ends_with("ok\n"));
    assert!(cluster.get(9101, "/").starts_with("HTTP/1.1 404"));
}
