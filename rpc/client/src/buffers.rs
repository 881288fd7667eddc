//! Buffers for blocks, used again instead of being allocated (and zeroed) anew, in classes of size: a small block
//! takes a small one.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use blockyard_engine::limits::{BLOCK_BYTES_MAX, UNIT_BYTES};

/// Powers of two from a checksum unit to the longest block.
const CLASSES: usize = (BLOCK_BYTES_MAX / UNIT_BYTES).ilog2() as usize + 1;

const _: () = assert!(UNIT_BYTES << (CLASSES - 1) == BLOCK_BYTES_MAX);

/// Buffers that are not in use. How many are in use each transfer bounds for itself.
pub struct Buffers {
    kept: Mutex<Kept>,
    /// Unused bytes that are kept while others are in use.
    busy_bytes_max: usize,
    /// Unused bytes that are kept when none is.
    idle_bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    free: [Vec<Box<[u8]>>; CLASSES],
    free_bytes: usize,
    in_use: usize,
}

/// Goes back when dropped.
pub struct Buffer {
    bytes: Box<[u8]>,
    home: Arc<Buffers>,
}

impl Buffers {
    /// Keeps at most so many unused blocks' worth while others are in use, and when none is.
    pub fn new(busy_blocks: usize, idle_blocks: usize) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            busy_bytes_max: busy_blocks * BLOCK_BYTES_MAX,
            idle_bytes_max: idle_blocks * BLOCK_BYTES_MAX,
        })
    }

    /// A buffer of `bytes` (at most a block) or somewhat more, with whatever was in it before.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        let class = class_of(bytes);
        let free = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.in_use += 1;
            let free = kept.free[class].pop();
            kept.free_bytes -= free.as_ref().map_or(0, |bytes| bytes.len());
            free
        };
        Buffer {
            bytes: free.unwrap_or_else(|| vec![0; UNIT_BYTES << class].into_boxed_slice()),
            home: self.clone(),
        }
    }
}

/// The smallest class that holds `bytes`.
fn class_of(bytes: usize) -> usize {
    let units = bytes.div_ceil(UNIT_BYTES).max(1);
    (units.next_power_of_two().ilog2() as usize).min(CLASSES - 1)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut kept = self.home.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.in_use -= 1;
        if kept.free_bytes + bytes.len() <= self.home.busy_bytes_max {
            kept.free_bytes += bytes.len();
            kept.free[class_of(bytes.len())].push(bytes);
        }
        if kept.in_use == 0 {
            kept.shrink(self.home.idle_bytes_max);
        }
    }
}

impl Kept {
    /// Gives the largest back until no more than `bytes_max` are left.
    fn shrink(&mut self, bytes_max: usize) {
        for class in (0..CLASSES).rev() {
            while self.free_bytes > bytes_max
                && let Some(bytes) = self.free[class].pop()
            {
                self.free_bytes -= bytes.len();
            }
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_bytes(buffers: &Buffers) -> usize {
        buffers.kept.lock().unwrap().free_bytes
    }

    #[test]
    fn buffers_come_back_to_their_class() {
        let buffers = Buffers::new(1, 1);
        let mut first = buffers.take(UNIT_BYTES + 1);
        assert_eq!(first.len(), 2 * UNIT_BYTES);
        first[0] = 7;
        drop(bytes::Bytes::from_owner(first).slice(1..3));
        assert_eq!(buffers.take(1).len(), UNIT_BYTES);
        assert_eq!(buffers.take(BLOCK_BYTES_MAX).len(), BLOCK_BYTES_MAX);
        assert_eq!(buffers.take(2 * UNIT_BYTES)[0], 7, "the first one came back");
    }

    #[test]
    fn few_are_kept_and_fewer_when_idle() {
        let buffers = Buffers::new(2, 1);
        let mut taken: Vec<Buffer> = (0..4).map(|_| buffers.take(BLOCK_BYTES_MAX)).collect();
        let last = taken.pop();
        drop(taken);
        assert_eq!(free_bytes(&buffers), 2 * BLOCK_BYTES_MAX);
        drop(last);
        assert_eq!(free_bytes(&buffers), BLOCK_BYTES_MAX);
    }
}
