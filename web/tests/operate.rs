//! What an operator does through the page, on a real cluster.

mod common;

use common::{Cluster, MIB, data};
use serde_json::{Value, json};

fn post(cluster: &Cluster, target: &str, body: &Value) -> (u16, Value) {
    let headers = [("content-type", "application/json")];
    let reply = cluster
        .page
        .ask("POST", target, &headers, body.to_string().as_bytes());
    (reply.status, reply.json())
}

fn put(cluster: &Cluster, path: &str, bytes: usize) {
    let target = format!("/api/v1/content{path}");
    assert_eq!(cluster.page.ask("PUT", &target, &[], &data(bytes)).status, 201);
}

#[test]
fn volumes_are_drained_and_serve_again() {
    let cluster = Cluster::start(3);
    put(&cluster, "/a.bin", 9 * MIB);
    let address = cluster.dataservers[0].address().to_owned();
    let of_server = |status: &Value| -> Value {
        let volumes = status["volumes"].as_object().unwrap();
        volumes
            .values()
            .find(|volume| volume["server"] == address.as_str())
            .unwrap()
            .clone()
    };
    let (code, told) = post(
        &cluster,
        "/api/v1/duty",
        &json!({"servers": [address], "duty": "draining"}),
    );
    assert_eq!((code, &told["volumes"]), (200, &json!(1)));
    let drained = cluster.wait(|status| of_server(status)["duty"] == "drained");
    assert_eq!(of_server(&drained)["blocks"], 0);
    let looked = |kind: &str| cluster.page.get("/api/v1/timeline").text().contains(kind);
    while !looked("volume_drained") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (code, _) = post(
        &cluster,
        "/api/v1/duty",
        &json!({"servers": [address], "duty": "serving"}),
    );
    assert_eq!(code, 200);
    let hours = json!({"servers": [address], "duty": "maintenance", "hours": 0.5});
    assert_eq!(post(&cluster, "/api/v1/duty", &hours).0, 200);
    let status = cluster.wait(|status| of_server(status)["duty"] == "maintenance");
    assert!(of_server(&status)["until_unix_ms"].as_u64().unwrap() > 0);

    let kinds = || -> Vec<String> {
        let told = cluster.page.get("/api/v1/timeline").json();
        let events = told["events"].as_array().unwrap().iter();
        events
            .map(|event| event["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(kinds()[0], "nameserver_started");
    assert_eq!(kinds().iter().filter(|kind| *kind == "server_joined").count(), 3);
    // It looks several times a second: what lasts is seen, and a short drain may be over before it is.
    while !looked("volume_maintenance") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    for (wrong, code) in [
        (json!({"duty": "draining"}), 400),
        (json!({"servers": ["nowhere:1"], "duty": "draining"}), 404),
        (json!({"servers": [address], "duty": "sleeping"}), 400),
        (
            json!({"servers": [address], "duty": "maintenance", "hours": -1}),
            400,
        ),
        (json!({"volumes": ["x"], "duty": "serving"}), 400),
        (json!({"servers": [address], "duty": "serving", "more": 1}), 400),
    ] {
        assert_eq!(post(&cluster, "/api/v1/duty", &wrong).0, code, "{wrong}");
    }
}

#[test]
fn repair_and_scrub_obey() {
    let cluster = Cluster::start(2);
    let tune = |body: Value| post(&cluster, "/api/v1/repair", &body).0;
    assert_eq!(tune(json!({"paused": true, "limit_bytes_per_s": 7 << 20})), 200);
    assert_eq!(tune(json!({"balance_off": true})), 200);
    let repair = cluster.page.get("/api/v1/status").json()["repair"].clone();
    assert_eq!(
        (
            &repair["paused"],
            &repair["limit_bytes_per_s"],
            &repair["balance_off"]
        ),
        (&json!(true), &json!(7 << 20), &json!(true)),
        "what is not named stays"
    );
    assert!(repair["held"].as_str().unwrap().contains("paused"));
    assert_eq!(tune(json!({"paused": "yes"})), 400);
    let paused = |status: &Value| {
        let volumes = status["volumes"].as_object().unwrap();
        volumes
            .values()
            .all(|volume| volume["scrub"]["state"] == "paused")
    };
    assert_eq!(post(&cluster, "/api/v1/scrub", &json!({"order": "pause"})).0, 200);
    cluster.wait(paused);
    assert_eq!(post(&cluster, "/api/v1/scrub", &json!({"order": "start"})).0, 200);
    cluster.wait(|status| !paused(status));
    assert_eq!(post(&cluster, "/api/v1/scrub", &json!({"order": "stop"})).0, 400);
}

#[test]
fn what_is_removed_comes_back_from_the_trash() {
    let cluster = Cluster::start(2);
    put(&cluster, "/folder/a.bin", 5 * MIB);
    put(&cluster, "/b.bin", 10);
    let removed = cluster
        .page
        .ask("DELETE", "/api/v1/content/folder?recursive", &[], b"")
        .json();
    let entry = removed["entry"].as_str().unwrap().to_owned();
    let trash = cluster.page.get("/api/v1/trash").json();
    assert_eq!(trash["entries"][0]["entry"], entry.as_str());
    assert_eq!(trash["entries"][0]["path"], "/folder");
    assert_eq!(trash["entries"][0]["files"], 1);
    let (code, file) = post(&cluster, &format!("/api/v1/trash/{entry}/restore"), &json!({}));
    assert_eq!((code, file["path"].as_str()), (200, Some("/folder")));
    let back = cluster.page.get("/api/v1/content/folder/a.bin");
    assert!(back.body == data(5 * MIB));

    let (code, told) = post(
        &cluster,
        "/api/v1/replication",
        &json!({"path": "/folder", "recursive": true, "replication": 1}),
    );
    assert_eq!((code, &told["files"]), (200, &json!(1)));
    assert_eq!(
        cluster.page.get("/api/v1/file?path=/folder/a.bin").json()["replication"],
        1
    );

    cluster.page.ask("DELETE", "/api/v1/content/b.bin", &[], b"");
    let emptied = cluster.page.ask("DELETE", "/api/v1/trash", &[], b"");
    assert_eq!((emptied.status, &emptied.json()["files"]), (200, &json!(1)));
    assert_eq!(cluster.page.get("/api/v1/trash").json()["entries"], json!([]));
    assert_eq!(post(&cluster, "/api/v1/trash/x/restore", &json!({})).0, 400);
    assert_eq!(post(&cluster, "/api/v1/trash/99/restore", &json!({})).0, 404);
}

#[test]
fn the_map_of_blocks_and_what_a_loss_would_mean() {
    let cluster = Cluster::start(3);
    for at in 0..6 {
        put(&cluster, &format!("/{at}.bin"), 9 * MIB);
    }
    let map = cluster.page.get("/api/v1/blockmap?cells=4").json();
    assert_eq!(map["blocks"], 18);
    let cells = map["cells"].as_array().unwrap();
    assert!((2..=4).contains(&cells.len()), "{map}");
    let sum = |name: &str| cells.iter().map(|cell| cell[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("count"), sum("lost"), sum("under")), (18, 0, 0));
    assert!(
        cells
            .iter()
            .all(|cell| cell["verified_unix_ms"].as_u64() > Some(0)),
        "written just now"
    );
    for _ in 0..3 {
        cluster.page.get("/api/v1/content/0.bin");
    }
    let warm = cluster.page.get("/api/v1/blockmap?cells=4").json();
    let heat = |at: usize| warm["cells"][at]["heat"].as_u64().unwrap();
    assert!(heat(0) >= 3 && heat(cells.len() - 1) == 0, "{warm}");
    let (from, to) = (
        cells[1]["from"].as_str().unwrap(),
        cells[1]["to"].as_str().unwrap(),
    );
    let part = cluster
        .page
        .get(&format!("/api/v1/blockmap?from={from}&to={to}"))
        .json();
    assert_eq!(part["blocks"], cells[1]["count"]);
    let run = cluster
        .page
        .get(&format!("/api/v1/blocks?from={from}&to={to}&limit=256"))
        .json();
    let blocks = run["blocks"].as_array().unwrap();
    assert_eq!(blocks.len() as u64, part["blocks"].as_u64().unwrap());
    assert!(
        blocks
            .iter()
            .all(|block| block["path"].as_str().unwrap().ends_with(".bin"))
    );
    assert_eq!(blocks[0]["replicas"].as_array().unwrap().len(), 2);
    let after = blocks[0]["id"].as_str().unwrap();
    let rest = cluster
        .page
        .get(&format!("/api/v1/blocks?after={after}&to={to}&limit=256"))
        .json();
    assert_eq!(rest["blocks"].as_array().unwrap().len(), blocks.len() - 1);
    assert_eq!(cluster.page.get("/api/v1/blockmap?from=zz").status, 400);

    let one = cluster.page.get("/api/v1/whatif?zone=zone0").json();
    assert_eq!(
        (&one["volumes"], &one["lost"]["blocks"]),
        (&json!(1), &json!(0)),
        "{one}"
    );
    let lose = one["lose_copy"]["blocks"].as_u64().unwrap();
    assert!(lose > 0 && one["replicas"] == lose, "{one}");
    assert!(one["needed_bytes"].as_u64() > Some(0) && one["room_bytes"].as_u64() > Some(0));
    let [first, second] = [0, 1].map(|at| cluster.dataservers[at].address().to_owned());
    let two = cluster
        .page
        .get(&format!("/api/v1/whatif?server={first}&server={second}"))
        .json();
    let lost = two["lost"]["blocks"].as_u64().unwrap();
    assert!(lost > 0, "blocks whose both replicas are there: {two}");
    assert_eq!(lost + two["lose_copy"]["blocks"].as_u64().unwrap(), 18);
    let named = two["lost"]["first"].as_array().unwrap();
    assert_eq!(
        named
            .iter()
            .map(|file| file["blocks"].as_u64().unwrap())
            .sum::<u64>(),
        lost
    );
    assert_eq!(cluster.page.get("/api/v1/whatif?server=nowhere:1").status, 404);
}
