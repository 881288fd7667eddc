//! The entries of a volume's journal as bytes. Pure; FORMAT.md draws them. All numbers are little-endian.

use crate::block::BlockId;
use crate::layout::{Class, Place, SEGMENT_BYTES_MAX};
use crate::types::{Epoch, ReplicaState};

/// One change of a volume's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    /// A replica stands in a slot.
    Put { block: BlockId, replica: Replica },
    /// A replica is gone.
    Delete { block: BlockId },
    /// A segment was made, or cut anew.
    Segment { segment: u16, cut: Cut },
    /// A higher epoch was seen.
    Epoch(Epoch),
    /// Free slots were filled with zeros, durably.
    Filled(Run),
    /// A replica goes out of service or back in.
    State { block: BlockId, state: ReplicaState },
}

/// What the index keeps of a replica: the place, and what must be found there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Replica {
    pub(crate) place: Place,
    pub(crate) length: u32,
    pub(crate) crc32c: u32,
    /// CRC that seals the slot's header.
    pub(crate) seal: u32,
    pub(crate) state: ReplicaState,
}

/// Slots of a segment in a row, of one of its cuts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) segment: u16,
    /// Counts the cuts.
    pub(crate) generation: u32,
    pub(crate) class: Class,
    pub(crate) first_slot: u16,
    pub(crate) slots: u16,
}

impl Run {
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.slots) * self.class.slot_bytes() as u64
    }
}

/// How a segment is cut into slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cut {
    pub(crate) class: Class,
    pub(crate) generation: u32,
    pub(crate) seed: u64,
    pub(crate) segment_bytes: u64,
}

/// Bytes before a record's own: kind and length.
const PREFIX_BYTES: usize = 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const SEGMENT: u8 = 3;
const EPOCH: u8 = 4;
const STATE: u8 = 5;
const FILLED: u8 = 6;
/// Bytes of the longest record.
pub(crate) const RECORD_BYTES_MAX: usize = PREFIX_BYTES + PUT_BYTES;
const PUT_BYTES: usize = 28;

/// A replica's state as a byte.
pub(crate) fn state_code(state: ReplicaState) -> u8 {
    match state {
        ReplicaState::Live => 0,
        ReplicaState::Suspect => 1,
        ReplicaState::Corrupt => 2,
    }
}

/// The state that a byte stands for.
pub(crate) fn state_of(code: u8) -> Option<ReplicaState> {
    [ReplicaState::Live, ReplicaState::Suspect, ReplicaState::Corrupt]
        .get(code as usize)
        .copied()
}

/// A state and the zeros behind it.
fn state_in(reader: &mut Reader<'_>) -> Option<ReplicaState> {
    let [code, 0, 0, 0] = reader.take::<4>()? else {
        return None;
    };
    state_of(code)
}

impl Replica {
    /// Bytes of a replica without its block's id.
    pub(crate) const BYTES: usize = 20;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.place.packed().to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.crc32c.to_le_bytes());
        out.extend_from_slice(&self.seal.to_le_bytes());
        out.extend_from_slice(&[state_code(self.state), 0, 0, 0]);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let place = Place::unpacked(reader.u32()?);
        let (length, crc32c, seal) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let state = state_in(reader)?;
        let valid = (1..=crate::limits::BLOCK_BYTES_MAX as u32).contains(&length);
        valid.then_some(Self {
            place,
            length,
            crc32c,
            seal,
            state,
        })
    }
}

impl Cut {
    /// Bytes of a cut without its segment's number.
    pub(crate) const BYTES: usize = 22;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.class.number(), 0]);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&self.segment_bytes.to_le_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let [class, 0] = reader.take::<2>()? else {
            return None;
        };
        let cut = Self {
            class: Class::new(class)?,
            generation: reader.u32()?,
            seed: reader.u64()?,
            segment_bytes: reader.u64()?,
        };
        (cut.segment_bytes <= SEGMENT_BYTES_MAX).then_some(cut)
    }
}

impl Record {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        let kind = match self {
            Self::Put { block, replica } => {
                out.extend_from_slice(&block.0.to_le_bytes());
                replica.encode(out);
                PUT
            }
            Self::Delete { block } => {
                out.extend_from_slice(&block.0.to_le_bytes());
                DELETE
            }
            Self::Segment { segment, cut } => {
                out.extend_from_slice(&segment.to_le_bytes());
                cut.encode(out);
                SEGMENT
            }
            Self::Epoch(epoch) => {
                out.extend_from_slice(&epoch.number.to_le_bytes());
                out.extend_from_slice(&epoch.incarnation);
                EPOCH
            }
            Self::Filled(run) => {
                out.extend_from_slice(&run.segment.to_le_bytes());
                out.extend_from_slice(&run.first_slot.to_le_bytes());
                out.extend_from_slice(&run.slots.to_le_bytes());
                out.extend_from_slice(&[run.class.number(), 0]);
                out.extend_from_slice(&run.generation.to_le_bytes());
                FILLED
            }
            Self::State { block, state } => {
                out.extend_from_slice(&block.0.to_le_bytes());
                out.extend_from_slice(&[state_code(*state), 0, 0, 0]);
                STATE
            }
        };
        out[start] = kind;
        out[start + 1] = (out.len() - start - PREFIX_BYTES) as u8;
    }

    /// The next record; `None` when the bytes are none.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let [kind, length, 0, 0] = reader.take::<PREFIX_BYTES>()? else {
            return None;
        };
        let mut body = Reader(reader.slice(length as usize)?);
        let record = match kind {
            PUT => Self::Put {
                block: BlockId(body.u64()?),
                replica: Replica::decode(&mut body)?,
            },
            DELETE => Self::Delete {
                block: BlockId(body.u64()?),
            },
            SEGMENT => Self::Segment {
                segment: body.u16()?,
                cut: Cut::decode(&mut body)?,
            },
            EPOCH => Self::Epoch(Epoch {
                number: body.u64()?,
                incarnation: body.take()?,
            }),
            FILLED => {
                let (segment, first_slot, slots) = (body.u16()?, body.u16()?, body.u16()?);
                let [class, 0] = body.take::<2>()? else {
                    return None;
                };
                Self::Filled(Run {
                    segment,
                    generation: body.u32()?,
                    class: Class::new(class)?,
                    first_slot,
                    slots,
                })
            }
            STATE => Self::State {
                block: BlockId(body.u64()?),
                state: state_in(&mut body)?,
            },
            _ => return None,
        };
        body.0.is_empty().then_some(record)
    }
}

/// Bytes read from the front, never past their end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_record() -> impl Strategy<Value = Record> {
        let block = any::<u64>().prop_map(BlockId);
        let state = (0u8..3).prop_map(|code| state_of(code).unwrap());
        let place = any::<u32>().prop_map(Place::unpacked);
        let put = (
            block.clone(),
            place,
            1u32..=4 << 20,
            any::<u32>(),
            any::<u32>(),
            state.clone(),
        )
            .prop_map(|(block, place, length, crc32c, seal, state)| Record::Put {
                block,
                replica: Replica {
                    place,
                    length,
                    crc32c,
                    seal,
                    state,
                },
            });
        let segment = (
            any::<u16>(),
            0u8..crate::layout::CLASSES as u8,
            any::<u32>(),
            any::<u64>(),
            0..=SEGMENT_BYTES_MAX,
        )
            .prop_map(
                |(segment, class, generation, seed, segment_bytes)| Record::Segment {
                    segment,
                    cut: Cut {
                        class: Class::new(class).unwrap(),
                        generation,
                        seed,
                        segment_bytes,
                    },
                },
            );
        let filled = (any::<[u16; 3]>(), any::<u32>(), 0u8..crate::layout::CLASSES as u8).prop_map(
            |([segment, first_slot, slots], generation, class)| {
                Record::Filled(Run {
                    segment,
                    generation,
                    class: Class::new(class).unwrap(),
                    first_slot,
                    slots,
                })
            },
        );
        let epoch = (any::<u64>(), any::<[u8; 16]>())
            .prop_map(|(number, incarnation)| Record::Epoch(Epoch { number, incarnation }));
        prop_oneof![
            put,
            block.clone().prop_map(|block| Record::Delete { block }),
            segment,
            filled,
            epoch,
            (block, state).prop_map(|(block, state)| Record::State { block, state }),
        ]
    }

    proptest! {
        #[test]
        fn no_bit_of_a_record_means_nothing(record in any_record(), bit: prop::sample::Index) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let bit = bit.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(Record::decode(&mut Reader(&bytes)), Some(record));
        }

        #[test]
        fn records_come_back(records in prop::collection::vec(any_record(), 0..20)) {
            let mut bytes = Vec::new();
            for record in &records {
                let start = bytes.len();
                record.encode(&mut bytes);
                prop_assert!(bytes.len() - start <= RECORD_BYTES_MAX);
            }
            let mut reader = Reader(&bytes);
            for record in &records {
                prop_assert_eq!(Record::decode(&mut reader), Some(*record));
            }
            prop_assert!(reader.0.is_empty());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader(&bytes);
            while Record::decode(&mut reader).is_some() {}
        }
    }
}
