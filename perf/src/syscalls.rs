//! System calls of running processes, counted by the kernel's tracepoint `raw_syscalls:sys_enter`. It knows processes by
//! their ids only.

use std::fs;

use anyhow::{Context as _, Result};
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

/// Where the kernel numbers its tracepoints: the usual mount, and that of older systems.
const IDS: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

/// Counts while it lives.
pub(crate) struct Syscalls(Vec<(String, Vec<Counter>)>);

impl Syscalls {
    /// Starts counting for each of the processes (name and id).
    ///
    /// # Errors
    /// Where this user may not, or the kernel has no tracepoints.
    pub(crate) fn start(processes: &[(String, u32)]) -> Result<Self> {
        let id = IDS
            .iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .context("the kernel's tracepoints can't be read")?;
        let id: u64 = id
            .trim()
            .parse()
            .context("the tracepoint's number is not understood")?;
        let counted = |(name, pid): &(String, u32)| Ok((name.clone(), counters(id, *pid)?));
        Ok(Self(processes.iter().map(counted).collect::<Result<_>>()?))
    }

    /// Calls of each process since the start, those of ended threads included.
    pub(crate) fn stop(self) -> Result<Vec<(String, u64)>> {
        let counted = |(name, counters): (String, Vec<Counter>)| {
            let mut calls = 0;
            for mut counter in counters {
                calls += counter.read()?;
            }
            Ok((name, calls))
        };
        self.0.into_iter().map(counted).collect()
    }
}

/// A counter for each thread; threads that these start later are counted with them.
fn counters(id: u64, pid: u32) -> Result<Vec<Counter>> {
    let mut counters = Vec::new();
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("process {pid} is gone: its system calls can't be counted"))?;
    for thread in threads {
        let name = thread?.file_name();
        let thread: i32 = name.to_string_lossy().parse()?;
        let counter = Builder::new(Tracepoint::with_id(id))
            .observe_pid(thread)
            .any_cpu()
            .inherit(true)
            .include_kernel()
            .build();
        let mut counter = match counter {
            Ok(counter) => counter,
            // It has ended since it was listed.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
            Err(error) => return Err(error).context("the kernel refuses to count system calls (root may)"),
        };
        counter.enable()?;
        counters.push(counter);
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_this_process_and_its_later_threads_are_counted() {
        let this = [("this".to_owned(), std::process::id())];
        let counter = match Syscalls::start(&this) {
            Ok(counter) => counter,
            Err(error) => {
                println!("skipped: needs the right to count system calls: {error:#}");
                return;
            }
        };
        let call = || (0..1000).for_each(|_| drop(fs::metadata("/proc/self")));
        call();
        std::thread::spawn(call).join().unwrap();
        let counted = counter.stop().unwrap();
        assert_eq!(counted[0].0, "this");
        assert!(counted[0].1 >= 2000, "{counted:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(Syscalls::start(&[("gone".to_owned(), u32::MAX)]).is_err());
    }
}
