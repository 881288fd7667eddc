//! One connection and its streams: what reader, writer and callers share. All on one thread.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use blockyard_wire::Problem;
use blockyard_wire::frame::{Abort, Frame, Message};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::get::GetState;
use super::put::PutState;
use super::{Cause, Trouble, reader, writer};

/// Streams at once: below what a volume takes on one connection, so that it never has to refuse.
const STREAMS_MAX: usize = 48;

/// A frame to send.
pub struct Outgoing {
    pub stream: u32,
    pub head: Bytes,
    pub payload: Bytes,
    /// Whose progress it is when bytes leave.
    pub of: Option<Rc<PutState>>,
    /// It is the first of its stream.
    pub opens: bool,
}

/// A stream by its kind.
#[derive(Clone)]
pub enum Stream {
    Put(Rc<PutState>),
    Get(Rc<GetState>),
}

impl Stream {
    pub fn end(&self, trouble: Trouble) {
        match self {
            Self::Put(put) => put.end(Err(trouble)),
            Self::Get(get) => get.end(Err(trouble)),
        }
    }
}

/// A connection that has said its hello.
pub struct Channel {
    /// `HOST:PORT` of the volume, for messages.
    pub address: String,
    /// Held by every stream while it is open.
    pub permits: Arc<Semaphore>,
    streams: RefCell<HashMap<u32, Stream>>,
    next_stream: Cell<u32>,
    /// Bounded by the streams: each has at most one block in it.
    outgoing: RefCell<VecDeque<Outgoing>>,
    more_outgoing: Notify,
    closed: RefCell<Option<Problem>>,
    heard: Cell<Instant>,
    wrote: Cell<Instant>,
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Channel {
    /// Starts the reader and writer of `connection`.
    pub fn start(address: &str, connection: TcpStream) -> Rc<Self> {
        let channel = Rc::new(Self {
            address: address.to_owned(),
            permits: Arc::new(Semaphore::new(STREAMS_MAX)),
            streams: RefCell::default(),
            next_stream: Cell::new(1),
            outgoing: RefCell::default(),
            more_outgoing: Notify::new(),
            closed: RefCell::new(None),
            heard: Cell::new(Instant::now()),
            wrote: Cell::new(Instant::now()),
            tasks: RefCell::default(),
        });
        let (input, output) = connection.into_split();
        let reading = channel.clone();
        let reader = tokio::task::spawn_local(async move {
            let problem = reader::run(&reading, input).await;
            reading.close(&problem);
        });
        let writing = channel.clone();
        let writer = tokio::task::spawn_local(async move {
            let problem = writer::run(&writing, output).await;
            writing.close(&problem);
        });
        *channel.tasks.borrow_mut() = vec![reader.abort_handle(), writer.abort_handle()];
        channel
    }

    /// Whether new streams can be opened.
    pub fn is_open(&self) -> bool {
        self.closed.borrow().is_none()
    }

    /// Streams that are open.
    pub fn load(&self) -> usize {
        self.streams.borrow().len()
    }

    /// When the last frame came in.
    pub fn heard(&self) -> Instant {
        self.heard.get()
    }

    pub fn hear(&self) {
        self.heard.set(Instant::now());
    }

    /// When the socket last took bytes.
    pub fn wrote(&self) -> Instant {
        self.wrote.get()
    }

    /// The socket has taken bytes now.
    pub fn write(&self) -> Instant {
        let now = Instant::now();
        self.wrote.set(now);
        now
    }

    /// Asks the peer whether it is there, before all that waits to be sent.
    pub fn ping(&self) {
        if !self.is_open() {
            return;
        }
        let ping = Frame {
            stream: 0,
            message: Message::Ping,
        };
        self.outgoing.borrow_mut().push_front(Outgoing {
            stream: 0,
            head: Bytes::from(ping.encode(0)),
            payload: Bytes::new(),
            of: None,
            opens: false,
        });
        self.more_outgoing.notify_one();
    }

    /// Ends every stream with `problem` and the connection with them.
    pub fn close(&self, problem: &Problem) {
        if !self.is_open() {
            return;
        }
        tracing::debug!(address = self.address, %problem, "data connection closed");
        self.closed.replace(Some(problem.clone()));
        self.permits.close();
        self.outgoing.borrow_mut().clear();
        let streams = std::mem::take(&mut *self.streams.borrow_mut());
        for stream in streams.into_values() {
            stream.end(Trouble::lost(problem.clone()));
        }
        for task in self.tasks.take() {
            task.abort();
        }
    }

    /// Why it was closed.
    pub fn why_closed(&self) -> Trouble {
        let why = self.closed.borrow().clone();
        Trouble::lost(why.unwrap_or_else(|| Problem::retry(format!("{} is being closed", self.address))))
    }

    /// Opens a stream with its first frame.
    pub fn open(
        &self,
        stream: Stream,
        first: Message,
        payload: Bytes,
        of: Option<Rc<PutState>>,
    ) -> Result<u32, Trouble> {
        if !self.is_open() {
            return Err(self.why_closed());
        }
        let mut streams = self.streams.borrow_mut();
        let mut id = self.next_stream.get();
        // Ids wrap; 0 is the connection's own, and one long-lived stream may still hold its id.
        while id == 0 || streams.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.next_stream.set(id.wrapping_add(1));
        streams.insert(id, stream);
        drop(streams);
        self.queue(id, first, payload, of, true);
        Ok(id)
    }

    /// Queues a frame of a stream that is open.
    pub fn send(&self, stream: u32, message: Message, payload: Bytes, of: Option<Rc<PutState>>) {
        self.queue(stream, message, payload, of, false);
    }

    fn queue(&self, stream: u32, message: Message, payload: Bytes, of: Option<Rc<PutState>>, opens: bool) {
        if !self.is_open() {
            return;
        }
        let head = Bytes::from(Frame { stream, message }.encode(payload.len()));
        self.outgoing.borrow_mut().push_back(Outgoing {
            stream,
            head,
            payload,
            of,
            opens,
        });
        self.more_outgoing.notify_one();
    }

    /// Moves frames of about `bytes_max` to `batch`, waiting for the first.
    pub async fn take_outgoing(&self, batch: &mut Vec<Outgoing>, frames_max: usize, bytes_max: usize) {
        loop {
            self.move_outgoing(batch, frames_max, bytes_max);
            if !batch.is_empty() {
                return;
            }
            self.more_outgoing.notified().await;
        }
    }

    fn move_outgoing(&self, batch: &mut Vec<Outgoing>, frames_max: usize, bytes_max: usize) {
        let mut outgoing = self.outgoing.borrow_mut();
        let mut bytes = 0;
        while batch.len() < frames_max && bytes < bytes_max {
            let Some(frame) = outgoing.pop_front() else { break };
            bytes += frame.head.len() + frame.payload.len();
            batch.push(frame);
        }
    }

    /// The stream with this id, if it is still wanted.
    pub fn stream(&self, id: u32) -> Option<Stream> {
        self.streams.borrow().get(&id).cloned()
    }

    /// Takes a stream that the peer has ended.
    pub fn ended(&self, id: u32) -> Option<Stream> {
        self.streams.borrow_mut().remove(&id)
    }

    /// Ends a stream from this side: what is queued of it is dropped and the peer told.
    pub fn cancel(&self, id: u32) -> Option<Stream> {
        let stream = self.ended(id)?;
        let mut opening_unsent = false;
        self.outgoing.borrow_mut().retain(|frame| {
            let own = frame.stream == id;
            opening_unsent |= own && frame.opens;
            !own
        });
        // The peer has never heard of a stream whose opening frame is still here.
        if !opening_unsent {
            self.send(id, Message::Cancel, Bytes::new(), None);
        }
        Some(stream)
    }

    /// The peer's refusal of a stream, or of the whole connection.
    pub fn aborted(&self, id: u32, abort: Abort) {
        if id == 0 {
            self.close(&abort.problem.context(&self.address));
        } else if let Some(stream) = self.ended(id) {
            stream.end(Trouble {
                cause: Cause::Refused,
                problem: abort.problem.context(&self.address),
                blame: (!abort.blame.is_zero()).then_some(abort.blame),
            });
            // Packets of it may still be queued; the peer would only throw them away.
            self.outgoing.borrow_mut().retain(|frame| frame.stream != id);
        }
    }
}
