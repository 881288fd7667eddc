//! One Blockyard volume: segments, slots, journal, index and the disk ring. Knows no network.
//!
//! Without the feature `disk` only limits, ids and checksums are left: what clients and the nameserver may know.

#![deny(unsafe_code)]

pub mod block;
pub mod checksum;
pub mod limits;

#[cfg(feature = "disk")]
mod ahead;
#[cfg(feature = "disk")]
mod block_buffer;
#[cfg(feature = "disk")]
#[allow(unsafe_code)]
mod buffer;
#[cfg(feature = "disk")]
mod cache;
#[cfg(feature = "disk")]
mod checkpoint;
#[cfg(feature = "disk")]
mod commit;
#[cfg(feature = "disk")]
mod core;
#[cfg(feature = "disk")]
mod device;
#[cfg(feature = "disk")]
mod drive;
#[cfg(feature = "disk")]
mod error;
#[cfg(feature = "disk")]
pub mod exec;
#[cfg(feature = "disk")]
mod extents;
#[cfg(feature = "disk")]
mod folder;
#[cfg(feature = "disk")]
mod fsck;
#[cfg(any(feature = "fuzzing", all(test, feature = "disk")))]
#[doc(hidden)]
pub mod fuzz_doors;
#[cfg(feature = "disk")]
mod get;
#[cfg(feature = "disk")]
mod identity;
#[cfg(feature = "disk")]
mod index;
#[cfg(feature = "disk")]
mod io;
#[cfg(feature = "disk")]
mod journal;
#[cfg(feature = "disk")]
mod layout;
#[cfg(feature = "disk")]
mod pool;
#[cfg(feature = "disk")]
mod put;
#[cfg(feature = "disk")]
mod record;
#[cfg(feature = "disk")]
mod recover;
#[cfg(feature = "disk")]
mod replay;
#[cfg(feature = "disk")]
mod scrub;
#[cfg(feature = "disk")]
mod scrub_metadata;
#[cfg(any(feature = "sim", all(test, feature = "disk")))]
#[doc(hidden)]
pub mod sim;
#[cfg(feature = "disk")]
mod snapshot;
#[cfg(feature = "disk")]
mod space;
#[cfg(feature = "disk")]
mod sync;
#[cfg(feature = "disk")]
mod tasks;
#[cfg(feature = "disk")]
mod types;
#[cfg(feature = "disk")]
#[allow(unsafe_code)]
mod uring;
#[cfg(feature = "disk")]
mod volume;
#[cfg(feature = "disk")]
mod zero_fill;

#[cfg(feature = "disk")]
pub use crate::{
    block_buffer::BlockBuffer,
    buffer::Chunk,
    cache::CacheUse,
    drive::CompletionWait,
    error::{Error, Kind, Result},
    fsck::inventory::{Inventory, InventoryBlock, inventory},
    fsck::{FsckOptions, FsckReport, fsck},
    layout::slot_bytes_for,
    pool::{Lane, LaneOptions, PoolOptions, PoolUse},
    scrub::{Finding, Scrub, ScrubStatus, ScrubStep},
    types::{
        Epoch, GetTimes, Identity, OpenReport, Options, Receipt, ReplicaInfo, ReplicaState, Stat, Verified,
        VolumeState,
    },
    volume::Volume,
};
