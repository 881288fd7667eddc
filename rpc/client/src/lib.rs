//! The client library: one [`Client`] for sessions, uploads, downloads and questions to the cluster.
//!
//! It speaks to nameservers and volumes over the wire only and knows nothing of their insides. All
//! connections belong to a thread of the client's own; every method sends its work there, so the
//! futures are `Send`, run under any executor, and dropping one cancels its work.

#![forbid(unsafe_code)]

mod admin;
mod batch;
mod budget;
mod buffers;
mod channel;
mod client;
mod core;
mod custody;
mod download;
mod hedge;
mod hops;
mod local;
mod lookup;
mod options;
mod pace;
mod pages;
mod piecewise;
mod places;
mod put;
mod read;
mod session;
mod short;
mod source;
mod statistics;
mod trace;
mod upload;
mod usual;

pub use blockyard_wire::secret::ClusterSecret;
pub use blockyard_wire::{Problem, ProblemKind, Result, types};

pub use crate::client::Client;
pub use crate::local::Local;
pub use crate::options::{
    BackupTaken, DownloadOptions, Downloaded, ListOptions, Located, Options, Progress, ProgressFn, Removed,
    UploadOptions, Uploaded,
};
pub use crate::statistics::{Statistics, VolumeStatistics};
pub use crate::trace::{BlockTrace, GetSpans, HopSpans, ReadTrace, ReadTraceFn, TraceFn};
