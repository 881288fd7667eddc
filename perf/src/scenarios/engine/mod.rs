//! `engine`: one volume in this process, durable puts and verified gets, beside fio at the same depth.

mod case;
mod hot;

use std::fs;
use std::path::Path;

use anyhow::Result;
use blockyard_engine::Volume;
use blockyard_engine::block::BlockId;

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
    let put_bytes: u64 = cases.iter().map(Case::put_bytes).sum();
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
    let mut next_block = 0;
    for round in 0..=context.flags.rounds() {
        context.say(format_args!("round {round} of {}", context.flags.rounds()));
        let folder = context.folder.path().join(format!("fresh-{round}"));
        let fresh = new_volume(context, &folder, put_bytes * 5 / 4 + (512 << 20))?;
        for case in &mut cases {
            let mut session = case::Session {
                fio: fio.then_some(&fio_folder),
                disk: context.disk.as_ref(),
                lengths: &lengths,
                next_block: &mut next_block,
                counts: round > 0,
            };
            case.put(&mut session, &worn, Segments::Recycled)?;
            case.put(&mut session, &fresh, Segments::Fresh)?;
            case.get(&mut session, &worn)?;
        }
        volume::close(&fresh)?;
        drop(fresh);
        fs::remove_dir_all(&folder)?;
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
         has only set aside. fio writes over a written file, and flushes its 64 KiB writes once a batch of `depth`, \
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
