//! The command line of perf, defined once.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::scenario;

/// Throughput, CPU, flushes and latency of Blockyard beside this machine's limits.
#[derive(Parser, Debug, Clone)]
#[command(name = "blockyard-perf", version, max_term_width = 100, after_help = scenario::help())]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Flags {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Option<Command>,
    /// What to measure, in this order.
    #[arg(required_unless_present = "child", value_name = "SCENARIO")]
    pub scenarios: Vec<String>,
    /// Write the rows to FILE as a JSON array.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the figures to FILE as a page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Put the data of the run in a new folder below DIR, on the disk to measure; it is removed afterwards.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Rounds that count; one more goes ahead to warm up. Of `soak`: one or two faults each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Bytes of one measurement, over all its streams. Of `soak`: what lies stored.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub size: u64,
    /// Streams of each case of `cluster`; the bars are for 4.
    #[arg(long, value_name = "LIST", default_value = "4,1", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=256))]
    pub streams: Vec<u32>,
    /// What `cluster` measures beside uploads, which each round begins with.
    #[arg(long, value_name = "LIST", default_value = "download", value_delimiter = ',')]
    pub cases: Vec<ClusterCase>,
    /// Copies of each block in `cluster`, on as many dataservers; a cluster for each.
    #[arg(long, value_name = "LIST", default_value = "2", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=8))]
    pub replication: Vec<u8>,
    /// In `cluster`, also read from the dataservers' read caches; needs twice --size for each number of streams in memory.
    #[arg(long)]
    pub hot: bool,
    /// Lengths of the files of `files`.
    #[arg(long, value_name = "LIST", default_value = "64KiB,4KiB", value_delimiter = ',', value_parser = file_size)]
    pub file_sizes: Vec<u64>,
    /// Workers of `files`, each of which waits for its own answer; the bars are for 16.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: u32,
    /// In `files`, begin so many operations a second, and take their latency from when each was due; a case for each.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Vec<u32>,
    /// What lies stored while `growth` measures, a cluster for each.
    #[arg(long, value_name = "LIST", default_value = "1GiB,16GiB", value_delimiter = ',', value_parser = size)]
    pub stored: Vec<u64>,
    /// Files that `meta` has the nameserver know while it is measured, beside one with 10,000.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(20_000..=100_000_000))]
    pub files: u64,
    /// What `soak` tries follows from this number; the one that is printed when none is given tries the same again.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Seconds that `soak` stops a server for, and cuts one off at the longest.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=20))]
    pub stop_s: u64,
    /// In `soak`, put the whole cluster on a disk in memory, and have its power fail in each round instead. Needs root,
    /// /dev/fuse, a loop device and mkfs.ext4.
    #[arg(long)]
    pub power_cuts: bool,
    /// The tmpfs in which `scaling` keeps its volumes, and `peers` the files that PPYDFS's client reads.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub memory_dir: PathBuf,
    /// Give every stream of `cluster` and worker of `files` a client of its own instead of sharing one.
    #[arg(long)]
    pub client_per_stream: bool,
    /// A smoke run of less than a minute: little data and one round. Its figures say little.
    #[arg(long)]
    pub quick: bool,
    /// The `blockyard` binary to measure [default: built by cargo, or the one beside this binary].
    #[arg(long, value_name = "PATH", env = "BLOCKYARD_BIN", hide_env_values = true)]
    pub blockyard: Option<PathBuf>,
    /// Show every row in the table: CPU by process, the far percentiles, and the rest of what --json gets.
    #[arg(long)]
    pub all: bool,
    /// Exit with 3 when a bar is missed.
    #[arg(long)]
    pub strict: bool,
    /// Measure 1,000,000 replicas too, behind the rest: the same as naming `index` as well.
    #[arg(long)]
    pub index: bool,
    /// Systems that `peers` sets up on this machine and takes down again, as root.
    #[arg(
        long,
        value_name = "LIST",
        default_value = "ceph,glusterfs,moosefs,moosefs-flushed,ppydfs,ppydfs-repaired",
        value_delimiter = ','
    )]
    #[arg(value_parser = ["ceph", "glusterfs", "moosefs", "moosefs-flushed", "ppydfs", "ppydfs-repaired", "none"])]
    pub with: Vec<String>,
    /// A system that runs already, for `peers`: mount=NAME:DIR or s3=NAME:http://HOST:PORT/BUCKET (keys from
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), with pids=PID+PID behind a comma to count its CPU.
    #[arg(long, value_name = "PEER")]
    pub peer: Vec<String>,
    /// For perf's own use: do one job in this process and print its figures.
    #[arg(long, hide = true, value_name = "JOB", exclusive = true)]
    pub child: Option<String>,
}

/// A kind of work for a cluster.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterCase {
    /// Nothing else than uploads.
    Upload,
    /// Whole files, cold.
    Download,
    /// 64 KiB at random places of 4 MiB blocks, cold.
    Range,
    /// As many streams upload as download, at the same time.
    Mixed,
    /// Uploads to slots that were written before, in a cluster of their own.
    Recycled,
}

/// What perf does beside measuring.
#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Tell what changed between two runs beyond the noise.
    Compare(Compare),
    /// Make one page of the rows that runs have left.
    Report(ReportFlags),
}

/// `report`
#[derive(Args, Debug, Clone)]
pub struct ReportFlags {
    /// The rows (--json) of runs on one machine; of a row that several have, the last counts.
    #[arg(value_name = "ROWS.json", required = true)]
    pub rows: Vec<PathBuf>,
    /// Write the page to FILE.
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
}

/// `compare`
#[derive(Args, Debug, Clone)]
pub struct Compare {
    /// The rows (--json) of the run before.
    #[arg(value_name = "A.json")]
    pub before: PathBuf,
    /// The rows of the run after.
    #[arg(value_name = "B.json")]
    pub after: PathBuf,
    /// Show every row that both have, not only what changed.
    #[arg(long)]
    pub all: bool,
    /// Exit with 3 when something got worse beyond the noise.
    #[arg(long)]
    pub strict: bool,
}

impl Flags {
    /// Bytes of one measurement: a multiple of 4 MiB per stream is up to the scenario.
    pub(crate) fn size_bytes(&self) -> u64 {
        if self.quick {
            self.size.min(128 << 20)
        } else {
            self.size
        }
    }

    /// The scenarios to run: those named, and the one that `--index` adds.
    pub(crate) fn chosen(&self) -> Vec<String> {
        let mut names = self.scenarios.clone();
        if self.index && !names.iter().any(|name| name == "index") {
            names.push("index".to_owned());
        }
        names
    }

    /// Rounds that count.
    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|bytes| bytes.as_u64())
        .map_err(|_| format!("'{text}' is no size; write 64KiB or 2GiB"))
}

fn file_size(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("an empty file has no data to measure; see the scenario meta".into()),
        bytes => Ok(bytes),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)?;
    if bytes < 4 << 20 {
        return Err("less than a block (4 MiB) measures nothing".into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn a_quick_run_is_small() {
        let flags = Flags::parse_from(["blockyard-perf", "cluster", "--quick"]);
        assert_eq!((flags.rounds(), flags.size_bytes()), (1, 128 << 20));
        let flags = Flags::parse_from(["blockyard-perf", "cluster", "--size", "64MiB", "--rounds", "3"]);
        assert_eq!((flags.rounds(), flags.size_bytes()), (3, 64 << 20));
        assert_eq!(flags.streams, [4, 1]);
    }

    #[test]
    fn a_million_replicas_come_once_and_last() {
        let chosen = |args: &[&str]| {
            Flags::parse_from(["blockyard-perf", "engine", "--index"].iter().chain(args)).chosen()
        };
        assert_eq!(chosen(&[]), ["engine", "index"]);
        assert_eq!(chosen(&["index"]), ["engine", "index"]);
        assert!(Flags::try_parse_from(["blockyard-perf"]).is_err());
    }

    #[test]
    fn a_page_is_made_of_several_files() {
        let flags = Flags::parse_from(["blockyard-perf", "report", "a.json", "b.json", "--html", "c.html"]);
        assert!(matches!(flags.command, Some(Command::Report(report)) if report.rows.len() == 2));
        assert!(Flags::try_parse_from(["blockyard-perf", "report", "a.json"]).is_err());
    }

    #[test]
    fn comparing_is_a_command_of_its_own() {
        let flags = Flags::parse_from(["blockyard-perf", "compare", "a.json", "b.json", "--strict"]);
        let Some(Command::Compare(compare)) = flags.command else {
            panic!("compare was taken for a scenario")
        };
        assert!(compare.strict && !compare.all && compare.after.ends_with("b.json"));
        assert!(Flags::try_parse_from(["blockyard-perf", "compare", "a.json"]).is_err());
        assert!(Flags::parse_from(["blockyard-perf", "cluster"]).command.is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            ["--size", "1MiB"],
            ["--size", "much"],
            ["--streams", "0"],
            ["--rounds", "0"],
        ] {
            assert!(
                Flags::try_parse_from(["blockyard-perf", "cluster", bad[0], bad[1]]).is_err(),
                "{bad:?}"
            );
        }
    }
}
