//! Fills a volume in a folder of its own with very many small blocks and prints how it starts, cleanly stopped and
//! crashed, what a replica takes of memory, and what puts cost when few and when many replicas are there.
//!
//! `cargo run --release -p blockyard-engine --example index -- FOLDER [REPLICAS]`

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::Poll;
use std::time::Instant;

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::{Lane, Options, Volume, exec};
use rustix::time::{ClockId, clock_gettime};

const IN_FLIGHT: u64 = 64;
/// Puts of one measure of their rate.
const MEASURED: u64 = 10_000;

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().ok_or("name a folder on the disk to measure")?;
    if parent == "--start" {
        return start(Path::new(&arguments.next().ok_or("name a volume")?));
    }
    let replicas = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let dir = Path::new(&parent).join(format!("blockyard-index-{}", std::process::id()));
    Volume::format(&dir, [1; 16])?;
    let measured = measure(&dir, replicas);
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.capacity_bytes = 64 << 30;
    options
}

fn measure(dir: &Path, replicas: u64) -> Done {
    let (volume, _) = Volume::open(options(dir), None)?;
    exec::run(&volume, volume.close())?;
    drop(volume);
    println!("an empty volume");
    start_in_a_process_of_its_own(dir)?;
    let (volume, _) = Volume::open(options(dir), None)?;
    put(&volume, 0, MEASURED)?;
    put(&volume, MEASURED, MEASURED)?;
    put(&volume, 2 * MEASURED, replicas.saturating_sub(4 * MEASURED))?;
    put(&volume, replicas - 2 * MEASURED, MEASURED)?;
    exec::run(&volume, volume.checkpoint())?;
    put(&volume, replicas - MEASURED, MEASURED)?;
    exec::run(&volume, volume.close())?;
    drop(volume);
    println!("stopped cleanly");
    start_in_a_process_of_its_own(dir)?;
    // A journal that is as full of puts as it gets before the next checkpoint begins, and then no close.
    let (volume, _) = Volume::open(options(dir), None)?;
    put(&volume, replicas, 4 * MEASURED)?;
    drop(volume);
    println!("crashed");
    start_in_a_process_of_its_own(dir)
}

/// Puts blocks with the numbers from `first` on.
fn put(volume: &Volume, first: u64, count: u64) -> Done {
    let begun = Instant::now();
    let next = Cell::new(first);
    let mut lanes: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for _ in 0..IN_FLIGHT {
        lanes.push(Box::pin(async {
            while next.get() < first + count {
                let block = next.replace(next.get() + 1);
                let bytes = block.to_le_bytes().repeat(1 + block as usize % 12);
                let mut buffer = volume
                    .acquire(Lane::Head, bytes.len() as u32)
                    .await
                    .expect("a buffer");
                buffer.fill(&bytes).expect("room");
                volume
                    .put(BlockId(block), Origin::default(), buffer)
                    .await
                    .expect("a put");
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
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("{count} puts behind {first} replicas: {rate:.0}/s");
    Ok(())
}

fn start_in_a_process_of_its_own(dir: &Path) -> Done {
    let program = std::env::current_exe()?;
    let status = Command::new(program).arg("--start").arg(dir).status()?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| "the start failed".into())
}

/// Opens the volume and leaves it as it was: the opening alone changes nothing that the next one would miss.
fn start(dir: &Path) -> Done {
    let before_bytes = resident_bytes()?;
    let (begun, cpu_before) = (Instant::now(), cpu_seconds());
    let (volume, report) = Volume::open(options(dir), None)?;
    let (seconds, cpu_seconds) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    let memory_bytes = resident_bytes()? - before_bytes;
    let replicas = report.replicas;
    println!(
        "  {replicas} replicas, {} records replayed, {} suspects: started in {seconds:.3} s \
         ({cpu_seconds:.3} CPU-s), {:.1} MiB resident",
        report.replayed_records,
        report.suspects.len(),
        memory_bytes as f64 / (1 << 20) as f64,
    );
    drop(volume);
    Ok(())
}

/// Processor time of this process so far.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory of this process that is resident.
fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
