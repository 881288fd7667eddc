//! The page of a real cluster: a nameserver with its page and two dataservers, asked over HTTP.

mod common;

use common::{Cluster, MIB, data};
#[test]
fn files_go_through_the_page_and_come_back() {
    let cluster = Cluster::start(2);
    let page = &cluster.page;
    for length in [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 13 * MIB] {
        let content = data(length);
        let target = format!("/api/v1/content/sizes/{length}.bin");
        let stored = page.ask("PUT", &target, &[], &content);
        assert_eq!(stored.status, 201, "{}", String::from_utf8_lossy(&stored.body));
        let back = page.get(&target);
        assert_eq!(
            (back.status, back.whole, back.body == content),
            (200, true, true),
            "{length} bytes"
        );
        assert_eq!(back.header("etag"), stored.header("etag"));
        assert_eq!(stored.json()["degraded_blocks"], 0);
    }
    let range = [("range", "bytes=4194300-8388610")];
    let part = page.ask(
        "GET",
        &format!("/api/v1/content/sizes/{}.bin", 13 * MIB),
        &range,
        b"",
    );
    assert_eq!(
        (part.status, part.body == data(13 * MIB)[4_194_300..=8_388_610]),
        (206, true)
    );

    let file = page
        .get(&format!("/api/v1/file?path=/sizes/{}.bin", 13 * MIB))
        .json();
    assert_eq!(file["blocks"], 4);
    let blocks = file["block_list"].as_array().unwrap();
    let servers: Vec<&str> = cluster
        .dataservers
        .iter()
        .map(|server| server.address())
        .collect();
    for block in blocks {
        let replicas = block["replicas"].as_array().unwrap();
        assert_eq!(replicas.len(), 2, "{block}");
        assert!(
            replicas
                .iter()
                .all(|replica| servers.contains(&replica["server"].as_str().unwrap()))
        );
    }
    let last = blocks[3]["id"].as_str().unwrap();
    assert_eq!(
        page.get(&format!("/api/v1/blocks/{last}")).body,
        data(13 * MIB)[12 * MIB..]
    );
    let volume = blocks[0]["replicas"][0]["volume"].as_str().unwrap();
    let held = page
        .get(&format!("/api/v1/volumes/{volume}/blocks?limit=1000"))
        .json();
    assert!(
        held["blocks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|block| block["id"] == last)
    );
}

#[test]
fn names_change_and_half_a_body_leaves_nothing() {
    let cluster = Cluster::start(2);
    let page = &cluster.page;
    assert_eq!(
        page.ask("PUT", "/api/v1/content/a%20b.txt", &[], b"first").status,
        201
    );
    assert_eq!(
        page.ask("PUT", "/api/v1/content/a%20b.txt", &[], b"second")
            .status,
        409
    );
    assert_eq!(
        page.ask("PUT", "/api/v1/content/a%20b.txt?overwrite", &[], b"second")
            .status,
        200
    );
    assert_eq!(page.get("/api/v1/content/a%20b.txt").body, b"second");
    let json = [("content-type", "application/json")];
    let rename = br#"{"from": "/a b.txt", "to": "/c.txt"}"#;
    assert_eq!(page.ask("POST", "/api/v1/rename", &json, rename).status, 200);
    assert_eq!(page.ask("POST", "/api/v1/folders/new/deep", &[], b"").status, 201);
    assert_eq!(page.get("/api/v1/file?path=/new/deep").json()["directory"], true);
    for bad in ["a/../b", "a%00b", "a%0Ab", "a%2Fb"] {
        assert_eq!(
            page.ask("PUT", &format!("/api/v1/content/{bad}"), &[], b"x")
                .status,
            400,
            "{bad}"
        );
    }
    let long = format!("/api/v1/content/{}", "n/".repeat(2500));
    assert_eq!(page.ask("PUT", &long, &[], b"x").status, 400);
    assert_eq!(
        page.ask("DELETE", "/api/v1/content/new", &[], b"").status,
        400,
        "not empty"
    );
    assert_eq!(
        page.ask("DELETE", "/api/v1/content/new?recursive", &[], b"")
            .status,
        200
    );
    assert_eq!(
        page.ask("DELETE", "/api/v1/content/?recursive", &[], b"").status,
        400,
        "not the root"
    );

    let half = format!(
        "PUT /api/v1/content/half HTTP/1.1\r\nhost: {}\r\ncontent-length: 9000000\r\n\r\n",
        page.address
    );
    page.raw(&[half.into_bytes(), data(5 * MIB)].concat(), true);
    cluster.wait(|status| status["uploads"] == 0);
    assert_eq!(page.get("/api/v1/content/half").status, 404);
    assert_eq!(page.get("/api/v1/content/c.txt").body, b"second");
    assert_eq!(page.get("/api/v1/status").json()["files"], 1);
}
