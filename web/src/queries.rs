//! The calls that only look: the cluster and its past, folders, files with their blocks, blocks of a volume.

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};

use blockyard_wire::types::{BlockId, FileInfo, VolumeId};
use blockyard_wire::{Problem, Result};

use crate::api::{FileBlocks, HeldBlocks, Listing, OneBlock};
use crate::document::Document;
use crate::history::Rows;
use crate::respond::{Answered, Body, header_text, json, respond};
use crate::routes::Page;
use crate::target::Query;
use crate::timeline::Events;

/// Rows of an answer where the asker does not say.
const ROWS_DEFAULT: u32 = 100;
/// Rows of an answer at the most.
const ROWS_MAX: u32 = 1000;
/// Entries of a folder that are sorted at the most.
const SORTED_MAX: usize = 10_000;
/// Names that one search looks at.
const SEARCHED_MAX: usize = 50_000;
/// Blocks of a file in one answer at the most.
const BLOCKS_MAX: u32 = 256;

/// The whole cluster.
#[utoipa::path(get, path = "/api/v1/status", tag = "cluster", responses((status = 200, body = Document)))]
pub(crate) async fn status(page: &Page) -> Result<Answered> {
    Ok(json(StatusCode::OK, &page.watch.document().await?))
}

/// What changes, as server-sent events: `snapshot`, then `delta` (a merge patch, RFC 7396), `sample` and `event`.
#[utoipa::path(get, path = "/api/v1/events", tag = "cluster", params(("last-event-id" = Option<String>, Header)), responses((status = 200, content_type = "text/event-stream")))]
pub(crate) async fn events(page: &Page, headers: &HeaderMap) -> Result<Answered> {
    let last = header_text(headers, HeaderName::from_static("last-event-id"));
    let stream = page.watch.listen(last).await?;
    Ok(respond(
        StatusCode::OK,
        "text/event-stream",
        Body::Endless(stream),
    ))
}

/// Figures of the last five minutes, hour or day.
#[utoipa::path(get, path = "/api/v1/history", tag = "cluster", params(("window" = Option<String>, Query)), responses((status = 200, body = Rows)))]
pub(crate) fn history(page: &Page, query: &Query) -> Result<Answered> {
    let window = query.get("window").unwrap_or("5m");
    let rows = page.watch.history(window).ok_or_else(|| {
        let window = window.escape_default();
        Problem::invalid(format!("there is no window '{window}': 5m, 1h and 24h are kept"))
    })?;
    Ok(json(StatusCode::OK, &rows))
}

/// What has happened, before the event `before`.
#[utoipa::path(get, path = "/api/v1/timeline", tag = "cluster", params(("before" = Option<u64>, Query), ("limit" = Option<u32>, Query)), responses((status = 200, body = Events)))]
pub(crate) fn timeline(page: &Page, query: &Query) -> Result<Answered> {
    let limit = query.number("limit", ROWS_DEFAULT, ROWS_MAX)?.max(1);
    let before = query.long("before", u64::MAX)?;
    Ok(json(StatusCode::OK, &page.watch.timeline(before, limit as usize)))
}

/// The entries of a folder, by name; sorted otherwise, as far as that is possible; or all below it whose names contain
/// something.
#[utoipa::path(get, path = "/api/v1/files", tag = "files", params(("path" = Option<String>, Query), ("prefix" = Option<String>, Query), ("after" = Option<String>, Query), ("limit" = Option<u32>, Query), ("sort" = Option<String>, Query), ("order" = Option<String>, Query), ("search" = Option<String>, Query)), responses((status = 200, body = Listing)))]
pub(crate) async fn files(page: &Page, query: &Query) -> Result<Answered> {
    let path = query.get("path").unwrap_or("/");
    let prefix = query.get("prefix").unwrap_or_default();
    let after = query.get("after").unwrap_or_default();
    let limit = query.number("limit", ROWS_DEFAULT, ROWS_MAX)?.max(1);
    if let Some(wanted) = query.get("search").filter(|wanted| !wanted.is_empty()) {
        let (files, next) = search(page, path, wanted, after, limit as usize).await?;
        return Ok(json(StatusCode::OK, &Listing::new(path, files, next)));
    }
    let descending = match query.get("order") {
        None | Some("" | "asc") => false,
        Some("desc") => true,
        Some(_) => return Err(Problem::invalid("'order' is asc or desc")),
    };
    let key: fn(&FileInfo) -> u64 = match query.get("sort") {
        None | Some("" | "name") if !descending => {
            let rows = page.backend.list(path, prefix, after, limit).await?;
            let next = rows
                .rows
                .last()
                .map(|last| last.name.clone())
                .filter(|_| rows.more);
            return Ok(json(StatusCode::OK, &Listing::new(path, rows.rows, next)));
        }
        None | Some("" | "name") => |_| 0,
        Some("size") => |file| file.size_bytes,
        Some("modified") => |file| file.modified_unix_ms,
        Some(_) => return Err(Problem::invalid("'sort' is name, size or modified")),
    };
    let (mut files, cut) = all(page, path, prefix).await?;
    // Folders first, equal ones by name, in either order.
    files.sort_by(|one, other| {
        let order = key(one).cmp(&key(other)).then_with(|| one.name.cmp(&other.name));
        let order = if descending { order.reverse() } else { order };
        other.directory.cmp(&one.directory).then(order)
    });
    Ok(json(StatusCode::OK, &Listing::sorted(path, files, cut)))
}

/// All entries of a folder, or as many as can be sorted; whether there are more.
async fn all(page: &Page, path: &str, prefix: &str) -> Result<(Vec<FileInfo>, bool)> {
    let mut files: Vec<FileInfo> = Vec::new();
    loop {
        let after = files.last().map(|last| last.name.clone()).unwrap_or_default();
        let rows = page.backend.list(path, prefix, &after, ROWS_MAX).await?;
        files.extend(rows.rows);
        if !rows.more || files.len() >= SORTED_MAX {
            return Ok((files, rows.more));
        }
        // Others want this thread too.
        tokio::task::yield_now().await;
    }
}

/// A path as it stands below a folder.
pub(crate) fn below(folder: &str, file: &FileInfo) -> String {
    let folder = folder.trim_end_matches('/');
    let path = file.path.strip_prefix(folder).unwrap_or(&file.path);
    path.trim_start_matches('/').to_owned()
}

/// Files and folders below `path` whose names contain `wanted`, whatever the case, behind the path `after`; and what
/// the next page comes behind. Few are found at a time where few match.
async fn search(
    page: &Page,
    path: &str,
    wanted: &str,
    after: &str,
    limit: usize,
) -> Result<(Vec<FileInfo>, Option<String>)> {
    let wanted = wanted.to_lowercase();
    let (mut found, mut after, mut looked) = (Vec::new(), after.to_owned(), 0);
    loop {
        let rows = page.backend.list_below(path, &after, ROWS_MAX).await?;
        for file in rows.rows {
            after = below(path, &file);
            looked += 1;
            if file.name.to_lowercase().contains(&wanted) {
                found.push(file);
                if found.len() == limit {
                    return Ok((found, Some(after)));
                }
            }
        }
        if !rows.more {
            return Ok((found, None));
        }
        if looked >= SEARCHED_MAX {
            return Ok((found, Some(after)));
        }
        tokio::task::yield_now().await;
    }
}

/// A file and a run of its blocks.
#[utoipa::path(get, path = "/api/v1/file", tag = "files", params(("path" = String, Query), ("from" = Option<u32>, Query), ("limit" = Option<u32>, Query)), responses((status = 200, body = FileBlocks)))]
pub(crate) async fn file(page: &Page, query: &Query) -> Result<Answered> {
    let path = query
        .get("path")
        .ok_or_else(|| Problem::invalid("say which file: ?path=/…"))?;
    let from = query.number("from", 0, u32::MAX)?;
    let limit = query.number("limit", BLOCKS_MAX, BLOCKS_MAX)?;
    let (file, blocks) = page.backend.lookup(path, from, limit).await?;
    Ok(json(StatusCode::OK, &FileBlocks::new(file, blocks, from)))
}

/// One block and where it belongs.
#[utoipa::path(get, path = "/api/v1/block", tag = "files", params(("id" = String, Query)), responses((status = 200, body = OneBlock)))]
pub(crate) async fn block(page: &Page, query: &Query) -> Result<Answered> {
    let id = block_id(query.get("id").unwrap_or_default())?;
    Ok(json(
        StatusCode::OK,
        &OneBlock::from(page.backend.locate(id).await?),
    ))
}

/// What a volume holds.
#[utoipa::path(get, path = "/api/v1/volumes/{id}/blocks", tag = "cluster", params(("id" = String, Path), ("after" = Option<String>, Query), ("limit" = Option<u32>, Query)), responses((status = 200, body = HeldBlocks)))]
pub(crate) async fn held(page: &Page, volume: &str, query: &Query) -> Result<Answered> {
    let id = volume_id(volume)?;
    let after = match query.get("after") {
        None | Some("") => BlockId(0),
        Some(after) => block_id(after)?,
    };
    let limit = query.number("limit", ROWS_DEFAULT, ROWS_MAX)?.max(1);
    let rows = page.backend.held(id, after, limit).await?;
    Ok(json(StatusCode::OK, &HeldBlocks::new(id.to_string(), rows)))
}

/// Reads the 32 hexadecimal digits of a volume's id.
pub(crate) fn volume_id(text: &str) -> Result<VolumeId> {
    text.parse()
        .map_err(|_| Problem::invalid("the id of a volume is 32 hexadecimal digits"))
}

/// Reads the 16 hexadecimal digits of a block's id.
pub(crate) fn block_id(text: &str) -> Result<BlockId> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| Problem::invalid("the id of a block is 16 hexadecimal digits"))
}
