//! What a soak writes, known again from any part of it: every byte follows from the value's number and its place.
//!
//! Knows no cluster. Bytes come from a pool that the seed makes; each 4 KiB begin with the value's number and their
//! own, so that neither another value nor another place of the same one can pass for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than a core's own cache holds; what the values are cut from.
const POOL_BYTES: usize = 8 << 20;
/// Each so many bytes of a value begin with a stamp.
const PAGE_BYTES: u64 = 4096;
const STAMP_BYTES: u64 = 16;
/// Values start at multiples of this odd number in the pool.
const STEP_BYTES: u64 = 8_209;
/// What a comparison generates at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Before the number in a file's content type, which tells what it should hold.
const MARK: &str = "application/x-soak-";

/// What one upload writes: no two of a run have the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Value {
    pub number: u64,
    pub length_bytes: u64,
}

impl Value {
    /// The content type that it is uploaded with.
    pub(super) fn content_type(self) -> String {
        format!("{MARK}{:x}", self.number)
    }
}

/// The number of the value that a file with this content type holds.
pub(super) fn number_of(content_type: &str) -> Option<u64> {
    u64::from_str_radix(content_type.strip_prefix(MARK)?, 16).ok()
}

/// All values of a run.
#[derive(Clone)]
pub(super) struct Contents(Arc<Vec<u8>>);

impl Contents {
    pub(super) fn new(seed: u64) -> Self {
        let mut pool = vec![0; POOL_BYTES];
        rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut pool);
        Self(Arc::new(pool))
    }

    /// The bytes of value `number` from `offset_bytes` on.
    fn fill(&self, number: u64, offset_bytes: u64, into: &mut [u8]) {
        let mut at =
            (number.wrapping_mul(STEP_BYTES).wrapping_add(offset_bytes) % POOL_BYTES as u64) as usize;
        let mut filled = 0;
        while filled < into.len() {
            let count = (POOL_BYTES - at).min(into.len() - filled);
            into[filled..filled + count].copy_from_slice(&self.0[at..at + count]);
            filled += count;
            at = 0;
        }
        let end = offset_bytes + into.len() as u64;
        let mut page = offset_bytes / PAGE_BYTES;
        while page * PAGE_BYTES < end {
            let stamp = (u128::from(page) << 64 | u128::from(number)).to_le_bytes();
            let from = page * PAGE_BYTES;
            let (start, stop) = (from.max(offset_bytes), (from + STAMP_BYTES).min(end));
            if start < stop {
                into[(start - offset_bytes) as usize..(stop - offset_bytes) as usize]
                    .copy_from_slice(&stamp[(start - from) as usize..(stop - from) as usize]);
            }
            page += 1;
        }
    }

    /// Where `data`, read from `offset_bytes` of value `number` on, first differs from what was written there: an offset
    /// in the file, the bytes expected and those found from there on, a few of each.
    pub(super) fn difference(&self, number: u64, offset_bytes: u64, data: &[u8]) -> Option<Difference> {
        const SHOWN: usize = 16;
        let mut expected = vec![0; PIECE_BYTES.min(data.len())];
        let mut offset_bytes = offset_bytes;
        for piece in data.chunks(PIECE_BYTES) {
            let expected = &mut expected[..piece.len()];
            self.fill(number, offset_bytes, expected);
            if expected != piece {
                let at = expected
                    .iter()
                    .zip(piece)
                    .position(|(left, right)| left != right)?;
                let until = (at + SHOWN).min(piece.len());
                return Some(Difference {
                    offset_bytes: offset_bytes + at as u64,
                    expected: expected[at..until].to_vec(),
                    found: piece[at..until].to_vec(),
                });
            }
            offset_bytes += piece.len() as u64;
        }
        None
    }

    /// The whole of `value`, to be uploaded.
    pub(super) fn source(&self, value: Value) -> Source {
        Source {
            contents: self.clone(),
            value,
            at_bytes: 0,
        }
    }
}

/// The first bytes that are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    pub offset_bytes: u64,
    pub expected: Vec<u8>,
    pub found: Vec<u8>,
}

/// A value as an upload reads it.
pub(super) struct Source {
    contents: Contents,
    value: Value,
    at_bytes: u64,
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let left = self.value.length_bytes - self.at_bytes;
        let count = left.min(into.remaining() as u64) as usize;
        let space = into.initialize_unfilled_to(count);
        self.contents.fill(self.value.number, self.at_bytes, space);
        into.advance(count);
        self.at_bytes += count as u64;
        Poll::Ready(Ok(()))
    }
}

/// Where a download goes: memory, because what it should be is known only at its end.
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    /// What has arrived.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn whole(contents: &Contents, number: u64, length_bytes: u64) -> Vec<u8> {
        let mut data = Vec::new();
        let value = Value { number, length_bytes };
        contents.source(value).read_to_end(&mut data).await.unwrap();
        data
    }

    #[tokio::test]
    async fn any_part_is_known_again() {
        let contents = Contents::new(1);
        let length = POOL_BYTES + 70_001;
        let data = whole(&contents, 7, length as u64).await;
        assert_eq!(data.len(), length);
        for (from, until) in [
            (0, length),
            (4090, 4100),
            (5, 6),
            (4096 + 3, 9000),
            (8_000_000, length),
        ] {
            assert_eq!(
                contents.difference(7, from as u64, &data[from..until]),
                None,
                "{from}..{until}"
            );
        }
        assert_eq!(Contents::new(1).difference(7, 0, &data), None);
        assert!(Contents::new(2).difference(7, 0, &data).is_some());
    }

    #[tokio::test]
    async fn a_changed_byte_another_value_and_another_place_are_found() {
        let contents = Contents::new(1);
        let mut data = whole(&contents, 7, 200_000).await;
        assert!(contents.difference(8, 0, &data[..1]).is_some());
        assert!(contents.difference(7, 4096, &data[..4096]).is_some());
        // A pool's length further lie the same bytes, but for the stamps.
        assert!(contents.difference(7, POOL_BYTES as u64, &data[..4096]).is_some());
        data[150_001] ^= 0x10;
        let found = contents.difference(7, 0, &data).unwrap();
        assert_eq!(found.offset_bytes, 150_001);
        assert_eq!(found.expected[0] ^ found.found[0], 0x10);
    }

    #[test]
    fn a_content_type_names_the_value() {
        let value = Value {
            number: 0x1_0000_00ff,
            length_bytes: 3,
        };
        assert_eq!(number_of(&value.content_type()), Some(value.number));
        assert_eq!(number_of("text/plain"), None);
        assert_eq!(number_of(""), None);
    }
}
