//! The power goes: at every sync, at every exchange with the disk, and while a put's write is lost.

use super::*;
use crate::error::Error;
use crate::exec::run;
use crate::sim::model::{length_of, put};
use crate::sim::states::{Counts, Settings, explore};

#[test]
fn acknowledged_is_durable_through_crashes_at_every_sync() {
    let yard = Yard::default();
    for seed in seeds(24) {
        let mut rng = Rng::new(seed);
        let disk = yard.format(seed).unwrap();
        disk.set_flushes_device(!seed.is_multiple_of(5));
        let model = workload::new_model();
        for round in 0..6 {
            let crash_at_sync = if round == 0 {
                rng.below(30) + 6
            } else {
                rng.below(40)
            };
            disk.set_faults(Faults {
                crash_at_sync: Some(crash_at_sync),
                ..harmless(&mut rng)
            });
            // Recovery itself may be cut off, and must then go on from there.
            match yard.open(&disk) {
                Ok((volume, _)) => {
                    let phase = Phase::mixed();
                    sound(workload::operate(&volume, &model, &phase, &mut rng, 60), seed);
                }
                Err(error) => assert!(disk.syncs() > crash_at_sync, "seed {seed}: {error}"),
            }
            disk.crash();
            disk.set_faults(Faults::default());
            let (volume, _) = opened(yard.open(&disk), seed);
            compare(&volume, &model, seed);
            // Dropped without closing: the process is killed, the caches survive.
            drop(volume);
            let (volume, _) = opened(yard.open(&disk), seed);
            compare(&volume, &model, seed);
            if rng.chance(300) {
                run(&volume, volume.close()).unwrap();
            }
        }
    }
}

#[test]
fn every_state_that_a_power_cut_may_leave_is_recovered_from() {
    let settings = Settings {
        rounds: 2,
        steps: 12,
        all_max: 16,
        some: 8,
    };
    let mut yard = Yard::default();
    let mut sum = Counts::default();
    for seed in seeds(6) {
        sum += sound(explore(seed, &mut yard, settings), seed);
    }
    if seeds(6) == (0..6) {
        // Fewer would mean that the workloads no longer reach what they are for.
        assert!(sum.distinct > 1_000, "{sum:?}");
        assert!(
            sum.recuts > 0 && sum.checkpoints > 0 && sum.suspects > 0,
            "{sum:?}"
        );
    }
}

#[test]
fn an_empty_segment_says_after_recovery_what_the_journal_says() {
    let yard = Yard::default();
    let disk = yard.format(1).unwrap();
    let (volume, _) = yard.open(&disk).unwrap();
    run(&volume, put(&volume, 16)).unwrap();
    run(&volume, volume.delete(&[crate::block::BlockId(16)])).unwrap();
    // The record of its cut is in a checkpoint, as if that had come before the superblock.
    run(&volume, volume.close()).unwrap();
    disk.flip("segments/00000000.seg", 8 * 40);
    let (volume, _) = yard.open(&disk).unwrap();
    sound(crate::sim::states::check_superblocks(&volume, &disk), 1);
}

#[test]
fn what_a_killed_process_left_in_caches_is_flushed_before_it_is_trusted() {
    let yard = Yard::default();
    let mut found = 0;
    for seed in seeds(60) {
        let mut rng = Rng::new(seed);
        let disk = yard.format(seed).unwrap();
        let model = workload::new_model();
        let (volume, _) = yard.open(&disk).unwrap();
        sound(workload::do_all(&volume, &model, &[Action::Put(16)]), seed);
        {
            let mut putting = std::pin::pin!(crate::sim::model::act(&volume, &model, Action::Put(32)));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            for _ in 0..rng.below(12) {
                if putting.as_mut().poll(&mut context).is_ready() {
                    break;
                }
                let _ = volume.core().work(false);
            }
        }
        drop(volume);
        let (volume, _) = opened(yard.open(&disk), seed);
        compare(&volume, &model, seed);
        found += model.borrow().blocks(crate::sim::model::Truth::There).len() - 1;
        drop(volume);
        disk.crash();
        let (volume, _) = opened(yard.open(&disk), seed);
        compare(&volume, &model, seed);
    }
    assert!(found > 0);
}

#[test]
fn with_the_newest_checkpoint_damaged_the_older_one_and_its_journal_say_the_same() {
    let yard = Yard::default();
    for seed in seeds(6) {
        let mut rng = Rng::new(seed);
        let disk = yard.format(seed).unwrap();
        let model = workload::new_model();
        let (volume, _) = yard.open(&disk).unwrap();
        let mut phase = Phase::mixed();
        phase.kinds = vec![0, 4];
        let kept = |disk: &SimDisk| {
            disk.files()
                .into_iter()
                .map(|(name, _)| name)
                .rfind(|name| name.starts_with("checkpoint-0"))
        };
        let first = kept(&disk);
        while kept(&disk) == first {
            assert!(sound(
                workload::operate(&volume, &model, &phase, &mut rng, 10),
                seed
            ));
        }
        // No room for another checkpoint: the journal grows until what the older one needs is all that is left.
        let mut no_room = plan(Kind::Write, "checkpoint-", 0, Fault::Error(libc::ENOSPC));
        no_room.for_ever = true;
        disk.set_faults(Faults {
            plans: vec![no_room],
            ..Faults::default()
        });
        while sound(workload::operate(&volume, &model, &phase, &mut rng, 10), seed) {}
        drop(volume);
        disk.set_faults(Faults::default());
        let newest = kept(&disk).unwrap();
        disk.flip(&newest, 8 * 100);
        let (volume, report) = opened(yard.open(&disk), seed);
        assert!(
            report.notes.iter().any(|note| note.contains(&newest)),
            "{:?}",
            report.notes
        );
        compare(&volume, &model, seed);
    }
}

#[test]
fn suspects_are_confirmed_or_forgotten() {
    let yard = Yard::default();
    let mut found = 0;
    for seed in seeds(200) {
        let disk = yard.format(seed).unwrap();
        let (volume, _) = yard.open(&disk).unwrap();
        // The slot's write never reaches the disk, and the power goes before the flush is answered.
        let plans = vec![plan(Kind::Write, "segments/", 1, Fault::Lost)];
        disk.set_faults(Faults {
            plans,
            crash_at_sync: Some(disk.syncs() + 4),
            ..Faults::default()
        });
        let _ = run(&volume, put(&volume, 16));
        drop(volume);
        disk.crash();
        disk.set_faults(Faults::default());
        let (volume, report) = yard.open(&disk).unwrap();
        let Some(&block) = report.suspects.first() else {
            continue;
        };
        found += 1;
        let length = length_of(block.0) as u32;
        assert!(matches!(
            run(&volume, volume.get(block, 0, length, crate::pool::Lane::Read)),
            Err(Error::Suspect { .. })
        ));
        // Its slot is not taken by another while nobody has spoken.
        run(&volume, put(&volume, 32)).unwrap();
        assert_eq!(volume.stat().replicas, 2);
        let places: std::collections::BTreeSet<_> = volume
            .core()
            .state
            .borrow()
            .index
            .behind(None)
            .map(|(_, replica)| replica.place)
            .collect();
        assert_eq!(places.len(), 2, "seed {seed}");
        run(&volume, volume.delete(&[crate::block::BlockId(32)])).unwrap();
        drop(volume);
        let (volume, report) = yard.open(&disk).unwrap();
        assert_eq!(
            (report.suspects.as_slice(), volume.stat().suspects),
            (&[block][..], 1)
        );
        if seed.is_multiple_of(2) {
            assert!(matches!(
                run(&volume, volume.confirm_suspect(block)),
                Err(Error::Corrupt { .. })
            ));
            run(&volume, volume.delete(&[block])).unwrap();
        } else {
            run(&volume, volume.forget_suspect(block)).unwrap();
        }
        assert_eq!((volume.stat().replicas, volume.stat().used_bytes), (0, 0));
    }
    assert!(
        found * 20 >= seeds(200).count(),
        "the fault was hit {found} times only"
    );
}
