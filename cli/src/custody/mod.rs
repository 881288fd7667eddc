//! The nameserver's own data: backup, restore, and fsck of names against volumes.

mod backup;
mod fsck;

pub use backup::{backup, restore};
pub use fsck::fsck;
