//! Which replicas count: what volumes are worth to the blocks that they hold, and where they stand. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::blocks::VolumeIndex;

/// What a replica on a volume is worth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Standing {
    /// It is one of those wanted.
    Counts,
    /// It is one of those wanted, and can't be read just now: its volume is away for maintenance.
    Away,
    /// It can be read, but its volume is draining: another one is wanted in its place.
    Leaving,
    /// Its volume is dead, has failed, or was removed.
    #[default]
    Lost,
}

/// The failure domains that a volume is in; numbers that stand for names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// Its dataserver.
    pub server: u16,
    /// Its zone.
    pub zone: u16,
}

/// A volume with its server and zone by name.
pub struct Spot<'a> {
    /// Which.
    pub volume: VolumeIndex,
    /// What its replicas are worth.
    pub standing: Standing,
    /// Whether new blocks can go there.
    pub takes_blocks: bool,
    /// Its dataserver.
    pub server: &'a str,
    /// Its zone.
    pub zone: &'a str,
}

/// The standing and place of every volume.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standings {
    /// By volume.
    all: Vec<(Standing, Place)>,
    /// Servers that blocks can be spread over.
    servers: usize,
    /// Zones that blocks can be spread over.
    zones: usize,
}

impl Standings {
    /// Of `count` volumes; those without a spot are lost.
    pub fn new<'a>(count: usize, spots: impl IntoIterator<Item = Spot<'a>>) -> Self {
        let (mut servers, mut zones) = (BTreeMap::new(), BTreeMap::new());
        let mut takers = BTreeSet::new();
        let mut all = vec![(Standing::Lost, Place::default()); count];
        for spot in spots {
            let place = Place {
                server: number(&mut servers, spot.server),
                zone: number(&mut zones, spot.zone),
            };
            if let Some(row) = all.get_mut(usize::from(spot.volume)) {
                *row = (spot.standing, place);
            }
            if spot.takes_blocks {
                takers.insert(place);
            }
        }
        let different = |of: fn(&Place) -> u16| takers.iter().map(of).collect::<BTreeSet<_>>().len();
        Self {
            all,
            servers: different(|place| place.server),
            zones: different(|place| place.zone),
        }
    }

    /// What a replica on `volume` is worth.
    pub fn of(&self, volume: VolumeIndex) -> Standing {
        self.all
            .get(usize::from(volume))
            .map_or(Standing::Lost, |(standing, _)| *standing)
    }

    /// Where `volume` is.
    pub fn place(&self, volume: VolumeIndex) -> Place {
        self.all
            .get(usize::from(volume))
            .map_or_else(Place::default, |(_, place)| *place)
    }

    /// Whether replicas on these volumes share a server or a zone, although `wanted` of them could be further apart.
    pub fn is_misplaced(&self, volumes: &[VolumeIndex], wanted: usize) -> bool {
        let (servers, zones) = self.spread(volumes.iter().copied());
        servers < wanted.min(self.servers) || zones < wanted.min(self.zones)
    }

    /// How many servers and zones these volumes are in.
    pub fn spread(&self, volumes: impl Iterator<Item = VolumeIndex> + Clone) -> (usize, usize) {
        // Blocks have few replicas: looking is quicker than a set.
        let different = |of: fn(Place) -> u16| {
            let places = volumes.clone().map(|volume| of(self.place(volume)));
            places
                .clone()
                .enumerate()
                .filter(|(at, place)| places.clone().take(*at).all(|before| before != *place))
                .count()
        };
        (different(|place| place.server), different(|place| place.zone))
    }

    /// Volumes whose replicas are worth something else than in `before`.
    pub fn changed_since(&self, before: &Self) -> Vec<VolumeIndex> {
        (0..self.all.len().max(before.all.len()) as VolumeIndex)
            .filter(|volume| self.of(*volume) != before.of(*volume))
            .collect()
    }

    /// Whether blocks that were well placed in `before` may not be so any more: then all have to be looked at.
    pub fn spreads_otherwise_than(&self, before: &Self) -> bool {
        let moved = self.all.iter().zip(&before.all);
        // Numbers follow the order of names, so they change with what there is: only pairs that part or meet count.
        (self.servers, self.zones) != (before.servers, before.zones)
            || regrouped(moved.clone().map(|(now, old)| (now.1.server, old.1.server)))
            || regrouped(moved.map(|(now, old)| (now.1.zone, old.1.zone)))
    }
}

/// Whether two namings group the same things differently.
fn regrouped(pairs: impl Iterator<Item = (u16, u16)>) -> bool {
    let (mut forth, mut back) = (BTreeMap::new(), BTreeMap::new());
    for (now, old) in pairs {
        if *forth.entry(now).or_insert(old) != old || *back.entry(old).or_insert(now) != now {
            return true;
        }
    }
    false
}

fn number<'a>(numbers: &mut BTreeMap<&'a str, u16>, name: &'a str) -> u16 {
    let next = numbers.len() as u16;
    *numbers.entry(name).or_insert(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standings(places: &[(&'static str, &'static str)]) -> Standings {
        let spot = |(volume, (server, zone)): (usize, &(&'static str, &'static str))| Spot {
            volume: volume as VolumeIndex,
            standing: Standing::Counts,
            takes_blocks: true,
            server,
            zone,
        };
        Standings::new(places.len(), places.iter().enumerate().map(spot))
    }

    #[test]
    fn replicas_are_as_far_apart_as_they_can_be() {
        let one_zone = standings(&[("a", "z"), ("a", "z"), ("b", "z")]);
        assert!(one_zone.is_misplaced(&[0, 1], 2));
        assert!(!one_zone.is_misplaced(&[0, 2], 2));
        assert!(!one_zone.is_misplaced(&[0, 1, 2], 3), "there is no third server");
        let two_zones = standings(&[("a", "x"), ("b", "x"), ("c", "y")]);
        assert!(two_zones.is_misplaced(&[0, 1], 2));
        assert!(!two_zones.is_misplaced(&[0, 2], 2));
        assert!(!two_zones.is_misplaced(&[0], 1));
        let one_server = standings(&[("a", "x"), ("a", "x")]);
        assert!(!one_server.is_misplaced(&[0, 1], 2));
    }

    #[test]
    fn a_full_or_dead_zone_is_none_to_spread_to() {
        let spots = [("a", "x", true), ("b", "x", true), ("c", "y", false)];
        let spots = spots
            .iter()
            .zip(0..)
            .map(|((server, zone, takes_blocks), volume)| Spot {
                volume,
                standing: if *takes_blocks {
                    Standing::Counts
                } else {
                    Standing::Lost
                },
                takes_blocks: *takes_blocks,
                server,
                zone,
            });
        let standings = Standings::new(4, spots);
        assert!(!standings.is_misplaced(&[0, 1], 2));
        assert_eq!(standings.of(2), Standing::Lost);
        assert_eq!(standings.of(3), Standing::Lost, "a volume without a spot");
        assert_eq!(standings.of(9), Standing::Lost);
    }

    #[test]
    fn what_changes_is_told() {
        let before = standings(&[("a", "x"), ("b", "x")]);
        let more = standings(&[("0", "x"), ("b", "x"), ("c", "x")]);
        assert_eq!(more.changed_since(&before), [2]);
        assert!(more.spreads_otherwise_than(&before), "there is one server more");
        let renamed = standings(&[("m", "x"), ("n", "x")]);
        assert!(!renamed.spreads_otherwise_than(&before));
        let moved = standings(&[("a", "x"), ("a", "x"), ("b", "x")]);
        assert!(moved.spreads_otherwise_than(&more));
        assert!(before.changed_since(&before).is_empty());
    }
}
