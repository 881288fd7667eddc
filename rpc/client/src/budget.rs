//! How many requests may be made twice. Pure.

use std::cell::Cell;

/// How many requests may be made twice: a part of all of them, and some at once.
pub struct Budget {
    part: f64,
    at_once: f64,
    left: Cell<f64>,
}

impl Budget {
    /// For `part` of all requests, `at_once` of which may be made with no others between.
    pub fn new(part: f64, at_once: u32) -> Self {
        let at_once = f64::from(at_once);
        Self {
            part,
            at_once,
            left: Cell::new(at_once),
        }
    }

    /// A request is made for the first time.
    pub fn earn(&self) {
        self.left.set((self.left.get() + self.part).min(self.at_once));
    }

    /// Whether one may be made twice now.
    pub fn spend(&self) -> bool {
        let left = self.left.get();
        let may = left >= 1.0;
        if may {
            self.left.set(left - 1.0);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_part_and_some_at_once() {
        let budget = Budget::new(0.05, 10);
        let spend = |asked: u32| (0..asked).filter(|_| budget.spend()).count();
        assert_eq!(spend(100), 10);
        (0..101).for_each(|_| budget.earn());
        assert_eq!(spend(100), 5);
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!(spend(100), 10);
    }
}
