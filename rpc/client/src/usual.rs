//! How long something usually takes, of late. Knows nothing of what is measured but its size.

use std::time::Duration;

use blockyard_engine::limits::UNIT_BYTES;
use hdrhistogram::Histogram;

/// Longest time that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Samples of the first window, which is soon over, so that guesses are; each later one is four times as long, up to
/// the last.
const WINDOW_MIN: u64 = 16;
const WINDOW_MAX: u64 = 256;
/// What part of the requests is usual, in percent; the rest is late.
const USUAL_PERCENT: f64 = 95.0;

/// Requests of three sizes take so differently long that each is a class of its own.
pub const SIZES: usize = 3;
/// Between single units and whole blocks.
const MEDIUM_BYTES: usize = 16 * UNIT_BYTES;

/// The class of a size.
pub fn size_class(bytes: usize) -> usize {
    usize::from(bytes > UNIT_BYTES) + usize::from(bytes > MEDIUM_BYTES)
}

/// The usual time of something, of late.
pub struct Usual {
    window: Histogram<u32>,
    window_samples: u64,
    /// Half of them take longer.
    pub middle: Duration,
    /// Few take longer.
    pub tail: Duration,
}

impl Usual {
    /// With a guess that holds until there is a measurement.
    pub fn new(guess: Duration) -> Self {
        Self {
            // One digit: a sixteenth of the value, and two kilobytes.
            window: Histogram::new_with_bounds(1, LONGEST_US, 1)
                .expect("the bounds are in order and the digits allowed"),
            window_samples: WINDOW_MIN,
            middle: guess,
            tail: guess * 2,
        }
    }

    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
        self.window.saturating_record(us.clamp(1, LONGEST_US));
        if self.window.len() < self.window_samples {
            return;
        }
        let at = |percentile| Duration::from_micros(self.window.value_at_percentile(percentile));
        (self.middle, self.tail) = (at(50.0), at(USUAL_PERCENT));
        self.window.reset();
        self.window_samples = (self.window_samples * 4).min(WINDOW_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_usual_is_measured_and_measured_again() {
        let mut usual = Usual::new(5 * MS);
        assert_eq!((usual.middle, usual.tail), (5 * MS, 10 * MS));
        (0..400).for_each(|sample| usual.record(MS * (1 + sample % 100)));
        assert!((40 * MS..60 * MS).contains(&usual.middle), "{:?}", usual.middle);
        assert!((80 * MS..110 * MS).contains(&usual.tail), "{:?}", usual.tail);
        (0..2 * WINDOW_MAX).for_each(|_| usual.record(200 * MS));
        assert!(
            usual.middle > 150 * MS,
            "what was is forgotten: {:?}",
            usual.middle
        );
    }

    #[test]
    fn sizes_have_classes() {
        let classes = [1, UNIT_BYTES, UNIT_BYTES + 1, MEDIUM_BYTES, MEDIUM_BYTES + 1].map(size_class);
        assert_eq!(classes, [0, 0, 1, 1, 2]);
        assert!(classes.iter().all(|class| *class < SIZES));
    }
}
