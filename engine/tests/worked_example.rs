//! FORMAT.md's worked example: its commands are run on the volume that the repository keeps, and print what it says.
//!
//! `BLOCKYARD_BLESS=1` writes what they print into FORMAT.md; the text around it is to be mended by hand.

#[path = "golden/listing.rs"]
mod listing;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const HEADING: &str = "## Reading a slot by hand";
/// Printed behind each command's output.
const MARK: &str = "--- end of the output ---";

/// The commands of a document's example, and the document with what they print now: `printed` has a text for each.
fn example(document: &str, printed: Option<&[String]>) -> (Vec<String>, String) {
    let (mut commands, mut written) = (Vec::<String>::new(), String::new());
    let (mut in_section, mut in_block, mut in_output) = (false, false, false);
    for line in document.lines() {
        if !in_block && line.starts_with('#') {
            in_section = line == HEADING;
        }
        let ended = in_block && line == "```";
        let begins = in_block && line.starts_with("$ ");
        if in_block && in_output && (ended || begins) {
            written.push_str(printed.map_or("", |printed| &printed[commands.len() - 1]));
            in_output = false;
        }
        match () {
            () if ended => in_block = false,
            () if in_section && line == "```console" => in_block = true,
            () if begins => {
                commands.push(line[2..].to_owned());
                in_output = true;
            }
            () if in_block && line.starts_with("> ") => {
                let command = commands.last_mut().expect("a command to go on with");
                *command += &format!("\n{}", &line[2..]);
            }
            () if in_output => continue,
            () => {}
        }
        written += &format!("{line}\n");
    }
    (commands, written)
}

/// Whether to go on without what is missing here: says so, and refuses where everything was asked for.
fn is_missing(program: &str) -> bool {
    let tried = Command::new(program)
        .arg("-v")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if tried.is_ok() {
        return false;
    }
    assert!(
        env::var_os("BLOCKYARD_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "needs {program}, and BLOCKYARD_REQUIRE_ALL=1"
    );
    eprintln!("skipped: needs {program}");
    true
}

/// Runs the commands in one shell, in `dir`; what each prints.
fn run(commands: &[String], dir: &Path) -> Vec<String> {
    let marked = |command: &String| format!("{command}\nprintf '%s\\n' '{MARK}'\n");
    let script: String = commands.iter().map(marked).collect();
    let ran = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let text = String::from_utf8(ran.stdout).expect("text");
    let printed: Vec<String> = text
        .split_terminator(&format!("{MARK}\n"))
        .map(str::to_owned)
        .collect();
    assert_eq!(printed.len(), commands.len(), "{text}");
    printed
}

#[test]
fn the_example_prints_what_it_says() {
    if is_missing("xxd") {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../FORMAT.md");
    let document = fs::read_to_string(&path).expect("FORMAT.md");
    let (commands, _) = example(&document, None);
    assert!(commands.len() > 5, "FORMAT.md has the example: {commands:?}");
    let dir = tempfile::tempdir().expect("a folder");
    listing::lay_out(listing::BEFORE, dir.path());
    let (_, now) = example(&document, Some(&run(&commands, dir.path())));
    if env::var_os("BLOCKYARD_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, now).expect("FORMAT.md");
        return;
    }
    for (wanted, found) in document.lines().zip(now.lines()) {
        assert_eq!(
            wanted, found,
            "FORMAT.md's example says otherwise than its commands print"
        );
    }
    assert!(
        document == now,
        "FORMAT.md's example has more or fewer lines than its commands print"
    );
}
