//! A checkpoint's bytes. Pure: blocks of 64 KiB, each sealed for its volume and checkpoint, full of tagged items.

use crate::block::BlockId;
use crate::checksum::crc_seeded;
use crate::journal::{Head, Ring};
use crate::layout::FORMAT;
use crate::record::{Cut, Reader, Replica};
use crate::types::Epoch;

/// Bytes of each block.
pub(crate) const BLOCK_BYTES: usize = 64 * 1024;
pub(crate) const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"BYck";
/// Bytes before an item's own: tag and length.
const PREFIX_BYTES: usize = 4;
const META: u8 = 1;
const CUT: u8 = 2;
const REPLICA: u8 = 3;
const END: u8 = 4;
/// Replicas per block, for estimates.
pub(crate) const REPLICAS_PER_BLOCK: u64 =
    ((BLOCK_BYTES - HEADER_BYTES) / (PREFIX_BYTES + 8 + Replica::BYTES)) as u64;

/// What a checkpoint says of the whole volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    /// Replay begins here.
    pub(crate) head: Head,
    pub(crate) ring: Ring,
    pub(crate) epoch: Option<Epoch>,
}

/// A segment, and which of its slots are known to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentItem {
    pub(crate) number: u16,
    pub(crate) cut: Cut,
    pub(crate) written: Vec<u64>,
}

/// What a checkpoint holds.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Snapshot {
    pub(crate) meta: Meta,
    pub(crate) segments: Vec<SegmentItem>,
    pub(crate) replicas: Vec<(BlockId, Replica)>,
}

/// Fills blocks with items.
pub(crate) struct Writer {
    seed: u32,
    ordinal: u64,
    index: u32,
    block: Vec<u8>,
    segments: u64,
    replicas: u64,
}

impl Writer {
    /// `seed` ties the checkpoint to its volume, `ordinal` tells it from older ones in the same file.
    pub(crate) fn new(seed: u32, ordinal: u64, meta: &Meta) -> Self {
        let mut writer = Self {
            seed,
            ordinal,
            index: 0,
            block: vec![0; HEADER_BYTES],
            segments: 0,
            replicas: 0,
        };
        let mut item = Vec::new();
        item.extend_from_slice(&FORMAT.to_le_bytes());
        item.extend_from_slice(&meta.ring.file_pages.to_le_bytes());
        item.extend_from_slice(&meta.head.sequence.to_le_bytes());
        item.extend_from_slice(&meta.head.page.to_le_bytes());
        item.extend_from_slice(&meta.head.lap.to_le_bytes());
        item.extend_from_slice(&meta.head.previous_crc.to_le_bytes());
        item.extend_from_slice(&u32::from(meta.epoch.is_some()).to_le_bytes());
        if let Some(epoch) = meta.epoch {
            item.extend_from_slice(&epoch.number.to_le_bytes());
            item.extend_from_slice(&epoch.incarnation);
        }
        writer.put(META, &item);
        writer
    }

    /// Adds a segment; returns a block when one is full.
    pub(crate) fn segment(&mut self, number: u16, cut: &Cut, written: &[u64]) -> Option<Vec<u8>> {
        let mut item = Vec::with_capacity(2 + Cut::BYTES + 8 * written.len());
        item.extend_from_slice(&number.to_le_bytes());
        cut.encode(&mut item);
        written
            .iter()
            .for_each(|word| item.extend_from_slice(&word.to_le_bytes()));
        self.segments += 1;
        self.put(CUT, &item)
    }

    /// Adds a replica; returns a block when one is full.
    pub(crate) fn replica(&mut self, block: BlockId, replica: &Replica) -> Option<Vec<u8>> {
        let mut item = Vec::with_capacity(8 + Replica::BYTES);
        item.extend_from_slice(&block.0.to_le_bytes());
        replica.encode(&mut item);
        self.replicas += 1;
        self.put(REPLICA, &item)
    }

    /// The last blocks.
    pub(crate) fn finish(mut self) -> Vec<Vec<u8>> {
        let mut item = self.segments.to_le_bytes().to_vec();
        item.extend_from_slice(&self.replicas.to_le_bytes());
        let mut blocks: Vec<Vec<u8>> = self.put(END, &item).into_iter().collect();
        blocks.push(self.seal());
        blocks
    }

    fn put(&mut self, tag: u8, item: &[u8]) -> Option<Vec<u8>> {
        let full = self.block.len() + PREFIX_BYTES + item.len() > BLOCK_BYTES;
        let sealed = full.then(|| self.seal());
        self.block.extend_from_slice(&[tag, 0]);
        self.block.extend_from_slice(&(item.len() as u16).to_le_bytes());
        self.block.extend_from_slice(item);
        sealed
    }

    /// The block so far, sealed; the next one begins.
    fn seal(&mut self) -> Vec<u8> {
        let mut block = std::mem::replace(&mut self.block, vec![0; HEADER_BYTES]);
        let length = block.len() as u32;
        block.resize(BLOCK_BYTES, 0);
        block[..4].copy_from_slice(&MAGIC);
        block[8..16].copy_from_slice(&self.ordinal.to_le_bytes());
        block[16..20].copy_from_slice(&self.index.to_le_bytes());
        block[20..24].copy_from_slice(&length.to_le_bytes());
        let seal = crc_seeded(self.seed, &block[8..length as usize]);
        block[4..8].copy_from_slice(&seal.to_le_bytes());
        self.index += 1;
        block
    }
}

/// Reads a checkpoint; what is wrong with it otherwise.
pub(crate) fn decode(seed: u32, ordinal: u64, bytes: &[u8]) -> Result<Snapshot, String> {
    read(seed, ordinal, bytes, true)
}

/// As [`decode`], for a checkpoint of which only the meta is needed, but which must be whole.
pub(crate) fn check(seed: u32, ordinal: u64, bytes: &[u8]) -> Result<Meta, String> {
    Ok(read(seed, ordinal, bytes, false)?.meta)
}

fn read(seed: u32, ordinal: u64, bytes: &[u8], keep_replicas: bool) -> Result<Snapshot, String> {
    let mut meta = None;
    let (mut segments, mut replicas) = (Vec::new(), Vec::new());
    let mut replica_count = 0;
    for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let items = open_block(seed, ordinal, index, block).ok_or_else(|| format!("block {index} is bad"))?;
        let mut reader = Reader(items);
        while !reader.0.is_empty() {
            let bad = || format!("block {index} holds an item that can't be read");
            let [tag, 0] = reader.take::<2>().ok_or_else(bad)? else {
                return Err(bad());
            };
            let length = reader.u16().ok_or_else(bad)?;
            let mut item = Reader(reader.slice(length as usize).ok_or_else(bad)?);
            match tag {
                META if meta.is_none() => meta = Some(decode_meta(&mut item).ok_or_else(bad)?),
                _ if meta.is_none() => return Err("it has no beginning".to_owned()),
                CUT => segments.push(decode_segment(&mut item).ok_or_else(bad)?),
                REPLICA => {
                    let replica = decode_replica(&mut item).ok_or_else(bad)?;
                    replica_count += 1;
                    if keep_replicas {
                        replicas.push(replica);
                    }
                }
                END => {
                    let counts = (item.u64(), item.u64());
                    if counts != (Some(segments.len() as u64), Some(replica_count)) {
                        return Err("its counts do not match".to_owned());
                    }
                    let meta = meta.filter(|_| item.0.is_empty() && reader.0.is_empty());
                    let meta = meta.ok_or("there is more behind its end")?;
                    return Ok(Snapshot {
                        meta,
                        segments,
                        replicas,
                    });
                }
                _ => return Err(bad()),
            }
            if !item.0.is_empty() {
                return Err(bad());
            }
        }
    }
    Err("it has no end".to_owned())
}

/// Whether the checkpoint ends in this block; none when the block is bad.
pub(crate) fn ends_in(seed: u32, ordinal: u64, index: usize, block: &[u8]) -> Option<bool> {
    let mut reader = Reader(open_block(seed, ordinal, index, block)?);
    while !reader.0.is_empty() {
        let [tag, _] = reader.take::<2>()?;
        let length = reader.u16()?;
        reader.slice(length as usize)?;
        if tag == END {
            return Some(true);
        }
    }
    Some(false)
}

fn open_block(seed: u32, ordinal: u64, index: usize, block: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(block);
    let magic: [u8; 4] = reader.take()?;
    let (seal, found_ordinal, found_index) = (reader.u32()?, reader.u64()?, reader.u32()?);
    let length = reader.u32()? as usize;
    let whole = magic == MAGIC
        && found_ordinal == ordinal
        && found_index as usize == index
        && (HEADER_BYTES..=block.len()).contains(&length)
        && crc_seeded(seed, &block[8..length]) == seal;
    whole.then(|| &block[HEADER_BYTES..length])
}

fn decode_meta(item: &mut Reader<'_>) -> Option<Meta> {
    if item.u32()? != FORMAT {
        return None;
    }
    let file_pages = item.u32()?;
    let head = Head {
        sequence: item.u64()?,
        page: item.u32()?,
        lap: item.u32()?,
        previous_crc: item.u32()?,
    };
    let epoch = match item.u32()? {
        0 => None,
        1 => Some(Epoch {
            number: item.u64()?,
            incarnation: item.take()?,
        }),
        _ => return None,
    };
    let ring = Ring { file_pages };
    let possible = ring.is_possible() && head.is_possible(ring);
    possible.then_some(Meta { head, ring, epoch })
}

fn decode_segment(item: &mut Reader<'_>) -> Option<SegmentItem> {
    let number = item.u16()?;
    let cut = Cut::decode(item)?;
    let mut written = Vec::new();
    while !item.0.is_empty() {
        written.push(item.u64()?);
    }
    Some(SegmentItem { number, cut, written })
}

fn decode_replica(item: &mut Reader<'_>) -> Option<(BlockId, Replica)> {
    Some((BlockId(item.u64()?), Replica::decode(item)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Class, Place};
    use crate::types::ReplicaState;

    fn meta() -> Meta {
        Meta {
            head: Head {
                sequence: 7,
                page: 3,
                lap: 1,
                previous_crc: 9,
            },
            ring: Ring { file_pages: 64 },
            epoch: Some(Epoch {
                number: 5,
                incarnation: [6; 16],
            }),
        }
    }

    fn bytes(replicas: u32) -> Vec<u8> {
        let mut writer = Writer::new(1, 2, &meta());
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        let cut = Cut {
            class: Class::largest(),
            generation: 1,
            seed: 2,
            segment_bytes: 3,
        };
        blocks.extend(writer.segment(4, &cut, &[5, 6]));
        for block in 0..replicas {
            blocks.extend(writer.replica(BlockId(block.into()), &replica(block)));
        }
        blocks.extend(writer.finish());
        blocks.concat()
    }

    fn replica(n: u32) -> Replica {
        Replica {
            place: Place::unpacked(n),
            length: n + 1,
            crc32c: n,
            seal: !n,
            state: ReplicaState::Live,
        }
    }

    #[test]
    fn checkpoints_come_back_also_from_a_longer_file() {
        for count in [0, 1, 5000] {
            let mut bytes = bytes(count);
            bytes.extend_from_slice(&[0; BLOCK_BYTES]);
            let snapshot = decode(1, 2, &bytes).unwrap();
            assert_eq!(
                (snapshot.meta, snapshot.segments[0].written.as_slice()),
                (meta(), &[5, 6][..])
            );
            let wanted: Vec<_> = (0..count).map(|n| (BlockId(n.into()), replica(n))).collect();
            assert_eq!(snapshot.replicas, wanted);
            assert_eq!(check(1, 2, &bytes), Ok(meta()));
        }
    }

    #[test]
    fn damage_and_mixtures_are_refused() {
        let good = bytes(5000);
        assert!(decode(2, 2, &good).is_err() && decode(1, 3, &good).is_err());
        assert!(decode(1, 2, &good[..BLOCK_BYTES]).is_err() && decode(1, 2, &[]).is_err());
        for at in [0, 5, 40, BLOCK_BYTES + 100, good.len() / 2] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(
                decode(1, 2, &bad).is_err() && check(1, 2, &bad).is_err(),
                "byte {at}"
            );
        }
    }
}
