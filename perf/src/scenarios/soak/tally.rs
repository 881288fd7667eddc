//! What a soak counts, and what it must not see.

use std::collections::BTreeMap;
use std::time::Duration;

use super::faults::{Server, What};
use super::plan::Kind;
use super::{CASE, SCENARIO};
use crate::latency::{Latencies, PERCENTILES};
use crate::report::Series;
use crate::scenarios::MIB;

/// Failures and offences that are told one by one; the rest is counted.
const TOLD_MAX: usize = 20;

/// What must not happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Offence {
    /// A file that was acknowledged is not there, or is another one.
    Lost,
    /// Bytes that were not written there.
    Changed,
    /// An error that did not say "retry".
    OtherError,
    /// A retry that did not succeed within its time.
    LateRetry,
    /// An operation that never came back.
    Hung,
    /// A server that ended by itself, or told of a panic.
    Died,
    /// A cluster that was not whole in time after its last fault.
    NotHealed,
    /// A replica that was not what the nameserver believed: no disk has failed.
    Replica,
}

/// Each, and what the table calls it.
const OFFENCES: [(Offence, &str); 8] = [
    (Offence::Lost, "acknowledged files lost or replaced"),
    (Offence::Changed, "files with other bytes than were written"),
    (Offence::OtherError, "failures that did not say retry"),
    (Offence::LateRetry, "retries without success in 30 s"),
    (Offence::Hung, "operations that never came back"),
    (Offence::Died, "processes that ended by themselves"),
    (Offence::NotHealed, "rounds without full replication in 60 s"),
    (Offence::Replica, "replicas lost or damaged"),
];

impl Offence {
    pub(super) fn name(self) -> &'static str {
        OFFENCES
            .iter()
            .find(|(offence, _)| *offence == self)
            .map_or("", |(_, name)| name)
    }

    /// Whether the cluster is to be left as it is, for somebody to look at.
    pub(super) fn is_fatal(self) -> bool {
        matches!(self, Self::Lost | Self::Changed | Self::Died)
    }
}

#[derive(Default)]
struct Operations {
    count: u64,
    failed: u64,
    latencies: Latencies,
}

/// The counts of one soak.
#[derive(Default)]
pub(super) struct Tally {
    operations: BTreeMap<Kind, Operations>,
    failed_in_pairs: u64,
    retries: Latencies,
    offences: BTreeMap<Offence, u64>,
    faults: BTreeMap<String, u64>,
    healed: Latencies,
    nameserver_starts: Latencies,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Blocks that were acknowledged with fewer replicas than wanted.
    pub degraded_blocks: u64,
    /// Blocks that were sent again to other volumes.
    pub resent_blocks: u64,
    /// Reads that had to turn to another replica.
    pub failovers: u64,
    told: usize,
}

impl Tally {
    /// An operation is over; `failed`: its first try was an error.
    pub(super) fn operation(&mut self, kind: Kind, took: Duration, failed: bool, beside_pair: bool) {
        let operations = self.operations.entry(kind).or_default();
        operations.count += 1;
        operations.failed += u64::from(failed);
        operations.latencies.record(took);
        self.failed_in_pairs += u64::from(failed && beside_pair);
    }

    /// A retry has succeeded so long after the failure.
    pub(super) fn retried(&mut self, after: Duration) {
        self.retries.record(after);
    }

    /// Counts it; whether it is among the first, which are told.
    pub(super) fn offence(&mut self, offence: Offence) -> bool {
        *self.offences.entry(offence).or_default() += 1;
        self.is_told()
    }

    /// Whether one more line is to be said.
    pub(super) fn is_told(&mut self) -> bool {
        self.told += 1;
        self.told <= TOLD_MAX
    }

    pub(super) fn fault(&mut self, what: What) {
        let name = match what {
            What::Kill(Server::Nameserver) => "kills of the nameserver",
            What::Kill(_) => "kills of a dataserver",
            What::Stop(Server::Nameserver) => "stops of the nameserver",
            What::Stop(_) => "stops of a dataserver",
            What::Cut(_) => "one-way cuts",
            What::Power => "power cuts of all",
        };
        *self.faults.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn healed(&mut self, after: Duration) {
        self.healed.record(after);
    }

    pub(super) fn nameserver_started(&mut self, after: Duration) {
        self.nameserver_starts.record(after);
    }

    /// Operations so far, and those that failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        let all = self.operations.values();
        all.fold((0, 0), |(count, failed), one| {
            (count + one.count, failed + one.failed)
        })
    }

    /// Everything that must not happen and did, one line each.
    pub(super) fn verdict(&self) -> Option<String> {
        let lines: Vec<String> = self
            .offences
            .iter()
            .map(|(offence, count)| format!("{count} {}", offence.name()))
            .collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    /// The rows; `took` is how long the load went on.
    pub(super) fn series(&self, rounds: u32, took: Duration) -> Vec<Series> {
        let mut all = Series::new(SCENARIO, CASE);
        let (count, failed) = self.counts();
        let of = |offence| self.offences.get(&offence).copied().unwrap_or(0) as f64;
        let files = of(Offence::Lost) + of(Offence::Changed);
        all.add("rounds", "", f64::from(rounds));
        all.add("acknowledged files lost or changed", "", files);
        all.add("failed", "%", failed as f64 * 100.0 / count.max(1) as f64);
        for (offence, name) in OFFENCES
            .iter()
            .filter(|(offence, _)| !matches!(offence, Offence::Lost | Offence::Changed))
        {
            all.add(name, "", of(*offence));
        }
        if self.healed.count() > 0 {
            all.add(
                "longest way to full replication",
                "s",
                self.healed.ms(100.0) / 1000.0,
            );
            all.add(
                "median way to full replication",
                "s",
                self.healed.ms(50.0) / 1000.0,
            );
        }
        if self.retries.count() > 0 {
            all.add("longest retry", "s", self.retries.ms(100.0) / 1000.0);
        }
        if self.nameserver_starts.count() > 0 {
            all.add(
                "longest start of the nameserver",
                "s",
                self.nameserver_starts.ms(100.0) / 1000.0,
            );
        }
        let seconds = took.as_secs_f64().max(0.001);
        all.add("rate", "operations/s", count as f64 / seconds);
        all.add("written", "MiB/s", self.written_bytes as f64 / MIB / seconds);
        all.add(
            "read and compared",
            "MiB/s",
            self.read_bytes as f64 / MIB / seconds,
        );
        all.add("operations in all", "", count as f64);
        all.add("failed operations", "", failed as f64);
        all.add("failed while two faults lasted", "", self.failed_in_pairs as f64);
        all.add("blocks sent again", "", self.resent_blocks as f64);
        all.add(
            "blocks with too few replicas at first",
            "",
            self.degraded_blocks as f64,
        );
        all.add("reads from another replica", "", self.failovers as f64);
        for (name, count) in &self.faults {
            all.add(name, "", *count as f64);
        }
        let mut each = vec![all];
        for (kind, operations) in &self.operations {
            let mut series = Series::new(SCENARIO, format!("{CASE}, {}", kind.name()));
            series.add("done", "", operations.count as f64);
            series.add("failed", "", operations.failed as f64);
            for (name, percentage) in PERCENTILES {
                series.add(
                    &format!("latency {name}"),
                    "ms",
                    operations.latencies.ms(percentage),
                );
            }
            each.push(series);
        }
        each
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars;
    use crate::report::Report;

    fn judged(tally: &Tally) -> Vec<Option<bool>> {
        let mut report = Report::default();
        for series in tally.series(3, Duration::from_secs(10)) {
            report.series(&series);
        }
        bars::judge(&report).iter().map(|judged| judged.met).collect()
    }

    fn clean() -> Tally {
        let mut tally = Tally::default();
        for at in 0..1000 {
            tally.operation(Kind::Read, Duration::from_millis(3), at % 100 == 0, false);
        }
        tally.healed(Duration::from_secs(59));
        tally.retried(Duration::from_secs(2));
        tally
    }

    #[test]
    fn a_clean_soak_meets_every_bar() {
        let met = judged(&clean());
        assert!(
            met.len() >= 9 && met.iter().all(|met| *met == Some(true)),
            "{met:?}"
        );
        assert_eq!(clean().verdict(), None);
    }

    #[test]
    fn every_offence_misses_a_bar() {
        for (offence, name) in OFFENCES {
            let mut tally = clean();
            assert!(tally.offence(offence));
            assert!(judged(&tally).contains(&Some(false)), "{name}");
            assert!(tally.verdict().unwrap().contains(name));
        }
        let mut tally = clean();
        tally.operation(Kind::Read, Duration::from_millis(3), true, true);
        assert!(
            judged(&tally).contains(&Some(false)),
            "more than one failure in a hundred"
        );
        let mut tally = clean();
        tally.healed(Duration::from_secs(61));
        assert!(judged(&tally).contains(&Some(false)), "healed too late");
    }
}
