//! Bad input in every field that takes a name: refused with a fitting status, and nothing is stored by halves.

mod common;

use common::{Cluster, MIB, data};
use serde_json::{Value, json};

fn nasty() -> Vec<String> {
    let mut names: Vec<String> = [
        "/a/../b",
        "/..",
        "/./x",
        "/a\0b",
        "/line\nbreak",
        "/tab\tin",
        "",
        "/",
    ]
    .map(str::to_owned)
    .into();
    names.push(format!("/{}", "n".repeat(4096)));
    names.push("/n".repeat(2500));
    names
}

fn post(cluster: &Cluster, target: &str, body: &Value) -> u16 {
    let headers = [("content-type", "application/json")];
    cluster
        .page
        .ask("POST", target, &headers, body.to_string().as_bytes())
        .status
}

#[test]
fn names_that_can_t_be_are_refused_wherever_they_stand() {
    let cluster = Cluster::start(2);
    let page = &cluster.page;
    assert_eq!(page.ask("PUT", "/api/v1/content/kept", &[], b"kept").status, 201);
    page.ask("PUT", "/api/v1/content/gone", &[], b"gone");
    let entry = page.ask("DELETE", "/api/v1/content/gone", &[], b"").json()["entry"]
        .as_str()
        .unwrap()
        .to_owned();
    for name in nasty() {
        let told = name.escape_default().to_string();
        let told = &told[..told.len().min(40)];
        let begun = post(&cluster, "/api/v1/uploads", &json!({"path": name, "size": 1}));
        assert!([400, 409].contains(&begun), "an upload as {told}: {begun}");
        let renamed = post(&cluster, "/api/v1/rename", &json!({"from": "/kept", "to": name}));
        assert!([400, 409].contains(&renamed), "renamed to {told}: {renamed}");
        // Nothing said means where it was: that is no bad name.
        if !name.is_empty() {
            let target = format!("/api/v1/trash/{entry}/restore");
            let restored = post(&cluster, &target, &json!({"to": name}));
            assert!([400, 409].contains(&restored), "restored to {told}: {restored}");
        }
        let copies = json!({"path": name, "replication": 1});
        let copies = post(&cluster, "/api/v1/replication", &copies);
        assert!([400, 404].contains(&copies), "copies of {told}: {copies}");
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"path\": 7}",
        "{\"path\": \"/x\", \"size\": -1}",
    ] {
        let headers = [("content-type", "application/json")];
        let reply = page.ask("POST", "/api/v1/uploads", &headers, body.as_bytes());
        assert_eq!(
            (reply.status, &reply.json()["kind"]),
            (400, &json!("invalid")),
            "{body}"
        );
    }
    let plain = page.ask(
        "POST",
        "/api/v1/uploads",
        &[("content-type", "text/plain")],
        b"{}",
    );
    assert_eq!(plain.status, 400, "another site's form could send that");
    let huge = format!("{{\"path\": \"/{}\"}}", "x".repeat(1 << 20));
    let headers = [("content-type", "application/json")];
    assert_eq!(
        page.ask("POST", "/api/v1/uploads", &headers, huge.as_bytes())
            .status,
        400
    );
    for (copies, wanted) in [(0, 400), (9, 400), (8, 200)] {
        let status = post(
            &cluster,
            "/api/v1/replication",
            &json!({"path": "/kept", "replication": copies}),
        );
        assert_eq!(status, wanted, "{copies} copies");
    }
    let status = page.get("/api/v1/status").json();
    assert_eq!((&status["files"], &status["uploads"]), (&json!(1), &json!(0)));
}

#[test]
fn numbers_and_ids_that_can_t_be_are_refused() {
    let cluster = Cluster::start(2);
    for target in [
        "/api/v1/trash?after=x",
        "/api/v1/trash?after=-1",
        "/api/v1/blocks?after=1",
        "/api/v1/blocks?from=ffffffffffffffff&to=0000000000000000",
        "/api/v1/blockmap?cells=many",
        "/api/v1/whatif?volume=1",
        "/api/v1/timeline?before=yesterday",
        "/api/v1/history?window=%00",
        "/api/v1/files?path=%2F..&search=x",
        "/api/v1/files?path=%FF",
        "/api/v1/archive/a%2Fb",
        "/api/v1/archive/a/../b",
        "/api/v1/uploads/%00",
        "/api/v1/content/kept?preview=perhaps",
    ] {
        let reply = cluster.page.get(target);
        assert_eq!(reply.status, 400, "{target}");
        assert_eq!(reply.json()["kind"], "invalid", "{target}");
    }
}

#[test]
fn a_block_that_is_cut_short_or_too_long_leaves_nothing() {
    let cluster = Cluster::start(2);
    let page = &cluster.page;
    let opened = page.ask(
        "POST",
        "/api/v1/uploads",
        &[("content-type", "application/json")],
        json!({"path": "/half", "size": 4 * MIB}).to_string().as_bytes(),
    );
    let id = opened.json()["id"].as_str().unwrap().to_owned();
    let target = format!("/api/v1/uploads/{id}/blocks/0");
    let head = format!(
        "PUT {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
        page.address,
        4 * MIB
    );
    page.raw(&[head.into_bytes(), data(MIB)].concat(), true);
    // Longer than it says: the rest is no request, and the connection ends.
    let head = format!(
        "PUT {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: 3\r\n\r\nabcdef",
        page.address
    );
    let reply = page.raw(head.as_bytes(), true).unwrap();
    assert_eq!(
        reply.status, 200,
        "three bytes were announced, and three are stored"
    );
    let there = page.get(&format!("/api/v1/uploads/{id}")).json();
    assert_eq!(there["blocks"].as_array().unwrap().len(), 1);
    assert_eq!(there["blocks"][0]["length"], 3);
    assert_eq!(page.get("/api/v1/file?path=/half").status, 404);
    assert_eq!(
        page.ask("DELETE", &format!("/api/v1/uploads/{id}"), &[], b"")
            .status,
        204
    );
    cluster.wait(|status| status["uploads"] == 0);
}
