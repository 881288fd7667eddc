//! What perf measures, a file for each scenario.

pub(crate) mod backends;
mod beside;
mod calls;
pub(crate) mod cluster;
mod common;
pub(crate) mod engine;
pub(crate) mod explain;
pub(crate) mod files;
pub(crate) mod growth;
pub(crate) mod index;
pub(crate) mod limits;
pub(crate) mod meta;
pub(crate) mod net;
pub(crate) mod page;
pub(crate) mod peers;
pub(crate) mod repair;
pub(crate) mod scaling;
pub(crate) mod slow;
pub(crate) mod soak;
mod transfer;

const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = (1 << 30) as f64;
const BLOCK_BYTES: u64 = blockyard_engine::limits::BLOCK_BYTES_MAX as u64;

/// The folder of the run in which fio keeps its file.
fn fio_folder(context: &crate::context::Context) -> anyhow::Result<std::path::PathBuf> {
    let folder = context.folder.path().join("fio");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The runtime of everything asynchronous in perf: one thread, as a small application would have.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
