//! The sizes everything else is built on, and the relations between them.

/// Bytes of the longest block: 4 MiB.
pub const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes covered by one CRC32C: 64 KiB.
pub const UNIT_BYTES: usize = 64 * 1024;
/// Checksum units of the longest block.
pub const BLOCK_UNITS_MAX: usize = BLOCK_BYTES_MAX / UNIT_BYTES;
/// Bytes of payload that one packet of the pipeline may carry: 256 KiB.
pub const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a copy beside clients reads, or writes, in one operation: 512 KiB.
pub const PIECE_BYTES: usize = 512 * 1024;
/// The page that O_DIRECT, journal batches and slots are aligned to.
pub const PAGE_BYTES: usize = 4096;

const _: () = assert!(BLOCK_BYTES_MAX.is_multiple_of(UNIT_BYTES));
const _: () = assert!(PACKET_BYTES_MAX.is_multiple_of(UNIT_BYTES));
const _: () = assert!(PIECE_BYTES.is_multiple_of(UNIT_BYTES));
const _: () = assert!(UNIT_BYTES.is_multiple_of(PAGE_BYTES));
