//! CRC32C per checksum unit, and the combination of units into blocks and files.

use crate::limits::UNIT_BYTES;

/// The CRC32C of each 64 KiB unit of `data`, the last one of what is left. Empty for empty data.
pub fn unit_crcs(data: &[u8]) -> Vec<u32> {
    data.chunks(UNIT_BYTES).map(crc32c::crc32c).collect()
}

/// The CRC32C of `data`.
pub fn crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
}

/// The CRC32C of two byte strings laid end to end, from theirs; `second_bytes` is the length of the second.
pub fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    crc32c::crc32c_combine(first, second, second_bytes as usize)
}

/// The CRC32C of `length_bytes` of data from the CRCs of its units.
pub fn combine_units(units: &[u32], length_bytes: usize) -> u32 {
    let mut left = length_bytes;
    units.iter().fold(0, |whole, &unit| {
        let bytes = left.min(UNIT_BYTES);
        left -= bytes;
        combine(whole, unit, bytes as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_combine_to_the_whole() {
        for length in [0, 1, UNIT_BYTES - 1, UNIT_BYTES, UNIT_BYTES + 1, 3 * UNIT_BYTES + 77] {
            let data: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            assert_eq!(combine_units(&unit_crcs(&data), length), crc(&data), "length {length}");
        }
    }
}
