//! CPU by purpose around a piece of work: by samples where they can be taken, else by user and system time.

use anyhow::Result;

use crate::context::Context;
use crate::explain::purpose::{OTHER, purposes};
use crate::explain::samples::{KERNEL, Purposes, Recording, WORKERS};
use crate::explain::{CPU, SAMPLES};
use crate::meter::Meter;
use crate::nodes::Nodes;
use crate::process;
use crate::report::Series;
use crate::scenarios::common::{Work, record, start_meter};

const CLIENT: &str = "client";
const USER: &str = "user";
const SYSTEM: &str = "system";
/// More than this part of all CPU without a purpose, and the symbols are named.
const UNKNOWN_SHARE: f64 = 0.05;

/// How CPU time is told apart.
pub(super) struct Profiler {
    samples: bool,
}

impl Profiler {
    pub(super) fn new(context: &mut Context) -> Result<Self> {
        let tool = context.has_tool_of("perf", "linux-perf")?;
        let root = rustix::process::geteuid().is_root();
        if !(tool && root) {
            context.report.note(
                "skipped: CPU by purpose needs linux-perf, as root; user and system time of each process stand instead",
            );
        }
        Ok(Self {
            samples: tool && root,
        })
    }

    /// Starts a measurement; in a round that doesn't count there is a meter only.
    pub(super) fn start(&self, context: &mut Context, nodes: &Nodes, counts: bool) -> Result<Running> {
        let folder = context.folder.path();
        let recording = if self.samples && counts {
            Some(Recording::start(folder)?)
        } else {
            None
        };
        let mut processes = vec![(CLIENT.to_owned(), std::process::id())];
        processes.extend(nodes.servers());
        let times = processes
            .iter()
            .map(|(_, pid)| process::user_system_s(*pid))
            .collect::<Result<_>>()?;
        Ok(Running {
            recording,
            processes,
            times,
            meter: start_meter(context, nodes, counts)?,
            counts,
        })
    }
}

/// A measurement under way.
pub(super) struct Running {
    recording: Option<Recording>,
    processes: Vec<(String, u32)>,
    times: Vec<(f64, f64)>,
    meter: Meter,
    counts: bool,
}

impl Running {
    /// Ends it: what was used goes to `series`, what for to `cpu`. Returns how many seconds it took.
    pub(super) fn stop(
        self,
        context: &Context,
        work: Work,
        series: &mut Series,
        cpu: &mut Cpu,
    ) -> Result<f64> {
        let used = self.meter.stop()?;
        record(series, context, &used, work, self.counts);
        if !self.counts {
            return Ok(used.wall_s);
        }
        match self.recording {
            Some(recording) => {
                let metered: Vec<_> = self
                    .processes
                    .into_iter()
                    .zip(&used.cpu_s)
                    .map(|((name, pid), (_, seconds))| (name, pid, *seconds))
                    .collect();
                cpu.purposes.share_out(&recording.stop()?, &metered);
            }
            None => {
                for ((name, pid), (user_s, system_s)) in self.processes.iter().zip(self.times) {
                    let (user_now_s, system_now_s) = process::user_system_s(*pid)?;
                    cpu.purposes.add(name, USER, user_now_s - user_s);
                    cpu.purposes.add(name, SYSTEM, system_now_s - system_s);
                }
            }
        }
        cpu.work += work.operations.map_or(0.0, |(_, count)| count);
        cpu.bytes += work.bytes;
        Ok(used.wall_s)
    }
}

/// What CPU time of all rounds of a case went for.
#[derive(Default)]
pub(super) struct Cpu {
    purposes: Purposes,
    work: f64,
    bytes: f64,
}

/// What CPU time is told of.
#[derive(Clone, Copy)]
pub(super) enum Per {
    Gib,
    File,
}

impl Cpu {
    /// Rows by process and purpose, in the order of both.
    pub(super) fn report(&self, context: &Context, series: &mut Series, per: Per) {
        let (unit, scale) = match per {
            Per::Gib => ("s/GiB", crate::scenarios::GIB / self.bytes.max(1.0)),
            Per::File => ("µs/file", 1e6 / self.work.max(1.0)),
        };
        let place = |who: &str| match who {
            CLIENT => 0,
            WORKERS => 2,
            KERNEL => 3,
            _ => 1,
        };
        let rank = |purpose: &str| purposes().position(|known| known == purpose);
        let mut all: Vec<_> = self.purposes.all().collect();
        all.sort_by_key(|(who, purpose, _)| (place(who), *who, rank(purpose)));
        for (who, purpose, seconds) in all {
            series.add(&format!("{CPU}{who}: {purpose}"), unit, seconds * scale);
        }
        if let Some(rate) = self.purposes.samples_per_cpu_s() {
            series.add(SAMPLES, "per CPU second", rate);
        }
        self.name_unknown(context);
    }

    /// Says which symbols need a purpose, where they matter.
    fn name_unknown(&self, context: &Context) {
        let whole: f64 = self.purposes.all().map(|(.., seconds)| seconds).sum();
        let unknown: f64 = self
            .purposes
            .all()
            .filter(|(_, purpose, _)| *purpose == OTHER)
            .map(|(.., seconds)| seconds)
            .sum();
        if unknown > whole * UNKNOWN_SHARE {
            let symbols = self.purposes.unknown().into_iter().take(8);
            let symbols: Vec<_> = symbols
                .map(|(symbol, s)| format!("{symbol} {:.1} %", s / whole * 100.0))
                .collect();
            context.say(format_args!("without a purpose: {}", symbols.join(", ")));
        }
    }
}
