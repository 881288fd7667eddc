//! The one table of what perf can measure.

use anyhow::{Result, bail};

use crate::context::Context;
use crate::scenarios;

/// One scenario: measures and leaves rows in the context's report.
pub(crate) struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&mut Context) -> Result<()>,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "limits",
        about: "what the machine can do: fio on the disk, iperf3 on loopback, memcpy, CRC32C",
        run: scenarios::limits::run,
    },
    Scenario {
        name: "engine",
        about: "one volume in this process: durable puts and verified gets at depth 1, 4, 16, beside fio",
        run: scenarios::engine::run,
    },
    Scenario {
        name: "index",
        about: "a volume of 1,000,000 replicas: start clean and after a crash, memory a replica, puts",
        run: scenarios::index::run,
    },
    Scenario {
        name: "backends",
        about: "the same work through the engine, raw io-uring, tokio-uring, monoio, mmap and threads, beside fio",
        run: scenarios::backends::run,
    },
    Scenario {
        name: "cluster",
        about: "a nameserver and two dataservers as processes: replicated upload and download, beside fio and iperf3",
        run: scenarios::cluster::run,
    },
    Scenario {
        name: "files",
        about: "the same cluster with small files, 16 in parallel: rate and latency",
        run: scenarios::files::run,
    },
    Scenario {
        name: "explain",
        about: "where the time of a block and the CPU of every process go: uploads, downloads, small files",
        run: scenarios::explain::run,
    },
    Scenario {
        name: "net",
        about: "the network layers without a disk: empty calls, blocks and ranges from the read cache, beside iperf3",
        run: scenarios::net::run,
    },
    Scenario {
        name: "meta",
        about: "the nameserver alone: durable creates, lookups, renames, removals, listings, beside empty calls; with few and many files",
        run: scenarios::meta::run,
    },
    Scenario {
        name: "page",
        about: "uploads and downloads through the web page, beside the client library",
        run: scenarios::page::run,
    },
    Scenario {
        name: "repair",
        about: "one of four dataservers is killed: time and rate of the repair, and what readers feel meanwhile",
        run: scenarios::repair::run,
    },
    Scenario {
        name: "slow",
        about: "one of four dataservers is stopped in pulses: what readers and writers feel, and how writes go round it",
        run: scenarios::slow::run,
    },
    Scenario {
        name: "soak",
        about: "processes killed, stopped and cut off under 16 clients, every answer checked: see --seed, --stop-s",
        run: scenarios::soak::run,
    },
    Scenario {
        name: "growth",
        about: "CPU per GiB and memory with 1 to 64 streams, and with more and more stored",
        run: scenarios::growth::run,
    },
    Scenario {
        name: "scaling",
        about: "1, 2, 4, 8 volumes in memory-backed files, beside memory, loopback and as many times one",
        run: scenarios::scaling::run,
    },
    Scenario {
        name: "peers",
        about: "the same files through Blockyard and other systems, round by round: Ceph, GlusterFS, MooseFS, PPYDFS, mounts, S3",
        run: scenarios::peers::run,
    },
];

/// The scenarios of these names, in this order.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    names
        .iter()
        .map(
            |name| match SCENARIOS.iter().find(|scenario| scenario.name == name) {
                Some(scenario) => Ok(scenario),
                None => bail!("there is no scenario '{name}'\n{}", help()),
            },
        )
        .collect()
}

/// The table as text for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Scenarios:\n");
    for scenario in SCENARIOS {
        text.push_str(&format!("  {:<9} {}\n", scenario.name, scenario.about));
    }
    text.push_str(
        "\nWith BLOCKYARD_REQUIRE_ALL=1 a missing tool (fio, iperf3) is an error; without, its rows are skipped.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_order_and_unknown_ones_refused() {
        let names = ["cluster".to_owned(), "limits".to_owned()];
        let chosen: Vec<_> = choose(&names)
            .unwrap()
            .iter()
            .map(|scenario| scenario.name)
            .collect();
        assert_eq!(chosen, ["cluster", "limits"]);
        let error = choose(&["everything".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("everything") && error.contains("limits"));
    }
}
