//! The crash-state enumerator: workloads whose every exchange with the disk is a moment at which the power may go,
//! and a recovery from each image that it may leave.
//!
//! After each recovery the volume must hold what the model says, and after a second one the same. Some recoveries
//! are cut off themselves, and after some the volume goes on, loses power again, and is compared once more.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::AddAssign;
use std::rc::Rc;

use super::model::{Finding, Model, Shared};
use super::workload::{self, Phase};
use super::{CrashPoint, Faults, Image, Rng, SimDisk, Yard};
use crate::exec::run;
use crate::put::superblock_page;
use crate::space::file_name;
use crate::types::ReplicaInfo;
use crate::volume::Volume;

/// How far a workload is explored.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Times that the volume is opened.
    pub rounds: u64,
    /// Groups of actions between two openings.
    pub steps: u64,
    /// Where the power going leaves at most so many images, all of them are recovered from …
    pub all_max: u64,
    /// … and else so many.
    pub some: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rounds: 4,
            steps: 24,
            all_max: 64,
            some: 24,
        }
    }
}

/// What was seen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Workloads explored.
    pub workloads: u64,
    /// Moments at which the power might go.
    pub moments: u64,
    /// Those of which all images were recovered from.
    pub exhausted: u64,
    /// Images recovered from and compared.
    pub states: u64,
    /// Different images among them.
    pub distinct: u64,
    /// Puts and deletes that were acknowledged.
    pub acknowledged: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Segments that were cut anew.
    pub recuts: u64,
    /// Times that a journal was gone around.
    pub laps: u64,
    /// Recoveries that cut a torn tail.
    pub torn_tails: u64,
    /// Recoveries that found suspects.
    pub suspects: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.workloads += more.workloads;
        self.moments += more.moments;
        self.exhausted += more.exhausted;
        self.states += more.states;
        self.distinct += more.distinct;
        self.acknowledged += more.acknowledged;
        self.checkpoints += more.checkpoints;
        self.recuts += more.recuts;
        self.laps += more.laps;
        self.torn_tails += more.torn_tails;
        self.suspects += more.suspects;
    }
}

/// Each segment's file must say what the journal says of it, for fsck.
pub fn check_superblocks(volume: &Volume, disk: &SimDisk) -> Result<(), Finding> {
    let core = volume.core();
    for (number, segment) in core.state.borrow().space.segments() {
        if disk.page(&file_name(number), 0) != Some(superblock_page(core, number, &segment.cut)) {
            return Err(format!(
                "segment {number} does not say that it is {:?}",
                segment.cut
            ));
        }
    }
    Ok(())
}

/// A moment, and what was known in it.
type Moments = Rc<RefCell<Vec<(CrashPoint, Model)>>>;

struct Explorer<'a> {
    yard: &'a Yard,
    settings: Settings,
    rng: Rng,
    disk: SimDisk,
    flushes_device: bool,
    model: Shared,
    moments: Moments,
    counts: Counts,
    images: HashSet<u64>,
    /// Images and the number of answers with which they were compared.
    compared: HashSet<(u64, u64)>,
}

/// Runs a seed's workload and recovers from what each moment of it may leave. The capacity is the workload's own.
pub fn explore(seed: u64, yard: &mut Yard, settings: Settings) -> Result<Counts, Finding> {
    let mut rng = Rng::new(seed);
    // Few segments, so that they are emptied and cut anew all the time.
    yard.options.capacity_bytes = (2 + rng.below(4)) * (4 << 20) + (1 << 20);
    let disk = yard.format(seed).map_err(|error| error.to_string())?;
    let flushes_device = !seed.is_multiple_of(5);
    disk.set_flushes_device(flushes_device);
    let mut explorer = Explorer {
        yard,
        settings,
        rng,
        disk,
        flushes_device,
        model: workload::new_model(),
        moments: Moments::default(),
        counts: Counts::default(),
        images: HashSet::new(),
        compared: HashSet::new(),
    };
    for round in 0..settings.rounds {
        let ended = explorer.round(round);
        ended.map_err(|finding| format!("seed {seed}, round {round}: {finding}"))?;
    }
    explorer.counts.workloads = 1;
    explorer.counts.distinct = explorer.images.len() as u64;
    explorer.counts.acknowledged = explorer.model.borrow().acknowledged;
    Ok(explorer.counts)
}

impl Explorer<'_> {
    fn round(&mut self, round: u64) -> Result<(), Finding> {
        // The first opening lays the journal out; what can happen on the way is the same each time.
        if round > 0 || self.rng.chance(200) {
            self.watch();
        }
        let (volume, _) = self.yard.open(&self.disk).map_err(|error| error.to_string())?;
        let listed = self.model.borrow().check(&volume)?;
        self.explore_moments()?;
        self.model.borrow_mut().settle(&volume, &listed);
        self.disk.watch(|_| {});
        if self.rng.chance(300) {
            self.go_around(&volume)?;
        }
        self.watch();
        let mut phase = Phase::random(&mut self.rng);
        for step in 0..self.settings.steps {
            if step % 6 == 5 {
                phase = Phase::random(&mut self.rng);
            }
            let works = workload::operate(&volume, &self.model, &phase, &mut self.rng, 1)?;
            if !works {
                return Err(format!("the volume is {:?}", volume.stat().state));
            }
            self.moments
                .borrow_mut()
                .push((self.disk.crash_point(), self.model.borrow().clone()));
            self.explore_moments()?;
        }
        self.count(&volume);
        match self.rng.below(3) {
            0 => run(&volume, volume.close()).map_err(|error| error.to_string())?,
            // The process is killed: what it wrote survives.
            1 => drop(volume),
            _ => {
                drop(volume);
                self.disk.crash();
            }
        }
        self.explore_moments()
    }

    fn count(&mut self, volume: &Volume) {
        let core = volume.core();
        let state = core.state.borrow();
        let generations = state
            .space
            .segments()
            .map(|(_, one)| u64::from(one.cut.generation));
        self.counts.recuts = generations.map(|generation| generation - 1).sum();
        self.counts.laps = u64::from(core.log.head().lap);
        self.counts.checkpoints += volume.stat().checkpoints;
    }

    fn watch(&self) {
        let (moments, model) = (self.moments.clone(), self.model.clone());
        self.disk
            .watch(move |point| moments.borrow_mut().push((point, model.borrow().clone())));
    }

    /// Has the journal go around, or nearly, with nobody looking.
    fn go_around(&mut self, volume: &Volume) -> Result<(), Finding> {
        let mut phase = Phase::random(&mut self.rng);
        phase.kinds = vec![0, 1];
        for _ in 0..self.rng.below(500) {
            workload::operate(volume, &self.model, &phase, &mut self.rng, 1)?;
        }
        Ok(())
    }

    fn explore_moments(&mut self) -> Result<(), Finding> {
        let moments = std::mem::take(&mut *self.moments.borrow_mut());
        for (point, model) in moments {
            let number = self.counts.moments;
            self.counts.moments += 1;
            let choices = point.choices();
            let all = choices.count().filter(|&count| count <= self.settings.all_max);
            self.counts.exhausted += u64::from(all.is_some());
            let mut rng = Rng::new(self.rng.next());
            let mut images = Vec::new();
            choices.images(all.unwrap_or(self.settings.some), &mut rng, |image| {
                images.push(image)
            });
            for image in images {
                self.compare(&image, &model)
                    .map_err(|finding| format!("moment {number}: {finding}"))?;
            }
        }
        Ok(())
    }

    /// Recovers from an image, twice.
    fn compare(&mut self, image: &Image, model: &Model) -> Result<(), Finding> {
        let hash = image.hash();
        if !self.compared.insert((hash, model.answers)) {
            return Ok(());
        }
        self.counts.states += 1;
        self.images.insert(hash);
        let disk = SimDisk::from_image(self.rng.next(), image);
        disk.set_flushes_device(self.flushes_device);
        if self.rng.chance(60) {
            self.cut_off(&disk)?;
        }
        let (listed, epoch) = self.recover(&disk, model)?;
        if self.rng.chance(500) {
            disk.crash();
        }
        let again = self.recover(&disk, model)?;
        if (&again.0, again.1) != (&listed, epoch) {
            return Err(format!(
                "recovered twice, and not the same: {listed:?}, {again:?}"
            ));
        }
        if self.rng.chance(30) {
            self.go_on(&disk, model)?;
        }
        Ok(())
    }

    /// A recovery that loses power.
    fn cut_off(&mut self, disk: &SimDisk) -> Result<(), Finding> {
        let crash_at_sync = self.rng.below(8);
        disk.set_faults(Faults {
            crash_at_sync: Some(crash_at_sync),
            ..Faults::default()
        });
        match self.yard.open_beside(disk) {
            Ok(_) => {}
            Err(_) if disk.syncs() > crash_at_sync => {}
            Err(error) => return Err(error.to_string()),
        }
        disk.set_faults(Faults::default());
        disk.crash();
        Ok(())
    }

    fn recover(&mut self, disk: &SimDisk, model: &Model) -> Result<(Vec<ReplicaInfo>, u64), Finding> {
        let (volume, report) = self.yard.open_beside(disk).map_err(|error| error.to_string())?;
        self.counts.torn_tails += u64::from(report.torn_tail_cut);
        self.counts.suspects += u64::from(!report.suspects.is_empty());
        let listed = model.check(&volume)?;
        check_superblocks(&volume, disk)?;
        Ok((listed, volume.epoch().map_or(0, |epoch| epoch.number)))
    }

    /// What was recovered must be fit to work with.
    fn go_on(&mut self, disk: &SimDisk, model: &Model) -> Result<(), Finding> {
        let (volume, _) = self.yard.open_beside(disk).map_err(|error| error.to_string())?;
        let listed = model.check(&volume)?;
        let mut model = model.clone();
        model.settle(&volume, &listed);
        let model = Rc::new(RefCell::new(model));
        let phase = Phase::random(&mut self.rng);
        disk.set_faults(Faults {
            crash_at_sync: Some(disk.syncs() + self.rng.below(12)),
            ..Faults::default()
        });
        workload::operate(&volume, &model, &phase, &mut self.rng, 6)?;
        drop(volume);
        disk.set_faults(Faults::default());
        disk.crash();
        self.recover(disk, &model.borrow())?;
        Ok(())
    }
}
