//! The background scrub of a volume: the engine's steps, paced, one pass after the other.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use blockyard_engine::{Finding, Scrub};

use crate::node::Node;

/// Bytes of a step: at most a block more than this is read without a pause.
const STEP_BYTES: u64 = 1 << 20;
/// A pass begins no sooner than this after the one before has ended, so that a small volume is not read all day.
const PASS_PAUSE_MS: u64 = 3_600_000;
/// After a step that could not read, for want of something else than a good medium.
const TROUBLE_PAUSE_MS: u64 = 60_000;
/// How soon a stop is noticed.
const NOTICE_MS: u64 = 100;

/// Scrubs at `bytes_per_s` until the volume's thread stops; 0 = not at all. Keeps its progress then.
pub(crate) async fn run(node: Rc<Node>, bytes_per_s: u64) {
    if bytes_per_s == 0 {
        return;
    }
    let mut scrub = Scrub::resume(&node.volume);
    loop {
        let status = scrub.status();
        if let (None, Some(ended_ms)) = (status.position, status.last_pass_ended_ms) {
            // A clock that was set back must not put the scrub off for ever.
            let since_ms = now_ms().checked_sub(ended_ms).unwrap_or(PASS_PAUSE_MS);
            if !pause(&node, PASS_PAUSE_MS.saturating_sub(since_ms)).await {
                break;
            }
        }
        if !pass(&node, &mut scrub, bytes_per_s).await {
            break;
        }
    }
    if let Err(error) = scrub.save() {
        tracing::warn!(volume = %node.id, "the scrub's progress is not kept: {error}");
    }
}

/// Goes on to the end of a pass; `false` when the thread stops before.
async fn pass(node: &Rc<Node>, scrub: &mut Scrub, bytes_per_s: u64) -> bool {
    loop {
        let began = Instant::now();
        let step = match scrub.step(STEP_BYTES).await {
            Ok(step) => step,
            Err(error) => {
                tracing::warn!(volume = %node.id, "the scrub pauses: {error}");
                if !pause(node, TROUBLE_PAUSE_MS).await {
                    return false;
                }
                continue;
            }
        };
        for finding in &step.findings {
            if let Finding::Replica { block, .. } = finding {
                node.report_damaged(*block);
            }
        }
        if step.pass_ended {
            tracing::info!(volume = %node.id, passes = scrub.status().passes, "scrub: a pass has ended");
            return true;
        }
        let due_ms = step.bytes.saturating_mul(1000) / bytes_per_s;
        let spent_ms = began.elapsed().as_millis() as u64;
        if !pause(node, due_ms.saturating_sub(spent_ms)).await {
            return false;
        }
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
