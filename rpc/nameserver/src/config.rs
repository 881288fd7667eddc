//! What a nameserver is told at its start: folder, listener, replication, times and limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use blockyard_wire::address::NAMESERVER_PORT;
use blockyard_wire::secret::ClusterSecret;

use crate::error::Error;
use crate::snapshot::KEPT_MIN;
use crate::state::blocks::REPLICATION_MAX;

/// How a nameserver is to run. `Default` serves `127.0.0.1:9000` from `./nameserver`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its folder: identity, journal, snapshots. Made when it is not there.
    pub dir: PathBuf,
    /// A second folder, best on another disk, that gets all that the first one gets: each change is durable in both
    /// before it counts. One that fails is left behind, and brought up to the other at the next start.
    pub mirror: Option<PathBuf>,
    /// Snapshots that are kept, the journal from the oldest of them on.
    pub snapshots_kept: usize,
    /// Takes the cluster over with the state of a backup: reigns above the highest epoch that a volume has seen, and
    /// keeps what came after the backup until the operator lets it go.
    pub adopt: bool,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Replicas of a block where an upload does not say otherwise.
    pub replication: u8,
    /// Fewer volumes than this for a block refuse the write.
    pub min_replicas: u8,
    /// Milliseconds between a dataserver's heartbeats.
    pub heartbeat_ms: u32,
    /// Milliseconds of silence after which a server is suspect: last choice for reads, none for writes.
    pub suspect_ms: u32,
    /// Milliseconds of silence after which a server is dead: its replicas count as lost.
    pub dead_ms: u32,
    /// Milliseconds that an upload may be silent.
    pub lease_ms: u32,
    /// Milliseconds that a ticket is good for.
    pub ticket_ms: u64,
    /// Milliseconds that a block unknown to the nameserver stays on a volume before it is deleted.
    pub orphan_age_ms: u64,
    /// Milliseconds that a damaged replica stays in sight before it is deleted and its volume may be copied to again.
    pub show_damage_ms: u32,
    /// Milliseconds between two comparisons of what a volume holds with what it should.
    pub reconcile_ms: u64,
    /// Milliseconds after the start that repair and deletion wait for the known servers at the most.
    pub safe_mode_ms: u64,
    /// Milliseconds that what was deleted stays in the trash; sooner it goes when space is short.
    pub trash_ms: u64,
    /// The cluster's secret. `None`: the nameserver keeps one of its own in `dir/cluster.secret`, made at
    /// the first start; it may then listen on loopback only.
    pub secret: Option<ClusterSecret>,
    /// Whether a secret of its own is also copied to where this user's clients find it
    /// ([`ClusterSecret::user_path`]).
    pub secret_for_user: bool,
    /// Bytes of journal after which a snapshot is taken.
    pub journal_bytes_max: u64,
    /// Bytes of one preallocated journal file.
    pub journal_file_bytes: u64,
    /// Control connections at a time.
    pub connections_max: usize,
    /// Uploads at a time.
    pub leases_max: usize,
    /// Copies under way at a time.
    pub repairs_max: usize,
    /// More than this part of all volumes with replicas silent for too long holds repair back: then it is rather the
    /// network than the disks.
    pub outage_share: f64,
    /// Seeds the choice of volumes, for repeatable tests; `None`: from the system.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: "nameserver".into(),
            mirror: None,
            snapshots_kept: KEPT_MIN,
            adopt: false,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, NAMESERVER_PORT)),
            replication: 2,
            min_replicas: 1,
            heartbeat_ms: 1_000,
            suspect_ms: 5_000,
            dead_ms: 30_000,
            lease_ms: 60_000,
            ticket_ms: 600_000,
            orphan_age_ms: 600_000,
            show_damage_ms: 10_000,
            reconcile_ms: 600_000,
            safe_mode_ms: 30_000,
            trash_ms: 24 * 3_600_000,
            secret: None,
            secret_for_user: true,
            journal_bytes_max: 64 << 20,
            journal_file_bytes: 16 << 20,
            connections_max: 1024,
            leases_max: 100_000,
            repairs_max: 64,
            outage_share: 0.5,
            seed: None,
        }
    }
}

impl Config {
    /// The folder, and its mirror.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        std::iter::once(self.dir.clone())
            .chain(self.mirror.clone())
            .collect()
    }

    /// Refuses what can't work.
    ///
    /// # Errors
    /// `Invalid` with the setting and its bounds.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |what: String| Err(Error::invalid(what));
        if self.replication == 0 || self.replication > REPLICATION_MAX {
            return bad(format!(
                "replication {} is not between 1 and {REPLICATION_MAX}",
                self.replication
            ));
        }
        if self.min_replicas == 0 || self.min_replicas > self.replication {
            return bad(format!(
                "min_replicas {} is not between 1 and the replication {}",
                self.min_replicas, self.replication
            ));
        }
        if self.heartbeat_ms == 0 || self.suspect_ms < self.heartbeat_ms || self.dead_ms < self.suspect_ms {
            return bad(format!(
                "heartbeat {} ms, suspect {} ms and dead {} ms must not fall",
                self.heartbeat_ms, self.suspect_ms, self.dead_ms
            ));
        }
        if self.lease_ms < 100 || self.ticket_ms < 100 {
            return bad("leases and tickets live at least 100 ms".to_owned());
        }
        if self.snapshots_kept < KEPT_MIN {
            return bad(format!(
                "at least {KEPT_MIN} snapshots are kept: one may turn out to be unreadable"
            ));
        }
        if self.mirror.as_ref() == Some(&self.dir) {
            return bad(format!("{} can't be its own mirror", self.dir.display()));
        }
        let least = crate::journal::FILE_BYTES_MIN;
        if self.journal_file_bytes < least {
            return bad(format!("a journal file has at least {least} bytes"));
        }
        if self.connections_max == 0 || self.leases_max == 0 || self.repairs_max == 0 {
            return bad("a limit of 0 connections, uploads or copies lets nothing happen".to_owned());
        }
        Ok(())
    }
}
