//! What an operator does: servers and volumes, repair, balance and scrub, replication, trash.

mod duty;
mod repair;
mod scrub;
mod trash;

pub use duty::{node, volume};
pub use repair::{balance, repair, set_replication};
pub use scrub::scrub;
pub use trash::trash;

/// Between two looks at what is being waited for.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);
