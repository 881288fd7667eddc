//! A disk in memory whose power can fail: served by FUSE, under a loop device, under ext4. For tests; needs root.
//!
//! It knows nothing of what is kept on it. A flush covers only the writes whose end was told before, and some ends are
//! told late, so that nothing may lean on the order in which writes arrive.

// Every item is told by what its tests do with it.
#![allow(missing_docs)]

pub mod disk;
pub mod fuse;
pub mod mount;
