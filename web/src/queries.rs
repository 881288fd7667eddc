//! The calls that only look: status, servers, folders, files with their blocks, blocks of a volume.

use hyper::StatusCode;

use blockyard_wire::types::{BlockId, VolumeId};
use blockyard_wire::{Problem, Result};

use crate::api::{FileBlocks, HeldBlocks, Listing, OneBlock, Server, Status};
use crate::respond::{Answered, json};
use crate::routes::Page;
use crate::target::Query;

/// Rows of an answer where the asker does not say.
const ROWS_DEFAULT: u32 = 100;
/// Rows of an answer at the most.
const ROWS_MAX: u32 = 1000;
/// Blocks of a file in one answer at the most.
const BLOCKS_MAX: u32 = 256;

/// The whole cluster.
pub(crate) fn status(page: &Page) -> Result<Answered> {
    Ok(json(StatusCode::OK, &Status::from(page.backend.status()?)))
}

/// The servers alone.
pub(crate) fn servers(page: &Page) -> Result<Answered> {
    let servers = page.backend.status()?.servers;
    let servers: Vec<Server> = servers.into_iter().map(Server::from).collect();
    Ok(json(StatusCode::OK, &serde_json::json!({ "servers": servers })))
}

/// `?path=/folder&prefix=&after=&limit=`: the entries of a folder.
pub(crate) fn files(page: &Page, query: &Query) -> Result<Answered> {
    let path = query.get("path").unwrap_or("/");
    let prefix = query.get("prefix").unwrap_or_default();
    let after = query.get("after").unwrap_or_default();
    let limit = query.number("limit", ROWS_DEFAULT, ROWS_MAX)?.max(1);
    let rows = page.backend.list(path, prefix, after, limit)?;
    Ok(json(StatusCode::OK, &Listing::new(path, rows)))
}

/// `?path=/file&from=&limit=`: a file and a run of its blocks.
pub(crate) fn file(page: &Page, query: &Query) -> Result<Answered> {
    let path = query
        .get("path")
        .ok_or_else(|| Problem::invalid("say which file: ?path=/…"))?;
    let from = query.number("from", 0, u32::MAX)?;
    let limit = query.number("limit", BLOCKS_MAX, BLOCKS_MAX)?;
    let (file, blocks) = page.backend.lookup(path, from, limit)?;
    Ok(json(StatusCode::OK, &FileBlocks::new(file, blocks, from)))
}

/// `?id=`: one block and where it belongs.
pub(crate) fn block(page: &Page, query: &Query) -> Result<Answered> {
    let id = block_id(query.get("id").unwrap_or_default())?;
    Ok(json(StatusCode::OK, &OneBlock::from(page.backend.locate(id)?)))
}

/// `volumes/{id}/blocks?after=&limit=`: what a volume holds.
pub(crate) fn held(page: &Page, volume: &str, query: &Query) -> Result<Answered> {
    let id: VolumeId = volume
        .parse()
        .map_err(|_| Problem::invalid("the id of a volume is 32 hexadecimal digits"))?;
    let after = match query.get("after") {
        None | Some("") => BlockId(0),
        Some(after) => block_id(after)?,
    };
    let limit = query.number("limit", ROWS_DEFAULT, ROWS_MAX)?.max(1);
    let rows = page.backend.held(id, after, limit)?;
    Ok(json(StatusCode::OK, &HeldBlocks::new(id.to_string(), rows)))
}

/// Reads the 16 hexadecimal digits of a block's id.
pub(crate) fn block_id(text: &str) -> Result<BlockId> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| Problem::invalid("the id of a block is 16 hexadecimal digits"))
}
