//! The one place where paths are read: parts of a path from the root, checked.

use blockyard_wire::{Problem, Result};

/// Bytes of the longest path.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of the longest part of a path.
pub const NAME_BYTES_MAX: usize = 255;

/// The parts of `path`, from the root; none for the root itself. Empty parts collapse.
///
/// # Errors
/// `Invalid` for a path or part that is too long, `.` or `..`, NUL and control characters.
pub fn parts(path: &str) -> Result<Vec<&str>> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Problem::invalid(format!(
            "the path is {} bytes long, at most {PATH_BYTES_MAX} are allowed: '{}…'",
            path.len(),
            path.chars().take(40).collect::<String>().escape_default()
        )));
    }
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(checked)
        .collect()
}

fn checked(part: &str) -> Result<&str> {
    let why = if part.len() > NAME_BYTES_MAX {
        format!(
            "a name of {} bytes, at most {NAME_BYTES_MAX} are allowed",
            part.len()
        )
    } else if part == "." || part == ".." {
        format!("'{part}' is not allowed in a path")
    } else if part.contains('\0') {
        "a NUL byte in a name".to_owned()
    } else if let Some(control) = part.chars().find(|c| c.is_control()) {
        format!("a control character (U+{:04X}) in a name", control as u32)
    } else {
        return Ok(part);
    };
    Err(Problem::invalid(format!("bad path: {why}")))
}

/// The path of `parts`, from the root.
pub fn joined(parts: &[&str]) -> String {
    if parts.is_empty() {
        return "/".to_owned();
    }
    parts.iter().fold(String::new(), |path, part| path + "/" + part)
}

/// `path` as it is kept: from the root, single slashes.
///
/// # Errors
/// As [`parts`].
pub fn normal(path: &str) -> Result<String> {
    parts(path).map(|parts| joined(&parts))
}

/// Checks a text that people or programs attach, such as a content type.
///
/// # Errors
/// `Invalid` when it is longer than `bytes_max` or holds control characters.
pub fn attribute<'a>(what: &str, text: &'a str, bytes_max: usize) -> Result<&'a str> {
    if text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(Problem::invalid(format!(
            "the {what} is longer than {bytes_max} bytes or holds control characters"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockyard_wire::ProblemKind;

    #[test]
    fn absolute_and_relative_are_the_same() {
        for path in ["/a/b c", "a/b c", "//a///b c/"] {
            assert_eq!(parts(path).unwrap(), ["a", "b c"]);
            assert_eq!(normal(path).unwrap(), "/a/b c");
        }
        assert_eq!(parts("").unwrap().len(), 0);
        assert_eq!(normal("///").unwrap(), "/");
        assert_eq!(normal("...").unwrap(), "/...");
        assert_eq!(normal("/ä/🦀").unwrap(), "/ä/🦀");
    }

    #[test]
    fn what_is_refused() {
        let long_name = "n".repeat(NAME_BYTES_MAX + 1);
        let long_path = "/n".repeat(PATH_BYTES_MAX / 2 + 1);
        let bad = [
            "..", "/a/../b", "./a", "/a/.", "a\0b", "a\nb", "a/\u{7f}", "\u{85}", &long_name, &long_path,
        ];
        for path in bad {
            assert_eq!(parts(path).unwrap_err().kind, ProblemKind::Invalid, "{path:?}");
        }
        assert!(parts(&"n".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(parts(&"/n".repeat(PATH_BYTES_MAX / 2)).is_ok());
    }
}
