//! A sorted table of rows by 64-bit id that costs one byte a row beyond the row itself.
//!
//! Ids come from counters, so they lie dense: rows are kept in chunks of the 256 ids that share their
//! upper bits. A chunk is also a slice of the digest buckets: the low byte of a block's id is its bucket.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Rows by id.
#[derive(Clone, Debug)]
pub struct Table<T> {
    chunks: BTreeMap<u64, Chunk<T>>,
    rows: usize,
}

#[derive(Clone, Debug)]
struct Chunk<T> {
    /// Low bytes of the ids, ascending.
    low: Vec<u8>,
    /// In the same order.
    rows: Vec<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            chunks: BTreeMap::new(),
            rows: 0,
        }
    }
}

impl<T> Table<T> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The row of `id`.
    pub fn get(&self, id: u64) -> Option<&T> {
        let chunk = self.chunks.get(&(id >> 8))?;
        chunk
            .low
            .binary_search(&(id as u8))
            .ok()
            .map(|at| &chunk.rows[at])
    }

    /// The row of `id`, to change.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(&(id >> 8))?;
        chunk
            .low
            .binary_search(&(id as u8))
            .ok()
            .map(|at| &mut chunk.rows[at])
    }

    /// Puts `row` under `id`; the row that was there comes back.
    pub fn insert(&mut self, id: u64, row: T) -> Option<T> {
        let chunk = self.chunks.entry(id >> 8).or_insert_with(|| Chunk {
            low: Vec::new(),
            rows: Vec::new(),
        });
        match chunk.low.binary_search(&(id as u8)) {
            Ok(at) => Some(std::mem::replace(&mut chunk.rows[at], row)),
            Err(at) => {
                chunk.low.insert(at, id as u8);
                chunk.rows.insert(at, row);
                self.rows += 1;
                None
            }
        }
    }

    /// Takes the row of `id` out.
    pub fn remove(&mut self, id: u64) -> Option<T> {
        let chunk = self.chunks.get_mut(&(id >> 8))?;
        let at = chunk.low.binary_search(&(id as u8)).ok()?;
        chunk.low.remove(at);
        let row = chunk.rows.remove(at);
        self.rows -= 1;
        if chunk.low.is_empty() {
            self.chunks.remove(&(id >> 8));
        } else if chunk.rows.len() * 4 < chunk.rows.capacity() {
            chunk.low.shrink_to(chunk.low.len() * 2);
            chunk.rows.shrink_to(chunk.rows.len() * 2);
        }
        Some(row)
    }

    /// All rows, by id.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.chunks.iter().flat_map(|(&high, chunk)| chunk.iter(high))
    }

    /// Rows with ids above `after`, by id; `None` from the first.
    pub fn after(&self, after: Option<u64>) -> impl Iterator<Item = (u64, &T)> {
        let from = after.map_or(0, |after| after >> 8);
        self.range_chunks(from..)
            .filter(move |(id, _)| after.is_none_or(|after| *id > after))
    }

    fn range_chunks(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = (u64, &T)> {
        self.chunks
            .range(range)
            .flat_map(|(&high, chunk)| chunk.iter(high))
    }

    /// Rows whose ids have this low byte, by id.
    pub fn with_low_byte(&self, low: u8) -> impl Iterator<Item = (u64, &T)> {
        self.chunks.iter().filter_map(move |(&high, chunk)| {
            chunk
                .low
                .binary_search(&low)
                .ok()
                .map(|at| (high << 8 | u64::from(low), &chunk.rows[at]))
        })
    }
}

impl<T> Chunk<T> {
    fn iter(&self, high: u64) -> impl Iterator<Item = (u64, &T)> {
        self.low
            .iter()
            .zip(&self.rows)
            .map(move |(&low, row)| (high << 8 | u64::from(low), row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain map, with ids that collide in chunks and across them.
        #[test]
        fn is_a_map(steps in prop::collection::vec((any::<bool>(), 0u64..1200, any::<u32>()), 0..400)) {
            let mut table = Table::default();
            let mut model = BTreeMap::new();
            for (insert, id, row) in steps {
                if insert {
                    prop_assert_eq!(table.insert(id, row), model.insert(id, row));
                } else {
                    prop_assert_eq!(table.remove(id), model.remove(&id));
                }
                prop_assert_eq!(table.get(id), model.get(&id));
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.is_empty(), model.is_empty());
            let rows: Vec<_> = table.iter().map(|(id, row)| (id, *row)).collect();
            prop_assert_eq!(&rows, &model.clone().into_iter().collect::<Vec<_>>());
            for after in [None, Some(0), Some(255), Some(256), Some(700), Some(5000)] {
                let rows: Vec<_> = table.after(after).map(|(id, _)| id).collect();
                let want: Vec<_> = model.keys().copied().filter(|id| after.is_none_or(|a| *id > a)).collect();
                prop_assert_eq!(rows, want);
            }
            let low: Vec<_> = table.with_low_byte(7).map(|(id, _)| id).collect();
            prop_assert_eq!(low, model.keys().copied().filter(|id| id % 256 == 7).collect::<Vec<_>>());
        }
    }
}
