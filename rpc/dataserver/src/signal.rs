//! Waiting for a condition on one thread, with and without a deadline.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Wakes whoever waits for a condition on this thread to change.
#[derive(Default)]
pub(crate) struct Signal {
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Something has changed: all that wait look again.
    pub fn notify(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Looks at `ready` now and after each change until it gives something.
    pub async fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match ready() {
            Some(found) => Poll::Ready(found),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}

/// `None` when `future` takes longer than `deadline_ms`; it is dropped then.
pub(crate) async fn within<T>(deadline_ms: u64, future: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout(Duration::from_millis(deadline_ms), future)
        .await
        .ok()
}
