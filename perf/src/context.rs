//! What every scenario gets: flags, a folder on the disk to measure, the machine, tools, and the report.

use std::path::Path;

use anyhow::{Result, bail};

use crate::cleanup::WorkFolder;
use crate::disk::{self, Disk};
use crate::flags::Flags;
use crate::machine::{self, Machine};
use crate::report::{self, Report, Row};

/// With it a missing tool is an error.
const REQUIRE_ALL: &str = "BLOCKYARD_REQUIRE_ALL";

pub(crate) struct Context {
    pub flags: Flags,
    pub folder: WorkFolder,
    pub machine: Machine,
    /// `None` where the folder doesn't lie on one disk: then flushes can't be counted.
    pub disk: Option<Disk>,
    pub report: Report,
}

impl Context {
    pub(crate) fn new(flags: &Flags) -> Result<Self> {
        let folder = WorkFolder::new(&flags.dir)?;
        let machine = Machine::here();
        let disk = Disk::under(folder.path());
        let mut report = Report::default();
        let disk_name = disk.as_ref().map_or("unknown", |disk| disk.name.as_str());
        eprintln!(
            "# {machine}; disk {disk_name}, data in {}",
            folder.path().display()
        );
        if disk::is_memory(folder.path()) {
            report.note("the data lies in memory (tmpfs), not on a disk: pass --dir with a folder on one");
        } else if disk.is_none() {
            report.note("the disk under --dir has no counters of its own: flushes are not counted");
        }
        if cfg!(debug_assertions) {
            report.note("this is a debug build; figures mean something only with cargo run --release");
        }
        report.push(Row {
            scenario: report::MACHINE.into(),
            case: format!("{machine}, disk {disk_name}"),
            metric: "cores".into(),
            value: f64::from(machine.cores),
            commit: Some(machine::commit()),
            ..Row::default()
        });
        Ok(Self {
            flags: flags.clone(),
            folder,
            machine,
            disk,
            report,
        })
    }

    /// Whether an external tool is there; a note tells what is skipped without it.
    ///
    /// # Errors
    /// When it is missing and BLOCKYARD_REQUIRE_ALL=1 asks for everything.
    pub(crate) fn has_tool(&mut self, tool: &str) -> Result<bool> {
        self.has_tool_of(tool, tool)
    }

    /// The same for a tool that comes in a package of another name.
    pub(crate) fn has_tool_of(&mut self, tool: &str, package: &str) -> Result<bool> {
        if on_path(tool, std::env::var_os("PATH").unwrap_or_default().as_ref()) {
            return Ok(true);
        }
        if std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1") {
            bail!("{tool} is missing and {REQUIRE_ALL}=1; on Debian: apt-get install {package}");
        }
        self.report.note(format!(
            "skipped: needs {tool} (on Debian: apt-get install {package})"
        ));
        Ok(false)
    }

    /// Says what is being done, on stderr.
    pub(crate) fn say(&self, what: impl std::fmt::Display) {
        eprintln!("# {what}");
    }

    /// Refuses a run that would fill the disk.
    pub(crate) fn check_space(&self, needed_bytes: u64) -> Result<()> {
        let free = disk::free_bytes(self.folder.path()).unwrap_or(u64::MAX);
        if free < needed_bytes {
            let mib = |bytes: u64| bytes >> 20;
            bail!(
                "this needs {} MiB on the disk of {}, where {} MiB are free; pass a smaller --size, fewer --rounds or another --dir",
                mib(needed_bytes),
                self.flags.dir.display(),
                mib(free)
            );
        }
        Ok(())
    }
}

fn on_path(tool: &str, path: &std::ffi::OsStr) -> bool {
    std::env::split_paths(path).any(|folder| is_program(&folder.join(tool)))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Drops the page cache so that reads come from the disk; only root may. `false` where that failed.
pub(crate) fn drop_page_cache() -> bool {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "1\n").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_found_on_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        assert!(!on_path("tool", path));
        std::fs::write(folder.path().join("tool"), "").unwrap();
        assert!(!on_path("tool", path));
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder.path().join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(on_path("tool", path));
    }
}
