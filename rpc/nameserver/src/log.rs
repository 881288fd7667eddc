//! Writing the journal: files made ahead, one frame in flight at a time, and errors that latch.
//!
//! The system's calls stand behind [`Log`], so that what drives the files can be replaced here alone.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use blockyard_wire::types::ClusterId;

use crate::journal::{self, FRAME_HEADER_BYTES, HEADER_BYTES, Header, Place};

/// What the journal asks of a file system.
pub trait Log: 'static {
    /// An open file.
    type File: 'static;

    /// Makes a file of `bytes` zeros, written and flushed, in place of what may be there.
    fn create(&self, path: &Path, bytes: u64) -> impl Future<Output = io::Result<Self::File>>;

    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &Self::File, offset: u64, bytes: Vec<u8>) -> impl Future<Output = io::Result<()>>;

    /// Returns when what was written is durable (fdatasync).
    fn sync(&self, file: &Self::File) -> impl Future<Output = io::Result<()>>;

    /// Renames a file within a folder, and returns when that is durable.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;
}

/// [`Log`] by tokio-uring.
pub struct Uring;

impl Log for Uring {
    type File = tokio_uring::fs::File;

    async fn create(&self, path: &Path, bytes: u64) -> io::Result<Self::File> {
        /// Zeros a write: so that other work of the thread goes on in between.
        const STEP_BYTES: u64 = 1024 * 1024;
        let file = tokio_uring::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .await?;
        let mut zeros = vec![0; bytes.min(STEP_BYTES) as usize];
        let mut offset = 0;
        while offset < bytes {
            zeros.truncate((bytes - offset).min(STEP_BYTES) as usize);
            let step_bytes = zeros.len() as u64;
            let (written, buffer) = file.write_all_at(zeros, offset).await;
            written?;
            zeros = buffer;
            offset += step_bytes;
        }
        file.sync_all().await?;
        Ok(file)
    }

    async fn write(&self, file: &Self::File, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        file.write_all_at(bytes, offset).await.0
    }

    async fn sync(&self, file: &Self::File) -> io::Result<()> {
        file.sync_data().await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        tokio_uring::fs::rename(from, to).await?;
        let folder = tokio_uring::fs::File::open(to.parent().unwrap_or(Path::new("."))).await?;
        folder.sync_all().await?;
        folder.close().await
    }
}

/// Why commands were not made durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There is no room; nothing was lost, and there may be some later.
    NoSpace(String),
    /// A write or flush has failed: nothing more is written until the nameserver is started anew.
    Latched(String),
}

/// The journal's writer.
pub struct Journal<L: Log> {
    log: L,
    dir: PathBuf,
    cluster: ClusterId,
    file_bytes: u64,
    sequence: u64,
    place: Place,
    open: Option<Open<L::File>>,
    latched: Option<String>,
    /// Bytes of frames since [`Journal::forget_bytes`].
    bytes: u64,
}

struct Open<F> {
    file: F,
    seed: u32,
    offset: u64,
}

impl<L: Log> Journal<L> {
    /// A writer that goes on behind the last file, `sequence`, at `place`; it begins a file of its own.
    pub fn new(log: L, dir: &Path, cluster: ClusterId, file_bytes: u64, sequence: u64, place: Place) -> Self {
        let dir = dir.join(journal::FOLDER);
        Self {
            log,
            dir,
            cluster,
            file_bytes,
            sequence,
            place,
            open: None,
            latched: None,
            bytes: 0,
        }
    }

    /// Sequence of the last file begun.
    #[cfg(test)]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes of frames written since the last [`Journal::forget_bytes`].
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Starts to count bytes at `bytes`: a snapshot covers the rest.
    pub fn forget_bytes(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// Makes a group of encoded commands durable.
    ///
    /// # Errors
    /// [`Refused`]; none of them is durable then, unless `Latched`, when nobody knows.
    pub async fn append(&mut self, term: u64, commands: &[Vec<u8>]) -> Result<(), Refused> {
        if let Some(why) = &self.latched {
            return Err(Refused::Latched(why.clone()));
        }
        let frame_bytes = (FRAME_HEADER_BYTES + 9 + commands.iter().map(Vec::len).sum::<usize>()) as u64;
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.offset + frame_bytes > self.file_bytes)
        {
            self.rotate().await?;
        }
        let Some(open) = &self.open else {
            return Err(Refused::NoSpace("no journal file is open".into()));
        };
        let (frame, crc) = journal::encode_frame(open.seed, term, self.place, commands);
        let bytes = frame.len() as u64;
        let written = match self.log.write(&open.file, open.offset, frame).await {
            Ok(()) => self.log.sync(&open.file).await,
            // What has room for all its bytes may still have none, where blocks are not written in place.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(Refused::NoSpace(format!("writing the journal: {error}")));
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            return Err(self.latch(format!("writing the journal failed: {error}")));
        }
        if let Some(open) = &mut self.open {
            open.offset += bytes;
        }
        self.bytes += bytes;
        self.place = Place {
            index: self.place.index + commands.len() as u64,
            previous_crc: crc,
        };
        Ok(())
    }

    /// Begins a new file; the sequence of the one before, which is never written again.
    ///
    /// # Errors
    /// [`Refused`]; without room the old file stays open.
    pub async fn rotate(&mut self) -> Result<u64, Refused> {
        if let Some(why) = &self.latched {
            return Err(Refused::Latched(why.clone()));
        }
        let closed = self.sequence;
        let header = Header {
            cluster: self.cluster,
            sequence: closed + 1,
            seed: random_seed(),
            first: self.place,
        };
        let draft = self.dir.join("next.tmp");
        let path = self.dir.join(journal::file_name(header.sequence));
        let made = async {
            let file = self.log.create(&draft, self.file_bytes).await?;
            self.log.write(&file, 0, header.encode()).await?;
            self.log.sync(&file).await?;
            Ok::<_, io::Error>(file)
        };
        let file = match made.await {
            Ok(file) => file,
            // The draft is no part of the journal: its failure says nothing about what is.
            Err(error) => return Err(Refused::NoSpace(format!("making a journal file: {error}"))),
        };
        if let Err(error) = self.log.rename(&draft, &path).await {
            return Err(self.latch(format!("renaming a journal file failed: {error}")));
        }
        self.open = Some(Open {
            file,
            seed: header.seed,
            offset: HEADER_BYTES as u64,
        });
        self.sequence = header.sequence;
        Ok(closed)
    }

    fn latch(&mut self, why: String) -> Refused {
        tracing::error!(%why, "the journal can't be written any more: read-only from now on");
        self.latched = Some(why.clone());
        Refused::Latched(why)
    }
}

fn random_seed() -> u32 {
    let id = ClusterId::random().0;
    u32::from_le_bytes([id[0], id[1], id[2], id[3]])
}

#[cfg(test)]
mod tests;
