//! What machines ask: is it alive, is it ready, how are things, and all figures.

use bytes::Bytes;
use hyper::{Method, StatusCode};

use blockyard_wire::types::{ClusterStatus, VolumeReport, VolumeStatus};

use crate::guard::Guard;
use crate::respond::{Answered, Body, problem, respond, text, without_body};
use crate::routes::{Page, not_allowed, not_found};
use crate::server::{PageConfig, serve_answers};
use crate::target::Query;
use crate::{health, metrics};

/// 200 as long as anything is answered at all.
#[utoipa::path(get, path = "/livez", tag = "probes", responses((status = 200)))]
pub(crate) fn live() -> Answered {
    text(StatusCode::OK, "ok\n")
}

/// 200 and the level of health while the nameserver answers at all.
#[utoipa::path(get, path = "/healthz", tag = "probes", responses((status = 200)))]
pub(crate) async fn health(page: &Page) -> Answered {
    match page.backend.status().await {
        Ok(status) => text(StatusCode::OK, format!("{}\n", health::judge(&status).sentence)),
        Err(refusal) => problem(&refusal),
    }
}

/// 200 when files can be read and stored, otherwise 503; `?verbose` lists what that rests on.
#[utoipa::path(get, path = "/readyz", tag = "probes", params(("verbose" = Option<bool>, Query)), responses((status = 200), (status = 503)))]
pub(crate) async fn ready(page: &Page, query: &Query) -> Answered {
    let checks = match page.backend.status().await {
        Ok(status) => checks(&status),
        Err(refusal) => return problem(&refusal),
    };
    let ready = checks.iter().all(|(_, is)| *is);
    let mut told = String::new();
    for (name, is) in checks.iter().filter(|_| query.get("verbose").is_some()) {
        told += &format!("[{}] {name}\n", if *is { '+' } else { '-' });
    }
    told += if ready { "ready\n" } else { "not ready\n" };
    let code = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(code, told)
}

fn checks(status: &ClusterStatus) -> [(&'static str, bool); 3] {
    let mut volumes = status.servers.iter().flat_map(|server| &server.volumes);
    let serves = volumes.any(VolumeStatus::serves);
    [
        ("the journal can be written", status.read_only.is_empty()),
        ("a volume takes blocks", serves),
        (
            "every block has a replica that can be read",
            status.missing_blocks == 0,
        ),
    ]
}

/// All figures, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(page: &Page) -> Answered {
    match page.backend.status().await {
        Ok(status) => figures(metrics::of_nameserver(status)),
        Err(refusal) => problem(&refusal),
    }
}

fn figures(told: String) -> Answered {
    let body = Body::Whole(Some(Bytes::from(told)));
    respond(StatusCode::OK, metrics::CONTENT_TYPE, body)
}

/// Serves the figures of a dataserver's volumes until dropped: `/metrics`, and `/livez`. To be called inside a `LocalSet`.
pub async fn serve_metrics(config: PageConfig, reports: impl AsyncFn() -> Vec<VolumeReport> + 'static) {
    let guard = Guard::new(config.address(), &config.hosts);
    serve_answers(config, async move |asked| {
        if let Err(refusal) = guard.check(asked.method(), asked.uri(), asked.headers()) {
            return problem(&refusal);
        }
        let head = asked.method() == Method::HEAD;
        let answered = match asked.uri().path() {
            _ if !head && asked.method() != Method::GET => not_allowed("GET, HEAD"),
            "/metrics" => figures(metrics::of_dataserver(reports().await)),
            "/livez" => live(),
            _ => not_found(),
        };
        if head { without_body(answered) } else { answered }
    })
    .await;
}
