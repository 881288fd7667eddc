//! The calls that look and change, over real connections: statuses, shapes, refusals.

mod common;

use common::{Served, volume};

/// The name that would run as a script, were it ever taken for markup.
const MARKUP: &str = "<img src=x onerror=alert(1)>";

fn filled() -> Served {
    Served::start(|fake| {
        fake.store("/a.txt", b"hello", "");
        fake.store("/dir/b.bin", &[7; 2500], "");
        fake.store(&format!("/{MARKUP}"), b"x", "");
    })
}

#[test]
fn status_has_what_scripts_rely_on() {
    let page = filled();
    let reply = page.get("/api/v1/status");
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "application/json")
    );
    let status = reply.json();
    assert_eq!(status["files"], 3);
    assert_eq!(status["blocks"], 5);
    assert_eq!(status["under_replicated_blocks"], 1);
    assert_eq!(status["missing_blocks"], 0);
    assert_eq!(status["corrupt_replicas"], 0);
    assert_eq!(status["replication"], 2);
    assert_eq!(status["block_bytes"], 4 << 20);
    assert_eq!(status["servers"]["127.0.0.1:9101"]["state"], "alive");
    assert_eq!(status["servers"]["127.0.0.1:9103"]["state"], "dead");
    let first = &status["volumes"][volume(1).to_string()];
    assert_eq!(first["server"], "127.0.0.1:9101");
    assert_eq!(first["state"], "serving");
    assert_eq!(
        first["write_bytes_per_s"],
        serde_json::Value::Null,
        "one look knows no rate"
    );
    assert_eq!(status["volumes"][volume(3).to_string()]["state"], "dead");
    let reasons = status["health"]["reasons"].as_array().unwrap();
    let lost = reasons
        .iter()
        .find(|reason| reason["code"] == "dead_servers")
        .unwrap();
    assert_eq!(lost["subjects"][0]["id"], "127.0.0.1:9103");
    assert_eq!(
        status["capacity_bytes"],
        200_u64 << 30,
        "a dead volume has no space to offer"
    );
    assert_eq!(status["health"]["level"], "warning");
    assert!(
        status["health"]["sentence"]
            .as_str()
            .unwrap()
            .contains("1 server is lost")
    );
    assert_eq!(page.get("/healthz").status, 200);
}

#[test]
fn folders_are_listed_in_pages() {
    let page = filled();
    let first = page.get("/api/v1/files?path=%2F&limit=2").json();
    let names: Vec<&str> = first["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [MARKUP, "a.txt"]);
    assert_eq!(first["more"], true);
    let rest = page.get("/api/v1/files?after=a.txt").json();
    assert_eq!(rest["files"][0]["name"], "dir");
    assert_eq!(rest["files"][0]["directory"], true);
    assert_eq!(rest["more"], false);
    assert_eq!(page.get("/api/v1/files?path=/none").status, 404);
    assert_eq!(page.get("/api/v1/files?limit=x").status, 400);
}

#[test]
fn folders_are_sorted_and_searched() {
    let page = filled();
    let names = |target: &str| -> Vec<String> {
        let listing = page.get(target).json();
        let files = listing["files"].as_array().unwrap();
        files
            .iter()
            .map(|file| file["path"].as_str().unwrap().to_owned())
            .collect()
    };
    let markup = format!("/{MARKUP}");
    assert_eq!(names("/api/v1/files?sort=size"), ["/dir", &markup, "/a.txt"]);
    assert_eq!(
        names("/api/v1/files?sort=size&order=desc"),
        ["/dir", "/a.txt", &markup]
    );
    assert_eq!(names("/api/v1/files?order=desc"), ["/dir", "/a.txt", &markup]);
    assert_eq!(names("/api/v1/files?search=B.BIN"), ["/dir/b.bin"]);
    assert_eq!(names("/api/v1/files?search=img"), [markup.as_str()]);
    assert_eq!(names("/api/v1/files?path=/dir&search=a"), [""; 0]);
    let first = page.get("/api/v1/files?search=b&limit=1").json();
    assert_eq!(first["files"][0]["path"], "/dir/b.bin");
    let rest = format!(
        "/api/v1/files?search=b&limit=1&after={}",
        first["next"].as_str().unwrap()
    );
    assert_eq!(names(&rest), [""; 0]);
    for bad in ["sort=colour", "order=up"] {
        assert_eq!(page.get(&format!("/api/v1/files?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn text_and_images_are_shown_and_nothing_else_is() {
    let page = Served::start(|fake| {
        fake.store("/a.html", b"<script>alert(1)</script>", "");
        fake.store("/a.svg", b"<svg/>", "");
        fake.store("/a.pdf", b"%PDF", "");
    });
    let shown = page.get("/api/v1/content/a.html?preview");
    assert_eq!(shown.header("content-type"), "text/plain; charset=utf-8");
    assert!(shown.header("content-disposition").starts_with("inline;"));
    assert_eq!(
        page.get("/api/v1/content/a.svg?preview").header("content-type"),
        "image/svg+xml"
    );
    let kept = page.get("/api/v1/content/a.html");
    assert!(kept.header("content-disposition").starts_with("attachment;"));
    for reply in [&shown, &kept] {
        assert!(reply.header("content-security-policy").contains("sandbox"));
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(page.get("/api/v1/content/a.pdf?preview").status, 400);
}

#[test]
fn a_folder_comes_as_one_archive() {
    let long = format!("/tree/{}/{}", "d".repeat(120), "f".repeat(200));
    let stored = long.clone();
    let page = Served::start(move |fake| {
        fake.store("/tree/a.txt", b"hello", "");
        fake.store("/tree/sub/many.bin", &[9; 3333], "");
        fake.store("/tree/sub/empty", b"", "");
        fake.store(&stored, &[1; 512], "");
        fake.store("/other", b"not in it", "");
    });
    let reply = page.get("/api/v1/archive/tree");
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "application/x-tar")
    );
    assert!(reply.header("content-disposition").contains("tree.tar"));
    let mut archive = tar::Archive::new(reply.body.as_slice());
    let mut found = std::collections::BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
        found.insert(path, data);
    }
    assert_eq!(found["a.txt"], b"hello");
    assert_eq!(found["sub/many.bin"], [9; 3333]);
    assert!(found["sub/empty"].is_empty());
    assert_eq!(found[long.strip_prefix("/tree/").unwrap()], [1; 512]);
    assert_eq!(found.len(), 4, "{:?}", found.keys());
    assert_eq!(page.get("/api/v1/archive/tree/a.txt").status, 400);
    assert_eq!(page.get("/api/v1/archive/none").status, 404);
}

#[test]
fn a_folder_with_a_block_that_is_lost_is_no_whole_archive() {
    let page = Served::start(|fake| {
        fake.store("/tree/a.txt", b"hello", "");
        fake.store("/lost/b.bin", &[9; 3333], "");
    });
    let reply = page.get("/api/v1/archive/");
    assert!(!reply.whole, "it breaks off and does not end");
}

#[test]
fn files_tell_their_blocks_and_never_a_ticket() {
    let page = filled();
    let reply = page.get("/api/v1/file?path=/dir/b.bin&limit=2");
    let file = reply.json();
    assert_eq!((&file["size"], &file["blocks"]), (&2500.into(), &3.into()));
    assert_eq!(file["crc32c"].as_str().unwrap().len(), 8);
    assert_eq!(file["block_list"].as_array().unwrap().len(), 2);
    assert_eq!(file["more"], true);
    assert_eq!(file["block_list"][0]["replicas"][1]["server"], "127.0.0.1:9102");
    assert!(!String::from_utf8(reply.body).unwrap().contains("ticket"));
    let rest = page.get("/api/v1/file?path=/dir/b.bin&from=2").json();
    assert_eq!(rest["block_list"][0]["length"], 500);
    assert_eq!(rest["more"], false);
    assert_eq!(page.get("/api/v1/file").status, 400);
    let missing = page.get("/api/v1/file?path=/nothing");
    assert_eq!(
        (missing.status, &missing.json()["kind"]),
        (404, &"not-found".into())
    );
}

#[test]
fn volumes_tell_the_blocks_they_hold() {
    let page = filled();
    let target = format!("/api/v1/volumes/{}/blocks", volume(1));
    let first = page.get(&format!("{target}?limit=2")).json();
    assert_eq!(first["more"], true);
    let last = first["blocks"][1]["id"].as_str().unwrap();
    let rest = page.get(&format!("{target}?after={last}")).json();
    assert_eq!(rest["blocks"].as_array().unwrap().len(), 3);
    assert_eq!(rest["blocks"][0]["path"], "/dir/b.bin");
    let one = page.get(&format!("/api/v1/block?id={last}")).json();
    assert_eq!((&one["id"], &one["path"]), (&last.into(), &"/dir/b.bin".into()));
    assert_eq!(page.get("/api/v1/volumes/zz/blocks").status, 400);
    assert_eq!(
        page.get(&format!("/api/v1/volumes/{}/blocks", volume(9))).status,
        404
    );
}

#[test]
fn names_as_markup_stay_names() {
    let page = filled();
    let encoded = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E";
    let reply = page.get(&format!("/api/v1/content/{encoded}"));
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"x".as_slice()));
    assert!(reply.header("content-disposition").starts_with("attachment; "));
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    let missing = page.get(&format!("/api/v1/content/{encoded}2"));
    assert_eq!(
        (missing.status, missing.header("content-type")),
        (404, "application/json")
    );
    assert!(missing.json()["message"].as_str().unwrap().contains(MARKUP));
}

#[test]
fn paths_that_could_be_read_two_ways_are_refused() {
    let page = filled();
    for path in [
        "dir%2Fb.bin",
        "dir%2fb.bin",
        "..%2f..%2fetc",
        "dir/../a.txt",
        "dir/%2e%2e/a.txt",
        "a%00.txt",
        "%ff",
    ] {
        for (method, body) in [("GET", b"".as_slice()), ("PUT", b"data"), ("DELETE", b"")] {
            let reply = page.ask(method, &format!("/api/v1/content/{path}"), &[], body);
            assert_eq!(reply.status, 400, "{method} {path}");
            assert_eq!(reply.json()["kind"], "invalid");
        }
        assert_eq!(
            page.ask("POST", &format!("/api/v1/folders/{path}"), &[], b"")
                .status,
            400,
            "{path}"
        );
    }
    assert_eq!(page.get("/api/v1/file?path=/dir/../a.txt").status, 400);
    let long = "n".repeat(4096);
    assert_eq!(page.get(&format!("/api/v1/content/{long}")).status, 400);
}

#[test]
fn folders_renames_and_removals() {
    let page = filled();
    assert_eq!(page.ask("POST", "/api/v1/folders/new/deep", &[], b"").status, 201);
    assert_eq!(page.ask("POST", "/api/v1/folders/new/deep", &[], b"").status, 409);
    let rename = |body: &str| {
        let json = [("content-type", "application/json")];
        page.ask("POST", "/api/v1/rename", &json, body.as_bytes())
    };
    let renamed = rename(r#"{"from": "/a.txt", "to": "/c.txt"}"#);
    assert_eq!((renamed.status, &renamed.json()["path"]), (200, &"/c.txt".into()));
    assert_eq!(
        rename(r#"{"from": "/a.txt", "to": "/c.txt", "overwrite": true}"#).status,
        404
    );
    assert_eq!(rename(r#"{"from": "/c.txt", "to": "/dir/b.bin"}"#).status, 409);
    assert_eq!(rename(r#"{"from": "/c.txt"}"#).status, 400);
    let plain = page.ask(
        "POST",
        "/api/v1/rename",
        &[],
        br#"{"from": "/c.txt", "to": "/d.txt"}"#,
    );
    assert_eq!(
        plain.status, 400,
        "without its content type JSON could come from a foreign form"
    );
    assert_eq!(page.ask("DELETE", "/api/v1/content/dir", &[], b"").status, 400);
    let removed = page.ask("DELETE", "/api/v1/content/dir?recursive", &[], b"");
    assert_eq!((removed.status, &removed.json()["files"]), (200, &1.into()));
    assert_eq!(page.ask("DELETE", "/api/v1/content/dir", &[], b"").status, 404);
}

#[test]
fn a_removal_can_insist_on_a_version() {
    let page = filled();
    let tag = page.get("/api/v1/content/a.txt").header("etag").to_owned();
    let remove = |tag: &str| {
        page.ask("DELETE", "/api/v1/content/a.txt", &[("if-match", tag)], b"")
            .status
    };
    assert_eq!(remove("\"other\""), 412);
    assert_eq!(remove(&tag), 200);
}

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let page = filled();
    for host in ["evil.example", "localhost.evil.example:8080", "192.0.2.1"] {
        let reply = page.ask("GET", "/api/v1/status", &[("host", host)], b"");
        assert_eq!(
            (reply.status, &reply.json()["kind"]),
            (403, &"denied".into()),
            "{host}"
        );
    }
    assert_eq!(
        page.ask("GET", "/", &[("host", "localhost:1234")], b"").status,
        200
    );
    let own = format!("http://{}", page.address);
    for (method, target) in [
        ("PUT", "/api/v1/content/new"),
        ("POST", "/api/v1/content/"),
        ("POST", "/api/v1/folders/new"),
        ("POST", "/api/v1/rename"),
        ("DELETE", "/api/v1/content/a.txt"),
    ] {
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let reply = page.ask(method, target, &[foreign], b"");
            assert_eq!(reply.status, 403, "{method} {target} {foreign:?}");
        }
    }
    assert_eq!(
        page.get("/api/v1/file?path=/a.txt").status,
        200,
        "nothing was removed"
    );
    assert_eq!(
        page.get("/api/v1/file?path=/new").status,
        404,
        "nothing was stored"
    );
    let reply = page.ask("PUT", "/api/v1/content/new", &[("origin", &own)], b"data");
    assert_eq!(reply.status, 201);
    let nameless = page
        .raw(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n", false)
        .unwrap();
    assert_eq!(nameless.status, 400);
}

#[test]
fn the_page_and_its_files_are_strict() {
    let page = filled();
    let reply = page.get("/");
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let policy = reply.header("content-security-policy");
    assert!(
        policy.contains("default-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(policy.contains("frame-ancestors 'none'"));
    let text = String::from_utf8(reply.body).unwrap();
    assert!(!text.contains("style=") && !text.contains("<script>") && !text.contains(" onclick"));
    let address = text
        .split('"')
        .find(|part| part.ends_with("/app.js"))
        .unwrap()
        .to_owned();
    let script = page.get(&address);
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert!(
        script.header("cache-control").contains("immutable"),
        "its address changes with it"
    );
    let packed = page.ask("GET", &address, &[("accept-encoding", "br, gzip;q=0.5")], b"");
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < script.body.len());
    let known = page.ask("GET", &address, &[("if-none-match", script.header("etag"))], b"");
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(
        page.get("/assets/0123456789abcdef/app.js").status,
        404,
        "another version's"
    );
    for missing in [
        "/assets/none.js",
        "/assets/../Cargo.toml",
        "/favicon.ico",
        "/api/v1/none",
        "/api/v2/status",
    ] {
        assert_eq!(page.get(missing).status, 404, "{missing}");
    }
    for (method, target) in [
        ("POST", "/"),
        ("PUT", "/api/v1/status"),
        ("GET", "/api/v1/rename"),
        ("PATCH", "/api/v1/content/a"),
    ] {
        let reply = page.ask(method, target, &[], b"");
        assert_eq!(reply.status, 405, "{method} {target}");
        assert!(!reply.header("allow").is_empty());
    }
}

#[test]
fn one_connection_too_many_is_told_so() {
    let page = Served::configured(|config| config.connections_max = 2, |_| {});
    let first = [page.connect(), page.connect()];
    // The third is accepted after the first two, so it is the one too many.
    let reply = page.raw(b"", false).unwrap();
    assert_eq!((reply.status, reply.whole), (503, true));
    assert_eq!(reply.json()["kind"], "busy");
    drop(first);
    // Their places are free again as soon as their ends are noticed.
    let free = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| page.get("/healthz").status)).ok();
    while free() != Some(200) {
        std::thread::yield_now();
    }
}

#[test]
fn slow_headers_and_garbage_end_their_connection_only() {
    let page = Served::configured(
        |config| config.header_timeout = std::time::Duration::from_millis(100),
        |fake| {
            fake.store("/a.txt", b"hello", "");
        },
    );
    let mut slow = page.connect();
    std::io::Write::write_all(&mut slow, b"GET / HT").unwrap();
    let reply = common::read_reply(&mut slow);
    assert!(
        reply.is_none_or(|reply| reply.status >= 400),
        "the connection has ended"
    );
    let garbage = page.raw(&[0xff; 5000], true);
    assert!(garbage.is_none_or(|reply| reply.status == 400));
    let many = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
        "x: y\r\n".repeat(100)
    );
    assert!(
        page.raw(many.as_bytes(), true)
            .is_none_or(|reply| reply.status == 431)
    );
    let large = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    let mut stream = page.connect();
    // The server may close while this is still being sent.
    let _ = std::io::Write::write_all(&mut stream, large.as_bytes());
    let reply = common::read_reply(&mut stream);
    assert!(
        reply.as_ref().is_none_or(|reply| reply.status == 431),
        "{reply:?}"
    );
    assert_eq!(page.get("/api/v1/content/a.txt").status, 200);
}

#[test]
fn machines_are_told_all_that_people_are() {
    let page = filled();
    assert_eq!(
        (page.get("/livez").status, page.get("/livez").text()),
        (200, "ok\n".to_owned())
    );
    let ready = page.get("/readyz?verbose");
    assert_eq!(ready.status, 200);
    assert!(
        ready.text().contains("[+] a volume takes blocks"),
        "{}",
        ready.text()
    );
    assert_eq!(page.get("/readyz").text(), "ready\n");
    let metrics = page.get("/metrics");
    assert!(
        metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let told = metrics.text();
    assert!(told.contains("blockyard_nameserver_files 3.0"), "{told}");
    assert!(!told.contains("onerror"), "no label names a file");
    assert_eq!(
        page.get("/api/v1/monitoring/grafana.json").json()["title"],
        "Blockyard"
    );
    assert!(page.get("/api/v1/monitoring/alerts.yml").json()["groups"].is_array());
}
