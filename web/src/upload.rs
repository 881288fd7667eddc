//! Uploads: a body as it is (PUT) or the files of a form (POST), streamed, stored whole or not at all.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap};

use blockyard_wire::types::FileInfo;
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::api::{Stored, StoredAll};
use crate::backend::{Upload, Uploaded};
use crate::conditions::{self, Verdict, etag};
use crate::content::precondition_failed;
use crate::pipe::{BodyReader, BodyWriter, Unwanted, pipe};
use crate::respond::{Answered, essence, header_text, json, problem, set};
use crate::routes::{Asked, Page};
use crate::target::Query;

/// A refused body of at most so many bytes is still read, so that the sender gets to see the answer
/// instead of a connection reset.
const DRAIN_BYTES_MAX: usize = 8 << 20;
/// And for at most so long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Files of one form at the most.
const FORM_FILES_MAX: usize = 1000;

/// Stores the body as the file `path`.
#[utoipa::path(put, path = "/api/v1/content/{path}", tag = "files", params(("path" = String, Path), ("overwrite" = Option<bool>, Query)), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 201, body = Stored), (status = 200, body = Stored), (status = 409)))]
pub(crate) async fn put(page: &Page, path: &str, query: &Query, asked: Asked) -> Result<Answered> {
    let (parts, mut body) = asked.into_parts();
    let mut overwrite = query.switch("overwrite")?;
    let existing = match current(page, path).await {
        Ok(existing) => existing,
        Err(refusal) => return Ok(refuse(&refusal, &parts.headers, &mut body).await),
    };
    let tag = existing.as_ref().map(etag);
    if conditions::judge(&parts.headers, tag.as_deref(), false) != Verdict::Proceed {
        drain(&parts.headers, &mut body).await;
        return Ok(precondition_failed(path));
    }
    // Who names the version to replace has said that it may be replaced.
    overwrite |= parts.headers.contains_key(header::IF_MATCH);
    if existing.is_some() && !overwrite {
        let refusal = Problem::new(
            ProblemKind::Exists,
            format!("{path} exists already; add ?overwrite to replace it"),
        );
        return Ok(refuse(&refusal, &parts.headers, &mut body).await);
    }
    let upload = Upload {
        path: path.to_owned(),
        overwrite,
        content_type: given_type(&parts.headers),
        length_bytes: body.size_hint().exact(),
        replication: 0,
    };
    let result = async {
        let _turn = page.upload_turn().await?;
        let (writer, reader) = pipe();
        store(page, upload, reader, feed(&mut body, writer, page.body_timeout)).await
    }
    .await;
    match result {
        Ok(uploaded) => {
            let status = if existing.is_some() {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            let tag = etag(&uploaded.file);
            let mut response = json(status, &Stored::from(uploaded));
            set(&mut response, header::ETAG, &tag);
            Ok(response)
        }
        Err(refusal) => Ok(refuse(&refusal, &parts.headers, &mut body).await),
    }
}

/// Stores each file of a form in the folder `path`.
#[utoipa::path(post, path = "/api/v1/content/{path}", tag = "files", params(("path" = String, Path), ("overwrite" = Option<bool>, Query)), responses((status = 201, body = StoredAll)))]
pub(crate) async fn form(page: &Page, folder: &str, query: &Query, asked: Asked) -> Result<Answered> {
    let overwrite = query.switch("overwrite")?;
    let boundary = header_text(asked.headers(), header::CONTENT_TYPE)
        .and_then(|text| multer::parse_boundary(text).ok())
        .ok_or_else(|| {
            Problem::invalid("a POST must be a form (multipart/form-data); send a file as it is by PUT")
        })?;
    let timeout = page.body_timeout;
    let pieces = pieces(asked.into_body(), timeout);
    let mut form = multer::Multipart::new(pieces, boundary);
    let _turn = page.upload_turn().await?;
    let mut stored = StoredAll { files: Vec::new() };
    while let Some(mut field) = form.next_field().await.map_err(malformed)? {
        // Fields that are no files are of no use here.
        let Some(name) = field
            .file_name()
            .map(str::to_owned)
            .filter(|name| !name.is_empty())
        else {
            continue;
        };
        if name.contains('/') {
            return Err(Problem::invalid(format!(
                "'{}' is no name of a file",
                name.escape_default()
            )));
        }
        if stored.files.len() == FORM_FILES_MAX {
            return Err(Problem::invalid(format!(
                "a form may hold {FORM_FILES_MAX} files at the most"
            )));
        }
        let upload = Upload {
            path: format!("{}/{name}", folder.trim_end_matches('/')),
            overwrite,
            content_type: given_type(field.headers()),
            length_bytes: None,
            replication: 0,
        };
        let (writer, reader) = pipe();
        let feed = async {
            while let Some(data) = field.chunk().await.map_err(malformed)? {
                if writer.send(data).await == Err(Unwanted) {
                    return Ok(());
                }
            }
            // Where nobody wants the end any more, the storing side tells why.
            let _ = writer.finish().await;
            Ok(())
        };
        stored.files.push(store(page, upload, reader, feed).await?.into());
    }
    Ok(json(StatusCode::CREATED, &stored))
}

/// Runs an upload beside what feeds it.
async fn store(
    page: &Page,
    upload: Upload,
    reader: BodyReader,
    feed: impl Future<Output = Result<()>>,
) -> Result<Uploaded> {
    let mut stored = page.backend.upload(upload, reader);
    let mut feed = pin!(feed);
    tokio::select! {
        result = &mut stored => result,
        fed = &mut feed => {
            // A body that broke off: dropping the upload gives it up.
            fed?;
            stored.await
        }
    }
}

/// Hands a body on as it comes. A body that breaks off leaves the pipe without its end.
async fn feed(body: &mut Incoming, writer: BodyWriter, timeout: Duration) -> Result<()> {
    let mut left = body.size_hint().exact();
    while let Some(data) = next(body, timeout).await.map_err(broke_off)? {
        left = left.map(|left| left.saturating_sub(data.len() as u64));
        if writer.send(data).await == Err(Unwanted) {
            return Ok(());
        }
    }
    if left.is_some_and(|left| left > 0) {
        return Err(Problem::invalid(
            "the body is shorter than its declared length; nothing was stored",
        ));
    }
    // Where nobody wants the end any more, the storing side tells why.
    let _ = writer.finish().await;
    Ok(())
}

/// The next bytes of a body; trailers are passed over.
async fn next(body: &mut Incoming, timeout: Duration) -> io::Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(timeout, body.frame())
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the sender has fallen silent"))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(io::Error::other(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn pieces(body: Incoming, timeout: Duration) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match next(&mut body, timeout).await {
            Ok(None) => None,
            Ok(Some(data)) => Some((Ok(data), Some(body))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

/// What stands at `path` now. Folders are the namespace's business.
async fn current(page: &Page, path: &str) -> Result<Option<FileInfo>> {
    match page.backend.lookup(path, 0, 0).await {
        Ok((file, _)) => Ok((!file.directory).then_some(file)),
        Err(problem) if problem.kind == ProblemKind::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// The sender's word on what the file is, where it is one: forms and programs that don't know say nothing.
fn given_type(headers: &HeaderMap) -> String {
    let text = header_text(headers, header::CONTENT_TYPE).unwrap_or_default();
    let essence = essence(text);
    let silent = [
        "",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ];
    if silent.iter().any(|silent| essence.eq_ignore_ascii_case(silent)) || text.len() > 255 {
        return String::new();
    }
    text.to_owned()
}

async fn refuse(refusal: &Problem, headers: &HeaderMap, body: &mut Incoming) -> Answered {
    drain(headers, body).await;
    problem(refusal)
}

async fn drain(headers: &HeaderMap, body: &mut Incoming) {
    // Who waits for leave to send has sent nothing, and reading would give that leave.
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let mut left = DRAIN_BYTES_MAX;
    let reading = async {
        while let Ok(Some(data)) = next(body, DRAIN_TIMEOUT).await {
            left = left.saturating_sub(data.len());
            if left == 0 {
                break;
            }
        }
    };
    // Past its time the connection is closed, and a sender that still sends sees that.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}

fn broke_off(error: io::Error) -> Problem {
    Problem::invalid(format!("the upload broke off, nothing was stored: {error}"))
}

fn malformed(error: multer::Error) -> Problem {
    Problem::invalid(format!("the form can't be read: {error}"))
}
