//! `limits`: what the disk, loopback and memory can do at best, without Blockyard.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;

use super::beside::add_fio;
use super::{GIB, MIB, fio_folder};
use crate::context::Context;
use crate::fio::{self, Job};
use crate::iperf;
use crate::process;
use crate::report::Series;
use crate::workload::Pool;

const SCENARIO: &str = "limits";
/// Well over the processor's caches.
const MEMORY_BYTES: usize = 256 << 20;

const DISK_CASES: [(&str, Job, u64, u32); 9] = [
    ("fio write 4 MiB, depth 4", Job::Write, 4 << 20, 4),
    (
        "fio write 4 MiB, depth 4, fdatasync each 4",
        Job::FlushedWrite,
        4 << 20,
        4,
    ),
    (
        "fio write 4 MiB to a new file, depth 4",
        Job::FreshWrite,
        4 << 20,
        4,
    ),
    (
        "fio write 4 MiB to a new file, depth 4, fdatasync each 4",
        Job::FlushedFreshWrite,
        4 << 20,
        4,
    ),
    ("fio read 4 MiB, depth 4", Job::Read, 4 << 20, 4),
    ("fio write 4 MiB, depth 1", Job::Write, 4 << 20, 1),
    ("fio read 4 MiB, depth 1", Job::Read, 4 << 20, 1),
    (
        "fio randwrite 64 KiB, depth 16, fdatasync each 16",
        Job::RandWrite,
        64 << 10,
        16,
    ),
    ("fio randread 64 KiB, depth 16", Job::RandRead, 64 << 10, 16),
];

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let (fio, iperf3) = (context.has_tool("fio")?, context.has_tool("iperf3")?);
    let size_bytes = context.flags.size_bytes();
    context.check_space(2 * size_bytes + (64 << 20))?;
    let folder = fio_folder(context)?;
    let mut disk: Vec<Series> = DISK_CASES
        .iter()
        .map(|case| Series::new(SCENARIO, case.0))
        .collect();
    let mut network = [
        (false, Series::new(SCENARIO, "iperf3, one stream on loopback")),
        (
            true,
            Series::new(SCENARIO, "iperf3, one stream on loopback, unpaced"),
        ),
    ];
    let mut memory = [
        Series::new(SCENARIO, "memcpy, one core"),
        Series::new(SCENARIO, "CRC32C, one core"),
    ];
    let pool = Pool::new(MEMORY_BYTES);
    let mut copy = vec![0; MEMORY_BYTES];

    for round in 0..=context.flags.rounds() {
        context.say(format_args!("round {round} of {}", context.flags.rounds()));
        let counts = round > 0;
        for (series, (_, job, block_bytes, depth)) in disk.iter_mut().zip(DISK_CASES).filter(|_| fio) {
            let shape = fio::Shape {
                block_bytes,
                depth,
                size_bytes,
            };
            let figures = fio::run(&folder, job, shape)?;
            if counts {
                add_fio(series, &figures);
            }
        }
        for (unpaced, series) in network.iter_mut().filter(|_| iperf3) {
            let figures = iperf::run(iperf::Options {
                seconds: if context.flags.quick { 1 } else { 2 },
                unpaced: *unpaced,
                ..iperf::Options::default()
            })?;
            if counts {
                series.add("throughput", "MiB/s", figures.mib_per_s);
                series.add("cpu", "s/GiB", figures.cpu_s_per_gib);
            }
        }
        let copied = timed(|| {
            copy.copy_from_slice(black_box(pool.bytes()));
            black_box(&copy);
        });
        let summed = timed(|| {
            black_box(blockyard_engine::checksum::crc(black_box(pool.bytes())));
        });
        for (series, (mib_per_s, cpu_s_per_gib)) in memory.iter_mut().zip([copied, summed]).filter(|_| counts)
        {
            series.add("throughput", "MiB/s", mib_per_s);
            series.add("cpu", "s/GiB", cpu_s_per_gib);
        }
    }
    let network = network.iter().map(|(_, series)| series);
    for series in disk.iter().chain(network).chain(&memory) {
        context.report.series(series);
    }
    Ok(())
}

/// MiB/s and CPU seconds per GiB of work over the whole memory.
fn timed(work: impl FnOnce()) -> (f64, f64) {
    let (started, cpu_s) = (Instant::now(), process::own_cpu_s());
    work();
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), process::own_cpu_s() - cpu_s);
    let bytes = MEMORY_BYTES as f64;
    (bytes / MIB / wall_s, cpu_s / (bytes / GIB))
}
