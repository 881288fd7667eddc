//! A volume in this process, worked at some depth: what `engine`, `index` and `backends` have in common.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::limits::UNIT_BYTES;
use blockyard_engine::{BlockBuffer, Lane, LaneOptions, OpenReport, Options, PoolOptions, Volume, exec};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::content::Content;
use crate::latency::Latencies;

const CLUSTER: [u8; 16] = [0x50; 16];
/// How many blocks one call deletes.
const DELETE_BLOCKS: usize = 1024;

/// Makes an empty volume.
pub(crate) fn format(folder: &Path) -> Result<()> {
    Volume::format(folder, CLUSTER).context("formatting a volume")?;
    Ok(())
}

/// Room for `capacity_bytes`, and buffers for the deepest case.
pub(crate) fn options(folder: &Path, capacity_bytes: u64) -> Options {
    let lane = LaneOptions { large: 20, small: 72 };
    let mut options = Options::new(folder);
    options.capacity_bytes = capacity_bytes;
    options.pool = PoolOptions {
        head: lane,
        read: lane,
        ..PoolOptions::small()
    };
    options
}

pub(crate) fn open(options: Options) -> Result<(Volume, OpenReport)> {
    Volume::open(options, Some(CLUSTER)).context("opening a volume")
}

pub(crate) fn close(volume: &Volume) -> Result<()> {
    exec::run(volume, volume.close()).context("closing a volume")
}

/// `count` block ids from `first` on.
pub(crate) fn ids(reign: u32, first: u64, count: u64) -> Result<Vec<BlockId>> {
    (first..first + count)
        .map(|counter| BlockId::new(reign, counter).context("block ids ran out"))
        .collect()
}

/// A buffer with `content` in it, the CRC of each unit computed and compared, as a dataserver does with what comes
/// in. A pool buffer that still holds the content from a put before is left as it is: a socket would have written
/// there, and its copy is not the engine's.
async fn filled(volume: &Volume, content: &Content) -> blockyard_engine::Result<BlockBuffer> {
    let length = content.data.len();
    let mut buffer = volume.acquire(Lane::Head, length as u32).await?;
    let mut chunk = buffer.take_chunk(length as u32)?;
    let (held, wanted) = (chunk.as_mut(), content.data.as_slice());
    let probe = length.min(64);
    let probes = [0, length / 2, length - probe].map(|at| at..(at + probe).min(length));
    if probes
        .into_iter()
        .any(|probe| held[probe.clone()] != wanted[probe])
    {
        held.copy_from_slice(wanted);
    }
    buffer.commit(chunk, &content.crcs)?;
    Ok(buffer)
}

/// Puts `content` under each id, `depth` at a time; each latency ends with a durable block.
pub(crate) fn put_all(
    volume: &Volume,
    content: &Content,
    ids: &[BlockId],
    depth: usize,
    latencies: &mut Latencies,
) -> Result<()> {
    let puts = stream::iter(ids).map(|&id| async move {
        let buffer = filled(volume, content).await?;
        let started = Instant::now();
        volume.put(id, Origin::default(), buffer).await?;
        Ok::<Duration, blockyard_engine::Error>(started.elapsed())
    });
    let all = puts.buffer_unordered(depth).try_for_each(|latency| {
        latencies.record(latency);
        std::future::ready(Ok(()))
    });
    exec::run(volume, all).context("a put")
}

/// Gets `length` bytes from each place (block and offset), `depth` at a time; the volume verifies every unit, and
/// here its CRCs are compared with those of what was put.
pub(crate) fn get_all(
    volume: &Volume,
    content: &Content,
    places: &[(BlockId, usize)],
    length: usize,
    depth: usize,
    latencies: &mut Latencies,
) -> Result<()> {
    let gets = stream::iter(places).map(|&(id, offset)| async move {
        let started = Instant::now();
        let verified = volume.get(id, offset as u32, length as u32, Lane::Read).await?;
        let units = offset / UNIT_BYTES..(offset + length).div_ceil(UNIT_BYTES);
        ensure!(verified.unit_crcs == content.crcs[units], "other bytes came back");
        Ok(started.elapsed())
    });
    let all = gets.buffer_unordered(depth).try_for_each(|latency| {
        latencies.record(latency);
        std::future::ready(Ok(()))
    });
    exec::run(volume, all).context("a get")
}

pub(crate) fn delete_all(volume: &Volume, ids: &[BlockId]) -> Result<()> {
    for some in ids.chunks(DELETE_BLOCKS) {
        exec::run(volume, volume.delete(some)).context("a delete")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_go_in_and_come_back_by_ranges() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("volume");
        format(&folder).unwrap();
        let (volume, _) = open(options(&folder, 64 << 20)).unwrap();
        let content = Content::new(3 * UNIT_BYTES);
        let ids = ids(1, 0, 6).unwrap();
        let mut latencies = Latencies::default();
        put_all(&volume, &content, &ids, 4, &mut latencies).unwrap();
        let places: Vec<_> = ids.iter().map(|&id| (id, UNIT_BYTES)).collect();
        get_all(&volume, &content, &places, UNIT_BYTES, 4, &mut latencies).unwrap();
        assert_eq!(latencies.count(), 12);
        let mut other = Content::new(3 * UNIT_BYTES);
        other.crcs[2] ^= 1;
        assert!(get_all(&volume, &other, &[(ids[0], 0)], 3 * UNIT_BYTES, 1, &mut latencies).is_err());
        delete_all(&volume, &ids).unwrap();
        assert_eq!(volume.stat().replicas, 0);
        close(&volume).unwrap();
    }
}
