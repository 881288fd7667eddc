//! The disk as a simulation: files in memory, with what is durable kept apart from what only seems written.
//!
//! Stated fault model. One seed decides everything, so a run can be replayed.
//! - Operations complete in any order; reads see what has completed.
//! - A sync makes durable what had completed *before it was submitted*: the file's own writes and length, and (as
//!   ext4 and xfs do) other files' writes into extents that were durably written before. Nothing else.
//! - A power cut keeps durable bytes, and of every later or unfinished write any subset of its 512 B sectors; a
//!   sector into an extent that was only allocated reads as zeros again unless the file was synced.
//! - Names: creations, renames and removals since the last sync of their folder survive as a prefix.
//! - On request: the nth operation fails (once or for ever), transfers are short, EAGAIN comes, a write lands in
//!   the wrong place, bits flip.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::device::{Completion, Content, Device, FileId, Files, How, Op};

/// The medium changes in units of this.
const SECTOR_BYTES: usize = 512;
/// Extents are tracked in units of this.
const EXTENT_BYTES: usize = 4096;

/// SplitMix64 (Steele et al. 2014): small, and the same on every machine.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True `of_thousand` times in a thousand.
    pub(crate) fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }
}

/// Which faults to inject.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// The operation with this number (counted from 0 over the life of the disk) fails with the error.
    pub(crate) fail_at: Option<(u64, i32)>,
    /// And so does every later one of the same kind.
    pub(crate) fail_for_ever: bool,
    /// The write with this number lands as many bytes further on.
    pub(crate) misdirect_at: Option<(u64, u64)>,
    /// Transfers in a thousand that are short.
    pub(crate) short_transfers: u64,
    /// Operations in a thousand that are answered EAGAIN first.
    pub(crate) again: u64,
}

/// A file's contents: as seen, as durable, and the writes between the two.
#[derive(Clone, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Extents that a power cut leaves readable.
    written: BTreeSet<usize>,
    /// Completed writes since they were last made durable: when completed, where, what.
    pending: Vec<(u64, usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Naming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

struct Flight {
    token: u64,
    op: Op,
    done_bytes: usize,
    submitted_at: u64,
}

/// What lies under the volume: outlives power cuts.
pub(crate) struct Medium {
    random: Random,
    pub(crate) faults: Faults,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    namings: Vec<Naming>,
    folders: BTreeSet<String>,
    flights: Vec<Flight>,
    operations: u64,
    failing: Option<(std::mem::Discriminant<Op>, i32)>,
    clock: u64,
    free_bytes: u64,
    /// Lives of the disk: one of an earlier life does nothing any more.
    life: u64,
}

/// One life of the simulated disk, from power-on to power cut.
pub(crate) struct Sim {
    medium: Rc<RefCell<Medium>>,
    life: u64,
    open: Vec<Option<Open>>,
}

#[derive(Clone)]
enum Open {
    File(usize),
    Folder(String),
}

impl Medium {
    /// An empty disk of `free_bytes`, on which everything follows from `seed`.
    pub(crate) fn new(seed: u64, free_bytes: u64) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            random: Random(seed),
            faults: Faults::default(),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            namings: Vec::new(),
            folders: BTreeSet::from([String::new()]),
            flights: Vec::new(),
            operations: 0,
            failing: None,
            clock: 0,
            free_bytes,
            life: 0,
        }))
    }

    /// Operations submitted so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Names and lengths of all files.
    pub(crate) fn files(&self) -> Vec<(String, usize)> {
        self.names.iter().map(|(name, &inode)| (name.clone(), self.inodes[inode].seen.len())).collect()
    }

    /// Flips one bit of a file, durably: what a medium does by itself.
    pub(crate) fn flip(&mut self, name: &str, bit: usize) {
        let inode = &mut self.inodes[self.names[name]];
        for image in [&mut inode.seen, &mut inode.durable] {
            if let Some(byte) = image.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Cuts the power: forgets what was not durable, as the fault model says.
    pub(crate) fn cut_power(&mut self) {
        self.life += 1;
        let unfinished: Vec<_> = self.flights.drain(..).collect();
        for Flight { op, done_bytes, .. } in &unfinished {
            if let Op::Write { from, .. } = op {
                let inode = file_of(op);
                let at = offset_of(op) + done_bytes;
                self.inodes[inode].pending.push((u64::MAX, at, from.as_ref()[*done_bytes..].to_vec()));
            }
        }
        let kept = self.random.below(self.namings.len() as u64 + 1) as usize;
        for naming in std::mem::take(&mut self.namings).into_iter().take(kept) {
            apply(&mut self.durable_names, naming);
        }
        self.names = self.durable_names.clone();
        for inode in &mut self.inodes {
            let pending = std::mem::take(&mut inode.pending);
            // Runs that lose all or keep all are as likely as mixtures.
            let keep = [0, 1000, 500, 900][self.random.below(4) as usize];
            for (_, offset, bytes) in pending {
                for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    let start = offset + at * SECTOR_BYTES;
                    let readable = inode.written.contains(&(start / EXTENT_BYTES));
                    if readable && self.random.chance(keep) {
                        put(&mut inode.durable, start, sector);
                    }
                }
            }
            inode.seen = inode.durable.clone();
        }
        self.failing = None;
    }

    fn sync(&mut self, target: &Open, submitted_at: u64) {
        match target {
            Open::Folder(folder) => {
                for naming in std::mem::take(&mut self.namings) {
                    let (Naming::Create(name, _) | Naming::Rename(_, name) | Naming::Remove(name)) = &naming;
                    if folder_of(name) == *folder {
                        apply(&mut self.durable_names, naming);
                    } else {
                        self.namings.push(naming);
                    }
                }
            }
            Open::File(synced) => {
                for (number, inode) in self.inodes.iter_mut().enumerate() {
                    let own = number == *synced;
                    if own && inode.durable.len() != inode.seen.len() {
                        inode.durable.resize(inode.seen.len(), 0);
                    }
                    for (completed_at, offset, bytes) in std::mem::take(&mut inode.pending) {
                        if completed_at > submitted_at {
                            inode.pending.push((completed_at, offset, bytes));
                            continue;
                        }
                        let extents = offset / EXTENT_BYTES..=(offset + bytes.len() - 1) / EXTENT_BYTES;
                        if own {
                            inode.written.extend(extents);
                            put(&mut inode.durable, offset, &bytes);
                        } else if extents.clone().all(|extent| inode.written.contains(&extent)) {
                            put(&mut inode.durable, offset, &bytes);
                        } else {
                            inode.pending.push((completed_at, offset, bytes));
                        }
                    }
                }
            }
        }
    }

    /// Carries out an operation; bytes transferred.
    fn run(&mut self, flight: &mut Flight, target: Option<Open>) -> io::Result<usize> {
        let number = self.operations;
        self.operations += 1;
        let kind = std::mem::discriminant(&flight.op);
        if let Some((at, errno)) = self.faults.fail_at
            && number == at
        {
            if self.faults.fail_for_ever {
                self.failing = Some((kind, errno));
            }
            return Err(io::Error::from_raw_os_error(errno));
        }
        if let Some((failing, errno)) = self.failing
            && failing == kind
        {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let target = target.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        if self.random.chance(self.faults.again) {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let (done, total) = (flight.done_bytes, flight.op.transfer_bytes());
        let mut length = total - done;
        if length > SECTOR_BYTES && self.random.chance(self.faults.short_transfers) {
            length = 1 + self.random.below(length as u64 - 1) as usize;
        }
        let inode = match &target {
            Open::File(inode) => *inode,
            Open::Folder(_) if matches!(flight.op, Op::Sync { .. }) => 0,
            Open::Folder(_) => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
        };
        match &mut flight.op {
            Op::Read { offset_bytes, into, .. } => {
                let seen = &self.inodes[inode].seen;
                let start = (*offset_bytes as usize + done).min(seen.len());
                let length = length.min(seen.len() - start);
                into.as_mut()[done..done + length].copy_from_slice(&seen[start..start + length]);
                Ok(length)
            }
            Op::Write { offset_bytes, from, .. } => {
                let mut start = *offset_bytes as usize + done;
                if let Some((at, further)) = self.faults.misdirect_at
                    && at == number
                {
                    start += further as usize;
                }
                let bytes = from.as_ref()[done..done + length].to_vec();
                let file = &mut self.inodes[inode];
                if start + length > file.seen.len() {
                    file.seen.resize(start + length, 0);
                }
                put(&mut file.seen, start, &bytes);
                self.clock += 1;
                file.pending.push((self.clock, start, bytes));
                Ok(length)
            }
            Op::Sync { .. } => {
                self.sync(&target, flight.submitted_at);
                Ok(0)
            }
            Op::Allocate { bytes, .. } => {
                let file = &mut self.inodes[inode];
                let more = bytes.saturating_sub(file.seen.len() as u64);
                if more > self.free_bytes {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                self.free_bytes -= more;
                file.seen.resize(file.seen.len().max(*bytes as usize), 0);
                Ok(0)
            }
        }
    }
}

impl Sim {
    /// Powers the disk on.
    pub(crate) fn new(medium: &Rc<RefCell<Medium>>) -> Self {
        let life = medium.borrow().life;
        Self { medium: medium.clone(), life, open: Vec::new() }
    }

    fn alive(&self) -> io::Result<std::cell::RefMut<'_, Medium>> {
        let medium = self.medium.borrow_mut();
        if medium.life == self.life { Ok(medium) } else { Err(io::Error::other("the power was cut")) }
    }

    fn add(&mut self, open: Open) -> FileId {
        self.open.push(Some(open));
        FileId(self.open.len() as u32 - 1)
    }

    fn target(&self, file: FileId) -> Option<Open> {
        self.open.get(file.0 as usize).cloned().flatten()
    }
}

impl Device for Sim {
    fn submit(&mut self, token: u64, op: Op, done_bytes: usize) {
        let op = renumber(op, |file| match self.target(file) {
            Some(Open::File(inode)) => FileId(inode as u32),
            // Found again by its place in `open`, behind all inodes' numbers.
            _ => FileId(u32::MAX - file.0),
        });
        let mut medium = self.medium.borrow_mut();
        let submitted_at = medium.clock;
        if medium.life == self.life {
            medium.flights.push(Flight { token, op, done_bytes, submitted_at });
        }
    }

    fn turn(&mut self, wait: bool, completions: &mut Vec<Completion>) -> io::Result<()> {
        let open = self.open.clone();
        let mut medium = self.alive()?;
        let flights = medium.flights.len() as u64;
        let mut finish = if flights == 0 { 0 } else { medium.random.below(flights + 1) };
        if wait && finish == 0 && flights > 0 {
            finish = 1;
        }
        for _ in 0..finish {
            let count = medium.flights.len() as u64;
            let chosen = medium.random.below(count) as usize;
            let mut flight = medium.flights.swap_remove(chosen);
            let file = file_of(&flight.op);
            let target = if file < medium.inodes.len() {
                Some(Open::File(file))
            } else {
                open.get((u32::MAX as usize) - file).cloned().flatten()
            };
            let result = medium.run(&mut flight, target);
            completions.push(Completion { token: flight.token, op: flight.op, result });
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.alive().map_or(0, |medium| medium.flights.len())
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn arm(&mut self, _armed: bool) {}

    fn drain_event(&mut self) {}
}

impl Files for Sim {
    fn open(&mut self, name: &str, how: How) -> io::Result<(FileId, u64)> {
        let mut medium = self.alive()?;
        let inode = match (medium.names.get(name).copied(), how) {
            (Some(inode), How::Existing) => inode,
            (None, How::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (_, How::Empty) => {
                if !medium.folders.contains(&folder_of(name)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                medium.inodes.push(Inode::default());
                let inode = medium.inodes.len() - 1;
                let naming = Naming::Create(name.to_owned(), inode);
                apply(&mut medium.names, naming.clone());
                medium.namings.push(naming);
                inode
            }
        };
        let length_bytes = medium.inodes[inode].seen.len() as u64;
        drop(medium);
        Ok((self.add(Open::File(inode)), length_bytes))
    }

    fn open_folder(&mut self, name: &str) -> io::Result<FileId> {
        if !self.alive()?.folders.contains(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.add(Open::Folder(name.to_owned())))
    }

    fn close(&mut self, file: FileId) {
        self.open[file.0 as usize] = None;
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let medium = self.alive()?;
        let within = medium.names.iter().filter(|(name, _)| folder_of(name) == folder);
        Ok(within
            .map(|(name, &inode)| {
                let last = name.rsplit('/').next().unwrap_or(name);
                (last.to_owned(), medium.inodes[inode].seen.len() as u64)
            })
            .collect())
    }

    fn read(&self, name: &str) -> io::Result<Content> {
        let medium = self.alive()?;
        let inode = *medium.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Content::Read(medium.inodes[inode].seen.clone()))
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut medium = self.alive()?;
        let extents = (0..bytes.len().div_ceil(EXTENT_BYTES)).collect();
        medium.inodes.push(Inode {
            seen: bytes.to_vec(),
            durable: bytes.to_vec(),
            written: extents,
            pending: Vec::new(),
        });
        let naming = Naming::Create(name.to_owned(), medium.inodes.len() - 1);
        apply(&mut medium.names, naming.clone());
        // The folder is synced with it: all namings there are durable now.
        medium.namings.push(naming);
        medium.sync(&Open::Folder(folder_of(name)), u64::MAX);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut medium = self.alive()?;
        if !medium.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let naming = Naming::Rename(from.to_owned(), to.to_owned());
        apply(&mut medium.names, naming.clone());
        medium.namings.push(naming);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut medium = self.alive()?;
        let inode = *medium.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        medium.free_bytes += medium.inodes[inode].seen.len() as u64;
        let naming = Naming::Remove(name.to_owned());
        apply(&mut medium.names, naming.clone());
        medium.namings.push(naming);
        Ok(())
    }

    fn create_folder(&mut self, name: &str) -> io::Result<()> {
        self.alive()?.folders.insert(name.to_owned());
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.alive()?.free_bytes)
    }

    fn sync_flushes_device(&self) -> bool {
        true
    }

    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut medium = self.alive()?;
        for part in bytes.chunks_mut(8) {
            let word = medium.random.next().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn has_registered_buffers(&self) -> bool {
        true
    }
}

fn file_of(op: &Op) -> usize {
    let (Op::Read { file, .. } | Op::Write { file, .. } | Op::Sync { file } | Op::Allocate { file, .. }) = op;
    file.0 as usize
}

fn offset_of(op: &Op) -> usize {
    match op {
        Op::Read { offset_bytes, .. } | Op::Write { offset_bytes, .. } => *offset_bytes as usize,
        Op::Sync { .. } | Op::Allocate { .. } => 0,
    }
}

fn renumber(op: Op, to: impl Fn(FileId) -> FileId) -> Op {
    match op {
        Op::Read { file, offset_bytes, into } => Op::Read { file: to(file), offset_bytes, into },
        Op::Write { file, offset_bytes, from } => Op::Write { file: to(file), offset_bytes, from },
        Op::Sync { file } => Op::Sync { file: to(file) },
        Op::Allocate { file, bytes } => Op::Allocate { file: to(file), bytes },
    }
}

fn apply(names: &mut BTreeMap<String, usize>, naming: Naming) {
    match naming {
        Naming::Create(name, inode) => {
            names.insert(name, inode);
        }
        Naming::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
        Naming::Remove(name) => {
            names.remove(&name);
        }
    }
}

fn folder_of(name: &str) -> String {
    name.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned())
}

fn put(image: &mut [u8], start: usize, bytes: &[u8]) {
    // Past the durable end nothing is kept: the length is not durable either.
    let end = (start + bytes.len()).min(image.len());
    if start < end {
        image[start..end].copy_from_slice(&bytes[..end - start]);
    }
}
