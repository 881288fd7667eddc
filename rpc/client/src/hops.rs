//! How much of a write's time each hop of its chain is answerable for. Pure: spans in, times out.
//!
//! Every clock is only held against itself. A hop that stands still does not see it by its own clock when it stood still
//! before it was asked; the one before it does. So a hop's time is what its predecessor waited for it, from the moment
//! that the predecessor had nothing left to send, less what the hop itself waited for the hops behind it.

use std::time::Duration;

use crate::pace::{SIZES, size_class};
use crate::trace::{HopSpans, PutSpans};

/// Usual times of the classes, before anything is measured: heads by size, then hops behind them by size.
pub const GUESSES: [Duration; 2 * SIZES] = {
    let ms = Duration::from_millis;
    [ms(20), ms(30), ms(80), ms(20), ms(30), ms(80)]
};

/// The class of the hop at `position` of a chain for a block of `bytes`.
pub fn class(position: usize, bytes: usize) -> usize {
    size_class(bytes) + if position == 0 { 0 } else { SIZES }
}

/// The time of each hop, the head's first; empty where the chain told no spans.
///
/// The head's begins with the Put: when the client has sent all depends on the head's grant.
pub fn times(client: &PutSpans, hops: &[HopSpans]) -> Vec<Duration> {
    let us = |us: u32| Duration::from_micros(u64::from(us));
    let waited_for = |at: usize| match at.checked_sub(1).map(|before| &hops[before]) {
        None => client.done,
        Some(before) => us(before.behind_us.saturating_sub(before.received_us)),
    };
    let time = |(at, hop): (usize, &HopSpans)| {
        let for_others = us(hop.behind_us.saturating_sub(hop.durable_us));
        waited_for(at).saturating_sub(for_others)
    };
    hops.iter().enumerate().map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain whose hops all take their usual time: bytes by 4 ms, durable by 10 ms, and half a millisecond a way.
    fn usual(hops: usize) -> (PutSpans, Vec<HopSpans>) {
        let behind_us = |at: usize| if at + 1 < hops { 10_500 } else { 0 };
        let spans = |at| HopSpans {
            granted_us: 100,
            received_us: 4000,
            written_us: 8000,
            durable_us: 10_000,
            behind_us: behind_us(at),
        };
        let client = PutSpans {
            begun: std::time::Instant::now(),
            granted: Duration::from_micros(600),
            sent: Duration::from_millis(3),
            done: Duration::from_millis(11),
        };
        (client, (0..hops).map(spans).collect())
    }

    fn ms(client: &PutSpans, hops: &[HopSpans]) -> Vec<u128> {
        times(client, hops).iter().map(Duration::as_millis).collect()
    }

    #[test]
    fn nobody_is_slow_in_a_usual_chain() {
        let (client, hops) = usual(3);
        assert_eq!(ms(&client, &hops), [10, 6, 6]);
        assert_eq!(ms(&client, &[]), []);
        let (client, hops) = usual(1);
        assert_eq!(ms(&client, &hops), [11]);
    }

    #[test]
    fn the_one_that_stands_still_is_found_wherever_it_is() {
        let second = 1_000_000;
        for slow in 0..3 {
            // Before it was asked: only those before it see that.
            let (mut client, mut hops) = usual(3);
            client.done += Duration::from_micros(second.into());
            (0..slow).for_each(|at| hops[at].behind_us += second);
            let mut expected = [10, 6, 6];
            expected[slow] += 1000;
            assert_eq!(ms(&client, &hops), expected, "before {slow}");

            // While bytes come: those behind get them later, and are not to blame.
            let (mut client, mut hops) = usual(3);
            client.done += Duration::from_micros(second.into());
            (0..slow).for_each(|at| hops[at].behind_us += second);
            for hop in &mut hops[slow..] {
                hop.received_us += second;
                hop.written_us += second;
                hop.durable_us += second;
                if hop.behind_us > 0 {
                    hop.behind_us += second;
                }
            }
            assert_eq!(ms(&client, &hops), expected, "meanwhile {slow}");

            // While it writes.
            let (mut client, mut hops) = usual(3);
            client.done += Duration::from_micros(second.into());
            (0..slow).for_each(|at| hops[at].behind_us += second);
            hops[slow].durable_us += second;
            assert_eq!(
                ms(&client, &hops)[slow],
                u128::from(second) / 1000 + if slow == 0 { 11 } else { 6 }
            );
            let others = ms(&client, &hops);
            assert!(
                others.iter().enumerate().all(|(at, ms)| at == slow || *ms < 20),
                "{others:?}"
            );
        }
    }
}
