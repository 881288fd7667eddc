//! The calls that change the namespace: remove, new folder, rename.

use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap};

use blockyard_wire::{Problem, ProblemKind, Result};

use crate::api::{File, Gone, Rename};
use crate::conditions::{self, Verdict, etag};
use crate::content::precondition_failed;
use crate::respond::{Answered, header_text, json};
use crate::routes::{Asked, Page};
use crate::target::Query;

/// Bytes of a JSON body at the most: two paths and some.
const JSON_BYTES_MAX: usize = 64 << 10;

/// Removes the file or folder at `path`; a folder with its contents only with `?recursive`.
pub(crate) async fn remove(page: &Page, path: &str, query: &Query, headers: &HeaderMap) -> Result<Answered> {
    let recursive = query.switch("recursive")?;
    if headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH) {
        let (file, _) = page.backend.lookup(path, 0, 0)?;
        if conditions::judge(headers, Some(&etag(&file)), false) != Verdict::Proceed {
            return Ok(precondition_failed(path));
        }
    }
    let removed = page.backend.remove(path, recursive).await?;
    Ok(json(StatusCode::OK, &Gone::from(removed)))
}

/// Makes the folder `path`, with its missing parents.
pub(crate) async fn make_folder(page: &Page, path: &str) -> Result<Answered> {
    match page.backend.lookup(path, 0, 0) {
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

/// `{"from": …, "to": …, "overwrite": false}`: gives a file or folder another name.
pub(crate) async fn rename(page: &Page, asked: Asked) -> Result<Answered> {
    let given = header_text(asked.headers(), header::CONTENT_TYPE).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::invalid("send JSON, with Content-Type: application/json"));
    }
    let body = Limited::new(asked.into_body(), JSON_BYTES_MAX).collect();
    let body = tokio::time::timeout(page.body_timeout, body)
        .await
        .map_err(|_| Problem::invalid("the sender has fallen silent"))?
        .map_err(|error| Problem::invalid(format!("the body can't be read: {error}")))?
        .to_bytes();
    let wanted: Rename = serde_json::from_slice(&body)
        .map_err(|error| Problem::invalid(format!("not the JSON that is expected: {error}")))?;
    page.backend
        .rename(&wanted.from, &wanted.to, wanted.overwrite)
        .await?;
    let (file, _) = page.backend.lookup(&wanted.to, 0, 0)?;
    Ok(json(StatusCode::OK, &File::from(file)))
}
