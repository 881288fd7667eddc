//! What checkpoints and journal add up to, read without opening the volume and without changing anything.

use std::collections::BTreeMap;

use crate::block::BlockId;
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::journal::{self, JOURNAL_FILES, JournalSeed, Ring};
use crate::limits::PAGE_BYTES;
use crate::record::{Cut, Record, Replica};
use crate::recover::seat;
use crate::replay::Replayed;
use crate::snapshot::{self, Snapshot};
use crate::space::Space;
use crate::types::{Epoch, Identity};

/// What is known without looking at a slot.
#[derive(Default)]
pub(super) struct Believed {
    /// Why this is not the index; segments and epoch are then what was left of it.
    pub(super) trouble: Option<String>,
    pub(super) segments: BTreeMap<u16, Cut>,
    /// Empty where there is trouble.
    pub(super) replicas: Vec<(BlockId, Replica)>,
    pub(super) epoch: Option<Epoch>,
    /// The journal's shape, where anything tells it.
    pub(super) ring: Option<Ring>,
    /// The highest ordinal in a checkpoint's name, 0 where there is none.
    pub(super) last_ordinal: u64,
}

impl Believed {
    /// Nothing, and why.
    pub(super) fn lost(why: &Error) -> Self {
        // Checkpoints that may be there are sealed for an incarnation that nobody knows: any ordinal will do that is
        // higher than all of theirs.
        Self {
            trouble: Some(why.to_string()),
            last_ordinal: u64::from(u32::MAX),
            ..Self::default()
        }
    }
}

/// Reads the index of the volume in `folder`.
pub(super) fn read(folder: &Folder, identity: &Identity) -> Result<Believed> {
    let names = folder.list("").map_err(Error::io("listing the volume"))?;
    let mut ordinals: Vec<u64> = names
        .iter()
        .filter_map(|(name, _)| checkpoint::ordinal_of(name))
        .collect();
    ordinals.sort_unstable();
    let seed = checkpoint::seed(identity);
    let mut why = Vec::new();
    let newest = ordinals.iter().rev().find_map(|&ordinal| {
        let name = checkpoint::file_name(ordinal);
        let decoded = match folder.read(&name) {
            Ok(content) => snapshot::decode(seed, ordinal, &content),
            Err(error) => Err(error.to_string()),
        };
        decoded.map_err(|what| why.push(format!("{name}: {what}"))).ok()
    });
    let mut pages = Vec::new();
    for file in 0..JOURNAL_FILES {
        let name = journal::file_name(file);
        match folder.read(&name) {
            Ok(content) => pages.push(content),
            Err(error) => why.push(format!("{name}: {error}")),
        }
    }
    let ring = newest
        .as_ref()
        .map(|one| one.meta.ring)
        .or_else(|| ring_of(&pages));
    let fits = |ring: Ring| {
        pages.len() == JOURNAL_FILES as usize
            && pages.iter().all(|file| file.len() as u64 == ring.file_bytes())
    };
    let seed = JournalSeed::new(&identity.volume, &identity.incarnation);
    let mut believed = match (newest, ring) {
        (Some(snapshot), Some(ring)) if fits(ring) => replay(seed, ring, snapshot, &pages.concat()),
        (snapshot, _) => {
            if snapshot.is_some() {
                why.push("the journal is not what the checkpoint says".to_owned());
            } else if ordinals.is_empty() {
                why.push("there is no checkpoint".to_owned());
            }
            Believed {
                trouble: Some(why.join("; ")),
                ..remains(snapshot)
            }
        }
    };
    if believed.trouble.is_some() {
        // Any whole batch tells how segments are cut, whatever became of those around it.
        for file in &pages {
            gather(seed, file, &mut believed);
        }
    }
    believed.ring = ring;
    believed.last_ordinal = ordinals.last().copied().unwrap_or(0);
    Ok(believed)
}

/// The shape that the journal's files have, if it is one.
fn ring_of(files: &[Vec<u8>]) -> Option<Ring> {
    let bytes = files.first()?.len() as u64;
    let ring = Ring::of_bytes(bytes * u64::from(JOURNAL_FILES));
    (ring.file_bytes() == bytes && ring.is_possible()).then_some(ring)
}

fn replay(seed: JournalSeed, ring: Ring, snapshot: Snapshot, pages: &[u8]) -> Believed {
    let scan = match journal::scan(seed, ring, snapshot.meta.head, pages) {
        Ok(scan) => scan,
        Err(what) => {
            return Believed {
                trouble: Some(what),
                ..remains(Some(snapshot))
            };
        }
    };
    let mut replayed = Replayed::new(snapshot);
    for (sequence, record) in scan.records {
        replayed.apply(record, sequence <= scan.durable_through);
    }
    let replicas = replayed.take_replicas();
    let mut space = Space::new();
    for (&number, (cut, _)) in &replayed.segments {
        space.set_segment(number, *cut, None);
    }
    let seated = replicas
        .iter()
        .try_for_each(|(block, replica)| seat(&mut space, *block, replica));
    let segments = replayed
        .segments
        .iter()
        .map(|(&number, (cut, _))| (number, *cut))
        .collect();
    Believed {
        trouble: seated.as_ref().err().map(ToString::to_string),
        segments,
        replicas: if seated.is_ok() { replicas } else { Vec::new() },
        epoch: replayed.epoch,
        ..Believed::default()
    }
}

/// What a checkpoint tells without its journal.
fn remains(snapshot: Option<Snapshot>) -> Believed {
    snapshot.map_or_else(Believed::default, |snapshot| Believed {
        segments: snapshot
            .segments
            .iter()
            .map(|item| (item.number, item.cut))
            .collect(),
        epoch: snapshot.meta.epoch,
        ..Believed::default()
    })
}

/// Adds what the whole batches of a journal file tell of segments and epochs.
fn gather(seed: JournalSeed, file: &[u8], believed: &mut Believed) {
    for at in (0..file.len()).step_by(PAGE_BYTES) {
        let Some(batch) = journal::decode_batch(seed, &file[at..]) else {
            continue;
        };
        for record in batch.records {
            match record {
                Record::Segment { segment, cut } => {
                    let known = believed.segments.get(&segment);
                    if known.is_none_or(|known| known.generation < cut.generation) {
                        believed.segments.insert(segment, cut);
                    }
                }
                Record::Epoch(epoch) if believed.epoch.is_none_or(|seen| seen.number < epoch.number) => {
                    believed.epoch = Some(epoch);
                }
                _ => {}
            }
        }
    }
}
