//! How quick volumes are for this client: what is usual, who is far behind the others, and when a request is late.
//!
//! Knows neither sockets nor a clock of its own: callers say what took how long, and what time it is.
//!
//! The time of a request is held against the usual time of its class (direction and size), so that one score, an EWMA of
//! these ratios, stands for a volume whatever it is asked for. A volume is slow when its score is several times that of
//! its sisters: where all are slow, as on one busy disk, none is.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use blockyard_engine::limits::UNIT_BYTES;
use blockyard_wire::types::VolumeId;
use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Longest time that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Samples of the first window, which is soon over, so that guesses are; each later one is four times as long, up to
/// the last.
const WINDOW_MIN: u64 = 16;
const WINDOW_MAX: u64 = 256;
/// What part of the requests is usual, in percent; the rest is late.
const USUAL_PERCENT: f64 = 95.0;

/// How much a sample moves a score: about five make it.
const WEIGHT: f64 = 0.2;
/// Ratios count up to this, so that one long stop does not mark a volume for ever.
const RATIO_MAX: f64 = 12.0;
/// What a request counts at least that another volume answered sooner, though it was asked later.
const OVERTAKEN_RATIO: f64 = 8.0;
/// Times the middle of its sisters' scores that make a volume slow. A score below 1 counts as 1.
const SLOW_RATIO: f64 = 4.0;
/// A sample up to this speaks for a slow volume; so many of them, so far apart, acquit it. Pulses are not to.
const FINE_RATIO: f64 = 2.0;
const FINE_COUNT: u32 = 3;
const FINE_APART: Duration = Duration::from_millis(400);
/// How long a slow volume is avoided at first, and at the most, where it proves slow again.
const AVOID_MIN: Duration = Duration::from_secs(10);
const AVOID_MAX: Duration = Duration::from_secs(60);
/// With this score an avoided volume comes back: one bad sample, and it is avoided again.
const TRIAL_SCORE: f64 = 0.75 * SLOW_RATIO;
/// Volumes that are remembered; past that, those that are not slow are forgotten.
const VOLUMES_MAX: usize = 4096;

/// Requests of three sizes take so differently long that each is a class of its own.
pub const SIZES: usize = 3;
/// Between single units and whole blocks.
const MEDIUM_BYTES: usize = 16 * UNIT_BYTES;

/// The class of a size.
pub fn size_class(bytes: usize) -> usize {
    usize::from(bytes > UNIT_BYTES) + usize::from(bytes > MEDIUM_BYTES)
}

/// The usual time of something, of late.
struct Usual {
    window: Histogram<u32>,
    window_samples: u64,
    middle: Duration,
    tail: Duration,
}

impl Usual {
    /// With a guess that holds until there is a measurement.
    fn new(guess: Duration) -> Self {
        Self {
            // One digit: a sixteenth of the value, and two kilobytes.
            window: Histogram::new_with_bounds(1, LONGEST_US, 1)
                .expect("the bounds are in order and the digits allowed"),
            window_samples: WINDOW_MIN,
            middle: guess,
            tail: guess * 2,
        }
    }

    fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
        self.window.saturating_record(us.clamp(1, LONGEST_US));
        if self.window.len() < self.window_samples {
            return;
        }
        let at = |percentile| Duration::from_micros(self.window.value_at_percentile(percentile));
        (self.middle, self.tail) = (at(50.0), at(USUAL_PERCENT));
        self.window.reset();
        self.window_samples = (self.window_samples * 4).min(WINDOW_MAX);
    }
}

/// What is known of one volume.
#[derive(Clone, Copy)]
struct Pace {
    score: f64,
    /// Requests that are late at this moment.
    late: u32,
    slow: Option<Slow>,
    /// How often in a row it proved slow when it came back.
    relapses: u32,
    /// Requests that it was given in all.
    requests: u64,
}

#[derive(Clone, Copy)]
struct Slow {
    since: Instant,
    /// Good samples in a row, the last of which came then.
    fine: u32,
    fine_at: Instant,
    /// When a probe was last sent or, once it is answered, answered.
    probed_at: Instant,
    probing: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            score: 1.0,
            late: 0,
            slow: None,
            relapses: 0,
            requests: 0,
        }
    }
}

/// What a client learns of its volumes from requests of one kind: reads, or writes.
pub struct Paces {
    /// Nothing is slow that takes less than a few times this.
    floor: Duration,
    usual: RefCell<Vec<Usual>>,
    volumes: RefCell<HashMap<VolumeId, Pace>>,
    /// How many volumes are slow or late: mostly none, and then nobody needs to look.
    behind: Cell<usize>,
    /// Until then none is avoided: there were not enough others.
    pardoned_until: Cell<Option<Instant>>,
}

impl Paces {
    /// With as many classes as there are guesses at their usual times.
    pub fn new(floor: Duration, guesses: &[Duration]) -> Self {
        Self {
            floor,
            usual: RefCell::new(guesses.iter().map(|guess| Usual::new(*guess)).collect()),
            volumes: RefCell::default(),
            behind: Cell::new(0),
            pardoned_until: Cell::new(None),
        }
    }

    /// The time within which most requests of a class are done.
    pub fn usual(&self, class: usize) -> Duration {
        self.usual.borrow()[class].tail
    }

    /// Notes the time of something that says nothing of its volume by itself.
    pub fn note(&self, class: usize, took: Duration) {
        self.usual.borrow_mut()[class].record(took);
    }

    /// A request is given to `volume`.
    pub fn asked(&self, volume: VolumeId) {
        self.change(volume, |pace| pace.requests += 1);
    }

    /// A request to `volume` took so long.
    pub fn took(&self, volume: VolumeId, class: usize, took: Duration, now: Instant) {
        let ratio = self.ratio(class, took);
        self.judge(volume, ratio, now);
        // A slow volume's times are not what is usual.
        if !self.is_slow(volume) {
            self.note(class, took);
        }
    }

    /// A request to `volume` was given up after so long, because another volume had answered it.
    pub fn overtaken(&self, volume: VolumeId, class: usize, after: Duration, now: Instant) {
        let ratio = self.ratio(class, after).max(OVERTAKEN_RATIO);
        self.judge(volume, ratio, now);
    }

    /// `volume` did not answer at all: there is nothing to weigh.
    pub fn hung(&self, volume: VolumeId, now: Instant) {
        self.change(volume, |pace| pace.score = RATIO_MAX);
        self.condemn(volume, now);
    }

    /// A request to `volume` is late, until what is returned is dropped.
    pub fn late(&self, volume: VolumeId) -> Late<'_> {
        self.change(volume, |pace| pace.late += 1);
        Late { paces: self, volume }
    }

    /// Whether any volume is slow, or late.
    pub fn is_any_behind(&self) -> bool {
        self.behind.get() > 0
    }

    /// How far `volume` is behind: 0 where it is neither slow nor has a request that is late at this moment, more for
    /// slower ones, most for those with late requests.
    pub fn behind(&self, volume: VolumeId) -> u32 {
        if self.behind.get() == 0 {
            return 0;
        }
        let volumes = self.volumes.borrow();
        let Some(pace) = volumes.get(&volume) else {
            return 0;
        };
        // The score is at most RATIO_MAX.
        let slow = pace.slow.map_or(0, |_| 1 + (pace.score * 4.0) as u32);
        slow + pace.late.min(1000) * 1000
    }

    /// Whether `volume` has a request that is late at this moment.
    pub fn is_late(&self, volume: VolumeId) -> bool {
        self.behind.get() > 0
            && self
                .volumes
                .borrow()
                .get(&volume)
                .is_some_and(|pace| pace.late > 0)
    }

    /// Whether `volume` is slow.
    pub fn is_slow(&self, volume: VolumeId) -> bool {
        self.behind.get() > 0
            && self
                .volumes
                .borrow()
                .get(&volume)
                .is_some_and(|pace| pace.slow.is_some())
    }

    /// Whether slow `volume` is to be probed now, after so long; whoever gets `true` does so and tells the end.
    pub fn begin_probe(&self, volume: VolumeId, every: Duration, now: Instant) -> bool {
        if self.behind.get() == 0 {
            return false;
        }
        let mut volumes = self.volumes.borrow_mut();
        let Some(slow) = volumes.get_mut(&volume).and_then(|pace| pace.slow.as_mut()) else {
            return false;
        };
        if slow.probing || now.saturating_duration_since(slow.probed_at) < every {
            return false;
        }
        slow.probing = true;
        true
    }

    /// A probe is over, however it went; its time has been told.
    pub fn end_probe(&self, volume: VolumeId, now: Instant) {
        if let Some(pace) = self.volumes.borrow_mut().get_mut(&volume)
            && let Some(slow) = &mut pace.slow
        {
            slow.probing = false;
            slow.probed_at = now;
        }
    }

    /// Slow volumes to be avoided, the slowest first: no more than every third known one. Whose time is over comes back.
    pub fn avoided(&self, now: Instant) -> Vec<VolumeId> {
        if self.behind.get() == 0 {
            return Vec::new();
        }
        self.release(now);
        if self.pardoned_until.get().is_some_and(|until| now < until) {
            return Vec::new();
        }
        let volumes = self.volumes.borrow();
        let mut slow: Vec<(f64, VolumeId)> = volumes
            .iter()
            .filter(|(_, pace)| pace.slow.is_some())
            .map(|(volume, pace)| (pace.score, *volume))
            .collect();
        slow.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        slow.truncate((volumes.len() / 3).max(1));
        slow.into_iter().map(|(_, volume)| volume).collect()
    }

    /// There are not enough others: for a while none is avoided.
    pub fn pardon(&self, now: Instant) {
        self.pardoned_until.set(Some(now + AVOID_MIN));
    }

    /// Each known volume, the requests it was given, and whether it is slow.
    pub fn all(&self) -> Vec<(VolumeId, u64, bool)> {
        let volumes = self.volumes.borrow();
        let known = volumes
            .iter()
            .map(|(volume, pace)| (*volume, pace.requests, pace.slow.is_some()));
        known.collect()
    }

    /// How many times the usual something took.
    fn ratio(&self, class: usize, took: Duration) -> f64 {
        let usual = self.usual.borrow()[class].middle.max(self.floor);
        (took.as_secs_f64() / usual.as_secs_f64()).min(RATIO_MAX)
    }

    fn judge(&self, volume: VolumeId, ratio: f64, now: Instant) {
        let mut acquitted = false;
        let score = self.change(volume, |pace| {
            pace.score += (ratio - pace.score) * WEIGHT;
            if pace.slow.is_none() && pace.score < FINE_RATIO {
                pace.relapses = 0;
            }
            if let Some(slow) = &mut pace.slow {
                if ratio > FINE_RATIO {
                    slow.fine = 0;
                } else if now.saturating_duration_since(slow.fine_at) >= FINE_APART {
                    slow.fine += 1;
                    slow.fine_at = now;
                }
                acquitted = slow.fine >= FINE_COUNT;
                if acquitted {
                    pace.slow = None;
                    pace.score = 1.0;
                }
            }
            pace.score
        });
        if acquitted {
            self.count_behind();
        } else if score > SLOW_RATIO && score > SLOW_RATIO * self.middle_of_others(volume) {
            self.condemn(volume, now);
        }
    }

    /// The middle score of all volumes but one; 1 where it is less, or there are none.
    fn middle_of_others(&self, volume: VolumeId) -> f64 {
        let volumes = self.volumes.borrow();
        let others = volumes.iter().filter(|(known, _)| **known != volume);
        let mut scores: Vec<f64> = others.map(|(_, pace)| pace.score).collect();
        if scores.is_empty() {
            return 1.0;
        }
        let middle = scores.len() / 2;
        let (_, middle, _) = scores.select_nth_unstable_by(middle, f64::total_cmp);
        middle.max(1.0)
    }

    fn condemn(&self, volume: VolumeId, now: Instant) {
        self.change(volume, |pace| {
            if pace.slow.is_none() {
                tracing::debug!(%volume, score = pace.score, "slow compared with others");
                pace.slow = Some(Slow {
                    since: now,
                    fine: 0,
                    fine_at: now,
                    probed_at: now,
                    probing: false,
                });
            }
        });
        self.count_behind();
    }

    /// Lets those come back on trial that have been avoided for long enough.
    fn release(&self, now: Instant) {
        for pace in self.volumes.borrow_mut().values_mut() {
            let avoided_for = (AVOID_MIN * 2_u32.saturating_pow(pace.relapses)).min(AVOID_MAX);
            if pace
                .slow
                .is_some_and(|slow| now.saturating_duration_since(slow.since) >= avoided_for)
            {
                pace.slow = None;
                pace.score = TRIAL_SCORE;
                pace.relapses = (pace.relapses + 1).min(8);
            }
        }
        self.count_behind();
    }

    fn change<T>(&self, volume: VolumeId, change: impl FnOnce(&mut Pace) -> T) -> T {
        let mut volumes = self.volumes.borrow_mut();
        if volumes.len() >= VOLUMES_MAX && !volumes.contains_key(&volume) {
            volumes.retain(|_, pace| pace.slow.is_some() || pace.late > 0);
        }
        let pace = volumes.entry(volume).or_default();
        let was_late = pace.late > 0;
        let changed = change(pace);
        let is_late = pace.late > 0;
        drop(volumes);
        if was_late != is_late {
            self.count_behind();
        }
        changed
    }

    fn count_behind(&self) {
        let volumes = self.volumes.borrow();
        let behind = volumes
            .values()
            .filter(|pace| pace.slow.is_some() || pace.late > 0);
        self.behind.set(behind.count());
    }
}

/// A request that is late.
pub struct Late<'a> {
    paces: &'a Paces,
    volume: VolumeId,
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        self.paces
            .change(self.volume, |pace| pace.late = pace.late.saturating_sub(1));
    }
}

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

    const FLOOR: Duration = Duration::from_millis(2);
    const MS: Duration = Duration::from_millis(1);

    fn paces() -> Paces {
        Paces::new(FLOOR, &[5 * MS, 50 * MS])
    }

    fn volumes(count: u8) -> Vec<VolumeId> {
        (1..=count).map(|number| VolumeId([number; 16])).collect()
    }

    #[test]
    fn what_is_usual_is_measured() {
        let paces = paces();
        assert_eq!(paces.usual(1), 100 * MS);
        (0..400).for_each(|sample| paces.note(0, MS * (1 + sample % 100)));
        let usual = paces.usual(0);
        assert!((80 * MS..100 * MS).contains(&usual), "{usual:?}");
        assert_eq!(paces.usual(1), 100 * MS, "each class for itself");
    }

    #[test]
    fn a_volume_is_slow_beside_its_sisters_only() {
        let (paces, now, ids) = (paces(), Instant::now(), volumes(4));
        for _ in 0..50 {
            ids.iter().for_each(|id| paces.took(*id, 0, 5 * MS, now));
        }
        assert!(ids.iter().all(|id| paces.behind(*id) == 0));
        // All take ten times as long: one busy disk under all of them.
        for _ in 0..5 {
            ids.iter().rev().for_each(|id| paces.took(*id, 0, 50 * MS, now));
        }
        assert!(ids.iter().all(|id| !paces.is_slow(*id)));
        for _ in 0..100 {
            ids.iter().for_each(|id| paces.took(*id, 0, 5 * MS, now));
        }
        // One does, whatever it is asked for.
        for _ in 0..3 {
            paces.took(ids[2], 0, 50 * MS, now);
            paces.took(ids[2], 1, 600 * MS, now);
            ids[..2].iter().for_each(|id| paces.took(*id, 0, 5 * MS, now));
        }
        let slow: Vec<bool> = ids.iter().map(|id| paces.is_slow(*id)).collect();
        assert_eq!(slow, [false, false, true, false]);
    }

    #[test]
    fn what_takes_less_than_the_floor_is_never_slow() {
        let (paces, now, ids) = (paces(), Instant::now(), volumes(2));
        for _ in 0..300 {
            paces.took(ids[0], 0, Duration::from_micros(100), now);
            paces.took(ids[1], 0, 7 * MS, now);
        }
        assert!(!paces.is_slow(ids[1]));
    }

    #[test]
    fn one_bad_moment_is_forgiven_and_several_are_not() {
        let (paces, now, ids) = (paces(), Instant::now(), volumes(3));
        ids.iter().for_each(|id| paces.took(*id, 0, 5 * MS, now));
        paces.took(ids[0], 0, Duration::from_secs(9), now);
        assert!(!paces.is_slow(ids[0]));
        (0..20).for_each(|_| paces.took(ids[0], 0, 5 * MS, now));
        (0..4).for_each(|_| paces.overtaken(ids[0], 0, MS, now));
        assert!(paces.is_slow(ids[0]));
    }

    #[test]
    fn a_slow_volume_is_acquitted_by_probes_far_apart() {
        let (paces, mut now, ids) = (paces(), Instant::now(), volumes(2));
        let every = Duration::from_secs(1);
        paces.hung(ids[0], now);
        assert!(paces.is_slow(ids[0]) && !paces.begin_probe(ids[0], every, now));
        // Many at once say no more than one: a stopped process may run for a moment.
        now += every;
        (0..20).for_each(|_| paces.took(ids[0], 0, MS, now));
        assert!(paces.is_slow(ids[0]));
        paces.took(ids[0], 0, Duration::from_secs(1), now);
        for _ in 0..FINE_COUNT {
            now += every;
            assert!(paces.is_slow(ids[0]));
            assert!(paces.begin_probe(ids[0], every, now));
            assert!(!paces.begin_probe(ids[0], every, now), "one at a time");
            paces.took(ids[0], 0, MS, now);
            paces.end_probe(ids[0], now);
        }
        assert!(paces.behind(ids[0]) == 0 && !paces.begin_probe(ids[0], every, now + every));
    }

    #[test]
    fn avoided_volumes_come_back_on_trial_and_stay_away_longer_each_time() {
        let (paces, mut now, ids) = (paces(), Instant::now(), volumes(4));
        ids.iter().for_each(|id| paces.took(*id, 0, 5 * MS, now));
        paces.hung(ids[1], now);
        for times in [1, 2, 4, 6, 6] {
            assert_eq!(paces.avoided(now), [ids[1]]);
            now += AVOID_MIN * times - MS;
            assert_eq!(paces.avoided(now), [ids[1]]);
            now += MS;
            assert_eq!(paces.avoided(now), []);
            paces.took(ids[1], 0, Duration::from_secs(2), now);
        }
        now += AVOID_MAX;
        assert_eq!(paces.avoided(now), []);
        (0..30).for_each(|_| paces.took(ids[1], 0, 5 * MS, now));
        paces.hung(ids[1], now);
        now += AVOID_MIN;
        assert_eq!(paces.avoided(now), [], "it had been good meanwhile");
    }

    #[test]
    fn no_more_are_avoided_than_can_be_spared() {
        let (paces, now, ids) = (paces(), Instant::now(), volumes(6));
        ids.iter().for_each(|id| paces.took(*id, 0, 5 * MS, now));
        ids[..4].iter().for_each(|id| paces.hung(*id, now));
        assert_eq!(paces.avoided(now).len(), 2);
        paces.pardon(now);
        assert_eq!(paces.avoided(now), []);
        assert_eq!(paces.all().iter().filter(|(.., slow)| *slow).count(), 4);
    }

    #[test]
    fn a_late_request_counts_until_it_is_over() {
        let (paces, ids) = (paces(), volumes(2));
        let (first, second) = (paces.late(ids[0]), paces.late(ids[0]));
        drop(first);
        assert!(paces.is_late(ids[0]) && !paces.is_slow(ids[0]) && paces.behind(ids[1]) == 0);
        paces.hung(ids[1], Instant::now());
        assert!(paces.behind(ids[0]) > paces.behind(ids[1]) && paces.behind(ids[1]) > 0);
        drop(second);
        assert_eq!(paces.behind(ids[0]), 0);
    }

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
