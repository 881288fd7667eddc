//! Cuts the first inputs of `engine/fuzz` out of a real volume: `fuzz_seeds FOLDER` fills FOLDER/TARGET/.
//!
//! It reads the volume's files as FORMAT.md draws them, not through the engine's own decoders.

use std::error::Error;
use std::fs;
use std::path::Path;

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::{Epoch, Lane, Options, PoolOptions, Volume, exec};

const PAGE: usize = 4096;
const CLASS_PAGES: [usize; 24] = [
    1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 29, 38, 50, 66, 88, 117, 156, 208, 277, 369, 492, 656, 874,
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("name a folder for the inputs")?;
    let dir = tempfile::tempdir()?;
    let volume = dir.path().join("volume");
    fill(&volume)?;
    let count = cut(&volume, Path::new(&out))?;
    println!("{count} inputs cut out of a volume");
    Ok(())
}

/// Makes a volume with blocks of many lengths, deletions, an epoch, a corrupt replica and several checkpoints.
fn fill(dir: &Path) -> Result<(), Box<dyn Error>> {
    Volume::format(dir, [0xc1; 16])?;
    let mut options = Options::new(dir);
    options.capacity_bytes = 128 << 20;
    options.journal_bytes = 1 << 20;
    options.pool = PoolOptions::small();
    for opening in 0..3u64 {
        let (volume, _) = Volume::open(options.clone(), None)?;
        exec::run(&volume, async {
            let epoch = Epoch {
                number: opening + 1,
                incarnation: [opening as u8; 16],
            };
            volume.raise_epoch(epoch).await?;
            let lengths = [
                1,
                4000,
                9000,
                16_256,
                16_257,
                65_536,
                65_537,
                300_000,
                1 << 20,
                4 << 20,
            ];
            for (n, length) in (0..).zip(lengths) {
                let block = BlockId(opening * 100 + n);
                let mut buffer = volume.acquire(Lane::Head, length).await?;
                buffer.fill(&vec![n as u8; length as usize])?;
                volume.put(block, Origin::default(), buffer).await?;
            }
            volume
                .delete(&[BlockId(opening * 100 + 1), BlockId(opening * 100 + 7)])
                .await?;
            volume.mark_corrupt(BlockId(opening * 100 + 2)).await?;
            // The last opening ends as if killed, so that its journal has a tail.
            if opening < 2 { volume.close().await } else { Ok(()) }
        })?;
    }
    Ok(())
}

fn cut(volume: &Path, out: &Path) -> Result<usize, Box<dyn Error>> {
    let mut count = 0;
    let mut keep = |target: &str, bytes: Vec<u8>| -> std::io::Result<()> {
        let folder = out.join(target);
        fs::create_dir_all(&folder)?;
        count += 1;
        fs::write(folder.join(format!("seed-{count:04}")), bytes)
    };
    let text = fs::read(volume.join("volume.toml"))?;
    let ids: Vec<u8> = ["volume", "incarnation"]
        .iter()
        .flat_map(|key| id(&String::from_utf8_lossy(&text), key))
        .collect();
    keep("volume_toml", text)?;
    for entry in fs::read_dir(volume.join("segments"))? {
        let bytes = fs::read(entry?.path())?;
        keep("superblock", bytes[..64].to_vec())?;
        let (seed, segment, class) = (&bytes[32..40], &bytes[52..54], bytes[54]);
        let slot_bytes = CLASS_PAGES.get(class as usize).unwrap_or(&1025) * PAGE;
        for (slot, bytes) in bytes[PAGE..].chunks_exact(slot_bytes).enumerate() {
            if bytes.starts_with(b"BYsl") {
                let end = 64 + 4 * usize::from(bytes[10]);
                let place = [(slot as u16).to_le_bytes(), [segment[0], segment[1]]].concat();
                keep("slot_header", [&ids[..16], seed, &place, &bytes[..end]].concat())?;
            }
        }
    }
    for file in 0..4 {
        let bytes = fs::read(volume.join(format!("journal/{file:04}.jnl")))?;
        let pages: Vec<&[u8]> = bytes.chunks(PAGE).collect();
        let starts: Vec<usize> = (0..pages.len())
            .filter(|&page| pages[page].starts_with(b"BYjb"))
            .collect();
        // Runs of batches that follow each other, at the same page of a ring that is smaller than the volume's.
        for run in starts.chunks(8).filter(|run| run[0] < 12) {
            let first = pages[run[0]];
            let head = [&first[16..24], &first[48..52], &first[24..28], &first[28..32]].concat();
            let mut input = [&ids[..], &head].concat();
            for &page in run {
                input.extend(section(&bytes[page * PAGE..][..word(pages[page], 12)]));
            }
            keep("journal", input)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = fs::read(entry.path()).unwrap_or_default();
        if name.starts_with("checkpoint-") && bytes.starts_with(b"BYck") {
            let mut input = [&ids[..], &bytes[8..16]].concat();
            for block in bytes
                .chunks(64 * 1024)
                .take_while(|block| block.starts_with(b"BYck"))
            {
                input.extend(section(&block[..word(block, 20)]));
            }
            keep("checkpoint", input)?;
        }
    }
    Ok(count)
}

/// An id of volume.toml.
fn id(text: &str, key: &str) -> Vec<u8> {
    let line = text
        .lines()
        .find(|line| line.starts_with(key))
        .expect("volume.toml has the key");
    let digits = line.split('"').nth(1).expect("an id stands in quotes");
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal digits");
    (0..16).map(byte).collect()
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize
}

/// A part of an input: nothing to skip, its length, its bytes.
fn section(bytes: &[u8]) -> Vec<u8> {
    [&[0], &(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}
