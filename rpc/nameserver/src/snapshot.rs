//! Snapshots: the whole state in one file, written beside, flushed and renamed in.
//!
//! FORMAT.md draws the bytes.

use std::fs;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use blockyard_engine::checksum::{crc, crc_seeded};
use blockyard_wire::types::ClusterId;

use crate::error::Error;
use crate::state::State;
use crate::state::rows::{Reader, Section};

const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"BYNSSNAP";
const HEADER_BYTES: usize = 48;
const CHUNK_HEADER_BYTES: usize = 24;
/// Stands where a section's number does, behind the last chunk.
const END: u32 = u32::MAX;
/// Bytes of the longest chunk: 256 KiB and the longest row, a version of 16 Mi blocks.
const CHUNK_BYTES_MAX: u64 = 256 << 20;
/// How many are kept at the least: should the newest not be readable, the one before and a longer journal do.
pub const KEPT_MIN: usize = 2;

/// The snapshots in the folders by the index of the last command that each holds, newest first.
///
/// # Errors
/// `Io`.
pub fn list(dirs: &[PathBuf]) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut found = Vec::new();
    for dir in dirs {
        let unreadable = || Error::io(format!("cannot read {}", dir.display()));
        for entry in fs::read_dir(dir).map_err(unreadable())? {
            let path = entry.map_err(unreadable())?.path();
            let applied = path.file_name().and_then(|name| name.to_str()).and_then(|name| {
                let digits = name.strip_prefix("snapshot-")?;
                digits.parse().ok().filter(|applied| file_name(*applied) == name)
            });
            found.extend(applied.map(|applied| (applied, path)));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The name of the snapshot that ends with this command.
pub fn file_name(applied: u64) -> String {
    format!("snapshot-{applied:020}")
}

/// Writes the snapshot of `state`; its bytes. Returns when it is durable under its name.
///
/// # Errors
/// `Io`; then there is none.
pub fn write(dir: &Path, cluster: ClusterId, state: &State) -> Result<u64, Error> {
    let draft = dir.join("snapshot.tmp");
    let path = dir.join(file_name(state.applied()));
    let written = (|| {
        let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(&draft)?);
        let header = header(cluster, state);
        let seed = crc(&header);
        file.write_all(&header)?;
        let mut chunks = 0u32;
        let mut bytes = (HEADER_BYTES + CHUNK_HEADER_BYTES) as u64;
        state.write(&mut |section, rows, chunk: &[u8]| {
            chunks += 1;
            bytes += (CHUNK_HEADER_BYTES + chunk.len()) as u64;
            file.write_all(&chunk_header(seed, section as u32, rows, chunk))?;
            file.write_all(chunk)
        })?;
        file.write_all(&chunk_header(seed, END, chunks, &[]))?;
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&draft, &path)?;
        fs::File::open(dir)?.sync_all()?;
        Ok(bytes)
    })();
    if written.is_err() {
        // A draft is no snapshot; the next one takes its place.
        let _ = fs::remove_file(&draft);
    }
    written.map_err(Error::io(format!("writing the snapshot {}", path.display())))
}

fn header(cluster: ClusterId, state: &State) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[16..32].copy_from_slice(&cluster.0);
    header[32..40].copy_from_slice(&state.applied().to_le_bytes());
    let sum = crc(&header[..40]);
    header[40..44].copy_from_slice(&sum.to_le_bytes());
    header
}

fn chunk_header(seed: u32, section: u32, rows: u32, chunk: &[u8]) -> [u8; CHUNK_HEADER_BYTES] {
    let mut header = [0; CHUNK_HEADER_BYTES];
    header[..4].copy_from_slice(&section.to_le_bytes());
    header[4..8].copy_from_slice(&rows.to_le_bytes());
    header[8..16].copy_from_slice(&(chunk.len() as u64).to_le_bytes());
    let sum = crc_seeded(crc_seeded(seed, &header[..16]), chunk);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Reads a snapshot.
///
/// # Errors
/// `Damaged` when any byte is not what was written; `Format` of a newer version; `Io`.
pub fn read(dir: &Path, path: &Path, cluster: ClusterId) -> Result<State, Error> {
    let damaged =
        |what: String| Error::damaged(dir, format!("the snapshot {} is damaged: {what}", path.display()));
    let file = fs::File::open(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut fill = |bytes: &mut [u8]| {
        file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends too early".to_owned()),
            _ => Error::io(format!("cannot read {}", path.display()))(error),
        })
    };
    let mut header = [0; HEADER_BYTES];
    fill(&mut header)?;
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    if header[..8] != MAGIC || word(&header, 40) != crc(&header[..40]) || header[44..] != [0; 4] {
        return Err(damaged("its header".to_owned()));
    }
    let format = word(&header, 8);
    if format > FORMAT {
        return Err(Error::Format {
            path: path.to_owned(),
            found: format,
            supported: FORMAT,
        });
    }
    if header[16..32] != cluster.0 {
        return Err(damaged("it is another cluster's".to_owned()));
    }
    let seed = crc(&header);
    let mut reader = Reader::default();
    let mut chunk = Vec::new();
    let mut chunks = 0;
    loop {
        let mut header = [0; CHUNK_HEADER_BYTES];
        fill(&mut header)?;
        let bytes = u64::from_le_bytes(header[8..16].try_into().expect("8 bytes"));
        if bytes > CHUNK_BYTES_MAX || header[20..] != [0; 4] {
            return Err(damaged(format!("chunk {chunks}")));
        }
        chunk.resize(bytes as usize, 0);
        fill(&mut chunk)?;
        let sum = crc_seeded(crc_seeded(seed, &header[..16]), &chunk);
        if sum != word(&header, 16) {
            return Err(damaged(format!("the checksum of chunk {chunks}")));
        }
        let (number, rows) = (word(&header, 0), word(&header, 4));
        if number == END {
            if rows != chunks {
                return Err(damaged(format!("{chunks} chunks of {rows}")));
            }
            break;
        }
        let section = Section::from_number(number)
            .ok_or_else(|| damaged(format!("section {number} is none that this version knows")))?;
        reader
            .chunk(section, rows, &chunk)
            .map_err(|problem| damaged(problem.message))?;
        chunks += 1;
    }
    if fill(&mut [0]).is_ok() {
        return Err(damaged("bytes behind its end".to_owned()));
    }
    let state = reader.finish().map_err(|problem| damaged(problem.message))?;
    match state.applied() == u64::from_le_bytes(header[32..40].try_into().expect("8 bytes")) {
        true => Ok(state),
        false => Err(damaged("its header and its rows disagree".to_owned())),
    }
}
