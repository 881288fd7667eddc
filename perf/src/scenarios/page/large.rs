//! One file that is larger than what the nameserver may hold of it in memory, through the page and back.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, interval};

use super::{SCENARIO, http};
use crate::context::Context;
use crate::nodes::Nodes;
use crate::process;
use crate::report::Series;
use crate::scenarios::transfer::Planned;
use crate::workload::Pool;

const MIB: f64 = (1 << 20) as f64;
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(200);

/// How many times what `--size` says it is large.
pub(super) const TIMES: u64 = 8;

pub(super) async fn run(context: &mut Context, nodes: &Nodes, pool: &Pool) -> Result<()> {
    let file = Planned {
        path: "/large".to_owned(),
        number: 1,
        length_bytes: TIMES * context.flags.size_bytes(),
    };
    let (web, pid) = (nodes.web().to_owned(), nodes.pid("nameserver")?);
    for (way, case) in [("put by the page", true), ("get by the page", false)] {
        let mut series = Series::new(SCENARIO, format!("{way}, one file {TIMES} times the size"));
        context.say(format_args!("{way}: {} MiB in one file", file.length_bytes >> 20));
        let (began, mut seen) = (Instant::now(), Vec::new());
        let transfer = async {
            match case {
                true => http::put(&web, pool, &file).await,
                false => http::get(&web, &file, None).await,
            }
        };
        let looking = async {
            let mut ticks = interval(LOOK);
            loop {
                ticks.tick().await;
                match process::rss_bytes(pid) {
                    Ok(bytes) => seen.push(bytes),
                    Err(error) => return error,
                }
            }
        };
        tokio::select! {
            done = transfer => done?,
            error = looking => return Err(error),
        }
        series.add(
            "throughput",
            "MiB/s",
            file.length_bytes as f64 / MIB / began.elapsed().as_secs_f64(),
        );
        // What it takes to get going is not what it takes to go on.
        let going = &seen[seen.len() / TIMES as usize..];
        if let (Some(least), Some(most)) = (going.iter().min(), going.iter().max()) {
            series.add(
                "± of the nameserver's memory",
                "MiB",
                (most - least) as f64 / 2.0 / MIB,
            );
            series.add("memory of the nameserver", "MiB", *most as f64 / MIB);
        }
        context.report.series(&series);
    }
    Ok(())
}
