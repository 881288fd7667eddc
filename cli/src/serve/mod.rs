//! The roles: a nameserver with its page, a dataserver, and all of them in one process.

mod dataserver;
mod nameserver;
mod ports;
mod up;

pub use dataserver::dataserver;
pub use nameserver::nameserver;
pub use up::up;

use crate::signals::Signals;
use crate::{exit, output};

/// Serves until a signal asks for the end, then runs `stop`; a second signal ends the process at once.
async fn until_stopped(mut signals: Signals, stop: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    signals.next().await;
    output::note("stopping; once more stops at once");
    tokio::select! {
        stopped = tokio::task::spawn_blocking(stop) => Ok(stopped?),
        () = signals.next() => std::process::exit(exit::INTERRUPTED.into()),
    }
}
