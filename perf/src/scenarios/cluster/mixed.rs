//! Uploads and cold downloads at the same time, as many streams of each, beside fio's reads among writes.

use std::time::Instant;

use anyhow::Result;
use blockyard_client::types::FileInfo;

use super::case::plan;
use super::{SCENARIO, factor_name, file_bytes, streams_name};
use crate::context::Context;
use crate::fio::{Job, Shape};
use crate::latency::Latencies;
use crate::report::Series;
use crate::scenarios::beside::FioLimit;
use crate::scenarios::common::{Place, Work, add_percentiles, record, start_meter, warn_if_disturbed};
use crate::scenarios::{BLOCK_BYTES, MIB, transfer};

pub(super) struct Mixed {
    streams: u32,
    replicas: u8,
    limit: FioLimit,
    series: Series,
    blocks: Latencies,
    first_bytes: Latencies,
}

impl Mixed {
    pub(super) fn new(context: &mut Context, streams: u32, replicas: u8) -> Result<Self> {
        let shape = Shape {
            block_bytes: BLOCK_BYTES,
            depth: 4,
            size_bytes: context.flags.size_bytes(),
        };
        // For each block read, one is written as often as there are replicas.
        let job = Job::Mixed {
            reads_percent: 100 / (1 + u32::from(replicas)),
        };
        let (suffix, factor) = (streams_name(streams), factor_name(replicas));
        Ok(Self {
            streams,
            replicas,
            limit: FioLimit::new(context, SCENARIO, job, shape)?.suffixed(&format!(", for {suffix}{factor}")),
            series: Series::new(SCENARIO, format!("mixed, {suffix}{factor}")),
            blocks: Latencies::default(),
            first_bytes: Latencies::default(),
        })
    }

    pub(super) async fn measure(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        files: &[FileInfo],
        round: u32,
    ) -> Result<()> {
        let counts = round > 0;
        self.limit.measure(counts)?;
        let written = plan(context, "mixed", self.streams, round);
        let each_bytes = file_bytes(context, self.streams) * u64::from(self.streams);
        let started = Instant::now();
        let meter = start_meter(context, place.nodes, counts)?;
        let (uploads, downloads) = tokio::join!(
            async {
                let outcome = transfer::upload(place.clients, place.pool, &written).await;
                (outcome, started.elapsed())
            },
            async {
                let outcome = transfer::download(place.clients, files).await;
                (outcome, started.elapsed())
            }
        );
        let used = meter.stop()?;
        place.nodes.check()?;
        let (uploaded, downloaded) = (uploads.0?, downloads.0?);
        let work = Work::of("block", 2 * each_bytes / BLOCK_BYTES, 2 * each_bytes);
        record(&mut self.series, context, &used, work, counts);
        if counts {
            // Each over its own time: the quicker side is done first.
            for (name, took) in [("written", uploads.1), ("read", downloads.1)] {
                let mib_per_s = each_bytes as f64 / MIB / took.as_secs_f64();
                self.series.add(name, "MiB/s", mib_per_s);
            }
            self.blocks.merge(&uploaded.blocks);
            self.first_bytes.merge(&downloaded.first_bytes);
        }
        Ok(())
    }

    pub(super) fn report(&mut self, context: &mut Context) {
        self.limit.report(context);
        add_percentiles(&mut self.series, "block acknowledged", &self.blocks);
        add_percentiles(&mut self.series, "first byte", &self.first_bytes);
        // Of each replicas + 1 bytes on the disk, two are the user's.
        let share = 2.0 / (1.0 + f64::from(self.replicas));
        let limit = self.limit.mib_per_s().map(|mib_per_s| mib_per_s * share);
        self.series.limit("throughput", limit);
        warn_if_disturbed(context, &self.series);
        context.report.series(&self.series);
    }
}
