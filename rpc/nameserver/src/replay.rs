//! Reading the journal back, from one folder or from two that mirror each other, without guessing.
//!
//! Frame n + 1 is written after n is durable, so of a chain of frames only the last can be torn: a bad frame with
//! a valid one behind it is damage. With two folders a frame counts that holds in either: the files are the same
//! byte for byte, as far as each was written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use blockyard_wire::types::ClusterId;

use crate::error::Error;
use crate::journal::{
    ALIGN, FOLDER, FORMAT, FRAME_HEADER_BYTES, Frame, HEADER_BYTES, Header, PAGE_BYTES, Place,
};
use crate::state::Command;

/// A file of the journal, in each folder that has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFile {
    /// Its place in the row of files.
    pub sequence: u64,
    /// Where it lies; in the order of the folders.
    pub paths: Vec<PathBuf>,
}

/// The journal's files as they lie in the folders, by sequence: the last ones, without a gap. Those before a gap are
/// what a folder had when it failed, or of no use without what is missing, which [`replay`] finds out.
///
/// # Errors
/// `Io`.
pub fn files(dirs: &[PathBuf]) -> Result<Vec<LogFile>, Error> {
    let mut found: Vec<(u64, usize, PathBuf)> = Vec::new();
    for (at, dir) in dirs.iter().enumerate() {
        found.extend(all(dir)?.into_iter().map(|(sequence, path)| (sequence, at, path)));
    }
    found.sort();
    let mut files: Vec<LogFile> = Vec::new();
    for (sequence, _, path) in found {
        match files.last_mut() {
            Some(last) if last.sequence == sequence => last.paths.push(path),
            _ => files.push(LogFile {
                sequence,
                paths: vec![path],
            }),
        }
    }
    let gap = files
        .windows(2)
        .rposition(|pair| pair[0].sequence + 1 != pair[1].sequence);
    if let Some(gap) = gap {
        files.drain(..=gap);
    }
    Ok(files)
}

/// All files of the journal in one folder, with their sequences; in no order.
///
/// # Errors
/// `Io`.
pub fn all(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let folder = dir.join(FOLDER);
    let unreadable = || Error::io(format!("cannot read {}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        let sequence = path.file_name().and_then(|name| name.to_str()).and_then(|name| {
            let digits = name.strip_suffix(".log")?;
            digits
                .parse()
                .ok()
                .filter(|sequence| file_name(*sequence) == name)
        });
        found.extend(sequence.map(|sequence| (sequence, path)));
    }
    Ok(found)
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
    /// Bytes of frames whose commands were handed on, twins not counted.
    pub bytes: u64,
    /// Files of which commands were handed on: the last ones.
    pub files: u64,
}

/// Gives at most so many bytes from the beginning of a file.
pub type Read<'a> = &'a dyn Fn(&Path, usize) -> io::Result<Vec<u8>>;

/// [`Read`] from the file system.
fn from_disk(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    if bytes_max == usize::MAX {
        return fs::read(path);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(bytes_max as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads journal files in order and hands on each command above `after` with its index.
///
/// # Errors
/// `Damaged` when a frame is bad and a valid one follows, when files do not fit together or were cut short, or
/// when commands between `after` and the first are missing; and what `apply` gives.
pub fn replay(
    dirs: &[PathBuf],
    cluster: ClusterId,
    files: &[LogFile],
    after: u64,
    apply: &mut dyn FnMut(u64, Command) -> Result<(), Error>,
) -> Result<Tail, Error> {
    replay_with(&from_disk, dirs, cluster, files, after, apply)
}

/// [`replay`] of files that `read` gives.
///
/// # Errors
/// Those of [`replay`].
pub fn replay_with(
    read: Read<'_>,
    dirs: &[PathBuf],
    cluster: ClusterId,
    files: &[LogFile],
    after: u64,
    apply: &mut dyn FnMut(u64, Command) -> Result<(), Error>,
) -> Result<Tail, Error> {
    let dir = shown(dirs);
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
    for (at, file) in files.iter().enumerate() {
        let header = header_of(read, dir, file, cluster)?;
        let path = file.paths[0].display();
        if let Some(expected) = expected
            && header.first != expected
        {
            return Err(Error::damaged(
                dir,
                format!(
                    "{path} begins with command {}, but the file before it ends before command {}: frames at its \
                     end are damaged",
                    header.first.index, expected.index
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
        tail.sequence = file.sequence;
        // What the next file begins with is where this one ended.
        let next = match files.get(at + 1) {
            Some(next) => Some(header_of(read, dir, next, cluster)?.first),
            None => None,
        };
        // Whole files below `after` are there for the older snapshot.
        if let Some(next) = next
            && next.index <= after + 1
        {
            expected = Some(next);
            continue;
        }
        tail.files += 1;
        let end = replay_file((read, dir), file, &header, next, after, &mut tail, apply)?;
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
pub fn read_header(dir: &Path, file: &LogFile, cluster: ClusterId) -> Result<Header, Error> {
    header_of(&from_disk, dir, file, cluster)
}

fn header_of(read: Read<'_>, dir: &Path, file: &LogFile, cluster: ClusterId) -> Result<Header, Error> {
    let mut sound: Option<(&PathBuf, Header)> = None;
    for path in &file.paths {
        let page = first_page(read, path)?;
        let Some(header) = Header::decode(&page) else {
            continue;
        };
        if header.format > FORMAT {
            return Err(Error::Format {
                path: path.clone(),
                found: header.format,
                supported: FORMAT,
            });
        }
        if header.cluster != cluster || header.sequence != file.sequence {
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
        match &sound {
            Some((other, first)) if *first != header => {
                return Err(Error::damaged(
                    dir,
                    format!(
                        "{} and {} are of two histories: each folder was used without the other; start with \
                         the one that is to be kept as the only one, and give the other back once it is empty",
                        other.display(),
                        path.display()
                    ),
                ));
            }
            Some(_) => {}
            None => sound = Some((path, header)),
        }
    }
    sound.map(|(_, header)| header).ok_or_else(|| {
        Error::damaged(
            dir,
            format!("the header of {} is damaged", file.paths[0].display()),
        )
    })
}

fn first_page(read: Read<'_>, path: &Path) -> Result<Vec<u8>, Error> {
    read(path, HEADER_BYTES).map_err(Error::io(format!("cannot read {}", path.display())))
}

/// A file's bytes, and whether they are all that it was made with.
fn image(read: Read<'_>, path: &Path, header: &Header) -> Result<(Vec<u8>, bool), Error> {
    let bytes = read(path, usize::MAX).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let whole = bytes.len() as u64 >= u64::from(header.pages) * PAGE_BYTES;
    Ok((bytes, whole))
}

/// What a file should be, up to the end of its last frame: put together from all that is sound in any of the folders,
/// after [`replay`] has read it. With it, how long the whole file should be, the rest zeros.
///
/// # Errors
/// `Io`.
pub fn mended(file: &LogFile, header: &Header, until: Option<Place>) -> Result<(Vec<u8>, u64), Error> {
    let mut images = Vec::new();
    for path in &file.paths {
        images.push(image(&from_disk, path, header)?);
    }
    let mut made = header.encode();
    let mut place = header.first;
    while until != Some(place) {
        let offset = made.len();
        let here = images.iter().find_map(|(image, _)| {
            let frame = Frame::at(image, offset, header.seed)?;
            Some(&image[offset..offset + frame.bytes.min(image.len() - offset)])
        });
        let twin = || {
            images.iter().find_map(|(image, _)| {
                let (at, frame) = next_valid(image, offset, header)?;
                (header.has_twins() && at == offset + frame.bytes)
                    .then(|| &image[at..at + frame.bytes.min(image.len() - at)])
            })
        };
        let Some(bytes) = here.or_else(twin) else { break };
        let Some(frame) = Frame::at(bytes, 0, header.seed).filter(|frame| frame.place == place) else {
            break;
        };
        place = behind(&frame);
        for _ in 0..if header.has_twins() { 2 } else { 1 } {
            let end = made.len() + frame.bytes;
            made.extend_from_slice(bytes);
            made.resize(end, 0);
        }
    }
    let longest = images.iter().map(|(image, _)| image.len() as u64).max();
    let bytes = (u64::from(header.pages) * PAGE_BYTES).max(longest.unwrap_or(0));
    Ok((made, bytes))
}

fn behind(frame: &Frame<'_>) -> Place {
    Place {
        index: frame.place.index + u64::from(frame.count),
        previous_crc: frame.crc,
    }
}

fn step(frame: &Frame<'_>, header: &Header) -> usize {
    match header.has_twins() {
        true => 2 * frame.bytes,
        false => frame.bytes,
    }
}

/// The next valid frame behind `offset`, and where it is.
fn next_valid<'a>(image: &'a [u8], offset: usize, header: &Header) -> Option<(usize, Frame<'a>)> {
    let mut ahead = offset + ALIGN;
    while ahead + FRAME_HEADER_BYTES <= image.len() {
        if let Some(frame) = Frame::at(image, ahead, header.seed) {
            return Some((ahead, frame));
        }
        ahead += ALIGN;
    }
    None
}

/// Reads the frames of one file, up to `until` where that is known; where the frame behind the last belongs.
fn replay_file(
    (read, dir): (Read<'_>, &Path),
    file: &LogFile,
    header: &Header,
    until: Option<Place>,
    after: u64,
    tail: &mut Tail,
    apply: &mut dyn FnMut(u64, Command) -> Result<(), Error>,
) -> Result<Place, Error> {
    let path = file.paths[0].display();
    let damaged = |offset: usize, what: &str| {
        Err(Error::damaged(
            dir,
            format!("{path} is damaged at byte {offset}: {what}"),
        ))
    };
    let mut images = Vec::new();
    for path in &file.paths {
        images.push(image(read, path, header)?);
    }
    let mut place = header.first;
    let mut offset = HEADER_BYTES;
    // What lies behind `until` was never acknowledged: the writer gave this file up there.
    while until != Some(place) {
        let here = images
            .iter()
            .find_map(|(image, _)| Frame::at(image, offset, header.seed));
        let frame = match here {
            Some(frame) => {
                if frame.place != place || frame.term < tail.term {
                    return damaged(offset, "a frame that does not follow from the one before");
                }
                offset += step(&frame, header);
                frame
            }
            None => {
                let later = images
                    .iter()
                    .find_map(|(image, _)| next_valid(image, offset, header));
                match later {
                    // The first of the two is bad, or was torn: this is the other.
                    Some((at, frame))
                        if header.has_twins()
                            && frame.place == place
                            && frame.term >= tail.term
                            && at == offset + frame.bytes =>
                    {
                        tracing::warn!(file = %path, offset, "a frame of the journal is damaged; its twin holds");
                        offset = at + frame.bytes;
                        frame
                    }
                    Some(_) => return damaged(offset, "a bad frame, with a valid one behind it"),
                    None => break,
                }
            }
        };
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
        place = behind(&frame);
    }
    if until.is_none() {
        // Frames may have been in what was cut off: nobody can tell.
        if !images.iter().any(|(_, whole)| *whole) {
            return Err(Error::damaged(
                dir,
                format!(
                    "{path} was made with {} bytes and has fewer: its end was cut off",
                    u64::from(header.pages) * PAGE_BYTES
                ),
            ));
        }
        let torn = |(image, _): &(Vec<u8>, bool)| {
            image
                .get(offset..)
                .is_some_and(|rest| rest.iter().any(|byte| *byte != 0))
        };
        if images.iter().any(torn) {
            tracing::warn!(file = %path, offset, "the last write to the journal was torn, and is cut off");
        }
    }
    Ok(place)
}

/// The folder that errors name.
fn shown(dirs: &[PathBuf]) -> &Path {
    dirs.first().map_or(Path::new("."), PathBuf::as_path)
}
