//! `soak`: a cluster of real processes under a mixed load, while one of them after the other is killed, stopped or cut
//! off. Every answer is held against what may be; one seed tries the same again.

mod client;
mod contents;
mod faults;
mod network;
mod plan;
mod power;
mod register;
mod rounds;
mod servers;
mod tally;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use blockyard_client::types::ClusterStatus;
use blockyard_client::{Client, Problem};
use futures_util::future::join_all;

use self::client::Driver;
use self::contents::Contents;
use self::faults::{Menu, Server};
use self::network::Network;
use self::plan::Plan;
use self::power::Power;
use self::register::{Moment, Register};
use self::servers::{Ground, Servers};
use self::tally::{Offence, Tally};
use super::{MIB, runtime};
use crate::binary;
use crate::context::Context;
use crate::disk;
use crate::process;
use crate::report::Series;

const SCENARIO: &str = "soak";
const CASE: &str = "16 clients";
const CLIENTS: u64 = 16;
const DATASERVERS: usize = 4;
const REPLICAS: u64 = 2;
/// What the clients write at the least and at the most. Files that were read keep their slots for ten minutes after they
/// were replaced, and all of that has to lie somewhere.
const WRITE_BYTES_PER_S: (u64, u64) = (8 << 20, 16 << 20);
/// The longest time that replaced files keep their slots.
const KEPT_S: u64 = 660;
/// What slots take of the disk, of their blocks' bytes: 78 GiB after 180 rounds for 60.
const SLOTS_PERCENT: u64 = 130;
/// On each volume, files of all lengths leave about as much of their segments empty, one for each class of lengths.
const SEGMENTS_BYTES: u64 = 1 << 30;
/// What lies stored in a quick run, and on a disk in memory.
const SMALL_BYTES: u64 = 48 << 20;
/// What the clients write to a disk in memory, and what that may hold: each byte is there twice, and nothing that was read
/// goes before ten minutes are over.
const WRITE_BYTES_PER_S_IN_MEMORY: u64 = 2 << 20;
const IN_MEMORY_BYTES: u64 = 2 << 30;
/// What a server logs when it has met a bug.
const PANIC: &[&str] = &["panicked at"];
/// What the nameserver logs when a replica that was acknowledged is not there, or not whole.
const BAD_REPLICA: &[&str] = &[
    "a replica is not what the map says",
    "replicas are missing on a volume",
    "a volume has damaged replicas",
];

/// What all parts of a soak share.
struct Soak {
    seed: u64,
    plan: Plan,
    contents: Contents,
    started: Instant,
    /// How long after its failure an operation may still take effect, in microseconds.
    settle_us: Moment,
    registers: RefCell<Vec<Register>>,
    /// Of each name: renames want it alone.
    locks: Vec<tokio::sync::RwLock<()>>,
    pace: Pace,
    tally: RefCell<Tally>,
    round: Cell<u32>,
    faults: Cell<usize>,
    over: Cell<bool>,
    broken: Cell<bool>,
}

impl Soak {
    fn new(seed: u64, plan: Plan, write_bytes_per_s: u64, stop_ms: u64) -> Self {
        let names = plan.names().count();
        Self {
            seed,
            contents: Contents::new(seed),
            started: Instant::now(),
            // What lies in the socket of a stopped or cut-off server is dealt with once it is back.
            settle_us: (3 * stop_ms + 30_000) * 1000,
            registers: RefCell::new(vec![Register::default(); names]),
            locks: (0..names).map(|_| tokio::sync::RwLock::new(())).collect(),
            pace: Pace::new(write_bytes_per_s),
            tally: RefCell::default(),
            round: Cell::new(0),
            faults: Cell::new(0),
            over: Cell::new(false),
            broken: Cell::new(false),
            plan,
        }
    }

    fn now(&self) -> Moment {
        self.started.elapsed().as_micros() as Moment
    }

    /// Whether the load is to end.
    fn is_over(&self) -> bool {
        self.over.get() || self.broken.get()
    }

    /// Whether everything is to be left as it is.
    fn is_broken(&self) -> bool {
        self.broken.get()
    }

    fn has_two_faults(&self) -> bool {
        self.faults.get() > 1
    }

    fn say(&self, what: impl std::fmt::Display) {
        eprintln!("# {:7.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Something happened that must not.
    fn offence(&self, offence: Offence, what: &str) {
        if self.tally.borrow_mut().offence(offence) {
            let (seed, round) = (self.seed, self.round.get());
            self.say(format_args!(
                "VIOLATION ({}), seed {seed}, round {round}: {what}",
                offence.name()
            ));
        }
        if offence.is_fatal() {
            self.broken.set(true);
        }
    }

    /// An operation has failed for the first time.
    fn failed(&self, what: &str, problem: &Problem, took: Duration) {
        if self.tally.borrow_mut().is_told() {
            let seconds = took.as_secs_f64();
            let round = self.round.get();
            self.say(format_args!(
                "round {round}: {what} failed after {seconds:.1} s [{}]: {problem}",
                problem.kind.name()
            ));
        }
    }
}

/// Lets so many bytes a second through, over all clients.
struct Pace {
    bytes_per_s: u64,
    /// When what was let through so far is worked off.
    until: Cell<Instant>,
}

impl Pace {
    /// How far the clients may be ahead.
    const AHEAD: Duration = Duration::from_secs(1);

    fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            until: Cell::new(Instant::now()),
        }
    }

    async fn spend(&self, bytes: u64, is_over: impl Fn() -> bool) {
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        let begin = self.begin(bytes, Instant::now());
        while !is_over() {
            let left = begin.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// When so many more bytes may begin; what writes nothing may at once.
    fn begin(&self, bytes: u64, now: Instant) -> Instant {
        if bytes == 0 {
            return now;
        }
        let took = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let begin = self.until.get().max(now);
        self.until.set(begin + took);
        begin.checked_sub(Self::AHEAD).map_or(now, |begin| begin.max(now))
    }
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let flags = &context.flags;
    let seed = flags.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let small = flags.quick || flags.power_cuts;
    let size_bytes = if small {
        flags.size.min(SMALL_BYTES)
    } else {
        flags.size
    };
    let rounds = if flags.quick {
        flags.rounds.min(3)
    } else {
        flags.rounds
    };
    let stop_ms = 1000
        * if flags.quick {
            flags.stop_s.min(2)
        } else {
            flags.stop_s
        };
    let long = !flags.quick;
    let round_s = stop_ms / 1000 + 5;
    let kept_s = (u64::from(rounds) * round_s).min(KEPT_S);
    let free_bytes = disk::free_bytes(context.folder.path()).unwrap_or(u64::MAX);
    let mut write_bytes_per_s = write_pace(size_bytes, kept_s, free_bytes);
    if flags.power_cuts {
        write_bytes_per_s = WRITE_BYTES_PER_S_IN_MEMORY;
    }
    let mut stored_bytes = needed_bytes(size_bytes, kept_s, write_bytes_per_s);
    if flags.power_cuts {
        stored_bytes = IN_MEMORY_BYTES;
    } else {
        context.check_space(stored_bytes)?;
    }
    // Twice an even share: placement is by chance.
    let capacity_bytes = stored_bytes / DATASERVERS as u64 * 2;
    let power_cuts = flags.power_cuts;

    let binary = binary::find(context.flags.blockyard.as_deref())?;
    context.say(format_args!("measuring {}", binary.display()));
    context
        .report
        .note(format!("soak: --seed {seed} tries the same again"));
    let ground = match power_cuts {
        true => Ground {
            power: Some(make_power(seed)?),
            network: None,
        },
        false => Ground {
            network: make_network(context)?,
            power: None,
        },
    };
    let menu = Menu {
        dataservers: DATASERVERS,
        stop_ms,
        cuts: ground.network.is_some(),
        long,
        power: power_cuts,
    };
    let folder = context.folder.path().join(SCENARIO);
    let plan = match power_cuts {
        true => Plan::short(size_bytes),
        false => Plan::new(size_bytes),
    };
    let soak = Rc::new(Soak::new(seed, plan, write_bytes_per_s, stop_ms));
    let outcome = runtime()?.block_on(async {
        let servers = Servers::start(binary, &folder, DATASERVERS, capacity_bytes, ground)?;
        let servers = RefCell::new(servers);
        let outcome = all(context, &soak, &servers, menu, rounds).await;
        crate::cleanup::stay_if_interrupted();
        outcome
    });
    let verdict = soak.tally.borrow().verdict();
    let outcome = match (outcome, verdict) {
        (Err(error), Some(verdict)) => Err(error.context(verdict)),
        (Ok(()), Some(verdict)) => Err(anyhow::anyhow!("{verdict}")),
        (outcome, None) => outcome,
    };
    if let Err(error) = outcome {
        context.folder.keep();
        return Err(error.context(format!(
            "seed {seed}; the cluster's folders and logs are kept in {}",
            folder.display()
        )));
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Bytes that the clients write a second: what the disk has room for, within bounds.
fn write_pace(size_bytes: u64, kept_s: u64, free_bytes: u64) -> u64 {
    let (least, most) = WRITE_BYTES_PER_S;
    let fixed_bytes = needed_bytes(size_bytes, kept_s, 0);
    let room_bytes = (free_bytes / 5 * 4).saturating_sub(fixed_bytes);
    let wanted = (size_bytes / 100).clamp(least, most);
    wanted
        .min(room_bytes / SLOTS_PERCENT * 100 / REPLICAS / kept_s.max(1))
        .max(least / 2)
}

/// What lies on the disk at the most: the files and those that were replaced, in their slots, and what is not full of the
/// segments.
fn needed_bytes(size_bytes: u64, kept_s: u64, write_bytes_per_s: u64) -> u64 {
    let files_bytes = size_bytes * 5 / 4 + kept_s * write_bytes_per_s;
    REPLICAS * files_bytes / 100 * SLOTS_PERCENT + DATASERVERS as u64 * SEGMENTS_BYTES
}

/// A disk whose power can fail.
fn make_power(seed: u64) -> Result<Power> {
    if let Some(missing) = blockyard_crash_disk::mount::missing() {
        bail!("--power-cuts needs {missing}");
    }
    // Volumes may fill twice an even share, and the nameserver's journal lies there too.
    Power::new(2 * IN_MEMORY_BYTES + (512 << 20), seed)
}

/// A network to cut, where this process may make one.
fn make_network(context: &mut Context) -> Result<Option<Network>> {
    let mut complete = network::is_root();
    if !complete {
        context
            .report
            .note("skipped: network cuts need root and nft; servers are only killed and stopped");
    } else {
        for (tool, package) in network::TOOLS {
            complete &= context.has_tool_of(tool, package)?;
        }
    }
    match complete {
        true => Network::new(&servers::servers(DATASERVERS)).map(Some),
        false => Ok(None),
    }
}

/// Fills, loads and disturbs the cluster, and looks at what is left.
async fn all(
    context: &mut Context,
    soak: &Rc<Soak>,
    servers: &RefCell<Servers>,
    menu: Menu,
    rounds: u32,
) -> Result<()> {
    let options = servers.borrow().options();
    let observer = rounds::serving(servers, &options).await?;
    let mut drivers = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::connect(options.clone()).await?;
        drivers.push(Driver::new(soak.clone(), client, number));
    }
    rounds::healthy(soak, &observer, Duration::from_secs(120), DATASERVERS)
        .await
        .context("the cluster does not come up")?;
    let filling = drivers.iter_mut().map(|driver| driver.fill(CLIENTS));
    join_all(filling).await;
    let bytes = observer.status().await?.file_bytes;
    soak.say(format_args!(
        "{} files, {:.0} MiB; the load begins",
        soak.plan.names().count(),
        bytes as f64 / MIB
    ));
    // What was counted so far says nothing of the load.
    let filled = soak.tally.replace(Tally::default());
    if let Some(verdict) = filled.verdict() {
        bail!("while the cluster was filled and nothing failed: {verdict}");
    }

    let begun = Instant::now();
    let load = async {
        join_all(drivers.iter_mut().map(Driver::work)).await;
        begun.elapsed()
    };
    let disturbances = async {
        let outcome = rounds::run(soak, servers, &observer, menu, rounds).await;
        soak.over.set(true);
        outcome
    };
    let watch = rounds::watch(soak, servers);
    let (took, disturbed, ()) = tokio::join!(load, disturbances, watch);

    let mut checked = disturbed;
    if checked.is_ok() && !soak.is_broken() {
        checked = check(soak, servers, &observer, &mut drivers).await;
    }
    for (offence, words) in [(Offence::Died, PANIC), (Offence::Replica, BAD_REPLICA)] {
        for line in servers.borrow().logged(words) {
            soak.offence(offence, &line);
        }
    }
    let rounds = soak.round.get();
    for series in soak.tally.borrow().series(rounds, took) {
        context.report.series(&series);
    }
    let mut memory = Series::new(SCENARIO, "peak memory");
    for (server, bytes) in servers.borrow_mut().memory() {
        memory.add(&server.to_string(), "MiB", bytes as f64 / MIB);
    }
    let own = process::peak_rss_bytes(std::process::id())?;
    memory.add("16 clients and what they compare with", "MiB", own as f64 / MIB);
    context.report.series(&memory);
    if let Ok(status) = observer.status().await {
        context.report.series(&leftovers(&status));
    }
    if !soak.is_broken() {
        join_all(drivers.into_iter().map(Driver::close)).await;
        observer.close().await;
    }
    checked
}

/// What lies on the volumes beside the replicas that the nameserver wants: what failed writes have left, and what goes once
/// its last reader's ticket has expired.
fn leftovers(status: &ClusterStatus) -> Series {
    let volumes = || status.servers.iter().flat_map(|server| &server.volumes);
    let held: u64 = volumes().map(|volume| volume.report.replicas).sum();
    let wanted: u64 = volumes().map(|volume| volume.blocks).sum();
    let used: u64 = volumes().map(|volume| volume.report.used_bytes).sum();
    let mut series = Series::new(SCENARIO, "left on the volumes");
    series.add("replicas", "", held as f64);
    series.add("replicas on the nameserver's map", "", wanted as f64);
    series.add("deletions not yet done", "", status.pending_deletes as f64);
    series.add("used", "MiB", used as f64 / MIB);
    series.add("files", "MiB", status.file_bytes as f64 / MIB);
    series
}

/// All names are read whole, all replicas one by one, and the names are asked for once more from a nameserver that has only
/// its journal.
async fn check(
    soak: &Rc<Soak>,
    servers: &RefCell<Servers>,
    observer: &Client,
    drivers: &mut [Driver],
) -> Result<()> {
    soak.say("the load has ended: every file is read and compared");
    join_all(drivers.iter_mut().map(|driver| driver.read_all(CLIENTS))).await;
    if soak.is_broken() {
        return Ok(());
    }
    soak.say("every replica is read by itself");
    join_all(drivers.iter_mut().map(|driver| driver.read_replicas(CLIENTS))).await;
    rounds::healthy(soak, observer, Duration::from_secs(60), DATASERVERS).await?;
    soak.say("the nameserver is killed once more: every name is asked for");
    let again = faults::What::Kill(Server::Nameserver);
    servers.borrow_mut().begin(again)?;
    servers.borrow_mut().end(again)?;
    rounds::healthy(soak, observer, Duration::from_secs(120), DATASERVERS).await?;
    join_all(drivers.iter_mut().map(|driver| driver.look_at_all(CLIENTS))).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nameserver_still_says_what_is_looked_for_in_its_log() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../rpc/nameserver/src");
        let files = std::fs::read_dir(source).unwrap();
        let texts: String = files
            .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok())
            .collect();
        for words in BAD_REPLICA {
            assert!(texts.contains(words), "{words}");
        }
    }

    #[test]
    fn a_small_disk_slows_the_writers_down() {
        let (gib, mib) = (1 << 30, 1 << 20);
        assert_eq!(write_pace(10 * gib, KEPT_S, u64::MAX), 16 * mib);
        assert_eq!(write_pace(gib / 10, KEPT_S, u64::MAX), 8 * mib);
        let pace = write_pace(10 * gib, KEPT_S, 70 * gib);
        assert!((8 * mib..16 * mib).contains(&pace), "{pace}");
        assert!(needed_bytes(10 * gib, KEPT_S, pace) <= 70 * gib);
        // With less than half of the least there is no soak: then the room is asked for.
        assert_eq!(write_pace(10 * gib, KEPT_S, gib), 4 * mib);
    }

    #[test]
    fn the_pace_is_kept_over_all_who_spend() {
        let (pace, now) = (Pace::new(1000), Instant::now());
        let begins: Vec<f64> = (0..10)
            .map(|_| (pace.begin(500, now) - now).as_secs_f64())
            .collect();
        assert_eq!(begins[..3], [0.0; 3], "a second ahead");
        assert!((begins[9] - 3.5).abs() < 1e-6, "{begins:?}");
        assert_eq!(pace.begin(0, now), now, "who reads does not wait");
        // What was not used is not saved up.
        let later = now + Duration::from_secs(100);
        assert_eq!(pace.begin(500, later), later);
    }
}
