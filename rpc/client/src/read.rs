//! One block from its replicas: the best first, another one on any error, mismatch or silence.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use blockyard_engine::checksum;
use blockyard_wire::frame::Get;
use blockyard_wire::ticket::now_unix_ms;
use blockyard_wire::types::{BlockInfo, Location};
use blockyard_wire::{Problem, ProblemKind, Result};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::channel::{Cause, Deadlines, Fetched, Trouble, units_of};
use crate::core::Core;
use crate::{hedge, places};

/// Tickets that expire sooner are asked for anew.
const TICKET_LEFT_MS: u64 = 20_000;
/// Before the replicas are tried once more.
const PAUSE: Duration = Duration::from_millis(250);

/// A range of one block to be read.
#[derive(Clone)]
pub struct Piece {
    /// The block and where it is.
    pub block: BlockInfo,
    /// First byte wanted of the block.
    pub from: u32,
    /// Bytes wanted.
    pub length: u32,
    /// The version it is read for, if any.
    pub version: Option<u64>,
}

impl Piece {
    /// The bytes of the whole units that it touches of its block.
    pub fn units(&self) -> Range<usize> {
        units_of(self.from, self.length, self.block.length)
    }
}

/// The whole of `block`.
///
/// # Errors
/// See [`fetch`].
pub async fn whole_block(core: Rc<Core>, block: BlockInfo) -> Result<Bytes> {
    let piece = Piece {
        from: 0,
        length: block.length,
        block,
        version: None,
    };
    if piece.length == 0 {
        return Ok(Bytes::new());
    }
    let (fetched, _) = fetch(&core, &piece).await?;
    Ok(Bytes::from_owner(fetched.buffer).slice(..fetched.bytes))
}

/// The verified units that `piece` touches, and how many replicas failed before one gave them.
///
/// # Errors
/// `Gone` when the version is no longer kept; else `Corrupt` when every replica was found damaged, or
/// `Retry`, naming block and servers, after each was tried with fresh tickets.
pub async fn fetch(core: &Rc<Core>, piece: &Piece) -> Result<(Fetched, u32)> {
    let mut piece = piece.clone();
    let started = Instant::now();
    let mut failovers = 0;
    let mut rounds = 0;
    let soon = now_unix_ms() + TICKET_LEFT_MS;
    if piece
        .block
        .replicas
        .iter()
        .any(|replica| replica.hop.ticket.expires_unix_ms < soon)
    {
        refresh(core, &mut piece).await?;
    }
    loop {
        let mut troubles = Vec::new();
        let mut left = VecDeque::from(places::order(core, &piece.block.replicas));
        hedge::probe(core, &piece, &left);
        while let Some(first) = left.pop_front() {
            let fetched = hedge::fetch(core, &piece, first, &mut left, rounds, &mut troubles).await;
            if let Some(fetched) = fetched {
                return Ok((fetched, failovers + troubles.len() as u32));
            }
        }
        failovers += troubles.len() as u32;
        // Volumes that answer, but have too much to do, will get to it.
        let busy = troubles
            .iter()
            .any(|(_, trouble)| trouble.cause == Cause::Stalled || trouble.problem.kind == ProblemKind::Busy);
        let hopeful = busy && started.elapsed() < core.options.retry_for;
        if rounds > 0 && !hopeful {
            return Err(unreadable(&piece.block, &troubles));
        }
        sleep(PAUSE).await;
        refresh(core, &mut piece).await?;
        rounds += 1;
    }
}

/// One try at one replica; its time or its failure is remembered, and damage reported. `answered` is set as soon as its
/// first bytes come.
pub async fn fetch_from(
    core: &Rc<Core>,
    piece: &Piece,
    replica: &Location,
    rounds: u32,
    answered: &Rc<Cell<bool>>,
) -> std::result::Result<Fetched, Trouble> {
    let deadlines = Deadlines {
        // Whoever was too slow before gets longer now.
        stall: core.options.read_stall * (rounds + 1),
        silence: core.options.silence,
    };
    let volume = replica.hop.volume;
    core.reads.asked(volume);
    let mut fetched = ask(core, piece, replica, deadlines, answered).await;
    if let Err((trouble, true)) = &fetched
        && trouble.cause == Cause::Lost
        && !core.places.is_shunned(volume)
    {
        // An old connection that was lost says nothing of the volume now.
        fetched = ask(core, piece, replica, deadlines, answered).await;
    }
    let trouble = match fetched {
        Ok(fetched) => {
            hedge::took(core, volume, &fetched);
            return Ok(fetched);
        }
        Err((trouble, _)) => trouble,
    };
    tracing::debug!(block = %piece.block.block, problem = %trouble.problem, "a replica failed");
    match (trouble.cause, trouble.problem.kind) {
        (Cause::Refused, ProblemKind::Busy | ProblemKind::Denied) => {}
        (Cause::Lost | Cause::Silent | Cause::Stalled, _) => core.places.shun(volume),
        (Cause::Refused | Cause::Wrong, _) => {
            let (reporter, block, problem) = (core.clone(), piece.block.block, trouble.problem.clone());
            core.farewell(async move {
                if let Err(problem) = reporter.session.report_bad(block, volume, &problem).await {
                    tracing::debug!(%problem, "a damaged replica could not be reported");
                }
            });
        }
    }
    Err(trouble)
}

/// The trouble comes with whether the connection was an old one.
async fn ask(
    core: &Core,
    piece: &Piece,
    replica: &Location,
    deadlines: Deadlines,
    answered: &Rc<Cell<bool>>,
) -> std::result::Result<Fetched, (Trouble, bool)> {
    let block = &piece.block;
    let opened = match core.channels.get(&replica.hop.address).await {
        Ok(opened) => opened,
        Err(trouble) => return Err((trouble, false)),
    };
    let get = Get {
        block: block.block,
        offset: piece.from,
        length: piece.length,
        ticket: replica.hop.ticket.clone(),
    };
    let buffer = core.buffers.take(piece.units().len());
    let fetched = opened
        .get(get, block.length, buffer, deadlines, answered.clone())
        .await
        .map_err(|trouble| (trouble, opened.reused))?;
    let whole = fetched.bytes == block.length as usize;
    if whole && checksum::combine_units(&fetched.unit_crcs, fetched.bytes) != block.crc32c {
        let problem = Problem::new(
            ProblemKind::Corrupt,
            format!(
                "{}: block {} is not the one that was written: its CRC differs from the nameserver's",
                replica.hop.address, block.block
            ),
        );
        let trouble = Trouble::of(Cause::Wrong, problem);
        return Err((trouble, opened.reused));
    }
    Ok(fetched)
}

/// Fresh replicas and tickets.
async fn refresh(core: &Core, piece: &mut Piece) -> Result<()> {
    let block = piece.block.block;
    let fresh = match piece.version {
        Some(version) => core.session.blocks(version, piece.block.index, 1).await?.pop(),
        None => Some(core.session.locate(block).await?.info),
    };
    piece.block = fresh.filter(|fresh| fresh.block == block).ok_or_else(|| {
        Problem::new(
            ProblemKind::Gone,
            format!("block {block} is no longer kept: its file was replaced or removed meanwhile"),
        )
    })?;
    Ok(())
}

fn unreadable(block: &BlockInfo, troubles: &[(Location, Trouble)]) -> Problem {
    let all_corrupt = !troubles.is_empty()
        && troubles
            .iter()
            .all(|(_, trouble)| trouble.problem.kind == ProblemKind::Corrupt);
    let kind = if all_corrupt {
        ProblemKind::Corrupt
    } else {
        ProblemKind::Retry
    };
    let tried: Vec<String> = troubles
        .iter()
        .map(|(replica, trouble)| format!("{}: {}", replica.hop.server, trouble.problem.message))
        .collect();
    let tried = match tried.is_empty() {
        true => format!(
            "none of its {} replicas is known to be good",
            block.replicas.len()
        ),
        false => tried.join("; "),
    };
    Problem::new(
        kind,
        format!(
            "block {} (number {} of its file) can be read nowhere: {tried}",
            block.block, block.index
        ),
    )
}
