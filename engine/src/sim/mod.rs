//! The disk as a simulation: the twin of `uring`, in memory, seeded, and as unkind as a real one may be.
//!
//! The fault model. Completions come in any order. A sync makes durable what had completed when it was submitted:
//! of its own file, and of other files in extents that were made durable before (as a device's cache flush does on
//! ext4 and xfs). New names are durable after their folder's sync. A crash keeps any of what is not durable, sector
//! by sector, and any prefix of a folder's new names. On demand: short transfers, interruptions, the nth operation
//! failing once or for ever, writes and syncs that are lost or go elsewhere though they report success, a full
//! filesystem, a ring that dies.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::device::{Completion, Device, Op};

mod crash;
mod faults;
mod files;
pub mod model;
pub mod nth;
mod pages;
pub mod states;
#[cfg(test)]
mod tests;
pub mod workload;
mod world;
mod yard;

pub use crash::{Choices, CrashPoint, Image};
pub use faults::{Fault, Faults, Kind, Plan, Rng};
use world::{Queued, World};
pub use yard::{CLUSTER, Yard};

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// A disk that survives the volumes opened on it; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Rc<RefCell<World>>);

/// What one volume has of the disk.
pub(crate) struct SimDevice(Rc<RefCell<World>>);

impl Drop for SimDevice {
    /// As in `Uring`: what is in flight ends, what is queued does not begin.
    fn drop(&mut self) {
        let world = &mut *self.0.borrow_mut();
        if world.dead {
            world.let_go();
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
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self::from_image(seed, &Image::default())
    }

    /// A disk that holds this.
    pub fn from_image(seed: u64, image: &Image) -> Self {
        Self(Rc::new(RefCell::new(World::new(Rng::new(seed), image))))
    }

    /// The disk for a volume to be opened on: one at a time.
    pub(crate) fn device(&self) -> SimDevice {
        SimDevice(self.0.clone())
    }

    /// Has these faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    /// The faults that are still to come.
    pub fn faults(&self) -> Faults {
        self.0.borrow().faults.clone()
    }

    /// Whether a sync flushes the device's cache, or covers its own file only.
    pub fn set_flushes_device(&self, flushes: bool) {
        self.0.borrow_mut().flushes_device = flushes;
    }

    /// Bytes that all files together may have.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.0.borrow_mut().capacity_bytes = capacity_bytes;
    }

    /// Syncs since the last crash.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// Exchanges with the disk since the last crash.
    pub fn turns(&self) -> u64 {
        self.0.borrow().turns
    }

    /// Operations that a dead ring holds on to, with their buffers.
    pub fn given_up(&self) -> usize {
        self.0.borrow().given_up.len()
    }

    /// Has `watcher` look at each exchange with the disk, before it, wherever something happened since the last.
    pub fn watch(&self, watcher: impl FnMut(CrashPoint) + 'static) {
        self.0.borrow_mut().watcher = Some(Box::new(watcher));
    }

    /// What the power going now would leave.
    pub fn crash_point(&self) -> CrashPoint {
        CrashPoint::of(&self.0.borrow())
    }

    /// The power goes, and comes back: what was not durable survives in part or not at all.
    pub fn crash(&self) {
        let point = self.crash_point();
        let world = &mut *self.0.borrow_mut();
        let image = point.choices().any(&mut world.rng);
        world.start_from(&image);
    }

    /// The power goes, and this is what it left.
    pub fn become_image(&self, image: &Image) {
        self.0.borrow_mut().start_from(image);
    }

    /// Flips a bit of a file behind everybody's back.
    pub fn flip(&self, name: &str, bit: u64) {
        let world = &mut *self.0.borrow_mut();
        let inode = &mut world.inodes[world.names[name]];
        let at_bytes = bit / 8;
        let mut sector = inode.current.sector(at_bytes);
        sector[at_bytes as usize % SECTOR_BYTES] ^= 1 << (bit % 8);
        let from_bytes = at_bytes - at_bytes % SECTOR_BYTES as u64;
        inode.current.write(from_bytes, &sector);
        inode.durable.write(from_bytes, &sector);
    }

    /// A page of a file, as everybody sees it.
    pub fn page(&self, name: &str, number: u64) -> Option<[u8; PAGE_BYTES]> {
        let world = self.0.borrow();
        let inode = &world.inodes[*world.names.get(name)?];
        let mut page = [0; PAGE_BYTES];
        inode.current.read(number * PAGE_BYTES as u64, &mut page);
        Some(page)
    }

    /// Names and lengths of all files.
    pub fn files(&self) -> Vec<(String, u64)> {
        let world = self.0.borrow();
        let length = |inode: usize| world.inodes[inode].length_bytes;
        world
            .names
            .iter()
            .map(|(name, &inode)| (name.clone(), length(inode)))
            .collect()
    }
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
        self.look();
        let mut world = self.0.borrow_mut();
        world.check()?;
        world.turns += 1;
        if world
            .faults
            .ring_dies_at_turn
            .is_some_and(|turn| turn < world.turns)
        {
            let world = &mut *world;
            world.given_up.append(&mut world.queue);
            return Err(bad_ring());
        }
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

impl SimDevice {
    fn look(&self) {
        let mut world = self.0.borrow_mut();
        if world.dead || world.watched_at == world.clock {
            return;
        }
        world.watched_at = world.clock;
        if let Some(mut watcher) = world.watcher.take() {
            let point = CrashPoint::of(&world);
            drop(world);
            watcher(point);
            self.0.borrow_mut().watcher = Some(watcher);
        }
    }
}

fn bad_ring() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADFD)
}
