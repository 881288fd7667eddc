//! Files sent to and fetched from the web page by plain HTTP, one connection a file, as a script would.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::scenarios::transfer::Planned;
use crate::workload::Pool;

/// Bytes of one piece of a body: what a web browser or curl would send at a time, rounded up.
const PIECE_BYTES: usize = 256 << 10;

/// Stores the file; it is durable on every replica when this returns.
pub(super) async fn put(web: &str, pool: &Pool, file: &Planned) -> Result<()> {
    let (bytes, at) = pool.shared(file.number);
    let pieces = stream::unfold((at, file.length_bytes), move |(at, left)| {
        let bytes = bytes.clone();
        async move {
            let count = (bytes.len() - at)
                .min(PIECE_BYTES)
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let next = if at + count == bytes.len() { 0 } else { at + count };
            (count > 0).then(|| {
                let frame = Frame::data(bytes.slice(at..at + count));
                (
                    Ok::<_, std::convert::Infallible>(frame),
                    (next, left - count as u64),
                )
            })
        }
    });
    let request = request(web, Method::PUT, file)?
        .header(header::CONTENT_LENGTH, file.length_bytes)
        .body(StreamBody::new(Box::pin(pieces)))?;
    let response = send(web, request).await?;
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!(
            "the page did not store {}: {status}, {}",
            file.path,
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(())
}

/// Fetches the file and throws it away; with `wanted`, compares every byte.
pub(super) async fn get(web: &str, file: &Planned, wanted: Option<&Pool>) -> Result<()> {
    let request = request(web, Method::GET, file)?.body(Empty::<Bytes>::new())?;
    let response = send(web, request).await?;
    ensure!(
        response.status() == StatusCode::OK,
        "the page did not give {}: {}",
        file.path,
        response.status()
    );
    let mut body = response.into_body();
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if let Some(pool) = wanted {
            ensure!(same(pool, file, came, &data), "{} came back otherwise", file.path);
        }
        came += data.len() as u64;
    }
    ensure!(
        came == file.length_bytes,
        "{} came short: {came} bytes",
        file.path
    );
    Ok(())
}

/// The stream of events of a page that is opened now.
pub(super) async fn events(web: &str) -> Result<Incoming> {
    ask(web, "/api/v1/events").await
}

/// The block map in as many cells as there can be; its JSON.
pub(in crate::scenarios) async fn block_map(web: &str) -> Result<serde_json::Value> {
    let body = ask(web, "/api/v1/blockmap?cells=16384").await?;
    Ok(serde_json::from_slice(&body.collect().await?.to_bytes())?)
}

async fn ask(web: &str, what: &str) -> Result<Incoming> {
    let request = Request::builder()
        .uri(what)
        .header(header::HOST, web)
        .body(Empty::<Bytes>::new())?;
    let response = send(web, request).await?;
    ensure!(
        response.status() == StatusCode::OK,
        "the page does not answer {what}: {}",
        response.status()
    );
    Ok(response.into_body())
}

fn same(pool: &Pool, file: &Planned, offset: u64, data: &[u8]) -> bool {
    let (bytes, start) = pool.shared(file.number);
    let mut at = (start + offset as usize) % bytes.len();
    let mut rest = data;
    while !rest.is_empty() {
        let count = rest.len().min(bytes.len() - at);
        if rest[..count] != bytes[at..at + count] {
            return false;
        }
        rest = &rest[count..];
        at = (at + count) % bytes.len();
    }
    true
}

fn request(web: &str, method: Method, file: &Planned) -> Result<hyper::http::request::Builder> {
    let uri = format!("/api/v1/content{}", file.path);
    Ok(Request::builder()
        .method(method)
        .uri(uri)
        .header(header::HOST, web))
}

async fn send<B>(web: &str, request: Request<B>) -> Result<Response<Incoming>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let stream = TcpStream::connect(web)
        .await
        .with_context(|| format!("cannot reach the page at {web}"))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection; what goes wrong in it is told to the sender too.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_compared_round_the_pool() {
        let pool = Pool::new(1000);
        let file = Planned {
            path: "/a".into(),
            number: 3,
            length_bytes: 2500,
        };
        let (bytes, start) = pool.shared(3);
        let whole: Vec<u8> = (0..2500).map(|at| bytes[(start + at) % 1000]).collect();
        assert!(same(&pool, &file, 0, &whole) && same(&pool, &file, 700, &whole[700..]));
        for at in [0, 999, 2499] {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert!(!same(&pool, &file, 0, &other), "{at}");
        }
    }
}
