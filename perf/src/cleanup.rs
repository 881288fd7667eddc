//! Processes and folders that must not outlive perf, however it ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// How long a process may take to stop after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Registry {
    /// Set by a signal: nothing new may start behind the sweep's back.
    stopping: bool,
    children: Vec<Arc<Mutex<Child>>>,
    folders: Vec<PathBuf>,
    /// Scripts that take down what they set up in a folder.
    systems: Vec<(PathBuf, PathBuf)>,
    /// Folders of disks in memory, which are mounted.
    disks: Vec<PathBuf>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    stopping: false,
    children: Vec::new(),
    folders: Vec::new(),
    systems: Vec::new(),
    disks: Vec::new(),
});

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child process: told to stop on drop, killed when it doesn't.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pid: u32,
    child: Arc<Mutex<Child>>,
}

impl Process {
    /// Starts `command`.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let mut registry = registry();
        if registry.stopping {
            bail!("interrupted");
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        registry.children.push(child.clone());
        Ok(Self {
            name: name.to_owned(),
            pid,
            child,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The process's standard output, once.
    pub(crate) fn take_stdout(&self) -> Option<std::process::ChildStdout> {
        self.lock().stdout.take()
    }

    /// Its exit status if it has ended.
    pub(crate) fn ended(&self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.lock().try_wait()?)
    }

    /// Waits for its end. Holds no lock meanwhile, so that a signal can still kill it.
    pub(crate) fn wait(&self) -> Result<std::process::ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it without a chance to say goodbye, and waits until it is gone.
    pub(crate) fn kill(self) -> Result<()> {
        let mut child = self.lock();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        stop(&self.child, STOP_TIMEOUT);
        registry()
            .children
            .retain(|child| !Arc::ptr_eq(child, &self.child));
    }
}

fn stop(child: &Mutex<Child>, timeout: Duration) {
    let lock = || child.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + timeout;
    let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
    {
        // Under the lock nobody else reaps it, so the id is still this child's.
        let mut child = lock();
        if ended(&mut child) {
            return;
        }
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
            // One that was stopped hears nothing before it goes on.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
    while Instant::now() < deadline {
        if ended(&mut lock()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut child = lock();
    let _ = child.kill();
    let _ = child.wait();
}

/// A folder that is removed with all in it on drop.
#[derive(Debug)]
pub(crate) struct WorkFolder(PathBuf);

impl WorkFolder {
    /// Makes a new folder below `parent`.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let parent = parent
            .canonicalize()
            .with_context(|| format!("no folder {} to work in (--dir)", parent.display()))?;
        let mut registry = registry();
        if registry.stopping {
            bail!("interrupted");
        }
        let path = tempfile::Builder::new()
            .prefix("blockyard-perf-")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a folder in {} (--dir)", parent.display()))?
            .keep();
        registry.folders.push(path.clone());
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it where it is, for somebody to look at.
    pub(crate) fn keep(&self) {
        registry().folders.retain(|folder| *folder != self.0);
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let known = registry().folders.contains(&self.0);
        if known {
            remove(&self.0);
            registry().folders.retain(|folder| *folder != self.0);
        }
    }
}

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}; remove it by hand", folder.display());
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP stop the children, remove the folders, and end perf with 130.
pub(crate) fn watch_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            eprintln!("\ninterrupted: stopping servers and removing data");
            sweep();
            std::process::exit(130);
        })?;
    Ok(())
}

/// After a signal: never returns, for the signal's own thread ends perf. What fails meanwhile fails because the
/// servers were stopped, and is not worth a word.
pub(crate) fn stay_if_interrupted() {
    while registry().stopping {
        std::thread::park();
    }
}

fn sweep() {
    let (children, folders, systems, disks) = {
        let mut registry = registry();
        registry.stopping = true;
        (
            registry.children.clone(),
            registry.folders.clone(),
            registry.systems.clone(),
            registry.disks.clone(),
        )
    };
    for child in &children {
        stop(child, Duration::from_secs(2));
    }
    for (script, folder) in &systems {
        run_down(script, folder);
    }
    folders.iter().for_each(|folder| remove(folder));
    for disk in &disks {
        blockyard_crash_disk::mount::clear(disk);
    }
}

/// From now on a signal takes the disk in memory away whose folder this is.
pub(crate) fn unmount_on_signal(folder: &Path) {
    registry().disks.push(folder.to_owned());
}

/// It has been taken away.
pub(crate) fn is_unmounted(folder: &Path) {
    registry().disks.retain(|known| known != folder);
}

/// From now on a signal runs `script down folder` before it ends perf.
pub(crate) fn take_down_on_signal(script: &Path, folder: &Path) {
    registry().systems.push((script.to_owned(), folder.to_owned()));
}

/// Runs `script down folder` now, and no more on a signal.
pub(crate) fn take_down(script: &Path, folder: &Path) {
    run_down(script, folder);
    registry()
        .systems
        .retain(|(known, below)| known != script || below != folder);
}

fn run_down(script: &Path, folder: &Path) {
    let status = Command::new("bash").arg(script).arg("down").arg(folder).status();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!(
            "{} down {} failed: {status:?}",
            script.display(),
            folder.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone() {
        let process = Process::spawn("sleep", Command::new("sleep").arg("1000")).unwrap();
        let pid = Pid::from_raw(process.pid().cast_signed()).unwrap();
        assert!(process.ended().unwrap().is_none());
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]);
        command.stdout(std::process::Stdio::piped());
        let process = Process::spawn("stubborn", &mut command).unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(process.take_stdout().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        stop(&process.child, Duration::from_millis(200));
        assert!(process.ended().unwrap().is_some());
    }

    #[test]
    fn a_dropped_folder_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = WorkFolder::new(parent.path()).unwrap();
        let path = folder.path().to_owned();
        std::fs::write(path.join("data"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
        let kept = WorkFolder::new(parent.path()).unwrap();
        kept.keep();
        let path = kept.path().to_owned();
        drop(kept);
        assert!(path.exists());
        assert!(WorkFolder::new(&parent.path().join("none")).is_err());
    }
}
