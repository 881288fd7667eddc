//! A dataserver: volumes with a thread each, chain writes, verified reads, repair, and registration.
//!
//! It knows the engine and the wire, but no names: what files are, only the nameserver knows.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod buf;
mod commands;
mod config;
mod connection;
mod control;
mod error;
mod flows;
mod frames;
mod host;
mod latency;
mod link;
mod node;
mod outbox;
mod positions;
mod read;
mod repair;
mod report;
mod scrub;
mod server;
mod service;
mod signal;
mod volume_thread;
mod write;
mod zero_fill;

pub use config::{Config, DEFAULT_READ_CACHE_BYTES, Deadlines, default_pool};
pub use error::{Error, Result};
pub use server::{Handle, Stopper, VolumePlace, start};
