//! Blocks on volumes that the state does not know, and since when: none is deleted before its age. Pure.

use std::collections::BTreeMap;

use blockyard_wire::types::BlockId;

use crate::state::blocks::VolumeIndex;

/// Orphans that are followed; those beyond are found again later.
const FOLLOWED_MAX: usize = 1 << 20;

/// When each orphan was first seen, on the clock of the caller, milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Orphans {
    /// By volume, bucket and block.
    seen: BTreeMap<(VolumeIndex, u8, u64), u64>,
}

impl Orphans {
    /// A bucket of a volume holds exactly these unknown blocks, ascending; those of them that are `age_ms` old.
    pub fn seen(
        &mut self,
        volume: VolumeIndex,
        bucket: u8,
        blocks: &[BlockId],
        age_ms: u64,
        now_ms: u64,
    ) -> Vec<BlockId> {
        let known = self.seen.range((volume, bucket, 0)..=(volume, bucket, u64::MAX));
        let gone: Vec<_> = known
            .map(|(key, _)| *key)
            .filter(|(_, _, block)| blocks.binary_search(&BlockId(*block)).is_err())
            .collect();
        for key in gone {
            self.seen.remove(&key);
        }
        let mut old = Vec::new();
        for block in blocks {
            let key = (volume, bucket, block.0);
            if self.seen.len() >= FOLLOWED_MAX && !self.seen.contains_key(&key) {
                continue;
            }
            let since = *self.seen.entry(key).or_insert(now_ms);
            if now_ms.saturating_sub(since) >= age_ms {
                old.push(*block);
            }
        }
        old
    }

    /// The volume was compared, and only these buckets of it differ from the map: the others have no orphans any more.
    pub fn only_in(&mut self, volume: VolumeIndex, buckets: &[usize]) {
        self.seen
            .retain(|(on, bucket, _), _| *on != volume || buckets.contains(&usize::from(*bucket)));
    }

    /// These are gone from a volume.
    pub fn deleted(&mut self, volume: VolumeIndex, bucket: u8, blocks: &[BlockId]) {
        for block in blocks {
            self.seen.remove(&(volume, bucket, block.0));
        }
    }

    /// Those on a volume by id above `after`, with how long each has been seen, milliseconds; in no order.
    pub fn on(&self, volume: VolumeIndex, after: BlockId, now_ms: u64) -> Vec<(BlockId, u64)> {
        self.seen
            .range((volume, 0, 0)..=(volume, u8::MAX, u64::MAX))
            .filter(|((_, _, block), _)| *block > after.0)
            .map(|((_, _, block), since)| (BlockId(*block), now_ms.saturating_sub(*since)))
            .collect()
    }

    /// How many are such as `of`.
    pub fn count(&self, of: impl Fn(BlockId) -> bool) -> u64 {
        self.seen
            .keys()
            .filter(|(_, _, block)| of(BlockId(*block)))
            .count() as u64
    }

    /// Whether any is being watched on a volume.
    pub fn any_on(&self, volume: VolumeIndex) -> bool {
        self.seen
            .range((volume, 0, 0)..=(volume, u8::MAX, u64::MAX))
            .next()
            .is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_ages_from_when_it_was_first_seen() {
        let mut orphans = Orphans::default();
        let (a, b) = (BlockId(256), BlockId(512));
        assert_eq!(orphans.seen(1, 0, &[a], 100, 50), []);
        assert_eq!(orphans.seen(1, 0, &[a, b], 100, 149), []);
        assert_eq!(orphans.seen(1, 0, &[a, b], 100, 150), [a]);
        assert_eq!(
            orphans.seen(2, 0, &[a], 100, 150),
            [],
            "another volume's has its own age"
        );
        assert_eq!(orphans.seen(1, 0, &[b], 100, 160), []);
        assert_eq!(
            orphans.seen(1, 0, &[a, b], 100, 200),
            [],
            "what had gone starts anew"
        );
        assert_eq!(orphans.seen(1, 0, &[], 100, 201), []);
        orphans.seen(1, 7, &[BlockId(7), BlockId(263)], 100, 300);
        orphans.seen(1, 8, &[BlockId(8)], 100, 300);
        orphans.deleted(1, 7, &[BlockId(7)]);
        let on = |orphans: &Orphans| orphans.on(1, BlockId(0), 310);
        assert_eq!(on(&orphans), [(BlockId(263), 10), (BlockId(8), 10)]);
        assert_eq!(orphans.on(1, BlockId(8), 310), [(BlockId(263), 10)]);
        assert_eq!(orphans.count(|block| block.0 < 300), 3);
        orphans.only_in(1, &[8]);
        assert_eq!(on(&orphans), [(BlockId(8), 10)]);
        orphans.only_in(1, &[]);
        assert!(!orphans.any_on(1) && orphans.any_on(2));
    }
}
