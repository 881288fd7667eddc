//! `engine`: one volume in this process, durable puts and verified gets, beside fio at the same depth.

mod case;
mod hot;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use blockyard_engine::block::BlockId;
use blockyard_engine::{Volume, exec};

use self::case::{Case, Segments};
use super::{BLOCK_BYTES, MIB, fio_folder};
use crate::content::Content;
use crate::context::Context;
use crate::latency::Latencies;
use crate::process;
use crate::report::Series;
use crate::volume;

const SCENARIO: &str = "engine";
const DEPTHS: [u32; 3] = [1, 4, 16];
const SMALL_BYTES: u64 = 64 << 10;
/// What one step of filling with zeros may write.
const ZERO_FILL_STEP_BYTES: u64 = 16 << 20;
/// The reigns of block ids: those that stay to be read, and those of puts that are timed.
const KEPT: u32 = 1;
const TIMED: u32 = 2;

/// Blocks of one length: what they hold, and those that stay on the volume to be read.
struct Length {
    name: &'static str,
    bytes: u64,
    content: Content,
    kept: Vec<BlockId>,
}

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let fio = context.has_tool("fio")?;
    let size_bytes = context.flags.size_bytes();
    context.check_space(8 * size_bytes + (3 << 30))?;
    let fio_folder = fio_folder(context)?;
    let lengths = [
        Length::new("4 MiB", BLOCK_BYTES, 0, size_bytes / 2)?,
        Length::new("64 KiB", SMALL_BYTES, 1 << 32, size_bytes / 4)?,
    ];
    let mut cases: Vec<Case> = lengths
        .iter()
        .flat_map(|length| DEPTHS.map(|depth| Case::new(length, depth)))
        .collect();
    let worn_folder = context.folder.path().join("worn");
    let worn_bytes = 2 * size_bytes + (1 << 30);
    let worn = new_volume(context, &worn_folder, worn_bytes)?;
    for length in &lengths {
        volume::put_all(
            &worn,
            &length.content,
            &length.kept,
            16,
            &mut Latencies::default(),
        )?;
    }
    let (disk, mut next_block) = (context.disk.clone(), 0);
    for round in 0..=context.flags.rounds() {
        context.say(format_args!("round {round} of {}", context.flags.rounds()));
        for (number, case) in cases.iter_mut().enumerate() {
            let folder = context.folder.path().join(format!("fresh-{round}-{number}"));
            let fresh = new_volume(context, &folder, 2 * case.put_bytes() * 5 / 4 + (512 << 20))?;
            let mut session = case::Session {
                fio: fio.then_some(&fio_folder),
                disk: disk.as_ref(),
                lengths: &lengths,
                next_block: &mut next_block,
                counts: round > 0,
            };
            case.put(&mut session, &worn, Segments::Recycled)?;
            case.put(&mut session, &fresh, Segments::Fresh)?;
            fill_with_zeros(context, &fresh, case.put_bytes())?;
            case.put(&mut session, &fresh, Segments::ZeroFilled)?;
            case.get(&mut session, &worn)?;
            volume::close(&fresh)?;
            drop(fresh);
            fs::remove_dir_all(&folder)?;
        }
    }
    volume::close(&worn)?;
    drop(worn);
    for case in &mut cases {
        case.report(context);
    }
    hot::run(context, &worn_folder, worn_bytes, &lengths)?;
    memory(context)?;
    context.report.note(
        "engine: cpu has all that this process does, the CRC32C of every 64 KiB put and got included; a socket's copy \
         into the buffer is not in it. Recycled: slots that were written before; fresh: segments that the filesystem \
         has only set aside; zero-filled: slots that the idle volume wrote before the clock started. fio writes over a written file, and flushes its 64 KiB writes once a batch of `depth`, \
         its 4 MiB writes never; the volume flushes before each acknowledgement",
    );
    Ok(())
}

/// An empty volume.
fn new_volume(context: &mut Context, folder: &Path, capacity_bytes: u64) -> Result<Volume> {
    volume::format(folder)?;
    let (volume, opened) = volume::open(volume::options(folder, capacity_bytes))?;
    for note in opened.notes {
        context.report.note(format!("engine: {note}"));
    }
    Ok(volume)
}

/// Has an idle volume fill as many slots as were put: `needed_bytes` of blocks.
fn fill_with_zeros(context: &mut Context, volume: &Volume, needed_bytes: u64) -> Result<()> {
    while exec::run(volume, volume.zero_fill(ZERO_FILL_STEP_BYTES)).context("filling slots with zeros")? > 0 {
    }
    let filled_bytes = volume.stat().zero_filled_bytes;
    if filled_bytes < needed_bytes {
        let (filled, needed) = (filled_bytes >> 20, needed_bytes >> 20);
        context.report.note(format!(
            "engine: only {filled} MiB were filled with zeros for {needed} MiB of puts: zero-filled is partly fresh"
        ));
    }
    Ok(())
}

fn memory(context: &mut Context) -> Result<()> {
    let mut series = Series::new(SCENARIO, "this process, buffers and random data included");
    let peak_bytes = process::peak_rss_bytes(std::process::id())?;
    series.add("peak memory", "MiB", peak_bytes as f64 / MIB);
    context.report.series(&series);
    Ok(())
}

impl Length {
    fn new(name: &'static str, bytes: u64, first: u64, kept_bytes: u64) -> Result<Self> {
        Ok(Self {
            name,
            bytes,
            content: Content::new(bytes as usize),
            kept: volume::ids(KEPT, first, (kept_bytes / bytes).max(1))?,
        })
    }
}
