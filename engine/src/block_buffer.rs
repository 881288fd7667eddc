//! A block on its way in: one pool buffer laid out as the slot will be, filled chunk by chunk, verified while hot.

use bytes::Bytes;

use crate::buffer::{Blank, Chunk, View};
use crate::checksum::{combine_units, crc};
use crate::error::{Error, Result};
use crate::layout::Class;
use crate::limits::UNIT_BYTES;

/// A pool buffer for a block of a length fixed when it was acquired.
pub struct BlockBuffer {
    blank: Blank,
    header: Chunk,
    length_bytes: usize,
    unit_crcs: Vec<Option<u32>>,
    /// What was committed, in whatever order that came.
    parts: Vec<View>,
}

/// A block whose every unit was verified, ready for its header.
pub(crate) struct FilledBlock {
    pub(crate) length: u32,
    pub(crate) crc32c: u32,
    pub(crate) unit_crcs: Vec<u32>,
    buffer: BlockBuffer,
}

impl BlockBuffer {
    /// `blank` must have room for a header and `length_bytes` (1 B to 4 MiB).
    pub(crate) fn new(mut blank: Blank, length_bytes: usize) -> Self {
        let header = blank
            .take(Class::for_length(length_bytes).header_bytes())
            .expect("room for a header");
        let unit_crcs = vec![None; length_bytes.div_ceil(UNIT_BYTES)];
        Self {
            blank,
            header,
            length_bytes,
            unit_crcs,
            parts: Vec::new(),
        }
    }

    /// Bytes of the block.
    pub fn length(&self) -> u32 {
        self.length_bytes as u32
    }

    /// Bytes of the block that no chunk was taken for yet.
    pub fn untaken(&self) -> u32 {
        (self.header.len() + self.length_bytes - self.blank.taken_bytes()) as u32
    }

    /// Whether every byte was committed.
    pub fn is_complete(&self) -> bool {
        self.unit_crcs.iter().all(Option::is_some)
    }

    /// The next `length_bytes` bytes of the block, to be filled by a socket. Chunks begin at multiples of 64 KiB,
    /// so all but the last have a multiple of that. Fails with kind `Caller` when that, or the end, is missed.
    pub fn take_chunk(&mut self, length_bytes: u32) -> Result<Chunk> {
        let left = self.untaken();
        if length_bytes == 0 || length_bytes > left {
            return Err(Error::misuse(format!(
                "a chunk of {length_bytes} B where {left} B of the block are left"
            )));
        }
        if length_bytes != left && !(length_bytes as usize).is_multiple_of(UNIT_BYTES) {
            return Err(Error::misuse(format!(
                "a chunk of {length_bytes} B amid a block is not whole 64 KiB units"
            )));
        }
        Ok(self
            .blank
            .take(length_bytes as usize)
            .expect("within the block, so within the buffer"))
    }

    /// Takes a filled chunk back: computes the CRC of each of its units and compares with those that came along.
    /// Returns the same bytes to be forwarded; the pool buffer returns when the last of them is dropped.
    /// After a mismatch the buffer can't be completed any more: send again into a new one.
    pub fn commit(&mut self, chunk: Chunk, expected_unit_crcs: &[u32]) -> Result<Bytes> {
        if chunk.len().div_ceil(UNIT_BYTES) != expected_unit_crcs.len() {
            return Err(Error::misuse(format!(
                "{} CRCs for a chunk of {} B; one per 64 KiB is needed",
                expected_unit_crcs.len(),
                chunk.len()
            )));
        }
        let first = self.first_unit(&chunk)?;
        for (at, (unit, &expected)) in chunk
            .as_ref()
            .chunks(UNIT_BYTES)
            .zip(expected_unit_crcs)
            .enumerate()
        {
            let actual = crc(unit);
            if actual != expected {
                return Err(Error::ChecksumMismatch {
                    unit: (first + at) as u32,
                    expected,
                    actual,
                });
            }
        }
        for (at, &unit_crc) in expected_unit_crcs.iter().enumerate() {
            self.unit_crcs[first + at] = Some(unit_crc);
        }
        let view = chunk.freeze();
        self.parts.push(view.clone());
        Ok(view.into_bytes())
    }

    /// Copies `data` in as the next bytes of the block and takes its CRCs as they are: for callers that have the
    /// block in memory and vouch for it.
    pub fn fill(&mut self, data: &[u8]) -> Result<()> {
        let mut chunk = self.take_chunk(data.len().try_into().unwrap_or(u32::MAX))?;
        chunk.as_mut().copy_from_slice(data);
        let first = self.first_unit(&chunk)?;
        for (at, unit) in chunk.as_ref().chunks(UNIT_BYTES).enumerate() {
            self.unit_crcs[first + at] = Some(crc(unit));
        }
        self.parts.push(chunk.freeze());
        Ok(())
    }

    fn first_unit(&self, chunk: &Chunk) -> Result<usize> {
        if !self.blank.owns(chunk) {
            return Err(Error::misuse(
                "a chunk was committed to a buffer that it was not taken from",
            ));
        }
        Ok((chunk.start_bytes() - self.header.len()) / UNIT_BYTES)
    }

    /// The CRC32C of the whole block; `None` until it is complete.
    pub fn crc32c(&self) -> Option<u32> {
        let units: Option<Vec<u32>> = self.unit_crcs.iter().copied().collect();
        units.map(|units| combine_units(&units, self.length_bytes))
    }

    pub(crate) fn into_filled(self) -> Result<FilledBlock> {
        let units: Option<Vec<u32>> = self.unit_crcs.iter().copied().collect();
        let Some(unit_crcs) = units else {
            return Err(Error::misuse(
                "a block was put before all of its bytes were committed",
            ));
        };
        Ok(FilledBlock {
            length: self.length(),
            crc32c: combine_units(&unit_crcs, self.length_bytes),
            unit_crcs,
            buffer: self,
        })
    }
}

impl FilledBlock {
    pub(crate) fn class(&self) -> Class {
        Class::for_length(self.length as usize)
    }

    /// Lays `header` before the block and zeros behind it, up to a whole page: the bytes of the slot's write.
    pub(crate) fn seal(self, header: &[u8]) -> View {
        let class = self.class();
        let BlockBuffer {
            mut blank,
            header: mut space,
            length_bytes,
            mut parts,
            ..
        } = self.buffer;
        let tail_bytes = class.written_bytes(length_bytes) - space.len() - length_bytes;
        space.as_mut()[..header.len()].copy_from_slice(header);
        space.as_mut()[header.len()..].fill(0);
        let mut tail = blank.take(tail_bytes).expect("whole pages fit the buffer");
        tail.as_mut().fill(0);
        parts.push(tail.freeze());
        parts.sort_by_key(View::start_bytes);
        parts.iter().fold(space.freeze(), |sealed, part| {
            sealed.join(part).expect("a complete block has no gaps")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PAGE_BYTES;
    use crate::pool::{Lane, Pool, PoolOptions};

    fn buffer(length_bytes: usize) -> BlockBuffer {
        let pool = Pool::new(&PoolOptions::small(), 0).unwrap();
        BlockBuffer::new(pool.try_acquire(Lane::Head, length_bytes).unwrap(), length_bytes)
    }

    #[test]
    fn a_mismatch_names_the_unit_and_spoils_the_buffer() {
        let mut block = buffer(3 * UNIT_BYTES);
        let first = block.take_chunk(UNIT_BYTES as u32).unwrap();
        let zeros = crc(&[0; UNIT_BYTES]);
        block.commit(first, &[zeros]).unwrap();
        let rest = block.take_chunk(2 * UNIT_BYTES as u32).unwrap();
        let error = block.commit(rest, &[zeros, zeros ^ 1]).unwrap_err();
        assert!(
            matches!(error, Error::ChecksumMismatch { unit: 2, .. }),
            "{error}"
        );
        assert!(!block.is_complete() && block.into_filled().is_err());
    }

    #[test]
    fn chunks_keep_to_units_and_to_the_block() {
        let mut block = buffer(UNIT_BYTES + 10);
        assert!(block.take_chunk(100).is_err());
        assert!(block.take_chunk(2 * UNIT_BYTES as u32).is_err());
        let _first = block.take_chunk(UNIT_BYTES as u32).unwrap();
        assert_eq!(block.untaken(), 10);
        assert!(block.take_chunk(11).is_err());
        let foreign = buffer(10).take_chunk(10).unwrap();
        assert!(block.commit(foreign, &[0]).is_err());
    }

    #[test]
    fn sealed_bytes_are_header_block_and_zeros() {
        for length in [1, 100, PAGE_BYTES, 5 * PAGE_BYTES + 7] {
            let mut block = buffer(length);
            block.fill(&vec![7; length]).unwrap();
            let filled = block.into_filled().unwrap();
            assert_eq!(filled.crc32c, crc(&vec![7; length]));
            let header_bytes = filled.class().header_bytes();
            let sealed = filled.seal(&[1, 2, 3]);
            let bytes = sealed.as_ref();
            assert_eq!((bytes.len() % PAGE_BYTES, &bytes[..4]), (0, &[1, 2, 3, 0][..]));
            assert!(
                bytes[header_bytes..header_bytes + length]
                    .iter()
                    .all(|&byte| byte == 7)
            );
            assert!(bytes[header_bytes + length..].iter().all(|&byte| byte == 0));
        }
    }
}
