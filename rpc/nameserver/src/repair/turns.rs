//! Which volumes may take part in one more copy: a few at a time, and beside clients one, with rests behind it. Pure.

use std::collections::BTreeMap;

use crate::state::blocks::VolumeIndex;

/// Copies at a time in which one volume takes part when it has nothing else to do (as source of some, as target of as
/// many others as its lane of buffers holds), and beside its clients.
const COPIES_IDLE: u32 = 8;
const COPIES_BESIDE_CLIENTS: u32 = 1;
/// How many times as long as a copy took its two volumes rest behind it, and at the most, milliseconds.
const REST_TIMES: u64 = 3;
const REST_MAX_MS: u64 = 2_000;

/// What a volume's copies have to leave room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// Nothing.
    Idle,
    /// Clients, who feel each copy: one at a time, and a rest.
    Clients,
    /// Clients, where the operator has set the pace.
    ClientsPaced,
}

/// Copies under way, and volumes that rest behind theirs.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    copies: BTreeMap<VolumeIndex, u32>,
    /// Until when volumes rest, should they have clients, milliseconds.
    rests: BTreeMap<VolumeIndex, u64>,
}

impl Turns {
    /// Copies under way from and to a volume.
    pub fn copies_of(&self, volume: VolumeIndex) -> u32 {
        self.copies.get(&volume).copied().unwrap_or(0)
    }

    /// Whether a volume may take part in one more copy.
    pub fn has_room(&self, volume: VolumeIndex, beside: Beside, now_ms: u64) -> bool {
        let copies = self.copies_of(volume);
        let rests = || self.rests.get(&volume).is_some_and(|until_ms| *until_ms > now_ms);
        match beside {
            Beside::Idle => copies < COPIES_IDLE,
            Beside::Clients => copies < COPIES_BESIDE_CLIENTS && !rests(),
            Beside::ClientsPaced => copies < COPIES_BESIDE_CLIENTS,
        }
    }

    /// A copy between these begins.
    pub fn begun(&mut self, volumes: [VolumeIndex; 2]) {
        for volume in volumes {
            *self.copies.entry(volume).or_insert(0) += 1;
        }
    }

    /// One that began at `began_ms` has ended, well or not.
    pub fn ended(&mut self, volumes: [VolumeIndex; 2], began_ms: u64, now_ms: u64) {
        let rest_ms = (now_ms.saturating_sub(began_ms) * REST_TIMES).min(REST_MAX_MS);
        for volume in volumes {
            if let Some(copies) = self.copies.get_mut(&volume) {
                *copies -= 1;
            }
            self.rests.insert(volume, now_ms + rest_ms);
        }
    }

    /// How long until some volume has rested enough, milliseconds.
    pub fn rest_ms(&mut self, now_ms: u64) -> Option<u64> {
        self.rests.retain(|_, until_ms| *until_ms > now_ms);
        self.rests.values().map(|until_ms| until_ms - now_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_volume_takes_part_in_a_few_copies_and_never_rests() {
        let mut turns = Turns::default();
        for _ in 0..COPIES_IDLE {
            assert!(turns.has_room(1, Beside::Idle, 0));
            turns.begun([1, 2]);
        }
        assert!(!turns.has_room(1, Beside::Idle, 0) && turns.has_room(3, Beside::Idle, 0));
        turns.ended([1, 2], 0, 50);
        assert!(turns.has_room(1, Beside::Idle, 50));
    }

    #[test]
    fn beside_clients_a_volume_copies_a_quarter_of_the_time() {
        let mut turns = Turns::default();
        let mut copying_ms = 0;
        let mut began_ms = None;
        for now_ms in 0..10_000 {
            if began_ms.is_some_and(|began_ms| now_ms - began_ms == 20) {
                turns.ended([1, 2], began_ms.take().unwrap(), now_ms);
            }
            if turns.has_room(1, Beside::Clients, now_ms) && turns.has_room(2, Beside::Clients, now_ms) {
                turns.begun([1, 2]);
                began_ms = Some(now_ms);
            }
            copying_ms += u64::from(began_ms.is_some());
        }
        assert_eq!(copying_ms, 2_500);
    }

    #[test]
    fn the_operators_pace_stands_instead_of_rests() {
        let mut turns = Turns::default();
        turns.begun([1, 2]);
        assert!(!turns.has_room(1, Beside::ClientsPaced, 0), "one at a time");
        turns.ended([1, 2], 0, 100);
        assert!(turns.has_room(1, Beside::ClientsPaced, 100) && !turns.has_room(1, Beside::Clients, 100));
        assert_eq!(turns.rest_ms(300), Some(100));
        assert!(turns.has_room(1, Beside::Clients, 400) && turns.rest_ms(400).is_none());
    }

    #[test]
    fn a_copy_that_hung_does_not_make_a_volume_rest_for_minutes() {
        let mut turns = Turns::default();
        turns.begun([1, 2]);
        turns.ended([1, 2], 0, 60_000);
        assert_eq!(turns.rest_ms(60_000), Some(REST_MAX_MS));
    }
}
