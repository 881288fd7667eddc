//! The page's own files, embedded in the binary.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use crate::conditions::{Verdict, judge};
use crate::respond::{Answered, Body, respond};

struct Asset {
    name: &'static str,
    content_type: &'static str,
    data: &'static [u8],
}

macro_rules! assets {
    ($($name:literal: $content_type:literal),* $(,)?) => {
        &[$(Asset {
            name: $name,
            content_type: $content_type,
            data: include_bytes!(concat!("../assets/", $name)),
        }),*]
    };
}

const ASSETS: &[Asset] = assets![
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "folder.svg": "image/svg+xml",
    "page.svg": "image/svg+xml",
    "app.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "overview.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
    "volume.js": "text/javascript; charset=utf-8",
    "folder.js": "text/javascript; charset=utf-8",
    "file.js": "text/javascript; charset=utf-8",
    "upload.js": "text/javascript; charset=utf-8",
];

/// The file `name` of the page; `None` where there is none of that name.
pub(crate) fn asset(name: &str, headers: &HeaderMap) -> Option<Answered> {
    let asset = ASSETS.iter().find(|asset| asset.name == name)?;
    let tag = format!("\"{:016x}\"", fnv1a(asset.data));
    let known = judge(headers, Some(&tag), true) == Verdict::NotModified;
    let mut response = if known {
        respond(StatusCode::NOT_MODIFIED, asset.content_type, Body::empty())
    } else {
        let data = Bytes::from_static(asset.data);
        respond(StatusCode::OK, asset.content_type, Body::Whole(Some(data)))
    };
    let headers = response.headers_mut();
    // Asked for each time, answered by 304 until the binary changes.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Some(response)
}

/// Whether a method may ask for a file of the page.
pub(crate) fn readable(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// FNV-1a: tells versions of a file apart, nothing more.
fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_load_only_what_there_is() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.data).unwrap();
            for (_, rest) in text
                .match_indices("from \"./")
                .map(|(at, found)| (at, &text[at + found.len()..]))
            {
                let name = rest.split('"').next().unwrap();
                assert!(
                    ASSETS.iter().any(|other| other.name == name),
                    "{} loads {name}",
                    asset.name
                );
            }
            for (at, found) in text.match_indices("\"/assets/") {
                let name = text[at + found.len()..].split('"').next().unwrap();
                assert!(
                    ASSETS.iter().any(|other| other.name == name),
                    "{} names {name}",
                    asset.name
                );
            }
        }
    }

    #[test]
    fn no_script_writes_markup() {
        for asset in ASSETS.iter().filter(|asset| asset.name.ends_with(".js")) {
            let text = std::str::from_utf8(asset.data).unwrap();
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(forbidden), "{} uses {forbidden}", asset.name);
            }
        }
    }
}
