//! The nameserver: namespace, blocks, placement, journal and its Cap'n Proto service.
pub mod config;
pub mod error;
mod path;
mod state;
mod journal { pub const FILE_BYTES_MIN: u64 = 1<<21; }
