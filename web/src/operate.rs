//! The calls of an operator: duties, repair, scrubs, replication factors, the trash, and what a loss would mean.

use hyper::StatusCode;

use blockyard_wire::types::{Duty, ScrubOrder, Tuning, VolumeId};
use blockyard_wire::{Problem, Result};

use crate::api::{
    Assign, Done, File, Gone, Replicate, Replicated, Restore, Scrub, Trash, Tune, WhatIfAnswer,
};
use crate::queries::volume_id;
use crate::respond::{Answered, json};
use crate::routes::{Asked, Page};
use crate::target::{Query, read_json};

/// Rows of the trash in one answer.
const TRASH_ROWS: u32 = 200;
const HOUR_MS: f64 = 3_600_000.0;
/// Maintenance where nobody says for how long.
const MAINTENANCE_HOURS: f64 = 1.0;
/// And at the most.
const MAINTENANCE_HOURS_MAX: f64 = 24.0 * 365.0;

/// The volumes of these servers, and these volumes.
async fn volumes(
    page: &Page,
    servers: &[String],
    zones: &[String],
    volumes: &[String],
) -> Result<Vec<VolumeId>> {
    let mut found = volumes
        .iter()
        .map(|id| volume_id(id))
        .collect::<Result<Vec<_>>>()?;
    if servers.is_empty() && zones.is_empty() {
        return Ok(found);
    }
    let status = page.backend.status().await?;
    for wanted in servers {
        let known = status.servers.iter().find(|server| server.address == *wanted);
        known.ok_or_else(|| Problem::not_found(format!("there is no dataserver {wanted}")))?;
    }
    for wanted in zones {
        let known = status.servers.iter().find(|server| server.zone == *wanted);
        known.ok_or_else(|| Problem::not_found(format!("there is no zone {wanted}")))?;
    }
    for server in status.servers {
        if servers.contains(&server.address) || zones.contains(&server.zone) {
            let ids = server
                .volumes
                .iter()
                .filter(|volume| volume.duty != Duty::Removed);
            found.extend(ids.map(|volume| volume.report.id));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Gives an operator's word on servers and volumes.
#[utoipa::path(post, path = "/api/v1/duty", tag = "operate", request_body = Assign, responses((status = 200, body = Done)))]
pub(crate) async fn duty(page: &Page, asked: Asked) -> Result<Answered> {
    let wanted: Assign = read_json(page, asked).await?;
    let ids = volumes(page, &wanted.servers, &[], &wanted.volumes).await?;
    if ids.is_empty() {
        return Err(Problem::invalid("say which servers or volumes are meant"));
    }
    let hours = wanted.hours.unwrap_or(MAINTENANCE_HOURS);
    let duty = match wanted.duty.as_str() {
        "serving" => Duty::Serving,
        "draining" => Duty::Draining,
        "removed" => Duty::Removed,
        "maintenance" if hours > 0.0 && hours <= MAINTENANCE_HOURS_MAX => Duty::Maintenance {
            until_unix_ms: page.backend.status().await?.cluster.now_unix_ms + (hours * HOUR_MS) as u64,
        },
        "maintenance" => {
            return Err(Problem::invalid(format!(
                "maintenance takes more than 0 and at most {MAINTENANCE_HOURS_MAX} hours"
            )));
        }
        other => {
            return Err(Problem::invalid(format!(
                "'{}' is none of serving, draining, maintenance, removed",
                other.escape_default()
            )));
        }
    };
    let count = ids.len() as u64;
    page.backend.assign(ids, duty, wanted.force).await?;
    Ok(json(StatusCode::OK, &Done { volumes: count }))
}

/// Changes how repair and balance work; what is not named stays.
#[utoipa::path(post, path = "/api/v1/repair", tag = "operate", request_body = Tune, responses((status = 200, body = Done)))]
pub(crate) async fn repair(page: &Page, asked: Asked) -> Result<Answered> {
    let wanted: Tune = read_json(page, asked).await?;
    let now = page.backend.status().await?.repair.tuning;
    let tuning = Tuning {
        repair_paused: wanted.paused.unwrap_or(now.repair_paused),
        repair_forced: wanted.forced.unwrap_or(now.repair_forced),
        repair_bytes_per_s: wanted.limit_bytes_per_s.unwrap_or(now.repair_bytes_per_s),
        balance_off: wanted.balance_off.unwrap_or(now.balance_off),
    };
    page.backend.tune(tuning).await?;
    Ok(json(StatusCode::OK, &Done { volumes: 0 }))
}

/// Starts or pauses scrubs.
#[utoipa::path(post, path = "/api/v1/scrub", tag = "operate", request_body = Scrub, responses((status = 200, body = Done)))]
pub(crate) async fn scrub(page: &Page, asked: Asked) -> Result<Answered> {
    let wanted: Scrub = read_json(page, asked).await?;
    let order = match wanted.order.as_str() {
        "start" => ScrubOrder::Start,
        "pause" => ScrubOrder::Pause,
        _ => return Err(Problem::invalid("the order is start or pause")),
    };
    let ids = volumes(page, &[], &[], &wanted.volumes).await?;
    let count = ids.len() as u64;
    page.backend.scrub(ids, order).await?;
    Ok(json(StatusCode::OK, &Done { volumes: count }))
}

/// Sets how many replicas are wanted.
#[utoipa::path(post, path = "/api/v1/replication", tag = "files", request_body = Replicate, responses((status = 200, body = Replicated)))]
pub(crate) async fn replication(page: &Page, asked: Asked) -> Result<Answered> {
    let wanted: Replicate = read_json(page, asked).await?;
    let files = page
        .backend
        .set_replication(&wanted.path, wanted.recursive, wanted.replication)
        .await?;
    Ok(json(StatusCode::OK, &Replicated { files }))
}

/// What is in the trash, behind the entry `after`.
#[utoipa::path(get, path = "/api/v1/trash", tag = "files", params(("after" = Option<u64>, Query)), responses((status = 200, body = Trash)))]
pub(crate) async fn trash(page: &Page, query: &Query) -> Result<Answered> {
    let after = query.long("after", 0)?;
    let rows = page.backend.trash(after, TRASH_ROWS).await?;
    Ok(json(StatusCode::OK, &Trash::from(rows)))
}

fn entry(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| Problem::invalid("an entry of the trash is a number"))
}

/// Takes an entry of the trash back.
#[utoipa::path(post, path = "/api/v1/trash/{entry}/restore", tag = "files", request_body = Restore, params(("entry" = String, Path)), responses((status = 200, body = File)))]
pub(crate) async fn restore(page: &Page, id: &str, asked: Asked) -> Result<Answered> {
    let id = entry(id)?;
    let wanted: Restore = read_json(page, asked).await?;
    let file = page.backend.restore(id, wanted.to).await?;
    Ok(json(StatusCode::OK, &File::from(file)))
}

/// Removes an entry of the trash for good.
#[utoipa::path(delete, path = "/api/v1/trash/{entry}", tag = "files", params(("entry" = String, Path)), responses((status = 200, body = Gone)))]
pub(crate) async fn discard(page: &Page, id: &str) -> Result<Answered> {
    let removed = page.backend.empty_trash(Some(entry(id)?)).await?;
    Ok(json(StatusCode::OK, &Gone::from(removed)))
}

/// Empties the trash.
#[utoipa::path(delete, path = "/api/v1/trash", tag = "files", responses((status = 200, body = Gone)))]
pub(crate) async fn empty_trash(page: &Page) -> Result<Answered> {
    let removed = page.backend.empty_trash(None).await?;
    Ok(json(StatusCode::OK, &Gone::from(removed)))
}

/// What the loss of servers, zones and volumes would mean.
#[utoipa::path(get, path = "/api/v1/whatif", tag = "cluster", params(("server" = Vec<String>, Query), ("zone" = Vec<String>, Query), ("volume" = Vec<String>, Query)), responses((status = 200, body = WhatIfAnswer)))]
pub(crate) async fn what_if(page: &Page, query: &Query) -> Result<Answered> {
    let _turn = page.survey_turn().await?;
    let ids = volumes(
        page,
        &query.all("server"),
        &query.all("zone"),
        &query.all("volume"),
    )
    .await?;
    let count = ids.len() as u64;
    let found = page.backend.what_if(ids).await?;
    Ok(json(StatusCode::OK, &WhatIfAnswer::new(count, found)))
}
