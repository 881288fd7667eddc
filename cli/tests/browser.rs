//! The page in a real browser, on a cluster of real processes: `web/tests/browser/run.mjs` does the looking.

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::Cluster;

/// The first of these programs that is installed.
fn find(programs: &[&str]) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&folders).collect();
    let mut places = programs
        .iter()
        .flat_map(|program| folders.iter().map(move |folder| folder.join(program)));
    places.find(|place| place.is_file())
}

/// The browser; or what is missing.
fn browser(scripts: &Path) -> Result<PathBuf, &'static str> {
    find(&["node"]).ok_or("node")?;
    if !scripts.join("node_modules").exists() {
        return Err("'npm ci' in web/tests/browser");
    }
    find(&["chromium", "chromium-browser", "google-chrome"]).ok_or("chromium")
}

#[test]
fn the_page_in_a_browser() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/tests/browser");
    let browser = match browser(&scripts) {
        Ok(browser) => browser,
        Err(lacking) => {
            assert!(
                std::env::var_os("BLOCKYARD_REQUIRE_ALL").is_none_or(|value| value != "1"),
                "{lacking} is needed for this test"
            );
            eprintln!("skipped: needs {lacking}");
            return;
        }
    };
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
        .env("BROWSER", browser)
        .env("PAGE", format!("http://{}", cluster.address(8080)))
        .env("SERVERS", serde_json::Value::from(servers).to_string())
        .env("PICTURES", &pictures)
        .status()
        .unwrap();
    assert!(status.success(), "see above");
}
