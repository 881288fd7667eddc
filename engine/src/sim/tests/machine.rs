//! The volume as a state machine beside a map: proptest draws the transitions, and shrinks what fails.
//!
//! PROPTEST_RNG_SEED replays, PROPTEST_CASES asks for more.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;
use crate::exec::run;
use crate::sim::model::Truth;

/// What is done to a volume. Blocks are picked by their place among those that were ever put.
#[derive(Clone, Debug)]
enum Transition {
    /// Several at once.
    Act(Vec<Wish>),
    /// The power goes between two actions.
    Crash,
    /// The power goes at the nth sync from now.
    CrashAtSync(u64, Vec<Wish>),
    /// The process is killed.
    Kill,
    /// Closed in good order.
    Close,
}

/// An action, before it is known which blocks there are.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Put(u64),
    PutAgain(usize),
    Delete(usize),
    Get(usize, u32, u32),
    Checkpoint,
    ZeroFill,
    Raise,
}

struct Reference;

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let wish = prop_oneof![
        6 => (0u64..15).prop_map(Wish::Put),
        1 => any::<usize>().prop_map(Wish::PutAgain),
        3 => any::<usize>().prop_map(Wish::Delete),
        3 => (any::<usize>(), any::<u32>(), any::<u32>()).prop_map(|(at, from, count)| Wish::Get(at, from, count)),
        1 => Just(Wish::Checkpoint),
        1 => Just(Wish::ZeroFill),
        1 => Just(Wish::Raise),
    ];
    prop::collection::vec(wish, 1..8)
}

impl ReferenceStateMachine for Reference {
    /// What is true of blocks depends on which of the actions at once come first: the model that runs beside the
    /// volume notes that. Here is only the disk's seed.
    type State = u64;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<u64> {
        any::<u64>().boxed()
    }

    fn transitions(_: &u64) -> BoxedStrategy<Transition> {
        prop_oneof![
            8 => wishes().prop_map(Transition::Act),
            1 => Just(Transition::Crash),
            2 => (0u64..12, wishes()).prop_map(|(nth, wishes)| Transition::CrashAtSync(nth, wishes)),
            1 => Just(Transition::Kill),
            1 => Just(Transition::Close),
        ]
        .boxed()
    }

    fn apply(seed: u64, _: &Transition) -> u64 {
        seed
    }
}

struct Machine {
    yard: Yard,
    disk: SimDisk,
    volume: Option<Volume>,
    model: Shared,
}

impl Machine {
    fn reopen(&mut self) {
        self.volume = None;
        self.disk.set_faults(Faults::default());
        let (volume, _) = self.yard.open(&self.disk).unwrap();
        compare(&volume, &self.model, 0);
        self.volume = Some(volume);
    }

    /// On different blocks each, as long as there are so many.
    fn actions(&self, wishes: &[Wish]) -> Vec<Action> {
        let mut model = self.model.borrow_mut();
        let mut known: Vec<u64> = [Truth::There, Truth::Perhaps, Truth::Gone]
            .iter()
            .flat_map(|&truth| model.blocks(truth))
            .collect();
        let mut raised = false;
        let mut take = |at: usize| (!known.is_empty()).then(|| known.swap_remove(at % known.len()));
        let mut actions = Vec::new();
        for &wish in wishes {
            actions.extend(match wish {
                Wish::Put(kind) => Some(Action::Put(model.new_block(kind))),
                Wish::PutAgain(at) => take(at)
                    .filter(|&block| model.truth(block) != Truth::There)
                    .map(Action::Put),
                Wish::Delete(at) => take(at).map(Action::Delete),
                Wish::Get(at, from, count) => take(at).map(|block| {
                    let length = crate::sim::model::length_of(block) as u32;
                    let from = from % length;
                    Action::Get(block, from, 1 + count % (length - from))
                }),
                Wish::Checkpoint => Some(Action::Checkpoint),
                Wish::ZeroFill => Some(Action::ZeroFill),
                Wish::Raise if raised => None,
                Wish::Raise => {
                    raised = true;
                    Some(Action::Raise(model.next_epoch()))
                }
            });
        }
        actions
    }

    fn act(&self, wishes: &[Wish]) -> bool {
        let volume = self.volume.as_ref().unwrap();
        sound(workload::do_all(volume, &self.model, &self.actions(wishes)), 0)
    }
}

impl StateMachineTest for Machine {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test(seed: &u64) -> Self {
        let yard = Yard::caching(13 << 20, 1 << 20);
        let disk = yard.format(*seed).unwrap();
        let mut machine = Self {
            yard,
            disk,
            volume: None,
            model: workload::new_model(),
        };
        machine.reopen();
        machine
    }

    fn apply(mut machine: Self, _: &u64, transition: Transition) -> Self {
        match transition {
            Transition::Act(wishes) => assert!(machine.act(&wishes)),
            Transition::Crash => {
                machine.volume = None;
                machine.disk.crash();
                machine.reopen();
            }
            Transition::CrashAtSync(nth, wishes) => {
                machine.disk.set_faults(Faults {
                    crash_at_sync: Some(machine.disk.syncs() + nth),
                    ..Faults::default()
                });
                machine.act(&wishes);
                machine.volume = None;
                machine.disk.crash();
                machine.reopen();
            }
            Transition::Kill => machine.reopen(),
            Transition::Close => {
                let volume = machine.volume.as_ref().unwrap();
                run(volume, volume.close()).unwrap();
                machine.reopen();
            }
        }
        machine
    }

    fn check_invariants(machine: &Self, _: &u64) {
        let volume = machine.volume.as_ref().unwrap();
        let stat = volume.stat();
        let model = machine.model.borrow();
        let there = model.blocks(Truth::There).len() as u64;
        assert!((there..=there + model.blocks(Truth::Perhaps).len() as u64).contains(&stat.replicas));
        assert!(stat.used_bytes >= stat.block_bytes && stat.free_bytes <= stat.capacity_bytes);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_volume_does_as_a_map_does(sequential 1..40 => Machine);
}
