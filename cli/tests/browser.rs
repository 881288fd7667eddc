//! The page in a real browser, on a cluster of real processes: `web/tests/browser/run.mjs` does the looking.

mod harness;

use std::path::Path;
use std::process::{Command, Stdio};

use harness::Cluster;

/// Whether a program answers to `--version`.
fn is_there(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// What is missing for it, if anything.
fn lacking(scripts: &Path) -> Option<&'static str> {
    if !is_there("node") {
        return Some("node");
    }
    if !["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .any(is_there)
    {
        return Some("chromium");
    }
    (!scripts.join("node_modules").exists()).then_some("'npm ci' in web/tests/browser")
}

#[test]
fn the_page_in_a_browser() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/tests/browser");
    if let Some(lacking) = lacking(&scripts) {
        assert!(
            std::env::var_os("BLOCKYARD_REQUIRE_ALL").is_none_or(|value| value != "1"),
            "{lacking} is needed for this test"
        );
        eprintln!("skipped: needs {lacking}");
        return;
    }
    let cluster = Cluster::start(4);
    let servers: Vec<_> = (0..4)
        .map(|at| {
            let pid = cluster.dataservers[at].as_ref().unwrap().pid();
            serde_json::json!({"address": cluster.server_address(at), "pid": pid})
        })
        .collect();
    // Kept where they are asked for, else gone with the rest.
    let pictures =
        std::env::var_os("BLOCKYARD_PICTURES").map_or_else(|| cluster.path("pictures"), Into::into);
    std::fs::create_dir_all(&pictures).unwrap();
    let status = Command::new("node")
        .arg(scripts.join("run.mjs"))
        .env("PAGE", format!("http://{}", cluster.address(8080)))
        .env("SERVERS", serde_json::Value::from(servers).to_string())
        .env("PICTURES", &pictures)
        .status()
        .unwrap();
    assert!(status.success(), "see above");
}
