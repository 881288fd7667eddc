//! `fsck`: names against volumes. Walks every file and what every volume holds, through the nameserver.

use std::time::{Duration, Instant};

use blockyard_client::{Client, ListOptions};
use blockyard_wire::types::{BlockId, FileInfo, ReplicaState, VolumeId};
use blockyard_wire::{Problem, ProblemKind};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::{flags, output};

/// Findings of a kind that are kept; the rest is counted.
const KEPT_MAX: usize = 10_000;
/// Findings of a kind that are shown to people.
const LINES_MAX: usize = 20;
/// Files whose blocks are asked for at a time.
const FILES_AT_A_TIME: usize = 16;
/// Entries of one page.
const PAGE: u32 = 1000;
/// Pause between two looks at a repair, and how long nothing may change before it counts as stuck.
const LOOK: Duration = Duration::from_millis(500);
const STUCK: Duration = Duration::from_secs(60);

/// Findings of one kind: the first ones, and how many there are.
#[derive(Serialize)]
struct Found<T> {
    count: u64,
    list: Vec<T>,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self {
            count: 0,
            list: Vec::new(),
        }
    }
}

impl<T> Found<T> {
    fn add(&mut self, one: T) {
        self.count += 1;
        if self.list.len() < KEPT_MAX {
            self.list.push(one);
        }
    }
}

/// A block that a file needs, with fewer good replicas on volumes that answer than wanted.
#[derive(Serialize)]
struct Short {
    path: String,
    index: u32,
    block: String,
    live: usize,
    wanted: u8,
}

/// A replica that is not good.
#[derive(Serialize)]
struct Bad {
    volume: String,
    block: String,
    state: ReplicaState,
    path: String,
}

/// A block on a volume that nobody knows.
#[derive(Serialize)]
struct Unknown {
    volume: String,
    block: String,
    age_ms: u64,
}

#[derive(Default, Serialize)]
struct Report {
    healthy: bool,
    files: u64,
    blocks: u64,
    volumes_compared: u32,
    /// Blocks without a good replica that answers.
    missing: Found<Short>,
    under_replicated: Found<Short>,
    /// Corrupt or suspect.
    damaged: Found<Bad>,
    /// To be deleted once they are old enough; no fault.
    orphaned: Found<Unknown>,
    quarantined: Found<Unknown>,
    /// What could not be looked at.
    trouble: Vec<String>,
}

/// Not all is as it should be.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
struct Unhealthy(&'static str);

/// Checks names against volumes.
///
/// # Errors
/// Something was found, or the nameserver does not answer.
pub async fn fsck(flags: flags::Fsck, client: &Client) -> anyhow::Result<()> {
    if flags.release_quarantine {
        let reigns = client.release_quarantine().await?;
        output::note(&match reigns {
            0 => "nothing was quarantined".to_owned(),
            _ => "the quarantine is lifted: what nobody knows is deleted once it is old enough".to_owned(),
        });
    }
    let mut report = look(client).await?;
    if flags.repair && !report.healthy {
        output::note(&format!("found: {}; waiting for repair", report.counts()));
        wait_for_repair(client).await?;
        report = look(client).await?;
    }
    match flags.form.json {
        true => output::json(&report)?,
        false => tell(&report)?,
    }
    match report.healthy {
        true => Ok(()),
        false => Err(Unhealthy(match flags.repair {
            true => "not all could be repaired",
            false => {
                "not all is in order; --repair has doubtful replicas examined again, and waits for repair"
            }
        })
        .into()),
    }
}

async fn look(client: &Client) -> anyhow::Result<Report> {
    let mut report = Report::default();
    // First, so that what is told below is how it is now.
    match client.reconcile().await {
        Ok(volumes) => report.volumes_compared = volumes,
        Err(problem) => report
            .trouble
            .push(format!("not all volumes could be compared: {problem}")),
    }
    files(client, &mut report).await?;
    volumes(client, &mut report).await?;
    report.healthy = report.missing.count == 0
        && report.under_replicated.count == 0
        && report.damaged.count == 0
        && report.quarantined.count == 0
        && report.trouble.is_empty();
    Ok(report)
}

/// Every file with every block.
async fn files(client: &Client, report: &mut Report) -> anyhow::Result<()> {
    let everything = ListOptions {
        recursive: true,
        ..ListOptions::default()
    };
    let all = client
        .list_all("/", everything)
        .try_filter(|entry| std::future::ready(!entry.directory))
        .map_ok(|entry: FileInfo| async move {
            match client.info(&entry.path).await {
                // It was deleted or replaced since it was listed.
                Err(problem) if matches!(problem.kind, ProblemKind::NotFound | ProblemKind::Gone) => Ok(None),
                told => told.map(Some),
            }
        })
        .try_buffered(FILES_AT_A_TIME);
    futures_util::pin_mut!(all);
    while let Some(file) = all.next().await {
        let Some((file, blocks)) = file? else { continue };
        report.files += 1;
        report.blocks += blocks.len() as u64;
        for block in blocks {
            let good = |replica: &&blockyard_wire::types::Location| {
                replica.live && replica.state == ReplicaState::Good
            };
            let live = block.replicas.iter().filter(good).count();
            if live >= usize::from(file.replication) {
                continue;
            }
            let short = Short {
                path: file.path.clone(),
                index: block.index,
                block: block.block.to_string(),
                live,
                wanted: file.replication,
            };
            match live {
                0 => report.missing.add(short),
                _ => report.under_replicated.add(short),
            }
        }
    }
    Ok(())
}

/// What every volume holds: replicas that are not good, blocks that nobody knows.
async fn volumes(client: &Client, report: &mut Report) -> anyhow::Result<()> {
    let status = client.status().await?;
    for volume in status.servers.iter().flat_map(|server| &server.volumes) {
        let id = volume.report.id;
        damaged(client, id, report).await?;
        let mut after = BlockId(0);
        loop {
            let (orphans, more) = client.orphans(id, after, PAGE).await?;
            let Some(last) = orphans.last() else { break };
            after = last.block;
            for orphan in orphans {
                let unknown = Unknown {
                    volume: id.to_string(),
                    block: orphan.block.to_string(),
                    age_ms: orphan.age_ms,
                };
                match orphan.quarantined {
                    true => report.quarantined.add(unknown),
                    false => report.orphaned.add(unknown),
                }
            }
            if !more {
                break;
            }
        }
    }
    Ok(())
}

async fn damaged(client: &Client, id: VolumeId, report: &mut Report) -> Result<(), Problem> {
    let mut after = BlockId(0);
    loop {
        let (held, more) = client.replicas_of(id, after, PAGE).await?;
        let Some(last) = held.last() else { return Ok(()) };
        after = last.block;
        for held in held {
            if held.state != ReplicaState::Good {
                report.damaged.add(Bad {
                    volume: id.to_string(),
                    block: held.block.to_string(),
                    state: held.state,
                    path: held.path,
                });
            }
        }
        if !more {
            return Ok(());
        }
    }
}

/// Waits until nothing is left to repair, or nothing changes any more.
async fn wait_for_repair(client: &Client) -> anyhow::Result<()> {
    let mut last = None;
    let mut changed = Instant::now();
    loop {
        let status = client.status().await?;
        let left = (
            status.missing_blocks,
            status.under_replicated_blocks,
            status.corrupt_replicas,
            status.pending_deletes,
        );
        if left.0 + left.1 + left.2 == 0 && status.repairing == 0 && !status.safe_mode {
            return Ok(());
        }
        if last != Some(left) || status.repairing > 0 || status.safe_mode {
            last = Some(left);
            changed = Instant::now();
        }
        if changed.elapsed() >= STUCK {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Report {
    fn counts(&self) -> String {
        format!(
            "{} missing, {} under-replicated, {} damaged, {} quarantined, {} orphaned",
            output::count(self.missing.count, "block", "blocks"),
            output::count(self.under_replicated.count, "block", "blocks"),
            output::count(self.damaged.count, "replica", "replicas"),
            output::count(self.quarantined.count, "replica", "replicas"),
            output::count(self.orphaned.count, "replica", "replicas"),
        )
    }
}

fn tell(report: &Report) -> anyhow::Result<()> {
    output::line(format!(
        "checked      {} of {} on {}",
        output::count(report.blocks, "block", "blocks"),
        output::count(report.files, "file", "files"),
        output::count(u64::from(report.volumes_compared), "volume", "volumes")
    ))?;
    let age = |unknown: &Unknown| output::duration(Duration::from_millis(unknown.age_ms));
    let short = |word: &'static str| {
        move |short: &Short| {
            format!(
                "{word} {} block {} ({}): {} of {} replicas",
                short.path, short.index, short.block, short.live, short.wanted
            )
        }
    };
    lines(&report.missing, short("missing     "))?;
    lines(&report.under_replicated, short("short       "))?;
    lines(&report.damaged, |bad: &Bad| {
        let state = match bad.state {
            ReplicaState::Suspect => "suspect",
            _ => "damaged",
        };
        format!(
            "{state:<12} block {} on volume {} {}",
            bad.block, bad.volume, bad.path
        )
    })?;
    lines(&report.quarantined, |unknown: &Unknown| {
        format!(
            "quarantined  block {} on volume {}, seen for {}",
            unknown.block,
            unknown.volume,
            age(unknown)
        )
    })?;
    lines(&report.orphaned, |unknown: &Unknown| {
        format!(
            "orphaned     block {} on volume {}, seen for {}",
            unknown.block,
            unknown.volume,
            age(unknown)
        )
    })?;
    for trouble in &report.trouble {
        output::line(format!("trouble      {}", output::safe(trouble)))?;
    }
    output::line(match report.healthy {
        true => "all is in order".to_owned(),
        false => report.counts(),
    })?;
    Ok(())
}

fn lines<T>(found: &Found<T>, line: impl Fn(&T) -> String) -> anyhow::Result<()> {
    for one in found.list.iter().take(LINES_MAX) {
        output::line(output::safe(&line(one)))?;
    }
    let shown = found.list.len().min(LINES_MAX) as u64;
    if found.count > shown {
        output::line(format!(
            "             … and {} more (--json has more of them)",
            found.count - shown
        ))?;
    }
    Ok(())
}
