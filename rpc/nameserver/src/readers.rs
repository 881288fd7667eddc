//! Until when tickets to read a version may be in somebody's hands: no replica of it goes before. Pure.

use std::collections::BTreeMap;

use blockyard_wire::ticket::CLOCK_SKEW_MS;

/// Versions that are followed one by one.
const FOLLOWED_MAX: usize = 1 << 20;

/// The tickets of a version.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// When the latest one expires, milliseconds since 1970.
    expires_unix_ms: u64,
    /// How many were given one after the other while the one before had not expired.
    times: u32,
}

/// Tickets that may still be used.
#[derive(Clone, Debug)]
pub struct Readers {
    ticket_ms: u64,
    given: BTreeMap<u64, Given>,
    /// Versions up to this id may have tickets that are not followed, until `others_unix_ms`.
    others_last_id: u64,
    others_unix_ms: u64,
}

impl Readers {
    /// After a start: the reign before may just have given tickets for any version up to `last_id`.
    pub fn new(ticket_ms: u64, last_id: u64, now_unix_ms: u64) -> Self {
        Self {
            ticket_ms,
            given: BTreeMap::new(),
            others_last_id: last_id,
            others_unix_ms: now_unix_ms + ticket_ms,
        }
    }

    /// A ticket to read `version` is given out; when it expires.
    pub fn give(&mut self, version: u64, now_unix_ms: u64) -> u64 {
        let expires_unix_ms = now_unix_ms + self.ticket_ms;
        if self.given.len() >= FOLLOWED_MAX && !self.given.contains_key(&version) {
            self.given
                .retain(|_, given| given.expires_unix_ms + CLOCK_SKEW_MS >= now_unix_ms);
        }
        if self.given.len() >= FOLLOWED_MAX && !self.given.contains_key(&version) {
            // Too many to follow: any version may be being read for a while.
            self.given.clear();
            self.others_last_id = u64::MAX;
            self.others_unix_ms = expires_unix_ms;
        }
        let times = self.times(version, now_unix_ms).saturating_add(1);
        self.given.insert(
            version,
            Given {
                expires_unix_ms,
                times,
            },
        );
        expires_unix_ms
    }

    /// How often tickets to read `version` were given of late.
    pub fn times(&self, version: u64, now_unix_ms: u64) -> u32 {
        let given = self.given.get(&version);
        given
            .filter(|given| given.expires_unix_ms >= now_unix_ms)
            .map_or(0, |given| given.times)
    }

    /// Whether nobody can be reading `version` any more.
    pub fn are_done(&self, version: u64, now_unix_ms: u64) -> bool {
        let over = |expires: u64| now_unix_ms > expires + CLOCK_SKEW_MS;
        let given = self.given.get(&version);
        given.is_none_or(|given| over(given.expires_unix_ms))
            && (version > self.others_last_id || over(self.others_unix_ms))
    }

    /// Forgets a version that has gone.
    pub fn forget(&mut self, version: u64) {
        self.given.remove(&version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_waits_for_its_last_ticket() {
        let mut readers = Readers::new(1000, 10, 0);
        assert!(readers.are_done(11, 0), "made in this reign, never read");
        assert!(
            !readers.are_done(10, 1000 + CLOCK_SKEW_MS),
            "perhaps read in the last reign"
        );
        assert!(readers.are_done(10, 1001 + CLOCK_SKEW_MS));
        readers.give(11, 500);
        assert!(!readers.are_done(11, 1500 + CLOCK_SKEW_MS));
        readers.give(11, 900);
        assert_eq!((readers.times(11, 1900), readers.times(11, 1901)), (2, 0));
        assert!(!readers.are_done(11, 1900 + CLOCK_SKEW_MS));
        assert!(readers.are_done(11, 1901 + CLOCK_SKEW_MS));
    }

    #[test]
    fn too_many_to_follow_wait_together() {
        let mut readers = Readers::new(1000, 0, 0);
        for version in 0..=FOLLOWED_MAX as u64 {
            readers.give(version, 1);
        }
        assert!(readers.given.len() < FOLLOWED_MAX);
        assert!(!readers.are_done(5, 1001 + CLOCK_SKEW_MS));
        assert!(readers.are_done(5, 1002 + CLOCK_SKEW_MS));
    }
}
