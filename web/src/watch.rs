//! Watches the cluster for the page: samples it, notes what happens, and tells all who listen, each change once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, timeout};

use blockyard_wire::Result;

use crate::backend::Backend;
use crate::document::Document;
use crate::history::{History, Rows, STEP_MS, Sample};
use crate::patch;
use crate::rates::Rates;
use crate::respond::Pieces;
use crate::timeline::{Event, Events, Timeline};

/// Between two looks at the cluster: a change is told within twice that.
const LOOK: Duration = Duration::from_millis(250);
/// Looks of one sample.
const LOOKS_A_SAMPLE: u32 = (STEP_MS / LOOK.as_millis() as u64) as u32;
/// Messages that are kept for listeners who come back: some minutes' worth.
const KEPT_MAX: usize = 1024;
/// Bytes of them at the most.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// Messages that a listener may be behind before its connection is ended.
const BEHIND_MAX: usize = 256;
/// A silent stream says that it lives so often.
const ALIVE: Duration = Duration::from_secs(10);
/// Events that a new listener is told.
const EVENTS_TOLD: usize = 200;

#[derive(Clone)]
struct Message {
    id: u64,
    text: Bytes,
}

/// The watch over a cluster.
pub(crate) struct Watch {
    backend: Rc<dyn Backend>,
    seen: RefCell<Seen>,
    listeners: broadcast::Sender<Message>,
    /// Tells this life's messages from another's.
    life: u64,
    last_id: Cell<u64>,
    /// The last message that no delta has followed although one was due: nobody was there.
    unheard: Cell<u64>,
    kept: RefCell<VecDeque<Message>>,
}

#[derive(Default)]
struct Seen {
    rates: Rates,
    history: History,
    timeline: Timeline,
    /// The document as listeners have it.
    told: Value,
}

#[derive(Serialize)]
struct Snapshot<'a> {
    state: &'a Value,
    timeline: Vec<Event>,
    /// The last one, if there is any.
    sample: Option<Sample>,
}

impl Watch {
    /// A watch that has not looked yet.
    pub(crate) fn new(backend: Rc<dyn Backend>) -> Self {
        Self {
            backend,
            seen: RefCell::default(),
            listeners: broadcast::channel(BEHIND_MAX).0,
            life: UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64,
            last_id: Cell::new(0),
            unheard: Cell::new(0),
            kept: RefCell::default(),
        }
    }

    /// Looks at the cluster until dropped.
    pub(crate) async fn run(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 0_u32.. {
            ticks.tick().await;
            if let Err(problem) = self.look(look % LOOKS_A_SAMPLE == 0).await {
                tracing::debug!(%problem, "the page can't look at the cluster");
            }
        }
    }

    async fn look(&self, sampling: bool) -> Result<()> {
        let status = self.backend.status().await?;
        let mut seen = self.seen.borrow_mut();
        seen.rates.look(&status);
        for event in seen.timeline.look(&status) {
            self.say("event", &event);
        }
        if sampling {
            let sample = Sample::new(&status, &seen.rates);
            seen.history.push(sample);
            self.say("sample", &sample);
        }
        // Documents are only compared where somebody sees the difference.
        if self.listeners.receiver_count() > 0 {
            let now = json(&Document::new(status, &seen.rates));
            if let Some(change) = patch::between(&seen.told, &now) {
                self.say("delta", &change);
                seen.told = now;
            }
        } else {
            self.unheard.set(self.last_id.get());
        }
        Ok(())
    }

    fn say(&self, event: &str, data: &impl Serialize) {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let message = Message {
            id,
            text: self.text(id, event, data),
        };
        let mut kept = self.kept.borrow_mut();
        kept.push_back(message.clone());
        let mut bytes: usize = kept.iter().map(|message| message.text.len()).sum();
        while kept.len() > KEPT_MAX || bytes > KEPT_BYTES_MAX {
            bytes -= kept.pop_front().map_or(0, |gone| gone.text.len());
        }
        // Without listeners it is kept only.
        let _ = self.listeners.send(message);
    }

    /// An event of a stream; JSON has no line breaks of its own.
    fn text(&self, id: u64, event: &str, data: &impl Serialize) -> Bytes {
        let mut text = String::new();
        // Plain structs of text and numbers.
        let data = serde_json::to_string(data).unwrap_or_default();
        let _ = writeln!(text, "id: {}-{id}\nevent: {event}\ndata: {data}\n", self.life);
        text.into()
    }

    /// The document as it is now.
    pub(crate) async fn document(&self) -> Result<Document> {
        let status = self.backend.status().await?;
        let mut seen = self.seen.borrow_mut();
        seen.rates.look(&status);
        Ok(Document::new(status, &seen.rates))
    }

    /// Samples of a window; `None` for one that there is not.
    pub(crate) fn history(&self, window: &str) -> Option<Rows> {
        self.seen.borrow().history.rows(window)
    }

    /// Events before the number `before`.
    pub(crate) fn timeline(&self, before: u64, limit: usize) -> Events {
        self.seen.borrow().timeline.events(before, limit)
    }

    /// What has happened behind the message `last`, or all there is, and what happens from now on.
    ///
    /// # Errors
    /// When the cluster can't be looked at.
    pub(crate) async fn listen(&self, last: Option<&str>) -> Result<Pieces> {
        let past = match last.and_then(|last| self.since(last)) {
            Some(past) => past,
            None => vec![self.snapshot().await?],
        };
        // Nothing is said between the two: no other task has its turn.
        let live = self.listeners.subscribe();
        let rest = stream::unfold(live, |mut live| async move {
            match timeout(ALIVE, live.recv()).await {
                Ok(Ok(message)) => Some((Ok(message.text), live)),
                Err(_) => Some((Ok(Bytes::from_static(b":\n\n")), live)),
                // It comes back, and gets a snapshot or what it has missed.
                Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => None,
            }
        });
        let past = stream::iter(past.into_iter().map(Ok));
        Ok(Box::pin(past.chain(rest)))
    }

    /// What was said behind a message of this life; `None` where that is not known any more.
    fn since(&self, last: &str) -> Option<Vec<Bytes>> {
        let (life, id) = last.trim().split_once('-')?;
        let id: u64 = id.parse().ok()?;
        let kept = self.kept.borrow();
        let first = kept.front()?.id;
        let known = life == self.life.to_string()
            && (first..=self.last_id.get() + 1).contains(&(id + 1))
            && id >= self.unheard.get();
        let behind = kept.iter().filter(|message| message.id > id);
        known.then(|| behind.map(|message| message.text.clone()).collect())
    }

    async fn snapshot(&self) -> Result<Bytes> {
        let now = json(&self.document().await?);
        let mut seen = self.seen.borrow_mut();
        // Others learn of the changes since the last look first, so that all have the same.
        if let Some(change) = patch::between(&seen.told, &now) {
            self.say("delta", &change);
            seen.told = now;
        }
        let snapshot = Snapshot {
            state: &seen.told,
            timeline: seen.timeline.last(EVENTS_TOLD),
            sample: seen.history.last(),
        };
        Ok(self.text(self.last_id.get(), "snapshot", &snapshot))
    }
}

fn json(document: &Document) -> Value {
    serde_json::to_value(document).unwrap_or_default()
}
