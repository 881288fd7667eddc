//! The stream of events: a snapshot, then what changes, and nothing twice for whoever comes back.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use common::Cluster;
use json_patch::merge;
use serde_json::Value;

struct Events {
    lines: BufReader<TcpStream>,
}

#[derive(Debug)]
struct Event {
    id: String,
    kind: String,
    data: Value,
}

impl Events {
    fn listen(cluster: &Cluster, last: Option<&str>) -> Self {
        let mut stream = cluster.page.connect();
        let last = last.map_or(String::new(), |last| format!("last-event-id: {last}\r\n"));
        let asked = format!(
            "GET /api/v1/events HTTP/1.1\r\nhost: {}\r\n{last}\r\n",
            cluster.page.address
        );
        stream.write_all(asked.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("200"), "{line}");
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line).unwrap();
        }
        Self { lines }
    }

    /// The next event; chunks and comments are passed over.
    fn next(&mut self) -> Event {
        let (mut id, mut kind, mut data) = (String::new(), String::new(), Value::Null);
        loop {
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the stream has ended"
            );
            let line = line.trim_end();
            match line.split_once(": ") {
                Some(("id", text)) => text.clone_into(&mut id),
                Some(("event", text)) => text.clone_into(&mut kind),
                Some(("data", text)) => data = serde_json::from_str(text).unwrap(),
                _ if line.is_empty() && !kind.is_empty() => return Event { id, kind, data },
                _ => {}
            }
        }
    }
}

#[test]
fn a_listener_sees_what_changes_and_comes_back_without_a_gap() {
    let cluster = Cluster::start(2);
    let mut events = Events::listen(&cluster, None);
    let first = events.next();
    assert_eq!(first.kind, "snapshot");
    let mut state = first.data["state"].clone();
    assert_eq!(state["files"], 0);
    assert_eq!(first.data["timeline"][0]["kind"], "nameserver_started");
    assert_eq!(first.data["sample"].as_array().unwrap().len(), 12);

    assert_eq!(
        cluster
            .page
            .ask("PUT", "/api/v1/content/a.txt", &[], b"hello")
            .status,
        201
    );
    let mut last = first.id;
    while state["files"] != 1 {
        let event = events.next();
        last = event.id;
        match event.kind.as_str() {
            "delta" => merge(&mut state, &event.data),
            "sample" => assert_eq!(event.data.as_array().unwrap().len(), 12),
            _ => {}
        }
    }
    // Another one keeps listening, so that the watch goes on while this one is away.
    let mut other = Events::listen(&cluster, None);
    assert_eq!(other.next().kind, "snapshot");
    drop(events);
    assert_eq!(
        cluster
            .page
            .ask("PUT", "/api/v1/content/b.txt", &[], b"hello")
            .status,
        201
    );
    let mut events = Events::listen(&cluster, Some(&last));
    while state["files"] != 2 {
        let event = events.next();
        assert_ne!(event.kind, "snapshot", "it is told only what it has missed");
        if event.kind == "delta" {
            merge(&mut state, &event.data);
        }
    }
    assert_eq!(state["file_bytes"], 10);
    for unknown in ["1-1", "x", "99999999999999-7", ""] {
        assert_eq!(
            Events::listen(&cluster, Some(unknown)).next().kind,
            "snapshot",
            "{unknown}"
        );
    }
}

#[test]
fn a_lost_server_is_told() {
    let mut cluster = Cluster::start(2);
    let mut events = Events::listen(&cluster, None);
    let mut state = events.next().data["state"].clone();
    // The watch has to have seen it before it can miss it.
    let joined = || {
        cluster
            .page
            .get("/api/v1/timeline")
            .text()
            .matches("server_joined")
            .count()
    };
    while joined() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let lost = cluster.dataservers.pop().unwrap();
    let address = lost.address().to_owned();
    lost.stop();
    let mut silent = false;
    while !silent || state["servers"][&address]["state"] != "suspect" {
        let event = events.next();
        match event.kind.as_str() {
            "delta" => merge(&mut state, &event.data),
            "event" => {
                silent |=
                    event.data["kind"] == "server_silent" && event.data["subject"]["id"] == address.as_str()
            }
            _ => {}
        }
    }
    assert_eq!(state["health"]["reasons"][0]["code"], "suspect_servers");
    assert_eq!(
        state["health"]["reasons"][0]["subjects"][0]["id"],
        address.as_str()
    );
    let history = cluster.page.get("/api/v1/history?window=1h").json();
    assert_eq!(history["columns"].as_array().unwrap().len(), 12);
    assert!(!history["rows"].as_array().unwrap().is_empty());
    assert_eq!(cluster.page.get("/api/v1/history?window=1y").status, 400);
}
