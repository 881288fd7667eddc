//! What an operator asks of the nameserver's own data: its state, backups, orphans.

use blockyard_engine::block::BlockId;
use blockyard_schema::nameserver_capnp as name;

use super::text;
use crate::Result;
use crate::types::{BackupFile, CustodyState, Orphan};

/// Reads what the nameserver says of its own data.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_custody_state(from: name::custody::state_results::Reader<'_>) -> Result<CustodyState> {
    Ok(CustodyState {
        read_only: text(from.get_read_only())?,
        journal_trouble: text(from.get_journal_trouble())?,
        quarantined: from.get_quarantined(),
        quarantined_reigns: from.get_quarantined_reigns(),
    })
}

/// Writes what the nameserver says of its own data.
pub fn write_custody_state(from: &CustodyState, mut to: name::custody::state_results::Builder<'_>) {
    to.set_read_only(&from.read_only);
    to.set_journal_trouble(&from.journal_trouble);
    to.set_quarantined(from.quarantined);
    to.set_quarantined_reigns(from.quarantined_reigns);
}

/// Reads a file of a backup.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_backup_file(from: name::backup_file::Reader<'_>) -> Result<BackupFile> {
    Ok(BackupFile {
        name: text(from.get_name())?,
        bytes: from.get_bytes(),
    })
}

/// Writes a file of a backup.
pub fn write_backup_file(from: &BackupFile, mut to: name::backup_file::Builder<'_>) {
    to.set_name(&from.name);
    to.set_bytes(from.bytes);
}

/// Reads an orphan.
///
/// # Errors
/// Never; for use as any other reader.
pub fn read_orphan(from: name::orphan::Reader<'_>) -> Result<Orphan> {
    Ok(Orphan {
        block: BlockId(from.get_block()),
        age_ms: from.get_age_ms(),
        quarantined: from.get_quarantined(),
    })
}

/// Writes an orphan.
pub fn write_orphan(from: &Orphan, mut to: name::orphan::Builder<'_>) {
    to.set_block(from.block.0);
    to.set_age_ms(from.age_ms);
    to.set_quarantined(from.quarantined);
}
