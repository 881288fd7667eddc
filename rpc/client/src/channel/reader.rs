//! Takes frames off a connection: heads through a small buffer, payloads straight to where they belong.

use std::io::{self, IoSliceMut};

use blockyard_wire::frame::{HEADER_BYTES_MAX, Message, PREFIX_BYTES, Packet, Prefix};
use blockyard_wire::{Problem, ProblemKind, Result};
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::OwnedReadHalf;

use super::Trouble;
use super::connection::{Channel, Stream};

const _: () = assert!(PREFIX_BYTES + HEADER_BYTES_MAX <= AHEAD_BYTES_MAX);
/// Bytes that have arrived before it is known where they belong: at the most.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// Payloads up to this are read along with heads, many at a time, and copied; longer ones go straight to their place.
const COPIED_BYTES_MAX: usize = 8 * 1024;
/// Where payloads go that nobody waits for any more.
const WASTE_BYTES: usize = 64 * 1024;

/// Bytes that have arrived and belong to no payload, as far as known.
struct Heads {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes that a read of a head asks for, by what came last: behind a long payload there is probably another one,
    /// with a head as long as its own.
    ahead_bytes: usize,
}

/// Reads until the connection is lost or can't be trusted, and says why.
pub async fn run(channel: &Channel, mut input: OwnedReadHalf) -> Problem {
    let mut heads = Heads {
        bytes: vec![0; AHEAD_BYTES_MAX].into_boxed_slice(),
        start: 0,
        end: 0,
        ahead_bytes: AHEAD_BYTES_MAX,
    };
    loop {
        if let Err(problem) = read_frame(channel, &mut heads, &mut input).await {
            return problem.context(&channel.address);
        }
    }
}

async fn read_frame(channel: &Channel, heads: &mut Heads, input: &mut OwnedReadHalf) -> Result<()> {
    let prefix = heads.fill(input, PREFIX_BYTES).await?;
    let prefix: &[u8; PREFIX_BYTES] = prefix.try_into().expect("as many bytes as asked for");
    let prefix = Prefix::parse(prefix)?;
    let head_bytes = PREFIX_BYTES + prefix.header_bytes;
    heads.ahead_bytes = match prefix.payload_bytes {
        ..=COPIED_BYTES_MAX => AHEAD_BYTES_MAX,
        _ => head_bytes,
    };
    let head = heads.fill(input, head_bytes).await?;
    let frame = prefix.decode(&head[PREFIX_BYTES..])?;
    heads.start += head_bytes;
    channel.hear();
    let id = frame.stream;
    match (frame.message, channel.stream(id)) {
        (Message::Packet(packet), Some(Stream::Get(_))) => {
            read_packet(channel, heads, input, id, &packet, prefix.payload_bytes).await?;
        }
        (Message::Packet(_), _) => heads.skip(channel, input, prefix.payload_bytes).await?,
        (Message::Grant(bytes), Some(Stream::Put(put))) => put.grant(bytes),
        (Message::PutDone(done), Some(Stream::Put(put))) => {
            channel.ended(id);
            put.end(Ok(done));
        }
        (Message::Abort(abort), _) => channel.aborted(id, abort),
        (Message::Ping, _) => channel.send(0, Message::Pong, Bytes::new(), None),
        // Late words of a stream that was cancelled here.
        (Message::Grant(_) | Message::PutDone(_), None) | (Message::Pong, _) => {}
        (message, _) => {
            return Err(Problem::invalid(format!(
                "a frame out of place on stream {id}: {message:?}"
            )));
        }
    }
    Ok(())
}

async fn read_packet(
    channel: &Channel,
    heads: &mut Heads,
    input: &mut OwnedReadHalf,
    id: u32,
    packet: &Packet,
    payload_bytes: usize,
) -> Result<()> {
    let Some(Stream::Get(get)) = channel.stream(id) else {
        return heads.skip(channel, input, payload_bytes).await;
    };
    let fail = |trouble: Trouble| {
        channel.cancel(id);
        get.end(Err(Trouble {
            problem: trouble.problem.context(&channel.address),
            ..trouble
        }));
    };
    match get.expect(packet, payload_bytes) {
        Err(trouble) => {
            fail(trouble);
            heads.skip(channel, input, payload_bytes).await?;
        }
        Ok((mut buffer, at)) => {
            heads
                .read_payload(channel, input, &mut buffer[at..at + payload_bytes])
                .await?;
            match get.received(buffer, packet, payload_bytes) {
                Err(trouble) => fail(trouble),
                Ok(true) => {
                    channel.ended(id);
                    get.end(Ok(()));
                }
                Ok(false) => {}
            }
        }
    }
    Ok(())
}

impl Heads {
    fn waiting(&self) -> usize {
        self.end - self.start
    }

    /// The next `need` bytes, which stay here.
    async fn fill(&mut self, input: &mut OwnedReadHalf, need: usize) -> Result<&[u8]> {
        if self.waiting() < need {
            self.move_up();
            while self.end < need {
                let until = need.max(self.ahead_bytes);
                let read = input.read(&mut self.bytes[self.end..until]).await?;
                if read == 0 {
                    return Err(closed());
                }
                self.end += read;
            }
        }
        Ok(&self.bytes[self.start..self.start + need])
    }

    fn move_up(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// Fills `payload`, and with the same calls what is probably the next head.
    async fn read_payload(
        &mut self,
        channel: &Channel,
        input: &OwnedReadHalf,
        payload: &mut [u8],
    ) -> Result<()> {
        let here = self.waiting().min(payload.len());
        payload[..here].copy_from_slice(&self.bytes[self.start..self.start + here]);
        self.start += here;
        let mut filled = here;
        if filled == payload.len() {
            return Ok(());
        }
        // All that had been waiting is in the payload now.
        (self.start, self.end) = (0, 0);
        while filled < payload.len() {
            input.readable().await?;
            let rest = payload.len() - filled;
            let head = &mut self.bytes[..self.ahead_bytes];
            let mut into = [IoSliceMut::new(&mut payload[filled..]), IoSliceMut::new(head)];
            match input.try_read_vectored(&mut into) {
                Ok(0) => return Err(closed()),
                Ok(read) => {
                    filled += read.min(rest);
                    self.end = read.saturating_sub(rest);
                    if filled < payload.len() {
                        // Of a long payload over a slow line each part is a sign of life.
                        channel.hear();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn skip(
        &mut self,
        channel: &Channel,
        input: &mut OwnedReadHalf,
        payload_bytes: usize,
    ) -> Result<()> {
        let mut waste = vec![0; payload_bytes.min(WASTE_BYTES)];
        let mut left = payload_bytes;
        while left > 0 {
            let piece = left.min(WASTE_BYTES);
            self.read_payload(channel, input, &mut waste[..piece]).await?;
            left -= piece;
        }
        Ok(())
    }
}

fn closed() -> Problem {
    Problem::new(ProblemKind::Retry, "the volume closed the connection")
}
