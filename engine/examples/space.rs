//! What blocks take on disk: every length to 64 KiB and random ones to 4 MiB, whole blocks, and a real tree of small
//! files, each put into a volume of its own. Fails where a bar is missed.
//!
//! `cargo run --release -p blockyard-engine --example space -- FOLDER [TREE]` (TREE: the Rust toolchain's folder)

use std::cell::Cell;
use std::error::Error;
use std::fs;
use std::future::{Future, poll_fn};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::task::Poll;

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::{Lane, Options, Volume, exec, slot_bytes_for};

const PAGE: u64 = 4096;
const WHOLE: u64 = 4 << 20;
const AT_ONCE: usize = 32;

/// A block to be: a part of a file, or (without a file) zeros.
struct Part {
    file: Option<PathBuf>,
    offset_bytes: u64,
    length: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = PathBuf::from(arguments.next().ok_or("name a folder on the disk to use")?);
    let tree = arguments
        .next()
        .map_or_else(toolchain, |tree| Ok(PathBuf::from(tree)))?;
    let mut missed = false;
    let mut bar = |what: &str, ratio: f64, bar: f64| {
        missed |= ratio > bar;
        println!("{what}: {ratio:.4} (bar {bar})");
    };

    let random = random_lengths(10_000, 0x5eed);
    println!("sweep of lengths 1 to 65536, then 10000 random ones to 4 MiB with seed 0x5eed");
    for (what, lengths) in [
        ("to 64 KiB", (1..=65_536).collect()),
        ("to 4 MiB", random.clone()),
    ] {
        let over = |length: &u64| slot_bytes_for(*length as usize) as u64 - *length;
        let ratio = |length: &u64| slot_bytes_for(*length as usize) as f64 / pages(*length) as f64;
        let most = lengths.iter().max_by_key(|length| over(length)).expect("lengths");
        let worst = lengths
            .iter()
            .max_by(|a, b| ratio(a).total_cmp(&ratio(b)))
            .expect("lengths");
        println!("  {what}: most over its bytes {most} B: {} B more", over(most));
        println!(
            "  {what}: worst against its pages {worst} B in {} B: {:.3}",
            slot_bytes_for(*worst as usize),
            ratio(worst)
        );
    }
    let zeros = |length: u64| Part {
        file: None,
        offset_bytes: 0,
        length,
    };
    let sweep: Vec<Part> = (1..=65_536)
        .step_by(8)
        .chain(random.into_iter().take(200))
        .map(zeros)
        .collect();
    fill(
        &parent,
        "of the sweep, every eighth length and 200 random ones",
        &sweep,
    )?;

    let whole: Vec<Part> = (0..64).map(|_| zeros(WHOLE)).collect();
    let used = fill(&parent, "of 4 MiB", &whole)?;
    bar(
        "4 MiB blocks: slots to bytes",
        used as f64 / (64 * WHOLE) as f64,
        1.01,
    );

    let mut parts = Vec::new();
    walk(&tree, &mut parts)?;
    let used = fill(&parent, &format!("of {}", tree.display()), &parts)?;
    let rounded: u64 = parts.iter().map(|part| pages(part.length)).sum();
    bar(
        "tree: slots to blocks rounded up to 4 KiB",
        used as f64 / rounded as f64,
        1.25,
    );
    if missed {
        Err("a bar is missed".into())
    } else {
        Ok(())
    }
}

fn pages(length: u64) -> u64 {
    length.next_multiple_of(PAGE)
}

fn toolchain() -> Result<PathBuf, Box<dyn Error>> {
    let told = Command::new("rustc").args(["--print", "sysroot"]).output()?;
    Ok(String::from_utf8(told.stdout)?.trim().into())
}

fn random_lengths(count: usize, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % WHOLE + 1
    };
    (0..count).map(|_| next()).collect()
}

/// Cuts every file below `folder` into blocks.
fn walk(folder: &Path, parts: &mut Vec<Part>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), parts)?;
        } else if kind.is_file() {
            let bytes = entry.metadata()?.len();
            parts.extend((0..bytes).step_by(WHOLE as usize).map(|offset_bytes| Part {
                file: Some(entry.path()),
                offset_bytes,
                length: (bytes - offset_bytes).min(WHOLE),
            }));
        }
    }
    Ok(())
}

/// Puts the blocks into a volume, prints what they take, and tells the bytes of their slots.
fn fill(parent: &Path, what: &str, parts: &[Part]) -> Result<u64, Box<dyn Error>> {
    let dir = tempfile::Builder::new()
        .prefix("blockyard-space-")
        .tempdir_in(parent)?;
    Volume::format(dir.path(), [1; 16])?;
    let slots: u64 = parts
        .iter()
        .map(|part| slot_bytes_for(part.length as usize) as u64)
        .sum();
    let mut options = Options::new(dir.path());
    // Room for a begun segment of each class beside.
    options.capacity_bytes = slots * 3 / 2 + (512 << 20);
    let (volume, _) = Volume::open(options, None)?;
    put_all(&volume, parts);
    let stat = volume.stat();
    let mut on_disk = 0;
    for entry in fs::read_dir(dir.path().join("segments"))? {
        on_disk += entry?.metadata()?.blocks() * 512;
    }
    println!("{} blocks {what}", parts.len());
    println!(
        "  bytes {}, used {}, of it wasted {}; on disk {on_disk}: {} in {} segments are free yet",
        stat.block_bytes,
        stat.used_bytes,
        stat.wasted_bytes,
        on_disk.saturating_sub(stat.used_bytes),
        stat.segments
    );
    if stat.used_bytes != slots || on_disk < slots {
        return Err(format!("{slots} B of slots expected").into());
    }
    exec::run(&volume, volume.close())?;
    Ok(slots)
}

fn put_all(volume: &Volume, parts: &[Part]) {
    let next = Cell::new(0);
    let mut lanes: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for _ in 0..AT_ONCE {
        lanes.push(Box::pin(async {
            while let Some(part) = parts.get(next.get()) {
                let block = next.replace(next.get() + 1);
                put(volume, BlockId(block as u64), part).await.expect("a put");
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

async fn put(volume: &Volume, block: BlockId, part: &Part) -> Result<(), Box<dyn Error>> {
    let mut bytes = vec![0; part.length as usize];
    if let Some(file) = &part.file {
        fs::File::open(file)?.read_exact_at(&mut bytes, part.offset_bytes)?;
    }
    let mut buffer = volume.acquire(Lane::Head, part.length as u32).await?;
    buffer.fill(&bytes)?;
    volume.put(block, Origin::default(), buffer).await?;
    Ok(())
}
