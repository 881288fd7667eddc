//! The disk fails: operations, the ring, the medium, its space.

use super::*;
use crate::block::BlockId;
use crate::error::Error;
use crate::exec::run;
use crate::sim::model::{Truth, put};
use crate::sim::nth::{Settings, every_nth};
use crate::types::VolumeState;

#[test]
fn a_failed_write_or_flush_latches_and_nothing_acknowledged_is_lost() {
    let yard = Yard::default();
    for seed in seeds(40) {
        let mut rng = Rng::new(seed ^ 0xfa11);
        let disk = yard.format(seed).unwrap();
        let model = workload::new_model();
        let (volume, _) = yard.open(&disk).unwrap();
        let kind = if rng.chance(500) { Kind::Sync } else { Kind::Write };
        let name = ["segments", "journal", "checkpoint"][rng.below(3) as usize];
        let plans = vec![plan(kind, name, rng.below(20), Fault::Error(libc::EIO))];
        disk.set_faults(Faults {
            plans,
            ..harmless(&mut rng)
        });
        let phase = Phase::mixed();
        let works = sound(workload::operate(&volume, &model, &phase, &mut rng, 100), seed);
        let state = volume.stat().state;
        assert_eq!(
            works,
            state == VolumeState::Serving || state == VolumeState::Full,
            "seed {seed}: {state:?}"
        );
        if !works {
            // Once failed, for ever failed, though the disk works again; reads are served. What is refused does not
            // even begin.
            let untouched = plan(Kind::Write, "segments", 0, Fault::Short);
            disk.set_faults(Faults {
                plans: vec![untouched],
                ..Faults::default()
            });
            let refused = run(&volume, put(&volume, 1 << 40)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Fatal);
            assert_eq!(
                disk.faults().plans[0].nth,
                0,
                "seed {seed}: something was written"
            );
            sound(model.borrow().check(&volume), seed);
        }
        drop(volume);
        disk.set_faults(Faults::default());
        disk.crash();
        let (volume, _) = opened(yard.open(&disk), seed);
        compare(&volume, &model, seed);
    }
}

/// Each nth operation, once and for ever, in every way. A few of them here; all by the example `nth_faults`.
#[test]
fn every_nth_operation_may_fail() {
    let settings = Settings {
        every: 67,
        ..Settings::default()
    };
    for seed in seeds(1) {
        let counts = sound(every_nth(seed, settings), seed);
        assert!(
            counts.runs > 50 && counts.latched > 0 && counts.harmless > 0,
            "{counts:?}"
        );
    }
}

#[test]
fn a_dead_ring_fails_everything_and_hangs_nothing() {
    for seed in seeds(40) {
        let mut rng = Rng::new(seed ^ 0xdead);
        // A pool of its own: what the ring held when it died stays out of it.
        let yard = Yard::new(16 << 20);
        let disk = yard.format(seed).unwrap();
        let model = workload::new_model();
        let (volume, _) = yard.open(&disk).unwrap();
        disk.set_faults(Faults {
            ring_dies_at_turn: Some(disk.turns() + rng.below(400)),
            ..Faults::default()
        });
        let phase = Phase::mixed();
        let works = sound(workload::operate(&volume, &model, &phase, &mut rng, 400), seed);
        assert!(!works, "seed {seed}: {:?}", volume.stat().state);
        assert!(matches!(volume.stat().state, VolumeState::Failed(_)));
        // Nothing that the kernel may still use is used again.
        let usage = volume.stat().pool;
        let out = u64::from(usage.large_used + usage.small_used);
        assert!(out <= disk.given_up() as u64, "seed {seed}: {usage:?}");
        for action in [
            Action::Put(1 << 40),
            Action::Delete(1 << 40),
            Action::Checkpoint,
            Action::Raise(1 << 40),
        ] {
            assert!(
                !sound(workload::do_all(&volume, &model, &[action]), seed),
                "{action:?}"
            );
        }
        drop(volume);
        disk.crash();
        disk.set_faults(Faults::default());
        let (volume, _) = opened(Yard::new(16 << 20).open(&disk), seed);
        compare(&volume, &model, seed);
    }
}

#[test]
fn lost_and_misdirected_writes_and_flipped_bits_are_never_returned() {
    let yard = Yard::default();
    for seed in seeds(40) {
        let mut rng = Rng::new(seed ^ 0x10c7);
        let disk = yard.format(seed).unwrap();
        let (volume, _) = yard.open(&disk).unwrap();
        let fault = if rng.chance(500) {
            Fault::Lost
        } else {
            Fault::Misdirected((1 + rng.below(8)) * 4096)
        };
        let plans = (0..3)
            .map(|_| plan(Kind::Write, "segments/", 1 + rng.below(30), fault))
            .collect();
        disk.set_faults(Faults {
            plans,
            ..Faults::default()
        });
        let blocks: Vec<u64> = (0..40).map(|number| 16 * number + number % 13).collect();
        for &block in &blocks {
            run(&volume, put(&volume, block)).unwrap();
        }
        for _ in 0..3 {
            disk.flip("segments/00000000.seg", rng.below(8 << 20));
        }
        drop(volume);
        let (volume, _) = yard.open(&disk).unwrap();
        let mut damaged = 0;
        for &block in &blocks {
            match run(&volume, crate::sim::model::get_whole(&volume, block)) {
                Ok(right) => assert!(right, "seed {seed}: block {block} came back wrong"),
                Err(Error::Corrupt { .. } | Error::Suspect { .. }) => damaged += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        let stat = volume.stat();
        assert_eq!(stat.corrupt + stat.suspects, damaged, "seed {seed}");
        // Each is healed by putting it again.
        disk.set_faults(Faults::default());
        for &block in &blocks {
            run(&volume, put(&volume, block)).unwrap();
        }
        assert_eq!(
            (volume.stat().corrupt, volume.stat().suspects),
            (0, 0),
            "seed {seed}"
        );
    }
}

#[test]
fn a_replica_that_cannot_be_read_is_reported_and_the_others_are_served() {
    let yard = Yard::default();
    for seed in seeds(40) {
        let mut rng = Rng::new(seed);
        let disk = yard.format(seed).unwrap();
        let (volume, _) = yard.open(&disk).unwrap();
        let blocks: Vec<u64> = (16..40).collect();
        for &block in &blocks {
            run(&volume, put(&volume, block)).unwrap();
        }
        let victim = rng.below(blocks.len() as u64);
        let plans = vec![plan(Kind::Read, "segments/", victim, Fault::Error(libc::EIO))];
        disk.set_faults(Faults {
            plans,
            ..Faults::default()
        });
        let whole = |block| run(&volume, crate::sim::model::get_whole(&volume, block));
        let corrupt: Vec<u64> = blocks
            .iter()
            .copied()
            .filter(|&block| match whole(block) {
                Ok(right) => {
                    assert!(right, "seed {seed}");
                    false
                }
                Err(Error::Corrupt { .. }) => true,
                Err(error) => panic!("seed {seed}: {error}"),
            })
            .collect();
        assert_eq!((corrupt.len(), volume.stat().corrupt), (1, 1), "seed {seed}");
        assert_eq!(volume.stat().state, VolumeState::Serving);
        // It stays out of service, also after a restart, which may find it in the journal or in a checkpoint.
        disk.set_faults(Faults::default());
        assert!(matches!(whole(corrupt[0]), Err(Error::Corrupt { .. })));
        if rng.chance(500) {
            run(&volume, volume.close()).unwrap();
        } else {
            // Whatever is acknowledged later in the journal makes it durable.
            run(&volume, put(&volume, 1 << 20)).unwrap();
            drop(volume);
        }
        let (volume, _) = yard.open(&disk).unwrap();
        assert_eq!(volume.stat().corrupt, 1);
    }
}

#[test]
fn a_put_without_room_is_undone_before_its_caller_hears() {
    let yard = Yard::default();
    let mut refused = 0;
    for seed in seeds(40) {
        let disk = yard.format(seed).unwrap();
        let model = workload::new_model();
        let (volume, _) = yard.open(&disk).unwrap();
        // After the superblock the slot finds no room.
        let plans = vec![plan(Kind::Write, "segments/", 1, Fault::Error(libc::ENOSPC))];
        disk.set_faults(Faults {
            plans,
            ..Faults::default()
        });
        let block = 16 + seed % 10;
        assert!(sound(
            workload::do_all(&volume, &model, &[Action::Put(block)]),
            seed
        ));
        refused += model.borrow().blocks(Truth::Perhaps).len();
        // Nobody may see a block again whose delete was acknowledged, and be it because there was nothing.
        assert!(sound(
            workload::do_all(&volume, &model, &[Action::Delete(block)]),
            seed
        ));
        drop(volume);
        disk.crash();
        disk.set_faults(Faults::default());
        let (volume, _) = opened(yard.open(&disk), seed);
        compare(&volume, &model, seed);
    }
    assert_eq!(refused, seeds(40).count());
}

#[test]
fn a_segment_cut_anew_draws_a_new_seed_and_says_so() {
    // Room for two segments: the second kind of blocks finds them empty, and cut for the first.
    let yard = Yard::new(9 << 20);
    let disk = yard.format(1).unwrap();
    let (volume, _) = yard.open(&disk).unwrap();
    let cuts = || -> Vec<(u16, crate::record::Cut)> {
        let state = volume.core().state.borrow();
        state
            .space
            .segments()
            .map(|(number, segment)| (number, segment.cut))
            .collect()
    };
    let mut seen = std::collections::BTreeSet::new();
    for kind in [0, 9, 4, 12, 0] {
        run(&volume, put(&volume, 16 + kind)).unwrap();
        run(&volume, volume.delete(&[BlockId(16 + kind)])).unwrap();
        for (number, cut) in cuts() {
            seen.insert((number, cut.generation, cut.seed));
        }
    }
    let generations: std::collections::BTreeSet<_> = seen
        .iter()
        .map(|&(number, generation, _)| (number, generation))
        .collect();
    let seeds: std::collections::BTreeSet<_> = seen.iter().map(|&(_, _, seed)| seed).collect();
    assert!(
        seen.len() > 2 && seen.len() == generations.len() && seen.len() == seeds.len(),
        "{seen:?}"
    );
    sound(crate::sim::states::check_superblocks(&volume, &disk), 1);
}

#[test]
fn a_full_filesystem_refuses_puts_and_still_deletes() {
    let yard = Yard::default();
    for seed in seeds(30) {
        let disk = yard.format(seed).unwrap();
        let (volume, _) = yard.open(&disk).unwrap();
        let kinds: [u64; 4] = [0, 5, 9, 13];
        let id = |number: u64| 16 * number + kinds[number as usize % 4];
        let get = |volume: &Volume, block| run(volume, crate::sim::model::get_whole(volume, block));
        run(&volume, put(&volume, id(0))).unwrap();
        // Others took all the space.
        disk.set_capacity(0);
        let mut blocks = 1;
        let error = loop {
            match run(&volume, put(&volume, id(blocks))) {
                Ok(()) => blocks += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "seed {seed}: {error}");
        // Far more deletes than the journal holds without checkpoints.
        for round in 0..400 {
            let block = id(round % blocks);
            run(&volume, volume.delete(&[BlockId(block)])).unwrap();
            run(&volume, put(&volume, block)).unwrap();
            assert!(get(&volume, block).unwrap());
        }
        assert!(volume.stat().checkpoints > 1);
        drop(volume);
        disk.crash();
        let (volume, _) = yard.open(&disk).unwrap();
        assert_eq!(volume.stat().replicas, blocks);
        disk.set_capacity(1 << 40);
        run(&volume, put(&volume, 1 << 40)).unwrap();
    }
}
