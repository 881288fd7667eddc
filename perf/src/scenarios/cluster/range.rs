//! 64 KiB at random places of 4 MiB blocks, each stream awaiting one before it asks for the next; beside fio's random reads.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use blockyard_client::DownloadOptions;
use futures_util::future::try_join_all;
use rand::RngExt as _;

use super::case::Place;
use super::{SCENARIO, factor_name, streams_name};
use crate::context::Context;
use crate::fio::{Job, Shape};
use crate::latency::Latencies;
use crate::report::Series;
use crate::scenarios::beside::FioLimit;
use crate::scenarios::common::{Work, add_percentiles, record, start_meter, warn_if_disturbed};
use crate::scenarios::transfer::Planned;
use crate::workload::Sink;

const RANGE_BYTES: u64 = 64 << 10;
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
        let outcome = read(place, files, self.count, !counts).await;
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

/// Reads so many ranges, as many at a time as there are files, each stream of its own file.
pub(in crate::scenarios) async fn read(
    place: Place<'_>,
    files: &[Planned],
    count: u64,
    compare: bool,
) -> Result<Latencies> {
    let each = (count / files.len() as u64).max(1);
    let streams = files
        .iter()
        .zip(place.clients.iter().cycle())
        .map(|(file, client)| async move {
            let mut latencies = Latencies::default();
            for _ in 0..each {
                let units = file.length_bytes / RANGE_BYTES;
                let offset = rand::rng().random_range(0..units) * RANGE_BYTES;
                let sink = if compare {
                    Sink::Compare(place.pool.part(file.number, offset, RANGE_BYTES))
                } else {
                    Sink::discard()?.0
                };
                let options = DownloadOptions {
                    range: Some(offset..offset + RANGE_BYTES),
                    ..DownloadOptions::default()
                };
                let started = Instant::now();
                let read = client
                    .download(&file.path, sink, options)
                    .await
                    .with_context(|| format!("a range of {}", file.path))?;
                latencies.record(started.elapsed());
                ensure!(read.bytes == RANGE_BYTES, "a range of {} came short", file.path);
                ensure!(
                    read.failovers == 0,
                    "reads of {} had to turn to another replica",
                    file.path
                );
            }
            Ok(latencies)
        });
    let mut all = Latencies::default();
    for latencies in try_join_all(streams).await? {
        all.merge(&latencies);
    }
    Ok(all)
}
