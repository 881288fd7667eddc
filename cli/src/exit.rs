//! From what went wrong to the exit code, and one line on stderr.

use std::io;

use blockyard_wire::{Problem, ProblemKind};

use crate::output;

/// Done.
pub const DONE: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// The command line, or a name in it, is wrong.
pub const USAGE: u8 = 2;
/// There is no such thing.
pub const NOT_FOUND: u8 = 3;
/// It is already there.
pub const EXISTS: u8 = 4;
/// The same command may succeed later.
pub const RETRY: u8 = 5;
/// Stopped by the user.
pub const INTERRUPTED: u8 = 130;

/// The user pressed Ctrl-C, or the process was asked to end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Some of several things failed: each was told when it happened, this is the first one's code.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{failed} of {all} failed")]
pub struct SomeFailed {
    /// Things that failed.
    pub failed: usize,
    /// Things in all.
    pub all: usize,
    /// The first one's exit code.
    pub code: u8,
}

/// The exit code of a problem.
pub fn code_of_kind(kind: ProblemKind) -> u8 {
    match kind {
        ProblemKind::Invalid => USAGE,
        ProblemKind::NotFound => NOT_FOUND,
        ProblemKind::Exists => EXISTS,
        ProblemKind::Retry
        | ProblemKind::OtherReplica
        | ProblemKind::Busy
        | ProblemKind::NotLeader
        | ProblemKind::Stale
        // A newer version took its place while it was read: the next read gets that one.
        | ProblemKind::Gone => RETRY,
        // Neither room, rights nor bytes come back by trying again.
        ProblemKind::Failed | ProblemKind::NoSpace | ProblemKind::Denied | ProblemKind::Corrupt => FAILED,
    }
}

/// The exit code of an error.
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Interrupted>() {
            return INTERRUPTED;
        }
        if let Some(some) = cause.downcast_ref::<SomeFailed>() {
            return some.code;
        }
        if let Some(problem) = cause.downcast_ref::<Problem>() {
            return code_of_kind(problem.kind);
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return match error.kind() {
                // Who reads our output has had enough: `blockyard ls | head`.
                io::ErrorKind::BrokenPipe => DONE,
                io::ErrorKind::NotFound => NOT_FOUND,
                io::ErrorKind::AlreadyExists => EXISTS,
                _ => FAILED,
            };
        }
    }
    FAILED
}

/// Tells what went wrong (if there is anything to tell) and answers the exit code.
pub fn report(error: &anyhow::Error) -> u8 {
    let code = code_of(error);
    if code != DONE {
        output::complain(&format!("{error:#}"));
    }
    code
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_innermost_known_cause_decides() {
        let problem = |kind| anyhow::Error::from(Problem::new(kind, "why")).context("uploading a");
        assert_eq!(code_of(&problem(ProblemKind::Exists)), EXISTS);
        assert_eq!(code_of(&problem(ProblemKind::NotFound)), NOT_FOUND);
        assert_eq!(code_of(&problem(ProblemKind::Invalid)), USAGE);
        assert_eq!(code_of(&problem(ProblemKind::Busy)), RETRY);
        assert_eq!(code_of(&problem(ProblemKind::NoSpace)), FAILED);
        assert_eq!(code_of(&anyhow::Error::from(Interrupted)), INTERRUPTED);
        assert_eq!(code_of(&anyhow::anyhow!("anything")), FAILED);
        let missing = std::fs::File::open("/nonexistent/a")
            .context("reading a")
            .unwrap_err();
        assert_eq!(code_of(&missing), NOT_FOUND);
    }
}
