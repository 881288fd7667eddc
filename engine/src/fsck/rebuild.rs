//! Writing a new index over the segments as they are. One rename makes it the volume's: until then it is the volume
//! that it was, from then on nothing that the old index says can be read.
//!
//! Checkpoint and journal are sealed for an incarnation of the volume. So the new checkpoint is written for a new
//! incarnation, beside the old ones, which still hold; and `volume.toml` then names the new one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::block::BlockId;
use crate::checkpoint;
use crate::folder::Folder;
use crate::identity;
use crate::journal::{self, Head, JOURNAL_FILES, Ring};
use crate::layout::Superblock;
use crate::record::{Cut, Replica};
use crate::snapshot::{Meta, Writer};
use crate::space;
use crate::types::{Identity, Options};

use super::believed::Believed;

/// What the segments hold.
#[derive(Default)]
pub(super) struct Found {
    pub(super) segments: BTreeMap<u16, Cut>,
    pub(super) replicas: Vec<(BlockId, Replica)>,
    /// Segments of which nobody knows how they are cut.
    pub(super) unreadable: Vec<u16>,
}

/// How far a rebuild has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Segments are durable and have their superblocks; the new checkpoint is there under its name.
    Beside,
    /// `volume.toml` names the new incarnation.
    Switched,
    /// The journal is empty, the old checkpoints are gone.
    Cleared,
}

/// Writes the new index; returns who the volume is now. `reached` is told of each step, and its error ends it there.
pub(super) fn rebuild(
    folder: &Folder,
    dir: &Path,
    before: &Identity,
    believed: &Believed,
    found: &Found,
    mut reached: impl FnMut(Step) -> io::Result<()>,
) -> io::Result<Identity> {
    let mut incarnation = [0; 16];
    getrandom::fill(&mut incarnation).map_err(|error| io::Error::other(error.to_string()))?;
    let after = Identity {
        incarnation,
        generation: before.generation + 1,
        ..before.clone()
    };
    settle_segments(folder, dir, &after, found)?;

    let ring = believed
        .ring
        .unwrap_or_else(|| Ring::of_bytes(Options::new(dir).journal_bytes));
    let ordinal = believed.last_ordinal + 1;
    let meta = Meta {
        head: Head::first(),
        ring,
        epoch: believed.epoch,
    };
    let mut writer = Writer::new(checkpoint::seed(&after), ordinal, &meta);
    let mut file = File::create(dir.join(checkpoint::SPARE))?;
    for (&number, cut) in &found.segments {
        if let Some(block) = writer.segment(number, cut, &[]) {
            file.write_all(&block)?;
        }
    }
    for (block, replica) in &found.replicas {
        if let Some(block) = writer.replica(*block, replica) {
            file.write_all(&block)?;
        }
    }
    for block in writer.finish() {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    folder.rename(checkpoint::SPARE, &checkpoint::file_name(ordinal))?;
    folder.open_folder("")?.sync_all()?;
    reached(Step::Beside)?;

    let text = identity::encode(&after).map_err(|error| io::Error::other(error.to_string()))?;
    folder.replace(identity::FILE, text.as_bytes())?;
    reached(Step::Switched)?;

    // Batches of another incarnation mean nothing, but files may be missing, short or unreadable.
    folder.create_folder("journal")?;
    for number in 0..JOURNAL_FILES {
        let file = File::create(dir.join(journal::file_name(number)))?;
        fill_with_zeros(&file, ring.file_bytes())?;
        file.sync_all()?;
    }
    folder.open_folder("journal")?.sync_all()?;
    for (name, _) in folder.list("")? {
        if checkpoint::ordinal_of(&name).is_some_and(|other| other != ordinal) {
            folder.remove(&name)?;
        }
    }
    folder.open_folder("")?.sync_all()?;
    reached(Step::Cleared)?;
    Ok(after)
}

/// Makes the segments what the new index will say of them, and durable: a killed process leaves writes in caches.
fn settle_segments(folder: &Folder, dir: &Path, identity: &Identity, found: &Found) -> io::Result<()> {
    for (&number, cut) in &found.segments {
        let file = OpenOptions::new()
            .write(true)
            .open(dir.join(space::file_name(number)))?;
        let superblock = Superblock {
            volume: identity.volume,
            segment: number,
            class: cut.class,
            generation: cut.generation,
            seed: cut.seed,
            segment_bytes: cut.segment_bytes,
        };
        file.write_all_at(&superblock.encode(), 0)?;
        if file.metadata()?.len() < cut.segment_bytes {
            file.set_len(cut.segment_bytes)?;
        }
        file.sync_all()?;
    }
    for &number in &found.unreadable {
        // Out of the way of new segments, in case that somebody can make sense of it after all.
        let name = space::file_name(number);
        fs::rename(dir.join(&name), dir.join(format!("{name}.unreadable")))?;
    }
    folder.open_folder("segments")?.sync_all()
}

fn fill_with_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let step = left.min(zeros.len() as u64) as usize;
        file.write_all(&zeros[..step])?;
        left -= step as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec;
    use crate::fsck::{FsckOptions, FsckReport, believed, collect, fsck, slots};
    use crate::pool::{Lane, PoolOptions};
    use crate::volume::Volume;

    const CLUSTER: [u8; 16] = [1; 16];

    fn open(dir: &Path) -> crate::error::Result<Volume> {
        let mut options = Options::new(dir);
        options.capacity_bytes = 64 << 20;
        options.journal_bytes = 1 << 20;
        options.pool = PoolOptions::small();
        Volume::open(options, Some(CLUSTER)).map(|(volume, _)| volume)
    }

    fn put(volume: &Volume, block: u64, bytes: &[u8]) {
        exec::run(volume, async {
            let mut buffer = volume.acquire(Lane::Head, bytes.len() as u32).await.unwrap();
            buffer.fill(bytes).unwrap();
            volume
                .put(BlockId(block), crate::block::Origin::default(), buffer)
                .await
                .unwrap();
        });
    }

    /// A rebuild of the volume in `dir` that ends at a step.
    fn rebuild_until(dir: &Path, last: Step) {
        let folder = Folder::lock(dir).unwrap();
        let identity = identity::decode(&folder.read(identity::FILE).unwrap()).unwrap();
        let believed = believed::read(&folder, &identity).unwrap();
        let files = slots::list(dir, &mut Vec::new()).unwrap();
        let mut report = FsckReport::new(identity.clone());
        let found = collect(&believed, &files, &FsckOptions::default(), &mut report);
        let reached = |step| match step {
            step if step == last => Err(io::Error::other("the power is cut")),
            _ => Ok(()),
        };
        rebuild(&folder, dir, &identity, &believed, &found, reached).unwrap_err();
    }

    #[test]
    fn a_cut_at_any_step_leaves_the_old_volume_or_the_new_one() {
        for last in [Step::Beside, Step::Switched, Step::Cleared] {
            for damaged in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                Volume::format(dir.path(), CLUSTER).unwrap();
                let volume = open(dir.path()).unwrap();
                (0..20).for_each(|block| put(&volume, block, &vec![block as u8; 5000]));
                exec::run(&volume, volume.checkpoint()).unwrap();
                (20..30).for_each(|block| put(&volume, block, &vec![block as u8; 5000]));
                drop(volume);
                if damaged {
                    fs::remove_file(dir.path().join(journal::file_name(1))).unwrap();
                    assert!(open(dir.path()).is_err());
                }
                rebuild_until(dir.path(), last);
                if open(dir.path()).is_err() {
                    // As before, or half a rebuild: never an empty volume.
                    assert!(damaged && last != Step::Cleared, "{last:?}");
                    let options = FsckOptions {
                        rebuild: true,
                        ..FsckOptions::default()
                    };
                    assert!(fsck(dir.path(), &options).unwrap().rebuilt);
                }
                let volume = open(dir.path()).unwrap();
                let suspect = last != Step::Beside || damaged;
                assert_eq!(
                    (volume.stat().replicas, volume.stat().suspects),
                    (30, if suspect { 30 } else { 0 })
                );
                for block in 0..30 {
                    exec::run(&volume, volume.confirm_suspect(BlockId(block))).unwrap();
                    let got = exec::run(&volume, volume.get(BlockId(block), 0, 5000, Lane::Read)).unwrap();
                    assert_eq!(got.data, vec![block as u8; 5000]);
                }
            }
        }
    }
}
