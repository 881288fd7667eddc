//! The life of a block that is written: client, head and tail each tell time by their own clock, from the moment they
//! were asked.

use std::ops::Range;
use std::time::Duration;

use blockyard_client::{BlockTrace, HopSpans};

use super::account::{Account, Walk, half};

/// The stages in the order in which a block goes through them, and what the page calls their place.
pub(crate) const STAGES: [&str; 15] = [
    "file: until its block is read",
    "client: reads",
    "client: checksums",
    "client: waits for a chain and its turn",
    "head: gives a buffer",
    "client: sends",
    "head: receives the rest",
    "head: writes the slot",
    "head: waits for its flush",
    "tail: receives the rest",
    "tail: writes the slot",
    "tail: waits for its flush",
    "tail: answers the head",
    "head: answers the client",
    "file: is published",
];
const PUBLISHED: usize = STAGES.len() - 1;
/// From the block being asked for until the whole chain has it.
const PUT: Range<usize> = 4..PUBLISHED;

/// What one hop did, whether or not anybody waited for it; a lane of the picture.
pub(crate) const HOPS: [&str; 2] = ["head", "tail"];
/// Moments of a hop, from the beginning of the block's life.
pub(crate) const MOMENTS: [&str; 5] = ["asked", "buffer", "received", "written", "durable"];

/// Seconds of each stage, and when each hop reached each moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Life {
    pub stages_s: [f64; STAGES.len()],
    pub moments_s: [[f64; MOMENTS.len()]; HOPS.len()],
}

/// What surrounds the block of a short file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Around {
    pub before: Duration,
    pub publication: Duration,
}

impl Life {
    /// The account of one block, written by a chain of one or two hops.
    pub(crate) fn of(trace: &BlockTrace, around: Around) -> Self {
        let hop = |at: usize| trace.hops.get(at).map(HopTimes::of);
        let head = hop(0).unwrap_or_default();
        let (granted, sent, done) = (
            trace.granted.as_secs_f64(),
            trace.sent.as_secs_f64(),
            trace.done.as_secs_f64(),
        );
        // A block that goes along with its Put is never granted: all that is known is when the head's answer came.
        let asked = if granted > 0.0 {
            half(granted - head.granted)
        } else {
            half(done - head.finished)
        };
        let tail = hop(1);
        // The head asks the tail once it has a buffer, or all of a block that came along.
        let asks = if granted > 0.0 {
            head.granted
        } else {
            head.received
        };
        let tail_asked = tail.map_or(0.0, |tail| {
            asked + asks + half(head.behind - asks - tail.finished)
        });

        let mut walk = Walk::new(&STAGES, done);
        walk.until("head: gives a buffer", granted);
        walk.until("client: sends", sent);
        walk.until("head: receives the rest", asked + head.received);
        walk.until("head: writes the slot", asked + head.written);
        walk.until("head: waits for its flush", asked + head.durable);
        if let Some(tail) = tail {
            // Only what comes after the head's own flush is waited for.
            walk.until(
                "tail: receives the rest",
                (tail_asked + tail.received).min(asked + head.behind),
            );
            walk.until(
                "tail: writes the slot",
                (tail_asked + tail.written).min(asked + head.behind),
            );
            walk.until(
                "tail: waits for its flush",
                (tail_asked + tail.durable).min(asked + head.behind),
            );
            walk.until("tail: answers the head", asked + head.behind);
        }
        walk.until("head: answers the client", done);

        let mut stages_s: [f64; STAGES.len()] = walk.stages();
        let checksum = trace.checksum.min(trace.read);
        stages_s[0] = around.before.as_secs_f64();
        stages_s[1] = (trace.read - checksum).as_secs_f64();
        stages_s[2] = checksum.as_secs_f64();
        stages_s[3] = trace.queued.as_secs_f64();
        stages_s[PUBLISHED] = around.publication.as_secs_f64();
        let put: f64 = stages_s[..4].iter().sum();
        Self {
            stages_s,
            moments_s: [
                head.moments(put + asked),
                tail.map_or([0.0; 5], |tail| tail.moments(put + tail_asked)),
            ],
        }
    }
}

/// A hop's spans in seconds since it was asked.
#[derive(Clone, Copy, Default)]
struct HopTimes {
    granted: f64,
    received: f64,
    written: f64,
    durable: f64,
    behind: f64,
    /// When it could answer.
    finished: f64,
}

impl HopTimes {
    fn of(spans: &HopSpans) -> Self {
        let seconds = |us: u32| f64::from(us) / 1e6;
        Self {
            granted: seconds(spans.granted_us),
            received: seconds(spans.received_us),
            written: seconds(spans.written_us),
            durable: seconds(spans.durable_us),
            behind: seconds(spans.behind_us),
            finished: seconds(spans.durable_us.max(spans.behind_us)),
        }
    }

    fn moments(self, asked: f64) -> [f64; MOMENTS.len()] {
        [0.0, self.granted, self.received, self.written, self.durable].map(|moment| asked + moment)
    }
}

/// The accounts of many blocks, and the means of when each hop reached each moment.
#[derive(Clone)]
pub(crate) struct Writes {
    pub account: Account,
    moments_s: [[f64; MOMENTS.len()]; HOPS.len()],
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            account: Account::of(&STAGES),
            moments_s: Default::default(),
        }
    }
}

impl Writes {
    pub(crate) fn add(&mut self, life: &Life) {
        self.account.add(&life.stages_s);
        self.add_moments(&life.moments_s);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.account.merge(&other.account);
        self.add_moments(&other.moments_s);
    }

    fn add_moments(&mut self, more: &[[f64; MOMENTS.len()]; HOPS.len()]) {
        let sums = self.moments_s.iter_mut().flatten();
        for (sum, seconds) in sums.zip(more.iter().flatten()) {
            *sum += seconds;
        }
    }

    /// When each hop reached each moment, mean seconds.
    pub(crate) fn mean_moments_s(&self) -> [[f64; MOMENTS.len()]; HOPS.len()] {
        let count = self.account.blocks().max(1) as f64;
        self.moments_s.map(|hop| hop.map(|sum| sum / count))
    }

    /// Mean seconds from being asked for until the whole chain has it: what a block in flight is.
    pub(crate) fn mean_put_s(&self) -> f64 {
        self.account.mean_s()[PUT].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn hop(granted: u32, received: u32, written: u32, durable: u32, behind: u32) -> HopSpans {
        HopSpans {
            granted_us: granted * 1000,
            received_us: received * 1000,
            written_us: written * 1000,
            durable_us: durable * 1000,
            behind_us: behind * 1000,
        }
    }

    /// Read in 5 ms, 2 of them checksums; 3 in the queue; 44 from the Put to the answer.
    fn trace(granted: u64, sent: u64, hops: Vec<HopSpans>) -> BlockTrace {
        BlockTrace {
            index: 0,
            bytes: 4 << 20,
            read: ms(5),
            checksum: ms(2),
            queued: ms(3),
            granted: ms(granted),
            sent: ms(sent),
            done: ms(44),
            hops,
        }
    }

    fn whole_s(life: &Life) -> f64 {
        life.stages_s.iter().sum()
    }

    fn stages_ms(life: &Life) -> Vec<(&'static str, f64)> {
        let stages = STAGES.iter().zip(life.stages_s);
        stages
            .filter(|(_, seconds)| *seconds > 1e-9)
            .map(|(name, seconds)| (*name, (seconds * 1e6).round() / 1000.0))
            .collect()
    }

    #[test]
    fn a_tail_that_ends_after_the_head_is_waited_for_from_there_on() {
        // The head is asked 1 ms after the Put: its grant after 2 ms comes at 4. The tail is asked at 4 (2 by the head's
        // clock and 1 for the way): its answer after 34 is there at 37 by the head's clock.
        let hops = vec![hop(2, 12, 20, 30, 38), hop(1, 12, 22, 34, 0)];
        let life = Life::of(&trace(4, 10, hops), Around::default());
        assert_eq!(
            stages_ms(&life),
            [
                ("client: reads", 3.0),
                ("client: checksums", 2.0),
                ("client: waits for a chain and its turn", 3.0),
                ("head: gives a buffer", 4.0),
                ("client: sends", 6.0),
                ("head: receives the rest", 3.0),
                ("head: writes the slot", 8.0),
                ("head: waits for its flush", 10.0),
                ("tail: waits for its flush", 7.0),
                ("tail: answers the head", 1.0),
                ("head: answers the client", 5.0),
            ]
        );
        assert!((whole_s(&life) - 0.052).abs() < 1e-9);
        assert!((life.moments_s[0][0] - 0.009).abs() < 1e-9, "{life:?}");
        assert!(
            (life.moments_s[1][4] - (0.008 + 0.004 + 0.034)).abs() < 1e-9,
            "{life:?}"
        );
    }

    #[test]
    fn a_tail_that_ends_first_takes_no_time_of_its_own() {
        let hops = vec![hop(2, 12, 20, 38, 30), hop(1, 10, 15, 26, 0)];
        let life = Life::of(&trace(4, 10, hops), Around::default());
        let stages = stages_ms(&life);
        assert!(
            !stages.iter().any(|(name, _)| name.starts_with("tail")),
            "{stages:?}"
        );
        assert!(stages.contains(&("head: waits for its flush", 18.0)));
        assert!((whole_s(&life) - 0.052).abs() < 1e-9);
    }

    #[test]
    fn a_block_that_came_along_has_equal_ways() {
        // 44 ms, 40 of them the head's: 2 each way.
        let hops = vec![hop(0, 1, 20, 30, 40), hop(0, 1, 20, 35, 0)];
        let around = Around {
            before: ms(7),
            publication: ms(11),
        };
        let life = Life::of(&trace(0, 1, hops), around);
        let stages = stages_ms(&life);
        assert!(!stages.iter().any(|(name, _)| *name == "head: gives a buffer"));
        assert!(stages.contains(&("head: receives the rest", 2.0)), "{stages:?}");
        assert!(stages.contains(&("head: answers the client", 2.0)), "{stages:?}");
        assert!(stages.contains(&("file: is published", 11.0)));
        assert!((whole_s(&life) - 0.070).abs() < 1e-9);
    }

    #[test]
    fn whatever_the_clocks_say_the_parts_are_the_whole() {
        let odd = [0, 1, 7, 30, 44, 90];
        for granted in [0, 4, 44] {
            for sent in [0, 3, 44] {
                for first in odd {
                    for second in odd {
                        let chains = [
                            vec![],
                            vec![hop(first, second, first, second, 0)],
                            vec![
                                hop(first, second, first, second, first),
                                hop(second, first, second, first, 0),
                            ],
                        ];
                        for hops in chains {
                            let life = Life::of(&trace(granted, sent, hops), Around::default());
                            assert!((whole_s(&life) - 0.052).abs() < 1e-9, "{life:?}");
                            assert!(life.stages_s.iter().all(|seconds| *seconds >= 0.0));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn means_of_many_blocks_add_up_too() {
        let life = |done| {
            let trace = BlockTrace {
                done: ms(done),
                ..trace(4, 10, vec![hop(2, 12, 20, 30, 0)])
            };
            Life::of(&trace, Around::default())
        };
        let (mut writes, mut other) = (Writes::default(), Writes::default());
        writes.add(&life(44));
        other.add(&life(64));
        writes.merge(&other);
        let mut all = Writes::default();
        all.merge(&writes);
        assert_eq!(all.account.blocks(), 2);
        let sum: f64 = all.account.stages().iter().map(|(_, mean_ms, _)| mean_ms).sum();
        assert!((sum - 62.0).abs() < 1e-6);
        assert!((all.mean_put_s() - 0.054).abs() < 1e-9);
        assert!((all.account.whole().ms(100.0) - 72.0).abs() < 0.1);
    }
}
