//! Operations as futures: continues short transfers, retries what is no failure, survives dropped futures.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::buffer::{Chunk, View};
use crate::device::{Completion, Disk, FileId, Op};
use crate::tasks::Tasks;

/// Sectors of the medium: a short transfer goes on at a multiple of this.
const SECTOR_BYTES: usize = 512;
/// Attempts without progress after which EAGAIN and its like count as failure.
const RETRIES_MAX: u32 = 10_000;

/// The disk and what is asked of it.
pub(crate) struct Io {
    /// None after the volume was closed.
    disk: RefCell<Option<Box<dyn Disk>>>,
    pending: RefCell<Pending>,
    tasks: Rc<Tasks>,
    syncs: Cell<u64>,
}

#[derive(Default)]
struct Pending {
    slots: Vec<Slot>,
    free: Vec<usize>,
    broken: Option<io::ErrorKind>,
}

#[derive(Default)]
struct Slot {
    done_bytes: usize,
    retries: u32,
    abandoned: bool,
    waker: Option<Waker>,
    outcome: Option<(Option<Op>, io::Result<()>)>,
}

impl Io {
    pub(crate) fn new(disk: Box<dyn Disk>, tasks: Rc<Tasks>) -> Self {
        Self {
            disk: RefCell::new(Some(disk)),
            pending: RefCell::default(),
            tasks,
            syncs: Cell::new(0),
        }
    }

    /// Calls on names of files.
    pub(crate) fn disk<T>(&self, call: impl FnOnce(&mut dyn Disk) -> io::Result<T>) -> io::Result<T> {
        match &mut *self.disk.borrow_mut() {
            Some(disk) => call(&mut **disk),
            None => Err(closed()),
        }
    }

    /// Waits for what is in flight and lets go of the disk; every later operation fails.
    pub(crate) fn shut(&self) {
        let disk = self.disk.borrow_mut().take();
        drop(disk);
        self.break_down(&closed());
    }

    /// The descriptor that an armed disk signals.
    pub(crate) fn event(&self) -> io::Result<Option<OwnedFd>> {
        self.disk(|disk| disk.event().map(|event| event.try_clone_to_owned()).transpose())
    }

    /// fdatasync calls so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.get()
    }

    /// Queues an operation now; the future tells its end.
    pub(crate) fn start(self: &Rc<Self>, op: Op) -> Running {
        if matches!(op, Op::Sync { .. }) {
            self.syncs.set(self.syncs.get() + 1);
        }
        let mut pending = self.pending.borrow_mut();
        let slot = pending.free.pop().unwrap_or_else(|| {
            pending.slots.push(Slot::default());
            pending.slots.len() - 1
        });
        pending.slots[slot] = Slot::default();
        if let Some(kind) = pending.broken {
            pending.slots[slot].outcome = Some((Some(op), Err(kind.into())));
        } else {
            drop(pending);
            self.submit(slot as u64, op, 0);
        }
        Running {
            io: self.clone(),
            slot: Some(slot),
        }
    }

    /// Reads into `chunk`; whole, or an error. Begins before the future is first polled.
    pub(crate) fn read(
        self: &Rc<Self>,
        file: FileId,
        offset_bytes: u64,
        chunk: Chunk,
    ) -> impl Future<Output = io::Result<Chunk>> + use<> {
        let running = self.start(Op::Read {
            file,
            offset_bytes,
            into: chunk,
        });
        async move {
            match running.await {
                (Some(Op::Read { into, .. }), Ok(())) => Ok(into),
                (_, Err(error)) => Err(error),
                (_, Ok(())) => Err(io::ErrorKind::Other.into()),
            }
        }
    }

    /// Writes `view`, whole. Begins before the future is first polled.
    pub(crate) fn write(
        self: &Rc<Self>,
        file: FileId,
        offset_bytes: u64,
        view: View,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let running = self.start(Op::Write {
            file,
            offset_bytes,
            from: view,
        });
        async move { running.await.1 }
    }

    pub(crate) async fn sync(self: &Rc<Self>, file: FileId) -> io::Result<()> {
        self.start(Op::Sync { file }).await.1
    }

    pub(crate) async fn allocate(self: &Rc<Self>, file: FileId, bytes: u64) -> io::Result<()> {
        self.start(Op::Allocate { file, bytes }).await.1
    }

    /// Whether the disk itself is gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.pending.borrow().broken.is_some()
    }

    /// Operations that may still complete.
    pub(crate) fn in_flight(&self) -> usize {
        if self.is_broken() {
            return 0;
        }
        self.disk.borrow().as_ref().map_or(0, |disk| disk.in_flight())
    }

    /// One exchange with the disk; whether anything came of it. After an error every operation, also each later
    /// one, fails: nothing is known of those in flight.
    pub(crate) fn turn(&self, wait: bool) -> io::Result<bool> {
        if self.is_broken() {
            return Ok(false);
        }
        let mut completions = Vec::new();
        let turned = self.disk(|disk| disk.turn(wait, &mut completions));
        let any = !completions.is_empty();
        for completion in completions {
            self.finish(completion);
        }
        if let Err(error) = turned {
            // The disk lets go of its buffers (those that it can), so that who waits for one is not stuck.
            let disk = self.disk.borrow_mut().take();
            drop(disk);
            self.break_down(&error);
            return Err(error);
        }
        Ok(any)
    }

    fn finish(&self, completion: Completion) {
        let Completion { token, op, result } = completion;
        let mut pending = self.pending.borrow_mut();
        let slot = &mut pending.slots[token as usize];
        let total_bytes = op.transfer_bytes();
        let outcome = match result {
            Ok(_) if total_bytes == 0 => Ok(()),
            Ok(bytes) if slot.done_bytes + bytes >= total_bytes => Ok(()),
            Ok(0) => Err(match op {
                Op::Read { .. } => {
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than expected")
                }
                _ => io::ErrorKind::WriteZero.into(),
            }),
            Ok(bytes) if slot.retries < RETRIES_MAX => {
                slot.done_bytes += bytes - bytes % SECTOR_BYTES;
                slot.retries += u32::from(bytes < SECTOR_BYTES);
                return self.go_on(pending, token, op);
            }
            Ok(_) => Err(io::Error::other(
                "the disk transfers less than a sector at a time",
            )),
            Err(error) if is_no_failure(&error) && slot.retries < RETRIES_MAX => {
                slot.retries += 1;
                return self.go_on(pending, token, op);
            }
            Err(error) => Err(error),
        };
        slot.outcome = Some((Some(op), outcome));
        if slot.abandoned {
            // The operation's buffer, dropped with the slot, may run a pool's waker: not under the borrow.
            let gone = std::mem::take(slot);
            pending.free.push(token as usize);
            drop(pending);
            drop(gone);
        } else if let Some(waker) = slot.waker.take() {
            drop(pending);
            waker.wake();
        }
    }

    fn go_on(&self, pending: std::cell::RefMut<'_, Pending>, token: u64, op: Op) {
        let done_bytes = pending.slots[token as usize].done_bytes;
        drop(pending);
        self.submit(token, op, done_bytes);
    }

    fn submit(&self, token: u64, op: Op, done_bytes: usize) {
        if let Some(disk) = &mut *self.disk.borrow_mut() {
            disk.submit(token, op, done_bytes);
        }
        self.tasks.kick();
    }

    fn break_down(&self, error: &io::Error) {
        let mut pending = self.pending.borrow_mut();
        pending.broken = Some(error.kind());
        let idle: std::collections::HashSet<usize> = pending.free.iter().copied().collect();
        let mut wakers = Vec::new();
        for (at, slot) in pending.slots.iter_mut().enumerate() {
            if !idle.contains(&at) && slot.outcome.is_none() {
                slot.outcome = Some((None, Err(error.kind().into())));
                wakers.extend(slot.waker.take());
            }
        }
        drop(pending);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Whether the operation was only put off: nothing went wrong, and the same again may go well.
fn is_no_failure(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED)
    )
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the volume is closed")
}

/// An operation under way. Dropping it does not stop the operation.
pub(crate) struct Running {
    io: Rc<Io>,
    slot: Option<usize>,
}

impl Future for Running {
    type Output = (Option<Op>, io::Result<()>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let at = self.slot.expect("polled after its end");
        let mut pending = self.io.pending.borrow_mut();
        let slot = &mut pending.slots[at];
        let Some(outcome) = slot.outcome.take() else {
            slot.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        pending.free.push(at);
        drop(pending);
        self.slot = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(at) = self.slot else { return };
        let mut pending = self.io.pending.borrow_mut();
        if pending.slots[at].outcome.is_some() {
            let gone = std::mem::take(&mut pending.slots[at]);
            pending.free.push(at);
            drop(pending);
            drop(gone);
        } else {
            pending.slots[at].abandoned = true;
            pending.slots[at].waker = None;
        }
    }
}
