//! Frames to and from their Cap'n Proto headers: one segment, no segment table.

use blockyard_engine::block::{BlockId, Origin};
use blockyard_schema::frame_capnp as schema;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};

use crate::convert::{
    problem_kind_from, problem_kind_to, read_array, read_hop, read_id, read_list, read_proof, read_text,
    read_ticket, write_hop, write_id, write_list, write_proof, write_ticket,
};
use crate::error::{Problem, Result};
use crate::frame::{
    Abort, CHAIN_MAX, Challenge, Frame, Get, GetSpans, HEADER_BYTES_MAX, Hello, HopSpans, Message, Packet,
    Purpose, Put, PutDone, Role,
};
use crate::types::{ClusterId, VolumeId};

/// Characters of an abort's message that go on the wire.
const ABORT_TEXT_MAX: usize = 1024;

pub(crate) fn read(header: &[u8]) -> Result<Frame> {
    let options = *ReaderOptions::new()
        .traversal_limit_in_words(Some(HEADER_BYTES_MAX))
        .nesting_limit(8);
    let segments = [header];
    let message = Reader::new(capnp::message::SegmentArray::new(&segments), options);
    let root: schema::frame::Reader = message.get_root().map_err(malformed)?;
    read_root(root).map_err(|problem| problem.context("a malformed frame"))
}

fn malformed(error: capnp::Error) -> Problem {
    Problem::invalid(format!("a malformed frame: {error}"))
}

fn read_root(root: schema::frame::Reader<'_>) -> Result<Frame> {
    use schema::frame::Which;
    let message = match root
        .which()
        .map_err(|_| Problem::invalid("a message of a newer protocol"))?
    {
        Which::Hello(hello) => {
            let hello = hello.map_err(malformed)?;
            Message::Hello(Hello {
                version_min: hello.get_version_min(),
                version_max: hello.get_version_max(),
                role: match hello
                    .get_role()
                    .map_err(|_| Problem::invalid("an unknown role"))?
                {
                    schema::Role::Client => Role::Client,
                    schema::Role::Dataserver => Role::Dataserver,
                },
                purpose: match hello
                    .get_purpose()
                    .map_err(|_| Problem::invalid("an unknown purpose"))?
                {
                    schema::Purpose::Control => Purpose::Control,
                    schema::Purpose::Data => Purpose::Data,
                },
                features: hello.get_features(),
                nonce: read_array(hello.get_nonce())?,
                cluster: ClusterId(read_id(hello.get_cluster().map_err(malformed)?)),
            })
        }
        Which::Challenge(challenge) => {
            let challenge = challenge.map_err(malformed)?;
            Message::Challenge(Challenge {
                version: challenge.get_version(),
                features: challenge.get_features(),
                nonce: read_array(challenge.get_nonce())?,
                cluster: ClusterId(read_id(challenge.get_cluster().map_err(malformed)?)),
            })
        }
        Which::Proof(proof) => Message::Proof(read_array(proof.map_err(malformed)?.get_mac())?),
        Which::Welcome(proof) => Message::Welcome(read_array(proof.map_err(malformed)?.get_mac())?),
        Which::Put(put) => {
            let put = put.map_err(malformed)?;
            let chain = put.get_chain().map_err(malformed)?;
            if chain.len() as usize > CHAIN_MAX {
                return Err(Problem::invalid("a chain longer than eight"));
            }
            Message::Put(Put {
                block: BlockId(put.get_block()),
                origin: Origin {
                    version: put.get_version(),
                    index: put.get_index(),
                },
                length: put.get_length(),
                position: put.get_position(),
                chain: read_list(chain, read_hop)?,
                unit_crcs: put.get_unit_crcs().map_err(malformed)?.iter().collect(),
            })
        }
        Which::Packet(data) => {
            let data = data.map_err(malformed)?;
            Message::Packet(Packet {
                offset: data.get_offset(),
                unit_crcs: data.get_unit_crcs().map_err(malformed)?.iter().collect(),
                last: data.get_last(),
                spans: if data.has_spans() {
                    let spans = data.get_spans().map_err(malformed)?;
                    Some(GetSpans {
                        buffer_us: spans.get_buffer_us(),
                        read_us: spans.get_read_us(),
                        checked_us: spans.get_checked_us(),
                    })
                } else {
                    None
                },
            })
        }
        Which::PutDone(done) => {
            let done = done.map_err(malformed)?;
            Message::PutDone(PutDone {
                length: done.get_length(),
                crc32c: done.get_crc32c(),
                proofs: read_list(done.get_proofs().map_err(malformed)?, read_proof)?,
                spans: read_list(done.get_spans().map_err(malformed)?, |spans| {
                    Ok(HopSpans {
                        granted_us: spans.get_granted_us(),
                        received_us: spans.get_received_us(),
                        written_us: spans.get_written_us(),
                        durable_us: spans.get_durable_us(),
                        behind_us: spans.get_behind_us(),
                    })
                })?,
            })
        }
        Which::Get(get) => {
            let get = get.map_err(malformed)?;
            Message::Get(Get {
                block: BlockId(get.get_block()),
                offset: get.get_offset(),
                length: get.get_length(),
                ticket: read_ticket(get.get_ticket().map_err(malformed)?)?,
            })
        }
        Which::Grant(grant) => Message::Grant(grant.map_err(malformed)?.get_bytes()),
        Which::Cancel(()) => Message::Cancel,
        Which::Abort(abort) => {
            let abort = abort.map_err(malformed)?;
            Message::Abort(Abort {
                problem: Problem::new(
                    problem_kind_from(abort.get_kind()),
                    read_text(abort.get_message().map_err(malformed)?)?,
                ),
                blame: VolumeId(read_id(abort.get_blame().map_err(malformed)?)),
            })
        }
        Which::Ping(()) => Message::Ping,
        Which::Pong(()) => Message::Pong,
    };
    Ok(Frame {
        stream: root.get_stream(),
        message,
    })
}

pub(crate) fn write(frame: &Frame) -> Vec<u8> {
    // Room for the longest header, so that it stays one segment.
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(first_words(frame)));
    let mut root: schema::frame::Builder = message.init_root();
    root.set_stream(frame.stream);
    match &frame.message {
        Message::Hello(hello) => {
            let mut to = root.init_hello();
            to.set_version_min(hello.version_min);
            to.set_version_max(hello.version_max);
            to.set_role(match hello.role {
                Role::Client => schema::Role::Client,
                Role::Dataserver => schema::Role::Dataserver,
            });
            to.set_purpose(match hello.purpose {
                Purpose::Control => schema::Purpose::Control,
                Purpose::Data => schema::Purpose::Data,
            });
            to.set_features(hello.features);
            to.set_nonce(&hello.nonce);
            write_id(&hello.cluster.0, to.init_cluster());
        }
        Message::Challenge(challenge) => {
            let mut to = root.init_challenge();
            to.set_version(challenge.version);
            to.set_features(challenge.features);
            to.set_nonce(&challenge.nonce);
            write_id(&challenge.cluster.0, to.init_cluster());
        }
        Message::Proof(mac) => root.init_proof().set_mac(mac),
        Message::Welcome(mac) => root.init_welcome().set_mac(mac),
        Message::Put(put) => {
            let mut to = root.init_put();
            to.set_block(put.block.0);
            to.set_version(put.origin.version);
            to.set_index(put.origin.index);
            to.set_length(put.length);
            to.set_position(put.position);
            let mut crcs = to.reborrow().init_unit_crcs(put.unit_crcs.len() as u32);
            for (at, crc) in put.unit_crcs.iter().enumerate() {
                crcs.set(at as u32, *crc);
            }
            let mut chain = to.init_chain(put.chain.len() as u32);
            for (at, hop) in put.chain.iter().enumerate() {
                write_hop(hop, chain.reborrow().get(at as u32));
            }
        }
        Message::Packet(packet) => {
            let mut to = root.init_packet();
            to.set_offset(packet.offset);
            to.set_last(packet.last);
            if let Some(from) = packet.spans {
                let mut to = to.reborrow().init_spans();
                to.set_buffer_us(from.buffer_us);
                to.set_read_us(from.read_us);
                to.set_checked_us(from.checked_us);
            }
            let mut crcs = to.init_unit_crcs(packet.unit_crcs.len() as u32);
            for (at, crc) in packet.unit_crcs.iter().enumerate() {
                crcs.set(at as u32, *crc);
            }
        }
        Message::PutDone(done) => {
            let mut to = root.init_put_done();
            to.set_length(done.length);
            to.set_crc32c(done.crc32c);
            write_list(
                &done.spans,
                to.reborrow().init_spans(done.spans.len() as u32),
                |from, mut to| {
                    to.set_granted_us(from.granted_us);
                    to.set_received_us(from.received_us);
                    to.set_written_us(from.written_us);
                    to.set_durable_us(from.durable_us);
                    to.set_behind_us(from.behind_us);
                },
            );
            let mut proofs = to.init_proofs(done.proofs.len() as u32);
            for (at, proof) in done.proofs.iter().enumerate() {
                write_proof(proof, proofs.reborrow().get(at as u32));
            }
        }
        Message::Get(get) => {
            let mut to = root.init_get();
            to.set_block(get.block.0);
            to.set_offset(get.offset);
            to.set_length(get.length);
            write_ticket(&get.ticket, to.init_ticket());
        }
        Message::Grant(bytes) => root.init_grant().set_bytes(*bytes),
        Message::Cancel => root.set_cancel(()),
        Message::Abort(abort) => {
            let mut to = root.init_abort();
            to.set_kind(problem_kind_to(abort.problem.kind));
            let text = &abort.problem.message;
            to.set_message(&text[..text.floor_char_boundary(ABORT_TEXT_MAX)]);
            write_id(&abort.blame.0, to.init_blame());
        }
        Message::Ping => root.set_ping(()),
        Message::Pong => root.set_pong(()),
    }
    let segments = message.get_segments_for_output();
    assert_eq!(segments.len(), 1, "a header is one segment");
    segments[0].to_vec()
}

/// Words of the first segment: enough for what the message holds, so that small headers stay cheap.
fn first_words(frame: &Frame) -> u32 {
    match &frame.message {
        Message::Put(_) | Message::PutDone(_) | Message::Abort(_) => (HEADER_BYTES_MAX / 8) as u32,
        Message::Packet(packet) => 32 + packet.unit_crcs.len().div_ceil(2) as u32,
        _ => 64,
    }
}
