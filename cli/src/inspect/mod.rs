//! What only looks: list, stat, info, locate, du, find, tree, status, top, df, and fsck, which mends when told to.

mod cluster;
mod files;
mod health;
mod volume;
mod walk;
mod watch;

pub use cluster::{df, nodes, status, volumes};
pub use files::{below, info, list, locate, stat};
pub use volume::fsck;
pub use walk::{du, find, tree};
pub use watch::top;
