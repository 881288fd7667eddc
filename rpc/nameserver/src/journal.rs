//! The journal's format: files of framed groups of commands, and reading them back without guessing.
//!
//! A frame is what one write and one fdatasync make durable: a group of commands. Frame n + 1 is written
//! after n is durable, so of a chain of frames only the last can be torn: a bad frame with a valid one behind
//! it is damage. FORMAT.md draws the bytes.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use blockyard_engine::checksum::crc_seeded;
use blockyard_wire::types::ClusterId;

use crate::error::Error;
use crate::state::Command;

/// The journal's folder within the nameserver's.
pub const FOLDER: &str = "journal";
/// Bytes of a file's header.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 40;
/// Bytes of the longest payload of a frame.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the smallest file: a header and a longest frame.
pub const FILE_BYTES_MIN: u64 = 2 * 1024 * 1024;
const FORMAT: u32 = 1;
const FILE_MAGIC: [u8; 8] = *b"BYNSJRNL";
const FRAME_MAGIC: [u8; 4] = *b"BYNF";
/// How commands within a payload are encoded: postcard, by the variants of `Command`.
const ENCODING: u8 = 1;
/// Frames begin at multiples of this.
const ALIGN: usize = 8;

const _: () =
    assert!(FILE_BYTES_MIN as usize >= HEADER_BYTES + FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX + ALIGN);
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
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its place in the row of files: its name.
    pub sequence: u64,
    /// Random: so that no bytes of a user or of another file pass for a frame of this one.
    pub seed: u32,
    /// Where its first frame belongs.
    pub first: Place,
}

impl Header {
    /// Its page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; HEADER_BYTES];
        page[..8].copy_from_slice(&FILE_MAGIC);
        page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        page[12..16].copy_from_slice(&self.seed.to_le_bytes());
        page[16..32].copy_from_slice(&self.cluster.0);
        page[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        page[40..48].copy_from_slice(&self.first.index.to_le_bytes());
        page[48..52].copy_from_slice(&self.first.previous_crc.to_le_bytes());
        let crc = crc_seeded(0, &page[..56]);
        page[56..60].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads a page back; `None` when it is no header.
    pub fn decode(page: &[u8]) -> Option<(u32, Self)> {
        let page = page.get(..HEADER_BYTES)?;
        let sound = page[..8] == FILE_MAGIC && u32_at(page, 56) == crc_seeded(0, &page[..56]);
        sound.then(|| {
            let header = Self {
                cluster: ClusterId(page[16..32].try_into().expect("16 bytes")),
                sequence: u64_at(page, 32),
                seed: u32_at(page, 12),
                first: Place {
                    index: u64_at(page, 40),
                    previous_crc: u32_at(page, 48),
                },
            };
            (u32_at(page, 8), header)
        })
    }
}

/// Encodes a command as it stands in a payload.
pub fn encode_command(command: &Command) -> Vec<u8> {
    postcard::to_stdvec(command).expect("commands have forms that postcard can write")
}

/// A frame of already encoded commands, padded; and its CRC, which the next frame repeats.
pub fn encode_frame(seed: u32, term: u64, place: Place, commands: &[Vec<u8>]) -> (Vec<u8>, u32) {
    let payload_bytes = 1 + commands.iter().map(Vec::len).sum::<usize>();
    let mut frame = Vec::with_capacity((FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN));
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
struct Frame<'a> {
    term: u64,
    place: Place,
    count: u32,
    crc: u32,
    payload: &'a [u8],
    /// With header and padding.
    bytes: usize,
}

impl<'a> Frame<'a> {
    fn at(file: &'a [u8], offset: usize, seed: u32) -> Option<Self> {
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

    fn commands(&self) -> Option<Vec<Command>> {
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

/// The journal's files as they lie in its folder, by sequence.
///
/// # Errors
/// `Io`; `Damaged` when one is missing between two others.
pub fn files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let folder = dir.join(FOLDER);
    let unreadable = || Error::io(format!("cannot read {}", folder.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        let sequence = path.file_name().and_then(|name| name.to_str()).and_then(|name| {
            let digits = name.strip_suffix(".log")?;
            digits
                .parse()
                .ok()
                .filter(|sequence| file_name(*sequence) == name)
        });
        files.extend(sequence.map(|sequence| (sequence, path)));
    }
    files.sort();
    if let Some(gap) = files.windows(2).find(|pair| pair[0].0 + 1 != pair[1].0) {
        return Err(Error::damaged(
            dir,
            format!("journal file {} is missing", file_name(gap[0].0 + 1)),
        ));
    }
    Ok(files)
}

/// The name of the file of this sequence.
pub fn file_name(sequence: u64) -> String {
    format!("{sequence:010}.log")
}

/// What reading a journal came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    /// Where the next frame belongs.
    pub place: Place,
    /// The highest term seen.
    pub term: u64,
    /// Sequence of the last file; 0 without one.
    pub sequence: u64,
    /// Bytes of frames whose commands were handed on.
    pub bytes: u64,
    /// Files of which commands were handed on.
    pub files: u64,
}

/// Gives at most so many bytes from the beginning of a file.
pub type Read<'a> = &'a dyn Fn(&Path, usize) -> io::Result<Vec<u8>>;

/// Reads journal files in order and hands on each command above `after` with its index.
///
/// # Errors
/// `Damaged` when a frame is bad and a valid one follows, when files do not fit together, or when commands
/// between `after` and the first are missing; and what `apply` gives.
pub fn replay(
    dir: &Path,
    cluster: ClusterId,
    files: &[(u64, PathBuf)],
    after: u64,
    apply: &mut dyn FnMut(u64, Command) -> Result<(), Error>,
) -> Result<Tail, Error> {
    replay_with(&from_disk, dir, cluster, files, after, apply)
}

fn from_disk(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    if bytes_max == usize::MAX {
        return fs::read(path);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(bytes_max as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// [`replay`] of files that `read` gives.
///
/// # Errors
/// Those of [`replay`].
pub fn replay_with(
    read: Read<'_>,
    dir: &Path,
    cluster: ClusterId,
    files: &[(u64, PathBuf)],
    after: u64,
    apply: &mut dyn FnMut(u64, Command) -> Result<(), Error>,
) -> Result<Tail, Error> {
    let mut tail = Tail {
        place: Place {
            index: after + 1,
            previous_crc: 0,
        },
        term: 0,
        sequence: 0,
        bytes: 0,
        files: 0,
    };
    let mut expected: Option<Place> = None;
    for (at, (sequence, path)) in files.iter().enumerate() {
        let header = header_of(read, dir, path, cluster, *sequence)?;
        if let Some(expected) = expected
            && header.first != expected
        {
            return Err(Error::damaged(
                dir,
                format!(
                    "{} begins with command {}, but the file before it ends before command {}: frames at its \
                     end are damaged",
                    path.display(),
                    header.first.index,
                    expected.index
                ),
            ));
        }
        if expected.is_none() && header.first.index > after + 1 {
            return Err(Error::damaged(
                dir,
                format!(
                    "commands {} to {} of the journal are missing",
                    after + 1,
                    header.first.index - 1
                ),
            ));
        }
        // Whole files below `after` are there for the older snapshot: their end shows in the next header.
        let next = files
            .get(at + 1)
            .map(|(sequence, path)| header_of(read, dir, path, cluster, *sequence));
        tail.sequence = *sequence;
        if let Some(next) = next
            && next.as_ref().is_ok_and(|next| next.first.index <= after + 1)
        {
            expected = Some(next?.first);
            continue;
        }
        tail.files += 1;
        let end = replay_file(read, dir, path, &header, after, &mut tail, apply)?;
        expected = Some(end);
    }
    if let Some(end) = expected {
        if end.index > after {
            tail.place = end;
        } else {
            // The snapshot holds all that the journal has lost.
            tracing::warn!(
                journal = end.index - 1,
                snapshot = after,
                "the journal ends before the snapshot"
            );
        }
    }
    Ok(tail)
}

/// Reads the header of a file, and checks that it is the one.
///
/// # Errors
/// `Damaged`, `Format` or `Io`.
pub fn read_header(dir: &Path, path: &Path, cluster: ClusterId, sequence: u64) -> Result<Header, Error> {
    header_of(&from_disk, dir, path, cluster, sequence)
}

fn header_of(
    read: Read<'_>,
    dir: &Path,
    path: &Path,
    cluster: ClusterId,
    sequence: u64,
) -> Result<Header, Error> {
    let page = read(path, HEADER_BYTES).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let (format, header) = Header::decode(&page)
        .ok_or_else(|| Error::damaged(dir, format!("the header of {} is damaged", path.display())))?;
    if format > FORMAT {
        return Err(Error::Format {
            path: path.to_owned(),
            found: format,
            supported: FORMAT,
        });
    }
    if header.cluster != cluster || header.sequence != sequence {
        return Err(Error::damaged(
            dir,
            format!(
                "{} is file {} of cluster {}, and does not belong here",
                path.display(),
                header.sequence,
                header.cluster
            ),
        ));
    }
    Ok(header)
}

/// Reads the frames of one file; where the frame behind the last belongs.
fn replay_file(
    read: Read<'_>,
    dir: &Path,
    path: &Path,
    header: &Header,
    after: u64,
    tail: &mut Tail,
    apply: &mut dyn FnMut(u64, Command) -> Result<(), Error>,
) -> Result<Place, Error> {
    let damaged = |offset: usize, what: &str| {
        Err(Error::damaged(
            dir,
            format!("{} is damaged at byte {offset}: {what}", path.display()),
        ))
    };
    let file = read(path, usize::MAX).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let mut place = header.first;
    let mut offset = HEADER_BYTES;
    while let Some(frame) = Frame::at(&file, offset, header.seed) {
        if frame.place != place || frame.term < tail.term {
            return damaged(offset, "a frame that does not follow from the one before");
        }
        let Some(commands) = frame.commands() else {
            return damaged(offset, "commands that this version can't read");
        };
        for (command, index) in commands.into_iter().zip(place.index..) {
            if index > after {
                apply(index, command)?;
            }
        }
        tail.term = frame.term;
        tail.bytes += frame.bytes as u64;
        place = Place {
            index: place.index + u64::from(frame.count),
            previous_crc: frame.crc,
        };
        offset += frame.bytes;
    }
    let mut ahead = offset + ALIGN;
    while let Some(left) = file.get(ahead..).filter(|left| left.len() >= FRAME_HEADER_BYTES) {
        if left[..4] == FRAME_MAGIC && Frame::at(&file, ahead, header.seed).is_some() {
            return damaged(offset, "a bad frame, with a valid one behind it");
        }
        ahead += ALIGN;
    }
    if file
        .get(offset..)
        .is_some_and(|rest| rest.iter().any(|byte| *byte != 0))
    {
        tracing::warn!(file = %path.display(), offset, "the last write to the journal was torn, and is cut off");
    }
    Ok(place)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
