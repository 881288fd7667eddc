//! The truth beside a volume: a plain map of what was asked of it and what it acknowledged.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::Rng;
use crate::block::{BlockId, Origin};
use crate::error::{Error, Kind};
use crate::exec::run;
use crate::limits::{BLOCK_BYTES_MAX, UNIT_BYTES};
use crate::pool::Lane;
use crate::types::{Epoch, ReplicaInfo, ReplicaState};
use crate::volume::Volume;

/// What must not be: a lost block, a wrong byte.
pub type Finding = String;

/// What may be said of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    /// Its put was acknowledged: it must be there.
    There,
    /// Something was asked and no answer came: it may be there, whole, or not; or be out of service.
    Perhaps,
    /// Its delete was acknowledged, or it never came: it must not be there.
    Gone,
}

/// What a volume is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A put of the block, whose bytes follow from its id.
    Put(u64),
    /// Its delete.
    Delete(u64),
    /// So many bytes of it, from there on.
    Get(u64, u32, u32),
    /// A checkpoint.
    Checkpoint,
    /// A step of filling free slots with zeros.
    ZeroFill,
    /// A reign of this number.
    Raise(u64),
}

/// The map.
#[derive(Clone, Default, Debug)]
pub struct Model {
    blocks: BTreeMap<u64, Truth>,
    /// The highest that was acknowledged, and the highest that was asked for.
    epoch: (u64, u64),
    next: u64,
    /// Counts the answers.
    pub answers: u64,
    /// Answers to puts, and to deletes.
    pub acknowledged: u64,
    /// Reads may fail, and replicas be taken for damaged therefore.
    pub reads_fail: bool,
}

/// Lengths by kind: the lowest hexadecimal digit of a block's id.
const LENGTHS: [(usize, usize); 16] = [
    (1, 300),
    (1, 400),
    (300, 1_000),
    (400, 2_000),
    (1_000, 3_968),
    (1, 3_968),
    (3_969, 8_064),
    (3_969, 12_160),
    (12_161, 16_256),
    (16_257, 20_480),
    (16_257, 40_000),
    (40_000, UNIT_BYTES),
    (UNIT_BYTES + 1, 2 * UNIT_BYTES),
    (UNIT_BYTES, 4 * UNIT_BYTES),
    (4 * UNIT_BYTES, 5 * UNIT_BYTES),
    (5 * UNIT_BYTES, BLOCK_BYTES_MAX),
];

/// A block's length follows from its id.
pub fn length_of(block: u64) -> usize {
    let (from, to) = LENGTHS[block as usize % LENGTHS.len()];
    let mut rng = Rng::new(block);
    // The ends of each range are where layouts change.
    match rng.below(8) {
        0 => from,
        1 => to,
        _ => from + rng.below((to - from) as u64 + 1) as usize,
    }
}

/// Bytes of blocks, and how many.
type Kept = (usize, HashMap<u64, Rc<[u8]>>);

/// Bytes of blocks that are kept for the next who asks.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// A block's bytes, which follow from its id.
pub fn bytes_of(block: u64) -> Rc<[u8]> {
    thread_local! {
        static KEPT: RefCell<Kept> = RefCell::default();
    }
    KEPT.with_borrow_mut(|(kept_bytes, kept)| {
        if let Some(bytes) = kept.get(&block) {
            return bytes.clone();
        }
        if *kept_bytes > KEPT_BYTES_MAX {
            kept.clear();
            *kept_bytes = 0;
        }
        let bytes: Rc<[u8]> = make_bytes(block).into();
        *kept_bytes += bytes.len();
        kept.insert(block, bytes.clone());
        bytes
    })
}

/// They differ from page to page; cheap, because much of the time goes here.
fn make_bytes(block: u64) -> Vec<u8> {
    const PAGE_BYTES: usize = 4096;
    let mut rng = Rng::new(!block);
    let length = length_of(block);
    let noise_bytes = length.min(PAGE_BYTES).next_multiple_of(8);
    let noise: Vec<u8> = (0..noise_bytes / 8)
        .flat_map(|_| rng.next().to_le_bytes())
        .collect();
    let mut bytes = noise.repeat(length.div_ceil(noise.len()));
    for (page, start) in (PAGE_BYTES..length).step_by(PAGE_BYTES).enumerate() {
        bytes[start..start + 8].copy_from_slice(&(page as u64).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A shared model: every answer is noted at the moment in which it comes.
pub type Shared = Rc<RefCell<Model>>;

impl Model {
    /// A block that never was.
    pub fn new_block(&mut self, kind: u64) -> u64 {
        self.next += 1;
        self.next << 4 | kind & 15
    }

    /// What is known of a block.
    pub fn truth(&self, block: u64) -> Truth {
        self.blocks.get(&block).copied().unwrap_or(Truth::Gone)
    }

    /// Blocks of which that is known.
    pub fn blocks(&self, truth: Truth) -> Vec<u64> {
        let all = self.blocks.iter().filter(|(_, known)| **known == truth);
        all.map(|(&block, _)| block).collect()
    }

    /// The number of the next reign.
    pub fn next_epoch(&self) -> u64 {
        self.epoch.1 + 1
    }

    fn set(&mut self, block: u64, truth: Truth) {
        self.blocks.insert(block, truth);
        self.answers += 1;
    }

    /// Compares all that a freshly opened volume holds with what is known; what it holds.
    pub fn check(&self, volume: &Volume) -> Result<Vec<ReplicaInfo>, Finding> {
        let listed = volume.list(None, usize::MAX);
        for info in &listed {
            let (block, truth) = (info.block.0, self.truth(info.block.0));
            match (truth, info.state) {
                (Truth::Gone, _) => return Err(format!("block {block} is back from the dead")),
                (_, ReplicaState::Live) => {
                    let right = run(volume, get_whole(volume, block));
                    if self.reads_fail && right.is_err() {
                        continue;
                    }
                    if !right.map_err(|error| format!("block {block}: {error}"))? {
                        return Err(format!("block {block} came back wrong"));
                    }
                }
                (Truth::There, state) if !self.reads_fail => {
                    return Err(format!("block {block} is lost: it is {state:?}"));
                }
                (Truth::There | Truth::Perhaps, _) => {}
            }
        }
        let there = listed
            .iter()
            .filter(|info| self.truth(info.block.0) == Truth::There);
        if there.count() != self.blocks(Truth::There).len() {
            let is_listed = |block: &u64| listed.iter().any(|info| info.block.0 == *block);
            let lost = self
                .blocks(Truth::There)
                .into_iter()
                .find(|block| !is_listed(block));
            return Err(format!("block {} is lost", lost.unwrap_or_default()));
        }
        let epoch = volume.epoch().map_or(0, |epoch| epoch.number);
        if !(self.epoch.0..=self.epoch.1).contains(&epoch) {
            return Err(format!("epoch {epoch} of {:?}", self.epoch));
        }
        Ok(listed)
    }

    /// Takes over what a volume holds, as [`Model::check`] gave it.
    pub fn settle(&mut self, volume: &Volume, listed: &[ReplicaInfo]) {
        let states: BTreeMap<u64, ReplicaState> =
            listed.iter().map(|info| (info.block.0, info.state)).collect();
        for (block, truth) in &mut self.blocks {
            *truth = match states.get(block) {
                Some(ReplicaState::Live) => Truth::There,
                Some(_) => Truth::Perhaps,
                None => Truth::Gone,
            };
        }
        let epoch = volume.epoch().map_or(0, |epoch| epoch.number);
        self.epoch = (epoch, epoch);
    }
}

/// Whether the bytes were right.
async fn get(volume: &Volume, block: u64, offset: u32, count: u32) -> crate::error::Result<bool> {
    let verified = volume.get(BlockId(block), offset, count, Lane::Read).await?;
    let from = (offset - verified.offset) as usize;
    let wanted = &bytes_of(block)[offset as usize..(offset + count) as usize];
    Ok(verified.data.get(from..from + count as usize) == Some(wanted))
}

/// As [`get`], all of it.
pub async fn get_whole(volume: &Volume, block: u64) -> crate::error::Result<bool> {
    get(volume, block, 0, length_of(block) as u32).await
}

/// Puts the bytes that follow from the block's id; each third block in pieces.
pub async fn put(volume: &Volume, block: u64) -> crate::error::Result<()> {
    let bytes = bytes_of(block);
    let mut buffer = volume.acquire(Lane::Head, bytes.len() as u32).await?;
    buffer.fill(&bytes)?;
    let (id, origin) = (BlockId(block), Origin::default());
    let put = match block % 3 {
        0 => volume.put_in_pieces(id, origin, buffer).await,
        _ => volume.put(id, origin, buffer).await,
    };
    put.map(drop)
}

/// Has `volume` do it and notes what comes of it; whether the volume still works.
pub async fn act(volume: &Volume, model: &RefCell<Model>, action: Action) -> Result<bool, Finding> {
    let result = match action {
        Action::Put(block) => {
            let before = model.borrow().truth(block);
            model.borrow_mut().set(block, Truth::Perhaps);
            let put = put(volume, block).await;
            let mut model = model.borrow_mut();
            match put {
                Ok(()) => {
                    model.acknowledged += 1;
                    model.set(block, Truth::There);
                    Ok(())
                }
                // It may come back as a suspect if the power goes, but not before.
                Err(error) if error.kind() == Kind::NoSpace => {
                    if volume.lookup(BlockId(block)).is_some() && before == Truth::Gone {
                        return Err(format!("block {block} is there, though it was refused"));
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            }
        }
        Action::Delete(block) => {
            let before = model.borrow().truth(block);
            if before == Truth::There {
                model.borrow_mut().set(block, Truth::Perhaps);
            }
            let deleted = volume.delete(&[BlockId(block)]).await;
            let mut model = model.borrow_mut();
            deleted.map(|_| {
                model.acknowledged += 1;
                model.set(block, Truth::Gone);
            })
        }
        Action::Get(block, offset, count) => {
            let before = model.borrow().truth(block);
            let right = get(volume, block, offset, count).await;
            match (right, before) {
                (Ok(true), Truth::There | Truth::Perhaps) => Ok(()),
                (Ok(false), _) => return Err(format!("block {block} came back wrong")),
                (Ok(true), Truth::Gone) => return Err(format!("block {block} was deleted")),
                (Err(Error::NotFound { .. }), Truth::Gone | Truth::Perhaps) => Ok(()),
                (Err(Error::Suspect { .. } | Error::Corrupt { .. }), Truth::Perhaps) => Ok(()),
                (Err(error), _) if model.borrow().reads_fail && error.kind() != Kind::Caller => Ok(()),
                (Err(error), _) => Err(error),
            }
        }
        Action::Checkpoint => match volume.checkpoint().await {
            Err(error) if error.kind() == Kind::NoSpace => Ok(()),
            ended => ended,
        },
        Action::ZeroFill => volume.zero_fill(1 << 20).await.map(drop),
        Action::Raise(number) => {
            let epoch = Epoch {
                number,
                incarnation: [3; 16],
            };
            let asked = model.borrow().epoch.1.max(number);
            model.borrow_mut().epoch.1 = asked;
            model.borrow_mut().answers += 1;
            let raised = volume.raise_epoch(epoch).await;
            raised.map(|()| {
                let mut model = model.borrow_mut();
                model.epoch.0 = model.epoch.0.max(number);
                model.answers += 1;
            })
        }
    };
    match result {
        Ok(()) => Ok(true),
        Err(Error::Failed { .. } | Error::Closed) => Ok(false),
        Err(error) => Err(format!("{action:?}: {error}")),
    }
}
