//! The page: monitoring and upload, served by hyper. It knows the cluster only through [`Backend`], reads
//! no journal and no disk, and holds no file in memory.

#![forbid(unsafe_code)]

mod api;
mod assets;
pub mod backend;
mod change;
mod conditions;
mod content;
mod guard;
mod health;
mod live;
mod metrics;
mod pipe;
mod probes;
mod queries;
mod respond;
mod routes;
mod server;
mod stall;
mod target;
mod upload;

pub use crate::backend::Backend;
pub use crate::live::serve;
pub use crate::pipe::BodyReader;
pub use crate::probes::serve_metrics;
pub use crate::server::{PageConfig, serve_backend};
