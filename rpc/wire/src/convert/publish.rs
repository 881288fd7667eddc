//! Files that are published without an upload of their own.

use blockyard_schema::nameserver_capnp as name;

use super::{
    malformed, read_added_block, read_file_info, read_list, read_refusal, read_request_id, text,
    write_added_block, write_file_info, write_list, write_refusal, write_request_id,
};
use crate::types::{FileInfo, NewFile};
use crate::{Problem, Result};

/// Reads a file to be published.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_new_file(from: name::new_file::Reader<'_>) -> Result<NewFile> {
    Ok(NewFile {
        path: text(from.get_path())?,
        overwrite: from.get_overwrite(),
        replication: from.get_replication(),
        content_type: text(from.get_content_type())?,
        blocks: read_list(from.get_blocks().map_err(malformed)?, read_added_block)?,
        length_bytes: from.get_length_bytes(),
        crc32c: from.get_crc32c(),
        request: read_request_id(from.get_request().map_err(malformed)?)?,
    })
}

/// Writes a file to be published.
pub fn write_new_file(from: &NewFile, mut to: name::new_file::Builder<'_>) {
    to.set_path(&from.path);
    to.set_overwrite(from.overwrite);
    to.set_replication(from.replication);
    to.set_content_type(&from.content_type);
    to.set_length_bytes(from.length_bytes);
    to.set_crc32c(from.crc32c);
    write_request_id(&from.request, to.reborrow().init_request());
    write_list(
        &from.blocks,
        to.init_blocks(from.blocks.len() as u32),
        write_added_block,
    );
}

/// Reads how a publication went: the file and its blocks with fewer replicas than asked for, or the refusal.
///
/// # Errors
/// `Invalid` when malformed.
pub fn read_published(from: name::published::Reader<'_>) -> Result<Result<(FileInfo, u32)>> {
    use name::published::Which;
    match from
        .which()
        .map_err(|_| Problem::invalid("an answer of an unknown kind"))?
    {
        Which::File(file) => {
            let file = read_file_info(file.map_err(malformed)?)?;
            Ok(Ok((file, from.get_degraded())))
        }
        Which::Refusal(refusal) => Ok(Err(read_refusal(refusal.map_err(malformed)?)?)),
    }
}

/// Writes how a publication went.
pub fn write_published(from: &Result<(FileInfo, u32)>, mut to: name::published::Builder<'_>) {
    match from {
        Ok((file, degraded)) => {
            to.set_degraded(*degraded);
            write_file_info(file, to.init_file());
        }
        Err(problem) => write_refusal(problem, to.init_refusal()),
    }
}
