//! A stream that writes one block through the chain whose head this channel reaches.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use blockyard_engine::limits::{PACKET_BYTES_MAX, UNIT_BYTES};
use blockyard_wire::frame::{EAGER_BYTES_MAX, Message, Packet, Put, PutDone};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Trouble;
use super::connection::Stream;
use super::patience::{Deadlines, Guard, Patience};
use super::pool::Opened;
use crate::trace::PutSpans;

/// What the reader is told and the caller waits for.
pub struct PutState {
    /// Payload bytes that the head takes in all.
    granted: Cell<usize>,
    outcome: RefCell<Option<Result<PutDone, Trouble>>>,
    progress: Cell<Instant>,
    begun: Instant,
    granted_at: Cell<Option<Instant>>,
    sent_at: Cell<Option<Instant>>,
    changed: Notify,
}

impl PutState {
    pub fn grant(&self, bytes: u32) {
        self.granted.set(self.granted.get().max(bytes as usize));
        self.granted_at.set(Some(Instant::now()));
        self.touch();
        self.changed.notify_one();
    }

    pub fn touch(&self) {
        self.progress.set(Instant::now());
    }

    /// Bytes of it have gone to the socket now.
    pub fn sent(&self, now: Instant) {
        self.progress.set(now);
        self.sent_at.set(Some(now));
    }

    fn spans(&self) -> PutSpans {
        let after = |at: &Cell<Option<Instant>>| at.get().map_or(Duration::ZERO, |at| at - self.begun);
        PutSpans {
            begun: self.begun.into_std(),
            granted: after(&self.granted_at),
            sent: after(&self.sent_at),
            done: self.begun.elapsed(),
        }
    }

    pub fn end(&self, outcome: Result<PutDone, Trouble>) {
        self.outcome.borrow_mut().get_or_insert(outcome);
        self.changed.notify_one();
    }
}

impl Opened {
    /// Sends `data` (all of the block, with the CRC of each unit) and waits until the chain says done.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn put(
        &self,
        mut put: Put,
        data: &Bytes,
        unit_crcs: &[u32],
        deadlines: Deadlines,
    ) -> Result<(PutDone, PutSpans), Trouble> {
        let channel = &*self.channel;
        let _permit = channel.permits.clone().acquire_owned().await;
        let state = Rc::new(PutState {
            granted: Cell::new(0),
            outcome: RefCell::new(None),
            progress: Cell::new(Instant::now()),
            begun: Instant::now(),
            granted_at: Cell::new(None),
            sent_at: Cell::new(None),
            changed: Notify::new(),
        });
        // A short block goes along unasked. Where there is no buffer for it, it is granted later, and sent again.
        let mut payload = Bytes::new();
        if data.len() <= EAGER_BYTES_MAX {
            put.unit_crcs = unit_crcs.to_vec();
            payload = data.clone();
        }
        let of = Some(state.clone());
        let stream = channel.open(Stream::Put(state.clone()), Message::Put(put), payload, of)?;
        let _guard = Guard { channel, stream };
        let patience = Patience::new(channel, deadlines);
        let mut sent = 0;
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome.map(|done| (done, state.spans()));
            }
            while let Some(bytes) = next_packet(sent, state.granted.get(), data.len()) {
                let end = sent + bytes;
                let packet = Packet {
                    offset: sent as u32,
                    unit_crcs: unit_crcs[sent / UNIT_BYTES..end.div_ceil(UNIT_BYTES)].to_vec(),
                    last: end == data.len(),
                    spans: None,
                };
                channel.send(
                    stream,
                    Message::Packet(packet),
                    data.slice(sent..end),
                    Some(state.clone()),
                );
                sent = end;
            }
            patience
                .wait(&state.changed, &state.progress, || {
                    state.outcome.borrow().is_some()
                })
                .await?;
        }
    }
}

/// Bytes of the next packet of a block of `length` bytes: whole units as far as they are granted.
fn next_packet(sent: usize, granted: usize, length: usize) -> Option<usize> {
    let until = match granted {
        all if all >= length => length,
        part => part / UNIT_BYTES * UNIT_BYTES,
    };
    (until > sent).then(|| (until - sent).min(PACKET_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(granted: usize, length: usize) -> Vec<usize> {
        let mut sent = 0;
        let mut all = Vec::new();
        while let Some(bytes) = next_packet(sent, granted, length) {
            all.push(bytes);
            sent += bytes;
        }
        all
    }

    #[test]
    fn packets_are_whole_units_within_the_grant() {
        let (unit, packet) = (UNIT_BYTES, PACKET_BYTES_MAX);
        assert_eq!(packets(0, 10), []);
        assert_eq!(packets(9, 10), []);
        assert_eq!(packets(10, 10), [10]);
        assert_eq!(packets(packet + 1, packet + 1), [packet, 1]);
        assert_eq!(packets(unit + 5, packet), [unit]);
        assert_eq!(packets(usize::MAX, 3 * packet), [packet; 3]);
    }
}
