//! Uploads and downloads over real connections: ranges, conditions, forms, and bodies that break off.

mod common;

use std::io::Write as _;

use common::{BLOCK_BYTES, Reply, Served};

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

fn filled() -> Served {
    Served::start(|fake| {
        fake.store("/a.txt", b"hello", "");
        fake.store("/long.bin", &data(BLOCK_BYTES * 40 + 17), "");
        fake.store("/empty", b"", "");
        fake.store("/page.html", b"<script>alert(1)</script>", "text/html");
    })
}

fn ranged(page: &Served, path: &str, range: &str) -> Reply {
    page.ask(
        "GET",
        &format!("/api/v1/content/{path}"),
        &[("range", range)],
        b"",
    )
}

#[test]
fn downloads_are_whole_and_named() {
    let page = filled();
    let reply = page.get("/api/v1/content/long.bin");
    assert_eq!((reply.status, reply.whole), (200, true));
    assert_eq!(reply.body, data(BLOCK_BYTES * 40 + 17));
    assert_eq!(reply.header("accept-ranges"), "bytes");
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    let text = page.get("/api/v1/content/a.txt");
    assert_eq!(text.header("content-type"), "text/plain");
    assert!(text.header("content-disposition").contains("filename=\"a.txt\""));
    let empty = page.get("/api/v1/content/empty");
    assert_eq!((empty.status, empty.header("content-length")), (200, "0"));
    assert_eq!(page.get("/api/v1/content/none").status, 404);
    assert_eq!(page.get("/api/v1/content/").status, 400, "a folder has no bytes");
}

#[test]
fn stored_markup_gets_no_rights_of_the_page() {
    let reply = filled().get("/api/v1/content/page.html");
    assert_eq!(reply.header("content-type"), "text/html");
    assert!(reply.header("content-security-policy").starts_with("sandbox"));
    assert!(reply.header("content-disposition").starts_with("attachment"));
}

#[test]
fn ranges() {
    let page = filled();
    let all = data(BLOCK_BYTES * 40 + 17);
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=999-1000", 999, 1001),
        ("bytes=35000-", 35_000, all.len()),
        ("bytes=-17", all.len() - 17, all.len()),
        ("bytes=1-99999999", 1, all.len()),
    ] {
        let reply = ranged(&page, "long.bin", range);
        assert_eq!((reply.status, reply.whole), (206, true), "{range}");
        assert_eq!(reply.body, all[from..to], "{range}");
        let told = format!("bytes {from}-{}/{}", to - 1, all.len());
        assert_eq!(reply.header("content-range"), told);
    }
    let beyond = ranged(&page, "a.txt", "bytes=5-");
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, "bytes */5")
    );
    assert_eq!(ranged(&page, "empty", "bytes=0-").status, 416);
    assert_eq!(ranged(&page, "a.txt", "bytes=4-1").status, 200);
}

#[test]
fn tags_spare_what_is_known() {
    let page = filled();
    let tag = page.get("/api/v1/content/a.txt").header("etag").to_owned();
    let known = page.ask("GET", "/api/v1/content/a.txt", &[("if-none-match", &tag)], b"");
    assert_eq!(
        (known.status, known.body.len(), known.header("etag")),
        (304, 0, tag.as_str())
    );
    let resumed = [("range", "bytes=1-"), ("if-range", tag.as_str())];
    assert_eq!(
        page.ask("GET", "/api/v1/content/a.txt", &resumed, b"").body,
        b"ello"
    );
    assert_eq!(
        page.ask("PUT", "/api/v1/content/a.txt?overwrite", &[], b"other")
            .status,
        200
    );
    let changed = page.ask("GET", "/api/v1/content/a.txt", &[("if-none-match", &tag)], b"");
    assert_eq!(
        (changed.status, changed.body.as_slice()),
        (200, b"other".as_slice())
    );
    let resumed = page.ask("GET", "/api/v1/content/a.txt", &resumed, b"");
    assert_eq!(
        (resumed.status, resumed.body.as_slice()),
        (200, b"other".as_slice())
    );
}

#[test]
fn a_head_says_the_same_without_the_body() {
    let page = filled();
    for target in [
        "/api/v1/content/long.bin",
        "/api/v1/content/empty",
        "/api/v1/status",
        "/",
        "/none",
    ] {
        let get = page.get(target);
        let head = page.ask("HEAD", target, &[], b"");
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{target}");
        assert_eq!(
            head.header("content-length"),
            get.header("content-length"),
            "{target}"
        );
        assert_eq!(head.header("etag"), get.header("etag"), "{target}");
        assert_eq!(
            head.header("content-type"),
            get.header("content-type"),
            "{target}"
        );
    }
}

#[test]
fn single_blocks() {
    let page = filled();
    let file = page.get("/api/v1/file?path=/long.bin&from=40").json();
    let id = file["block_list"][0]["id"].as_str().unwrap().to_owned();
    let reply = page.get(&format!("/api/v1/blocks/{id}"));
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, &data(BLOCK_BYTES * 40 + 17)[BLOCK_BYTES * 40..])
    );
    assert_eq!(reply.header("content-length"), "17");
    assert_eq!(page.get("/api/v1/blocks/00000000000000ff").status, 404);
    for bad in ["xyz", "ff", "+0000000000000ff"] {
        assert_eq!(page.get(&format!("/api/v1/blocks/{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn what_cannot_be_read_says_so_or_breaks_off() {
    let page = Served::start(|fake| {
        fake.store("/lost", &data(3000), "");
        fake.store("/breaks", &data(20_000), "");
    });
    let lost = page.get("/api/v1/content/lost");
    assert_eq!((lost.status, &lost.json()["kind"]), (503, &"retry".into()));
    assert_eq!(lost.header("retry-after"), "2");
    let id = page.get("/api/v1/file?path=/lost").json()["block_list"][0]["id"].to_string();
    assert_eq!(
        page.get(&format!("/api/v1/blocks/{}", id.trim_matches('"')))
            .status,
        503
    );
    let request = format!(
        "GET /api/v1/content/breaks HTTP/1.1\r\nhost: {}\r\n\r\n",
        page.address
    );
    let breaks = page.raw(request.as_bytes(), true);
    assert!(
        breaks.is_none_or(|reply| !reply.whole),
        "never a shorter file that looks whole"
    );
    assert_eq!(ranged(&page, "breaks", "bytes=0-5999").body, data(20_000)[..6000]);
}

#[test]
fn uploads_and_what_stands_in_their_way() {
    let page = filled();
    let body = data(300_000);
    let reply = page.ask("PUT", "/api/v1/content/new/up.bin", &[], &body);
    assert_eq!((reply.status, &reply.json()["size"]), (201, &300_000.into()));
    assert_eq!(page.get("/api/v1/content/new/up.bin").body, body);
    assert_eq!(
        reply.header("etag"),
        page.get("/api/v1/content/new/up.bin").header("etag")
    );
    let again = page.ask("PUT", "/api/v1/content/new/up.bin", &[], b"other");
    assert_eq!((again.status, &again.json()["kind"]), (409, &"exists".into()));
    assert_eq!(
        page.ask("PUT", "/api/v1/content/new/up.bin?overwrite=true", &[], b"other")
            .status,
        200
    );
    assert_eq!(page.get("/api/v1/content/new/up.bin").body, b"other");
    assert_eq!(page.ask("PUT", "/api/v1/content/full", &[], &body).status, 507);
    assert_eq!(page.ask("PUT", "/api/v1/content/nothing", &[], b"").status, 201);
    let typed = [("content-type", "image/x-own")];
    assert_eq!(page.ask("PUT", "/api/v1/content/typed", &typed, b"x").status, 201);
    assert_eq!(
        page.get("/api/v1/content/typed").header("content-type"),
        "image/x-own"
    );
}

#[test]
fn conditional_uploads() {
    let page = filled();
    let put = |headers: &[(&str, &str)]| page.ask("PUT", "/api/v1/content/a.txt", headers, b"new").status;
    assert_eq!(put(&[("if-none-match", "*")]), 412);
    assert_eq!(put(&[("if-match", "\"other\"")]), 412);
    let tag = page.get("/api/v1/content/a.txt").header("etag").to_owned();
    assert_eq!(put(&[("if-match", &tag)]), 200);
    assert_eq!(
        put(&[("if-match", &tag)]),
        412,
        "that version has just been replaced"
    );
    let fresh = page.ask("PUT", "/api/v1/content/fresh", &[("if-none-match", "*")], b"x");
    assert_eq!(fresh.status, 201);
}

#[test]
fn a_body_that_breaks_off_stores_nothing() {
    let page = filled();
    let head = format!("PUT /api/v1/content/half HTTP/1.1\r\nhost: {}\r\n", page.address);
    let short = format!("{head}content-length: 100\r\n\r\nonly this");
    page.raw(short.as_bytes(), true);
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    page.raw(chunked.as_bytes(), true);
    let garbled = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhelloXX");
    page.raw(garbled.as_bytes(), true);
    let both = format!("{head}content-length: 3\r\ncontent-length: 5\r\n\r\nhello");
    assert!(
        page.raw(both.as_bytes(), true)
            .is_none_or(|reply| reply.status == 400)
    );
    assert_eq!(page.get("/api/v1/content/half").status, 404);
    let whole =
        format!("{head}connection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(page.raw(whole.as_bytes(), false).unwrap().status, 201);
    assert_eq!(page.get("/api/v1/content/half").body, b"hello");
}

#[test]
fn a_body_longer_than_declared_ends_at_its_declared_length() {
    let page = filled();
    let request = format!(
        "PUT /api/v1/content/long HTTP/1.1\r\nhost: {}\r\ncontent-length: 5\r\n\r\nhello and more",
        page.address
    );
    assert_eq!(page.raw(request.as_bytes(), true).unwrap().status, 201);
    assert_eq!(page.get("/api/v1/content/long").body, b"hello");
}

#[test]
fn a_silent_sender_is_given_up() {
    let page = Served::configured(
        |config| config.stall_timeout = std::time::Duration::from_millis(100),
        |_| {},
    );
    let mut stream = page.connect();
    let request = format!(
        "PUT /api/v1/content/silent HTTP/1.1\r\nhost: {}\r\ncontent-length: 100\r\n\r\nhe",
        page.address
    );
    stream.write_all(request.as_bytes()).unwrap();
    let reply = common::read_reply(&mut stream).unwrap();
    assert_eq!(reply.status, 400);
    assert!(
        reply.json()["message"]
            .as_str()
            .unwrap()
            .contains("nothing was stored")
    );
    assert_eq!(page.get("/api/v1/content/silent").status, 404);
}

fn form(parts: &[(&str, &str)], closed: bool) -> Vec<u8> {
    let mut body = String::new();
    for (name, content) in parts {
        body.push_str(&format!(
            "--yard\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}"
        ));
        if closed {
            body.push_str("\r\n");
        }
    }
    if closed {
        body.push_str("--yard--\r\n");
    }
    body.into_bytes()
}

#[test]
fn forms_store_each_of_their_files() {
    let page = filled();
    let kind = [("content-type", "multipart/form-data; boundary=yard")];
    let post = |body: &[u8]| page.ask("POST", "/api/v1/content/in/here", &kind, body);
    let reply = post(&form(&[("one", "first"), ("two", "second")], true));
    assert_eq!(
        (reply.status, &reply.json()["files"][1]["path"]),
        (201, &"/in/here/two".into())
    );
    assert_eq!(page.get("/api/v1/content/in/here/one").body, b"first");
    assert_eq!(post(&form(&[("one", "again")], true)).status, 409);
    assert_eq!(post(&form(&[("../up", "x")], true)).status, 400);
    assert_eq!(post(&form(&[("half", "no end")], false)).status, 400);
    assert_eq!(page.get("/api/v1/content/in/here/half").status, 404);
    assert_eq!(page.ask("POST", "/api/v1/content/in", &[], b"plain").status, 400);
}
