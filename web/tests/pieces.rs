//! Uploads block by block, on a real cluster: any order, a break in the middle, wrong bytes.

mod common;

use blockyard_engine::checksum;
use common::{Cluster, MIB, Reply, data};
use serde_json::{Value, json};

const BLOCK: usize = 4 * MIB;

fn post(cluster: &Cluster, target: &str, body: &Value) -> Reply {
    let headers = [("content-type", "application/json")];
    cluster
        .page
        .ask("POST", target, &headers, body.to_string().as_bytes())
}

fn crc(data: &[u8]) -> String {
    format!("{:08x}", checksum::crc(data))
}

fn open(cluster: &Cluster, path: &str, size: usize) -> String {
    let opened = post(cluster, "/api/v1/uploads", &json!({"path": path, "size": size}));
    assert_eq!(opened.status, 201, "{}", opened.text());
    assert_eq!(opened.json()["block_bytes"], BLOCK);
    opened.json()["id"].as_str().unwrap().to_owned()
}

fn store(cluster: &Cluster, id: &str, index: usize, block: &[u8]) -> Reply {
    let target = format!("/api/v1/uploads/{id}/blocks/{index}");
    let sum = crc(block);
    cluster.page.ask("PUT", &target, &[("x-crc32c", &sum)], block)
}

fn commit(cluster: &Cluster, id: &str, content: &[u8]) -> Reply {
    let body = json!({"size": content.len(), "crc32c": crc(content)});
    post(cluster, &format!("/api/v1/uploads/{id}/commit"), &body)
}

#[test]
fn an_upload_goes_on_with_the_blocks_that_are_missing() {
    let cluster = Cluster::start(2);
    let content = data(3 * BLOCK + 77);
    let blocks: Vec<&[u8]> = content.chunks(BLOCK).collect();
    let id = open(&cluster, "/new/file.bin", content.len());
    for index in [3, 0] {
        let stored = store(&cluster, &id, index, blocks[index]);
        assert_eq!(stored.status, 200, "{}", stored.text());
        assert_eq!(stored.json()["crc32c"], crc(blocks[index]));
    }
    let early = commit(&cluster, &id, &content);
    assert_eq!(early.status, 400, "blocks are missing: {}", early.text());
    assert_eq!(cluster.page.get("/api/v1/file?path=/new/file.bin").status, 404);

    // Whoever comes back asks which are there.
    let there = cluster.page.get(&format!("/api/v1/uploads/{id}")).json();
    let indexes: Vec<u64> = there["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["index"].as_u64().unwrap())
        .collect();
    assert_eq!(
        (there["path"].as_str(), indexes),
        (Some("/new/file.bin"), vec![0, 3])
    );
    assert_eq!(
        store(&cluster, &id, 0, blocks[0]).status,
        200,
        "again, its answer was lost"
    );
    assert_eq!(
        store(&cluster, &id, 0, blocks[1]).status,
        400,
        "another block is there"
    );
    for index in [1, 2] {
        assert_eq!(store(&cluster, &id, index, blocks[index]).status, 200);
    }
    let wrong = json!({"size": content.len(), "crc32c": "00000000"});
    let refused = post(&cluster, &format!("/api/v1/uploads/{id}/commit"), &wrong);
    assert_eq!(refused.status, 500, "{}", refused.text());
    let published = commit(&cluster, &id, &content);
    assert_eq!(published.status, 201, "{}", published.text());
    assert_eq!(published.json()["crc32c"], crc(&content));
    assert!(cluster.page.get("/api/v1/content/new/file.bin").body == content);
    let status = cluster.page.get("/api/v1/status").json();
    let written: u64 = status["volumes"]
        .as_object()
        .unwrap()
        .values()
        .map(|v| v["write_bytes"].as_u64().unwrap())
        .sum();
    assert!(
        written <= 2 * content.len() as u64,
        "each block was written once to each replica: {written}"
    );
    assert_eq!(
        cluster.page.get(&format!("/api/v1/uploads/{id}")).status,
        410,
        "it is over"
    );
}

#[test]
fn what_can_t_be_is_refused_and_what_is_given_up_goes() {
    let cluster = Cluster::start(2);
    let id = open(&cluster, "/a.bin", 10);
    let target = format!("/api/v1/uploads/{id}/blocks/0");
    let torn = cluster
        .page
        .ask("PUT", &target, &[("x-crc32c", "12345678")], b"0123456789");
    assert_eq!((torn.status, &torn.json()["kind"]), (422, &json!("corrupt")));
    assert_eq!(cluster.page.ask("PUT", &target, &[], b"").status, 400);
    let long = vec![1; BLOCK + 1];
    assert_eq!(cluster.page.ask("PUT", &target, &[], &long).status, 400);
    for wrong in ["zz", "", "-1", "99999999999999999999"] {
        let status = cluster.page.get(&format!("/api/v1/uploads/{wrong}")).status;
        assert!([400, 404].contains(&status), "{wrong}: {status}");
    }
    assert_eq!(cluster.page.get("/api/v1/uploads/12345").status, 410);
    assert_eq!(
        store(&cluster, &id, 1 << 24, b"x").status,
        400,
        "beyond the longest file"
    );

    assert_eq!(store(&cluster, &id, 0, b"0123456789").status, 200);
    let other = cluster
        .page
        .ask("PUT", "/api/v1/content/a.bin", &[], b"was quicker");
    assert_eq!(other.status, 201);
    assert_eq!(commit(&cluster, &id, b"0123456789").status, 409);
    let again = post(&cluster, "/api/v1/uploads", &json!({"path": "/a.bin", "size": 1}));
    assert_eq!(again.status, 409);
    let target = format!("/api/v1/uploads/{id}");
    assert_eq!(cluster.page.ask("DELETE", &target, &[], b"").status, 204);
    assert_eq!(cluster.page.get(&target).status, 410);
    assert_eq!(cluster.page.get("/api/v1/status").json()["uploads"], 0);
    assert_eq!(cluster.page.get("/api/v1/content/a.bin").body, b"was quicker");

    let id = open(&cluster, "/empty", 0);
    assert_eq!(commit(&cluster, &id, b"").status, 201);
    assert_eq!(cluster.page.get("/api/v1/file?path=/empty").json()["size"], 0);
}
