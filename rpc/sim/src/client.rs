//! A client: its session with the nameserver, uploads and downloads. Follows rpc/client's session.rs, put.rs,
//! upload.rs, short.rs, read.rs and download.rs step by step, without sockets and buffers; hedged reads and the batching
//! of calls are left out, as neither decides anything.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use blockyard_engine::checksum;
use blockyard_nameserver::simulated::Sent;
use blockyard_wire::types::{
    AddedBlock, BlockInfo, FileInfo, Lease, Location, NewBlock, NewFile, ReplicaState, RequestId, Trashed,
    Tuning, VolumeId,
};
use blockyard_wire::{Problem, ProblemKind};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::messages::{Answer, Content, Failure, Put, Request, Stored, crc_of};
use crate::server::{Site, site};
use crate::world::{ConnectionId, HostId, World};

/// For one answer of the nameserver, and for a connection, milliseconds.
const CALL_MS: u64 = 20_000;
const CONNECT_MS: u64 = 5_000;
/// How long a lost nameserver is looked for, and a block is tried anew, milliseconds.
const RETRY_MS: u64 = 30_000;
/// A read or a write without an answer for so long is tried elsewhere, milliseconds.
const READ_STALL_MS: u64 = 5_000;
const WRITE_STALL_MS: u64 = 20_000;
/// Pauses between two tries of a call, milliseconds.
const CALL_PAUSE_MS: (u64, u64) = (50, 1_000);
/// Pauses between two tries of a block: none at first, then these, milliseconds.
const BLOCK_PAUSE_MS: (u64, u64) = (100, 2_000);
/// Blocks that one call allocates at the most.
const ALLOCATE_MAX: u32 = 8;
/// A chain whose tickets expire sooner is not begun: of a ticket's life.
const TICKET_LEFT_MS: u64 = 5_000;
/// Writings of a block whose reservation the nameserver no longer knows.
const WRITES_MAX: u32 = 3;
/// Blocks that an upload has under way.
const IN_FLIGHT: usize = 3;
/// Blocks told to the nameserver in one call.
const ADD_MAX: usize = 64;
/// How long a durable block waits for company before it is told.
const ADD_AFTER: Duration = Duration::from_secs(1);
/// One durable block of so many is told late, by up to so many milliseconds: whoever writes is slow or was stopped, and
/// the block looks like nobody's meanwhile.
const DAWDLE_ONE_IN: u32 = 100;
const DAWDLE_MS: u64 = 40_000;

/// A block to be written.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// What it says.
    pub content: Content,
    /// Bytes.
    pub length: u32,
}

impl Block {
    /// Its CRC32C.
    pub fn crc32c(&self) -> u32 {
        crc_of(self.content, self.length)
    }
}

/// What is known of an operation that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Why.
    pub problem: Problem,
    /// Whether it may have happened, or still may.
    pub perhaps: bool,
}

impl Failed {
    fn surely(problem: Problem) -> Self {
        Self {
            problem,
            perhaps: false,
        }
    }
}

/// A client's process.
pub struct Client {
    world: Rc<World>,
    host: HostId,
    nameserver: HostId,
    sites: Rc<Vec<Site>>,
    connection: Cell<ConnectionId>,
    name: u64,
    next_request: Cell<u64>,
    shunned: RefCell<BTreeMap<VolumeId, u64>>,
    short: RefCell<BTreeMap<u8, Rc<Chains>>>,
}

/// Why a block was not written or read.
enum Cause {
    Lost,
    Stalled,
    Refused(Problem, Option<VolumeId>),
    Wrong(Problem),
}

/// Whose blocks they are.
#[derive(Clone, Copy)]
enum Owner {
    Upload(Lease),
    Reserved(u8),
}

/// put.rs `Chains`: gets blocks written somewhere.
struct Chains {
    owner: Owner,
    spare: RefCell<VecDeque<NewBlock>>,
    ahead: Cell<u32>,
    avoid: RefCell<VecDeque<VolumeId>>,
}

impl Client {
    /// A client at `host`, with a name that no other has.
    pub fn new(
        world: Rc<World>,
        host: HostId,
        nameserver: HostId,
        sites: Rc<Vec<Site>>,
        name: u64,
    ) -> Rc<Self> {
        Rc::new(Self {
            world,
            host,
            nameserver,
            sites,
            connection: Cell::new(0),
            name,
            next_request: Cell::new(1),
            shunned: RefCell::default(),
            short: RefCell::default(),
        })
    }

    fn request_id(&self) -> RequestId {
        let number = self.next_request.get();
        self.next_request.set(number + 1);
        RequestId {
            client: self.name,
            number,
        }
    }

    /// session.rs `live`: the connection in use, or a new one.
    async fn live(&self) -> Result<ConnectionId, Problem> {
        let known = self.connection.get();
        if known != 0 && self.world.is_open(known, self.host) {
            return Ok(known);
        }
        let unreachable = || Problem::retry("no nameserver can be reached");
        let connection = self
            .world
            .connect(self.host, self.nameserver)
            .ok_or_else(unreachable)?;
        let login = self
            .world
            .call(self.host, self.nameserver, connection, Request::Login, CONNECT_MS);
        match login.await {
            Ok(_) => {
                self.connection.set(connection);
                Ok(connection)
            }
            Err(_) => {
                self.world.close(connection, self.host);
                Err(unreachable())
            }
        }
    }

    /// session.rs `call`: one call, over a new connection as long as there is patience.
    async fn call(&self, request: Request) -> Result<Answer, Failed> {
        let mut pause_ms = CALL_PAUSE_MS.0;
        let mut deadline_ms = None;
        let mut perhaps = false;
        loop {
            let problem = match self.live().await {
                Err(problem) => problem,
                Ok(live) => {
                    let asked = self
                        .world
                        .call(self.host, self.nameserver, live, request.clone(), CALL_MS);
                    match asked.await {
                        Ok(answer) => return Ok(answer),
                        Err(Failure::Refused(problem) | Failure::Aborted(problem, _)) => match problem.kind {
                            ProblemKind::Busy => problem,
                            _ => return Err(Failed { problem, perhaps }),
                        },
                        Err(Failure::Lost) => {
                            perhaps = true;
                            self.world.close(live, self.host);
                            Problem::retry("the nameserver is lost")
                        }
                    }
                }
            };
            let now_ms = self.world.now_ms();
            if now_ms + pause_ms > *deadline_ms.get_or_insert(now_ms + RETRY_MS) {
                return Err(Failed { problem, perhaps });
            }
            self.world
                .sleep(pause_ms / 2 + self.world.below(pause_ms / 2 + 1))
                .await;
            pause_ms = (pause_ms * 2).min(CALL_PAUSE_MS.1);
        }
    }

    /// Makes a directory and its parents.
    pub async fn mkdir(&self, path: &str) -> Result<(), Failed> {
        let request = Request::Mkdir {
            path: path.to_owned(),
            request: self.request_id(),
        };
        self.call(request).await.map(|_| ())
    }

    /// Removes a file.
    pub async fn remove(&self, path: &str) -> Result<(), Failed> {
        let request = Request::Remove {
            path: path.to_owned(),
            request: self.request_id(),
        };
        self.call(request).await.map(|_| ())
    }

    /// Moves a file into the trash.
    pub async fn discard(&self, path: &str) -> Result<(), Failed> {
        let request = Request::Discard {
            path: path.to_owned(),
            request: self.request_id(),
        };
        self.call(request).await.map(|_| ())
    }

    /// Some entries of the trash, those behind `after`.
    pub async fn trash(&self, after: u64) -> Result<Vec<Trashed>, Failed> {
        match self.call(Request::Trash { after }).await? {
            Answer::Trashed(entries) => Ok(entries),
            _ => Err(Failed::surely(Problem::invalid("another answer"))),
        }
    }

    /// Takes an entry of the trash back to where it was.
    pub async fn restore(&self, entry: u64) -> Result<FileInfo, Failed> {
        let request = Request::Restore {
            entry,
            request: self.request_id(),
        };
        match self.call(request).await? {
            Answer::Found(file, _) => Ok(*file),
            _ => Err(Failed::surely(Problem::invalid("another answer"))),
        }
    }

    /// Sets how many replicas are wanted of a file.
    pub async fn set_replication(&self, path: &str, replication: u8) -> Result<(), Failed> {
        let request = Request::SetReplication {
            path: path.to_owned(),
            replication,
            request: self.request_id(),
        };
        self.call(request).await.map(|_| ())
    }

    /// Sets how repair goes about its work.
    pub async fn tune(&self, tuning: Tuning) -> Result<(), Failed> {
        let request = Request::Tune {
            tuning,
            request: self.request_id(),
        };
        self.call(request).await.map(|_| ())
    }

    /// Moves a file.
    pub async fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<(), Failed> {
        let request = Request::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            overwrite,
            request: self.request_id(),
        };
        self.call(request).await.map(|_| ())
    }

    /// A file and its blocks.
    pub async fn lookup(&self, path: &str) -> Result<(FileInfo, Vec<BlockInfo>), Failed> {
        let request = Request::Lookup {
            path: path.to_owned(),
        };
        match self.call(request).await? {
            Answer::Found(file, blocks) => Ok((*file, blocks)),
            _ => Err(Failed::surely(Problem::invalid("another answer"))),
        }
    }

    /// short.rs: a file of one block, without an upload.
    pub async fn upload_short(
        self: &Rc<Self>,
        path: &str,
        block: Block,
        overwrite: bool,
        replication: u8,
        content_type: &str,
    ) -> Result<FileInfo, Failed> {
        let mut perhaps = false;
        for write in 1.. {
            let chains = self.chains(replication);
            let written = chains.write(self, 0, block).await;
            if written.as_ref().map_or(true, |(_, retried)| *retried) {
                self.short.borrow_mut().remove(&replication);
            }
            let (added, _) = written.map_err(|problem| Failed { problem, perhaps })?;
            let file = NewFile {
                path: path.to_owned(),
                overwrite,
                replication,
                content_type: content_type.to_owned(),
                blocks: vec![added],
                length_bytes: u64::from(block.length),
                crc32c: block.crc32c(),
                request: self.request_id(),
            };
            match self.publish(file).await {
                Ok(file) => return Ok(file),
                Err(failed) => {
                    // What was lost once may still be applied, whatever a later try says.
                    perhaps |= failed.perhaps;
                    if failed.problem.kind != ProblemKind::Denied || write == WRITES_MAX {
                        return Err(Failed { perhaps, ..failed });
                    }
                    self.short.borrow_mut().remove(&replication);
                }
            }
        }
        unreachable!("the last try returns")
    }

    fn chains(&self, replication: u8) -> Rc<Chains> {
        let mut short = self.short.borrow_mut();
        let new = || Rc::new(Chains::new(Owner::Reserved(replication)));
        short.entry(replication).or_insert_with(new).clone()
    }

    async fn publish(&self, file: NewFile) -> Result<FileInfo, Failed> {
        let deadline_ms = self.world.now_ms() + RETRY_MS;
        let mut perhaps = false;
        loop {
            match self.call(Request::Publish(Box::new(file.clone()))).await {
                Ok(Answer::Published(file)) => return Ok(*file),
                Ok(_) => return Err(Failed::surely(Problem::invalid("another answer"))),
                Err(failed) => {
                    perhaps |= failed.perhaps;
                    if failed.problem.kind != ProblemKind::Retry || self.world.now_ms() + 200 >= deadline_ms {
                        return Err(Failed { perhaps, ..failed });
                    }
                    self.world.sleep(200).await;
                }
            }
        }
    }

    /// upload.rs: a file of several blocks, under a lease.
    pub async fn upload(
        self: &Rc<Self>,
        path: &str,
        blocks: &[Block],
        overwrite: bool,
        replication: u8,
        content_type: &str,
    ) -> Result<FileInfo, Failed> {
        let begin = Request::Begin {
            path: path.to_owned(),
            overwrite,
            replication,
            content_type: content_type.to_owned(),
            request: self.request_id(),
        };
        let lease = match self.call(begin).await {
            Ok(Answer::Begun(lease)) => lease,
            Ok(_) => return Err(Failed::surely(Problem::invalid("another answer"))),
            // An upload that was only begun publishes nothing.
            Err(failed) => return Err(Failed::surely(failed.problem)),
        };
        let sent = self.send(lease, blocks).await;
        let committed = match sent {
            Ok(sent) => self.commit(lease, sent).await,
            Err(problem) => Err(Failed::surely(problem)),
        };
        if committed.is_err() {
            let (client, request) = (self.clone(), self.request_id());
            tokio::task::spawn_local(async move {
                let abandon = Request::Abandon {
                    lease: lease.id,
                    request,
                };
                // Left to its expiry otherwise.
                let _ = timeout(Duration::from_secs(2), client.call(abandon)).await;
            });
        }
        committed
    }

    /// `feed` and `keep` of upload.rs.
    async fn send(self: &Rc<Self>, lease: Lease, blocks: &[Block]) -> Result<Sent, Problem> {
        let chains = Chains::new(Owner::Upload(lease));
        let pending = RefCell::new(Vec::<(Instant, AddedBlock)>::new());
        let (fed, changed) = (Cell::new(false), Notify::new());
        let feed = async {
            let mut writes = FuturesUnordered::new();
            for (index, block) in (0..).zip(blocks) {
                while writes.len() >= IN_FLIGHT {
                    writes.next().await.transpose()?;
                }
                let (chains, pending, changed) = (&chains, &pending, &changed);
                writes.push(async move {
                    let (added, _) = chains.write(self, index, *block).await?;
                    pending.borrow_mut().push((Instant::now(), added));
                    changed.notify_one();
                    Ok::<_, Problem>(())
                });
            }
            while let Some(written) = writes.next().await {
                written?;
            }
            fed.set(true);
            changed.notify_one();
            Ok::<_, Problem>(())
        };
        let keep = async {
            let renew_after = Duration::from_millis(u64::from(lease.lease_ms / 3).max(10));
            let mut renewed = Instant::now();
            loop {
                let (waiting, oldest) = {
                    let pending = pending.borrow();
                    (pending.len(), pending.first().map(|(since, _)| *since))
                };
                let renew_at = renewed + renew_after;
                let add_at = oldest.map_or(renew_at, |since| since + ADD_AFTER);
                let now = Instant::now();
                if waiting >= ADD_MAX || (waiting > 0 && (fed.get() || add_at <= now)) {
                    let batch = pending.borrow_mut().drain(..waiting.min(ADD_MAX)).collect();
                    self.add(lease, batch).await?;
                    renewed = now;
                } else if fed.get() {
                    return Ok(());
                } else if renew_at <= now {
                    self.call(Request::Renew(lease.id))
                        .await
                        .map_err(|failed| failed.problem)?;
                    renewed = now;
                } else {
                    // Either way it looks again.
                    let _ = tokio::time::timeout_at(renew_at.min(add_at), changed.notified()).await;
                }
            }
        };
        futures_util::future::try_join(feed, keep).await?;
        let mut sent = Sent {
            blocks: blocks.len() as u32,
            length_bytes: 0,
            crc32c: 0,
        };
        for block in blocks {
            sent.length_bytes += u64::from(block.length);
            sent.crc32c = checksum::combine(sent.crc32c, block.crc32c(), u64::from(block.length));
        }
        Ok(sent)
    }

    async fn add(&self, lease: Lease, blocks: Vec<(Instant, AddedBlock)>) -> Result<(), Problem> {
        let request = Request::AddBlocks {
            lease: lease.id,
            blocks: blocks.into_iter().map(|(_, added)| added).collect(),
            request: self.request_id(),
        };
        match self.call(request).await {
            Ok(_) => Ok(()),
            Err(failed) => Err(failed.problem),
        }
    }

    async fn commit(&self, lease: Lease, sent: Sent) -> Result<FileInfo, Failed> {
        let deadline_ms = self.world.now_ms() + RETRY_MS;
        let pause_ms = u64::from(lease.lease_ms / 10).clamp(50, 1_000);
        let mut perhaps = false;
        loop {
            let request = Request::Commit {
                lease: lease.id,
                sent,
                request: self.request_id(),
            };
            match self.call(request).await {
                Ok(Answer::Published(file)) => return Ok(*file),
                Ok(_) => return Err(Failed::surely(Problem::invalid("another answer"))),
                Err(failed) => {
                    perhaps |= failed.perhaps;
                    let again = failed.problem.kind == ProblemKind::Retry
                        && self.world.now_ms() + pause_ms < deadline_ms;
                    if !again {
                        return Err(Failed { perhaps, ..failed });
                    }
                    self.world.sleep(pause_ms).await;
                }
            }
        }
    }

    /// read.rs `fetch`: the verified bytes of one block, from whichever replica gives them.
    ///
    /// # Errors
    /// `Gone` when the version is no longer kept; else `Corrupt` or `Retry` after each replica was tried with fresh
    /// tickets.
    pub async fn fetch(self: &Rc<Self>, version: u64, block: &BlockInfo) -> Result<Content, Problem> {
        let mut block = block.clone();
        let mut rounds = 0;
        let started_ms = self.world.now_ms();
        let soon = self.world.wall_ms(self.host) + TICKET_LEFT_MS;
        let expires = |replica: &Location| replica.hop.ticket.expires_unix_ms < soon;
        if block.replicas.iter().any(expires) {
            block = self.refresh(version, &block).await?;
        }
        loop {
            let (mut busy, mut troubles, mut corrupt) = (false, 0, 0);
            for replica in self.order(&block.replicas) {
                let cause = match self.ask(&block, &replica, rounds).await {
                    Ok(content) => return Ok(content),
                    Err(cause) => cause,
                };
                let volume = replica.hop.volume;
                troubles += 1;
                match cause {
                    Cause::Refused(problem, _)
                        if matches!(problem.kind, ProblemKind::Busy | ProblemKind::Denied) =>
                    {
                        busy |= problem.kind == ProblemKind::Busy;
                    }
                    Cause::Lost | Cause::Stalled => {
                        busy |= matches!(cause, Cause::Stalled);
                        let until_ms = self.world.now_ms() + 10_000;
                        self.shunned.borrow_mut().insert(volume, until_ms);
                    }
                    Cause::Refused(problem, _) | Cause::Wrong(problem) => {
                        corrupt += u32::from(problem.kind == ProblemKind::Corrupt);
                        let report = Request::ReportBad {
                            block: block.block,
                            volume,
                            problem,
                        };
                        let client = self.clone();
                        tokio::task::spawn_local(async move {
                            // It is a hint only.
                            let _ = client.call(report).await;
                        });
                    }
                }
            }
            let hopeful = busy && self.world.now_ms() - started_ms < RETRY_MS;
            if rounds > 0 && !hopeful {
                let kind = match troubles > 0 && corrupt == troubles {
                    true => ProblemKind::Corrupt,
                    false => ProblemKind::Retry,
                };
                return Err(Problem::new(
                    kind,
                    format!("block {} can be read nowhere", block.block),
                ));
            }
            self.world.sleep(250).await;
            block = self.refresh(version, &block).await?;
            rounds += 1;
        }
    }

    async fn refresh(&self, version: u64, block: &BlockInfo) -> Result<BlockInfo, Problem> {
        let request = Request::Blocks {
            version,
            from: block.index,
        };
        let fresh = match self.call(request).await {
            Ok(Answer::Blocks(mut blocks)) => blocks.pop(),
            Ok(_) => None,
            Err(failed) => return Err(failed.problem),
        };
        fresh.filter(|fresh| fresh.block == block.block).ok_or_else(|| {
            Problem::new(
                ProblemKind::Gone,
                format!("block {} is no longer kept", block.block),
            )
        })
    }

    fn order(&self, replicas: &[Location]) -> Vec<Location> {
        let now_ms = self.world.now_ms();
        let shunned = self.shunned.borrow();
        let mut order: Vec<Location> = replicas
            .iter()
            .filter(|replica| replica.state == ReplicaState::Good)
            .cloned()
            .collect();
        order.sort_by_key(|replica| {
            let until_ms = shunned.get(&replica.hop.volume);
            (!replica.live, until_ms.is_some_and(|until| *until > now_ms))
        });
        order
    }

    async fn ask(&self, block: &BlockInfo, replica: &Location, rounds: u64) -> Result<Content, Cause> {
        let address = &replica.hop.address;
        let site = site(&self.sites, address).ok_or(Cause::Lost)?;
        let get = Request::Get {
            address: address.clone(),
            block: block.block,
            length: block.length,
            ticket: replica.hop.ticket.clone(),
            of_dataserver: false,
        };
        let patience_ms = READ_STALL_MS * (rounds + 1);
        match self.data(site.host, get, patience_ms).await? {
            Answer::Bytes(content) if crc_of(content, block.length) == block.crc32c => Ok(content),
            _ => Err(Cause::Wrong(Problem::new(
                ProblemKind::Corrupt,
                "its CRC differs from the nameserver's",
            ))),
        }
    }

    async fn data(&self, to: HostId, request: Request, patience_ms: u64) -> Result<Answer, Cause> {
        let since_ms = self.world.now_ms();
        match self.world.call(self.host, to, 0, request, patience_ms).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Refused(problem)) => Err(Cause::Refused(problem, None)),
            Err(Failure::Aborted(problem, blame)) => Err(Cause::Refused(problem, Some(blame))),
            Err(Failure::Lost) if self.world.now_ms() - since_ms >= patience_ms => Err(Cause::Stalled),
            Err(Failure::Lost) => Err(Cause::Lost),
        }
    }
}

impl Chains {
    fn new(owner: Owner) -> Self {
        Self {
            owner,
            spare: RefCell::default(),
            ahead: Cell::new(1),
            avoid: RefCell::default(),
        }
    }

    /// Writes a block and returns once it is durable on its whole chain; whether it had to be sent again.
    async fn write(&self, client: &Client, index: u32, block: Block) -> Result<(AddedBlock, bool), Problem> {
        let mut tries = 0;
        let mut pause_ms = 0;
        let mut failing_since_ms = None;
        loop {
            let new = self.next(client).await?;
            tries += 1;
            let problem = match self.write_once(client, &new, block).await {
                Ok(done) => {
                    if client.world.one_in(DAWDLE_ONE_IN) {
                        client.world.sleep(client.world.below(DAWDLE_MS)).await;
                    }
                    let added = AddedBlock {
                        block: new.block,
                        index,
                        length: done.length,
                        crc32c: done.crc32c,
                        proofs: done.proofs,
                    };
                    return Ok((added, tries > 1));
                }
                Err(problem) => problem,
            };
            let since_ms = *failing_since_ms.get_or_insert(client.world.now_ms());
            if client.world.now_ms() - since_ms + pause_ms > RETRY_MS {
                let kind = match problem.kind {
                    kind @ (ProblemKind::NoSpace | ProblemKind::Denied) => kind,
                    _ => ProblemKind::Retry,
                };
                return Err(Problem::new(kind, problem.message));
            }
            client.world.sleep(pause_ms).await;
            pause_ms = (pause_ms * 2).clamp(BLOCK_PAUSE_MS.0, BLOCK_PAUSE_MS.1);
        }
    }

    async fn write_once(&self, client: &Client, new: &NewBlock, block: Block) -> Result<Stored, Problem> {
        let head = &new.chain[0];
        let put = Put {
            block: new.block,
            length: block.length,
            crc32c: block.crc32c(),
            content: block.content,
            position: 0,
            chain: new.chain.clone(),
        };
        let to = site(&client.sites, &head.address).map(|site| site.host);
        let done = match to {
            None => Err(Cause::Lost),
            Some(to) => client.data(to, Request::Put(Box::new(put)), WRITE_STALL_MS).await,
        };
        let done = done.and_then(|answer| match answer {
            Answer::Stored(done) => check(done, new, block),
            _ => Err(Cause::Lost),
        });
        done.map_err(|cause| match cause {
            // Nothing is wrong with the volumes.
            Cause::Refused(problem, _) if matches!(problem.kind, ProblemKind::Busy | ProblemKind::Denied) => {
                problem
            }
            Cause::Refused(problem, blame) => {
                self.avoid(blame.unwrap_or(head.volume));
                problem
            }
            Cause::Stalled => {
                // The head answers, so what it waits for is behind it.
                self.avoid(new.chain.get(1).unwrap_or(head).volume);
                Problem::retry("a chain did not get on")
            }
            Cause::Lost => {
                self.avoid(head.volume);
                Problem::retry("the head of a chain is lost")
            }
            Cause::Wrong(problem) => {
                self.avoid(head.volume);
                problem
            }
        })
    }

    fn avoid(&self, volume: VolumeId) {
        let mut avoid = self.avoid.borrow_mut();
        if !avoid.contains(&volume) {
            avoid.push_back(volume);
        }
    }

    /// A fresh block and its chain.
    async fn next(&self, client: &Client) -> Result<NewBlock, Problem> {
        let mut pause_ms = BLOCK_PAUSE_MS.0;
        let mut waiting_since_ms = None;
        loop {
            if let Some(new) = self.spare(client) {
                return Ok(new);
            }
            let avoid: Vec<VolumeId> = self.avoid.borrow().iter().copied().collect();
            let count = self.ahead.get();
            let request = match self.owner {
                Owner::Upload(lease) => Request::Allocate {
                    lease: lease.id,
                    count,
                    avoid: avoid.clone(),
                },
                Owner::Reserved(replication) => Request::Reserve {
                    replication,
                    count,
                    avoid: avoid.clone(),
                },
            };
            let problem = match client.call(request).await {
                Ok(Answer::New(blocks)) => {
                    self.ahead.set((count * 2).min(ALLOCATE_MAX));
                    let mut usable: VecDeque<_> =
                        blocks.into_iter().filter(|new| !new.chain.is_empty()).collect();
                    // Just given, they are used even when their volumes were to be avoided.
                    let first = usable.pop_front();
                    self.spare.borrow_mut().append(&mut usable);
                    match first {
                        Some(new) => return Ok(new),
                        None => Problem::retry("the nameserver offers no volume to write to"),
                    }
                }
                Ok(_) => Problem::retry("another answer"),
                Err(failed) => failed.problem,
            };
            let full_for_sure = problem.kind == ProblemKind::NoSpace && avoid.is_empty();
            let may_pass = matches!(problem.kind, ProblemKind::NoSpace | ProblemKind::Retry);
            let now_ms = client.world.now_ms();
            let since_ms = *waiting_since_ms.get_or_insert(now_ms);
            if full_for_sure || !may_pass || now_ms - since_ms + pause_ms > RETRY_MS {
                return Err(problem);
            }
            // What failed may be all there is, and may be back.
            self.avoid.borrow_mut().clear();
            client.world.sleep(pause_ms).await;
            pause_ms = (pause_ms * 2).min(BLOCK_PAUSE_MS.1);
        }
    }

    fn spare(&self, client: &Client) -> Option<NewBlock> {
        let avoid = self.avoid.borrow();
        let soon = client.world.wall_ms(client.host) + TICKET_LEFT_MS;
        let mut spare = self.spare.borrow_mut();
        while let Some(new) = spare.pop_front() {
            let valid = new
                .chain
                .iter()
                .all(|hop| hop.ticket.expires_unix_ms > soon && !avoid.contains(&hop.volume));
            if valid {
                return Some(new);
            }
        }
        None
    }
}

/// That the chain wrote what was sent, on all of its volumes.
fn check(done: Stored, new: &NewBlock, block: Block) -> Result<Stored, Cause> {
    let proven = done.proofs.iter().map(|proof| proof.volume);
    let same = (done.length, done.crc32c) == (block.length, block.crc32c());
    match same && proven.eq(new.chain.iter().map(|hop| hop.volume)) {
        true => Ok(done),
        false => Err(Cause::Wrong(Problem::new(
            ProblemKind::Corrupt,
            "the chain acknowledged something else",
        ))),
    }
}
