//! The life of a block that is read: client and volume each tell time by their own clock, from the Get on.

use std::time::Duration;

use blockyard_client::ReadTrace;

use super::account::{Account, Walk, half};

/// The stages in the order in which a block goes through them, and what the page calls their place.
pub(crate) const STAGES: [&str; 10] = [
    "file: is looked up",
    "client: waits for its turn",
    "volume: is asked",
    "volume: gives a buffer",
    "volume: reads the slot",
    "volume: checksums",
    "volume: answers",
    "client: receives the rest",
    "client: checksums",
    "file: is handed over",
];
/// Seconds of each stage.
pub(crate) type Stages = [f64; STAGES.len()];
const HANDED_OVER: usize = STAGES.len() - 1;

/// What surrounds the block of a short file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Around {
    pub lookup: Duration,
    pub handed_over: Duration,
}

/// An account of blocks that were read.
pub(crate) fn account() -> Account {
    Account::of(&STAGES)
}

/// The account of one block.
pub(crate) fn stages_s(trace: &ReadTrace, around: Around) -> Stages {
    let us = |us: u32| f64::from(us) / 1e6;
    let volume = trace.volume;
    let (answered, done) = (trace.answered.as_secs_f64(), trace.done.as_secs_f64());
    let checksum = trace.checksum.as_secs_f64().min(done - answered);
    // The volume answers with the first packet once all of the block is checked.
    let asked = half(answered - us(volume.checked_us));
    let mut walk = Walk::new(&STAGES, done);
    walk.until("volume: is asked", asked.min(answered));
    walk.until(
        "volume: gives a buffer",
        (asked + us(volume.buffer_us)).min(answered),
    );
    walk.until(
        "volume: reads the slot",
        (asked + us(volume.read_us)).min(answered),
    );
    walk.until("volume: checksums", (asked + us(volume.checked_us)).min(answered));
    walk.until("volume: answers", answered);
    walk.until("client: receives the rest", done - checksum);
    walk.until("client: checksums", done);
    let mut stages_s: Stages = walk.stages();
    stages_s[0] = around.lookup.as_secs_f64();
    stages_s[1] = trace.queued.as_secs_f64();
    stages_s[HANDED_OVER] = around.handed_over.as_secs_f64();
    stages_s
}

#[cfg(test)]
mod tests {
    use blockyard_client::GetSpans;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// 3 ms in the queue, 30 from the Get to the last byte, 2 of them checksums.
    fn trace(answered: u64, [buffer, read, checked]: [u32; 3]) -> ReadTrace {
        ReadTrace {
            index: 0,
            bytes: 65_536,
            queued: ms(3),
            answered: ms(answered),
            done: ms(30),
            checksum: ms(2),
            volume: GetSpans {
                buffer_us: buffer * 1000,
                read_us: read * 1000,
                checked_us: checked * 1000,
            },
        }
    }

    #[test]
    fn what_the_volume_tells_lies_between_two_equal_ways() {
        let around = Around {
            lookup: ms(7),
            handed_over: ms(1),
        };
        let stages_ms = stages_s(&trace(24, [1, 15, 18]), around).map(|s| (s * 1e6).round() / 1000.0);
        assert_eq!(stages_ms, [7.0, 3.0, 3.0, 1.0, 14.0, 3.0, 3.0, 4.0, 2.0, 1.0]);
    }

    #[test]
    fn whatever_the_clocks_say_the_parts_are_the_whole() {
        for answered in [0, 1, 24, 30] {
            for spans in [[0; 3], [1, 15, 18], [18, 15, 1], [90; 3]] {
                let stages_s = stages_s(&trace(answered, spans), Around::default());
                assert!(
                    (stages_s.iter().sum::<f64>() - 0.033).abs() < 1e-9,
                    "{stages_s:?}"
                );
                assert!(stages_s.iter().all(|seconds| *seconds >= 0.0), "{stages_s:?}");
            }
        }
    }
}
