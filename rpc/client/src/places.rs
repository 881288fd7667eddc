//! Which replica is asked first: one that works, is not slow, and is near. Knows addresses and zones, not bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use blockyard_wire::types::{Location, ReplicaState, VolumeId};
use tokio::time::Instant;

use crate::core::Core;

/// How long a volume that failed is asked last.
const SHUN_FOR: Duration = Duration::from_secs(10);

/// What is known of places to read from.
pub struct Places {
    zone: Option<String>,
    shunned_until: RefCell<HashMap<VolumeId, Instant>>,
    local_hosts: RefCell<HashMap<String, bool>>,
}

impl Places {
    /// For a client in `zone`, where that is known.
    pub fn new(zone: Option<String>) -> Self {
        Self {
            zone,
            shunned_until: RefCell::default(),
            local_hosts: RefCell::default(),
        }
    }

    /// `volume` has just failed: it is asked last for a while.
    pub fn shun(&self, volume: VolumeId) {
        self.shunned_until
            .borrow_mut()
            .insert(volume, Instant::now() + SHUN_FOR);
    }

    /// Whether `volume` has failed of late.
    pub fn is_shunned(&self, volume: VolumeId) -> bool {
        let shunned = self.shunned_until.borrow();
        // Mostly none is, and the time need not be asked for.
        !shunned.is_empty() && shunned.get(&volume).is_some_and(|until| *until > Instant::now())
    }

    /// Whether `address` is of this very machine: an address that can be bound is.
    fn is_local(&self, address: &str) -> bool {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        if let Some(&known) = self.local_hosts.borrow().get(host) {
            return known;
        }
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let local = ip.is_ok_and(|ip| UdpSocket::bind((ip, 0)).is_ok());
        self.local_hosts.borrow_mut().insert(host.to_owned(), local);
        local
    }

    /// How far away a replica is: on this host, in this zone, elsewhere.
    fn distance(&self, replica: &Location) -> u8 {
        if self.is_local(&replica.hop.address) {
            0
        } else if self.zone.as_ref().is_some_and(|zone| *zone == replica.zone) {
            1
        } else {
            2
        }
    }
}

/// The replicas worth asking, best first: of equally good and near ones the one that has least to do for us, then in the
/// nameserver's order.
pub fn order(core: &Core, replicas: &[Location]) -> Vec<Location> {
    let mut order: Vec<Location> = replicas
        .iter()
        .filter(|replica| replica.state == ReplicaState::Good)
        .cloned()
        .collect();
    order.sort_by_key(|replica| {
        let hop = &replica.hop;
        (
            !replica.live,
            core.places.is_shunned(hop.volume),
            core.reads.behind(hop.volume),
            core.places.distance(replica),
            core.channels.load(&hop.address),
        )
    });
    order
}

/// Whether a read that is late at `first` may do better here: at a volume that is not slow, unless `first` is slow too,
/// and that has no late request at this moment.
pub fn may_rescue(core: &Core, first: VolumeId, replica: &Location) -> bool {
    let volume = replica.hop.volume;
    let slow = core.reads.is_slow(volume) && !core.reads.is_slow(first);
    replica.live && !core.places.is_shunned(volume) && !slow && !core.reads.is_late(volume)
}

#[cfg(test)]
mod tests {
    use blockyard_wire::ticket::Ticket;
    use blockyard_wire::types::Hop;

    use super::*;

    fn replica(address: &str, zone: &str) -> Location {
        Location {
            hop: Hop {
                volume: VolumeId([1; 16]),
                address: address.to_owned(),
                server: address.to_owned(),
                ticket: Ticket::default(),
            },
            state: ReplicaState::Good,
            live: true,
            zone: zone.to_owned(),
        }
    }

    #[test]
    fn this_host_is_nearest_then_this_zone() {
        let places = Places::new(Some("here".into()));
        // TEST-NET-1 is nobody's address.
        assert_eq!(places.distance(&replica("127.0.0.1:9010", "there")), 0);
        assert_eq!(places.distance(&replica("192.0.2.1:9010", "here")), 1);
        assert_eq!(places.distance(&replica("192.0.2.1:9010", "there")), 2);
        let nowhere = Places::new(None);
        assert_eq!(nowhere.distance(&replica("192.0.2.1:9010", "")), 2);
    }

    #[test]
    fn a_volume_that_failed_is_shunned() {
        let places = Places::new(None);
        let volume = VolumeId([2; 16]);
        assert!(!places.is_shunned(volume));
        places.shun(volume);
        assert!(places.is_shunned(volume));
    }
}
