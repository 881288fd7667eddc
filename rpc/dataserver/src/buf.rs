//! Owned buffers in the form that monoio hands to the kernel, and a socket's second handle. All unsafe code is here.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use blockyard_engine::Chunk;
use bytes::Bytes;
use monoio::buf::{IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::net::TcpStream;

/// A chunk of a pool buffer that a socket fills from `filled` on, and plain memory for what comes behind it.
pub(crate) struct ChunkFill {
    pub chunk: Chunk,
    /// Bytes that have arrived: those of the chunk first, more than it holds are in `behind`.
    pub filled: usize,
    pub behind: Box<[u8]>,
    /// Describes what is left of the chunk, and the start of `behind`. Boxed, because the kernel is given its address.
    vectors: Box<[libc::iovec; 2]>,
}

impl ChunkFill {
    pub fn new(chunk: Chunk, filled: usize, behind: Box<[u8]>) -> Self {
        let nothing = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            chunk,
            filled,
            behind,
            vectors: Box::new([nothing; 2]),
        }
    }

    /// Describes the rest of the chunk and `behind_bytes` behind it; to be called before each read, while the chunk
    /// is not yet filled.
    pub fn describe(&mut self, behind_bytes: usize) {
        let rest = &mut self.chunk.as_mut()[self.filled..];
        let behind = &mut self.behind[..behind_bytes];
        *self.vectors = [rest, behind].map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        });
    }
}

// SAFETY: the vectors, and the chunk and the slice that they point into, stay where they are for as long as this lives,
// whatever is moved, and which only its holder may touch; `describe` makes them after each change of `filled`. All of
// it is initialised memory (the arena is mapped zeroed).
unsafe impl IoVecBufMut for ChunkFill {
    fn write_iovec_ptr(&mut self) -> *mut libc::iovec {
        self.vectors.as_mut_ptr()
    }

    fn write_iovec_len(&mut self) -> usize {
        self.vectors.len()
    }

    unsafe fn set_init(&mut self, read_bytes: usize) {
        debug_assert!(self.filled + read_bytes <= self.chunk.len() + self.behind.len());
    }
}

/// Plain memory that a socket fills between `filled` and `limit`.
pub(crate) struct Fill {
    pub bytes: Box<[u8]>,
    pub filled: usize,
    pub limit: usize,
}

// SAFETY: a boxed slice stays where it is when the box is moved; all of it is initialised.
unsafe impl IoBufMut for Fill {
    fn write_ptr(&mut self) -> *mut u8 {
        self.bytes[self.filled..self.limit].as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.limit - self.filled
    }

    unsafe fn set_init(&mut self, read_bytes: usize) {
        debug_assert!(self.filled + read_bytes <= self.limit);
    }
}

/// A frame on its way out: prefix and header, and the payload behind them.
pub(crate) struct Out {
    pub stream: u32,
    pub head: Vec<u8>,
    pub payload: Bytes,
}

impl Out {
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// Frames in one gathering write.
#[derive(Default)]
pub(crate) struct Batch {
    outs: VecDeque<Out>,
    /// Bytes of the first frame that are already written.
    skip: usize,
    /// Describes `outs` less `skip`; valid as long as neither changes.
    vectors: Vec<libc::iovec>,
}

impl Batch {
    pub fn push(&mut self, out: Out) {
        self.outs.push_back(out);
    }

    pub fn is_empty(&self) -> bool {
        self.outs.is_empty()
    }

    /// Describes what is left to write; to be called before each write.
    pub fn describe(&mut self) {
        self.vectors.clear();
        let mut skip = self.skip;
        for out in &self.outs {
            for part in [&out.head[..], &out.payload[..]] {
                let left = &part[skip.min(part.len())..];
                skip -= part.len() - left.len();
                if !left.is_empty() {
                    self.vectors.push(libc::iovec {
                        iov_base: left.as_ptr().cast_mut().cast(),
                        iov_len: left.len(),
                    });
                }
            }
        }
    }

    /// Takes away what was written.
    pub fn advance(&mut self, written_bytes: usize) {
        self.vectors.clear();
        self.skip += written_bytes;
        while let Some(first) = self.outs.front()
            && self.skip >= first.len()
        {
            self.skip -= first.len();
            self.outs.pop_front();
        }
    }
}

// SAFETY: the vectors point into the heap memory of `outs` (vectors and shared bytes), which neither a move of
// the batch nor of the deque's elements changes, and which lives as long as the batch; `describe` makes them
// after the last change of `outs`. The kernel only reads through them.
unsafe impl IoVecBuf for Batch {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.vectors.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.vectors.len()
    }
}

/// A second handle of a socket, to shut it down while reads and writes are in flight.
pub(crate) fn second_handle(stream: &TcpStream) -> io::Result<OwnedFd> {
    // SAFETY: the stream is borrowed, so its descriptor stays open during the call.
    let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    fd.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(batch: &Batch) -> usize {
        batch.vectors.iter().map(|vector| vector.iov_len).sum()
    }

    #[test]
    fn a_batch_survives_short_writes_at_every_place() {
        for step in 1..40 {
            let mut batch = Batch::default();
            for (head, payload) in [(3, 10), (5, 0), (1, 17)] {
                batch.push(Out {
                    stream: 0,
                    head: vec![1; head],
                    payload: Bytes::from(vec![2; payload]),
                });
            }
            let mut left = 36;
            while !batch.is_empty() {
                batch.describe();
                assert_eq!(described(&batch), left);
                let written = step.min(left);
                batch.advance(written);
                left -= written;
            }
            assert_eq!(left, 0);
        }
    }
}
