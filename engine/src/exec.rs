//! Runs a future together with its volume by blocking in the ring: for tests, fsck and benchmarks.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};

use crate::core::Core;
use crate::volume::Volume;

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Drives `volume` until `future` ends. Don't use it beside [`Volume::drive`].
pub fn run<F: Future>(volume: &Volume, future: F) -> F::Output {
    block_on(volume.core(), future)
}

/// As [`run`], before there is a volume.
pub(crate) fn block_on<F: Future>(core: &Core, future: F) -> F::Output {
    let unpark = Arc::new(Unpark {
        thread: thread::current(),
        woken: AtomicBool::new(true),
    });
    let waker = unpark.clone().into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if unpark.woken.swap(false, Ordering::AcqRel)
            && let Poll::Ready(output) = future.as_mut().poll(&mut context)
        {
            return output;
        }
        // After an error every operation fails at once, so the future gets its answer; nothing to do here.
        let worked = core.work(false).unwrap_or(true);
        if worked || unpark.woken.load(Ordering::Acquire) {
            continue;
        }
        if core.io.in_flight() > 0 {
            let _ = core.work(true);
        } else {
            // Only another thread can go on with this: one that holds a buffer, say.
            thread::park();
        }
    }
}
