//! Signed rights and proofs: HMAC-SHA256 under keys derived from the cluster's secret.
//!
//! A ticket lets its bearer do one operation on one block at one volume until it expires. It is not
//! bound to the epoch: transfers outlive a nameserver's restart. FORMAT.md gives the signed bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use blockyard_engine::block::BlockId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{Problem, ProblemKind, Result};
use crate::secret::ClusterSecret;
use crate::types::{ClusterId, ReplicaProof, VolumeId};

/// The only key there is until keys are rotated.
const KEY_ID: u32 = 1;
const TICKET_VERSION: u8 = 1;
/// How far a dataserver's clock may be behind or ahead of the nameserver's, milliseconds.
pub const CLOCK_SKEW_MS: u64 = 30_000;

/// What a ticket allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Get any range of the block.
    Read,
    /// Put the block as one hop of a chain.
    Write,
    /// One dataserver pulls the whole block from another.
    Copy,
}

/// A signed, expiring right.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ticket {
    /// Which key signed it.
    pub key_id: u32,
    /// Bytes of the block at the most.
    pub length_max: u32,
    /// Place in the chain, 0 the head.
    pub hop: u8,
    /// Milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// HMAC-SHA256.
    pub mac: [u8; 32],
}

/// What is claimed with a ticket, or granted by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// What is to be done.
    pub operation: Operation,
    /// To which block.
    pub block: BlockId,
    /// At which volume.
    pub volume: VolumeId,
    /// At which place of the chain.
    pub hop: u8,
    /// Bytes: of the grant the longest, of a claim the actual ones.
    pub length: u32,
}

/// The keys of a cluster, derived from its secret and its id.
#[derive(Clone)]
pub struct Keys {
    cluster: ClusterId,
    ticket: [u8; 32],
    proof: [u8; 32],
}

impl Keys {
    /// Derives the keys of `cluster`.
    pub fn derive(secret: &ClusterSecret, cluster: ClusterId) -> Self {
        Self {
            cluster,
            ticket: secret.derive("blockyard ticket v1"),
            proof: secret.derive("blockyard proof v1"),
        }
    }

    /// Signs the right to do what `grant` says until `expires_unix_ms`.
    pub fn sign(&self, grant: &Claim, expires_unix_ms: u64) -> Ticket {
        let mut ticket = Ticket {
            key_id: KEY_ID,
            length_max: grant.length,
            hop: grant.hop,
            expires_unix_ms,
            mac: [0; 32],
        };
        ticket.mac = self.ticket_mac(grant, &ticket).finalize().into_bytes().into();
        ticket
    }

    /// Checks that `ticket` allows `claim` now.
    ///
    /// # Errors
    /// `Denied` with the reason: unknown key, expired, too long, another hop, or a bad signature.
    pub fn check(&self, ticket: &Ticket, claim: &Claim, now_unix_ms: u64) -> Result<()> {
        let denied = |why: &str| {
            Err(Problem::new(
                ProblemKind::Denied,
                format!("ticket for block {} refused: {why}", claim.block),
            ))
        };
        if ticket.key_id != KEY_ID {
            return denied("signed with an unknown key");
        }
        if self.ticket_mac(claim, ticket).verify(&ticket.mac.into()).is_err() {
            return denied("its signature does not fit this cluster, block, volume and operation");
        }
        if claim.hop != ticket.hop || claim.length > ticket.length_max {
            return denied("it is for another hop or a shorter block");
        }
        if now_unix_ms > ticket.expires_unix_ms.saturating_add(CLOCK_SKEW_MS) {
            return denied("it has expired; ask the nameserver again (and compare the clocks)");
        }
        Ok(())
    }

    /// The proof that a volume holds a durable replica.
    pub fn prove(&self, block: BlockId, length: u32, crc32c: u32, volume: VolumeId) -> ReplicaProof {
        let mac = self
            .proof_mac(block, length, crc32c, volume)
            .finalize()
            .into_bytes()
            .into();
        ReplicaProof { volume, mac }
    }

    /// Whether `proof` is what its volume hands out for this block.
    pub fn proves(&self, proof: &ReplicaProof, block: BlockId, length: u32, crc32c: u32) -> bool {
        self.proof_mac(block, length, crc32c, proof.volume)
            .verify(&proof.mac.into())
            .is_ok()
    }

    fn ticket_mac(&self, claim: &Claim, ticket: &Ticket) -> Hmac<Sha256> {
        let mut mac = keyed(&self.ticket);
        mac.update(&[TICKET_VERSION, claim.operation as u8, ticket.hop]);
        mac.update(&self.cluster.0);
        mac.update(&claim.volume.0);
        mac.update(&claim.block.0.to_le_bytes());
        mac.update(&ticket.length_max.to_le_bytes());
        mac.update(&ticket.expires_unix_ms.to_le_bytes());
        mac
    }

    fn proof_mac(&self, block: BlockId, length: u32, crc32c: u32, volume: VolumeId) -> Hmac<Sha256> {
        let mut mac = keyed(&self.proof);
        mac.update(&self.cluster.0);
        mac.update(&volume.0);
        mac.update(&block.0.to_le_bytes());
        mac.update(&length.to_le_bytes());
        mac.update(&crc32c.to_le_bytes());
        mac
    }
}

/// An HMAC-SHA256 under `key`.
pub(crate) fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Milliseconds since 1970 by this machine's clock.
pub fn now_unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::derive(&ClusterSecret::generate(), ClusterId::random())
    }

    #[test]
    fn a_ticket_allows_what_it_says_and_nothing_else() {
        let keys = keys();
        let grant = Claim {
            operation: Operation::Write,
            block: BlockId(7),
            volume: VolumeId::random(),
            hop: 1,
            length: 1000,
        };
        let ticket = keys.sign(&grant, 50_000);
        assert_eq!(keys.check(&ticket, &grant, 50_000), Ok(()));
        assert_eq!(keys.check(&ticket, &Claim { length: 5, ..grant }, 0), Ok(()));
        let wrong = [
            Claim {
                operation: Operation::Read,
                ..grant
            },
            Claim {
                block: BlockId(8),
                ..grant
            },
            Claim {
                volume: VolumeId::random(),
                ..grant
            },
            Claim { hop: 0, ..grant },
            Claim {
                length: 1001,
                ..grant
            },
        ];
        for claim in wrong {
            assert_eq!(
                keys.check(&ticket, &claim, 0).unwrap_err().kind,
                ProblemKind::Denied,
                "{claim:?}"
            );
        }
        assert!(
            keys.check(&ticket, &grant, 50_001 + CLOCK_SKEW_MS).is_err(),
            "expired"
        );
        let longer = Ticket {
            length_max: 2000,
            ..ticket.clone()
        };
        assert!(keys.check(&longer, &grant, 0).is_err(), "forged length");
        let later = Ticket {
            expires_unix_ms: u64::MAX,
            ..ticket.clone()
        };
        assert!(keys.check(&later, &grant, 0).is_err(), "forged expiry");
        assert!(
            self::keys().check(&ticket, &grant, 0).is_err(),
            "another cluster's key"
        );
    }

    #[test]
    fn a_proof_binds_block_length_crc_and_volume() {
        let keys = keys();
        let proof = keys.prove(BlockId(1), 10, 99, VolumeId::random());
        assert!(keys.proves(&proof, BlockId(1), 10, 99));
        assert!(!keys.proves(&proof, BlockId(2), 10, 99));
        assert!(!keys.proves(&proof, BlockId(1), 11, 99));
        assert!(!keys.proves(&proof, BlockId(1), 10, 98));
        let moved = ReplicaProof {
            volume: VolumeId::random(),
            ..proof
        };
        assert!(!keys.proves(&moved, BlockId(1), 10, 99));
    }
}
