//! Throughput, CPU, flushes and latency of Blockyard beside what the machine itself can do.
//!
//! It knows Blockyard only from outside: a volume through the engine's API, a cluster as processes of the
//! `blockyard` binary and through the client library.

#![deny(unsafe_code)]

mod backends;
mod bars;
mod binary;
mod child;
mod cleanup;
mod compare;
mod content;
mod context;
mod disk;
mod explain;
mod fio;
mod flags;
mod iperf;
mod latency;
mod machine;
mod meter;
mod nodes;
mod page;
mod peers;
mod process;
mod report;
mod scenario;
mod scenarios;
mod stats;
mod syscalls;
mod volume;
mod workload;

use std::process::ExitCode;

use anyhow::Result;

pub use crate::flags::Flags;

/// How a run went, measured against its bars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every bar that could be measured is met, or nobody asked.
    Done,
    /// `--strict`, and a bar is missed, or something got worse.
    Below,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Done => ExitCode::SUCCESS,
            Verdict::Below => ExitCode::from(3),
        }
    }
}

/// Runs the scenarios that the flags name, prints the table and the bars, and writes the JSON rows.
///
/// Handles SIGINT, SIGTERM and SIGHUP for the whole process: servers are stopped, folders removed, exit code 130.
///
/// # Errors
/// What kept a scenario from finishing; rows measured before it are printed and written all the same.
pub fn run(flags: &Flags) -> Result<Verdict> {
    if let Some(job) = &flags.child {
        child::serve(job)?;
        return Ok(Verdict::Done);
    }
    match &flags.command {
        Some(flags::Command::Compare(files)) => return compare::run(files),
        Some(flags::Command::Report(files)) => return page::remake(files),
        None => {}
    }
    cleanup::watch_signals()?;
    let chosen = scenario::choose(&flags.chosen())?;
    let mut context = context::Context::new(flags)?;
    let mut outcome = Ok(());
    for scenario in chosen {
        eprintln!("# {}: {}", scenario.name, scenario.about);
        outcome = (scenario.run)(&mut context);
        cleanup::stay_if_interrupted();
        if let Err(error) = outcome {
            outcome = Err(error.context(format!("scenario '{}'", scenario.name)));
            break;
        }
    }
    print!("{}", context.report.table(flags.all));
    print!("{}", explain::table(&context.report));
    let verdicts = bars::judge(&context.report);
    print!("{}", bars::summary(&verdicts));
    if let Some(path) = &flags.json {
        context.report.write_json(path)?;
    }
    if let Some(path) = &flags.html {
        page::write(path, &context.report, &verdicts)?;
    }
    outcome?;
    let missed = verdicts.iter().any(|verdict| verdict.met == Some(false));
    Ok(if flags.strict && missed {
        Verdict::Below
    } else {
        Verdict::Done
    })
}
