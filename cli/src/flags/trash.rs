//! Flags of `trash`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Cluster, Form};
use crate::values::duration;

/// `trash …`
#[derive(Subcommand, Debug)]
pub enum Trash {
    /// List what was deleted and can be restored.
    #[command(visible_alias = "ls")]
    List(ListTrash),
    /// Put something back to where it was, or elsewhere.
    Restore(RestoreTrash),
    /// Delete what lies in the trash for good.
    Empty(EmptyTrash),
}

impl Trash {
    /// Which cluster.
    pub fn cluster(&self) -> &Cluster {
        match self {
            Self::List(flags) => &flags.cluster,
            Self::Restore(flags) => &flags.cluster,
            Self::Empty(flags) => &flags.cluster,
        }
    }
}

/// `trash list`
#[derive(Args, Debug)]
pub struct ListTrash {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `trash restore`
#[derive(Args, Debug)]
pub struct RestoreTrash {
    /// A number of 'blockyard trash list', or the path that it had: of several with that path, the one deleted last.
    #[arg(value_name = "NUMBER|PATH")]
    pub what: String,
    /// Put it here instead.
    #[arg(long, value_name = "REMOTE")]
    pub to: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `trash empty`
#[derive(Args, Debug)]
pub struct EmptyTrash {
    /// Numbers of 'blockyard trash list' [default: all].
    #[arg(value_name = "NUMBER", conflicts_with = "older")]
    pub numbers: Vec<u64>,
    /// Only what was deleted so long ago, such as 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub older: Option<Duration>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}
