//! 64 KiB at random places of 4 MiB blocks, each stream awaiting one before it asks for the next; beside fio's random reads.

use anyhow::Result;

use super::{SCENARIO, factor_name, streams_name};
use crate::context::Context;
use crate::fio::{Job, Shape};
use crate::latency::Latencies;
use crate::report::Series;
use crate::scenarios::beside::FioLimit;
use crate::scenarios::common::{Place, Work, add_percentiles, record, start_meter, warn_if_disturbed};
use crate::scenarios::transfer::{self, Planned, RANGE_BYTES};

/// Enough for a second or more here; more ranges tell nothing new.
const RANGES_MAX: u64 = 16_384;

pub(super) struct Ranges {
    count: u64,
    limit: FioLimit,
    series: Series,
    latencies: Latencies,
}

impl Ranges {
    pub(super) fn new(context: &mut Context, streams: u32, replicas: u8) -> Result<Self> {
        let size_bytes = context.flags.size_bytes();
        let shape = Shape {
            block_bytes: RANGE_BYTES,
            depth: streams,
            size_bytes,
        };
        let (streams, factor) = (streams_name(streams), factor_name(replicas));
        Ok(Self {
            count: (size_bytes / RANGE_BYTES).min(RANGES_MAX),
            limit: FioLimit::new(context, SCENARIO, Job::RandRead, shape)?.suffixed(&factor),
            series: Series::new(SCENARIO, format!("range 64 KiB of 4 MiB, {streams}{factor}")),
            latencies: Latencies::default(),
        })
    }

    pub(super) async fn measure(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        files: &[Planned],
        counts: bool,
    ) -> Result<()> {
        self.limit.measure(counts)?;
        let meter = start_meter(context, place.nodes, counts)?;
        let outcome = transfer::ranges(place, files, self.count, !counts).await;
        let used = meter.stop()?;
        place.nodes.check()?;
        let latencies = outcome?;
        let work = Work::of("range", latencies.count(), latencies.count() * RANGE_BYTES);
        record(&mut self.series, context, &used, work, counts);
        if counts {
            let rate = latencies.count() as f64 / used.wall_s;
            self.series.add("rate", "ranges/s", rate);
            self.latencies.merge(&latencies);
        }
        Ok(())
    }

    pub(super) fn report(&mut self, context: &mut Context) {
        self.limit.report(context);
        add_percentiles(&mut self.series, "latency", &self.latencies);
        self.series.limit("throughput", self.limit.mib_per_s());
        self.series.limit("rate", self.limit.operations_per_s());
        warn_if_disturbed(context, &self.series);
        context.report.series(&self.series);
    }
}
