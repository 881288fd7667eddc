//! The volume's own small executor: its tasks run where the ring is driven, whatever runtime drives it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks and the queue of those that can go on.
pub(crate) struct Tasks {
    slots: RefCell<Slots>,
    ready: Arc<Ready>,
}

#[derive(Default)]
struct Slots {
    tasks: Vec<Slot>,
    free: Vec<usize>,
    alive: usize,
}

#[derive(Default)]
struct Slot {
    task: Option<Task>,
    waker: Option<Arc<TaskWaker>>,
}

/// What wakers reach: it is shared, because wakers may be woken on any thread.
#[derive(Default)]
struct Ready {
    queue: Mutex<Vec<Arc<TaskWaker>>>,
    /// Set when there is work that the driver has not seen.
    dirty: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Ready {
    fn kick(&self) {
        if self.dirty.swap(true, Ordering::AcqRel) {
            return;
        }
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

struct TaskWaker {
    slot: usize,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let ready = self.ready.clone();
            ready
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self);
            ready.kick();
        }
    }
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            slots: RefCell::default(),
            ready: Arc::default(),
        }
    }

    /// Starts a task; it first runs when the volume is driven next.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.tasks.push(Slot::default());
            slots.tasks.len() - 1
        });
        let waker = Arc::new(TaskWaker {
            slot,
            queued: AtomicBool::new(false),
            ready: self.ready.clone(),
        });
        slots.tasks[slot] = Slot {
            task: Some(Box::pin(task)),
            waker: Some(waker.clone()),
        };
        slots.alive += 1;
        drop(slots);
        waker.wake();
    }

    /// Tells the driver that there is something to do.
    pub(crate) fn kick(&self) {
        self.ready.kick();
    }

    /// Registers who drives, to be woken by the next kick; `true` when a kick came since the last call of `seen`.
    pub(crate) fn register_driver(&self, waker: &Waker) -> bool {
        let mut driver = self.ready.driver.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *driver {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        self.ready.dirty.load(Ordering::Acquire)
    }

    /// The driver is about to look at everything.
    pub(crate) fn seen(&self) -> bool {
        self.ready.dirty.swap(false, Ordering::AcqRel)
    }

    /// Runs every task that can go on, until none can; whether any ran.
    pub(crate) fn run_ready(&self) -> bool {
        let mut any = false;
        loop {
            let batch = std::mem::take(&mut *self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner));
            if batch.is_empty() {
                return any;
            }
            any = true;
            for waker in batch {
                self.run(&waker);
            }
        }
    }

    fn run(&self, waker: &Arc<TaskWaker>) {
        waker.queued.store(false, Ordering::Release);
        let task = {
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots.tasks[waker.slot];
            // A late wake-up of a task that is gone, its slot perhaps reused.
            if !slot.waker.as_ref().is_some_and(|own| Arc::ptr_eq(own, waker)) {
                return;
            }
            slot.task.take()
        };
        let Some(mut task) = task else { return };
        let finished = task
            .as_mut()
            .poll(&mut Context::from_waker(&waker.clone().into()))
            .is_ready();
        let mut slots = self.slots.borrow_mut();
        if finished {
            slots.tasks[waker.slot] = Slot::default();
            slots.free.push(waker.slot);
            slots.alive -= 1;
            drop(slots);
            drop(task);
        } else {
            slots.tasks[waker.slot].task = Some(task);
        }
    }

    /// Drops every task: they hold the volume, and the volume holds them.
    pub(crate) fn clear(&self) {
        let tasks: Vec<Slot> = std::mem::take(&mut *self.slots.borrow_mut()).tasks;
        drop(tasks);
    }

    /// Tasks that have not finished.
    pub(crate) fn alive(&self) -> usize {
        self.slots.borrow().alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Promise;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn tasks_run_when_woken_and_end() {
        let (tasks, promise, sum) = (Tasks::new(), Promise::new(), Rc::new(Cell::new(0)));
        for add in [1, 10] {
            let (promise, sum) = (promise.clone(), sum.clone());
            tasks.spawn(async move {
                let factor = promise.wait().await;
                sum.set(sum.get() + add * factor);
            });
        }
        assert!(tasks.run_ready() && !tasks.run_ready());
        promise.keep(2);
        assert!(tasks.run_ready());
        assert_eq!((sum.get(), tasks.alive()), (22, 0));
    }

    #[test]
    fn a_kick_is_kept_until_seen() {
        let tasks = Tasks::new();
        assert!(!tasks.register_driver(Waker::noop()));
        tasks.kick();
        assert!(tasks.register_driver(Waker::noop()));
        assert!(tasks.seen() && !tasks.seen());
    }
}
