//! A process that drives a volume is killed, again and again, and each time another opens the same volume and checks.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use blockyard_engine::Volume;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::Task;
use super::check::Check;
use super::log::{Known, Log};
use super::workload::{CLUSTER, Work};

/// The kill comes at a random moment within this time after the child's first line in the log: opening, and the
/// recovery in it, is at times cut short too.
const LIFE_MAX: Duration = Duration::from_millis(80);
/// A child that opens a volume is given this long at most before it is killed all the same.
const OPENING_MAX: Duration = Duration::from_millis(500);

/// What came out.
#[derive(Default, Debug)]
pub struct Tally {
    pub iterations: u64,
    /// Kills before the child had done anything: while it opened the volume.
    pub killed_opening: u64,
    pub acknowledged: (u64, u64),
    pub verified: u64,
    pub suspects: u64,
    pub findings: Vec<String>,
}

/// Goes on with one volume in `folder`, which must be empty. `each` is told the tally after every iteration.
pub fn run(folder: &Path, iterations: u64, seed: u64, mut each: impl FnMut(&Tally)) -> io::Result<Tally> {
    let (volume, log) = (folder.join("volume"), folder.join("log"));
    Volume::format(&volume, CLUSTER).map_err(io::Error::other)?;
    fs::write(&log, "")?;
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    for iteration in 0..iterations {
        let work = Work {
            volume: volume.clone(),
            log: log.clone(),
            seed: seed.wrapping_mul(1_000_003).wrapping_add(iteration),
            operations: u64::MAX,
            in_flight: rng.random_range(1..=6),
        };
        let before = fs::metadata(&log)?.len();
        let mut child = Task::Work(work).start()?;
        let began = Instant::now();
        let in_opening = rng.random_ratio(1, 8);
        while !in_opening && fs::metadata(&log)?.len() == before && began.elapsed() < OPENING_MAX {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(rng.random_range(Duration::ZERO..LIFE_MAX));
        child.kill()?;
        let status = child.wait()?;
        if status.code().is_some() {
            tally
                .findings
                .push(format!("iteration {iteration}: ended by itself, {status}"));
        }
        tally.killed_opening += u64::from(fs::metadata(&log)?.len() == before);
        // A last line that was not finished was not written.
        super::copy_log(&log, u64::MAX, &log)?;

        let check = Check {
            volume: volume.clone(),
            log: log.clone(),
            close: rng.random_ratio(1, 4),
        };
        let status = Task::Check(check).run()?;
        let known = Known::read(&log)?;
        tally.iterations += 1;
        tally.acknowledged.0 += known.acknowledged.0;
        tally.acknowledged.1 += known.acknowledged.1;
        tally.verified += known.verified;
        tally.suspects += known.suspects;
        if !status.success() || known.checks != 1 {
            tally.findings.push(format!(
                "iteration {iteration}: the check ended with {status} {:?}",
                known.refusals
            ));
        }
        let told = |what: &String| format!("iteration {iteration}: {what}");
        tally.findings.extend(known.findings.iter().map(told));
        each(&tally);
        shorten(&log, &known)?;
    }
    Ok(tally)
}

/// Writes a log anew with one line a block.
fn shorten(path: &Path, known: &Known) -> io::Result<()> {
    fs::remove_file(path)?;
    let mut log = Log::append(path)?;
    for (&block, &(length, fate)) in &known.blocks {
        log.block(block, length, fate);
    }
    Ok(())
}
