//! The operator's word on volumes: whether it can be followed, and what follows from it.

use std::rc::Rc;

use blockyard_wire::types::{BlockId, Duty, ReplicaState, RequestId, ScrubOrder, VolumeId};
use blockyard_wire::{Problem, Result};

use crate::core::Core;
use crate::standing::Standing;
use crate::state::Command;
use crate::state::blocks::VolumeIndex;

/// Blocks that are looked at for one command.
const STEP: usize = 4096;

/// Sets what is wanted of some volumes.
///
/// # Errors
/// `NotFound` for a volume that has never joined; `Invalid`, unless `force`, for the removal of one that holds what is
/// nowhere else.
pub async fn assign(
    core: &Rc<Core>,
    ids: &[VolumeId],
    duty: Duty,
    force: bool,
    request: RequestId,
) -> Result<()> {
    let volumes = known(core, ids)?;
    if duty == Duty::Removed && !force {
        may_be_removed(core, &volumes).await?;
    }
    let command = Command::Assign {
        volumes: volumes.clone(),
        duty,
        request,
    };
    core.propose(command).await?;
    tracing::info!(?ids, ?duty, "the operator's word on volumes");
    let change = core.survey();
    let follower = core.clone();
    tokio::task::spawn_local(async move {
        follower.follow(change).await;
        forget_removed(&follower).await;
    });
    Ok(())
}

/// Has some volumes, or all that are connected, begin a scrub or pause.
///
/// # Errors
/// `NotFound` for a volume that has never joined; `Retry` for one that is not connected; `Invalid` for one whose scrub
/// is off. The others have obeyed.
pub async fn scrub(core: &Rc<Core>, ids: &[VolumeId], order: ScrubOrder) -> Result<()> {
    let volumes: Vec<VolumeIndex> = match ids {
        [] => {
            let controls = core.controls.borrow();
            controls
                .values()
                .flat_map(|control| control.volumes.clone())
                .collect()
        }
        ids => known(core, ids)?,
    };
    let mut outcome = Ok(());
    for volume in volumes {
        let id = core.volume_id(volume);
        let told = match core.control_of(volume) {
            Some(control) => control.scrub(id, order).await,
            None => Err(Problem::retry(format!("volume {id} is not connected"))),
        };
        outcome = outcome.and(told);
    }
    outcome
}

fn known(core: &Core, ids: &[VolumeId]) -> Result<Vec<VolumeIndex>> {
    let state = core.state.borrow();
    ids.iter().map(|id| state.blocks().known(*id)).collect()
}

/// Refuses to remove volumes whose replicas are needed: blocks that would have fewer good ones than wanted without them,
/// or none.
async fn may_be_removed(core: &Core, volumes: &[VolumeIndex]) -> Result<()> {
    let (mut last, mut needed) = (0u64, 0u64);
    core.each_block(|_, block| {
        let holds = volumes
            .iter()
            .any(|volume| block.state_on(*volume) == Some(ReplicaState::Good));
        if !holds {
            return;
        }
        let health = core.health.borrow();
        let others = block.replicas().filter(|(volume, state)| {
            let standing = health.standings().of(*volume);
            *state == ReplicaState::Good && standing != Standing::Lost && !volumes.contains(volume)
        });
        let others = others.count();
        last += u64::from(others == 0);
        needed += u64::from(others < usize::from(block.wanted));
    })
    .await;
    if last > 0 {
        return Err(Problem::invalid(format!(
            "{last} blocks have no good replica elsewhere: they would be lost; drain first, or bring back what is away \
             (--force removes all the same)"
        )));
    }
    let served = {
        let health = core.health.borrow();
        volumes.iter().any(|volume| !health.is_lost(*volume))
    };
    if needed > 0 && served {
        return Err(Problem::invalid(format!(
            "{needed} blocks would have fewer replicas than wanted: drain first ('blockyard volume drain'), and remove \
             when 'blockyard status' says drained (--force removes all the same)"
        )));
    }
    Ok(())
}

/// Takes what removed volumes held off the map.
pub async fn forget_removed(core: &Core) {
    let removed: Vec<VolumeIndex> = {
        let state = core.state.borrow();
        let volumes = state.blocks().volumes().iter().zip(0..);
        volumes
            .filter(|(volume, _)| volume.duty == Duty::Removed && volume.replicas > 0)
            .map(|(_, index)| index)
            .collect()
    };
    for volume in removed {
        let mut after = None;
        loop {
            let (blocks, last) = {
                let state = core.state.borrow();
                let rows = state.blocks().table().after(after).take(STEP);
                rows.fold((Vec::new(), None), |(mut held, _), (id, block)| {
                    if block.state_on(volume).is_some() {
                        held.push(BlockId(id));
                    }
                    (held, Some(id))
                })
            };
            if !blocks.is_empty()
                && let Err(problem) = core.propose(Command::Lost { volume, blocks }).await
            {
                tracing::warn!(%problem, "a removed volume could not be forgotten; the next start tries again");
                return;
            }
            let Some(last) = last else { break };
            after = Some(last);
            tokio::task::yield_now().await;
        }
    }
}
