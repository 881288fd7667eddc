//! What can go wrong between two processes, and what a caller can do about it.

use serde::{Deserialize, Serialize};

/// What a caller can do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// Nothing but tell the user.
    Failed,
    /// The same call later.
    Retry,
    /// The same read elsewhere.
    OtherReplica,
    /// There is no such thing.
    NotFound,
    /// It is already there.
    Exists,
    /// The caller's mistake.
    Invalid,
    /// No volume has room.
    NoSpace,
    /// Secret, ticket or lease refused.
    Denied,
    /// A checksum did not match.
    Corrupt,
    /// The version was replaced or deleted.
    Gone,
    /// A lower epoch, or a twin.
    Stale,
    /// Ask another nameserver.
    NotLeader,
    /// A bounded queue is full.
    Busy,
}

const NAMES: [(ProblemKind, &str); 13] = [
    (ProblemKind::Failed, "failed"),
    (ProblemKind::Retry, "retry"),
    (ProblemKind::OtherReplica, "other-replica"),
    (ProblemKind::NotFound, "not-found"),
    (ProblemKind::Exists, "exists"),
    (ProblemKind::Invalid, "invalid"),
    (ProblemKind::NoSpace, "no-space"),
    (ProblemKind::Denied, "denied"),
    (ProblemKind::Corrupt, "corrupt"),
    (ProblemKind::Gone, "gone"),
    (ProblemKind::Stale, "stale"),
    (ProblemKind::NotLeader, "not-leader"),
    (ProblemKind::Busy, "busy"),
];

impl ProblemKind {
    /// Its name in an exception's text.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("failed", |(_, name)| name)
    }
}

/// A refusal or failure: its kind, and a sentence for people that tells cause, node and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What a caller can do.
    pub kind: ProblemKind,
    /// For people.
    pub message: String,
}

/// A result whose error is a [`Problem`].
pub type Result<T> = std::result::Result<T, Problem>;

/// The mark before the kind in an exception's text: `[blockyard:not-found] no such file …`.
const MARK: &str = "[blockyard:";

impl Problem {
    /// A problem of `kind` with `message` for people.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The caller's mistake.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Invalid, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::NotFound, message)
    }

    /// The same call may succeed later.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Retry, message)
    }

    /// The same problem with what was being done before its message.
    #[must_use]
    pub fn context(self, doing: impl std::fmt::Display) -> Self {
        Self {
            kind: self.kind,
            message: format!("{doing}: {}", self.message),
        }
    }
}

impl From<Problem> for capnp::Error {
    fn from(problem: Problem) -> Self {
        capnp::Error::failed(format!("{MARK}{}] {}", problem.kind.name(), problem.message))
    }
}

impl From<capnp::Error> for Problem {
    /// Reads the mark back; without one the transport itself failed, which a later call may not.
    fn from(error: capnp::Error) -> Self {
        if let Some(at) = error.extra.find(MARK) {
            let rest = &error.extra[at + MARK.len()..];
            if let Some((name, message)) = rest.split_once("] ")
                && let Some((kind, _)) = NAMES.iter().find(|(_, known)| *known == name)
            {
                return Self::new(*kind, message);
            }
        }
        match error.kind {
            capnp::ErrorKind::Disconnected | capnp::ErrorKind::Overloaded => Self::retry(error.to_string()),
            _ => Self::new(ProblemKind::Failed, error.to_string()),
        }
    }
}

impl From<std::io::Error> for Problem {
    /// Peers come back: what the network refuses now may succeed later.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::InvalidData | Io::InvalidInput => ProblemKind::Failed,
            _ => ProblemKind::Retry,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_an_exception() {
        for (kind, _) in NAMES {
            let sent = Problem::new(kind, "no such file: /a] b");
            let mut error = capnp::Error::from(sent.clone());
            error.extra = format!("remote exception: {}", error.extra);
            assert_eq!(Problem::from(error), sent);
        }
        assert_eq!(
            Problem::from(capnp::Error::disconnected("gone".into())).kind,
            ProblemKind::Retry
        );
    }
}
