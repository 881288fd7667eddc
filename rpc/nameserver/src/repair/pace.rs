//! How quickly copies are made: the operator's limit in bytes per second, and what has been done of late. Pure.

use std::collections::VecDeque;

/// Over how long "of late" is, milliseconds.
const WINDOW_MS: u64 = 10_000;
/// What a limit lets through at once: the longest blocks would never pass a smaller one, and a second's worth would be
/// felt like no limit at all. In bytes, and in milliseconds of the limit.
const BURST_BYTES: u64 = 8 << 20;
const BURST_MS: u64 = 50;

/// The pace of copies.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Bytes that may be copied now.
    allowance_bytes: u64,
    /// When that was last topped up.
    topped_up_ms: u64,
    /// Finished copies: when, and their bytes.
    done: VecDeque<(u64, u64)>,
}

impl Pace {
    /// Whether a copy of so many bytes may begin under a limit (0: none); then it counts as begun. Otherwise it may in so
    /// many milliseconds.
    pub fn begin(&mut self, bytes: u64, limit_bytes_per_s: u64, now_ms: u64) -> Result<(), u64> {
        if limit_bytes_per_s == 0 {
            return Ok(());
        }
        let bytes = bytes.min(BURST_BYTES);
        let passed_ms = now_ms.saturating_sub(self.topped_up_ms);
        let earned = limit_bytes_per_s.saturating_mul(passed_ms) / 1000;
        if earned > 0 {
            let burst_bytes = BURST_BYTES.max(limit_bytes_per_s / 1000 * BURST_MS);
            self.allowance_bytes = self.allowance_bytes.saturating_add(earned).min(burst_bytes);
            self.topped_up_ms = now_ms;
        }
        match bytes.checked_sub(self.allowance_bytes) {
            None | Some(0) => {
                self.allowance_bytes -= bytes;
                Ok(())
            }
            Some(short_bytes) => Err((short_bytes * 1000).div_ceil(limit_bytes_per_s)),
        }
    }

    /// A copy of so many bytes has ended.
    pub fn ended(&mut self, bytes: u64, now_ms: u64) {
        self.forget(now_ms);
        self.done.push_back((now_ms, bytes));
    }

    /// Bytes per second of late.
    pub fn bytes_per_s(&mut self, now_ms: u64) -> u64 {
        self.forget(now_ms);
        let Some((first_ms, _)) = self.done.front() else {
            return 0;
        };
        let bytes: u64 = self.done.iter().map(|(_, bytes)| bytes).sum();
        bytes * 1000 / now_ms.saturating_sub(*first_ms).max(1000)
    }

    fn forget(&mut self, now_ms: u64) {
        while self
            .done
            .front()
            .is_some_and(|(at_ms, _)| at_ms + WINDOW_MS < now_ms)
        {
            self.done.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_limit_holds_over_time() {
        let mut pace = Pace::default();
        let mut begun = 0;
        for now_ms in (0..60_000).step_by(50) {
            while pace.begin(4 * MIB, 10 * MIB, now_ms).is_ok() {
                begun += 4;
            }
        }
        assert!(
            (590..=610).contains(&begun),
            "{begun} MiB in a minute at 10 MiB/s"
        );
        assert_eq!(pace.begin(u64::MAX, 0, 60_000), Ok(()), "no limit");
    }

    #[test]
    fn a_slow_limit_lets_the_longest_block_through_when_it_said() {
        let mut pace = Pace::default();
        assert_eq!(pace.begin(4 * MIB, MIB, 0), Err(4_000));
        let begun = (0..9_000).find(|now_ms| pace.begin(4 * MIB, MIB, *now_ms).is_ok());
        assert!(
            begun.is_some_and(|at_ms| (4_000..4_100).contains(&at_ms)),
            "{begun:?}"
        );
    }

    #[test]
    fn the_pace_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        assert_eq!(pace.bytes_per_s(0), 0);
        for second in 0..20 {
            pace.ended(MIB, second * 1000);
        }
        let of_late = pace.bytes_per_s(20_000);
        assert!((MIB * 9 / 10..=MIB * 11 / 10).contains(&of_late), "{of_late}");
        assert_eq!(pace.bytes_per_s(40_000), 0, "what is long past says nothing");
    }
}
