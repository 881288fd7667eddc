//! Cuts what an upload's source gives into blocks, with the CRC32C of each unit computed once, while
//! it is in the processor's cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blockyard_engine::checksum;
use blockyard_engine::limits::{BLOCK_BYTES_MAX, UNIT_BYTES};
use blockyard_wire::{Problem, ProblemKind, Result};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::buffers::Buffers;

/// What the first block of a source of unknown length is read into: most files are short.
const FIRST_BYTES: usize = 128 * 1024;
/// How much is taken from a source that never waits before others on the thread have their turn.
const TURN_BYTES: usize = 1024 * 1024;

/// A block to be written: it stays in memory until it is durable.
#[derive(Clone)]
pub struct Filled {
    /// 1 B to 4 MiB.
    pub data: Bytes,
    /// Of each unit.
    pub unit_crcs: Vec<u32>,
    /// Of the block.
    pub crc32c: u32,
    /// How long it took to get it.
    pub read: Duration,
    /// Of that, its checksums.
    pub checksum: Duration,
    /// When it was complete.
    pub ready: Instant,
}

/// What an upload reads from.
pub struct Source<R> {
    from: R,
    buffers: Arc<Buffers>,
    /// Bytes of the next buffer; it grows when they don't suffice.
    expected_bytes: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// `length_hint`: what the source is thought to hold.
    pub fn new(from: R, buffers: Arc<Buffers>, length_hint: Option<u64>) -> Self {
        // One byte more shows whether the source ends where it is thought to.
        let expected = length_hint.map_or(FIRST_BYTES as u64, |bytes| bytes.saturating_add(1));
        Self {
            from,
            buffers,
            expected_bytes: expected.min(BLOCK_BYTES_MAX as u64) as usize,
            ended: false,
        }
    }

    /// The next block: 4 MiB, or what is left before the end.
    ///
    /// # Errors
    /// `Failed` when the source does.
    pub async fn next(&mut self) -> Result<Option<Filled>> {
        if self.ended {
            return Ok(None);
        }
        let mut buffer = self.buffers.take(self.expected_bytes);
        let mut unit_crcs = Vec::with_capacity(buffer.len() / UNIT_BYTES);
        let (mut filled, mut turn) = (0, 0);
        let (begun, mut summing) = (Instant::now(), Duration::ZERO);
        while filled < BLOCK_BYTES_MAX {
            if filled == buffer.len() {
                let mut larger = self.buffers.take(BLOCK_BYTES_MAX);
                larger[..filled].copy_from_slice(&buffer);
                buffer = larger;
                self.expected_bytes = BLOCK_BYTES_MAX;
            }
            let until = buffer.len().min(filled + TURN_BYTES);
            let read = self
                .from
                .read(&mut buffer[filled..until])
                .await
                .map_err(|error| {
                    Problem::new(
                        ProblemKind::Failed,
                        format!("cannot read what is to be uploaded: {error}"),
                    )
                })?;
            if read == 0 {
                self.ended = true;
                break;
            }
            filled += read;
            turn += read;
            let known = unit_crcs.len() * UNIT_BYTES;
            let sums = Instant::now();
            let whole_units = buffer[known..filled].chunks_exact(UNIT_BYTES);
            unit_crcs.extend(whole_units.map(checksum::crc));
            summing += sums.elapsed();
            if turn >= TURN_BYTES {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        if filled == 0 {
            return Ok(None);
        }
        if !filled.is_multiple_of(UNIT_BYTES) {
            unit_crcs.push(checksum::crc(&buffer[filled / UNIT_BYTES * UNIT_BYTES..filled]));
        }
        Ok(Some(Filled {
            crc32c: checksum::combine_units(&unit_crcs, filled),
            data: Bytes::from_owner(buffer).slice(..filled),
            unit_crcs,
            read: begun.elapsed(),
            checksum: summing,
            ready: Instant::now(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blocks_are_cut_and_summed_however_the_bytes_arrive() {
        for length in [
            0,
            1,
            UNIT_BYTES,
            BLOCK_BYTES_MAX,
            BLOCK_BYTES_MAX + UNIT_BYTES + 3,
        ] {
            for length_hint in [None, Some(length as u64), Some(1), Some(u64::MAX)] {
                let data: Vec<u8> = (0..length).map(|at| (at * 7 % 253) as u8).collect();
                // A pipe of an odd size gives odd pieces.
                let (mut sender, receiver) = tokio::io::duplex(70_001);
                let sent = data.clone();
                let sending = async move {
                    tokio::io::AsyncWriteExt::write_all(&mut sender, &sent)
                        .await
                        .unwrap();
                    drop(sender);
                };
                let reading = async {
                    let mut source = Source::new(receiver, Buffers::new(1, 1), length_hint);
                    let mut blocks = Vec::new();
                    while let Some(block) = source.next().await.unwrap() {
                        blocks.push(block);
                    }
                    blocks
                };
                let ((), blocks) = tokio::join!(sending, reading);
                assert_eq!(blocks.len(), length.div_ceil(BLOCK_BYTES_MAX));
                for (block, expected) in blocks.iter().zip(data.chunks(BLOCK_BYTES_MAX)) {
                    assert!(block.data == expected);
                    assert_eq!(block.unit_crcs, checksum::unit_crcs(expected));
                    assert_eq!(block.crc32c, checksum::crc(expected));
                }
            }
        }
    }
}
