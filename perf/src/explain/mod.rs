//! Where time and CPU go: an account of a block's life in stages, and CPU time by purpose. The rows are all that the
//! table and the page know of it.

pub(crate) mod account;
pub(crate) mod purpose;
pub(crate) mod read;
pub(crate) mod samples;
mod table;
pub(crate) mod write;

pub(crate) use self::table::table;

/// The scenario of the rows.
pub(crate) const SCENARIO: &str = "explain";
/// Before a stage's name: its mean.
pub(crate) const TIME: &str = "time: ";
/// Before a stage's name: what 99 of 100 blocks stayed within.
pub(crate) const TIME_P99: &str = "time p99: ";
/// Before a hop and its moment: when that was, from the beginning of a block's life.
pub(crate) const HOP: &str = "moment: ";
/// Before a process and a purpose.
pub(crate) const CPU: &str = "cpu for: ";

/// Samples that were taken for each CPU second metered.
pub(crate) const SAMPLES: &str = "samples";

/// Whether it is one part of many, which its own table shows.
pub(crate) fn is_part(metric: &str) -> bool {
    let prefixes = [TIME, TIME_P99, HOP, CPU];
    metric == SAMPLES || prefixes.iter().any(|prefix| metric.starts_with(prefix))
}
