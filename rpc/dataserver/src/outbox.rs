//! What waits to be written to a connection, and the task that writes it.
//!
//! Payloads are slices of pool buffers, so the pools bound them; frames without payload are bounded here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use blockyard_wire::frame::{Frame, Message};
use bytes::Bytes;
use monoio::io::AsyncWriteRent as _;
use monoio::net::tcp::TcpOwnedWriteHalf;

use crate::buf::{Batch, Out};
use crate::signal::Signal;

/// Frames that may wait; a peer that makes more than this and reads none is cut off.
const FRAMES_MAX: usize = 4096;
/// Frames and bytes of one gathering write.
const BATCH_FRAMES: usize = 16;
const BATCH_BYTES: usize = 1 << 20;

/// Frames waiting to be written.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: RefCell<VecDeque<Out>>,
    closed: Cell<bool>,
    signal: Signal,
    /// Since when a write has made no progress.
    stalled_since: Cell<Option<Instant>>,
}

impl Outbox {
    /// Queues a frame; nothing happens once the connection is gone.
    pub fn push(&self, stream: u32, message: Message, payload: Bytes) {
        if self.closed.get() {
            return;
        }
        let head = Frame { stream, message }.encode(payload.len());
        self.queue.borrow_mut().push_back(Out {
            stream,
            head,
            payload,
        });
        self.signal.notify();
    }

    /// Queues a frame without payload.
    pub fn say(&self, stream: u32, message: Message) {
        self.push(stream, message, Bytes::new());
    }

    /// Queues a frame without payload before all that waits.
    pub fn say_first(&self, stream: u32, message: Message) {
        if self.closed.get() {
            return;
        }
        let head = Frame { stream, message }.encode(0);
        self.queue.borrow_mut().push_front(Out {
            stream,
            head,
            payload: Bytes::new(),
        });
        self.signal.notify();
    }

    /// Drops what waits of a stream, so that its buffers return.
    pub fn purge(&self, stream: u32) {
        self.queue.borrow_mut().retain(|out| out.stream != stream);
    }

    /// Whether the peer lets more frames pile up than any honest one.
    pub fn is_flooded(&self) -> bool {
        self.queue.borrow().len() > FRAMES_MAX
    }

    /// Since when a write has made no progress.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since.get()
    }

    /// Drops all that waits and ends the writer.
    pub fn close(&self) {
        self.closed.set(true);
        self.queue.borrow_mut().clear();
        self.signal.notify();
    }

    /// Whether nothing waits and nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty() && self.stalled_since.get().is_none()
    }

    /// Writes what comes until the outbox is closed or the connection lost.
    pub async fn write_all(self: Rc<Self>, mut half: TcpOwnedWriteHalf) -> io::Result<()> {
        let mut batch = Batch::default();
        while self.fill(&mut batch).await {
            self.stalled_since.set(Some(Instant::now()));
            while !batch.is_empty() && !self.closed.get() {
                batch.describe();
                let (written, returned) = half.writev(batch).await;
                batch = returned;
                match written {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written_bytes) => batch.advance(written_bytes),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                self.stalled_since.set(Some(Instant::now()));
            }
            self.stalled_since.set(None);
        }
        Ok(())
    }

    /// Waits for frames and moves some into the empty batch; `false` once closed.
    async fn fill(&self, batch: &mut Batch) -> bool {
        self.signal
            .until(|| {
                if self.closed.get() {
                    return Some(false);
                }
                let mut queue = self.queue.borrow_mut();
                let (mut frames, mut bytes) = (0, 0);
                while frames < BATCH_FRAMES
                    && bytes < BATCH_BYTES
                    && let Some(out) = queue.pop_front()
                {
                    frames += 1;
                    bytes += out.len();
                    batch.push(out);
                }
                (frames > 0).then_some(true)
            })
            .await
    }
}
