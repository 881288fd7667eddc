//! Runs of pages in a fixed region, handed out and taken back: what the read cache's buffers are cut from.

use std::collections::{BTreeMap, BTreeSet};

/// Which pages are free. Best fit, and free neighbours become one.
#[derive(Default)]
pub(crate) struct Extents {
    /// Pages of each free run, by its first page.
    runs: BTreeMap<u32, u32>,
    /// The same runs as (pages, first page).
    by_pages: BTreeSet<(u32, u32)>,
    free_pages: u32,
}

impl Extents {
    /// A region of `pages`, all free.
    pub(crate) fn new(pages: u32) -> Self {
        let mut extents = Self::default();
        if pages > 0 {
            extents.give_back(0, pages);
        }
        extents
    }

    /// The first of `pages` (at least 1) free pages in a row, taken from the smallest run that has them.
    pub(crate) fn take(&mut self, pages: u32) -> Option<u32> {
        let &(run_pages, first) = self.by_pages.range((pages, 0)..).next()?;
        self.remove(first, run_pages);
        if run_pages > pages {
            self.insert(first + pages, run_pages - pages);
        }
        self.free_pages -= pages;
        Some(first)
    }

    /// Frees what was taken.
    pub(crate) fn give_back(&mut self, mut first: u32, mut pages: u32) {
        self.free_pages += pages;
        if let Some((&before, &before_pages)) = self.runs.range(..first).next_back()
            && before + before_pages == first
        {
            self.remove(before, before_pages);
            (first, pages) = (before, before_pages + pages);
        }
        if let Some(&after_pages) = self.runs.get(&(first + pages)) {
            self.remove(first + pages, after_pages);
            pages += after_pages;
        }
        self.insert(first, pages);
    }

    pub(crate) fn free_pages(&self) -> u32 {
        self.free_pages
    }

    fn insert(&mut self, first: u32, pages: u32) {
        self.runs.insert(first, pages);
        self.by_pages.insert((pages, first));
    }

    fn remove(&mut self, first: u32, pages: u32) {
        self.runs.remove(&first);
        self.by_pages.remove(&(pages, first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smallest_run_that_fits_is_taken() {
        let mut extents = Extents::new(20);
        let taken: Vec<u32> = [5, 1, 3, 1]
            .into_iter()
            .filter_map(|pages| extents.take(pages))
            .collect();
        assert_eq!(taken, [0, 5, 6, 9]);
        extents.give_back(0, 5);
        extents.give_back(6, 3);
        assert_eq!(
            (extents.take(3), extents.take(4), extents.take(11)),
            (Some(6), Some(0), None)
        );
    }

    proptest! {
        #[test]
        fn no_page_is_in_two_hands_and_all_come_back(
            steps in prop::collection::vec((1u32..40, any::<prop::sample::Index>(), any::<bool>()), 1..200),
        ) {
            const PAGES: u32 = 300;
            let mut extents = Extents::new(PAGES);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (pages, pick, give) in steps {
                if give && !held.is_empty() {
                    let (first, pages) = held.swap_remove(pick.index(held.len()));
                    extents.give_back(first, pages);
                } else if let Some(first) = extents.take(pages) {
                    prop_assert!(first + pages <= PAGES);
                    let apart = |&(other, count): &(u32, u32)| first + pages <= other || other + count <= first;
                    prop_assert!(held.iter().all(apart));
                    held.push((first, pages));
                }
                let out: u32 = held.iter().map(|&(_, pages)| pages).sum();
                prop_assert_eq!(extents.free_pages(), PAGES - out);
            }
            held.into_iter().for_each(|(first, pages)| extents.give_back(first, pages));
            prop_assert_eq!(extents.take(PAGES), Some(0));
        }
    }
}
