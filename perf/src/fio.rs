//! fio: the fixed jobs of `jobs/`, run on the disk to measure, and its JSON.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::cleanup::Process;

/// What a job says of its buffers instead of `iomem=mmap`, to have the best.
const HUGE_BUFFERS: &str = "iomem=shmhuge\nfixedbufs=1\nregisterfiles=1";
/// Huge pages that fio takes beside its buffers.
const HUGE_SPARE_BYTES: u64 = 4 << 20;

/// A job file: the disk's limit for one kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// Sequential writes over a written file.
    Write,
    /// The same, an fdatasync for each batch as large as the depth.
    FlushedWrite,
    /// Sequential writes to a new file, whose extents were only set aside.
    FreshWrite,
    /// The same, an fdatasync for each batch as large as the depth.
    FlushedFreshWrite,
    /// Sequential reads.
    Read,
    /// Random writes, an fdatasync for each batch as large as the depth.
    RandWrite,
    /// Random reads.
    RandRead,
    /// Sequential, reads among writes.
    Mixed {
        /// Of a hundred operations.
        reads_percent: u32,
    },
}

impl Job {
    fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Write | Self::FlushedWrite => ("write.fio", include_str!("../jobs/write.fio")),
            Self::FreshWrite | Self::FlushedFreshWrite => ("fresh.fio", include_str!("../jobs/fresh.fio")),
            Self::Read => ("read.fio", include_str!("../jobs/read.fio")),
            Self::RandWrite => ("randwrite.fio", include_str!("../jobs/randwrite.fio")),
            Self::RandRead => ("randread.fio", include_str!("../jobs/randread.fio")),
            Self::Mixed { .. } => ("mixed.fio", include_str!("../jobs/mixed.fio")),
        }
    }

    /// What the job's file leaves open beside the shape.
    fn variables(self, shape: Shape) -> Vec<(&'static str, String)> {
        match self {
            Self::Write | Self::FreshWrite => vec![("FLUSH", "0".to_owned())],
            Self::FlushedWrite | Self::FlushedFreshWrite => vec![("FLUSH", shape.depth.to_string())],
            Self::Mixed { reads_percent } => vec![("READS", reads_percent.to_string())],
            Self::Read | Self::RandWrite | Self::RandRead => Vec::new(),
        }
    }
}

/// How a job is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub block_bytes: u64,
    pub depth: u32,
    pub size_bytes: u64,
}

/// What fio measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Figures {
    pub mib_per_s: f64,
    pub operations_per_s: f64,
    pub cpu_s_per_gib: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Whether the machine's pool of huge pages (`sysctl vm.nr_hugepages`) holds fio's buffers.
pub(crate) fn has_huge_pages(shape: Shape) -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let free_kib = figure("HugePages_Free")
        .zip(figure("Hugepagesize"))
        .map(|(free, kib)| free * kib);
    free_kib.unwrap_or(0) * 1024 >= u64::from(shape.depth) * shape.block_bytes + HUGE_SPARE_BYTES
}

/// Runs a job on a file that fio keeps in `folder`; the file is laid out before the measuring starts.
pub(crate) fn run(folder: &Path, job: Job, shape: Shape) -> Result<Figures> {
    let (name, text) = job.file();
    run_text(folder, name, text, shape, job.variables(shape))
}

/// As [`run`], with all that the engine has too: huge pages, registered buffers and files.
pub(crate) fn run_huge(folder: &Path, job: Job, shape: Shape) -> Result<Figures> {
    let (name, text) = job.file();
    run_text(
        folder,
        name,
        &text.replace("iomem=mmap", HUGE_BUFFERS),
        shape,
        job.variables(shape),
    )
}

fn run_text(
    folder: &Path,
    name: &str,
    text: &str,
    shape: Shape,
    variables: Vec<(&'static str, String)>,
) -> Result<Figures> {
    let file = folder.join(name);
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Command::new("fio");
    command
        .arg("--output-format=json")
        .arg(&file)
        .current_dir(folder)
        .env("DIR", folder)
        .env("SIZE", shape.size_bytes.to_string())
        .env("BLOCK", shape.block_bytes.to_string())
        .env("DEPTH", shape.depth.to_string())
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let process = Process::spawn("fio", &mut command)?;
    let mut output = String::new();
    if let Some(mut stdout) = process.take_stdout() {
        stdout.read_to_string(&mut output)?;
    }
    let status = process.wait()?;
    if !status.success() {
        bail!("fio {name} failed ({status}): {}", output.trim());
    }
    parse(&output).with_context(|| format!("fio {name}"))
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<JobOutput>,
}

#[derive(Deserialize)]
struct JobOutput {
    error: i64,
    /// Milliseconds.
    job_runtime: f64,
    /// Percent of `job_runtime`.
    usr_cpu: f64,
    sys_cpu: f64,
    read: Side,
    write: Side,
}

#[derive(Deserialize)]
struct Side {
    io_bytes: u64,
    bw_bytes: f64,
    iops: f64,
    clat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    percentile: Option<std::collections::BTreeMap<String, f64>>,
}

/// Reads fio's JSON, before which fio may have printed warnings.
fn parse(output: &str) -> Result<Figures> {
    let start = output.find('{').context("fio printed no JSON")?;
    let output: Output = serde_json::from_str(&output[start..]).context("fio's JSON is not understood")?;
    let [job] = output.jobs.as_slice() else {
        bail!("fio ran {} jobs instead of one", output.jobs.len());
    };
    if job.error != 0 {
        bail!("fio reports error {}", job.error);
    }
    let (read, write) = (&job.read, &job.write);
    let (io_bytes, bw_bytes) = (read.io_bytes + write.io_bytes, read.bw_bytes + write.bw_bytes);
    if io_bytes == 0 || bw_bytes <= 0.0 {
        bail!("fio moved nothing");
    }
    // Of a mixed job the latencies are those of the writes.
    let side = if write.io_bytes > 0 { write } else { read };
    let cpu_s = (job.usr_cpu + job.sys_cpu) / 100.0 * job.job_runtime / 1000.0;
    let percentile_ms = |name: &str| {
        let all = side.clat_ns.percentile.as_ref();
        all.and_then(|all| all.get(name)).copied().unwrap_or(0.0) / 1e6
    };
    Ok(Figures {
        mib_per_s: bw_bytes / f64::from(1 << 20),
        operations_per_s: read.iops + write.iops,
        cpu_s_per_gib: cpu_s / (io_bytes as f64 / f64::from(1 << 30)),
        p50_ms: percentile_ms("50.000000"),
        p99_ms: percentile_ms("99.000000"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) {
        assert!(
            (found - wanted).abs() <= wanted.abs() * 1e-6,
            "{found} is not {wanted}"
        );
    }

    #[test]
    fn a_write_job() {
        let figures = parse(include_str!("fixtures/fio-write.json")).unwrap();
        near(figures.mib_per_s, 2_855_696_340.0 / 1_048_576.0);
        near(figures.operations_per_s, 43_574.468_085);
        near(
            figures.cpu_s_per_gib,
            (11.827_957 + 30.107_527) / 100.0 * 0.093 * 4.0,
        );
        near(figures.p50_ms, 0.350_208);
        near(figures.p99_ms, 0.569_344);
    }

    #[test]
    fn a_read_job_behind_a_warning() {
        let text = format!("note: something\n{}", include_str!("fixtures/fio-randread.json"));
        near(parse(&text).unwrap().operations_per_s, 16_000.0);
    }

    #[test]
    fn a_mixed_job_is_the_sum_of_its_sides() {
        let mut json: serde_json::Value =
            serde_json::from_str(include_str!("fixtures/fio-write.json")).unwrap();
        let job = &mut json["jobs"][0];
        let alone = job["write"].clone();
        job["read"] = alone;
        let (both, alone) = (
            parse(&json.to_string()).unwrap(),
            parse(include_str!("fixtures/fio-write.json")).unwrap(),
        );
        near(both.mib_per_s, 2.0 * alone.mib_per_s);
        near(both.operations_per_s, 2.0 * alone.operations_per_s);
        near(both.cpu_s_per_gib, alone.cpu_s_per_gib / 2.0);
    }

    #[test]
    fn failures_are_told() {
        let good = include_str!("fixtures/fio-write.json");
        assert!(parse("fio: no such file").is_err());
        assert!(parse(&good[..good.len() / 2]).is_err());
        assert!(
            parse(&good.replace("\"error\": 0", "\"error\": 5"))
                .unwrap_err()
                .to_string()
                .contains('5')
        );
        assert!(parse(&good.replace("268435456", "0")).is_err());
        assert!(parse("{\"jobs\": []}").is_err());
    }

    #[test]
    fn jobs_take_their_shape_from_outside_and_bypass_the_page_cache() {
        for job in [
            Job::Write,
            Job::FreshWrite,
            Job::Read,
            Job::RandWrite,
            Job::RandRead,
            Job::Mixed { reads_percent: 50 },
        ] {
            let (name, text) = job.file();
            for needed in [
                "bs=${BLOCK}",
                "iodepth=${DEPTH}",
                "size=${SIZE}",
                "directory=${DIR}",
                "direct=1",
                "iomem=mmap",
            ] {
                assert!(text.lines().any(|line| line == needed), "{name} lacks {needed}");
            }
        }
    }
}
