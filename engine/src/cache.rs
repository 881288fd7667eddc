//! The read cache: verified units in buffers of their own, handed out again without disk or copy.
//!
//! What stays is quick_cache's to say (CLOCK-Pro: one scan does not push out what is read again and again); the
//! bytes lie in pages of the arena, into which the disk reads them directly. An entry is made before its bytes are
//! read, so that the policy has made room by then. Where the free pages are too scattered it stays without bytes,
//! and if it is wanted once more, a part of the arena is cleared for it. Every hit is verified anew.

use std::ops::Range;

use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, unsync};

use crate::block::BlockId;
use crate::buffer::{Blank, View};
use crate::checksum::crc;
use crate::layout::Place;
use crate::limits::{PAGE_BYTES, UNIT_BYTES};
use crate::pool::Pool;
use crate::record::Replica;

/// The part of the cache's bytes that keeps unit CRCs of large blocks, so that a range of one is a single read.
const HEADERS_PART: u64 = 32;
/// What an entry of the policy takes beside its value, about.
const ENTRY_BYTES: u64 = 128;
/// The part of the cache that may be hot; what is read for the first time has the rest to prove itself.
const HOT_PART: f64 = 0.9;

/// Use of the read cache since the volume was opened.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CacheUse {
    /// Bytes that it may take; 0 when it is off.
    pub total_bytes: u64,
    /// Bytes that it takes.
    pub used_bytes: u64,
    /// Reads answered from it.
    pub hits: u64,
    /// Reads that went to the disk.
    pub misses: u64,
    /// Bytes of the units that it gave.
    pub hit_bytes: u64,
}

/// Where a run of units of a block begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Start {
    block: BlockId,
    unit: u8,
}

/// What ties cached bytes to one replica: another one of the same block has another slot or seal.
type Tie = (Place, u32);

fn tie(replica: &Replica) -> Tie {
    (replica.place, replica.seal)
}

/// Units in a row.
struct Units {
    tie: Tie,
    data: View,
    crcs: Box<[u32]>,
}

struct Run {
    pages: u32,
    /// None until they are read.
    units: Option<Units>,
}

#[derive(Clone)]
struct RunPolicy;

impl Weighter<Start, Run> for RunPolicy {
    fn weight(&self, _: &Start, run: &Run) -> u64 {
        u64::from(run.pages)
    }
}

impl Lifecycle<Start, Run> for RunPolicy {
    type RequestState = ();

    /// Giving up a buffer that a reader still holds would free nothing.
    fn is_pinned(&self, _: &Start, run: &Run) -> bool {
        run.units.as_ref().is_some_and(|units| units.data.is_shared())
    }
}

/// The unit CRCs of a verified header.
struct Header {
    tie: Tie,
    crcs: Box<[u32]>,
}

#[derive(Clone)]
struct HeaderBytes;

impl Weighter<BlockId, Header> for HeaderBytes {
    fn weight(&self, _: &BlockId, header: &Header) -> u64 {
        ENTRY_BYTES + 4 * header.crcs.len() as u64
    }
}

type HeaderLifecycle = unsync::DefaultLifecycle<BlockId, Header>;

/// The read cache of a volume.
pub(crate) struct Cache {
    pool: Pool,
    runs: unsync::Cache<Start, Run, RunPolicy, DefaultHashBuilder, RunPolicy>,
    headers: unsync::Cache<BlockId, Header, HeaderBytes, DefaultHashBuilder, HeaderLifecycle>,
    headers_bytes: u64,
    hits: u64,
    misses: u64,
    hit_bytes: u64,
}

/// How the bytes of a cache are shared out: for runs of units, and for headers.
pub(crate) fn shares(cache_bytes: u64) -> (u64, u64) {
    let headers_bytes = cache_bytes / HEADERS_PART;
    (cache_bytes - headers_bytes, headers_bytes)
}

impl Cache {
    /// A cache over the pool's pages for one, and `headers_bytes` more; none when there are no such pages.
    pub(crate) fn new(pool: Pool, headers_bytes: u64) -> Option<Self> {
        let pages = pool.cache_bytes() / PAGE_BYTES as u64;
        let options = |items: u64, weight: u64| {
            OptionsBuilder::new()
                .estimated_items_capacity(items as usize)
                .weight_capacity(weight)
                .hot_allocation(HOT_PART)
                .build()
                .expect("all that is needed was set")
        };
        let units_per_page = (UNIT_BYTES / PAGE_BYTES) as u64;
        (pages > 0).then(|| Self {
            pool,
            runs: unsync::Cache::with_options(
                options(pages / units_per_page + 1, pages),
                RunPolicy,
                DefaultHashBuilder::default(),
                RunPolicy,
            ),
            headers: unsync::Cache::with_options(
                options(headers_bytes / (2 * ENTRY_BYTES) + 1, headers_bytes),
                HeaderBytes,
                DefaultHashBuilder::default(),
                HeaderLifecycle::default(),
            ),
            headers_bytes,
            hits: 0,
            misses: 0,
            hit_bytes: 0,
        })
    }

    /// Units of a replica, verified once more, and their CRCs.
    pub(crate) fn find(
        &mut self,
        block: BlockId,
        replica: &Replica,
        units: Range<usize>,
    ) -> Option<(View, Vec<u32>)> {
        // What begins there, or else what begins with the block.
        let starts = [units.start as u8, 0];
        let starts = &starts[..1 + usize::from(units.start > 0)];
        let found = starts.iter().find_map(|&unit| {
            let start = Start { block, unit };
            let cut = cut_out(self.runs.get(&start)?.units.as_ref()?, unit, replica, &units)?;
            if is_whole(&cut) {
                return Some(cut);
            }
            tracing::warn!(%block, unit, "a unit changed in memory: it is read again");
            self.runs.remove(&start);
            None
        });
        match &found {
            Some((data, _)) => {
                self.hits += 1;
                self.hit_bytes += data.len() as u64;
            }
            None => self.misses += 1,
        }
        found
    }

    /// A buffer of `bytes` for units about to be read, which [`Cache::keep`] is then told of; none when the cache
    /// has no room just now.
    pub(crate) fn reserve(&mut self, block: BlockId, units: Range<usize>, bytes: usize) -> Option<Blank> {
        let start = Start {
            block,
            unit: units.start as u8,
        };
        let pages = bytes.div_ceil(PAGE_BYTES) as u32;
        let wanted_before = self.runs.peek(&start).is_some_and(|run| run.units.is_none());
        self.runs.insert(start, Run { pages, units: None });
        let blank = self.pool.try_cached(bytes);
        if blank.is_some() || !wanted_before {
            return blank;
        }
        self.clear_one_of(pages);
        self.pool.try_cached(bytes)
    }

    /// Drops all runs in one stretch of so many pages: in that where the fewest are used, and none by a reader.
    fn clear_one_of(&mut self, pages: u32) {
        let stretches = self.pool.cache_bytes() / PAGE_BYTES as u64 / u64::from(pages);
        let mut used_pages = vec![0u64; stretches as usize];
        let place = |run: &Run| run.units.as_ref()?.data.cached_pages();
        let over = |run: Range<u32>| run.start / pages..run.end.div_ceil(pages).min(stretches as u32);
        for (start, run) in self.runs.iter() {
            for stretch in place(run).map_or(0..0, over) {
                used_pages[stretch as usize] += if RunPolicy.is_pinned(start, run) {
                    u64::from(u32::MAX)
                } else {
                    u64::from(run.pages)
                };
            }
        }
        if let Some(least) = (0..stretches as u32).min_by_key(|&stretch| used_pages[stretch as usize]) {
            self.runs
                .retain(|_, run| !place(run).is_some_and(|pages| over(pages).contains(&least)));
        }
    }

    /// Keeps verified units that were read into a buffer of the cache.
    pub(crate) fn keep(
        &mut self,
        block: BlockId,
        replica: &Replica,
        first_unit: usize,
        data: View,
        crcs: &[u32],
    ) {
        let start = Start {
            block,
            unit: first_unit as u8,
        };
        let run = Run {
            pages: data.cached_pages().map_or(0, |pages| pages.len() as u32),
            units: Some(Units {
                tie: tie(replica),
                data,
                crcs: crcs.into(),
            }),
        };
        // Not where it has gone meanwhile: deleted, or pushed out. Softly: this is no second touch.
        let _ = self.runs.replace(start, run, true);
    }

    /// The CRCs of all units of a replica, from a header read earlier.
    pub(crate) fn header(&self, block: BlockId, replica: &Replica) -> Option<&[u32]> {
        let header = self.headers.get(&block)?;
        (header.tie == tie(replica)).then_some(&*header.crcs)
    }

    /// Keeps the unit CRCs of a verified header.
    pub(crate) fn keep_header(&mut self, block: BlockId, replica: &Replica, crcs: &[u32]) {
        let tie = tie(replica);
        let crcs = crcs.into();
        self.headers.insert(block, Header { tie, crcs });
    }

    /// Drops what is kept of a replica.
    pub(crate) fn forget(&mut self, block: BlockId, replica: &Replica) {
        self.headers.remove(&block);
        for unit in 0..(replica.length as usize).div_ceil(UNIT_BYTES) as u8 {
            self.runs.remove(&Start { block, unit });
        }
    }

    pub(crate) fn usage(&self) -> CacheUse {
        CacheUse {
            total_bytes: self.pool.cache_bytes() + self.headers_bytes,
            used_bytes: self.pool.cache_used_bytes() + self.headers.weight(),
            hits: self.hits,
            misses: self.misses,
            hit_bytes: self.hit_bytes,
        }
    }
}

/// The wanted units of a run that begins at `first`, if it is the same replica's and has them all.
fn cut_out(run: &Units, first: u8, replica: &Replica, units: &Range<usize>) -> Option<(View, Vec<u32>)> {
    let (from, to) = (units.start - first as usize, units.end - first as usize);
    if run.tie != tie(replica) || to > run.crcs.len() {
        return None;
    }
    let bytes = from * UNIT_BYTES..(to * UNIT_BYTES).min(run.data.len());
    Some((run.data.slice(bytes), run.crcs[from..to].to_vec()))
}

fn is_whole((data, crcs): &(View, Vec<u32>)) -> bool {
    let mut units = data.as_ref().chunks(UNIT_BYTES).zip(crcs);
    units.all(|(unit, &expected)| crc(unit) == expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::PoolOptions;
    use crate::types::ReplicaState;

    const UNITS: usize = 3;

    fn cache(units: usize) -> Cache {
        let pool = Pool::new(&PoolOptions::small(), (units * UNIT_BYTES) as u64).unwrap();
        Cache::new(pool, 4096).unwrap()
    }

    fn replica(seal: u32) -> Replica {
        Replica {
            place: Place { segment: 1, slot: 2 },
            length: (UNITS * UNIT_BYTES) as u32,
            crc32c: 3,
            seal,
            state: ReplicaState::Live,
        }
    }

    /// Enters units as a read does; whether there was room.
    fn enter(cache: &mut Cache, block: u64, replica: &Replica, units: Range<usize>) -> bool {
        let bytes = units.len() * UNIT_BYTES;
        let Some(mut blank) = cache.reserve(BlockId(block), units.clone(), bytes) else {
            return false;
        };
        let mut chunk = blank.take(bytes).unwrap();
        chunk.as_mut().fill(block as u8);
        drop(blank);
        let crcs = crate::checksum::unit_crcs(chunk.as_ref());
        cache.keep(BlockId(block), replica, units.start, chunk.freeze(), &crcs);
        true
    }

    fn has(cache: &mut Cache, block: u64, replica: &Replica, units: Range<usize>) -> bool {
        let found = cache.find(BlockId(block), replica, units.clone());
        found.is_some_and(|(data, crcs)| data.len() == units.len() * UNIT_BYTES && crcs.len() == units.len())
    }

    #[test]
    fn a_run_serves_what_lies_within_it() {
        let (mut cache, replica) = (cache(8), replica(1));
        assert!(enter(&mut cache, 5, &replica, 0..2) && enter(&mut cache, 6, &replica, 1..3));
        assert!(has(&mut cache, 5, &replica, 0..1) && has(&mut cache, 5, &replica, 1..2));
        assert!(!has(&mut cache, 5, &replica, 1..3) && !has(&mut cache, 6, &replica, 0..2));
        assert!(has(&mut cache, 6, &replica, 1..2));
        assert_eq!((cache.hits, cache.misses), (3, 2));
    }

    #[test]
    fn another_replica_of_the_block_is_not_served() {
        let mut cache = cache(4);
        enter(&mut cache, 5, &replica(1), 0..1);
        cache.keep_header(BlockId(5), &replica(1), &[1, 2, 3]);
        assert!(!has(&mut cache, 5, &replica(2), 0..1) && cache.header(BlockId(5), &replica(2)).is_none());
        assert_eq!(cache.header(BlockId(5), &replica(1)), Some(&[1, 2, 3][..]));
    }

    #[test]
    fn what_changed_in_memory_is_dropped() {
        let (mut cache, replica) = (cache(4), replica(1));
        let mut blank = cache.reserve(BlockId(5), 0..1, UNIT_BYTES).unwrap();
        let data = blank.take(UNIT_BYTES).unwrap().freeze();
        drop(blank);
        cache.keep(BlockId(5), &replica, 0, data, &[!crc(&[0; UNIT_BYTES])]);
        assert!(!has(&mut cache, 5, &replica, 0..1));
        assert_eq!(cache.pool.cache_used_bytes(), 0);
    }

    #[test]
    fn forgetting_frees_every_run_of_a_block() {
        let (mut cache, replica) = (cache(8), replica(1));
        assert!((0..UNITS).all(|unit| enter(&mut cache, 5, &replica, unit..UNITS)));
        assert!(cache.pool.cache_used_bytes() >= 6 * UNIT_BYTES as u64);
        cache.forget(BlockId(5), &replica);
        assert_eq!(cache.pool.cache_used_bytes(), 0);
    }

    #[test]
    fn one_scan_does_not_push_out_what_is_read_again() {
        let (mut cache, replica) = (cache(20), replica(1));
        for _ in 0..3 {
            for block in 0..15 {
                if !has(&mut cache, block, &replica, 0..1) {
                    enter(&mut cache, block, &replica, 0..1);
                }
            }
        }
        for block in 100..400 {
            assert!(!has(&mut cache, block, &replica, 0..1));
            enter(&mut cache, block, &replica, 0..1);
        }
        let left = (0..15).filter(|&block| has(&mut cache, block, &replica, 0..1));
        assert!(left.count() >= 13);
    }

    #[test]
    fn buffers_that_are_read_stay_whole_and_the_rest_goes_on() {
        let (mut cache, replica) = (cache(4), replica(1));
        let held: Vec<(View, Vec<u32>)> = (0..4)
            .map(|block| {
                assert!(enter(&mut cache, block, &replica, 0..1));
                cache.find(BlockId(block), &replica, 0..1).unwrap()
            })
            .collect();
        assert!(!enter(&mut cache, 9, &replica, 0..1));
        assert!(held.iter().all(is_whole));
        drop(held);
        assert!(enter(&mut cache, 9, &replica, 0..1));
    }

    #[test]
    fn a_long_run_that_is_wanted_again_finds_room_among_short_ones() {
        let (mut cache, replica) = (cache(12), replica(1));
        for block in (0..3).flat_map(|_| 0..12) {
            if !has(&mut cache, block, &replica, 0..1) {
                enter(&mut cache, block, &replica, 0..1);
            }
        }
        assert!(!enter(&mut cache, 20, &replica, 0..3) && enter(&mut cache, 20, &replica, 0..3));
        assert!(has(&mut cache, 20, &replica, 0..3));
        let left = (0..12).filter(|&block| has(&mut cache, block, &replica, 0..1));
        assert!(left.count() >= 7);
    }
}
