//! Volumes on simulated disks beside a model: crashes, faults, and a state machine. A seed replays.

use crate::error::{Kind as ErrorKind, Result};
use crate::sim::model::{Action, Finding, Shared};
use crate::sim::workload::{self, Phase};
use crate::sim::{Fault, Faults, Kind, Plan, Rng, SimDisk, Yard};
use crate::volume::Volume;

mod crashes;
mod faults;
mod machine;

/// The seeds to run: those given as BLOCKYARD_SIM_SEEDS=FROM..TO, else so many.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let given = std::env::var("BLOCKYARD_SIM_SEEDS").ok();
    let range = given.as_deref().and_then(|range| range.split_once(".."));
    let range = range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or(0..count)
}

fn sound<T>(found: std::result::Result<T, Finding>, seed: u64) -> T {
    found.unwrap_or_else(|finding| panic!("seed {seed}: {finding}"))
}

fn opened<T>(opened: Result<T>, seed: u64) -> T {
    opened.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

fn plan(kind: Kind, name_prefix: &'static str, nth: u64, fault: Fault) -> Plan {
    Plan {
        kind,
        name_prefix,
        nth,
        for_ever: false,
        fault,
    }
}

fn harmless(rng: &mut Rng) -> Faults {
    Faults {
        short_per_mille: rng.below(2) * 100,
        interrupted_per_mille: rng.below(2) * 100,
        ..Faults::default()
    }
}

/// Compares everything, and settles what was unknown.
fn compare(volume: &Volume, model: &Shared, seed: u64) {
    let listed = sound(model.borrow().check(volume), seed);
    model.borrow_mut().settle(volume, &listed);
}
