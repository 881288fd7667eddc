//! The hello that opens every connection: versions, cluster, and a mutual HMAC challenge on the secret.
//!
//! Sans-I/O: each step takes a frame and gives the bytes to send. The acceptor says nothing of worth
//! before the opener has proved that it knows the secret; then it proves the same.

use hmac::Mac as _;

use crate::error::{Problem, ProblemKind, Result};
use crate::frame::{Abort, Challenge, Frame, Hello, Message, Purpose, Role};
use crate::secret::ClusterSecret;
use crate::ticket::keyed;
use crate::types::{ClusterId, VolumeId};

/// The only version of the protocol so far.
pub const PROTOCOL_VERSION: u16 = 1;
/// Feature bits known; none yet.
pub const FEATURES: u64 = 0;

/// What the two sides found in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// The protocol.
    pub version: u16,
    /// Features both know.
    pub features: u64,
    /// Of the opener.
    pub role: Role,
    /// The acceptor's cluster.
    pub cluster: ClusterId,
}

/// The side that connects.
pub struct Opener {
    key: [u8; 32],
    hello: Hello,
    challenge: Option<Challenge>,
}

impl Opener {
    /// Starts a hello; the bytes are to be sent first. `cluster`: refuse any other one.
    pub fn new(
        secret: &ClusterSecret,
        role: Role,
        purpose: Purpose,
        cluster: Option<ClusterId>,
    ) -> (Self, Vec<u8>) {
        let hello = Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            role,
            purpose,
            features: FEATURES,
            nonce: nonce(),
            cluster: cluster.unwrap_or_default(),
        };
        let bytes = Frame::of_connection(Message::Hello(hello.clone())).encode(0);
        (
            Self {
                key: hello_key(secret),
                hello,
                challenge: None,
            },
            bytes,
        )
    }

    /// Answers the acceptor's challenge.
    ///
    /// # Errors
    /// The acceptor's refusal, another cluster, or a protocol that was not offered.
    pub fn challenge(&mut self, frame: Frame) -> Result<Vec<u8>> {
        let challenge = match frame.message {
            Message::Challenge(challenge) => challenge,
            other => return Err(unexpected(other)),
        };
        if challenge.version < self.hello.version_min || challenge.version > self.hello.version_max {
            return Err(Problem::new(
                ProblemKind::Denied,
                format!(
                    "the peer speaks protocol {}, this program {PROTOCOL_VERSION}",
                    challenge.version
                ),
            ));
        }
        if !self.hello.cluster.is_zero() && self.hello.cluster != challenge.cluster {
            return Err(Problem::new(
                ProblemKind::Denied,
                format!(
                    "the peer belongs to cluster {}, not to {}",
                    challenge.cluster, self.hello.cluster
                ),
            ));
        }
        let mac = transcript(&self.key, b"opener", &self.hello, &challenge);
        self.challenge = Some(challenge);
        Ok(Frame::of_connection(Message::Proof(mac.finalize().into_bytes().into())).encode(0))
    }

    /// Checks the acceptor's own proof.
    ///
    /// # Errors
    /// `Denied` when the acceptor does not know the secret, or its refusal.
    pub fn welcome(&self, frame: Frame) -> Result<Agreed> {
        let (mac, challenge) = match (frame.message, &self.challenge) {
            (Message::Welcome(mac), Some(challenge)) => (mac, challenge),
            (other, _) => return Err(unexpected(other)),
        };
        transcript(&self.key, b"acceptor", &self.hello, challenge)
            .verify(&mac.into())
            .map_err(|_| {
                Problem::new(
                    ProblemKind::Denied,
                    "the peer does not know this cluster's secret; nothing was sent to it",
                )
            })?;
        Ok(agreed(&self.hello, challenge))
    }
}

/// The side that listens.
pub struct Acceptor {
    key: [u8; 32],
    cluster: ClusterId,
    purpose: Purpose,
    said: Option<(Hello, Challenge)>,
}

impl Acceptor {
    /// Waits for a hello with `purpose` at a server of `cluster`.
    pub fn new(secret: &ClusterSecret, cluster: ClusterId, purpose: Purpose) -> Self {
        Self {
            key: hello_key(secret),
            cluster,
            purpose,
            said: None,
        }
    }

    /// Answers a hello with a challenge.
    ///
    /// # Errors
    /// A refusal; send [`refusal`] of it and close.
    pub fn hello(&mut self, frame: Frame) -> Result<Vec<u8>> {
        let hello = match frame.message {
            Message::Hello(hello) => hello,
            other => return Err(unexpected(other)),
        };
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL_VERSION) {
            return Err(Problem::new(
                ProblemKind::Denied,
                format!(
                    "this server speaks protocol {PROTOCOL_VERSION}, the peer {} to {}",
                    hello.version_min, hello.version_max
                ),
            ));
        }
        if hello.purpose != self.purpose {
            return Err(Problem::invalid(match self.purpose {
                Purpose::Control => "this is a nameserver's port, not a volume's",
                Purpose::Data => "this is a volume's port, not the nameserver's",
            }));
        }
        let challenge = Challenge {
            version: PROTOCOL_VERSION,
            features: hello.features & FEATURES,
            nonce: nonce(),
            cluster: self.cluster,
        };
        let bytes = Frame::of_connection(Message::Challenge(challenge.clone())).encode(0);
        self.said = Some((hello, challenge));
        Ok(bytes)
    }

    /// Checks the opener's proof and gives our own.
    ///
    /// # Errors
    /// `Denied` when the opener does not know the secret; send [`refusal`] of it and close.
    pub fn proof(&mut self, frame: Frame) -> Result<(Vec<u8>, Agreed)> {
        let (mac, (hello, challenge)) = match (frame.message, &self.said) {
            (Message::Proof(mac), Some(said)) => (mac, said),
            (other, _) => return Err(unexpected(other)),
        };
        transcript(&self.key, b"opener", hello, challenge)
            .verify(&mac.into())
            .map_err(|_| {
                Problem::new(
                    ProblemKind::Denied,
                    "the cluster secret does not fit; pass the cluster's own with --cluster-secret FILE",
                )
            })?;
        if !hello.cluster.is_zero() && hello.cluster != self.cluster {
            return Err(Problem::new(
                ProblemKind::Denied,
                format!(
                    "this server belongs to cluster {}, not to {}",
                    self.cluster, hello.cluster
                ),
            ));
        }
        let own = transcript(&self.key, b"acceptor", hello, challenge)
            .finalize()
            .into_bytes()
            .into();
        Ok((
            Frame::of_connection(Message::Welcome(own)).encode(0),
            agreed(hello, challenge),
        ))
    }
}

/// The frame that tells a peer why it is refused.
pub fn refusal(problem: &Problem) -> Vec<u8> {
    Frame::of_connection(Message::Abort(Abort {
        problem: problem.clone(),
        blame: VolumeId::default(),
    }))
    .encode(0)
}

fn unexpected(message: Message) -> Problem {
    match message {
        Message::Abort(abort) => abort.problem,
        _ => Problem::invalid("the peer's hello is out of order"),
    }
}

fn agreed(hello: &Hello, challenge: &Challenge) -> Agreed {
    Agreed {
        version: challenge.version,
        features: challenge.features,
        role: hello.role,
        cluster: challenge.cluster,
    }
}

fn hello_key(secret: &ClusterSecret) -> [u8; 32] {
    secret.derive("blockyard hello v1")
}

fn nonce() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// The MAC over all that both sides said, under the name of the side that proves.
fn transcript(key: &[u8; 32], side: &[u8], hello: &Hello, challenge: &Challenge) -> hmac::Hmac<sha2::Sha256> {
    let mut mac = keyed(key);
    mac.update(side);
    mac.update(&hello.version_min.to_le_bytes());
    mac.update(&hello.version_max.to_le_bytes());
    mac.update(&[hello.role as u8, hello.purpose as u8]);
    mac.update(&hello.features.to_le_bytes());
    mac.update(&hello.nonce);
    mac.update(&hello.cluster.0);
    mac.update(&challenge.version.to_le_bytes());
    mac.update(&challenge.features.to_le_bytes());
    mac.update(&challenge.nonce);
    mac.update(&challenge.cluster.0);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PREFIX_BYTES, Prefix};

    fn frame(bytes: &[u8]) -> Frame {
        let (prefix, header) = bytes.split_at(PREFIX_BYTES);
        Prefix::parse(prefix.try_into().unwrap())
            .unwrap()
            .decode(header)
            .unwrap()
    }

    #[test]
    fn both_sides_agree() {
        let (secret, cluster) = (ClusterSecret::generate(), ClusterId::random());
        for known in [None, Some(cluster)] {
            let (mut opener, hello) = Opener::new(&secret, Role::Dataserver, Purpose::Data, known);
            let mut acceptor = Acceptor::new(&secret, cluster, Purpose::Data);
            let challenge = acceptor.hello(frame(&hello)).unwrap();
            let proof = opener.challenge(frame(&challenge)).unwrap();
            let (welcome, theirs) = acceptor.proof(frame(&proof)).unwrap();
            let ours = opener.welcome(frame(&welcome)).unwrap();
            assert_eq!(ours, theirs);
            assert_eq!((ours.cluster, ours.role), (cluster, Role::Dataserver));
        }
    }

    #[test]
    fn a_wrong_secret_is_refused_by_both_sides() {
        let (secret, other, cluster) = (
            ClusterSecret::generate(),
            ClusterSecret::generate(),
            ClusterId::random(),
        );
        let (mut opener, hello) = Opener::new(&other, Role::Client, Purpose::Control, None);
        let mut acceptor = Acceptor::new(&secret, cluster, Purpose::Control);
        let challenge = acceptor.hello(frame(&hello)).unwrap();
        let proof = opener.challenge(frame(&challenge)).unwrap();
        let refused = acceptor.proof(frame(&proof)).unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Denied);
        assert_eq!(opener.welcome(frame(&refusal(&refused))).unwrap_err(), refused);
        let forged = Frame::of_connection(Message::Welcome([0; 32]));
        assert_eq!(opener.welcome(forged).unwrap_err().kind, ProblemKind::Denied);
    }

    #[test]
    fn a_proof_cannot_be_reflected_or_replayed() {
        let (secret, cluster) = (ClusterSecret::generate(), ClusterId::random());
        let (mut opener, hello) = Opener::new(&secret, Role::Client, Purpose::Control, None);
        let mut acceptor = Acceptor::new(&secret, cluster, Purpose::Control);
        let proof = opener
            .challenge(frame(&acceptor.hello(frame(&hello)).unwrap()))
            .unwrap();
        let Message::Proof(mac) = frame(&proof).message else {
            unreachable!()
        };
        assert!(
            opener
                .welcome(Frame::of_connection(Message::Welcome(mac)))
                .is_err(),
            "reflected"
        );
        let mut again = Acceptor::new(&secret, cluster, Purpose::Control);
        again.hello(frame(&hello)).unwrap();
        assert!(again.proof(frame(&proof)).is_err(), "replayed");
    }

    #[test]
    fn other_clusters_purposes_and_orders_are_refused() {
        let (secret, cluster) = (ClusterSecret::generate(), ClusterId::random());
        let (mut opener, hello) =
            Opener::new(&secret, Role::Client, Purpose::Control, Some(ClusterId::random()));
        let mut acceptor = Acceptor::new(&secret, cluster, Purpose::Control);
        assert!(
            opener
                .challenge(frame(&acceptor.hello(frame(&hello)).unwrap()))
                .is_err()
        );
        assert!(
            Acceptor::new(&secret, cluster, Purpose::Data)
                .hello(frame(&hello))
                .is_err()
        );
        assert!(
            Acceptor::new(&secret, cluster, Purpose::Data)
                .proof(Frame::of_connection(Message::Ping))
                .is_err()
        );
    }
}
