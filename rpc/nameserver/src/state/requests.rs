//! The outcomes of the latest mutations by request id, so that a retried one applies once.

use std::collections::{BTreeMap, VecDeque};

use blockyard_wire::types::RequestId;

use super::Outcome;

/// Outcomes that are kept.
pub const REQUESTS_MAX: usize = 65_536;

/// A bounded window over outcomes.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    outcomes: BTreeMap<RequestId, Outcome>,
    /// Oldest first.
    order: VecDeque<RequestId>,
}

impl Requests {
    /// What this request has already led to.
    pub fn get(&self, request: RequestId) -> Option<&Outcome> {
        self.outcomes.get(&request)
    }

    /// Keeps an outcome, in place of the oldest when the window is full.
    pub fn insert(&mut self, request: RequestId, outcome: Outcome) {
        if self.outcomes.insert(request, outcome).is_none() {
            self.order.push_back(request);
        }
        while self.order.len() > REQUESTS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.outcomes.remove(&oldest);
            }
        }
    }

    /// All of them, oldest first.
    pub fn rows(&self) -> impl Iterator<Item = (RequestId, &Outcome)> {
        self.order
            .iter()
            .filter_map(|request| Some((*request, self.outcomes.get(request)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut requests = Requests::default();
        let id = |number| RequestId { client: 1, number };
        for number in 0..REQUESTS_MAX as u64 + 2 {
            requests.insert(id(number), Outcome::Done);
        }
        assert!(requests.get(id(0)).is_none() && requests.get(id(1)).is_none());
        assert!(requests.get(id(2)).is_some());
        assert_eq!(requests.rows().count(), REQUESTS_MAX);
        assert_eq!(requests.rows().next().unwrap().0, id(2));
    }
}
