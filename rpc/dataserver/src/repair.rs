//! Pulling a block from another volume: a Get with a copy ticket, verified and put like any other block.

use std::cell::RefCell;
use std::rc::Rc;

use blockyard_engine::limits::PIECE_BYTES;
use blockyard_engine::{BlockBuffer, Chunk, Lane, ReplicaState};
use blockyard_wire::frame::{Get, Message, Packet};
use blockyard_wire::types::{BlockId, Hop, Origin, ReplicaProof};
use blockyard_wire::{Problem, ProblemKind, Result};
use bytes::Bytes;

use crate::error::problem_of;
use crate::frames::Sink;
use crate::link::{Link, REPAIR, Route};
use crate::node::Node;
use crate::signal::{Signal, within};

/// What is to be copied, from where.
pub(crate) struct Order {
    pub block: BlockId,
    pub origin: Origin,
    pub length: u32,
    pub crc32c: u32,
    pub source: Hop,
    /// Whether clients are about, here or at the source.
    pub beside_clients: bool,
}

/// A block on its way here.
pub(crate) struct Pull {
    state: RefCell<State>,
    signal: Signal,
}

struct State {
    buffer: Option<BlockBuffer>,
    received_bytes: u32,
    /// Where the piece ends that is asked for.
    asked_bytes: u32,
    failed: Option<Problem>,
}

/// Closes the stream at the source unless it has ended.
struct Asked {
    link: Rc<Link>,
    stream: u32,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.link.close(self.stream);
    }
}

/// Copies one block here; it is durable when this returns.
pub(crate) async fn copy(node: &Rc<Node>, order: Order) -> Result<ReplicaProof> {
    let proof = || node.keys.prove(order.block, order.length, order.crc32c, node.id);
    if let Some(known) = node.volume.lookup(order.block)
        && known.state == ReplicaState::Live
        && (known.length, known.crc32c) == (order.length, order.crc32c)
    {
        return Ok(proof());
    }
    let buffer = within(
        node.deadlines.buffer_ms,
        node.volume.acquire(Lane::Repair, order.length),
    )
    .await
    .ok_or_else(|| {
        Problem::new(
            ProblemKind::Busy,
            format!("volume {} is busy with other repairs", node.id),
        )
    })?
    .map_err(|error| problem_of(&error))?;
    let buffer = pull(node, &order, buffer).await?;
    if buffer.crc32c() != Some(order.crc32c) {
        return Err(Problem::new(
            ProblemKind::Corrupt,
            format!(
                "block {} of volume {} is not the one that is wanted",
                order.block, order.source.volume
            ),
        ));
    }
    let put = match order.beside_clients {
        true => node.volume.put_in_pieces(order.block, order.origin, buffer).await,
        false => node.volume.put(order.block, order.origin, buffer).await,
    };
    let receipt = put.map_err(|error| problem_of(&error))?;
    tracing::info!(volume = %node.id, block = %order.block, from = %order.source.volume, bytes = receipt.length, "copied a block");
    Ok(proof())
}

async fn pull(node: &Rc<Node>, order: &Order, buffer: BlockBuffer) -> Result<BlockBuffer> {
    let source = &order.source;
    let pull = Rc::new(Pull {
        state: RefCell::new(State {
            buffer: Some(buffer),
            received_bytes: 0,
            asked_bytes: 0,
            failed: None,
        }),
        signal: Signal::default(),
    });
    let late = || {
        Problem::retry(format!(
            "volume {} at {} does not send block {} in time",
            source.volume, source.address, order.block
        ))
    };
    let link = node.links.get(node, &source.address, REPAIR).await?;
    let piece_bytes = match order.beside_clients {
        true => PIECE_BYTES as u32,
        false => order.length,
    };
    for offset in (0..order.length).step_by(piece_bytes as usize) {
        let get = Get {
            block: order.block,
            offset,
            length: piece_bytes.min(order.length - offset),
            ticket: source.ticket.clone(),
        };
        pull.state.borrow_mut().asked_bytes = offset + get.length;
        let open = link.open(Route::Pull(pull.clone()), Message::Get(get), Bytes::new());
        let stream = within(node.deadlines.buffer_ms, open).await.ok_or_else(late)??;
        let _asked = Asked {
            link: link.clone(),
            stream,
        };
        loop {
            let before = pull.state.borrow().received_bytes;
            match within(node.deadlines.progress_ms, pull.arrival()).await {
                Some(arrived) => break arrived?,
                None if pull.state.borrow().received_bytes > before => {}
                None => return Err(late()),
            }
        }
    }
    let buffer = pull.state.borrow_mut().buffer.take();
    Ok(buffer.expect("a pull has its buffer until it has ended"))
}

impl Pull {
    /// Nothing more comes.
    pub fn fail(&self, problem: Problem) {
        self.state.borrow_mut().failed.get_or_insert(problem);
        self.signal.notify();
    }

    /// The end of the piece that is asked for.
    async fn arrival(&self) -> Result<()> {
        self.signal
            .until(|| {
                let state = self.state.borrow();
                match &state.failed {
                    Some(problem) => Some(Err(problem.clone())),
                    None => (state.received_bytes == state.asked_bytes).then_some(Ok(())),
                }
            })
            .await
    }
}

impl Sink for Pull {
    fn place(&self, packet: &Packet, payload_bytes: usize) -> Option<Chunk> {
        let placed = {
            let mut state = self.state.borrow_mut();
            let ends = state.received_bytes as usize + payload_bytes == state.asked_bytes as usize;
            let in_order = packet.offset == state.received_bytes && packet.last == ends;
            match &mut state.buffer {
                Some(buffer) if in_order => buffer
                    .take_chunk(payload_bytes as u32)
                    .map_err(|error| problem_of(&error)),
                _ => Err(Problem::invalid("the source sends another length than is wanted")),
            }
        };
        placed.map_err(|problem| self.fail(problem)).ok()
    }

    fn filled(&self, packet: Packet, chunk: Chunk) {
        let payload_bytes = chunk.len() as u32;
        let committed = {
            let mut state = self.state.borrow_mut();
            let Some(buffer) = &mut state.buffer else { return };
            let committed = buffer.commit(chunk, &packet.unit_crcs);
            if committed.is_ok() {
                state.received_bytes += payload_bytes;
            }
            committed
        };
        match committed {
            Ok(_) => self.signal.notify(),
            Err(error) => self.fail(problem_of(&error)),
        }
    }
}
