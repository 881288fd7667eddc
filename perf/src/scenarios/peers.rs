//! `peers`: the same files through Blockyard and through other systems, in turn, with what each flushes beside.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::beside::add_fio;
use super::{BLOCK_BYTES, GIB, MIB, fio_folder, runtime};
use crate::binary;
use crate::context::{Context, drop_page_cache};
use crate::fio::{self, Job};
use crate::nodes::{self, Nodes};
use crate::peers::script::{SCRIPTS, Up, parse_pids};
use crate::peers::{Blockyard, Facts, Mount, System, Took, Work};
use crate::process;
use crate::report::Series;
use crate::workload::Pool;

const SCENARIO: &str = "peers";
const BLOCKYARD: &str = "Blockyard";
const POOL_BYTES: usize = 256 << 20;
/// Room of each Ceph OSD (its script's default), filled with zeros when it is set up.
const SET_UP_BYTES: u64 = 12 << 30;

/// One kind of work, in every round and for every system.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    files: u64,
    length_bytes: u64,
    workers: u64,
    /// Whether files a second say more than bytes.
    small: bool,
}

/// A system, and its figures for each kind of work: writes, reads.
struct Entry {
    system: Box<dyn System>,
    figures: Vec<[Series; 2]>,
    /// What it failed at; it is left out of what follows.
    failed: Option<String>,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let kinds = kinds(context);
    let rounds = context.flags.rounds();
    let bytes: u64 = kinds.iter().map(|kind| kind.work(0, 0).bytes()).sum();
    let volume_bytes = bytes * u64::from(rounds + 1) * 3 / 2 + (1 << 30);
    let with_ceph = context.flags.with.iter().any(|name| name == "ceph");
    context.check_space(2 * volume_bytes + 3 * bytes + if with_ceph { SET_UP_BYTES } else { 0 })?;
    let mut limits = Limits::new(context)?;
    let pool = Pool::new(POOL_BYTES);
    let mut entries = vec![entry(blockyard(context, volume_bytes)?, &kinds)];
    for given in context.flags.peer.clone() {
        entries.push(entry(peer(&given)?, &kinds));
    }
    // Held to the end of the run; taken down on drop, after the systems' own.
    let mut set_up = Vec::new();
    for script in chosen(context)? {
        context.say(format_args!("setting up {}", script.name));
        match Up::start(&script, context.folder.path()) {
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
        limits.round(context, round > 0)?;
        for (at, kind) in kinds.iter().enumerate() {
            let work = kind.work(u64::from(round), at as u64);
            for entry in entries.iter_mut().filter(|entry| entry.failed.is_none()) {
                if let Err(error) = measure(context, entry, &pool, kind, at, work, round > 0) {
                    entry.failed = Some(format!("{}: {error:#}", kind.name));
                }
            }
        }
    }
    finish(context, &limits, &kinds, &entries)
}

fn kinds(context: &Context) -> [Kind; 4] {
    let streams = |name, workers: u64| Kind {
        name,
        files: workers,
        length_bytes: (context.flags.size_bytes() / workers / BLOCK_BYTES).max(1) * BLOCK_BYTES,
        workers,
        small: false,
    };
    let files = |name, length_bytes| Kind {
        name,
        files: if context.flags.quick { 256 } else { 2048 },
        length_bytes,
        workers: 16,
        small: true,
    };
    [
        streams("4 MiB blocks, 4 at once", 4),
        streams("4 MiB blocks, 1 at once", 1),
        files("64 KiB files, 16 at once", 64 << 10),
        files("4 KiB files, 16 at once", 4 << 10),
    ]
}

impl Kind {
    fn work(&self, round: u64, at: u64) -> Work {
        Work {
            files: self.files,
            length_bytes: self.length_bytes,
            workers: self.workers,
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
    let (nodes, client) = runtime.block_on(async {
        let nodes = Nodes::start(&binary, &folder, shape).await?;
        let client = nodes.client().await?;
        Ok::<_, anyhow::Error>((nodes, client))
    })?;
    let facts = Facts {
        name: BLOCKYARD.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        copies: "2".into(),
        flush: "flushed on both volumes before the acknowledgement".into(),
        way: "the client library, 4 blocks in flight for each file; read cache off".into(),
    };
    Ok(Box::new(Blockyard::new(facts, nodes, client, runtime)))
}

/// `mount=NAME:DIR[,pids=PID+PID]`
fn peer(given: &str) -> Result<Box<dyn System>> {
    let (mount, pids) = given.split_once(",pids=").unwrap_or((given, ""));
    let Some((name, folder)) = mount.strip_prefix("mount=").and_then(|rest| rest.split_once(':')) else {
        bail!("--peer {given}: write mount=NAME:DIR or mount=NAME:DIR,pids=PID+PID");
    };
    let named: Vec<String> = pids
        .split('+')
        .filter(|pid| !pid.is_empty())
        .map(|pid| format!("server {pid}:{pid}"))
        .collect();
    let facts = Facts {
        name: name.into(),
        version: "unknown".into(),
        copies: "an unknown number of".into(),
        flush: "whatever its fsync does".into(),
        way: "the mounted folder, an fsync per file".into(),
    };
    let servers = parse_pids(&named.join(",")).with_context(|| format!("--peer {given}"))?;
    Ok(Box::new(Mount::new(facts, PathBuf::from(folder), servers)?))
}

/// The scripts that `--with` names and whose programs are there.
fn chosen(context: &mut Context) -> Result<Vec<crate::peers::script::Script>> {
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
    let wrote = entry.system.write(pool, work, disk.as_ref()).context("write")?;
    if !drop_page_cache() {
        context
            .report
            .note("the page cache can't be dropped (only root may): the peers' reads may come from memory");
    }
    let read = entry.system.read(pool, work, disk.as_ref()).context("read")?;
    entry.system.remove(work).context("remove")?;
    if counts {
        let [writes, reads] = &mut entry.figures[at];
        add(writes, kind, work, &wrote, context.machine.cores);
        add(reads, kind, work, &read, context.machine.cores);
    }
    Ok(())
}

fn add(series: &mut Series, kind: &Kind, work: Work, took: &Took, cores: u32) {
    let bytes = work.bytes() as f64;
    if kind.small {
        series.add("rate", "files/s", work.files as f64 / took.wall_s);
    } else {
        series.add("throughput", "MiB/s", bytes / MIB / took.wall_s);
    }
    let cpu_s = took.used.all_cpu_s() + took.tool_cpu_s;
    series.add("cpu", "s/GiB", cpu_s / (bytes / GIB));
    if let Some(disk) = &took.used.disk {
        series.add("disk writes", "per byte", disk.written_bytes as f64 / bytes);
        series.add("disk reads", "per byte", disk.read_bytes as f64 / bytes);
        if let Some(flushes) = disk.flushes {
            series.add("disk flushes", "per file", flushes as f64 / work.files as f64);
        }
    }
    if let Some(other_s) = took.used.other_s {
        let share = other_s / took.used.wall_s / f64::from(cores);
        series.add("other load", "share of cores", share);
    }
}

/// fio in the same rounds.
struct Limits {
    folder: PathBuf,
    jobs: Vec<(Series, Job, u64, u32)>,
}

impl Limits {
    fn new(context: &mut Context) -> Result<Self> {
        let job = |name: &str, job, bytes, depth| {
            (
                Series::new(SCENARIO, format!("limit: fio {name}")),
                job,
                bytes,
                depth,
            )
        };
        let jobs = if context.has_tool("fio")? {
            vec![
                job("write 4 MiB, depth 4", Job::Write, BLOCK_BYTES, 4),
                job("read 4 MiB, depth 4", Job::Read, BLOCK_BYTES, 4),
                job("randwrite 64 KiB, depth 16", Job::RandWrite, 64 << 10, 16),
                job("randread 64 KiB, depth 16", Job::RandRead, 64 << 10, 16),
            ]
        } else {
            Vec::new()
        };
        Ok(Self {
            folder: fio_folder(context)?,
            jobs,
        })
    }

    fn round(&mut self, context: &Context, counts: bool) -> Result<()> {
        for (series, job, block_bytes, depth) in &mut self.jobs {
            let shape = fio::Shape {
                block_bytes: *block_bytes,
                depth: *depth,
                size_bytes: context.flags.size_bytes(),
            };
            let figures = fio::run(&self.folder, *job, shape)?;
            if counts {
                add_fio(series, &figures);
            }
        }
        Ok(())
    }
}

fn finish(context: &mut Context, limits: &Limits, kinds: &[Kind], entries: &[Entry]) -> Result<()> {
    for (series, ..) in &limits.jobs {
        context.report.series(series);
    }
    for entry in entries {
        let facts = entry.system.facts();
        let (name, version) = (&facts.name, &facts.version);
        context.report.note(format!(
            "{name} {version}: {} copies; {}; through {}",
            facts.copies, facts.flush, facts.way
        ));
        if let Some(failed) = &entry.failed {
            let note = format!("{name} failed and was left out from there on: {failed}");
            context.report.note(note);
        }
        entry.figures.iter().flatten().for_each(|series| {
            context.report.series(series);
        });
        let mut memory = Series::new(SCENARIO, format!("peak memory: {name}"));
        for (server, pid) in entry.system.servers() {
            memory.add(&server, "MiB", process::peak_rss_bytes(pid)? as f64 / MIB);
        }
        context.report.series(&memory);
    }
    let (own, others) = entries.split_first().context("Blockyard was not measured")?;
    for other in others {
        let peer = &other.system.facts().name;
        for (at, kind) in kinds.iter().enumerate() {
            for (which, what) in ["write", "read"].into_iter().enumerate() {
                let (ours, theirs) = (&own.figures[at][which], &other.figures[at][which]);
                let case = format!("{what} {}: {BLOCKYARD} beside {peer}", kind.name);
                let mut beside = Series::new(SCENARIO, case);
                for (metric, unit) in [("throughput", "MiB/s"), ("rate", "files/s"), ("cpu", "s/GiB")] {
                    if let Some(value) = ours.median(metric) {
                        beside.add(metric, unit, value);
                        beside.limit(metric, theirs.median(metric));
                    }
                }
                context.report.series(&beside);
            }
        }
    }
    match &own.failed {
        Some(failed) => bail!("Blockyard failed: {failed}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_mount_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let given = |tail: &str| peer(&format!("mount=nas:{}{tail}", folder.path().display()));
        let system = given(",pids=7+8").unwrap();
        assert_eq!(system.facts().name, "nas");
        assert_eq!(
            system.servers().iter().map(|server| server.1).collect::<Vec<_>>(),
            [7, 8]
        );
        assert!(given("").unwrap().servers().is_empty());
        assert!(given(",pids=x").is_err());
        assert!(given("/missing").is_err());
        assert!(peer("nfs=nas:/").is_err() && peer("mount=nas").is_err());
    }
}
