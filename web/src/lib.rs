//! The page: monitoring and upload, served by hyper. It knows the cluster only through [`Backend`], reads
//! no journal and no disk, and holds no file in memory.

#![forbid(unsafe_code)]

mod api;
mod archive;
mod assets;
pub mod backend;
mod change;
mod conditions;
mod content;
mod document;
mod guard;
mod health;
mod history;
mod live;
mod metrics;
mod openapi;
mod operate;
mod patch;
mod pieces;
mod pipe;
mod probes;
mod queries;
mod rates;
mod respond;
mod routes;
mod server;
mod stall;
mod surveys;
mod target;
mod timeline;
mod upload;
mod watch;

pub use crate::backend::Backend;
pub use crate::live::serve;
pub use crate::pipe::BodyReader;
pub use crate::probes::serve_metrics;
pub use crate::server::{PageConfig, serve_backend};
