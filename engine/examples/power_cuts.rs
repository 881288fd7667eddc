//! Power cuts on a real io_uring path: an in-memory FUSE disk under a loop device under ext4. Needs root.
//!
//! `cargo run --release -p blockyard-engine --example power_cuts -- --seeds 1..21`
//!
//! With `--faults N` also every one of the first N reads, writes and flushes fails, once and for ever.

#[path = "../tests/crash/mod.rs"]
mod crash;

use std::time::Instant;

use crash::disk::{Fault, Image, Verb};
use crash::mount::{self, Rig};
use crash::power::{DISK_BYTES, Plan, Tally, is_noticed, prepare, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if crash::child() {
        return Ok(());
    }
    if let Some(missing) = mount::missing() {
        return Err(format!("needs {missing}").into());
    }
    let mut arguments = pico_args::Arguments::from_env();
    let mut number = |name, default| {
        arguments
            .opt_value_from_str(name)
            .map(|given| given.unwrap_or(default))
    };
    let plan = Plan {
        operations: number("--operations", 400)?,
        cuts: number("--cuts", 12)? as usize,
        states: number("--states", 8)?,
        cuts_of_recovery: number("--cuts-of-recovery", 1)? as usize,
    };
    let faults = number("--faults", 0)?;
    let seeds = arguments
        .opt_value_from_str("--seeds")?
        .unwrap_or("1..21".to_owned());
    let (from, to) = seeds.split_once("..").ok_or("--seeds FROM..TO")?;
    let (from, to): (u64, u64) = (from.parse()?, to.parse()?);
    println!("seeds {from}..{to}, {plan:?}");
    let began = Instant::now();
    let rig = Rig::new(DISK_BYTES)?;
    let image = prepare(&rig)?;
    let mut total = Tally::default();
    for seed in from..to {
        let tally = run(&rig, &image, seed, plan, &[])?;
        println!(
            "seed {seed}: {} cuts, {} states, {} acknowledged blocks checked, {} suspects, {} findings",
            tally.cuts,
            tally.states,
            tally.verified,
            tally.suspects,
            tally.findings.len()
        );
        for finding in &tally.findings {
            println!("  {finding}");
        }
        total.add(tally);
    }
    println!(
        "in all: {} cuts, {} states, {} puts and {} deletes acknowledged, {} acknowledged blocks checked, \
         {} suspects, {} findings in {:.0} s",
        total.cuts,
        total.states,
        total.acknowledged.0,
        total.acknowledged.1,
        total.verified,
        total.suspects,
        total.findings.len(),
        began.elapsed().as_secs_f64()
    );
    let failed = fail_each(&rig, &image, faults)?;
    if total.findings.is_empty() && failed.is_empty() {
        Ok(())
    } else {
        Err("there are findings".into())
    }
}

/// Fails each of the first `faults` requests of a kind, and recovers what the disk then holds, or held when last
/// flushed; the findings.
fn fail_each(rig: &Rig, image: &Image, faults: u64) -> std::io::Result<Vec<String>> {
    let plan = Plan {
        operations: 60,
        cuts: 0,
        states: 2,
        cuts_of_recovery: 0,
    };
    let mut total = Tally::default();
    let mut runs = 0;
    for verb in [Verb::Read, Verb::Write, Verb::Flush] {
        for (nth, for_ever) in (1..=faults).flat_map(|nth| [(nth, false), (nth, true)]) {
            let fault = Fault::Fail { verb, nth, for_ever };
            let mut tally = run(rig, image, nth, plan, &[fault])?;
            if verb == Verb::Read {
                // What can't be read is out of service.
                tally.findings.retain(|finding| !is_noticed(finding));
            }
            for finding in &tally.findings {
                println!("  {fault:?}: {finding}");
            }
            runs += u64::from(tally.faults_struck > 0);
            total.add(tally);
        }
    }
    if faults > 0 {
        println!(
            "failing requests: {runs} runs, {} states, {} acknowledged blocks checked, {} findings",
            total.states,
            total.verified,
            total.findings.len()
        );
    }
    Ok(total.findings)
}
