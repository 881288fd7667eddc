//! Neighbours in a chain that stand still: one that gives no sign of life is soon left, one that is only slow is not.

mod common;

use std::time::Duration;

use blockyard_wire::ProblemKind;
use blockyard_wire::control::open_data;
use blockyard_wire::frame::{Message, Purpose, Put, Role};
use blockyard_wire::hello::Acceptor;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::types::{ClusterId, Origin};
use common::{Client, Server, block, bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Short enough to be waited for.
const SILENCE_MS: u64 = 400;

/// Everything but silence is waited for long: whatever fails here in time failed by it.
fn server(volumes: usize) -> Server {
    Server::with(volumes, |config| config.deadlines.silence_ms = SILENCE_MS)
}

/// Passes bytes on in both directions, while it isn't frozen: what a stopped process's kernel does for it.
struct Proxy {
    address: String,
    frozen: watch::Sender<bool>,
}

impl Proxy {
    async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, target) = (listener.local_addr().unwrap().to_string(), target.to_owned());
        let (frozen, is_frozen) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&target).await.unwrap();
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                tokio::spawn(pass(near_in, far_out, is_frozen.clone()));
                tokio::spawn(pass(far_in, near_out, is_frozen.clone()));
            }
        });
        Self { address, frozen }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut is_frozen: watch::Receiver<bool>,
) {
    let mut some = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut some).await {
        if is_frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&some[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_successor_that_stands_still_is_blamed_soon() {
    let server = server(3);
    let proxy = Proxy::to(&server.addresses[2]).await;
    let chain = |id: u64| {
        let mut chain = server.chain(block(id), &[0, 1, 2]);
        chain[2].address.clone_from(&proxy.address);
        chain
    };
    let data = bytes(1, 1 << 20);
    let mut client = server.client(0).await;
    client.put(1, block(1), &data, chain(1)).await.unwrap();
    // Stopped before it is asked, and in the middle of a block.
    for (id, before) in [(2, true), (3, false)] {
        proxy.frozen.send_replace(before);
        let mut client = server.client(0).await;
        client.open(1, block(id), data.len(), chain(id)).await;
        assert!(matches!(client.receive().await.0.message, Message::Grant(_)));
        let mut packets = common::packets(&data);
        let (first, payload) = packets.next().unwrap();
        client.send(1, Message::Packet(first), payload).await;
        proxy.frozen.send_replace(true);
        for (packet, payload) in packets {
            client.send(1, Message::Packet(packet), payload).await;
        }
        let Message::Abort(abort) = client.receive().await.0.message else {
            panic!("written, though the last volume stands still");
        };
        assert_eq!(abort.blame, server.ids[2], "{}", abort.problem);
        assert_eq!(abort.problem.kind, ProblemKind::Retry);
        assert!(
            abort.problem.message.contains("no sign of life"),
            "{}",
            abort.problem
        );
        proxy.frozen.send_replace(false);
        // It goes on, and finds that nobody wants the block any more.
        server.settled().await;
        let again = id + 10;
        let mut client = server.client(0).await;
        client.put(1, block(again), &data, chain(again)).await.unwrap();
    }
}

#[tokio::test]
async fn a_predecessor_that_stands_still_gives_its_buffer_up() {
    let server = server(2);
    let stream = open_data(
        &server.addresses[1],
        &server.secret,
        Role::Dataserver,
        server.cluster,
    )
    .await
    .unwrap();
    let mut head = Client::new(stream);
    // As the head of a chain would send it on.
    let put = Put {
        block: block(1),
        origin: Origin { version: 7, index: 3 },
        length: 1 << 20,
        position: 1,
        chain: server.chain(block(1), &[0, 1]).split_off(1),
        unit_crcs: vec![],
    };
    head.send(1, Message::Put(put), &[]).await;
    assert!(matches!(head.receive().await.0.message, Message::Grant(_)));
    // It does not answer the question, and the connection ends.
    assert!(matches!(head.receive().await.0.message, Message::Ping));
    while head.try_receive().await.is_some() {}
    server.settled().await;
}

#[tokio::test]
async fn a_client_that_stands_still_is_not_asked() {
    let server = server(1);
    let mut client = server.client(0).await;
    let data = bytes(1, 1 << 20);
    client
        .open(1, block(1), data.len(), server.chain(block(1), &[0]))
        .await;
    assert!(matches!(client.receive().await.0.message, Message::Grant(_)));
    tokio::time::sleep(Duration::from_millis(4 * SILENCE_MS)).await;
    for (packet, payload) in common::packets(&data) {
        client.send(1, Message::Packet(packet), payload).await;
    }
    assert!(matches!(client.receive().await.0.message, Message::PutDone(_)));
}

#[tokio::test]
async fn a_successor_that_is_only_slow_is_waited_for() {
    let server = server(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (secret, cluster) = (server.secret.clone(), server.cluster);
    let (answered, mut answers) = watch::channel(0);
    let slow = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer_pings(stream, &secret, cluster, &answered).await;
    });
    let mut chain = server.chain(block(1), &[0, 0]);
    chain[1].address = address;
    let mut client = server.client(0).await;
    client.open(1, block(1), 1 << 20, chain).await;
    assert!(matches!(client.receive().await.0.message, Message::Grant(_)));
    // For several times as long as a silent one would have had.
    let waiting = answers.wait_for(|answers| *answers >= 6);
    tokio::select! {
        waited = waiting => { waited.unwrap(); }
        (frame, _) = client.receive() => panic!("given up: {:?}", frame.message),
    }
    drop(client);
    server.settled().await;
    slow.abort();
}

/// A volume that is there, and gets on with nothing.
async fn answer_pings(
    stream: TcpStream,
    secret: &ClusterSecret,
    cluster: ClusterId,
    answered: &watch::Sender<u32>,
) {
    let mut peer = Client::new(stream);
    let mut acceptor = Acceptor::new(secret, cluster, Purpose::Data);
    let challenge = acceptor.hello(peer.receive().await.0).unwrap();
    peer.stream.write_all(&challenge).await.unwrap();
    let (welcome, _) = acceptor.proof(peer.receive().await.0).unwrap();
    peer.stream.write_all(&welcome).await.unwrap();
    while let Some((frame, _)) = peer.try_receive().await {
        if frame.message == Message::Ping {
            peer.send(0, Message::Pong, &[]).await;
            answered.send_modify(|answered| *answered += 1);
        }
    }
}
