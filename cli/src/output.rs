//! What people and scripts see: tables, JSON, sizes, times, and names made safe for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

/// Characters of a message at the most: a name may be thousands long.
const MESSAGE_CHARS_MAX: usize = 1500;

/// Whether stdout is a terminal.
pub fn to_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes one line to stdout.
///
/// # Errors
/// That of the pipe or file behind stdout.
pub fn line(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")
}

/// Writes one line to stderr, as far as it can be written.
pub fn note(text: &str) {
    // Nobody is left to be told when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Tells on stderr that something went wrong.
pub fn complain(text: &str) {
    note(&format!("blockyard: {}", message(text)));
}

/// A message without control characters (line breaks apart) and of a bounded length.
fn message(text: &str) -> String {
    let mut lines: Vec<Cow<'_, str>> = text.lines().map(safe).collect();
    let chars: usize = lines.iter().map(|line| line.chars().count()).sum();
    if chars > MESSAGE_CHARS_MAX {
        let joined = lines.join("\n");
        let head: String = joined.chars().take(MESSAGE_CHARS_MAX * 2 / 3).collect();
        let tail: Vec<char> = joined.chars().rev().take(MESSAGE_CHARS_MAX / 3).collect();
        lines = vec![format!("{head} … {}", tail.iter().rev().collect::<String>()).into()];
    }
    lines.join("\n")
}

/// Text from outside as it may be shown: control characters and those that turn the direction of writing
/// are escaped, so that a name can neither move the cursor nor look like another.
pub fn safe(text: &str) -> Cow<'_, str> {
    fn bad(c: char) -> bool {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    }
    if !text.chars().any(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if bad(c) => write!(out, "{}", c.escape_default()).expect("a string takes all"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// `1.2 GiB`
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// `410.0 MiB/s`
pub fn rate(bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-6);
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// `3 files`, `1 file`
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `2.4 s`, `3 min 5 s`, `2 d 4 h`
pub fn duration(took: Duration) -> String {
    let seconds = took.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `2026-11-22 19:56`, in the zone of this machine.
pub fn time(unix_ms: u64) -> String {
    match timestamp(unix_ms) {
        Some(at) => at
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M")
            .to_string(),
        None => "-".to_owned(),
    }
}

/// `2026-11-22T18:56:01.25Z`, for scripts; `None` when it is out of the calendar.
pub fn rfc3339(unix_ms: u64) -> Option<String> {
    timestamp(unix_ms).map(|at| at.to_string())
}

fn timestamp(unix_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()
}

/// A CRC32C as eight hexadecimal digits.
pub fn crc(crc32c: u32) -> String {
    format!("{crc32c:08x}")
}

/// Prints `value` as indented JSON.
///
/// # Errors
/// That of the pipe or file behind stdout.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// Prints the elements of a JSON array as they come, so that a long one needs no memory.
pub struct JsonArray {
    empty: bool,
}

impl JsonArray {
    /// Opens the array.
    ///
    /// # Errors
    /// That of the pipe or file behind stdout.
    pub fn open() -> io::Result<Self> {
        io::stdout().lock().write_all(b"[")?;
        Ok(Self { empty: true })
    }

    /// Prints one element.
    ///
    /// # Errors
    /// That of the pipe or file behind stdout.
    pub fn push(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(if self.empty { b"\n  " } else { b",\n  " })?;
        self.empty = false;
        serde_json::to_writer(&mut out, value).map_err(io::Error::from)
    }

    /// Closes the array.
    ///
    /// # Errors
    /// That of the pipe or file behind stdout.
    pub fn close(self) -> io::Result<()> {
        let end: &[u8] = if self.empty { b"]\n" } else { b"\n]\n" };
        io::stdout().lock().write_all(end)
    }
}

/// A table without lines, its header in capitals; columns whose header ends in `>` are set right.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // A broken cell can't be copied; a terminal breaks lines that are too long by itself.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.map(|name| name.trim_end_matches('>')));
    for row in rows {
        table.add_row(row.map(|cell| safe(&cell).into_owned()));
    }
    for (index, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if name.ends_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        assert_eq!(safe("plain ü 名"), "plain ü 名");
        assert_eq!(safe("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(safe("a\nb"), "a\\nb");
        assert_eq!(safe("evil\u{202e}gpj.exe"), "evil\\u{202e}gpj.exe");
        assert_eq!(message("one\ntwo\u{7}"), "one\ntwo\\u{7}");
        let long = message(&"x".repeat(5000));
        assert!(long.chars().count() <= MESSAGE_CHARS_MAX + 3 && long.contains(" … "));
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(rate(10 << 20, Duration::from_secs(2)), "5.0 MiB/s");
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(0, "file", "files"), "0 files");
        assert_eq!(duration(Duration::from_millis(2400)), "2.4 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 5 s");
        assert_eq!(duration(Duration::from_secs(90_000)), "1 d 1 h");
        assert_eq!(crc(0xab), "000000ab");
    }

    #[test]
    fn times_for_scripts() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(u64::MAX), None);
    }

    #[test]
    fn tables_align() {
        let text = table(
            ["SIZE>", "NAME"],
            [["5 B".into(), "a".into()], ["1.2 GiB".into(), "b\tc".into()]],
        );
        assert_eq!(text, "   SIZE  NAME\n    5 B  a\n1.2 GiB  b\\tc");
    }
}
