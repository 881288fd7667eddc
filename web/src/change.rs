//! The calls that change the namespace: remove, new folder, rename.

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};

use blockyard_wire::{Problem, ProblemKind, Result};

use crate::api::{File, Gone, Rename};
use crate::conditions::{self, Verdict, etag};
use crate::content::precondition_failed;
use crate::respond::{Answered, json};
use crate::routes::{Asked, Page};
use crate::target::{Query, read_json};

/// Moves the file or folder at `path` into the trash; a folder with its contents only with `?recursive`.
#[utoipa::path(delete, path = "/api/v1/content/{path}", tag = "files", params(("path" = String, Path), ("recursive" = Option<bool>, Query)), responses((status = 200, body = Gone)))]
pub(crate) async fn remove(page: &Page, path: &str, query: &Query, headers: &HeaderMap) -> Result<Answered> {
    let recursive = query.switch("recursive")?;
    if headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH) {
        let (file, _) = page.backend.lookup(path, 0, 0).await?;
        if conditions::judge(headers, Some(&etag(&file)), false) != Verdict::Proceed {
            return Ok(precondition_failed(path));
        }
    }
    let removed = page.backend.remove(path, recursive).await?;
    let entry = page.backend.newest_in_trash(path).await?;
    Ok(json(StatusCode::OK, &Gone::into_trash(removed, entry)))
}

/// Makes the folder `path`, with its missing parents.
#[utoipa::path(post, path = "/api/v1/folders/{path}", tag = "files", params(("path" = String, Path)), responses((status = 201, body = File)))]
pub(crate) async fn make_folder(page: &Page, path: &str) -> Result<Answered> {
    match page.backend.lookup(path, 0, 0).await {
        Ok(_) => {
            return Err(Problem::new(
                ProblemKind::Exists,
                format!("{path} exists already"),
            ));
        }
        Err(problem) if problem.kind == ProblemKind::NotFound => {}
        Err(problem) => return Err(problem),
    }
    let folder = page.backend.make_folder(path).await?;
    Ok(json(StatusCode::CREATED, &File::from(folder)))
}

/// Gives a file or folder another name.
#[utoipa::path(post, path = "/api/v1/rename", tag = "files", request_body = Rename, responses((status = 200, body = File)))]
pub(crate) async fn rename(page: &Page, asked: Asked) -> Result<Answered> {
    let wanted: Rename = read_json(page, asked).await?;
    page.backend
        .rename(&wanted.from, &wanted.to, wanted.overwrite)
        .await?;
    let (file, _) = page.backend.lookup(&wanted.to, 0, 0).await?;
    Ok(json(StatusCode::OK, &File::from(file)))
}
