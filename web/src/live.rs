//! The page of a running cluster, on a thread of its own: what it asks of the nameserver is done on the nameserver's
//! thread, which bytes of transfers never touch. It moves them, and changes names, through a [`Client`], which has a
//! thread of its own too.

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::task::LocalSet;

use blockyard_client::{Client, Options, UploadOptions};
use blockyard_nameserver::survey::{BlockMap, WhatIf};
use blockyard_nameserver::{UploadSoFar, View};
use blockyard_wire::types::{
    AddedBlock, BlockId, BlockInfo, ClusterStatus, Duty, FileInfo, HeldBlock, Lease, ScrubOrder, Trashed,
    Tuning, VolumeId,
};
use blockyard_wire::{Problem, Result};

use crate::backend::{Answer, Backend, Located, Removed, Rows, Upload, Uploaded};
use crate::pipe::BodyReader;
use crate::server::{PageConfig, serve_backend};

/// Questions that wait for the nameserver's thread at the most; whoever has another one waits.
const QUESTIONS_MAX: usize = 256;

/// Something to be done on the nameserver's thread.
type Question = Box<dyn FnOnce(&View) + Send>;

/// Serves the page of the nameserver behind `view` until dropped. To be run on the nameserver's own thread, inside its
/// `LocalSet`: it answers what the page asks from its thread.
pub async fn serve(config: PageConfig, view: View) {
    let (questions, mut asked) = mpsc::channel(QUESTIONS_MAX);
    let _page = match PageThread::start(config, questions) {
        Ok(page) => page,
        Err(error) => return tracing::error!(%error, "the page can't be served"),
    };
    // It ends with the page's thread, whose senders these are.
    while let Some(question) = asked.recv().await {
        question(&view);
    }
}

/// The page's thread; it ends when this is dropped.
struct PageThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl PageThread {
    fn start(config: PageConfig, questions: mpsc::Sender<Question>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("blockyard-page".to_owned())
            .spawn(move || {
                let client = Rc::new(OnceCell::new());
                let page = Rc::new(Live { questions, client });
                LocalSet::new().block_on(&runtime, async move {
                    tokio::select! {
                        () = serve_backend(config, page) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for PageThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        // What it waits for is dropped with its tasks.
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the page's thread has panicked");
        }
    }
}

struct Live {
    questions: mpsc::Sender<Question>,
    /// Connected when first needed: the nameserver may not be listening yet when the page is.
    client: Rc<OnceCell<Client>>,
}

fn stopping() -> Problem {
    Problem::retry("the nameserver is stopping")
}

impl Live {
    /// Has the nameserver's thread answer.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        let questions = self.questions.clone();
        Box::pin(async move { answer(&questions, question).await })
    }

    /// The same where the answer takes several turns of that thread; it is given up with whoever asked.
    fn ask_at_length<T: Send + 'static>(
        &self,
        question: impl AsyncFnOnce(View) -> Result<T> + Send + 'static,
    ) -> Answer<T> {
        let questions = self.questions.clone();
        let pose = |view: &View, mut tell: oneshot::Sender<Result<T>>| {
            let view = view.clone();
            tokio::task::spawn_local(async move {
                tokio::select! {
                    biased;
                    answer = question(view) => drop(tell.send(answer)),
                    () = tell.closed() => {}
                }
            });
        };
        Box::pin(async move { hear(&questions, pose).await })
    }

    /// Does `work` with the client, connecting it first where it is not.
    fn with_client<T, F>(&self, work: impl FnOnce(Client) -> F + 'static) -> Answer<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let (questions, cell) = (self.questions.clone(), self.client.clone());
        Box::pin(async move {
            let client = cell.get_or_try_init(|| connect(&questions)).await?.clone();
            work(client).await
        })
    }
}

async fn answer<T: Send + 'static>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(&View) -> Result<T> + Send + 'static,
) -> Result<T> {
    hear(questions, |view, tell| drop(tell.send(question(view)))).await
}

/// Has something be posed on the nameserver's thread, and waits for what is told.
async fn hear<T: Send + 'static>(
    questions: &mpsc::Sender<Question>,
    pose: impl FnOnce(&View, oneshot::Sender<Result<T>>) + Send + 'static,
) -> Result<T> {
    let (tell, told) = oneshot::channel();
    let question: Question = Box::new(move |view| pose(view, tell));
    questions.send(question).await.map_err(|_| stopping())?;
    told.await.unwrap_or_else(|_| Err(stopping()))
}

async fn connect(questions: &mpsc::Sender<Question>) -> Result<Client> {
    let known = answer(questions, |view| Ok((view.cluster().address, view.secret()?)));
    let (address, secret) = known.await?;
    Client::connect(Options::new(vec![reachable(&address)], secret))
        .await
        .map_err(|problem| problem.context("the page cannot reach its own nameserver"))
}

/// Who listens on every address is reached by the loopback one.
fn reachable(address: &str) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(mut parsed) if parsed.ip().is_unspecified() => {
            parsed.set_ip(match parsed {
                std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
            parsed.to_string()
        }
        _ => address.to_owned(),
    }
}

impl Backend for Live {
    fn status(&self) -> Answer<ClusterStatus> {
        self.ask(|view| Ok(view.status()))
    }

    fn lookup(&self, path: &str, from: u32, max: u32) -> Answer<(FileInfo, Vec<BlockInfo>)> {
        let path = path.to_owned();
        self.ask(move |view| view.lookup(&path, from, max))
    }

    fn blocks(&self, version: u64, from: u32, max: u32) -> Answer<Vec<BlockInfo>> {
        self.ask(move |view| view.blocks(version, from, max))
    }

    fn list(&self, path: &str, prefix: &str, after: &str, limit: u32) -> Answer<Rows<FileInfo>> {
        let [path, prefix, after] = [path, prefix, after].map(str::to_owned);
        self.ask(move |view| Ok(rows(view.list(&path, &prefix, &after, limit as usize, false)?)))
    }

    fn list_below(&self, path: &str, after: &str, limit: u32) -> Answer<Rows<FileInfo>> {
        let [path, after] = [path, after].map(str::to_owned);
        self.ask(move |view| Ok(rows(view.list(&path, "", &after, limit as usize, true)?)))
    }

    fn held(&self, volume: VolumeId, after: BlockId, limit: u32) -> Answer<Rows<HeldBlock>> {
        self.ask(move |view| Ok(rows(view.replicas_of(volume, after, limit)?)))
    }

    fn blocks_in(&self, range: RangeInclusive<BlockId>, limit: u32) -> Answer<Rows<(BlockInfo, String)>> {
        self.ask(move |view| Ok(rows(view.run_of_blocks(range, limit as usize))))
    }

    fn block_map(&self, range: RangeInclusive<BlockId>, cells_max: usize) -> Answer<BlockMap> {
        self.ask_at_length(async move |view| Ok(view.block_map(range, cells_max).await))
    }

    fn what_if(&self, lost: Vec<VolumeId>) -> Answer<WhatIf> {
        self.ask_at_length(async move |view| view.what_if(&lost).await)
    }

    fn trash(&self, after: u64, limit: u32) -> Answer<Rows<Trashed>> {
        self.ask(move |view| Ok(rows(view.trash(after, limit))))
    }

    fn newest_in_trash(&self, path: &str) -> Answer<Option<u64>> {
        let path = path.to_owned();
        self.ask(move |view| Ok(view.newest_in_trash(&path)))
    }

    fn upload_so_far(&self, lease: u64) -> Answer<UploadSoFar> {
        self.ask(move |view| view.upload(lease))
    }

    fn locate(&self, block: BlockId) -> Answer<Located> {
        self.ask(move |view| {
            let (info, path, version) = view.locate(block)?;
            Ok(Located { info, path, version })
        })
    }

    fn read_block(&self, block: BlockInfo) -> Answer<Bytes> {
        self.with_client(move |client| async move { client.read_block(&block).await })
    }

    fn upload(&self, upload: Upload, body: BodyReader) -> Answer<Uploaded> {
        let (path, options) = options_of(upload);
        self.with_client(move |client| async move {
            let uploaded = client.upload(&path, body, options).await?;
            Ok(Uploaded::from(uploaded))
        })
    }

    fn make_folder(&self, path: &str) -> Answer<FileInfo> {
        let path = path.to_owned();
        self.with_client(move |client| async move { client.mkdir(&path, true).await })
    }

    fn rename(&self, from: &str, to: &str, overwrite: bool) -> Answer<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.with_client(move |client| async move { client.rename(&from, &to, overwrite).await })
    }

    fn remove(&self, path: &str, recursive: bool) -> Answer<Removed> {
        let path = path.to_owned();
        self.with_client(move |client| async move {
            // The root is no entry of a folder; removing "everything" must be said entry by entry.
            if path.trim_matches('/').is_empty() {
                return Err(Problem::invalid("the root folder can't be removed"));
            }
            Ok(Removed::from(client.discard(&path, recursive).await?))
        })
    }

    fn restore(&self, entry: u64, to: Option<String>) -> Answer<FileInfo> {
        self.with_client(move |client| async move { client.restore(entry, to.as_deref()).await })
    }

    fn empty_trash(&self, entry: Option<u64>) -> Answer<Removed> {
        self.with_client(move |client| async move {
            let removed = client
                .empty_trash(entry.as_ref().map(std::slice::from_ref))
                .await?;
            Ok(Removed::from(removed))
        })
    }

    fn set_replication(&self, path: &str, recursive: bool, replication: u8) -> Answer<u64> {
        let path = path.to_owned();
        self.with_client(
            move |client| async move { client.set_replication(&path, recursive, replication).await },
        )
    }

    fn assign(&self, volumes: Vec<VolumeId>, duty: Duty, force: bool) -> Answer<()> {
        self.with_client(move |client| async move { client.assign(&volumes, duty, force).await })
    }

    fn tune(&self, tuning: Tuning) -> Answer<()> {
        self.with_client(move |client| async move { client.tune(tuning).await })
    }

    fn scrub(&self, volumes: Vec<VolumeId>, order: ScrubOrder) -> Answer<()> {
        self.with_client(move |client| async move { client.scrub(&volumes, order).await })
    }

    fn open_upload(&self, upload: Upload) -> Answer<Lease> {
        let (path, options) = options_of(upload);
        self.with_client(move |client| async move { client.open_upload(&path, &options).await })
    }

    fn upload_block(&self, lease: Lease, index: u32, data: Bytes) -> Answer<AddedBlock> {
        self.with_client(move |client| async move { client.upload_block(lease, index, data).await })
    }

    fn renew_upload(&self, lease: u64) -> Answer<()> {
        self.with_client(move |client| async move { client.renew_upload(lease).await })
    }

    fn commit_upload(&self, lease: Lease, blocks: u32, length_bytes: u64, crc32c: u32) -> Answer<Uploaded> {
        self.with_client(move |client| async move {
            let published = client.commit_upload(lease, blocks, length_bytes, crc32c).await?;
            Ok(Uploaded::from(published))
        })
    }

    fn abandon_upload(&self, lease: u64) -> Answer<()> {
        self.with_client(move |client| async move { client.abandon_upload(lease).await })
    }
}

fn rows<T>((rows, more): (Vec<T>, bool)) -> Rows<T> {
    Rows { rows, more }
}

fn options_of(upload: Upload) -> (String, UploadOptions) {
    let options = UploadOptions {
        overwrite: upload.overwrite,
        replication: upload.replication,
        content_type: upload.content_type,
        length_hint: upload.length_bytes,
        ..UploadOptions::default()
    };
    (upload.path, options)
}

impl From<blockyard_client::Uploaded> for Uploaded {
    fn from(uploaded: blockyard_client::Uploaded) -> Self {
        Self {
            file: uploaded.file,
            degraded_blocks: uploaded.degraded,
        }
    }
}

impl From<blockyard_client::Removed> for Removed {
    fn from(removed: blockyard_client::Removed) -> Self {
        Self {
            files: removed.files,
            bytes: removed.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_connect_to() {
        assert_eq!(reachable("0.0.0.0:9000"), "127.0.0.1:9000");
        assert_eq!(reachable("[::]:9000"), "[::1]:9000");
        assert_eq!(reachable("10.0.0.1:9000"), "10.0.0.1:9000");
    }
}
