//! The table of routes: which method on which path is answered by what.

use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use blockyard_wire::{Problem, ProblemKind, Result};

use crate::backend::Backend;
use crate::guard::Guard;
use crate::metrics::boards;
use crate::respond::{Answered, json, problem, refused, without_body};
use crate::target::{Query, file_path};
use crate::{assets, change, content, probes, queries, upload};

/// Uploads at a time: each has about six blocks in memory.
const UPLOADS_MAX: usize = 8;
/// Downloads at a time: each has at most four blocks in memory.
const DOWNLOADS_MAX: usize = 24;
/// How long a transfer waits for its turn before it is told to come back.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// A request as it came.
pub(crate) type Asked = Request<Incoming>;

/// What every request is answered from.
pub(crate) struct Page {
    /// The cluster.
    pub(crate) backend: Rc<dyn Backend>,
    /// Who may ask.
    pub(crate) guard: Guard,
    uploads: std::sync::Arc<Semaphore>,
    downloads: std::sync::Arc<Semaphore>,
    /// How long a sender may be silent in mid-body.
    pub(crate) body_timeout: Duration,
}

impl Page {
    /// A page on `backend`.
    pub(crate) fn new(backend: Rc<dyn Backend>, guard: Guard, body_timeout: Duration) -> Self {
        Self {
            backend,
            guard,
            uploads: std::sync::Arc::new(Semaphore::new(UPLOADS_MAX)),
            downloads: std::sync::Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            body_timeout,
        }
    }

    /// The turn of an upload; it lasts until the permit is dropped.
    pub(crate) async fn upload_turn(&self) -> Result<OwnedSemaphorePermit> {
        turn(&self.uploads).await
    }

    /// The turn of a download.
    pub(crate) async fn download_turn(&self) -> Result<OwnedSemaphorePermit> {
        turn(&self.downloads).await
    }
}

async fn turn(turns: &std::sync::Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    match tokio::time::timeout(TURN_TIMEOUT, turns.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Problem::new(
            ProblemKind::Busy,
            "too many transfers are under way through this page; try again in a moment",
        )),
    }
}

/// Answers any request.
pub(crate) async fn answer(page: &Rc<Page>, asked: Asked) -> Answered {
    let head = asked.method() == Method::HEAD;
    let response = match page.guard.check(asked.method(), asked.uri(), asked.headers()) {
        Ok(()) => match route(page, asked).await {
            Ok(response) => response,
            Err(refusal) => problem(&refusal),
        },
        Err(refusal) => problem(&refusal),
    };
    if head { without_body(response) } else { response }
}

async fn route(page: &Rc<Page>, asked: Asked) -> Result<Answered> {
    let path = asked.uri().path().to_owned();
    let query = Query::parse(asked.uri().query())?;
    // A HEAD is answered as a GET whose body is then left out.
    let head = asked.method() == Method::HEAD;
    let method = match asked.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    let get = method == Method::GET;
    let Some(call) = path.strip_prefix("/api/v1/") else {
        return Ok(match path.as_str() {
            "/healthz" if get => probes::health(page),
            "/livez" if get => probes::live(),
            "/readyz" if get => probes::ready(page, &query),
            "/metrics" if get => probes::metrics(page),
            "/healthz" | "/livez" | "/readyz" | "/metrics" => not_allowed("GET, HEAD"),
            _ if !assets::readable(&method) => not_allowed("GET, HEAD"),
            "/" => assets::asset("index.html", asked.headers()).unwrap_or_else(not_found),
            _ => path
                .strip_prefix("/assets/")
                .and_then(|name| assets::asset(name, asked.headers()))
                .unwrap_or_else(not_found),
        });
    };
    match call.split_once('/').unwrap_or((call, "")) {
        ("status", "") if get => queries::status(page),
        ("monitoring", "grafana.json") if get => Ok(json(StatusCode::OK, &boards::grafana())),
        ("monitoring", "alerts.yml") if get => Ok(json(StatusCode::OK, &boards::alerts())),
        ("servers", "") if get => queries::servers(page),
        ("files", "") if get => queries::files(page, &query),
        ("file", "") if get => queries::file(page, &query),
        ("block", "") if get => queries::block(page, &query),
        ("volumes", rest) if get && rest.ends_with("/blocks") => {
            queries::held(page, rest.trim_end_matches("/blocks"), &query)
        }
        ("status" | "monitoring" | "servers" | "files" | "file" | "block" | "volumes", _) if !get => {
            Ok(not_allowed("GET, HEAD"))
        }
        ("blocks", id) if get => content::block(page, id, asked.headers(), head).await,
        ("blocks", _) => Ok(not_allowed("GET, HEAD")),
        ("content", rest) => {
            let file = file_path(rest)?;
            match method {
                Method::GET => content::file(page, &file, asked.headers(), head).await,
                Method::PUT => upload::put(page, &file, &query, asked).await,
                Method::POST => upload::form(page, &file, &query, asked).await,
                Method::DELETE => change::remove(page, &file, &query, asked.headers()).await,
                _ => Ok(not_allowed("GET, HEAD, PUT, POST, DELETE")),
            }
        }
        ("folders", rest) if method == Method::POST => change::make_folder(page, &file_path(rest)?).await,
        ("folders", _) => Ok(not_allowed("POST")),
        ("rename", "") if method == Method::POST => change::rename(page, asked).await,
        ("rename", "") => Ok(not_allowed("POST")),
        _ => Ok(not_found()),
    }
}

pub(crate) fn not_found() -> Answered {
    refused(
        StatusCode::NOT_FOUND,
        "not-found",
        "there is no such page or call",
    )
}

pub(crate) fn not_allowed(allowed: &'static str) -> Answered {
    let mut response = refused(
        StatusCode::METHOD_NOT_ALLOWED,
        "invalid",
        &format!("this address takes {allowed} only"),
    );
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}
