//! What an operator does: servers and volumes, repair and balance, replication.

mod duty;
mod repair;

pub use duty::{node, volume};
pub use repair::{balance, repair, set_replication};
