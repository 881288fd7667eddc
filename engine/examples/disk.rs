//! Puts, gets and deletes blocks on a volume in a folder of its own and prints rates: the disk side alone.
//!
//! `cargo run --release -p blockyard-engine --example disk -- FOLDER [BLOCK_BYTES] [TOTAL_MIB] [IN_FLIGHT]`

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::checksum;
use blockyard_engine::limits::UNIT_BYTES;
use blockyard_engine::{Lane, Options, Volume, exec};

thread_local! {
    static ZERO_UNIT_CRC: u32 = checksum::crc(&[0; UNIT_BYTES]);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().ok_or("name a folder on the disk to measure")?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (block_bytes, total_mib, in_flight) = (number(4 << 20)?, number(4096)?, number(4)?);
    let dir = std::path::Path::new(&parent).join(format!("blockyard-disk-{}", std::process::id()));
    Volume::format(&dir, [1; 16])?;
    let measured = measure(&dir, block_bytes, (total_mib << 20) / block_bytes, in_flight);
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn measure(dir: &std::path::Path, bytes: u64, blocks: u64, in_flight: u64) -> Result<(), Box<dyn Error>> {
    let mut options = Options::new(dir);
    options.capacity_bytes = blocks * (bytes + bytes / 3 + 8192) + (2 << 30);
    let (volume, report) = Volume::open(options, None)?;
    for note in &report.notes {
        println!("note: {note}");
    }
    let ids: Vec<BlockId> = (0..blocks).map(BlockId).collect();
    for round in ["put on fresh segments", "put on used segments"] {
        let before = volume.stat();
        timed(round, bytes * blocks, || {
            many(&volume, blocks, in_flight, |block| {
                put(&volume, block, bytes as u32)
            })
        });
        let after = volume.stat();
        let (batches, flushes) = (after.batches - before.batches, after.flushes - before.flushes);
        println!("  {blocks} puts in {batches} batches with {flushes} flushes");
        timed("get", bytes * blocks, || {
            many(&volume, blocks, in_flight, |block| {
                get(&volume, block, bytes as u32)
            })
        });
        exec::run(&volume, volume.delete(&ids))?;
    }
    exec::run(&volume, volume.close())?;
    Ok(())
}

async fn put(volume: &Volume, block: u64, bytes: u32) {
    let mut buffer = volume.acquire(Lane::Head, bytes).await.expect("a buffer");
    // The bytes stay the zeros that the buffer began with: a socket would have written others.
    let chunk = buffer.take_chunk(bytes).expect("the whole block");
    let zeros = [0; UNIT_BYTES];
    let last = (bytes as usize - 1) % UNIT_BYTES + 1;
    let mut crcs = vec![ZERO_UNIT_CRC.with(|crc| *crc); chunk.len().div_ceil(UNIT_BYTES)];
    if last < UNIT_BYTES {
        crcs.pop();
        crcs.push(checksum::crc(&zeros[..last]));
    }
    buffer.commit(chunk, &crcs).expect("zeros");
    volume
        .put(BlockId(block), Origin::default(), buffer)
        .await
        .expect("a put");
}

async fn get(volume: &Volume, block: u64, bytes: u32) {
    volume
        .get(BlockId(block), 0, bytes, Lane::Read)
        .await
        .expect("a get");
}

/// Runs `count` operations, `at_once` at a time.
fn many<'a, F: Future<Output = ()> + 'a>(volume: &Volume, count: u64, at_once: u64, one: impl Fn(u64) -> F) {
    let next = Cell::new(0);
    let mut lanes: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for _ in 0..at_once {
        lanes.push(Box::pin(async {
            while next.get() < count {
                let block = next.replace(next.get() + 1);
                one(block).await;
            }
        }));
    }
    exec::run(
        volume,
        poll_fn(|context| {
            lanes.retain_mut(|lane| lane.as_mut().poll(context).is_pending());
            if lanes.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }),
    );
}

fn timed(what: &str, bytes: u64, run: impl FnOnce()) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    run();
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (mib, gib) = (bytes as f64 / (1 << 20) as f64, bytes as f64 / (1 << 30) as f64);
    println!("{what}: {:.0} MiB/s, {:.3} CPU-s/GiB", mib / seconds, cpu / gib);
}

/// Processor time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks as f64 / 100.0
}
