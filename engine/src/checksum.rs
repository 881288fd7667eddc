//! CRC32C per checksum unit, and the combination of units into blocks and files.
//!
//! Two libraries: crc-fast folds 64 B at a time where the processor can (AVX-512), which takes half of crc32c's time
//! on whole units, and is the slower one on headers; crc32c also combines and appends.

use crc_fast::CrcAlgorithm::Crc32Iscsi;

use crate::limits::UNIT_BYTES;

/// The CRC32C polynomial, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// From here on crc-fast is the quicker one.
const LONG_BYTES: usize = 1024;
/// "Append 64 KiB of zeros" as a lookup per byte of the CRC: what makes combining whole units four table reads.
static APPEND_UNIT: [[u32; 256]; 4] = append_table(UNIT_BYTES);

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
    if second_bytes == UNIT_BYTES as u64 {
        return append_unit(first) ^ second;
    }
    crc32c::crc32c_combine(first, second, second_bytes as usize)
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

fn append_unit(crc: u32) -> u32 {
    let [a, b, c, d] = crc.to_le_bytes();
    APPEND_UNIT[0][a as usize]
        ^ APPEND_UNIT[1][b as usize]
        ^ APPEND_UNIT[2][c as usize]
        ^ APPEND_UNIT[3][d as usize]
}

/// A linear map over GF(2)^32: what each bit of the CRC turns into.
type Matrix = [u32; 32];

const fn apply(matrix: &Matrix, vector: u32) -> u32 {
    let mut sum = 0;
    let mut bit = 0;
    while bit < 32 {
        if vector >> bit & 1 == 1 {
            sum ^= matrix[bit];
        }
        bit += 1;
    }
    sum
}

/// The table that appends `zero_bytes` (a power of two) zeros to a CRC.
const fn append_table(zero_bytes: usize) -> [[u32; 256]; 4] {
    let mut matrix: Matrix = [0; 32];
    matrix[0] = POLYNOMIAL;
    let mut bit = 1;
    while bit < 32 {
        matrix[bit] = 1 << (bit - 1);
        bit += 1;
    }
    // The matrix appends one zero bit; each squaring doubles that.
    let mut doublings = zero_bytes.trailing_zeros() + 3;
    while doublings > 0 {
        let mut square: Matrix = [0; 32];
        let mut row = 0;
        while row < 32 {
            square[row] = apply(&matrix, matrix[row]);
            row += 1;
        }
        matrix = square;
        doublings -= 1;
    }
    let mut table = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 4 {
        let mut value = 0;
        while value < 256 {
            table[byte][value] = apply(&matrix, (value as u32) << (8 * byte));
            value += 1;
        }
        byte += 1;
    }
    table
}

const _: () = assert!(UNIT_BYTES.is_power_of_two());

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
    fn whole_unit_shortcut_agrees_with_the_general_way() {
        for crc in [0, 1, 0x8000_0000, 0xdead_beef, u32::MAX] {
            assert_eq!(combine(crc, 0x1234_5678, UNIT_BYTES as u64), {
                crc32c::crc32c_combine(crc, 0x1234_5678, UNIT_BYTES)
            });
        }
    }

    #[test]
    fn seeded_is_the_crc_of_both_parts() {
        assert_eq!(crc_seeded(crc(b"block"), b"yard"), crc(b"blockyard"));
    }
}
