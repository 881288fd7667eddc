//! What volumes hold, compared with what they should: losses, damage, suspects and orphans.
//!
//! A volume's word is believed where it knows better (what is there, what does not verify); a client's never:
//! it only makes the nameserver ask.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::types::{BlockId, Replica, ReplicaState, VolumeId, VolumeReport};
use blockyard_wire::{ProblemKind, Result};

use crate::core::Core;
use crate::dataserver::Control;
use crate::state::blocks::VolumeIndex;
use crate::state::{Command, State};

/// Replicas of one command.
const BATCH: usize = 4096;
/// Replicas that are being asked about at a time because clients complained.
const DOUBTS_MAX: usize = 256;
/// Pause after a comparison that failed.
const PAUSE: Duration = Duration::from_secs(5);

impl Core {
    /// The connection of the server that has a volume.
    pub fn control_of(&self, volume: VolumeIndex) -> Option<Rc<Control>> {
        self.controls
            .borrow()
            .values()
            .find(|control| control.volumes.contains(&volume))
            .cloned()
    }

    fn is_current(&self, control: &Control) -> bool {
        self.controls
            .borrow()
            .values()
            .any(|current| current.registration == control.registration)
    }

    /// The id of a volume.
    pub fn volume_id(&self, volume: VolumeIndex) -> VolumeId {
        self.state
            .borrow()
            .blocks()
            .volume(volume)
            .map_or_else(VolumeId::default, |volume| volume.row.id)
    }
}

/// Compares each volume of a server that has joined now, and again from time to time, until it is gone.
pub fn follow(core: Rc<Core>, control: Rc<Control>) {
    for &volume in &control.volumes {
        let (core, control) = (core.clone(), control.clone());
        tokio::task::spawn_local(async move {
            let stopping = core.stopping();
            while core.is_current(&control) {
                let compared = tokio::select! {
                    compared = compare(&core, &control, volume) => compared,
                    () = stopping.clone() => return,
                };
                if compared.is_ok() {
                    core.comparing.borrow_mut().remove(&volume);
                }
                let pause = match compared {
                    Ok(()) => Duration::from_millis(core.until_next(volume)),
                    Err(problem) => {
                        tracing::warn!(volume = %core.volume_id(volume), %problem, "a volume could not be compared");
                        PAUSE
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stopping.clone() => return,
                }
            }
        });
    }
}

impl Core {
    /// Milliseconds until a volume is compared again: sooner when orphans grow old on it.
    fn until_next(&self, volume: VolumeIndex) -> u64 {
        let reconcile_ms = self.config.reconcile_ms.max(1);
        match self.orphans.borrow().any_on(volume) {
            true => reconcile_ms.min(self.config.orphan_age_ms / 2 + 50),
            false => reconcile_ms,
        }
    }
}

/// Pulls the buckets of a volume that differ, and acts on each difference.
///
/// # Errors
/// What the volume, or the journal, answers; what is left shows at the next comparison.
pub async fn compare(core: &Rc<Core>, control: &Rc<Control>, volume: VolumeIndex) -> Result<()> {
    let id = core.volume_id(volume);
    let theirs = control.digest(id).await?;
    let differing: Vec<usize> = {
        let state = core.state.borrow();
        let Some(volume) = state.blocks().volume(volume) else {
            return Ok(());
        };
        volume.digest.differing(&theirs).collect()
    };
    core.orphans.borrow_mut().only_in(volume, &differing);
    for bucket in differing {
        let bucket = bucket as u8;
        // Only what was on the map before the volume was asked can be missing there: the rest may be newer.
        let expected: Vec<BlockId> = {
            let state = core.state.borrow();
            let held = state.blocks().table().with_low_byte(bucket);
            held.filter(|(_, block)| block.state_on(volume).is_some())
                .map(|(id, _)| BlockId(id))
                .collect()
        };
        let found = control.replicas(id, bucket).await?;
        let differences = sort_out(&core.state.borrow(), volume, &expected, &found);
        act(core, control, volume, bucket, differences).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// How a bucket of a volume differs from the map.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Differences {
    /// On the map, but not there.
    lost: Vec<BlockId>,
    /// There, as the map does not have it: what is now known of it.
    judged: Vec<(BlockId, ReplicaState)>,
    /// Suspect there, good on the map.
    suspects: Vec<BlockId>,
    /// Good there, not good on the map.
    better: Vec<BlockId>,
    /// Of a wanted block, but not on the map.
    extra: Vec<BlockId>,
    /// Of a block that nobody knows; ascending.
    orphans: Vec<Replica>,
}

fn sort_out(state: &State, volume: VolumeIndex, expected: &[BlockId], found: &[Replica]) -> Differences {
    let mut differences = Differences::default();
    for replica in found {
        let id = replica.block;
        let owed = state
            .blocks()
            .volume(volume)
            .is_some_and(|volume| volume.pending.contains(&id.0));
        match state.blocks().get(id) {
            _ if owed => {}
            None => differences.orphans.push(*replica),
            Some(block) => {
                let same = (block.length, block.crc32c) == (replica.length, replica.crc32c);
                match (block.state_on(volume), replica.state) {
                    (None, _) => differences.extra.push(id),
                    (Some(ReplicaState::Corrupt), _) if !same => {}
                    (Some(_), _) if !same => differences.judged.push((id, ReplicaState::Corrupt)),
                    (Some(known), told) if known == told && told != ReplicaState::Suspect => {}
                    (Some(_), ReplicaState::Corrupt) => differences.judged.push((id, ReplicaState::Corrupt)),
                    (Some(_), ReplicaState::Suspect) => differences.suspects.push(id),
                    (Some(_), ReplicaState::Good) => differences.better.push(id),
                }
            }
        }
    }
    let there = |id: &BlockId| found.binary_search_by_key(id, |replica| replica.block).is_ok();
    let still = |id: &BlockId| {
        state
            .blocks()
            .get(*id)
            .is_some_and(|block| block.state_on(volume).is_some())
    };
    differences.lost = expected
        .iter()
        .filter(|id| !there(id) && still(id))
        .copied()
        .collect();
    differences
}

async fn act(
    core: &Rc<Core>,
    control: &Rc<Control>,
    volume: VolumeIndex,
    bucket: u8,
    differences: Differences,
) -> Result<()> {
    let Differences {
        lost,
        judged,
        suspects,
        better,
        extra,
        orphans,
    } = differences;
    if !lost.is_empty() {
        tracing::warn!(volume = %core.volume_id(volume), count = lost.len(), "replicas are missing on a volume");
    }
    for blocks in lost.chunks(BATCH) {
        core.propose(Command::Lost {
            volume,
            blocks: blocks.to_vec(),
        })
        .await?;
    }
    for replicas in judged.chunks(BATCH) {
        core.propose(Command::Judged {
            volume,
            replicas: replicas.to_vec(),
        })
        .await?;
    }
    for block in suspects {
        settle(core, control, volume, block).await?;
    }
    for block in better {
        examine(core, control, volume, block).await?;
    }
    for block in extra {
        // Onto the map first, so that a copy that is under way and a deletion can't cross; one too many is
        // trimmed from there.
        core.propose(Command::Copied { block, volume }).await?;
        examine(core, control, volume, block).await?;
    }
    let ids: Vec<_> = orphans.iter().map(|replica| replica.block).collect();
    let age_ms = core.config.orphan_age_ms;
    let old = core
        .orphans
        .borrow_mut()
        .seen(volume, bucket, &ids, age_ms, core.now_ms());
    if core.safe_mode.get() {
        return Ok(());
    }
    let unwanted: Vec<BlockId> = {
        let (state, uploads) = (core.state.borrow(), core.uploads.borrow());
        old.into_iter()
            .filter(|id| {
                state.blocks().get(*id).is_none()
                    && !uploads.may_want(*id, &state)
                    && !state.is_quarantined(*id)
            })
            .collect()
    };
    let is_suspect = |id: &BlockId| {
        orphans
            .binary_search_by_key(id, |replica| replica.block)
            .is_ok_and(|at| orphans[at].state == ReplicaState::Suspect)
    };
    let (suspects, unwanted): (Vec<_>, Vec<_>) = unwanted.into_iter().partition(is_suspect);
    let id = core.volume_id(volume);
    for block in suspects {
        control.settle(id, block, false).await?;
        core.orphans.borrow_mut().deleted(volume, bucket, &[block]);
    }
    for blocks in unwanted.chunks(BATCH) {
        tracing::info!(volume = %id, count = blocks.len(), "deleting blocks that no file or upload has");
        control.delete(id, blocks).await?;
        core.orphans.borrow_mut().deleted(volume, bucket, blocks);
    }
    Ok(())
}

/// Has a suspect of a wanted block verified, and believes what comes of it.
async fn settle(core: &Rc<Core>, control: &Control, volume: VolumeIndex, block: BlockId) -> Result<()> {
    match control.settle(core.volume_id(volume), block, true).await {
        Ok(()) => {}
        // It does not verify, or is no suspect any more: the examination tells.
        Err(problem) if problem.kind != ProblemKind::Retry => {
            tracing::info!(%block, %problem, "a suspect replica was not confirmed");
        }
        Err(problem) => return Err(problem),
    }
    examine(core, control, volume, block).await
}

/// Has a replica read whole, and journals what that shows if it is news.
pub async fn examine(core: &Rc<Core>, control: &Control, volume: VolumeIndex, block: BlockId) -> Result<()> {
    let found = control.verify(core.volume_id(volume), block).await;
    let known = core
        .state
        .borrow()
        .blocks()
        .get(block)
        .and_then(|block| block.state_on(volume));
    let Some(known) = known else { return Ok(()) };
    let command = match found {
        Ok(state) if state == known => return Ok(()),
        Ok(state) => Command::Judged {
            volume,
            replicas: vec![(block, state)],
        },
        Err(problem) if problem.kind == ProblemKind::NotFound => Command::Lost {
            volume,
            blocks: vec![block],
        },
        Err(problem) if problem.kind == ProblemKind::Corrupt && known != ReplicaState::Corrupt => {
            Command::Judged {
                volume,
                replicas: vec![(block, ReplicaState::Corrupt)],
            }
        }
        Err(problem) => return Err(problem),
    };
    tracing::warn!(%block, volume = %core.volume_id(volume), ?command, "a replica is not what the map says");
    core.propose(command).await.map(|_| ())
}

/// Damaged blocks in heartbeats that the map still has as something else.
pub fn news_of_damage(
    state: &State,
    reports: &[(VolumeIndex, VolumeReport)],
) -> BTreeMap<VolumeIndex, Vec<Replica>> {
    let mut news = BTreeMap::<_, Vec<_>>::new();
    for (volume, report) in reports {
        for id in &report.corrupt_blocks {
            let Some(block) = state.blocks().get(*id) else {
                continue;
            };
            if block
                .state_on(*volume)
                .is_some_and(|known| known != ReplicaState::Corrupt)
            {
                news.entry(*volume)
                    .or_default()
                    .push(block.as_replica(*id, ReplicaState::Corrupt));
            }
        }
    }
    news
}

/// Takes a volume's own word on replicas that it can't vouch for.
pub fn judge(core: Rc<Core>, volume: VolumeIndex, replicas: Vec<Replica>) {
    tokio::task::spawn_local(async move {
        let (corrupt, suspects): (Vec<_>, Vec<_>) = {
            let state = core.state.borrow();
            let is_news = |replica: &&Replica| {
                let known = state
                    .blocks()
                    .get(replica.block)
                    .and_then(|block| block.state_on(volume));
                replica.state != ReplicaState::Good && known.is_some_and(|known| known != replica.state)
            };
            replicas
                .iter()
                .filter(is_news)
                .copied()
                .partition(|replica| replica.state == ReplicaState::Corrupt)
        };
        let corrupt: Vec<_> = corrupt
            .into_iter()
            .map(|replica| (replica.block, replica.state))
            .collect();
        for replicas in corrupt.chunks(BATCH) {
            tracing::warn!(volume = %core.volume_id(volume), count = replicas.len(), "a volume has damaged replicas");
            let judged = core
                .propose(Command::Judged {
                    volume,
                    replicas: replicas.to_vec(),
                })
                .await;
            if let Err(problem) = judged {
                return tracing::warn!(%problem, "damage could not be journaled; the next report tells it again");
            }
        }
        for suspect in suspects {
            let Some(control) = core.control_of(volume) else {
                return;
            };
            if let Err(problem) = settle(&core, &control, volume, suspect.block).await {
                tracing::info!(block = %suspect.block, %problem, "a suspect is not settled yet");
            }
        }
    });
}

/// A client could not read a replica: its volume is asked to read it whole.
pub fn doubt(core: Rc<Core>, volume: VolumeIndex, block: BlockId) {
    let believed = core
        .state
        .borrow()
        .blocks()
        .get(block)
        .and_then(|block| block.state_on(volume));
    if believed != Some(ReplicaState::Good) {
        return;
    }
    {
        let mut doubts = core.doubts.borrow_mut();
        if doubts.len() >= DOUBTS_MAX || !doubts.insert((volume, block)) {
            return;
        }
    }
    tokio::task::spawn_local(async move {
        if let Some(control) = core.control_of(volume)
            && let Err(problem) = examine(&core, &control, volume, block).await
        {
            tracing::info!(%block, %problem, "a doubtful replica could not be examined");
        }
        core.doubts.borrow_mut().remove(&(volume, block));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::NewRow;
    use crate::state::blocks::VolumeRow;

    #[test]
    fn every_kind_of_difference_is_told_apart() {
        let mut state = State::default();
        let row = VolumeRow {
            id: VolumeId([1; 16]),
            ..VolumeRow::default()
        };
        let other = VolumeRow {
            id: VolumeId([2; 16]),
            ..VolumeRow::default()
        };
        state
            .apply(&Command::Join {
                volumes: vec![row, other],
            })
            .unwrap();
        let begin = Command::Begin {
            path: "/f".into(),
            overwrite: false,
            replication: 2,
            content_type: String::new(),
            at_unix_ms: 0,
            request: Default::default(),
        };
        state.apply(&begin).unwrap();
        let row = |n: u64| NewRow {
            block: BlockId(n),
            index: n as u32,
            length: 9,
            crc32c: 7,
            volumes: vec![0],
        };
        let mut blocks: Vec<_> = (1..8).map(row).collect();
        blocks.push(NewRow {
            volumes: vec![1],
            ..row(8)
        });
        blocks.push(row(9));
        state
            .apply(&Command::AddBlocks {
                lease: 1,
                blocks,
                request: Default::default(),
            })
            .unwrap();
        let corrupt = vec![
            (BlockId(6), ReplicaState::Corrupt),
            (BlockId(7), ReplicaState::Corrupt),
        ];
        state
            .apply(&Command::Judged {
                volume: 0,
                replicas: corrupt,
            })
            .unwrap();
        state
            .apply(&Command::Drop {
                block: BlockId(9),
                volume: 0,
            })
            .unwrap();
        let replica = |n, state| Replica {
            block: BlockId(n),
            length: 9,
            crc32c: 7,
            state,
        };
        let found = [
            replica(1, ReplicaState::Good),
            replica(2, ReplicaState::Corrupt),
            replica(3, ReplicaState::Suspect),
            Replica {
                crc32c: 8,
                ..replica(4, ReplicaState::Good)
            },
            replica(6, ReplicaState::Good),
            replica(7, ReplicaState::Corrupt),
            replica(8, ReplicaState::Good),
            replica(9, ReplicaState::Good),
            replica(10, ReplicaState::Suspect),
        ];
        // Block 1 came onto the map after the volume was asked, block 90 has left it since.
        let expected = [2, 3, 4, 5, 6, 7, 90].map(BlockId);
        let differences = sort_out(&state, 0, &expected, &found);
        let corrupt = |n| (BlockId(n), ReplicaState::Corrupt);
        assert_eq!(
            differences,
            Differences {
                lost: vec![BlockId(5)],
                judged: vec![corrupt(2), corrupt(4)],
                suspects: vec![BlockId(3)],
                better: vec![BlockId(6)],
                extra: vec![BlockId(8)],
                orphans: vec![replica(10, ReplicaState::Suspect)],
            }
        );
        let newer = sort_out(&state, 0, &expected[..3], &found[1..4]);
        assert_eq!(newer.lost, [], "what was not expected is not missed");
    }
}
