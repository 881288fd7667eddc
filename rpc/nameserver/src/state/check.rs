//! What can be said against a command before it is journaled; `apply` has the last word.

use blockyard_wire::Result;

use super::{Command, State};
use crate::path;

impl State {
    /// Refuses what `apply` would refuse, as far as that shows without trying. Changes nothing.
    ///
    /// # Errors
    /// Those of `apply`.
    pub fn check(&self, command: &Command) -> Result<()> {
        match command {
            Command::Mkdir { path, .. } => self.names.walk(&path::parts(path)?).map(|_| ()),
            Command::Rename { from, to, .. } => {
                self.names.find(&path::parts(from)?)?;
                path::parts(to).map(|_| ())
            }
            Command::Discard { path, recursive, .. } => self.removable(path, *recursive).map(|_| ()),
            Command::Restore { entry, to, .. } => self.can_restore(*entry, to),
            Command::Remove { path, .. } => self.names.find(&path::parts(path)?).map(|_| ()),
            Command::Begin { path, overwrite, .. } => self.can_publish(path, *overwrite),
            Command::AddBlocks { lease, blocks, .. } => self.can_add(self.held(*lease)?, blocks).map(|_| ()),
            Command::Publish { path, overwrite, .. } => self.can_publish(path, *overwrite),
            Command::Commit {
                lease,
                blocks,
                length_bytes,
                crc32c,
                ..
            } => {
                let held = self.held(*lease)?;
                held.matches(*blocks, *length_bytes, *crc32c)?;
                self.can_publish(&held.path, held.overwrite)
            }
            Command::SetReplication {
                path,
                recursive,
                replication,
                ..
            } => self.can_set_replication(path, *recursive, *replication),
            Command::Abandon { lease, .. } => self.held(*lease).map(|_| ()),
            _ => Ok(()),
        }
    }
}
