//! kill -9 of a process that drives a volume, again and again on the same volume; nothing acknowledged may be lost.
//!
//! `cargo run --release -p blockyard-engine --example kill_loop -- --iterations 1000 --seed 1`

#[path = "../tests/crash/mod.rs"]
mod crash;

use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if crash::child() {
        return Ok(());
    }
    let mut arguments = pico_args::Arguments::from_env();
    let iterations = arguments.opt_value_from_str("--iterations")?.unwrap_or(1000);
    let seed = arguments.opt_value_from_str("--seed")?.unwrap_or(1);
    println!("{iterations} iterations, seed {seed}");
    let began = Instant::now();
    let folder = tempfile::Builder::new().prefix("blockyard-kill-").tempdir()?;
    let tally = crash::kill::run(folder.path(), iterations, seed, |tally| {
        if tally.iterations.is_multiple_of(100) {
            println!("  after {}: {} findings", tally.iterations, tally.findings.len());
        }
    })?;
    for finding in &tally.findings {
        println!("  {finding}");
    }
    println!(
        "in all: {} kills ({} while opening), {} puts and {} deletes acknowledged, {} acknowledged blocks checked, \
         {} suspects, {} findings in {:.0} s",
        tally.iterations,
        tally.killed_opening,
        tally.acknowledged.0,
        tally.acknowledged.1,
        tally.verified,
        tally.suspects,
        tally.findings.len(),
        began.elapsed().as_secs_f64()
    );
    if tally.findings.is_empty() {
        Ok(())
    } else {
        Err("there are findings".into())
    }
}
