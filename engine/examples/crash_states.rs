//! Recovers volumes on a simulated disk from every state that a power cut may leave them in.
//!
//! `cargo run --release -p blockyard-engine --features sim --example crash_states -- --seeds 0..200 [--threads 2]
//! [--rounds 4] [--steps 24] [--all 64] [--some 24]`

use std::collections::VecDeque;
use std::error::Error;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use blockyard_engine::sim::Yard;
use blockyard_engine::sim::states::{Counts, Settings, explore};

struct Flags {
    seeds: Range<u64>,
    threads: usize,
    settings: Settings,
}

fn flags() -> Result<Flags, Box<dyn Error>> {
    let mut arguments = pico_args::Arguments::from_env();
    let seeds = arguments.opt_value_from_fn("--seeds", |text| {
        let (from, to) = text.split_once("..").ok_or("--seeds takes FROM..TO")?;
        let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
        Ok::<_, String>(number(from)?..number(to)?)
    })?;
    let defaults = Settings::default();
    let flags = Flags {
        seeds: seeds.unwrap_or(0..200),
        threads: arguments.opt_value_from_str("--threads")?.unwrap_or(2),
        settings: Settings {
            rounds: arguments
                .opt_value_from_str("--rounds")?
                .unwrap_or(defaults.rounds),
            steps: arguments.opt_value_from_str("--steps")?.unwrap_or(defaults.steps),
            all_max: arguments.opt_value_from_str("--all")?.unwrap_or(defaults.all_max),
            some: arguments.opt_value_from_str("--some")?.unwrap_or(defaults.some),
        },
    };
    match arguments.finish().first() {
        Some(unknown) => Err(format!("unknown argument {unknown:?}").into()),
        None => Ok(flags),
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let flags = flags()?;
    let began = Instant::now();
    let left: Mutex<VecDeque<u64>> = Mutex::new(flags.seeds.clone().collect());
    let sum = Mutex::new((Counts::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..flags.threads {
            scope.spawn(|| {
                let mut yard = Yard::default();
                loop {
                    let Some(seed) = left.lock().unwrap().pop_front() else {
                        break;
                    };
                    let explored =
                        catch_unwind(AssertUnwindSafe(|| explore(seed, &mut yard, flags.settings)));
                    let mut sum = sum.lock().unwrap();
                    match explored {
                        Ok(Ok(counts)) => sum.0 += counts,
                        Ok(Err(finding)) => sum.1.push((seed, finding)),
                        Err(_) => sum.1.push((seed, format!("seed {seed}: a panic"))),
                    }
                }
            });
        }
    });
    let (counts, findings) = sum.into_inner().unwrap();
    println!("seeds        {}..{}", flags.seeds.start, flags.seeds.end);
    println!("workloads    {}", counts.workloads);
    println!("acknowledged {} puts and deletes", counts.acknowledged);
    println!("checkpoints  {}", counts.checkpoints);
    println!("re-cuts      {}", counts.recuts);
    println!("laps         {}", counts.laps);
    println!(
        "moments      {}, {} of them exhausted",
        counts.moments, counts.exhausted
    );
    println!("states       {}", counts.states);
    println!("distinct     {}", counts.distinct);
    println!("torn tails   {}", counts.torn_tails);
    println!("suspects in  {}", counts.suspects);
    println!("findings     {}", findings.len());
    println!("seconds      {:.0}", began.elapsed().as_secs_f64());
    for (seed, finding) in &findings {
        let Settings {
            rounds,
            steps,
            all_max,
            some,
        } = flags.settings;
        println!("\n{finding}");
        println!(
            "replay: cargo run --release -p blockyard-engine --features sim --example crash_states -- \
             --seeds {seed}..{} --rounds {rounds} --steps {steps} --all {all_max} --some {some}",
            seed + 1
        );
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
