//! The handle: `Send + Sync + Clone`, in front of the thread that owns every connection.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use blockyard_wire::types::{
    BlockId, BlockInfo, ClusterInfo, ClusterStatus, Duty, FileInfo, HeldBlock, ScrubOrder, Trashed, Tuning,
    VolumeId,
};
use blockyard_wire::{Problem, ProblemKind, Result};
use bytes::Bytes;
use futures_util::stream::{self, Stream, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::core::{self, Core, Job};
use crate::local::Local;
use crate::options::{
    DownloadOptions, Downloaded, ListOptions, Located, Options, Removed, UploadOptions, Uploaded,
};
use crate::read;
use crate::statistics::Statistics;

/// Calls waiting for the client's thread at the most; further callers wait.
const JOBS_MAX: usize = 256;
/// Entries of one page of a listing.
const LIST_PAGE: u32 = 1000;

/// A connection to a cluster. Clones share it; the last one dropped closes it.
#[derive(Clone)]
pub struct Client {
    jobs: mpsc::Sender<Job>,
    gone: Arc<GoneSignal>,
}

/// Tells [`Client::close`] when the thread has ended.
struct GoneSignal(std::sync::Mutex<Option<oneshot::Receiver<()>>>);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client(…)")
    }
}

impl Client {
    /// Connects to the first nameserver that answers, each tried once.
    ///
    /// # Errors
    /// `Retry` when none can be reached, `Denied` when the secret does not fit, `Invalid` without addresses.
    pub async fn connect(options: Options) -> Result<Self> {
        if options.nameservers.is_empty() {
            return Err(Problem::invalid(
                "no nameserver is named: pass --nameserver HOST:PORT or set BLOCKYARD_NAMESERVER",
            ));
        }
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let (ready, connected) = oneshot::channel();
        let (end, gone) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("blockyard-client".into())
            .spawn(move || {
                core::run(options, queue, ready);
                drop(end);
            })
            .map_err(|error| {
                Problem::new(
                    ProblemKind::Failed,
                    format!("cannot start the client's thread: {error}"),
                )
            })?;
        connected.await.map_err(|_| stopped())??;
        let gone = Arc::new(GoneSignal(std::sync::Mutex::new(Some(gone))));
        Ok(Self { jobs, gone })
    }

    /// Closes the connection and waits until unfinished uploads have been abandoned (2 s at the most).
    /// Other clones keep it open; then this returns at once.
    pub async fn close(self) {
        let Self { jobs, gone } = self;
        drop(jobs);
        let gone = Arc::into_inner(gone).and_then(|signal| signal.0.into_inner().ok().flatten());
        if let Some(gone) = gone {
            // An error is the very signal: the thread dropped its end.
            let _ = gone.await;
        }
    }

    /// What the cluster says of itself.
    ///
    /// # Errors
    /// `Retry` when no nameserver can be reached.
    pub async fn cluster(&self) -> Result<ClusterInfo> {
        self.run(|core| async move { core.session.cluster().await }).await
    }

    /// The file or directory at `path`.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a path that can't be.
    pub async fn lookup(&self, path: &str) -> Result<FileInfo> {
        let path = path.to_owned();
        self.run_local(|local| async move { local.lookup(&path).await })
            .await
    }

    /// The file at `path` and all its blocks, with their replicas.
    ///
    /// # Errors
    /// `NotFound`; `Gone` when the file is replaced meanwhile.
    pub async fn info(&self, path: &str) -> Result<(FileInfo, Vec<BlockInfo>)> {
        let path = path.to_owned();
        self.run(|core| async move { core.session.all_blocks(&path).await })
            .await
    }

    /// One page of what is in (recursive: below) the directory `path`, and whether there is more.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when it is no directory.
    pub async fn list(&self, path: &str, options: ListOptions) -> Result<(Vec<FileInfo>, bool)> {
        let path = path.to_owned();
        self.run(|core| async move { core.session.list(&path, &options).await })
            .await
    }

    /// All that is in (recursive: below) the directory `path`, page by page underneath.
    pub fn list_all(
        &self,
        path: &str,
        options: ListOptions,
    ) -> impl Stream<Item = Result<FileInfo>> + Send + 'static {
        let start = (self.clone(), path.to_owned(), options, true);
        stream::try_unfold(start, |(client, path, mut options, more)| async move {
            if !more {
                return Ok(None);
            }
            let (entries, more) = client.list(&path, options.clone()).await?;
            let more = more && !entries.is_empty();
            if let Some(last) = entries.last() {
                options.after = if options.recursive {
                    below(&path, &last.path).to_owned()
                } else {
                    last.name.clone()
                };
            }
            let page = stream::iter(entries.into_iter().map(Ok));
            Ok::<_, Problem>(Some((page, (client, path, options, more))))
        })
        .try_flatten()
    }

    /// Makes the directory `path`, with `parents` also those above it and without complaint when it exists.
    ///
    /// # Errors
    /// `Exists`; `NotFound` without the folder above it; `Invalid`.
    pub async fn mkdir(&self, path: &str, parents: bool) -> Result<FileInfo> {
        let path = path.to_owned();
        self.run(move |core| async move { core.session.mkdir(&path, parents).await })
            .await
    }

    /// Gives the file or directory `from` the path `to`.
    ///
    /// # Errors
    /// `NotFound`; `Exists` without `overwrite`; `Invalid`.
    pub async fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.run(move |core| async move { core.session.rename(&from, &to, overwrite).await })
            .await
    }

    /// Removes a file, or a directory (with `recursive` one that is not empty).
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a directory that is not empty.
    pub async fn remove(&self, path: &str, recursive: bool) -> Result<Removed> {
        let path = path.to_owned();
        self.run(move |core| async move { core.session.remove(&path, recursive).await })
            .await
    }

    /// Uploads all that `from` gives as the file `path`; it appears whole or not at all, durable on every
    /// replica of each block. Dropping the future abandons the upload.
    ///
    /// # Errors
    /// `Exists` without `overwrite`; `NoSpace`; `Retry` when blocks could not be written anywhere in time;
    /// `Failed` when the source can't be read.
    pub async fn upload<R>(&self, path: &str, from: R, options: UploadOptions) -> Result<Uploaded>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let path = path.to_owned();
        self.run_local(|local| async move { local.upload(&path, from, options).await })
            .await
    }

    /// Downloads the file `path` into `to`, in order; every byte is verified before it is handed over.
    /// Dropping the future cancels the reads.
    ///
    /// # Errors
    /// `NotFound`; `Gone` when the file is replaced meanwhile; `Retry` or `Corrupt` when a block can be
    /// read nowhere; `Failed` when the sink refuses bytes.
    pub async fn download<W>(&self, path: &str, to: W, options: DownloadOptions) -> Result<Downloaded>
    where
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let path = path.to_owned();
        self.run_local(|local| async move { local.download(&path, to, options).await })
            .await
    }

    /// Runs `work` on the client's thread, where it may start tasks of its own with `tokio::task::spawn_local`.
    /// It must not block. Dropping the returned future drops it there.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn run_local<T, F, Fut>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Local) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
    {
        self.run(|core| work(Local::new(core))).await
    }

    /// Reads one whole block from the best replica that has it right.
    ///
    /// # Errors
    /// `Retry` or `Corrupt` when no replica gives it.
    pub async fn read_block(&self, block: &BlockInfo) -> Result<Bytes> {
        let block = block.clone();
        self.run(move |core| read::whole_block(core, block)).await
    }

    /// The whole cluster as the nameserver sees it.
    ///
    /// # Errors
    /// `Retry` when no nameserver can be reached.
    pub async fn status(&self) -> Result<ClusterStatus> {
        self.run(|core| async move { core.session.status().await }).await
    }

    /// What a volume should hold, by block id above `after`, and whether there is more; `limit` at most 1000.
    ///
    /// # Errors
    /// `NotFound` for an unknown volume.
    pub async fn replicas_of(
        &self,
        volume: VolumeId,
        after: BlockId,
        limit: u32,
    ) -> Result<(Vec<HeldBlock>, bool)> {
        self.run(move |core| async move {
            core.session
                .replicas_of(volume, after, limit.min(LIST_PAGE))
                .await
        })
        .await
    }

    /// Where `block` is and which file holds it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn locate(&self, block: BlockId) -> Result<Located> {
        self.run(move |core| async move { core.session.locate(block).await })
            .await
    }

    /// Puts a file, or a directory (with `recursive` one that is not empty), into the trash, from where it can be restored
    /// until the trash is emptied.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a directory with entries.
    pub async fn discard(&self, path: &str, recursive: bool) -> Result<Removed> {
        let path = path.to_owned();
        self.run(move |core| async move { core.session.discard(&path, recursive).await })
            .await
    }

    /// What lies in the trash behind the entry `after`, by number, and whether there is more.
    ///
    /// # Errors
    /// `Retry` when no nameserver can be reached.
    pub async fn trash(&self, after: u64) -> Result<(Vec<Trashed>, bool)> {
        self.run(move |core| async move { core.session.trash(after, LIST_PAGE).await })
            .await
    }

    /// Takes something out of the trash: to `to`, or to where it was.
    ///
    /// # Errors
    /// `NotFound`; `Exists` when there is something else now.
    pub async fn restore(&self, entry: u64, to: Option<&str>) -> Result<FileInfo> {
        let to = to.unwrap_or_default().to_owned();
        self.run(move |core| async move { core.session.restore(entry, &to).await })
            .await
    }

    /// Removes some of the trash (at most 1000 entries), or (`None`) all of it.
    ///
    /// # Errors
    /// `Retry` when no nameserver can be reached.
    pub async fn empty_trash(&self, entries: Option<&[u64]>) -> Result<Removed> {
        let entries = entries.map(<[u64]>::to_vec);
        self.run(move |core| async move { core.session.empty_trash(entries.as_deref()).await })
            .await
    }

    /// Tells what is wanted of volumes: to serve, to be left alone during maintenance, to be drained, to be removed.
    /// `force` removes one that holds what is nowhere else, too.
    ///
    /// # Errors
    /// `NotFound` for an unknown volume; `Invalid` for a removal that would lose something.
    pub async fn assign(&self, volumes: &[VolumeId], duty: Duty, force: bool) -> Result<()> {
        let volumes = volumes.to_vec();
        self.run(move |core| async move { core.session.assign(&volumes, duty, force).await })
            .await
    }

    /// Has some volumes (none named: all that are connected) begin a scrub, or pause.
    ///
    /// # Errors
    /// `NotFound` for an unknown volume; `Retry` for one that is not connected; `Invalid` for one whose scrub is off. The
    /// others have obeyed.
    pub async fn scrub(&self, volumes: &[VolumeId], order: ScrubOrder) -> Result<()> {
        let volumes = volumes.to_vec();
        self.run(move |core| async move { core.session.scrub(&volumes, order).await })
            .await
    }

    /// Sets how many replicas a file is to have, or (`recursive`) all files below a directory; how many files those are.
    /// Copies are made, or trimmed, in the background.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a directory that was not meant, or a number that can't be.
    pub async fn set_replication(&self, path: &str, recursive: bool, replication: u8) -> Result<u64> {
        let path = path.to_owned();
        self.run(move |core| async move { core.session.set_replication(&path, recursive, replication).await })
            .await
    }

    /// Sets how repair and balance are to work, from now on and after restarts.
    ///
    /// # Errors
    /// `Retry` when no nameserver can be reached.
    pub async fn tune(&self, tuning: Tuning) -> Result<()> {
        self.run(move |core| async move { core.session.tune(tuning).await })
            .await
    }

    /// What this client has counted since it was connected.
    ///
    /// # Errors
    /// None but that the client has stopped.
    pub async fn statistics(&self) -> Result<Statistics> {
        self.run(|core| async move { Ok(core.statistics()) }).await
    }

    /// Runs `work` on the client's thread. Dropping the returned future drops the work there.
    pub(crate) async fn run<T, F, Fut>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Core>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
    {
        let (mut reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |core: Rc<Core>| {
            let tasks = core.tasks.clone();
            tasks.spawn_local(async move {
                let result = tokio::select! {
                    biased;
                    () = reply.closed() => return,
                    result = work(core) => result,
                };
                // The caller may have gone in this very moment; then nobody wants the result.
                let _ = reply.send(result);
            });
        });
        self.jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

fn stopped() -> Problem {
    Problem::new(
        ProblemKind::Failed,
        "the client's thread has stopped unexpectedly",
    )
}

/// `path` without the directory it is below.
fn below<'a>(directory: &str, path: &'a str) -> &'a str {
    let directory = directory.trim_matches('/');
    let path = path.trim_start_matches('/');
    path.strip_prefix(directory)
        .unwrap_or(path)
        .trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handle_crosses_threads() {
        fn crosses<T: Send + Sync + Clone + 'static>() {}
        crosses::<Client>();
        fn sends<T: Send>(_: impl Fn(&'static Client) -> T) {}
        sends(|client| client.upload("/a", tokio::io::empty(), UploadOptions::default()));
        sends(|client| client.download("/a", tokio::io::sink(), DownloadOptions::default()));
    }

    #[test]
    fn paths_below_a_directory() {
        assert_eq!(below("/", "/a/b"), "a/b");
        assert_eq!(below("/a", "/a/b"), "b");
        assert_eq!(below("a/", "/a/b/c"), "b/c");
    }
}
