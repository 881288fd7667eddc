//! `volume inventory` and `rebuild`: a nameserver's folder from what volumes hold, when its own data is lost.
//!
//! An inventory is lines of JSON: the volume first, then each of its blocks.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use anyhow::Context as _;
use blockyard_engine::block::Origin;
use blockyard_engine::{ReplicaState, inventory as take};
use blockyard_nameserver::rebuild::{FOLDER, HeldReplica, HeldVolume, Rebuilt, rebuild as make};
use blockyard_wire::Problem;
use blockyard_wire::ticket::now_unix_ms;
use blockyard_wire::types::{BlockId, ClusterId, Epoch, Incarnation, VolumeId};
use serde::{Deserialize, Serialize};

use crate::serve::nameserver_problem;
use crate::{flags, output};

/// Versions that could not be rebuilt and are shown; the rest is counted.
const LINES_MAX: usize = 20;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    inventory: u32,
    cluster: ClusterId,
    volume: VolumeId,
    incarnation: Incarnation,
    directory: String,
    epoch: Epoch,
    blocks: u64,
}

/// Every other line.
#[derive(Serialize, Deserialize)]
struct Line {
    block: BlockId,
    version: u64,
    index: u32,
    length: u32,
    crc32c: u32,
}

/// The version of the lines.
const FORMAT: u32 = 1;

/// Prints what a volume's folder holds.
///
/// # Errors
/// It is no volume, is in use, or its index can't be read.
pub fn inventory(flags: &flags::Inventory) -> anyhow::Result<()> {
    let found = take(&flags.dir)?;
    let usable = || {
        let good = |held: &&blockyard_engine::InventoryBlock| held.state != ReplicaState::Corrupt;
        found.blocks.iter().filter(good)
    };
    let directory = std::path::absolute(&flags.dir).unwrap_or_else(|_| flags.dir.clone());
    let head = Head {
        inventory: FORMAT,
        cluster: ClusterId(found.identity.cluster),
        volume: VolumeId(found.identity.volume),
        incarnation: Incarnation(found.identity.incarnation),
        directory: directory.display().to_string(),
        epoch: found.epoch.map_or_else(Epoch::default, |epoch| Epoch {
            number: epoch.number,
            incarnation: Incarnation(epoch.incarnation),
        }),
        blocks: usable().count() as u64,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut line = |value: &str| writeln!(out, "{value}");
    line(&serde_json::to_string(&head)?)?;
    for held in usable() {
        line(&serde_json::to_string(&Line {
            block: held.block,
            version: held.origin.version,
            index: held.origin.index,
            length: held.length,
            crc32c: held.crc32c,
        })?)?;
    }
    out.flush()?;
    for (block, why) in found.unreadable.iter().take(LINES_MAX) {
        output::note(&format!("block {block} is left out: {}", output::safe(why)));
    }
    let left = found.unreadable.len() as u64 + found.blocks.len() as u64 - head.blocks;
    if left > 0 {
        output::note(&format!(
            "{} left out: damaged, or their slots do not tell where they came from",
            output::count(left, "block is", "blocks are")
        ));
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<(ClusterId, HeldVolume)> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("reading {shown}"))?;
    let mut lines = BufReader::new(file).lines();
    let bad =
        |what: String| anyhow::Error::from(Problem::invalid(format!("{shown} is no inventory: {what}")));
    let head = lines.next().ok_or_else(|| bad("it is empty".to_owned()))??;
    let head: Head = serde_json::from_str(&head).map_err(|error| bad(error.to_string()))?;
    if head.inventory != FORMAT {
        return Err(bad(format!("it is of format {}", head.inventory)));
    }
    let mut replicas = Vec::new();
    for (number, line) in lines.enumerate() {
        let line: Line =
            serde_json::from_str(&line?).map_err(|error| bad(format!("line {}: {error}", number + 2)))?;
        replicas.push(HeldReplica {
            block: line.block,
            origin: Origin {
                version: line.version,
                index: line.index,
            },
            length: line.length,
            crc32c: line.crc32c,
        });
    }
    if replicas.len() as u64 != head.blocks {
        return Err(bad(format!(
            "it has {} of {} blocks",
            replicas.len(),
            head.blocks
        )));
    }
    let volume = HeldVolume {
        id: head.volume,
        incarnation: head.incarnation,
        directory: head.directory,
        epoch: head.epoch,
        replicas,
    };
    Ok((head.cluster, volume))
}

#[derive(Serialize)]
struct Report<'a> {
    folder: String,
    cluster: String,
    epoch: u64,
    files: u64,
    file_bytes: u64,
    blocks: u64,
    unused_blocks: u64,
    not_rebuilt: &'a [(String, String)],
}

/// Makes a nameserver's folder of inventories.
///
/// # Errors
/// They are none, or of several clusters; the folder holds a nameserver's data.
pub fn rebuild(flags: &flags::Rebuild) -> anyhow::Result<()> {
    let mut volumes = Vec::new();
    let mut cluster = None;
    for path in &flags.inventories {
        let (of, volume) = read(path)?;
        if *cluster.get_or_insert(of) != of {
            return Err(Problem::invalid(format!("{} is of another cluster", path.display())).into());
        }
        volumes.push(volume);
    }
    let cluster = cluster.unwrap_or_default();
    let rebuilt =
        make(&flags.dir, cluster, &volumes, flags.replication, now_unix_ms()).map_err(nameserver_problem)?;
    tell(flags, cluster, &rebuilt)
}

fn tell(flags: &flags::Rebuild, cluster: ClusterId, rebuilt: &Rebuilt) -> anyhow::Result<()> {
    if flags.form.json {
        return Ok(output::json(&Report {
            folder: flags.dir.display().to_string(),
            cluster: cluster.to_string(),
            epoch: rebuilt.epoch,
            files: rebuilt.files,
            file_bytes: rebuilt.file_bytes,
            blocks: rebuilt.blocks,
            unused_blocks: rebuilt.unused_blocks,
            not_rebuilt: &rebuilt.left,
        })?);
    }
    output::line(format!(
        "{}\nrebuilt {} of {} in {FOLDER}, {}",
        flags.dir.display(),
        output::count(rebuilt.files, "file", "files"),
        output::count(rebuilt.blocks, "block", "blocks"),
        output::size(rebuilt.file_bytes)
    ))?;
    for (name, why) in rebuilt.left.iter().take(LINES_MAX) {
        output::line(format!("not rebuilt: {name}: {why}"))?;
    }
    if rebuilt.left.len() > LINES_MAX {
        output::line(format!(
            "… and {} more (--json has all)",
            rebuilt.left.len() - LINES_MAX
        ))?;
    }
    output::line(format!(
        "{} in none of them: kept in quarantine\n\
         names, folders, types and times are lost; so is the end of a file whose last blocks are on no volume named \
         here, which nothing shows\n\
         give it the cluster's secret and start it with --adopt",
        output::count(rebuilt.unused_blocks, "block is", "blocks are")
    ))?;
    Ok(())
}
