//! What open pages cost: how soon they learn of a change, what the nameserver spends on them, and what its other clients
//! notice.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use blockyard_client::Client;
use futures_util::future::try_join_all;
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::SCENARIO;
use super::http;
use crate::context::Context;
use crate::nodes::Nodes;
use crate::process;
use crate::report::Series;
use crate::scenarios::calls::{Calls, create};
use crate::scenarios::transfer::Planned;
use crate::workload::Pool;

/// Pages that are open.
const PAGES: usize = 100;
/// Clients that look files up meanwhile.
pub(super) const CLIENTS: usize = 64;
/// Lookups of a round.
const LOOKUPS: u64 = 8192;
/// How long the nameserver's processor time is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// Between two changes: pages look several times a second, and are not to be met in step.
const BETWEEN: Duration = Duration::from_millis(730);
/// Changes that are timed.
const CHANGES: u32 = 20;
/// Uploads beside which files are looked up, and bytes of each.
const TRANSFERS: u64 = 4;
const TRANSFER_BYTES: u64 = 64 << 20;

/// A stream of events, and the last number of files that it told.
struct OpenPage {
    files: watch::Receiver<u64>,
}

/// Opens so many pages; they close with the set.
async fn open(web: &str, pages: usize, tasks: &mut JoinSet<Result<()>>) -> Result<Vec<OpenPage>> {
    let mut opened = Vec::with_capacity(pages);
    for _ in 0..pages {
        let mut body = http::events(web).await?;
        let (tell, files) = watch::channel(0);
        tasks.spawn(async move {
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame?.into_data() else { continue };
                text.extend_from_slice(&data);
                // Only whole events are looked at.
                while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    if let Some(files) = files_of(&event) {
                        tell.send_replace(files);
                    }
                }
            }
            Ok(())
        });
        opened.push(OpenPage { files });
    }
    Ok(opened)
}

/// The number of files that an event tells, if it does.
fn files_of(event: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(event).ok()?;
    let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
    let told: serde_json::Value = serde_json::from_str(data).ok()?;
    let state = told.get("state").unwrap_or(&told);
    state.get("files")?.as_u64()
}

/// Uploads one file again and again until dropped.
async fn transfer(web: &str, pool: &Pool, bytes: u64, name: String) -> Result<()> {
    let file = Planned {
        path: name,
        number: 1,
        length_bytes: bytes,
    };
    loop {
        http::put(web, pool, &file).await?;
    }
}

/// Seconds of processor time that the nameserver takes in a second.
async fn busy(context: &Context, nodes: &Nodes) -> Result<f64> {
    let pid = nodes.pid("nameserver")?;
    let (before, began) = (process::cpu_s(pid)?, Instant::now());
    sleep(if context.flags.quick {
        WATCHED / 10
    } else {
        WATCHED
    })
    .await;
    Ok((process::cpu_s(pid)? - before) / began.elapsed().as_secs_f64())
}

pub(super) async fn run(context: &mut Context, nodes: &Nodes, clients: &[Client], pool: &Pool) -> Result<()> {
    let (web, rounds) = (nodes.web().to_owned(), context.flags.rounds());
    let mut series = Series::new(SCENARIO, format!("{PAGES} open pages"));
    let mut alone = Calls::new(SCENARIO, "look up", CLIENTS);
    let mut beside = Calls::named(
        SCENARIO,
        format!("look up beside {PAGES} open pages, {CLIENTS} clients"),
    );
    let mut moving = Calls::named(
        SCENARIO,
        format!("look up beside {TRANSFERS} uploads by the page, {CLIENTS} clients"),
    );
    let paths: Rc<Vec<String>> = Rc::new((0..CLIENTS).map(|at| format!("/looked-up/{at}")).collect());
    for path in paths.iter() {
        create(&clients[0], path).await?;
    }
    // They are there before they are overwritten: an upload that is cut short changes the number of files at no time.
    let moving_paths: Vec<String> = (0..TRANSFERS).map(|number| format!("/moving-{number}")).collect();
    for path in &moving_paths {
        create(&clients[0], path).await?;
    }
    let changes = if context.flags.quick {
        CHANGES / 10
    } else {
        CHANGES
    };
    let looked_up = async |client: &Client, number: u64| {
        client.lookup(&paths[number as usize % CLIENTS]).await?;
        Ok(())
    };
    let mut files = clients[0].status().await?.files;
    for round in 0..=rounds {
        context.say(format_args!("{PAGES} open pages, round {round} of {rounds}"));
        let counts = round > 0;
        let without = busy(context, nodes).await?;
        alone
            .measure(context, nodes, clients, LOOKUPS, counts, looked_up)
            .await?;

        let mut tasks = JoinSet::new();
        let mut pages = open(&web, PAGES, &mut tasks).await?;
        for page in &mut pages {
            page.files.wait_for(|told| *told == files).await?;
        }
        let with = busy(context, nodes).await?;
        beside
            .measure(context, nodes, clients, LOOKUPS, counts, looked_up)
            .await?;
        for change in 0..changes {
            sleep(BETWEEN).await;
            create(&clients[0], &format!("/changes/{round}-{change}")).await?;
            let changed = Instant::now();
            files += 1;
            for page in &mut pages {
                page.files.wait_for(|told| *told == files).await?;
            }
            if counts {
                let ms = changed.elapsed().as_secs_f64() * 1000.0;
                series.add("until the last page knows of a change", "ms", ms);
            }
        }
        ensure!(tasks.try_join_next().is_none(), "a page's stream has ended");
        let uploading = moving_paths
            .iter()
            .map(|path| transfer(&web, pool, TRANSFER_BYTES, format!("{path}?overwrite")));
        tokio::select! {
            measured = moving.measure(context, nodes, clients, LOOKUPS, counts, looked_up) => measured?,
            failed = try_join_all(uploading) => drop(failed?),
        }
        files = clients[0].status().await?.files;
        if counts {
            series.add("nameserver's processor", "cores", (with - without).max(0.0));
        }
    }
    context.report.series(&series);
    let rate = alone.rate();
    alone.report(context, None);
    beside.report(context, rate);
    moving.report(context, rate);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_and_deltas_tell_of_files() {
        let snapshot = b"id: 1-2\nevent: snapshot\ndata: {\"state\":{\"files\":7},\"timeline\":[]}\n\n";
        assert_eq!(files_of(snapshot), Some(7));
        assert_eq!(
            files_of(b"id: 1-3\nevent: delta\ndata: {\"files\":8}\n\n"),
            Some(8)
        );
        assert_eq!(files_of(b"event: delta\ndata: {\"blocks\":8}\n\n"), None);
        assert_eq!(files_of(b":\n\n"), None);
    }
}
