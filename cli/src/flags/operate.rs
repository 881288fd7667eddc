//! Flags of what an operator does: servers, volumes, repair, balance, replication.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Cluster, Form, Inventory, VolumeFsck};
use crate::values::{duration, size};

/// Copies of a block at the most.
pub const REPLICATION_MAX: i64 = 8;

/// `node …`
#[derive(Subcommand, Debug)]
pub enum Node {
    /// List dataservers: state, duty, blocks, space.
    List(Listing),
    /// Move all blocks off dataservers, so that they can go.
    Drain(Drain),
    /// Leave dataservers alone for a time: no new blocks, and no repair while they are away.
    Maintain(Maintain),
    /// Take dataservers back into full service.
    Resume(Targets),
    /// Take dataservers out of the cluster for good.
    Remove(Remove),
}

/// `volume …`
#[derive(Subcommand, Debug)]
pub enum Volume {
    /// Of a cluster that runs.
    #[command(flatten)]
    In(VolumeIn),
    /// Check a volume's folder on this machine, and rebuild its index from what its slots say of themselves where it can't
    /// be read.
    Fsck(VolumeFsck),
    /// List what a volume's folder on this machine holds, for 'rebuild'.
    Inventory(Inventory),
}

/// `volume …`, in a cluster that runs.
#[derive(Subcommand, Debug)]
pub enum VolumeIn {
    /// List volumes: state, duty, blocks, space.
    List(Listing),
    /// Move all blocks off volumes, so that they can go.
    Drain(Drain),
    /// Leave volumes alone for a time: no new blocks, and no repair while they are away.
    Maintain(Maintain),
    /// Take volumes back into full service.
    Resume(Targets),
    /// Take volumes out of the cluster for good.
    Remove(Remove),
    /// Drain volumes, and remove each as soon as nothing on it is needed.
    Replace(Targets),
}

impl Node {
    /// Which cluster.
    pub fn cluster(&self) -> &Cluster {
        match self {
            Self::List(flags) => &flags.cluster,
            Self::Drain(flags) => &flags.targets.cluster,
            Self::Maintain(flags) => &flags.targets.cluster,
            Self::Resume(targets) => &targets.cluster,
            Self::Remove(flags) => &flags.targets.cluster,
        }
    }
}

impl VolumeIn {
    /// Which cluster.
    pub fn cluster(&self) -> &Cluster {
        match self {
            Self::List(flags) => &flags.cluster,
            Self::Drain(flags) => &flags.targets.cluster,
            Self::Maintain(flags) => &flags.targets.cluster,
            Self::Resume(targets) | Self::Replace(targets) => &targets.cluster,
            Self::Remove(flags) => &flags.targets.cluster,
        }
    }
}

/// A list.
#[derive(Args, Debug)]
pub struct Listing {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// Servers or volumes.
#[derive(Args, Debug)]
pub struct Targets {
    /// Servers: HOST:PORT or host name. Volumes: id, or how it begins, or folder; 'blockyard volume list' shows them.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `drain`
#[derive(Args, Debug)]
pub struct Drain {
    /// Return only when nothing is left there that is needed.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub targets: Targets,
}

/// `maintain`
#[derive(Args, Debug)]
pub struct Maintain {
    /// How long at the most, such as 30m, 2h or 1d; behind it the timers count again.
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "1h")]
    pub lasts: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub targets: Targets,
}

/// `remove`
#[derive(Args, Debug)]
pub struct Remove {
    /// Remove what holds the last good replica of a block, too: such blocks are lost.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub targets: Targets,
}

/// `repair …`
#[derive(Subcommand, Debug)]
pub enum Repair {
    /// Show what repair has before it, how quick it is, and when it will be done.
    Status(Listing),
    /// Copy, move and trim nothing until resumed.
    Pause(Whole),
    /// Go on.
    Resume(ResumeRepair),
    /// Set the bytes per second that copies may take over the whole cluster. Blocks of which one replica is left come
    /// first, but wait for it too.
    Pace(Pace),
}

impl Repair {
    /// Which cluster.
    pub fn cluster(&self) -> &Cluster {
        match self {
            Self::Status(flags) => &flags.cluster,
            Self::Pause(flags) => &flags.cluster,
            Self::Resume(flags) => &flags.cluster,
            Self::Pace(flags) => &flags.cluster,
        }
    }
}

/// `scrub …`
#[derive(Subcommand, Debug)]
pub enum Scrub {
    /// Show how far each volume's scrub is, and what it found.
    Status(Listing),
    /// Begin a pass at once, or go on with the one that is paused.
    Start(Scrubbed),
    /// Read nothing until started again, also after restarts.
    Pause(Scrubbed),
}

impl Scrub {
    /// Which cluster.
    pub fn cluster(&self) -> &Cluster {
        match self {
            Self::Status(flags) => &flags.cluster,
            Self::Start(flags) | Self::Pause(flags) => &flags.cluster,
        }
    }
}

/// `scrub start` and `scrub pause`
#[derive(Args, Debug)]
pub struct Scrubbed {
    /// Volumes by id, or how it begins, or folder [default: all]
    #[arg(value_name = "VOLUME")]
    pub volumes: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// Nothing but the cluster.
#[derive(Args, Debug)]
pub struct Whole {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `repair resume`
#[derive(Args, Debug)]
pub struct ResumeRepair {
    /// Also while so many volumes are away that it is rather the network than their disks.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// Bytes per second; 0 for the automatic pace.
fn repair_pace(given: &str) -> Result<u64, String> {
    if given == "auto" { Ok(0) } else { size(given) }
}

/// `repair pace`
#[derive(Args, Debug)]
pub struct Pace {
    /// Such as 200MiB, over the whole cluster; `auto`: what clients leave (the default).
    #[arg(value_name = "SIZE", value_parser = repair_pace)]
    pub bytes_per_s: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `balance …`
#[derive(Subcommand, Debug)]
pub enum Balance {
    /// Show how full volumes are, and what has moved.
    Status(Listing),
    /// Let full volumes give blocks to empty ones whenever there is no repair to do (the default).
    On(Whole),
    /// Leave blocks where they are.
    Off(Whole),
}

impl Balance {
    /// Which cluster.
    pub fn cluster(&self) -> &Cluster {
        match self {
            Self::Status(flags) => &flags.cluster,
            Self::On(flags) | Self::Off(flags) => &flags.cluster,
        }
    }
}

/// `setrep`
#[derive(Args, Debug)]
pub struct SetReplication {
    /// Copies of each block, 1 to 8.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=REPLICATION_MAX))]
    pub replication: u8,
    /// Files, or folders.
    #[arg(value_name = "REMOTE", required = true)]
    pub paths: Vec<String>,
    /// Set it for all files below folders.
    #[arg(short, long)]
    pub recursive: bool,
    /// Return only when all blocks of the cluster have the replicas that are wanted.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}
