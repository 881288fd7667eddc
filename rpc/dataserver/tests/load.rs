//! Many writes and reads at once, in both directions, through pools far smaller than what is asked for.

mod common;

use std::sync::Arc;

use blockyard_wire::ProblemKind;
use common::{Server, block, bytes};

/// Writes over one connection, several streams at once, until all are durable. Busy ones are tried again.
async fn write_many(server: Arc<Server>, places: Vec<usize>, ids: std::ops::Range<u64>, length: usize) {
    for id in ids {
        let data = bytes(id, length);
        loop {
            match server.put(block(id), &data, &places).await {
                Ok(done) => {
                    assert_eq!(done.proofs.len(), places.len());
                    break;
                }
                // Overload is told, not waited out for ever.
                Err(abort) if abort.problem.kind == ProblemKind::Busy => {}
                Err(abort) => panic!("{}", abort.problem),
            }
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn chains_in_opposite_directions_finish() {
    let server = Arc::new(Server::new(2));
    let mut tasks = Vec::new();
    for writer in 0..12u64 {
        let places = if writer % 2 == 0 { vec![0, 1] } else { vec![1, 0] };
        let length = if writer % 3 == 0 { 50_000 } else { 1 << 20 };
        let ids = writer * 100 + 1..writer * 100 + 5;
        tasks.push(tokio::spawn(write_many(server.clone(), places, ids, length)));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for writer in 0..12u64 {
        let length = if writer % 3 == 0 { 50_000 } else { 1 << 20 };
        let id = writer * 100 + 1;
        for at in [0, 1] {
            assert!(server.get(block(id), at, 0, length as u32).await.unwrap() == bytes(id, length));
        }
    }
    server.settled().await;
}

#[tokio::test(flavor = "current_thread")]
async fn chains_of_three_through_the_same_volumes_finish() {
    let server = Arc::new(Server::new(3));
    let mut tasks = Vec::new();
    let orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1], [0, 2, 1], [1, 2, 0]];
    for (writer, order) in orders.into_iter().cycle().take(12).enumerate() {
        let ids = writer as u64 * 100 + 1..writer as u64 * 100 + 4;
        tasks.push(tokio::spawn(write_many(
            server.clone(),
            order.to_vec(),
            ids,
            700_000,
        )));
    }
    for task in tasks {
        task.await.unwrap();
    }
    server.settled().await;
}

#[tokio::test(flavor = "current_thread")]
async fn many_reads_on_one_connection_overlap() {
    let server = Server::new(1);
    for id in 1..=8 {
        server.put(block(id), &bytes(id, 1 << 20), &[0]).await.unwrap();
    }
    let mut client = server.client(0).await;
    let mut wanted = std::collections::HashMap::new();
    for stream in 1..=40u32 {
        let id = block(u64::from(stream) % 8 + 1);
        let ticket = server.ticket(blockyard_wire::ticket::Operation::Read, id, 0, 0);
        let get = blockyard_wire::frame::Get {
            block: id,
            offset: 0,
            length: 1 << 20,
            ticket,
        };
        client
            .send(stream, blockyard_wire::frame::Message::Get(get), &[])
            .await;
        wanted.insert(stream, Vec::new());
    }
    let mut whole = 0;
    while whole < 40 {
        let (frame, payload) = client.receive().await;
        let blockyard_wire::frame::Message::Packet(packet) = frame.message else {
            panic!("{:?}", frame.message);
        };
        let got = wanted.get_mut(&frame.stream).unwrap();
        assert_eq!(packet.offset as usize, got.len());
        got.extend_from_slice(&payload);
        assert_eq!(packet.spans.is_some(), packet.last);
        if let Some(spans) = packet.spans {
            assert!(
                spans.buffer_us <= spans.read_us && spans.read_us < spans.checked_us,
                "{spans:?}"
            );
            assert!(*got == bytes(u64::from(frame.stream) % 8 + 1, 1 << 20));
            whole += 1;
        }
    }
    server.settled().await;
}
