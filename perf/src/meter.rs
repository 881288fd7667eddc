//! What one measurement took: time, CPU of each process, and the disk's work meanwhile.

use std::time::Instant;

use anyhow::Result;

use crate::disk::{Counters, Disk};
use crate::process;
use crate::syscalls::Syscalls;

/// A running measurement.
pub(crate) struct Meter {
    servers: Vec<(String, u32, f64)>,
    disk: Option<(Disk, Counters)>,
    busy_s: Option<f64>,
    own_s: f64,
    syscalls: Option<Syscalls>,
    started: Instant,
}

/// What was used from start to stop.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    pub wall_s: f64,
    /// CPU seconds by process, this one first, as `client`.
    pub cpu_s: Vec<(String, f64)>,
    /// CPU seconds that the machine was busy with something else.
    pub other_s: Option<f64>,
    /// The disk's work, by everybody.
    pub disk: Option<Counters>,
    /// Resident memory at the end, by process, `client` first.
    pub rss_bytes: Vec<(String, u64)>,
    /// System calls by process, `client` first, where they were counted.
    pub syscalls: Option<Vec<(String, u64)>>,
}

impl Meter {
    /// Starts measuring this process and `servers` (name and process id).
    pub(crate) fn start(servers: &[(String, u32)], disk: Option<&Disk>) -> Result<Self> {
        let read = |(name, pid): &(String, u32)| Ok((name.clone(), *pid, process::cpu_s(*pid)?));
        Ok(Self {
            servers: servers.iter().map(read).collect::<Result<_>>()?,
            disk: disk.and_then(|disk| Some((disk.clone(), disk.counters()?))),
            busy_s: process::machine_busy_s(),
            own_s: process::own_cpu_s(),
            syscalls: None,
            started: Instant::now(),
        })
    }

    /// Counts system calls too, and starts time and CPU anew.
    ///
    /// # Errors
    /// Where this user may not; the meter goes on without.
    pub(crate) fn count_syscalls(&mut self) -> Result<()> {
        let mut processes = vec![("client".to_owned(), std::process::id())];
        processes.extend(self.servers.iter().map(|(name, pid, _)| (name.clone(), *pid)));
        self.syscalls = Some(Syscalls::start(&processes)?);
        self.own_s = process::own_cpu_s();
        self.started = Instant::now();
        Ok(())
    }

    pub(crate) fn stop(self) -> Result<Used> {
        let wall_s = self.started.elapsed().as_secs_f64();
        let syscalls = self.syscalls.map(Syscalls::stop).transpose()?;
        let mut rss_bytes = vec![("client".to_owned(), process::rss_bytes(std::process::id())?)];
        for (name, pid, _) in &self.servers {
            rss_bytes.push((name.clone(), process::rss_bytes(*pid)?));
        }
        let mut cpu_s = vec![("client".to_owned(), process::own_cpu_s() - self.own_s)];
        for (name, pid, before) in self.servers {
            cpu_s.push((name, process::cpu_s(pid)? - before));
        }
        let busy_s = process::machine_busy_s()
            .zip(self.busy_s)
            .map(|(after, before)| after - before);
        let ours: f64 = cpu_s.iter().map(|(_, seconds)| seconds).sum();
        let disk = self.disk.and_then(|(disk, before)| {
            let after = disk.counters()?;
            Some(Counters {
                read_bytes: after.read_bytes.saturating_sub(before.read_bytes),
                written_bytes: after.written_bytes.saturating_sub(before.written_bytes),
                flushes: after
                    .flushes
                    .zip(before.flushes)
                    .map(|(after, before)| after.saturating_sub(before)),
            })
        });
        Ok(Used {
            wall_s,
            cpu_s,
            other_s: busy_s.map(|busy| (busy - ours).max(0.0)),
            disk,
            rss_bytes,
            syscalls,
        })
    }
}

impl Used {
    /// CPU seconds of all processes that belong to the measurement.
    pub(crate) fn all_cpu_s(&self) -> f64 {
        self.cpu_s.iter().map(|(_, seconds)| seconds).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_is_seen() {
        let servers = [("self".to_owned(), std::process::id())];
        let meter = Meter::start(&servers, None).unwrap();
        let before = process::own_cpu_s();
        let mut sum = 0_u64;
        while process::own_cpu_s() < before + 0.1 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let used = meter.stop().unwrap();
        assert_eq!(used.cpu_s[0].0, "client");
        assert!(used.cpu_s[0].1 >= 0.1);
        // The same process counted by the other way too, in ticks.
        assert!(used.cpu_s[1].1 >= 0.05);
        assert!(used.all_cpu_s() >= 0.15);
        assert!(used.wall_s > 0.0 && used.disk.is_none() && used.syscalls.is_none());
        assert!(used.rss_bytes.iter().all(|(_, bytes)| *bytes > 1 << 16));
    }

    #[test]
    fn a_server_that_is_gone_is_an_error() {
        assert!(Meter::start(&[("gone".to_owned(), u32::MAX)], None).is_err());
    }
}
