//! How a stream waits: as long as something moves, and then for one deadline more. Halfway through it
//! the peer is asked whether it is there at all, which tells a dead peer from a slow one.

use std::cell::Cell;
use std::time::Duration;

use blockyard_wire::frame::Message;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::Channel;
use super::{Cause, Trouble};
use blockyard_wire::Problem;

/// What a clogged client gets before a peer is called silent: its own timers may be what was late.
const GRACE: Duration = Duration::from_millis(100);

/// Cancels a stream unless it has ended.
pub struct Guard<'a> {
    pub channel: &'a Channel,
    pub stream: u32,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.channel.cancel(self.stream);
    }
}

/// The deadline of one stream.
pub struct Patience<'a> {
    channel: &'a Channel,
    stall: Duration,
    asked: Cell<Option<Instant>>,
}

impl<'a> Patience<'a> {
    pub fn new(channel: &'a Channel, stall: Duration) -> Self {
        Self {
            channel,
            stall,
            asked: Cell::new(None),
        }
    }

    /// Waits for a change, or until it is time to look again.
    ///
    /// # Errors
    /// `Silent` when the peer said nothing at all (its connection is closed then), `Stalled` when only
    /// this stream does not move.
    pub async fn wait(
        &self,
        changed: &Notify,
        progress: &Cell<Instant>,
        ended: impl Fn() -> bool,
    ) -> Result<(), Trouble> {
        let moved = progress.get();
        if self.asked.get().is_some_and(|asked| asked < moved) {
            self.asked.set(None);
        }
        let wake = match self.asked.get() {
            None => moved + self.stall / 2,
            Some(_) => moved + self.stall,
        };
        tokio::select! {
            biased;
            () = changed.notified() => return Ok(()),
            () = sleep_until(wake) => {}
        }
        let Some(asked) = self.asked.get() else {
            self.asked.set(Some(Instant::now()));
            self.channel.send(0, Message::Ping, Bytes::new(), None);
            return Ok(());
        };
        sleep(GRACE).await;
        if ended() || progress.get() > moved {
            return Ok(());
        }
        let (address, stall) = (&self.channel.address, self.stall);
        if self.channel.heard() > asked {
            let problem = Problem::retry(format!("{address} is there but did not get on for {stall:?}"));
            return Err(Trouble::of(Cause::Stalled, problem));
        }
        let problem = Problem::retry(format!("{address} was silent for {stall:?}"));
        self.channel.close(&problem);
        Err(Trouble::of(Cause::Silent, problem))
    }
}
