//! A dataserver: its control session, its commands, and blocks through chains. Follows rpc/dataserver's control.rs,
//! commands.rs, write.rs, read.rs and repair.rs step by step, without sockets, buffers and packets: a block comes with
//! its put. Tickets and proofs are real.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use blockyard_nameserver::simulated::CopyOrder;
use blockyard_wire::ticket::{Claim, Keys, Operation, Ticket};
use blockyard_wire::types::{
    BlockId, Epoch, Replica, ReplicaProof, ReplicaState, ServerInfo, VolumeId, VolumeReport,
};
use blockyard_wire::{Problem, ProblemKind, Result};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

use crate::messages::{Answer, Answered, Content, Failure, Outcome, Put, Request, Stored, crc_of};
use crate::volume::Volume;
use crate::world::{ConnectionId, HostId, Serve, World};

/// The pause before the second attempt to reach a nameserver; it doubles up to the longest, milliseconds.
const BACKOFF_MS: (u64, u64) = (50, 5_000);
/// For a nameserver's answer, milliseconds.
const ANSWER_MS: u64 = 10_000;
/// For the durable answer of each hop behind, milliseconds.
const HOP_MS: u64 = 30_000;
/// For the bytes of a block that is pulled, milliseconds.
const PULL_MS: u64 = 30_000;

/// A volume that this or another server has.
#[derive(Clone)]
pub struct Site {
    /// The server.
    pub host: HostId,
    /// `HOST:PORT` of its data listener.
    pub address: String,
    /// Its disk.
    pub disk: Rc<RefCell<Volume>>,
}

/// What a dataserver is started with.
#[derive(Clone)]
pub struct Setup {
    /// Where it runs.
    pub host: HostId,
    /// Where nameservers may run; any that answers is used.
    pub nameservers: Vec<HostId>,
    /// `HOST:PORT`: its name.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// All volumes of the cluster; its own are those on its host.
    pub sites: Rc<Vec<Site>>,
    /// The cluster's keys.
    pub keys: Keys,
    /// Milliseconds between two passes of the scrub.
    pub scrub_ms: u64,
}

/// A running dataserver.
pub struct Server {
    world: Rc<World>,
    setup: Setup,
    /// The connection that it has joined on.
    session: Cell<ConnectionId>,
    /// Where that leads.
    nameserver: Cell<HostId>,
    in_flight: Cell<u32>,
}

/// Where a `HOST:PORT` leads.
pub fn site<'a>(sites: &'a [Site], address: &str) -> Option<&'a Site> {
    sites.iter().find(|site| site.address == address)
}

/// A flush of a disk, milliseconds.
async fn flush(world: &World, disk: &RefCell<Volume>) {
    let slow = disk.borrow().slow_until_ms > world.now_ms();
    let ms = if slow {
        world.below(4_000)
    } else {
        1 + world.below(4)
    };
    world.sleep(ms).await;
}

impl Server {
    /// Opens its volumes, and starts what runs all the time: in the tasks of the `LocalSet` that this is called in.
    pub fn start(world: Rc<World>, setup: Setup) -> Rc<Self> {
        let server = Rc::new(Self {
            world,
            nameserver: Cell::new(setup.nameservers[0]),
            setup,
            session: Cell::new(0),
            in_flight: Cell::new(0),
        });
        server.own().for_each(|site| site.disk.borrow_mut().open());
        tokio::task::spawn_local(keep_joined(server.clone()));
        tokio::task::spawn_local(scrub(server.clone()));
        server
    }

    fn own(&self) -> impl Iterator<Item = &Site> {
        let host = self.setup.host;
        self.setup.sites.iter().filter(move |site| site.host == host)
    }

    fn disk(&self, volume: VolumeId) -> Result<&Rc<RefCell<Volume>>> {
        let mut own = self.own();
        own.find(|site| site.disk.borrow().id == volume)
            .map(|site| &site.disk)
            .ok_or_else(|| Problem::not_found(format!("volume {volume} is not here")))
    }

    fn reports(&self) -> Vec<VolumeReport> {
        let report = |site: &Site| site.disk.borrow().report(&site.address, self.in_flight.get());
        self.own().map(report).collect()
    }

    /// Tells the nameserver of a damaged replica; the heartbeat's list does where this is lost.
    fn report_damaged(self: &Rc<Self>, volume: VolumeId, block: BlockId) {
        let held = self
            .disk(volume)
            .ok()
            .and_then(|disk| disk.borrow().lookup(block));
        let connection = self.session.get();
        if let Some(held) = held
            && connection != 0
        {
            let server = self.clone();
            tokio::task::spawn_local(async move {
                let damage = Request::Damage {
                    volume,
                    replicas: vec![Replica {
                        block,
                        length: held.length,
                        crc32c: held.crc32c,
                        state: ReplicaState::Corrupt,
                    }],
                };
                // Lost: the heartbeat tells it again.
                let _ = server.ask(connection, damage).await;
            });
        }
    }

    async fn ask(&self, connection: ConnectionId, request: Request) -> Outcome {
        let (host, nameserver) = (self.setup.host, self.nameserver.get());
        self.world
            .call(host, nameserver, connection, request, ANSWER_MS)
            .await
    }
}

/// control.rs `keep_joined`.
async fn keep_joined(server: Rc<Server>) {
    let mut backoff_ms = BACKOFF_MS.0;
    for turn in 0.. {
        let mut joined = false;
        let nameservers = &server.setup.nameservers;
        server.nameserver.set(nameservers[turn % nameservers.len()]);
        let connection = server.world.connect(server.setup.host, server.nameserver.get());
        if let Some(connection) = connection {
            // It only returns when the nameserver is lost.
            let _ = session(&server, connection, &mut joined).await;
            server.session.set(0);
            server.world.close(connection, server.setup.host);
        }
        if joined {
            backoff_ms = BACKOFF_MS.0;
        }
        server.world.sleep(backoff_ms).await;
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
    }
}

/// control.rs `session`: joins, makes the volumes obey the epoch, tells of what is unwell, and beats.
async fn session(server: &Rc<Server>, connection: ConnectionId, joined: &mut bool) -> Answered<()> {
    server.ask(connection, Request::Login).await?;
    let info = ServerInfo {
        address: server.setup.address.clone(),
        zone: server.setup.zone.clone(),
        version: "sim".to_owned(),
        host: server.setup.address.clone(),
        volumes: server.reports(),
    };
    // Commands may come as soon as the nameserver has taken it in, before its answer.
    server.session.set(connection);
    let Answer::Cluster(cluster) = server.ask(connection, Request::Join(Box::new(info))).await? else {
        return Err(Failure::Lost);
    };
    for site in server.own() {
        match raise(&server.world, &site.disk, cluster.epoch).await {
            Err(problem) if problem.kind != ProblemKind::Stale => {}
            raised => raised?,
        }
    }
    *joined = true;
    for site in server.own() {
        let (volume, unwell) = {
            let disk = site.disk.borrow();
            let unwell = disk
                .list(None, BlockId(0))
                .filter(|replica| replica.state != ReplicaState::Good);
            (disk.id, unwell.collect::<Vec<_>>())
        };
        if !unwell.is_empty() {
            let damage = Request::Damage {
                volume,
                replicas: unwell,
            };
            server.ask(connection, damage).await?;
        }
    }
    loop {
        server
            .ask(connection, Request::Heartbeat(server.reports()))
            .await?;
        server.world.sleep(u64::from(cluster.heartbeat_ms)).await;
        if !server.world.is_open(connection, server.setup.host) {
            return Err(Failure::Lost);
        }
    }
}

/// Reads all that it keeps, pass by pass (scrub.rs): each at one moment here, as its pace decides nothing.
async fn scrub(server: Rc<Server>) {
    loop {
        server.world.sleep(server.setup.scrub_ms).await;
        for site in server.own() {
            let (volume, damaged) = {
                let mut disk = site.disk.borrow_mut();
                let good = disk.all().filter(|(_, held)| held.state == ReplicaState::Good);
                let good: Vec<BlockId> = good.map(|(block, _)| block).collect();
                let is_damaged = |block: &BlockId| {
                    disk.get(*block)
                        .is_err_and(|problem| problem.kind == ProblemKind::Corrupt)
                };
                let damaged: Vec<BlockId> = good.into_iter().filter(is_damaged).collect();
                (disk.id, damaged)
            };
            for block in damaged {
                server.report_damaged(volume, block);
            }
        }
    }
}

/// commands.rs `raise`.
async fn raise(world: &World, disk: &RefCell<Volume>, epoch: Epoch) -> Result<()> {
    let change = disk.borrow_mut().raise(epoch)?;
    if let Some(change) = change {
        flush(world, disk).await;
        disk.borrow_mut().durable(change)?;
    }
    // Another may have been raised meanwhile.
    disk.borrow().check_epoch(epoch)?;
    let highest = disk.borrow().highest_epoch();
    if highest > epoch.number {
        world.violated(
            format!("a volume obeys epoch {}, having obeyed {highest}", epoch.number),
            &[],
            "",
        );
    }
    Ok(())
}

/// commands.rs `delete`.
async fn delete(world: &World, disk: &RefCell<Volume>, blocks: &[BlockId], epoch: Epoch) -> Result<()> {
    raise(world, disk, epoch).await?;
    let mut changes = Vec::new();
    for block in blocks {
        changes.extend(disk.borrow_mut().delete(*block)?);
    }
    if !changes.is_empty() {
        flush(world, disk).await;
    }
    for change in changes {
        disk.borrow_mut().durable(change)?;
    }
    Ok(())
}

/// commands.rs `settle`.
async fn settle(
    world: &World,
    disk: &RefCell<Volume>,
    block: BlockId,
    wanted: bool,
    epoch: Epoch,
) -> Result<()> {
    raise(world, disk, epoch).await?;
    if wanted {
        return disk.borrow_mut().confirm(block);
    }
    let change = disk.borrow_mut().forget(block)?;
    flush(world, disk).await;
    disk.borrow_mut().durable(change)
}

/// Makes a block durable (`Volume::put` of the engine).
async fn store(
    world: &World,
    disk: &RefCell<Volume>,
    block: BlockId,
    length: u32,
    crc32c: u32,
    content: Content,
) -> Result<()> {
    let change = disk.borrow_mut().put(block, length, crc32c, content)?;
    if let Some(change) = change {
        flush(world, disk).await;
        disk.borrow_mut().durable(change)?;
    }
    Ok(())
}

/// read.rs `verify`.
fn verify(server: &Rc<Server>, volume: VolumeId, block: BlockId) -> Result<ReplicaState> {
    let disk = server.disk(volume)?;
    let known = disk
        .borrow()
        .lookup(block)
        .ok_or_else(|| Problem::not_found(format!("block {block} is not on volume {volume}")))?;
    if known.state != ReplicaState::Good {
        return Ok(known.state);
    }
    let read = disk.borrow_mut().get(block);
    match read {
        Ok(_) => Ok(ReplicaState::Good),
        Err(problem) if problem.kind == ProblemKind::Corrupt => {
            server.report_damaged(volume, block);
            Ok(ReplicaState::Corrupt)
        }
        Err(problem) => Err(problem),
    }
}

/// repair.rs `copy`: pulls, verifies, puts.
async fn copy(
    server: &Rc<Server>,
    volume: VolumeId,
    order: &CopyOrder,
    epoch: Epoch,
) -> Result<ReplicaProof> {
    let Server { world, setup, .. } = &**server;
    let disk = server.disk(volume)?;
    raise(world, disk, epoch).await?;
    let proof = || setup.keys.prove(order.block, order.length, order.crc32c, volume);
    let known = disk.borrow().lookup(order.block);
    if let Some(known) = known
        && known.state == ReplicaState::Good
        && (known.length, known.crc32c) == (order.length, order.crc32c)
    {
        return Ok(proof());
    }
    let source = &order.source;
    let late = || Problem::retry(format!("volume {} does not send in time", source.volume));
    let site = site(&setup.sites, &source.address).ok_or_else(late)?;
    let get = Request::Get {
        address: source.address.clone(),
        block: order.block,
        length: order.length,
        ticket: source.ticket.clone(),
        of_dataserver: true,
    };
    let content = match world.call(setup.host, site.host, 0, get, PULL_MS).await {
        Ok(Answer::Bytes(content)) => content,
        Err(Failure::Refused(problem) | Failure::Aborted(problem, _)) => return Err(problem),
        _ => return Err(late()),
    };
    if crc_of(content, order.length) != order.crc32c {
        return Err(Problem::new(
            ProblemKind::Corrupt,
            format!("block {} of volume {} is another", order.block, source.volume),
        ));
    }
    store(world, disk, order.block, order.length, order.crc32c, content).await?;
    Ok(proof())
}

/// read.rs `find` and `check`.
fn get(
    server: &Rc<Server>,
    address: &str,
    block: BlockId,
    length: u32,
    ticket: &Ticket,
    of_dataserver: bool,
) -> Result<Content> {
    let Server { world, setup, .. } = &**server;
    let site = server
        .own()
        .find(|site| site.address == address)
        .ok_or_else(|| Problem::retry(format!("nobody listens at {address}")))?;
    let volume = site.disk.borrow().id;
    let claim = |operation| Claim {
        operation,
        block,
        volume,
        hop: ticket.hop,
        length,
    };
    let now = world.wall_ms(setup.host);
    let read = setup.keys.check(ticket, &claim(Operation::Read), now);
    match of_dataserver {
        true => read.or_else(|_| setup.keys.check(ticket, &claim(Operation::Copy), now))?,
        false => read?,
    }
    let found = site.disk.borrow_mut().get(block);
    match found {
        Err(problem) if problem.kind == ProblemKind::Corrupt => {
            server.report_damaged(volume, block);
            Err(problem)
        }
        // Bits may flip behind the last check of the volume, too.
        Ok(content) if world.one_in(world.weather.get().damaged_one_in) => Ok(content ^ 2),
        found => found,
    }
}

/// write.rs: one hop of a chain.
async fn put(server: Rc<Server>, put: Put) -> Answered<Stored> {
    let Server { world, setup, .. } = &*server;
    let own = &put.chain[0];
    let disk = server.disk(own.volume).map_err(|_| {
        Problem::invalid(format!(
            "this is not {}; the nameserver's address for it is out of date",
            own.volume
        ))
    })?;
    let claim = Claim {
        operation: Operation::Write,
        block: put.block,
        volume: own.volume,
        hop: put.position,
        length: put.length,
    };
    setup.keys.check(&own.ticket, &claim, world.wall_ms(setup.host))?;
    // Damage on the link shows in the units' checksums before anything is passed on.
    if world.one_in(world.weather.get().damaged_one_in) || crc_of(put.content, put.length) != put.crc32c {
        return Err(Failure::Aborted(
            Problem::new(ProblemKind::Corrupt, "a packet does not match its checksums"),
            own.volume,
        ));
    }
    let behind = (put.chain.len() > 1).then(|| extend(server.clone(), put.clone()));
    // What has begun is finished, whatever the hops behind say.
    let (tell, told) = oneshot::channel();
    {
        let (server, disk, put) = (server.clone(), disk.clone(), put.clone());
        tokio::task::spawn_local(async move {
            let stored = store(
                &server.world,
                &disk,
                put.block,
                put.length,
                put.crc32c,
                put.content,
            );
            let _ = tell.send(stored.await);
        });
    }
    let stored = async {
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problem)) => Err(Failure::Aborted(problem, own.volume)),
            Err(_) => Err(Failure::Lost),
        }
    };
    let behind = async {
        match behind {
            Some(behind) => behind.await.map(Some),
            None => Ok(None),
        }
    };
    let ((), behind) = futures_util::future::try_join(stored, behind).await?;
    let mut proofs = vec![setup.keys.prove(put.block, put.length, put.crc32c, own.volume)];
    if let Some(done) = behind {
        let hops = put.chain.len();
        if (done.length, done.crc32c, done.proofs.len()) != (put.length, put.crc32c, hops - 1) {
            let successor = put.chain[1].volume;
            return Err(Failure::Aborted(
                Problem::new(ProblemKind::Corrupt, "the successor stored other bytes"),
                successor,
            ));
        }
        proofs.extend(done.proofs);
    }
    Ok(Stored {
        length: put.length,
        crc32c: put.crc32c,
        proofs,
    })
}

/// Sends a put on to the next hop, which is to blame for what it does not answer.
async fn extend(server: Rc<Server>, put: Put) -> Answered<Stored> {
    let Server { world, setup, .. } = &*server;
    let next = &put.chain[1];
    let blame = |problem| Failure::Aborted(problem, next.volume);
    let site = site(&setup.sites, &next.address)
        .ok_or_else(|| blame(Problem::retry(format!("there is no {}", next.address))))?;
    let hops = put.chain.len() as u64;
    let on = Put {
        position: put.position + 1,
        chain: put.chain[1..].to_vec(),
        ..put.clone()
    };
    let patience_ms = HOP_MS * (hops - 1);
    let on = Request::Put(Box::new(on));
    match world.call(setup.host, site.host, 0, on, patience_ms).await {
        Ok(Answer::Stored(done)) => Ok(done),
        Err(Failure::Refused(problem)) => Err(blame(problem)),
        Err(aborted @ Failure::Aborted(..)) => Err(aborted),
        _ => Err(blame(Problem::retry(format!(
            "volume {} does not make the block durable in time",
            next.volume
        )))),
    }
}

/// Counts itself as a request being served.
struct InFlight(Rc<Server>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// A server that runs, as its host reaches it.
pub struct Running(pub Rc<Server>);

impl Serve for Running {
    fn serve(
        &self,
        connection: ConnectionId,
        _: HostId,
        request: Request,
    ) -> LocalBoxFuture<'static, Outcome> {
        let server = self.0.clone();
        server.in_flight.set(server.in_flight.get() + 1);
        let in_flight = InFlight(server.clone());
        async move {
            let _in_flight = in_flight;
            // Commands of an earlier session went with its connection.
            if connection != 0 && connection != server.session.get() {
                return Err(Failure::Lost);
            }
            obey(server, request).await
        }
        .boxed_local()
    }

    fn closed(&self, connection: ConnectionId) {
        if self.0.session.get() == connection {
            self.0.session.set(0);
        }
    }
}

async fn obey(server: Rc<Server>, request: Request) -> Outcome {
    let world = &server.world;
    match request {
        Request::Digest(volume) => Ok(Answer::Digest(server.disk(volume)?.borrow().digest())),
        Request::Replicas {
            volume,
            bucket,
            after,
            limit,
        } => {
            let disk = server.disk(volume)?.borrow();
            let mut listed = disk.list(Some(bucket), after);
            let page: Vec<_> = listed.by_ref().take(limit as usize).collect();
            let more = listed.next().is_some();
            Ok(Answer::Replicas(page, more))
        }
        Request::Delete {
            volume,
            epoch,
            blocks,
        } => {
            delete(world, server.disk(volume)?, &blocks, epoch).await?;
            Ok(Answer::Done)
        }
        Request::Copy { volume, epoch, order } => {
            Ok(Answer::Proof(copy(&server, volume, &order, epoch).await?))
        }
        Request::Verify { volume, block } => Ok(Answer::State(verify(&server, volume, block)?)),
        Request::Settle {
            volume,
            epoch,
            block,
            wanted,
        } => {
            settle(world, server.disk(volume)?, block, wanted, epoch).await?;
            Ok(Answer::Done)
        }
        Request::Get {
            address,
            block,
            length,
            ticket,
            of_dataserver,
        } => Ok(Answer::Bytes(get(
            &server,
            &address,
            block,
            length,
            &ticket,
            of_dataserver,
        )?)),
        Request::Put(asked) => Ok(Answer::Stored(put(server.clone(), *asked).await?)),
        _ => Err(Failure::Refused(Problem::invalid(
            "that is asked of a nameserver",
        ))),
    }
}
