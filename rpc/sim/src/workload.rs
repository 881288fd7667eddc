//! What clients do, and what is checked of each answer: files appear, change, move and go in small groups of names, and
//! are read; every read's content is compared with what was written, every answer with the group's history.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use blockyard_engine::checksum;
use blockyard_wire::ProblemKind;
use blockyard_wire::types::{BlockInfo, FileInfo};

use crate::client::{Block, Client, Failed};
use crate::model::{History, Operation, Outcome, SLOTS, Ticket, Value};
use crate::world::World;

/// Bytes of the longest block.
const BLOCK_BYTES: u64 = 4 << 20;

/// What was written under a number.
#[derive(Clone, Debug)]
struct Written {
    blocks: Vec<Block>,
}

impl Written {
    fn length_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.length)).sum()
    }

    fn crc32c(&self) -> u32 {
        self.blocks.iter().fold(0, |crc, block| {
            checksum::combine(crc, block.crc32c(), u64::from(block.length))
        })
    }
}

/// How operations went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Answered as asked.
    pub acknowledged: u64,
    /// Refused for what names show.
    pub refused: u64,
    /// Given up: nobody knows, or nothing has happened.
    pub given_up: u64,
    /// Files whose bytes were read and compared.
    pub read: u64,
    /// Reads that no replica served at the time.
    pub unreadable: u64,
}

/// All that the clients of a run share.
pub struct Workload {
    world: Rc<World>,
    groups: Vec<RefCell<History>>,
    written: RefCell<Vec<Written>>,
    versions: RefCell<BTreeMap<u64, Value>>,
    next_content: Cell<u64>,
    /// No more operations are begun.
    pub stopping: Cell<bool>,
    running: Cell<u32>,
    tally: Cell<Tally>,
    /// Lowest and highest replication factor that is asked for.
    replication: (u8, u8),
    /// Longest pause between two operations of a client, milliseconds.
    think_ms: u64,
    /// How long whoever has looked a file up may read it, whatever becomes of it: where clocks can be trusted,
    /// milliseconds.
    ticket_ms: Option<u64>,
}

/// The path of a name.
pub fn path_of(group: usize, slot: usize) -> String {
    format!("/g{group}/n{slot}")
}

impl Workload {
    /// A workload over so many groups of names.
    pub fn new(
        world: Rc<World>,
        groups: usize,
        replication: (u8, u8),
        think_ms: u64,
        ticket_ms: Option<u64>,
    ) -> Self {
        Self {
            world,
            groups: (0..groups).map(|_| RefCell::default()).collect(),
            // 0 stands for nothing.
            written: RefCell::new(vec![Written { blocks: Vec::new() }]),
            versions: RefCell::default(),
            next_content: Cell::new(1),
            stopping: Cell::new(false),
            running: Cell::new(0),
            tally: Cell::default(),
            replication,
            think_ms,
            ticket_ms,
        }
    }

    /// Groups of names.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// How operations went so far.
    pub fn tally(&self) -> Tally {
        self.tally.get()
    }

    /// Whether no operation is under way.
    pub fn is_quiet(&self) -> bool {
        self.running.get() == 0
    }

    fn count(&self, count: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        count(&mut tally);
        self.tally.set(tally);
    }

    /// What a client does until it is told to stop.
    pub async fn run(self: Rc<Self>, client: Rc<Client>) {
        for group in 0..self.groups() {
            // Another client may be quicker; the directory is there in the end.
            while client.mkdir(&format!("/g{group}")).await.is_err() {
                self.world.sleep(500).await;
            }
        }
        loop {
            self.world.sleep(1 + self.world.below(self.think_ms)).await;
            if !self.stopping.get() {
                let running = Running::new(self.clone());
                self.operate(&client).await;
                drop(running);
            }
        }
    }

    async fn operate(self: &Rc<Self>, client: &Rc<Client>) {
        let world = &self.world;
        let group = world.below(self.groups() as u64) as usize;
        if !self.groups[group].borrow_mut().has_room(world.now_ms()) {
            return;
        }
        let slot = world.below(SLOTS as u64) as usize;
        match world.below(20) {
            0..=6 => {
                let overwrite = world.below(4) > 0;
                self.write(client, group, slot, overwrite).await;
            }
            7..=8 => {
                let call = self.call(group, Operation::Remove { slot });
                let path = path_of(group, slot);
                let removed = match world.below(2) {
                    0 => client.remove(&path).await,
                    _ => client.discard(&path).await,
                };
                call.answer(removed.map(|()| Outcome::Done));
            }
            9 => {
                let to = world.below(SLOTS as u64) as usize;
                let overwrite = world.below(2) == 0;
                let call = self.call(
                    group,
                    Operation::Rename {
                        from: slot,
                        to,
                        overwrite,
                    },
                );
                let (from, to) = (path_of(group, slot), path_of(group, to));
                let renamed = client.rename(&from, &to, overwrite).await;
                call.answer(renamed.map(|()| Outcome::Done));
            }
            10 => self.restore(client).await,
            11 => {
                let (least, most) = self.replication;
                let replication = least + world.below(u64::from(most - least + 1)) as u8;
                // Names show nothing of it; whether blocks are there as often as wanted is seen in the end.
                let _ = client.set_replication(&path_of(group, slot), replication).await;
            }
            _ => self.read(client, group, slot).await,
        }
    }

    /// Takes something out of the trash: its name shows again what it did, unless there is something else.
    async fn restore(self: &Rc<Self>, client: &Rc<Client>) {
        let world = &self.world;
        let Ok(entries) = client.trash(0).await else {
            return;
        };
        let Some(entry) = entries.get(world.below(entries.len() as u64) as usize) else {
            return;
        };
        let places = (0..self.groups()).flat_map(|group| (0..SLOTS).map(move |slot| (group, slot)));
        let place = places
            .into_iter()
            .find(|(group, slot)| path_of(*group, *slot) == entry.file.path);
        let Some((group, slot)) = place else {
            world.violated(
                format!("{} is in the trash and was never a file", entry.file.path),
                &[],
                "",
            );
            return;
        };
        if !self.groups[group].borrow_mut().has_room(world.now_ms()) {
            return;
        }
        let value = self.see(&entry.file);
        let call = self.call(
            group,
            Operation::Write {
                slot,
                value,
                overwrite: false,
            },
        );
        let restored = client.restore(entry.entry).await;
        if let Ok(file) = &restored
            && self.see(file) != value
        {
            world.violated(
                format!("{} comes out of the trash as something else", file.path),
                &[file.version],
                &file.path,
            );
        }
        call.answer(restored.map(|_| Outcome::Done));
    }

    async fn write(self: &Rc<Self>, client: &Rc<Client>, group: usize, slot: usize, overwrite: bool) {
        let world = &self.world;
        let count = match world.below(4) {
            0 => 2 + world.below(4),
            _ => 1,
        };
        let block = |_| {
            let content = self.next_content.get();
            self.next_content.set(content + 1);
            Block {
                // Far apart, so that no flipped bit makes one of another.
                content: content << 20,
                length: 1 + world.below(BLOCK_BYTES) as u32,
            }
        };
        let blocks: Vec<Block> = (0..count).map(block).collect();
        let value = {
            let mut written = self.written.borrow_mut();
            written.push(Written {
                blocks: blocks.clone(),
            });
            (written.len() - 1) as Value
        };
        let (least, most) = self.replication;
        let replication = least + world.below(u64::from(most - least + 1)) as u8;
        let call = self.call(
            group,
            Operation::Write {
                slot,
                value,
                overwrite,
            },
        );
        let path = path_of(group, slot);
        // The value travels along, so that a reader knows what it should see.
        let content_type = value.to_string();
        let sent = match blocks[..] {
            [block] => {
                client
                    .upload_short(&path, block, overwrite, replication, &content_type)
                    .await
            }
            _ => {
                client
                    .upload(&path, &blocks, overwrite, replication, &content_type)
                    .await
            }
        };
        if let Ok(file) = &sent {
            self.see(file);
        }
        call.answer(sent.map(|_| Outcome::Done));
    }

    /// Checks what is told of a file against what was written; its value.
    fn see(&self, file: &FileInfo) -> Value {
        let value: Value = file.content_type.parse().unwrap_or_default();
        let written = self.written.borrow();
        let same = written.get(value as usize).is_some_and(|written| {
            value > 0 && (written.length_bytes(), written.crc32c()) == (file.size_bytes, file.crc32c)
        });
        let version = *self.versions.borrow_mut().entry(file.version).or_insert(value);
        if !same || version != value {
            self.world.violated(
                format!(
                    "{} is told to be version {} with {} bytes of value {value} ({version} before), which was never written",
                    file.path, file.version, file.size_bytes
                ),
                &[file.version],
                &file.path,
            );
        }
        value
    }

    async fn read(self: &Rc<Self>, client: &Rc<Client>, group: usize, slot: usize) {
        let call = self.call(group, Operation::Read { slot });
        let path = path_of(group, slot);
        match client.lookup(&path).await {
            Ok((file, blocks)) => {
                let value = self.see(&file);
                call.answer(Ok(Outcome::Saw(value)));
                match self.compare(client, &file, value, &blocks).await {
                    Ok(()) => self.count(|tally| tally.read += 1),
                    Err(ProblemKind::Gone) => {}
                    Err(_) => self.count(|tally| tally.unreadable += 1),
                }
            }
            Err(failed) if failed.problem.kind == ProblemKind::NotFound => {
                call.answer(Ok(Outcome::Saw(0)));
            }
            // A read changes nothing, wherever it got lost.
            Err(failed) => call.answer(Err(Failed {
                perhaps: false,
                ..failed
            })),
        }
    }

    /// Reads all blocks of a file and compares them with what was written.
    ///
    /// # Errors
    /// Why they can't be read.
    pub async fn compare(
        &self,
        client: &Rc<Client>,
        file: &FileInfo,
        value: Value,
        blocks: &[BlockInfo],
    ) -> Result<(), ProblemKind> {
        let written = self.written.borrow().get(value as usize).cloned();
        let wanted = written.map(|written| written.blocks).unwrap_or_default();
        let keys: Vec<u64> = blocks.iter().map(|block| block.block.0).collect();
        if blocks.len() != wanted.len() {
            self.world.violated(
                format!(
                    "{} comes with {} blocks of {}",
                    file.path,
                    blocks.len(),
                    wanted.len()
                ),
                &keys,
                &file.path,
            );
        }
        let since_ms = self.world.now_ms();
        for (block, wanted) in blocks.iter().zip(wanted) {
            let content = client.fetch(file.version, block).await.map_err(|problem| {
                let read_ms = self.world.now_ms() - since_ms;
                if problem.kind == ProblemKind::Gone && self.ticket_ms.is_some_and(|ms| read_ms + 1_000 < ms)
                {
                    self.world.violated(
                        format!("{} was let go {read_ms} ms after a reader came", file.path),
                        &keys,
                        &file.path,
                    );
                }
                problem.kind
            })?;
            if content != wanted.content {
                self.world.violated(
                    format!("block {} of {} is not what was written", block.block, file.path),
                    &[block.block.0],
                    &file.path,
                );
            }
        }
        Ok(())
    }

    /// Reads a name to the end when all is quiet: what it shows must be possible, and whole.
    pub async fn audit(self: &Rc<Self>, client: &Rc<Client>, group: usize, slot: usize) {
        let call = self.call(group, Operation::Read { slot });
        let path = path_of(group, slot);
        match client.lookup(&path).await {
            Ok((file, blocks)) => {
                let value = self.see(&file);
                call.answer(Ok(Outcome::Saw(value)));
                if let Err(kind) = self.compare(client, &file, value, &blocks).await {
                    let keys: Vec<u64> = blocks.iter().map(|block| block.block.0).collect();
                    self.world.violated(
                        format!("{path} can't be read when all is well: {}", kind.name()),
                        &keys,
                        &path,
                    );
                }
            }
            Err(failed) if failed.problem.kind == ProblemKind::NotFound => {
                call.answer(Ok(Outcome::Saw(0)));
            }
            Err(failed) => {
                self.world.violated(
                    format!("{path} can't be looked up when all is well: {}", failed.problem),
                    &[],
                    &path,
                );
                call.answer(Err(failed));
            }
        }
    }

    /// Writes a name when all is quiet, which must succeed.
    pub async fn try_out(self: &Rc<Self>, client: &Rc<Client>, group: usize, slot: usize) {
        let before = self.tally().acknowledged;
        self.write(client, group, slot, true).await;
        if self.tally().acknowledged == before {
            let path = path_of(group, slot);
            self.world
                .violated(format!("{path} can't be written when all is well"), &[], &path);
        }
    }

    fn call(self: &Rc<Self>, group: usize, operation: Operation) -> Call {
        let ticket = self.groups[group]
            .borrow_mut()
            .call(operation, self.world.now_ms());
        let note = format!("/g{group}/ {operation:?}");
        self.world.note(0, 0, "called", &[], note);
        Call {
            workload: self.clone(),
            group,
            ticket: Some(ticket),
            writes: matches!(operation, Operation::Write { .. }),
        }
    }
}

/// An operation that is under way; dropped unanswered (its client has crashed), nobody knows what became of it.
struct Call {
    workload: Rc<Workload>,
    group: usize,
    ticket: Option<Ticket>,
    writes: bool,
}

impl Call {
    fn answer(mut self, answered: Result<Outcome, Failed>) {
        let outcome = match answered {
            Ok(outcome) => outcome,
            // Tries of a call share its request id: one that was done is answered so whenever it is tried again.
            Err(Failed {
                perhaps: true,
                problem,
            }) => match problem.kind {
                ProblemKind::NotFound if !self.writes => Outcome::NotFoundYet,
                ProblemKind::Exists if !self.writes => Outcome::ExistsYet,
                _ => Outcome::Unknown,
            },
            Err(Failed { problem, .. }) => match problem.kind {
                // A write's refusal speaks of something else: a volume, or a block.
                ProblemKind::NotFound if !self.writes => Outcome::NotFound,
                ProblemKind::Exists => Outcome::Exists,
                // The nameserver's disk has failed: what was being written may be there after its next start.
                ProblemKind::Failed => Outcome::Unknown,
                _ => Outcome::Never,
            },
        };
        self.workload.count(|tally| match outcome {
            Outcome::Done | Outcome::Saw(_) => tally.acknowledged += 1,
            Outcome::NotFound | Outcome::Exists | Outcome::NotFoundYet | Outcome::ExistsYet => {
                tally.refused += 1;
            }
            Outcome::Never | Outcome::Unknown => tally.given_up += 1,
        });
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        let Some(ticket) = self.ticket.take() else { return };
        let world = &self.workload.world;
        let mut history = self.workload.groups[self.group].borrow_mut();
        let note = format!("/g{}/ {ticket:?}: {outcome:?}", self.group);
        world.note(0, 0, "answered", &[], note);
        if let Err(why) = history.answer(ticket, outcome, world.now_ms()) {
            world.violated(why, &[], &format!("/g{}/", self.group));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.settle(Outcome::Unknown);
    }
}

/// Counts itself as an operation under way.
struct Running(Rc<Workload>);

impl Running {
    fn new(workload: Rc<Workload>) -> Self {
        workload.running.set(workload.running.get() + 1);
        Self(workload)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}
