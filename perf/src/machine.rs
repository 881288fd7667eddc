//! The machine a run was made on.

use std::fs;
use std::process::Command;

/// What a reader of the figures should know of it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub cores: u32,
    pub cpu: String,
    pub kernel: String,
    pub memory_bytes: u64,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            cpu: cpu_name(&read("/proc/cpuinfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_bytes: memory_bytes(&read("/proc/meminfo")).unwrap_or(0),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(
            f,
            "{} cores ({}), {gib:.0} GiB of memory, Linux {}",
            self.cores, self.cpu, self.kernel
        )
    }
}

/// The commit of the tree that this program was built from, where there is one.
pub(crate) fn commit() -> String {
    let git = Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
        ])
        .output();
    match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn cpu_name(cpuinfo: &str) -> String {
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let named = cpuinfo.lines().find(|line| line.starts_with("model name"));
    named.and_then(value).unwrap_or_else(|| "unknown CPU".into())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(cpu_name(cpuinfo), "Some CPU @ 2 GHz");
        assert_eq!(cpu_name(""), "unknown CPU");
        assert_eq!(
            memory_bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), None);
    }
}
