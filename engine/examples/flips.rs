//! Flips every bit of a volume's metadata, one by one, and random bits of its blocks; ends with 1 when one is not told.
//!
//! `cargo run --release -p blockyard-engine --example flips -- --data-bits 100000 --seed 1`

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/flip/mod.rs"]
mod flip;

use std::process::ExitCode;
use std::time::Instant;

use flip::made::Left;
use flip::{Share, Tally};

fn main() -> Result<ExitCode, pico_args::Error> {
    let mut arguments = pico_args::Arguments::from_env();
    let share = Share {
        stride: arguments.opt_value_from_str("--stride")?.unwrap_or(1),
        samples: arguments.opt_value_from_str("--samples")?.unwrap_or(20),
        data_bits: arguments.opt_value_from_str("--data-bits")?.unwrap_or(100_000),
        seed: arguments.opt_value_from_str("--seed")?.unwrap_or(1),
    };
    println!("{share:?}");
    let began = Instant::now();
    let progress = |what: &str| println!("{:6.0} s  {what}", began.elapsed().as_secs_f64());
    let mut sum = Tally::default();
    std::thread::scope(|scope| {
        let parts = [
            scope.spawn(|| flip::metadata(Left::Closed, &share, progress)),
            scope.spawn(|| flip::metadata(Left::Killed, &share, progress)),
        ];
        for part in parts {
            sum.add(part.join().expect("judging ends"));
        }
    });
    sum.add(flip::data(&share, progress));
    for line in sum.lines() {
        println!("{line}");
    }
    for failure in &sum.failures {
        println!("UNDETECTED {failure}");
    }
    println!(
        "in all: {} bits flipped, {} undetected, seed {}, {:.0} s",
        sum.flips(),
        sum.failures.len(),
        share.seed,
        began.elapsed().as_secs_f64()
    );
    Ok(ExitCode::from(u8::from(!sum.failures.is_empty())))
}
