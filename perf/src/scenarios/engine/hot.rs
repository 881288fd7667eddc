//! Hot gets: blocks that lie in the read cache, verified on each get, on one core.

use std::path::Path;

use anyhow::Result;
use blockyard_engine::block::BlockId;
use rand::seq::SliceRandom as _;

use super::case::Timed;
use super::{Length, SMALL_BYTES};
use crate::context::Context;
use crate::latency::Latencies;
use crate::volume;

const CACHE_BYTES: u64 = 256 << 20;
/// What is read again and again: a part of the cache, and more than the processor's caches hold.
const HOT_BYTES: u64 = 128 << 20;
/// A cache that resists scans takes a block when it comes again.
const WARM_UPS: usize = 3;

pub(super) fn run(
    context: &mut Context,
    folder: &Path,
    capacity_bytes: u64,
    lengths: &[Length],
) -> Result<()> {
    context.say("hot gets");
    let mut options = volume::options(folder, capacity_bytes);
    options.read_cache_bytes = CACHE_BYTES;
    let (hot, _) = volume::open(options)?;
    for length in lengths {
        // One get takes microseconds: nothing else may be in the time.
        let mut timed = Timed::new(format!("hot get {}", length.name));
        let mut places: Vec<(BlockId, usize)> = length
            .kept
            .iter()
            .take((HOT_BYTES / length.bytes) as usize)
            .map(|&id| (id, 0))
            .collect();
        let get = |places: &[(BlockId, usize)], latencies: &mut Latencies| {
            volume::get_all(&hot, &length.content, places, length.bytes as usize, 1, latencies)
        };
        for _ in 0..WARM_UPS {
            get(&places, &mut Latencies::default())?;
        }
        let misses = hot.stat().cache.misses;
        for round in 0..=context.flags.rounds() {
            if length.bytes == SMALL_BYTES {
                places.shuffle(&mut rand::rng());
            }
            let passes: u32 = if context.flags.quick { 2 } else { 16 };
            let gets = u64::from(passes) * places.len() as u64;
            timed.time(round > 0, gets, length.bytes, |latencies| {
                (0..passes).try_for_each(|_| get(&places, latencies))
            })?;
        }
        let missed = hot.stat().cache.misses - misses;
        if missed > 0 {
            context.report.note(format!(
                "engine: {missed} gets of {} that should be hot came from the disk",
                length.name
            ));
        }
        timed.report(context, None);
    }
    volume::close(&hot)
}
