//! A volume's files as text: each name and length, then the rows of 32 bytes that are not all zero.
#![allow(dead_code)] // each program uses a part

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

const ROW: usize = 32;

/// The volume of today's format that the repository keeps.
pub const BEFORE: &str = include_str!("before.txt");
/// The same after what `golden.rs` does with it.
pub const AFTER: &str = include_str!("after.txt");

/// Lists a folder and those within it.
pub fn list(dir: &Path) -> String {
    let mut text = String::new();
    for folder in ["", "journal/", "segments/"] {
        let entries = fs::read_dir(dir.join(folder)).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut files: Vec<_> = paths.filter(|path| path.is_file()).collect();
        files.sort();
        for path in files {
            let bytes = fs::read(&path).expect("a file");
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("a plain name");
            writeln!(text, "{folder}{name} {}", bytes.len()).expect("text");
            for (at, row) in (0..).step_by(ROW).zip(bytes.chunks(ROW)) {
                if row.iter().any(|&byte| byte != 0) {
                    let digits: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
                    writeln!(text, "  {at:08x} {digits}").expect("text");
                }
            }
        }
    }
    text
}

/// Makes the files of a listing in `dir`; what is not listed is a hole.
pub fn lay_out(text: &str, dir: &Path) {
    let mut file = None;
    for line in text.lines() {
        let (first, second) = line.trim_start().split_once(' ').expect("two words");
        match &file {
            Some(file) if line.starts_with(' ') => {
                let at = u64::from_str_radix(first, 16).expect("an offset");
                let digit = |pair: &[u8]| {
                    let pair = std::str::from_utf8(pair).expect("digits");
                    u8::from_str_radix(pair, 16).expect("digits")
                };
                let bytes: Vec<u8> = second.as_bytes().chunks(2).map(digit).collect();
                File::write_all_at(file, &bytes, at).expect("writing");
            }
            _ => {
                let path = dir.join(first);
                fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                let made = File::create(path).expect("a file");
                made.set_len(second.parse().expect("a length")).expect("a length");
                file = Some(made);
            }
        }
    }
}

/// The first lines in which two listings differ.
pub fn difference(wanted: &str, found: &str) -> Option<String> {
    if wanted == found {
        return None;
    }
    let mut file = "";
    let lines = wanted.lines().zip(found.lines());
    for (wanted, found) in lines {
        if wanted != found {
            return Some(format!("in {file}\n  wanted {wanted}\n  found  {found}"));
        }
        file = if wanted.starts_with(' ') { file } else { wanted };
    }
    Some("one listing is longer".to_owned())
}
