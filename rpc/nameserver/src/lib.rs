//! The nameserver: namespace, blocks, placement, journal and its Cap'n Proto service.
//!
//! [`start`] runs one on a thread of its own. It is never on the data path: clients and dataservers move
//! blocks among themselves with the tickets that it signs. All that changes passes through one pure state
//! machine as commands that are durable first; what is only known in memory (who is alive, who reads) can be
//! lost at any time.

mod adopt;
mod allocate;
mod answers;
pub mod backup;
mod calls;
pub mod config;
mod core;
mod dataserver;
pub mod error;
mod health;
mod join;
mod journal;
mod log;
mod maintenance;
mod mirror;
mod operate;
mod orphans;
mod path;
mod placement;
#[cfg(feature = "populated")]
pub mod populated;
mod readers;
pub mod rebuild;
mod reconcile;
mod redundancy;
mod repair;
mod replay;
mod reports;
mod server;
mod service;
#[cfg(feature = "simulated")]
pub mod simulated;
mod snapshot;
mod standing;
mod state;
mod store;
pub mod survey;
mod uploads;
mod view;
mod writer;

pub use config::Config;
pub use error::{Error, Kind};
pub use server::{Handle, Page, start};
pub use view::{UploadSoFar, View};
