//! Fails every nth operation of a volume on a simulated disk, once and for ever, in every way that a disk fails.
//!
//! `cargo run --release -p blockyard-engine --features sim --example nth_faults -- [--seeds 0..2] [--every 1]
//! [--steps 24]`

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use blockyard_engine::sim::nth::{Counts, Settings, every_nth};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = pico_args::Arguments::from_env();
    let seeds = arguments.opt_value_from_fn("--seeds", |text| {
        let (from, to) = text.split_once("..").ok_or("--seeds takes FROM..TO")?;
        let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
        Ok::<_, String>(number(from)?..number(to)?)
    })?;
    let seeds = seeds.unwrap_or(0..2);
    let defaults = Settings::default();
    let settings = Settings {
        every: arguments.opt_value_from_str("--every")?.unwrap_or(defaults.every),
        steps: arguments.opt_value_from_str("--steps")?.unwrap_or(defaults.steps),
    };
    if let Some(unknown) = arguments.finish().first() {
        return Err(format!("unknown argument {unknown:?}").into());
    }
    let began = Instant::now();
    let mut sum = Counts::default();
    for seed in seeds.clone() {
        match every_nth(seed, settings) {
            Ok(counts) => sum += counts,
            Err(finding) => {
                println!("seed {seed}: {finding}");
                println!(
                    "replay: cargo run --release -p blockyard-engine --features sim --example nth_faults -- \
                     --seeds {seed}..{} --every {} --steps {}",
                    seed + 1,
                    settings.every,
                    settings.steps
                );
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    println!("seeds     {}..{}", seeds.start, seeds.end);
    println!(
        "runs      {}: each with another operation failing, once or for ever",
        sum.runs
    );
    println!("unopened  {}", sum.unopened);
    println!("latched   {}", sum.latched);
    println!("harmless  {}", sum.harmless);
    println!("findings  0");
    println!("seconds   {:.0}", began.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
