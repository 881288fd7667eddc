//! What names may show: a history of each group of names, checked as it grows against atomic registers.
//!
//! Every operation takes effect at one moment between its call and its answer; one without an answer at any moment
//! until nothing of it can be on its way any more, or never. The checker keeps all states that are possible by now
//! (just-in-time linearization, Lowe 2017); when an answer leaves none, the history is not linearizable.

use std::collections::{BTreeMap, BTreeSet};

/// Names of a group, which renames stay within.
pub const SLOTS: usize = 3;
/// Operations of a group that may be open at a time.
const OPEN_MAX: usize = 48;
/// How long something of an operation that was given up can still be on its way, milliseconds.
const LATE_MS: u64 = 300_000;

/// What a name shows: the number of what was written, 0 for nothing.
pub type Value = u32;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A file appears, or its new version does.
    Write {
        /// Where.
        slot: usize,
        /// What.
        value: Value,
        /// Whether one that is there is replaced.
        overwrite: bool,
    },
    /// A file is removed.
    Remove {
        /// Which.
        slot: usize,
    },
    /// A file is moved.
    Rename {
        /// From where.
        from: usize,
        /// To where.
        to: usize,
        /// Whether one that is there is replaced.
        overwrite: bool,
    },
    /// A file is looked up.
    Read {
        /// Which.
        slot: usize,
    },
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// There was no such file.
    NotFound,
    /// There was a file in the way.
    Exists,
    /// There was no such file when a later try of the call came, so nothing had happened until then. An earlier one
    /// may still be on its way.
    NotFoundYet,
    /// The same for a file in the way.
    ExistsYet,
    /// What a read has seen.
    Saw(Value),
    /// It has not happened and will not.
    Never,
    /// Nobody knows.
    Unknown,
}

type Names = [Value; SLOTS];

/// A possible state: what the names show, and which open operations have taken effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Possible {
    names: Names,
    done: u64,
}

/// What open operations that had changed nothing would have been answered at some moment on the way to a state: place and
/// outcome. Ways to the same state are taken together, which may only let through what a finer look would not.
#[derive(Clone, Default, Debug)]
struct Seen {
    /// Places that were told `NotFound`, and those that were told `Exists`.
    refused: [u64; 2],
    /// In order.
    saw: Vec<(usize, Value)>,
}

impl Seen {
    fn insert(&mut self, at: usize, sight: Outcome) {
        match sight {
            Outcome::NotFound => self.refused[0] |= 1 << at,
            Outcome::Exists => self.refused[1] |= 1 << at,
            Outcome::Saw(value) => {
                if let Err(place) = self.saw.binary_search(&(at, value)) {
                    self.saw.insert(place, (at, value));
                }
            }
            _ => {}
        }
    }

    fn contains(&self, at: usize, sight: Outcome) -> bool {
        match sight {
            Outcome::NotFound => self.refused[0] & 1 << at != 0,
            Outcome::Exists => self.refused[1] & 1 << at != 0,
            Outcome::Saw(value) => self.saw.binary_search(&(at, value)).is_ok(),
            _ => false,
        }
    }

    fn extend(&mut self, other: &Self) {
        self.refused[0] |= other.refused[0];
        self.refused[1] |= other.refused[1];
        for (at, value) in &other.saw {
            self.insert(*at, Outcome::Saw(*value));
        }
    }

    fn is_subset(&self, other: &Self) -> bool {
        let is_in = |(at, value): &(usize, Value)| other.contains(*at, Outcome::Saw(*value));
        self.refused[0] & !other.refused[0] == 0
            && self.refused[1] & !other.refused[1] == 0
            && self.saw.iter().all(is_in)
    }

    /// Forgets what the operations at these places were told.
    fn forget(&mut self, places: u64) {
        self.refused[0] &= !places;
        self.refused[1] &= !places;
        self.saw.retain(|(at, _)| places & 1 << at == 0);
    }
}

/// All states that are possible by now.
type All = BTreeMap<Possible, Seen>;

#[derive(Clone, Copy, Debug)]
struct Open {
    operation: Operation,
    /// When it can't happen any more, once it was given up, milliseconds.
    until_ms: Option<u64>,
}

/// The history of one group of names.
pub struct History {
    possible: All,
    open: [Option<Open>; OPEN_MAX],
}

/// Names an open operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(usize);

impl Default for History {
    fn default() -> Self {
        let first = Possible {
            names: [0; SLOTS],
            done: 0,
        };
        Self {
            possible: All::from([(first, Seen::default())]),
            open: [None; OPEN_MAX],
        }
    }
}

/// The state after `operation` has been done, if it can be.
fn effect(mut names: Names, operation: Operation) -> Option<Names> {
    match operation {
        Operation::Write {
            slot,
            value,
            overwrite,
        } if overwrite || names[slot] == 0 => names[slot] = value,
        Operation::Remove { slot } if names[slot] != 0 => names[slot] = 0,
        Operation::Rename { from, to, overwrite }
            if names[from] != 0 && (overwrite || from == to || names[to] == 0) =>
        {
            if from != to {
                names[to] = std::mem::take(&mut names[from]);
            }
        }
        _ => return None,
    }
    Some(names)
}

/// What `operation` would be answered in a state that it leaves as it is.
fn sight(names: &Names, operation: Operation) -> Option<Outcome> {
    match operation {
        Operation::Read { slot } => Some(Outcome::Saw(names[slot])),
        Operation::Write { slot, overwrite, .. } => {
            (!overwrite && names[slot] != 0).then_some(Outcome::Exists)
        }
        Operation::Remove { slot } => (names[slot] == 0).then_some(Outcome::NotFound),
        Operation::Rename { from, .. } if names[from] == 0 => Some(Outcome::NotFound),
        Operation::Rename { from, to, overwrite } => {
            (!overwrite && from != to && names[to] != 0).then_some(Outcome::Exists)
        }
    }
}

impl History {
    /// Whether one more operation may be open.
    pub fn has_room(&mut self, now_ms: u64) -> bool {
        self.expire(now_ms);
        // Renames and reads of the others need some, too.
        self.open.iter().filter(|open| open.is_some()).count() < OPEN_MAX / 6
    }

    /// An operation is called.
    ///
    /// # Panics
    /// When too many are open.
    pub fn call(&mut self, operation: Operation, now_ms: u64) -> Ticket {
        self.expire(now_ms);
        let at = self
            .open
            .iter()
            .position(Option::is_none)
            .expect("few operations are open at a time");
        self.open[at] = Some(Open {
            operation,
            until_ms: None,
        });
        // Where it sees at once what it will be answered, that counts, whatever happens meanwhile.
        for (possible, seen) in &mut self.possible {
            if let Some(sight) = sight(&possible.names, operation) {
                seen.insert(at, sight);
            }
        }
        Ticket(at)
    }

    /// An operation is answered.
    ///
    /// # Errors
    /// What no order of the operations explains.
    pub fn answer(&mut self, ticket: Ticket, outcome: Outcome, now_ms: u64) -> Result<(), String> {
        self.expire(now_ms);
        let bit = 1 << ticket.0;
        let Some(open) = self.open[ticket.0] else {
            return Err("an operation was answered twice".to_owned());
        };
        if outcome == Outcome::Unknown {
            self.open[ticket.0] = Some(Open {
                until_ms: Some(now_ms + LATE_MS),
                ..open
            });
            return Ok(());
        }
        let yet = match outcome {
            Outcome::NotFoundYet => Some(Outcome::NotFound),
            Outcome::ExistsYet => Some(Outcome::Exists),
            _ => None,
        };
        if yet.is_none() && self.is_alone(ticket) {
            return self.answer_alone(ticket, open.operation, outcome);
        }
        let all = self.reachable();
        let before: Vec<Names> = self.possible.keys().map(|possible| possible.names).collect();
        self.open[ticket.0] = yet.map(|_| Open {
            until_ms: Some(now_ms + LATE_MS),
            ..open
        });
        let closed = if yet.is_some() { 0 } else { bit };
        self.possible.clear();
        for (possible, mut seen) in all {
            let is_done = possible.done & bit != 0;
            let fits = match (outcome, yet) {
                // It may have been done since.
                (_, Some(sight)) => seen.contains(ticket.0, sight),
                (Outcome::Done, _) => is_done,
                (Outcome::Never, _) => !is_done,
                (sight, _) => !is_done && seen.contains(ticket.0, sight),
            };
            if fits {
                seen.forget(bit);
                let possible = Possible {
                    done: possible.done & !closed,
                    ..possible
                };
                self.possible.entry(possible).or_default().extend(&seen);
            }
        }
        match self.possible.is_empty() {
            false => Ok(()),
            true => Err(format!(
                "{:?} was answered {outcome:?}, which no order of the operations explains: names showed one of \
                 {before:?}, open were {:?}",
                open.operation,
                self.open.iter().flatten().collect::<Vec<_>>()
            )),
        }
    }

    /// Whether no other operation is open, and what the names show is known.
    fn is_alone(&self, ticket: Ticket) -> bool {
        let mut others = self
            .open
            .iter()
            .enumerate()
            .filter(|(at, open)| *at != ticket.0 && open.is_some());
        let mut states = self.possible.keys();
        let only = states.next().is_some_and(|possible| possible.done == 0) && states.next().is_none();
        others.next().is_none() && only
    }

    /// [`History::answer`] where there is only one way: what most of the time is so.
    fn answer_alone(&mut self, ticket: Ticket, operation: Operation, outcome: Outcome) -> Result<(), String> {
        self.open = [None; OPEN_MAX];
        let Some((possible, seen)) = self.possible.pop_first() else {
            return Err("no state was possible before".to_owned());
        };
        let names = match outcome {
            Outcome::Done => effect(possible.names, operation),
            Outcome::Never => Some(possible.names),
            sight => seen.contains(ticket.0, sight).then_some(possible.names),
        };
        let names = names.ok_or_else(|| {
            format!(
                "{operation:?} was answered {outcome:?}, while names showed {:?} and nothing else was under way",
                possible.names
            )
        })?;
        self.possible.insert(Possible { names, done: 0 }, Seen::default());
        Ok(())
    }

    /// All states that open operations can lead to from the possible ones.
    fn reachable(&self) -> All {
        let sights = |possible: &Possible, seen: &mut Seen| {
            for (at, open) in self.open.iter().enumerate() {
                if let Some(open) = open
                    && open.until_ms.is_none()
                    && possible.done & (1 << at) == 0
                    && let Some(sight) = sight(&possible.names, open.operation)
                {
                    seen.insert(at, sight);
                }
            }
        };
        let mut reached = All::new();
        let mut todo = Vec::new();
        for (possible, seen) in &self.possible {
            let mut seen = seen.clone();
            sights(possible, &mut seen);
            reached.insert(*possible, seen);
            todo.push(*possible);
        }
        while let Some(possible) = todo.pop() {
            let came_with = reached[&possible].clone();
            for (at, open) in self.open.iter().enumerate() {
                let Some(open) = open else { continue };
                if possible.done & (1 << at) != 0 {
                    continue;
                }
                let Some(names) = effect(possible.names, open.operation) else {
                    continue;
                };
                let next = Possible {
                    names,
                    done: possible.done | 1 << at,
                };
                let mut seen = came_with.clone();
                sights(&next, &mut seen);
                match reached.get_mut(&next) {
                    Some(known) if seen.is_subset(known) => {}
                    Some(known) => {
                        known.extend(&seen);
                        todo.push(next);
                    }
                    None => {
                        reached.insert(next, seen);
                        todo.push(next);
                    }
                }
            }
        }
        reached
    }

    /// Closes what was given up so long ago that nothing of it can be on its way.
    fn expire(&mut self, now_ms: u64) {
        let over = |open: &Open| open.until_ms.is_some_and(|until_ms| until_ms <= now_ms);
        if !self.open.iter().flatten().any(over) {
            return;
        }
        let mut closed = 0;
        let reached = self.reachable();
        for (at, open) in self.open.iter_mut().enumerate() {
            if open.as_ref().is_some_and(over) {
                *open = None;
                closed |= 1 << at;
            }
        }
        self.possible.clear();
        for (possible, mut seen) in reached {
            seen.forget(closed);
            let possible = Possible {
                done: possible.done & !closed,
                ..possible
            };
            self.possible.entry(possible).or_default().extend(&seen);
        }
    }

    /// What a name may show when nothing more is under way.
    pub fn may_show(&self, slot: usize) -> BTreeSet<Value> {
        self.reachable()
            .keys()
            .map(|possible| possible.names[slot])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: fn(Value) -> Operation = |value| Operation::Write {
        slot: 0,
        value,
        overwrite: true,
    };
    const READ: Operation = Operation::Read { slot: 0 };

    #[test]
    fn reads_see_the_latest_write_or_one_that_overlaps() {
        let mut history = History::default();
        let one = history.call(WRITE(1), 0);
        history.answer(one, Outcome::Done, 1).unwrap();
        history.call(WRITE(2), 2);
        let read = history.call(READ, 2);
        history.answer(read, Outcome::Saw(2), 3).unwrap();
        let read = history.call(READ, 4);
        assert!(
            history.answer(read, Outcome::Saw(1), 5).is_err(),
            "seen once, the new one stays"
        );
    }

    #[test]
    fn an_old_value_after_a_newer_one_was_answered_is_a_violation() {
        let mut history = History::default();
        for value in 1..3 {
            let write = history.call(WRITE(value), 0);
            history.answer(write, Outcome::Done, 1).unwrap();
        }
        let read = history.call(READ, 2);
        assert!(history.answer(read, Outcome::Saw(1), 3).is_err());
    }

    #[test]
    fn an_answer_may_be_of_any_moment_since_the_call() {
        let mut history = History::default();
        let (read, remove) = (
            history.call(READ, 0),
            history.call(Operation::Remove { slot: 0 }, 0),
        );
        let one = history.call(WRITE(1), 1);
        history.answer(one, Outcome::Done, 2).unwrap();
        history.answer(read, Outcome::Saw(0), 3).unwrap();
        history.answer(remove, Outcome::NotFound, 3).unwrap();
        assert_eq!(history.may_show(0), [1].into());
    }

    #[test]
    fn what_was_given_up_may_still_happen_but_once() {
        let mut history = History::default();
        let one = history.call(WRITE(1), 0);
        history.answer(one, Outcome::Unknown, 1).unwrap();
        let read = history.call(READ, 2);
        history.answer(read, Outcome::Saw(0), 3).unwrap();
        let remove = history.call(Operation::Remove { slot: 0 }, 4);
        history.answer(remove, Outcome::Done, 5).unwrap();
        let read = history.call(READ, 6);
        assert!(
            history.answer(read, Outcome::Saw(1), 7).is_err(),
            "resurrected: removed, and written only once"
        );
    }

    #[test]
    fn a_later_try_is_refused_only_where_an_earlier_one_was_not_done() {
        let begun = || {
            let mut history = History::default();
            let one = history.call(WRITE(1), 0);
            history.answer(one, Outcome::Done, 1).unwrap();
            let remove = history.call(Operation::Remove { slot: 0 }, 2);
            (history, remove)
        };
        let (mut history, remove) = begun();
        assert!(
            history.answer(remove, Outcome::NotFoundYet, 3).is_err(),
            "only its own first try can have removed the file"
        );
        let (mut history, remove) = begun();
        let other = history.call(Operation::Remove { slot: 0 }, 2);
        history.answer(remove, Outcome::NotFoundYet, 3).unwrap();
        history.answer(other, Outcome::Done, 4).unwrap();
        let again = history.call(WRITE(2), 5);
        history.answer(again, Outcome::Done, 6).unwrap();
        assert_eq!(history.may_show(0), [0, 2].into(), "the first try may come late");
    }

    #[test]
    fn what_was_given_up_long_ago_happens_no_more() {
        let mut history = History::default();
        let one = history.call(WRITE(1), 0);
        history.answer(one, Outcome::Unknown, 1).unwrap();
        let read = history.call(READ, LATE_MS + 2);
        history.answer(read, Outcome::Saw(0), LATE_MS + 3).unwrap();
        let read = history.call(READ, LATE_MS + 4);
        assert!(history.answer(read, Outcome::Saw(1), LATE_MS + 5).is_err());
    }

    #[test]
    fn a_rename_moves_what_is_there() {
        let mut history = History::default();
        let one = history.call(WRITE(1), 0);
        history.answer(one, Outcome::Done, 1).unwrap();
        let rename = |to, overwrite| Operation::Rename {
            from: 0,
            to,
            overwrite,
        };
        let moved = history.call(rename(1, false), 2);
        history.answer(moved, Outcome::Done, 3).unwrap();
        assert_eq!(
            (history.may_show(0), history.may_show(1)),
            ([0].into(), [1].into())
        );
        let again = history.call(rename(1, false), 4);
        history.answer(again, Outcome::NotFound, 5).unwrap();
        let two = history.call(WRITE(2), 6);
        history.answer(two, Outcome::Done, 7).unwrap();
        let taken = history.call(rename(1, false), 8);
        history.answer(taken, Outcome::Exists, 9).unwrap();
        let never = history.call(WRITE(3), 10);
        history.answer(never, Outcome::Never, 11).unwrap();
        let read = history.call(READ, 12);
        assert!(history.answer(read, Outcome::Saw(3), 13).is_err());
    }
}
