//! Answers: the body type, the headers every answer carries, and problems as JSON with their status codes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Frame, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use blockyard_wire::{Problem, ProblemKind};

/// What only this origin may load; the page has no inline script or style.
const PAGE_POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'";

/// Bytes as they come.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>>>>;

/// The body of an answer.
pub(crate) enum Body {
    /// In memory.
    Whole(Option<Bytes>),
    /// As it comes: a stream and the bytes it still has to yield.
    Stream(Pieces, u64),
    /// As it comes, however much that is.
    Endless(Pieces),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Stream(_, 0) => Poll::Ready(None),
            Self::Endless(pieces) => {
                let piece = std::task::ready!(pieces.as_mut().poll_next(context));
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
            Self::Stream(pieces, left) => match std::task::ready!(pieces.as_mut().poll_next(context)) {
                Some(Ok(data)) => match left.checked_sub(data.len() as u64) {
                    Some(rest) => {
                        *left = rest;
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    None => Poll::Ready(Some(Err(io::Error::other("more bytes than the file has")))),
                },
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                // Too short must break the connection, not look like a smaller file.
                None => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Stream(_, 0))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Stream(_, left) => SizeHint::with_exact(*left),
            Self::Endless(_) => SizeHint::new(),
        }
    }
}

/// An answer to a request.
pub(crate) type Answered = Response<Body>;

/// An answer of `status` with `body`, and the headers that keep browsers strict.
pub(crate) fn respond(status: StatusCode, content_type: &str, body: Body) -> Answered {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

/// `value` as JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answered {
    match serde_json::to_vec(value) {
        Ok(text) => respond(status, "application/json", Body::Whole(Some(text.into()))),
        Err(error) => problem(&Problem::new(
            ProblemKind::Failed,
            format!("no JSON of the answer: {error}"),
        )),
    }
}

/// Done, and nothing to say.
pub(crate) fn nothing() -> Answered {
    let mut response = respond(StatusCode::NO_CONTENT, "text/plain", Body::empty());
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// A plain sentence.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Answered {
    respond(
        status,
        "text/plain; charset=utf-8",
        Body::Whole(Some(Bytes::from(text.into()))),
    )
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    kind: &'a str,
    message: &'a str,
}

/// The status code of a problem.
pub(crate) fn status_of(kind: ProblemKind) -> StatusCode {
    match kind {
        ProblemKind::Invalid => StatusCode::BAD_REQUEST,
        ProblemKind::Denied => StatusCode::FORBIDDEN,
        ProblemKind::NotFound => StatusCode::NOT_FOUND,
        ProblemKind::Exists => StatusCode::CONFLICT,
        ProblemKind::Gone => StatusCode::GONE,
        ProblemKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        ProblemKind::Failed | ProblemKind::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
        ProblemKind::Retry
        | ProblemKind::OtherReplica
        | ProblemKind::Busy
        | ProblemKind::Stale
        | ProblemKind::NotLeader => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A problem as `{kind, message}` with its status code.
pub(crate) fn problem(problem: &Problem) -> Answered {
    refused(status_of(problem.kind), problem.kind.name(), &problem.message)
}

/// A refusal of HTTP's own, which no [`ProblemKind`] names, in the same shape.
pub(crate) fn refused(status: StatusCode, kind: &str, message: &str) -> Answered {
    let mut response = json(status, &ProblemJson { kind, message });
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

/// Takes the body away where the request was a HEAD, keeping the length that a GET would have.
pub(crate) fn without_body(mut response: Answered) -> Answered {
    let length = hyper::body::Body::size_hint(response.body()).exact();
    *response.body_mut() = Body::empty();
    if let Some(length) = length.filter(|_| response.status() != StatusCode::NOT_MODIFIED) {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

/// Sets a header, where its value may stand in one.
pub(crate) fn set<T>(response: &mut Response<T>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A MIME type without its parameters.
pub(crate) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// A header as text, where it is there and readable.
pub(crate) fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn stream(pieces: &[&'static str], length: u64) -> Body {
        let pieces: Vec<io::Result<Bytes>> = pieces.iter().map(|piece| Ok(Bytes::from(*piece))).collect();
        Body::Stream(Box::pin(futures_util::stream::iter(pieces)), length)
    }

    #[tokio::test]
    async fn a_stream_must_yield_its_length() {
        let whole = stream(&["abc", "def"], 6).collect().await.unwrap().to_bytes();
        assert_eq!(whole, "abcdef");
        assert!(stream(&["abc"], 6).collect().await.is_err(), "too short");
        assert!(stream(&["abc", "defg"], 6).collect().await.is_err(), "too long");
    }

    #[test]
    fn a_head_keeps_the_length() {
        let response = without_body(text(StatusCode::OK, "hello"));
        assert_eq!(header_text(response.headers(), header::CONTENT_LENGTH), Some("5"));
        assert!(hyper::body::Body::is_end_stream(response.body()));
    }
}
