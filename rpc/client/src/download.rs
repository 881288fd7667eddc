//! A download: several blocks ahead, handed to the sink in order, nothing unverified.

use std::rc::Rc;

use blockyard_engine::checksum;
use blockyard_wire::{Problem, ProblemKind, Result};
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::channel::Fetched;
use crate::core::Core;
use crate::options::{DownloadOptions, Downloaded, Progress};
use crate::pages::Pages;
use crate::read::{self, Piece};
use crate::trace::{ReadTrace, ReadTraceFn};

/// A piece in memory.
struct Arrived {
    piece: Piece,
    fetched: Fetched,
    failovers: u32,
}

/// Downloads what `options` want of `path` into `to`.
///
/// # Errors
/// See [`Client::download`](crate::Client::download).
pub async fn download<W: AsyncWrite + Unpin>(
    core: Rc<Core>,
    path: String,
    to: W,
    options: DownloadOptions,
) -> Result<Downloaded> {
    let pages = Pages::open(core.clone(), &path, options.range.clone()).await?;
    let (file, range) = (pages.file.clone(), pages.range.clone());
    let total = range.end - range.start;
    let (ahead, arrived) = mpsc::channel(1);
    let fetching = fetch_all(core, pages, ahead, options.trace.as_ref());
    let writing = write_all(arrived, to, total, &options);
    let ((), written) = tokio::try_join!(fetching, writing)
        .map_err(|problem| problem.context(format!("downloading {path}")))?;
    if written.bytes != total {
        return Err(Problem::new(
            ProblemKind::Failed,
            format!("{path} has {total} bytes, but its blocks gave {}", written.bytes),
        ));
    }
    let whole = total == file.size_bytes;
    if whole && written.crc32c != file.crc32c {
        return Err(Problem::new(
            ProblemKind::Corrupt,
            format!(
                "{path} was put together wrongly: its CRC32C is {:08x}, not {:08x}; throw away what was downloaded",
                written.crc32c, file.crc32c
            ),
        ));
    }
    Ok(Downloaded {
        bytes: written.bytes,
        crc32c: written.crc32c,
        verified_whole: whole,
        failovers: written.failovers,
        file,
    })
}

/// Keeps `blocks_in_flight` reads going and passes them on in order.
async fn fetch_all(
    core: Rc<Core>,
    mut pages: Pages,
    ahead: mpsc::Sender<Arrived>,
    trace: Option<&ReadTraceFn>,
) -> Result<()> {
    let in_flight = core.options.blocks_in_flight.max(1);
    let mut reads = FuturesOrdered::new();
    let mut more = true;
    loop {
        while more && reads.len() < in_flight {
            match pages.next().await? {
                Some(piece) => reads.push_back(fetch(&core, piece, trace)),
                None => more = false,
            }
        }
        let Some(arrived) = reads.next().await else {
            return Ok(());
        };
        if ahead.send(arrived?).await.is_err() {
            // The sink has failed, which is told by its own side.
            return Ok(());
        }
    }
}

async fn fetch(core: &Rc<Core>, piece: Piece, trace: Option<&ReadTraceFn>) -> Result<Arrived> {
    let asked = Instant::now();
    let (fetched, failovers) = read::fetch(core, &piece).await?;
    if let Some(trace) = trace {
        let times = fetched.times;
        trace(ReadTrace {
            index: piece.block.index,
            bytes: fetched.bytes as u32,
            queued: times.begun - asked,
            answered: times.answered,
            done: times.done,
            checksum: times.checksum,
            volume: times.volume,
        });
    }
    Ok(Arrived {
        piece,
        fetched,
        failovers,
    })
}

#[derive(Default)]
struct Written {
    bytes: u64,
    crc32c: u32,
    failovers: u32,
}

/// Writes what arrives, trimmed to what is wanted.
async fn write_all<W: AsyncWrite + Unpin>(
    mut arrived: mpsc::Receiver<Arrived>,
    mut to: W,
    total: u64,
    options: &DownloadOptions,
) -> Result<Written> {
    let refused = |error: std::io::Error| {
        Problem::new(
            ProblemKind::Failed,
            format!("cannot write what was downloaded: {error}"),
        )
    };
    let mut written = Written::default();
    while let Some(Arrived {
        piece,
        fetched,
        failovers,
    }) = arrived.recv().await
    {
        let from = piece.from as usize - fetched.start;
        let wanted = &fetched.buffer[from..from + piece.length as usize];
        written.crc32c = if piece.length == piece.block.length {
            checksum::combine(written.crc32c, piece.block.crc32c, u64::from(piece.length))
        } else {
            checksum::crc_seeded(written.crc32c, wanted)
        };
        to.write_all(wanted).await.map_err(refused)?;
        written.bytes += u64::from(piece.length);
        written.failovers += failovers;
        if let Some(progress) = &options.progress {
            progress(Progress {
                bytes: written.bytes,
                total_bytes: Some(total),
            });
        }
    }
    to.flush().await.map_err(refused)?;
    Ok(written)
}
