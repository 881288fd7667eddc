//! What a machine allows, derived from what was measured of it.

/// The fewest flushes a block can honestly take: each volume's flush covers at most the blocks in flight.
pub(crate) fn flushes_floor(replicas: u32, blocks_in_flight: u32) -> f64 {
    f64::from(replicas) / f64::from(blocks_in_flight.max(1))
}

/// What a machine allows a replicated upload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadLimit {
    pub fio_write_mib_per_s: f64,
    /// Replicas that land on the one disk.
    pub replicas: u32,
    pub cores: u32,
    /// Times each byte crosses loopback.
    pub hops: u32,
    pub iperf_cpu_s_per_gib: f64,
}

impl UploadLimit {
    /// MiB/s: the smaller of what the disk leaves each replica and what the cores leave for the hops.
    pub(crate) fn mib_per_s(&self) -> f64 {
        let disk = self.fio_write_mib_per_s / f64::from(self.replicas);
        let network = f64::from(self.cores) / (f64::from(self.hops) * self.iperf_cpu_s_per_gib) * 1024.0;
        disk.min(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upload_limit_is_the_smaller_one() {
        let mut limit = UploadLimit {
            fio_write_mib_per_s: 1500.0,
            replicas: 2,
            cores: 2,
            hops: 2,
            iperf_cpu_s_per_gib: 0.6,
        };
        assert_eq!(limit.mib_per_s(), 750.0);
        limit.fio_write_mib_per_s = 10_000.0;
        assert!((limit.mib_per_s() - 1024.0 / 0.6).abs() < 1e-9);
    }

    #[test]
    fn the_flush_floor_counts_every_replica() {
        assert_eq!(flushes_floor(2, 16), 0.125);
        assert_eq!(flushes_floor(3, 1), 3.0);
    }
}
