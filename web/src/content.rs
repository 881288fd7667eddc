//! Downloads: whole files, ranges and single blocks, block by block with a few ahead, verified before sent.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use blockyard_wire::types::{BlockInfo, FileInfo};
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::backend::Backend;
use crate::conditions::{self, Verdict, Wanted, etag};
use crate::queries::block_id;
use crate::respond::{Answered, Body, essence, refused, respond, set};
use crate::routes::Page;

/// Blocks being fetched while one is sent.
const BLOCKS_AHEAD: usize = 3;
/// Blocks asked for at a time: few, so that the rights to read them are fresh when their turn comes.
const BLOCKS_PAGE: u32 = 32;

/// What is stored may be anything, a page with scripts too: it gets no rights of this origin.
pub(crate) const CONTENT_POLICY: &str = "sandbox; default-src 'none'";

/// Types that are text, though they don't say so.
const TEXT_TYPES: [&str; 8] = [
    "application/json",
    "application/xml",
    "application/javascript",
    "application/toml",
    "application/x-sh",
    "application/x-yaml",
    "application/yaml",
    "application/sql",
];

/// What RFC 8187 lets stand unescaped in a file name.
const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'~');

/// How a browser is to take a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// As a download.
    Kept,
    /// In the page: only what can't do anything there.
    Shown,
}

/// A file, or the range of it that was asked for. `?preview` shows text and images instead of keeping them.
#[utoipa::path(get, path = "/api/v1/content/{path}", tag = "files", params(("path" = String, Path), ("preview" = Option<bool>, Query)), responses((status = 200, content_type = "application/octet-stream"), (status = 206), (status = 304), (status = 416)))]
pub(crate) async fn file(
    page: &Page,
    path: &str,
    headers: &HeaderMap,
    taken: Taken,
    head: bool,
) -> Result<Answered> {
    let (file, _) = page.backend.lookup(path, 0, 0).await?;
    if file.directory {
        return Err(Problem::invalid(format!(
            "{} is a folder; ask for the files in it",
            file.path
        )));
    }
    let tag = etag(&file);
    let content_type = match taken {
        Taken::Kept => content_type(&file),
        Taken::Shown => shown_type(&file)?,
    };
    let mut response = match conditions::judge(headers, Some(&tag), true) {
        Verdict::NotModified => respond(StatusCode::NOT_MODIFIED, &content_type, Body::empty()),
        Verdict::Failed => return Ok(precondition_failed(&file.path)),
        Verdict::Proceed => match conditions::range(headers, file.size_bytes, &tag) {
            Wanted::Unsatisfiable => unsatisfiable(&file),
            Wanted::Whole => {
                let body = body(page, &file, 0..file.size_bytes, head).await?;
                respond(StatusCode::OK, &content_type, body)
            }
            Wanted::Part(range) => {
                let part = format!("bytes {}-{}/{}", range.start, range.end - 1, file.size_bytes);
                let body = body(page, &file, range, head).await?;
                let mut response = respond(StatusCode::PARTIAL_CONTENT, &content_type, body);
                set(&mut response, header::CONTENT_RANGE, &part);
                response
            }
        },
    };
    set(&mut response, header::ETAG, &tag);
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    set(
        &mut response,
        header::CONTENT_DISPOSITION,
        &disposition(
            &file.name,
            match taken {
                Taken::Kept => "attachment",
                Taken::Shown => "inline",
            },
        ),
    );
    // May be kept, must be asked for again: the tag tells.
    set(&mut response, header::CACHE_CONTROL, "private, no-cache");
    Ok(response)
}

/// One block.
#[utoipa::path(get, path = "/api/v1/blocks/{id}", tag = "files", params(("id" = String, Path)), responses((status = 200, content_type = "application/octet-stream")))]
pub(crate) async fn block(page: &Page, id: &str, headers: &HeaderMap, head: bool) -> Result<Answered> {
    let id = block_id(id)?;
    let located = page.backend.locate(id).await?;
    // A block never changes under its id.
    let tag = format!("\"{id}\"");
    let mut response = if conditions::judge(headers, Some(&tag), true) == Verdict::NotModified {
        respond(
            StatusCode::NOT_MODIFIED,
            "application/octet-stream",
            Body::empty(),
        )
    } else if head {
        let length = u64::from(located.info.length);
        let body = Body::Stream(Box::pin(stream::empty()), length);
        respond(StatusCode::OK, "application/octet-stream", body)
    } else {
        let permit = page.download_turn().await?;
        let data = page.backend.read_block(located.info).await?;
        let length = data.len() as u64;
        let pieces = stream::once(async move {
            let _held_until_sent = permit;
            Ok(data)
        });
        respond(
            StatusCode::OK,
            "application/octet-stream",
            Body::Stream(Box::pin(pieces), length),
        )
    };
    let name = format!("{id}.block");
    set(&mut response, header::ETAG, &tag);
    set(&mut response, header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    set(
        &mut response,
        header::CONTENT_DISPOSITION,
        &disposition(&name, "attachment"),
    );
    Ok(response)
}

/// 412, as JSON.
pub(crate) fn precondition_failed(path: &str) -> Answered {
    let message = format!("{path} is not in the state that the request's conditions ask for");
    refused(StatusCode::PRECONDITION_FAILED, "precondition", &message)
}

fn unsatisfiable(file: &FileInfo) -> Answered {
    let message = format!("the file has {} bytes; the range lies outside", file.size_bytes);
    let mut response = refused(StatusCode::RANGE_NOT_SATISFIABLE, "range", &message);
    let whole = format!("bytes */{}", file.size_bytes);
    set(&mut response, header::CONTENT_RANGE, &whole);
    response
}

/// The bytes of `range`. The first of them are there when this returns, so that a file that can't be read is
/// an answer of its own and not a download that breaks off; for a HEAD only their number is told.
async fn body(page: &Page, file: &FileInfo, range: Range<u64>, head: bool) -> Result<Body> {
    if range.is_empty() {
        return Ok(Body::empty());
    }
    let length = range.end - range.start;
    if head {
        return Ok(Body::Stream(Box::pin(stream::empty()), length));
    }
    let permit = page.download_turn().await?;
    let mut pieces = Box::pin(pieces_of(page.backend.clone(), file, range));
    let first = pieces.try_next().await?;
    let first = stream::iter(first.map(Ok));
    let pieces = first.chain(pieces).map(move |piece: Result<Bytes>| {
        let _held_until_the_end = &permit;
        piece.map_err(|problem| {
            tracing::warn!(%problem, "a download breaks off");
            io::Error::other(problem)
        })
    });
    Ok(Body::Stream(Box::pin(pieces), length))
}

/// The bytes of `range`, a few blocks ahead of whoever takes them.
pub(crate) fn pieces_of(
    backend: Rc<dyn Backend>,
    file: &FileInfo,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes>> + use<> {
    cuts(backend.clone(), file, range)
        .map_ok(move |(block, cut)| {
            let read = backend.read_block(block);
            async move {
                let data = read.await?;
                if data.len() < cut.end {
                    let short = "a block is shorter than it should be";
                    return Err(Problem::new(ProblemKind::Corrupt, short));
                }
                Ok(data.slice(cut))
            }
        })
        .try_buffered(BLOCKS_AHEAD)
}

/// The blocks of `file` that `range` touches, each with the bytes of it that are wanted.
fn cuts(
    backend: Rc<dyn Backend>,
    file: &FileInfo,
    range: Range<u64>,
) -> impl Stream<Item = Result<(BlockInfo, Range<usize>)>> + use<> {
    struct Walk {
        backend: Rc<dyn Backend>,
        version: u64,
        range: Range<u64>,
        blocks: VecDeque<BlockInfo>,
        next: u32,
        offset: u64,
    }
    let walk = Walk {
        backend,
        version: file.version,
        range,
        blocks: VecDeque::new(),
        next: 0,
        offset: 0,
    };
    // Blocks may have any length, so the way to a range leads past the blocks before it.
    stream::try_unfold(walk, |mut walk| async move {
        loop {
            if walk.offset >= walk.range.end {
                return Ok(None);
            }
            let Some(block) = walk.blocks.pop_front() else {
                let page = walk.backend.blocks(walk.version, walk.next, BLOCKS_PAGE).await?;
                if page.is_empty() {
                    return Err(Problem::new(
                        ProblemKind::Failed,
                        "the file has fewer blocks than bytes",
                    ));
                }
                walk.next += page.len() as u32;
                walk.blocks = page.into();
                // Others want this thread too while a far offset is looked for.
                tokio::task::yield_now().await;
                continue;
            };
            let start = walk.offset;
            let end = start + u64::from(block.length);
            walk.offset = end;
            if end > walk.range.start {
                let from = walk.range.start.saturating_sub(start) as usize;
                let to = (walk.range.end.min(end) - start) as usize;
                return Ok(Some(((block, from..to), walk)));
            }
        }
    })
}

/// The type given at upload, else guessed by the name.
fn content_type(file: &FileInfo) -> String {
    if !file.content_type.is_empty() && HeaderValue::from_str(&file.content_type).is_ok() {
        return file.content_type.clone();
    }
    mime_guess::from_path(&file.name)
        .first_or_octet_stream()
        .to_string()
}

/// The type that a preview is given: an image stays one, text of any kind is plain text, nothing else is shown.
fn shown_type(file: &FileInfo) -> Result<String> {
    let given = content_type(file);
    let essence = essence(&given).to_ascii_lowercase();
    let image = essence.starts_with("image/");
    let text = essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || TEXT_TYPES.contains(&essence.as_str());
    match (image, text) {
        (true, _) => Ok(essence),
        (_, true) => Ok("text/plain; charset=utf-8".to_owned()),
        _ => Err(Problem::invalid(format!(
            "{} is {essence}: only text and images can be shown",
            file.path
        ))),
    }
}

/// `attachment` or `inline` under the file's own name (RFC 6266): in ASCII for old programs, in UTF-8 for all others.
pub(crate) fn disposition(name: &str, kind: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let exact = utf8_percent_encode(name, FILE_NAME);
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_headers() {
        assert_eq!(
            disposition("a b.txt", "attachment"),
            "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"
        );
        assert_eq!(
            disposition("é\"\r\n.txt", "attachment"),
            "attachment; filename=\"____.txt\"; filename*=UTF-8''%C3%A9%22%0D%0A.txt"
        );
    }

    #[test]
    fn types_are_kept_or_guessed() {
        let file = |name: &str, given: &str| FileInfo {
            name: name.into(),
            content_type: given.into(),
            ..FileInfo::default()
        };
        assert_eq!(content_type(&file("a.png", "")), "image/png");
        assert_eq!(content_type(&file("a.png", "text/x-own")), "text/x-own");
        assert_eq!(content_type(&file("a", "")), "application/octet-stream");
        assert_eq!(content_type(&file("a.txt", "bad\r\ntype")), "text/plain");
    }
}
