//! The arena of buffers that the disk and the sockets share, and the types that say who may touch which bytes.
//!
//! Every byte of a frame is in exactly one hand: a [`Blank`] hands each out once as a [`Chunk`] (exclusive, to be
//! filled), a chunk freezes into a [`View`] (shared, read only). The frame returns to its pool when the last of
//! them is dropped, on whatever thread that is.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::pool::{FrameId, PoolShared};

/// Huge pages are this long, and aligned to it.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// One anonymous mapping, aligned for huge pages, from which all frames are cut.
pub(crate) struct Arena {
    base: NonNull<u8>,
    length_bytes: usize,
    /// Owns the memory; never touched through this field again.
    _map: MmapMut,
}

// SAFETY: the arena itself only hands out addresses; who may access which bytes is decided by `Chunk` and `View`.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps at least `length_bytes` of zeroed memory and asks for huge pages (refusal is no error).
    pub(crate) fn new(length_bytes: usize) -> io::Result<Self> {
        let length_bytes = length_bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let mut map = MmapOptions::new()
            .len(length_bytes + HUGE_PAGE_BYTES)
            .map_anon()?;
        let skip_bytes = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        let _ = map.advise_range(Advice::HugePage, skip_bytes, length_bytes);
        let base = NonNull::from(&mut map[skip_bytes]);
        Ok(Self {
            base,
            length_bytes,
            _map: map,
        })
    }

    pub(crate) fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    /// The address of the first byte, for registration with the kernel.
    pub(crate) fn address(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

/// A buffer on loan from a pool; goes back on drop.
pub(crate) struct Frame {
    pub(crate) id: FrameId,
    pub(crate) offset_bytes: usize,
    pub(crate) length_bytes: usize,
    pub(crate) pool: Arc<PoolShared>,
}

impl Frame {
    fn pointer(&self, at_bytes: usize) -> *mut u8 {
        assert!(at_bytes <= self.length_bytes);
        // SAFETY: the pool cuts frames within the arena's mapping, and `at_bytes` lies within the frame.
        unsafe { self.pool.arena().base.as_ptr().add(self.offset_bytes + at_bytes) }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.pool.give_back(self.id);
    }
}

/// A fresh frame: the one hand that gives out its bytes, each once, in order.
pub(crate) struct Blank {
    frame: Arc<Frame>,
    next_bytes: usize,
}

impl Blank {
    /// `frame` must come straight from its pool: nobody else holds a part of it.
    pub(crate) fn new(frame: Frame) -> Self {
        Self {
            frame: Arc::new(frame),
            next_bytes: 0,
        }
    }

    /// The next `length_bytes` bytes; `None` when the frame has no more.
    pub(crate) fn take(&mut self, length_bytes: usize) -> Option<Chunk> {
        let end_bytes = self.next_bytes.checked_add(length_bytes)?;
        if end_bytes > self.frame.length_bytes {
            return None;
        }
        let range = self.next_bytes..end_bytes;
        self.next_bytes = end_bytes;
        Some(Chunk {
            frame: self.frame.clone(),
            range,
        })
    }

    /// Whether `chunk` was taken from this frame.
    pub(crate) fn owns(&self, chunk: &Chunk) -> bool {
        Arc::ptr_eq(&self.frame, &chunk.frame)
    }

    /// Bytes given out so far.
    pub(crate) fn taken_bytes(&self) -> usize {
        self.next_bytes
    }
}

/// Bytes of a pool buffer that only the holder may touch: a socket or the disk reads into them. Their address
/// stays, and the buffer lives, until this is dropped.
pub struct Chunk {
    frame: Arc<Frame>,
    range: Range<usize>,
}

impl Chunk {
    /// Bytes in the chunk.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The stable address of the first byte.
    pub fn as_ptr(&self) -> *const u8 {
        self.frame.pointer(self.range.start)
    }

    /// The stable address of the first byte, for a socket or a ring to write to.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.frame.pointer(self.range.start)
    }

    /// Where in its frame the chunk begins.
    pub(crate) fn start_bytes(&self) -> usize {
        self.range.start
    }

    /// Gives up the right to write, for the right to share.
    pub(crate) fn freeze(self) -> View {
        View {
            frame: self.frame,
            range: self.range,
        }
    }

    /// Which part of the arena the bytes are, for registered I/O.
    pub(crate) fn arena_offset_bytes(&self) -> usize {
        self.frame.offset_bytes + self.range.start
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range lies within the frame, which lives as long as `self.frame`; only this chunk has it.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }
}

impl AsMut<[u8]> for Chunk {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`; the range was given out once (`Blank::take`), so no other reference exists.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len()) }
    }
}

/// Bytes of a pool buffer that nobody writes any more.
#[derive(Clone)]
pub(crate) struct View {
    frame: Arc<Frame>,
    range: Range<usize>,
}

impl View {
    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.frame.pointer(self.range.start)
    }

    /// Whether others hold parts of the same frame.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.frame) > 1
    }

    /// The pages of the read cache that its frame has; none of a lane's frame.
    pub(crate) fn cached_pages(&self) -> Option<Range<u32>> {
        match self.frame.id {
            FrameId::Cached { first_page, pages } => Some(first_page..first_page + pages),
            FrameId::Shelved { .. } => None,
        }
    }

    /// Lays `next` behind this view as one; `None` when they don't touch.
    pub(crate) fn join(self, next: &Self) -> Option<Self> {
        (Arc::ptr_eq(&self.frame, &next.frame) && self.range.end == next.range.start).then(|| Self {
            frame: self.frame,
            range: self.range.start..next.range.end,
        })
    }

    /// Where in its frame the view begins.
    pub(crate) fn start_bytes(&self) -> usize {
        self.range.start
    }

    /// The part `range` of this view; panics when it does not lie within.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len());
        let start = self.range.start;
        Self {
            frame: self.frame.clone(),
            range: start + range.start..start + range.end,
        }
    }

    pub(crate) fn arena_offset_bytes(&self) -> usize {
        self.frame.offset_bytes + self.range.start
    }

    /// The same bytes as a `Bytes`, which keeps the buffer until its last clone is dropped.
    pub(crate) fn into_bytes(self) -> bytes::Bytes {
        bytes::Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range lies within the frame; a view comes from a chunk given up, so nobody writes here.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use crate::pool::{Lane, Pool, PoolOptions};

    #[test]
    fn chunks_are_disjoint_and_join_again() {
        let pool = Pool::new(&PoolOptions::small(), 0).unwrap();
        let mut blank = pool.try_acquire(Lane::Read, 1).unwrap();
        let mut one = blank.take(100).unwrap();
        let mut two = blank.take(50).unwrap();
        one.as_mut().fill(1);
        two.as_mut().fill(2);
        let whole = one.freeze().join(&two.freeze()).unwrap();
        assert_eq!(whole.as_ref()[99..101], [1, 2]);
        let tail = whole.slice(100..150).into_bytes();
        drop((whole, blank));
        assert_eq!(&tail[..], [2; 50]);
    }

    #[test]
    fn a_frame_has_no_more_than_its_bytes() {
        let pool = Pool::new(&PoolOptions::small(), 0).unwrap();
        let mut blank = pool.try_acquire(Lane::Read, 1).unwrap();
        assert!(blank.take(usize::MAX).is_none());
        while blank.take(4096).is_some() {}
        assert!(blank.taken_bytes() > 0 && blank.take(1).is_none() | blank.take(1).is_none());
    }
}
