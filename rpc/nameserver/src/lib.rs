//! The nameserver: namespace, blocks, placement, journal and its Cap'n Proto service.
pub mod config;
pub mod error;
mod path;
mod state;
mod journal;
mod log;
mod snapshot;
mod store;
