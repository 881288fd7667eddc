//! Uploads of large files, block by block, and cold downloads.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use blockyard_client::{ClusterSecret, Options, ReadTraceFn, TraceFn};

use super::cpu::{Cpu, Per, Profiler};
use super::{add_account, add_writes};
use crate::context::{Context, drop_page_cache};
use crate::explain::SCENARIO;
use crate::explain::account::Account;
use crate::explain::read;
use crate::explain::write::{Around, Life, Writes};
use crate::report::Series;
use crate::scenarios::BLOCK_BYTES;
use crate::scenarios::cluster::case::plan;
use crate::scenarios::cluster::{file_bytes, streams_name};
use crate::scenarios::common::{Place, Work, warn_if_disturbed};
use crate::scenarios::transfer;

/// The figures of one number of streams.
pub(super) struct Large {
    streams: u32,
    upload: Series,
    download: Series,
    upload_cpu: Cpu,
    download_cpu: Cpu,
    writes: Writes,
    reads: Account,
}

impl Large {
    pub(super) fn new(streams: u32) -> Self {
        let name = |what: &str| Series::new(SCENARIO, format!("{what}, {}", streams_name(streams)));
        Self {
            streams,
            upload: name("upload"),
            download: name("download"),
            upload_cpu: Cpu::default(),
            download_cpu: Cpu::default(),
            writes: Writes::default(),
            reads: read::account(),
        }
    }

    pub(super) fn bytes(&self, context: &Context) -> u64 {
        file_bytes(context, self.streams) * u64::from(self.streams)
    }

    pub(super) async fn measure(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        profiler: &Profiler,
        round: u32,
    ) -> Result<()> {
        let (counts, bytes) = (round > 0, self.bytes(context));
        let plan = plan(context, "explain", self.streams, round);
        let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
        let writes = Arc::new(Mutex::new(Writes::default()));
        let traced = writes.clone();
        let trace: TraceFn = Arc::new(move |trace| {
            let life = Life::of(&trace, Around::default());
            traced.lock().unwrap_or_else(PoisonError::into_inner).add(&life);
        });

        let running = profiler.start(context, place.nodes, counts)?;
        let outcome = transfer::upload_traced(place.clients, place.pool, &plan, Some(trace)).await;
        let wall_s = running.stop(context, work, &mut self.upload, &mut self.upload_cpu)?;
        place.nodes.check()?;
        let files = outcome?.files;
        if counts {
            let writes = writes.lock().unwrap_or_else(PoisonError::into_inner);
            let in_flight = writes.account.blocks() as f64 / wall_s * writes.mean_put_s();
            self.upload.add("blocks in flight", "blocks", in_flight);
            self.writes.merge(&writes);
        } else {
            transfer::compare(&place.clients[0], place.pool, &plan).await?;
        }

        let reads = Arc::new(Mutex::new(read::account()));
        let traced = reads.clone();
        let trace: ReadTraceFn = Arc::new(move |trace| {
            let stages_s = read::stages_s(&trace, read::Around::default());
            traced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(&stages_s);
        });
        drop_page_cache();
        let running = profiler.start(context, place.nodes, counts)?;
        let outcome = transfer::download_traced(place.clients, &files, Some(trace)).await;
        running.stop(context, work, &mut self.download, &mut self.download_cpu)?;
        place.nodes.check()?;
        outcome?;
        if counts {
            self.reads
                .merge(&reads.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }

    pub(super) fn report(&mut self, context: &mut Context) {
        self.upload
            .limit("blocks in flight", Some(f64::from(self.blocks_allowed())));
        add_writes(&mut self.upload, &self.writes, "block");
        add_account(&mut self.download, &self.reads, "block");
        self.upload_cpu.report(context, &mut self.upload, Per::Gib);
        self.download_cpu.report(context, &mut self.download, Per::Gib);
        for series in [&self.upload, &self.download] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }

    /// Blocks that the client lets be in flight.
    fn blocks_allowed(&self) -> u32 {
        let options = Options::new(Vec::new(), ClusterSecret::generate());
        let each = options.blocks_in_flight as u32;
        (each * self.streams).min(options.uploads_in_flight as u32)
    }
}
