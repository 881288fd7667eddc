//! The disk as a simulation: the twin of `uring`, in memory, seeded, and as unkind as a real one may be.
//!
//! The fault model. Completions come in any order. A sync makes durable what had completed when it was submitted:
//! of its own file, and of other files in extents that were made durable before (as a device's cache flush does on
//! ext4 and xfs). New names are durable after their folder's sync. A crash keeps any of what is not durable, sector
//! by sector, and any prefix of a folder's new names. On demand: short transfers, interruptions, the nth operation
//! failing once or for ever, writes that are lost or go elsewhere though they report success, a full filesystem.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::device::{Completion, Device, FileId, Op};

mod faults;
mod files;

pub(crate) use faults::{Fault, Faults, Kind, Plan, Rng};

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// Pages that were ever written; the others are zeros. Images share those in which they agree.
#[derive(Clone, Default)]
struct Pages(BTreeMap<u64, Rc<[u8; PAGE_BYTES]>>);

impl Pages {
    fn write(&mut self, mut offset_bytes: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = (offset_bytes % PAGE_BYTES as u64) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - within));
            let page = self
                .0
                .entry(offset_bytes / PAGE_BYTES as u64)
                .or_insert_with(|| Rc::new([0; PAGE_BYTES]));
            Rc::make_mut(page)[within..within + now.len()].copy_from_slice(now);
            (offset_bytes, bytes) = (offset_bytes + now.len() as u64, rest);
        }
    }

    fn read(&self, mut offset_bytes: u64, mut into: &mut [u8]) {
        while !into.is_empty() {
            let within = (offset_bytes % PAGE_BYTES as u64) as usize;
            let (now, rest) = into.split_at_mut(into.len().min(PAGE_BYTES - within));
            match self.0.get(&(offset_bytes / PAGE_BYTES as u64)) {
                Some(page) => now.copy_from_slice(&page[within..within + now.len()]),
                None => now.fill(0),
            }
            (offset_bytes, into) = (offset_bytes + now.len() as u64, rest);
        }
    }
}

/// A write that no sync has covered.
struct Pending {
    offset_bytes: u64,
    bytes: Vec<u8>,
    /// When it completed; none while it is in flight (then it is not in the current image).
    completed_at: u64,
}

#[derive(Default)]
struct Inode {
    current: Pages,
    length_bytes: u64,
    durable: Pages,
    durable_length_bytes: u64,
    /// Pages whose extents a sync of this file has made durable.
    extents: BTreeMap<u64, ()>,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum NameChange {
    Make(String, usize),
    Rename(String, String),
    Remove(String),
}

fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Make(name, inode) => drop(names.insert(name.clone(), *inode)),
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(name) => drop(names.remove(name)),
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[derive(Clone)]
enum Handle {
    File { inode: usize, name: String },
    Folder(String),
}

struct Queued {
    token: u64,
    op: Op,
    done_bytes: usize,
    submitted_at: u64,
}

struct World {
    rng: Rng,
    faults: Faults,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    new_names: Vec<NameChange>,
    inodes: Vec<Inode>,
    open: Vec<Option<Handle>>,
    queue: Vec<Queued>,
    clock: u64,
    syncs: u64,
    capacity_bytes: u64,
    dead: bool,
    flushes_device: bool,
}

/// A disk that survives the volumes opened on it; clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimDisk(Rc<RefCell<World>>);

/// What one volume has of the disk.
pub(crate) struct SimDevice(Rc<RefCell<World>>);

impl Drop for SimDevice {
    /// As in `Uring`: what is in flight ends, what is queued does not begin.
    fn drop(&mut self) {
        let world = &mut *self.0.borrow_mut();
        if world.dead {
            return;
        }
        for mut queued in std::mem::take(&mut world.queue) {
            if world.rng.chance(500) && world.perform(&mut queued).is_none() {
                return;
            }
        }
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64, capacity_bytes: u64) -> Self {
        Self(Rc::new(RefCell::new(World {
            rng: Rng::new(seed),
            faults: Faults::default(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            new_names: Vec::new(),
            inodes: Vec::new(),
            open: Vec::new(),
            queue: Vec::new(),
            clock: 0,
            syncs: 0,
            capacity_bytes,
            dead: false,
            flushes_device: true,
        })))
    }

    /// The disk for a volume to be opened on: one at a time.
    pub(crate) fn device(&self) -> SimDevice {
        SimDevice(self.0.clone())
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    /// As on a filesystem where a sync covers its own file only.
    pub(crate) fn set_flushes_device(&self, flushes: bool) {
        self.0.borrow_mut().flushes_device = flushes;
    }

    pub(crate) fn set_capacity(&self, capacity_bytes: u64) {
        self.0.borrow_mut().capacity_bytes = capacity_bytes;
    }

    /// Syncs since the last crash.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// The power goes, and comes back: what was not durable survives in part or not at all.
    pub(crate) fn crash(&self) {
        let world = &mut *self.0.borrow_mut();
        world.write_in_flight();
        // Sometimes all or nothing survives, mostly anything.
        let keep_per_mille = [0, 1000, 500, 500, 900][world.rng.below(5) as usize];
        for inode in &mut world.inodes {
            for write in std::mem::take(&mut inode.pending) {
                for (at, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                    if world.rng.chance(keep_per_mille) {
                        let at_bytes = write.offset_bytes + (at * SECTOR_BYTES) as u64;
                        inode.durable.write(at_bytes, sector);
                        // What can be read after a crash is in an extent that was made durable.
                        inode.extents.insert(at_bytes / PAGE_BYTES as u64, ());
                    }
                }
            }
            if world.rng.chance(keep_per_mille) {
                inode.durable_length_bytes = inode.length_bytes;
            }
            inode.current = inode.durable.clone();
            inode.length_bytes = inode.durable_length_bytes;
        }
        let mut surviving: BTreeMap<&str, bool> = BTreeMap::new();
        for change in &world.new_names {
            let (NameChange::Make(name, _) | NameChange::Rename(name, _) | NameChange::Remove(name)) = change;
            let rng = &mut world.rng;
            let alive = surviving.entry(folder_of(name)).or_insert(true);
            *alive &= rng.chance(keep_per_mille);
            if *alive {
                apply_name(&mut world.durable_names, change);
            }
        }
        world.new_names.clear();
        world.names = world.durable_names.clone();
        world.open.clear();
        world.queue.clear();
        world.syncs = 0;
        world.dead = false;
    }

    /// Flips a bit of a file behind everybody's back.
    pub(crate) fn flip(&self, name: &str, at_bytes: u64) {
        let world = &mut *self.0.borrow_mut();
        let inode = &mut world.inodes[world.names[name]];
        let sector_bytes = at_bytes / SECTOR_BYTES as u64 * SECTOR_BYTES as u64;
        let mut sector = [0; SECTOR_BYTES];
        inode.current.read(sector_bytes, &mut sector);
        sector[(at_bytes - sector_bytes) as usize] ^= 1;
        inode.current.write(sector_bytes, &sector);
        inode.durable.write(sector_bytes, &sector);
    }
}

impl World {
    fn check(&self) -> io::Result<()> {
        if self.dead {
            Err(io::Error::new(io::ErrorKind::BrokenPipe, "the power is gone"))
        } else {
            Ok(())
        }
    }

    fn inode(&self, file: FileId) -> Option<(usize, &str)> {
        match self.open.get(file.0 as usize)? {
            Some(Handle::File { inode, name }) => Some((*inode, name)),
            _ => None,
        }
    }

    fn allocated_bytes(&self) -> u64 {
        self.names
            .values()
            .map(|&inode| self.inodes[inode].length_bytes)
            .sum()
    }

    /// What was on its way when the power went may have arrived.
    fn write_in_flight(&mut self) {
        for queued in std::mem::take(&mut self.queue) {
            if let Op::Write {
                file,
                offset_bytes,
                from,
            } = &queued.op
                && let Some((inode, _)) = self.inode(*file)
            {
                let bytes = from.as_ref()[queued.done_bytes..].to_vec();
                let offset_bytes = offset_bytes + queued.done_bytes as u64;
                self.inodes[inode].pending.push(Pending {
                    offset_bytes,
                    bytes,
                    completed_at: u64::MAX,
                });
            }
        }
    }

    /// The planned fault of this operation, if it is its turn.
    fn fault(&mut self, op: &Op) -> Option<Fault> {
        let (kind, file) = match op {
            Op::Read { file, .. } => (Kind::Read, file),
            Op::Write { file, .. } => (Kind::Write, file),
            Op::Sync { file } => (Kind::Sync, file),
            Op::Allocate { file, .. } => (Kind::Allocate, file),
        };
        let name = self
            .inode(*file)
            .map_or(String::new(), |(_, name)| name.to_owned());
        let mut found = None;
        for plan in &mut self.faults.plans {
            if plan.kind != kind || !name.starts_with(plan.name_prefix) {
                continue;
            }
            if plan.nth == 0 {
                found = found.or(Some(plan.fault));
            }
            // Past its turn the count stays beyond reach, or at the turn for ever.
            plan.nth = match plan.nth {
                0 if plan.for_ever => 0,
                0 => u64::MAX,
                u64::MAX => u64::MAX,
                nth => nth - 1,
            };
        }
        found
    }

    /// Does one operation; `None` when the power goes instead.
    fn perform(&mut self, queued: &mut Queued) -> Option<io::Result<usize>> {
        self.clock += 1;
        if let Op::Sync { file } = queued.op {
            let crash = self.faults.crash_at_sync == Some(self.syncs);
            self.syncs += 1;
            if crash {
                // The power may go before the flush or behind it, but before anybody hears of it.
                if self.rng.chance(300) {
                    self.sync(file, queued.submitted_at);
                }
                self.dead = true;
                return None;
            }
        }
        let fault = self.fault(&queued.op);
        if let Some(Fault::Error(errno)) = fault {
            return Some(Err(io::Error::from_raw_os_error(errno)));
        }
        if self.rng.chance(self.faults.interrupted_per_mille) {
            let errno = if self.rng.chance(500) {
                libc::EINTR
            } else {
                libc::EAGAIN
            };
            return Some(Err(io::Error::from_raw_os_error(errno)));
        }
        let left_bytes = queued.op.transfer_bytes() - queued.done_bytes;
        let mut bytes = left_bytes;
        if left_bytes > SECTOR_BYTES && self.rng.chance(self.faults.short_per_mille) {
            bytes =
                self.rng.below((left_bytes / SECTOR_BYTES) as u64) as usize * SECTOR_BYTES + SECTOR_BYTES / 2;
        }
        let done = queued.done_bytes;
        match &mut queued.op {
            Op::Read {
                file,
                offset_bytes,
                into,
            } => {
                let Some((inode, _)) = self.inode(*file) else {
                    return Some(Err(bad_file()));
                };
                let (inode, from_bytes) = (&self.inodes[inode], *offset_bytes + done as u64);
                let there_bytes = inode.length_bytes.saturating_sub(from_bytes).min(bytes as u64) as usize;
                inode
                    .current
                    .read(from_bytes, &mut into.as_mut()[done..done + there_bytes]);
                Some(Ok(there_bytes))
            }
            Op::Write {
                file,
                offset_bytes,
                from,
            } => {
                let Some((inode, _)) = self.inode(*file) else {
                    return Some(Err(bad_file()));
                };
                let mut offset_bytes = *offset_bytes + done as u64;
                match fault {
                    Some(Fault::Lost) => return Some(Ok(bytes)),
                    Some(Fault::Misdirected(by_bytes)) => offset_bytes += by_bytes,
                    _ => {}
                }
                let whole_sectors = bytes - bytes % SECTOR_BYTES;
                let data = from.as_ref()[done..done + whole_sectors].to_vec();
                let inode = &mut self.inodes[inode];
                inode.current.write(offset_bytes, &data);
                inode.length_bytes = inode.length_bytes.max(offset_bytes + data.len() as u64);
                inode.pending.push(Pending {
                    offset_bytes,
                    bytes: data,
                    completed_at: self.clock,
                });
                Some(Ok(bytes))
            }
            Op::Sync { file } => {
                self.sync(*file, queued.submitted_at);
                Some(Ok(0))
            }
            Op::Allocate { file, bytes } => {
                let Some((inode, _)) = self.inode(*file) else {
                    return Some(Err(bad_file()));
                };
                let more_bytes = bytes.saturating_sub(self.inodes[inode].length_bytes);
                if self.allocated_bytes() + more_bytes > self.capacity_bytes {
                    return Some(Err(io::Error::from_raw_os_error(libc::ENOSPC)));
                }
                self.inodes[inode].length_bytes += more_bytes;
                Some(Ok(0))
            }
        }
    }

    /// Makes durable what had completed at `submitted_at`.
    fn sync(&mut self, file: FileId, submitted_at: u64) {
        match self.open.get(file.0 as usize) {
            Some(Some(Handle::Folder(folder))) => {
                let folder = folder.clone();
                for change in std::mem::take(&mut self.new_names) {
                    let (NameChange::Make(name, _) | NameChange::Rename(name, _) | NameChange::Remove(name)) =
                        &change;
                    if folder_of(name) == folder {
                        apply_name(&mut self.durable_names, &change);
                    } else {
                        self.new_names.push(change);
                    }
                }
            }
            Some(Some(Handle::File { inode: synced, .. })) => {
                let synced = *synced;
                let flushes_device = self.flushes_device;
                for (number, inode) in self.inodes.iter_mut().enumerate() {
                    let own = number == synced;
                    if !own && !flushes_device {
                        continue;
                    }
                    if own {
                        inode.durable_length_bytes = inode.length_bytes;
                    }
                    for write in std::mem::take(&mut inode.pending) {
                        let pages = write.offset_bytes / PAGE_BYTES as u64
                            ..(write.offset_bytes + write.bytes.len() as u64).div_ceil(PAGE_BYTES as u64);
                        let covered = own || pages.clone().all(|page| inode.extents.contains_key(&page));
                        if write.completed_at < submitted_at && covered {
                            inode.durable.write(write.offset_bytes, &write.bytes);
                            inode.extents.extend(pages.map(|page| (page, ())));
                        } else {
                            inode.pending.push(write);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

fn bad_file() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

impl Device for SimDevice {
    fn submit(&mut self, token: u64, op: Op, done_bytes: usize) {
        let mut world = self.0.borrow_mut();
        world.clock += 1;
        let submitted_at = world.clock;
        world.queue.push(Queued {
            token,
            op,
            done_bytes,
            submitted_at,
        });
    }

    fn turn(&mut self, wait: bool, completions: &mut Vec<Completion>) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.check()?;
        let all = world.queue.len() as u64;
        let some = if all == 0 {
            0
        } else {
            world.rng.below(all + 1).max(u64::from(wait))
        };
        for _ in 0..some {
            let left = world.queue.len() as u64;
            let pick = world.rng.below(left) as usize;
            let mut queued = world.queue.swap_remove(pick);
            match world.perform(&mut queued) {
                Some(result) => completions.push(Completion {
                    token: queued.token,
                    op: queued.op,
                    result,
                }),
                None => {
                    world.queue.push(queued);
                    world.write_in_flight();
                    return world.check();
                }
            }
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.0.borrow().queue.len()
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn arm(&mut self, _armed: bool) {}

    fn drain_event(&mut self) {}
}
