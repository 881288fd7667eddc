//! One block from its replicas: the best first, another one on any error, mismatch or silence.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use blockyard_engine::checksum;
use blockyard_engine::limits::UNIT_BYTES;
use blockyard_wire::frame::Get;
use blockyard_wire::ticket::now_unix_ms;
use blockyard_wire::types::{BlockInfo, Location, ReplicaState, VolumeId};
use blockyard_wire::{Problem, ProblemKind, Result};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::channel::{Cause, Channels, Fetched, Trouble, units_of};
use crate::core::Core;

/// How long a volume that failed is asked last.
const SHUN_FOR: Duration = Duration::from_secs(10);
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

/// What is known of places to read from.
#[derive(Default)]
pub struct Shunned {
    until: RefCell<HashMap<VolumeId, Instant>>,
    local_hosts: RefCell<HashMap<String, bool>>,
}

impl Shunned {
    fn shun(&self, volume: VolumeId) {
        self.until.borrow_mut().insert(volume, Instant::now() + SHUN_FOR);
    }

    fn is_shunned(&self, volume: VolumeId) -> bool {
        self.until
            .borrow()
            .get(&volume)
            .is_some_and(|until| *until > Instant::now())
    }

    /// Whether `address` is of this very machine: an address that can be bound is.
    fn is_local(&self, address: &str) -> bool {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        if let Some(&known) = self.local_hosts.borrow().get(host) {
            return known;
        }
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let local = ip.is_ok_and(|ip| UdpSocket::bind((ip, 0)).is_ok());
        self.local_hosts.borrow_mut().insert(host.to_owned(), local);
        local
    }

    /// The replicas worth asking, best first: the one that has least to do for us, then in the nameserver's order.
    fn order(&self, replicas: &[Location], channels: &Channels) -> Vec<Location> {
        let mut order: Vec<Location> = replicas
            .iter()
            .filter(|replica| replica.state == ReplicaState::Good)
            .cloned()
            .collect();
        order.sort_by_key(|replica| {
            let hop = &replica.hop;
            (
                !replica.live,
                self.is_shunned(hop.volume),
                !self.is_local(&hop.address),
                channels.load(&hop.address),
            )
        });
        order
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
        for replica in core.shunned.order(&piece.block.replicas, &core.channels) {
            match fetch_from(core, &piece, &replica, rounds).await {
                Ok(fetched) => return Ok((fetched, failovers)),
                Err(trouble) => {
                    tracing::debug!(block = %piece.block.block, problem = %trouble.problem, "a replica failed");
                    failovers += 1;
                    troubles.push((replica, trouble));
                }
            }
        }
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

/// One try at one replica; its failure is remembered and reported.
async fn fetch_from(
    core: &Rc<Core>,
    piece: &Piece,
    replica: &Location,
    rounds: u32,
) -> std::result::Result<Fetched, Trouble> {
    // Whoever was too slow before gets longer now.
    let stall = core.options.read_stall * (rounds + 1);
    let volume = replica.hop.volume;
    let mut fetched = ask(core, piece, replica, stall).await;
    if let Err((trouble, true)) = &fetched
        && trouble.cause == Cause::Lost
        && !core.shunned.is_shunned(volume)
    {
        // An old connection that was lost says nothing of the volume now.
        fetched = ask(core, piece, replica, stall).await;
    }
    let trouble = match fetched {
        Ok(fetched) => return Ok(fetched),
        Err((trouble, _)) => trouble,
    };
    match (trouble.cause, trouble.problem.kind) {
        (Cause::Refused, ProblemKind::Busy | ProblemKind::Denied) => {}
        (Cause::Lost | Cause::Silent | Cause::Stalled, _) => core.shunned.shun(volume),
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
    stall: Duration,
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
    let bytes = units_of(&get, block.length as usize).len();
    // Never closed, and given back before the sink is served: who reads slowly holds up nobody.
    let _permit = core
        .downloading
        .acquire_many(bytes.div_ceil(UNIT_BYTES) as u32)
        .await;
    let buffer = core.buffers.take(bytes);
    let fetched = opened
        .get(get, block.length as usize, buffer, stall)
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
