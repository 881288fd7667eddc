//! The background scrub of a volume: the engine's steps, paced, one pass after the other, until it is told to pause.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use blockyard_engine::{Finding, Scrub, ScrubStatus};
use blockyard_wire::types::{ScrubOrder, ScrubReport, ScrubState};
use blockyard_wire::{Problem, Result};

use crate::node::Node;

/// Bytes of a step: at most a block more than this is read without a pause.
const STEP_BYTES: u64 = 1 << 20;
/// A pass begins no sooner than this after the one before has ended, so that a small volume is not read all day.
const PASS_PAUSE_MS: u64 = 3_600_000;
/// After a step that could not read, for want of something else than a good medium.
const TROUBLE_PAUSE_MS: u64 = 60_000;
/// How soon a stop or an order is noticed.
const NOTICE_MS: u64 = 100;

/// What the scrub of a volume has been told, and what it tells of itself.
#[derive(Default)]
pub(crate) struct Scrubbing {
    order: Cell<Option<ScrubOrder>>,
    report: Cell<ScrubReport>,
}

impl Scrubbing {
    /// Passes an order on.
    ///
    /// # Errors
    /// `Invalid` for a volume without a pace to scrub at.
    pub fn tell(&self, order: ScrubOrder) -> Result<()> {
        if self.report.get().bytes_per_s == 0 {
            return Err(Problem::invalid(
                "the volume's scrub is off: start its dataserver with a --scrub-rate above 0",
            ));
        }
        self.order.set(Some(order));
        Ok(())
    }

    /// How far it is.
    pub fn report(&self) -> ScrubReport {
        self.report.get()
    }

    fn show(&self, status: &ScrubStatus, state: ScrubState, bytes_per_s: u64) {
        self.report.set(ScrubReport {
            state,
            passes: status.passes,
            last_pass_unix_ms: status.last_pass_ended_ms.unwrap_or(0),
            pass_bytes: status.verified_bytes,
            damaged: status.damaged,
            bytes_per_s,
        });
    }
}

/// Scrubs at `bytes_per_s` until the volume's thread stops; 0 = not at all. Keeps its progress then.
pub(crate) async fn run(node: Rc<Node>, bytes_per_s: u64) {
    if bytes_per_s == 0 {
        return;
    }
    let mut scrub = Scrub::resume(&node.volume);
    let mut in_pass = scrub.status().position.is_some();
    while !node.stopping.get() {
        if let Some(order) = node.scrubbing.order.take() {
            in_pass |= order == ScrubOrder::Start;
            if let Err(error) = scrub.set_paused(order == ScrubOrder::Pause) {
                tracing::warn!(volume = %node.id, "the scrub's order is not kept over a restart: {error}");
            }
        }
        let wait_ms = match until_next_pass_ms(scrub.status()) {
            _ if scrub.status().paused => u64::MAX,
            wait_ms @ 1.. if !in_pass => wait_ms,
            _ => step(&node, &mut scrub, &mut in_pass, bytes_per_s).await,
        };
        let state = match in_pass {
            _ if scrub.status().paused => ScrubState::Paused,
            true => ScrubState::Running,
            false => ScrubState::Waiting,
        };
        node.scrubbing.show(scrub.status(), state, bytes_per_s);
        rest(&node, wait_ms).await;
    }
    if let Err(error) = scrub.save() {
        tracing::warn!(volume = %node.id, "the scrub's progress is not kept: {error}");
    }
}

/// One step of a pass; how long to rest behind it, milliseconds.
async fn step(node: &Rc<Node>, scrub: &mut Scrub, in_pass: &mut bool, bytes_per_s: u64) -> u64 {
    let began = Instant::now();
    let step = match scrub.step(STEP_BYTES).await {
        Ok(step) => step,
        Err(error) => {
            tracing::warn!(volume = %node.id, "the scrub pauses: {error}");
            return TROUBLE_PAUSE_MS;
        }
    };
    for finding in &step.findings {
        if let Finding::Replica { block, .. } = finding {
            node.report_damaged(*block);
        }
    }
    *in_pass = !step.pass_ended;
    if step.pass_ended {
        tracing::info!(volume = %node.id, passes = scrub.status().passes, "scrub: a pass has ended");
    }
    let due_ms = step.bytes.saturating_mul(1000) / bytes_per_s;
    due_ms.saturating_sub(began.elapsed().as_millis() as u64)
}

fn until_next_pass_ms(status: &ScrubStatus) -> u64 {
    let Some(ended_ms) = status.last_pass_ended_ms else {
        return 0;
    };
    // A clock that was set back must not put the scrub off for ever.
    let since_ms = now_ms().checked_sub(ended_ms).unwrap_or(PASS_PAUSE_MS);
    PASS_PAUSE_MS.saturating_sub(since_ms)
}

/// Waits, until there is an order or the thread stops.
async fn rest(node: &Node, mut left_ms: u64) {
    loop {
        if left_ms == 0 || node.scrubbing.order.get().is_some() {
            return;
        }
        let nap_ms = left_ms.min(NOTICE_MS);
        if !pause(node, nap_ms).await {
            return;
        }
        left_ms -= nap_ms;
    }
}

/// Waits; `false` when the thread stops.
pub(crate) async fn pause(node: &Node, mut left_ms: u64) -> bool {
    loop {
        if node.stopping.get() {
            return false;
        }
        if left_ms == 0 {
            return true;
        }
        let nap_ms = left_ms.min(NOTICE_MS);
        monoio::time::sleep(Duration::from_millis(nap_ms)).await;
        left_ms -= nap_ms;
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
