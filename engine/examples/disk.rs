//! The quick instrument: puts and gets on volumes in a folder of its own beside fio, interleaved, by kind of segment.
//!
//! `cargo run --release -p blockyard-engine --example disk -- FOLDER [BLOCK_BYTES] [TOTAL_MIB] [IN_FLIGHT] [ROUNDS]`
//!
//! Each round makes a volume and puts on fresh segments (just allocated), on recycled ones (every block deleted and
//! put anew), gets, and puts on segments that another volume filled with zeros. Shares are of fio in the same round.

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::Poll;
use std::time::Instant;

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::checksum::unit_crcs;
use blockyard_engine::{Lane, LaneOptions, Options, PoolOptions, Volume, exec};

const MIB: f64 = (1 << 20) as f64;

/// What one block is like, and how many there are.
struct Shape {
    block_bytes: u64,
    blocks: u64,
    in_flight: u64,
    data: Vec<u8>,
    crcs: Vec<u32>,
}

/// What a row of the table has seen, a value a round.
#[derive(Default)]
struct Row {
    name: &'static str,
    mib_per_s: Vec<f64>,
    share_of_fio: Vec<f64>,
    cpu_s_per_gib: Vec<f64>,
    puts_per_batch: Vec<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().ok_or("name a folder on the disk to measure")?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (block_bytes, total_mib, in_flight, rounds) =
        (number(4 << 20)?, number(1024)?, number(4)?, number(3)?);
    let data = noise(block_bytes as usize);
    let shape = Shape {
        block_bytes,
        blocks: (total_mib << 20) / block_bytes,
        in_flight,
        crcs: unit_crcs(&data),
        data,
    };
    let dir = Path::new(&parent).join(format!("blockyard-disk-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let measured = measure(&dir, &shape, rounds);
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn measure(dir: &Path, shape: &Shape, rounds: u64) -> Result<(), Box<dyn Error>> {
    let mut rows = ["fio", "put, fresh", "put, recycled", "put, zero-filled", "get"].map(|name| Row {
        name,
        ..Row::default()
    });
    for _ in 0..rounds {
        let [fio_row, fresh, recycled, filled, get_row] = &mut rows;
        let limit = fio(dir, shape);
        fio_row.mib_per_s.extend(limit);
        let volume = open(&dir.join("volume"), shape)?;
        let ids: Vec<BlockId> = (0..shape.blocks).map(BlockId).collect();
        fresh.add(&volume, shape, limit, |block| put(&volume, shape, block));
        exec::run(&volume, volume.delete(&ids))?;
        recycled.add(&volume, shape, limit, |block| put(&volume, shape, block));
        get_row.add(&volume, shape, None, |block| get(&volume, shape, block));
        exec::run(&volume, volume.close())?;
        std::fs::remove_dir_all(dir.join("volume"))?;
        filled.put_on_zeros(dir, shape, limit)?;
    }
    for row in &mut rows {
        row.print();
    }
    Ok(())
}

fn open(dir: &Path, shape: &Shape) -> Result<Volume, Box<dyn Error>> {
    Volume::format(dir, [1; 16])?;
    let mut options = Options::new(dir);
    options.capacity_bytes = shape.blocks * (shape.block_bytes + shape.block_bytes / 3 + 8192) + (2 << 30);
    let in_flight = shape.in_flight as u32;
    let lane = LaneOptions {
        large: in_flight.min(32),
        small: in_flight,
    };
    options.pool = PoolOptions {
        head: lane,
        read: lane,
        ..PoolOptions::small()
    };
    let (volume, report) = Volume::open(options, None)?;
    for note in &report.notes {
        println!("note: {note}");
    }
    // Buffers hold their bytes from here on, and their pages exist.
    for block in 0..shape.in_flight {
        exec::run(&volume, put(&volume, shape, block));
    }
    let warm: Vec<BlockId> = (0..shape.in_flight).map(BlockId).collect();
    exec::run(&volume, volume.delete(&warm))?;
    Ok(volume)
}

/// A buffer that holds the bytes already is left as it is: a socket would have written there, and its copy is not
/// the engine's. The CRCs are computed each time.
async fn put(volume: &Volume, shape: &Shape, block: u64) {
    let bytes = shape.block_bytes as u32;
    let mut buffer = volume.acquire(Lane::Head, bytes).await.expect("a buffer");
    let mut chunk = buffer.take_chunk(bytes).expect("the whole block");
    let ends = [0, shape.data.len().saturating_sub(64)];
    if ends
        .iter()
        .any(|&at| chunk.as_ref()[at..][..8] != shape.data[at..][..8])
    {
        chunk.as_mut().copy_from_slice(&shape.data);
    }
    buffer.commit(chunk, &shape.crcs).expect("the same bytes");
    let put = volume.put(BlockId(block), Origin::default(), buffer).await;
    put.expect("a put");
}

async fn get(volume: &Volume, shape: &Shape, block: u64) {
    let got = volume
        .get(BlockId(block), 0, shape.block_bytes as u32, Lane::Read)
        .await;
    got.expect("a get");
}

impl Row {
    /// Puts on a volume that has put, and deleted, a few blocks and then filled as much again with zeros.
    fn put_on_zeros(&mut self, dir: &Path, shape: &Shape, limit: Option<f64>) -> Result<(), Box<dyn Error>> {
        let volume = open(&dir.join("filled"), shape)?;
        // Zeros follow what was put: the same blocks over and over, so that the slots ahead stay fresh.
        let warm: Vec<BlockId> = (0..shape.in_flight)
            .map(|block| BlockId((1 << 40) + block))
            .collect();
        for _ in 0..=shape.blocks / shape.in_flight {
            many(&volume, shape.in_flight, shape.in_flight, |block| {
                put(&volume, shape, (1 << 40) + block)
            });
            exec::run(&volume, volume.delete(&warm))?;
        }
        let start = Instant::now();
        while exec::run(&volume, volume.zero_fill(16 << 20))? > 0 {}
        let (zeros, seconds) = (
            volume.stat().zero_filled_bytes as f64 / MIB,
            start.elapsed().as_secs_f64(),
        );
        println!("{zeros:.0} MiB of zeros at {:.0} MiB/s", zeros / seconds);
        self.add(&volume, shape, limit, |block| put(&volume, shape, block));
        exec::run(&volume, volume.close())?;
        std::fs::remove_dir_all(dir.join("filled"))?;
        Ok(())
    }

    /// Runs one operation for each block and notes how it went.
    fn add<'a, F: Future<Output = ()> + 'a>(
        &mut self,
        volume: &Volume,
        shape: &Shape,
        limit: Option<f64>,
        one: impl Fn(u64) -> F,
    ) {
        let before = volume.stat();
        let (start, cpu) = (Instant::now(), cpu_seconds());
        many(volume, shape.blocks, shape.in_flight, one);
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let mib = (shape.blocks * shape.block_bytes) as f64 / MIB;
        self.mib_per_s.push(mib / seconds);
        self.share_of_fio.extend(limit.map(|limit| mib / seconds / limit));
        self.cpu_s_per_gib.push(cpu / (mib / 1024.0));
        let after = volume.stat();
        let batches = (after.batches - before.batches).max(1);
        self.puts_per_batch
            .push((after.puts - before.puts) as f64 / batches as f64);
    }

    fn print(&mut self) {
        let [rate, share, cpu, grouped] = [
            &mut self.mib_per_s,
            &mut self.share_of_fio,
            &mut self.cpu_s_per_gib,
            &mut self.puts_per_batch,
        ]
        .map(|values| median(values));
        println!(
            "{:<18}{rate:>8.0} MiB/s {share:>6.2} of fio {cpu:>8.3} CPU-s/GiB {grouped:>6.1} puts a batch",
            self.name
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
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

/// What fio writes at the same depth over a file that was written before, in MiB/s: whole blocks in a row, smaller
/// ones anywhere with an fdatasync for each batch of as many as are in flight. `None` without fio.
fn fio(dir: &Path, shape: &Shape) -> Option<f64> {
    let large = shape.block_bytes >= 4 << 20;
    let depth = shape.in_flight;
    let mut command = Command::new("fio");
    command.current_dir(dir).args([
        "--output-format=terse",
        "--name=limit",
        "--filename=fio.data",
        "--ioengine=io_uring",
        "--direct=1",
        "--iomem=mmap",
        "--overwrite=1",
        "--scramble_buffers=1",
        "--time_based",
        "--runtime=2",
    ]);
    command.arg(if large { "--rw=write" } else { "--rw=randwrite" });
    command.arg(format!("--iodepth={depth}"));
    command.arg(format!("--bs={}", shape.block_bytes.next_multiple_of(4096)));
    command.arg(format!(
        "--size={}",
        (shape.blocks * shape.block_bytes).next_multiple_of(4 << 20)
    ));
    if !large {
        command.arg(format!("--fdatasync={depth}"));
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: needs fio ({error})");
            return None;
        }
    };
    // Field 48 of fio's terse line is the write rate in KiB/s.
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate: f64 = line.split(';').nth(47)?.parse().ok()?;
    Some(rate / 1024.0)
}

/// Bytes that nothing can make shorter.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
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
