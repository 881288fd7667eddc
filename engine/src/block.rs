//! Names of blocks and versions, shared by every room.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const COUNTER_BITS: u32 = 40;

/// The id of a block: 24 bits of reign (the epoch that made it) over 40 bits of counter. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockId(pub u64);

impl BlockId {
    /// The `counter`th block of reign `reign`; `None` when either is out of its bits.
    pub fn new(reign: u32, counter: u64) -> Option<Self> {
        (reign < 1 << (64 - COUNTER_BITS) && counter < 1 << COUNTER_BITS)
            .then(|| Self((u64::from(reign) << COUNTER_BITS) | counter))
    }

    /// The reign in which the nameserver handed this id out.
    pub fn reign(self) -> u32 {
        (self.0 >> COUNTER_BITS) as u32
    }

    /// The place of this id within its reign.
    pub fn counter(self) -> u64 {
        self.0 & ((1 << COUNTER_BITS) - 1)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockId({self})")
    }
}

impl FromStr for BlockId {
    type Err = std::num::ParseIntError;

    /// Reads the 16 hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// For people as 16 hexadecimal digits, in journals as a number.
impl Serialize for BlockId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.collect_str(self)
        } else {
            to.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(from).map(Self)
        }
    }
}

/// Where a block came from: kept in its slot header as provenance, never as authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The version of a file that the block was made for.
    pub version: u64,
    /// Its place in that version's list of blocks.
    pub index: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_keeps_reign_and_counter() {
        let id = BlockId::new(0xabcdef, (1 << 40) - 1).unwrap();
        assert_eq!((id.reign(), id.counter()), (0xabcdef, (1 << 40) - 1));
        assert_eq!(id.to_string().parse::<BlockId>().unwrap(), id);
        assert_eq!(BlockId::new(1 << 24, 0), None);
        assert_eq!(BlockId::new(0, 1 << 40), None);
    }
}
