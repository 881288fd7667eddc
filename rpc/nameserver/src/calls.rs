//! The calls of a client's session that change something, from plain types to plain types: below the service that
//! carries them.

use std::rc::Rc;

use blockyard_wire::types::{AddedBlock, BlockId, FileInfo, Lease, RequestId, Tuning, VolumeId};
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::core::Core;
use crate::reports;
use crate::state::{Command, Outcome};

/// What a client says of an upload that it opens.
pub struct NewUpload {
    /// Where the file will appear.
    pub path: String,
    /// Whether a file that is there is replaced.
    pub overwrite: bool,
    /// Replicas wanted of each block; 0 takes the cluster's default.
    pub replication: u8,
    /// MIME type, or empty.
    pub content_type: String,
}

/// What a client says of a file that it has sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Blocks of the file.
    pub blocks: u32,
    /// Bytes of the file.
    pub length_bytes: u64,
    /// CRC32C of the file.
    pub crc32c: u32,
}

/// An outcome of another kind than the command's: a request id was used for two different calls.
fn mixed_up() -> Problem {
    Problem::invalid("this request id was used for another call")
}

/// Files and bytes.
fn removed(outcome: Outcome) -> Result<(u64, u64)> {
    match outcome {
        Outcome::Removed { files, bytes } => Ok((files, bytes)),
        _ => Err(mixed_up()),
    }
}

fn made(outcome: Outcome) -> Result<FileInfo> {
    match outcome {
        Outcome::Made { file } => Ok(*file),
        _ => Err(mixed_up()),
    }
}

/// Each call's errors are those of [`Core::propose`], beside what is said of it.
impl Core {
    /// Makes a directory.
    ///
    /// # Errors
    /// `Exists`, `NotFound`, `Invalid`.
    pub async fn mkdir(&self, path: String, parents: bool, request: RequestId) -> Result<FileInfo> {
        let command = Command::Mkdir {
            path,
            parents,
            at_unix_ms: self.now_unix_ms(),
            request,
        };
        made(self.propose(command).await?)
    }

    /// Moves a file or directory.
    ///
    /// # Errors
    /// `Exists`, `NotFound`, `Invalid`.
    pub async fn rename(&self, from: String, to: String, overwrite: bool, request: RequestId) -> Result<()> {
        let command = Command::Rename {
            from,
            to,
            overwrite,
            at_unix_ms: self.now_unix_ms(),
            request,
        };
        self.propose(command).await.map(|_| ())
    }

    /// Removes a file or directory; how many files and bytes that were.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`.
    pub async fn remove(&self, path: String, recursive: bool, request: RequestId) -> Result<(u64, u64)> {
        let command = Command::Remove {
            path,
            recursive,
            at_unix_ms: self.now_unix_ms(),
            request,
        };
        removed(self.propose(command).await?)
    }

    /// Moves a file or directory into the trash; how many files and bytes that were.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`.
    pub async fn discard(&self, path: String, recursive: bool, request: RequestId) -> Result<(u64, u64)> {
        let command = Command::Discard {
            path,
            recursive,
            at_unix_ms: self.now_unix_ms(),
            request,
        };
        removed(self.propose(command).await?)
    }

    /// Takes an entry of the trash back, to `to` or, where that is empty, to where it was.
    ///
    /// # Errors
    /// `NotFound`, `Exists`, `Invalid`.
    pub async fn restore(&self, entry: u64, to: String, request: RequestId) -> Result<FileInfo> {
        let command = Command::Restore {
            entry,
            to,
            at_unix_ms: self.now_unix_ms(),
            request,
        };
        made(self.propose(command).await?)
    }

    /// Removes entries of the trash; how many files and bytes that were.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn empty_trash(&self, entries: Vec<u64>, request: RequestId) -> Result<(u64, u64)> {
        let command = Command::Empty {
            entries,
            at_unix_ms: self.now_unix_ms(),
            request,
        };
        removed(self.propose(command).await?)
    }

    /// Opens an upload.
    ///
    /// # Errors
    /// `Busy` when there are as many as may be; `Exists`, `Invalid`.
    pub async fn begin(&self, upload: NewUpload, request: RequestId) -> Result<Lease> {
        self.uploads.borrow().may_begin()?;
        let command = Command::Begin {
            path: upload.path,
            overwrite: upload.overwrite,
            replication: self.replication_or_default(upload.replication),
            content_type: upload.content_type,
            at_unix_ms: self.now_unix_ms(),
            request,
        };
        let Outcome::Begun {
            lease,
            version,
            replication,
        } = self.propose(command).await?
        else {
            return Err(mixed_up());
        };
        self.uploads.borrow_mut().renew(lease, self.now_ms());
        Ok(Lease {
            id: lease,
            version,
            lease_ms: self.config.lease_ms,
            replication,
        })
    }

    /// Takes blocks of an upload in, their proofs checked.
    ///
    /// # Errors
    /// As [`Core::proven`].
    pub async fn add_blocks(&self, lease: u64, added: &[AddedBlock], request: RequestId) -> Result<()> {
        let blocks = self.proven(lease, added)?;
        self.propose(Command::AddBlocks {
            lease,
            blocks,
            request,
        })
        .await?;
        let mut uploads = self.uploads.borrow_mut();
        uploads.renew(lease, self.now_ms());
        added.iter().for_each(|block| uploads.added(lease, block.block));
        Ok(())
    }

    /// Publishes an upload; also how many of its blocks have fewer replicas than wanted.
    ///
    /// # Errors
    /// As [`Core::readable`]; `Denied` without the upload; `Invalid` or `Corrupt` when it is not what was sent.
    pub async fn commit(&self, lease: u64, sent: Sent, request: RequestId) -> Result<(FileInfo, u32)> {
        let command = Command::Commit {
            lease,
            blocks: sent.blocks,
            length_bytes: sent.length_bytes,
            crc32c: sent.crc32c,
            at_unix_ms: self.now_unix_ms(),
            request,
        };
        let repeated = self.state.borrow().repeated(&command).is_some();
        if !repeated {
            self.readable(lease)?;
        }
        let Outcome::Committed { file, degraded } = self.propose(command).await? else {
            return Err(mixed_up());
        };
        self.uploads.borrow_mut().end(lease);
        Ok((*file, degraded))
    }

    /// An upload is heard from; milliseconds that it may be silent from now on.
    ///
    /// # Errors
    /// `Denied` without the upload.
    pub fn renew(&self, lease: u64) -> Result<u32> {
        self.state.borrow().held(lease)?;
        self.uploads.borrow_mut().renew(lease, self.now_ms());
        Ok(self.config.lease_ms)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// `Denied` without the upload.
    pub async fn abandon(&self, lease: u64, request: RequestId) -> Result<()> {
        self.propose(Command::Abandon { lease, request }).await?;
        self.uploads.borrow_mut().end(lease);
        Ok(())
    }

    /// Sets how many replicas are wanted of a file, or of all below a directory; how many files that were.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`.
    pub async fn set_replication(
        &self,
        path: String,
        recursive: bool,
        replication: u8,
        request: RequestId,
    ) -> Result<u64> {
        let command = Command::SetReplication {
            path,
            recursive,
            replication,
            request,
        };
        match self.propose(command).await? {
            Outcome::Replicated { files } => Ok(files),
            _ => Err(mixed_up()),
        }
    }

    /// Sets how repair goes about its work.
    ///
    /// # Errors
    /// Those of [`Core::propose`].
    pub async fn tune(&self, tuning: Tuning, request: RequestId) -> Result<()> {
        self.propose(Command::Tune { tuning, request }).await?;
        self.repair_wake.notify_one();
        Ok(())
    }

    /// A client could not read a replica.
    ///
    /// # Errors
    /// `NotFound` for a volume that has never joined.
    pub fn report_bad(self: &Rc<Self>, block: BlockId, volume: VolumeId, kind: ProblemKind) -> Result<()> {
        let index = self.state.borrow().blocks().known(volume)?;
        if matches!(
            kind,
            ProblemKind::Corrupt | ProblemKind::NotFound | ProblemKind::OtherReplica
        ) {
            reports::doubt(self.clone(), index, block);
        }
        Ok(())
    }
}
