//! The listener and its connections: how many, how long, how large.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as BoundListener};
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use blockyard_wire::address::closed_by_default;
use blockyard_wire::{Problem, ProblemKind, Result, socket};

use crate::backend::Backend;
use crate::guard::Guard;
use crate::respond::Answered;
use crate::routes::{Asked, Page, answer};
use crate::stall::Stalling;

/// Headers of a request at the most.
const HEADERS_MAX: usize = 64;
/// Bytes of a connection's buffer, which bound its headers too.
const BUFFER_BYTES: usize = 256 << 10;
/// How long accepting rests when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What is told over a connection that is one too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 2\r\n\
    connection: close\r\ncontent-length: 61\r\n\r\n{\"kind\":\"busy\",\"message\":\"too many connections to this page\"}";

/// How the page is served. [`PageConfig::bind`] takes the port, so that a taken one is told at the start.
#[derive(Debug)]
pub struct PageConfig {
    listener: BoundListener,
    address: SocketAddr,
    /// Names of this machine that the page may be opened by, besides its addresses.
    pub hosts: Vec<String>,
    /// Connections at a time; more are told to come back.
    pub connections_max: usize,
    /// How long a request's headers may take, and an idle connection is kept.
    pub header_timeout: Duration,
    /// How long a peer may neither send nor take anything in mid-body.
    pub stall_timeout: Duration,
}

impl PageConfig {
    /// Listens on `listen`; port 0 takes any free one. `secret_given`: whether the operator gave a cluster
    /// secret, without which nothing listens beyond loopback.
    ///
    /// # Errors
    /// `Invalid` beyond loopback without a secret; `Exists` when the port is taken; `Failed` otherwise.
    pub fn bind(listen: SocketAddr, secret_given: bool) -> Result<Self> {
        closed_by_default(listen, secret_given)?;
        let listener = BoundListener::bind(listen).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Problem::new(
                ProblemKind::Exists,
                format!(
                    "port {} for the page is taken by another program: choose another one",
                    listen.port()
                ),
            ),
            _ => Problem::new(
                ProblemKind::Failed,
                format!("cannot listen on {listen} for the page: {error}"),
            ),
        })?;
        Self::from_listener(listener, secret_given)
    }

    /// Takes a listener that is bound already.
    ///
    /// # Errors
    /// `Invalid` beyond loopback without a secret; `Failed` when the listener has no address.
    pub fn from_listener(listener: BoundListener, secret_given: bool) -> Result<Self> {
        let failed = |error: io::Error| {
            Problem::new(
                ProblemKind::Failed,
                format!("cannot use the page's listener: {error}"),
            )
        };
        let address = listener.local_addr().map_err(failed)?;
        closed_by_default(address, secret_given)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            address,
            hosts: Vec::new(),
            connections_max: 256,
            header_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(60),
        })
    }

    /// The address that the page is served at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves `backend` until dropped, on the current thread: call it inside a `LocalSet` of a tokio runtime.
pub async fn serve_backend(config: PageConfig, backend: Rc<dyn Backend>) {
    let guard = Guard::new(config.address, &config.hosts);
    let page = Rc::new(Page::new(backend, guard, config.stall_timeout));
    let asked = page.clone();
    tokio::join!(
        page.run(),
        serve_answers(config, async move |request| answer(&asked, request).await)
    );
}

/// Serves what `answer` gives until dropped.
pub(crate) async fn serve_answers(config: PageConfig, answer: impl AsyncFn(Asked) -> Answered + 'static) {
    let answer = Rc::new(answer);
    let listener = match TcpListener::from_std(config.listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the page can't be served"),
    };
    // Dropping the set ends its connections with the page.
    let mut connections = JoinSet::new();
    tracing::info!(address = %config.address, "the page is served");
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() >= config.connections_max => {
                    // A new connection's buffer takes so little at once, or the peer does without it.
                    let _ = stream.try_write(FULL);
                }
                Ok((stream, peer)) => {
                    let answer = answer.clone();
                    let (header_timeout, stall_timeout) = (config.header_timeout, config.stall_timeout);
                    connections.spawn_local(async move {
                        if let Err(error) = connection(answer, stream, header_timeout, stall_timeout).await {
                            tracing::debug!(%peer, %error, "a connection to the page ends");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the page can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(
    answer: Rc<impl AsyncFn(Asked) -> Answered + 'static>,
    stream: TcpStream,
    header_timeout: Duration,
    stall_timeout: Duration,
) -> hyper::Result<()> {
    // A peer that is gone already shows at the first read.
    let _ = socket::tune(&stream);
    let service = service_fn(move |asked| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer(asked).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Stalling::new(stream, stall_timeout)), service)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
    }

    #[test]
    fn a_taken_port_and_an_open_door_are_refused() {
        let first = PageConfig::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let taken = PageConfig::bind(first.address(), false).unwrap_err();
        assert_eq!(taken.kind, ProblemKind::Exists);
        assert!(taken.message.contains(&first.address().port().to_string()));
        let open = PageConfig::bind("0.0.0.0:0".parse().unwrap(), false).unwrap_err();
        assert_eq!(open.kind, ProblemKind::Invalid);
        assert!(PageConfig::bind("0.0.0.0:0".parse().unwrap(), true).is_ok());
    }
}
