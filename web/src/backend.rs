//! What the page needs of a cluster, as one small trait; it knows neither HTTP nor where answers come from.

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use blockyard_wire::Result;
use blockyard_wire::types::{BlockId, BlockInfo, ClusterStatus, FileInfo, HeldBlock, VolumeId};

use crate::pipe::BodyReader;

/// An answer that takes a while. Dropping it gives the work up.
pub type Answer<T> = LocalBoxFuture<'static, Result<T>>;

/// A run of rows, and whether more follow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rows<T> {
    /// The rows, in their order.
    pub rows: Vec<T>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// A block and the version of a file it was made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// The block with its replicas and the rights to read them.
    pub info: BlockInfo,
    /// The file that holds it now; empty where none does.
    pub path: String,
    /// The version it was made for.
    pub version: u64,
}

/// What is known of an upload before its first byte.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Upload {
    /// Where the file shall appear.
    pub path: String,
    /// Whether a file there may be replaced.
    pub overwrite: bool,
    /// MIME type as the sender gave it, or empty.
    pub content_type: String,
    /// Bytes to come, where declared.
    pub length_bytes: Option<u64>,
}

/// A file that has been stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Uploaded {
    /// The file as published.
    pub file: FileInfo,
    /// Blocks with fewer replicas than wanted, for now.
    pub degraded_blocks: u32,
}

/// What a removal took away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// Files.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
}

/// A cluster as the page sees it. What answers at once is read from the nameserver's own memory.
pub trait Backend {
    /// The whole cluster.
    ///
    /// # Errors
    /// When it can't be told.
    fn status(&self) -> Result<ClusterStatus>;

    /// A file or folder and at most `max` of its blocks from the `from`th on.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` for a name that can't be.
    fn lookup(&self, path: &str, from: u32, max: u32) -> Result<(FileInfo, Vec<BlockInfo>)>;

    /// Blocks of a version that a lookup has named, with fresh rights to read them.
    ///
    /// # Errors
    /// `Gone` once the version is no longer kept.
    fn blocks(&self, version: u64, from: u32, max: u32) -> Result<Vec<BlockInfo>>;

    /// Entries of a folder whose names begin with `prefix`, behind the name `after`, in the order of names.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` when it is no folder.
    fn list(&self, path: &str, prefix: &str, after: &str, limit: u32) -> Result<Rows<FileInfo>>;

    /// Blocks that a volume should hold, behind the id `after`.
    ///
    /// # Errors
    /// `NotFound` for an unknown volume.
    fn held(&self, volume: VolumeId, after: BlockId, limit: u32) -> Result<Rows<HeldBlock>>;

    /// One block.
    ///
    /// # Errors
    /// `NotFound` when no version has it.
    fn locate(&self, block: BlockId) -> Result<Located>;

    /// A whole block, verified against its CRC32C.
    fn read_block(&self, block: BlockInfo) -> Answer<Bytes>;

    /// Stores what `body` yields. Nothing is stored unless `body` ends well.
    fn upload(&self, upload: Upload, body: BodyReader) -> Answer<Uploaded>;

    /// Makes a folder and its missing parents.
    fn make_folder(&self, path: &str) -> Answer<FileInfo>;

    /// Gives a file or folder another name.
    fn rename(&self, from: &str, to: &str, overwrite: bool) -> Answer<()>;

    /// Removes a file, or a folder: with all that is in it only if `recursive`.
    fn remove(&self, path: &str, recursive: bool) -> Answer<Removed>;
}
