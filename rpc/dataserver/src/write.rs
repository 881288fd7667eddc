//! Serving a Put: one hop of a chain. Each packet is verified and sent on at once; the answer comes when the
//! block is durable here and on every hop behind.
//!
//! A hop takes its own buffer before it asks the next one, so buffers are only waited for towards the tail.
//! A block of one unit comes with its Put, unasked: a hop that has a buffer takes it, and passes it on in the same
//! way; one that has none skips it, and grants later, as for a long block.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use blockyard_engine::{self as engine, BlockBuffer, Chunk, Lane, Receipt};
use blockyard_wire::frame::{Abort, HopSpans, Message, Packet, Put, PutDone, Role};
use blockyard_wire::ticket::{Claim, Operation, now_unix_ms};
use blockyard_wire::types::VolumeId;
use blockyard_wire::{Problem, ProblemKind};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};

use crate::connection::Connection;
use crate::error::problem_of;
use crate::frames::Sink;
use crate::link::{Link, Route};
use crate::node::Node;
use crate::positions::Place;
use crate::signal::{Signal, within};

/// A Put that is being served.
pub(crate) struct PutStream {
    stream: u32,
    put: Put,
    asked: Instant,
    spans: Cell<HopSpans>,
    state: RefCell<State>,
    signal: Signal,
}

#[derive(Default)]
struct State {
    /// Being filled; taken away for storing, or when the write has failed.
    buffer: Option<BlockBuffer>,
    /// The block came with its Put, and there was a buffer for it.
    eager: bool,
    /// The right to the buffer.
    place: Option<Place>,
    received_bytes: u32,
    stored: Option<Receipt>,
    /// The first failure; nothing goes on after it.
    failed: Option<Abort>,
    /// The predecessor has given up: it wants no answer.
    cancelled: bool,
    /// Verified packets from before the way to the next hop is there.
    early: Vec<(Packet, Bytes)>,
    behind: Option<Behind>,
}

/// The way to the next hop.
struct Behind {
    link: Rc<Link>,
    stream: u32,
    granted: bool,
    /// Verified packets that wait for the grant; of a block that was sent unasked it may never come.
    waiting: Vec<(Packet, Bytes)>,
    done: Option<PutDone>,
}

impl PutStream {
    pub fn new(stream: u32, put: Put) -> Self {
        Self {
            stream,
            put,
            asked: Instant::now(),
            spans: Cell::default(),
            state: RefCell::default(),
            signal: Signal::default(),
        }
    }

    /// Notes when something was reached.
    fn reached(&self, note: impl FnOnce(&mut HopSpans, u32)) {
        let mut spans = self.spans.get();
        note(&mut spans, self.asked.elapsed().as_micros() as u32);
        self.spans.set(spans);
    }

    /// The predecessor no longer wants it.
    pub fn cancel(&self) {
        self.state.borrow_mut().cancelled = true;
        self.fail(Abort {
            problem: Problem::retry("the write was cancelled"),
            blame: VolumeId::default(),
        });
    }

    /// The next hop has a buffer.
    pub fn granted(&self, bytes: u32) {
        let mut state = self.state.borrow_mut();
        if let Some(behind) = &mut state.behind
            && bytes >= self.put.length
        {
            behind.granted = true;
            for (packet, payload) in std::mem::take(&mut behind.waiting) {
                behind
                    .link
                    .outbox
                    .push(behind.stream, Message::Packet(packet), payload);
            }
        }
    }

    /// All hops behind have the block.
    pub fn done_behind(&self, done: PutDone) {
        self.reached(|spans, us| spans.behind_us = us);
        if let Some(behind) = &mut self.state.borrow_mut().behind {
            behind.done = Some(done);
        }
        self.signal.notify();
    }

    /// A hop behind has failed. Whoever fails without naming another is to blame itself.
    pub fn failed_behind(&self, abort: Abort) {
        let blame = if abort.blame.is_zero() {
            self.successor()
        } else {
            abort.blame
        };
        self.fail(Abort {
            problem: abort.problem,
            blame,
        });
    }

    fn successor(&self) -> VolumeId {
        self.put.chain.get(1).map(|hop| hop.volume).unwrap_or_default()
    }

    fn fail(&self, abort: Abort) {
        let dropped = {
            let mut state = self.state.borrow_mut();
            state.failed.get_or_insert(abort);
            state.buffer.take()
        };
        drop(dropped);
        self.signal.notify();
    }

    /// `future`, unless the write fails first; it is dropped then.
    async fn unless_failed<T>(&self, future: impl Future<Output = T>) -> Result<T, Abort> {
        let failed = pin!(self.signal.until(|| self.state.borrow().failed.clone()));
        match select(failed, pin!(future)).await {
            Either::Left((abort, _)) => Err(abort),
            Either::Right((value, _)) => Ok(value),
        }
    }
}

/// Serves one Put to its end.
pub(crate) async fn serve(node: Rc<Node>, connection: Rc<Connection>, put: Rc<PutStream>) {
    let _in_flight = node.begin();
    node.asked_by_client();
    let head = connection.role == Role::Client;
    let passing = node.flows.begin(connection.peer, head, put.successor());
    let outcome = put.run(&node, &connection).await;
    connection.close(put.stream);
    if outcome.is_ok() {
        let HopSpans {
            durable_us,
            behind_us,
            ..
        } = put.spans.get();
        passing.done(put.put.length, behind_us.saturating_sub(durable_us));
    }
    let (behind, _place) = {
        let mut state = put.state.borrow_mut();
        (state.behind.take(), state.place.take())
    };
    match outcome {
        Ok(done) => connection.outbox.say(put.stream, Message::PutDone(done)),
        Err(abort) => {
            tracing::debug!(volume = %node.id, block = %put.put.block, "write failed: {}", abort.problem);
            put.fail(abort.clone());
            if let Some(behind) = behind {
                behind.link.close(behind.stream);
            }
            if !put.state.borrow().cancelled {
                connection.outbox.say(put.stream, Message::Abort(abort));
            }
        }
    }
}

impl PutStream {
    async fn run(self: &Rc<Self>, node: &Rc<Node>, connection: &Connection) -> Result<PutDone, Abort> {
        self.check(node).map_err(|problem| Abort {
            problem,
            blame: VolumeId::default(),
        })?;
        let eager = self.state.borrow().eager;
        if !eager {
            let acquired = self.unless_failed(self.acquire(node)).await??;
            self.hold(acquired);
            connection
                .outbox
                .say(self.stream, Message::Grant(self.put.length));
            self.go_on(node);
        }
        self.fill(node).await?;
        if eager {
            // With its bytes, as it came.
            self.go_on(node);
        }
        self.store(node);
        self.finish(node).await
    }

    /// A buffer for the block that comes with its Put, if there is one at this moment.
    pub fn take_eager(&self, node: &Node) -> bool {
        let acquired = self
            .check(node)
            .ok()
            .and_then(|()| self.place_and_buffer(node).now_or_never());
        let Some(Ok(acquired)) = acquired else {
            return false;
        };
        self.hold(acquired);
        self.state.borrow_mut().eager = true;
        true
    }

    fn hold(&self, (buffer, place): (BlockBuffer, Option<Place>)) {
        self.reached(|spans, us| spans.granted_us = us);
        let mut state = self.state.borrow_mut();
        state.buffer = Some(buffer);
        state.place = place;
    }

    /// Sends the Put on, aside, because packets are taken in meanwhile. It ends early when the write fails.
    fn go_on(self: &Rc<Self>, node: &Rc<Node>) {
        if self.put.chain.len() > 1 {
            let (node, put) = (node.clone(), self.clone());
            monoio::spawn(async move {
                let _ = put.unless_failed(put.extend(&node)).await;
            });
        }
    }

    fn check(&self, node: &Node) -> blockyard_wire::Result<()> {
        let own = &self.put.chain[0];
        if own.volume != node.id {
            return Err(Problem::invalid(format!(
                "this is volume {}, not {}; the nameserver's address for it is out of date",
                node.id, own.volume
            )));
        }
        let claim = Claim {
            operation: Operation::Write,
            block: self.put.block,
            volume: node.id,
            hop: self.put.position,
            length: self.put.length,
        };
        node.keys.check(&own.ticket, &claim, now_unix_ms())
    }

    /// A buffer of the lane that belongs to the position, with the right to it.
    async fn acquire(&self, node: &Node) -> Result<(BlockBuffer, Option<Place>), Abort> {
        let problem = match within(node.deadlines.buffer_ms, self.place_and_buffer(node)).await {
            Some(Ok(acquired)) => return Ok(acquired),
            Some(Err(error)) => problem_of(&error),
            None => Problem::new(
                ProblemKind::Busy,
                format!("volume {} has no buffer free for writing; use another", node.id),
            ),
        };
        Err(Abort {
            problem,
            blame: node.id,
        })
    }

    async fn place_and_buffer(&self, node: &Node) -> engine::Result<(BlockBuffer, Option<Place>)> {
        let length = self.put.length;
        Ok(match self.put.position {
            0 => (node.volume.acquire(Lane::Head, length).await?, None),
            later => {
                let place = node.positions.enter(later, length).await;
                (node.volume.acquire(Lane::Next, length).await?, Some(place))
            }
        })
    }

    /// Sends the Put on to the next hop, with the block where it came so.
    async fn extend(self: &Rc<Self>, node: &Rc<Node>) {
        let next = &self.put.chain[1];
        let problem = match node.links.get(node, &next.address, self.put.position).await {
            Err(problem) => problem,
            Ok(link) => {
                let payload = match &*self.state.borrow() {
                    state if state.eager => state.early.first().map(|(_, payload)| payload.clone()),
                    _ => None,
                };
                let put = Put {
                    position: self.put.position + 1,
                    chain: self.put.chain[1..].to_vec(),
                    unit_crcs: payload
                        .as_ref()
                        .map_or_else(Vec::new, |_| self.put.unit_crcs.clone()),
                    ..self.put.clone()
                };
                let open = link.open(
                    Route::Put(self.clone()),
                    Message::Put(put),
                    payload.unwrap_or_default(),
                );
                match within(node.deadlines.buffer_ms, open).await {
                    Some(Ok(stream)) => return self.attach(link.clone(), stream),
                    Some(Err(problem)) => problem,
                    None => Problem::new(
                        ProblemKind::Busy,
                        format!("too many writes are on their way to {}", next.address),
                    ),
                }
            }
        };
        self.failed_behind(Abort {
            problem,
            blame: VolumeId::default(),
        });
    }

    fn attach(&self, link: Rc<Link>, stream: u32) {
        let mut state = self.state.borrow_mut();
        let waiting = std::mem::take(&mut state.early);
        state.behind = Some(Behind {
            link,
            stream,
            granted: false,
            waiting,
            done: None,
        });
    }

    /// Waits until every byte has arrived and been verified.
    async fn fill(&self, node: &Node) -> Result<(), Abort> {
        loop {
            let before = self.state.borrow().received_bytes;
            let complete = self.signal.until(|| {
                let state = self.state.borrow();
                match &state.failed {
                    Some(abort) => Some(Err(abort.clone())),
                    None => (state.received_bytes == self.put.length).then_some(Ok(())),
                }
            });
            match within(node.deadlines.progress_ms, complete).await {
                Some(outcome) => return outcome,
                None if self.state.borrow().received_bytes > before => {}
                None => {
                    return Err(Abort {
                        problem: Problem::retry("the block's bytes stopped coming"),
                        blame: VolumeId::default(),
                    });
                }
            }
        }
    }

    /// Makes the block durable, aside: what has begun is finished, whatever the hops behind say.
    fn store(self: &Rc<Self>, node: &Rc<Node>) {
        let Some(buffer) = self.state.borrow_mut().buffer.take() else {
            return;
        };
        let (node, put) = (node.clone(), self.clone());
        monoio::spawn(async move {
            let _in_flight = node.begin();
            match node.volume.put(put.put.block, put.put.origin, buffer).await {
                Ok(receipt) => {
                    let written_us = receipt.written_after.as_micros() as u32;
                    put.reached(|spans, us| {
                        spans.durable_us = us;
                        spans.written_us = spans.received_us + written_us;
                        node.times.write.took(u64::from(written_us));
                        node.times
                            .flush
                            .took(u64::from(us.saturating_sub(spans.written_us)));
                    });
                    put.state.borrow_mut().stored = Some(receipt);
                    put.signal.notify();
                }
                Err(error) => put.fail(Abort {
                    problem: problem_of(&error),
                    blame: node.id,
                }),
            }
        });
    }

    /// Waits for the own disk and the hops behind.
    async fn finish(&self, node: &Node) -> Result<PutDone, Abort> {
        let hops = self.put.chain.len();
        let both = self.signal.until(|| {
            let mut state = self.state.borrow_mut();
            if let Some(abort) = &state.failed {
                return Some(Err(abort.clone()));
            }
            let receipt = state.stored?;
            let behind = match &mut state.behind {
                Some(behind) => Some(behind.done.take()?),
                None if hops > 1 => return None,
                None => None,
            };
            Some(Ok((receipt, behind)))
        });
        // Each hop waits longer than those behind it, so that the one that hangs is the one that is blamed.
        let (receipt, behind) = match within(node.deadlines.answer_ms * hops as u64, both).await {
            Some(outcome) => outcome?,
            None => return Err(self.overdue(node)),
        };
        let own = node
            .keys
            .prove(self.put.block, receipt.length, receipt.crc32c, node.id);
        let mut proofs = vec![own];
        let mut spans = vec![self.spans.get()];
        if let Some(done) = behind {
            if (done.length, done.crc32c, done.proofs.len()) != (receipt.length, receipt.crc32c, hops - 1) {
                return Err(Abort {
                    problem: Problem::new(
                        ProblemKind::Corrupt,
                        format!("volume {} stored other bytes than it was sent", self.successor()),
                    ),
                    blame: self.successor(),
                });
            }
            proofs.extend(done.proofs);
            spans.extend(done.spans);
        }
        Ok(PutDone {
            length: receipt.length,
            crc32c: receipt.crc32c,
            proofs,
            spans,
        })
    }

    fn overdue(&self, node: &Node) -> Abort {
        let blame = if self.state.borrow().stored.is_some() {
            self.successor()
        } else {
            node.id
        };
        Abort {
            problem: Problem::retry(format!("volume {blame} does not make the block durable in time")),
            blame,
        }
    }
}

impl Sink for PutStream {
    fn place(&self, packet: &Packet, payload_bytes: usize) -> Option<Chunk> {
        let placed = {
            let mut state = self.state.borrow_mut();
            if state.failed.is_some() {
                return None;
            }
            let (received, length) = (state.received_bytes, self.put.length);
            let ends = received as usize + payload_bytes == length as usize;
            match &mut state.buffer {
                _ if packet.offset != received || packet.last != ends => {
                    Err("packets are to come in order, the last one marked".to_owned())
                }
                None => Err("a packet before its grant, or behind the last one".to_owned()),
                Some(buffer) => buffer
                    .take_chunk(payload_bytes as u32)
                    .map_err(|error| error.to_string()),
            }
        };
        placed
            .map_err(|why| {
                self.fail(Abort {
                    problem: Problem::invalid(why),
                    blame: VolumeId::default(),
                });
            })
            .ok()
    }

    fn filled(&self, packet: Packet, chunk: Chunk) {
        let payload_bytes = chunk.len() as u32;
        let committed = {
            let mut state = self.state.borrow_mut();
            match &mut state.buffer {
                // Failed meanwhile.
                None => return,
                Some(buffer) => buffer.commit(chunk, &packet.unit_crcs),
            }
        };
        match committed {
            Ok(payload) => self.verified(packet, payload, payload_bytes),
            Err(error) => self.fail(Abort {
                problem: problem_of(&error),
                // The link is to blame; the sender knows its own side of it.
                blame: self.put.chain[0].volume,
            }),
        }
    }
}

impl PutStream {
    fn verified(&self, packet: Packet, payload: Bytes, payload_bytes: u32) {
        let mut state = self.state.borrow_mut();
        state.received_bytes += payload_bytes;
        let complete = state.received_bytes == self.put.length;
        if self.put.chain.len() > 1 {
            match &mut state.behind {
                Some(behind) if behind.granted => {
                    behind
                        .link
                        .outbox
                        .push(behind.stream, Message::Packet(packet), payload);
                }
                Some(behind) => behind.waiting.push((packet, payload)),
                None => state.early.push((packet, payload)),
            }
        }
        drop(state);
        if complete {
            self.reached(|spans, us| spans.received_us = us);
            self.signal.notify();
        }
    }
}
