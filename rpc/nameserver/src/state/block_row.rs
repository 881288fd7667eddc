//! A block's row as snapshots hold it: only the replicas that there are. Knows the form of older snapshots too.

use blockyard_wire::types::ReplicaState;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::blocks::{Block, REPLICAS_MAX, VolumeIndex};

impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (
            (self.version, self.index, self.length, self.crc32c, self.wanted),
            Replicas(self),
        )
            .serialize(serializer)
    }
}

struct Replicas<'a>(&'a Block);

impl Serialize for Replicas<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.replicas().count()))?;
        for replica in self.0.replicas() {
            rows.serialize_element(&replica)?;
        }
        rows.end()
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ((version, index, length, crc32c, wanted), held) =
            <((u64, u32, u32, u32, u8), Held)>::deserialize(deserializer)?;
        let Held(mut block) = held;
        (block.version, block.index) = (version, index);
        (block.length, block.crc32c, block.wanted) = (length, crc32c, wanted);
        Ok(block)
    }
}

/// A block of which only the replicas are known yet. There is one for each of millions: nothing is allocated.
struct Held(Block);

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(HeldVisitor)
    }
}

struct HeldVisitor;

impl<'de> Visitor<'de> for HeldVisitor {
    type Value = Held;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "at most {REPLICAS_MAX} replicas")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Held, A::Error> {
        let mut block = Block::new(0, 0, 0, 0, 0);
        while let Some((volume, state)) = rows.next_element::<(VolumeIndex, ReplicaState)>()? {
            if block.is_full() || block.state_on(volume).is_some() {
                return Err(A::Error::custom("too many replicas, or two on one volume"));
            }
            block.push(volume, state);
        }
        Ok(Held(block))
    }
}

/// A block's row in snapshots of before a block could have ten replicas.
#[derive(Deserialize)]
pub struct OldBlock {
    version: u64,
    index: u32,
    length: u32,
    crc32c: u32,
    wanted: u8,
    count: u8,
    states: u16,
    volumes: [VolumeIndex; 8],
}

impl OldBlock {
    /// The row it is now; `None` where it can't be one.
    pub fn into_block(self) -> Option<Block> {
        let mut block = Block::new(self.version, self.index, self.length, self.crc32c, self.wanted);
        for (at, volume) in self.volumes.iter().take(usize::from(self.count)).enumerate() {
            let state = match self.states >> (2 * at) & 3 {
                0 => ReplicaState::Good,
                1 => ReplicaState::Suspect,
                2 => ReplicaState::Corrupt,
                _ => return None,
            };
            block.push(*volume, state);
        }
        (usize::from(self.count) <= self.volumes.len()).then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_old_ones_are_understood() {
        let mut block = Block::new(7, 1, 4096, 0xabcd, 3);
        block.push(5, ReplicaState::Good);
        block.push(300, ReplicaState::Corrupt);
        block.push(0, ReplicaState::Suspect);
        let bytes = postcard::to_stdvec(&block).unwrap();
        assert_eq!(postcard::from_bytes::<Block>(&bytes).unwrap(), block);
        // 0 good, 1 suspect, 2 corrupt: from the first replica up, two bits each.
        let old = (
            7u64,
            1u32,
            4096u32,
            0xabcdu32,
            3u8,
            3u8,
            0b01_10_00u16,
            [5u16, 300, 0, 0, 0, 0, 0, 0],
        );
        let old = postcard::to_stdvec(&old).unwrap();
        let old: OldBlock = postcard::from_bytes(&old).unwrap();
        assert_eq!(old.into_block(), Some(block));
    }

    #[test]
    fn rows_that_cannot_be_are_refused() {
        let twice = (
            (7u64, 1u32, 1u32, 1u32, 3u8),
            vec![(1u16, ReplicaState::Good), (1, ReplicaState::Good)],
        );
        assert!(postcard::from_bytes::<Block>(&postcard::to_stdvec(&twice).unwrap()).is_err());
        let many: Vec<_> = (0..11u16).map(|volume| (volume, ReplicaState::Good)).collect();
        let many = ((7u64, 1u32, 1u32, 1u32, 3u8), many);
        assert!(postcard::from_bytes::<Block>(&postcard::to_stdvec(&many).unwrap()).is_err());
        let old = (7u64, 1u32, 1u32, 1u32, 3u8, 9u8, 0u16, [0u16; 8]);
        let old: OldBlock = postcard::from_bytes(&postcard::to_stdvec(&old).unwrap()).unwrap();
        assert_eq!(old.into_block(), None);
    }
}
