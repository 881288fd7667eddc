//! Connections to other volumes: kept, shared by many requests, made anew when lost.
//!
//! Each position of a chain has connections of its own, so that a write waits for a free stream only behind
//! writes of its own position.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use blockyard_wire::frame::{Abort, Message, Purpose, Role};
use blockyard_wire::hello::Opener;
use blockyard_wire::types::VolumeId;
use blockyard_wire::{Problem, ProblemKind, Result, address};
use bytes::Bytes;
use monoio::io::{AsyncWriteRentExt as _, Splitable as _};
use monoio::net::TcpStream;

use crate::connection::{STREAMS_MAX, greeting, tune};
use crate::frames::{FrameReader, Sink};
use crate::node::{Lifeline, Node};
use crate::outbox::Outbox;
use crate::repair::Pull;
use crate::signal::{Signal, within};
use crate::write::PutStream;

/// Other volumes that are connected to at a time.
const LINKS_MAX: usize = 512;
/// The place of repairs, behind all positions of a chain.
pub(crate) const REPAIR: u8 = u8::MAX;

/// Who waits for a stream's frames.
#[derive(Clone)]
pub(crate) enum Route {
    Put(Rc<PutStream>),
    Pull(Rc<Pull>),
}

/// All connections to other volumes.
#[derive(Default)]
pub(crate) struct Links {
    slots: RefCell<HashMap<(String, u8), Rc<Slot>>>,
}

struct Slot {
    state: RefCell<SlotState>,
    signal: Signal,
}

enum SlotState {
    Connecting,
    Ready(Rc<Link>),
    Failed(Problem),
}

/// One connection to another volume.
pub(crate) struct Link {
    pub outbox: Rc<Outbox>,
    lifeline: Rc<Lifeline>,
    routes: RefCell<HashMap<u32, Route>>,
    next_stream: Cell<u32>,
    lost: RefCell<Option<Problem>>,
    signal: Signal,
}

impl Links {
    /// The connection to `address` for `position`, made now if there is none.
    pub async fn get(&self, node: &Rc<Node>, address: &str, position: u8) -> Result<Rc<Link>> {
        let key = (address.to_owned(), position);
        let known = self.slots.borrow().get(&key).cloned();
        let slot = match known {
            Some(slot) => slot,
            None if self.slots.borrow().len() >= LINKS_MAX => {
                return Err(Problem::new(
                    ProblemKind::Busy,
                    "connected to too many other volumes",
                ));
            }
            None => {
                let slot = Rc::new(Slot {
                    state: RefCell::new(SlotState::Connecting),
                    signal: Signal::default(),
                });
                self.slots.borrow_mut().insert(key.clone(), slot.clone());
                monoio::spawn(keep(node.clone(), key, slot.clone()));
                slot
            }
        };
        slot.signal
            .until(|| match &*slot.state.borrow() {
                SlotState::Connecting => None,
                SlotState::Ready(link) => Some(Ok(link.clone())),
                SlotState::Failed(problem) => Some(Err(problem.clone())),
            })
            .await
    }
}

/// Connects, reads until the connection is lost, and clears up.
async fn keep(node: Rc<Node>, key: (String, u8), slot: Rc<Slot>) {
    let connected = within(node.deadlines.connect_ms, connect(&node, &key.0))
        .await
        .unwrap_or_else(|| Err(Problem::retry(format!("{} does not answer in time", key.0))));
    let lost = match connected {
        Ok((link, mut reader, writer)) => {
            *slot.state.borrow_mut() = SlotState::Ready(link.clone());
            slot.signal.notify();
            let read = link.read(&mut reader).await;
            let problem = match (link.lifeline.cut_for.get(), read) {
                (Some(why), _) => Problem::retry(format!("{}: {why}", key.0)),
                (None, Ok(())) => Problem::retry(format!("{} closed the connection", key.0)),
                (None, Err(problem)) => problem.context(&key.0),
            };
            node.links.slots.borrow_mut().remove(&key);
            link.lose(&problem);
            let _ = writer.await;
            problem
        }
        Err(problem) => {
            node.links.slots.borrow_mut().remove(&key);
            problem
        }
    };
    tracing::debug!(volume = %node.id, address = key.0, "no connection: {lost}");
    *slot.state.borrow_mut() = SlotState::Failed(lost);
    slot.signal.notify();
    node.ended.notify();
}

type Connected = (
    Rc<Link>,
    FrameReader,
    monoio::task::JoinHandle<std::io::Result<()>>,
);

async fn connect(node: &Node, address: &str) -> Result<Connected> {
    let target = find(address).await?;
    let stream = TcpStream::connect_addr(target)
        .await
        .map_err(|error| Problem::retry(format!("cannot connect to {address}: {error}")))?;
    let handle = tune(&stream)?;
    let (read, mut write) = stream.into_split();
    let mut reader = FrameReader::new(read);
    let greeted = async {
        let (mut opener, hello) =
            Opener::new(&node.secret, Role::Dataserver, Purpose::Data, Some(node.cluster));
        write.write_all(hello).await.0?;
        let proof = opener.challenge(greeting(&mut reader).await?)?;
        write.write_all(proof).await.0?;
        opener.welcome(greeting(&mut reader).await?)
    };
    greeted.await.map_err(|problem| problem.context(address))?;
    let outbox = Rc::new(Outbox::default());
    let lifeline = Rc::new(Lifeline::new(
        address.to_owned(),
        handle,
        outbox.clone(),
        reader.waiting_since(),
        true,
    ));
    node.watch(&lifeline);
    let writer = monoio::spawn({
        let (outbox, lifeline) = (outbox.clone(), lifeline.clone());
        async move {
            let written = outbox.write_all(write).await;
            lifeline.cut();
            written
        }
    });
    let link = Link {
        outbox,
        lifeline,
        routes: RefCell::default(),
        next_stream: Cell::new(0),
        lost: RefCell::default(),
        signal: Signal::default(),
    };
    Ok((Rc::new(link), reader, writer))
}

/// Names are looked up aside, so that a slow resolver does not stop the volume.
async fn find(text: &str) -> Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (answer, answered) = futures_channel::oneshot::channel();
    let name = text.to_owned();
    std::thread::Builder::new()
        .name("resolve".into())
        .spawn(move || {
            // Whoever asked may have given up.
            let _ = answer.send(address::resolve(&name, address::DATASERVER_PORT));
        })?;
    answered
        .await
        .unwrap_or_else(|_| Err(Problem::retry(format!("cannot look up {text}"))))
}

impl Link {
    /// Opens a stream with its first message, once there is one free. Frames come back over `route`.
    pub async fn open(&self, route: Route, message: Message, payload: Bytes) -> Result<u32> {
        self.signal
            .until(|| {
                let free = self.routes.borrow().len() < STREAMS_MAX;
                (free || self.lost.borrow().is_some()).then_some(())
            })
            .await;
        if let Some(problem) = &*self.lost.borrow() {
            return Err(problem.clone());
        }
        let mut routes = self.routes.borrow_mut();
        let stream = loop {
            // Ids only count up, so that frames of a stream that is gone are told apart.
            let next = self.next_stream.get().checked_add(1).unwrap_or(1);
            self.next_stream.set(next);
            if !routes.contains_key(&next) {
                break next;
            }
        };
        routes.insert(stream, route);
        self.lifeline.streams.set(routes.len());
        self.lifeline.touch();
        self.outbox.push(stream, message, payload);
        Ok(stream)
    }

    /// Forgets a stream; when the other side may still work on it, tells it to stop.
    pub fn close(&self, stream: u32) {
        if self.take(stream).is_some() {
            self.outbox.purge(stream);
            self.outbox.say(stream, Message::Cancel);
        }
    }

    fn take(&self, stream: u32) -> Option<Route> {
        let mut routes = self.routes.borrow_mut();
        let route = routes.remove(&stream);
        self.lifeline.streams.set(routes.len());
        self.lifeline.touch();
        self.signal.notify();
        route
    }

    async fn read(&self, reader: &mut FrameReader) -> Result<()> {
        while let Some((frame, payload_bytes)) = reader.next().await? {
            self.lifeline.hear();
            let stream = frame.stream;
            let route = self.routes.borrow().get(&stream).cloned();
            match (frame.message, route) {
                (Message::Packet(packet), route) => {
                    let pull = match &route {
                        Some(Route::Pull(pull)) => Some(&**pull as &dyn Sink),
                        _ => None,
                    };
                    reader.deliver(packet, payload_bytes, pull).await?;
                }
                (Message::Grant(bytes), Some(Route::Put(put))) => put.granted(bytes),
                (Message::PutDone(done), Some(Route::Put(put))) => {
                    self.take(stream);
                    put.done_behind(done);
                }
                (Message::Abort(abort), Some(route)) => {
                    self.take(stream);
                    self.outbox.purge(stream);
                    route.fail(abort);
                }
                // Of a stream that was given up meanwhile.
                (Message::Grant(_) | Message::PutDone(_), None) => {}
                (Message::Abort(abort), None) if stream == 0 => return Err(abort.problem),
                (Message::Abort(_), None) => {}
                (Message::Ping, _) => self.outbox.say(0, Message::Pong),
                (Message::Pong, _) => {}
                _ => return Err(Problem::invalid("the peer sent a frame out of place")),
            }
        }
        Ok(())
    }

    fn lose(&self, problem: &Problem) {
        *self.lost.borrow_mut() = Some(problem.clone());
        self.lifeline.cut();
        let routes: Vec<_> = self.routes.borrow_mut().drain().collect();
        for (_, route) in routes {
            route.fail(Abort {
                problem: problem.clone(),
                blame: VolumeId::default(),
            });
        }
        self.signal.notify();
    }
}

impl Route {
    fn fail(&self, abort: Abort) {
        match self {
            Self::Put(put) => put.failed_behind(abort),
            Self::Pull(pull) => pull.fail(abort.problem),
        }
    }
}
