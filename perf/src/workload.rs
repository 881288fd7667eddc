//! What goes in and out: random bytes from memory, and sinks that discard or compare.

use std::fs::File;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use blockyard_engine::limits::BLOCK_BYTES_MAX;
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::latency::Latencies;

/// Files start at multiples of this odd number of bytes in the pool, so that no two blocks are alike.
const STEP_BYTES: u64 = 4_099;

/// Random bytes, made once, that files of any length are cut from.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Vec<u8>>);

impl Pool {
    /// So many random bytes; more than the processor's caches hold, or reading them costs too little.
    pub(crate) fn new(bytes: usize) -> Self {
        let mut pool = vec![0; bytes.max(1)];
        rand::rng().fill_bytes(&mut pool);
        Self(Arc::new(pool))
    }

    /// The contents of file `number`.
    pub(crate) fn file(&self, number: u64, length_bytes: u64) -> Contents {
        Contents {
            pool: self.clone(),
            at: ((number * STEP_BYTES) % self.0.len() as u64) as usize,
            left_bytes: length_bytes,
        }
    }

    /// `length_bytes` of file `number` from `offset_bytes` on.
    pub(crate) fn part(&self, number: u64, offset_bytes: u64, length_bytes: u64) -> Contents {
        let length = self.0.len() as u64;
        Contents {
            pool: self.clone(),
            at: ((number * STEP_BYTES + offset_bytes) % length) as usize,
            left_bytes: length_bytes,
        }
    }

    /// The whole pool as bytes that can be sliced without copying, and where in it file `number` begins.
    pub(crate) fn shared(&self, number: u64) -> (bytes::Bytes, usize) {
        struct Owner(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let at = ((number * STEP_BYTES) % self.0.len() as u64) as usize;
        (bytes::Bytes::from_owner(Owner(self.0.clone())), at)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is left of a file: slices of the pool, round and round.
#[derive(Clone)]
pub(crate) struct Contents {
    pool: Pool,
    at: usize,
    left_bytes: u64,
}

impl Contents {
    /// The next bytes, at most `max`; empty at the end.
    fn next(&mut self, max: usize) -> &[u8] {
        let start = self.at;
        let here = self.pool.0.len() - start;
        let count = here
            .min(max)
            .min(usize::try_from(self.left_bytes).unwrap_or(usize::MAX));
        self.left_bytes -= count as u64;
        self.at = if count == here { 0 } else { start + count };
        &self.pool.0[start..start + count]
    }

    /// Copies the next bytes into `into`; fewer than it holds only at the end.
    pub(crate) fn fill(&mut self, into: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < into.len() {
            let piece = self.next(into.len() - filled);
            if piece.is_empty() {
                break;
            }
            into[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        filled
    }

    /// Whether the next bytes are these.
    pub(crate) fn matches(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let piece = self.next(data.len());
            if piece.is_empty() || *piece != data[..piece.len()] {
                return false;
            }
            data = &data[piece.len()..];
        }
        true
    }
}

/// When the blocks of one upload were read, to be paired with when they were acknowledged.
#[derive(Default, Debug)]
pub(crate) struct BlockClock {
    read_at: Vec<Instant>,
    acknowledged: usize,
    latencies: Latencies,
}

impl BlockClock {
    fn read(&mut self, bytes: u64, now: Instant) {
        let blocks = bytes.div_ceil(BLOCK_BYTES_MAX as u64) as usize;
        while self.read_at.len() < blocks {
            self.read_at.push(now);
        }
        // A block's time starts when its last byte was read.
        if let (Some(last), true) = (self.read_at.last_mut(), blocks > 0) {
            *last = now;
        }
    }

    /// So many bytes are durable now. Blocks acknowledged out of order are paired in order: the distribution's
    /// mean stays right, and its tail is a little short.
    pub(crate) fn acknowledge(&mut self, bytes: u64, now: Instant) {
        let blocks = (bytes.div_ceil(BLOCK_BYTES_MAX as u64) as usize).min(self.read_at.len());
        while self.acknowledged < blocks {
            let read_at = self.read_at[self.acknowledged];
            self.latencies.record(now.saturating_duration_since(read_at));
            self.acknowledged += 1;
        }
    }

    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }
}

/// A file to upload.
pub(crate) struct Source {
    contents: Contents,
    read_bytes: u64,
    clock: Option<Arc<Mutex<BlockClock>>>,
}

impl Source {
    pub(crate) fn new(contents: Contents, clock: Option<Arc<Mutex<BlockClock>>>) -> Self {
        Self {
            contents,
            read_bytes: 0,
            clock,
        }
    }
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let source = &mut *self;
        let bytes = source.contents.next(into.remaining());
        into.put_slice(bytes);
        source.read_bytes += bytes.len() as u64;
        if let Some(clock) = source.clock.as_ref().filter(|_| !bytes.is_empty()) {
            clock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read(source.read_bytes, Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

/// When the first byte of a download came.
pub(crate) type FirstByte = Arc<Mutex<Option<Duration>>>;

/// A sink: /dev/null, or a comparison with what was uploaded.
pub(crate) enum Sink {
    /// One write to /dev/null for each that the client makes.
    Discard {
        null: File,
        started: Instant,
        first_byte: FirstByte,
    },
    /// Fails at the first byte that differs.
    Compare(Contents),
}

impl Sink {
    pub(crate) fn discard() -> io::Result<(Self, FirstByte)> {
        let first_byte = FirstByte::default();
        let sink = Self::Discard {
            null: File::options().write(true).open("/dev/null")?,
            started: Instant::now(),
            first_byte: first_byte.clone(),
        };
        Ok((sink, first_byte))
    }

    fn take(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Discard {
                null,
                started,
                first_byte,
            } => {
                let mut first = first_byte.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| started.elapsed());
                null.write(data)
            }
            Self::Compare(wanted) => {
                let mut rest = data;
                while !rest.is_empty() {
                    let piece = wanted.next(rest.len());
                    if piece.is_empty() || *piece != rest[..piece.len()] {
                        return Err(io::Error::other("the download differs from what was uploaded"));
                    }
                    rest = &rest[piece.len()..];
                }
                Ok(data.len())
            }
        }
    }
}

impl AsyncWrite for Sink {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.take(data))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match &*self {
            Self::Compare(wanted) if wanted.left_bytes > 0 => {
                Err(io::Error::other("the download is too short"))
            }
            _ => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn read(contents: Contents) -> Vec<u8> {
        let mut data = Vec::new();
        Source::new(contents, None).read_to_end(&mut data).await.unwrap();
        data
    }

    #[tokio::test]
    async fn files_have_their_length_and_differ() {
        let pool = Pool::new(100_003);
        let first = read(pool.file(1, 250_000)).await;
        let second = read(pool.file(2, 250_000)).await;
        assert_eq!(first.len(), 250_000);
        assert_eq!(first, read(pool.file(1, 250_000)).await);
        assert_ne!(first, second);
        assert_ne!(first[..1000], first[1000..2000]);
        assert!(read(pool.file(3, 0)).await.is_empty());
        assert_eq!(read(pool.part(1, 99_000, 50_000)).await, first[99_000..149_000]);
    }

    #[tokio::test]
    async fn comparing_finds_every_difference() {
        let pool = Pool::new(10_007);
        let data = read(pool.file(5, 30_000)).await;
        let mut sink = Sink::Compare(pool.file(5, 30_000));
        sink.write_all(&data).await.unwrap();
        sink.shutdown().await.unwrap();

        let mut flipped = data.clone();
        flipped[29_999] ^= 1;
        assert!(
            Sink::Compare(pool.file(5, 30_000))
                .write_all(&flipped)
                .await
                .is_err()
        );
        let mut short = Sink::Compare(pool.file(5, 30_000));
        short.write_all(&data[..29_999]).await.unwrap();
        assert!(short.shutdown().await.is_err());
        let mut long = Sink::Compare(pool.file(5, 29_999));
        assert!(long.write_all(&data).await.is_err());
    }

    #[tokio::test]
    async fn discarding_notes_the_first_byte() {
        let (mut sink, first_byte) = Sink::discard().unwrap();
        assert!(first_byte.lock().unwrap().is_none());
        sink.write_all(b"bytes").await.unwrap();
        assert!(first_byte.lock().unwrap().is_some());
    }

    #[test]
    fn blocks_are_timed_from_their_last_byte() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let block = BLOCK_BYTES_MAX as u64;
        let mut clock = BlockClock::default();
        clock.read(block / 2, at(0));
        clock.read(block, at(10));
        clock.read(block + 5, at(20));
        clock.acknowledge(block, at(40));
        assert_eq!(clock.latencies().count(), 1);
        assert!((clock.latencies().ms(100.0) - 30.0).abs() < 0.1);
        clock.acknowledge(block + 5, at(520));
        clock.acknowledge(block * 9, at(900));
        assert_eq!(clock.latencies().count(), 2);
        assert!((clock.latencies().ms(100.0) - 500.0).abs() < 1.0);
    }
}
