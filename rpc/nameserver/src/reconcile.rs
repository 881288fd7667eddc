//! All volumes compared with the map at once, because an operator asks.

use std::rc::Rc;

use blockyard_wire::Result;
use blockyard_wire::types::{BlockId, ReplicaState};

use crate::core::Core;
use crate::reports;
use crate::state::blocks::Block;

/// Compares all connected volumes now, and has every replica examined that the map does not call good; the volumes
/// compared.
///
/// # Errors
/// The first volume's that could not be compared, after all were tried.
pub async fn reconcile(core: &Rc<Core>) -> Result<u32> {
    /// Replicas examined of a volume at the most: the rest when these are settled.
    const EXAMINED_MAX: usize = 4096;
    let controls: Vec<_> = core.controls.borrow().values().cloned().collect();
    let mut compared = 0;
    let mut failed = None;
    for control in controls {
        for &volume in &control.volumes {
            let outcome = async {
                reports::compare(core, &control, volume).await?;
                let doubtful: Vec<BlockId> = {
                    let state = core.state.borrow();
                    let not_good = |block: &Block| {
                        block
                            .state_on(volume)
                            .is_some_and(|state| state != ReplicaState::Good)
                    };
                    let doubtful = state.blocks().table().iter().filter(|(_, block)| not_good(block));
                    doubtful.take(EXAMINED_MAX).map(|(id, _)| BlockId(id)).collect()
                };
                for block in doubtful {
                    reports::examine(core, &control, volume, block).await?;
                }
                Ok(())
            };
            match outcome.await {
                Ok(()) => compared += 1,
                Err(problem) => {
                    failed.get_or_insert(problem);
                }
            }
        }
    }
    core.repair_wake.notify_one();
    failed.map_or(Ok(compared), Err)
}
