//! Where things stand in a volume's files: read as FORMAT.md draws them, not through the engine's own decoders.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub const PAGE: usize = 4096;
const CLASS_PAGES: [usize; 25] = [
    1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 29, 38, 50, 66, 88, 117, 156, 208, 277, 369, 492, 656, 874, 1025,
];

/// What bytes are for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    Superblock,
    SuperblockRest,
    SlotHeader,
    Batch,
    LastBatch,
    OlderCheckpoint,
    NewestCheckpoint,
    VolumeToml,
    Data,
    // From here on nothing depends on the bytes: what is flipped there must change nothing at all.
    VolumeTomlSpare,
    ScrubToml,
    BatchPadding,
    OldJournal,
    CheckpointPadding,
    SpareCheckpoint,
    SlotPadding,
    UnusedSlot,
}

impl Part {
    pub fn matters(self) -> bool {
        self < Self::VolumeTomlSpare
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Superblock => "superblocks, named bytes",
            Self::SuperblockRest => "superblocks, unnamed bytes",
            Self::SlotHeader => "slot headers",
            Self::Batch => "journal batches",
            Self::LastBatch => "last batch of a killed volume",
            Self::OlderCheckpoint => "older checkpoint",
            Self::NewestCheckpoint => "newest checkpoint",
            Self::VolumeToml => "volume.toml",
            Self::Data => "data of blocks",
            Self::VolumeTomlSpare => "volume.toml: comment, count of openings, case of digits",
            Self::ScrubToml => "scrub.toml",
            Self::BatchPadding => "journal: behind a batch in its page",
            Self::OldJournal => "journal: no longer or never used",
            Self::CheckpointPadding => "checkpoints: behind the last block's end",
            Self::SpareCheckpoint => "checkpoint-spare",
            Self::SlotPadding => "slots: beside header and block",
            Self::UnusedSlot => "slots: free, or out of service",
        }
    }
}

/// Bytes of one file.
#[derive(Clone, Debug)]
pub struct Area {
    pub part: Part,
    pub file: String,
    pub at: u64,
    pub bytes: u64,
}

/// Where a served block stands.
#[derive(Clone, Debug)]
pub struct Seat {
    pub block: u64,
    pub file: String,
    pub header_at: u64,
    pub header_bytes: u64,
    pub data_at: u64,
    pub length: u64,
    pub slot_end: u64,
}

pub struct Map {
    pub areas: Vec<Area>,
    pub seats: Vec<Seat>,
    pub segments: Vec<String>,
}

pub fn checkpoint_names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .expect("the volume")
        .map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("checkpoint-0"))
        .collect();
    names.sort();
    names
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// A checkpoint of one block: its end, the sequence where replay begins, and its replicas' places and lengths.
fn read_checkpoint(bytes: &[u8]) -> (usize, u64, BTreeMap<u64, (usize, usize)>) {
    let (end, mut at, mut sequence, mut places) = (word(bytes, 20), 32, 0, BTreeMap::new());
    while at < end {
        let (tag, length) = (
            bytes[at],
            usize::from(bytes[at + 2]) + 256 * usize::from(bytes[at + 3]),
        );
        let body = &bytes[at + 4..at + 4 + length];
        match tag {
            1 => sequence = long(body, 8),
            3 => drop(places.insert(long(body, 0), (word(body, 8), word(body, 12)))),
            4 => assert_eq!(at + 4 + length, end, "a checkpoint of one block"),
            _ => {}
        }
        at += 4 + length;
    }
    (end, sequence, places)
}

impl Map {
    /// `served`: the blocks in service. `killed`: whether the last batch's durability is known from nothing else.
    pub fn of(dir: &Path, served: &BTreeMap<u64, usize>, killed: bool) -> Self {
        let mut areas = Vec::new();
        let mut area = |part: Part, file: &str, at: usize, end: usize| {
            let (at, bytes) = (at as u64, end.saturating_sub(at) as u64);
            match areas.last_mut() {
                _ if bytes == 0 => {}
                // Of what does not matter one sample is as good as another.
                Some(Area {
                    part: last_part,
                    file: last_file,
                    at: last_at,
                    bytes: last_bytes,
                }) if !part.matters()
                    && *last_part == part
                    && last_file == file
                    && *last_at + *last_bytes == at =>
                {
                    *last_bytes += bytes;
                }
                _ => areas.push(Area {
                    part,
                    file: file.to_owned(),
                    at,
                    bytes,
                }),
            }
        };
        let (mut needed_from, mut places) = (0, BTreeMap::new());
        let names = checkpoint_names(dir);
        assert_eq!(names.len(), 2);
        let mut replayed_from = 0;
        for (name, part) in names.iter().zip([Part::OlderCheckpoint, Part::NewestCheckpoint]) {
            let bytes = fs::read(dir.join(name)).expect("a checkpoint");
            let (end, sequence, found) = read_checkpoint(&bytes);
            if part == Part::OlderCheckpoint {
                needed_from = sequence;
            }
            (replayed_from, places) = (sequence, found);
            area(part, name, 0, end);
            area(Part::CheckpointPadding, name, end, bytes.len());
        }
        let spare = fs::metadata(dir.join("checkpoint-spare"))
            .expect("the spare")
            .len();
        area(Part::SpareCheckpoint, "checkpoint-spare", 0, spare as usize);
        let mut batches = Vec::new();
        for file in 0..4 {
            let name = format!("journal/{file:04}.jnl");
            let bytes = fs::read(dir.join(&name)).expect("a journal file");
            let mut page = 0;
            while page * PAGE < bytes.len() {
                let at = page * PAGE;
                let is_batch = bytes[at..].starts_with(b"BYjb") && long(&bytes, at + 16) >= needed_from;
                let length = if is_batch { word(&bytes, at + 12) } else { 0 };
                let end = at + length.div_ceil(PAGE).max(1) * PAGE;
                if is_batch {
                    let batch = bytes[at..at + length].to_vec();
                    batches.push((long(&bytes, at + 16), name.clone(), at, batch));
                    area(Part::BatchPadding, &name, at + length, end);
                } else {
                    area(Part::OldJournal, &name, at, end);
                }
                page = end / PAGE;
            }
        }
        batches.sort();
        let last = batches.last().map_or(0, |batch| batch.0);
        for (sequence, name, start, batch) in batches {
            let part = match killed && sequence == last {
                true => Part::LastBatch,
                false => Part::Batch,
            };
            area(part, &name, start, start + batch.len());
            let mut at = 64;
            while at < batch.len() && sequence >= replayed_from {
                let body = &batch[at + 4..][..usize::from(batch[at + 1])];
                match batch[at] {
                    1 => drop(places.insert(long(body, 0), (word(body, 8), word(body, 12)))),
                    2 => drop(places.remove(&long(body, 0))),
                    _ => {}
                }
                at += 4 + body.len();
            }
        }
        let (mut seats, mut segments) = (Vec::new(), Vec::new());
        let entries = fs::read_dir(dir.join("segments")).expect("segments");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        for (number, path) in files.iter().enumerate() {
            let name = format!("segments/{number:08}.seg");
            assert_eq!(path, &dir.join(&name));
            let bytes = fs::read(path).expect("a segment");
            area(Part::Superblock, &name, 0, 55);
            area(Part::SuperblockRest, &name, 55, PAGE);
            let slot_bytes = CLASS_PAGES[usize::from(bytes[54])] * PAGE;
            for slot in 0..(bytes.len() - PAGE) / slot_bytes {
                let (start, end) = (PAGE + slot * slot_bytes, PAGE + (slot + 1) * slot_bytes);
                let place = number << 16 | slot;
                let owner = places.iter().find(|(block, (at, length))| {
                    *at == place && served.get(block).is_some_and(|served| served == length)
                });
                let Some((&block, &(_, length))) = owner else {
                    area(Part::UnusedSlot, &name, start, end);
                    continue;
                };
                assert_eq!(
                    (long(&bytes, start + 16), word(&bytes, start + 36)),
                    (block, length)
                );
                let header_bytes = 64 + 4 * length.div_ceil(64 << 10);
                let data_at = start + if length <= 16_256 { 128 } else { PAGE };
                area(Part::SlotPadding, &name, start + header_bytes, data_at);
                area(Part::SlotPadding, &name, data_at + length, end);
                seats.push(Seat {
                    block,
                    file: name.clone(),
                    header_at: start as u64,
                    header_bytes: header_bytes as u64,
                    data_at: data_at as u64,
                    length: length as u64,
                    slot_end: end as u64,
                });
            }
            segments.push(name);
        }
        assert_eq!(seats.len(), served.len(), "every served block has its slot");
        volume_toml(dir, &mut area);
        let scrub = fs::metadata(dir.join("scrub.toml")).map_or(0, |file| file.len());
        area(Part::ScrubToml, "scrub.toml", 0, scrub as usize);
        Self {
            areas,
            seats,
            segments,
        }
    }
}

/// The comment and the count of openings (which tells nothing but how often the volume was opened) apart from the rest.
fn volume_toml(dir: &Path, area: &mut impl FnMut(Part, &str, usize, usize)) {
    let (name, mut at) = ("volume.toml", 0);
    let text = fs::read_to_string(dir.join(name)).expect("volume.toml");
    for line in text.split_inclusive('\n') {
        let is_spare = line.starts_with('#') || line.starts_with("generation");
        let part = if is_spare {
            Part::VolumeTomlSpare
        } else {
            Part::VolumeToml
        };
        area(part, name, at, at + line.len());
        at += line.len();
    }
}
