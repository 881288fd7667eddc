//! Drives a volume on the thread's own runtime: everything that can go on goes on, then one wait for the ring.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::core::Core;
use crate::error::{Error, Result};

/// Exchanges with the disk in a row before the runtime's other tasks get a turn.
const ROUNDS_MAX: u32 = 4;

/// How the thread's runtime waits for the disk ring.
pub trait CompletionWait {
    /// Resolves when `fd` (an eventfd, nonblocking) can be read.
    fn readable(&self, fd: BorrowedFd<'_>) -> impl Future<Output = io::Result<()>>;
}

/// Runs until the volume is closed.
pub(crate) async fn drive(core: &Rc<Core>, waiter: impl CompletionWait) -> Result<()> {
    let event = core
        .io
        .event()
        .map_err(Error::io("duplicating the ring's eventfd"))?;
    let event = event.ok_or_else(|| Error::misuse("this volume's disk has no event to wait for"))?;
    let mut readable = pin!(waiter.readable(event.as_fd()));
    loop {
        let mut rounds = 0;
        while work(core)? {
            rounds += 1;
            if rounds == ROUNDS_MAX {
                rounds = 0;
                yield_now().await;
            }
        }
        // Closing shuts the disk last: until then it has its checkpoint to write, even when no task is alive.
        if core.state.borrow().closed && core.io.is_broken() && core.tasks.alive() == 0 {
            return Ok(());
        }
        // Whatever completes from here on is signalled; what did before is found by one more look.
        let armed = core.io.in_flight() > 0;
        if armed {
            let _ = core.io.disk(|disk| {
                disk.arm(true);
                Ok(())
            });
            if work(core)? {
                disarm(core);
                continue;
            }
        }
        let signalled = poll_fn(|context| {
            if core.tasks.register_driver(context.waker()) {
                return Poll::Ready(None);
            }
            if !armed {
                return Poll::Pending;
            }
            readable.as_mut().poll(context).map(Some)
        })
        .await;
        disarm(core);
        if let Some(readable_result) = signalled {
            readable_result.map_err(Error::io("waiting for the ring's eventfd"))?;
            let _ = core.io.disk(|disk| {
                disk.drain_event();
                Ok(())
            });
            readable.set(waiter.readable(event.as_fd()));
        }
    }
}

/// One exchange; whether there may be more to do. An error of the ring ends the drive, except after closing.
fn work(core: &Core) -> Result<bool> {
    match core.work(false) {
        Ok(any) => Ok(any),
        Err(_) if core.state.borrow().closed => Ok(false),
        Err(_) => Err(core.failed_error()),
    }
}

fn disarm(core: &Core) {
    let _ = core.io.disk(|disk| {
        disk.arm(false);
        Ok(())
    });
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
