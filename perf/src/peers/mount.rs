//! Anything mounted: files written with an fsync each, and read in order.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};

use super::{Facts, System, Took, Work, timed};
use crate::disk::Disk;
use crate::workload::Pool;

/// Bytes of one read or write call, as `dd bs=4M` would make it.
const CALL_BYTES: usize = 4 << 20;

pub(crate) struct Mount {
    facts: Facts,
    folder: PathBuf,
    servers: Vec<(String, u32)>,
}

impl Mount {
    /// A folder on the mounted filesystem, and the processes whose CPU time is its own.
    pub(crate) fn new(facts: Facts, folder: PathBuf, servers: Vec<(String, u32)>) -> Result<Self> {
        ensure!(folder.is_dir(), "there is no folder {}", folder.display());
        Ok(Self {
            facts,
            folder,
            servers,
        })
    }

    fn folder_of(&self, work: Work) -> PathBuf {
        self.folder.join(format!("blockyard-perf-{}", work.id))
    }

    /// Has the workers take files in turn until all are done.
    fn each(&self, work: Work, job: impl Fn(&Path, u64, &mut [u8]) -> Result<()> + Sync) -> Result<()> {
        let folder = self.folder_of(work);
        let next = AtomicU64::new(0);
        let call_bytes =
            usize::try_from(work.length_bytes).map_or(CALL_BYTES, |length| length.min(CALL_BYTES));
        let worker = || {
            let mut buffer = vec![0; call_bytes.max(1)];
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= work.files {
                    return Ok(());
                }
                let path = folder.join(index.to_string());
                job(&path, index, &mut buffer).with_context(|| path.display().to_string())?;
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..work.workers).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("a worker panics on nothing of its own"))
        })
    }
}

impl System for Mount {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn servers(&self) -> Vec<(String, u32)> {
        self.servers.clone()
    }

    fn write(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        fs::create_dir(self.folder_of(work))?;
        timed(&self.servers, disk, || {
            self.each(work, |path, index, buffer| {
                let mut contents = pool.file(work.number(index), work.length_bytes);
                let mut file = File::create_new(path)?;
                loop {
                    let filled = contents.fill(buffer);
                    if filled == 0 {
                        break;
                    }
                    file.write_all(&buffer[..filled])?;
                }
                Ok(file.sync_all()?)
            })
        })
    }

    fn read(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        timed(&self.servers, disk, || {
            self.each(work, |path, index, buffer| {
                let mut file = File::open(path)?;
                let mut contents = pool.file(work.number(index), work.length_bytes);
                let mut length_bytes = 0;
                loop {
                    let count = file.read(buffer)?;
                    if count == 0 {
                        break;
                    }
                    length_bytes += count as u64;
                    ensure!(
                        contents.matches(&buffer[..count]),
                        "other bytes than were written"
                    );
                }
                ensure!(length_bytes == work.length_bytes, "{length_bytes} bytes came");
                Ok(())
            })
        })
    }

    fn remove(&mut self, work: Work) -> Result<()> {
        Ok(fs::remove_dir_all(self.folder_of(work))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work {
        files: 9,
        length_bytes: 70_001,
        workers: 4,
        blocks_in_flight: 1,
        id: 3,
    };

    fn mount(folder: &Path) -> Mount {
        let text = || String::from("none");
        let facts = Facts {
            name: text(),
            version: text(),
            copies: text(),
            flush: text(),
            unflushed: false,
            way: text(),
        };
        Mount::new(facts, folder.to_owned(), Vec::new()).unwrap()
    }

    #[test]
    fn files_are_written_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::new(1_000_003);
        let mut mount = mount(folder.path());
        mount.write(&pool, WORK, None).unwrap();
        let files = fs::read_dir(folder.path().join("blockyard-perf-3")).unwrap();
        let lengths: Vec<u64> = files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(lengths, [70_001; 9]);
        mount.read(&pool, WORK, None).unwrap();
        mount.remove(WORK).unwrap();
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_wrong_or_short_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::new(1_000_003);
        let mut mount = mount(folder.path());
        mount.write(&pool, WORK, None).unwrap();
        let victim = folder.path().join("blockyard-perf-3/5");
        let good = fs::read(&victim).unwrap();
        let mut bad = good.clone();
        bad[70_000] ^= 1;
        for contents in [&bad[..], &good[..70_000]] {
            fs::write(&victim, contents).unwrap();
            assert!(mount.read(&pool, WORK, None).is_err());
        }
        fs::write(&victim, &good).unwrap();
        mount.read(&pool, WORK, None).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(Mount::new(mount(folder.path()).facts, missing, Vec::new()).is_err());
    }
}
