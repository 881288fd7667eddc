//! Chains that break: damaged packets, dead successors, cancelled and abandoned writes, garbage, floods.

mod common;

use blockyard_wire::ProblemKind;
use blockyard_wire::frame::{Message, Packet};
use blockyard_wire::ticket::Operation;
use common::{Server, block, bytes, flip, packets, short};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn absent(server: &Server, id: u64, at: usize) {
    let missing = server.get(block(id), at, 0, 1).await.unwrap_err();
    assert_eq!(missing.problem.kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn a_damaged_packet_stops_the_write_on_every_hop() {
    let server = Server::new(2);
    let data = bytes(1, 1 << 20);
    for damaged in 0..4 {
        let id = damaged as u64 + 1;
        let mut client = server.client(0).await;
        client
            .open(1, block(id), data.len(), server.chain(block(id), &[0, 1]))
            .await;
        assert!(matches!(client.receive().await.0.message, Message::Grant(_)));
        for (at, (packet, payload)) in packets(&data).enumerate() {
            let mut payload = payload.to_vec();
            if at == damaged {
                payload[70_000] ^= 1;
            }
            client.send(1, Message::Packet(packet), &payload).await;
        }
        let Message::Abort(abort) = client.receive().await.0.message else {
            panic!("acknowledged");
        };
        assert_eq!(abort.problem.kind, ProblemKind::Corrupt, "{}", abort.problem);
        // The connection is still good for another write.
        let other = block(id + 100);
        client
            .put(2, other, &data, server.chain(other, &[0, 1]))
            .await
            .unwrap();
        server.settled().await;
        for at in [0, 1] {
            absent(&server, id, at).await;
        }
    }
}

#[tokio::test]
async fn a_dead_successor_is_blamed() {
    let server = Server::with(2, |config| config.deadlines = short());
    // Nobody listens; somebody listens and never speaks.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = taken.local_addr().unwrap();
    drop(taken);
    for (id, address) in [(1, closed), (2, silent.local_addr().unwrap())] {
        let mut chain = server.chain(block(id), &[0, 1]);
        chain[1].address = address.to_string();
        let mut client = server.client(0).await;
        let abort = client
            .put(1, block(id), &bytes(1, 600_000), chain)
            .await
            .unwrap_err();
        assert_eq!(abort.blame, server.ids[1], "{}", abort.problem);
        assert_eq!(abort.problem.kind, ProblemKind::Retry);
    }
    server.settled().await;
}

#[tokio::test]
async fn a_blamed_volume_is_named_from_the_end_of_the_chain() {
    let server = Server::with(3, |config| config.deadlines = short());
    let mut chain = server.chain(block(1), &[0, 1, 2]);
    chain[2].address = "127.0.0.1:1".into();
    let mut client = server.client(0).await;
    let abort = client
        .put(1, block(1), &bytes(1, 300_000), chain)
        .await
        .unwrap_err();
    assert_eq!(abort.blame, server.ids[2], "{}", abort.problem);
    server.settled().await;
}

#[tokio::test]
async fn cancelled_and_abandoned_writes_return_their_buffers() {
    let server = Server::new(2);
    let data = bytes(3, 2 << 20);
    for cancel in [true, false] {
        let id = u64::from(cancel) + 1;
        let mut client = server.client(0).await;
        client
            .open(1, block(id), data.len(), server.chain(block(id), &[0, 1]))
            .await;
        assert!(matches!(client.receive().await.0.message, Message::Grant(_)));
        for (packet, payload) in packets(&data).take(3) {
            client.send(1, Message::Packet(packet), payload).await;
        }
        if cancel {
            client.send(1, Message::Cancel, &[]).await;
            // Packets that were under way are skipped, and the connection goes on.
            for (packet, payload) in packets(&data).skip(3).take(2) {
                client.send(1, Message::Packet(packet), payload).await;
            }
            client.send(0, Message::Ping, &[]).await;
            assert_eq!(client.receive().await.0.message, Message::Pong);
        }
        drop(client);
        server.settled().await;
        for at in [0, 1] {
            absent(&server, id, at).await;
        }
    }
}

#[tokio::test]
async fn a_writer_that_stops_loses_its_buffer() {
    let server = Server::with(1, |config| config.deadlines = short());
    let mut client = server.client(0).await;
    client
        .open(1, block(1), 1 << 20, server.chain(block(1), &[0]))
        .await;
    assert!(matches!(client.receive().await.0.message, Message::Grant(_)));
    let Message::Abort(abort) = client.receive().await.0.message else {
        panic!("nothing was sent");
    };
    assert_eq!(abort.problem.kind, ProblemKind::Retry);
    server.settled().await;
}

#[tokio::test]
async fn writes_beyond_the_pool_wait_and_then_are_refused() {
    let server = Server::with(1, |config| config.deadlines.buffer_ms = 300);
    let mut client = server.client(0).await;
    // The small pool has two whole-block buffers for heads.
    for stream in 1..=3 {
        let id = block(stream);
        client
            .open(stream as u32, id, 1 << 20, server.chain(id, &[0]))
            .await;
    }
    for _ in 0..2 {
        assert!(matches!(client.receive().await.0.message, Message::Grant(_)));
    }
    let (frame, _) = client.receive().await;
    let Message::Abort(abort) = frame.message else {
        panic!("a third buffer");
    };
    assert_eq!((frame.stream, abort.problem.kind), (3, ProblemKind::Busy));
    assert_eq!(abort.blame, server.ids[0]);
    drop(client);
    server.settled().await;
}

#[tokio::test]
async fn garbage_closes_its_connection_and_nothing_else() {
    let server = Server::with(1, |config| config.deadlines = short());
    let good = bytes(1, 100_000);
    server.put(block(1), &good, &[0]).await.unwrap();
    let declared = |header: u32, payload: u32| {
        let mut bytes = b"BYF1".to_vec();
        for word in [header, payload, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    };
    let before_hello = [
        bytes(7, 65_536),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        declared(u32::MAX, 0),
        declared(8, u32::MAX),
        declared(8192, 0),
        Vec::new(),
    ];
    for garbage in before_hello {
        let mut stream = TcpStream::connect(&server.addresses[0]).await.unwrap();
        let _ = stream.write_all(&garbage).await;
        // It may say why; then it closes.
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert!(said.len() < 4096);
    }
    // The same from a peer that has proved itself.
    for garbage in [bytes(8, 65_536), declared(8, u32::MAX)] {
        let mut client = server.client(0).await;
        let _ = client.stream.write_all(&garbage).await;
        assert!(client.try_receive().await.is_none());
    }
    assert!(server.get(block(1), 0, 0, 100_000).await.unwrap() == good);
    server.settled().await;
}

#[tokio::test]
async fn packets_out_of_order_fail_their_write_only() {
    let server = Server::new(1);
    let data = bytes(3, 1 << 20);
    let all: Vec<_> = packets(&data).collect();
    let mut client = server.client(0).await;
    let wrong: [Vec<(Packet, &[u8])>; 4] = [
        vec![all[1].clone()],
        vec![all[0].clone(), all[0].clone()],
        vec![(
            Packet {
                last: true,
                ..all[0].0.clone()
            },
            all[0].1,
        )],
        vec![all[0].clone(), all[2].clone()],
    ];
    for (at, sent) in wrong.into_iter().enumerate() {
        let (stream, id) = (at as u32 + 1, block(at as u64 + 1));
        client.open(stream, id, data.len(), server.chain(id, &[0])).await;
        assert!(matches!(client.receive().await.0.message, Message::Grant(_)));
        for (packet, payload) in sent {
            client.send(stream, Message::Packet(packet), payload).await;
        }
        let Message::Abort(abort) = client.receive().await.0.message else {
            panic!("taken");
        };
        assert_eq!(abort.problem.kind, ProblemKind::Invalid);
    }
    server.settled().await;
}

#[tokio::test]
async fn too_many_streams_are_refused_and_the_others_served() {
    let server = Server::new(1);
    let data = bytes(3, 200_000);
    server.put(block(1), &data, &[0]).await.unwrap();
    let mut client = server.client(0).await;
    for stream in 1..=100u32 {
        let id = block(u64::from(stream) + 10);
        client.open(stream, id, 1 << 20, server.chain(id, &[0])).await;
    }
    let (mut granted, mut refused) = (0, 0);
    while granted + refused < 100 - 62 {
        match client.receive().await.0.message {
            Message::Grant(_) => granted += 1,
            Message::Abort(abort) => {
                assert_eq!(abort.problem.kind, ProblemKind::Busy);
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((granted, refused), (2, 36));
    assert!(server.get(block(1), 0, 0, 200_000).await.unwrap() == data);
    drop(client);
    server.settled().await;
}

#[tokio::test]
async fn a_flipped_byte_on_disk_is_never_served_and_is_told() {
    let mut server = Server::new(2);
    let data = bytes(77, 1 << 20);
    server.put(block(1), &data, &[0, 1]).await.unwrap();
    server.stop();
    flip(&server.folder.path().join("v0/segments"), &data[500_000..500_064]);
    server.start();
    let abort = server.get(block(1), 0, 0, 1 << 20).await.unwrap_err();
    assert_eq!(abort.problem.kind, ProblemKind::Corrupt);
    assert_eq!(abort.blame, server.ids[0]);
    let report = &server.reports()[0];
    assert_eq!((report.corrupt, &report.corrupt_blocks[..]), (1, &[block(1)][..]));
    assert!(server.get(block(1), 1, 0, 1 << 20).await.unwrap() == data);
    // A replica that is known to be damaged is refused outright, in every range.
    let ticket = server.ticket(Operation::Read, block(1), 0, 0);
    assert!(
        server
            .client(0)
            .await
            .get(1, block(1), 0, 1, ticket)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_hello_without_the_secret_gets_nothing() {
    let server = Server::new(1);
    let wrong = blockyard_wire::secret::ClusterSecret::generate();
    let refused = blockyard_wire::control::open_data(
        &server.addresses[0],
        &wrong,
        blockyard_wire::frame::Role::Client,
        server.cluster,
    )
    .await
    .unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Denied);
}
