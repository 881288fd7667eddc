//! A folder as one tar stream: entries as they are listed, bytes as they are read, nothing on any disk.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream::{self, LocalBoxStream, Stream, StreamExt as _, TryStreamExt as _};
use hyper::StatusCode;
use hyper::header;

use blockyard_wire::types::FileInfo;
use blockyard_wire::{Problem, ProblemKind, Result};

use crate::backend::{Backend, Rows};
use crate::content::{CONTENT_POLICY, disposition, pieces_of};
use crate::queries::below;
use crate::respond::{Answered, Body, respond, set};
use crate::routes::Page;

/// Entries listed at a time.
const PAGE: u32 = 500;
/// Tar pads everything to so many bytes.
const RECORD_BYTES: usize = 512;

/// Streams the folder `path`.
#[utoipa::path(get, path = "/api/v1/archive/{path}", tag = "files", params(("path" = String, Path)), responses((status = 200, content_type = "application/x-tar")))]
pub(crate) async fn archive(page: &Page, path: &str, head: bool) -> Result<Answered> {
    let (folder, _) = page.backend.lookup(path, 0, 0).await?;
    if !folder.directory {
        return Err(Problem::invalid(format!(
            "{} is a file; download it as it is",
            folder.path
        )));
    }
    let body = match head {
        true => Body::empty(),
        false => {
            let permit = page.download_turn().await?;
            let entries = entries(page.backend.clone(), folder.path.clone());
            let records = entries.map_err(io::Error::other).chain(stream::once(async {
                // Two empty records end an archive.
                Ok(Bytes::from_static(&[0; 2 * RECORD_BYTES]))
            }));
            Body::Endless(Box::pin(records.inspect(move |_| {
                let _held_until_the_end = &permit;
            })))
        }
    };
    let mut response = respond(StatusCode::OK, "application/x-tar", body);
    let name = match folder.name.as_str() {
        "" => "blockyard",
        name => name,
    };
    let disposition = disposition(&format!("{name}.tar"), "attachment");
    set(&mut response, header::CONTENT_DISPOSITION, &disposition);
    set(&mut response, header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    Ok(response)
}

/// All records of a folder but the end.
fn entries(backend: Rc<dyn Backend>, folder: String) -> impl Stream<Item = Result<Bytes>> {
    let listing = {
        let (backend, folder) = (backend.clone(), folder.clone());
        stream::try_unfold(Some(String::new()), move |after| {
            next_page(backend.clone(), folder.clone(), after)
        })
    };
    let records = listing
        .map_ok(|files| stream::iter(files.into_iter().map(Ok)))
        .try_flatten()
        .and_then(move |file| std::future::ready(entry(backend.clone(), &folder, &file)));
    records.try_flatten()
}

/// Some files and folders behind `after`, and what the next ones come behind.
async fn next_page(
    backend: Rc<dyn Backend>,
    folder: String,
    after: Option<String>,
) -> Result<Option<(Vec<FileInfo>, Option<String>)>> {
    let Some(after) = after else { return Ok(None) };
    // Others want this thread too.
    tokio::task::yield_now().await;
    let Rows { rows, more } = backend.list_below(&folder, &after, PAGE).await?;
    let next = rows.last().filter(|_| more).map(|last| below(&folder, last));
    Ok(Some((rows, next)))
}

/// The records of one file or folder.
fn entry(
    backend: Rc<dyn Backend>,
    folder: &str,
    file: &FileInfo,
) -> Result<LocalBoxStream<'static, Result<Bytes>>> {
    let header = header_of(&below(folder, file), file).map_err(|error| {
        let message = format!("{} can't stand in a tar archive: {error}", file.path);
        Problem::new(ProblemKind::Failed, message)
    })?;
    let header = stream::once(async { Ok(header) });
    if file.directory || file.size_bytes == 0 {
        return Ok(Box::pin(header));
    }
    let padding = file.size_bytes.next_multiple_of(RECORD_BYTES as u64) - file.size_bytes;
    let padding = Bytes::from_static(&[0; RECORD_BYTES]).slice(..padding as usize);
    let bytes = pieces_of(backend, file, 0..file.size_bytes);
    Ok(Box::pin(
        header.chain(bytes).chain(stream::once(async { Ok(padding) })),
    ))
}

/// The header, for a long name with the records before it that say so.
fn header_of(path: &str, file: &FileInfo) -> io::Result<Bytes> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(file.modified_unix_ms / 1000);
    let path = if file.directory {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        format!("{path}/")
    } else {
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(file.size_bytes);
        path.to_owned()
    };
    let mut builder = tar::Builder::new(Vec::new());
    // The bytes themselves follow in the stream.
    builder.append_data(&mut header, path, io::empty())?;
    Ok(std::mem::take(builder.get_mut()).into())
}
