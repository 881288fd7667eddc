//! Uploads of large files, block by block, and cold downloads.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use blockyard_client::{ClusterSecret, Options, TraceFn};

use super::add_account;
use super::cpu::{Cpu, Per, Profiler};
use crate::context::{Context, drop_page_cache};
use crate::explain::SCENARIO;
use crate::explain::account::{Account, Around, Life};
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
    account: Account,
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
            account: Account::default(),
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
        let account = Arc::new(Mutex::new(Account::default()));
        let traced = account.clone();
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
            let account = account.lock().unwrap_or_else(PoisonError::into_inner);
            let in_flight = account.blocks() as f64 / wall_s * account.mean_put_s();
            self.upload.add("blocks in flight", "blocks", in_flight);
            self.account.merge(&account);
        } else {
            transfer::compare(&place.clients[0], place.pool, &plan).await?;
        }

        drop_page_cache();
        let running = profiler.start(context, place.nodes, counts)?;
        let outcome = transfer::download(place.clients, &files).await;
        running.stop(context, work, &mut self.download, &mut self.download_cpu)?;
        place.nodes.check()?;
        outcome?;
        Ok(())
    }

    pub(super) fn report(&mut self, context: &mut Context) {
        self.upload
            .limit("blocks in flight", Some(f64::from(self.blocks_allowed())));
        add_account(&mut self.upload, &self.account, "block");
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
