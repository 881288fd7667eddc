//! CRC32C per checksum unit, and the combination of units into blocks and files.
//!
//! Two libraries: crc-fast folds 64 B at a time where the processor can (AVX-512), which takes half of crc32c's time
//! on whole units, and is the slower one on headers; crc32c also appends.

use crc_fast::CrcAlgorithm::Crc32Iscsi;

use crate::limits::UNIT_BYTES;

/// The CRC32C polynomial, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// From here on crc-fast is the quicker one.
const LONG_BYTES: usize = 1024;

/// The CRC32C of each 64 KiB unit of `data`, the last one of what is left. Empty for empty data.
pub fn unit_crcs(data: &[u8]) -> Vec<u32> {
    data.chunks(UNIT_BYTES).map(crc).collect()
}

/// The CRC32C of `data`.
pub fn crc(data: &[u8]) -> u32 {
    if data.len() < LONG_BYTES {
        return crc32c::crc32c(data);
    }
    crc_fast::checksum(Crc32Iscsi, data) as u32
}

/// The CRC32C of `data` laid behind what `seed` is the CRC32C of.
pub fn crc_seeded(seed: u32, data: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, data)
}

/// The CRC32C of two byte strings laid end to end, from theirs; `second_bytes` is the length of the second.
pub fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    // Nothing in front is the usual case of a file of one block, and zeros shift to zeros.
    if first == 0 {
        return second;
    }
    let mut shifted = first;
    let mut left = second_bytes;
    while left > 0 {
        shifted = multiply(shifted, SHIFTS[left.trailing_zeros() as usize]);
        left &= left - 1;
    }
    shifted ^ second
}

/// The CRC32C of `length_bytes` of data from the CRCs of its units.
pub fn combine_units(units: &[u32], length_bytes: usize) -> u32 {
    // Nothing to append to: a general combination costs more than the CRC of a small block.
    let Some((&first, rest)) = units.split_first() else {
        return 0;
    };
    let mut left = length_bytes.saturating_sub(UNIT_BYTES);
    rest.iter().fold(first, |whole, &unit| {
        let bytes = left.min(UNIT_BYTES);
        left -= bytes;
        combine(whole, unit, bytes as u64)
    })
}

/// x^(8 * 2^k) modulo the polynomial: the factor that lays 2^k zero bytes behind what a CRC is of.
static SHIFTS: [u32; 64] = shifts();

const fn shifts() -> [u32; 64] {
    // x^8, the coefficient of x^0 being the highest bit.
    let mut power = 1 << (31 - 8);
    let mut table = [0; 64];
    let mut k = 0;
    while k < 64 {
        table[k] = power;
        power = multiply(power, power);
        k += 1;
    }
    table
}

/// The product of two polynomials over GF(2), modulo the CRC's.
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut shifted) = (0, b);
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        product ^= shifted & (a >> bit & 1).wrapping_neg();
        shifted = (shifted >> 1) ^ (POLYNOMIAL & (shifted & 1).wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_combine_to_the_whole() {
        for length in [
            0,
            1,
            UNIT_BYTES - 1,
            UNIT_BYTES,
            UNIT_BYTES + 1,
            3 * UNIT_BYTES + 77,
        ] {
            let data: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            assert_eq!(
                combine_units(&unit_crcs(&data), length),
                crc(&data),
                "length {length}"
            );
        }
    }

    #[test]
    fn both_libraries_agree_at_every_length_and_alignment() {
        let data: Vec<u8> = (0..UNIT_BYTES + 64).map(|i| (i * 167 % 253) as u8).collect();
        let lengths = (LONG_BYTES..LONG_BYTES + 300).chain([4096, 65_535, UNIT_BYTES]);
        for (from, length) in lengths.enumerate() {
            let part = &data[from % 64..from % 64 + length];
            assert_eq!(crc(part), crc32c::crc32c(part), "{length} B from {}", from % 64);
        }
    }

    #[test]
    fn combining_agrees_with_the_other_library() {
        for crc in [0, 1, 0x8000_0000, 0xdead_beef, u32::MAX] {
            // (A second part of no bytes has the CRC 0.)
            for bytes in [
                1,
                2,
                3,
                4095,
                UNIT_BYTES,
                UNIT_BYTES + 1,
                4 << 20,
                0x1234_5678_9abc,
            ] {
                let expected = crc32c::crc32c_combine(crc, 0x1234_5678, bytes);
                assert_eq!(
                    combine(crc, 0x1234_5678, bytes as u64),
                    expected,
                    "{bytes} B behind {crc:08x}"
                );
            }
        }
    }

    #[test]
    fn seeded_is_the_crc_of_both_parts() {
        assert_eq!(crc_seeded(crc(b"block"), b"yard"), crc(b"blockyard"));
    }
}
