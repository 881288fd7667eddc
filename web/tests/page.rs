//! The page in a real browser: headless Chromium loads each view and what it shows is read from its DOM.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Fake, Served, volume};

const MARKUP: &str = "<img src=x onerror=alert(1)>";
const MARKUP_AS_TEXT: &str = "&lt;img src=x onerror=alert(1)&gt;";

/// Chromium, or `None` where it is not installed; then the reason is told.
fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            let version = Command::new(name)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            version.is_ok_and(|status| status.success())
        });
    if found.is_none() {
        assert!(
            std::env::var_os("BLOCKYARD_REQUIRE_ALL").is_none_or(|value| value != "1"),
            "chromium is needed for this test and is not installed"
        );
        eprintln!("skipped: needs chromium");
    }
    found
}

/// Runs the browser once on a view and gives back what it prints.
fn browse(chromium: &str, address: &str, options: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--virtual-time-budget=5000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(options)
        .arg(address)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn fill(fake: &Fake) {
    fake.store(&format!("/{MARKUP}"), b"not an image", "");
    fake.store("/reports/2026/summary.pdf", &[1; 12_345], "application/pdf");
    fake.store("/backup.tar", &[2; 64_500], "");
    fake.store("/empty.txt", b"", "text/plain");
    fake.store("/notes & plans.md", b"# plans", "");
}

#[test]
fn views_show_servers_files_and_blocks_and_names_as_text() {
    let Some(chromium) = chromium() else { return };
    let page = Served::start(fill);
    let dom = |view: &str| {
        browse(
            chromium,
            &format!("http://{}/#/{view}", page.address),
            &["--dump-dom"],
        )
    };

    let overview = dom("");
    assert!(
        overview.contains("Everything can be read, but 1 server is lost"),
        "{overview}"
    );
    assert!(overview.contains("127.0.0.1:9101") && overview.contains("127.0.0.1:9103"));
    assert!(overview.contains("serving") && overview.contains("lost"));
    assert!(
        overview.contains("node&lt;b&gt;1&lt;/b&gt;"),
        "a host's name is text too"
    );
    assert!(overview.contains("/srv/blockyard/volume2"));

    let files = dom("files/");
    assert!(files.contains(MARKUP_AS_TEXT), "{files}");
    assert!(!files.contains(MARKUP), "a name became markup");
    assert!(
        files.contains("backup.tar") && files.contains("notes &amp; plans.md") && files.contains("reports")
    );
    assert!(files.contains("63.0 KiB") && files.contains("Upload files"));

    let folder = dom("files/reports/2026");
    assert!(
        folder.contains("summary.pdf") && folder.contains("12.1 KiB"),
        "{folder}"
    );

    let file = dom("file/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E");
    assert!(file.contains(MARKUP_AS_TEXT) && !file.contains(MARKUP), "{file}");
    let file = dom("file/backup.tar");
    assert!(
        file.contains("Where its blocks are") && file.contains("/api/v1/blocks/"),
        "{file}"
    );
    assert!(file.contains("127.0.0.1:9101 holds 65 · 127.0.0.1:9102 holds 65"));

    let held = dom(&format!("volume/{}", volume(1)));
    assert!(held.contains(MARKUP_AS_TEXT) && !held.contains(MARKUP), "{held}");
    assert!(held.contains("/backup.tar") && held.contains("These are all."));

    let server = dom("server/127.0.0.1:9102");
    assert!(
        server.contains("/srv/blockyard/volume2") && server.contains("/backup.tar"),
        "{server}"
    );

    let missing = dom("file/no/such");
    assert!(missing.contains("there is no /no/such"), "{missing}");
    let unheard = dom("volume/ffffffffffffffffffffffffffffffff");
    assert!(unheard.contains("there is no such volume"), "{unheard}");
}

#[test]
fn an_empty_folder_says_what_to_do() {
    let Some(chromium) = chromium() else { return };
    let page = Served::start(|_| {});
    let dom = browse(
        chromium,
        &format!("http://{}/#/files/", page.address),
        &["--dump-dom"],
    );
    assert!(dom.contains("Nothing here yet"), "{dom}");
}

/// Pictures of each view, in both themes and on a phone's width, for people to look at.
#[test]
fn views_can_be_pictured() {
    let Some(chromium) = chromium() else { return };
    let kept = std::env::var_os("BLOCKYARD_SCREENSHOTS").map(PathBuf::from);
    let own = tempfile::tempdir().unwrap();
    let folder: &Path = kept.as_deref().unwrap_or(own.path());
    let page = Served::start(fill);
    let views = [
        ("overview", String::new()),
        ("files", "files/".to_owned()),
        ("file", "file/backup.tar".to_owned()),
        ("volume", format!("volume/{}", volume(1))),
        ("server", "server/127.0.0.1:9103".to_owned()),
    ];
    for (name, view) in views {
        for (theme, size, dark) in [
            ("light", "1280,900", false),
            ("dark", "1280,900", true),
            ("phone", "500,900", false),
        ] {
            if kept.is_none() && (theme, name) != ("light", "overview") {
                continue;
            }
            let picture = folder.join(format!("{name}-{theme}.png"));
            let shot = format!("--screenshot={}", picture.display());
            let size = format!("--window-size={size}");
            let mut options = vec![shot.as_str(), &size, "--hide-scrollbars"];
            if dark {
                options.push("--blink-settings=preferredColorScheme=0");
            }
            browse(chromium, &format!("http://{}/#/{view}", page.address), &options);
            assert!(
                std::fs::metadata(&picture).unwrap().len() > 10_000,
                "{name} is blank"
            );
        }
    }
}
