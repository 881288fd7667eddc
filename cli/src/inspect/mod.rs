//! What only looks: list, stat, info, status, df, and fsck, which mends when told to.

mod cluster;
mod files;
mod health;
mod volume;

pub use cluster::{df, status};
pub use files::{below, info, list, stat};
pub use volume::fsck;
