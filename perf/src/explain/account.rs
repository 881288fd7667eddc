//! Where the time of a block's life went: consecutive stages that add up to the whole of it.
//!
//! Client, head and tail each tell time by their own clock, from the moment they were asked. How far these lie apart isn't
//! known, but both ways of a question and its answer together are; each way counts as half of that.

use std::time::Duration;

use blockyard_client::{BlockTrace, HopSpans};

use crate::latency::Latencies;

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
const FIRST_OF_BLOCK: usize = 1;
const PUBLISHED: usize = STAGES.len() - 1;

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

        let mut walk = Walk {
            now: 0.0,
            end: done,
            stages_s: [0.0; STAGES.len()],
        };
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

        let mut stages_s = walk.stages_s;
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

    /// All of it, for a short file from its start to its publication.
    pub(crate) fn whole_s(&self) -> f64 {
        self.stages_s.iter().sum()
    }

    /// From the block being begun until its acknowledgement.
    fn block_s(&self) -> f64 {
        self.stages_s[FIRST_OF_BLOCK..PUBLISHED].iter().sum()
    }
}

/// Half of what a way there and back took together.
fn half(both_s: f64) -> f64 {
    (both_s / 2.0).max(0.0)
}

/// Gives each stage what lies between its end and that of the one before.
struct Walk {
    now: f64,
    end: f64,
    stages_s: [f64; STAGES.len()],
}

impl Walk {
    /// `stage` ends at this moment; where an earlier one has lasted longer, it took no time of its own.
    fn until(&mut self, stage: &str, moment: f64) {
        let moment = moment.clamp(self.now, self.end.max(self.now));
        let at = STAGES.iter().position(|known| *known == stage);
        self.stages_s[at.expect("a stage of the table")] += moment - self.now;
        self.now = moment;
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

/// The lives of many blocks.
#[derive(Clone, Default)]
pub(crate) struct Account {
    sums: Life,
    blocks: u64,
    each: Vec<Latencies>,
    whole: Latencies,
}

impl Account {
    pub(crate) fn add(&mut self, life: &Life) {
        if self.each.is_empty() {
            self.each = vec![Latencies::default(); STAGES.len()];
        }
        for ((sum, each), seconds) in self
            .sums
            .stages_s
            .iter_mut()
            .zip(&mut self.each)
            .zip(life.stages_s)
        {
            *sum += seconds;
            each.record(Duration::from_secs_f64(seconds));
        }
        let sums = self.sums.moments_s.iter_mut().flatten();
        for (sum, seconds) in sums.zip(life.moments_s.iter().flatten()) {
            *sum += seconds;
        }
        self.whole.record(Duration::from_secs_f64(life.whole_s()));
        self.blocks += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if self.each.is_empty() {
            *self = other.clone();
            return;
        }
        for (sum, more) in self.sums.stages_s.iter_mut().zip(other.sums.stages_s) {
            *sum += more;
        }
        let sums = self.sums.moments_s.iter_mut().flatten();
        for (sum, more) in sums.zip(other.sums.moments_s.iter().flatten()) {
            *sum += more;
        }
        for (each, more) in self.each.iter_mut().zip(&other.each) {
            each.merge(more);
        }
        self.whole.merge(&other.whole);
        self.blocks += other.blocks;
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Means over all blocks; zeros without any.
    pub(crate) fn mean(&self) -> Life {
        let count = self.blocks.max(1) as f64;
        Life {
            stages_s: self.sums.stages_s.map(|sum| sum / count),
            moments_s: self.sums.moments_s.map(|hop| hop.map(|sum| sum / count)),
        }
    }

    /// Mean seconds from being asked for until the whole chain has it: what a block in flight is.
    pub(crate) fn mean_put_s(&self) -> f64 {
        let mean = self.mean();
        mean.block_s() - mean.stages_s[FIRST_OF_BLOCK..4].iter().sum::<f64>()
    }

    /// Each stage's name, mean milliseconds, and what 99 of 100 blocks stayed within; those that never took time are left out.
    pub(crate) fn stages(&self) -> Vec<(&'static str, f64, f64)> {
        let mean = self.mean();
        let stages = STAGES.iter().zip(mean.stages_s).zip(&self.each);
        stages
            .filter(|((_, seconds), _)| *seconds > 0.0)
            .map(|((name, seconds), each)| (*name, seconds * 1000.0, each.ms(99.0)))
            .collect()
    }

    pub(crate) fn whole(&self) -> &Latencies {
        &self.whole
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
        assert!((life.whole_s() - 0.052).abs() < 1e-9);
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
        assert!((life.whole_s() - 0.052).abs() < 1e-9);
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
        assert!((life.whole_s() - 0.070).abs() < 1e-9);
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
                            assert!((life.whole_s() - 0.052).abs() < 1e-9, "{life:?}");
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
        let (mut account, mut other) = (Account::default(), Account::default());
        account.add(&life(44));
        other.add(&life(64));
        account.merge(&other);
        let mut all = Account::default();
        all.merge(&account);
        assert_eq!(all.blocks(), 2);
        let sum: f64 = all.stages().iter().map(|(_, mean_ms, _)| mean_ms).sum();
        assert!((sum - 62.0).abs() < 1e-6);
        assert!((all.mean_put_s() - 0.054).abs() < 1e-9);
        assert!((all.whole().ms(100.0) - 72.0).abs() < 0.1);
    }
}
