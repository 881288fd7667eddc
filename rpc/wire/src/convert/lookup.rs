//! Paths that are looked up together, and what each of them is.

use blockyard_schema::nameserver_capnp as name;

use super::{
    malformed, read_block_info, read_file_info, read_list, read_refusal, text, write_block_info,
    write_file_info, write_list, write_refusal,
};
use crate::types::{BlockInfo, FileInfo, Sought};
use crate::{Problem, Result};

/// Reads a path to be looked up.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_sought(from: name::sought::Reader<'_>) -> Result<Sought> {
    Ok(Sought {
        path: text(from.get_path())?,
        blocks_max: from.get_blocks_max(),
    })
}

/// Writes a path to be looked up.
pub fn write_sought(from: &Sought, mut to: name::sought::Builder<'_>) {
    to.set_path(&from.path);
    to.set_blocks_max(from.blocks_max);
}

/// Reads what is at a path, with its first blocks, or why that is not told.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_found(from: name::found::Reader<'_>) -> Result<Result<(FileInfo, Vec<BlockInfo>)>> {
    use name::found::Which;
    match from
        .which()
        .map_err(|_| Problem::invalid("an answer of an unknown kind"))?
    {
        Which::File(file) => {
            let blocks = read_list(from.get_blocks().map_err(malformed)?, read_block_info)?;
            Ok(Ok((read_file_info(file.map_err(malformed)?)?, blocks)))
        }
        Which::Refusal(refusal) => Ok(Err(read_refusal(refusal.map_err(malformed)?)?)),
    }
}

/// Writes what is at a path.
pub fn write_found(from: &Result<(FileInfo, Vec<BlockInfo>)>, mut to: name::found::Builder<'_>) {
    match from {
        Ok((file, blocks)) => {
            write_list(
                blocks,
                to.reborrow().init_blocks(blocks.len() as u32),
                write_block_info,
            );
            write_file_info(file, to.init_file());
        }
        Err(problem) => write_refusal(problem, to.init_refusal()),
    }
}
