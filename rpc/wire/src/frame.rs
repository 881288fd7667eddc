//! Frames: a 16-byte prefix, a Cap'n Proto header, and up to 256 KiB of payload.
//!
//! Every connection opens with frames (hello … welcome); a data connection goes on with them.
//! Bytes from a peer become a [`Frame`] only through [`Prefix::parse`] and [`Prefix::decode`], which
//! check every limit and the CRC before anything is believed.

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::checksum::crc_seeded;
use blockyard_engine::limits::{BLOCK_BYTES_MAX, PACKET_BYTES_MAX, UNIT_BYTES};

use crate::error::{Problem, ProblemKind, Result};
use crate::frame_convert;
use crate::ticket::Ticket;
use crate::types::{ClusterId, Hop, ReplicaProof, VolumeId};

/// Bytes before the header: magic, header length, payload length, CRC32C (all little-endian u32).
pub const PREFIX_BYTES: usize = 16;
/// Bytes of the longest header.
pub const HEADER_BYTES_MAX: usize = 8192;
/// Bytes of the longest block that may come with its Put.
pub const EAGER_BYTES_MAX: usize = UNIT_BYTES;
/// Places of the longest chain.
pub const CHAIN_MAX: usize = 8;
/// `BYF1` in the order of its bytes.
pub const MAGIC: u32 = u32::from_le_bytes(*b"BYF1");

const _: () = assert!(HEADER_BYTES_MAX.is_multiple_of(8));

/// Who opens a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A user of the cluster.
    Client,
    /// A dataserver: joins, forwards chains, pulls repairs.
    Dataserver,
}

/// What follows the welcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Cap'n Proto RPC.
    Control,
    /// Frames.
    Data,
}

/// The opener's first word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Oldest protocol it speaks.
    pub version_min: u16,
    /// Newest protocol it speaks.
    pub version_max: u16,
    /// Who it is.
    pub role: Role,
    /// What it wants.
    pub purpose: Purpose,
    /// Feature bits it offers.
    pub features: u64,
    /// Random.
    pub nonce: [u8; 32],
    /// The cluster it belongs to; zero where it does not know.
    pub cluster: ClusterId,
}

/// The acceptor's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// The protocol chosen.
    pub version: u16,
    /// Feature bits both know.
    pub features: u64,
    /// Random.
    pub nonce: [u8; 32],
    /// Its cluster.
    pub cluster: ClusterId,
}

/// Writes one block through a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// The block.
    pub block: BlockId,
    /// Its version and place: provenance only.
    pub origin: Origin,
    /// Bytes, 1 to 4 MiB.
    pub length: u32,
    /// Place of the receiver in the whole chain, 0 the head.
    pub position: u8,
    /// The receiver's hop first, then those behind it.
    pub chain: Vec<Hop>,
    /// CRC32C of each checksum unit of the payload; empty without one.
    pub unit_crcs: Vec<u32>,
}

impl Put {
    /// The payload that comes with the Put itself, as the packet that it stands for.
    pub fn packet(&self) -> Packet {
        Packet {
            offset: 0,
            unit_crcs: self.unit_crcs.clone(),
            last: true,
            spans: None,
        }
    }
}

/// The header of a packet of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Bytes from the block's start, a multiple of 64 KiB.
    pub offset: u32,
    /// CRC32C of each checksum unit of the payload.
    pub unit_crcs: Vec<u32>,
    /// Nothing more comes on this stream in this direction.
    pub last: bool,
    /// With the last packet of a Get: where its time went.
    pub spans: Option<GetSpans>,
}

/// Where a Get's time went: microseconds since the volume was asked, by its own clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GetSpans {
    /// Until it had a buffer to read into.
    pub buffer_us: u32,
    /// Until the disk had answered; as `buffer_us` for what is cached.
    pub read_us: u32,
    /// Until every unit was verified.
    pub checked_us: u32,
}

/// A block is durable on the sender and on all behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutDone {
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// In chain order, the sender's first.
    pub proofs: Vec<ReplicaProof>,
    /// As `proofs`.
    pub spans: Vec<HopSpans>,
}

/// Where a hop's time went: microseconds since it was asked, by its own clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HopSpans {
    /// Until it had a buffer.
    pub granted_us: u32,
    /// Until the last packet was there and verified.
    pub received_us: u32,
    /// Until the slot was written.
    pub written_us: u32,
    /// Until slot and record were flushed.
    pub durable_us: u32,
    /// Until the next hop said done; 0 for the tail.
    pub behind_us: u32,
}

/// Reads whole checksum units around a range of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Get {
    /// The block.
    pub block: BlockId,
    /// First byte wanted.
    pub offset: u32,
    /// Bytes wanted.
    pub length: u32,
    /// The right to it.
    pub ticket: Ticket,
}

/// A stream has failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Abort {
    /// Why, and whom to blame.
    pub problem: Problem,
    /// The volume that failed; zero where none is to blame.
    pub blame: VolumeId,
}

/// What a frame says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Opens a connection.
    Hello(Hello),
    /// Answers it.
    Challenge(Challenge),
    /// The opener knows the secret.
    Proof([u8; 32]),
    /// So does the acceptor.
    Welcome([u8; 32]),
    /// Write a block.
    Put(Put),
    /// A packet; payload follows.
    Packet(Packet),
    /// It is durable.
    PutDone(PutDone),
    /// Read a range.
    Get(Get),
    /// How many payload bytes of this stream may be sent in all.
    Grant(u32),
    /// The opener no longer wants the stream.
    Cancel,
    /// The stream has failed.
    Abort(Abort),
    /// Are you there?
    Ping,
    /// I am.
    Pong,
}

/// One frame without its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The request it belongs to; chosen by the connection's opener, 0 for those of the connection.
    pub stream: u32,
    /// What it says.
    pub message: Message,
}

/// The checked first 16 bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Bytes of the header that follows.
    pub header_bytes: usize,
    /// Bytes of payload behind it.
    pub payload_bytes: usize,
    lengths_crc: u32,
    crc32c: u32,
}

impl Frame {
    /// A frame of the connection itself.
    pub fn of_connection(message: Message) -> Self {
        Self { stream: 0, message }
    }

    /// Prefix and header, behind which `payload_bytes` of payload are to be sent.
    ///
    /// # Panics
    /// When the message has a list or text beyond its limits, or the payload does not fit it: the
    /// sender's own mistake.
    pub fn encode(&self, payload_bytes: usize) -> Vec<u8> {
        assert!(
            payload_bytes <= PACKET_BYTES_MAX,
            "payload of {payload_bytes} bytes"
        );
        let header = frame_convert::write(self);
        assert!(
            header.len() <= HEADER_BYTES_MAX,
            "header of {} bytes",
            header.len()
        );
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len());
        for word in [MAGIC, header.len() as u32, payload_bytes as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc_seeded(crc_seeded(0, &bytes), &header);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes
    }
}

impl Prefix {
    /// Checks magic and lengths.
    ///
    /// # Errors
    /// `Invalid` for what no peer of ours sends.
    pub fn parse(bytes: &[u8; PREFIX_BYTES]) -> Result<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(0) != MAGIC {
            return Err(Problem::invalid("the peer does not speak Blockyard's protocol"));
        }
        let (header_bytes, payload_bytes) = (word(4) as usize, word(8) as usize);
        if header_bytes == 0 || header_bytes > HEADER_BYTES_MAX || !header_bytes.is_multiple_of(8) {
            return Err(Problem::invalid(format!(
                "a frame declares a header of {header_bytes} bytes"
            )));
        }
        if payload_bytes > PACKET_BYTES_MAX {
            return Err(Problem::invalid(format!(
                "a frame declares a payload of {payload_bytes} bytes"
            )));
        }
        Ok(Self {
            header_bytes,
            payload_bytes,
            lengths_crc: crc_seeded(0, &bytes[..12]),
            crc32c: word(12),
        })
    }

    /// Checks the CRC over prefix and header, and reads the header.
    ///
    /// # Errors
    /// `Corrupt` when the CRC does not fit, `Invalid` when a value is out of its bounds.
    pub fn decode(&self, header: &[u8]) -> Result<Frame> {
        if header.len() != self.header_bytes || crc_seeded(self.lengths_crc, header) != self.crc32c {
            return Err(Problem::new(
                ProblemKind::Corrupt,
                "the header of a frame was damaged on its way",
            ));
        }
        let frame = frame_convert::read(header)?;
        frame.check(self.payload_bytes)?;
        Ok(frame)
    }
}

impl Frame {
    fn check(&self, payload_bytes: usize) -> Result<()> {
        let bad = |what: &str| {
            Err(Problem::invalid(format!(
                "a frame of stream {}: {what}",
                self.stream
            )))
        };
        match &self.message {
            Message::Packet(packet) => {
                let offset = packet.offset as usize;
                if !offset.is_multiple_of(UNIT_BYTES) || offset + payload_bytes > BLOCK_BYTES_MAX {
                    return bad("a packet out of its block");
                }
                if packet.unit_crcs.len() != payload_bytes.div_ceil(UNIT_BYTES) {
                    return bad("not one checksum for each unit");
                }
            }
            Message::Put(put) => {
                let whole = payload_bytes == put.length as usize && payload_bytes <= EAGER_BYTES_MAX;
                if payload_bytes > 0 && !whole {
                    return bad("a part of a block, or a long one, with its put");
                }
                if put.unit_crcs.len() != payload_bytes.div_ceil(UNIT_BYTES) {
                    return bad("not one checksum for each unit");
                }
                if put.length == 0 || put.length as usize > BLOCK_BYTES_MAX {
                    return bad("a block of no allowed length");
                }
                if put.chain.is_empty() || put.chain.len() + put.position as usize > CHAIN_MAX {
                    return bad("a chain of no allowed length");
                }
            }
            _ if payload_bytes != 0 => return bad("a payload where none belongs"),
            Message::Get(get)
                if get.length == 0 || get.offset as usize + get.length as usize > BLOCK_BYTES_MAX =>
            {
                return bad("a range out of its block");
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn samples() -> Vec<(Frame, usize)> {
        let ticket = Ticket {
            key_id: 1,
            length_max: 9,
            hop: 2,
            expires_unix_ms: 1 << 40,
            mac: [7; 32],
        };
        let hop = Hop {
            volume: VolumeId::random(),
            address: "127.0.0.1:9001".into(),
            server: "127.0.0.1:9001".into(),
            ticket: ticket.clone(),
        };
        let cluster = ClusterId::random();
        let messages = vec![
            (
                Message::Hello(Hello {
                    version_min: 1,
                    version_max: 3,
                    role: Role::Dataserver,
                    purpose: Purpose::Data,
                    features: 5,
                    nonce: [3; 32],
                    cluster,
                }),
                0,
            ),
            (
                Message::Challenge(Challenge {
                    version: 1,
                    features: 1,
                    nonce: [4; 32],
                    cluster,
                }),
                0,
            ),
            (Message::Proof([5; 32]), 0),
            (Message::Welcome([6; 32]), 0),
            (
                Message::Put(Put {
                    block: BlockId(77),
                    origin: Origin { version: 3, index: 4 },
                    length: 4_194_304,
                    position: 0,
                    chain: vec![hop.clone(); CHAIN_MAX],
                    unit_crcs: vec![],
                }),
                0,
            ),
            (
                Message::Put(Put {
                    block: BlockId(78),
                    origin: Origin { version: 3, index: 0 },
                    length: 4097,
                    position: 1,
                    chain: vec![hop.clone()],
                    unit_crcs: vec![5],
                }),
                4097,
            ),
            (
                Message::Packet(Packet {
                    offset: 65_536,
                    unit_crcs: vec![1, 2, 3, 4],
                    last: true,
                    spans: None,
                }),
                PACKET_BYTES_MAX,
            ),
            (
                Message::Packet(Packet {
                    offset: 0,
                    unit_crcs: vec![1],
                    last: true,
                    spans: Some(GetSpans {
                        buffer_us: 1,
                        read_us: 2,
                        checked_us: 3,
                    }),
                }),
                100,
            ),
            (
                Message::PutDone(PutDone {
                    length: 5,
                    crc32c: 6,
                    proofs: vec![
                        ReplicaProof {
                            volume: hop.volume,
                            mac: [9; 32]
                        };
                        3
                    ],
                    spans: vec![
                        HopSpans {
                            granted_us: 1,
                            received_us: 2,
                            written_us: 3,
                            durable_us: 4,
                            behind_us: 5,
                        };
                        3
                    ],
                }),
                0,
            ),
            (
                Message::Get(Get {
                    block: BlockId(1),
                    offset: 2,
                    length: 3,
                    ticket,
                }),
                0,
            ),
            (Message::Grant(9), 0),
            (Message::Cancel, 0),
            (
                Message::Abort(Abort {
                    problem: Problem::new(ProblemKind::NoSpace, "full"),
                    blame: hop.volume,
                }),
                0,
            ),
            (Message::Ping, 0),
            (Message::Pong, 0),
        ];
        messages
            .into_iter()
            .enumerate()
            .map(|(stream, (message, payload))| {
                (
                    Frame {
                        stream: stream as u32,
                        message,
                    },
                    payload,
                )
            })
            .collect()
    }

    fn parse(bytes: &[u8]) -> Result<(Frame, usize)> {
        let (prefix, header) = bytes.split_at(PREFIX_BYTES);
        let prefix = Prefix::parse(prefix.try_into().unwrap())?;
        Ok((prefix.decode(header)?, prefix.payload_bytes))
    }

    #[test]
    fn every_message_comes_back() {
        for (frame, payload) in samples() {
            assert_eq!(parse(&frame.encode(payload)), Ok((frame, payload)));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for (frame, payload) in samples() {
            let good = frame.encode(payload);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(parse(&bad).is_err(), "bit {bit} of {frame:?}");
            }
        }
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_anything_is_allocated() {
        for (header, payload) in [
            (0, 0),
            (4, 0),
            (HEADER_BYTES_MAX as u32 + 8, 0),
            (8, u32::MAX),
            (8, 262_145),
        ] {
            let mut bytes = [0; PREFIX_BYTES];
            bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            bytes[4..8].copy_from_slice(&header.to_le_bytes());
            bytes[8..12].copy_from_slice(&payload.to_le_bytes());
            assert_eq!(Prefix::parse(&bytes).unwrap_err().kind, ProblemKind::Invalid);
        }
    }

    proptest! {
        #[test]
        fn a_header_of_garbage_with_a_right_crc_never_panics(
            header in proptest::collection::vec(any::<u8>(), 8..512).prop_map(|mut h| { h.truncate(h.len() / 8 * 8); h }),
            payload in 0..=PACKET_BYTES_MAX as u32,
        ) {
            let mut bytes = Vec::new();
            for word in [MAGIC, header.len() as u32, payload] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            let crc = crc_seeded(crc_seeded(0, &bytes), &header);
            bytes.extend_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(&header);
            let _ = parse(&bytes);
        }
    }
}
