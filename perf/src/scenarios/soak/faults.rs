//! What a soak does to the cluster, round by round, drawn from the seed.
//!
//! Pure: knows when what is to fail, and for how long; not how that is done.
//!
//! What must hold: acknowledged files stay under every fault and every pair of them, for a killed, stopped or cut-off
//! server keeps its disk. They can be read and written while one server is away. Two dataservers may hold both replicas
//! of a block, so while two are away reads may fail, with an error that says "retry"; such pairs overlap for a short time,
//! and so does the death of all.

use std::fmt;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// One in so many rounds has a dataserver killed for longer than the nameserver hopes.
const LONG_ONE_IN: u32 = 20;
/// Longer than the default 30 s until a server counts as dead.
const LONG_MS: u64 = 34_000;
/// One in so many rounds has all servers killed at once.
const ALL_ONE_IN: u32 = 20;
/// One in so many rounds has a second fault while the first one lasts.
const PAIR_ONE_IN: u32 = 3;
/// One in so many kills is followed by another one soon after the server's start.
const AGAIN_ONE_IN: u32 = 4;
/// How long two dataservers are away together at the most.
const BOTH_AWAY_MS: u64 = 3_000;

/// A process of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Server {
    Nameserver,
    /// From 0 on.
    Dataserver(usize),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nameserver => f.write_str("nameserver"),
            Self::Dataserver(number) => write!(f, "dataserver {}", number + 1),
        }
    }
}

/// Where packets come from or go to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum End {
    Server(Server),
    /// All clients.
    Clients,
    /// Everybody else.
    Everybody,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server) => server.fmt(f),
            Self::Clients => f.write_str("clients"),
            Self::Everybody => f.write_str("everybody"),
        }
    }
}

/// Packets from here to there are lost; those back arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub from: End,
    pub to: End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// SIGKILL, and a new start when the fault ends.
    Kill(Server),
    /// SIGSTOP, and SIGCONT when the fault ends.
    Stop(Server),
    Cut(Cut),
    /// The power of the disk under all of them fails; when the fault ends, all are started again.
    Power,
}

impl What {
    /// The dataserver that can't be reached by all meanwhile.
    fn dataserver(self) -> Option<usize> {
        let of = |end: End| match end {
            End::Server(Server::Dataserver(number)) => Some(number),
            _ => None,
        };
        match self {
            Self::Kill(Server::Dataserver(number)) | Self::Stop(Server::Dataserver(number)) => Some(number),
            Self::Kill(Server::Nameserver) | Self::Stop(Server::Nameserver) | Self::Power => None,
            Self::Cut(cut) => of(cut.from).or_else(|| of(cut.to)),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(server) => write!(f, "kill {server}"),
            Self::Stop(server) => write!(f, "stop {server}"),
            Self::Cut(cut) => write!(f, "cut {} -> {}", cut.from, cut.to),
            Self::Power => f.write_str("power off"),
        }
    }
}

/// One thing that fails for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub what: What,
    /// From the beginning of the round.
    pub after_ms: u64,
    pub lasts_ms: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        write!(
            f,
            "{} at {:.1} s for {:.1} s",
            self.what,
            seconds(self.after_ms),
            seconds(self.lasts_ms)
        )
    }
}

/// One round: its faults, and how long the cluster is left alone behind them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Round {
    pub faults: Vec<Fault>,
    pub rest_ms: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        f.write_str(&faults.join(", "))
    }
}

/// Which faults there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Menu {
    pub dataservers: usize,
    /// How long a stop lasts, and a cut at the longest.
    pub stop_ms: u64,
    pub cuts: bool,
    /// Whether a dataserver may stay away until it counts as dead.
    pub long: bool,
    /// Nothing but the power fails.
    pub power: bool,
}

impl Menu {
    /// The next round.
    pub(super) fn draw(&self, dice: &mut StdRng) -> Round {
        if self.power {
            let fault = Fault {
                what: What::Power,
                after_ms: dice.random_range(200..=2000),
                lasts_ms: dice.random_range(10..=500),
            };
            return Round {
                faults: vec![fault],
                rest_ms: dice.random_range(0..=1000),
            };
        }
        if dice.random_ratio(1, ALL_ONE_IN) {
            let dataservers = (0..self.dataservers).map(Server::Dataserver);
            let kill = |server| Fault {
                what: What::Kill(server),
                after_ms: 500,
                lasts_ms: dice.random_range(200..=BOTH_AWAY_MS),
            };
            let faults = dataservers.chain([Server::Nameserver]).map(kill).collect();
            return Round {
                faults,
                rest_ms: 2500,
            };
        }
        let mut first = self.fault(dice, 500);
        if self.long && dice.random_ratio(1, LONG_ONE_IN) {
            first.what = What::Kill(self.any_dataserver(dice));
            first.lasts_ms = LONG_MS;
        }
        let mut faults = vec![first];
        if matches!(first.what, What::Kill(_)) && dice.random_ratio(1, AGAIN_ONE_IN) {
            // It may be reading what the first kill has left behind.
            faults.push(Fault {
                after_ms: first.after_ms + first.lasts_ms + dice.random_range(20..=1000),
                lasts_ms: dice.random_range(200..=2000),
                ..first
            });
        } else if dice.random_ratio(1, PAIR_ONE_IN)
            && let Some(second) = self.beside(dice, &first)
        {
            faults.push(second);
        }
        Round {
            faults,
            rest_ms: dice.random_range(500..=2500),
        }
    }

    fn fault(&self, dice: &mut StdRng, after_ms: u64) -> Fault {
        let server = match dice.random_ratio(1, 3) {
            true => Server::Nameserver,
            false => self.any_dataserver(dice),
        };
        let (what, lasts_ms) = match dice.random_range(0..10) {
            0..=3 => (What::Kill(server), dice.random_range(200..=6000)),
            4..=6 => (What::Stop(server), self.stop_ms),
            _ if self.cuts => {
                let shortest_ms = self.stop_ms.div_ceil(4);
                let cut = self.cut(dice, server);
                (What::Cut(cut), dice.random_range(shortest_ms..=self.stop_ms))
            }
            _ => (What::Kill(server), dice.random_range(200..=6000)),
        };
        Fault {
            what,
            after_ms,
            lasts_ms,
        }
    }

    fn any_dataserver(&self, dice: &mut StdRng) -> Server {
        Server::Dataserver(dice.random_range(0..self.dataservers))
    }

    /// One direction between `server` and somebody else.
    fn cut(&self, dice: &mut StdRng, server: Server) -> Cut {
        let mut others = vec![End::Clients, End::Everybody, End::Server(Server::Nameserver)];
        others.push(End::Server(self.any_dataserver(dice)));
        others.retain(|end| *end != End::Server(server));
        let other = others.choose(dice).copied().unwrap_or(End::Everybody);
        match dice.random_bool(0.5) {
            true => Cut {
                from: End::Server(server),
                to: other,
            },
            false => Cut {
                from: other,
                to: End::Server(server),
            },
        }
    }

    /// A second fault of another server that begins while the first one lasts.
    fn beside(&self, dice: &mut StdRng, first: &Fault) -> Option<Fault> {
        let after_ms = first.after_ms + dice.random_range(0..first.lasts_ms.max(1));
        let mut second = self.fault(dice, after_ms);
        let is_cut = |what: What| matches!(what, What::Cut(_));
        if is_cut(first.what) && is_cut(second.what) {
            // Two cuts may shut three servers off.
            return None;
        }
        match (first.what.dataserver(), second.what.dataserver()) {
            (None, None) => return None,
            (Some(one), Some(other)) => {
                // A cut between two servers has a second dataserver in it already.
                if one == other || is_cut(first.what) || is_cut(second.what) {
                    return None;
                }
                let left_ms = first.after_ms + first.lasts_ms - after_ms;
                if left_ms > BOTH_AWAY_MS {
                    second.after_ms = first.after_ms + first.lasts_ms - dice.random_range(1..=BOTH_AWAY_MS);
                }
                second.lasts_ms = second.lasts_ms.max(1);
            }
            _ => {}
        }
        Some(second)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::dice;
    use super::*;

    const MENU: Menu = Menu {
        dataservers: 4,
        stop_ms: 10_000,
        cuts: true,
        long: true,
        power: false,
    };

    fn rounds(menu: Menu) -> Vec<Round> {
        let mut dice = dice(1, "faults", 0);
        (0..2000).map(|_| menu.draw(&mut dice)).collect()
    }

    fn all(rounds: &[Round]) -> impl Iterator<Item = &Fault> {
        rounds.iter().flat_map(|round| &round.faults)
    }

    #[test]
    fn a_seed_gives_the_same_rounds() {
        assert_eq!(rounds(MENU), rounds(MENU));
    }

    #[test]
    fn every_fault_comes_to_every_server() {
        let rounds = rounds(MENU);
        let servers: Vec<Server> = [Server::Nameserver]
            .into_iter()
            .chain((0..4).map(Server::Dataserver))
            .collect();
        for server in servers {
            let end = End::Server(server);
            assert!(
                all(&rounds).any(|fault| fault.what == What::Kill(server)),
                "{server}"
            );
            assert!(
                all(&rounds).any(|fault| fault.what == What::Stop(server)),
                "{server}"
            );
            for other in [End::Clients, End::Everybody] {
                let cut = |from, to| all(&rounds).any(|fault| fault.what == What::Cut(Cut { from, to }));
                assert!(cut(end, other) && cut(other, end), "{server} and {other}");
            }
        }
        assert!(all(&rounds).any(|fault| fault.lasts_ms == LONG_MS));
        assert!(rounds.iter().any(|round| round.faults.len() == 2));
        assert!(rounds.iter().any(|round| round.faults.len() == 5));
    }

    #[test]
    fn two_dataservers_are_away_together_only_shortly() {
        let (mut pairs, mut again) = (0, 0);
        for round in rounds(MENU) {
            let [first, second] = &round.faults[..] else {
                continue;
            };
            let (Some(one), Some(other)) = (first.what.dataserver(), second.what.dataserver()) else {
                continue;
            };
            if one == other {
                let ended = first.after_ms + first.lasts_ms;
                assert!(
                    matches!(first.what, What::Kill(_)) && second.after_ms > ended,
                    "{round}"
                );
                again += 1;
                continue;
            }
            pairs += 1;
            let end = |fault: &Fault| fault.after_ms + fault.lasts_ms;
            let together = end(first).min(end(second)).saturating_sub(second.after_ms);
            assert!(together <= BOTH_AWAY_MS, "{round}");
        }
        assert!(pairs > 20 && again > 20, "{pairs} {again}");
    }

    #[test]
    fn without_root_nothing_is_cut_and_a_quick_run_has_no_long_absence() {
        let menu = Menu {
            cuts: false,
            long: false,
            stop_ms: 2000,
            ..MENU
        };
        let rounds = rounds(menu);
        assert!(!all(&rounds).any(|fault| matches!(fault.what, What::Cut(_))));
        assert!(all(&rounds).all(|fault| fault.lasts_ms <= 6000));
    }
}
