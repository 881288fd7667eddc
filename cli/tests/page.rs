//! The page of a real nameserver under people who mean no good, or have a bad line.

mod harness;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use harness::{Cluster, wait_for};
use rustix::process::{Resource, getrlimit, setrlimit};

const CONNECTIONS: usize = 1000;
/// What a thousand of them may cost the nameserver.
const MEMORY_BYTES_MAX: u64 = 96 << 20;

/// Lets this process have as many files open as it may.
fn open_many() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn a_thousand_idle_and_slow_connections_are_survived() {
    open_many();
    let cluster = Cluster::start(2);
    let nameserver = cluster.nameserver.as_ref().unwrap();
    let before = nameserver.resident_bytes();
    let connect = || TcpStream::connect(cluster.address(8080)).unwrap();
    let mut held = Vec::new();
    for at in 0..CONNECTIONS {
        let mut stream = connect();
        // Idle, in the middle of its headers, or in the middle of a body that it announced.
        let said = match at % 3 {
            0 => String::new(),
            1 => "GET /api/v1/status HTTP/1.1\r\nhost: ".to_owned(),
            _ => format!(
                "PUT /api/v1/content/slow-{at} HTTP/1.1\r\nhost: {}\r\ncontent-length: 8000000\r\n\r\nsome",
                cluster.host
            ),
        };
        // One that is too many may be gone by now.
        let _ = stream.write_all(said.as_bytes());
        held.push(stream);
    }
    let grown = nameserver.resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_BYTES_MAX, "{} MiB more", grown >> 20);
    let mut last = String::new();
    let _ = held.last_mut().unwrap().read_to_string(&mut last);
    assert!(
        last.starts_with("HTTP/1.1 503"),
        "one too many is told so: {last:?}"
    );
    // The cluster goes on meanwhile.
    let bytes = cluster.upload_random("meanwhile", 5_000_000);
    cluster.expect("/meanwhile", &bytes);

    drop(held);
    wait_for("the page answers again", || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.get(8080, "/healthz")))
            .ok()
            .filter(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    cluster.wait_for_status("nothing is left of the slow ones", |status| {
        status["uploads"] == 0
    });
    assert_eq!(
        cluster.json(&["status", "--json"])["files"],
        1,
        "nothing was stored by halves"
    );
}
