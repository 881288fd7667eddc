//! Uploads whose blocks come one by one: a browser that is closed in the middle goes on later with those that are
//! missing. The nameserver knows which are there; the page only keeps such uploads open for a while.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use blockyard_engine::checksum;
use blockyard_engine::limits::BLOCK_BYTES_MAX;
use blockyard_nameserver::UploadSoFar;
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::api::{Stored, crc};
use crate::backend::{Backend, Upload};
use crate::respond::{Answered, json, nothing, refused};
use crate::routes::{Asked, Page};
use crate::target::{read_json, whole_body};

/// How long an upload stays open that nobody sends to.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Uploads that are kept open at the most; beyond that the one that has been silent for longest is let go.
const KEPT_MAX: usize = 256;
/// Between two rounds of keeping them open.
const ROUND: Duration = Duration::from_secs(5);

/// `POST /api/v1/uploads`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Open {
    path: String,
    /// Bytes to come.
    size: u64,
    /// Whether a file there may be replaced.
    #[serde(default)]
    overwrite: bool,
    /// Replicas of each block; 0 or nothing: the cluster's default.
    #[serde(default)]
    replication: u8,
    /// MIME type, or empty.
    #[serde(default)]
    content_type: String,
}

/// An upload that is open.
#[derive(Serialize, ToSchema)]
pub(crate) struct Opened {
    id: String,
    path: String,
    /// Bytes of each block but the last.
    block_bytes: u32,
}

/// A block that is durable.
#[derive(Serialize, ToSchema)]
pub(crate) struct Piece {
    index: u32,
    length: u32,
    crc32c: String,
}

impl Piece {
    fn new(index: u32, length: u32, crc32c: u32) -> Self {
        Self {
            index,
            length,
            crc32c: crc(crc32c),
        }
    }
}

/// `GET /api/v1/uploads/{id}`.
#[derive(Serialize, ToSchema)]
pub(crate) struct SoFar {
    id: String,
    path: String,
    block_bytes: u32,
    /// By index.
    blocks: Vec<Piece>,
}

/// `POST /api/v1/uploads/{id}/commit`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commit {
    /// Bytes of the whole file.
    size: u64,
    /// CRC32C of the whole file, 8 hexadecimal digits.
    crc32c: String,
}

/// Uploads that are kept open, and when each was last sent to.
#[derive(Default)]
pub(crate) struct Kept(RefCell<BTreeMap<u64, Instant>>);

impl Kept {
    fn touch(&self, lease: u64) {
        let mut kept = self.0.borrow_mut();
        kept.insert(lease, Instant::now());
        if kept.len() > KEPT_MAX {
            let oldest = kept.iter().min_by_key(|(_, at)| **at).map(|(lease, _)| *lease);
            oldest.and_then(|lease| kept.remove(&lease));
        }
    }

    fn forget(&self, lease: u64) {
        self.0.borrow_mut().remove(&lease);
    }

    /// Keeps them open until dropped.
    pub(crate) async fn run(&self, backend: Rc<dyn Backend>) {
        loop {
            sleep(ROUND).await;
            self.0.borrow_mut().retain(|_, at| at.elapsed() < KEPT);
            let leases: Vec<u64> = self.0.borrow().keys().copied().collect();
            for lease in leases {
                match backend.renew_upload(lease).await {
                    Err(problem) if problem.kind == ProblemKind::Denied => self.forget(lease),
                    _ => {}
                }
            }
        }
    }
}

/// The upload of an id; `Gone` once it is not open any more.
async fn found(page: &Page, id: &str) -> Result<UploadSoFar> {
    let lease = u64::from_str_radix(id, 16)
        .map_err(|_| Problem::invalid("the id of an upload is hexadecimal digits"))?;
    let found = page
        .backend
        .upload_so_far(lease)
        .await
        .map_err(|problem| match problem.kind {
            ProblemKind::Denied => Problem::new(ProblemKind::Gone, problem.message),
            _ => problem,
        })?;
    page.kept.touch(lease);
    Ok(found)
}

/// Opens an upload.
#[utoipa::path(post, path = "/api/v1/uploads", tag = "uploads", request_body = Open, responses((status = 201, body = Opened)))]
pub(crate) async fn open(page: &Page, asked: Asked) -> Result<Answered> {
    let wanted: Open = read_json(page, asked).await?;
    let upload = Upload {
        path: wanted.path,
        overwrite: wanted.overwrite,
        content_type: wanted.content_type,
        length_bytes: Some(wanted.size),
        replication: wanted.replication,
    };
    let lease = page.backend.open_upload(upload).await?;
    page.kept.touch(lease.id);
    let so_far = page.backend.upload_so_far(lease.id).await?;
    Ok(json(
        StatusCode::CREATED,
        &Opened {
            id: format!("{:x}", lease.id),
            path: so_far.path,
            block_bytes: BLOCK_BYTES_MAX as u32,
        },
    ))
}

/// Which blocks of an upload are there.
#[utoipa::path(get, path = "/api/v1/uploads/{id}", tag = "uploads", params(("id" = String, Path)), responses((status = 200, body = SoFar)))]
pub(crate) async fn look(page: &Page, id: &str) -> Result<Answered> {
    let so_far = found(page, id).await?;
    Ok(json(
        StatusCode::OK,
        &SoFar {
            id: id.to_owned(),
            path: so_far.path,
            block_bytes: BLOCK_BYTES_MAX as u32,
            blocks: so_far
                .blocks
                .into_iter()
                .map(|(index, length, crc32c)| Piece::new(index, length, crc32c))
                .collect(),
        },
    ))
}

/// Stores one block; `x-crc32c` is compared with what has arrived.
#[utoipa::path(put, path = "/api/v1/uploads/{id}/blocks/{index}", tag = "uploads", params(("id" = String, Path), ("index" = u32, Path), ("x-crc32c" = Option<String>, Header)), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 200, body = Piece)))]
pub(crate) async fn store(page: &Page, id: &str, index: &str, asked: Asked) -> Result<Answered> {
    let index: u32 = index
        .parse()
        .map_err(|_| Problem::invalid("the index of a block is a number"))?;
    let so_far = found(page, id).await?;
    let given = asked.headers().get("x-crc32c").cloned();
    let _turn = page.piece_turn().await?;
    let trouble = format!("no block of at most {BLOCK_BYTES_MAX} bytes");
    let data = whole_body(page, asked, BLOCK_BYTES_MAX, &trouble).await?;
    let arrived = checksum::crc(&data);
    if let Some(given) = given {
        let (arrived, given) = (crc(arrived), given.to_str().unwrap_or_default());
        if !given.eq_ignore_ascii_case(&arrived) {
            let message = format!("the block has arrived with CRC32C {arrived}, not {given}; send it again");
            return Ok(refused(StatusCode::UNPROCESSABLE_ENTITY, "corrupt", &message));
        }
    }
    if let Some((_, length, crc32c)) = so_far.blocks.iter().find(|(at, ..)| *at == index) {
        // Sent again, because the answer was lost: it is there. Another one can't take its place.
        return match (*length as usize, *crc32c) == (data.len(), arrived) {
            true => Ok(json(StatusCode::OK, &Piece::new(index, *length, *crc32c))),
            false => Err(Problem::invalid(format!(
                "block {index} is there, and is another one"
            ))),
        };
    }
    let added = page.backend.upload_block(so_far.lease, index, data).await?;
    let piece = Piece::new(index, added.length, added.crc32c);
    Ok(json(StatusCode::OK, &piece))
}

/// Publishes the file.
#[utoipa::path(post, path = "/api/v1/uploads/{id}/commit", tag = "uploads", params(("id" = String, Path)), request_body = Commit, responses((status = 201, body = Stored)))]
pub(crate) async fn commit(page: &Page, id: &str, asked: Asked) -> Result<Answered> {
    let wanted: Commit = read_json(page, asked).await?;
    let crc32c = u32::from_str_radix(&wanted.crc32c, 16)
        .map_err(|_| Problem::invalid("crc32c is 8 hexadecimal digits"))?;
    let so_far = found(page, id).await?;
    let blocks = so_far.blocks.len() as u32;
    let lease = so_far.lease;
    let published = page
        .backend
        .commit_upload(lease, blocks, wanted.size, crc32c)
        .await?;
    page.kept.forget(lease.id);
    Ok(json(StatusCode::CREATED, &Stored::from(published)))
}

/// Gives an upload up.
#[utoipa::path(delete, path = "/api/v1/uploads/{id}", tag = "uploads", params(("id" = String, Path)), responses((status = 204)))]
pub(crate) async fn abandon(page: &Page, id: &str) -> Result<Answered> {
    let lease = found(page, id).await?.lease.id;
    page.kept.forget(lease);
    page.backend.abandon_upload(lease).await?;
    Ok(nothing())
}
