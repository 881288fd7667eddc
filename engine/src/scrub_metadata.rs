//! What a scrub checks beside the replicas: volume.toml, superblocks, checkpoints, the journal behind them. All of
//! it is compared with what is in memory, and written again where it differs.

use std::io;
use std::rc::Rc;

use crate::checkpoint;
use crate::core::Core;
use crate::device::{FileId, How};
use crate::error::{Error, Result};
use crate::identity;
use crate::journal::{self, BATCH_BYTES_MAX};
use crate::limits::PAGE_BYTES;
use crate::pool::Lane;
use crate::put::{superblock_page, write_superblock};
use crate::scrub::{Finding, ScrubStep};
use crate::snapshot;
use crate::sync::Promise;

fn writable(core: &Core) -> bool {
    core.check_writable().is_ok()
}

/// volume.toml: a start without it knows no volume.
pub(crate) fn identity(core: &Core, step: &mut ScrubStep) {
    let what = match core.io.disk(|disk| disk.read(identity::FILE)) {
        Ok(bytes) => {
            step.bytes += bytes.len() as u64;
            match identity::decode(&bytes) {
                Ok(found) if found == core.identity => return,
                Ok(_) => "it names another volume".to_owned(),
                Err(error) => error.to_string(),
            }
        }
        Err(error) => error.to_string(),
    };
    let text = identity::encode(&core.identity);
    let repaired = writable(core)
        && text.is_ok_and(|text| {
            core.io
                .disk(|disk| disk.replace(identity::FILE, text.as_bytes()))
                .is_ok()
        });
    let what = format!("{} is damaged ({what})", identity::FILE);
    step.findings.push(Finding::Metadata { what, repaired });
}

/// Each segment's first page, which only fsck would miss.
pub(crate) async fn superblocks(core: &Rc<Core>, step: &mut ScrubStep) -> Result<()> {
    let numbers: Vec<u16> = core
        .state
        .borrow()
        .space
        .segments()
        .map(|(number, _)| number)
        .collect();
    for number in numbers {
        let Some((page, file)) = expected(core, number) else {
            continue;
        };
        let found = read(core, file, 0, PAGE_BYTES).await?;
        step.bytes += PAGE_BYTES as u64;
        if found.as_ref().is_ok_and(|found| found[..] == page) {
            continue;
        }
        // It may have been cut meanwhile.
        if expected(core, number).is_none_or(|now| now.0 != page) {
            continue;
        }
        let what = match found {
            Ok(_) => format!("the superblock of segment {number} is damaged"),
            Err(error) => format!("the superblock of segment {number} can't be read ({error})"),
        };
        let repaired = writable(core) && renew(core, number, file).wait().await;
        step.findings.push(Finding::Metadata { what, repaired });
    }
    Ok(())
}

/// The superblock that a segment must have; none while it is being cut, or where its file is missing.
fn expected(core: &Core, number: u16) -> Option<([u8; PAGE_BYTES], FileId)> {
    let state = core.state.borrow();
    let segment = state.space.segment(number).filter(|one| !one.is_busy())?;
    Some((superblock_page(core, number, &segment.cut), segment.file?))
}

/// Writes a superblock again; whether that went well. The segment is busy meanwhile, so that nobody cuts it anew,
/// and a task does it, so that it ends also when the scrub is dropped.
fn renew(core: &Rc<Core>, number: u16, file: FileId) -> Promise<bool> {
    let ended = Promise::new();
    let promise = ended.clone();
    core.state.borrow_mut().space.set_busy(number, true);
    core.spawn(move |core| async move {
        let cut = core.state.borrow().space.segment(number).map(|one| one.cut);
        let written = match cut {
            Some(cut) => write_superblock(&core, file, number, &cut).await,
            None => Ok(()),
        };
        if let Err(error) = &written
            && !checkpoint::is_no_space(error)
        {
            core.fail("writing a superblock", error);
        }
        core.state.borrow_mut().space.set_busy(number, false);
        promise.keep(written.is_ok());
    });
    ended
}

/// The checkpoints that are kept. Read past the page cache, a block at a time.
pub(crate) async fn checkpoints(core: &Rc<Core>, step: &mut ScrubStep) -> Result<()> {
    for kept in core.checkpoints.kept() {
        let name = checkpoint::file_name(kept.ordinal);
        let bad = match core.io.disk(|disk| disk.open(&name, How::Existing)) {
            Ok((file, bytes)) => {
                let bad = checkpoint_blocks(core, file, bytes, kept.ordinal, step).await;
                let _ = core.io.disk(|disk| {
                    disk.close(file);
                    Ok(())
                });
                bad?
            }
            Err(error) => Some(error.to_string()),
        };
        let is_kept = || {
            core.checkpoints
                .kept()
                .iter()
                .any(|now| now.ordinal == kept.ordinal)
        };
        if let Some(bad) = bad
            // One that is kept no more may be overwritten by now.
            && is_kept()
        {
            let what = format!("{name} is damaged ({bad})");
            let repaired = replace_checkpoints(core, is_kept).await;
            step.findings.push(Finding::Metadata { what, repaired });
        }
    }
    Ok(())
}

/// What is wrong with a checkpoint.
async fn checkpoint_blocks(
    core: &Rc<Core>,
    file: FileId,
    file_bytes: u64,
    ordinal: u64,
    step: &mut ScrubStep,
) -> Result<Option<String>> {
    let seed = checkpoint::seed(&core.identity);
    let blocks = file_bytes / snapshot::BLOCK_BYTES as u64;
    for index in 0..blocks {
        let offset_bytes = index * snapshot::BLOCK_BYTES as u64;
        let block = match read(core, file, offset_bytes, snapshot::BLOCK_BYTES).await? {
            Ok(block) => block,
            Err(error) => return Ok(Some(error.to_string())),
        };
        step.bytes += block.len() as u64;
        match snapshot::ends_in(seed, ordinal, index as usize, &block) {
            Some(true) => return Ok(None),
            Some(false) => {}
            None => return Ok(Some(format!("block {index} is bad"))),
        }
    }
    Ok(Some("it has no end".to_owned()))
}

/// Writes checkpoints until what is damaged is needed no more; whether that went well.
async fn replace_checkpoints(core: &Rc<Core>, is_needed: impl Fn() -> bool) -> bool {
    while is_needed() {
        if !writable(core) || checkpoint::write(core).await.is_err() {
            return false;
        }
    }
    true
}

/// The journal from the older checkpoint on to where it ends now, batch by batch.
pub(crate) async fn journal(core: &Rc<Core>, step: &mut ScrubStep) -> Result<()> {
    let (ring, seed, until) = (core.log.ring(), core.log.seed(), core.log.head());
    let oldest = || core.checkpoints.kept().first().map(|kept| kept.head);
    let Some(mut head) = oldest() else { return Ok(()) };
    while head.sequence < until.sequence {
        let mut next = None;
        let mut trouble = None;
        for place in head.places(ring) {
            let (file, offset_bytes) = ring.locate(place.page);
            let bytes = (ring.file_bytes() - offset_bytes).min(BATCH_BYTES_MAX as u64) as usize;
            match read(core, core.log.file(file), offset_bytes, bytes).await? {
                Ok(pages) => {
                    step.bytes += bytes as u64;
                    next = journal::follow(seed, ring, place, until, &pages);
                }
                Err(error) => trouble = Some(error.to_string()),
            }
            if next.is_some() {
                break;
            }
        }
        if let Some(next) = next {
            head = next;
            continue;
        }
        let Some(first) = oldest() else { return Ok(()) };
        if first.sequence > head.sequence {
            // A newer checkpoint came meanwhile, and this part of the journal may be overwritten.
            head = first;
            continue;
        }
        let trouble = trouble.map_or(String::new(), |error| format!(" ({error})"));
        let what = format!(
            "journal batch {} at page {} is damaged{trouble}",
            head.sequence, head.page
        );
        // Checkpoints of now need no batch of before.
        let is_needed = || oldest().is_some_and(|first| first.sequence <= head.sequence);
        let repaired = replace_checkpoints(core, is_needed).await;
        step.findings.push(Finding::Metadata { what, repaired });
        return Ok(());
    }
    Ok(())
}

/// Bytes of a file, read from the disk: what the disk says of them, or why nothing can be read at all.
async fn read(core: &Rc<Core>, file: FileId, offset_bytes: u64, bytes: usize) -> Result<io::Result<Vec<u8>>> {
    let blank = core.pool.acquire(Lane::Own, bytes).await;
    let mut blank = blank.map_err(|_| core.failed_error())?;
    let chunk = blank.take(bytes).expect("a small buffer holds 64 KiB");
    let found = core.io.read(file, offset_bytes, chunk).await;
    if core.io.is_broken() {
        let state = core.state.borrow();
        return Err(state
            .failed
            .clone()
            .map_or(Error::Closed, |reason| Error::Failed { reason }));
    }
    Ok(found.map(|chunk| chunk.as_ref().to_vec()))
}
