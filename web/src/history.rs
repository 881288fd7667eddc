//! Figures of the cluster over the last five minutes, hour and day: rings of samples, kept in memory.

use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

use blockyard_wire::types::{ClusterStatus, LatencyReport, Liveness};

use crate::rates::Rates;

/// Milliseconds between two samples of the finest ring.
pub(crate) const STEP_MS: u64 = 1_000;
/// What each ring covers: its name, samples of the finest ring in one of its own, and how many it keeps.
const WINDOWS: [(&str, usize, usize); 3] = [("5m", 1, 300), ("1h", 15, 240), ("24h", 300, 288)];

/// How values of several samples become one.
#[derive(Clone, Copy)]
enum Join {
    Mean,
    Highest,
    Last,
}

/// The columns behind the time.
const COLUMNS: [(&str, Join); 11] = [
    ("write_bytes_per_s", Join::Mean),
    ("read_bytes_per_s", Join::Mean),
    ("requests_per_s", Join::Mean),
    ("used_bytes", Join::Last),
    ("capacity_bytes", Join::Last),
    ("waiting_bytes", Join::Last),
    ("repair_bytes_per_s", Join::Mean),
    ("under_replicated_blocks", Join::Highest),
    ("write_p99_us", Join::Highest),
    ("flush_p99_us", Join::Highest),
    ("read_p99_us", Join::Highest),
];

/// One moment: a time, milliseconds since 1970, and a value of each column; none where nothing was measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Sample {
    at_unix_ms: u64,
    values: [Option<u64>; COLUMNS.len()],
}

impl Serialize for Sample {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(std::iter::once(Some(self.at_unix_ms)).chain(self.values))
    }
}

impl Sample {
    /// What is known now.
    pub(crate) fn new(status: &ClusterStatus, rates: &Rates) -> Self {
        let volumes = || {
            let volumes = status.servers.iter().flat_map(|server| &server.volumes);
            volumes.filter(|volume| volume.liveness != Liveness::Dead)
        };
        let sum = |of: fn(&blockyard_wire::types::VolumeReport) -> u64| {
            Some(volumes().map(|volume| of(&volume.report)).sum())
        };
        let slowest = |of: fn(&blockyard_wire::types::VolumeReport) -> LatencyReport| {
            let known = volumes().map(|volume| of(&volume.report));
            let known = known.filter(|latency| latency.count > 0);
            known.map(|latency| u64::from(latency.p99_us)).max()
        };
        let [written, read, requests] = rates.of_all();
        let repair = &status.repair;
        Self {
            at_unix_ms: status.cluster.now_unix_ms,
            values: [
                written,
                read,
                requests,
                sum(|report| report.used_bytes),
                sum(|report| report.capacity_bytes),
                Some(repair.waiting().bytes),
                Some(repair.bytes_per_s),
                Some(status.under_replicated_blocks + status.missing_blocks),
                slowest(|report| report.write),
                slowest(|report| report.flush),
                slowest(|report| report.read),
            ],
        }
    }

    fn joined(samples: &[Self]) -> Self {
        let values = std::array::from_fn(|column| {
            let mut known = samples.iter().filter_map(|sample| sample.values[column]);
            match COLUMNS[column].1 {
                Join::Last => known.next_back(),
                Join::Highest => known.max(),
                Join::Mean => {
                    let (count, sum) = known.fold((0, 0), |(count, sum), value| (count + 1, sum + value));
                    u64::checked_div(sum, count)
                }
            }
        });
        Self {
            at_unix_ms: samples.last().map_or(0, |sample| sample.at_unix_ms),
            values,
        }
    }
}

#[derive(Debug, Default)]
struct Ring {
    rows: VecDeque<Sample>,
    /// Samples that are to become the next row.
    open: Vec<Sample>,
}

/// All rings.
#[derive(Debug, Default)]
pub(crate) struct History([Ring; WINDOWS.len()]);

/// `GET /api/v1/history`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Rows {
    step_ms: u64,
    columns: Vec<&'static str>,
    /// A time and a value of each further column, oldest first; null where nothing was measured.
    #[schema(value_type = Vec<Vec<Option<u64>>>)]
    rows: Vec<Sample>,
}

impl History {
    /// Takes the sample of another step.
    pub(crate) fn push(&mut self, sample: Sample) {
        for (ring, (_, each, kept)) in self.0.iter_mut().zip(WINDOWS) {
            ring.open.push(sample);
            if ring.open.len() >= each {
                ring.rows.push_back(Sample::joined(&ring.open));
                ring.open.clear();
            }
            if ring.rows.len() > kept {
                ring.rows.pop_front();
            }
        }
    }

    /// The newest sample.
    pub(crate) fn last(&self) -> Option<Sample> {
        self.0[0].rows.back().copied()
    }

    /// The rows of a window; `None` for one that there is not.
    pub(crate) fn rows(&self, window: &str) -> Option<Rows> {
        let at = WINDOWS.iter().position(|(name, ..)| *name == window)?;
        let ring = &self.0[at];
        // The newest values count, however wide a row is.
        let open = (!ring.open.is_empty()).then(|| Sample::joined(&ring.open));
        Some(Rows {
            step_ms: STEP_MS * WINDOWS[at].1 as u64,
            columns: std::iter::once("at_unix_ms")
                .chain(COLUMNS.map(|(name, _)| name))
                .collect(),
            rows: ring.rows.iter().copied().chain(open).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_keep_what_they_cover() {
        let mut history = History::default();
        for second in 0..100_000 {
            let mut values = [Some(second); COLUMNS.len()];
            values[0] = (second % 2 == 0).then_some(second);
            history.push(Sample {
                at_unix_ms: second * 1000,
                values,
            });
        }
        assert!(history.rows("2m").is_none());
        let fine = history.rows("5m").unwrap();
        assert_eq!((fine.step_ms, fine.rows.len()), (1000, 300));
        assert_eq!(fine.rows[299].at_unix_ms, 99_999_000);
        let hour = history.rows("1h").unwrap();
        assert_eq!(hour.step_ms, 15_000);
        let row = hour.rows[0];
        let last = row.at_unix_ms / 1000;
        assert_eq!(row.values[2], Some(last - 7), "the mean of 15");
        assert_eq!(row.values[3], Some(last), "the last");
        assert_eq!(row.values[8], Some(last), "the highest");
        assert!(
            row.values[0].is_some_and(|mean| mean.abs_diff(last - 7) <= 1),
            "of those there are"
        );
        let day = history.rows("24h").unwrap();
        assert_eq!(day.step_ms, 300_000);
        assert!(day.rows.len() >= 288, "{}", day.rows.len());
        let told = serde_json::to_value(&day).unwrap();
        assert_eq!(told["rows"][0].as_array().unwrap().len(), day.columns.len());
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let sample = Sample::new(&ClusterStatus::default(), &Rates::default());
        let told = serde_json::to_value(sample).unwrap();
        assert_eq!(told[1], serde_json::Value::Null, "no rate without volumes");
        assert_eq!(told[9], serde_json::Value::Null, "no latency either");
        assert_eq!(told[4], 0);
    }
}
