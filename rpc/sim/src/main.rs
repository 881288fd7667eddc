//! Runs seeds of the simulation and prints what they came to; exit status 1 when a promise was broken.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blockyard_sim::faults::Counts;
use blockyard_sim::run::{Report, run};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs whole clusters in simulated time, one seed after another.
#[derive(Parser)]
struct Flags {
    /// Seeds to run: A..B (without B), or one.
    #[arg(long, default_value = "1..11", value_parser = seeds)]
    seeds: Range<u64>,
    /// Messages of each seed, before the cluster is given time to become whole.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Seeds that run at the same time, each on a thread of its own; they are told of in order.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Prints a line for each seed.
    #[arg(long)]
    each: bool,
    /// Prints the whole trace that concerns a violation instead of its last lines.
    #[arg(long)]
    trace: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

/// All runs together.
#[derive(Default)]
struct Total {
    runs: u64,
    messages: u64,
    kinds: Counts,
    faults: Counts,
    simulated_ms: u64,
    acknowledged: u64,
    refused: u64,
    given_up: u64,
    read: u64,
    unreadable: u64,
    violations: u64,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.messages += report.messages;
        self.simulated_ms += report.simulated_ms;
        self.acknowledged += report.tally.acknowledged;
        self.refused += report.tally.refused;
        self.given_up += report.tally.given_up;
        self.read += report.tally.read;
        self.unreadable += report.tally.unreadable;
        self.violations += u64::from(report.violation.is_some());
        for (kind, count) in &report.kinds {
            *self.kinds.entry(kind).or_insert(0) += count;
        }
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_insert(0) += count;
        }
    }

    fn print(&self, seeds: &Range<u64>, took: Duration) {
        let faults: u64 = self.faults.values().sum();
        println!(
            "seeds {}..{}: {} runs, {} messages, {faults} faults, {:.1} days simulated in {:.1} s ({:.0} messages/s)",
            seeds.start,
            seeds.end,
            self.runs,
            self.messages,
            self.simulated_ms as f64 / 86_400_000.0,
            took.as_secs_f64(),
            self.messages as f64 / took.as_secs_f64(),
        );
        let list = |counts: &Counts| {
            let listed = counts.iter().map(|(kind, count)| format!("{kind} {count}"));
            listed.collect::<Vec<_>>().join(", ")
        };
        println!("messages: {}", list(&self.kinds));
        println!("faults: {}", list(&self.faults));
        println!(
            "operations: {} acknowledged, {} refused, {} given up; {} files read and compared, {} not readable at the time",
            self.acknowledged, self.refused, self.given_up, self.read, self.unreadable
        );
        println!("violations: {}", self.violations);
    }
}

/// Tells of runs in the order of their seeds, whichever ends first.
#[derive(Default)]
struct Told {
    total: Total,
    /// The seed that is told of next.
    next: u64,
    waiting: BTreeMap<u64, (Report, Duration)>,
}

impl Told {
    fn take(&mut self, report: Report, took: Duration, flags: &Flags) {
        self.waiting.insert(report.seed, (report, took));
        while let Some((report, took)) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.total.add(&report);
            if flags.each {
                println!(
                    "seed {}: {} messages ({:.0}/s), {} faults, {:.1} h simulated, whole after {} s, {:?}, digest {:016x}",
                    report.seed,
                    report.messages,
                    report.messages as f64 / took.as_secs_f64(),
                    report.faults.values().sum::<u64>(),
                    report.simulated_ms as f64 / 3_600_000.0,
                    report.whole_after_ms / 1_000,
                    report.tally,
                    report.digest,
                );
            }
            print_violation(&report, flags.trace);
        }
    }
}

fn print_violation(report: &Report, all: bool) {
    /// Lines of a trace that are shown unless all are wanted.
    const LINES: usize = 60;
    let Some((what, trace)) = &report.violation else {
        return;
    };
    println!("VIOLATION, seed {}: {what}", report.seed);
    let from = if all { 0 } else { trace.len().saturating_sub(LINES) };
    for line in &trace[from..] {
        let keys = std::iter::once(&line.key).chain(&line.keys);
        let keys: Vec<String> = keys.map(|key| format!("{key:x}")).collect();
        println!(
            "  {:>10} ms  {:>2} > {:<2} {:<12} {} {}",
            line.at_ms,
            line.from,
            line.to,
            line.what,
            keys.join(","),
            line.note
        );
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let (next, stop) = (AtomicU64::new(flags.seeds.start), AtomicBool::new(false));
    let told = Mutex::new(Told {
        next: flags.seeds.start,
        ..Told::default()
    });
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..flags.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !flags.seeds.contains(&seed) {
                        return;
                    }
                    let began = Instant::now();
                    let report = run(seed, flags.messages);
                    if report.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let mut told = told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    told.take(report, began.elapsed(), &flags);
                }
            });
        }
    });
    let told = told.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let total = told.total;
    total.print(&flags.seeds, started.elapsed());
    match total.violations {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
