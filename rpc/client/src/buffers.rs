//! Buffers of one block each, used again instead of being allocated (and zeroed) anew.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use blockyard_engine::limits::BLOCK_BYTES_MAX;

/// Buffers that are not in use. How many are in use each transfer bounds for itself.
pub struct Buffers {
    free: Mutex<Vec<Box<[u8]>>>,
    kept_max: usize,
}

/// 4 MiB; goes back when dropped.
pub struct Buffer {
    bytes: Box<[u8]>,
    home: Arc<Buffers>,
}

impl Buffers {
    /// Keeps at most `kept_max` unused buffers.
    pub fn new(kept_max: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::default(),
            kept_max,
        })
    }

    /// A buffer with whatever was in it before.
    pub fn take(self: &Arc<Self>) -> Buffer {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer {
            bytes: free.unwrap_or_else(|| vec![0; BLOCK_BYTES_MAX].into_boxed_slice()),
            home: self.clone(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.home.kept_max {
            free.push(bytes);
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

    #[test]
    fn buffers_come_back_and_few_are_kept() {
        let buffers = Buffers::new(1);
        let mut first = buffers.take();
        first[0] = 7;
        let second = buffers.take();
        drop(bytes::Bytes::from_owner(first).slice(1..3));
        drop(second);
        assert_eq!(buffers.free.lock().unwrap().len(), 1);
        assert_eq!(buffers.take()[0], 7, "the first one came back");
    }
}
