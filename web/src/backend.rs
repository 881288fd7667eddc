//! What the page needs of a cluster, as one small trait; it knows neither HTTP nor where answers come from.

use std::ops::RangeInclusive;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use blockyard_nameserver::UploadSoFar;
use blockyard_nameserver::survey::{BlockMap, WhatIf};
use blockyard_wire::Result;
use blockyard_wire::types::{
    AddedBlock, BlockId, BlockInfo, ClusterStatus, Duty, FileInfo, HeldBlock, Lease, ScrubOrder, Trashed,
    Tuning, VolumeId,
};

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
    /// Replicas wanted of each block; 0 takes the cluster's default.
    pub replication: u8,
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
    fn status(&self) -> Answer<ClusterStatus>;

    /// A file or folder and at most `max` of its blocks from the `from`th on.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` for a name that can't be.
    fn lookup(&self, path: &str, from: u32, max: u32) -> Answer<(FileInfo, Vec<BlockInfo>)>;

    /// Blocks of a version that a lookup has named, with fresh rights to read them.
    ///
    /// # Errors
    /// `Gone` once the version is no longer kept.
    fn blocks(&self, version: u64, from: u32, max: u32) -> Answer<Vec<BlockInfo>>;

    /// Everything below a folder, behind the path `after` (told from the folder on), in the order of paths.
    ///
    /// # Errors
    /// As [`Backend::list`].
    fn list_below(&self, path: &str, after: &str, limit: u32) -> Answer<Rows<FileInfo>>;

    /// Entries of a folder whose names begin with `prefix`, behind the name `after`, in the order of names.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` when it is no folder.
    fn list(&self, path: &str, prefix: &str, after: &str, limit: u32) -> Answer<Rows<FileInfo>>;

    /// Blocks that a volume should hold, behind the id `after`.
    ///
    /// # Errors
    /// `NotFound` for an unknown volume.
    fn held(&self, volume: VolumeId, after: BlockId, limit: u32) -> Answer<Rows<HeldBlock>>;

    /// Blocks of a range of ids with the paths of their files, at most `limit`.
    fn blocks_in(&self, range: RangeInclusive<BlockId>, limit: u32) -> Answer<Rows<(BlockInfo, String)>>;

    /// The blocks of a range from afar.
    fn block_map(&self, range: RangeInclusive<BlockId>, cells_max: usize) -> Answer<BlockMap>;

    /// What it would mean if these volumes were lost. `NotFound` for one that has never joined.
    fn what_if(&self, lost: Vec<VolumeId>) -> Answer<WhatIf>;

    /// Entries of the trash behind `after`.
    fn trash(&self, after: u64, limit: u32) -> Answer<Rows<Trashed>>;

    /// The entry of the trash that came last from `path`; `None` where it is not among the last ones.
    fn newest_in_trash(&self, path: &str) -> Answer<Option<u64>>;

    /// An upload in progress, as far as it has come.
    ///
    /// # Errors
    /// `Denied` when no such upload is open.
    fn upload_so_far(&self, lease: u64) -> Answer<UploadSoFar>;

    /// One block.
    ///
    /// # Errors
    /// `NotFound` when no version has it.
    fn locate(&self, block: BlockId) -> Answer<Located>;

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

    /// Takes an entry of the trash back: to where it was, or to `to`.
    fn restore(&self, entry: u64, to: Option<String>) -> Answer<FileInfo>;

    /// Removes entries of the trash for good; all without `entry`.
    fn empty_trash(&self, entry: Option<u64>) -> Answer<Removed>;

    /// Sets how many replicas are wanted of a file, or of all below a folder. So many files were changed.
    fn set_replication(&self, path: &str, recursive: bool, replication: u8) -> Answer<u64>;

    /// Gives an operator's word on volumes; `force` removes what is not drained.
    fn assign(&self, volumes: Vec<VolumeId>, duty: Duty, force: bool) -> Answer<()>;

    /// Sets how repair and balance work.
    fn tune(&self, tuning: Tuning) -> Answer<()>;

    /// Starts or pauses the scrubs of volumes; all without any.
    fn scrub(&self, volumes: Vec<VolumeId>, order: ScrubOrder) -> Answer<()>;

    /// Opens an upload whose blocks come one by one.
    fn open_upload(&self, upload: Upload) -> Answer<Lease>;

    /// Stores one block of it.
    fn upload_block(&self, lease: Lease, index: u32, data: Bytes) -> Answer<AddedBlock>;

    /// Keeps it open.
    fn renew_upload(&self, lease: u64) -> Answer<()>;

    /// Publishes what `blocks` blocks of together `length_bytes` and `crc32c` make.
    fn commit_upload(&self, lease: Lease, blocks: u32, length_bytes: u64, crc32c: u32) -> Answer<Uploaded>;

    /// Gives it up.
    fn abandon_upload(&self, lease: u64) -> Answer<()>;
}
