//! `peers`: the same files through Blockyard and through other systems, in turn, with what each flushes beside.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::beside::FioLimit;
use super::{BLOCK_BYTES, GIB, MIB, runtime};
use crate::bars::{BESIDE, FLUSHED, ONE_BLOCK_EACH};
use crate::binary;
use crate::context::{Context, drop_page_cache};
use crate::fio::{Job, Shape};
use crate::nodes::{self, Nodes};
use crate::peers::given::peer;
use crate::peers::script::{SCRIPTS, Script, Up};
use crate::peers::{Blockyard, Facts, System, Took, Work};
use crate::process;
use crate::report::Series;
use crate::workload::Pool;

const SCENARIO: &str = "peers";
const BLOCKYARD: &str = "Blockyard";
const POOL_BYTES: usize = 256 << 20;
/// Room of both Ceph OSDs (its script's default), filled with zeros when it is set up.
const SET_UP_BYTES: u64 = 12 << 30;

/// One kind of work, in every round and for every system.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    files: u64,
    length_bytes: u64,
    workers: u64,
    blocks_in_flight: u64,
    /// Whether it differs from other work only for systems that can be told how many blocks to keep under way.
    told: bool,
    /// Whether files a second say more than bytes.
    small: bool,
}

const WRITE: usize = 0;
const READ: usize = 1;

/// A system, and its figures for each kind of work: writes, reads.
struct Entry {
    system: Box<dyn System>,
    figures: Vec<[Series; 2]>,
    /// Of a system that is known to fail at some files: how many writes and reads went well, and of how many.
    succeeded: [(u64, u64); 2],
    /// What it failed at; it is left out of what follows.
    failed: Option<String>,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let kinds = kinds(context);
    let rounds = context.flags.rounds();
    let bytes: u64 = kinds.iter().map(|kind| kind.work(0, 0).bytes()).sum();
    // Slots are not used again within a run.
    let volume_bytes = bytes * u64::from(rounds + 1) * 5 / 4 + (1 << 30);
    let with = |name: &str| {
        context
            .flags
            .with
            .iter()
            .filter(|with| with.starts_with(name))
            .count() as u64
    };
    let told: u64 = kinds
        .iter()
        .filter(|kind| kind.told)
        .map(|kind| kind.work(0, 0).bytes())
        .sum();
    // MooseFS gives the room of removed files back too late for a run.
    let kept_bytes = with("moosefs") * 2 * (bytes - told) * u64::from(rounds + 1);
    context.check_space(2 * volume_bytes + 3 * bytes + kept_bytes + with("ceph") * SET_UP_BYTES)?;
    let mut limits = limits(context)?;
    let pool = Pool::new(POOL_BYTES);
    let mut entries = vec![entry(blockyard(context, volume_bytes)?, &kinds)];
    for given in context.flags.peer.clone() {
        entries.push(entry(peer(&given)?, &kinds));
    }
    // Held to the end of the run; taken down on drop, after the systems' own.
    let mut set_up = Vec::new();
    for script in chosen(context)? {
        context.say(format_args!("setting up {}", script.name));
        match Up::start(&script, context.folder.path(), &context.flags.memory_dir) {
            Ok((up, system)) => {
                set_up.push(up);
                entries.push(entry(system, &kinds));
            }
            Err(error) => context
                .report
                .note(format!("{} is left out: {error:#}", script.name)),
        }
    }
    for round in 0..=rounds {
        context.say(format_args!("round {round} of {rounds}"));
        for limit in &mut limits {
            limit.measure(round > 0)?;
        }
        for (at, kind) in kinds.iter().enumerate() {
            let work = kind.work(u64::from(round), at as u64);
            let takes_part = |entry: &&mut Entry| {
                entry.failed.is_none() && (!kind.told || entry.system.keeps_blocks_in_flight())
            };
            for entry in entries.iter_mut().filter(takes_part) {
                if let Err(error) = measure(context, entry, &pool, kind, at, work, round > 0) {
                    entry.failed = Some(format!("{}: {error:#}", kind.name));
                }
            }
        }
    }
    finish(context, &limits, &kinds, &entries)
}

fn kinds(context: &Context) -> [Kind; 5] {
    let large = |name, files: u64, blocks_in_flight| Kind {
        name,
        files,
        length_bytes: (context.flags.size_bytes() / files / BLOCK_BYTES).max(1) * BLOCK_BYTES,
        workers: files,
        blocks_in_flight,
        told: name == ONE_BLOCK_EACH,
        small: false,
    };
    let small = |name, length_bytes| Kind {
        name,
        files: if context.flags.quick { 256 } else { 2048 },
        length_bytes,
        workers: 16,
        blocks_in_flight: 1,
        told: false,
        small: true,
    };
    [
        large("4 files, 16 blocks in flight", 4, 4),
        large(ONE_BLOCK_EACH, 4, 1),
        large("1 file, 4 blocks in flight", 1, 4),
        small("64 KiB files, 16 at once", 64 << 10),
        small("4 KiB files, 16 at once", 4 << 10),
    ]
}

fn limits(context: &mut Context) -> Result<[FioLimit; 4]> {
    let size_bytes = context.flags.size_bytes();
    let mut limit = |job, block_bytes, depth| {
        let shape = Shape {
            block_bytes,
            depth,
            size_bytes,
        };
        FioLimit::new(context, SCENARIO, job, shape)
    };
    Ok([
        limit(Job::Write, BLOCK_BYTES, 4)?,
        limit(Job::Read, BLOCK_BYTES, 4)?,
        limit(Job::RandWrite, 64 << 10, 16)?,
        limit(Job::RandRead, 64 << 10, 16)?,
    ])
}

impl Kind {
    fn work(&self, round: u64, at: u64) -> Work {
        Work {
            files: self.files,
            length_bytes: self.length_bytes,
            workers: self.workers,
            blocks_in_flight: self.blocks_in_flight,
            id: round * 10 + at,
        }
    }
}

fn entry(system: Box<dyn System>, kinds: &[Kind]) -> Entry {
    let name = system.facts().name.clone();
    let series = |what: &str, kind: &Kind| Series::new(SCENARIO, format!("{what} {}: {name}", kind.name));
    let figures = kinds
        .iter()
        .map(|kind| [series("write", kind), series("read", kind)]);
    Entry {
        figures: figures.collect(),
        succeeded: [(0, 0); 2],
        system,
        failed: None,
    }
}

fn blockyard(context: &Context, volume_bytes: u64) -> Result<Box<dyn System>> {
    let binary = binary::find(context.flags.blockyard.as_deref())?;
    let folder = context.folder.path().join("blockyard");
    std::fs::create_dir_all(&folder)?;
    let shape = nodes::Shape {
        dataservers: 2,
        replication: 2,
        capacity_bytes: volume_bytes,
        ..nodes::Shape::default()
    };
    let runtime = runtime()?;
    let nodes = runtime.block_on(Nodes::start(&binary, &folder, shape))?;
    let facts = Facts {
        name: BLOCKYARD.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        copies: "2".into(),
        flush: "flushed on both volumes before the acknowledgement".into(),
        unflushed: false,
        way: "the client library, as many blocks in flight as the case says, but at most 8 of uploads; read cache off".into(),
    };
    Ok(Box::new(Blockyard::new(facts, nodes, runtime)))
}

/// The scripts that `--with` names and whose programs are there.
fn chosen(context: &mut Context) -> Result<Vec<Script>> {
    let wanted = context.flags.with.clone();
    let mut scripts = Vec::new();
    for script in SCRIPTS
        .into_iter()
        .filter(|script| wanted.iter().any(|name| name == script.name))
    {
        if !rustix::process::geteuid().is_root() {
            let note = format!("skipped: {} needs root to be set up", script.name);
            context.report.note(note);
            continue;
        }
        let mut all = true;
        for tool in script.tools {
            all &= context.has_tool(tool)?;
        }
        if all {
            scripts.push(script);
        } else {
            let note = format!("{} is left out; on Debian: {}", script.name, script.install);
            context.report.note(note);
        }
    }
    Ok(scripts)
}

fn measure(
    context: &mut Context,
    entry: &mut Entry,
    pool: &Pool,
    kind: &Kind,
    at: usize,
    work: Work,
    counts: bool,
) -> Result<()> {
    let disk = context.disk.clone();
    let work = Work {
        files: work.files.min(entry.system.files_max()),
        ..work
    };
    // What others left unwritten is not this one's to write.
    rustix::fs::sync();
    let wrote = entry.system.write(pool, work, disk.as_ref()).context("write")?;
    let flush_s = entry.system.facts().unflushed.then(|| {
        let started = Instant::now();
        rustix::fs::sync();
        started.elapsed().as_secs_f64()
    });
    if !drop_page_cache() {
        context
            .report
            .note("the page cache can't be dropped (only root may): the peers' reads may come from memory");
    }
    let read = entry.system.read(pool, work, disk.as_ref()).context("read")?;
    entry.system.remove(work).context("remove")?;
    if counts {
        for (which, took, flush_s) in [(WRITE, &wrote, flush_s), (READ, &read, None)] {
            let cores = context.machine.cores;
            add(&mut entry.figures[at][which], kind, work, took, flush_s, cores);
            if let Some((good, all)) = took.succeeded {
                entry.succeeded[which].0 += good;
                entry.succeeded[which].1 += all;
            }
        }
    }
    Ok(())
}

/// Adds a round's figures; of work that went well in part, those of that part.
fn add(series: &mut Series, kind: &Kind, work: Work, took: &Took, flush_s: Option<f64>, cores: u32) {
    let share = took.succeeded.map(|(good, all)| good as f64 / all as f64);
    let part = share.unwrap_or(1.0);
    let (bytes, files) = (work.bytes() as f64 * part, work.files as f64 * part);
    let (metric, unit, done) = if kind.small {
        ("rate", "files/s", files)
    } else {
        ("throughput", "MiB/s", bytes / MIB)
    };
    series.add(metric, unit, done / took.wall_s);
    if let Some(flush_s) = flush_s {
        series.add(
            &format!("{metric}{FLUSHED}"),
            unit,
            done / (took.wall_s + flush_s),
        );
    }
    if let Some(share) = share {
        series.add("succeeded", "of all", share);
    }
    if let Some(copies) = took.copies {
        series.add("copies found", "per byte", copies);
    }
    if part > 0.0 {
        let cpu_s = took.used.all_cpu_s() + took.tool_cpu_s;
        series.add("cpu", "s/GiB", cpu_s / (bytes / GIB));
        if let Some(disk) = &took.used.disk {
            series.add("disk writes", "per byte", disk.written_bytes as f64 / bytes);
            series.add("disk reads", "per byte", disk.read_bytes as f64 / bytes);
            if let Some(flushes) = disk.flushes {
                series.add("disk flushes", "per file", flushes as f64 / files);
            }
        }
    }
    if let Some(other_s) = took.used.other_s {
        let share = other_s / took.used.wall_s / f64::from(cores);
        series.add("other load", "share of cores", share);
    }
}

fn finish(context: &mut Context, limits: &[FioLimit], kinds: &[Kind], entries: &[Entry]) -> Result<()> {
    for limit in limits {
        limit.report(context);
    }
    for entry in entries {
        tell(context, entry);
        entry.figures.iter().flatten().for_each(|series| {
            context.report.series(series);
        });
        let mut memory = Series::new(SCENARIO, format!("peak memory: {}", entry.system.facts().name));
        for (server, pid) in entry.system.servers() {
            // Of one that failed, some may be gone.
            if let Ok(bytes) = process::peak_rss_bytes(pid) {
                memory.add(&server, "MiB", bytes as f64 / MIB);
            }
        }
        context.report.series(&memory);
    }
    let (own, others) = entries.split_first().context("Blockyard was not measured")?;
    for other in others {
        for (at, kind) in kinds.iter().enumerate() {
            for (which, what) in [(WRITE, "write"), (READ, "read")] {
                let (ours, theirs) = (&own.figures[at][which], &other.figures[at][which]);
                for flushed in ["", FLUSHED] {
                    let peer = &other.system.facts().name;
                    let case = format!("{what} {}{BESIDE}{peer}{flushed}", kind.name);
                    context.report.series(&beside(case, ours, theirs, flushed));
                }
            }
        }
    }
    match &own.failed {
        Some(failed) => bail!("Blockyard failed: {failed}"),
        None => Ok(()),
    }
}

/// Blockyard's figures with a peer's as their limits; none that the peer lacks.
fn beside(case: String, ours: &Series, theirs: &Series, flushed: &str) -> Series {
    let mut beside = Series::new(SCENARIO, case);
    let metrics = [("throughput", "MiB/s"), ("rate", "files/s"), ("cpu", "s/GiB")];
    for (metric, unit) in metrics {
        let theirs = theirs.median(&format!("{metric}{flushed}"));
        if let (Some(ours), Some(theirs)) = (ours.median(metric), theirs) {
            beside.add(metric, unit, ours);
            beside.limit(metric, Some(theirs));
        }
    }
    beside
}

/// Notes what stands beside a system's figures.
fn tell(context: &mut Context, entry: &Entry) {
    let facts = entry.system.facts();
    let (name, version) = (&facts.name, &facts.version);
    let facts = format!(
        "{name} {version}: copies: {}; {}; through {}",
        facts.copies, facts.flush, facts.way
    );
    context.report.note(facts);
    for ((good, all), what) in entry.succeeded.into_iter().zip(["uploads", "downloads"]) {
        if all > 0 {
            let note = format!("{name}: {good} of {all} {what} came right; its figures are of those");
            context.report.note(note);
        }
    }
    if let Some(failed) = &entry.failed {
        let note = format!("{name} failed and was left out from there on: {failed}");
        context.report.note(note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Used;

    const KIND: Kind = Kind {
        name: "kind",
        files: 4,
        length_bytes: 1 << 20,
        workers: 4,
        blocks_in_flight: 1,
        told: false,
        small: false,
    };

    fn took(succeeded: Option<(u64, u64)>) -> Took {
        Took {
            used: Used {
                wall_s: 3.0,
                cpu_s: vec![("client".into(), 0.5)],
                other_s: None,
                disk: None,
                rss_bytes: Vec::new(),
                syscalls: None,
            },
            wall_s: 2.0,
            tool_cpu_s: 0.5,
            succeeded,
            copies: None,
        }
    }

    #[test]
    fn what_is_not_flushed_is_told_with_a_flush_too() {
        let mut series = Series::new(SCENARIO, "theirs");
        add(&mut series, &KIND, KIND.work(0, 0), &took(None), Some(2.0), 2);
        assert_eq!(series.median("throughput"), Some(2.0));
        assert_eq!(series.median("cpu"), Some(256.0));
        let mut ours = Series::new(SCENARIO, "ours");
        add(&mut ours, &KIND, KIND.work(0, 0), &took(None), None, 2);
        let ratio = |flushed| {
            let beside = beside("case".into(), &ours, &series, flushed);
            let mut report = crate::report::Report::default();
            report.series(&beside);
            report.find(SCENARIO, "case", "throughput").unwrap().ratio
        };
        assert_eq!((ratio(""), ratio(FLUSHED)), (Some(1.0), Some(2.0)));
        assert_eq!(
            beside("case".into(), &series, &ours, FLUSHED).metrics().count(),
            0
        );
    }

    #[test]
    fn figures_are_of_what_went_well() {
        let mut series = Series::new(SCENARIO, "theirs");
        add(&mut series, &KIND, KIND.work(0, 0), &took(Some((1, 4))), None, 2);
        assert_eq!(series.median("throughput"), Some(0.5));
        assert_eq!(series.median("cpu"), Some(1024.0));
        assert_eq!(series.median("succeeded"), Some(0.25));
        let mut none = Series::new(SCENARIO, "none");
        add(&mut none, &KIND, KIND.work(0, 0), &took(Some((0, 4))), None, 2);
        assert_eq!(none.median("throughput"), Some(0.0));
        assert_eq!(none.median("cpu"), None);
    }
}
