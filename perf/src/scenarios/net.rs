//! `net`: what the network layers reach without a disk: calls to the nameserver that ask for next to nothing (capnp-rpc), and
//! blocks and ranges from the dataservers' read caches (frames), beside iperf3.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use super::beside::{NetworkLimit, size_name};
use super::calls::{Calls, empty_call};
use super::common::{
    Place, Work, add_percentiles, clients, close, on_cluster, record, start_meter, warn_if_disturbed,
};
use super::transfer::{self, Planned, RANGE_BYTES};
use super::{BLOCK_BYTES, GIB, MIB};
use crate::context::Context;
use crate::iperf;
use crate::latency::Latencies;
use crate::nodes::Shape;
use crate::process;
use crate::report::Series;
use crate::workload::Pool;

const SCENARIO: &str = "net";
const CLIENTS: [usize; 2] = [1, 64];
/// Calls of each client in a round.
const CALLS: u64 = 2000;
const CALLS_MAX: u64 = 20_000;
const STREAMS: [usize; 3] = [1, 4, 16];
const RANGES: u64 = 8192;
/// Bytes of a write: what iperf3 does by itself, and the most that it can.
const WRITES: [u32; 2] = [128 << 10, 1 << 20];
/// Whole blocks, which iperf3 can't write at once.
const PLAIN_BYTES: usize = BLOCK_BYTES as usize;
const POOL_BYTES: usize = 256 << 20;
/// Until every replica of each block is in its server's cache.
const WARMING_READS: u32 = 6;

/// Blocks and ranges by so many streams.
struct Frames {
    streams: usize,
    blocks: Series,
    ranges: Series,
    first_bytes: Latencies,
    latencies: Latencies,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let rounds = context.flags.rounds();
    let most = STREAMS[2] as u64;
    let file_bytes = (context.flags.size_bytes() / most / BLOCK_BYTES).max(1) * BLOCK_BYTES;
    let bytes = file_bytes * most;
    let mut limits = Vec::new();
    for write_bytes in WRITES {
        let name = format!("limit: iperf3, writes of {}", size_name(u64::from(write_bytes)));
        let options = iperf::Options {
            write_bytes: Some(write_bytes),
            ..iperf::Options::default()
        };
        let unpaced = iperf::Options {
            unpaced: true,
            ..options
        };
        limits.push(NetworkLimit::new(context, SCENARIO, name.clone(), options)?);
        limits.push(NetworkLimit::new(
            context,
            SCENARIO,
            format!("{name}, unpaced"),
            unpaced,
        )?);
    }
    let mut plain = Series::new(
        SCENARIO,
        format!("limit: plain TCP, writes of {}", size_name(BLOCK_BYTES)),
    );
    let mut calls = CLIENTS.map(|clients| Calls::new(SCENARIO, "empty call", clients));
    let mut frames = STREAMS.map(Frames::new);
    let pool = Pool::new(POOL_BYTES);
    let capacity_bytes = bytes * 21 / 20 + (1 << 30);
    context.check_space(2 * capacity_bytes)?;
    let shape = Shape {
        dataservers: 2,
        replication: 2,
        capacity_bytes,
        read_cache_bytes: bytes * 9 / 8 + (64 << 20),
        ..Shape::default()
    };
    on_cluster(context, shape, async |context, nodes| {
        let callers = clients(nodes, CLIENTS[1] as u32).await?;
        let readers = clients(nodes, 1).await?;
        let place = Place {
            nodes,
            clients: &readers,
            pool: &pool,
        };
        let planned = |number| Planned {
            path: format!("/net/{number}"),
            number,
            length_bytes: file_bytes,
        };
        let plan: Vec<Planned> = (0..most).map(planned).collect();
        let files = transfer::upload(&readers, &pool, &plan).await?.files;
        for _ in 0..WARMING_READS {
            transfer::download(&readers, &files).await?;
        }
        for round in 0..=rounds {
            context.say(format_args!("round {round} of {rounds}"));
            let counts = round > 0;
            for limit in &mut limits {
                limit.measure(counts)?;
            }
            let (mib_per_s, cpu_s_per_gib) = plain_tcp(bytes)?;
            if counts {
                plain.add("throughput", "MiB/s", mib_per_s);
                plain.add("cpu", "s/GiB", cpu_s_per_gib);
            }
            for (calls, clients) in calls.iter_mut().zip(CLIENTS) {
                let count = (CALLS * clients as u64).min(CALLS_MAX);
                calls
                    .measure(context, nodes, &callers[..clients], count, counts, empty_call)
                    .await?;
            }
            for frames in &mut frames {
                frames.blocks(context, place, &files, counts).await?;
                frames.ranges(context, place, &plan, counts).await?;
            }
        }
        close(callers).await;
        close(readers).await;
        Ok(())
    })?;
    for limit in &limits {
        limit.report(context);
    }
    context.report.series(&plain);
    for calls in &mut calls {
        calls.report(context, None);
    }
    for frames in &mut frames {
        frames.report(context, limits[0].mib_per_s());
    }
    Ok(())
}

/// MiB/s and CPU seconds per GiB of so many bytes from one thread to another over loopback, a block at a time.
fn plain_tcp(bytes: u64) -> Result<(f64, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (started, cpu_s) = (Instant::now(), process::own_cpu_s());
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, block) = (TcpStream::connect(address)?, vec![1; PLAIN_BYTES]);
        for _ in 0..bytes / PLAIN_BYTES as u64 {
            stream.write_all(&block)?;
        }
        Ok(())
    });
    let (mut stream, mut block) = (listener.accept()?.0, vec![0; PLAIN_BYTES]);
    let mut came = 0;
    loop {
        match stream.read(&mut block)? {
            0 => break,
            count => came += count as u64,
        }
    }
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), process::own_cpu_s() - cpu_s);
    let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
    sent.context("plain TCP")?;
    Ok((came as f64 / MIB / wall_s, cpu_s / (came as f64 / GIB)))
}

impl Frames {
    fn new(streams: usize) -> Self {
        let plural = if streams == 1 { "stream" } else { "streams" };
        let name = |what| Series::new(SCENARIO, format!("{what}, {streams} {plural}"));
        Self {
            streams,
            blocks: name("hot blocks 4 MiB"),
            ranges: name("hot ranges 64 KiB"),
            first_bytes: Latencies::default(),
            latencies: Latencies::default(),
        }
    }

    /// All files, so many at a time.
    async fn blocks(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        files: &[blockyard_client::types::FileInfo],
        counts: bool,
    ) -> Result<()> {
        let meter = start_meter(context, place.nodes, counts)?;
        let mut first_bytes = Latencies::default();
        for some in files.chunks(self.streams) {
            let outcome = transfer::download(place.clients, some).await?;
            first_bytes.merge(&outcome.first_bytes);
        }
        let used = meter.stop()?;
        let bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
        let work = Work::of("block", bytes / BLOCK_BYTES, bytes);
        record(&mut self.blocks, context, &used, work, counts);
        if counts {
            self.first_bytes.merge(&first_bytes);
            if let Some(disk) = used.disk {
                let read = disk.read_bytes as f64 / bytes as f64;
                self.blocks.add("disk reads", "bytes per byte", read);
            }
        }
        Ok(())
    }

    async fn ranges(
        &mut self,
        context: &mut Context,
        place: Place<'_>,
        plan: &[Planned],
        counts: bool,
    ) -> Result<()> {
        let count = if context.flags.quick { RANGES / 16 } else { RANGES };
        let meter = start_meter(context, place.nodes, counts)?;
        let latencies = transfer::ranges(place, &plan[..self.streams], count, !counts).await?;
        let used = meter.stop()?;
        let done = latencies.count();
        let work = Work::of("range", done, done * RANGE_BYTES);
        record(&mut self.ranges, context, &used, work, counts);
        if counts {
            self.ranges.add("rate", "ranges/s", done as f64 / used.wall_s);
            self.latencies.merge(&latencies);
        }
        Ok(())
    }

    fn report(&mut self, context: &mut Context, limit: Option<f64>) {
        add_percentiles(&mut self.blocks, "first byte", &self.first_bytes);
        add_percentiles(&mut self.ranges, "latency", &self.latencies);
        self.blocks.limit("throughput", limit);
        self.ranges.limit("throughput", limit);
        self.ranges
            .limit("rate", limit.map(|limit| limit * MIB / RANGE_BYTES as f64));
        for series in [&self.blocks, &self.ranges] {
            warn_if_disturbed(context, series);
            context.report.series(series);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_cross_loopback() {
        let (mib_per_s, cpu_s_per_gib) = plain_tcp(2 * BLOCK_BYTES).unwrap();
        assert!(mib_per_s > 1.0 && cpu_s_per_gib > 0.0);
    }
}
