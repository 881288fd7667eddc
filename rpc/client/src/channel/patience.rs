//! How a stream waits: as long as something moves, and then for one deadline more. Meanwhile the peer is asked whether it
//! is there at all, which tells a dead or stopped peer, soon given up, from a slow one.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::Channel;
use super::{Cause, Trouble};
use blockyard_wire::Problem;

/// What a clogged client gets before a peer is called silent: its own timers may be what was late.
const GRACE: Duration = Duration::from_millis(100);

/// How long a stream waits.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Without progress of this stream, for a peer that is there.
    pub stall: Duration,
    /// Without a sign of life from the peer. No more than `stall` counts.
    pub silence: Duration,
}

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

/// The deadlines of one stream.
pub struct Patience<'a> {
    channel: &'a Channel,
    stall: Duration,
    /// Half of the silence: until the peer is asked, and from then until it is given up.
    half: Duration,
    asked: Cell<Option<Instant>>,
}

impl<'a> Patience<'a> {
    pub fn new(channel: &'a Channel, deadlines: Deadlines) -> Self {
        let Deadlines { stall, silence } = deadlines;
        Self {
            channel,
            stall,
            half: silence.min(stall) / 2,
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
        let wake = self.wake_at(moved);
        tokio::select! {
            biased;
            () = changed.notified() => return Ok(()),
            () = sleep_until(wake) => {}
        }
        let (address, now) = (&self.channel.address, Instant::now());
        let Some(asked) = self.asked.get() else {
            self.ask(now);
            return Ok(());
        };
        if self.channel.heard() > asked {
            if now < moved + self.stall {
                // It was there then; whether it still is, is asked again and again.
                self.ask(now);
                return Ok(());
            }
            let stall = self.stall;
            let problem = Problem::retry(format!("{address} is there but did not get on for {stall:?}"));
            return Err(Trouble::of(Cause::Stalled, problem));
        }
        if now < self.wake_at(moved) {
            // Bytes have left meanwhile, and the question may be behind them.
            return Ok(());
        }
        sleep(GRACE).await;
        if ended() || progress.get() > moved || self.channel.heard() > asked {
            return Ok(());
        }
        let problem = Problem::retry(format!("{address} was silent for {:?}", 2 * self.half));
        self.channel.close(&problem);
        Err(Trouble::of(Cause::Silent, problem))
    }

    /// When there is something to be done, unless the stream moves before that.
    fn wake_at(&self, moved: Instant) -> Instant {
        match self.asked.get() {
            None => moved + self.half,
            Some(asked) if self.channel.heard() > asked => (asked + self.half).min(moved + self.stall),
            // A question that waits behind other bytes is not heard yet.
            Some(asked) => asked.max(self.channel.wrote()) + self.half,
        }
    }

    fn ask(&self, now: Instant) {
        self.asked.set(Some(now));
        self.channel.ping();
    }
}
