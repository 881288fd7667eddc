//! Segments and their slots: which are free, which are being read, and where the next block goes. Does no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::device::FileId;
use crate::layout::{CLASSES, Class, Place, SLOT_PAGES_MAX};
use crate::limits::PAGE_BYTES;
use crate::record::{Cut, Run};

/// Segments of a volume: their numbers have 16 bits.
pub(crate) const SEGMENTS_MAX: u64 = 65_535;
/// Whole-block slots in a segment of a large volume.
const LARGEST_SLOTS_MAX: u64 = 63;
/// A volume is cut into at least about this many segments, so that each class finds one.
const SEGMENTS_WANTED: u64 = 64;

/// Bytes of a new segment on a volume of this capacity: a superblock and as many slots of the largest class as fit.
pub(crate) fn segment_bytes_for(capacity_bytes: u64) -> u64 {
    let slot_bytes = (SLOT_PAGES_MAX * PAGE_BYTES) as u64;
    let slots = (capacity_bytes / SEGMENTS_WANTED / slot_bytes).clamp(1, LARGEST_SLOTS_MAX);
    PAGE_BYTES as u64 + slots * slot_bytes
}

/// The name of a segment's file.
pub(crate) fn file_name(segment: u16) -> String {
    format!("segments/{segment:08}.seg")
}

/// A set of slots.
#[derive(Clone, Default)]
pub(crate) struct Slots(Vec<u64>);

impl Slots {
    fn none(slots: u32) -> Self {
        Self(vec![0; slots.div_ceil(64) as usize])
    }

    fn all(slots: u32) -> Self {
        let mut all = Self::none(slots);
        mark(&mut all.0, 0, slots as u16);
        all
    }

    pub(crate) fn has(&self, slot: u16) -> bool {
        self.0[slot as usize / 64] >> (slot % 64) & 1 == 1
    }

    /// Whether that changed anything.
    fn set(&mut self, slot: u16, value: bool) -> bool {
        let changed = self.has(slot) != value;
        self.0[slot as usize / 64] ^= u64::from(changed) << (slot % 64);
        changed
    }

    fn first_unset(&self) -> Option<u32> {
        let word = self.0.iter().position(|&word| word != u64::MAX)?;
        Some(word as u32 * 64 + self.0[word].trailing_ones())
    }

    /// The first slot that is not in this set, and in `others` or not.
    fn first_unset_of(&self, others: &Self, in_others: bool) -> Option<u32> {
        let flip = if in_others { 0 } else { u64::MAX };
        let words = self.0.iter().zip(&others.0);
        let (at, word) = words
            .map(|(own, other)| !own & (other ^ flip))
            .enumerate()
            .find(|&(_, word)| word != 0)?;
        Some(at as u32 * 64 + word.trailing_zeros())
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.0
    }
}

/// Adds slots in a row to a set's words, which grow as needed.
pub(crate) fn mark(words: &mut Vec<u64>, first_slot: u16, slots: u16) {
    let slots = u32::from(first_slot)..u32::from(first_slot) + u32::from(slots);
    let needed = slots.end.div_ceil(64) as usize;
    if words.len() < needed {
        words.resize(needed, 0);
    }
    for slot in slots {
        words[slot as usize / 64] |= 1 << (slot % 64);
    }
}

/// A segment file.
pub(crate) struct Segment {
    pub(crate) cut: Cut,
    /// None when the file is missing.
    pub(crate) file: Option<FileId>,
    slots: u32,
    used: Slots,
    used_count: u32,
    /// Slots whose extents are known to be written, durably: overwriting them needs no sync of this file.
    written: Slots,
    /// Slots that are free and written.
    ready_count: u32,
    /// Being made or cut: not to be used.
    busy: bool,
}

impl Segment {
    fn new(cut: Cut, file: Option<FileId>) -> Self {
        let slots = cut.class.slots_in(cut.segment_bytes);
        let (used, written) = (Slots::none(slots), Slots::none(slots));
        Self {
            cut,
            file,
            slots,
            used,
            used_count: 0,
            written,
            ready_count: 0,
            busy: false,
        }
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(crate) fn written(&self) -> &Slots {
        &self.written
    }

    /// Takes or frees a slot; whether that changed anything.
    fn set_used(&mut self, slot: u16, used: bool) -> bool {
        let changed = self.used.set(slot, used);
        if changed {
            self.used_count = self.used_count + u32::from(used) - u32::from(!used);
            if self.written.has(slot) {
                self.ready_count = self.ready_count + u32::from(!used) - u32::from(used);
            }
        }
        changed
    }

    fn set_written(&mut self, slot: u16) {
        if self.written.set(slot, true) && !self.used.has(slot) {
            self.ready_count += 1;
        }
    }

    /// Whether a put to any of its slots makes no new extents.
    fn is_all_ready(&self) -> bool {
        self.ready_count == self.slots
    }
}

#[derive(Default)]
struct Pin {
    readers: u32,
    free_after: bool,
}

/// All slots of a volume.
pub(crate) struct Space {
    capacity_bytes: u64,
    new_segment_bytes: u64,
    segments: BTreeMap<u16, Segment>,
    /// Per class, segments with a free slot.
    open: Vec<BTreeSet<u16>>,
    /// Segments without a taken slot.
    empty: BTreeSet<u16>,
    /// Per class, those of `open` with a free slot that is written.
    ready: Vec<BTreeSet<u16>>,
    /// Per class, bytes of slots taken since the opening.
    demand_bytes: Vec<u64>,
    /// Slots that are being filled with zeros.
    held_slots: u32,
    pins: HashMap<Place, Pin>,
    used_bytes: u64,
    segment_bytes: u64,
}

/// How to get slots of a class.
pub(crate) enum Growth {
    /// Cut this empty segment anew.
    Recut(u16),
    /// Make this new segment.
    Create(u16),
}

impl Space {
    pub(crate) fn new() -> Self {
        Self {
            capacity_bytes: 0,
            new_segment_bytes: segment_bytes_for(0),
            segments: BTreeMap::new(),
            open: vec![BTreeSet::new(); CLASSES],
            empty: BTreeSet::new(),
            ready: vec![BTreeSet::new(); CLASSES],
            demand_bytes: vec![0; CLASSES],
            held_slots: 0,
            pins: HashMap::new(),
            used_bytes: 0,
            segment_bytes: 0,
        }
    }

    pub(crate) fn set_capacity(&mut self, capacity_bytes: u64) {
        self.capacity_bytes = capacity_bytes;
        self.new_segment_bytes = segment_bytes_for(capacity_bytes);
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    pub(crate) fn new_segment_bytes(&self) -> u64 {
        self.new_segment_bytes
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = (u16, &Segment)> {
        self.segments.iter().map(|(&number, segment)| (number, segment))
    }

    pub(crate) fn segment(&self, number: u16) -> Option<&Segment> {
        self.segments.get(&number)
    }

    /// Enters a segment, or the new cut of one; busy ones stay so.
    pub(crate) fn set_segment(&mut self, number: u16, cut: Cut, file: Option<FileId>) {
        let mut next = Segment::new(cut, file);
        if let Some(before) = self.segments.get(&number) {
            self.segment_bytes -= before.cut.segment_bytes;
            self.open[before.cut.class.number() as usize].remove(&number);
            self.ready[before.cut.class.number() as usize].remove(&number);
            next.busy = before.busy;
            next.file = next.file.or(before.file);
            // Extents stay written through a cut, where all of them are.
            if (0..before.slots).all(|slot| before.written.has(slot as u16))
                && u64::from(next.slots) * next.cut.class.slot_bytes() as u64
                    <= u64::from(before.slots) * before.cut.class.slot_bytes() as u64
            {
                next.written = Slots::all(next.slots);
                next.ready_count = next.slots;
            }
        }
        self.segment_bytes += cut.segment_bytes;
        self.segments.insert(number, next);
        self.file_under_lists(number);
    }

    /// Segments that can be used and hold nothing.
    pub(crate) fn empty(&self) -> impl Iterator<Item = u16> {
        self.empty.iter().copied()
    }

    /// Keeps a segment from use, or lets it be used.
    pub(crate) fn set_busy(&mut self, number: u16, busy: bool) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.busy = busy;
            self.file_under_lists(number);
        }
    }

    fn file_under_lists(&mut self, number: u16) {
        let segment = &self.segments[&number];
        let usable = !segment.busy && segment.file.is_some();
        let open = &mut self.open[segment.cut.class.number() as usize];
        let full = segment.used_count == segment.slots;
        if usable && !full {
            open.insert(number)
        } else {
            open.remove(&number)
        };
        let ready = &mut self.ready[segment.cut.class.number() as usize];
        if usable && segment.ready_count > 0 {
            ready.insert(number)
        } else {
            ready.remove(&number)
        };
        let is_empty = usable && segment.used_count == 0;
        if is_empty {
            self.empty.insert(number)
        } else {
            self.empty.remove(&number)
        };
    }

    /// Takes a free slot of a class: one that is written, where there is one.
    pub(crate) fn take(&mut self, class: Class) -> Option<Place> {
        let at = class.number() as usize;
        let place = |segment: &u16, slot: u32| Place {
            segment: *segment,
            slot: slot as u16,
        };
        let ready = self.ready[at].first().and_then(|number| {
            let segment = &self.segments[number];
            Some(place(
                number,
                segment.used.first_unset_of(&segment.written, true)?,
            ))
        });
        let place = ready.or_else(|| {
            let number = self.open[at].first()?;
            Some(place(number, self.segments[number].used.first_unset()?))
        })?;
        self.claim(place);
        self.demand_bytes[at] += class.slot_bytes() as u64;
        Some(place)
    }

    /// Takes a free slot of any larger class: wasteful, but better than to refuse a block.
    pub(crate) fn take_larger(&mut self, class: Class) -> Option<Place> {
        (class.number() + 1..)
            .map_while(Class::new)
            .find_map(|larger| self.take(larger))
    }

    /// Marks a slot as taken; `false` when there is no such slot or it was taken.
    pub(crate) fn claim(&mut self, place: Place) -> bool {
        let claimed = self.mark_used(place);
        if claimed {
            self.file_under_lists(place.segment);
        }
        claimed
    }

    /// As [`Space::claim`], for very many: [`Space::file_all_under_lists`] must follow the last.
    pub(crate) fn mark_used(&mut self, place: Place) -> bool {
        let Some(segment) = self.segments.get_mut(&place.segment) else {
            return false;
        };
        if u32::from(place.slot) >= segment.slots || !segment.set_used(place.slot, true) {
            return false;
        }
        self.used_bytes += segment.cut.class.slot_bytes() as u64;
        true
    }

    pub(crate) fn file_all_under_lists(&mut self) {
        let numbers: Vec<u16> = self.segments.keys().copied().collect();
        numbers
            .into_iter()
            .for_each(|number| self.file_under_lists(number));
    }

    /// Frees a slot, now or after its last reader.
    pub(crate) fn free(&mut self, place: Place) {
        if let Some(pin) = self.pins.get_mut(&place) {
            pin.free_after = true;
            return;
        }
        let Some(segment) = self.segments.get_mut(&place.segment) else {
            return;
        };
        if segment.set_used(place.slot, false) {
            self.used_bytes -= segment.cut.class.slot_bytes() as u64;
            self.file_under_lists(place.segment);
        }
    }

    /// Keeps a slot from being reused while it is read.
    pub(crate) fn pin(&mut self, place: Place) {
        self.pins.entry(place).or_default().readers += 1;
    }

    pub(crate) fn unpin(&mut self, place: Place) {
        let Some(pin) = self.pins.get_mut(&place) else {
            return;
        };
        pin.readers -= 1;
        if pin.readers == 0 {
            let free_after = pin.free_after;
            self.pins.remove(&place);
            if free_after {
                self.free(place);
            }
        }
    }

    pub(crate) fn is_written(&self, place: Place) -> bool {
        self.segments
            .get(&place.segment)
            .is_some_and(|segment| segment.written.has(place.slot))
    }

    /// Notes that a block of `length` in this slot is durable. Only a block that fills its slot leaves no page of
    /// it unwritten for a longer one to come upon.
    pub(crate) fn note_written(&mut self, place: Place, length: u32) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            let own = Class::for_length(length as usize);
            if own.written_bytes(length as usize) == segment.cut.class.slot_bytes() {
                segment.set_written(place.slot);
                self.file_under_lists(place.segment);
            }
        }
    }

    /// Takes what a checkpoint or the journal knew to be written.
    pub(crate) fn restore_written(&mut self, number: u16, words: &[u64]) {
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        let saved = Slots(words.to_vec());
        for slot in (0..segment.slots).take_while(|&slot| (slot as usize) < 64 * words.len()) {
            if saved.has(slot as u16) {
                segment.set_written(slot as u16);
            }
        }
        self.file_under_lists(number);
    }

    /// Bytes of slots of a class that were taken since the opening.
    pub(crate) fn demand_bytes(&self, class: Class) -> u64 {
        self.demand_bytes[class.number() as usize]
    }

    /// Bytes of slots that a class can have whose extents are written; counts no further than `enough_bytes`.
    pub(crate) fn ready_bytes(&self, class: Class, enough_bytes: u64) -> u64 {
        let own = self.ready[class.number() as usize].iter();
        let empty = self.empty.iter().filter(|number| {
            let segment = &self.segments[*number];
            segment.is_all_ready() && segment.cut.class != class
        });
        let mut bytes = 0;
        for number in own.chain(empty) {
            let segment = &self.segments[number];
            bytes += u64::from(segment.ready_count) * segment.cut.class.slot_bytes() as u64;
            if bytes >= enough_bytes {
                break;
            }
        }
        bytes
    }

    /// Takes free slots in a row that are not written, to be filled with zeros: about `most_bytes`, at least one.
    pub(crate) fn hold_unwritten(&mut self, class: Class, most_bytes: u64) -> Option<Run> {
        let own = self.open[class.number() as usize].iter();
        // An empty segment is the next to be cut for whatever class needs one.
        let (number, first_slot) = own.chain(&self.empty).find_map(|number| {
            let segment = &self.segments[number];
            let first = segment.used.first_unset_of(&segment.written, false)?;
            (first < segment.slots).then_some((*number, first as u16))
        })?;
        let segment = self.segments.get_mut(&number)?;
        let slots_max = (most_bytes / segment.cut.class.slot_bytes() as u64).max(1);
        let end = (u64::from(first_slot) + slots_max).min(u64::from(segment.slots)) as u16;
        let slots = (first_slot..end)
            .take_while(|&slot| !segment.written.has(slot) && segment.set_used(slot, true))
            .count() as u16;
        let run = Run {
            segment: number,
            generation: segment.cut.generation,
            class: segment.cut.class,
            first_slot,
            slots,
        };
        self.held_slots += u32::from(slots);
        self.file_under_lists(number);
        Some(run)
    }

    /// Gives up all but the first `slots` of a run.
    pub(crate) fn shorten(&mut self, run: Run, slots: u16) -> Run {
        let rest = Run {
            first_slot: run.first_slot + slots,
            slots: run.slots - slots,
            ..run
        };
        self.end_fill(rest, false);
        Run { slots, ..run }
    }

    /// Frees the slots of a run.
    pub(crate) fn end_fill(&mut self, run: Run, written: bool) {
        let Some(segment) = self.segments.get_mut(&run.segment) else {
            return;
        };
        for slot in run.first_slot..run.first_slot + run.slots {
            if written {
                segment.set_written(slot);
            }
            segment.set_used(slot, false);
        }
        self.held_slots -= u32::from(run.slots);
        self.file_under_lists(run.segment);
    }

    /// Whether any slot is being read.
    pub(crate) fn has_readers(&self) -> bool {
        !self.pins.is_empty()
    }

    /// Where slots of a class can still come from.
    pub(crate) fn growth(&self, class: Class) -> Option<Growth> {
        let fits = |number: &&u16| class.slots_in(self.segments[*number].cut.segment_bytes) > 0;
        let mut empty = self.empty.iter().filter(fits);
        let any = empty.clone().next();
        if let Some(&number) = empty.find(|number| self.segments[*number].is_all_ready()).or(any) {
            return Some(Growth::Recut(number));
        }
        self.creation()
    }

    /// A new segment, where there is room for one.
    pub(crate) fn creation(&self) -> Option<Growth> {
        if self.segment_bytes + self.new_segment_bytes > self.capacity_bytes {
            return None;
        }
        let unused = (0..SEGMENTS_MAX as u16).find(|number| !self.segments.contains_key(number))?;
        Some(Growth::Create(unused))
    }

    /// Whether a block of 4 MiB finds no slot.
    pub(crate) fn is_full(&self) -> bool {
        let class = Class::largest();
        self.open[class.number() as usize].is_empty() && self.growth(class).is_none() && self.held_slots == 0
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes that all segments take.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Bytes of slots that are free or can still be made.
    pub(crate) fn free_bytes(&self) -> u64 {
        let of_segments: u64 = self
            .segments
            .values()
            .filter(|segment| segment.file.is_some())
            .map(|segment| {
                u64::from(segment.slots - segment.used_count) * segment.cut.class.slot_bytes() as u64
            })
            .sum();
        let more = self.capacity_bytes.saturating_sub(self.segment_bytes) / self.new_segment_bytes;
        of_segments + more * (self.new_segment_bytes - PAGE_BYTES as u64)
    }

    /// Bytes of free slots that are written.
    pub(crate) fn all_ready_bytes(&self) -> u64 {
        self.segments
            .values()
            .map(|segment| u64::from(segment.ready_count) * segment.cut.class.slot_bytes() as u64)
            .sum()
    }

    /// Slots of all segments and one more of the smallest class: the most replicas until the next growth is done.
    pub(crate) fn replicas_max_after_growth(&self, class: Class) -> u64 {
        let now: u64 = self
            .segments
            .values()
            .map(|segment| u64::from(segment.slots))
            .sum();
        now + u64::from(class.slots_in(self.new_segment_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(class: Class, segment_bytes: u64) -> Cut {
        Cut {
            class,
            generation: 1,
            seed: 1,
            segment_bytes,
        }
    }

    fn space(slots: u64) -> (Space, Class) {
        let class = Class::for_length(1);
        let mut space = Space::new();
        space.set_capacity(64 << 20);
        space.set_segment(0, cut(class, (1 + slots) * PAGE_BYTES as u64), Some(FileId(0)));
        (space, class)
    }

    #[test]
    fn slots_are_given_once_and_again_when_free() {
        let (mut space, class) = space(70);
        let taken: BTreeSet<Place> = (0..70).map(|_| space.take(class).unwrap()).collect();
        assert_eq!((taken.len(), space.take(class)), (70, None));
        space.free(Place { segment: 0, slot: 66 });
        assert_eq!(space.take(class), Some(Place { segment: 0, slot: 66 }));
        assert!(!space.claim(Place { segment: 0, slot: 66 }) && !space.claim(Place { segment: 0, slot: 70 }));
        assert_eq!(space.used_bytes(), 70 * PAGE_BYTES as u64);
    }

    #[test]
    fn a_slot_that_is_read_is_free_after_its_last_reader() {
        let (mut space, class) = space(1);
        let place = space.take(class).unwrap();
        space.pin(place);
        space.pin(place);
        space.free(place);
        space.unpin(place);
        assert_eq!(space.take(class), None);
        space.unpin(place);
        assert_eq!(space.take(class), Some(place));
    }

    #[test]
    fn empty_segments_are_cut_before_new_ones_are_made() {
        let mut space = Space::new();
        space.set_capacity(64 << 20);
        let (small, bytes) = (Class::for_length(1), space.new_segment_bytes());
        space.set_segment(0, cut(small, bytes), Some(FileId(0)));
        assert!(matches!(space.growth(Class::largest()), Some(Growth::Recut(0))));
        let place = space.take(small).unwrap();
        assert!(matches!(space.growth(Class::largest()), Some(Growth::Create(1))));
        space.free(place);
        space.set_busy(0, true);
        assert!(
            matches!(space.growth(Class::largest()), Some(Growth::Create(1))) && space.take(small).is_none()
        );
    }

    #[test]
    fn a_volume_never_outgrows_its_capacity() {
        let mut space = Space::new();
        space.set_capacity(64 << 20);
        let (class, bytes) = (Class::largest(), space.new_segment_bytes());
        let mut blocks = 0;
        while let Some(Growth::Create(number)) = space.growth(class) {
            space.set_segment(number, cut(class, bytes), Some(FileId(0)));
            while space.take(class).is_some() {
                blocks += 1;
            }
        }
        assert!(
            space.is_full() && blocks == 15 && space.segment_bytes() <= 64 << 20,
            "{blocks}"
        );
    }
}
