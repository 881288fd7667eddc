//! Crashes of a real volume: a child process drives or checks it, the parent kills the child or cuts the power.
//!
//! The child is this same program, started again with a task in its environment. On the disk in memory of
//! `blockyard_crash_disk` the power can fail, and much else (`power`).
#![allow(dead_code)] // each program uses a part

pub mod check;
pub mod kill;
pub mod log;
pub mod power;
pub mod workload;

pub use blockyard_crash_disk::{disk, mount};

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{env, io};

use check::Check;
use log::{Event, Log};
use workload::Work;

const TASK: &str = "BLOCKYARD_CRASH_TASK";
/// A test of this name in each test program takes the child's part; other programs call [`child`] first of all.
const CHILD_TEST: &str = "the_child";

/// A child's task.
#[derive(Clone, Debug)]
pub enum Task {
    Work(Work),
    Check(Check),
}

impl Task {
    fn to_text(&self) -> String {
        match self {
            Self::Work(work) => format!(
                "work\t{}\t{}\t{}\t{}\t{}",
                work.volume.display(),
                work.log.display(),
                work.seed,
                work.operations,
                work.in_flight
            ),
            Self::Check(check) => format!(
                "check\t{}\t{}\t{}",
                check.volume.display(),
                check.log.display(),
                u8::from(check.close)
            ),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split('\t').collect();
        Some(match words[..] {
            ["work", volume, log, seed, operations, in_flight] => Self::Work(Work {
                volume: volume.into(),
                log: log.into(),
                seed: seed.parse().ok()?,
                operations: operations.parse().ok()?,
                in_flight: in_flight.parse().ok()?,
            }),
            ["check", volume, log, close] => Self::Check(Check {
                volume: volume.into(),
                log: log.into(),
                close: close == "1",
            }),
            _ => return None,
        })
    }

    /// Starts a child with this task.
    pub fn start(&self) -> io::Result<Child> {
        Command::new(env::current_exe()?)
            .args([CHILD_TEST, "--exact", "--nocapture", "--test-threads=1"])
            .env(TASK, self.to_text())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    }

    pub fn run(&self) -> io::Result<ExitStatus> {
        self.start()?.wait()
    }
}

/// Does a child's task, if this process has one. An error of the volume goes to the log and the exit status.
pub fn child() -> bool {
    let Ok(text) = env::var(TASK) else {
        return false;
    };
    // A parent that was killed can't end its child by itself.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let (log, ended) = match Task::from_text(&text).expect("a task") {
        Task::Work(task) => (task.log.clone(), workload::work(&task)),
        Task::Check(task) => (task.log.clone(), check::check(&task)),
    };
    if let Err(error) = ended {
        let mut log = Log::append(&log).expect("a log");
        log.write(Event::Refusal(&format!("ended: {error}")));
        std::process::exit(EXIT_ERROR);
    }
    true
}

/// How a child ends that an error of its volume stopped.
pub const EXIT_ERROR: i32 = 3;

/// Whether to go on without what is missing here: says so, and refuses where everything was asked for.
pub fn skipped(missing: Option<String>) -> bool {
    let Some(missing) = missing else { return false };
    assert!(
        env::var_os("BLOCKYARD_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "needs {missing}, and BLOCKYARD_REQUIRE_ALL=1"
    );
    eprintln!("skipped: needs {missing}");
    true
}

/// The first `bytes` of a log as a log of its own.
pub fn copy_log(from: &Path, bytes: u64, to: &Path) -> io::Result<()> {
    let whole = std::fs::read(from)?;
    let part = &whole[..(bytes as usize).min(whole.len())];
    // A line that was being written is not written.
    let end = part
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    std::fs::write(to, &part[..end])
}
