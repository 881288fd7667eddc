//! What a simulated disk is: its files, what of them is durable, what is in flight, and how each operation goes.

use std::collections::BTreeMap;
use std::io;

use super::SECTOR_BYTES;
use super::crash::{CrashPoint, Image, Unflushed};
use super::faults::{Fault, Faults, Kind, Rng};
use super::pages::{Durable, Pages, pages_of};
use crate::device::{FileId, Op};

/// A write that no sync has covered.
pub(super) struct Pending {
    pub(super) offset_bytes: u64,
    pub(super) bytes: std::rc::Rc<[u8]>,
    completed_at: u64,
}

#[derive(Default)]
pub(super) struct Inode {
    pub(super) current: Pages,
    pub(super) length_bytes: u64,
    pub(super) durable: Durable,
    pub(super) pending: Vec<Pending>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Make(String, usize),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    pub(super) fn name(&self) -> &str {
        let (Self::Make(name, _) | Self::Rename(name, _) | Self::Remove(name)) = self;
        name
    }
}

pub(super) fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
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

pub(super) fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[derive(Clone)]
pub(super) enum Handle {
    File { inode: usize, name: String },
    Folder(String),
}

pub(super) struct Queued {
    pub(super) token: u64,
    pub(super) op: Op,
    pub(super) done_bytes: usize,
    pub(super) submitted_at: u64,
}

/// Called with each moment at which the power may go.
pub(super) type Watcher = Box<dyn FnMut(CrashPoint)>;

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pub(super) new_names: Vec<NameChange>,
    pub(super) inodes: Vec<Inode>,
    pub(super) open: Vec<Option<Handle>>,
    pub(super) queue: Vec<Queued>,
    /// Writes that were under way when the power went, of a volume that is gone.
    left: Vec<Unflushed>,
    pub(super) clock: u64,
    pub(super) turns: u64,
    pub(super) syncs: u64,
    pub(super) capacity_bytes: u64,
    pub(super) dead: bool,
    pub(super) flushes_device: bool,
    pub(super) watcher: Option<Watcher>,
    /// The clock at the last moment that was watched.
    pub(super) watched_at: u64,
    /// What the kernel still holds after the ring has died: it may use these buffers for ever.
    pub(super) given_up: Vec<Queued>,
}

impl World {
    /// A machine that has just been switched on, with this disk in it.
    pub(super) fn new(rng: Rng, image: &Image) -> Self {
        let mut world = Self {
            rng,
            faults: Faults::default(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            new_names: Vec::new(),
            inodes: Vec::new(),
            open: Vec::new(),
            queue: Vec::new(),
            left: Vec::new(),
            clock: 0,
            turns: 0,
            syncs: 0,
            capacity_bytes: 1 << 40,
            dead: false,
            flushes_device: true,
            watcher: None,
            watched_at: 0,
            given_up: Vec::new(),
        };
        world.start_from(image);
        world
    }

    pub(super) fn start_from(&mut self, image: &Image) {
        self.inodes.clear();
        self.names.clear();
        for (name, &file) in &image.names {
            let durable = image.files[file].clone();
            self.names.insert(name.clone(), self.inodes.len());
            self.inodes.push(Inode {
                current: durable.pages.clone(),
                length_bytes: durable.length_bytes,
                durable,
                pending: Vec::new(),
            });
        }
        self.durable_names = self.names.clone();
        self.new_names.clear();
        self.open.clear();
        self.queue.clear();
        self.left.clear();
        self.syncs = 0;
        self.turns = 0;
        self.dead = false;
    }

    pub(super) fn check(&self) -> io::Result<()> {
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

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.names
            .values()
            .map(|&inode| self.inodes[inode].length_bytes)
            .sum()
    }

    /// What is on its way when the power goes may arrive.
    pub(super) fn writes_in_flight(&self) -> impl Iterator<Item = Unflushed> {
        let queued = self.given_up.iter().chain(&self.queue);
        let queued = queued.filter_map(|queued| self.unflushed(queued));
        self.left.iter().cloned().chain(queued)
    }

    /// Lets go of the buffers of what is queued, but not of what they hold: the power is gone, and so is the volume.
    pub(super) fn let_go(&mut self) {
        let left: Vec<Unflushed> = self
            .queue
            .iter()
            .filter_map(|queued| self.unflushed(queued))
            .collect();
        self.left.extend(left);
        self.queue.clear();
    }

    fn unflushed(&self, queued: &Queued) -> Option<Unflushed> {
        let Op::Write {
            file,
            offset_bytes,
            from,
        } = &queued.op
        else {
            return None;
        };
        Some(Unflushed {
            file: self.inode(*file)?.0,
            offset_bytes: offset_bytes + queued.done_bytes as u64,
            bytes: from.as_ref()[queued.done_bytes..].into(),
        })
    }

    /// The planned fault of the next operation of this kind on a file of this name, if it is its turn.
    pub(super) fn planned(&mut self, kind: Kind, name: &str) -> Option<Fault> {
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

    /// As [`World::planned`], for a call on names, which either works or fails.
    pub(super) fn name_call(&mut self, name: &str) -> io::Result<()> {
        self.check()?;
        match self.planned(Kind::Name, name) {
            Some(Fault::Error(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn fault(&mut self, op: &Op) -> Option<Fault> {
        let (kind, file) = match op {
            Op::Read { file, .. } => (Kind::Read, file),
            Op::Write { file, .. } => (Kind::Write, file),
            Op::Sync { file } => (Kind::Sync, file),
            Op::Allocate { file, .. } => (Kind::Allocate, file),
        };
        let name = match self.open.get(file.0 as usize) {
            Some(Some(Handle::File { name, .. } | Handle::Folder(name))) => name.clone(),
            _ => String::new(),
        };
        self.planned(kind, &name)
    }

    /// Does one operation; `None` when the power goes instead.
    pub(super) fn perform(&mut self, queued: &mut Queued) -> Option<io::Result<usize>> {
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
            if let (Op::Sync { .. }, libc::EIO) = (&queued.op, errno) {
                self.lose_pending();
            }
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
        let bytes = self.transfer_bytes(queued, fault);
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
                let data = &from.as_ref()[done..done + whole_sectors];
                let inode = &mut self.inodes[inode];
                inode.current.write(offset_bytes, data);
                inode.length_bytes = inode.length_bytes.max(offset_bytes + data.len() as u64);
                inode.pending.push(Pending {
                    offset_bytes,
                    bytes: data.into(),
                    completed_at: self.clock,
                });
                Some(Ok(bytes))
            }
            Op::Sync { file } => {
                if fault != Some(Fault::Lost) {
                    self.sync(*file, queued.submitted_at);
                }
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

    /// Bytes that this attempt transfers: all that are left, or fewer, seldom whole sectors.
    fn transfer_bytes(&mut self, queued: &Queued, fault: Option<Fault>) -> usize {
        let left_bytes = queued.op.transfer_bytes() - queued.done_bytes;
        let short = fault == Some(Fault::Short)
            || (left_bytes > SECTOR_BYTES && self.rng.chance(self.faults.short_per_mille));
        if !short || left_bytes <= SECTOR_BYTES {
            return left_bytes;
        }
        self.rng.below((left_bytes / SECTOR_BYTES) as u64) as usize * SECTOR_BYTES + SECTOR_BYTES / 2
    }

    /// A flush has failed: some of what it was to make durable never will be, whatever a later one says.
    fn lose_pending(&mut self) {
        let rng = &mut self.rng;
        for inode in &mut self.inodes {
            inode.pending.retain(|_| rng.chance(500));
        }
    }

    /// Makes durable what had completed at `submitted_at`.
    fn sync(&mut self, file: FileId, submitted_at: u64) {
        match self.open.get(file.0 as usize) {
            Some(Some(Handle::Folder(folder))) => {
                let folder = folder.clone();
                for change in std::mem::take(&mut self.new_names) {
                    if folder_of(change.name()) == folder {
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
                        inode.durable.length_bytes = inode.length_bytes;
                    }
                    inode.pending.retain(|write| {
                        let pages = pages_of(write.offset_bytes, write.bytes.len());
                        let covered = own || inode.durable.has_extents(pages);
                        let flushed = write.completed_at < submitted_at && covered;
                        if flushed {
                            inode.durable.write(write.offset_bytes, &write.bytes);
                        }
                        !flushed
                    });
                }
            }
            _ => {}
        }
    }
}

fn bad_file() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}
