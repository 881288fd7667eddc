//! The state as rows in sections, for snapshots: the same state always gives the same bytes.

use blockyard_wire::types::{BlockId, Duty, Epoch, RequestId, Tuning};
use blockyard_wire::{Problem, Result};
use serde::{Deserialize, Serialize};

use super::block_row::OldBlock;
use super::blocks::{Block, VolumeRow};
use super::leases::Lease;
use super::namespace::{InodeRow, Namespace};
use super::trash::Trashed;
use super::{BlockList, Outcome, State, Version};

/// Bytes after which a chunk of rows is handed on.
const CHUNK_BYTES: usize = 256 * 1024;

/// What the rows of a chunk are. Numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Section {
    /// One row: counters and the epoch.
    Counters = 1,
    /// Volumes in the order of their indices.
    Volumes = 2,
    /// Deletions that volumes owe.
    Pending = 3,
    /// Blocks with at most eight replicas: only older snapshots have it.
    OldBlocks = 4,
    /// Files and directories.
    Inodes = 5,
    /// Versions.
    Versions = 6,
    /// Versions that wait to be reaped.
    Condemned = 7,
    /// Uploads.
    Leases = 8,
    /// Outcomes of requests, oldest first.
    Requests = 9,
    /// Blocks with their replicas.
    Blocks = 10,
    /// What the operator wants of volumes, and how often they were opened.
    Duties = 11,
    /// One row: how repair and balance are to work.
    Tuning = 12,
    /// What lies in the trash.
    Trash = 13,
    /// Reigns of which unknown blocks are kept.
    Quarantine = 14,
    /// Volumes whose losses have been made good.
    MadeGood = 15,
}

impl Section {
    /// The section of this number.
    pub fn from_number(number: u32) -> Option<Self> {
        use Section::{
            Blocks, Condemned, Counters, Duties, Inodes, Leases, MadeGood, OldBlocks, Pending, Quarantine,
            Requests, Trash, Tuning, Versions, Volumes,
        };
        [
            Counters, Volumes, Pending, OldBlocks, Inodes, Versions, Condemned, Leases, Requests, Blocks,
            Duties, Tuning, Trash, Quarantine, MadeGood,
        ]
        .into_iter()
        .find(|section| *section as u32 == number)
    }
}

#[derive(Serialize, Deserialize)]
struct CountersRow {
    applied: u64,
    epoch: Epoch,
    next_inode: u64,
    last_id: u64,
}

#[derive(Serialize, Deserialize)]
struct VersionRow<'a, B> {
    file: u64,
    size_bytes: u64,
    published_unix_ms: u64,
    content_type: &'a str,
    crc32c: u32,
    replication: u8,
    blocks: B,
}

/// Takes a chunk of rows: section, number of rows, their bytes.
pub type Emit<'a, E> = dyn FnMut(Section, u32, &[u8]) -> std::result::Result<(), E> + 'a;

/// Collects rows of one section into chunks.
struct Writer<'a, 'e, E> {
    section: Section,
    rows: u32,
    bytes: Vec<u8>,
    emit: &'a mut Emit<'e, E>,
}

impl<E> Writer<'_, '_, E> {
    fn row(&mut self, row: &impl Serialize) -> std::result::Result<(), E> {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(row, bytes).expect("rows have forms that postcard can write");
        self.rows += 1;
        if self.bytes.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> std::result::Result<(), E> {
        if self.rows > 0 {
            (self.emit)(self.section, self.rows, &self.bytes)?;
            self.bytes.clear();
            self.rows = 0;
        }
        Ok(())
    }
}

impl State {
    /// Hands the whole state on as chunks of rows: section, number of rows, their bytes.
    ///
    /// # Errors
    /// What `emit` gives.
    pub fn write<E>(&self, emit: &mut Emit<'_, E>) -> std::result::Result<(), E> {
        macro_rules! section {
            ($section:ident, $rows:expr) => {
                let mut writer = Writer {
                    section: Section::$section,
                    rows: 0,
                    bytes: Vec::new(),
                    emit,
                };
                for row in $rows {
                    writer.row(&row)?;
                }
                writer.flush()?;
            };
        }
        let counters = CountersRow {
            applied: self.applied,
            epoch: self.epoch,
            next_inode: self.names.next(),
            last_id: self.last_id,
        };
        section!(Counters, [counters]);
        section!(Volumes, self.blocks.volumes().iter().map(|volume| &volume.row));
        let owed = self.blocks.volumes().iter().zip(0u16..);
        section!(
            Pending,
            owed.flat_map(|(volume, index)| volume.pending.iter().map(move |block| (index, *block)))
        );
        section!(Inodes, self.names.rows());
        section!(Versions, self.versions.iter().map(|(id, row)| (id, row.as_row())));
        section!(Condemned, &self.condemned);
        section!(Leases, &self.leases);
        section!(Requests, self.requests.rows());
        section!(Blocks, self.blocks.table().iter());
        let duties = self.blocks.volumes().iter().zip(0u16..);
        section!(
            Duties,
            duties.map(|(volume, index)| (index, volume.duty, volume.generation))
        );
        section!(Tuning, [self.tuning]);
        section!(Trash, self.trash.entries());
        section!(Quarantine, &self.quarantine);
        let made_good = self.blocks.volumes().iter().zip(0u16..);
        section!(
            MadeGood,
            made_good.filter_map(|(volume, index)| volume.made_good.then_some(index))
        );
        Ok(())
    }

    /// The state as one run of bytes: equal for equal states.
    #[cfg(test)]
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let written: std::result::Result<(), std::convert::Infallible> =
            self.write(&mut |section, rows, bytes| {
                all.extend((section as u32).to_le_bytes());
                all.extend(rows.to_le_bytes());
                all.extend(bytes);
                Ok(())
            });
        match written {
            Ok(()) => all,
        }
    }
}

impl Version {
    fn as_row(&self) -> VersionRow<'_, &[u64]> {
        VersionRow {
            file: self.file,
            size_bytes: self.size_bytes,
            published_unix_ms: self.published_unix_ms,
            content_type: self.content_type.as_deref().unwrap_or_default(),
            crc32c: self.crc32c,
            replication: self.replication,
            blocks: self.blocks.ids(),
        }
    }
}

/// Puts a state together from the chunks of a snapshot, in the order in which they were written.
#[derive(Default)]
pub struct Reader {
    state: State,
    last: u32,
}

impl Reader {
    /// Takes one chunk.
    ///
    /// # Errors
    /// `Invalid` when its rows can't be read or do not fit what came before.
    pub fn chunk(&mut self, section: Section, rows: u32, bytes: &[u8]) -> Result<()> {
        if (section as u32) < self.last || self.last == 0 && section != Section::Counters {
            return Err(Problem::invalid(format!(
                "section {section:?} of the snapshot is out of order"
            )));
        }
        self.last = section as u32;
        let mut left = bytes;
        for _ in 0..rows {
            self.row(section, &mut left)?;
        }
        match left {
            [] => Ok(()),
            _ => Err(Problem::invalid(format!(
                "{} bytes too many in section {section:?}",
                left.len()
            ))),
        }
    }

    fn row(&mut self, section: Section, left: &mut &[u8]) -> Result<()> {
        let state = &mut self.state;
        match section {
            Section::Counters => {
                let row: CountersRow = take(left)?;
                (state.applied, state.epoch, state.last_id) = (row.applied, row.epoch, row.last_id);
                state.names = Namespace::restoring(row.next_inode);
            }
            Section::Volumes => state.blocks.restore_volume(&take::<VolumeRow>(left)?)?,
            Section::Pending => {
                let (index, block): (u16, u64) = take(left)?;
                state.volume(index)?;
                state.blocks.owe(index, BlockId(block));
            }
            Section::OldBlocks => {
                let (id, block): (u64, OldBlock) = take(left)?;
                let block = block.into_block().ok_or_else(|| {
                    Problem::invalid(format!("block {} in the snapshot is none", BlockId(id)))
                })?;
                state.blocks.restore(id, block)?;
            }
            Section::Blocks => {
                let (id, block): (u64, Block) = take(left)?;
                state.blocks.restore(id, block)?;
            }
            Section::Duties => {
                let (index, duty, generation): (u16, Duty, u64) = take(left)?;
                state.volume(index)?;
                state.blocks.assign(index, duty);
                state.blocks.opened(index, generation);
            }
            Section::Tuning => state.tuning = take::<Tuning>(left)?,
            Section::Trash => {
                let (inode, entry): (u64, Trashed) = take(left)?;
                state.trash.put(inode, entry);
            }
            Section::Inodes => {
                let (id, row): (u64, InodeRow<'_>) = take(left)?;
                state.names.restore(id, row)?;
            }
            Section::Versions => {
                let (id, row): (u64, VersionRow<'_, BlockList>) = take(left)?;
                let content_type = state.shared(row.content_type);
                if row.file != 0 {
                    state.file_bytes += row.size_bytes;
                }
                let version = Version {
                    file: row.file,
                    size_bytes: row.size_bytes,
                    published_unix_ms: row.published_unix_ms,
                    content_type,
                    blocks: row.blocks,
                    crc32c: row.crc32c,
                    replication: row.replication,
                };
                state.versions.insert(id, version);
            }
            Section::Condemned => {
                let (version, at_unix_ms): (u64, u64) = take(left)?;
                state.condemned.insert(version, at_unix_ms);
            }
            Section::Leases => {
                let (id, lease): (u64, Lease) = take(left)?;
                state.leases.insert(id, lease);
            }
            Section::Requests => {
                let (request, outcome): (RequestId, Outcome) = take(left)?;
                state.requests.insert(request, outcome);
            }
            Section::Quarantine => state.quarantine.push(take(left)?),
            Section::MadeGood => {
                let index: u16 = take(left)?;
                state.volume(index)?;
                state.blocks.make_good(index, true);
            }
        }
        Ok(())
    }

    /// The whole state, after the last chunk.
    ///
    /// # Errors
    /// `Invalid` when the names are no tree.
    pub fn finish(mut self) -> Result<State> {
        if self.last == 0 {
            return Err(Problem::invalid("the snapshot is empty"));
        }
        let nowhere = self.state.names.restored()?;
        self.state.trash.check(&self.state.names, &nowhere)?;
        Ok(self.state)
    }
}

fn take<'a, T: Deserialize<'a>>(left: &mut &'a [u8]) -> Result<T> {
    let (row, rest) = postcard::take_from_bytes(left)
        .map_err(|error| Problem::invalid(format!("a row of the snapshot can't be read: {error}")))?;
    *left = rest;
    Ok(row)
}
