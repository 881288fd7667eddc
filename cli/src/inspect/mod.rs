//! What only looks: list, stat, info, status, df.

mod cluster;
mod files;
mod health;

pub use cluster::{df, status};
pub use files::{below, info, list, stat};
