//! What only looks: list, stat, info, locate, du, find, tree, status, df, and fsck, which mends when told to.

mod cluster;
mod files;
mod health;
mod volume;
mod walk;

pub use cluster::{df, nodes, status, volumes};
pub use files::{below, info, list, locate, stat};
pub use volume::fsck;
pub use walk::{du, find, tree};
