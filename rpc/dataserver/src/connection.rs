//! An accepted data connection: its hello, then one task that reads and routes frames, one that writes, and one
//! for each request. The reader never waits for anything but this connection's own bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::frame::{Abort, Message, Purpose, Role};
use blockyard_wire::hello::{Acceptor, Agreed, refusal};
use blockyard_wire::types::VolumeId;
use blockyard_wire::{Problem, ProblemKind, Result, socket};
use monoio::io::{AsyncWriteRentExt as _, Splitable as _};
use monoio::net::TcpStream;
use monoio::net::tcp::TcpOwnedWriteHalf;

use crate::buf::second_handle;
use crate::frames::{FrameReader, Sink};
use crate::node::{Lifeline, Node};
use crate::outbox::Outbox;
use crate::read::{self, GetStream};
use crate::signal::within;
use crate::write::{self, PutStream};

/// Connections of a volume at a time.
pub(crate) const CONNECTIONS_MAX: u32 = 256;
/// Requests of a connection at a time.
pub(crate) const STREAMS_MAX: usize = 64;
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 6);

/// A peer that has proved itself, and its requests.
pub(crate) struct Connection {
    pub outbox: Rc<Outbox>,
    pub role: Role,
    pub peer: IpAddr,
    lifeline: Rc<Lifeline>,
    streams: RefCell<HashMap<u32, Stream>>,
}

#[derive(Clone)]
enum Stream {
    Put(Rc<PutStream>),
    Get(Rc<GetStream>),
}

/// Sets what every data connection has, a watch for dead peers included, and gives its second handle.
pub(crate) fn tune(stream: &TcpStream) -> std::io::Result<OwnedFd> {
    let handle = second_handle(stream)?;
    socket::tune(&handle)?;
    stream.set_tcp_keepalive(Some(KEEPALIVE.0), Some(KEEPALIVE.1), Some(KEEPALIVE.2))?;
    Ok(handle)
}

/// Serves one connection until it is lost.
pub(crate) async fn serve(node: Rc<Node>, stream: TcpStream, peer: SocketAddr) {
    node.connections.set(node.connections.get() + 1);
    let refused = node.connections.get() > CONNECTIONS_MAX;
    let outcome = if refused {
        refuse(stream).await
    } else {
        run(&node, stream, peer).await
    };
    node.connections.set(node.connections.get() - 1);
    node.ended.notify();
    if let Err(problem) = outcome {
        tracing::info!(volume = %node.id, %peer, "dropped a connection: {problem}");
    }
}

async fn refuse(mut stream: TcpStream) -> Result<()> {
    let problem = Problem::new(ProblemKind::Busy, "this volume has no connection left; try again");
    let (_, _) = stream.write_all(refusal(&problem)).await;
    Err(problem)
}

async fn run(node: &Rc<Node>, stream: TcpStream, peer: SocketAddr) -> Result<()> {
    let handle = tune(&stream)?;
    let (read, mut write) = stream.into_split();
    let mut reader = FrameReader::new(read);
    let agreed = within(node.deadlines.hello_ms, greet(node, &mut reader, &mut write))
        .await
        .unwrap_or_else(|| Err(Problem::retry("no hello in time")))?;
    let outbox = Rc::new(Outbox::default());
    let lifeline = Rc::new(Lifeline::new(
        peer.to_string(),
        handle,
        outbox.clone(),
        reader.waiting_since(),
        // A client may be stopped by its user; what it holds meanwhile is freed by the longer deadlines.
        agreed.role == Role::Dataserver,
    ));
    node.watch(&lifeline);
    let writer = monoio::spawn({
        let (outbox, lifeline) = (outbox.clone(), lifeline.clone());
        async move {
            // When nothing can be written any more, nothing should be read either.
            let written = outbox.write_all(write).await;
            lifeline.cut();
            written
        }
    });
    let connection = Rc::new(Connection {
        outbox,
        role: agreed.role,
        peer: peer.ip(),
        lifeline,
        streams: RefCell::default(),
    });
    let outcome = connection.read(node, &mut reader).await;
    connection.end();
    let _ = writer.await;
    outcome
}

async fn greet(node: &Node, reader: &mut FrameReader, write: &mut TcpOwnedWriteHalf) -> Result<Agreed> {
    let mut acceptor = Acceptor::new(&node.secret, node.cluster, Purpose::Data);
    let agreed = async {
        let challenge = acceptor.hello(greeting(reader).await?)?;
        write.write_all(challenge).await.0?;
        let (welcome, agreed) = acceptor.proof(greeting(reader).await?)?;
        write.write_all(welcome).await.0?;
        Ok(agreed)
    }
    .await;
    if let Err(problem) = &agreed {
        // The peer may be gone; then there is nobody to tell.
        let _ = write.write_all(refusal(problem)).await;
    }
    agreed
}

/// A frame of the hello: none of them has a payload.
pub(crate) async fn greeting(reader: &mut FrameReader) -> Result<blockyard_wire::frame::Frame> {
    match reader.next().await? {
        Some((frame, 0)) => Ok(frame),
        Some(_) => Err(Problem::invalid("a payload before the welcome")),
        None => Err(Problem::retry("the peer closed the connection within the hello")),
    }
}

impl Connection {
    async fn read(self: &Rc<Self>, node: &Rc<Node>, reader: &mut FrameReader) -> Result<()> {
        while let Some((frame, payload_bytes)) = reader.next().await? {
            self.lifeline.touch();
            self.lifeline.hear();
            let stream = frame.stream;
            match frame.message {
                Message::Packet(packet) => {
                    // A stream that is gone may still have packets under way: they are skipped.
                    let put = match self.streams.borrow().get(&stream) {
                        Some(Stream::Put(put)) => Some(put.clone()),
                        _ => None,
                    };
                    let sink = put.as_deref().map(|put| put as &dyn Sink);
                    reader.deliver(packet, payload_bytes, sink).await?;
                }
                Message::Put(put) => {
                    let packet = put.packet();
                    let put = Rc::new(PutStream::new(stream, put));
                    let opened = self.open(node, stream, Stream::Put(put.clone()))?;
                    if payload_bytes > 0 {
                        let taken = opened && put.take_eager(node);
                        let sink = taken.then_some(&*put as &dyn Sink);
                        reader.deliver(packet, payload_bytes, sink).await?;
                    }
                    if opened {
                        monoio::spawn(write::serve(node.clone(), self.clone(), put));
                    }
                }
                Message::Get(get) => {
                    let asked = Rc::new(GetStream::new(stream, get));
                    if self.open(node, stream, Stream::Get(asked.clone()))? {
                        monoio::spawn(read::serve(node.clone(), self.clone(), asked));
                    }
                }
                Message::Cancel | Message::Abort(_) => {
                    let found = self.streams.borrow().get(&stream).cloned();
                    if let Some(found) = found {
                        found.cancel();
                    }
                    self.outbox.purge(stream);
                }
                Message::Ping => self.outbox.say(0, Message::Pong),
                Message::Pong => {}
                _ => return Err(Problem::invalid("the peer sent a frame out of place")),
            }
            if self.outbox.is_flooded() {
                return Err(Problem::invalid("the peer asks and does not read the answers"));
            }
        }
        Ok(())
    }

    /// Registers a request; `false` when it was refused.
    fn open(&self, node: &Node, stream: u32, what: Stream) -> Result<bool> {
        let mut streams = self.streams.borrow_mut();
        let refusal = if node.stopping.get() {
            Some(Problem::retry("this volume is being stopped"))
        } else if streams.len() >= STREAMS_MAX {
            Some(Problem::new(
                ProblemKind::Busy,
                format!("more than {STREAMS_MAX} requests on one connection"),
            ))
        } else {
            None
        };
        match streams.entry(stream) {
            _ if stream == 0 => Err(Problem::invalid("a request on stream 0")),
            Entry::Occupied(_) => Err(Problem::invalid("a request on a stream that is in use")),
            Entry::Vacant(place) => match refusal {
                None => {
                    place.insert(what);
                    self.lifeline.streams.set(streams.len());
                    Ok(true)
                }
                Some(problem) => {
                    let blame = VolumeId::default();
                    self.outbox.say(stream, Message::Abort(Abort { problem, blame }));
                    Ok(false)
                }
            },
        }
    }

    /// A request is over; what it has queued is still written.
    pub fn close(&self, stream: u32) {
        let mut streams = self.streams.borrow_mut();
        streams.remove(&stream);
        self.lifeline.streams.set(streams.len());
        self.lifeline.touch();
    }

    /// The connection is lost: nobody waits for answers any more.
    fn end(&self) {
        self.lifeline.cut();
        let streams: Vec<_> = self.streams.borrow().values().cloned().collect();
        streams.iter().for_each(Stream::cancel);
    }
}

impl Stream {
    fn cancel(&self) {
        match self {
            Self::Put(put) => put.cancel(),
            Self::Get(get) => get.cancel(),
        }
    }
}
