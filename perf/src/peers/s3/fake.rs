//! As much of an S3 server as the driver needs to be tested: objects and unfinished uploads in memory.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    query: HashMap<String, String>,
    pub range: Option<String>,
}

impl Seen {
    /// Whether it carries a signature of this key for this region, over the host.
    pub(super) fn signed_by(&self, key: &str, region: &str) -> bool {
        let has =
            |name: &str, good: &dyn Fn(&str) -> bool| self.query.get(name).is_some_and(|value| good(value));
        let scope = format!("%2F{region}%2Fs3%2Faws4_request");
        has("X-Amz-Algorithm", &|value| value == "AWS4-HMAC-SHA256")
            && has("X-Amz-Credential", &|value| {
                value.starts_with(key) && value.ends_with(&scope)
            })
            && has("X-Amz-SignedHeaders", &|value| value == "host")
            && has("X-Amz-Signature", &|value| {
                value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
    }
}

#[derive(Default)]
struct State {
    objects: HashMap<String, Vec<u8>>,
    uploads: HashMap<String, BTreeMap<u32, Vec<u8>>>,
    seen: Vec<Seen>,
    refuses: bool,
}

/// A server on loopback; it ends with the test.
pub(super) struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(super) fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let (tell, told) = mpsc::channel();
        let shared = state.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let state = shared.clone();
                    let service = service_fn(move |request| answer(state.clone(), request));
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
        });
        Self {
            address: told.recv().unwrap(),
            state,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn objects(&self) -> HashMap<String, Vec<u8>> {
        self.state().objects.clone()
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    pub(super) fn uploads(&self) -> usize {
        self.state().uploads.len()
    }

    pub(super) fn spoil(&self, key: &str) {
        self.state().objects.get_mut(key).unwrap()[100] ^= 1;
    }

    /// From now on completing an upload fails in the way that S3 documents: 200, and an error in the body.
    pub(super) fn refuse_to_complete(&self) {
        self.state().refuses = true;
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let pairs = head.uri.query().unwrap_or_default().split('&');
    let query: HashMap<String, String> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let range = head.headers.get(header::RANGE);
    let range = range.map(|range| range.to_str().unwrap().to_owned());
    let mut state = state.lock().unwrap();
    state.seen.push(Seen {
        query: query.clone(),
        range: range.clone(),
    });
    let key = head.uri.path().to_owned();
    let part = query.get("partNumber").map(|number| number.parse().unwrap());
    let upload = query.get("uploadId").cloned();
    Ok(state.act(&head.method, key, upload, part, range, &body))
}

impl State {
    fn act(
        &mut self,
        method: &Method,
        key: String,
        upload: Option<String>,
        part: Option<u32>,
        range: Option<String>,
        body: &[u8],
    ) -> Response<Full<Bytes>> {
        match (method.as_str(), upload, part) {
            ("PUT", Some(upload), Some(part)) => {
                self.uploads.get_mut(&upload).unwrap().insert(part, body.to_vec());
                let mut response = said("");
                let etag = format!("\"etag-{part}\"").parse().unwrap();
                response.headers_mut().insert(header::ETAG, etag);
                response
            }
            ("PUT", None, None) => {
                self.objects.insert(key, body.to_vec());
                said("")
            }
            ("POST", None, None) => {
                let id = format!("upload-{}", self.uploads.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                said(&document(
                    "InitiateMultipartUploadResult",
                    &format!("<UploadId>{id}</UploadId>"),
                ))
            }
            ("POST", Some(_), None) if self.refuses => {
                said("<Error><Code>InternalError</Code><Message>no</Message></Error>")
            }
            ("POST", Some(upload), None) => {
                let parts = self.uploads.remove(&upload).unwrap();
                assert_listed(std::str::from_utf8(body).unwrap(), &parts);
                self.objects.insert(key, parts.into_values().flatten().collect());
                said(&document(
                    "CompleteMultipartUploadResult",
                    "<ETag>\"whole\"</ETag>",
                ))
            }
            ("DELETE", Some(upload), None) => {
                self.uploads.remove(&upload).unwrap();
                said("")
            }
            ("DELETE", None, None) => {
                self.objects.remove(&key);
                said("")
            }
            ("GET", None, None) => self.get(&key, range),
            _ => refused(StatusCode::BAD_REQUEST, "InvalidRequest"),
        }
    }

    fn get(&self, key: &str, range: Option<String>) -> Response<Full<Bytes>> {
        let Some(object) = self.objects.get(key) else {
            return refused(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let whole = 0..object.len();
        let wanted = range.map_or(whole, |range| {
            let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
        });
        Response::new(Full::new(Bytes::copy_from_slice(&object[wanted])))
    }
}

/// The list names every part once, by its number, with its own ETag, in order.
fn assert_listed(list: &str, parts: &BTreeMap<u32, Vec<u8>>) {
    let inner = |text: &str, name: &str| {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let pieces = text.split(&open).skip(1);
        pieces
            .map(|piece| piece.split_once(&close).unwrap().0.to_owned())
            .collect::<Vec<_>>()
    };
    let numbers: Vec<String> = parts.keys().map(u32::to_string).collect();
    assert_eq!(inner(list, "PartNumber"), numbers);
    for (number, etag) in numbers.iter().zip(inner(list, "ETag")) {
        assert!(etag.contains(&format!("etag-{number}")), "{etag}");
    }
}

fn document(name: &str, inner: &str) -> String {
    format!("<{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{name}>")
}

fn said(text: &str) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())))
}

fn refused(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let mut response = said(&format!("<Error><Code>{code}</Code></Error>"));
    *response.status_mut() = status;
    response
}
