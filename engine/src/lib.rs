//! One Blockyard volume: segments, slots, journal, index and the disk ring. Knows no network.

pub mod block;
pub mod checksum;
pub mod limits;
