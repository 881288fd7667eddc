//! Every nth operation of a workload fails, once or for ever, in every way that a disk fails.

use std::ops::AddAssign;

use super::model::{Action, Finding, Shared};
use super::workload::{self, Phase};
use super::{Fault, Faults, Kind, Plan, Rng, SimDisk, Yard};
use crate::exec::run;
use crate::types::VolumeState;
use crate::volume::Volume;

/// Which of all the operations fail.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Every so many-th; 1 is all of them.
    pub every: u64,
    /// Groups of actions between two openings.
    pub steps: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { every: 1, steps: 24 }
    }
}

/// What came of it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Runs of a workload, each with another operation failing or in another way.
    pub runs: u64,
    /// The volume was not opened.
    pub unopened: u64,
    /// The volume latched.
    pub latched: u64,
    /// The volume worked on.
    pub harmless: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.runs += more.runs;
        self.unopened += more.unopened;
        self.latched += more.latched;
        self.harmless += more.harmless;
    }
}

/// What a volume must make of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    /// It is none.
    Nothing,
    /// Puts may be refused, replicas reported damaged; the volume works on.
    WorksOn,
    /// The volume is not opened, or latches.
    Latches,
    /// Any of these: only no loss, and no panic.
    Anything,
}

/// Every kind of operation on these files, and what may become of it.
const CASES: [(Kind, &str, Fault, Expected); 25] = {
    use Expected::{Anything, Latches, Nothing, WorksOn};
    const EIO: Fault = Fault::Error(libc::EIO);
    const ENOSPC: Fault = Fault::Error(libc::ENOSPC);
    const EAGAIN: Fault = Fault::Error(libc::EAGAIN);
    const EINTR: Fault = Fault::Error(libc::EINTR);
    const ECANCELED: Fault = Fault::Error(libc::ECANCELED);
    [
        (Kind::Read, "", EIO, Anything),
        (Kind::Read, "segments/", EIO, WorksOn),
        (Kind::Read, "", EAGAIN, Nothing),
        (Kind::Read, "", EINTR, Nothing),
        (Kind::Read, "", ECANCELED, Nothing),
        (Kind::Read, "", Fault::Short, Nothing),
        (Kind::Write, "", EIO, Latches),
        (Kind::Write, "", ENOSPC, Anything),
        (Kind::Write, "segments/", ENOSPC, WorksOn),
        (Kind::Write, "", EAGAIN, Nothing),
        (Kind::Write, "", EINTR, Nothing),
        (Kind::Write, "", ECANCELED, Nothing),
        (Kind::Write, "", Fault::Short, Nothing),
        (Kind::Sync, "", EIO, Latches),
        (Kind::Sync, "", ENOSPC, Anything),
        (Kind::Sync, "", EAGAIN, Nothing),
        (Kind::Sync, "", ECANCELED, Nothing),
        (Kind::Allocate, "", EIO, Latches),
        (Kind::Allocate, "segments/", ENOSPC, WorksOn),
        (Kind::Allocate, "", ENOSPC, Anything),
        (Kind::Name, "journal/", EIO, Latches),
        (Kind::Name, "segments/", EIO, Latches),
        (Kind::Name, "checkpoint-spare", EIO, Latches),
        // Where a checkpoint can't be read an older one serves.
        (Kind::Name, "", EIO, Anything),
        (Kind::Name, "", ENOSPC, Anything),
    ]
};

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Unopened,
    Latched,
    Worked,
}

/// Runs the workload of `seed` with every nth operation failing.
pub fn every_nth(seed: u64, settings: Settings) -> Result<Counts, Finding> {
    let mut yard = Yard::new(9 << 20);
    let mut counts = Counts::default();
    for (kind, name_prefix, fault, expected) in CASES {
        // How many of these operations there are: the fault is that of an operation that never comes.
        let plan = |nth, for_ever| Plan {
            kind,
            name_prefix,
            nth,
            for_ever,
            fault,
        };
        let beyond = 1 << 40;
        let (_, left) = one_run(seed, &mut yard, settings, plan(beyond, false), Expected::Nothing)?;
        let operations = beyond - left;
        for nth in (seed % settings.every..operations).step_by(settings.every as usize) {
            for for_ever in [false, true] {
                let expected = match expected {
                    // An operation that never gets through is a failure after all.
                    Expected::Nothing if for_ever && fault != Fault::Short => Expected::Anything,
                    expected => expected,
                };
                let (end, _) =
                    one_run(seed, &mut yard, settings, plan(nth, for_ever), expected).map_err(|finding| {
                        format!("{kind:?} {nth} of {name_prefix:?}, {fault:?}, {for_ever}: {finding}")
                    })?;
                counts.runs += 1;
                match end {
                    End::Unopened => counts.unopened += 1,
                    End::Latched => counts.latched += 1,
                    End::Worked => counts.harmless += 1,
                }
            }
        }
    }
    Ok(counts)
}

/// One run, and how many such operations are still to come before it is the plan's turn.
fn one_run(
    seed: u64,
    yard: &mut Yard,
    settings: Settings,
    plan: Plan,
    expected: Expected,
) -> Result<(End, u64), Finding> {
    let disk = yard.format(seed).map_err(|error| error.to_string())?;
    let model = workload::new_model();
    model.borrow_mut().reads_fail = plan.kind == Kind::Read && expected != Expected::Nothing;
    disk.set_faults(Faults {
        plans: vec![plan],
        ..Faults::default()
    });
    let end = run_script(seed, yard, settings, &disk, &model)?;
    match (expected, end) {
        (Expected::Nothing | Expected::WorksOn, End::Unopened | End::Latched)
        | (Expected::Latches, End::Worked) => return Err(format!("{end:?}, and not {expected:?}")),
        _ => {}
    }
    let left = disk.faults().plans[0].nth;
    disk.set_faults(Faults::default());
    disk.crash();
    let (volume, _) = yard.open(&disk).map_err(|error| format!("afterwards: {error}"))?;
    let listed = model.borrow().check(&volume)?;
    model.borrow_mut().settle(&volume, &listed);
    // As good as new.
    let mut rng = Rng::new(seed);
    if !workload::operate(&volume, &model, &phase(), &mut rng, 2)? {
        return Err(format!("afterwards: {:?}", volume.stat().state));
    }
    Ok((end, left))
}

fn phase() -> Phase {
    Phase {
        kinds: vec![0, 4, 6, 9, 13, 14],
        weights: [50, 35, 4, 30, 6, 3],
        at_once: 5,
        blocks_max: 12,
    }
}

/// Opens, works, is killed, opens again, works, closes.
fn run_script(
    seed: u64,
    yard: &Yard,
    settings: Settings,
    disk: &SimDisk,
    model: &Shared,
) -> Result<End, Finding> {
    let mut rng = Rng::new(seed);
    for closes in [false, true] {
        let Ok((volume, _)) = yard.open(disk) else {
            return Ok(End::Unopened);
        };
        let listed = model.borrow().check(&volume)?;
        model.borrow_mut().settle(&volume, &listed);
        // Blocks of one kind fill a segment and leave it to another kind.
        for step in 0..settings.steps {
            let mut phase = phase();
            phase.kinds = vec![
                phase.kinds[(step / 8) as usize % 3 * 2],
                phase.kinds[(step / 8) as usize % 3 * 2 + 1],
            ];
            if !workload::operate(&volume, model, &phase, &mut rng, 1)? {
                stays_failed(&volume, disk, model)?;
                return Ok(End::Latched);
            }
            if step % 8 == 7 {
                let blocks = model.borrow().blocks(super::model::Truth::There);
                let deletes: Vec<Action> = blocks.into_iter().map(Action::Delete).collect();
                if !workload::do_all(&volume, model, &deletes)? {
                    stays_failed(&volume, disk, model)?;
                    return Ok(End::Latched);
                }
            }
        }
        if let VolumeState::Failed(_) = volume.stat().state {
            stays_failed(&volume, disk, model)?;
            return Ok(End::Latched);
        }
        if closes && run(&volume, volume.close()).is_err() {
            return Ok(End::Latched);
        }
    }
    Ok(End::Worked)
}

/// A failed volume changes nothing any more, though the disk works again, and serves what it can.
fn stays_failed(volume: &Volume, disk: &SimDisk, model: &Shared) -> Result<(), Finding> {
    let faults = disk.faults();
    disk.set_faults(Faults::default());
    let block = model.borrow_mut().new_block(0);
    let epoch = model.borrow().next_epoch();
    for action in [
        Action::Put(block),
        Action::Delete(block),
        Action::Checkpoint,
        Action::Raise(epoch),
    ] {
        if workload::do_all(volume, model, &[action])? {
            return Err(format!("{action:?} on a failed volume"));
        }
    }
    model.borrow().check(volume)?;
    disk.set_faults(faults);
    Ok(())
}
