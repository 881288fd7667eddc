//! The page's own files: embedded in the binary, compressed once, under an address that changes with them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap};
use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

use crate::conditions::{Verdict, judge};
use crate::respond::{Answered, Body, essence, header_text, respond, set};

/// What `index.html` says where the digest of all files belongs.
const PLACE: &str = "/assets/@/";

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Files;

struct Asset {
    content_type: String,
    plain: Bytes,
    /// Where it is shorter.
    gzip: Option<Bytes>,
}

struct Assets {
    /// Of all files: modules name each other, so they change together.
    digest: String,
    index: Asset,
    files: BTreeMap<Cow<'static, str>, Asset>,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let mut names: Vec<_> = Files::iter().collect();
    names.sort_unstable();
    let (mut files, mut hash) = (BTreeMap::new(), Sha256::new());
    for name in names {
        let Some(file) = Files::get(&name) else { continue };
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name.as_bytes());
        hash.update((file.data.len() as u64).to_be_bytes());
        hash.update(&file.data);
        let asset = Asset::new(&name, file.data.into_owned());
        files.insert(name, asset);
    }
    let digest: String = hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let index = files
        .remove("index.html")
        .map_or_else(Bytes::new, |index| index.plain);
    let index = String::from_utf8_lossy(&index).replace(PLACE, &format!("/assets/{digest}/"));
    Assets {
        index: Asset::new("index.html", index.into_bytes()),
        digest,
        files,
    }
});

impl Asset {
    fn new(name: &str, data: Vec<u8>) -> Self {
        let content_type = match mime_guess::from_path(name).first() {
            Some(mime) if mime.type_() == mime_guess::mime::TEXT => format!("{mime}; charset=utf-8"),
            Some(mime) => mime.to_string(),
            None => "text/plain; charset=utf-8".to_owned(),
        };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let gzip = encoder.write_all(&data).and_then(|()| encoder.finish()).ok();
        Self {
            content_type,
            gzip: gzip.filter(|gzip| gzip.len() < data.len()).map(Bytes::from),
            plain: data.into(),
        }
    }

    fn answer(&self, asked: &HeaderMap, tag: &str, caching: &'static str) -> Answered {
        let encodings = header_text(asked, header::ACCEPT_ENCODING).unwrap_or_default();
        // An encoding has parameters as a type has.
        let takes_gzip = encodings.split(',').any(|encoding| essence(encoding) == "gzip");
        let gzip = self.gzip.as_ref().filter(|_| takes_gzip);
        let mut response = if judge(asked, Some(tag), true) == Verdict::NotModified {
            respond(StatusCode::NOT_MODIFIED, &self.content_type, Body::empty())
        } else {
            let data = gzip.unwrap_or(&self.plain).clone();
            respond(StatusCode::OK, &self.content_type, Body::Whole(Some(data)))
        };
        if gzip.is_some() {
            set(&mut response, header::CONTENT_ENCODING, "gzip");
        }
        set(&mut response, header::VARY, "accept-encoding");
        set(&mut response, header::ETAG, tag);
        set(&mut response, header::CACHE_CONTROL, caching);
        response
    }
}

/// The page itself: asked for each time, answered by 304 until the binary changes.
pub(crate) fn index(asked: &HeaderMap) -> Answered {
    let tag = format!("\"{}\"", ASSETS.digest);
    ASSETS.index.answer(asked, &tag, "no-cache")
}

/// The file `name` under the digest that the page was made with; `None` where there is none, or it has changed.
pub(crate) fn asset(digest: &str, name: &str, asked: &HeaderMap) -> Option<Answered> {
    if digest != ASSETS.digest {
        return None;
    }
    let asset = ASSETS.files.get(name)?;
    let tag = format!("\"{digest}\"");
    Some(asset.answer(asked, &tag, "public, max-age=31536000, immutable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all files together may weigh on their way, bytes.
    const GZIP_BYTES_MAX: usize = 120_000;

    fn text(asset: &Asset) -> &str {
        std::str::from_utf8(&asset.plain).unwrap()
    }

    #[test]
    fn modules_import_only_what_there_is() {
        for (name, asset) in ASSETS.files.iter().filter(|(name, _)| name.ends_with(".js")) {
            let (folder, _) = name.rsplit_once('/').unwrap_or(("", name));
            for quote in [
                "from \"",
                "from '",
                "import \"",
                "import '",
                "import(\"",
                "from\"",
            ] {
                for (at, _) in text(asset).match_indices(quote) {
                    let rest = &text(asset)[at + quote.len()..];
                    let path = rest.split(['"', '\'']).next().unwrap();
                    if !path.starts_with('.') {
                        // A word of a sentence, or a package: which no browser finds.
                        assert!(!path.ends_with(".js"), "{name} imports {path}");
                        continue;
                    }
                    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
                    for part in path.split('/') {
                        match part {
                            "." => {}
                            ".." => drop(parts.pop()),
                            part => parts.push(part),
                        }
                    }
                    let wanted = parts.join("/");
                    assert!(
                        ASSETS.files.contains_key(wanted.as_str()),
                        "{name} imports {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_index_names_what_there_is() {
        let index = text(&ASSETS.index);
        let begin = format!("/assets/{}/", ASSETS.digest);
        let named: Vec<&str> = index
            .match_indices(&begin)
            .map(|(at, _)| index[at + begin.len()..].split('"').next().unwrap())
            .collect();
        assert!(named.len() >= 2, "{index}");
        for name in named {
            assert!(ASSETS.files.contains_key(name), "{name}");
        }
        assert!(
            !index.contains("<script>") && !index.contains(" style="),
            "the policy forbids both"
        );
    }

    #[test]
    fn all_files_together_are_light() {
        let files = ASSETS.files.iter().filter(|(name, _)| !name.contains("LICENSE"));
        let bytes: usize = files
            .map(|(_, asset)| asset.gzip.as_ref().unwrap_or(&asset.plain).len())
            .sum();
        assert!(bytes < GZIP_BYTES_MAX, "{bytes} bytes");
    }
}
