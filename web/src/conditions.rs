//! Ranges and conditional requests (RFC 9110, sections 13 and 14), as pure functions over headers.

use std::ops::Range;

use hyper::header::{self, HeaderMap};

use blockyard_wire::types::FileInfo;

use crate::respond::header_text;

/// The strong tag of a file's version: CRC32C and version id.
pub(crate) fn etag(file: &FileInfo) -> String {
    format!("\"{:08x}-{:x}\"", file.crc32c, file.version)
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Go on.
    Proceed,
    /// 304: the asker has this version already.
    NotModified,
    /// 412: the file is not in the state that was asked for.
    Failed,
}

/// Judges `If-Match` and `If-None-Match` against the current tag, `None` where there is no file.
pub(crate) fn judge(headers: &HeaderMap, current: Option<&str>, reading: bool) -> Verdict {
    if let Some(wanted) = header_text(headers, header::IF_MATCH)
        && !names(wanted, current, false)
    {
        return Verdict::Failed;
    }
    match header_text(headers, header::IF_NONE_MATCH) {
        // Reads compare weakly: a weak tag of the same version is that version.
        Some(known) if names(known, current, reading) => {
            if reading {
                Verdict::NotModified
            } else {
                Verdict::Failed
            }
        }
        _ => Verdict::Proceed,
    }
}

/// Whether a list of tags, or `*`, names the current one.
fn names(list: &str, current: Option<&str>, weakly: bool) -> bool {
    let Some(current) = current else { return false };
    list.split(',').map(str::trim).any(|tag| {
        tag == "*" || tag == current || (weakly && tag.strip_prefix("W/").is_some_and(|tag| tag == current))
    })
}

/// Which bytes of a file a request wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// All of them.
    Whole,
    /// These.
    Part(Range<u64>),
    /// 416: none that there are.
    Unsatisfiable,
}

/// Reads `Range` and `If-Range` for a file of `size` bytes with the tag `tag`.
///
/// What is no byte range, or several ranges, is answered with the whole file, as the RFC allows.
pub(crate) fn range(headers: &HeaderMap, size: u64, tag: &str) -> Wanted {
    let Some(spec) = header_text(headers, header::RANGE).and_then(|text| text.trim().strip_prefix("bytes="))
    else {
        return Wanted::Whole;
    };
    // A date says less than a tag does: only the tag is taken for proof.
    if header_text(headers, header::IF_RANGE).is_some_and(|known| known.trim() != tag) {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a u64 has is far beyond any end.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (first.is_empty(), number(first), last.is_empty(), number(last)) {
        (true, _, _, Some(0)) => Wanted::Unsatisfiable,
        (true, _, _, Some(_)) if size == 0 => Wanted::Unsatisfiable,
        (true, _, _, Some(suffix)) => Wanted::Part(size.saturating_sub(suffix)..size),
        (_, Some(first), _, Some(last)) if last < first => Wanted::Whole,
        (_, Some(first), true, _) | (_, Some(first), _, Some(_)) if first >= size => Wanted::Unsatisfiable,
        (_, Some(first), true, _) => Wanted::Part(first..size),
        (_, Some(first), _, Some(last)) => Wanted::Part(first..last.saturating_add(1).min(size)),
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(header::HeaderName, &str)]) -> HeaderMap {
        given
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn ranges() {
        let part = Wanted::Part;
        for (spec, size, expected) in [
            ("bytes=0-0", 10, part(0..1)),
            ("bytes=2-5", 10, part(2..6)),
            ("bytes=5-", 10, part(5..10)),
            ("bytes=-3", 10, part(7..10)),
            ("bytes=-30", 10, part(0..10)),
            ("bytes=0-99999999999999999999999", 10, part(0..10)),
            ("bytes=10-", 10, Wanted::Unsatisfiable),
            ("bytes=10-12", 10, Wanted::Unsatisfiable),
            ("bytes=-0", 10, Wanted::Unsatisfiable),
            ("bytes=0-", 0, Wanted::Unsatisfiable),
            ("bytes=-5", 0, Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Wanted::Unsatisfiable),
            ("bytes=5-2", 10, Wanted::Whole),
            ("bytes=-", 10, Wanted::Whole),
            ("bytes=a-b", 10, Wanted::Whole),
            ("bytes=+1-2", 10, Wanted::Whole),
            ("bytes=0-1,3-4", 10, Wanted::Whole),
            ("lines=0-1", 10, Wanted::Whole),
            ("bytes", 10, Wanted::Whole),
        ] {
            assert_eq!(
                range(&headers(&[(header::RANGE, spec)]), size, "\"t\""),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn a_range_of_another_version_is_the_whole_file() {
        let given = |tag| headers(&[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, tag)]);
        assert_eq!(range(&given("\"t\""), 10, "\"t\""), Wanted::Part(0..1));
        assert_eq!(range(&given("\"u\""), 10, "\"t\""), Wanted::Whole);
        assert_eq!(range(&given("W/\"t\""), 10, "\"t\""), Wanted::Whole);
    }

    #[test]
    fn conditions() {
        let none = |tag| headers(&[(header::IF_NONE_MATCH, tag)]);
        let some = |tag| headers(&[(header::IF_MATCH, tag)]);
        let current = Some("\"t\"");
        assert_eq!(judge(&none("\"t\""), current, true), Verdict::NotModified);
        assert_eq!(
            judge(&none("\"s\", W/\"t\""), current, true),
            Verdict::NotModified
        );
        assert_eq!(judge(&none("\"s\""), current, true), Verdict::Proceed);
        assert_eq!(judge(&none("*"), current, false), Verdict::Failed);
        assert_eq!(judge(&none("*"), None, false), Verdict::Proceed);
        assert_eq!(judge(&some("\"t\""), current, false), Verdict::Proceed);
        assert_eq!(judge(&some("W/\"t\""), current, false), Verdict::Failed);
        assert_eq!(judge(&some("*"), None, false), Verdict::Failed);
        assert_eq!(judge(&headers(&[]), None, false), Verdict::Proceed);
    }
}
