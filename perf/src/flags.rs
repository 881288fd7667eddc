//! The command line of perf, defined once.

use std::path::PathBuf;

use clap::Parser;

use crate::scenario;

/// Throughput, CPU, flushes and latency of Blockyard beside this machine's limits.
#[derive(Parser, Debug, Clone)]
#[command(name = "blockyard-perf", version, max_term_width = 100, after_help = scenario::help())]
pub struct Flags {
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
    /// Rounds that count; one more goes ahead to warm up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Bytes of one measurement, over all its streams.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub size: u64,
    /// Streams of each case of `cluster`; the bars are for 4.
    #[arg(long, value_name = "LIST", default_value = "4,1", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=256))]
    pub streams: Vec<u32>,
    /// Give every stream a client of its own instead of sharing one.
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
        default_value = "ceph,glusterfs,moosefs",
        value_delimiter = ','
    )]
    #[arg(value_parser = ["ceph", "glusterfs", "moosefs", "none"])]
    pub with: Vec<String>,
    /// A system that runs already, for `peers`: mount=NAME:DIR, with pids=PID+PID behind a comma to count its CPU.
    #[arg(long, value_name = "PEER")]
    pub peer: Vec<String>,
    /// For perf's own use: do one job in this process and print its figures.
    #[arg(long, hide = true, value_name = "JOB", exclusive = true)]
    pub child: Option<String>,
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

fn size(text: &str) -> Result<u64, String> {
    let bytes = text
        .parse::<bytesize::ByteSize>()
        .map_err(|_| format!("'{text}' is no size; write 512MiB or 2GiB"))?
        .as_u64();
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
