//! What is at a path: many lookups of the same moment in one call.

use std::rc::Rc;

use blockyard_wire::Result;
use blockyard_wire::types::{BlockInfo, FileInfo, Sought};

use crate::batch::{self, Batch, Call};
use crate::core::Core;

/// The current version at `path` with its first blocks: `blocks_max` or fewer, even where there are more.
///
/// # Errors
/// `NotFound`; `Invalid` for a path that can't be.
pub async fn lookup(core: &Rc<Core>, path: &str, blocks_max: u32) -> Result<(FileInfo, Vec<BlockInfo>)> {
    let path = path.to_owned();
    batch::ask::<Lookup>(core, Sought { path, blocks_max }).await
}

/// The call behind it.
pub struct Lookup;

impl Call for Lookup {
    type Question = Sought;
    type Answer = (FileInfo, Vec<BlockInfo>);
    const TOGETHER_MAX: usize = 64;
    // More calls would be smaller ones; with one, everybody would move in step.
    const CALLS_MAX: usize = 2;

    fn batch(core: &Core) -> &Batch<Self> {
        &core.lookups
    }

    async fn call(core: &Core, sought: &[Sought]) -> Result<Vec<Result<Self::Answer>>> {
        core.session.lookup(sought).await
    }
}
