//! PPYDFS, through its own client in processes of its own interpreter.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Facts, System, Took, Work};
use crate::cleanup::{Process, WorkFolder};
use crate::disk::Disk;
use crate::meter::Meter;
use crate::process;
use crate::workload::Pool;

/// Calls its client; see there.
const FILES: &str = include_str!("ppydfs_files.py");

/// What its script tells.
#[derive(Debug)]
pub(super) struct Shape {
    /// The network namespace.
    pub space: PathBuf,
    pub python: PathBuf,
    /// Where each data server keeps its blocks, a file each.
    pub stores: Vec<PathBuf>,
    /// Longer files are cut into such.
    pub file_bytes_max: Option<u64>,
}

pub(crate) struct Ppydfs {
    facts: Facts,
    shape: Shape,
    servers: Vec<(String, u32)>,
    /// In memory: the files that its client reads.
    sources: WorkFolder,
}

/// What the processes say at their end.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Summary {
    seconds: f64,
    cpu_s: f64,
    succeeded: u64,
}

impl Ppydfs {
    pub(super) fn new(
        facts: Facts,
        shape: Shape,
        memory_dir: &Path,
        servers: Vec<(String, u32)>,
    ) -> Result<Self> {
        Ok(Self {
            facts,
            shape,
            servers,
            sources: WorkFolder::new(memory_dir)?,
        })
    }

    /// The same bytes in files that are short enough.
    fn cut(&self, work: Work) -> Work {
        let length_bytes = work
            .length_bytes
            .min(self.shape.file_bytes_max.unwrap_or(u64::MAX));
        Work {
            files: work.bytes() / length_bytes,
            length_bytes,
            ..work
        }
    }

    fn folder(&self, work: Work) -> PathBuf {
        self.sources.path().join(work.id.to_string())
    }

    /// Lays the files out for the client to read.
    fn lay_out(&self, pool: &Pool, work: Work) -> Result<()> {
        let (folder, cut) = (self.folder(work), self.cut(work));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut buffer = vec![0; 1 << 20];
        let pieces = work.length_bytes / cut.length_bytes;
        for index in 0..cut.files {
            let (number, offset_bytes) = (work.number(index / pieces), index % pieces * cut.length_bytes);
            let mut contents = pool.part(number, offset_bytes, cut.length_bytes);
            let mut file = File::create(folder.join(index.to_string()))?;
            loop {
                let filled = contents.fill(&mut buffer);
                if filled == 0 {
                    break;
                }
                file.write_all(&buffer[..filled])?;
            }
        }
        Ok(())
    }

    /// Has the client do `operation` on so many files.
    fn client(&self, operation: &str, work: Work, files: u64, workers: u64) -> Result<Summary> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.shape.space.display()));
        command.arg(&self.shape.python).arg("-c").arg(FILES);
        command.arg(operation).arg(self.folder(work));
        command.arg(format!("blockyard-perf-{}", work.id));
        command.args([files, workers].map(|count| count.to_string()));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let process = Process::spawn("the client of PPYDFS", &mut command)?;
        let mut output = String::new();
        if let Some(mut stdout) = process.take_stdout() {
            std::io::Read::read_to_string(&mut stdout, &mut output)?;
        }
        let status = process.wait()?;
        if !status.success() {
            bail!("its client failed at {operation} ({status})");
        }
        parse(&output)
    }

    fn timed(&self, operation: &str, work: Work, disk: Option<&Disk>) -> Result<Took> {
        let files = self.cut(work).files;
        let children_s = process::children_cpu_s()?;
        let meter = Meter::start(&self.servers, disk)?;
        let summary = self.client(operation, work, files, work.workers)?;
        let mut used = meter.stop()?;
        // The interpreter's start is neither the work nor somebody else's load.
        let children_s = process::children_cpu_s()? - children_s;
        used.other_s = used.other_s.map(|other| (other - children_s).max(0.0));
        Ok(Took {
            used,
            wall_s: summary.seconds,
            tool_cpu_s: summary.cpu_s,
            succeeded: Some((summary.succeeded, files)),
            copies: None,
        })
    }

    fn stored_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for store in &self.shape.stores {
            for block in fs::read_dir(store).with_context(|| store.display().to_string())? {
                bytes += block?.metadata()?.len();
            }
        }
        Ok(bytes)
    }
}

impl System for Ppydfs {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn servers(&self) -> Vec<(String, u32)> {
        self.servers.clone()
    }

    /// It does a few hundred a second.
    fn files_max(&self) -> u64 {
        512
    }

    fn write(&mut self, pool: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        self.lay_out(pool, work)?;
        let before = self.stored_bytes()?;
        let took = self.timed("upload", work, disk)?;
        let stored = self.stored_bytes()?.saturating_sub(before);
        Ok(Took {
            copies: Some(stored as f64 / work.bytes() as f64),
            ..took
        })
    }

    fn read(&mut self, _: &Pool, work: Work, disk: Option<&Disk>) -> Result<Took> {
        let took = self.timed("download", work, disk)?;
        // Off the clock: some of them byte by byte. Wrong bytes are an error; downloads that fail are told above.
        let some = work.workers.min(self.cut(work).files);
        self.client("compare", work, some, some)?;
        Ok(took)
    }

    /// Empties its stores: deleting by its client takes about a second for every few blocks, because its name server
    /// overflows its data servers' queues of connections. It goes on knowing the names, which are not used again.
    fn remove(&mut self, work: Work) -> Result<()> {
        for store in &self.shape.stores {
            for block in fs::read_dir(store)? {
                fs::remove_file(block?.path())?;
            }
        }
        Ok(fs::remove_dir_all(self.folder(work))?)
    }
}

fn parse(output: &str) -> Result<Summary> {
    let figure = |name: &str| -> Result<f64> {
        let value = output
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = value.with_context(|| format!("the client of PPYDFS told no {name}"))?;
        value.parse().with_context(|| format!("'{value}' is no number"))
    };
    Ok(Summary {
        seconds: figure("seconds")?,
        cpu_s: figure("cpu")?,
        succeeded: figure("succeeded")? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work {
        files: 2,
        length_bytes: 300_000,
        workers: 2,
        blocks_in_flight: 1,
        id: 4,
    };

    fn ppydfs(folder: &Path, file_bytes_max: Option<u64>) -> Ppydfs {
        let text = || String::from("none");
        let facts = Facts {
            name: text(),
            version: text(),
            copies: text(),
            flush: text(),
            unflushed: true,
            way: text(),
        };
        let shape = Shape {
            space: folder.into(),
            python: "python3".into(),
            stores: vec![folder.into()],
            file_bytes_max,
        };
        Ppydfs::new(facts, shape, folder, Vec::new()).unwrap()
    }

    #[test]
    fn a_summary_is_understood() {
        let summary = parse("seconds=1.5\ncpu=0.25\nsucceeded=7\n").unwrap();
        let wanted = Summary {
            seconds: 1.5,
            cpu_s: 0.25,
            succeeded: 7,
        };
        assert_eq!(summary, wanted);
        assert!(parse("seconds=1.5\ncpu=0.25\n").is_err());
        assert!(parse("seconds=soon\ncpu=0.25\nsucceeded=7\n").is_err());
    }

    #[test]
    fn cut_files_hold_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::new(100_003);
        let contents = |system: &Ppydfs, files: u64| {
            system.lay_out(&pool, WORK).unwrap();
            let file = |index: u64| fs::read(system.folder(WORK).join(index.to_string())).unwrap();
            (0..files).flat_map(file).collect::<Vec<u8>>()
        };
        let whole = contents(&ppydfs(folder.path(), None), 2);
        let pieces = contents(&ppydfs(folder.path(), Some(100_000)), 6);
        assert_eq!(whole.len(), 600_000);
        assert!(whole == pieces);
        assert_ne!(whole[..1000], whole[300_000..301_000]);
    }

    #[test]
    fn what_the_stores_hold_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut system = ppydfs(folder.path(), None);
        let store = folder.path().join("store");
        fs::create_dir(&store).unwrap();
        system.shape.stores = vec![store.clone(), store.clone()];
        fs::write(store.join("block"), [0; 100]).unwrap();
        assert_eq!(system.stored_bytes().unwrap(), 200);
        system.shape.stores.pop();
        system.lay_out(&Pool::new(1000), WORK).unwrap();
        system.remove(WORK).unwrap();
        assert!(system.stored_bytes().unwrap() == 0 && !system.folder(WORK).exists());
    }
}
