//! Chains that lead through a volume: how much each sender writes, and how far the next hop is behind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use blockyard_wire::types::{FLOWS_MAX, Flow, VolumeId};

/// A flow that has been still for so long is over.
const STILL: Duration = Duration::from_secs(3);
/// What one block counts in the lag of late.
const LAG_SHARE: f64 = 1.0 / 8.0;

/// Where blocks come from and go to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    from: IpAddr,
    head: bool,
    next: VolumeId,
}

struct Tally {
    in_flight: u32,
    blocks: u64,
    bytes: u64,
    lag_us: f64,
    last: Instant,
}

/// The flows of a volume.
#[derive(Default)]
pub(crate) struct Flows(Rc<RefCell<BTreeMap<Way, Tally>>>);

/// A block under way; it is that until this is dropped.
pub(crate) struct Passing {
    flows: Rc<RefCell<BTreeMap<Way, Tally>>>,
    way: Way,
}

impl Flows {
    /// A block has begun to come; `head`: from a client. `next` is 0 at the end of a chain.
    pub fn begin(&self, from: IpAddr, head: bool, next: VolumeId) -> Passing {
        let way = Way { from, head, next };
        let mut flows = self.0.borrow_mut();
        let tally = flows.entry(way).or_insert_with(|| Tally {
            in_flight: 0,
            blocks: 0,
            bytes: 0,
            lag_us: 0.0,
            last: Instant::now(),
        });
        tally.in_flight += 1;
        Passing {
            flows: self.0.clone(),
            way,
        }
    }

    /// Those that are not over, the busiest first.
    pub fn report(&self) -> Vec<Flow> {
        let mut flows = self.0.borrow_mut();
        flows.retain(|_, tally| tally.in_flight > 0 || tally.last.elapsed() < STILL);
        let told = flows.iter().map(|(way, tally)| Flow {
            from: way.from.to_canonical().to_string(),
            head: way.head,
            next: way.next,
            in_flight: tally.in_flight,
            blocks: tally.blocks,
            bytes: tally.bytes,
            lag_us: tally.lag_us as u32,
        });
        let mut told: Vec<Flow> = told.collect();
        told.sort_by_key(|flow| std::cmp::Reverse((flow.in_flight, flow.bytes)));
        told.truncate(FLOWS_MAX);
        told
    }
}

impl Passing {
    /// The block is durable on its whole chain, `lag_us` later behind this volume than here.
    pub fn done(self, bytes: u32, lag_us: u32) {
        if let Some(tally) = self.flows.borrow_mut().get_mut(&self.way) {
            tally.blocks += 1;
            tally.bytes += u64::from(bytes);
            tally.lag_us += (f64::from(lag_us) - tally.lag_us) * LAG_SHARE;
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(tally) = self.flows.borrow_mut().get_mut(&self.way) {
            tally.in_flight -= 1;
            tally.last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_counts_what_passes_and_ends_when_it_is_still() {
        let flows = Flows::default();
        let from = IpAddr::from([10, 0, 0, 7]);
        let first = flows.begin(from, true, VolumeId([1; 16]));
        let second = flows.begin(from, true, VolumeId([1; 16]));
        drop(flows.begin(from, false, VolumeId::default()));
        first.done(4096, 800);
        let told = flows.report();
        assert_eq!(told.len(), 2);
        let Flow {
            in_flight,
            blocks,
            bytes,
            lag_us,
            ..
        } = told[0];
        assert_eq!((in_flight, blocks, bytes, lag_us), (1, 1, 4096, 100));
        assert_eq!((told[0].from.as_str(), told[0].head), ("10.0.0.7", true));
        drop(second);
        for tally in flows.0.borrow_mut().values_mut() {
            tally.last -= STILL;
        }
        assert_eq!(flows.report(), []);
    }
}
