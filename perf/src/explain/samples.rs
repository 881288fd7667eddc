//! What processes were doing, sampled by Linux `perf`, and what it prints of it, read back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::purpose::{OTHER, purpose_of};
use crate::cleanup::Process;

/// Samples a second and core: a prime, so that it beats with no timer.
const RATE_HZ: &str = "799";
/// How long `perf` may take until it records.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// From its file being begun until every core is being sampled.
const SETTLE: Duration = Duration::from_millis(200);
/// Threads of the kernel that work for us, by the beginning of their names; `swapper` is the idle loop, in which
/// interrupts are served.
const KERNEL_THREADS: [&str; 8] = [
    "kworker",
    "ksoftirqd",
    "jbd2",
    "swapper",
    "rcu_",
    "kswapd",
    "kcompactd",
    "khugepaged",
];
/// Workers of a process's rings. They belong to it, and its CPU time has theirs.
const RING_WORKERS: [&str; 2] = ["iou-wrk", "iou-sqp"];
/// Where the idle loop halts.
const IDLE: [&str; 7] = [
    "pv_native_safe_halt",
    "native_safe_halt",
    "default_idle",
    "acpi_",
    "mwait_idle",
    "intel_idle",
    "cpuidle_enter",
];

/// Samples being taken of the whole machine.
pub(crate) struct Recording {
    process: Process,
    file: PathBuf,
}

impl Recording {
    /// Starts `perf record` with its file in `folder`, and waits until it samples.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let file = folder.join("perf.data");
        let mut command = Command::new("perf");
        command.args([
            "record",
            "-N",
            "-q",
            "-a",
            "-g",
            "-e",
            "cpu-clock",
            "-F",
            RATE_HZ,
            "-o",
        ]);
        command.arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::spawn("perf record", &mut command)?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !std::fs::metadata(&file).is_ok_and(|meta| meta.len() > 0) {
            if let Some(status) = process.ended()? {
                bail!("perf record has ended ({status}); try: perf record -a -g -e cpu-clock -- sleep 1");
            }
            if Instant::now() > deadline {
                bail!("perf record does not begin");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(SETTLE);
        Ok(Self { process, file })
    }

    /// Ends it and reads the samples back.
    pub(crate) fn stop(self) -> Result<Vec<Sample>> {
        drop(self.process);
        let mut command = Command::new("perf");
        command
            .args(["script", "--no-inline", "-F", "comm,pid,ip,sym", "-i"])
            .arg(&self.file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let process = Process::spawn("perf script", &mut command)?;
        let output = process.take_stdout().context("perf script has no output")?;
        let samples = read(BufReader::new(output))?;
        let status = process.wait()?;
        std::fs::remove_file(&self.file)?;
        if !status.success() {
            bail!("perf script failed ({status})");
        }
        Ok(samples)
    }
}

/// One sample.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    /// The thread's name.
    pub thread: String,
    pub pid: u32,
    pub purpose: &'static str,
    /// The innermost symbol.
    pub symbol: String,
    /// The idle loop, with nothing to do.
    idle: bool,
}

/// Reads what `perf script -F comm,pid,ip,sym` prints: a line with name and id, one line for each symbol of the stack,
/// the innermost first, and an empty line.
fn read(lines: impl BufRead) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut head: Option<(String, u32)> = None;
    let mut stack: Vec<String> = Vec::new();
    for line in lines.split(b'\n').map(Some).chain([None]) {
        let line = line.transpose()?.unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.starts_with([' ', '\t']) {
            if let Some((_, symbol)) = line.trim().split_once(' ') {
                stack.push(symbol.to_owned());
            }
            continue;
        }
        if let Some((thread, pid)) = head.take() {
            samples.push(Sample::of(thread, pid, &stack));
        }
        stack.clear();
        // Names may hold blanks.
        if let Some((thread, pid)) = line.trim_end().rsplit_once(' ') {
            let pid = pid
                .parse()
                .with_context(|| format!("perf script printed '{line}'"))?;
            head = Some((thread.trim_end().to_owned(), pid));
        }
    }
    Ok(samples)
}

impl Sample {
    fn of(thread: String, pid: u32, stack: &[String]) -> Self {
        let symbol = stack.first().cloned().unwrap_or_default();
        Self {
            idle: thread == "swapper" && IDLE.iter().any(|idle| symbol.starts_with(idle)),
            thread,
            pid,
            purpose: purpose_of(stack.iter().map(String::as_str)),
            symbol,
        }
    }
}

/// Where CPU time that belongs to no process of ours goes.
pub(crate) const KERNEL: &str = "kernel threads";
/// Workers of the rings of all processes.
pub(crate) const WORKERS: &str = "ring workers";

/// CPU seconds by process and purpose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Purposes {
    seconds: BTreeMap<(String, &'static str), f64>,
    /// Of the innermost symbols that had no purpose.
    unknown: BTreeMap<String, f64>,
    /// Of metered processes, and the CPU seconds of these.
    sampled: usize,
    metered_s: f64,
}

impl Purposes {
    pub(crate) fn add(&mut self, who: &str, purpose: &'static str, seconds: f64) {
        *self.seconds.entry((who.to_owned(), purpose)).or_default() += seconds;
    }

    /// Shares out what each process used (name, process id, CPU seconds) by its samples. Those of the kernel's threads,
    /// which nobody meters, weigh as much as others do on the average.
    pub(crate) fn share_out(&mut self, samples: &[Sample], used: &[(String, u32, f64)]) {
        let of = |pid: u32| samples.iter().filter(move |sample| sample.pid == pid && pid != 0);
        let (mut sampled, mut metered) = (0, 0.0);
        for (name, pid, seconds) in used {
            let count = of(*pid).count();
            if count == 0 {
                self.add(name, OTHER, *seconds);
                continue;
            }
            (sampled, metered) = (sampled + count, metered + seconds);
            for sample in of(*pid) {
                let worker = RING_WORKERS
                    .iter()
                    .any(|worker| sample.thread.starts_with(worker));
                self.count(
                    sample,
                    if worker { WORKERS } else { name },
                    seconds / count as f64,
                );
            }
        }
        if sampled == 0 {
            return;
        }
        self.sampled += sampled;
        self.metered_s += metered;
        let ours = |pid| used.iter().any(|(_, mine, _)| *mine == pid);
        let kernel = |sample: &&Sample| {
            KERNEL_THREADS.iter().any(|name| sample.thread.starts_with(name))
                && !ours(sample.pid)
                && !sample.idle
        };
        for sample in samples.iter().filter(kernel) {
            self.count(sample, KERNEL, metered / sampled as f64);
        }
    }

    fn count(&mut self, sample: &Sample, who: &str, seconds: f64) {
        self.add(who, sample.purpose, seconds);
        if sample.purpose == OTHER {
            *self.unknown.entry(sample.symbol.clone()).or_default() += seconds;
        }
    }

    /// Process, purpose and seconds.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &'static str, f64)> {
        self.seconds
            .iter()
            .map(|((who, purpose), seconds)| (who.as_str(), *purpose, *seconds))
    }

    /// Samples for each CPU second that was metered: near the rate asked for, or they don't tell much. `None` without any.
    pub(crate) fn samples_per_cpu_s(&self) -> Option<f64> {
        (self.metered_s > 0.0).then(|| self.sampled as f64 / self.metered_s)
    }

    /// The symbols without a purpose that took the most, and their seconds.
    pub(crate) fn unknown(&self) -> Vec<(&str, f64)> {
        let mut symbols: Vec<_> = self
            .unknown
            .iter()
            .map(|(symbol, seconds)| (symbol.as_str(), *seconds))
            .collect();
        symbols.sort_by(|a, b| b.1.total_cmp(&a.1));
        symbols
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Vec<Sample> {
        read(include_bytes!("../fixtures/perf-script.txt").as_slice()).unwrap()
    }

    #[test]
    fn samples_are_read_with_their_purposes() {
        let found: Vec<_> = fixture()
            .into_iter()
            .map(|sample| (sample.thread, sample.pid, sample.purpose, sample.idle))
            .collect();
        let sample = |thread: &str, pid, purpose, idle| (thread.to_owned(), pid, purpose, idle);
        assert_eq!(
            found,
            [
                sample("swapper", 0, "scheduling and wakeups", true),
                sample("volume-0", 41, "disk submission and completion", false),
                sample("volume-0", 41, "checksums", false),
                sample("tokio worker 1", 42, "copy out of sockets", false),
                sample("iou-wrk-42", 42, "filesystem and journal", false),
                sample(
                    "kworker/1:1H-kblockd",
                    77,
                    "disk submission and completion",
                    false
                ),
                sample("fio", 99, "disk submission and completion", false),
                sample("swapper", 0, "TCP/IP", false),
                sample("volume-0", 41, "other", false),
            ]
        );
    }

    #[test]
    fn what_was_metered_is_shared_out() {
        let used = [
            ("dataserver 1".to_owned(), 41, 3.0),
            ("dataserver 2".to_owned(), 42, 1.0),
            ("nameserver".to_owned(), 43, 0.5),
        ];
        let mut purposes = Purposes::default();
        purposes.share_out(&fixture(), &used);
        let found: Vec<_> = purposes
            .all()
            .map(|(who, purpose, s)| (who.to_owned(), purpose, s))
            .collect();
        let part = |who: &str, purpose, seconds| (who.to_owned(), purpose, seconds);
        // Five samples of the first two took 4 seconds: so much does one of the kernel's threads weigh.
        assert_eq!(
            found,
            [
                part("dataserver 1", "checksums", 1.0),
                part("dataserver 1", "disk submission and completion", 1.0),
                part("dataserver 1", "other", 1.0),
                part("dataserver 2", "copy out of sockets", 0.5),
                part(KERNEL, "TCP/IP", 0.8),
                part(KERNEL, "disk submission and completion", 0.8),
                part("nameserver", "other", 0.5),
                part(WORKERS, "filesystem and journal", 0.5),
            ]
        );
        assert_eq!(purposes.unknown()[0].0, "[unknown]");
        assert_eq!(purposes.samples_per_cpu_s(), Some(1.25));
    }

    #[test]
    fn other_text_is_an_error() {
        assert!(read(b"perf: no such event\n\n".as_slice()).is_err());
    }
}
