//! The roles: a nameserver with its page, a dataserver, and all of them in one process.

mod dataserver;
mod nameserver;
mod ports;
mod up;

pub use dataserver::dataserver;
pub use nameserver::{nameserver, problem as nameserver_problem};
pub use up::up;

use crate::signals::Signals;
use crate::{exit, output};

/// Serves until a signal asks for the end or `ended` tells of it, then runs `stop`; a second signal ends the process at once.
///
/// # Errors
/// That of `stop`.
async fn until_stopped(
    mut signals: Signals,
    ended: impl Future,
    stop: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    tokio::select! {
        () = signals.next() => output::note("stopping; once more stops at once"),
        _ = ended => {}
    }
    tokio::select! {
        stopped = tokio::task::spawn_blocking(stop) => stopped?,
        () = signals.next() => std::process::exit(exit::INTERRUPTED.into()),
    }
}
