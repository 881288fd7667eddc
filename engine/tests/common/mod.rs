//! A volume in a folder of its own, and blocks to put into it.
#![allow(dead_code)] // each test program uses a part

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::{Lane, OpenReport, Options, PoolOptions, Receipt, Result, Volume, exec};
use tempfile::TempDir;

pub const CLUSTER: [u8; 16] = [0xc1; 16];
pub const MIB: u64 = 1 << 20;
pub const ORIGIN: Origin = Origin { version: 7, index: 1 };

/// A formatted volume, open or not.
pub struct Yard {
    pub dir: TempDir,
    pub options: Options,
}

impl Yard {
    pub fn new(capacity_bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Volume::format(dir.path(), CLUSTER).expect("formatting");
        let mut options = Options::new(dir.path());
        options.capacity_bytes = capacity_bytes;
        options.journal_bytes = MIB;
        options.pool = PoolOptions::small();
        Self { dir, options }
    }

    pub fn open(&self) -> (Volume, OpenReport) {
        self.try_open().expect("opening")
    }

    pub fn try_open(&self) -> Result<(Volume, OpenReport)> {
        Volume::open(self.options.clone(), Some(CLUSTER))
    }

    /// The segment files.
    pub fn segments(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("segments")).expect("segments");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// Bytes that differ from block to block and from place to place.
pub fn content(block: u64, length: usize) -> Vec<u8> {
    let mut state = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
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

pub async fn put_bytes(volume: &Volume, block: u64, bytes: &[u8]) -> Result<Receipt> {
    let mut buffer = volume.acquire(Lane::Head, bytes.len() as u32).await?;
    buffer.fill(bytes)?;
    volume.put(BlockId(block), ORIGIN, buffer).await
}

pub fn put(volume: &Volume, block: u64, length: usize) -> Result<Receipt> {
    exec::run(volume, put_bytes(volume, block, &content(block, length)))
}

/// The wanted bytes of a block, cut out of the verified units.
pub fn get(volume: &Volume, block: u64, offset: u32, length: u32) -> Result<Vec<u8>> {
    let verified = exec::run(volume, volume.get(BlockId(block), offset, length, Lane::Read))?;
    let from = (offset - verified.offset) as usize;
    assert_eq!(
        verified.unit_crcs,
        blockyard_engine::checksum::unit_crcs(&verified.data)
    );
    Ok(verified.data[from..from + length as usize].to_vec())
}

pub fn assert_block(volume: &Volume, block: u64, length: usize) {
    let found = get(volume, block, 0, length as u32).unwrap_or_else(|error| panic!("block {block}: {error}"));
    assert!(
        found == content(block, length),
        "block {block} of {length} B came back different"
    );
}
