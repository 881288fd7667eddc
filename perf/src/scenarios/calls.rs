//! Many small operations by several clients, each of which has a connection of its own and awaits one before the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use blockyard_client::{Client, UploadOptions};
use futures_util::future::try_join_all;

use super::common::{Work, add_percentiles, record, start_meter, warn_if_disturbed};
use crate::context::Context;
use crate::latency::Latencies;
use crate::nodes::Nodes;
use crate::report::Series;

/// One kind of operation by so many clients.
pub(super) struct Calls {
    pub series: Series,
    latencies: Latencies,
}

impl Calls {
    pub(super) fn new(scenario: &'static str, what: &str, clients: usize) -> Self {
        let plural = if clients == 1 { "client" } else { "clients" };
        Self::named(scenario, format!("{what}, {clients} {plural}"))
    }

    pub(super) fn named(scenario: &'static str, case: String) -> Self {
        Self {
            series: Series::new(scenario, case),
            latencies: Latencies::default(),
        }
    }

    /// Does the operations 0 to `count` on the clients.
    pub(super) async fn measure(
        &mut self,
        context: &mut Context,
        nodes: &Nodes,
        clients: &[Client],
        count: u64,
        counts: bool,
        operation: impl AsyncFn(&Client, u64) -> Result<()>,
    ) -> Result<()> {
        let meter = start_meter(context, nodes, counts)?;
        let next = AtomicU64::new(0);
        let workers = clients.iter().map(|client| async {
            let mut latencies = Latencies::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, anyhow::Error>(latencies);
                }
                let started = Instant::now();
                operation(client, number).await?;
                latencies.record(started.elapsed());
            }
        });
        let outcome = try_join_all(workers).await;
        let used = meter.stop()?;
        nodes.check()?;
        let work = Work::of("operation", count, 0);
        record(&mut self.series, context, &used, work, counts);
        for latencies in outcome?.iter().filter(|_| counts) {
            self.latencies.merge(latencies);
        }
        if counts {
            self.series.add("rate", "1/s", count as f64 / used.wall_s);
        }
        Ok(())
    }

    pub(super) fn rate(&self) -> Option<f64> {
        self.series.median("rate")
    }

    /// Beside what the machine allows, where that is known.
    pub(super) fn report(&mut self, context: &mut Context, limit: Option<f64>) {
        add_percentiles(&mut self.series, "latency", &self.latencies);
        self.series.limit("rate", limit);
        warn_if_disturbed(context, &self.series);
        context.report.series(&self.series);
    }
}

/// The least that a nameserver can be asked: what the cluster is called.
pub(super) async fn empty_call(client: &Client, _: u64) -> Result<()> {
    client.cluster().await?;
    Ok(())
}

/// Makes an empty file, which needs no dataserver.
pub(super) async fn create(client: &Client, path: &str) -> Result<()> {
    let options = UploadOptions {
        length_hint: Some(0),
        ..UploadOptions::default()
    };
    client.upload(path, tokio::io::empty(), options).await?;
    Ok(())
}
