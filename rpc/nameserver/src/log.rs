//! Writing the journal: files made ahead, one frame in flight at a time, errors that latch; into one folder, or
//! into two that mirror each other.
//!
//! The system's calls stand behind [`Log`], so that what drives the files can be replaced here alone.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use blockyard_wire::types::ClusterId;
use futures_util::future::join_all;

use crate::journal::{self, HEADER_BYTES, Header, PAGE_BYTES, Place};
use crate::replay;

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
        let filled = async {
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
            file.sync_all().await
        };
        if let Err(error) = filled.await {
            // Or it would keep the very last room of a full disk. Its failure is told, not that of this.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
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
    /// There is no room, or no file can be opened; nothing was lost, and it may go better later.
    NoSpace(String),
    /// A write or flush has failed: nothing more is written until the nameserver is started anew.
    Latched(String),
}

/// One folder's failure.
enum Fault {
    /// There is no room: what is there is whole.
    NoRoom(String),
    /// What is there, and what is durable, is not known any more.
    Broken(String),
}

/// Whether a failure says that there is no room, and not that a disk is broken.
fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Whether a failure says that the disk is broken, or will not be written any more.
fn is_broken(error: &io::Error) -> bool {
    let broken = [
        rustix::io::Errno::IO,
        rustix::io::Errno::NXIO,
        rustix::io::Errno::NODEV,
    ];
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
        || error
            .raw_os_error()
            .is_some_and(|code| broken.iter().any(|errno| errno.raw_os_error() == code))
}

/// The journal's writer.
pub struct Journal<L: Log> {
    log: L,
    sides: Vec<Side<L::File>>,
    cluster: ClusterId,
    file_bytes: u64,
    sequence: u64,
    place: Place,
    /// The file being written, the same in all folders.
    open: Option<Open>,
    /// Bytes of frames since [`Journal::forget_bytes`].
    bytes: u64,
}

/// A folder that the journal is written to.
struct Side<F> {
    dir: PathBuf,
    file: Option<F>,
    /// Why it is not written any more. The others go on.
    failed: Option<String>,
}

#[derive(Clone, Copy)]
struct Open {
    seed: u32,
    offset: u64,
}

impl<L: Log> Journal<L> {
    /// A writer that goes on behind the last file, `sequence`, at `place`; it begins a file of its own, in each of
    /// the nameserver's folders.
    pub fn new(
        log: L,
        dirs: &[PathBuf],
        cluster: ClusterId,
        file_bytes: u64,
        sequence: u64,
        place: Place,
    ) -> Self {
        let side = |dir: &PathBuf| Side {
            dir: dir.clone(),
            file: None,
            failed: None,
        };
        Self {
            log,
            sides: dirs.iter().map(side).collect(),
            cluster,
            file_bytes: file_bytes.next_multiple_of(PAGE_BYTES),
            sequence,
            place,
            open: None,
            bytes: 0,
        }
    }

    /// Sequence of the last file begun.
    #[cfg(test)]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes of frames written since the last [`Journal::forget_bytes`], twins not counted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Starts to count bytes at `bytes`: a snapshot covers the rest.
    pub fn forget_bytes(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// The nameserver's folders that hold the whole journal.
    pub fn live(&self) -> Vec<PathBuf> {
        self.sides
            .iter()
            .filter(|side| side.failed.is_none())
            .map(|side| side.dir.clone())
            .collect()
    }

    /// Folders that have failed while another goes on, and why; empty when all is well, or nothing goes on.
    pub fn trouble(&self) -> String {
        if self.latched().is_some() {
            return String::new();
        }
        let failed = self.sides.iter().filter_map(|side| side.failed.as_deref());
        failed.collect::<Vec<_>>().join("; ")
    }

    fn latched(&self) -> Option<Refused> {
        match self.sides.iter().all(|side| side.failed.is_some()) {
            true => {
                let why = self.sides.iter().rev().find_map(|side| side.failed.clone());
                Some(Refused::Latched(why.unwrap_or_default()))
            }
            false => None,
        }
    }

    /// Makes a group of encoded commands durable, in every folder that has not failed.
    ///
    /// # Errors
    /// [`Refused`]; none of them is durable then, unless `Latched`, when nobody knows.
    pub async fn append(&mut self, term: u64, commands: &[Vec<u8>]) -> Result<(), Refused> {
        if let Some(refused) = self.latched() {
            return Err(refused);
        }
        let frame_bytes = journal::frame_bytes(commands) as u64;
        let open = match self.open {
            Some(open) if open.offset + 2 * frame_bytes <= self.file_bytes => open,
            _ => {
                self.rotate().await?;
                self.open
                    .ok_or_else(|| Refused::NoSpace("no journal file is open".into()))?
            }
        };
        let (mut frame, crc) = journal::encode_frame(open.seed, term, self.place, commands);
        frame.extend_from_within(..);
        let log = &self.log;
        let writing = self.sides.iter().enumerate().filter_map(|(at, side)| {
            let file = side.file.as_ref()?;
            let (dir, frame) = (&side.dir, frame.clone());
            Some(async move {
                let written = match log.write(file, open.offset, frame).await {
                    Ok(()) => log.sync(file).await.map_err(|error| (error, false)),
                    // What has room for all its bytes may still have none, where blocks are not written in place.
                    Err(error) => {
                        let no_room = is_no_room(&error);
                        Err((error, no_room))
                    }
                };
                let outcome = written.map_err(|(error, no_room)| {
                    let why = format!("writing the journal in {} failed: {error}", dir.display());
                    match no_room {
                        true => Fault::NoRoom(why),
                        false => Fault::Broken(why),
                    }
                });
                (at, outcome)
            })
        });
        let outcomes = join_all(writing).await;
        self.settle(outcomes)?;
        self.open = Some(Open {
            offset: open.offset + 2 * frame_bytes,
            ..open
        });
        self.bytes += frame_bytes;
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
        if let Some(refused) = self.latched() {
            return Err(refused);
        }
        let closed = self.sequence;
        let header = Header {
            format: journal::FORMAT,
            cluster: self.cluster,
            sequence: closed + 1,
            seed: random_seed(),
            first: self.place,
            pages: (self.file_bytes / PAGE_BYTES) as u32,
        };
        let (log, page, file_bytes) = (&self.log, header.encode(), self.file_bytes);
        let live = self.sides.iter().enumerate();
        let making = live.filter(|(_, side)| side.failed.is_none()).map(|(at, side)| {
            let (dir, page) = (side.dir.join(journal::FOLDER), page.clone());
            async move {
                let made = async {
                    let file = log.create(&dir.join("next.tmp"), file_bytes).await?;
                    log.write(&file, 0, page).await?;
                    log.sync(&file).await?;
                    Ok::<_, io::Error>(file)
                };
                // The draft is no part of the journal: its failure says nothing about what is, unless it says
                // that the disk is broken.
                let made = made.await.map_err(|error| {
                    let why = format!("making a journal file in {} failed: {error}", dir.display());
                    match is_broken(&error) {
                        true => Fault::Broken(why),
                        false => Fault::NoRoom(why),
                    }
                });
                (at, made)
            }
        });
        let mut drafts = Vec::new();
        let mut outcomes = Vec::new();
        for (at, made) in join_all(making).await {
            outcomes.push((at, made.map(|file| drafts.push((at, file)))));
        }
        self.settle(outcomes)?;
        let mut outcomes = Vec::new();
        for (at, file) in drafts {
            let folder = self.sides[at].dir.join(journal::FOLDER);
            let path = folder.join(replay::file_name(header.sequence));
            let renamed = self.log.rename(&folder.join("next.tmp"), &path).await;
            if renamed.is_ok() {
                self.sides[at].file = Some(file);
            }
            let failed = |error| Fault::Broken(format!("renaming {} failed: {error}", path.display()));
            outcomes.push((at, renamed.map_err(failed)));
        }
        self.settle(outcomes)?;
        self.open = Some(Open {
            seed: header.seed,
            offset: HEADER_BYTES as u64,
        });
        self.sequence = header.sequence;
        Ok(closed)
    }

    /// What a step came to in all folders that took part: it counts when one has done it, and then the others are
    /// behind and must not go on.
    fn settle(&mut self, outcomes: Vec<(usize, Result<(), Fault>)>) -> Result<(), Refused> {
        let any_done = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        let mut no_room = None;
        let mut broken = false;
        for (at, outcome) in outcomes {
            match outcome {
                Ok(()) => {}
                Err(Fault::NoRoom(why)) if !any_done => no_room = Some(why),
                Err(Fault::NoRoom(why) | Fault::Broken(why)) => {
                    broken = true;
                    let side = &mut self.sides[at];
                    side.file = None;
                    tracing::error!(
                        folder = %side.dir.display(),
                        why,
                        "the journal can't be written there any more, until the nameserver is started anew"
                    );
                    side.failed = Some(why);
                }
            }
        }
        if let Some(refused) = self.latched() {
            tracing::error!("the journal can't be written anywhere: read-only from now on");
            return Err(refused);
        }
        match no_room {
            Some(why) => {
                if broken {
                    // The broken folder may hold what was refused here: what comes next goes to a file that it
                    // does not have, so that nobody takes the two for one history.
                    self.open = None;
                }
                Err(Refused::NoSpace(why))
            }
            None => Ok(()),
        }
    }
}

fn random_seed() -> u32 {
    let id = ClusterId::random().0;
    u32::from_le_bytes([id[0], id[1], id[2], id[3]])
}

#[cfg(test)]
mod crash;
#[cfg(test)]
pub(crate) mod tests;
