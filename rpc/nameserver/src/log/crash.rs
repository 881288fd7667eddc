//! The journal against power cuts at every step, in one folder and in two, one of which may break: what was
//! acknowledged comes back, whatever of the rest does.
//!
//! The medium: a write that was not flushed arrives in any subset of its sectors of 512 B; a file that was being made
//! has any length; a rename has happened or not.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use blockyard_wire::types::RequestId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::journal::{FOLDER, encode_command};
use crate::mirror;
use crate::replay::Tail;
use crate::state::Command;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const SECTOR_BYTES: usize = 512;

/// A disk whose power goes at a chosen step.
struct Disk {
    steps_left: u32,
    lots: StdRng,
    /// Writes that were not flushed.
    pending: Vec<(PathBuf, u64, Vec<u8>)>,
    /// A folder that breaks at a chosen step.
    breaks: Option<(PathBuf, u32)>,
}

#[derive(Clone)]
struct Cut(Rc<RefCell<Disk>>);

impl Cut {
    /// Whether this step is done; `Err` once the power is gone or the folder has broken.
    fn step(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        if disk.steps_left == 0 {
            return Err(io::Error::other("the power is gone"));
        }
        disk.steps_left -= 1;
        match &mut disk.breaks {
            Some((dir, 0)) if path.starts_with(&*dir) => {
                Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))
            }
            Some((_, left)) => {
                *left = left.saturating_sub(1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn gone(&self) -> bool {
        self.0.borrow().steps_left == 0
    }

    /// What a power cut leaves of what was not flushed.
    fn settle(&self) {
        let mut disk = self.0.borrow_mut();
        let pending = std::mem::take(&mut disk.pending);
        for (path, offset, bytes) in pending {
            let Ok(file) = fs::File::options().write(true).open(&path) else {
                continue;
            };
            // Sectors are the disk's, not the write's.
            let mut at = 0;
            while at < bytes.len() {
                let place = offset as usize + at;
                let end = (at + SECTOR_BYTES - place % SECTOR_BYTES).min(bytes.len());
                if disk.lots.random_bool(0.5) {
                    file.write_all_at(&bytes[at..end], place as u64).unwrap();
                }
                at = end;
            }
        }
    }
}

impl Log for Cut {
    type File = PathBuf;

    async fn create(&self, path: &Path, bytes: u64) -> io::Result<PathBuf> {
        let step = self.step(path);
        let file = fs::File::create(path)?;
        if step.is_err() {
            let length = self.0.borrow_mut().lots.random_range(0..=bytes);
            file.set_len(length)?;
        }
        step?;
        file.set_len(bytes)?;
        Ok(path.to_owned())
    }

    async fn write(&self, file: &PathBuf, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        // It may arrive even when it fails.
        self.0.borrow_mut().pending.push((file.clone(), offset, bytes));
        self.step(file)
    }

    async fn sync(&self, file: &PathBuf) -> io::Result<()> {
        self.step(file)?;
        let mut disk = self.0.borrow_mut();
        let (done, left): (Vec<_>, Vec<_>) = std::mem::take(&mut disk.pending)
            .into_iter()
            .partition(|(path, _, _)| path == file);
        disk.pending = left;
        for (path, offset, bytes) in done {
            fs::File::options()
                .write(true)
                .open(path)?
                .write_all_at(&bytes, offset)?;
        }
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let step = self.step(to);
        if step.is_ok() || self.0.borrow_mut().lots.random_bool(0.5) {
            fs::rename(from, to)?;
        }
        step?;
        let mut disk = self.0.borrow_mut();
        for (path, _, _) in &mut disk.pending {
            if path == from {
                *path = to.to_owned();
            }
        }
        Ok(())
    }
}

/// The command of this number in this life: what is written again after a crash is another one.
fn command(number: u64, life: u64) -> Command {
    Command::Mkdir {
        path: format!(
            "/{number}/{}",
            "x".repeat((number * 97 + life * 31) as usize % 700)
        ),
        parents: false,
        at_unix_ms: life,
        request: RequestId::default(),
    }
}

/// Reads all there is; the tail, and the life that each command is of.
fn recover(dirs: &[PathBuf], what: &str) -> (Tail, Vec<u64>) {
    let files = replay::files(dirs).unwrap();
    let mut lives = Vec::new();
    let tail = replay::replay(dirs, CLUSTER, &files, 0, &mut |index, found| {
        let Command::Mkdir { at_unix_ms, .. } = &found else {
            panic!("{what}: {found:?}");
        };
        assert_eq!(found, command(index, *at_unix_ms), "{what}");
        assert_eq!(index, lives.len() as u64 + 1, "{what}");
        lives.push(*at_unix_ms);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{what}: {error}"));
    mirror::bring_up(dirs, CLUSTER, &files, tail.files).unwrap();
    (tail, lives)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Several lives of one nameserver, each ended by a power cut.
fn lives(seed: u64, sides: usize) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let dirs: Vec<_> = (0..sides).map(|at| folder.path().join(at.to_string())).collect();
    for dir in &dirs {
        fs::create_dir_all(dir.join(FOLDER)).unwrap();
    }
    let mut lots = StdRng::seed_from_u64(seed);
    // Of each command that was acknowledged: the life in which it was.
    let mut acknowledged: Vec<u64> = Vec::new();
    for life in 1..6 {
        let what = format!("seed {seed}, {sides} folders, life {life}");
        let (tail, found) = recover(&dirs, &what);
        assert!(found.len() >= acknowledged.len(), "{what}: shortened");
        assert_eq!(found[..acknowledged.len()], acknowledged, "{what}: changed");
        acknowledged = found;
        let breaks = (sides > 1 && lots.random_bool(0.5)).then(|| {
            let dir = dirs[lots.random_range(0..sides)].clone();
            (dir, lots.random_range(0..40))
        });
        let cut = Cut(Rc::new(RefCell::new(Disk {
            steps_left: lots.random_range(0..60),
            lots: StdRng::seed_from_u64(lots.random()),
            pending: Vec::new(),
            breaks,
        })));
        let mut journal = Journal::new(
            cut.clone(),
            &dirs,
            CLUSTER,
            3 * PAGE_BYTES,
            tail.sequence,
            tail.place,
        );
        while !cut.gone() {
            let first = acknowledged.len() as u64 + 1;
            let group: Vec<_> = (first..first + lots.random_range(1..4))
                .map(|number| encode_command(&command(number, life)))
                .collect();
            if lots.random_bool(0.1) {
                // Its failure shows in the next append.
                let _ = run(journal.rotate());
            }
            match run(journal.append(life, &group)) {
                Ok(()) => acknowledged.extend(group.iter().map(|_| life)),
                Err(_) => break,
            }
        }
        cut.settle();
    }
    recover(&dirs, &format!("seed {seed}, {sides} folders, at last"));
}

#[test]
fn what_is_acknowledged_outlives_power_cuts() {
    for seed in 0..400 {
        lives(seed, 1);
    }
}

#[test]
fn and_with_two_folders_the_failure_of_one_as_well() {
    for seed in 0..400 {
        lives(seed, 2);
    }
}
