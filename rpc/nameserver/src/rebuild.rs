//! A nameserver's folder made of what volumes hold, when its own data is lost: files under `/lost+found`, by the
//! versions that the slots' headers name. It knows no disks and no connections.
//!
//! What can't come back: names, folders, types and times; versions of which a block before the last one found is
//! nowhere; where a file really ended, if its last blocks are gone; and which files had been deleted, where a
//! volume's index was rebuilt from its slots.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use blockyard_engine::block::Origin;
use blockyard_engine::checksum;
use blockyard_wire::types::{BlockId, ClusterId, Epoch, Incarnation, RequestId, VolumeId};

use crate::error::Error;
use crate::path::PATH_BYTES_MAX;
use crate::state::blocks::{REPLICAS_MAX, VolumeIndex, VolumeRow};
use crate::state::{Command, NewRow, State};
use crate::store::{self, Store};

/// Where rebuilt files are.
pub const FOLDER: &str = "/lost+found";

/// A replica as its volume tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldReplica {
    /// The block.
    pub block: BlockId,
    /// The version that it was made for, and its place there.
    pub origin: Origin,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
}

/// What a volume holds.
#[derive(Clone, Debug)]
pub struct HeldVolume {
    /// The volume.
    pub id: VolumeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its folder, for people.
    pub directory: String,
    /// The highest epoch that it has seen.
    pub epoch: Epoch,
    /// Its replicas that are not known to be damaged.
    pub replicas: Vec<HeldReplica>,
}

/// What was rebuilt, and what was not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rebuilt {
    /// Files made.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Their blocks.
    pub blocks: u64,
    /// The highest epoch that a volume has seen.
    pub epoch: u64,
    /// Versions that were not rebuilt, and why.
    pub left: Vec<(String, String)>,
    /// Blocks that belong to none of the files: they are quarantined.
    pub unused_blocks: u64,
}

/// A block, put together from its replicas.
#[derive(Clone, Debug)]
struct Candidate {
    block: BlockId,
    length: u32,
    crc32c: u32,
    volumes: BTreeSet<VolumeIndex>,
}

/// Makes the folder `dir` of `cluster` from what its volumes hold, each block wanted `replication` times. It serves
/// nothing before it is started with `--adopt`.
///
/// # Errors
/// `Invalid` when `dir` holds a nameserver's data, or the volumes are not to be put together; `Io`.
pub fn rebuild(
    dir: &Path,
    cluster: ClusterId,
    volumes: &[HeldVolume],
    replication: u8,
    at_unix_ms: u64,
) -> Result<Rebuilt, Error> {
    let (state, rebuilt) = state_of(volumes, replication, at_unix_ms)?;
    let made = Store::create(dir, cluster)?;
    // First the word that nobody is to be served yet.
    store::mark_outranked(&made.dirs, at_unix_ms)?;
    Store::snapshot(&made.dirs, cluster, &state, crate::snapshot::KEPT_MIN)?;
    Ok(rebuilt)
}

fn state_of(volumes: &[HeldVolume], replication: u8, at_unix_ms: u64) -> Result<(State, Rebuilt), Error> {
    let mut state = State::default();
    let mut rebuilt = Rebuilt::default();
    let highest = volumes
        .iter()
        .map(|volume| volume.epoch)
        .max_by_key(|epoch| epoch.number);
    let Some(highest) = highest else {
        return Err(Error::invalid("without volumes there is nothing to rebuild from"));
    };
    rebuilt.epoch = highest.number;
    if highest.number > 0 {
        state.apply(&Command::Reign {
            epoch: highest,
            at_unix_ms,
        })?;
    }
    for (at, volume) in volumes.iter().enumerate() {
        if volumes[..at].iter().any(|other| other.id == volume.id) {
            return Err(Error::invalid(format!("volume {} is named twice", volume.id)));
        }
        let row = VolumeRow {
            id: volume.id,
            incarnation: volume.incarnation,
            directory: volume.directory.chars().take(PATH_BYTES_MAX / 4).collect(),
            ..VolumeRow::default()
        };
        state.apply(&Command::Join { volumes: vec![row] })?;
    }
    let (versions, all_blocks) = sort(volumes, &mut rebuilt);
    // Ids that any version had are not given again, and whatever is not rebuilt is kept.
    let last = versions
        .keys()
        .copied()
        .filter(|version| !is_block(*version, &versions))
        .max();
    loop {
        state.apply(&Command::Adopted {
            first_reign: 0,
            last_reign: highest.number,
            at_unix_ms,
        })?;
        if last.is_none_or(|last| last < state.last_id()) {
            break;
        }
    }
    for (version, places) in &versions {
        let name = name_of(*version, is_block(*version, &versions));
        match file_of(places, volumes) {
            Ok(rows) => {
                let length_bytes = rows.iter().map(|row| u64::from(row.length)).sum();
                let crc32c = rows.iter().fold(0, |sum, row| {
                    checksum::combine(sum, row.crc32c, u64::from(row.length))
                });
                let blocks = rows.len() as u64;
                state.apply(&Command::Publish {
                    path: format!("{FOLDER}/{name}"),
                    overwrite: false,
                    replication,
                    content_type: String::new(),
                    blocks: rows,
                    length_bytes,
                    crc32c,
                    at_unix_ms,
                    request: RequestId::default(),
                })?;
                rebuilt.files += 1;
                rebuilt.file_bytes += length_bytes;
                rebuilt.blocks += blocks;
            }
            Err(why) => rebuilt.left.push((name, why)),
        }
    }
    rebuilt.unused_blocks = all_blocks - rebuilt.blocks;
    Ok((state, rebuilt))
}

type Versions = BTreeMap<u64, BTreeMap<u32, Vec<Candidate>>>;

/// A block of a short file stands for its own version: that had no id yet when the block was written.
fn is_block(version: u64, versions: &Versions) -> bool {
    versions
        .get(&version)
        .is_some_and(|places| places.values().flatten().any(|found| found.block.0 == version))
}

fn name_of(version: u64, is_block: bool) -> String {
    match is_block {
        true => format!("block-{}", BlockId(version)),
        false => version.to_string(),
    }
}

/// Blocks by version and place; how many there are in all.
fn sort(volumes: &[HeldVolume], rebuilt: &mut Rebuilt) -> (Versions, u64) {
    let mut blocks: BTreeMap<BlockId, Result<(Origin, Candidate), String>> = BTreeMap::new();
    for (volume, index) in volumes.iter().zip(0..) {
        for held in &volume.replicas {
            let entry = blocks.entry(held.block).or_insert_with(|| {
                Ok((
                    held.origin,
                    Candidate {
                        block: held.block,
                        length: held.length,
                        crc32c: held.crc32c,
                        volumes: BTreeSet::new(),
                    },
                ))
            });
            let Ok((origin, candidate)) = entry else { continue };
            if (candidate.length, candidate.crc32c, *origin) != (held.length, held.crc32c, held.origin) {
                *entry = Err("volumes hold different things under this id".to_owned());
            } else if candidate.volumes.len() < REPLICAS_MAX {
                candidate.volumes.insert(index);
            }
        }
    }
    let all = blocks.len() as u64;
    let mut versions = Versions::new();
    for (block, found) in blocks {
        match found {
            Ok((origin, candidate)) => versions
                .entry(origin.version)
                .or_default()
                .entry(origin.index)
                .or_default()
                .push(candidate),
            Err(why) => rebuilt.left.push((name_of(block.0, true), why)),
        }
    }
    (versions, all)
}

/// The blocks of a version in order.
fn file_of(places: &BTreeMap<u32, Vec<Candidate>>, volumes: &[HeldVolume]) -> Result<Vec<NewRow>, String> {
    let mut rows = Vec::with_capacity(places.len());
    for (expected, (index, candidates)) in (0..).zip(places) {
        if *index != expected {
            return Err(format!(
                "block number {expected} is on none of the {} volumes",
                volumes.len()
            ));
        }
        // A block that failed on its way was written again under another id, with the same bytes.
        let Some(best) = candidates
            .iter()
            .max_by_key(|found| (found.volumes.len(), found.block))
        else {
            return Err(format!("block number {expected} is nowhere"));
        };
        let same = |found: &&Candidate| (found.length, found.crc32c) == (best.length, best.crc32c);
        if !candidates.iter().all(|found| same(&found)) {
            return Err(format!("there are several different blocks of number {expected}"));
        }
        rows.push(NewRow {
            block: best.block,
            index: *index,
            length: best.length,
            crc32c: best.crc32c,
            volumes: best.volumes.iter().copied().collect(),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup;

    fn held(block: u64, version: u64, index: u32, crc32c: u32) -> HeldReplica {
        HeldReplica {
            block: BlockId(block),
            origin: Origin { version, index },
            length: 100,
            crc32c,
        }
    }

    fn volume(number: u8, epoch: u64, replicas: &[HeldReplica]) -> HeldVolume {
        HeldVolume {
            id: VolumeId([number; 16]),
            incarnation: Incarnation([1; 16]),
            directory: format!("/disk{number}"),
            epoch: Epoch {
                number: epoch,
                incarnation: Incarnation([number; 16]),
            },
            replicas: replicas.to_vec(),
        }
    }

    #[test]
    fn whole_versions_come_back_and_the_rest_is_told() {
        let one = [
            held(1, 10, 0, 11),
            held(2, 10, 1, 12),
            held(5, 20, 0, 51),
            held(9, 9, 0, 91),
            held(30, 40, 0, 1),
            held(70, 1 << 41, 0, 7),
        ];
        let two = [
            held(1, 10, 0, 11),
            // Of version 20 the first two are here, of 21 only the second.
            held(6, 20, 1, 61),
            held(7, 21, 1, 71),
            // Written twice, the same and not the same.
            held(8, 20, 1, 61),
            held(30, 40, 0, 2),
            held(50, 60, 0, 1),
            held(51, 60, 0, 2),
        ];
        let volumes = [volume(1, 3, &one), volume(2, 7, &two)];
        let (state, rebuilt) = state_of(&volumes, 2, 5).unwrap();
        let names = state.list(FOLDER, "", "", 100, false).unwrap().0;
        let mut names: Vec<_> = names
            .into_iter()
            .map(|file| (file.name, file.size_bytes))
            .collect();
        names.sort();
        let whole = |name: &str, blocks: u64| (name.to_owned(), 100 * blocks);
        assert_eq!(
            names,
            [
                whole("10", 2),
                whole("20", 2),
                whole("2199023255552", 1),
                whole("block-0000000000000009", 1)
            ]
        );
        assert_eq!((rebuilt.files, rebuilt.blocks, rebuilt.epoch), (4, 6, 7));
        let left: Vec<_> = rebuilt.left.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(left, ["block-000000000000001e", "21", "60"]);
        assert_eq!(rebuilt.unused_blocks, 5, "7, one of 6 and 8, 30, 50 and 51");
        assert!(state.last_id() > 1 << 41, "no id is given twice");
        assert!(
            [0, 7]
                .iter()
                .all(|reign| state.is_quarantined(BlockId::new(*reign, 1).unwrap()))
        );
        assert_eq!(state.blocks().get(BlockId(1)).unwrap().good(), 2);
        assert!(state_of(&[], 2, 5).is_err());
        assert!(state_of(&[volumes[0].clone(), volumes[0].clone()], 2, 5).is_err());
    }

    #[test]
    fn it_becomes_a_folder_that_waits_for_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new");
        let cluster = ClusterId([4; 16]);
        let volumes = [volume(1, 3, &[held(1, 10, 0, 11)])];
        rebuild(&dir, cluster, &volumes, 1, 5).unwrap();
        let found = backup::check(&dir).unwrap();
        assert_eq!((found.cluster, found.files, found.epoch.number), (cluster, 1, 3));
        let opened = Store::open(std::slice::from_ref(&dir)).unwrap();
        assert_eq!(opened.restored.map(|restored| restored.adopt), Some(false));
        drop(opened.store);
        let refused = rebuild(&dir, cluster, &volumes, 1, 5).unwrap_err();
        assert!(
            refused.to_string().contains("holds a nameserver's data"),
            "{refused}"
        );
    }
}
