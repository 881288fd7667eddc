//! `scaling`: one dataserver with 1, 2, 4 and 8 volumes in memory-backed files, beside as many times the rate of one, and
//! what memory and loopback allow.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::beside::NetworkLimit;
use super::common::{Work, clients, close, on_cluster_in, record, start_meter, warn_if_disturbed};
use super::transfer::{self, Planned};
use super::{BLOCK_BYTES, MIB};
use crate::cleanup::WorkFolder;
use crate::context::Context;
use crate::nodes::Shape;
use crate::report::Series;
use crate::workload::Pool;
use crate::{disk, iperf};

const SCENARIO: &str = "scaling";
const VOLUMES: [u32; 4] = [1, 2, 4, 8];
/// Streams for each volume, each with a client of its own: so many keep it busy.
const STREAMS_A_VOLUME: u32 = 2;
/// Bytes of each volume's part of a measurement, for they all lie in memory.
const BYTES_A_VOLUME: u64 = 256 << 20;
const POOL_BYTES: usize = 64 << 20;
/// Of each thread that copies memory; well over its cache.
const COPY_BYTES: usize = 64 << 20;

/// One number of volumes.
struct Case {
    volumes: u32,
    upload: Series,
    download: Series,
    memory: Series,
    network: NetworkLimit,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let folder = context.flags.memory_dir.clone();
    ensure!(
        disk::is_memory(&folder),
        "{} is no tmpfs; name one with --memory-dir",
        folder.display()
    );
    let each_bytes = context.flags.size_bytes().min(BYTES_A_VOLUME);
    // What is downloaded stays; what is uploaded is removed unread, and its places are free a moment later.
    let volume_bytes = each_bytes * 3 + (256 << 20);
    let free_bytes = disk::free_bytes(&folder).unwrap_or(0);
    let pool = Pool::new(POOL_BYTES);
    let mut cases = Vec::new();
    for volumes in VOLUMES {
        if u64::from(volumes) * volume_bytes > free_bytes {
            context.report.note(format!(
                "scaling: {volumes} volumes need {} MiB in {}, where {} MiB are free: skipped; pass a smaller --size or fewer --rounds",
                (u64::from(volumes) * volume_bytes) >> 20,
                folder.display(),
                free_bytes >> 20
            ));
            continue;
        }
        let mut case = Case::new(context, volumes)?;
        // In a folder that is removed on Ctrl-C too.
        let work = WorkFolder::new(&folder)?;
        case.run(context, work.path(), &pool, each_bytes, volume_bytes)?;
        cases.push(case);
    }
    report(context, &mut cases);
    Ok(())
}

fn report(context: &mut Context, cases: &mut [Case]) {
    let cores = context.machine.cores;
    let alone = cases.first().filter(|case| case.volumes == 1);
    let alone = alone.map(|case| {
        (
            case.upload.median("throughput"),
            case.download.median("throughput"),
        )
    });
    let (upload_alone, download_alone) = alone.unwrap_or((None, None));
    for case in cases {
        context.report.series(&case.memory);
        case.network.report(context);
        // A volume's thread and its clients' threads want a core each; where there are fewer, the cores are the limit,
        // and a share of the volumes' would say nothing.
        let has_cores = cores >= 2 * case.volumes;
        let network = case.network.mib_per_s().unwrap_or(f64::INFINITY);
        let memory = case.memory.median("throughput").unwrap_or(f64::INFINITY);
        // A byte is copied out of the file (or into it), into the kernel and out of it; one that is uploaded also from its
        // source. That checksums read it twice more is not counted: it may be in a cache then.
        for (series, alone, copies) in [
            (&mut case.upload, upload_alone, 4.0),
            (&mut case.download, download_alone, 3.0),
        ] {
            let linear = alone.map(|alone| alone * f64::from(case.volumes));
            let limit = linear.map(|linear| linear.min(network).min(memory / copies));
            series.limit("throughput", limit.filter(|_| has_cores));
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
        if !has_cores {
            context.report.note(format!(
                "scaling: {} volumes and their clients share {cores} cores, so nothing can be said of how they scale",
                case.volumes
            ));
        }
    }
}

impl Case {
    fn new(context: &mut Context, volumes: u32) -> Result<Self> {
        let plural = if volumes == 1 { "volume" } else { "volumes" };
        let options = iperf::Options {
            pairs: volumes,
            unpaced: true,
            ..iperf::Options::default()
        };
        let limit = |what: &str| format!("limit: {what}, beside {volumes} {plural}");
        let name = |what: &str| Series::new(SCENARIO, format!("{what}, {volumes} {plural}"));
        Ok(Self {
            volumes,
            upload: name("upload"),
            download: name("download"),
            memory: Series::new(SCENARIO, limit("memcpy on all cores")),
            network: NetworkLimit::new(context, SCENARIO, limit("unpaced iperf3, as many pairs"), options)?,
        })
    }

    fn run(
        &mut self,
        context: &mut Context,
        folder: &Path,
        pool: &Pool,
        each_bytes: u64,
        volume_bytes: u64,
    ) -> Result<()> {
        let shape = Shape {
            dataservers: 1,
            replication: 1,
            capacity_bytes: volume_bytes,
            more_volumes: self.volumes as usize - 1,
            ..Shape::default()
        };
        let streams = STREAMS_A_VOLUME * self.volumes;
        on_cluster_in(context, folder, shape, async |context, nodes| {
            let clients = clients(nodes, streams).await?;
            let length_bytes = (each_bytes / u64::from(STREAMS_A_VOLUME) / BLOCK_BYTES).max(1) * BLOCK_BYTES;
            let bytes = length_bytes * u64::from(streams);
            let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
            let plan = |name: &str, round: u32| -> Vec<Planned> {
                let planned = |stream: u32| Planned {
                    path: format!("/{name}-{round}/{stream}"),
                    number: u64::from(round * 1000 + stream),
                    length_bytes,
                };
                (0..streams).map(planned).collect()
            };
            let kept = transfer::upload(&clients, pool, &plan("kept", 0)).await?.files;
            let rounds = context.flags.rounds();
            for round in 0..=rounds {
                context.say(format_args!(
                    "{} volumes, round {round} of {rounds}",
                    self.volumes
                ));
                let counts = round > 0;
                self.network.measure(counts)?;
                let copied = copy(context.machine.cores);
                if counts {
                    self.memory.add("throughput", "MiB/s", copied);
                }
                let meter = start_meter(context, nodes, counts)?;
                transfer::upload(&clients, pool, &plan("written", round)).await?;
                record(&mut self.upload, context, &meter.stop()?, work, counts);
                let meter = start_meter(context, nodes, counts)?;
                transfer::download(&clients, &kept).await?;
                record(&mut self.download, context, &meter.stop()?, work, counts);
                clients[0].remove(&format!("/written-{round}"), true).await?;
            }
            close(clients).await;
            Ok(())
        })
    }
}

/// MiB/s that so many threads copy in memory together.
fn copy(threads: u32) -> f64 {
    let buffers = || (vec![1_u8; COPY_BYTES], vec![0_u8; COPY_BYTES]);
    let mut all: Vec<_> = (0..threads).map(|_| buffers()).collect();
    // Memory that was never written to costs a page fault for each page of it.
    all.iter_mut().for_each(|(from, to)| to.copy_from_slice(from));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (from, to) in &mut all {
            scope.spawn(move || {
                for _ in 0..4 {
                    to.copy_from_slice(black_box(&*from));
                    black_box(&*to);
                }
            });
        }
    });
    f64::from(threads) * 4.0 * COPY_BYTES as f64 / MIB / started.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_copied_at_some_rate() {
        assert!(copy(1) > 1.0 && copy(2).is_finite());
    }
}
