//! Reads blocks of a volume in a folder of its own, hot and cold, every byte verified, and prints rates on one core.
//!
//! `cargo run --release -p blockyard-engine --example reads -- FOLDER [DISK_MIB] [CACHE_MIB]`

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::{Lane, LaneOptions, Options, Volume, exec};
use rustix::time::{ClockId, clock_gettime};

const WHOLE_BYTES: u64 = 4 << 20;
const UNIT_BYTES: u64 = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().ok_or("name a folder on the disk to measure")?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (disk_mib, cache_mib) = (number(2048)?, number(256)?);
    let dir = Path::new(&parent).join(format!("blockyard-reads-{}", std::process::id()));
    Volume::format(&dir, [1; 16])?;
    let measured = measure(&dir, disk_mib << 20, cache_mib << 20);
    std::fs::remove_dir_all(&dir)?;
    measured
}

/// What to read: `bytes` at a time of blocks that have `block_bytes`.
struct Work {
    block_bytes: u64,
    bytes: u64,
    first_block: u64,
    blocks: u64,
}

fn measure(dir: &Path, disk_bytes: u64, cache_bytes: u64) -> Result<(), Box<dyn Error>> {
    let mut options = Options::new(dir);
    options.capacity_bytes = 3 * disk_bytes + (2 << 30);
    // As many reads in flight as are asked for below.
    options.pool.read = LaneOptions { large: 8, small: 16 };
    let (large, small) = (disk_bytes / WHOLE_BYTES, disk_bytes / 4 / UNIT_BYTES);
    let work = |block_bytes, bytes, blocks| Work {
        block_bytes,
        bytes,
        first_block: if block_bytes == WHOLE_BYTES { 0 } else { large },
        blocks,
    };
    let (volume, _) = Volume::open(options.clone(), None)?;
    many(&volume, large, 4, |block| put(&volume, block, WHOLE_BYTES));
    many(&volume, small, 64, |block| {
        put(&volume, large + block, UNIT_BYTES)
    });
    exec::run(&volume, volume.close())?;
    drop(volume);
    let whole = work(WHOLE_BYTES, WHOLE_BYTES, large);
    let units = work(UNIT_BYTES, UNIT_BYTES, small);
    let ranges = work(WHOLE_BYTES, UNIT_BYTES, large);
    for cached in [false, true] {
        options.read_cache_bytes = if cached { cache_bytes } else { 0 };
        let (volume, _) = Volume::open(options.clone(), None)?;
        println!("{} read cache", if cached { "with a" } else { "without a" });
        read(
            &volume,
            "  4 MiB blocks in order, 4 at once",
            &whole,
            4,
            large,
            |n| n,
        );
        read(
            &volume,
            "  64 KiB blocks at random, 16 at once",
            &units,
            16,
            small,
            scattered,
        );
        read(
            &volume,
            "  64 KiB of 4 MiB blocks at random, 16 at once",
            &ranges,
            16,
            small,
            scattered,
        );
        if cached {
            // Twice, so that all of it is hot, then over and over.
            let hot = |work: &Work| (cache_bytes / 2 / work.block_bytes).max(1);
            for (what, work) in [("  hot: 4 MiB blocks", &whole), ("  hot: 64 KiB blocks", &units)] {
                let blocks = hot(work);
                let some = Work { blocks, ..*work };
                let reads = 8 * (1 << 30) / work.bytes;
                read(&volume, "  (warming)", &some, 1, 3 * blocks, |n| n);
                read(&volume, what, &some, 1, reads, |n| n);
            }
            println!("  {:?}", volume.stat().cache);
        }
        exec::run(&volume, volume.close())?;
    }
    Ok(())
}

/// Numbers all over, the same ones each time.
fn scattered(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ z >> 27
}

fn read(volume: &Volume, what: &str, work: &Work, at_once: u64, reads: u64, pick: impl Fn(u64) -> u64) {
    let per_block = work.block_bytes / work.bytes;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    many(volume, reads, at_once, |n| {
        let picked = pick(n) % (work.blocks * per_block);
        let (block, at) = (work.first_block + picked / per_block, picked % per_block);
        async move {
            let (offset, length) = ((at * work.bytes) as u32, work.bytes as u32);
            let verified = volume
                .get(BlockId(block), offset, length, Lane::Read)
                .await
                .expect("a get");
            assert_eq!(verified.data.len() as u64, work.bytes);
        }
    });
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let gib = (reads * work.bytes) as f64 / (1 << 30) as f64;
    println!(
        "{what}: {:.2} GiB/s, {:.0}/s, {:.3} CPU-s/GiB",
        gib / seconds,
        reads as f64 / seconds,
        cpu / gib
    );
}

async fn put(volume: &Volume, block: u64, bytes: u64) {
    let mut buffer = volume.acquire(Lane::Head, bytes as u32).await.expect("a buffer");
    buffer.fill(&vec![block as u8; bytes as usize]).expect("room");
    volume
        .put(BlockId(block), Origin::default(), buffer)
        .await
        .expect("a put");
}

/// Runs `count` operations, `at_once` at a time.
fn many<'a, F: Future<Output = ()> + 'a>(volume: &Volume, count: u64, at_once: u64, one: impl Fn(u64) -> F) {
    let next = Cell::new(0);
    let mut lanes: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for _ in 0..at_once {
        lanes.push(Box::pin(async {
            while next.get() < count {
                one(next.replace(next.get() + 1)).await;
            }
        }));
    }
    let all = poll_fn(|context| {
        lanes.retain_mut(|lane| lane.as_mut().poll(context).is_pending());
        if lanes.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    exec::run(volume, all);
}

/// Processor time of this process so far.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
