//! A fake volume: keeps blocks in memory, writes chains by handing blocks straight to the other fakes.

use std::collections::HashMap;
use std::sync::Arc;

use blockyard_client::types::{BlockId, VolumeId};
use blockyard_client::{Problem, ProblemKind};
use blockyard_engine::checksum;
use blockyard_engine::limits::{PACKET_BYTES_MAX, UNIT_BYTES};
use blockyard_wire::frame::{
    Abort, Frame, Get, HopSpans, Message, PREFIX_BYTES, Packet, Prefix, Purpose, Put, PutDone,
};
use blockyard_wire::hello::{Acceptor, refusal};
use blockyard_wire::ticket::{Claim, Operation, now_unix_ms};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Fault, VolumeState, World};

pub async fn start(world: &Arc<World>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let id = VolumeId::random();
    let state = VolumeState {
        address: listener.local_addr().unwrap().to_string(),
        ..VolumeState::default()
    };
    world.volumes().push((id, state));
    let world = world.clone();
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if world.volume(id, |state| state.down) {
                continue;
            }
            let world = world.clone();
            tokio::task::spawn_local(async move {
                let changed = world.volume(id, |state| state.changed.clone());
                tokio::select! {
                    _ = serve(&world, id, stream) => {}
                    () = changed.notified() => {}
                }
            });
        }
    });
}

struct Incoming {
    put: Put,
    data: Vec<u8>,
}

async fn serve(world: &World, id: VolumeId, mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut acceptor = Acceptor::new(&world.secret, world.cluster, Purpose::Data);
    let (hello, _) = read(&mut stream).await?;
    let challenge = acceptor.hello(hello).unwrap();
    stream.write_all(&challenge).await.ok()?;
    let (proof, _) = read(&mut stream).await?;
    match acceptor.proof(proof) {
        Ok((welcome, _)) => stream.write_all(&welcome).await.ok()?,
        Err(problem) => return stream.write_all(&refusal(&problem)).await.ok(),
    }
    let mut puts: HashMap<u32, Incoming> = HashMap::new();
    loop {
        let (frame, payload) = read(&mut stream).await?;
        let stream_id = frame.stream;
        let fault = world.volume(id, |state| state.fault);
        if fault == Some(Fault::Silent) {
            continue;
        }
        let abort = |kind, message: &str, blame| {
            Message::Abort(Abort {
                problem: Problem::new(kind, message),
                blame,
            })
        };
        match frame.message {
            Message::Ping => say(&mut stream, 0, Message::Pong, &[]).await?,
            _ if fault == Some(Fault::Stuck) => {}
            Message::Put(put) => {
                assert_eq!((put.position, put.chain[0].volume), (0, id));
                for (position, hop) in put.chain.iter().enumerate() {
                    let claim = Claim {
                        operation: Operation::Write,
                        block: put.block,
                        volume: hop.volume,
                        hop: position as u8,
                        length: put.length,
                    };
                    world.keys.check(&hop.ticket, &claim, now_unix_ms()).unwrap();
                }
                let puts_so_far = world.volume(id, |state| {
                    state.puts += 1;
                    state.puts
                });
                let next = put.chain.get(1).map(|hop| hop.volume);
                let answer = match fault {
                    Some(Fault::AbortPut) => abort(ProblemKind::NoSpace, "full", VolumeId::default()),
                    Some(Fault::BlameNext) => abort(
                        ProblemKind::Retry,
                        "the next one is gone",
                        next.unwrap_or_default(),
                    ),
                    Some(Fault::Busy(left)) => {
                        world.volume(id, |state| {
                            state.fault = left.checked_sub(1).filter(|left| *left > 0).map(Fault::Busy);
                        });
                        abort(ProblemKind::Busy, "no buffer", VolumeId::default())
                    }
                    Some(Fault::GrantBitByBit) => Message::Grant((UNIT_BYTES + 1) as u32),
                    _ => Message::Grant(put.length),
                };
                if !payload.is_empty() {
                    assert_eq!(put.unit_crcs, checksum::unit_crcs(&payload));
                }
                // Every other time there is no buffer at once for what comes unasked.
                if matches!(answer, Message::Grant(_)) && !payload.is_empty() && puts_so_far.is_multiple_of(2)
                {
                    if fault == Some(Fault::DieInPut) {
                        return None;
                    }
                    let done = store(world, Incoming { put, data: payload }, fault);
                    say(&mut stream, stream_id, Message::PutDone(done), &[]).await?;
                    continue;
                }
                if matches!(answer, Message::Grant(_)) {
                    puts.insert(
                        stream_id,
                        Incoming {
                            put,
                            data: Vec::new(),
                        },
                    );
                }
                say(&mut stream, stream_id, answer, &[]).await?;
            }
            Message::Packet(packet) => {
                let Some(incoming) = puts.get_mut(&stream_id) else {
                    continue;
                };
                assert_eq!(packet.offset as usize, incoming.data.len(), "in order");
                assert_eq!(
                    packet.unit_crcs,
                    checksum::unit_crcs(&payload),
                    "as its checksums say"
                );
                incoming.data.extend(payload);
                if fault == Some(Fault::DieInPut) {
                    return None;
                }
                let length = incoming.put.length as usize;
                let complete = incoming.data.len() == length;
                assert_eq!(packet.last, complete);
                if fault == Some(Fault::GrantBitByBit) && !complete {
                    let more = incoming.data.len() + 3 * UNIT_BYTES + 7;
                    say(&mut stream, stream_id, Message::Grant(more as u32), &[]).await?;
                }
                if complete {
                    let done = store(world, puts.remove(&stream_id)?, fault);
                    say(&mut stream, stream_id, Message::PutDone(done), &[]).await?;
                }
            }
            Message::Get(get) => serve_get(world, id, &mut stream, stream_id, get, fault).await?,
            Message::Cancel => {
                puts.remove(&stream_id);
                world.volume(id, |state| state.cancels += 1);
            }
            other => panic!("a volume was told {other:?}"),
        }
    }
}

/// Keeps a block on every volume of its chain.
fn store(world: &World, incoming: Incoming, fault: Option<Fault>) -> PutDone {
    let Incoming { put, data } = incoming;
    let mut crc32c = checksum::crc(&data);
    if fault == Some(Fault::LieInPut) {
        crc32c ^= 1;
    }
    let (block, length) = (put.block, put.length);
    let proofs = put.chain.iter().map(|hop| {
        world.volume(hop.volume, |state| state.blocks.insert(block, data.clone()));
        world.keys.prove(block, length, crc32c, hop.volume)
    });
    let proofs = proofs.collect();
    let mut behind_us = 0;
    let spans = put.chain.iter().rev().map(|hop| {
        let durable_us = 1000 + world.volume(hop.volume, |state| state.lag_us);
        let spans = HopSpans {
            granted_us: 10,
            received_us: 100,
            written_us: 500,
            durable_us,
            behind_us,
        };
        // The hop before it waits for it from its own last packet on.
        behind_us = 100 + durable_us.max(behind_us);
        spans
    });
    let mut spans: Vec<HopSpans> = spans.collect();
    spans.reverse();
    PutDone {
        length,
        crc32c,
        proofs,
        spans,
    }
}

async fn serve_get(
    world: &World,
    id: VolumeId,
    stream: &mut TcpStream,
    stream_id: u32,
    get: Get,
    fault: Option<Fault>,
) -> Option<()> {
    let claim = Claim {
        operation: Operation::Read,
        block: get.block,
        volume: id,
        hop: get.ticket.hop,
        length: get.length,
    };
    let refused = world.keys.check(&get.ticket, &claim, now_unix_ms()).err();
    let data = world.volume(id, |state| {
        state.gets += 1;
        state.blocks.get(&get.block).cloned()
    });
    let refused = match fault {
        Some(Fault::Busy(left)) => {
            world.volume(id, |state| {
                state.fault = left.checked_sub(1).filter(|left| *left > 0).map(Fault::Busy);
            });
            Some(Problem::new(ProblemKind::Busy, "no buffer"))
        }
        Some(Fault::SlowGet(ms) | Fault::SlowFlip(ms)) => {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            refused
        }
        Some(Fault::NotFound) => Some(Problem::not_found("no such block")),
        Some(Fault::Garbage) => return stream.write_all(&[0xa5; 4096]).await.ok(),
        _ => refused,
    };
    let (mut data, problem) = match (data, refused) {
        (Some(data), None) => (data, None),
        (_, problem) => (Vec::new(), Some(problem.unwrap_or_else(|| missing(get.block)))),
    };
    if let Some(problem) = problem {
        let abort = Message::Abort(Abort { problem, blame: id });
        return say(stream, stream_id, abort, &[]).await;
    }
    if fault == Some(Fault::OtherBytes) {
        data.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let start = get.offset as usize / UNIT_BYTES * UNIT_BYTES;
    let end = (get.offset + get.length) as usize;
    let end = end.next_multiple_of(UNIT_BYTES).min(data.len());
    let mut at = start;
    while at < end {
        let until = (at + PACKET_BYTES_MAX).min(end);
        let mut payload = data[at..until].to_vec();
        let short = fault == Some(Fault::ShortGet) && until < end;
        let packet = Packet {
            offset: at as u32,
            unit_crcs: checksum::unit_crcs(&payload),
            last: until == end || short,
            spans: None,
        };
        let middle = payload.len() / 2;
        if matches!(fault, Some(Fault::FlipBit | Fault::SlowFlip(_))) {
            payload[middle] ^= 0x10;
        }
        if fault == Some(Fault::DieInGet) {
            let head = Frame {
                stream: stream_id,
                message: Message::Packet(packet),
            }
            .encode(payload.len());
            stream.write_all(&head).await.ok()?;
            stream.write_all(&payload[..middle]).await.ok()?;
            return None;
        }
        say(stream, stream_id, Message::Packet(packet), &payload).await?;
        if short {
            break;
        }
        at = until;
    }
    Some(())
}

fn missing(block: BlockId) -> Problem {
    Problem::not_found(format!("no block {block}"))
}

async fn say(stream: &mut TcpStream, id: u32, message: Message, payload: &[u8]) -> Option<()> {
    let mut bytes = Frame { stream: id, message }.encode(payload.len());
    bytes.extend_from_slice(payload);
    stream.write_all(&bytes).await.ok()
}

async fn read(stream: &mut TcpStream) -> Option<(Frame, Vec<u8>)> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await.ok()?;
    let prefix = Prefix::parse(&prefix).unwrap();
    let mut header = vec![0; prefix.header_bytes];
    stream.read_exact(&mut header).await.ok()?;
    let frame = prefix.decode(&header).unwrap();
    let mut payload = vec![0; prefix.payload_bytes];
    stream.read_exact(&mut payload).await.ok()?;
    Some((frame, payload))
}
