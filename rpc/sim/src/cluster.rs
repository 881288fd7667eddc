//! One run's cluster: who runs where, and what is true of it, whatever anybody believes.

use std::cell::RefCell;
use std::rc::Rc;

use blockyard_nameserver::Config;
use blockyard_nameserver::simulated::{Mapped, Nameserver};
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::ticket::Keys;
use blockyard_wire::types::{BlockId, ClusterId, ReplicaState, VolumeId};

use crate::nameserver::{self, NameDisk, Process};
use crate::server::{self, Site};
use crate::volume::Volume;
use crate::workload::Workload;
use crate::world::{HostId, World};

/// Where the nameserver runs.
pub const NAMESERVER: HostId = 0;

/// What a host is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The nameserver.
    Nameserver,
    /// A dataserver.
    Server,
    /// A client.
    Client,
    /// A nameserver on an old copy of the other's disk, which somebody starts by mistake.
    Old,
}

/// How large and how quick a run is: drawn from its seed.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Dataservers.
    pub servers: usize,
    /// Volumes of each.
    pub volumes: usize,
    /// Zones that they are in.
    pub zones: usize,
    /// Clients.
    pub clients: usize,
    /// Groups of names.
    pub groups: usize,
    /// Lowest and highest replication factor asked for.
    pub replication: (u8, u8),
    /// Longest pause of a client between two operations, milliseconds.
    pub think_ms: u64,
    /// Usual time between two faults, milliseconds.
    pub fault_ms: u64,
    /// Milliseconds between two passes of a volume's scrub.
    pub scrub_ms: u64,
    /// Whether clocks jump.
    pub clocks_jump: bool,
    /// Whether somebody starts an old nameserver by mistake.
    pub has_old: bool,
    /// Bytes of a volume.
    pub capacity_bytes: u64,
    /// The nameserver's times and limits.
    pub config: Config,
}

impl Shape {
    /// The shape that the world's lots give.
    pub fn draw(world: &World) -> Self {
        let pick = |choices: &[u64]| choices[world.below(choices.len() as u64) as usize];
        let servers = 3 + world.below(4) as usize;
        let heartbeat_ms = pick(&[200, 1_000, 2_000]) as u32;
        let suspect_ms = heartbeat_ms * pick(&[3, 5]) as u32;
        let config = Config {
            dir: "/ns".into(),
            replication: 2,
            min_replicas: 1,
            heartbeat_ms,
            suspect_ms,
            dead_ms: suspect_ms * pick(&[2, 6]) as u32,
            lease_ms: pick(&[5_000, 20_000, 60_000]) as u32,
            ticket_ms: pick(&[20_000, 60_000, 600_000]),
            orphan_age_ms: pick(&[2_000, 20_000, 120_000]),
            trash_ms: pick(&[2_000, 20_000, 60_000]),
            show_damage_ms: pick(&[100, 3_000]) as u32,
            reconcile_ms: pick(&[5_000, 30_000, 120_000]),
            safe_mode_ms: pick(&[3_000, 30_000]),
            // Snapshots are made between two lives.
            journal_bytes_max: u64::MAX,
            // Short, as each start reads the unwritten rest of the last one, too.
            journal_file_bytes: 512 << 10,
            repairs_max: pick(&[1, 4, 16]) as usize,
            ..Config::default()
        };
        let volumes = pick(&[1, 1, 2]) as usize;
        // So many messages go on between two faults that something gets done, whatever the pace.
        let (think_ms, pace_ms) = [
            (20, 600),
            (20, 600),
            (20, 600),
            (100, 1_200),
            (1_000, 7_000),
            (10_000, 30_000),
        ][world.below(6) as usize];
        Self {
            servers,
            volumes,
            zones: pick(&[1, 2, servers as u64]) as usize,
            clients: 3 + world.below(6) as usize,
            groups: pick(&[3, 12]) as usize,
            replication: (
                pick(&[1, 2, 2]) as u8,
                (servers - 1).min(pick(&[2, 3, 4]) as usize) as u8,
            ),
            think_ms,
            fault_ms: pace_ms * pick(&[1, 2, 4, 12]) / 2,
            scrub_ms: pick(&[2_000, 30_000]) * (1 + think_ms / 1_000),
            clocks_jump: world.below(2) == 0,
            has_old: world.below(3) == 0,
            capacity_bytes: pick(&[96 << 20, 1 << 30, 16 << 30]),
            config,
        }
    }
}

/// The cluster of one run.
pub struct Cluster {
    /// Its world.
    pub world: Rc<World>,
    /// How large and quick it is.
    pub shape: Shape,
    /// All volumes.
    pub sites: Rc<Vec<Site>>,
    /// The nameserver's disk.
    pub name_disk: Rc<RefCell<NameDisk>>,
    /// The disk of the old nameserver.
    pub old_disk: Rc<RefCell<NameDisk>>,
    /// A copy of the nameserver's disk, and the number of the reign that it was made in.
    pub backup: RefCell<Option<(NameDisk, u64)>>,
    /// The nameserver's process, while there is one.
    pub process: RefCell<Option<Rc<Process>>>,
    /// What clients do.
    pub workload: Rc<Workload>,
    cluster: ClusterId,
    keys: Keys,
}

impl Cluster {
    /// A cluster of this shape, with nothing on its disks.
    pub fn new(world: Rc<World>, shape: Shape) -> Rc<Self> {
        let cluster = ClusterId([7; 16]);
        let volumes = (0..shape.servers).flat_map(|server| {
            (0..shape.volumes).map(move |volume| (server, format!("d{}:{}", server + 1, 9100 + volume)))
        });
        let site = |(server, address): (usize, String)| Site {
            host: 1 + server,
            address,
            disk: Rc::new(RefCell::new(
                world.draw(|rng| Volume::format(shape.capacity_bytes, rng)),
            )),
        };
        let workload = Workload::new(
            world.clone(),
            shape.groups,
            shape.replication,
            shape.think_ms,
            (!shape.clocks_jump).then_some(shape.config.ticket_ms),
        );
        Rc::new(Self {
            sites: Rc::new(volumes.map(site).collect()),
            name_disk: Rc::default(),
            old_disk: Rc::default(),
            backup: RefCell::new(None),
            process: RefCell::new(None),
            workload: Rc::new(workload),
            cluster,
            // Signatures decide nothing but whether they hold: these may differ from run to run.
            keys: Keys::derive(&ClusterSecret::generate(), cluster),
            world,
            shape,
        })
    }

    /// Hosts of a cluster of this shape.
    pub fn hosts(shape: &Shape) -> usize {
        1 + shape.servers + shape.clients + usize::from(shape.has_old)
    }

    /// What a host is there for.
    pub fn role(&self, host: HostId) -> Role {
        match host {
            NAMESERVER => Role::Nameserver,
            host if host <= self.shape.servers => Role::Server,
            host if host <= self.shape.servers + self.shape.clients => Role::Client,
            _ => Role::Old,
        }
    }

    /// The hosts of dataservers.
    pub fn servers(&self) -> std::ops::RangeInclusive<HostId> {
        1..=self.shape.servers
    }

    /// Where the old nameserver runs, if there is one.
    pub fn old(&self) -> Option<HostId> {
        self.shape
            .has_old
            .then_some(1 + self.shape.servers + self.shape.clients)
    }

    /// Whether an old nameserver that is started now is below the epoch of every volume: what the design asks of
    /// whoever restores a copy.
    pub fn is_outdated(&self, reign: u64) -> bool {
        let Some(name) = self.nameserver() else {
            return false;
        };
        let now = name.epoch().number;
        let obeyed = |site: &Site| site.disk.borrow().epoch() >= now;
        reign + 2 <= now && self.sites.iter().all(obeyed)
    }

    /// What the nameserver of a host is started with.
    pub fn nameserver_setup(&self, host: HostId) -> nameserver::Setup {
        let disk = match self.role(host) {
            Role::Old => &self.old_disk,
            _ => &self.name_disk,
        };
        nameserver::Setup {
            host,
            config: self.shape.config.clone(),
            cluster: self.cluster,
            keys: self.keys.clone(),
            disk: disk.clone(),
            sites: self.sites.clone(),
        }
    }

    /// What the dataserver of a host is started with.
    pub fn server_setup(&self, host: HostId) -> server::Setup {
        server::Setup {
            host,
            nameservers: std::iter::once(NAMESERVER).chain(self.old()).collect(),
            address: format!("d{host}:9100"),
            zone: format!("z{}", host % self.shape.zones),
            sites: self.sites.clone(),
            keys: self.keys.clone(),
            scrub_ms: self.shape.scrub_ms,
        }
    }

    /// The nameserver, while it reigns.
    pub fn nameserver(&self) -> Option<Nameserver> {
        self.process.borrow().as_ref()?.nameserver()
    }

    /// Where a volume is; none where its disk is gone.
    pub fn site_of(&self, volume: VolumeId) -> Option<&Site> {
        self.sites.iter().find(|site| site.disk.borrow().id == volume)
    }

    /// Whether a volume has the right bytes of a block, and serves them.
    fn is_truly_good(&self, volume: VolumeId, block: &Mapped) -> bool {
        self.site_of(volume).is_some_and(|site| {
            let held = site.disk.borrow().lookup(block.block);
            held.is_some_and(|held| {
                held.state == ReplicaState::Good
                    && held.is_true()
                    && (held.length, held.crc32c) == (block.length, block.crc32c)
            })
        })
    }

    /// Whether the replica of a block on a volume may be destroyed without taking the last one: another is on the map
    /// and good, and nothing is being done about it just now.
    pub fn is_spare(&self, name: &Nameserver, volume: VolumeId, block: BlockId) -> bool {
        let Some(mapped) = name.mapped(block) else {
            return !name.may_want(block);
        };
        // What repair has just verified may be gone when it acts on that: no system knows.
        if name.is_repairing(block) {
            return false;
        }
        mapped
            .replicas
            .iter()
            .filter(|(other, state)| *state == ReplicaState::Good && *other != volume)
            .any(|(other, _)| self.is_truly_good(*other, &mapped))
    }

    /// Blocks that lack something, for people.
    pub fn describe(&self) -> String {
        let Some(name) = self.nameserver() else {
            return String::new();
        };
        let lacking = |block: &Mapped| {
            let good = block
                .replicas
                .iter()
                .filter(|(volume, _)| self.is_truly_good(*volume, block));
            good.count() != usize::from(block.wanted)
        };
        let blocks = name
            .all_mapped()
            .into_iter()
            .filter(lacking)
            .take(3)
            .map(|block| {
                let replicas = block.replicas.iter().map(|(volume, known)| {
                    let site = self.site_of(*volume);
                    let held = site.and_then(|site| site.disk.borrow().lookup(block.block));
                    let at = site.map_or("a disk that is gone", |site| &site.address);
                    format!(
                        "{at} {known:?}, held {:?}",
                        held.map(|held| (held.state, held.is_true()))
                    )
                });
                let replicas: Vec<_> = replicas.collect();
                format!(
                    "{} wanted {} times: {}",
                    block.block,
                    block.wanted,
                    replicas.join("; ")
                )
            });
        let disks = self.sites.iter().map(|site| {
            let report = site.disk.borrow().report(&site.address, 0);
            format!(
                "{} {:?} free {} MiB",
                site.address,
                report.state,
                report.free_bytes >> 20
            )
        });
        let (blocks, disks): (Vec<_>, Vec<_>) = (blocks.collect(), disks.collect());
        format!(
            "{}; disks: {}; {:?}",
            blocks.join(" | "),
            disks.join(", "),
            name.status().repair.held
        )
    }

    /// What keeps the cluster from being whole: every block as often as wanted, on servers of their own, and nothing
    /// else anywhere; `None` when it is.
    pub fn unsettled(&self) -> Option<String> {
        let Some(name) = self.nameserver() else {
            return Some("no nameserver reigns".to_owned());
        };
        let there: Vec<VolumeId> = self.sites.iter().map(|site| site.disk.borrow().id).collect();
        if let Some(left) = name.unsettled(&there) {
            return Some(left);
        }
        for block in name.all_mapped() {
            let good: Vec<HostId> = block
                .replicas
                .iter()
                .filter(|(volume, _)| self.is_truly_good(*volume, &block))
                .filter_map(|(volume, _)| self.site_of(*volume).map(|site| site.host))
                .collect();
            let mut hosts = good.clone();
            hosts.sort_unstable();
            hosts.dedup();
            if good.len() != usize::from(block.wanted) {
                return Some(format!(
                    "block {} is good on hosts {good:?}, and wanted {} times",
                    block.block, block.wanted
                ));
            }
            if hosts.len() != good.len() {
                return Some(format!("block {} is twice on one server: {good:?}", block.block));
            }
        }
        for site in self.sites.iter() {
            let disk = site.disk.borrow();
            let stray = disk.all().find(|(block, _)| {
                let mapped = name.mapped(*block);
                !mapped.is_some_and(|mapped| mapped.replicas.iter().any(|(volume, _)| *volume == disk.id))
            });
            if let Some((block, held)) = stray {
                return Some(format!("{} still has block {block}: {held:?}", site.address));
            }
        }
        None
    }
}
