//! How long a volume's disk takes of late: percentiles over the last minute or two. Knows no request.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use blockyard_wire::types::LatencyReport;
use hdrhistogram::Histogram;

/// Half of what "of late" is.
const HALF: Duration = Duration::from_secs(60);
/// The longest time that is told apart, microseconds.
const LONGEST_US: u64 = 120_000_000;

/// The times of one kind of work.
pub(crate) struct Latency {
    halves: RefCell<Halves>,
}

struct Halves {
    now: Histogram<u32>,
    before: Histogram<u32>,
    since: Instant,
}

impl Default for Latency {
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(1, LONGEST_US, 2).expect("sound bounds");
        let halves = Halves {
            now: empty(),
            before: empty(),
            since: Instant::now(),
        };
        Self {
            halves: RefCell::new(halves),
        }
    }
}

impl Latency {
    /// Counts one piece of work.
    pub fn took(&self, us: u64) {
        let mut halves = self.halves.borrow_mut();
        halves.turn(Instant::now());
        halves.now.saturating_record(us.max(1));
    }

    /// What it came to of late.
    pub fn report(&self) -> LatencyReport {
        let mut halves = self.halves.borrow_mut();
        halves.turn(Instant::now());
        let mut all = halves.before.clone();
        // Both have the same bounds.
        if all.add(&halves.now).is_err() || all.is_empty() {
            return LatencyReport::default();
        }
        LatencyReport {
            count: all.len(),
            p50_us: all.value_at_quantile(0.5) as u32,
            p99_us: all.value_at_quantile(0.99) as u32,
        }
    }
}

impl Halves {
    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < HALF {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.reset();
        if passed >= 2 * HALF {
            self.before.reset();
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_late() {
        let latency = Latency::default();
        assert_eq!(latency.report(), LatencyReport::default(), "nothing is known");
        (0..99).for_each(|_| latency.took(1_000));
        latency.took(500_000);
        let report = latency.report();
        assert_eq!(report.count, 100);
        assert!((990..1_020).contains(&report.p50_us), "{report:?}");
        let mut halves = latency.halves.borrow_mut();
        let then = halves.since;
        halves.turn(then + HALF);
        assert_eq!((halves.before.len(), halves.now.len()), (100, 0));
        halves.turn(then + 4 * HALF);
        assert_eq!((halves.before.len(), halves.now.len()), (0, 0), "long ago");
    }
}
