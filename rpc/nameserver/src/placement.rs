//! Choosing the volumes of a chain: spread over zones and servers first, then by free space, by lot.
//!
//! Pure: what can be chosen from and the lots come in; the choice goes into a command or a ticket.

use rand::{Rng, RngExt as _};

use crate::state::blocks::VolumeIndex;

/// A volume that takes blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate<'a> {
    /// It.
    pub volume: VolumeIndex,
    /// Its dataserver.
    pub server: &'a str,
    /// The dataserver's zone.
    pub zone: &'a str,
    /// Bytes that new blocks can still take: its weight.
    pub free_bytes: u64,
}

/// Where a replica is, or is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot<'a> {
    /// The dataserver.
    pub server: &'a str,
    /// Its zone.
    pub zone: &'a str,
}

/// Chooses up to `count` of `candidates` beside the replicas at `held`.
///
/// No two are on one server, unless fewer than `least` replicas (those held counted) came about otherwise:
/// one server's loss must not take two. Zones are spread over as long as there are unused ones.
pub fn choose(
    candidates: &[Candidate<'_>],
    held: &[Spot<'_>],
    count: usize,
    least: usize,
    lots: &mut impl Rng,
) -> Vec<VolumeIndex> {
    let mut used = held.to_vec();
    let mut left: Vec<&Candidate<'_>> = candidates.iter().filter(|c| c.free_bytes > 0).collect();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let fresh_server = |c: &Candidate<'_>| used.iter().all(|spot| spot.server != c.server);
        let fresh_zone = |c: &Candidate<'_>| used.iter().all(|spot| spot.zone != c.zone);
        let at = draw(&left, |c| fresh_server(c) && fresh_zone(c), lots)
            .or_else(|| draw(&left, fresh_server, lots))
            .or_else(|| {
                (used.len() < least)
                    .then(|| draw(&left, |_| true, lots))
                    .flatten()
            });
        let Some(at) = at else { break };
        let taken = left.swap_remove(at);
        used.push(Spot {
            server: taken.server,
            zone: taken.zone,
        });
        chosen.push(taken.volume);
    }
    chosen
}

/// One of those that fit, each with the odds of its free space.
fn draw(
    left: &[&Candidate<'_>],
    fits: impl Fn(&Candidate<'_>) -> bool,
    lots: &mut impl Rng,
) -> Option<usize> {
    let weight = |c: &Candidate<'_>| u128::from(if fits(c) { c.free_bytes } else { 0 });
    let total: u128 = left.iter().map(|c| weight(c)).sum();
    if total == 0 {
        return None;
    }
    let mut lot = lots.random_range(0..total);
    left.iter().position(|c| {
        let weight = weight(c);
        let hit = lot < weight;
        lot = lot.saturating_sub(weight);
        hit
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    /// Volumes as (server, free); server n is in zone n % zones.
    fn candidates(volumes: &[(usize, u64)], zones: usize) -> Vec<Candidate<'static>> {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let volume = |(at, &(server, free_bytes)): (usize, &(usize, u64))| Candidate {
            volume: at as VolumeIndex,
            server: NAMES[server],
            zone: NAMES[server % zones],
            free_bytes,
        };
        volumes.iter().enumerate().map(volume).collect()
    }

    proptest! {
        #[test]
        fn spreads_as_far_as_can_be(
            volumes in prop::collection::vec((0usize..8, 0u64..4), 0..12),
            zones in 1usize..4,
            count in 0usize..6,
            least in 0usize..3,
            held in prop::option::of(0usize..8),
            seed in any::<u64>(),
        ) {
            let all = candidates(&volumes, zones);
            let held: Vec<Spot<'_>> = held
                .map(|server| candidates(&[(server, 1)], zones).remove(0))
                .iter()
                .map(|c| Spot { server: c.server, zone: c.zone })
                .collect();
            let chosen = choose(&all, &held, count, least, &mut StdRng::seed_from_u64(seed));
            let again = choose(&all, &held, count, least, &mut StdRng::seed_from_u64(seed));
            prop_assert_eq!(&chosen, &again, "the same lots give the same choice");
            let of = |volume: &VolumeIndex| &all[usize::from(*volume)];
            prop_assert!(chosen.iter().all(|volume| of(volume).free_bytes > 0), "no full volume");
            let different: BTreeSet<_> = chosen.iter().collect();
            prop_assert_eq!(different.len(), chosen.len(), "no volume twice");
            let taken: BTreeSet<_> = held.iter().map(|spot| spot.server).collect();
            let free: BTreeSet<_> =
                all.iter().filter(|c| c.free_bytes > 0).map(|c| c.server).filter(|s| !taken.contains(s)).collect();
            let servers: BTreeSet<_> = chosen.iter().map(|volume| of(volume).server).collect();
            let spread = free.len().min(count);
            prop_assert!(chosen.len() >= spread, "every server that there is");
            if held.len() + chosen.len() > least {
                // Doubles on a server only came to reach `least`.
                prop_assert!(chosen.len() == servers.len() && servers.is_disjoint(&taken)
                    || held.len() + chosen.len() <= least.max(held.len() + spread));
            }
            let zones_there: BTreeSet<_> = all.iter().filter(|c| free.contains(c.server)).map(|c| c.zone)
                .filter(|zone| held.iter().all(|spot| spot.zone != *zone)).collect();
            let zones_used: BTreeSet<_> = chosen.iter().map(|volume| of(volume).zone)
                .filter(|zone| held.iter().all(|spot| spot.zone != *zone)).collect();
            prop_assert!(zones_used.len() >= zones_there.len().min(count), "every zone that there is");
        }
    }

    #[test]
    fn free_space_gives_the_odds() {
        let all = candidates(&[(0, 100), (1, 300), (2, 0)], 1);
        let mut lots = StdRng::seed_from_u64(7);
        let mut hits = BTreeMap::new();
        for _ in 0..4000 {
            *hits.entry(choose(&all, &[], 1, 1, &mut lots)[0]).or_insert(0) += 1;
        }
        assert!(
            (800..1200).contains(&hits[&0]) && (2800..3200).contains(&hits[&1]),
            "{hits:?}"
        );
    }

    #[test]
    fn one_server_gets_one_replica_unless_two_are_the_least() {
        let all = candidates(&[(0, 9), (0, 9)], 1);
        let mut lots = StdRng::seed_from_u64(1);
        assert_eq!(choose(&all, &[], 2, 1, &mut lots).len(), 1);
        assert_eq!(choose(&all, &[], 2, 2, &mut lots).len(), 2);
        assert_eq!(choose(&[], &[], 2, 1, &mut lots).len(), 0);
    }
}
