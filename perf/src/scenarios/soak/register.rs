//! What a name may show: a register with many writers, some of which do not know whether they have written.
//!
//! Knows no cluster and no clock: moments come in, and only their order counts. A read is refuted when no order of the
//! writes, in which each takes effect between its begin and its end, lets it see what it saw.

use super::contents::Value;

/// Microseconds since the soak began.
pub(super) type Moment = u64;

/// What a name shows: a value, or that there is no such file.
pub(super) type Shown = Option<Value>;

/// Names a write of one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WriteId(u64);

#[derive(Clone, Debug)]
struct Write {
    id: u64,
    /// One of these is shown once it has taken effect. Several where a rename has moved what was not known for sure.
    shows: Vec<Shown>,
    began: Moment,
    /// By then it has taken effect, if ever: when it was acknowledged, or could no more be on its way; at no time while
    /// it is under way.
    last: Moment,
    /// It has taken effect by then for sure.
    happened: Option<Moment>,
}

/// The states that one name can be in.
#[derive(Clone, Debug)]
pub(super) struct Register {
    writes: Vec<Write>,
    next: u64,
}

impl Default for Register {
    /// A name without a file.
    fn default() -> Self {
        let write = Write {
            id: 0,
            shows: vec![None],
            began: 0,
            last: 0,
            happened: Some(0),
        };
        Self {
            writes: vec![write],
            next: 1,
        }
    }
}

impl Register {
    /// A write that will show one of these begins.
    pub(super) fn begin(&mut self, shows: Vec<Shown>, now: Moment) -> WriteId {
        let id = self.next;
        self.next += 1;
        self.writes.push(Write {
            id,
            shows,
            began: now,
            last: Moment::MAX,
            happened: None,
        });
        WriteId(id)
    }

    /// It was acknowledged.
    pub(super) fn acknowledged(&mut self, write: WriteId, now: Moment) {
        if let Some(write) = self.find(write) {
            write.last = write.last.min(now);
            write.happened = Some(write.happened.map_or(now, |before| before.min(now)));
        }
        self.forget(now);
    }

    /// It failed, and may take effect until then all the same.
    pub(super) fn unknown(&mut self, write: WriteId, until: Moment) {
        if let Some(write) = self.find(write) {
            write.last = write.last.min(until);
        }
    }

    /// It was refused: it never takes effect.
    pub(super) fn refused(&mut self, write: WriteId) {
        self.writes.retain(|known| known.id != write.0);
    }

    /// Writes of this that have not been refused.
    pub(super) fn tries_of(&self, shown: Shown) -> usize {
        let writes = self.writes.iter();
        writes.filter(|write| write.shows == [shown]).count()
    }

    /// All that a read between these moments may see.
    pub(super) fn may_show(&self, began: Moment, ended: Moment) -> Vec<Shown> {
        let mut all: Vec<Shown> = self
            .possible(began, ended)
            .flat_map(|write| write.shows.iter().copied())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A read between these moments saw this; whether it may have.
    pub(super) fn saw(&mut self, shown: Shown, began: Moment, ended: Moment) -> bool {
        let mut by = self
            .possible(began, ended)
            .filter(|write| write.shows.contains(&shown))
            .map(|write| write.id);
        let (first, more) = (by.next(), by.next().is_some());
        drop(by);
        let Some(id) = first else { return false };
        // Only this write can have shown it, so it has taken effect: nobody may see what was there before it any more.
        if !more && let Some(write) = self.find(WriteId(id)) {
            write.happened = Some(write.happened.map_or(ended, |before| before.min(ended)));
            write.last = write.last.min(ended);
        }
        true
    }

    /// Writes that a read between these moments may find in effect: begun by then, and not surely overwritten before.
    fn possible(&self, began: Moment, ended: Moment) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(move |write| {
            let overwritten = self.writes.iter().any(|other| {
                other.began > write.last && other.happened.is_some_and(|happened| happened < began)
            });
            write.began <= ended && !overwritten
        })
    }

    fn find(&mut self, write: WriteId) -> Option<&mut Write> {
        self.writes.iter_mut().find(|known| known.id == write.0)
    }

    /// Drops what no read can see that is still under way.
    fn forget(&mut self, now: Moment) {
        /// No operation takes longer, or the soak has failed anyway.
        const LONGEST_US: Moment = 600_000_000;
        const KEPT: usize = 16;
        if self.writes.len() > KEPT {
            let since = now.saturating_sub(LONGEST_US);
            let kept: Vec<u64> = self.possible(since, now).map(|write| write.id).collect();
            self.writes.retain(|write| kept.contains(&write.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(number: u64) -> Shown {
        Some(Value {
            number,
            length_bytes: 1,
        })
    }

    fn written(register: &mut Register, number: u64, began: Moment, ended: Moment) {
        let write = register.begin(vec![value(number)], began);
        register.acknowledged(write, ended);
    }

    #[test]
    fn an_acknowledged_write_is_what_is_seen() {
        let mut register = Register::default();
        assert!(register.saw(None, 1, 2));
        written(&mut register, 1, 10, 20);
        assert_eq!(register.may_show(21, 22), [value(1)]);
        assert!(!register.saw(None, 21, 22), "lost");
        written(&mut register, 2, 30, 40);
        assert!(!register.saw(value(1), 41, 42), "stale");
        assert!(!register.saw(value(9), 41, 42), "never written");
        assert!(register.saw(value(2), 41, 42));
    }

    #[test]
    fn beside_a_write_both_are_possible() {
        let mut register = Register::default();
        written(&mut register, 1, 10, 20);
        let second = register.begin(vec![value(2)], 30);
        assert!(register.saw(value(1), 25, 35));
        assert!(register.saw(value(1), 50, 60), "still under way");
        register.acknowledged(second, 100);
        assert!(
            register.saw(value(1), 90, 110),
            "begun before the acknowledgement"
        );
        assert!(!register.saw(value(1), 101, 110));
        assert!(!register.saw(value(2), 20, 29), "not begun yet");
    }

    #[test]
    fn racing_writes_may_end_either_way() {
        let mut register = Register::default();
        let (first, second) = (
            register.begin(vec![value(1)], 10),
            register.begin(vec![value(2)], 11),
        );
        register.acknowledged(first, 20);
        register.acknowledged(second, 21);
        assert_eq!(register.may_show(30, 31), [value(1), value(2)]);
        assert!(!register.saw(None, 30, 31));
    }

    #[test]
    fn a_failed_write_may_come_until_its_time_is_over() {
        let mut register = Register::default();
        written(&mut register, 1, 10, 20);
        let failed = register.begin(vec![value(2)], 30);
        register.unknown(failed, 100);
        assert_eq!(register.may_show(50, 51), [value(1), value(2)]);
        // One that begins while it may still be on its way can be overwritten by it.
        written(&mut register, 3, 60, 70);
        assert_eq!(register.may_show(110, 111), [value(2), value(3)]);
        written(&mut register, 4, 120, 130);
        assert_eq!(register.may_show(131, 132), [value(4)]);
    }

    #[test]
    fn what_was_seen_once_has_happened() {
        let mut register = Register::default();
        written(&mut register, 1, 10, 20);
        let failed = register.begin(vec![value(2)], 30);
        register.unknown(failed, 1000);
        assert!(register.saw(value(2), 40, 50));
        assert!(
            !register.saw(value(1), 60, 70),
            "back to before the write that was seen"
        );
        written(&mut register, 3, 80, 90);
        assert_eq!(register.may_show(91, 92), [value(3)], "it happens once");
    }

    #[test]
    fn a_refused_write_leaves_no_trace() {
        let mut register = Register::default();
        let refused = register.begin(vec![value(1)], 10);
        register.refused(refused);
        assert_eq!(register.may_show(20, 21), [None]);
    }

    #[test]
    fn a_move_of_what_was_not_known_shows_any_of_it() {
        let mut register = Register::default();
        let moved = register.begin(vec![value(1), value(2)], 10);
        register.acknowledged(moved, 20);
        assert_eq!(register.may_show(30, 31), [value(1), value(2)]);
        assert!(!register.saw(None, 30, 31));
    }

    #[test]
    fn old_writes_are_forgotten_and_the_last_stays() {
        let mut register = Register::default();
        for number in 1..100 {
            let began = number * 1_000_000_000;
            written(&mut register, number, began, began + 10);
        }
        assert!(register.writes.len() < 20, "{}", register.writes.len());
        assert_eq!(register.may_show(200_000_000_000, 200_000_000_001), [value(99)]);
    }
}
