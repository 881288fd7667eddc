//! Checking a volume that nobody has open, and rebuilding its index from what its slots say of themselves.
//!
//! Everything is read with plain calls and judged by the same decoders: no ring, no pool, none of the running parts,
//! so that this works where those can't. Nothing is written unless a rebuild is asked for, and none is made of an
//! index that can be read: a rebuilt one knows no deletions, so what it finds is suspect until somebody confirms it.

mod believed;
pub(crate) mod inventory;
mod rebuild;
mod slots;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::block::BlockId;
use crate::core::hex;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::identity;
use crate::layout::Place;
use crate::record::Replica;
use crate::types::{Identity, ReplicaState};

use believed::Believed;
use rebuild::Found;
use slots::SegmentFile;

/// What [`fsck`] does beside reading headers.
#[derive(Clone, Debug, Default)]
pub struct FsckOptions {
    /// Reads every block too, and compares it with its checksums.
    pub data: bool,
    /// Makes a new index from the slots' headers where the old one can't be read.
    pub rebuild: bool,
    /// The cluster of a volume whose `volume.toml` is lost: without it there is no rebuilding that.
    pub cluster: Option<[u8; 16]>,
}

/// What [`fsck`] found.
#[derive(Clone, Debug)]
pub struct FsckReport {
    /// Who the volume is; who it is now, after a rebuild.
    pub identity: Identity,
    /// Why the volume can't be opened as it was found.
    pub index_trouble: Option<String>,
    /// Segment files.
    pub segments: u64,
    /// Replicas in the index that could be read.
    pub indexed: u64,
    /// Blocks whose slots were found whole: indexed ones, or all where there is no index.
    pub whole: u64,
    /// Whole headers in slots that the index has no use for: what deleted blocks leave.
    pub leftovers: u64,
    /// Replicas that are not what the index or their headers say, and why.
    pub damaged: Vec<(BlockId, String)>,
    /// Of the indexed replicas those that were known to be damaged before.
    pub known_damaged: u64,
    /// Everything else that is not as it should be.
    pub notes: Vec<String>,
    /// Whether a new index was written, all of its replicas suspect.
    pub rebuilt: bool,
}

impl FsckReport {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            index_trouble: None,
            segments: 0,
            indexed: 0,
            whole: 0,
            leftovers: 0,
            damaged: Vec::new(),
            known_damaged: 0,
            notes: Vec::new(),
            rebuilt: false,
        }
    }

    /// Whether nothing is amiss.
    pub fn is_clean(&self) -> bool {
        self.index_trouble.is_none() && self.damaged.is_empty() && self.notes.is_empty()
    }
}

/// Checks the volume in `dir`, which nobody may have open. Blocks; reads a page of every slot, and all of it when
/// asked for `data`. Fails when there is nothing to check; what it finds amiss is in the report.
pub fn fsck(dir: &Path, options: &FsckOptions) -> Result<FsckReport> {
    if !dir.join(identity::FILE).exists() && !dir.join("segments").is_dir() {
        return Err(Error::NotAVolume { dir: dir.to_owned() });
    }
    let folder = Folder::lock(dir)?;
    let mut notes = Vec::new();
    let files = slots::list(dir, &mut notes).map_err(Error::io("listing segments"))?;
    let (identity, believed) = match folder
        .read(identity::FILE)
        .map_err(Error::io("reading volume.toml"))
    {
        Ok(content) => match identity::decode(&content) {
            Ok(identity) => {
                let believed = believed::read(&folder, &identity)?;
                (identity, believed)
            }
            Err(error @ Error::Damaged { .. }) => {
                (lost_identity(&files, options, &error)?, Believed::lost(&error))
            }
            Err(error) => return Err(error),
        },
        Err(error) => (lost_identity(&files, options, &error)?, Believed::lost(&error)),
    };
    let mut report = FsckReport::new(identity);
    report.index_trouble = believed.trouble.clone();
    report.segments = files.len() as u64;
    report.indexed = believed.replicas.len() as u64;
    report.notes = notes;
    if report.index_trouble.is_none() {
        compare(&believed, &files, options, &mut report);
    } else {
        let found = collect(&believed, &files, options, &mut report);
        if options.rebuild {
            report.identity = rebuild::rebuild(&folder, dir, &report.identity, &believed, &found, |_| Ok(()))
                .map_err(Error::io("writing the rebuilt index"))?;
            report.rebuilt = true;
        }
    }
    Ok(report)
}

/// Who the volume was, as far as its superblocks know.
fn lost_identity(files: &[SegmentFile], options: &FsckOptions, why: &Error) -> Result<Identity> {
    let mut votes: HashMap<[u8; 16], u32> = HashMap::new();
    for file in files {
        if let Ok(superblock) = &file.superblock {
            *votes.entry(superblock.volume).or_default() += 1;
        }
    }
    let volume = votes.into_iter().max_by_key(|&(volume, votes)| (votes, volume));
    let Some((volume, _)) = volume else {
        return Err(Error::damaged(format!(
            "{why}; no superblock tells who the volume is"
        )));
    };
    let cluster = options.cluster.ok_or_else(|| {
        let volume = hex(&volume);
        Error::damaged(format!(
            "{why}; its segments are of volume {volume}: give the cluster's id to rebuild it"
        ))
    })?;
    let mut identity = identity::new_identity(cluster, &[0; 32]);
    identity.volume = volume;
    Ok(identity)
}

/// Compares the slots with an index that could be read.
fn compare(believed: &Believed, files: &[SegmentFile], options: &FsckOptions, report: &mut FsckReport) {
    let mut wanted: HashMap<Place, (BlockId, Replica)> = believed
        .replicas
        .iter()
        .map(|&(block, replica)| (replica.place, (block, replica)))
        .collect();
    for file in files {
        let Some(cut) = believed.segments.get(&file.number).copied() else {
            report.notes.push(format!("{} is not in the index", file.name()));
            continue;
        };
        match file.cut(&report.identity.volume) {
            Ok(found) if found == cut => {}
            Ok(_) => report
                .notes
                .push(format!("{}: its superblock is of another cut", file.name())),
            Err(what) => report.notes.push(format!("{}: {what}", file.name())),
        }
        for (place, read) in file.slots(&report.identity.volume, &cut) {
            let Some((block, replica)) = wanted.get(&place) else {
                report.leftovers += u64::from(read.is_ok());
                continue;
            };
            let judged = read.and_then(|slot| {
                let same = (
                    slot.header.block,
                    slot.header.length,
                    slot.header.crc32c,
                    slot.seal,
                ) == (*block, replica.length, replica.crc32c, replica.seal);
                if !same {
                    return Err("the slot's header is not the one that was put".to_owned());
                }
                if options.data { slot.verify(file) } else { Ok(()) }
            });
            match judged {
                Ok(()) => report.whole += 1,
                Err(_) if replica.state == ReplicaState::Corrupt => report.known_damaged += 1,
                Err(what) => report.damaged.push((*block, what)),
            }
            wanted.remove(&place);
        }
    }
    for (block, replica) in wanted.into_values() {
        if replica.state == ReplicaState::Corrupt {
            report.known_damaged += 1;
        } else {
            report
                .damaged
                .push((block, "its segment is missing or too short".to_owned()));
        }
    }
    report.damaged.sort();
}

/// Takes every block that the slots' headers tell of, of several with one id the one that is whole.
fn collect(
    believed: &Believed,
    files: &[SegmentFile],
    options: &FsckOptions,
    report: &mut FsckReport,
) -> Found {
    let volume = &report.identity.volume;
    let mut found = Found::default();
    let mut blocks: BTreeMap<BlockId, (Replica, &SegmentFile)> = BTreeMap::new();
    for file in files {
        let superblock = file.cut(volume);
        if let Err(what) = &superblock {
            report.notes.push(format!("{}: {what}", file.name()));
        }
        // A crash may come between a cut's record and its superblock; the index may be older than both.
        let known = believed.segments.get(&file.number).copied();
        let Some(cut) = superblock
            .ok()
            .into_iter()
            .chain(known)
            .max_by_key(|cut| cut.generation)
        else {
            report.notes.push(format!(
                "{}: nothing tells how it is cut, so its blocks can't be read",
                file.name()
            ));
            found.unreadable.push(file.number);
            continue;
        };
        found.segments.insert(file.number, cut);
        for (place, read) in file.slots(volume, &cut) {
            let Ok(slot) = read else { continue };
            let block = slot.header.block;
            if options.data
                && let Err(what) = slot.verify(file)
            {
                report.damaged.push((block, what));
                continue;
            }
            // The copy that a repair replaced may be there still.
            let better = blocks.get(&block).is_none_or(|(known, other)| {
                report.leftovers += 1;
                let known = other.read_slot(volume, &found.segments[&other.number], known.place);
                known.and_then(|known| known.verify(other)).is_err() && slot.verify(file).is_ok()
            });
            if better {
                blocks.insert(block, (slot.suspect(place), file));
            }
        }
    }
    report.whole = blocks.len() as u64;
    report.damaged.sort();
    // A damaged copy does not matter where another is whole.
    report.damaged.retain(|(block, _)| !blocks.contains_key(block));
    found.replicas = blocks
        .into_iter()
        .map(|(block, (replica, _))| (block, replica))
        .collect();
    found
}
