//! `page`: uploads and downloads through the web page, beside the client library in the same run. The page lives in the
//! nameserver's process and is itself a client of the dataservers: every byte takes one hop more. Then what pages cost
//! that are only open.

pub(super) mod http;
mod large;
mod open;

use anyhow::Result;
use futures_util::future::try_join_all;

use super::BLOCK_BYTES;
use super::common::{Work, clients, close, on_cluster, record, start_meter, warn_if_disturbed};
use super::transfer::{self, Planned};
use crate::context::{Context, drop_page_cache};
use crate::meter::Used;
use crate::nodes::Shape;
use crate::report::Series;
use crate::workload::Pool;

const SCENARIO: &str = "page";
const STREAMS: [u64; 2] = [4, 1];
const POOL_BYTES: usize = 256 << 20;

/// One number of streams: by the page, and by the client library.
struct Case {
    streams: u64,
    put: Series,
    get: Series,
    upload: Series,
    download: Series,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let rounds = context.flags.rounds();
    let mut cases = STREAMS.map(Case::new);
    let round_bytes: u64 = cases.iter().map(|case| 2 * case.bytes(context)).sum();
    // What was read keeps its place longer than a run.
    let large_bytes = large::TIMES * context.flags.size_bytes();
    let stored_bytes = round_bytes * u64::from(rounds + 1) + large_bytes;
    let capacity_bytes = stored_bytes * 21 / 20 + (1 << 30);
    context.check_space(2 * capacity_bytes)?;
    let shape = Shape {
        dataservers: 2,
        replication: 2,
        capacity_bytes,
        ..Shape::default()
    };
    let pool = Pool::new(POOL_BYTES);
    on_cluster(context, shape, async |context, nodes| {
        let web = nodes.web().to_owned();
        let clients = clients(nodes, 1).await?;
        for round in 0..=rounds {
            context.say(format_args!("round {round} of {rounds}"));
            let counts = round > 0;
            for case in &mut cases {
                let bytes = case.bytes(context);
                let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
                let record = |series: &mut Series, context: &Context, used: &Used| {
                    record(series, context, used, work, counts);
                };
                let (by_page, by_client) = (
                    case.plan(context, "page", round),
                    case.plan(context, "client", round),
                );

                let meter = start_meter(context, nodes, counts)?;
                try_join_all(by_page.iter().map(|file| http::put(&web, &pool, file))).await?;
                record(&mut case.put, context, &meter.stop()?);
                let meter = start_meter(context, nodes, counts)?;
                let files = transfer::upload(&clients, &pool, &by_client).await?.files;
                record(&mut case.upload, context, &meter.stop()?);

                drop_page_cache();
                let wanted = (!counts).then_some(&pool);
                let meter = start_meter(context, nodes, counts)?;
                try_join_all(by_page.iter().map(|file| http::get(&web, file, wanted))).await?;
                record(&mut case.get, context, &meter.stop()?);
                let meter = start_meter(context, nodes, counts)?;
                transfer::download(&clients, &files).await?;
                record(&mut case.download, context, &meter.stop()?);
            }
        }
        close(clients).await;
        large::run(context, nodes, &pool).await?;
        let many = self::clients(nodes, open::CLIENTS as u32).await?;
        open::run(context, nodes, &many, &pool).await?;
        close(many).await;
        Ok(())
    })?;
    for case in &mut cases {
        case.put.limit("throughput", case.upload.median("throughput"));
        case.get.limit("throughput", case.download.median("throughput"));
        for series in [&case.put, &case.upload, &case.get, &case.download] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }
    context
        .report
        .note("page: the limit of a transfer through the page is the client library's in the same run");
    Ok(())
}

impl Case {
    fn new(streams: u64) -> Self {
        let plural = if streams == 1 { "stream" } else { "streams" };
        let name = |what| Series::new(SCENARIO, format!("{what}, {streams} {plural}"));
        Self {
            streams,
            put: name("put by the page"),
            get: name("get by the page"),
            upload: name("upload by the client library"),
            download: name("download by the client library"),
        }
    }

    fn file_bytes(&self, context: &Context) -> u64 {
        (context.flags.size_bytes() / self.streams / BLOCK_BYTES).max(1) * BLOCK_BYTES
    }

    fn bytes(&self, context: &Context) -> u64 {
        self.file_bytes(context) * self.streams
    }

    fn plan(&self, context: &Context, way: &str, round: u32) -> Vec<Planned> {
        let planned = |stream| Planned {
            path: format!("/{way}-{round}-{}-{stream}", self.streams),
            number: u64::from(round) * 100 + self.streams * 10 + stream,
            length_bytes: self.file_bytes(context),
        };
        (0..self.streams).map(planned).collect()
    }
}
