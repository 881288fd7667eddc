//! Ctrl-C and SIGTERM: the first asks politely, the second ends the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end a process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Caught, so that a limit on the size of files is an error of a write and not the end of the process.
    _too_long: Signal,
}

impl Signals {
    /// Starts to catch them: from now on they no longer end the process by themselves.
    ///
    /// # Errors
    /// The system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            _too_long: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
