//! What only looks: list, stat, info, status, df, and fsck, which mends when told to.

mod cluster;
mod files;
mod health;
mod volume;

pub use cluster::{df, nodes, status, volumes};
pub use files::{below, info, list, stat};
pub use volume::fsck;
