//! Keeps pool buffers free for later positions of a chain.
//!
//! The pool has one lane for the head and one for all later positions. A write at position 1 waits for one at
//! position 2 of another volume, so those must not share without order: chains A→B→C and A→C→B could hold all of
//! each other's buffers. Writes at position p and before get a share of the lane that grows with p, so a write
//! only ever waits for later positions, and the last position for nobody.

use std::cell::RefCell;
use std::rc::Rc;

use blockyard_engine::PoolOptions;
use blockyard_engine::limits::UNIT_BYTES;
use blockyard_wire::frame::CHAIN_MAX;

use crate::signal::Signal;

/// Who holds buffers of the lane for later positions.
#[derive(Clone)]
pub(crate) struct Positions(Rc<Inner>);

struct Inner {
    /// For whole blocks, and for small ones.
    sizes: [RefCell<Held>; 2],
    signal: Signal,
}

struct Held {
    total: usize,
    by_position: [usize; CHAIN_MAX],
}

impl Positions {
    pub fn new(pool: &PoolOptions) -> Self {
        let held = |total: u32| {
            RefCell::new(Held {
                total: total as usize,
                by_position: [0; CHAIN_MAX],
            })
        };
        // Without small buffers, small blocks take large ones.
        Self(Rc::new(Inner {
            sizes: [held(pool.next.large), held(pool.next.small)],
            signal: Signal::default(),
        }))
    }

    /// Waits for the right to take a buffer of the lane. `position` is not 0.
    pub async fn enter(&self, position: u8, length_bytes: u32) -> Place {
        let position = usize::from(position).min(CHAIN_MAX - 1);
        let small = length_bytes as usize <= UNIT_BYTES && self.0.sizes[1].borrow().total > 0;
        let size = usize::from(small);
        self.0
            .signal
            .until(|| self.0.sizes[size].borrow_mut().enter(position).then_some(()))
            .await;
        Place {
            inner: self.0.clone(),
            size,
            position,
        }
    }
}

impl Held {
    fn enter(&mut self, position: usize) -> bool {
        // Whoever enters counts against the share of its own position and of all later ones.
        let fits = (position..CHAIN_MAX).all(|of| {
            let held: usize = self.by_position[..=of].iter().sum();
            held < self.share(of)
        });
        if fits {
            self.by_position[position] += 1;
        }
        fits
    }

    /// Buffers that positions up to `position` (from 1 on) may hold together: three quarters for the first, one more
    /// for each later one until all are shared out. Chains longer than that are left to the deadline.
    fn share(&self, position: usize) -> usize {
        let kept = (self.total / 4).max(1);
        (self.total.saturating_sub(kept) + position - 1).clamp(1, self.total)
    }
}

/// The right to a buffer, given back on drop.
pub(crate) struct Place {
    inner: Rc<Inner>,
    size: usize,
    position: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.sizes[self.size].borrow_mut().by_position[self.position] -= 1;
        self.inner.signal.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_positions_find_buffers_that_earlier_ones_cannot_take() {
        let mut held = Held {
            total: 8,
            by_position: [0; CHAIN_MAX],
        };
        let first = (0..100).filter(|_| held.enter(1)).count();
        assert_eq!(first, 6);
        for _ in 0..2 {
            assert!((2..CHAIN_MAX).any(|position| held.enter(position)));
        }
        assert!((1..CHAIN_MAX).all(|position| !held.enter(position)));
        let mut tiny = Held {
            total: 2,
            by_position: [0; CHAIN_MAX],
        };
        assert!(tiny.enter(1) && !tiny.enter(1) && tiny.enter(2) && !tiny.enter(3));
        assert_eq!(held.by_position.iter().sum::<usize>(), 8);
    }
}
