//! The table of routes: which method on which path is answered by what.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header;
use hyper::{Method, Request, StatusCode};
use matchit::Router;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use blockyard_wire::{Problem, ProblemKind, Result};

use crate::backend::Backend;
use crate::content::Taken;
use crate::guard::Guard;
use crate::metrics::boards;
use crate::pieces::Kept;
use crate::respond::{Answered, json, problem, refused, set, without_body};
use crate::target::{Query, file_path};
use crate::watch::Watch;
use crate::{archive, assets, change, content, openapi, operate, pieces, probes, queries, surveys, upload};

/// Uploads at a time: each has about six blocks in memory.
const UPLOADS_MAX: usize = 8;
/// Single blocks of uploads at a time: each is in memory.
const PIECES_MAX: usize = 16;
/// Downloads at a time: each has at most four blocks in memory.
const DOWNLOADS_MAX: usize = 24;
/// Looks over all blocks at a time.
const SURVEYS_MAX: usize = 2;
/// How long a transfer waits for its turn before it is told to come back.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// A request as it came.
pub(crate) type Asked = Request<Incoming>;

/// What a request wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Index,
    Asset,
    Health,
    Live,
    Ready,
    Metrics,
    OpenApi,
    Status,
    Events,
    History,
    Timeline,
    Grafana,
    Alerts,
    Files,
    File,
    Block,
    Blocks,
    BlockMap,
    WhatIf,
    Held,
    ReadBlock,
    ReadFile,
    PutFile,
    PostForm,
    Remove,
    Archive,
    MakeFolder,
    Rename,
    Replication,
    Trash,
    EmptyTrash,
    Discard,
    Restore,
    Duty,
    Repair,
    Scrub,
    Open,
    SoFar,
    Abandon,
    Store,
    Commit,
}

/// Method, path and call. A HEAD is answered as a GET whose body is then left out.
pub(crate) const ROUTES: &[(Method, &str, Call)] = &[
    (Method::GET, "/", Call::Index),
    (Method::GET, "/assets/{digest}/{*name}", Call::Asset),
    (Method::GET, "/healthz", Call::Health),
    (Method::GET, "/livez", Call::Live),
    (Method::GET, "/readyz", Call::Ready),
    (Method::GET, "/metrics", Call::Metrics),
    (Method::GET, "/api/v1/openapi.json", Call::OpenApi),
    (Method::GET, "/api/v1/status", Call::Status),
    (Method::GET, "/api/v1/events", Call::Events),
    (Method::GET, "/api/v1/history", Call::History),
    (Method::GET, "/api/v1/timeline", Call::Timeline),
    (Method::GET, "/api/v1/monitoring/grafana.json", Call::Grafana),
    (Method::GET, "/api/v1/monitoring/alerts.yml", Call::Alerts),
    (Method::GET, "/api/v1/files", Call::Files),
    (Method::GET, "/api/v1/file", Call::File),
    (Method::GET, "/api/v1/block", Call::Block),
    (Method::GET, "/api/v1/blocks", Call::Blocks),
    (Method::GET, "/api/v1/blockmap", Call::BlockMap),
    (Method::GET, "/api/v1/whatif", Call::WhatIf),
    (Method::GET, "/api/v1/volumes/{id}/blocks", Call::Held),
    (Method::GET, "/api/v1/blocks/{id}", Call::ReadBlock),
    (Method::GET, "/api/v1/content/{*path}", Call::ReadFile),
    (Method::PUT, "/api/v1/content/{*path}", Call::PutFile),
    (Method::POST, "/api/v1/content/{*path}", Call::PostForm),
    (Method::DELETE, "/api/v1/content/{*path}", Call::Remove),
    (Method::GET, "/api/v1/archive/{*path}", Call::Archive),
    (Method::POST, "/api/v1/folders/{*path}", Call::MakeFolder),
    (Method::POST, "/api/v1/rename", Call::Rename),
    (Method::POST, "/api/v1/replication", Call::Replication),
    (Method::GET, "/api/v1/trash", Call::Trash),
    (Method::DELETE, "/api/v1/trash", Call::EmptyTrash),
    (Method::DELETE, "/api/v1/trash/{entry}", Call::Discard),
    (Method::POST, "/api/v1/trash/{entry}/restore", Call::Restore),
    (Method::POST, "/api/v1/duty", Call::Duty),
    (Method::POST, "/api/v1/repair", Call::Repair),
    (Method::POST, "/api/v1/scrub", Call::Scrub),
    (Method::POST, "/api/v1/uploads", Call::Open),
    (Method::GET, "/api/v1/uploads/{id}", Call::SoFar),
    (Method::DELETE, "/api/v1/uploads/{id}", Call::Abandon),
    (Method::PUT, "/api/v1/uploads/{id}/blocks/{index}", Call::Store),
    (Method::POST, "/api/v1/uploads/{id}/commit", Call::Commit),
];

/// What every request is answered from.
pub(crate) struct Page {
    /// The cluster.
    pub(crate) backend: Rc<dyn Backend>,
    /// Who may ask.
    pub(crate) guard: Guard,
    /// What is seen of the cluster over time.
    pub(crate) watch: Watch,
    /// Uploads of single blocks that are kept open.
    pub(crate) kept: Kept,
    /// How long a sender may be silent in mid-body.
    pub(crate) body_timeout: Duration,
    router: Router<Vec<(Method, Call)>>,
    uploads: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    surveys: Arc<Semaphore>,
}

impl Page {
    /// A page on `backend`.
    pub(crate) fn new(backend: Rc<dyn Backend>, guard: Guard, body_timeout: Duration) -> Self {
        let turns = |count| Arc::new(Semaphore::new(count));
        Self {
            watch: Watch::new(backend.clone()),
            kept: Kept::default(),
            backend,
            guard,
            body_timeout,
            router: router(),
            uploads: turns(UPLOADS_MAX),
            pieces: turns(PIECES_MAX),
            downloads: turns(DOWNLOADS_MAX),
            surveys: turns(SURVEYS_MAX),
        }
    }

    /// The turn of an upload; it lasts until the permit is dropped.
    pub(crate) async fn upload_turn(&self) -> Result<OwnedSemaphorePermit> {
        turn(&self.uploads).await
    }

    /// The turn of one block of an upload.
    pub(crate) async fn piece_turn(&self) -> Result<OwnedSemaphorePermit> {
        turn(&self.pieces).await
    }

    /// The turn of a download.
    pub(crate) async fn download_turn(&self) -> Result<OwnedSemaphorePermit> {
        turn(&self.downloads).await
    }

    /// The turn of a look over all blocks.
    pub(crate) async fn survey_turn(&self) -> Result<OwnedSemaphorePermit> {
        turn(&self.surveys).await
    }

    /// What goes on without being asked, until dropped.
    pub(crate) async fn run(&self) {
        tokio::join!(self.watch.run(), self.kept.run(self.backend.clone()));
    }
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    match tokio::time::timeout(TURN_TIMEOUT, turns.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Problem::new(
            ProblemKind::Busy,
            "too many transfers are under way through this page; try again in a moment",
        )),
    }
}

fn router() -> Router<Vec<(Method, Call)>> {
    let mut paths: Vec<(&str, Vec<(Method, Call)>)> = Vec::new();
    for (method, path, call) in ROUTES {
        match paths.iter_mut().find(|(known, _)| known == path) {
            Some((_, calls)) => calls.push((method.clone(), *call)),
            None => paths.push((path, vec![(method.clone(), *call)])),
        }
    }
    let mut router = Router::new();
    for (path, calls) in paths {
        // The root is a path too, and no name of its own.
        if let Some(parent) = path.strip_suffix("{*path}") {
            router.insert(parent, calls.clone()).expect("paths differ");
        }
        router.insert(path, calls).expect("paths differ");
    }
    router
}

/// Answers any request.
pub(crate) async fn answer(page: &Rc<Page>, asked: Asked) -> Answered {
    let head = asked.method() == Method::HEAD;
    let response = match page.guard.check(asked.method(), asked.uri(), asked.headers()) {
        Ok(()) => match route(page, asked, head).await {
            Ok(response) => response,
            Err(refusal) => problem(&refusal),
        },
        Err(refusal) => problem(&refusal),
    };
    if head { without_body(response) } else { response }
}

async fn route(page: &Rc<Page>, asked: Asked, head: bool) -> Result<Answered> {
    let path = asked.uri().path().to_owned();
    let Ok(found) = page.router.at(&path) else {
        return Ok(not_found());
    };
    let method = if head { &Method::GET } else { asked.method() };
    let Some((_, call)) = found.value.iter().find(|(known, _)| known == method) else {
        let allowed = found.value.iter().flat_map(|(method, _)| match *method {
            Method::GET => vec!["GET", "HEAD"],
            ref method => vec![method.as_str()],
        });
        return Ok(not_allowed(&allowed.collect::<Vec<_>>().join(", ")));
    };
    let query = Query::parse(asked.uri().query())?;
    let of = |name| found.params.get(name).unwrap_or_default();
    let file = || file_path(of("path"));
    match call {
        Call::Index => Ok(assets::index(asked.headers())),
        Call::Asset => {
            let asset = assets::asset(of("digest"), of("name"), asked.headers());
            Ok(asset.unwrap_or_else(not_found))
        }
        Call::Health => Ok(probes::health(page).await),
        Call::Live => Ok(probes::live()),
        Call::Ready => Ok(probes::ready(page, &query).await),
        Call::Metrics => Ok(probes::metrics(page).await),
        Call::OpenApi => Ok(json(StatusCode::OK, &openapi::document())),
        Call::Status => queries::status(page).await,
        Call::Events => queries::events(page, asked.headers()).await,
        Call::History => queries::history(page, &query),
        Call::Timeline => queries::timeline(page, &query),
        Call::Grafana => Ok(json(StatusCode::OK, &boards::grafana())),
        Call::Alerts => Ok(json(StatusCode::OK, &boards::alerts())),
        Call::Files => queries::files(page, &query).await,
        Call::File => queries::file(page, &query).await,
        Call::Block => queries::block(page, &query).await,
        Call::Blocks => surveys::blocks(page, &query).await,
        Call::BlockMap => surveys::block_map(page, &query).await,
        Call::WhatIf => operate::what_if(page, &query).await,
        Call::Held => queries::held(page, of("id"), &query).await,
        Call::ReadBlock => content::block(page, of("id"), asked.headers(), head).await,
        Call::ReadFile => {
            let taken = match query.switch("preview")? {
                true => Taken::Shown,
                false => Taken::Kept,
            };
            content::file(page, &file()?, asked.headers(), taken, head).await
        }
        Call::PutFile => upload::put(page, &file()?, &query, asked).await,
        Call::PostForm => upload::form(page, &file()?, &query, asked).await,
        Call::Remove => change::remove(page, &file()?, &query, asked.headers()).await,
        Call::Archive => archive::archive(page, &file()?, head).await,
        Call::MakeFolder => change::make_folder(page, &file()?).await,
        Call::Rename => change::rename(page, asked).await,
        Call::Replication => operate::replication(page, asked).await,
        Call::Trash => operate::trash(page, &query).await,
        Call::EmptyTrash => operate::empty_trash(page).await,
        Call::Discard => operate::discard(page, of("entry")).await,
        Call::Restore => operate::restore(page, of("entry"), asked).await,
        Call::Duty => operate::duty(page, asked).await,
        Call::Repair => operate::repair(page, asked).await,
        Call::Scrub => operate::scrub(page, asked).await,
        Call::Open => pieces::open(page, asked).await,
        Call::SoFar => pieces::look(page, of("id")).await,
        Call::Abandon => pieces::abandon(page, of("id")).await,
        Call::Store => pieces::store(page, of("id"), of("index"), asked).await,
        Call::Commit => pieces::commit(page, of("id"), asked).await,
    }
}

pub(crate) fn not_found() -> Answered {
    refused(
        StatusCode::NOT_FOUND,
        "not-found",
        "there is no such page or call",
    )
}

pub(crate) fn not_allowed(allowed: &str) -> Answered {
    let mut response = refused(
        StatusCode::METHOD_NOT_ALLOWED,
        "invalid",
        &format!("this address takes {allowed} only"),
    );
    set(&mut response, header::ALLOW, allowed);
    response
}
