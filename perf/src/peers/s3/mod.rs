//! Anything that speaks S3 over plain HTTP: small objects whole, large ones in parts, several at a time.

#[cfg(test)]
mod fake;

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CompleteMultipartUploadResponse, CreateMultipartUpload,
    DeleteObject, GetObject, PutObject, S3Action, UploadPart,
};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use tokio::runtime::Runtime;

use super::{Facts, System, Took, Work, timed};
use crate::disk::Disk;
use crate::workload::Pool;

/// Of one part of a large object, as S3's own tools cut them; S3 takes none below 5 MiB but the last.
const PART_BYTES: u64 = 8 << 20;
/// How long a signature holds.
const SIGNED_FOR: Duration = Duration::from_secs(600);
/// How much of an error's text is shown.
const ERROR_BYTES: usize = 500;

/// Slices of the pool.
type Body = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

pub(crate) struct S3 {
    facts: Facts,
    servers: Vec<(String, u32)>,
    runtime: Runtime,
    store: Store,
}

/// A bucket and the way there.
struct Store {
    bucket: Bucket,
    credentials: Credentials,
    client: Client<HttpConnector, Body>,
}

impl S3 {
    pub(super) const WAY: &str = "S3 over HTTP: PUT and GET, above 8 MiB in parts of that";

    /// `place` is `http://HOST:PORT/BUCKET`; the keys come from `variable`, an environment.
    pub(super) fn new(
        facts: Facts,
        place: &str,
        servers: Vec<(String, u32)>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let (endpoint, bucket) = place
            .strip_prefix("http://")
            .and_then(|rest| rest.trim_end_matches('/').rsplit_once('/'))
            .with_context(|| format!("'{place}' is not http://HOST:PORT/BUCKET"))?;
        let endpoint = format!("http://{endpoint}")
            .parse()
            .with_context(|| format!("'{endpoint}' is no address"))?;
        let wanted = |name: &str| variable(name).with_context(|| format!("set {name} in the environment"));
        let (key, secret) = (wanted("AWS_ACCESS_KEY_ID")?, wanted("AWS_SECRET_ACCESS_KEY")?);
        let credentials = match variable("AWS_SESSION_TOKEN") {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        let region = variable("AWS_REGION").unwrap_or_else(|| "us-east-1".into());
        let bucket = Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), region)
            .map_err(|error| anyhow::anyhow!("'{place}' is no bucket: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self {
            facts,
            servers,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            store: Store {
                bucket,
                credentials,
                client: Client::builder(TokioExecutor::new()).build(connector),
            },
        })
    }
}

impl System for S3 {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn servers(&self) -> Vec<(String, u32)> {
        self.servers.clone()
    }

    fn keeps_blocks_in_flight(&self) -> bool {
        true
    }

    fn write(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        let store = &self.store;
        timed(&self.servers, disk, || {
            self.runtime.block_on(work.each(async |index| {
                let (key, number) = (key(work, index), work.number(index));
                if work.length_bytes <= PART_BYTES {
                    store.put(&key, body(pool, number, 0, work.length_bytes)).await
                } else {
                    store.put_parts(&key, pool, number, work).await
                }
            }))
        })
    }

    fn read(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        let store = &self.store;
        timed(&self.servers, disk, || {
            self.runtime.block_on(work.each(async |index| {
                let (key, number) = (&key(work, index), work.number(index));
                stream::iter(parts(work.length_bytes))
                    .map(|part| store.get(key, pool, number, part, work.length_bytes))
                    .buffered(in_flight(work))
                    .try_collect()
                    .await
            }))
        })
    }

    fn remove(&mut self, work: Work) -> Result<()> {
        let store = &self.store;
        self.runtime.block_on(work.each(async |index| {
            let key = key(work, index);
            let action = DeleteObject::new(&store.bucket, Some(&store.credentials), &key);
            store
                .send(Method::DELETE, &action, None, nothing())
                .await
                .map(drop)
        }))
    }
}

/// Where a part begins, and its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    offset_bytes: u64,
    length_bytes: u64,
}

fn parts(length_bytes: u64) -> impl Iterator<Item = Part> {
    (0..length_bytes.div_ceil(PART_BYTES)).map(move |number| Part {
        offset_bytes: number * PART_BYTES,
        length_bytes: PART_BYTES.min(length_bytes - number * PART_BYTES),
    })
}

fn in_flight(work: Work) -> usize {
    usize::try_from(work.blocks_in_flight).map_or(1, |count| count.max(1))
}

fn key(work: Work, index: u64) -> String {
    format!("blockyard-perf-{}/{index}", work.id)
}

/// A part of a file, without a copy.
fn body(pool: &Pool, number: u64, offset_bytes: u64, length_bytes: u64) -> (u64, Body) {
    let (bytes, start) = pool.shared(number);
    let mut at = (start + offset_bytes as usize) % bytes.len();
    let mut left = length_bytes as usize;
    let mut frames = Vec::new();
    while left > 0 {
        let count = left.min(bytes.len() - at);
        frames.push(Ok(Frame::data(bytes.slice(at..at + count))));
        at = (at + count) % bytes.len();
        left -= count;
    }
    (length_bytes, StreamBody::new(stream::iter(frames)))
}

fn nothing() -> (u64, Body) {
    (0, StreamBody::new(stream::iter(Vec::new())))
}

impl Store {
    async fn put(&self, key: &str, body: (u64, Body)) -> Result<()> {
        let action = PutObject::new(&self.bucket, Some(&self.credentials), key);
        self.send(Method::PUT, &action, None, body).await.map(drop)
    }

    async fn put_parts(&self, key: &str, pool: &Pool, number: u64, work: Work) -> Result<()> {
        let action = CreateMultipartUpload::new(&self.bucket, Some(&self.credentials), key);
        let answer = text(self.send(Method::POST, &action, None, nothing()).await?).await?;
        let upload = CreateMultipartUpload::parse_response(&answer)
            .map_err(|error| anyhow::anyhow!("{key}: no upload was begun: {error}"))?;
        let stored = self.parts(key, upload.upload_id(), pool, number, work).await;
        if stored.is_err() {
            // So that it is not kept for ever. The first error says more than one of this.
            let action =
                AbortMultipartUpload::new(&self.bucket, Some(&self.credentials), key, upload.upload_id());
            let _ = self.send(Method::DELETE, &action, None, nothing()).await;
        }
        stored
    }

    async fn parts(&self, key: &str, upload: &str, pool: &Pool, number: u64, work: Work) -> Result<()> {
        // In order, however they end: the n-th ETag is that of part n.
        let etags: Vec<String> = stream::iter((1..).zip(parts(work.length_bytes)))
            .map(async |(place, part)| {
                let action = UploadPart::new(&self.bucket, Some(&self.credentials), key, place, upload);
                let body = body(pool, number, part.offset_bytes, part.length_bytes);
                let response = self.send(Method::PUT, &action, None, body).await?;
                let etag = response.headers().get(header::ETAG);
                let etag = etag
                    .with_context(|| format!("{key}: part {place} got no ETag"))?
                    .to_str()?
                    .to_owned();
                // Its connection is free for another request when it is read to its end.
                text(response).await?;
                Ok::<_, anyhow::Error>(etag)
            })
            .buffered(in_flight(work))
            .try_collect()
            .await?;
        let etags = etags.iter().map(String::as_str);
        let action = CompleteMultipartUpload::new(&self.bucket, Some(&self.credentials), key, upload, etags);
        let list = Bytes::from(action.clone().body());
        let length_bytes = list.len() as u64;
        let list = StreamBody::new(stream::iter(vec![Ok(Frame::data(list))]));
        let answer = text(
            self.send(Method::POST, &action, None, (length_bytes, list))
                .await?,
        )
        .await?;
        // It may fail after it has begun to answer with 200.
        CompleteMultipartUploadResponse::parse(&answer)
            .map(drop)
            .map_err(|error| anyhow::anyhow!("{key} was not put together: {error}: {}", short(&answer)))
    }

    /// Compares a part with what was written; of an object of one part no range is asked for.
    async fn get(&self, key: &str, pool: &Pool, number: u64, part: Part, whole_bytes: u64) -> Result<()> {
        let action = GetObject::new(&self.bucket, Some(&self.credentials), key);
        let (first, length_bytes) = (part.offset_bytes, part.length_bytes);
        let range =
            (length_bytes < whole_bytes).then(|| format!("bytes={first}-{}", first + length_bytes - 1));
        let response = self.send(Method::GET, &action, range, nothing()).await?;
        let mut wanted = pool.part(number, first, length_bytes);
        let mut came_bytes = 0;
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                came_bytes += data.len() as u64;
                ensure!(wanted.matches(&data), "{key}: other bytes than were written");
            }
        }
        ensure!(came_bytes == length_bytes, "{key}: {came_bytes} bytes came");
        Ok(())
    }

    /// Sends a signed request; an answer other than success is an error with its text.
    async fn send<'a>(
        &self,
        method: Method,
        action: &impl S3Action<'a>,
        range: Option<String>,
        (length_bytes, body): (u64, Body),
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(&method)
            .uri(action.sign(SIGNED_FOR).as_str())
            .header(header::CONTENT_LENGTH, length_bytes);
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let response = self.client.request(request.body(body)?).await?;
        let status = response.status();
        if !status.is_success() {
            bail!(
                "{method} was answered with {status}: {}",
                short(&text(response).await?)
            );
        }
        Ok(response)
    }
}

async fn text(response: Response<Incoming>) -> Result<String> {
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn short(text: &str) -> &str {
    let end = text.floor_char_boundary(ERROR_BYTES);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::fake::Fake;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn s3(fake: &Fake) -> S3 {
        let facts = crate::peers::Facts {
            name: "fake".into(),
            version: "0".into(),
            copies: "1".into(),
            flush: "never".into(),
            unflushed: false,
            way: S3::WAY.into(),
        };
        let variable = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("me".into()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".into()),
            "AWS_REGION" => Some("here".into()),
            _ => None,
        };
        S3::new(
            facts,
            &format!("http://{}/bucket", fake.address()),
            Vec::new(),
            variable,
        )
        .unwrap()
    }

    fn work(files: u64, length_bytes: u64) -> Work {
        Work {
            files,
            length_bytes,
            workers: 2,
            blocks_in_flight: 3,
            id: 5,
        }
    }

    fn contents(pool: &Pool, work: Work, index: u64) -> Vec<u8> {
        let mut whole = vec![0; work.length_bytes as usize];
        pool.file(work.number(index), work.length_bytes).fill(&mut whole);
        whole
    }

    #[test]
    fn small_objects_go_whole() {
        let (fake, pool, work) = (Fake::start(), Pool::new(100_003), work(5, 70_000));
        let mut system = s3(&fake);
        system.write(&pool, work, None).unwrap();
        assert_eq!(fake.objects().len(), 5);
        assert!(fake.objects()["/bucket/blockyard-perf-5/3"] == contents(&pool, work, 3));
        system.read(&pool, work, None).unwrap();
        assert!(
            fake.requests()
                .iter()
                .all(|request| request.signed_by("me", "here"))
        );
        assert!(fake.requests().iter().all(|request| request.range.is_none()));
        system.remove(work).unwrap();
        assert!(fake.objects().is_empty());
    }

    #[test]
    fn large_objects_go_in_parts_in_order() {
        // The pool ends within a part, and the last part is a short one.
        let (fake, pool, work) = (Fake::start(), Pool::new(10_000_019), work(2, 20 * MIB + 1));
        let mut system = s3(&fake);
        system.write(&pool, work, None).unwrap();
        for index in 0..2 {
            let key = format!("/bucket/blockyard-perf-5/{index}");
            assert!(fake.objects()[&key] == contents(&pool, work, index));
        }
        assert!(
            fake.requests()
                .iter()
                .all(|request| request.signed_by("me", "here"))
        );
        system.read(&pool, work, None).unwrap();
        let ranges: Vec<String> = fake
            .requests()
            .into_iter()
            .filter_map(|request| request.range)
            .collect();
        assert_eq!(ranges.len(), 6);
        assert!(ranges.contains(&format!("bytes={}-{}", 16 * MIB, 20 * MIB)));
    }

    #[test]
    fn a_wrong_or_missing_object_is_told() {
        let (fake, pool, work) = (Fake::start(), Pool::new(100_003), work(3, 5_000));
        let mut system = s3(&fake);
        system.write(&pool, work, None).unwrap();
        fake.spoil("/bucket/blockyard-perf-5/1");
        assert!(system.read(&pool, work, None).is_err());
        system.remove(work).unwrap();
        let error = system.read(&pool, work, None).unwrap_err();
        assert!(
            error.to_string().contains("404") && error.to_string().contains("NoSuchKey"),
            "{error}"
        );
    }

    #[test]
    fn an_upload_that_is_not_put_together_is_given_up() {
        let (fake, pool, work) = (Fake::start(), Pool::new(100_003), work(1, 9 * MIB));
        fake.refuse_to_complete();
        let error = s3(&fake).write(&pool, work, None).unwrap_err();
        assert!(error.to_string().contains("not put together"), "{error}");
        assert!(fake.objects().is_empty() && fake.uploads() == 0);
    }

    #[test]
    fn what_is_missing_is_told() {
        let fake = Fake::start();
        let facts = || s3(&fake).facts;
        let error = S3::new(facts(), "http://localhost:1/bucket", Vec::new(), |_| None)
            .err()
            .unwrap();
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
        for place in [
            "https://localhost/bucket",
            "http://localhost",
            "localhost:1/bucket",
        ] {
            assert!(
                S3::new(facts(), place, Vec::new(), |_| Some("x".into())).is_err(),
                "{place}"
            );
        }
    }
}
