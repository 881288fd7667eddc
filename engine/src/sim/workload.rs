//! What a simulated volume is kept busy with: random actions, several at once, in phases that fill, empty and re-cut.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use super::Rng;
use super::model::{self, Action, Finding, Model, Shared, Truth, length_of};
use crate::exec::run;
use crate::volume::Volume;

/// How a workload behaves for a while.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Kinds of blocks that are put, one as likely as the other.
    pub kinds: Vec<u64>,
    /// Puts, deletes, puts of blocks that were there before, gets, upkeep (a checkpoint, or zeros in free slots),
    /// reigns: how likely each is.
    pub weights: [u64; 6],
    /// Actions at once, at most.
    pub at_once: u64,
    /// Blocks that should be there.
    pub blocks_max: usize,
}

impl Phase {
    /// A bit of everything, a large block now and then.
    pub fn mixed() -> Self {
        Self {
            kinds: (0..15)
                .chain([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 15])
                .collect(),
            weights: [60, 20, 4, 30, 6, 3],
            at_once: 6,
            blocks_max: 200,
        }
    }

    /// By chance: which kinds, how many, growing or shrinking. Seldom anything over 330 KB.
    pub fn random(rng: &mut Rng) -> Self {
        let kinds = (0..1 + rng.below(4)).map(|_| match rng.below(20) {
            0 => rng.below(16),
            1..=3 => rng.below(15),
            4..=8 => rng.below(10),
            _ => rng.below(6),
        });
        let kinds = kinds.collect();
        let weights = [
            [60, 20, 4, 10, 6, 3],
            [30, 60, 6, 10, 12, 3],
            [50, 50, 20, 0, 20, 1],
            [10, 90, 0, 0, 4, 2],
        ];
        Self {
            kinds,
            weights: weights[rng.below(weights.len() as u64) as usize],
            // Many at once make batches of several sectors, which can be torn.
            at_once: if rng.chance(200) { 40 } else { 1 + rng.below(6) },
            blocks_max: 1 + rng.below(30) as usize,
        }
    }

    /// A few actions, on different blocks each.
    pub fn actions(&self, model: &mut Model, rng: &mut Rng) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut busy = BTreeSet::new();
        for _ in 0..1 + rng.below(self.at_once) {
            let there: Vec<u64> = [Truth::There, Truth::Perhaps]
                .iter()
                .flat_map(|&truth| model.blocks(truth))
                .filter(|block| !busy.contains(block))
                .collect();
            let mut draw = rng.below(self.weights.iter().sum());
            let kind = self.weights.iter().position(|&weight| {
                let here = draw < weight;
                draw = draw.saturating_sub(weight);
                here
            });
            let kind = kind.unwrap_or(0);
            let action = match (kind, rng.pick(&there)) {
                (0, _) if there.len() < self.blocks_max => {
                    Some(Action::Put(model.new_block(rng.pick(&self.kinds).unwrap_or(0))))
                }
                (0 | 1, Some(block)) => Some(Action::Delete(block)),
                (2, _) => {
                    let mut gone = model.blocks(Truth::Gone);
                    gone.extend(model.blocks(Truth::Perhaps));
                    let recent = &gone[gone.len().saturating_sub(8)..];
                    rng.pick(recent).map(Action::Put)
                }
                (3, Some(block)) => {
                    let length = length_of(block) as u64;
                    let from = if rng.chance(500) { 0 } else { rng.below(length) };
                    let count = if from == 0 && rng.chance(500) {
                        length
                    } else {
                        1 + rng.below(length - from)
                    };
                    Some(Action::Get(block, from as u32, count as u32))
                }
                (4, _) if rng.chance(500) => Some(Action::Checkpoint),
                (4, _) => Some(Action::ZeroFill),
                (5, _) if busy.insert(0) => Some(Action::Raise(model.next_epoch())),
                _ => None,
            };
            if let Some(Action::Put(block) | Action::Delete(block) | Action::Get(block, ..)) = action
                && !busy.insert(block)
            {
                continue;
            }
            actions.extend(action);
        }
        actions
    }
}

/// Does all of them at once; whether the volume still works.
pub fn do_all(volume: &Volume, model: &Shared, actions: &[Action]) -> Result<bool, Finding> {
    type Doing<'a> = Pin<Box<dyn Future<Output = Result<bool, Finding>> + 'a>>;
    let doing = |&action| -> Doing<'_> { Box::pin(model::act(volume, model, action)) };
    let mut doing: Vec<Doing<'_>> = actions.iter().map(doing).collect();
    let mut works = Ok(true);
    run(
        volume,
        poll_fn(move |context| {
            doing.retain_mut(|one| match one.as_mut().poll(context) {
                Poll::Ready(did) => {
                    works = match (std::mem::replace(&mut works, Ok(true)), did) {
                        (Err(finding), _) | (_, Err(finding)) => Err(finding),
                        (Ok(one), Ok(other)) => Ok(one && other),
                    };
                    false
                }
                Poll::Pending => true,
            });
            if doing.is_empty() {
                Poll::Ready(std::mem::replace(&mut works, Ok(true)))
            } else {
                Poll::Pending
            }
        }),
    )
}

/// So many steps, or until the volume has failed; whether it still works.
pub fn operate(
    volume: &Volume,
    model: &Shared,
    phase: &Phase,
    rng: &mut Rng,
    steps: u64,
) -> Result<bool, Finding> {
    for _ in 0..steps {
        let actions = phase.actions(&mut model.borrow_mut(), rng);
        if !do_all(volume, model, &actions)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A model that knows nothing yet.
pub fn new_model() -> Shared {
    Rc::default()
}
