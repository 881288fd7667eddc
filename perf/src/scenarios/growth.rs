//! `growth`: whether what a byte costs stays the same with more streams and with more data stored, and whether memory does.

use std::collections::BTreeMap;

use anyhow::Result;
use blockyard_client::Client;
use blockyard_client::types::FileInfo;
use rand::seq::IndexedRandom as _;

use super::BLOCK_BYTES;
use super::beside::size_name;
use super::common::{
    Place, Work, add_client_memory, add_server_memory, clients, close, on_clusters, record, start_meter,
    warn_if_disturbed,
};
use super::transfer::{self, Planned};
use crate::context::{Context, drop_page_cache};
use crate::nodes::Shape;
use crate::report::Series;
use crate::workload::Pool;

const SCENARIO: &str = "growth";
const REPLICAS: u8 = 2;
const POOL_BYTES: usize = 256 << 20;
const STREAMS: [u32; 4] = [1, 4, 16, 64];
/// Streams of the cases that differ in what is stored.
const USUAL_STREAMS: u32 = 4;
/// Bytes of the files that stay stored.
const FILE_BYTES: u64 = 64 << 20;

/// Uploads and downloads by so many streams beside so much stored.
struct Case {
    streams: u32,
    /// Which of the clusters.
    at: usize,
    upload: Series,
    download: Series,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let mut levels = context.flags.stored.clone();
    levels.sort_unstable();
    levels.dedup();
    // Measured uploads are removed without having been read, and their places are free at once.
    let spare_bytes = 3 * context.flags.size_bytes() + (1 << 30);
    let shape = |level: &u64| Shape {
        dataservers: usize::from(REPLICAS),
        replication: REPLICAS,
        capacity_bytes: level + spare_bytes,
        ..Shape::default()
    };
    let shapes: Vec<Shape> = levels.iter().map(shape).collect();
    let capacity_bytes: u64 = shapes.iter().map(|shape| shape.capacity_bytes).sum();
    context.check_space(u64::from(REPLICAS) * capacity_bytes)?;
    let mut cases: Vec<Case> = Vec::new();
    for (at, &level) in levels.iter().enumerate() {
        let streams = if at == 0 { &STREAMS[..] } else { &[USUAL_STREAMS] };
        cases.extend(streams.iter().map(|&streams| Case::new(streams, at, level)));
    }
    let pool = Pool::new(POOL_BYTES);
    on_clusters(context, &shapes, async |context, clusters| {
        let mut filled = Vec::new();
        for (nodes, &level) in clusters.iter().zip(&levels) {
            context.say(format_args!("storing {}", size_name(level)));
            let clients = clients(nodes, 1).await?;
            let stored = fill(&clients, &pool, level).await?;
            filled.push((clients, stored));
        }
        for round in 0..=context.flags.rounds() {
            context.say(format_args!("round {round} of {}", context.flags.rounds()));
            for case in &mut cases {
                let (clients, stored) = &filled[case.at];
                let place = Place {
                    nodes: &clusters[case.at],
                    clients,
                    pool: &pool,
                };
                case.measure(context, place, stored, round).await?;
            }
        }
        for case in &cases {
            for series in [&case.upload, &case.download] {
                warn_if_disturbed(context, series);
                context.report.series(series);
            }
        }
        for (clients, _) in filled {
            close(clients).await;
        }
        for (nodes, &level) in clusters.iter().zip(&levels) {
            let mut series = Series::new(SCENARIO, format!("peak memory, {} stored", size_name(level)));
            add_server_memory(&mut series, nodes)?;
            context.report.series(&series);
        }
        // This process is the client of all clusters.
        let mut series = Series::new(SCENARIO, "peak memory");
        add_client_memory(&mut series, POOL_BYTES)?;
        context.report.series(&series);
        Ok(())
    })?;
    let of_streams: Vec<&Case> = cases.iter().filter(|case| case.at == 0).collect();
    spread(context, "1 to 64 streams", &of_streams);
    if levels.len() > 1 {
        let usual = |case: &&Case| case.streams == USUAL_STREAMS;
        let of_stored: Vec<&Case> = cases.iter().filter(usual).collect();
        spread(context, "least to most stored", &of_stored);
    }
    Ok(())
}

/// Uploads files until so many bytes are stored, and gives them.
async fn fill(clients: &[Client], pool: &Pool, level: u64) -> Result<Vec<FileInfo>> {
    let mut stored: Vec<FileInfo> = Vec::new();
    while stored.iter().map(|file| file.size_bytes).sum::<u64>() < level {
        let first = stored.len() as u64;
        let planned = |number| Planned {
            path: format!("/stored/{number}"),
            number,
            length_bytes: FILE_BYTES,
        };
        let plan: Vec<Planned> = (first..first + u64::from(USUAL_STREAMS)).map(planned).collect();
        stored.extend(transfer::upload(clients, pool, &plan).await?.files);
    }
    Ok(stored)
}

/// How far CPU and each server's memory differ among cases: half the distance of the extremes, as a part of the middle.
fn spread(context: &mut Context, over: &str, cases: &[&Case]) {
    let uploads = cases.iter().map(|case| &case.upload).collect::<Vec<_>>();
    let downloads = cases.iter().map(|case| &case.download).collect();
    for (name, side) in [("upload", uploads), ("download", downloads)] {
        let mut found = Series::new(SCENARIO, format!("{name}, {over}"));
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for series in side {
            for metric in series.metrics() {
                let server = metric.starts_with("memory of ") && metric != "memory of client";
                if (server || metric == "cpu")
                    && let Some(value) = series.median(metric)
                {
                    values.entry(metric.to_owned()).or_default().push(value);
                }
            }
        }
        for (metric, values) in values {
            found.add(&format!("± of {metric}"), "part", half_range(&values));
        }
        context.report.series(&found);
    }
}

fn half_range(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    if high > 0.0 {
        (high - low) / (high + low)
    } else {
        0.0
    }
}

impl Case {
    fn new(streams: u32, at: usize, stored_bytes: u64) -> Self {
        let plural = if streams == 1 { "stream" } else { "streams" };
        let stored = size_name(stored_bytes);
        let name = |what| Series::new(SCENARIO, format!("{what}, {streams} {plural}, {stored} stored"));
        Self {
            streams,
            at,
            upload: name("upload"),
            download: name("download"),
        }
    }

    async fn measure(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        stored: &[FileInfo],
        round: u32,
    ) -> Result<()> {
        let (counts, streams) = (round > 0, u64::from(self.streams));
        let folder = format!("/growth-{}-{round}", self.streams);
        let length_bytes = (context.flags.size_bytes() / streams / BLOCK_BYTES).max(1) * BLOCK_BYTES;
        let planned = |number| Planned {
            path: format!("{folder}/{number}"),
            number: u64::from(round) * 1000 + number,
            length_bytes,
        };
        let plan: Vec<Planned> = (0..streams).map(planned).collect();
        let bytes = length_bytes * streams;
        let meter = start_meter(context, place.nodes, counts)?;
        transfer::upload(place.clients, place.pool, &plan).await?;
        let used = meter.stop()?;
        let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
        record(&mut self.upload, context, &used, work, counts);
        place.clients[0].remove(&folder, true).await?;

        // Any of what is stored, whole files, as many at a time as there are streams.
        let count = (bytes / FILE_BYTES).max(streams) as usize;
        let mut files = Vec::new();
        for _ in 0..count {
            files.extend(stored.choose(&mut rand::rng()).cloned());
        }
        drop_page_cache();
        let meter = start_meter(context, place.nodes, counts)?;
        for some in files.chunks(streams as usize) {
            transfer::download(place.clients, some).await?;
        }
        let used = meter.stop()?;
        let read: u64 = files.iter().map(|file| file.size_bytes).sum();
        let work = Work::of("block", read / BLOCK_BYTES, read);
        record(&mut self.download, context, &used, work, counts);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_parts_of_the_middle() {
        assert_eq!(half_range(&[1.0]), 0.0);
        assert!((half_range(&[0.95, 1.05, 1.0]) - 0.05).abs() < 1e-9);
        assert_eq!(half_range(&[]), 0.0);
    }
}
