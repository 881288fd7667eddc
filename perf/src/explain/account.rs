//! Where the time of a block's life went: consecutive stages that add up to the whole of it.
//!
//! Those who take part tell time by their own clocks. How far these lie apart isn't known, but both ways of a question
//! and its answer together are; each way counts as half of that.

use std::time::Duration;

use crate::latency::Latencies;

/// Half of what a way there and back took together.
pub(super) fn half(both_s: f64) -> f64 {
    (both_s / 2.0).max(0.0)
}

/// Gives each stage what lies between its end and that of the one before.
pub(super) struct Walk {
    names: &'static [&'static str],
    now: f64,
    end: f64,
    stages_s: Vec<f64>,
}

impl Walk {
    /// Through some of the stages of `names`, over `end` seconds.
    pub(super) fn new(names: &'static [&'static str], end: f64) -> Self {
        Self {
            names,
            now: 0.0,
            end,
            stages_s: vec![0.0; names.len()],
        }
    }

    /// `stage` ends at this moment; where an earlier one has lasted longer, it took no time of its own.
    pub(super) fn until(&mut self, stage: &str, moment: f64) {
        let moment = moment.clamp(self.now, self.end.max(self.now));
        let at = self.names.iter().position(|known| *known == stage);
        self.stages_s[at.expect("a stage of the table")] += moment - self.now;
        self.now = moment;
    }

    /// Seconds of each stage.
    pub(super) fn stages<const N: usize>(self) -> [f64; N] {
        self.stages_s.try_into().expect("as many as names")
    }
}

/// The stages of many blocks.
#[derive(Clone)]
pub(crate) struct Account {
    names: &'static [&'static str],
    sums_s: Vec<f64>,
    each: Vec<Latencies>,
    whole: Latencies,
    blocks: u64,
}

impl Account {
    /// Of lives that consist of these stages.
    pub(super) fn of(names: &'static [&'static str]) -> Self {
        Self {
            names,
            sums_s: vec![0.0; names.len()],
            each: vec![Latencies::default(); names.len()],
            whole: Latencies::default(),
            blocks: 0,
        }
    }

    /// One more block, by the seconds of each stage.
    pub(crate) fn add(&mut self, stages_s: &[f64]) {
        let sums = self.sums_s.iter_mut().zip(&mut self.each);
        for ((sum, each), &seconds) in sums.zip(stages_s) {
            *sum += seconds;
            each.record(Duration::from_secs_f64(seconds));
        }
        self.whole.record(Duration::from_secs_f64(stages_s.iter().sum()));
        self.blocks += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (sum, more) in self.sums_s.iter_mut().zip(&other.sums_s) {
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

    /// Seconds of each stage, means over all blocks; zeros without any.
    pub(crate) fn mean_s(&self) -> Vec<f64> {
        let count = self.blocks.max(1) as f64;
        self.sums_s.iter().map(|sum| sum / count).collect()
    }

    /// Each stage's name, mean milliseconds, and what 99 of 100 blocks stayed within; those that never took time are left out.
    pub(crate) fn stages(&self) -> Vec<(&'static str, f64, f64)> {
        let stages = self.names.iter().zip(self.mean_s()).zip(&self.each);
        stages
            .filter(|((_, seconds), _)| *seconds > 0.0)
            .map(|((name, seconds), each)| (*name, seconds * 1000.0, each.ms(99.0)))
            .collect()
    }

    pub(crate) fn whole(&self) -> &Latencies {
        &self.whole
    }
}
