//! One-thread signalling between a volume's tasks and its callers: a one-shot, and an event for many.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A value that is set once and that clones of it wait for.
pub(crate) struct Promise<T> {
    inner: Rc<RefCell<Inner<T>>>,
}

struct Inner<T> {
    value: Option<T>,
    wakers: Vec<Waker>,
}

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<T: Clone> Promise<T> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Rc::new(RefCell::new(Inner {
                value: None,
                wakers: Vec::new(),
            })),
        }
    }

    /// Sets the value (the first one stays) and wakes who waits.
    pub(crate) fn keep(&self, value: T) {
        let wakers = {
            let mut inner = self.inner.borrow_mut();
            inner.value.get_or_insert(value);
            std::mem::take(&mut inner.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn peek(&self) -> Option<T> {
        self.inner.borrow().value.clone()
    }

    pub(crate) fn wait(&self) -> impl Future<Output = T> + use<T> {
        let inner = self.inner.clone();
        poll_fn(move |context| {
            let mut inner = inner.borrow_mut();
            match &inner.value {
                Some(value) => Poll::Ready(value.clone()),
                None => {
                    if !inner.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                        inner.wakers.push(context.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
    }
}

/// Does `one` with every item, at most so many at a time.
pub(crate) async fn each<T, F: Future<Output = ()>>(
    at_once: usize,
    mut items: impl Iterator<Item = T>,
    one: impl Fn(T) -> F,
) {
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    poll_fn(|context| {
        loop {
            running.retain_mut(|future| future.as_mut().poll(context).is_pending());
            let room = at_once - running.len();
            let begun = running.len();
            running.extend(items.by_ref().take(room).map(|item| Box::pin(one(item))));
            if running.is_empty() {
                return Poll::Ready(());
            }
            if running.len() == begun {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// A queue with one consumer that can wait for something to be in it.
pub(crate) struct Queue<T> {
    state: RefCell<QueueState<T>>,
}

struct QueueState<T> {
    items: VecDeque<T>,
    closed: bool,
    waker: Option<Waker>,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: RefCell::new(QueueState {
                items: VecDeque::new(),
                closed: false,
                waker: None,
            }),
        }
    }

    pub(crate) fn push(&self, item: T) {
        self.change(|state| state.items.push_back(item));
    }

    pub(crate) fn push_front(&self, item: T) {
        self.change(|state| state.items.push_front(item));
    }

    /// No more will come; what is in the queue is still taken.
    pub(crate) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut QueueState<T>)) {
        let waker = {
            let mut state = self.state.borrow_mut();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.state.borrow_mut().items.pop_front()
    }

    /// Waits until something is in it; `false` when it was closed and is empty.
    pub(crate) async fn filled(&self) -> bool {
        self.until(|items, closed| match (items, closed) {
            (0, false) => None,
            (items, _) => Some(items > 0),
        })
        .await
    }

    /// Looks at how many items there are and whether more will come, now and after each change.
    pub(crate) async fn until<R>(&self, mut ready: impl FnMut(usize, bool) -> Option<R>) -> R {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            let found = ready(state.items.len(), state.closed);
            if found.is_none() {
                state.waker = Some(context.waker().clone());
            }
            found.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Context;

    #[test]
    fn a_promise_is_kept_once_for_all_who_wait() {
        let promise = Promise::new();
        let (mut one, mut two) = (pin!(promise.wait()), pin!(promise.clone().wait()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(one.as_mut().poll(&mut context).is_pending());
        promise.keep(5);
        promise.keep(6);
        assert_eq!(one.as_mut().poll(&mut context), Poll::Ready(5));
        assert_eq!(two.as_mut().poll(&mut context), Poll::Ready(5));
    }

    #[test]
    fn each_item_has_its_turn_and_no_more_run_at_once() {
        let promises: Vec<Promise<()>> = (0..5).map(|_| Promise::new()).collect();
        let (begun, ended) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let (seen, done) = (&begun, &ended);
        let mut all = pin!(each(2, promises.iter().enumerate(), |(at, promise)| async move {
            seen.borrow_mut().push(at);
            promise.wait().await;
            done.borrow_mut().push(at);
        }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(all.as_mut().poll(&mut context).is_pending());
        assert_eq!(*begun.borrow(), [0, 1]);
        promises[1].keep(());
        assert!(all.as_mut().poll(&mut context).is_pending());
        assert_eq!((&*begun.borrow(), &*ended.borrow()), (&vec![0, 1, 2], &vec![1]));
        promises.iter().for_each(|promise| promise.keep(()));
        assert!(all.as_mut().poll(&mut context).is_ready());
        assert_eq!(ended.borrow().len(), 5);
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::new();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(queue.filled()).poll(&mut context).is_pending());
        queue.push(1);
        queue.push_front(0);
        queue.close();
        assert_eq!(pin!(queue.filled()).poll(&mut context), Poll::Ready(true));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(0), Some(1), None));
        assert_eq!(pin!(queue.filled()).poll(&mut context), Poll::Ready(false));
    }
}
