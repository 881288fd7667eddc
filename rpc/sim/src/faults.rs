//! What goes wrong, and how often it did. Faults destroy replicas only where another is left: what is lost beyond that
//! is the cluster's fault.

use std::collections::BTreeMap;

use blockyard_wire::types::BlockId;
use rand::seq::IndexedRandom as _;

use crate::cluster::{Cluster, NAMESERVER, Role};
use crate::nameserver::Ailing;
use crate::server::Site;
use crate::volume::Volume;
use crate::world::{Happening, HostId, Weather, World};

/// Faults of a run by kind.
pub type Counts = BTreeMap<&'static str, u64>;

/// Longest partition and pause, milliseconds: what is on its way is not later than the history's checker knows.
const LONG_MS: u64 = 40_000;

/// What the run has to do itself, because it owns the processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// Nothing more.
    None,
    /// End a host's process, and start it again after so many milliseconds.
    Crash(HostId, u64),
    /// Start a host's process in so many milliseconds, should it not run by then.
    Return(HostId, u64),
    /// Start a host's process, and end it after so many milliseconds.
    Start(HostId, u64),
}

/// A time that is mostly short and sometimes long, in measure with how often something goes wrong.
fn some_ms(cluster: &Cluster, longest_ms: u64) -> u64 {
    let world = &cluster.world;
    let longest_ms = longest_ms.min((40 * cluster.shape.fault_ms).max(2_000));
    match world.below(4) {
        0 => 1 + world.below(longest_ms),
        1 => 1 + world.below(longest_ms.min(10_000)),
        _ => 1 + world.below(longest_ms.min(1_000)),
    }
}

/// Has the next thing go wrong.
pub fn strike(cluster: &Cluster, counts: &mut Counts) -> Blow {
    let world = &cluster.world;
    let server = || 1 + world.below(cluster.shape.servers as u64) as HostId;
    let any = || world.below(Cluster::hosts(&cluster.shape) as u64) as HostId;
    let mut count = |kind: &'static str| {
        *counts.entry(kind).or_insert(0) += 1;
        world.note(0, 0, "fault", &[], kind.to_owned());
    };
    match world.below(40) {
        0..=3 => {
            let host = server();
            if world.host(host).up {
                count("dataserver killed");
                return Blow::Crash(host, some_ms(cluster, 120_000));
            }
        }
        4..=6 => {
            if world.host(NAMESERVER).up {
                count("nameserver killed");
                return Blow::Crash(NAMESERVER, some_ms(cluster, 20_000));
            }
        }
        7 => {
            let clients = cluster.shape.clients as u64;
            let host = 1 + cluster.shape.servers + world.below(clients) as HostId;
            if world.host(host).up {
                count("client killed");
                return Blow::Crash(host, some_ms(cluster, 5_000));
            }
        }
        8..=11 | 38..=39 => {
            let host = any();
            let now_ms = world.now_ms();
            let is_client = cluster.role(host) == Role::Client;
            // With a moment between two pauses, so that what has arrived gets through at last.
            if world.host(host).up && world.host(host).paused_until_ms + 2_000 < now_ms {
                count(match cluster.role(host) {
                    Role::Nameserver => "nameserver paused",
                    Role::Server => "dataserver paused",
                    Role::Client => "client paused",
                    Role::Old => "old nameserver paused",
                });
                let pause_ms = match is_client {
                    // Long enough for what it has written and not told to be found by others.
                    true => 1 + world.below(LONG_MS),
                    false => some_ms(cluster, LONG_MS),
                };
                world.change_host(host, |host| host.paused_until_ms = now_ms + pause_ms);
                world.schedule(pause_ms, Happening::Resume(host));
            }
        }
        12..=13 => {
            let (one, other) = (any(), any());
            if one != other {
                count("one-way partition");
                world.block(one, other, world.now_ms() + some_ms(cluster, LONG_MS));
            }
        }
        14..=15 => {
            let (one, other) = (any(), any());
            if one != other {
                count("partition of two");
                let until_ms = world.now_ms() + some_ms(cluster, LONG_MS);
                world.block(one, other, until_ms);
                world.block(other, one, until_ms);
            }
        }
        16 => {
            count("host cut off");
            let (host, until_ms) = (any(), world.now_ms() + some_ms(cluster, LONG_MS));
            for other in 0..Cluster::hosts(&cluster.shape) {
                if other != host {
                    world.block(host, other, until_ms);
                    world.block(other, host, until_ms);
                }
            }
        }
        17..=18 if cluster.shape.clocks_jump => {
            count("clock jump");
            let reach_ms = if world.below(4) == 0 { 3_600_000 } else { 25_000 };
            let offset_ms = world.below(2 * reach_ms) as i64 - reach_ms as i64;
            world.change_host(any(), |host| host.wall_offset_ms = offset_ms);
        }
        19..=21 => {
            let connections = world.connections();
            let one = world.draw(|rng| connections.choose(rng).copied());
            if let Some(connection) = one {
                count("connection broken");
                world.break_connection(connection, 5_000);
            }
        }
        22..=24 => rot(cluster, &mut count),
        25 | 30 => return rot_behind(cluster, &mut count),
        26 => {
            let site = &cluster.sites[world.below(cluster.sites.len() as u64) as usize];
            if !site.disk.borrow().failed {
                count("volume failed");
                site.disk.borrow_mut().failed = true;
            }
        }
        27 | 34..=35 => return lose_disk(cluster, &mut count),
        32..=33 | 36..=37 => return start_old(cluster, &mut count),
        28 => {
            let ailing = match world.below(2) {
                0 => Ailing::Full,
                _ => Ailing::Broken,
            };
            count("nameserver's disk fails");
            cluster.name_disk.borrow_mut().ailing = ailing;
        }
        29 => {
            count("slow disk");
            let until_ms = world.now_ms() + some_ms(cluster, LONG_MS);
            let at = world.below(1 + cluster.sites.len() as u64) as usize;
            match cluster.sites.get(at) {
                Some(site) => site.disk.borrow_mut().slow_until_ms = until_ms,
                None => cluster.name_disk.borrow_mut().slow_until_ms = until_ms,
            }
        }
        _ => {
            count("weather");
            world.weather.set(Weather {
                delay_ms: 1 + world.below(5),
                slow_one_in: [0, 20, 200][world.below(3) as usize],
                slow_ms: 1 + some_ms(cluster, 8_000),
                lost_one_in: [0, 100, 2_000][world.below(3) as usize],
                damaged_one_in: [0, 200, 5_000][world.below(3) as usize],
            });
        }
    }
    Blow::None
}

/// What goes wrong at the end, so that it is still so when nothing more does; hosts whose processes it ends.
pub fn strike_last(cluster: &Cluster, counts: &mut Counts) -> Vec<HostId> {
    let mut count = |kind: &'static str| {
        *counts.entry(kind).or_insert(0) += 1;
        cluster.world.note(0, 0, "fault", &[], kind.to_owned());
    };
    for _ in 0..6 {
        rot(cluster, &mut count);
    }
    match lose_disk(cluster, &mut count) {
        Blow::Crash(host, _) => vec![host],
        _ => Vec::new(),
    }
}

/// Flips bits of a replica that is not the last, or has it vanish, as from a disk that was restored from an older image;
/// or does so to all of a block's but the last.
fn rot(cluster: &Cluster, count: &mut impl FnMut(&'static str)) {
    let world = &cluster.world;
    let Some(name) = cluster.nameserver() else { return };
    let first = world.below(cluster.sites.len() as u64) as usize;
    let blocks: Vec<_> = {
        let disk = cluster.sites[first].disk.borrow();
        disk.all().map(|(block, _)| block).collect()
    };
    let Some(block) = world.draw(|rng| blocks.choose(rng).copied()) else {
        return;
    };
    let sites = match world.below(2) {
        0 => &cluster.sites[first..=first],
        _ => &cluster.sites[..],
    };
    for site in sites {
        let (volume, held) = {
            let disk = site.disk.borrow();
            (disk.id, disk.lookup(block))
        };
        let is_sound = held.is_some_and(|held| held.is_true());
        if is_sound && cluster.is_spare(&name, volume, block) {
            let vanishes = world.below(4) == 0;
            count(match vanishes {
                true => "replica vanished",
                false => "replica rotten",
            });
            note_rot(world, site, block);
            let bits = 1 << world.below(20);
            match vanishes {
                true => site.disk.borrow_mut().lose(block),
                false => site.disk.borrow_mut().rot(block, bits),
            }
        }
    }
}

fn note_rot(world: &World, site: &Site, block: BlockId) {
    world.note(site.host, site.host, "rot", &[block.0], site.address.clone());
}

/// Flips bits of all replicas of blocks that have too many, but those on a server that is down, which then comes back:
/// whoever trims without looking may keep the wrong ones.
fn rot_behind(cluster: &Cluster, count: &mut impl FnMut(&'static str)) -> Blow {
    let world = &cluster.world;
    let Some(name) = cluster.nameserver() else {
        return Blow::None;
    };
    let down: Vec<HostId> = cluster.servers().filter(|host| !world.host(*host).up).collect();
    let Some(host) = world.draw(|rng| down.choose(rng).copied()) else {
        return Blow::None;
    };
    let is_there = |volume| cluster.site_of(volume).is_some_and(|site| site.host == host);
    let blocks = name.all_mapped().into_iter().filter(|block| {
        block.replicas.len() > usize::from(block.wanted)
            && block.replicas.iter().any(|(volume, _)| is_there(*volume))
    });
    for block in blocks.take(8) {
        for (volume, _) in &block.replicas {
            let Some(site) = cluster.site_of(*volume).filter(|site| site.host != host) else {
                continue;
            };
            let held = site.disk.borrow().lookup(block.block);
            if held.is_some_and(|held| held.is_true()) && cluster.is_spare(&name, *volume, block.block) {
                count("surplus replica rotten");
                note_rot(world, site, block.block);
                site.disk.borrow_mut().rot(block.block, 1 << world.below(20));
            }
        }
    }
    Blow::Return(host, 1 + world.below(500))
}

/// Replaces a disk of whose replicas none is the last by an empty one.
fn lose_disk(cluster: &Cluster, count: &mut impl FnMut(&'static str)) -> Blow {
    let world = &cluster.world;
    let Some(name) = cluster.nameserver() else {
        return Blow::None;
    };
    // An empty volume has seen no epoch, and would obey the old nameserver.
    if cluster.old().is_some_and(|old| world.host(old).up) {
        return Blow::None;
    }
    let site = &cluster.sites[world.below(cluster.sites.len() as u64) as usize];
    let spare = {
        let disk = site.disk.borrow();
        // What is being written may be acknowledged just now.
        disk.is_quiet()
            && disk
                .all()
                .all(|(block, _)| cluster.is_spare(&name, disk.id, block))
    };
    if !spare {
        return Blow::None;
    }
    count("disk lost");
    let held: Vec<u64> = site.disk.borrow().all().map(|(block, _)| block.0).collect();
    world.note(site.host, site.host, "disk lost", &held, site.address.clone());
    let fresh = world.draw(|rng| Volume::format(cluster.shape.capacity_bytes, rng));
    *site.disk.borrow_mut() = fresh;
    // An empty folder is formatted by the next process.
    match world.host(site.host).up {
        true => Blow::Crash(site.host, some_ms(cluster, 20_000)),
        false => Blow::None,
    }
}

/// Starts a nameserver on an old copy of the other's disk; or makes the copy.
fn start_old(cluster: &Cluster, count: &mut impl FnMut(&'static str)) -> Blow {
    let world = &cluster.world;
    let Some(old) = cluster.old().filter(|old| !world.host(*old).up) else {
        return Blow::None;
    };
    let mut backup = cluster.backup.borrow_mut();
    match backup.take() {
        Some((disk, reign)) if cluster.is_outdated(reign) => {
            count("old nameserver started");
            *cluster.old_disk.borrow_mut() = disk;
            Blow::Start(old, 20_000 + world.below(200_000))
        }
        None => {
            let reign = cluster.nameserver().map(|name| name.epoch().number);
            *backup = reign.map(|reign| {
                let mut disk = cluster.name_disk.borrow().clone();
                disk.crash(world);
                (disk, reign)
            });
            Blow::None
        }
        waits => {
            *backup = waits;
            Blow::None
        }
    }
}
