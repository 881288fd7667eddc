//! Pools of buffers per lane: bounded, first come first served, and safe to abandon while waiting.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::buffer::{Arena, Blank, Frame};
use crate::extents::Extents;
use crate::limits::{BLOCK_BYTES_MAX, PAGE_BYTES, UNIT_BYTES};

/// Bytes of a small buffer: one checksum unit and a header page.
pub(crate) const SMALL_FRAME_BYTES: usize = UNIT_BYTES + PAGE_BYTES;
/// Bytes of a large buffer: a whole block and a header page.
pub(crate) const LARGE_FRAME_BYTES: usize = BLOCK_BYTES_MAX + PAGE_BYTES;
const LANES: usize = 5;

/// Whom a buffer is for. Each lane has buffers of its own, so that requests which wait on later positions of a
/// chain can't starve those.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Writes that enter the chain here.
    Head,
    /// Writes at a later position of a chain.
    Next,
    /// Copies pulled for repair.
    Repair,
    /// Reads.
    Read,
    /// The volume's own journal, checkpoint and superblock pages.
    #[doc(hidden)]
    Own,
}

/// Buffers of one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneOptions {
    /// Buffers for a whole block: 4 MiB and a header page each.
    pub large: u32,
    /// Buffers for at most 64 KiB and a header page each.
    pub small: u32,
}

/// How many buffers each lane has: the bound on a volume's memory.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// For [`Lane::Head`].
    pub head: LaneOptions,
    /// For [`Lane::Next`].
    pub next: LaneOptions,
    /// For [`Lane::Repair`].
    pub repair: LaneOptions,
    /// For [`Lane::Read`].
    pub read: LaneOptions,
}

impl Default for PoolOptions {
    /// About 150 MiB.
    fn default() -> Self {
        Self {
            head: LaneOptions { large: 10, small: 32 },
            next: LaneOptions { large: 10, small: 32 },
            repair: LaneOptions { large: 4, small: 8 },
            read: LaneOptions { large: 10, small: 32 },
        }
    }
}

impl PoolOptions {
    /// The fewest buffers that work: for tests and tools.
    pub fn small() -> Self {
        let lane = LaneOptions { large: 2, small: 4 };
        Self {
            head: lane,
            next: lane,
            repair: LaneOptions { large: 1, small: 1 },
            read: lane,
        }
    }

    fn lanes(&self) -> [LaneOptions; LANES] {
        [
            self.head,
            self.next,
            self.repair,
            self.read,
            // The large one is for zeros.
            LaneOptions { large: 1, small: 4 },
        ]
    }

    /// Bytes of memory that a pool of these counts takes.
    pub fn bytes(&self) -> u64 {
        let lanes = self.lanes();
        let of = |lane: &LaneOptions| {
            u64::from(lane.large) * LARGE_FRAME_BYTES as u64
                + u64::from(lane.small) * SMALL_FRAME_BYTES as u64
        };
        lanes.iter().map(of).sum()
    }
}

/// Buffers of a pool, and how many are out.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PoolUse {
    /// All buffers for whole blocks.
    pub large_total: u32,
    /// Those in use.
    pub large_used: u32,
    /// All buffers for up to 64 KiB.
    pub small_total: u32,
    /// Those in use.
    pub small_used: u32,
    /// Requests waiting for one.
    pub waiting: u32,
}

/// Where a frame goes back to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FrameId {
    /// A lane's buffer.
    Shelved { shelf: u8, number: u32 },
    /// Pages of the read cache.
    Cached { first_page: u32, pages: u32 },
}

/// The buffers of one size in one lane.
#[derive(Default)]
struct Shelf {
    first_offset_bytes: usize,
    frame_bytes: usize,
    total: u32,
    free: Vec<u32>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    waker: Waker,
    granted: Option<u32>,
}

#[derive(Default)]
struct Shelves {
    shelves: [Shelf; LANES * 2],
    next_ticket: u64,
    /// Nothing that is out may ever come back.
    closed: bool,
    cache: Extents,
}

/// What frames refer back to; outlives the volume while buffers are out.
pub(crate) struct PoolShared {
    arena: Arena,
    state: Mutex<Shelves>,
}

impl PoolShared {
    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // No code that can panic runs under this lock; a poisoned one is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn give_back(&self, id: FrameId) {
        let waker = match id {
            FrameId::Shelved { shelf, number } => self.lock().put_back(shelf as usize, number),
            FrameId::Cached { first_page, pages } => {
                self.lock().cache.give_back(first_page, pages);
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Shelves {
    /// Hands the frame to the first that waits, else shelves it; whom to wake.
    fn put_back(&mut self, shelf: usize, number: u32) -> Option<Waker> {
        let shelf = &mut self.shelves[shelf];
        match shelf.waiting.iter_mut().find(|waiting| waiting.granted.is_none()) {
            Some(first) => {
                first.granted = Some(number);
                Some(first.waker.clone())
            }
            None => {
                shelf.free.push(number);
                None
            }
        }
    }
}

/// All buffers of a volume.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<PoolShared>,
    /// Where in the arena the read cache's pages begin, and how many there are.
    cache_offset_bytes: usize,
    cache_pages: u32,
}

impl Pool {
    /// The lanes' buffers, and `cache_bytes` for the read cache.
    pub(crate) fn new(options: &PoolOptions, cache_bytes: u64) -> io::Result<Self> {
        let cache_pages = u32::try_from(cache_bytes / PAGE_BYTES as u64)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the read cache is too large"))?;
        let mut shelves = Shelves {
            cache: Extents::new(cache_pages),
            ..Shelves::default()
        };
        let mut offset_bytes = 0;
        // Large frames first, so that most of them keep their place within huge pages.
        for (size, frame_bytes) in [(0, LARGE_FRAME_BYTES), (1, SMALL_FRAME_BYTES)] {
            for (lane, counts) in options.lanes().into_iter().enumerate() {
                let total = if size == 0 { counts.large } else { counts.small };
                let shelf = &mut shelves.shelves[lane * 2 + size];
                shelf.first_offset_bytes = offset_bytes;
                shelf.frame_bytes = frame_bytes;
                shelf.total = total;
                shelf.free = (0..total).rev().collect();
                offset_bytes += total as usize * frame_bytes;
            }
        }
        let arena = Arena::new(offset_bytes + cache_pages as usize * PAGE_BYTES)?;
        Ok(Self {
            shared: Arc::new(PoolShared {
                arena,
                state: Mutex::new(shelves),
            }),
            cache_offset_bytes: offset_bytes,
            cache_pages,
        })
    }

    pub(crate) fn arena(&self) -> &Arena {
        self.shared.arena()
    }

    /// Waits for a frame of at least `length_bytes` plus a header page.
    pub(crate) fn acquire(&self, lane: Lane, length_bytes: usize) -> Acquire {
        let shelf = self.shelf_for(lane, length_bytes);
        Acquire {
            pool: self.clone(),
            shelf,
            ticket: None,
        }
    }

    /// Fails whoever waits, and will wait, for a frame: the ring has died with frames in it.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let waiting = state.shelves.iter().flat_map(|shelf| &shelf.waiting);
        let wakers: Vec<Waker> = waiting.map(|one| one.waker.clone()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Frames are to be had again: for the next of many volumes that share a pool.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn reopen(&self) {
        self.shared.lock().closed = false;
    }

    /// A frame of the read cache for `length_bytes`, or none where no run of free pages is that long.
    pub(crate) fn try_cached(&self, length_bytes: usize) -> Option<Blank> {
        let pages = length_bytes.div_ceil(PAGE_BYTES) as u32;
        let first_page = self.shared.lock().cache.take(pages)?;
        Some(Blank::new(Frame {
            id: FrameId::Cached { first_page, pages },
            offset_bytes: self.cache_offset_bytes + first_page as usize * PAGE_BYTES,
            length_bytes: pages as usize * PAGE_BYTES,
            pool: self.shared.clone(),
        }))
    }

    /// Bytes of the read cache's pages.
    pub(crate) fn cache_bytes(&self) -> u64 {
        u64::from(self.cache_pages) * PAGE_BYTES as u64
    }

    /// Bytes of those that are in use.
    pub(crate) fn cache_used_bytes(&self) -> u64 {
        let free_pages = self.shared.lock().cache.free_pages();
        u64::from(self.cache_pages - free_pages) * PAGE_BYTES as u64
    }

    /// A frame at once, or none.
    #[cfg(test)]
    pub(crate) fn try_acquire(&self, lane: Lane, length_bytes: usize) -> Option<Blank> {
        let shelf = self.shelf_for(lane, length_bytes);
        let mut state = self.shared.lock();
        let number = state.shelves[shelf].free.pop()?;
        Some(self.blank(&state, shelf, number))
    }

    pub(crate) fn usage(&self) -> PoolUse {
        let state = self.shared.lock();
        let mut usage = PoolUse::default();
        for (index, shelf) in state.shelves[..(LANES - 1) * 2].iter().enumerate() {
            let used = shelf.total - shelf.free.len() as u32;
            if index % 2 == 0 {
                usage.large_total += shelf.total;
                usage.large_used += used;
            } else {
                usage.small_total += shelf.total;
                usage.small_used += used;
            }
            usage.waiting += shelf
                .waiting
                .iter()
                .filter(|waiting| waiting.granted.is_none())
                .count() as u32;
        }
        usage
    }

    /// A lane without small buffers serves small blocks from its large ones.
    fn shelf_for(&self, lane: Lane, length_bytes: usize) -> usize {
        let small = lane as usize * 2 + 1;
        let fits = length_bytes + PAGE_BYTES <= SMALL_FRAME_BYTES;
        if fits && self.shared.lock().shelves[small].total > 0 {
            small
        } else {
            small - 1
        }
    }

    fn blank(&self, state: &Shelves, shelf: usize, number: u32) -> Blank {
        let cut = &state.shelves[shelf];
        Blank::new(Frame {
            id: FrameId::Shelved {
                shelf: shelf as u8,
                number,
            },
            offset_bytes: cut.first_offset_bytes + number as usize * cut.frame_bytes,
            length_bytes: cut.frame_bytes,
            pool: self.shared.clone(),
        })
    }
}

/// The wait for a frame. Dropping it gives up the place in the queue, and a frame already granted goes on.
pub(crate) struct Acquire {
    pool: Pool,
    shelf: usize,
    ticket: Option<u64>,
}

impl Future for Acquire {
    type Output = io::Result<Blank>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Blank>> {
        let pool = self.pool.clone();
        let mut state = pool.shared.lock();
        let Some(ticket) = self.ticket else {
            // Whoever waits has an older claim on a free frame.
            if state.shelves[self.shelf]
                .waiting
                .iter()
                .all(|waiting| waiting.granted.is_some())
                && let Some(number) = state.shelves[self.shelf].free.pop()
            {
                return Poll::Ready(Ok(pool.blank(&state, self.shelf, number)));
            }
            if state.closed {
                return Poll::Ready(Err(closed()));
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let waker = context.waker().clone();
            state.shelves[self.shelf].waiting.push_back(Waiting {
                ticket,
                waker,
                granted: None,
            });
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        let closed_now = state.closed;
        let waiting = &mut state.shelves[self.shelf].waiting;
        let at = waiting
            .iter()
            .position(|one| one.ticket == ticket)
            .expect("a ticket stays until taken");
        match waiting[at].granted {
            Some(number) => {
                waiting.remove(at);
                self.ticket = None;
                Poll::Ready(Ok(pool.blank(&state, self.shelf, number)))
            }
            None if closed_now => Poll::Ready(Err(closed())),
            None => {
                waiting[at].waker.clone_from(context.waker());
                Poll::Pending
            }
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the disk ring has failed with buffers in it",
    )
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.pool.shared.lock();
        let waiting = &mut state.shelves[self.shelf].waiting;
        let left = waiting
            .iter()
            .position(|one| one.ticket == ticket)
            .and_then(|at| waiting.remove(at));
        let granted = left.and_then(|waiting| waiting.granted);
        let waker = granted.and_then(|number| state.put_back(self.shelf, number));
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(acquire: &mut Acquire) -> Poll<io::Result<Blank>> {
        Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn one_large() -> Pool {
        let mut options = PoolOptions::small();
        options.read = LaneOptions { large: 1, small: 0 };
        Pool::new(&options, 0).unwrap()
    }

    #[test]
    fn first_come_first_served() {
        let pool = one_large();
        let held = pool.try_acquire(Lane::Read, 5).unwrap();
        let (mut first, mut second) = (pool.acquire(Lane::Read, 5), pool.acquire(Lane::Read, 5));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        assert_eq!(pool.usage().waiting, 2);
        drop(held);
        assert!(poll(&mut second).is_pending());
        let mut late = pool.acquire(Lane::Read, 5);
        assert!(poll(&mut late).is_pending());
        assert!(poll(&mut first).is_ready());
        assert!(poll(&mut second).is_ready());
        assert!(poll(&mut late).is_ready());
    }

    #[test]
    fn abandoned_waits_pass_the_buffer_on() {
        let pool = one_large();
        let held = pool.try_acquire(Lane::Read, 5).unwrap();
        let (mut first, mut second) = (pool.acquire(Lane::Read, 5), pool.acquire(Lane::Read, 5));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        drop(held);
        drop(first);
        assert!(poll(&mut second).is_ready());
        drop(second);
        assert_eq!(pool.usage().large_used, 0);
        assert!(pool.try_acquire(Lane::Read, 5).is_some());
    }

    #[test]
    fn nobody_waits_for_a_dead_ring() {
        let pool = one_large();
        let held = pool.try_acquire(Lane::Read, 5).unwrap();
        let mut waiting = pool.acquire(Lane::Read, 5);
        assert!(poll(&mut waiting).is_pending());
        pool.close();
        assert!(matches!(poll(&mut waiting), Poll::Ready(Err(_))));
        assert!(matches!(
            poll(&mut pool.acquire(Lane::Read, 5)),
            Poll::Ready(Err(_))
        ));
        drop((waiting, held));
        assert!(matches!(
            poll(&mut pool.acquire(Lane::Read, 5)),
            Poll::Ready(Ok(_))
        ));
    }

    #[test]
    fn lanes_do_not_share() {
        let pool = one_large();
        let _held = pool.try_acquire(Lane::Read, 5).unwrap();
        assert!(pool.try_acquire(Lane::Read, 5).is_none());
        assert!(pool.try_acquire(Lane::Head, 5).is_some());
        assert!(pool.try_acquire(Lane::Head, UNIT_BYTES + 1).is_some());
    }
}
