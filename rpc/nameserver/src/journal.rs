//! The journal's format: headers of files, and frames of commands; it knows no files. FORMAT.md draws the bytes.
//!
//! A frame is what one write and one fdatasync make durable: a group of commands. It stands there twice, its twin
//! right behind it: so one bad place, wherever it is, never looks like a write that was torn by a crash.

use blockyard_engine::checksum::crc_seeded;
use blockyard_wire::types::ClusterId;

use crate::state::Command;

/// The journal's folder within the nameserver's.
pub const FOLDER: &str = "journal";
/// Bytes of a file's header.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 40;
/// Bytes of the longest payload of a frame.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the smallest file: a header, a longest frame and its twin.
pub const FILE_BYTES_MIN: u64 = 3 * 1024 * 1024;
/// Files are made as multiples of this.
pub const PAGE_BYTES: u64 = 4096;
/// The format written. Files of format 1 have no twins, no second header, and do not say how long they are.
pub const FORMAT: u32 = 2;
/// The first format whose frames have twins.
const FORMAT_TWINS: u32 = 2;
const FILE_MAGIC: [u8; 8] = *b"BYNSJRNL";
const FRAME_MAGIC: [u8; 4] = *b"BYNF";
/// How commands within a payload are encoded: postcard, by the variants of `Command`.
const ENCODING: u8 = 1;
/// Frames begin at multiples of this.
pub const ALIGN: usize = 8;
/// Where a header's second copy is within its page.
const HEADER_TWIN: usize = HEADER_BYTES / 2;

const _: () =
    assert!(FILE_BYTES_MIN as usize >= HEADER_BYTES + 2 * (FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX + ALIGN));
const _: () = assert!(FILE_BYTES_MIN.is_multiple_of(PAGE_BYTES));
const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGN) && FRAME_HEADER_BYTES.is_multiple_of(ALIGN));

/// Where the next frame belongs: what it must say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Index of its first command.
    pub index: u64,
    /// CRC of the frame before it; 0 before the first of all.
    pub previous_crc: u32,
}

/// A file's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The format of the file.
    pub format: u32,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its place in the row of files: its name.
    pub sequence: u64,
    /// Random: so that no bytes of a user or of another file pass for a frame of this one.
    pub seed: u32,
    /// Where its first frame belongs.
    pub first: Place,
    /// Pages that it was made with: one that has fewer was cut short. 0 in format 1.
    pub pages: u32,
}

impl Header {
    /// Its page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; HEADER_BYTES];
        page[..8].copy_from_slice(&FILE_MAGIC);
        page[8..12].copy_from_slice(&self.format.to_le_bytes());
        page[12..16].copy_from_slice(&self.seed.to_le_bytes());
        page[16..32].copy_from_slice(&self.cluster.0);
        page[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        page[40..48].copy_from_slice(&self.first.index.to_le_bytes());
        page[48..52].copy_from_slice(&self.first.previous_crc.to_le_bytes());
        page[52..56].copy_from_slice(&self.pages.to_le_bytes());
        let crc = crc_seeded(0, &page[..56]);
        page[56..60].copy_from_slice(&crc.to_le_bytes());
        if self.has_twins() {
            page.copy_within(..60, HEADER_TWIN);
        }
        page
    }

    /// Reads a page back; `None` when neither copy is one.
    pub fn decode(page: &[u8]) -> Option<Self> {
        let page = page.get(..HEADER_BYTES)?;
        Self::decode_copy(page).or_else(|| Self::decode_copy(&page[HEADER_TWIN..]))
    }

    fn decode_copy(page: &[u8]) -> Option<Self> {
        let sound = page[..8] == FILE_MAGIC && u32_at(page, 56) == crc_seeded(0, &page[..56]);
        sound.then(|| Self {
            format: u32_at(page, 8),
            cluster: ClusterId(page[16..32].try_into().expect("16 bytes")),
            sequence: u64_at(page, 32),
            seed: u32_at(page, 12),
            first: Place {
                index: u64_at(page, 40),
                previous_crc: u32_at(page, 48),
            },
            pages: u32_at(page, 52),
        })
    }

    /// Whether each frame of the file stands there twice.
    pub fn has_twins(&self) -> bool {
        self.format >= FORMAT_TWINS
    }
}

/// Encodes a command as it stands in a payload.
pub fn encode_command(command: &Command) -> Vec<u8> {
    postcard::to_stdvec(command).expect("commands have forms that postcard can write")
}

/// Bytes of a frame of already encoded commands, with header and padding, without its twin.
pub fn frame_bytes(commands: &[Vec<u8>]) -> usize {
    let payload_bytes = 1 + commands.iter().map(Vec::len).sum::<usize>();
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN)
}

/// A frame of already encoded commands, padded; and its CRC, which the next frame repeats.
pub fn encode_frame(seed: u32, term: u64, place: Place, commands: &[Vec<u8>]) -> (Vec<u8>, u32) {
    let payload_bytes = 1 + commands.iter().map(Vec::len).sum::<usize>();
    // Room for the twin, which the writer puts behind it.
    let mut frame = Vec::with_capacity(2 * frame_bytes(commands));
    frame.extend(FRAME_MAGIC);
    frame.extend((payload_bytes as u32).to_le_bytes());
    frame.extend(term.to_le_bytes());
    frame.extend(place.index.to_le_bytes());
    frame.extend((commands.len() as u32).to_le_bytes());
    frame.extend(place.previous_crc.to_le_bytes());
    frame.extend([0; 8]);
    frame.push(ENCODING);
    commands.iter().for_each(|command| frame.extend(command));
    let crc = frame_crc(seed, &frame);
    frame[32..36].copy_from_slice(&crc.to_le_bytes());
    frame.resize(frame.len().next_multiple_of(ALIGN), 0);
    (frame, crc)
}

fn frame_crc(seed: u32, frame: &[u8]) -> u32 {
    crc_seeded(crc_seeded(seed, &frame[..32]), &frame[FRAME_HEADER_BYTES..])
}

/// A frame whose CRC holds.
pub struct Frame<'a> {
    /// The number of the reign that wrote it.
    pub term: u64,
    /// Where it belongs.
    pub place: Place,
    /// Its commands.
    pub count: u32,
    /// Its checksum.
    pub crc: u32,
    payload: &'a [u8],
    /// With header and padding, without its twin.
    pub bytes: usize,
}

impl<'a> Frame<'a> {
    /// The frame at `offset`, if there is a whole one.
    pub fn at(file: &'a [u8], offset: usize, seed: u32) -> Option<Self> {
        let header = file.get(offset..)?.get(..FRAME_HEADER_BYTES)?;
        let payload_bytes = u32_at(header, 4) as usize;
        if header[..4] != FRAME_MAGIC || payload_bytes > PAYLOAD_BYTES_MAX {
            return None;
        }
        let bytes = FRAME_HEADER_BYTES + payload_bytes;
        let frame = &file[offset..].get(..bytes)?;
        let crc = u32_at(header, 32);
        (frame_crc(seed, frame) == crc).then(|| Self {
            term: u64_at(header, 8),
            place: Place {
                index: u64_at(header, 16),
                previous_crc: u32_at(header, 28),
            },
            count: u32_at(header, 24),
            crc,
            payload: &frame[FRAME_HEADER_BYTES..],
            bytes: bytes.next_multiple_of(ALIGN),
        })
    }

    /// Its commands; `None` when this version can't read them.
    pub fn commands(&self) -> Option<Vec<Command>> {
        let (&ENCODING, mut left) = self.payload.split_first()? else {
            return None;
        };
        let mut commands = Vec::new();
        for _ in 0..self.count {
            let (command, rest) = postcard::take_from_bytes(left).ok()?;
            commands.push(command);
            left = rest;
        }
        left.is_empty().then_some(commands)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
