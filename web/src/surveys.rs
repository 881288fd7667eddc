//! The calls that look over many blocks: the block map, runs of blocks.

use std::ops::RangeInclusive;

use hyper::StatusCode;

use blockyard_nameserver::survey::CELLS_MAX;
use blockyard_wire::types::BlockId;
use blockyard_wire::{Problem, Result};

use crate::api::{BlockRun, MapOfBlocks};
use crate::queries::block_id;
use crate::respond::{Answered, json};
use crate::routes::Page;
use crate::target::Query;

/// Cells of a map where nobody says how many.
const CELLS: u32 = 4096;
/// Blocks of a run at the most, and where nobody says how many.
const RUN_MAX: u32 = 256;
const RUN: u32 = 100;

/// `from` and `to`, both included.
fn range(query: &Query) -> Result<RangeInclusive<BlockId>> {
    let bound = |name, default| match query.get(name) {
        None | Some("") => Ok(BlockId(default)),
        Some(text) => block_id(text),
    };
    let (from, to) = (bound("from", 0)?, bound("to", u64::MAX)?);
    if from > to {
        return Err(Problem::invalid("'from' is behind 'to'"));
    }
    Ok(from..=to)
}

/// All blocks of a range from afar.
#[utoipa::path(get, path = "/api/v1/blockmap", tag = "cluster", params(("cells" = Option<u32>, Query), ("from" = Option<String>, Query), ("to" = Option<String>, Query)), responses((status = 200, body = MapOfBlocks)))]
pub(crate) async fn block_map(page: &Page, query: &Query) -> Result<Answered> {
    let cells = query.number("cells", CELLS, CELLS_MAX as u32)?.max(2);
    let range = range(query)?;
    let _turn = page.survey_turn().await?;
    let map = page.backend.block_map(range, cells as usize).await?;
    let at_unix_ms = page.backend.status().await?.cluster.now_unix_ms;
    Ok(json(StatusCode::OK, &MapOfBlocks::new(map, at_unix_ms)))
}

/// Blocks with their files in the order of their ids: those of a range, or those behind `after`.
#[utoipa::path(get, path = "/api/v1/blocks", tag = "cluster", params(("after" = Option<String>, Query), ("from" = Option<String>, Query), ("to" = Option<String>, Query), ("limit" = Option<u32>, Query)), responses((status = 200, body = BlockRun)))]
pub(crate) async fn blocks(page: &Page, query: &Query) -> Result<Answered> {
    let limit = query.number("limit", RUN, RUN_MAX)?.max(1);
    let range = range(query)?;
    let range = match query.get("after") {
        None | Some("") => range,
        Some(after) => match block_id(after)?.0.checked_add(1) {
            Some(next) if next <= range.end().0 => BlockId(next).max(*range.start())..=*range.end(),
            _ => return Ok(json(StatusCode::OK, &BlockRun::default())),
        },
    };
    let rows = page.backend.blocks_in(range, limit).await?;
    Ok(json(StatusCode::OK, &BlockRun::from(rows)))
}
