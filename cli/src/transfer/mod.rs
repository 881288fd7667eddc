//! What moves bytes: upload, download, cat.

mod cat;
mod download;
mod pipe;
mod progress;
mod target;
mod tree;
mod upload;

pub use cat::cat;
pub use download::download;
pub use upload::upload;

/// Files of one command under way at a time.
const FILES_AT_ONCE: usize = 4;
