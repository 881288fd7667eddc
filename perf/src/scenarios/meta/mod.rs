//! `meta`: the nameserver alone, without dataservers: durable creates of empty files, lookups, renames, removals and
//! listings, beside calls that ask for next to nothing; and the same where there are many files.

mod many;

use std::time::Instant;

use anyhow::{Result, ensure};
use blockyard_client::{Client, ListOptions};
use futures_util::stream::TryStreamExt as _;
use rand::RngExt as _;

use super::calls::{Calls, create, empty_call};
use super::common::{clients, close, on_cluster};
use crate::context::Context;
use crate::nodes::{Nodes, Shape};
use crate::process;
use crate::report::Series;

const SCENARIO: &str = "meta";
const CLIENTS: [usize; 3] = [1, 16, 64];
/// Operations of each client in a round, and of all together at the most.
const EACH: u64 = 512;
const ALL_MAX: u64 = 8192;
/// Names of the directory that is listed.
const LISTED: u64 = 10_000;
/// Files whose memory is told: enough that allocators' habits don't count.
const REMEMBERED: u64 = 50_000;

struct Case {
    clients: usize,
    calls: Calls,
    creates: Calls,
    lookups: Calls,
    renames: Calls,
    removals: Calls,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let mut cases = CLIENTS.map(Case::new);
    let listed = if context.flags.quick { LISTED / 10 } else { LISTED };
    let mut lists = Series::new(SCENARIO, format!("list {listed} names"));
    let rounds = context.flags.rounds();
    // A file without bytes has no blocks, so no dataserver is needed.
    let shape = Shape {
        replication: 1,
        ..Shape::default()
    };
    context.check_space(1 << 30)?;
    on_cluster(context, shape, async |context, nodes| {
        let all = clients(nodes, CLIENTS[2] as u32).await?;
        fill(&all, "/listed", listed).await?;
        for round in 0..=rounds {
            context.say(format_args!("round {round} of {rounds}"));
            for case in &mut cases {
                case.round(context, nodes, &all, round).await?;
            }
            list(&all[0], listed, &mut lists, round > 0).await?;
        }
        memory(context, nodes, &all).await?;
        close(all).await;
        Ok(())
    })?;
    for case in &mut cases {
        case.report(context);
    }
    context.report.series(&lists);
    many::run(context)
}

/// Makes so many empty files in a new folder, all clients at once.
async fn fill(clients: &[Client], folder: &str, count: u64) -> Result<()> {
    clients[0].mkdir(folder, true).await?;
    let shares = clients.iter().enumerate().map(|(first, client)| async move {
        for number in (first as u64..count).step_by(clients.len()) {
            create(client, &format!("{folder}/{number}")).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    futures_util::future::try_join_all(shares).await?;
    Ok(())
}

async fn list(client: &Client, listed: u64, series: &mut Series, counts: bool) -> Result<()> {
    let started = Instant::now();
    let names = client.list_all("/listed", ListOptions::default());
    let count = names
        .try_fold(0, |count, _| std::future::ready(Ok(count + 1)))
        .await?;
    ensure!(count == listed, "{count} of {listed} names were listed");
    if counts {
        let seconds = started.elapsed().as_secs_f64();
        series.add("time", "ms", seconds * 1000.0);
        series.add("rate", "names/s", listed as f64 / seconds);
    }
    Ok(())
}

async fn memory(context: &mut Context, nodes: &Nodes, clients: &[Client]) -> Result<()> {
    let pid = nodes.pid("nameserver")?;
    let files = if context.flags.quick {
        REMEMBERED / 10
    } else {
        REMEMBERED
    };
    context.say(format_args!("{files} more files, for their memory"));
    let before = process::rss_bytes(pid)?;
    fill(clients, "/remembered", files).await?;
    let grown = process::rss_bytes(pid)?.saturating_sub(before);
    let mut series = Series::new(SCENARIO, format!("{files} empty files"));
    series.add("memory", "bytes per file", grown as f64 / files as f64);
    context.report.series(&series);
    Ok(())
}

impl Case {
    fn new(clients: usize) -> Self {
        let calls = |what| Calls::new(SCENARIO, what, clients);
        Self {
            clients,
            calls: calls("empty call"),
            creates: calls("create"),
            lookups: calls("look up"),
            renames: calls("rename"),
            removals: calls("remove"),
        }
    }

    async fn round(
        &mut self,
        context: &mut Context,
        nodes: &Nodes,
        all: &[Client],
        round: u32,
    ) -> Result<()> {
        let (counts, clients) = (round > 0, &all[..self.clients]);
        let each = if context.flags.quick { EACH / 8 } else { EACH };
        let count = (each * self.clients as u64).min(ALL_MAX);
        let folder = format!("/meta-{round}-{}", self.clients);
        clients[0].mkdir(&folder, true).await?;
        let old = |number: u64| format!("{folder}/{number}");
        let new = |number: u64| format!("{folder}/renamed-{number}");
        self.calls
            .measure(context, nodes, clients, count, counts, empty_call)
            .await?;
        self.creates
            .measure(context, nodes, clients, count, counts, async |client, number| {
                create(client, &old(number)).await
            })
            .await?;
        self.lookups
            .measure(context, nodes, clients, count, counts, async |client, _| {
                client.lookup(&old(rand::rng().random_range(0..count))).await?;
                Ok(())
            })
            .await?;
        self.renames
            .measure(context, nodes, clients, count, counts, async |client, number| {
                Ok(client.rename(&old(number), &new(number), false).await?)
            })
            .await?;
        self.removals
            .measure(context, nodes, clients, count, counts, async |client, number| {
                client.remove(&new(number), false).await?;
                Ok(())
            })
            .await
    }

    fn report(&mut self, context: &mut Context) {
        let limit = self.calls.rate();
        self.calls.report(context, None);
        for calls in [
            &mut self.creates,
            &mut self.lookups,
            &mut self.renames,
            &mut self.removals,
        ] {
            calls.report(context, limit);
        }
    }
}
