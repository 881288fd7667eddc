//! Serving a Get: verified units from the disk, out of the pool buffer, to the socket.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use blockyard_engine as engine;
use blockyard_engine::checksum;
use blockyard_engine::limits::{PACKET_BYTES_MAX, UNIT_BYTES};
use blockyard_engine::{GetTimes, Lane, Verified};
use blockyard_wire::frame::{Abort, Get, GetSpans, Message, Packet, Role};
use blockyard_wire::ticket::{Claim, Operation, now_unix_ms};
use blockyard_wire::{Problem, ProblemKind};
use futures_util::future::{Either, select};

use crate::connection::Connection;
use crate::error::{kind_of, problem_of};
use crate::node::Node;
use crate::outbox::Outbox;
use crate::signal::{Signal, within};

/// A Get that is being served.
pub(crate) struct GetStream {
    stream: u32,
    get: Get,
    cancelled: Cell<bool>,
    signal: Signal,
    asked: Instant,
}

impl GetStream {
    pub fn new(stream: u32, get: Get) -> Self {
        Self {
            stream,
            get,
            cancelled: Cell::new(false),
            signal: Signal::default(),
            asked: Instant::now(),
        }
    }

    /// Where the time went, of which the volume tells the end; before it, the Get waited for its turn.
    fn spans(&self, times: GetTimes) -> GetSpans {
        let before = self.asked.elapsed().saturating_sub(times.checked);
        let until = |time: Duration| (before + time).as_micros() as u32;
        GetSpans {
            buffer_us: until(times.buffer),
            read_us: until(times.read),
            checked_us: until(times.checked),
        }
    }

    /// The peer no longer wants it.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        self.signal.notify();
    }
}

/// Answers one Get.
pub(crate) async fn serve(node: Rc<Node>, connection: Rc<Connection>, asked: Rc<GetStream>) {
    let _in_flight = node.begin();
    if connection.role == Role::Client {
        node.asked_by_client();
    }
    let cancelled = pin!(asked.signal.until(|| asked.cancelled.get().then_some(())));
    let found = match select(cancelled, pin!(find(&node, connection.role, &asked.get))).await {
        Either::Left(_) => None,
        Either::Right((found, _)) => Some(found),
    };
    connection.close(asked.stream);
    match found {
        None => {}
        Some(Ok(verified)) => {
            let spans = asked.spans(verified.times);
            node.times.read.took(u64::from(spans.read_us));
            send(&connection.outbox, asked.stream, &verified, spans);
        }
        Some(Err(abort)) => connection.outbox.say(asked.stream, Message::Abort(abort)),
    }
}

async fn find(node: &Node, role: Role, get: &Get) -> Result<Verified, Abort> {
    let abort = |problem| Abort {
        problem,
        blame: node.id,
    };
    check(node, role, get).map_err(abort)?;
    let (volume, block) = (&node.volume, get.block);
    let read = async {
        match role {
            Role::Client => volume.get(block, get.offset, get.length, Lane::Read).await,
            Role::Dataserver => volume.get_past_cache(block, get.offset, get.length).await,
        }
    };
    match within(node.deadlines.buffer_ms, read).await {
        Some(Ok(verified)) => Ok(verified),
        Some(Err(error)) => {
            if matches!(error, engine::Error::Corrupt { .. }) {
                node.report_damaged(get.block);
            }
            let kind = match kind_of(&error) {
                // Whatever is wrong here, another volume has the block.
                ProblemKind::Failed | ProblemKind::Retry => ProblemKind::OtherReplica,
                kind => kind,
            };
            Err(abort(Problem::new(kind, error.to_string())))
        }
        None => Err(abort(Problem::new(
            ProblemKind::Busy,
            format!(
                "volume {} has no buffer free for reading; try again or elsewhere",
                node.id
            ),
        ))),
    }
}

fn check(node: &Node, role: Role, get: &Get) -> blockyard_wire::Result<()> {
    let claim = |operation| Claim {
        operation,
        block: get.block,
        volume: node.id,
        hop: get.ticket.hop,
        length: get.length,
    };
    let now = now_unix_ms();
    let read = node.keys.check(&get.ticket, &claim(Operation::Read), now);
    match role {
        // A dataserver pulls copies; clients have no use for such a ticket.
        Role::Dataserver => read.or_else(|_| node.keys.check(&get.ticket, &claim(Operation::Copy), now)),
        Role::Client => read,
    }
}

/// Queues a run of verified units as packets: slices of the pool buffer, which returns when the last is written.
fn send(outbox: &Outbox, stream: u32, verified: &Verified, spans: GetSpans) {
    let packets = verified.data.len().div_ceil(PACKET_BYTES_MAX);
    for at in 0..packets {
        let from = at * PACKET_BYTES_MAX;
        let payload = verified
            .data
            .slice(from..(from + PACKET_BYTES_MAX).min(verified.data.len()));
        let units = from / UNIT_BYTES..(from + payload.len()).div_ceil(UNIT_BYTES);
        let last = at + 1 == packets;
        let packet = Packet {
            offset: verified.offset + from as u32,
            unit_crcs: verified.unit_crcs[units].to_vec(),
            last,
            spans: last.then_some(spans),
        };
        outbox.push(stream, Message::Packet(packet), payload);
    }
}

/// Reads a whole replica and checks every byte of it, on the lane that no user waits for.
pub(crate) async fn verify(
    node: &Node,
    block: blockyard_wire::types::BlockId,
) -> blockyard_wire::Result<blockyard_wire::types::ReplicaState> {
    use blockyard_wire::types::ReplicaState;
    let known = node
        .volume
        .lookup(block)
        .ok_or_else(|| Problem::not_found(format!("block {block} is not on volume {}", node.id)))?;
    if known.state != engine::ReplicaState::Live {
        return Ok(crate::report::replica_state(known.state));
    }
    match node.volume.get(block, 0, known.length, Lane::Repair).await {
        Ok(verified) if checksum::combine_units(&verified.unit_crcs, verified.data.len()) == known.crc32c => {
            Ok(ReplicaState::Good)
        }
        Ok(_) => {
            node.volume
                .mark_corrupt(block)
                .await
                .map_err(|error| problem_of(&error))?;
            node.report_damaged(block);
            Ok(ReplicaState::Corrupt)
        }
        Err(engine::Error::Corrupt { .. }) => {
            node.report_damaged(block);
            Ok(ReplicaState::Corrupt)
        }
        Err(engine::Error::Suspect { .. }) => Ok(ReplicaState::Suspect),
        Err(error) => Err(problem_of(&error)),
    }
}
