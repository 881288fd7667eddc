//! The shapes of the JSON API: what is told of files and blocks, and what is asked. Ids are text, because a browser's
//! numbers end at 2^53.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use blockyard_nameserver::survey::{BlockMap, Cell, Fate, WhatIf};
use blockyard_wire::types::{BlockInfo, FileInfo, HeldBlock, Location, ReplicaState, Trashed};

use crate::backend::{Located, Removed, Rows, Uploaded};
use crate::conditions::etag;

/// A file or folder.
#[derive(Serialize, ToSchema)]
pub(crate) struct File {
    path: String,
    name: String,
    directory: bool,
    version: String,
    size: u64,
    crc32c: String,
    etag: String,
    blocks: u32,
    created_unix_ms: u64,
    modified_unix_ms: u64,
    replication: u8,
    content_type: String,
    children: u32,
}

/// `GET /api/v1/file`.
#[derive(Serialize, ToSchema)]
pub(crate) struct FileBlocks {
    #[serde(flatten)]
    file: File,
    block_list: Vec<Block>,
    more: bool,
}

/// A block with its replicas.
#[derive(Serialize, ToSchema)]
struct Block {
    id: String,
    index: u32,
    length: u32,
    crc32c: String,
    replicas: Vec<Replica>,
}

#[derive(Serialize, ToSchema)]
struct Replica {
    server: String,
    volume: String,
    address: String,
    zone: String,
    #[schema(value_type = String)]
    state: ReplicaState,
    live: bool,
}

/// `GET /api/v1/files`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Listing {
    path: String,
    files: Vec<File>,
    more: bool,
    /// What the next page is to come behind; empty without one.
    next: String,
    /// Whether a folder was too large to be sorted as a whole.
    cut: bool,
}

/// `GET /api/v1/volumes/{id}/blocks`.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeldBlocks {
    volume: String,
    blocks: Vec<Held>,
    more: bool,
}

#[derive(Serialize, ToSchema)]
struct Held {
    id: String,
    index: u32,
    length: u32,
    crc32c: String,
    version: String,
    path: String,
    #[schema(value_type = String)]
    state: ReplicaState,
}

/// A stored upload.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stored {
    #[serde(flatten)]
    file: File,
    degraded_blocks: u32,
}

/// All files of one form.
#[derive(Serialize, ToSchema)]
pub(crate) struct StoredAll {
    /// In the order of the form.
    pub(crate) files: Vec<Stored>,
}

/// What a removal took away.
#[derive(Serialize, ToSchema)]
pub(crate) struct Gone {
    files: u64,
    bytes: u64,
    /// Where it lies in the trash, if it does.
    entry: Option<String>,
}

/// `POST /api/v1/rename`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rename {
    /// The path now.
    pub(crate) from: String,
    /// The path wanted.
    pub(crate) to: String,
    /// Whether a file there may be replaced.
    #[serde(default)]
    pub(crate) overwrite: bool,
}

/// A CRC32C as it is told.
pub(crate) fn crc(crc32c: u32) -> String {
    format!("{crc32c:08x}")
}

impl From<FileInfo> for File {
    fn from(file: FileInfo) -> Self {
        Self {
            etag: etag(&file),
            path: file.path,
            name: file.name,
            directory: file.directory,
            version: format!("{:x}", file.version),
            size: file.size_bytes,
            crc32c: crc(file.crc32c),
            blocks: file.blocks,
            created_unix_ms: file.created_unix_ms,
            modified_unix_ms: file.modified_unix_ms,
            replication: file.replication,
            content_type: file.content_type,
            children: file.children,
        }
    }
}

impl From<BlockInfo> for Block {
    fn from(block: BlockInfo) -> Self {
        Self {
            id: block.block.to_string(),
            index: block.index,
            length: block.length,
            crc32c: crc(block.crc32c),
            replicas: block.replicas.into_iter().map(Replica::from).collect(),
        }
    }
}

// The ticket of a location is a right to read it: it must not leave this process.
impl From<Location> for Replica {
    fn from(location: Location) -> Self {
        Self {
            server: location.hop.server,
            volume: location.hop.volume.to_string(),
            address: location.hop.address,
            zone: location.zone,
            state: location.state,
            live: location.live,
        }
    }
}

impl FileBlocks {
    /// `blocks` are those of `file` from the `from`th on.
    pub(crate) fn new(file: FileInfo, blocks: Vec<BlockInfo>, from: u32) -> Self {
        let reached = u64::from(from) + blocks.len() as u64;
        Self {
            more: !blocks.is_empty() && reached < u64::from(file.blocks),
            file: file.into(),
            block_list: blocks.into_iter().map(Block::from).collect(),
        }
    }
}

impl Listing {
    /// Entries of the folder `path`; the next page comes behind `next`.
    pub(crate) fn new(path: &str, files: Vec<FileInfo>, next: Option<String>) -> Self {
        Self {
            path: path.to_owned(),
            files: files.into_iter().map(File::from).collect(),
            more: next.is_some(),
            next: next.unwrap_or_default(),
            cut: false,
        }
    }

    /// All entries in another order, or as many as could be sorted.
    pub(crate) fn sorted(path: &str, files: Vec<FileInfo>, cut: bool) -> Self {
        Self {
            cut,
            ..Self::new(path, files, None)
        }
    }
}

impl HeldBlocks {
    /// The blocks of `volume`.
    pub(crate) fn new(volume: String, rows: Rows<HeldBlock>) -> Self {
        let held = |block: HeldBlock| Held {
            id: block.block.to_string(),
            index: block.index,
            length: block.length,
            crc32c: crc(block.crc32c),
            version: format!("{:x}", block.version),
            path: block.path,
            state: block.state,
        };
        Self {
            volume,
            blocks: rows.rows.into_iter().map(held).collect(),
            more: rows.more,
        }
    }
}

/// One block and where it belongs.
#[derive(Serialize, ToSchema)]
pub(crate) struct OneBlock {
    #[serde(flatten)]
    block: Block,
    path: String,
    version: String,
}

impl From<Located> for OneBlock {
    fn from(located: Located) -> Self {
        Self {
            block: located.info.into(),
            path: located.path,
            version: format!("{:x}", located.version),
        }
    }
}

impl From<Uploaded> for Stored {
    fn from(uploaded: Uploaded) -> Self {
        Self {
            file: uploaded.file.into(),
            degraded_blocks: uploaded.degraded_blocks,
        }
    }
}

impl From<Removed> for Gone {
    fn from(removed: Removed) -> Self {
        Self {
            files: removed.files,
            bytes: removed.bytes,
            entry: None,
        }
    }
}

impl Gone {
    /// With where it lies in the trash.
    pub(crate) fn into_trash(removed: Removed, entry: Option<u64>) -> Self {
        Self {
            entry: entry.map(|entry| entry.to_string()),
            ..Self::from(removed)
        }
    }
}

/// `GET /api/v1/trash`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Trash {
    entries: Vec<TrashEntry>,
    more: bool,
}

/// Something in the trash.
#[derive(Serialize, ToSchema)]
struct TrashEntry {
    entry: String,
    /// Where it was.
    path: String,
    directory: bool,
    size: u64,
    files: u64,
    at_unix_ms: u64,
}

impl From<Rows<Trashed>> for Trash {
    fn from(rows: Rows<Trashed>) -> Self {
        let entry = |trashed: Trashed| TrashEntry {
            entry: trashed.entry.to_string(),
            path: trashed.file.path,
            directory: trashed.file.directory,
            size: trashed.file.size_bytes,
            files: trashed.files,
            at_unix_ms: trashed.at_unix_ms,
        };
        Self {
            entries: rows.rows.into_iter().map(entry).collect(),
            more: rows.more,
        }
    }
}

/// `POST /api/v1/trash/{entry}/restore`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restore {
    /// Where to; without it, where it was.
    #[serde(default)]
    pub(crate) to: Option<String>,
}

/// `POST /api/v1/duty`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assign {
    /// Addresses: all their volumes.
    #[serde(default)]
    pub(crate) servers: Vec<String>,
    /// Ids.
    #[serde(default)]
    pub(crate) volumes: Vec<String>,
    /// `serving`, `draining`, `maintenance` or `removed`.
    pub(crate) duty: String,
    /// How long maintenance lasts.
    #[serde(default)]
    pub(crate) hours: Option<f64>,
    /// Removes what is not drained, too.
    #[serde(default)]
    pub(crate) force: bool,
}

/// `POST /api/v1/repair`: what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tune {
    /// Nothing is copied, moved or trimmed.
    pub(crate) paused: Option<bool>,
    /// Goes on although most volumes are gone.
    pub(crate) forced: Option<bool>,
    /// 0: what clients leave.
    pub(crate) limit_bytes_per_s: Option<u64>,
    /// Full volumes give nothing to empty ones.
    pub(crate) balance_off: Option<bool>,
}

/// `POST /api/v1/scrub`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scrub {
    /// Ids; none: all that are connected.
    #[serde(default)]
    pub(crate) volumes: Vec<String>,
    /// `start` or `pause`.
    pub(crate) order: String,
}

/// An order was obeyed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Done {
    /// Volumes that were named by it.
    pub(crate) volumes: u64,
}

/// `POST /api/v1/replication`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replicate {
    /// A file or folder.
    pub(crate) path: String,
    /// Whether a folder is meant with all that is in it.
    #[serde(default)]
    pub(crate) recursive: bool,
    /// 1 to 8.
    pub(crate) replication: u8,
}

/// So many files are to have another number of replicas.
#[derive(Serialize, ToSchema)]
pub(crate) struct Replicated {
    /// Files.
    pub(crate) files: u64,
}

/// `GET /api/v1/blockmap`.
#[derive(Serialize, ToSchema)]
pub(crate) struct MapOfBlocks {
    blocks: u64,
    at_unix_ms: u64,
    cells: Vec<MapCell>,
}

/// A run of blocks.
#[derive(Serialize, ToSchema)]
struct MapCell {
    /// The id of the first.
    from: String,
    /// The id of the last.
    to: String,
    count: u64,
    /// Without a replica that can be read.
    lost: u64,
    one_left: u64,
    under: u64,
    damaged: u64,
    misplaced: u64,
    /// When the one that was longest without it was last verified or written; 0: never.
    verified_unix_ms: u64,
    /// How often rights to read the file of the most wanted one were given in the last minutes.
    heat: u32,
}

impl MapOfBlocks {
    /// What was seen at a time.
    pub(crate) fn new(map: BlockMap, at_unix_ms: u64) -> Self {
        let cell = |cell: Cell| MapCell {
            from: cell.from.to_string(),
            to: cell.to.to_string(),
            count: cell.blocks,
            lost: cell.missing,
            one_left: cell.one_left,
            under: cell.under,
            damaged: cell.damaged,
            misplaced: cell.misplaced,
            verified_unix_ms: cell.verified_unix_ms,
            heat: cell.reads,
        };
        Self {
            blocks: map.blocks,
            at_unix_ms,
            cells: map.cells.into_iter().map(cell).collect(),
        }
    }
}

/// `GET /api/v1/blocks`.
#[derive(Serialize, ToSchema, Default)]
pub(crate) struct BlockRun {
    blocks: Vec<PlacedBlock>,
    more: bool,
}

/// A block and the file that has it now; none where none does.
#[derive(Serialize, ToSchema)]
struct PlacedBlock {
    #[serde(flatten)]
    block: Block,
    path: String,
}

impl From<Rows<(BlockInfo, String)>> for BlockRun {
    fn from(rows: Rows<(BlockInfo, String)>) -> Self {
        let placed = |(block, path): (BlockInfo, String)| PlacedBlock {
            block: block.into(),
            path,
        };
        Self {
            blocks: rows.rows.into_iter().map(placed).collect(),
            more: rows.more,
        }
    }
}

/// `GET /api/v1/whatif`.
#[derive(Serialize, ToSchema)]
pub(crate) struct WhatIfAnswer {
    /// Volumes that would be lost.
    volumes: u64,
    /// Replicas on them that count.
    replicas: u64,
    lose_copy: Doomed,
    lost: Doomed,
    at_risk_now: AtRisk,
    /// Bytes that the others have room for.
    room_bytes: u64,
    /// Bytes that repair would have to copy.
    needed_bytes: u64,
}

/// Blocks of one fate.
#[derive(Serialize, ToSchema)]
struct Doomed {
    blocks: u64,
    bytes: u64,
    files: u64,
    /// Whether there are more files than were counted.
    more_files: bool,
    first: Vec<DoomedFile>,
}

/// A file with so many blocks of that fate; no path for one that is being uploaded or was replaced.
#[derive(Serialize, ToSchema)]
struct DoomedFile {
    path: String,
    blocks: u64,
}

/// Blocks that lack replicas as it is.
#[derive(Serialize, ToSchema)]
struct AtRisk {
    blocks: u64,
}

impl From<Fate> for Doomed {
    fn from(fate: Fate) -> Self {
        let first = fate.named.into_iter();
        Self {
            blocks: fate.blocks,
            bytes: fate.bytes,
            files: fate.files,
            more_files: fate.more_files,
            first: first.map(|(path, blocks)| DoomedFile { path, blocks }).collect(),
        }
    }
}

impl WhatIfAnswer {
    /// What the loss of `volumes` volumes would mean.
    pub(crate) fn new(volumes: u64, found: WhatIf) -> Self {
        Self {
            volumes,
            replicas: found.replicas,
            lose_copy: found.lose_copy.into(),
            lost: found.lost.into(),
            at_risk_now: AtRisk {
                blocks: found.at_risk_blocks,
            },
            room_bytes: found.room_bytes,
            needed_bytes: found.needed_bytes,
        }
    }
}
