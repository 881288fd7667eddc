//! What a request asks for: its path and query, decoded once, and its JSON. What names are allowed is the namespace's
//! matter.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::header;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use blockyard_wire::{Problem, Result};

use crate::respond::{essence, header_text};
use crate::routes::{Asked, Page};

/// Bytes of a JSON body at the most: two paths and some.
const JSON_BYTES_MAX: usize = 64 << 10;

/// Percent-decodes a file's path out of a URL's path, once.
///
/// An encoded slash is refused: whether it separates or belongs to a name differs from one program to the
/// next, and such differences get files out of places they should not get out of.
pub(crate) fn file_path(raw: &str) -> Result<String> {
    let lower = raw.to_ascii_lowercase();
    if lower.contains("%2f") {
        return Err(Problem::invalid(
            "a slash in a path must be sent as it is, not as %2F",
        ));
    }
    let decoded = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| Problem::invalid("a path must be UTF-8"))?;
    Ok(format!("/{}", decoded.trim_start_matches('/')))
}

/// The parameters of a query.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`, percent-encoded with `+` for a space.
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self> {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| Problem::invalid("a query must be UTF-8"))
        };
        raw.unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name)?, decode(value)?))
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The first value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of `name`.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let given = self.0.iter().filter(|(given, _)| given == name);
        given.map(|(_, value)| value.clone()).collect()
    }

    /// A number of any size, `default` when absent.
    pub(crate) fn long(&self, name: &str, default: u64) -> Result<u64> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| Problem::invalid(format!("'{name}' must be a number"))),
        }
    }

    /// A number, `default` when absent, at most `max`.
    pub(crate) fn number(&self, name: &str, default: u32, max: u32) -> Result<u32> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some(text) => match text.parse::<u32>() {
                Ok(number) => Ok(number.min(max)),
                Err(_) => Err(Problem::invalid(format!("'{name}' must be a number"))),
            },
        }
    }

    /// A switch: present, `1` or `true` is on.
    pub(crate) fn switch(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(Problem::invalid(format!("'{name}' must be true or false"))),
        }
    }
}

/// The whole body of a request.
///
/// # Errors
/// `Invalid` for more than `bytes_max` and a body that breaks off, which `trouble` says, and for a sender that falls
/// silent.
pub(crate) async fn whole_body(page: &Page, asked: Asked, bytes_max: usize, trouble: &str) -> Result<Bytes> {
    let body = Limited::new(asked.into_body(), bytes_max).collect();
    let body = tokio::time::timeout(page.body_timeout, body)
        .await
        .map_err(|_| Problem::invalid("the sender has fallen silent"))?
        .map_err(|error| Problem::invalid(format!("{trouble}: {error}")))?;
    Ok(body.to_bytes())
}

/// Reads the body as JSON of a known shape.
///
/// # Errors
/// `Invalid` for another type, too many bytes, a sender that falls silent, or another shape.
pub(crate) async fn read_json<T: DeserializeOwned>(page: &Page, asked: Asked) -> Result<T> {
    let given = header_text(asked.headers(), header::CONTENT_TYPE).unwrap_or_default();
    if !essence(given).eq_ignore_ascii_case("application/json") {
        return Err(Problem::invalid("send JSON, with Content-Type: application/json"));
    }
    let body = whole_body(page, asked, JSON_BYTES_MAX, "the body can't be read").await?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::invalid(format!("not the JSON that is expected: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(file_path("a%20b/c").unwrap(), "/a b/c");
        assert_eq!(file_path("a%252Fb").unwrap(), "/a%2Fb");
        assert_eq!(file_path("%3Cimg%3E").unwrap(), "/<img>");
        assert_eq!(file_path("").unwrap(), "/");
        for bad in ["a%2Fb", "..%2f..%2fetc", "%ff"] {
            assert!(file_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries() {
        let query = Query::parse(Some("path=%2Fa+b&limit=7&overwrite&after=a%26b")).unwrap();
        assert_eq!(query.get("path"), Some("/a b"));
        assert_eq!(query.get("after"), Some("a&b"));
        assert_eq!(query.number("limit", 100, 1000), Ok(7));
        assert_eq!(query.number("limit", 100, 5), Ok(5));
        assert_eq!(query.number("from", 100, 1000), Ok(100));
        assert_eq!(query.switch("overwrite"), Ok(true));
        assert_eq!(query.switch("recursive"), Ok(false));
        assert!(query.number("path", 1, 2).is_err());
        assert!(query.switch("after").is_err());
        assert!(Query::parse(Some("a=%ff")).is_err());
    }
}
