//! A stream that reads whole checksum units of one block.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use blockyard_engine::checksum;
use blockyard_engine::limits::UNIT_BYTES;
use blockyard_wire::ProblemKind;
use blockyard_wire::frame::{Get, GetSpans, Message, Packet};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Trouble;
use super::connection::Stream;
use super::patience::{Deadlines, Guard, Patience};
use super::pool::Opened;
use crate::buffers::Buffer;

/// Verified units of a block.
pub struct Fetched {
    /// The units, from the buffer's start on.
    pub buffer: Buffer,
    /// Where the first unit lies in its block, bytes.
    pub start: usize,
    /// Bytes of the units.
    pub bytes: usize,
    /// The CRC32C of each.
    pub unit_crcs: Vec<u32>,
    /// How long it took.
    pub times: FetchTimes,
}

/// What a get saw of its own time.
#[derive(Clone, Copy, Debug)]
pub struct FetchTimes {
    /// When it had a free stream: the rest counts from here.
    pub begun: Instant,
    /// Until the first packet's head was there.
    pub answered: Duration,
    /// Until all was there and verified.
    pub done: Duration,
    /// Of that: the checksums.
    pub checksum: Duration,
    /// What the volume tells.
    pub volume: GetSpans,
}

/// What the reader fills and the caller waits for.
pub struct GetState {
    start: usize,
    end: usize,
    received: Cell<usize>,
    /// Away while the reader is filling it.
    buffer: RefCell<Option<Buffer>>,
    unit_crcs: RefCell<Vec<u32>>,
    outcome: RefCell<Option<Result<(), Trouble>>>,
    progress: Cell<Instant>,
    times: Cell<FetchTimes>,
    answered: Rc<Cell<bool>>,
    changed: Notify,
}

impl GetState {
    /// Lends the buffer for the payload of `packet`, whose place in it is returned too.
    pub fn expect(&self, packet: &Packet, payload_bytes: usize) -> Result<(Buffer, usize), Trouble> {
        let at = self.received.get();
        if packet.offset as usize != self.start + at || self.start + at + payload_bytes > self.end {
            return Err(Trouble::wrong(
                ProblemKind::OtherReplica,
                format!(
                    "a packet for byte {} where {} was expected",
                    packet.offset,
                    self.start + at
                ),
            ));
        }
        let now = Instant::now();
        self.progress.set(now);
        let mut times = self.times.get();
        if at == 0 {
            times.answered = now - times.begun;
            self.times.set(times);
            self.answered.set(true);
        }
        let buffer = self.buffer.take();
        let buffer = buffer.ok_or_else(|| Trouble::wrong(ProblemKind::Failed, "a packet within a packet"))?;
        Ok((buffer, at))
    }

    /// Verifies what has been received into the lent `buffer` and takes it back; whether all is there.
    pub fn received(&self, buffer: Buffer, packet: &Packet, payload_bytes: usize) -> Result<bool, Trouble> {
        let at = self.received.get();
        let arrived = Instant::now();
        let mut known = self.unit_crcs.borrow_mut();
        for (unit, &expected) in buffer[at..at + payload_bytes]
            .chunks(UNIT_BYTES)
            .zip(&packet.unit_crcs)
        {
            if checksum::crc(unit) != expected {
                let from = self.start + known.len() * UNIT_BYTES;
                return Err(Trouble::wrong(
                    ProblemKind::Corrupt,
                    format!("the 64 KiB from byte {from} on do not match their checksum"),
                ));
            }
            known.push(expected);
        }
        self.buffer.replace(Some(buffer));
        self.received.set(at + payload_bytes);
        let now = Instant::now();
        self.progress.set(now);
        let mut times = self.times.get();
        times.checksum += now - arrived;
        times.done = now - times.begun;
        times.volume = packet.spans.unwrap_or_default();
        self.times.set(times);
        let complete = self.start + at + payload_bytes == self.end;
        if packet.last && !complete {
            return Err(Trouble::wrong(
                ProblemKind::OtherReplica,
                format!("the answer ended after {} bytes", at + payload_bytes),
            ));
        }
        Ok(complete)
    }

    pub fn end(&self, outcome: Result<(), Trouble>) {
        self.outcome.borrow_mut().get_or_insert(outcome);
        self.changed.notify_one();
    }
}

/// The bytes of the whole units that `length` bytes from `offset` on touch of a block of `block_bytes`.
pub fn units_of(offset: u32, length: u32, block_bytes: u32) -> Range<usize> {
    let start = offset as usize / UNIT_BYTES * UNIT_BYTES;
    let end = (offset as usize + length as usize).next_multiple_of(UNIT_BYTES);
    start..end.min(block_bytes as usize)
}

impl Opened {
    /// Reads the units of a block of `block_bytes` that `get` touches, into `buffer`; `answered` is set as soon as the
    /// first of them come.
    ///
    /// # Errors
    /// See [`Trouble`]; the buffer is gone then.
    pub async fn get(
        &self,
        get: Get,
        block_bytes: u32,
        buffer: Buffer,
        deadlines: Deadlines,
        answered: Rc<Cell<bool>>,
    ) -> Result<Fetched, Trouble> {
        let channel = &*self.channel;
        let _permit = channel.permits.clone().acquire_owned().await;
        let begun = Instant::now();
        let Range { start, end } = units_of(get.offset, get.length, block_bytes);
        let state = Rc::new(GetState {
            start,
            end,
            received: Cell::new(0),
            buffer: RefCell::new(Some(buffer)),
            unit_crcs: RefCell::default(),
            outcome: RefCell::new(None),
            progress: Cell::new(begun),
            times: Cell::new(FetchTimes {
                begun,
                answered: Duration::ZERO,
                done: Duration::ZERO,
                checksum: Duration::ZERO,
                volume: GetSpans::default(),
            }),
            answered,
            changed: Notify::new(),
        });
        let stream = channel.open(Stream::Get(state.clone()), Message::Get(get), Bytes::new(), None)?;
        let _guard = Guard { channel, stream };
        let patience = Patience::new(channel, deadlines);
        loop {
            if let Some(outcome) = state.outcome.take() {
                outcome?;
                let buffer = state.buffer.take();
                return Ok(Fetched {
                    buffer: buffer
                        .ok_or_else(|| Trouble::wrong(ProblemKind::Failed, "the buffer is away"))?,
                    start,
                    bytes: end - start,
                    unit_crcs: state.unit_crcs.take(),
                    times: state.times.get(),
                });
            }
            patience
                .wait(&state.changed, &state.progress, || {
                    state.outcome.borrow().is_some()
                })
                .await?;
        }
    }
}
