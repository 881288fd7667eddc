//! The `blockyard-perf` binary: throughput beside the machine's limits.

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match blockyard_perf::run(&blockyard_perf::Flags::parse()) {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            eprintln!("blockyard-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
