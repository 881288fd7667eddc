//! Digests of what a volume holds, so that a report sends in full only what differs.

use blockyard_engine::block::BlockId;

use crate::types::{Replica, ReplicaState};

/// Buckets of a digest: a block falls into the one of its id modulo this.
pub const BUCKETS: usize = 256;

/// The digest of a volume: for each bucket the wrapping sum over its replicas of a 64-bit mix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest(pub Vec<u64>);

impl Default for Digest {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Digest {
    /// The digest of `replicas`, in any order.
    pub fn of(replicas: impl IntoIterator<Item = Replica>) -> Self {
        let mut digest = Self::default();
        replicas.into_iter().for_each(|replica| digest.add(&replica));
        digest
    }

    /// Takes `replica` in.
    pub fn add(&mut self, replica: &Replica) {
        let bucket = &mut self.0[bucket(replica.block)];
        *bucket = bucket.wrapping_add(mix(replica));
    }

    /// Takes `replica` out, which was in.
    pub fn remove(&mut self, replica: &Replica) {
        let bucket = &mut self.0[bucket(replica.block)];
        *bucket = bucket.wrapping_sub(mix(replica));
    }

    /// Buckets in which the two differ.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        (0..BUCKETS).filter(|&bucket| self.0.get(bucket) != other.0.get(bucket))
    }
}

/// The bucket of a block.
pub fn bucket(block: BlockId) -> usize {
    (block.0 % BUCKETS as u64) as usize
}

/// 64 bits that change with every field of a replica (the finalizer of SplitMix64, Steele et al. 2014).
fn mix(replica: &Replica) -> u64 {
    let state = match replica.state {
        ReplicaState::Good => 0u64,
        ReplicaState::Suspect => 1,
        ReplicaState::Corrupt => 2,
    };
    let content = (u64::from(replica.length) << 32 | u64::from(replica.crc32c)) ^ state.rotate_right(2);
    finalize(
        replica
            .block
            .0
            .wrapping_add(finalize(content.wrapping_add(0x9e37_79b9_7f4a_7c15))),
    )
}

fn finalize(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_every_field_does() {
        let replica = |id| Replica {
            block: BlockId(id),
            length: 9,
            crc32c: 5,
            state: ReplicaState::Good,
        };
        let many: Vec<_> = (0..1000).map(replica).collect();
        let digest = Digest::of(many.iter().copied());
        assert_eq!(digest, Digest::of(many.iter().rev().copied()));
        let changes: [fn(&mut Replica); 4] = [
            |r| r.block.0 += 256,
            |r| r.length += 1,
            |r| r.crc32c ^= 1,
            |r| r.state = ReplicaState::Corrupt,
        ];
        for change in changes {
            let mut other = many.clone();
            change(&mut other[513]);
            assert_eq!(digest.differing(&Digest::of(other)).collect::<Vec<_>>(), [1]);
        }
    }
}
