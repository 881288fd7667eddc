//! What /proc tells of a process: CPU time and peak memory.

use std::fs;

use anyhow::{Context as _, Result};

/// CPU seconds (user and system, ended threads included) of a process so far.
pub(crate) fn cpu_s(pid: u32) -> Result<f64> {
    let (user, system) = user_system_s(pid)?;
    Ok(user + system)
}

/// Peak resident memory of a process in bytes.
pub(crate) fn peak_rss_bytes(pid: u32) -> Result<u64> {
    memory_bytes(pid, "VmHWM:")
}

/// Resident memory of a process in bytes.
pub(crate) fn rss_bytes(pid: u32) -> Result<u64> {
    memory_bytes(pid, "VmRSS:")
}

fn memory_bytes(pid: u32, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone: its memory can't be read"))?;
    parse_memory(&text, name).with_context(|| format!("/proc/{pid}/status has no {name}"))
}

/// CPU seconds of this process so far, to the nanosecond.
pub(crate) fn own_cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU seconds of the children of this process that have ended and were waited for, and of theirs.
pub(crate) fn children_cpu_s() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat").context("/proc/self/stat can't be read")?;
    let ticks = parse_children_ticks(&text).context("/proc/self/stat is not understood")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU seconds that the whole machine was busy so far (user, nice, system, interrupts).
pub(crate) fn machine_busy_s() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    Some(parse_busy_ticks(&text)? as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// User and system CPU seconds of a process so far.
pub(crate) fn user_system_s(pid: u32) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone: its CPU time can't be read"))?;
    let (user, system) =
        parse_user_system(&text).with_context(|| format!("/proc/{pid}/stat is not understood"))?;
    let per_s = rustix::param::clock_ticks_per_second() as f64;
    Ok((user as f64 / per_s, system as f64 / per_s))
}

/// utime and stime of a `/proc/PID/stat` line. The name in it may hold anything, brackets and blanks too.
fn parse_user_system(text: &str) -> Option<(u64, u64)> {
    let (_, behind_name) = text.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace();
    // Behind the name stands field 3; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
    Some((fields.nth(11)?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// cutime + cstime, fields 16 and 17.
fn parse_children_ticks(text: &str) -> Option<u64> {
    let (_, behind_name) = text.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace();
    let user: u64 = fields.nth(13)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_memory(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal …
fn parse_busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    [0, 1, 2, 5, 6].iter().map(|&index| fields.get(index)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let tail = "S 1 2 3 4 5 4194560 7 8 9 10 1234 567 90 91 20 0 9 0 100 1 2";
        assert_eq!(
            parse_user_system(&format!("42 (blockyard) {tail}")),
            Some((1234, 567))
        );
        assert_eq!(
            parse_user_system(&format!("42 (a) b (c) {tail}")),
            Some((1234, 567))
        );
        assert_eq!(parse_user_system("42 (blockyard) S 1 2"), None);
        assert_eq!(parse_children_ticks(&format!("42 (a) b (c) {tail}")), Some(181));
        assert_eq!(parse_children_ticks("42 (a) S 1 2"), None);
        assert_eq!(parse_user_system(""), None);
    }

    #[test]
    fn status_and_machine() {
        assert_eq!(
            parse_memory("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  2048 kB\n", "VmHWM:"),
            Some(2 << 20)
        );
        assert_eq!(parse_memory("VmHWM:\t lots\n", "VmHWM:"), None);
        let stat = "cpu  10 20 30 4000 500 6 7 8 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_busy_ticks(stat), Some(10 + 20 + 30 + 6 + 7));
        assert_eq!(parse_busy_ticks("intr 5"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let before = own_cpu_s();
        let mut sum = 0_u64;
        while own_cpu_s() < before + 0.05 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_s(std::process::id()).unwrap() > 0.0);
        let now = rss_bytes(std::process::id()).unwrap();
        assert!(now > 1 << 16 && peak_rss_bytes(std::process::id()).unwrap() >= now / 2);
        assert!(machine_busy_s().unwrap() > 0.0);
        assert!(cpu_s(u32::MAX).is_err());
    }
}
