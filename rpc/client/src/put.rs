//! One block of a file: a chain for it, and another one when that chain fails.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use blockyard_engine::block::Origin;
use blockyard_wire::frame::{Put, PutDone};
use blockyard_wire::ticket::now_unix_ms;
use blockyard_wire::types::{AddedBlock, Lease, NewBlock, VolumeId};
use blockyard_wire::{Problem, ProblemKind, Result};
use tokio::time::{Instant, sleep};

use crate::channel::{Cause, Deadlines, Trouble};
use crate::core::Core;
use crate::hops;
use crate::source::Filled;
use crate::trace::{BlockTrace, PutSpans};

/// Blocks that one call allocates at the most.
const ALLOCATE_MAX: u32 = 32;
/// A chain whose tickets expire sooner is not begun.
const TICKET_LEFT_MS: u64 = 60_000;
/// Pauses between tries: none at first, then these.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Volumes that are remembered as failed.
const AVOID_MAX: usize = 64;

/// Whose blocks they are.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// An upload's.
    Upload(Lease),
    /// Files' that are published without an upload, with so many replicas (0: the cluster's default).
    Reserved(u8),
}

/// Gets blocks written somewhere.
pub struct Chains {
    owner: Owner,
    spare: RefCell<VecDeque<NewBlock>>,
    allocating: tokio::sync::Mutex<()>,
    /// How many the next call allocates.
    ahead: Cell<u32>,
    avoid: RefCell<VecDeque<VolumeId>>,
}

/// A block on its way to the nameserver.
pub struct Written {
    /// What is told of it.
    pub added: AddedBlock,
    /// Whether it had to be sent again.
    pub retried: bool,
    /// Where its time went.
    pub trace: BlockTrace,
}

impl Chains {
    /// For about `blocks_hint` blocks, where that is known.
    pub fn new(owner: Owner, blocks_hint: Option<u64>) -> Self {
        let ahead = blocks_hint.map_or(1, |blocks| blocks.clamp(1, u64::from(ALLOCATE_MAX)) as u32);
        Self {
            owner,
            spare: RefCell::default(),
            allocating: tokio::sync::Mutex::new(()),
            ahead: Cell::new(ahead),
            avoid: RefCell::default(),
        }
    }

    /// Writes the `index`th block of the file and returns once it is durable on its whole chain.
    ///
    /// # Errors
    /// `NoSpace`, `Denied`, or `Retry` with the last failure, when no chain took it in time.
    pub async fn write(&self, core: &Core, index: u32, block: &Filled) -> Result<Written> {
        let mut tries = 0;
        let mut pause = Duration::ZERO;
        let mut failing_since = None;
        loop {
            let new = self.next(core).await?;
            tries += 1;
            let trouble = match self.write_once(core, &new, index, block).await {
                Ok((done, spans)) => {
                    let trace = BlockTrace {
                        index,
                        bytes: done.length,
                        read: block.read,
                        checksum: block.checksum,
                        queued: spans.begun.saturating_duration_since(block.ready),
                        granted: spans.granted,
                        sent: spans.sent,
                        done: spans.done,
                        hops: done.spans,
                    };
                    let added = AddedBlock {
                        block: new.block,
                        index,
                        length: done.length,
                        crc32c: done.crc32c,
                        proofs: done.proofs,
                    };
                    let retried = tries > 1;
                    return Ok(Written {
                        added,
                        retried,
                        trace,
                    });
                }
                Err(trouble) => trouble,
            };
            tracing::debug!(index, block = %new.block, problem = %trouble.problem, "a chain failed");
            let since = *failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() + pause > core.options.retry_for {
                let kind = match trouble.problem.kind {
                    kind @ (ProblemKind::NoSpace | ProblemKind::Denied) => kind,
                    _ => ProblemKind::Retry,
                };
                return Err(Problem::new(
                    kind,
                    format!(
                        "block {index} could not be written in {tries} tries, the last time because: {}; \
                         look at 'blockyard status' and try again",
                        trouble.problem.message
                    ),
                ));
            }
            sleep(pause).await;
            pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        }
    }

    async fn write_once(
        &self,
        core: &Core,
        new: &NewBlock,
        index: u32,
        block: &Filled,
    ) -> std::result::Result<(PutDone, PutSpans), Trouble> {
        let head = &new.chain[0];
        let opened = match core.channels.get(&head.address).await {
            Ok(opened) => opened,
            Err(trouble) => {
                self.avoid(head.volume);
                return Err(trouble);
            }
        };
        let put = Put {
            block: new.block,
            origin: Origin {
                // A version without an upload has no id yet: its first block's stands for it.
                version: match self.owner {
                    Owner::Upload(lease) => lease.version,
                    Owner::Reserved(_) => new.block.0,
                },
                index,
            },
            length: block.data.len() as u32,
            position: 0,
            chain: new.chain.clone(),
            unit_crcs: Vec::new(),
        };
        let deadlines = Deadlines {
            stall: core.options.write_stall,
            silence: core.options.silence,
        };
        new.chain.iter().for_each(|hop| core.writes.asked(hop.volume));
        let done = match opened.put(put, &block.data, &block.unit_crcs, deadlines).await {
            Ok((done, spans)) => check(&done, new, block).map(|()| (done, spans)),
            Err(trouble) => Err(trouble),
        };
        match &done {
            Ok((done, spans)) => judge(core, new, done, spans),
            Err(trouble) => self.blame(core, new, trouble, opened.reused),
        }
        done
    }

    /// Avoids the hop that a failure is to be blamed on; where it hung, the whole client does.
    fn blame(&self, core: &Core, new: &NewBlock, trouble: &Trouble, reused: bool) {
        let head = new.chain[0].volume;
        let blamed = match (trouble.cause, trouble.problem.kind) {
            // The connection may have been an old one; its volume may well be back.
            (Cause::Lost, _) if reused => return,
            // Nothing is wrong with the volumes.
            (Cause::Refused, ProblemKind::Busy | ProblemKind::Denied) => return,
            (Cause::Refused, _) => trouble.blame.unwrap_or(head),
            // The head answers, so what it waits for is behind it.
            (Cause::Stalled, _) => new.chain.get(1).map_or(head, |next| next.volume),
            _ => head,
        };
        self.avoid(blamed);
        let hung = matches!(trouble.cause, Cause::Silent | Cause::Stalled)
            || trouble.cause == Cause::Refused && trouble.problem.kind == ProblemKind::Retry;
        if hung {
            core.writes.hung(blamed, Instant::now());
        }
    }

    fn avoid(&self, volume: VolumeId) {
        let mut avoid = self.avoid.borrow_mut();
        if avoid.contains(&volume) {
            return;
        }
        if avoid.len() == AVOID_MAX {
            avoid.pop_front();
        }
        avoid.push_back(volume);
    }

    /// A fresh block and its chain.
    async fn next(&self, core: &Core) -> Result<NewBlock> {
        if let Some(new) = self.spare(core) {
            return Ok(new);
        }
        let _only_one_allocates = self.allocating.lock().await;
        let mut pause = PAUSE_MIN;
        let mut waiting_since = None;
        loop {
            if let Some(new) = self.spare(core) {
                return Ok(new);
            }
            let avoid: Vec<VolumeId> = self.avoid.borrow().iter().copied().collect();
            let ahead = self.ahead.get();
            let problem = match self.allocate(core, ahead, &avoid).await {
                Ok(blocks) if blocks.iter().any(|new| !new.chain.is_empty()) => {
                    self.ahead.set((ahead * 2).min(ALLOCATE_MAX));
                    let usable = blocks.into_iter().filter(|new| !new.chain.is_empty());
                    // Just given, they are used even when their volumes were to be avoided.
                    let mut usable: VecDeque<NewBlock> = usable.collect();
                    let first = usable.pop_front();
                    self.spare.borrow_mut().append(&mut usable);
                    match first {
                        Some(new) => return Ok(new),
                        None => continue,
                    }
                }
                Ok(_) => Problem::retry("the nameserver offers no volume to write to"),
                Err(problem) => problem,
            };
            let full_for_sure = problem.kind == ProblemKind::NoSpace && avoid.is_empty();
            let may_pass = matches!(problem.kind, ProblemKind::NoSpace | ProblemKind::Retry);
            let since = *waiting_since.get_or_insert_with(Instant::now);
            if full_for_sure || !may_pass || since.elapsed() + pause > core.options.retry_for {
                return Err(problem);
            }
            // What failed may be all there is, and may be back.
            self.avoid.borrow_mut().clear();
            tracing::debug!(%problem, "no chain; asking again");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Fresh blocks whose chains go round volumes to `avoid`, and round slow ones where there are enough others.
    async fn allocate(&self, core: &Core, count: u32, avoid: &[VolumeId]) -> Result<Vec<NewBlock>> {
        let ask = async |avoid: &[VolumeId]| match self.owner {
            Owner::Upload(lease) => core.session.allocate(lease.id, count, avoid).await,
            Owner::Reserved(replication) => core.session.reserve(count, replication, avoid).await,
        };
        let wanted = match self.owner {
            Owner::Upload(lease) => lease.replication,
            Owner::Reserved(0) => core.session.replication(),
            Owner::Reserved(replication) => replication,
        };
        let slow = core.writes.avoided(Instant::now());
        let mut round = avoid.to_vec();
        round.extend(slow.iter().filter(|volume| !avoid.contains(volume)));
        if round.len() == avoid.len() {
            return ask(avoid).await;
        }
        let hops = |blocks: &[NewBlock]| blocks.iter().map(|new| new.chain.len()).min().unwrap_or(0);
        let around = ask(&round).await;
        match &around {
            Ok(blocks) if hops(blocks) >= usize::from(wanted) => return around,
            Err(problem) if !matches!(problem.kind, ProblemKind::NoSpace | ProblemKind::Retry) => {
                return around;
            }
            _ => {}
        }
        // A slow replica is better than none.
        let through = ask(avoid).await?;
        match around {
            Ok(around) if hops(&through) <= hops(&around) => Ok(around),
            _ => {
                core.writes.pardon(Instant::now());
                Ok(through)
            }
        }
    }

    /// A block allocated ahead whose chain can still be used.
    fn spare(&self, core: &Core) -> Option<NewBlock> {
        let avoid = self.avoid.borrow();
        let slow = core.writes.avoided(Instant::now());
        let soon = now_unix_ms() + TICKET_LEFT_MS;
        let mut spare = self.spare.borrow_mut();
        while let Some(new) = spare.pop_front() {
            let valid = new.chain.iter().all(|hop| {
                hop.ticket.expires_unix_ms > soon
                    && !avoid.contains(&hop.volume)
                    && !slow.contains(&hop.volume)
            });
            if valid {
                return Some(new);
            }
        }
        None
    }
}

/// Remembers how long each hop took.
fn judge(core: &Core, new: &NewBlock, done: &PutDone, spans: &PutSpans) {
    let now = Instant::now();
    let times = hops::times(spans, &done.spans);
    for (position, (hop, time)) in new.chain.iter().zip(times).enumerate() {
        let class = hops::class(position, done.length as usize);
        core.writes.took(hop.volume, class, time, now);
    }
}

/// That the chain wrote what was sent, on all of its volumes.
fn check(done: &PutDone, new: &NewBlock, block: &Filled) -> std::result::Result<(), Trouble> {
    let proven = done.proofs.iter().map(|proof| proof.volume);
    let wrong = if done.length as usize != block.data.len() || done.crc32c != block.crc32c {
        "other bytes than were sent"
    } else if !proven.eq(new.chain.iter().map(|hop| hop.volume)) {
        "not every volume of the chain"
    } else {
        return Ok(());
    };
    let problem = Problem::new(
        ProblemKind::Corrupt,
        format!("{} acknowledged {wrong}", new.chain[0].address),
    );
    Err(Trouble::of(Cause::Wrong, problem))
}
