//! Short blocks that come along with their put: taken at once, or granted later where no buffer is free.

mod common;

use blockyard_engine::checksum;
use blockyard_engine::limits::UNIT_BYTES;
use blockyard_wire::ProblemKind;
use blockyard_wire::frame::{Message, PutDone};
use common::{Client, Server, block, bytes, packets};

async fn done(client: &mut Client, stream: u32) -> PutDone {
    let (frame, _) = client.receive().await;
    assert_eq!(frame.stream, stream);
    match frame.message {
        Message::PutDone(done) => done,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_short_block_reaches_every_hop_without_being_asked_for() {
    let server = Server::new(3);
    let mut id = 0;
    for length in [1, 4096, 9000, UNIT_BYTES - 1, UNIT_BYTES] {
        for places in [&[0][..], &[1, 0], &[2, 0, 1]] {
            id += 1;
            let data = bytes(id, length);
            let mut client = server.client(places[0]).await;
            let chain = server.chain(block(id), places);
            client.open_eager(1, block(id), &data, chain).await;
            let done = done(&mut client, 1).await;
            assert_eq!(
                (done.length as usize, done.crc32c),
                (length, checksum::crc(&data))
            );
            assert_eq!(
                (done.proofs.len(), done.spans.len()),
                (places.len(), places.len())
            );
            for (&at, spans) in places.iter().zip(&done.spans) {
                assert!(spans.granted_us <= spans.received_us && spans.received_us <= spans.written_us);
                assert!(spans.written_us <= spans.durable_us, "{spans:?}");
                let got = server.get(block(id), at, 0, length as u32).await.unwrap();
                assert!(got == data, "{length} bytes from volume {at}");
            }
        }
    }
    server.settled().await;
}

#[tokio::test]
async fn many_on_one_connection_are_told_apart() {
    let server = Server::new(2);
    let mut client = server.client(0).await;
    let data: Vec<Vec<u8>> = (0..40)
        .map(|id| bytes(id, 1 + (id as usize * 2711) % UNIT_BYTES))
        .collect();
    for (at, data) in data.iter().enumerate() {
        let id = block(at as u64 + 1);
        let chain = server.chain(id, &[0, 1]);
        client.open_eager(at as u32 + 1, id, data, chain).await;
    }
    let mut left = data.len();
    while left > 0 {
        let (frame, _) = client.receive().await;
        let stream = frame.stream;
        match frame.message {
            Message::PutDone(_) => left -= 1,
            // There are fewer buffers than blocks.
            Message::Grant(_) => {
                for (packet, payload) in packets(&data[stream as usize - 1]) {
                    client.send(stream, Message::Packet(packet), payload).await;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    for (at, data) in data.iter().enumerate() {
        let id = block(at as u64 + 1);
        for place in [0, 1] {
            assert!(server.get(id, place, 0, data.len() as u32).await.unwrap() == *data);
        }
    }
    server.settled().await;
}

#[tokio::test]
async fn without_a_buffer_the_head_grants_later() {
    let server = Server::new(1);
    let mut client = server.client(0).await;
    let data = bytes(1, 1000);
    // All four small buffers of the lane.
    for stream in 1..=4 {
        let id = block(u64::from(stream));
        client.open(stream, id, data.len(), server.chain(id, &[0])).await;
        assert!(matches!(client.receive().await.0.message, Message::Grant(1000)));
    }
    let late = bytes(9, 5000);
    let chain = server.chain(block(9), &[0]);
    client.open_eager(9, block(9), &late, chain).await;
    client.send(0, Message::Ping, &[]).await;
    let answer = client.receive().await.0.message;
    assert_eq!(answer, Message::Pong, "nothing is granted yet");
    for (packet, payload) in packets(&data) {
        client.send(1, Message::Packet(packet), payload).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let (frame, _) = client.receive().await;
        match frame.message {
            Message::PutDone(_) => seen.push((frame.stream, "done")),
            Message::Grant(5000) => {
                seen.push((frame.stream, "granted"));
                for (packet, payload) in packets(&late) {
                    client.send(9, Message::Packet(packet), payload).await;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, "done"), (9, "done"), (9, "granted")]);
    assert!(server.get(block(9), 0, 0, 5000).await.unwrap() == late);
}

#[tokio::test]
async fn without_a_buffer_behind_it_the_head_sends_again() {
    let server = Server::new(2);
    let mut client = server.client(0).await;
    let data = bytes(1, 1000);
    // The first position may hold three of the four small buffers behind the head.
    for stream in 1..=3 {
        let id = block(u64::from(stream));
        client
            .open(stream, id, data.len(), server.chain(id, &[0, 1]))
            .await;
        assert!(matches!(client.receive().await.0.message, Message::Grant(1000)));
    }
    let late = bytes(9, 5000);
    client
        .open_eager(9, block(9), &late, server.chain(block(9), &[0, 1]))
        .await;
    for (packet, payload) in packets(&data) {
        client.send(1, Message::Packet(packet), payload).await;
    }
    let mut streams = [client.receive().await.0, client.receive().await.0].map(|frame| match frame.message {
        Message::PutDone(_) => frame.stream,
        other => panic!("{other:?}"),
    });
    streams.sort_unstable();
    assert_eq!(streams, [1, 9]);
    for place in [0, 1] {
        assert!(server.get(block(9), place, 0, 5000).await.unwrap() == late);
    }
}

#[tokio::test]
async fn damage_and_wrong_tickets_are_refused_and_the_connection_goes_on() {
    let server = Server::new(2);
    let mut client = server.client(0).await;
    let data = bytes(1, 3000);
    // A ticket for another block.
    client
        .open_eager(1, block(1), &data, server.chain(block(2), &[0, 1]))
        .await;
    match client.receive().await.0.message {
        Message::Abort(abort) => assert_eq!(abort.problem.kind, ProblemKind::Denied),
        other => panic!("{other:?}"),
    }
    let chain = server.chain(block(3), &[0, 1]);
    let mut put = blockyard_wire::frame::Put {
        block: block(3),
        origin: blockyard_wire::types::Origin { version: 7, index: 0 },
        length: 3000,
        position: 0,
        chain,
        unit_crcs: checksum::unit_crcs(&data),
    };
    put.unit_crcs[0] ^= 1;
    client.send(2, Message::Put(put), &data).await;
    match client.receive().await.0.message {
        Message::Abort(abort) => assert_eq!(abort.problem.kind, ProblemKind::Corrupt),
        other => panic!("{other:?}"),
    }
    client
        .open_eager(3, block(4), &data, server.chain(block(4), &[0, 1]))
        .await;
    assert_eq!(done(&mut client, 3).await.length, 3000);
    server.settled().await;
}
