//! What every block of a measurement holds, and how that is verified.

use anyhow::{Result, ensure};
use blockyard_engine::checksum;
use rand::{Rng as _, SeedableRng as _};

const SEED: u64 = 0x0042_4c4f_434b;

/// A block of random bytes, the same in every process, and the CRC of each of its units.
pub(crate) struct Content {
    pub data: Vec<u8>,
    pub crcs: Vec<u32>,
}

impl Content {
    pub(crate) fn new(block_bytes: usize) -> Self {
        let mut data = vec![0; block_bytes];
        rand::rngs::StdRng::seed_from_u64(SEED).fill_bytes(&mut data);
        let crcs = checksum::unit_crcs(&data);
        Self { data, crcs }
    }

    /// Computes the CRC of every unit of `block` and compares: what is done to all that is written and read.
    pub(crate) fn check(&self, block: &[u8]) -> Result<()> {
        ensure!(
            checksum::unit_crcs(block) == self.crcs,
            "other bytes than expected"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_differ_and_every_byte_counts() {
        let content = Content::new(3 << 16);
        assert_ne!(content.crcs[0], content.crcs[1]);
        let mut block = content.data.clone();
        content.check(&block).unwrap();
        block[2 << 16] ^= 1;
        assert!(content.check(&block).is_err());
        assert_eq!(Content::new(3 << 16).data, content.data);
    }
}
