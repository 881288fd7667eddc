//! Latencies as an HDR histogram: microseconds up to an hour, three digits kept.

use std::time::Duration;

use hdrhistogram::Histogram;

const MAX_US: u64 = 3_600_000_000;

/// The percentiles that rows show: name, and percentage.
pub(crate) const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];

/// A histogram of latencies.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, MAX_US, 3).expect("the bounds are in order and the digits allowed"),
        )
    }
}

impl Latencies {
    /// Counts one; what is over an hour counts as an hour.
    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_US);
        self.0.saturating_record(us.clamp(1, MAX_US));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in milliseconds that this percentage of all stayed within.
    pub(crate) fn ms(&self, percentage: f64) -> f64 {
        self.0.value_at_percentile(percentage) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_both_halves() {
        let (mut first, mut second) = (Latencies::default(), Latencies::default());
        (1..=50).for_each(|ms| first.record(Duration::from_millis(ms)));
        (51..=100).for_each(|ms| second.record(Duration::from_millis(ms)));
        first.merge(&second);
        assert_eq!(first.count(), 100);
        for (percentage, ms) in [(50.0, 50.0), (99.0, 99.0), (100.0, 100.0)] {
            let found = first.ms(percentage);
            assert!((found - ms).abs() < ms / 500.0, "{percentage}: {found}");
        }
    }

    #[test]
    fn extremes_are_kept_within_bounds() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(100_000));
        assert_eq!(latencies.count(), 2);
        assert!(latencies.ms(100.0) >= 3_599_000.0);
    }
}
