//! Power cuts of one seed: a workload during which moments are remembered, and what recovery makes of each.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use blockyard_engine::Volume;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::check::Check;
use super::disk::{Cut, Fault, Image, Leaves};
use super::log::Known;
use super::mount::Rig;
use super::workload::{CLUSTER, Work};
use super::{EXIT_ERROR, Task, copy_log};

pub const DISK_BYTES: u64 = 160 << 20;

/// How much to do for a seed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub operations: u64,
    /// Moments of the workload at which the power fails, besides its end.
    pub cuts: usize,
    /// Ways to lose unflushed writes for each of them.
    pub states: u64,
    /// Moments of the first recovery of each cut at which the power fails again.
    pub cuts_of_recovery: usize,
}

/// What came out.
#[derive(Default, Debug)]
pub struct Tally {
    pub cuts: u64,
    /// Recovered states that differ in the disk or in what was acknowledged.
    pub states: u64,
    pub verified: u64,
    pub suspects: u64,
    pub acknowledged: (u64, u64),
    pub findings: Vec<String>,
    /// What the volume said it can't do, while the disk did wrong.
    pub refusals: Vec<String>,
    /// How often the disk did wrong.
    pub faults_struck: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.states += other.states;
        self.verified += other.verified;
        self.suspects += other.suspects;
        self.acknowledged.0 += other.acknowledged.0;
        self.acknowledged.1 += other.acknowledged.1;
        self.findings.extend(other.findings);
        self.refusals.extend(other.refusals);
        self.faults_struck += other.faults_struck;
    }
}

/// Whether a finding is of damage that the volume noticed by itself, and did not return.
pub fn is_noticed(finding: &str) -> bool {
    ["damaged", "Corrupt", "Suspect"]
        .iter()
        .any(|word| finding.contains(word))
}

/// A disk with an empty volume on it, to begin with.
pub fn prepare(rig: &Rig) -> io::Result<Image> {
    rig.make_filesystem(|folder| {
        Volume::format(folder, CLUSTER).expect("formatting");
    })
}

/// Runs a seed from `image` on. `faults` are what the disk does wrong all the while.
pub fn run(rig: &Rig, image: &Image, seed: u64, plan: Plan, faults: &[Fault]) -> io::Result<Tally> {
    let log = rig.folder().join("log");
    fs::write(&log, "")?;
    let work = |volume: &Path| {
        Task::Work(Work {
            volume: volume.to_owned(),
            log: log.clone(),
            seed,
            operations: plan.operations,
            in_flight: 1 + (seed % 6) as usize,
        })
    };
    let (cuts, status) = during(rig, image.clone(), seed, plan.cuts, &log, faults, work)?;
    let known = Known::read(&log)?;
    let mut tally = Tally {
        acknowledged: known.acknowledged,
        findings: known.findings,
        refusals: known.refusals,
        faults_struck: rig.shared.disk().faults_struck(),
        ..Tally::default()
    };
    // A disk that does wrong may end the work, but only by an error of the volume.
    let may_end = tally.faults_struck > 0 && status.code() == Some(EXIT_ERROR);
    if !(status.success() || may_end) {
        tally
            .findings
            .push(format!("ended: the work ended with {status}"));
    }
    let mut rng = SmallRng::seed_from_u64(seed);
    for (number, cut) in cuts.iter().enumerate() {
        let told = format!("seed {seed}, cut {number}");
        let again = recover(
            rig,
            cut,
            &log,
            plan.states,
            plan.cuts_of_recovery,
            &told,
            &mut rng,
            &mut tally,
        )?;
        for (number, (log, cut)) in again.iter().enumerate() {
            let told = format!("{told}, cut {number} of the recovery");
            recover(rig, cut, log, 2, 0, &told, &mut rng, &mut tally)?;
            fs::remove_file(log)?;
        }
    }
    Ok(tally)
}

/// Runs a child on a disk; the moments remembered, the end last, and how the child ended.
fn during(
    rig: &Rig,
    image: Image,
    seed: u64,
    cuts_max: usize,
    log: &Path,
    faults: &[Fault],
    task: impl FnOnce(&Path) -> Task,
) -> io::Result<(Vec<Cut>, ExitStatus)> {
    rig.shared.disk().load(image, seed);
    let mounted = rig.mount()?;
    rig.shared.watch(File::open(log)?);
    {
        let mut disk = rig.shared.disk();
        disk.break_with(faults);
        disk.remember(cuts_max);
    }
    let status = task(&mounted.volume()).run()?;
    let log_bytes = rig.shared.log_bytes();
    let mut disk = rig.shared.disk();
    let mut cuts = disk.take_cuts();
    cuts.push(disk.power_off(log_bytes));
    drop(disk);
    mounted.unmount()?;
    Ok((cuts, status))
}

/// Recovers what a cut leaves, in several ways; cuts of the first recovery, each with its log.
#[allow(clippy::too_many_arguments)]
fn recover(
    rig: &Rig,
    cut: &Cut,
    log: &Path,
    states: u64,
    cuts_of_recovery: usize,
    told: &str,
    rng: &mut SmallRng,
    tally: &mut Tally,
) -> io::Result<Vec<(std::path::PathBuf, Cut)>> {
    let mut seen = HashSet::new();
    let mut again = Vec::new();
    tally.cuts += 1;
    for nth in 0..states {
        let leaves = Leaves::nth(nth, rng);
        let (image, fingerprint) = cut.leaving(leaves, rng);
        if !seen.insert(fingerprint) {
            continue;
        }
        let after = rig.folder().join("log-after");
        copy_log(log, cut.log_bytes, &after)?;
        let before = Known::read(&after)?;
        let check = |volume: &Path| {
            Task::Check(Check {
                volume: volume.to_owned(),
                log: after.clone(),
                close: nth % 2 == 0,
            })
        };
        let cuts_max = if nth == 0 { cuts_of_recovery } else { 0 };
        let recovered = during(rig, image, fingerprint, cuts_max, &after, &[], check);
        let known = Known::read(&after)?;
        tally.states += 1;
        tally.verified += known.verified;
        tally.suspects += known.suspects;
        let mut findings: Vec<String> = known.findings[before.findings.len()..].to_vec();
        match recovered {
            Err(error) => findings.push(format!("refused: {error}")),
            Ok((_, status)) if !status.success() => {
                let why = known.refusals.last().cloned().unwrap_or_default();
                findings.push(format!("ended: the check ended with {status} {why}"));
            }
            Ok(_) if known.checks == before.checks && findings.is_empty() => {
                findings.push("refused: the check came to no end".to_owned());
            }
            Ok((mut cuts, _)) if cuts_max > 0 => {
                // The last is the end of the check: nothing new.
                cuts.pop();
                for cut in cuts {
                    let kept = rig.folder().join(format!("log-{}", again.len()));
                    copy_log(&after, cut.log_bytes, &kept)?;
                    again.push((kept, cut));
                }
            }
            Ok(_) => {}
        }
        let told = |what: &String| format!("{told} at request {} leaving {leaves:?}: {what}", cut.request);
        tally.findings.extend(findings.iter().map(told));
    }
    Ok(again)
}
