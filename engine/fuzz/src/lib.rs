//! Counts what a fuzz target's executions did, and says so now and then: libFuzzer tells of executions alone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use blockyard_engine::fuzz_doors::is_repaired;

/// Executions between two lines of figures.
const EVERY: u64 = 10_000;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static REPAIRED: AtomicU64 = AtomicU64::new(0);
static DECODED: AtomicU64 = AtomicU64::new(0);

/// Takes one input through a door.
pub fn run(input: &[u8], door: fn(&[u8]) -> bool) {
    REPAIRED.fetch_add(is_repaired(input).into(), Relaxed);
    DECODED.fetch_add(door(input).into(), Relaxed);
    let executions = EXECUTIONS.fetch_add(1, Relaxed) + 1;
    if executions.is_multiple_of(EVERY) {
        let (repaired, decoded) = (REPAIRED.load(Relaxed), DECODED.load(Relaxed));
        eprintln!("figures: {executions} executions, {repaired} repaired, {decoded} decoded");
    }
}
