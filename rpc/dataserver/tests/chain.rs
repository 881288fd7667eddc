//! Writes through chains of one, two and three volumes, and reads of what they wrote.

mod common;

use blockyard_engine::checksum;
use blockyard_engine::limits::{BLOCK_BYTES_MAX, UNIT_BYTES};
use blockyard_wire::ProblemKind;
use blockyard_wire::ticket::{Claim, Operation, now_unix_ms};
use common::{Server, block, bytes};

#[tokio::test]
async fn blocks_of_every_size_reach_every_hop_and_come_back() {
    let server = Server::new(3);
    let sizes = [
        1,
        4095,
        UNIT_BYTES - 1,
        UNIT_BYTES,
        UNIT_BYTES + 1,
        BLOCK_BYTES_MAX - 1,
        BLOCK_BYTES_MAX,
    ];
    let mut id = 0;
    for length in sizes {
        for places in [&[0][..], &[1, 0], &[2, 0, 1]] {
            id += 1;
            let data = bytes(id, length);
            let done = server.put(block(id), &data, places).await.unwrap();
            let crc = checksum::crc(&data);
            assert_eq!((done.length as usize, done.crc32c), (length, crc));
            let proved: Vec<_> = done.proofs.iter().map(|proof| proof.volume).collect();
            let wanted: Vec<_> = places.iter().map(|&at| server.ids[at]).collect();
            assert_eq!(proved, wanted);
            for (proof, &at) in done.proofs.iter().zip(places) {
                assert!(server.keys.proves(proof, block(id), done.length, crc));
                let got = server.get(block(id), at, 0, length as u32).await.unwrap();
                assert!(got == data, "{length} bytes from volume {at}");
            }
        }
    }
    server.settled().await;
}

#[tokio::test]
async fn ranges_come_as_whole_units() {
    let server = Server::new(1);
    let length = 5 * UNIT_BYTES + 100;
    let data = bytes(9, length);
    server.put(block(1), &data, &[0]).await.unwrap();
    for (offset, want) in [
        (0, 1),
        (UNIT_BYTES - 1, 2),
        (UNIT_BYTES, UNIT_BYTES),
        (5 * UNIT_BYTES + 99, 1),
        (3, length - 3),
    ] {
        let got = server.get(block(1), 0, offset as u32, want as u32).await.unwrap();
        let from = offset / UNIT_BYTES * UNIT_BYTES;
        let to = (offset + want).next_multiple_of(UNIT_BYTES).min(length);
        assert!(got == data[from..to], "{want} bytes at {offset}");
    }
    let beyond = server.get(block(1), 0, 0, length as u32 + 1).await.unwrap_err();
    assert_eq!(beyond.problem.kind, ProblemKind::Invalid);
    let none = server.get(block(2), 0, 0, 1).await.unwrap_err();
    assert_eq!(none.problem.kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn a_repeated_write_is_done_and_a_different_one_refused() {
    let server = Server::new(2);
    let data = bytes(1, 100_000);
    let first = server.put(block(1), &data, &[0, 1]).await.unwrap();
    let again = server.put(block(1), &data, &[0, 1]).await.unwrap();
    assert_eq!(again.proofs, first.proofs);
    for other in [bytes(2, 100_000), bytes(1, 99_999)] {
        let refused = server.put(block(1), &other, &[0, 1]).await.unwrap_err();
        assert_eq!(refused.problem.kind, ProblemKind::Exists, "{}", refused.problem);
    }
    assert!(server.get(block(1), 1, 0, 100_000).await.unwrap() == data);
    server.settled().await;
}

#[tokio::test]
async fn acknowledged_blocks_outlive_a_stop() {
    let mut server = Server::new(2);
    let data = bytes(5, 3 << 20);
    server.put(block(1), &data, &[0, 1]).await.unwrap();
    let before = server.ids.clone();
    server.stop();
    server.start();
    assert_eq!(server.ids, before);
    for at in [0, 1] {
        assert!(server.get(block(1), at, 0, 3 << 20).await.unwrap() == data);
    }
}

#[tokio::test]
async fn tickets_are_for_one_operation_on_one_block_at_one_place() {
    let server = Server::new(2);
    let data = bytes(1, 1000);
    server.put(block(1), &data, &[0]).await.unwrap();
    let write = server.ticket(Operation::Write, block(1), 0, 0);
    let elsewhere = server.ticket(Operation::Read, block(1), 1, 0);
    let other_block = server.ticket(Operation::Read, block(2), 0, 0);
    // A client has no use for a dataserver's right to copy.
    let copy = server.ticket(Operation::Copy, block(1), 0, 0);
    let mut client = server.client(0).await;
    for (stream, ticket) in [write, elsewhere, other_block, copy].into_iter().enumerate() {
        let stream = stream as u32 + 1;
        let refused = client.get(stream, block(1), 0, 1000, ticket).await.unwrap_err();
        assert_eq!(refused.problem.kind, ProblemKind::Denied);
    }
    let claim = |length| Claim {
        operation: Operation::Write,
        block: block(3),
        volume: server.ids[0],
        hop: 0,
        length,
    };
    let late = server.keys.sign(&claim(1000), now_unix_ms() - 100_000);
    let short = server.keys.sign(&claim(999), now_unix_ms() + 100_000);
    let read = server.ticket(Operation::Read, block(3), 0, 0);
    for (stream, ticket) in [late, short, read].into_iter().enumerate() {
        let mut chain = server.chain(block(3), &[0]);
        chain[0].ticket = ticket;
        let stream = stream as u32 + 10;
        let refused = client.put(stream, block(3), &data, chain).await.unwrap_err();
        assert_eq!(refused.problem.kind, ProblemKind::Denied);
    }
    // A good ticket for the head does not open the way to the next hop.
    let mut chain = server.chain(block(4), &[0, 1]);
    chain[1].ticket = server.ticket(Operation::Write, block(5), 1, 1);
    let refused = client.put(20, block(4), &data, chain).await.unwrap_err();
    assert_eq!(refused.problem.kind, ProblemKind::Denied);
    assert_eq!(refused.blame, server.ids[1]);
    server.settled().await;
}
