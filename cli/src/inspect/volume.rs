//! A volume's folder on this machine: fsck.

use blockyard_engine::{FsckOptions, FsckReport, fsck as check};
use serde::Serialize;

use crate::flags;
use crate::output;

/// Damaged blocks and other findings that are listed; the rest is counted.
const LINES_MAX: usize = 20;

#[derive(Serialize)]
struct Report<'a> {
    clean: bool,
    volume: String,
    cluster: String,
    index_trouble: Option<&'a str>,
    segments: u64,
    indexed: u64,
    whole: u64,
    leftovers: u64,
    known_damaged: u64,
    damaged: Vec<Damaged<'a>>,
    notes: &'a [String],
    rebuilt: bool,
}

#[derive(Serialize)]
struct Damaged<'a> {
    block: String,
    what: &'a str,
}

/// What was found is not as it should be.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
struct NotClean(&'static str);

/// `volume fsck`
pub fn fsck(flags: &flags::VolumeFsck) -> anyhow::Result<()> {
    let report = check(
        &flags.dir,
        &FsckOptions {
            data: flags.data,
            rebuild: flags.rebuild,
            cluster: flags.cluster_id.map(|id| id.0),
        },
    )?;
    if flags.form.json {
        output::json(&as_json(&report))?;
    } else {
        tell(&report, flags.data)?;
    }
    match &report {
        report if report.is_clean() || report.rebuilt => Ok(()),
        report if report.index_trouble.is_some() => Err(NotClean(
            "the volume can't be opened: run again with --rebuild, or replace the volume",
        )
        .into()),
        _ => {
            Err(NotClean("not all is in order; a dataserver that serves the volume mends what it can").into())
        }
    }
}

fn as_json(report: &FsckReport) -> Report<'_> {
    let hex = |id: [u8; 16]| format!("{:032x}", u128::from_be_bytes(id));
    Report {
        clean: report.is_clean(),
        volume: hex(report.identity.volume),
        cluster: hex(report.identity.cluster),
        index_trouble: report.index_trouble.as_deref(),
        segments: report.segments,
        indexed: report.indexed,
        whole: report.whole,
        leftovers: report.leftovers,
        known_damaged: report.known_damaged,
        damaged: report
            .damaged
            .iter()
            .map(|(block, what)| Damaged {
                block: block.to_string(),
                what,
            })
            .collect(),
        notes: &report.notes,
        rebuilt: report.rebuilt,
    }
}

fn tell(report: &FsckReport, data: bool) -> anyhow::Result<()> {
    let Report { volume, cluster, .. } = as_json(report);
    output::line(format!("volume   {volume} of cluster {cluster}"))?;
    match &report.index_trouble {
        Some(why) => output::line(format!("index    can't be read: {}", output::safe(why)))?,
        None => output::line(format!("index    whole, {} blocks", report.indexed))?,
    }
    let depth = if data {
        "read and verified"
    } else {
        "with a whole header"
    };
    output::line(format!(
        "slots    {} blocks {depth}, {} left by deleted ones, in {} segments",
        report.whole, report.leftovers, report.segments
    ))?;
    if report.known_damaged > 0 {
        output::line(format!(
            "known    {} damaged blocks, to be repaired",
            report.known_damaged
        ))?;
    }
    for (block, what) in report.damaged.iter().take(LINES_MAX) {
        output::line(format!("damaged  block {block}: {}", output::safe(what)))?;
    }
    for note in report.notes.iter().take(LINES_MAX) {
        output::line(format!("note     {}", output::safe(note)))?;
    }
    let more = report.damaged.len().saturating_sub(LINES_MAX) + report.notes.len().saturating_sub(LINES_MAX);
    if more > 0 {
        output::line(format!("         … and {more} more (--json has all)"))?;
    }
    if report.rebuilt {
        output::line(format!(
            "rebuilt  an index of {} blocks; start the dataserver: each is served once the nameserver has confirmed it",
            report.whole
        ))?;
    } else if report.is_clean() {
        output::line("all is in order")?;
    }
    Ok(())
}
