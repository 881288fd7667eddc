//! The nameserver's own data: backup, restore, rebuilding it, and fsck of names against volumes.

mod backup;
mod fsck;
mod rebuild;

pub use backup::{backup, restore};
pub use fsck::fsck;
pub use rebuild::{inventory, rebuild};
