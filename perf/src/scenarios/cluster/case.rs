//! Uploads and downloads of whole files with one number of streams, and the limits of both.

use std::time::Duration;

use anyhow::Result;
use blockyard_client::types::FileInfo;

use super::{SCENARIO, factor_name, file_bytes, streams_name};
use crate::bars::{UploadLimit, flushes_floor};
use crate::context::Context;
use crate::fio::{Job, Shape};
use crate::latency::Latencies;
use crate::nodes;
use crate::report::Series;
use crate::scenarios::BLOCK_BYTES;
use crate::scenarios::beside::{FioLimit, NetworkLimit};
use crate::scenarios::common::{Place, Work, add_percentiles, record, start_meter, warn_if_disturbed};
use crate::scenarios::transfer::{self, Planned};

/// Blocks that the client keeps in flight for each stream (its default).
const BLOCKS_IN_FLIGHT: u32 = 4;

/// What the machine allows.
pub(super) struct Limits {
    pub write: FioLimit,
    /// The same writes, flushed as often as a depth of them is through: what the disk makes durable.
    pub flushed: FioLimit,
    pub read: FioLimit,
    pub network: NetworkLimit,
}

impl Limits {
    /// `write` and `flushed` are fio's ways to write to extents like those of the uploads; `suffix` stands behind the
    /// limits' names.
    pub(super) fn new(context: &mut Context, write: Job, flushed: Job, suffix: &str) -> Result<Self> {
        let shape = Shape {
            block_bytes: BLOCK_BYTES,
            depth: 4,
            size_bytes: context.flags.size_bytes(),
        };
        Ok(Self {
            write: FioLimit::new(context, SCENARIO, write, shape)?.suffixed(suffix),
            flushed: FioLimit::new(context, SCENARIO, flushed, shape)?.suffixed(suffix),
            read: FioLimit::new(context, SCENARIO, Job::Read, shape)?.suffixed(suffix),
            network: NetworkLimit::new(
                context,
                SCENARIO,
                format!("limit: iperf3 on loopback{suffix}"),
                crate::iperf::Options::default(),
            )?,
        })
    }

    /// MiB/s that the machine allows an upload, where both limits were measured.
    pub(super) fn upload_mib_per_s(&self, cores: u32, replicas: u8) -> Option<f64> {
        let limit = UploadLimit {
            fio_write_mib_per_s: self.write.mib_per_s()?,
            replicas: u32::from(replicas),
            cores,
            hops: u32::from(replicas),
            iperf_cpu_s_per_gib: self.network.cpu_s_per_gib()?,
        };
        Some(limit.mib_per_s())
    }

    /// Measures what uploads are held against on the disk.
    pub(super) fn measure_writes(&mut self, counts: bool) -> Result<()> {
        self.write.measure(counts)?;
        self.flushed.measure(counts)
    }

    /// Adds the uploads' second limit, for the reader: no bar is set against it.
    pub(super) fn beside_flushed(&self, upload: &mut Series, replicas: u8) {
        const METRIC: &str = "throughput, beside fio that flushes";
        if let Some((value, limit)) = upload.median("throughput").zip(self.flushed.mib_per_s()) {
            upload.add(METRIC, "MiB/s", value);
            upload.limit(METRIC, Some(limit / f64::from(replicas)));
        }
    }

    pub(super) fn report(&self, context: &mut Context) {
        self.write.report(context);
        self.flushed.report(context);
        self.read.report(context);
        self.network.report(context);
    }
}

/// The figures of one number of streams.
pub(super) struct Case {
    streams: u32,
    replicas: u8,
    upload: Series,
    download: Series,
    blocks: Latencies,
    uploads: Latencies,
    first_bytes: Latencies,
    downloads: Latencies,
}

impl Case {
    pub(super) fn new(streams: u32, replicas: u8) -> Self {
        let name = |what: &str| {
            let (streams, factor) = (streams_name(streams), factor_name(replicas));
            Series::new(SCENARIO, format!("{what}, {streams}{factor}"))
        };
        Self {
            streams,
            replicas,
            upload: name("upload"),
            download: name("download"),
            blocks: Latencies::default(),
            uploads: Latencies::default(),
            first_bytes: Latencies::default(),
            downloads: Latencies::default(),
        }
    }

    pub(super) fn bytes(&self, context: &Context) -> u64 {
        file_bytes(context, self.streams) * u64::from(self.streams)
    }

    /// Uploads a file for each stream; tells which they are.
    pub(super) async fn upload(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        round: u32,
    ) -> Result<(Vec<Planned>, Vec<FileInfo>)> {
        let (plan, counts) = (plan(context, "upload", self.streams, round), round > 0);
        let client = &place.clients[0];
        let claimed = nodes::claimed_flushes(&client.status().await?);
        let meter = start_meter(context, place.nodes, counts)?;
        let outcome = transfer::upload(place.clients, place.pool, &plan).await;
        let used = meter.stop()?;
        place.nodes.check()?;
        let outcome = outcome?;
        // What volumes say comes with their next heartbeats.
        let pause_ms = 2 * u64::from(client.cluster().await?.heartbeat_ms);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let claimed = nodes::claimed_flushes(&client.status().await?).saturating_sub(claimed);
        let bytes = self.bytes(context);
        let blocks = bytes as f64 / BLOCK_BYTES as f64;
        let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
        record(&mut self.upload, context, &used, work, counts);
        if counts {
            if let Some(disk) = used.disk {
                if let Some(flushes) = disk.flushes {
                    self.upload
                        .add("disk flushes", "per block", flushes as f64 / blocks);
                }
                let per_byte = disk.written_bytes as f64 / bytes as f64;
                self.upload.add("disk writes", "bytes per byte", per_byte);
            }
            self.upload.add(
                "flushes by the volumes' own count",
                "per block",
                claimed as f64 / blocks,
            );
            self.blocks.merge(&outcome.blocks);
            self.uploads.merge(&outcome.whole_files);
        }
        Ok((plan, outcome.files))
    }

    pub(super) async fn download(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        files: &[FileInfo],
        counts: bool,
    ) -> Result<()> {
        let meter = start_meter(context, place.nodes, counts)?;
        let outcome = transfer::download(place.clients, files).await;
        let used = meter.stop()?;
        place.nodes.check()?;
        let outcome = outcome?;
        let bytes = self.bytes(context);
        let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
        record(&mut self.download, context, &used, work, counts);
        if counts {
            if let Some(disk) = used.disk {
                let per_byte = disk.read_bytes as f64 / bytes as f64;
                self.download.add("disk reads", "bytes per byte", per_byte);
            }
            self.first_bytes.merge(&outcome.first_bytes);
            self.downloads.merge(&outcome.whole_files);
        }
        Ok(())
    }

    pub(super) fn report(&mut self, context: &mut Context, limits: &Limits) {
        add_percentiles(&mut self.upload, "block acknowledged", &self.blocks);
        add_percentiles(&mut self.upload, "file", &self.uploads);
        add_percentiles(&mut self.download, "first byte", &self.first_bytes);
        add_percentiles(&mut self.download, "file", &self.downloads);
        let upload_limit = limits.upload_mib_per_s(context.machine.cores, self.replicas);
        self.upload.limit("throughput", upload_limit);
        limits.beside_flushed(&mut self.upload, self.replicas);
        self.download.limit("throughput", limits.read.mib_per_s());
        let floor = flushes_floor(u32::from(self.replicas), self.streams * BLOCKS_IN_FLIGHT);
        self.upload.limit("disk flushes", Some(floor));
        for series in [&self.upload, &self.download] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }
}

/// A file for each stream, of contents that no other round has.
pub(in crate::scenarios) fn plan(context: &Context, what: &str, streams: u32, round: u32) -> Vec<Planned> {
    let length_bytes = file_bytes(context, streams);
    let planned = |stream: u32| Planned {
        path: format!("/perf-{round}/{what}-{streams}/{stream}"),
        number: (u64::from(round) * 1000 + u64::from(streams)) * 1000 + u64::from(stream),
        length_bytes,
    };
    (0..streams).map(planned).collect()
}
