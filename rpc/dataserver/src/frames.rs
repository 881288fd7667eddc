//! Frames from a socket: heads into a small buffer, payloads straight to where they belong.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use blockyard_engine::Chunk;
use blockyard_wire::frame::{Frame, HEADER_BYTES_MAX, PREFIX_BYTES, Packet, Prefix};
use blockyard_wire::{Problem, Result};
use monoio::io::AsyncReadRent as _;
use monoio::net::tcp::TcpOwnedReadHalf;

use crate::buf::{ChunkFill, Fill};

const _: () = assert!(PREFIX_BYTES + HEADER_BYTES_MAX <= AHEAD_BYTES_MAX);

/// Bytes that have arrived before it is known where they belong: at the most.
const AHEAD_BYTES_MAX: usize = 32 * 1024;
/// Payloads up to this are read along with heads, many at a time, and copied; longer ones go straight to their place.
const COPIED_BYTES_MAX: usize = 8 * 1024;
/// Bytes skipped at a time.
const SKIP_BYTES: usize = 64 * 1024;

/// Where the payload of a stream's packets goes.
pub(crate) trait Sink {
    /// The place for a payload of `payload_bytes`; `None` when it is not wanted (any more).
    fn place(&self, packet: &Packet, payload_bytes: usize) -> Option<Chunk>;
    /// The payload has arrived in its place.
    fn filled(&self, packet: Packet, chunk: Chunk);
}

/// Reads frames from one connection.
pub(crate) struct FrameReader {
    half: TcpOwnedReadHalf,
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    /// Bytes that a read of a head asks for, by what came last: behind a long payload there is probably another one,
    /// with a head as long as its own.
    ahead_bytes: usize,
    /// Since when the rest of a frame has been outstanding.
    waiting_since: Rc<Cell<Option<Instant>>>,
}

impl FrameReader {
    pub fn new(half: TcpOwnedReadHalf) -> Self {
        Self {
            half,
            buffer: Some(vec![0; AHEAD_BYTES_MAX].into()),
            start: 0,
            end: 0,
            ahead_bytes: AHEAD_BYTES_MAX,
            waiting_since: Rc::default(),
        }
    }

    /// A view on since when the rest of a begun frame has been outstanding.
    pub fn waiting_since(&self) -> Rc<Cell<Option<Instant>>> {
        self.waiting_since.clone()
    }

    /// The next frame's head and the length of its payload, which must be read or skipped next.
    /// `None` when the peer has closed between frames.
    pub async fn next(&mut self) -> Result<Option<(Frame, usize)>> {
        self.waiting_since.set(None);
        if !self.have(PREFIX_BYTES).await? {
            return Ok(None);
        }
        let head = self.buffer.as_ref().expect("only out during a read");
        let prefix: &[u8; PREFIX_BYTES] = head[self.start..self.start + PREFIX_BYTES]
            .try_into()
            .expect("as many bytes");
        let prefix = Prefix::parse(prefix)?;
        if !self.have(PREFIX_BYTES + prefix.header_bytes).await? {
            return Err(cut_off());
        }
        let head = self.buffer.as_ref().expect("only out during a read");
        let header_from = self.start + PREFIX_BYTES;
        let frame = prefix.decode(&head[header_from..header_from + prefix.header_bytes])?;
        self.start = header_from + prefix.header_bytes;
        self.ahead_bytes = match prefix.payload_bytes {
            ..=COPIED_BYTES_MAX => AHEAD_BYTES_MAX,
            _ => PREFIX_BYTES + prefix.header_bytes,
        };
        Ok(Some((frame, prefix.payload_bytes)))
    }

    /// Takes a packet's payload to where `sink` wants it, or skips it.
    pub async fn deliver(
        &mut self,
        packet: Packet,
        payload_bytes: usize,
        sink: Option<&dyn Sink>,
    ) -> Result<()> {
        let Some((sink, chunk)) = sink.and_then(|sink| Some((sink, sink.place(&packet, payload_bytes)?)))
        else {
            return self.skip(payload_bytes).await;
        };
        let chunk = self.fill(chunk).await?;
        sink.filled(packet, chunk);
        Ok(())
    }

    async fn fill(&mut self, mut chunk: Chunk) -> Result<Chunk> {
        let ahead = (self.end - self.start).min(chunk.len());
        let buffer = self.buffer.as_ref().expect("only out during a read");
        chunk.as_mut()[..ahead].copy_from_slice(&buffer[self.start..self.start + ahead]);
        self.start += ahead;
        if ahead == chunk.len() {
            return Ok(chunk);
        }
        // What had arrived is in its place, so the next head has all the buffer, and comes with the same reads.
        let mut fill = ChunkFill::new(chunk, ahead, self.buffer.take().expect("only out during a read"));
        let length = fill.chunk.len();
        while fill.filled < length {
            self.waiting_since.set(Some(Instant::now()));
            fill.describe(self.ahead_bytes);
            let (read, returned) = self.half.readv(fill).await;
            fill = returned;
            fill.filled += some(read)?;
        }
        (self.start, self.end) = (0, fill.filled - length);
        self.buffer = Some(fill.behind);
        Ok(fill.chunk)
    }

    async fn skip(&mut self, bytes: usize) -> Result<()> {
        let ahead = (self.end - self.start).min(bytes);
        self.start += ahead;
        let mut left = bytes - ahead;
        let mut fill = Fill {
            bytes: if left > 0 {
                vec![0; SKIP_BYTES].into()
            } else {
                Box::default()
            },
            filled: 0,
            limit: 0,
        };
        while left > 0 {
            fill.limit = left.min(SKIP_BYTES);
            self.waiting_since.set(Some(Instant::now()));
            let (read, returned) = self.half.read(fill).await;
            fill = returned;
            left -= some(read)?;
        }
        Ok(())
    }

    /// Reads until `bytes` are there from `start` on; `false` when the peer closed before the first of them.
    async fn have(&mut self, bytes: usize) -> Result<bool> {
        while self.end - self.start < bytes {
            let mut buffer = self.buffer.take().expect("only out during a read");
            buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end > 0 {
                self.waiting_since.set(Some(Instant::now()));
            }
            let fill = Fill {
                bytes: buffer,
                filled: self.end,
                limit: bytes.max(self.ahead_bytes),
            };
            let (read, returned) = self.half.read(fill).await;
            self.buffer = Some(returned.bytes);
            match read {
                Ok(0) if self.end == 0 => return Ok(false),
                read => self.end += some(read)?,
            }
        }
        Ok(true)
    }
}

/// The bytes read: an end here is a frame cut off.
fn some(read: io::Result<usize>) -> Result<usize> {
    match read {
        Ok(0) => Err(cut_off()),
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn cut_off() -> Problem {
    Problem::retry("the peer closed the connection within a frame")
}
