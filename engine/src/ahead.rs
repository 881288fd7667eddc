//! Whether short slots of a class are better filled with zeros ahead, or left to the filesystem: both ways are tried out.
//!
//! Which is quicker is the disk's affair. Filling saves the filesystem's commit at each flush and costs as many bytes as
//! the puts themselves: on a disk whose flushes are slow it is a gain, on one whose bandwidth is used up a loss. So each
//! way is taken for a while, twice in turns, and then the one in which puts took less time for long. Where there is
//! little in it, nothing is filled: that spares the disk the writes.

use std::time::Duration;

/// Bytes of slots to which puts go in one turn of a way, and tell of it.
const TURN_BYTES: u64 = 16 << 20;
/// A put counts as so many at least: some hundred of them tell as much as a turn can.
const PUT_BYTES_MIN: u64 = 32 << 10;
/// Puts at the beginning of a turn of filling that do not: the first slots are not filled yet.
const SETTLE_BYTES: u64 = 8 << 20;
/// Turns of both ways together, before it is decided.
const TURNS: u32 = 4;
/// What is decided holds for so many bytes of slots.
const HOLD_BYTES: u64 = 1 << 30;
/// Puts have to take at most this share of the time for filling to be worth its writes.
const WORTH_SHARE: f64 = 0.95;

/// Fill, or leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Slots are filled before puts come to them.
    Fill,
    /// Puts go to slots that were only allocated.
    Leave,
}

/// The trial of one class.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    way: Way,
    /// Turns that have ended, of those that are to decide; all of them while what was decided holds.
    turns: u32,
    /// Bytes of slots in this turn.
    turn_bytes: u64,
    /// What puts took, filled and left.
    filled: Mean,
    left: Mean,
}

#[derive(Clone, Copy, Default, Debug)]
struct Mean {
    sum: Duration,
    count: u32,
}

impl Mean {
    fn add(&mut self, took: Duration) {
        self.sum += took;
        self.count += 1;
    }

    fn seconds(self) -> f64 {
        self.sum.as_secs_f64() / f64::from(self.count.max(1))
    }
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            way: Way::Fill,
            turns: 0,
            turn_bytes: 0,
            filled: Mean::default(),
            left: Mean::default(),
        }
    }
}

impl Trial {
    /// What is done now.
    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// A put to a slot of so many bytes is durable. It was begun while `way` was taken, in earnest: to a slot that
    /// somebody had to write first, by this put or by filling it.
    pub(crate) fn note(&mut self, way: Way, slot_bytes: u64, took: Duration) {
        if way != self.way {
            // Begun in the turn before.
            return;
        }
        self.turn_bytes += slot_bytes.max(PUT_BYTES_MIN);
        if self.turns == TURNS {
            if self.turn_bytes >= HOLD_BYTES {
                *self = Self::default();
            }
            return;
        }
        let settle_bytes = match way {
            Way::Fill => SETTLE_BYTES,
            Way::Leave => 0,
        };
        if self.turn_bytes <= settle_bytes {
            return;
        }
        match way {
            Way::Fill => self.filled.add(took),
            Way::Leave => self.left.add(took),
        }
        if self.turn_bytes >= settle_bytes + TURN_BYTES {
            self.turns += 1;
            self.turn_bytes = 0;
            self.way = match (self.turns == TURNS, way) {
                (true, _) => self.better(),
                (false, Way::Fill) => Way::Leave,
                (false, Way::Leave) => Way::Fill,
            };
        }
    }

    fn better(&self) -> Way {
        let (filled_s, left_s) = (self.filled.seconds(), self.left.seconds());
        let way = if filled_s <= left_s * WORTH_SHARE {
            Way::Fill
        } else {
            Way::Leave
        };
        tracing::debug!(
            ?way,
            filled_ms = filled_s * 1000.0,
            left_ms = left_s * 1000.0,
            "filling ahead was tried out"
        );
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT_BYTES: u64 = 64 << 10;

    /// Puts that take so many microseconds, by the way; how many went each way.
    fn put(trial: &mut Trial, bytes: u64, filled_us: u64, left_us: u64) -> (u64, u64) {
        let mut counts = (0, 0);
        for _ in 0..bytes / SLOT_BYTES {
            let way = trial.way();
            let took_us = match way {
                Way::Fill => {
                    counts.0 += 1;
                    filled_us
                }
                Way::Leave => {
                    counts.1 += 1;
                    left_us
                }
            };
            trial.note(way, SLOT_BYTES, Duration::from_micros(took_us));
        }
        counts
    }

    #[test]
    fn the_quicker_way_is_taken_after_both_were_tried_in_turns() {
        for (filled_us, left_us, wanted) in [
            (500, 1000, Way::Fill),
            (1000, 500, Way::Leave),
            (990, 1000, Way::Leave),
        ] {
            let mut trial = Trial::default();
            assert_eq!(
                trial.way(),
                Way::Fill,
                "who puts little is served as well as can be"
            );
            let both = 2 * (SETTLE_BYTES + TURN_BYTES) + 2 * TURN_BYTES;
            let (filled, left) = put(&mut trial, both, filled_us, left_us);
            assert_eq!(left * SLOT_BYTES, 2 * TURN_BYTES);
            assert_eq!(filled * SLOT_BYTES, 2 * (SETTLE_BYTES + TURN_BYTES));
            assert_eq!(trial.way(), wanted);
            let (filled, left) = put(&mut trial, HOLD_BYTES - SLOT_BYTES, filled_us, left_us);
            assert_eq!(
                if wanted == Way::Fill { left } else { filled },
                0,
                "it holds for long"
            );
        }
    }

    #[test]
    fn a_disk_that_changes_is_tried_again() {
        let mut trial = Trial::default();
        put(&mut trial, 80 << 20, 500, 1000);
        assert_eq!(trial.way(), Way::Fill);
        put(&mut trial, HOLD_BYTES, 2000, 1000);
        put(&mut trial, 80 << 20, 2000, 1000);
        assert_eq!(trial.way(), Way::Leave);
    }

    #[test]
    fn puts_of_the_turn_before_tell_nothing() {
        let mut trial = Trial::default();
        put(&mut trial, SETTLE_BYTES + TURN_BYTES, 500, 1000);
        assert_eq!(trial.way(), Way::Leave);
        let before = trial.left.count;
        trial.note(Way::Fill, SLOT_BYTES, Duration::from_secs(1));
        assert_eq!((trial.left.count, trial.turn_bytes), (before, 0));
    }
}
