//! Evening out how full volumes are: which gives a block, which takes it. Pure.

use crate::standing::Standings;
use crate::state::blocks::{Block, VolumeIndex};

/// Parts of a volume's room that may lie between the fullest and the emptiest before anything moves.
pub const THRESHOLD: f64 = 0.10;

/// How full a volume is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fill {
    /// Which.
    pub volume: VolumeIndex,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that may be used.
    pub capacity_bytes: u64,
}

impl Fill {
    fn share(&self) -> f64 {
        self.used_bytes as f64 / self.capacity_bytes.max(1) as f64
    }

    /// How full it would be with so many bytes more or fewer.
    fn share_with(&self, bytes: i64) -> f64 {
        (self.used_bytes as f64 + bytes as f64) / self.capacity_bytes.max(1) as f64
    }
}

/// Whether a block of so many bytes can go from one to the other without turning them round: else it would come back.
pub fn is_worth(from: &Fill, to: &Fill, bytes: u64) -> bool {
    let bytes = bytes as i64;
    to.share_with(bytes) <= from.share_with(-bytes)
}

/// Volumes that should give, fullest first, and those that should take, emptiest first. A volume that is fuller than the
/// mean never takes, one that is emptier never gives; none where all are even enough.
pub fn sides(fills: &[Fill]) -> (Vec<VolumeIndex>, Vec<VolumeIndex>) {
    let (used, capacity) = fills.iter().fold((0u64, 0u64), |(used, capacity), fill| {
        (used + fill.used_bytes, capacity + fill.capacity_bytes)
    });
    let mean = used as f64 / capacity.max(1) as f64;
    let mut order = fills.to_vec();
    order.sort_by(|a, b| b.share().total_cmp(&a.share()));
    let spread = match (order.first(), order.last()) {
        (Some(fullest), Some(emptiest)) => fullest.share() - emptiest.share(),
        _ => 0.0,
    };
    if spread <= THRESHOLD {
        return (Vec::new(), Vec::new());
    }
    // Half the threshold on each side of the mean is even enough: without that, moves would go on for ever.
    let slack = THRESHOLD / 2.0;
    let of = |fill: &Fill| fill.volume;
    let givers = order.iter().filter(|fill| fill.share() > mean + slack).map(of);
    let takers = order
        .iter()
        .rev()
        .filter(|fill| fill.share() < mean - slack)
        .map(of);
    let (givers, takers): (Vec<_>, Vec<_>) = (givers.collect(), takers.collect());
    // One far out among many that are even: those at the mean take part on the other side.
    let rest = |side: &[VolumeIndex], far: &dyn Fn(&Fill) -> bool| -> Vec<VolumeIndex> {
        if side.is_empty() {
            order.iter().filter(|fill| far(fill)).map(of).collect()
        } else {
            side.to_vec()
        }
    };
    (
        rest(&givers, &|fill| fill.share() > mean),
        rest(&takers, &|fill| fill.share() < mean),
    )
}

/// Whether a block may go from one volume to another without its replicas coming closer together.
pub fn may_move(block: &Block, from: VolumeIndex, to: VolumeIndex, standings: &Standings) -> bool {
    if block.state_on(from).is_none() || block.state_on(to).is_some() || block.is_full() {
        return false;
    }
    let before = block.replicas().map(|(volume, _)| volume);
    let after = before
        .clone()
        .map(|volume| if volume == from { to } else { volume });
    let (before, after) = (standings.spread(before), standings.spread(after));
    after.0 >= before.0 && after.1 >= before.1
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::ReplicaState;
    use proptest::prelude::*;

    use super::*;
    use crate::standing::{Spot, Standing};

    fn fills(used: &[u64]) -> Vec<Fill> {
        let fill = |(volume, used_bytes): (VolumeIndex, &u64)| Fill {
            volume,
            used_bytes: *used_bytes,
            capacity_bytes: 100,
        };
        (0..).zip(used).map(fill).collect()
    }

    #[test]
    fn a_new_volume_takes_from_the_full_ones() {
        assert_eq!(sides(&fills(&[60, 70, 0])), (vec![1, 0], vec![2]));
        assert_eq!(
            sides(&fills(&[60, 60, 60, 60, 60, 60, 60, 45])),
            (vec![0, 1, 2, 3, 4, 5, 6], vec![7])
        );
        assert_eq!(sides(&fills(&[50, 55, 59])), (vec![], vec![]), "even enough");
        assert_eq!(sides(&[]), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn the_fullest_never_gets_fuller_and_moves_come_to_an_end(used in prop::collection::vec(0u64..100, 2..9)) {
            let mut used = used;
            let fullest = *used.iter().max().unwrap();
            let mut moves = 0;
            loop {
                let (givers, takers) = sides(&fills(&used));
                let (Some(from), Some(to)) = (givers.first(), takers.first()) else { break };
                used[usize::from(*from)] -= 1;
                used[usize::from(*to)] += 1;
                prop_assert!(used.iter().max().unwrap() <= &fullest);
                moves += 1;
                prop_assert!(moves <= 1000, "no end: {used:?}");
            }
            let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
            prop_assert!(most - least <= 11, "{used:?}");
        }
    }

    #[test]
    fn a_block_that_would_come_back_stays() {
        let fills = fills(&[30, 10]);
        assert!(is_worth(&fills[0], &fills[1], 10) && !is_worth(&fills[0], &fills[1], 11));
    }

    #[test]
    fn replicas_never_come_closer_together() {
        let servers = ["a", "a", "b", "c"];
        let spot = |volume: VolumeIndex| Spot {
            volume,
            standing: Standing::Counts,
            takes_blocks: true,
            server: servers[usize::from(volume)],
            zone: if volume == 3 { "y" } else { "x" },
        };
        let standings = Standings::new(4, (0..4).map(spot));
        let mut block = Block::new(1, 0, 1, 1, 2);
        block.push(0, ReplicaState::Good);
        block.push(3, ReplicaState::Good);
        assert!(may_move(&block, 0, 1, &standings) && may_move(&block, 0, 2, &standings));
        assert!(!may_move(&block, 3, 1, &standings), "two in one server");
        assert!(!may_move(&block, 3, 2, &standings), "two in one zone");
        assert!(!may_move(&block, 0, 3, &standings) && !may_move(&block, 1, 2, &standings));
    }
}
