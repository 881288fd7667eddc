//! Readying free slots of a volume while nobody uses it, so that later puts cost one flush and no new extents.

use std::rc::Rc;

use crate::node::Node;
use crate::scrub::pause;

/// Bytes of a step: one or two writes' time until work that comes meanwhile gets the disk.
const STEP_BYTES: u64 = 4 << 20;
/// The volume is idle when nothing came for so long.
const IDLE_MS: u64 = 500;
/// After a step that could not write.
const TROUBLE_PAUSE_MS: u64 = 60_000;

/// Fills whenever the volume is idle, until its thread stops.
pub(crate) async fn run(node: Rc<Node>) {
    let mut before = work_done(&node);
    while pause(&node, IDLE_MS).await {
        // Step after step for as long as nobody comes.
        loop {
            let now = work_done(&node);
            let idle = node.in_flight() == 0 && std::mem::replace(&mut before, now) == now;
            if !idle || node.stopping.get() {
                break;
            }
            match node.volume.zero_fill(STEP_BYTES).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(volume = %node.id, "filling ahead pauses: {error}");
                    if !pause(&node, TROUBLE_PAUSE_MS).await {
                        return;
                    }
                    break;
                }
            }
        }
    }
}

/// A figure that grows with everything that is asked of the volume.
fn work_done(node: &Node) -> u64 {
    let stat = node.volume.stat();
    stat.puts + stat.gets + stat.deletes
}
