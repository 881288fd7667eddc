//! Flags of what looks over many files: du, find, tree, locate.

use std::time::Duration;

use blockyard_wire::types::BlockId;
use clap::{Args, ValueEnum};
use globset::GlobMatcher;

use super::{Cluster, Form};
use crate::values::{Bound, bound, duration, glob};

/// `du`
#[derive(Args, Debug)]
pub struct Du {
    /// Folders, or files.
    #[arg(value_name = "REMOTE", default_value = "/")]
    pub paths: Vec<String>,
    /// Show folders down to so many levels below; 0 for the sum alone.
    #[arg(short, long, value_name = "LEVELS", default_value_t = 1)]
    pub depth: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// What `find` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// Files.
    F,
    /// Folders.
    D,
}

/// `find`
#[derive(Args, Debug)]
pub struct Find {
    /// Where to look.
    #[arg(value_name = "REMOTE", default_value = "/")]
    pub path: String,
    /// Only names that match, such as '*.log'.
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub name: Option<GlobMatcher>,
    /// Only files (f) or folders (d).
    #[arg(long = "type", value_enum, value_name = "f|d")]
    pub kind: Option<Kind>,
    /// Only files of a size: +1MiB for more, -1MiB for less, 1MiB for just that.
    #[arg(long, value_name = "SIZE", value_parser = bound, allow_hyphen_values = true)]
    pub size: Option<Bound>,
    /// Only what changed within this time, such as 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub newer: Option<Duration>,
    /// Only what has not changed for this time.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub older: Option<Duration>,
    /// Only files with so many copies.
    #[arg(long, value_name = "N")]
    pub copies: Option<u8>,
    /// Print names with a NUL behind each, for xargs -0.
    #[arg(long, conflicts_with = "json")]
    pub print0: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `tree`
#[derive(Args, Debug)]
pub struct Tree {
    /// The folder.
    #[arg(value_name = "REMOTE", default_value = "/")]
    pub path: String,
    /// Show so many levels.
    #[arg(short = 'L', long, value_name = "LEVELS", value_parser = clap::value_parser!(u16).range(1..))]
    pub depth: Option<u16>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `locate`
#[derive(Args, Debug)]
pub struct Locate {
    /// The block's id, as 'blockyard info' and logs show it.
    #[arg(value_name = "BLOCK", required = true)]
    pub blocks: Vec<BlockId>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}
