//! Ceph's object store, through its own `rados bench`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Facts, System, Took, Work};
use crate::cleanup::Process;
use crate::disk::Disk;
use crate::meter::Meter;
use crate::process;
use crate::workload::Pool;

/// Longer than any work takes: the number of objects ends it.
const SECONDS_MAX: &str = "600";
/// rados writes objects, and perf's large files are streams of objects this long.
const OBJECT_BYTES_MAX: u64 = 4 << 20;

pub(crate) struct Rados {
    facts: Facts,
    conf: PathBuf,
    pool: String,
    servers: Vec<(String, u32)>,
}

/// What `rados bench` says at its end.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Summary {
    seconds: f64,
    operations: u64,
}

impl Rados {
    pub(crate) fn new(facts: Facts, conf: PathBuf, pool: String, servers: Vec<(String, u32)>) -> Self {
        Self {
            facts,
            conf,
            pool,
            servers,
        }
    }

    fn bench(&self, work: Work, kind: &str, disk: Option<&Disk>) -> Result<Took> {
        let object_bytes = work.length_bytes.min(OBJECT_BYTES_MAX);
        let objects = work.bytes() / object_bytes;
        let mut arguments: Vec<String> = ["bench", SECONDS_MAX, kind].map(str::to_owned).into();
        let in_flight = work.workers * work.blocks_in_flight;
        arguments.extend(["-t".to_owned(), in_flight.to_string()]);
        arguments.extend(["--run-name".to_owned(), run_name(work)]);
        if kind == "write" {
            arguments.extend(["-b".to_owned(), object_bytes.to_string()]);
            arguments.extend(["--max-objects".to_owned(), objects.to_string()]);
            arguments.push("--no-cleanup".to_owned());
        }
        let children_s = process::children_cpu_s()?;
        let meter = Meter::start(&self.servers, disk)?;
        let output = self.run(&arguments)?;
        let tool_cpu_s = process::children_cpu_s()? - children_s;
        let mut used = meter.stop()?;
        used.other_s = used.other_s.map(|other| (other - tool_cpu_s).max(0.0));
        let summary = parse(&output)?;
        ensure!(
            summary.operations == objects,
            "rados bench {kind} did {} operations instead of {objects}",
            summary.operations
        );
        Ok(Took {
            used,
            wall_s: summary.seconds,
            tool_cpu_s,
            succeeded: None,
            copies: None,
        })
    }

    /// Runs `rados` to its end and returns what it printed.
    fn run(&self, arguments: &[String]) -> Result<String> {
        let mut command = Command::new("rados");
        command.arg("--conf").arg(&self.conf).args(["--pool", &self.pool]);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let process = Process::spawn("rados", &mut command)?;
        let mut output = String::new();
        if let Some(mut stdout) = process.take_stdout() {
            std::io::Read::read_to_string(&mut stdout, &mut output)?;
        }
        let status = process.wait()?;
        if !status.success() {
            bail!(
                "rados {} failed ({status}): {}",
                arguments.join(" "),
                output.trim()
            );
        }
        Ok(output)
    }
}

fn run_name(work: Work) -> String {
    format!("blockyard-perf-{}", work.id)
}

impl System for Rados {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn servers(&self) -> Vec<(String, u32)> {
        self.servers.clone()
    }

    fn keeps_blocks_in_flight(&self) -> bool {
        true
    }

    /// `rados bench` makes its own data, so the pool of random bytes is not used.
    fn write(&mut self, _: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        self.bench(work, "write", disk)
    }

    /// Reads in the order of writing; `rados bench` compares every object with what it wrote.
    fn read(&mut self, _: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        self.bench(work, "seq", disk)
    }

    fn remove(&mut self, work: Work) -> Result<()> {
        let arguments = ["cleanup".to_owned(), "--run-name".to_owned(), run_name(work)];
        self.run(&arguments).map(drop)
    }
}

fn parse(output: &str) -> Result<Summary> {
    let figure = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim_start_matches(':').trim())
    };
    let seconds = figure("Total time run").context("rados bench told no time")?;
    let operations = figure("Total writes made")
        .or_else(|| figure("Total reads made"))
        .context("rados bench told no number of operations")?;
    let seconds: f64 = seconds
        .parse()
        .with_context(|| format!("'{seconds}' is no time"))?;
    ensure!(seconds > 0.0, "rados bench took no time");
    Ok(Summary {
        seconds,
        operations: operations
            .parse()
            .with_context(|| format!("'{operations}' is no number"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: &str = "hints = 1\nMaintaining 4 concurrent writes of 4194304 bytes\n  sec Cur ops\n    0       0\n\
        Total time run:         0.638\nTotal writes made:      64\nWrite size:             4194304\n\
        Bandwidth (MB/sec):     401.2\nAverage Latency(s):     0.03\n";

    #[test]
    fn summaries_of_writes_and_reads() {
        let wanted = Summary {
            seconds: 0.638,
            operations: 64,
        };
        assert_eq!(parse(WRITE).unwrap(), wanted);
        let read = WRITE.replace("Total writes made:", "Total reads made: ");
        assert_eq!(parse(&read).unwrap(), wanted);
    }

    #[test]
    fn a_summary_that_lacks_something_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse(&WRITE.replace("Total writes", "Total")).is_err());
        assert!(parse(&WRITE.replace("0.638", "soon")).is_err());
        assert!(parse(&WRITE.replace("0.638", "0")).is_err());
    }
}
