//! The scripts of `peers/`: run, read, and undone whatever happens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Facts, Mount, Ppydfs, Rados, System, ppydfs};
use crate::cleanup::{self, Process};

/// What the scripts share; it lies beside them.
const COMMON: &str = include_str!("../../peers/common");

/// A system that a script sets up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub name: &'static str,
    text: &'static str,
    /// What `up` is told beside the folder.
    variant: Option<&'static str>,
    /// Programs that it needs.
    pub tools: &'static [&'static str],
    /// The line that installs it on Debian.
    pub install: &'static str,
}

const CEPH: Script = Script {
    name: "ceph",
    text: include_str!("../../peers/ceph"),
    variant: None,
    tools: &["ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "rados", "monmaptool"],
    install: "apt-get install --no-install-recommends ceph-mon ceph-mgr ceph-osd ceph-common",
};

const GLUSTERFS: Script = Script {
    name: "glusterfs",
    text: include_str!("../../peers/glusterfs"),
    variant: None,
    tools: &["glusterd", "gluster", "glusterfs", "ip", "nsenter"],
    install: "apt-get install --no-install-recommends glusterfs-server iproute2",
};

const MOOSEFS: Script = Script {
    name: "moosefs",
    text: include_str!("../../peers/moosefs"),
    variant: None,
    tools: &["mfsmaster", "mfschunkserver", "mfsmount", "ip", "nsenter"],
    install: "apt-get install --no-install-recommends moosefs-master moosefs-chunkserver moosefs-client iproute2",
};

const PPYDFS: Script = Script {
    name: "ppydfs",
    text: include_str!("../../peers/ppydfs"),
    variant: None,
    tools: &["python3", "ip", "nsenter"],
    install: "apt-get install python3-venv iproute2; it comes from PyPI by itself",
};

pub(crate) const SCRIPTS: [Script; 6] = [
    CEPH,
    GLUSTERFS,
    MOOSEFS,
    Script {
        name: "moosefs-flushed",
        variant: Some("flushed"),
        ..MOOSEFS
    },
    PPYDFS,
    Script {
        name: "ppydfs-repaired",
        variant: Some("repaired"),
        ..PPYDFS
    },
];

/// A system that was set up; dropped, it is taken down.
pub(crate) struct Up {
    script: PathBuf,
    folder: PathBuf,
}

impl Up {
    /// Runs the script below `folder` and returns the system that it tells of; files that its client reads lie below
    /// `memory_dir` meanwhile.
    pub(crate) fn start(
        script: &Script,
        folder: &Path,
        memory_dir: &Path,
    ) -> Result<(Self, Box<dyn System>)> {
        let file = folder.join(format!("{}.sh", script.name));
        for (file, text) in [(&file, script.text), (&folder.join("common"), COMMON)] {
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let up = Self {
            script: file,
            folder: folder.join(script.name),
        };
        // Before it starts: what stops halfway has to be taken down too.
        cleanup::take_down_on_signal(&up.script, &up.folder);
        let mut command = Command::new("bash");
        command
            .arg(&up.script)
            .arg("up")
            .arg(&up.folder)
            .args(script.variant);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let process = Process::spawn(script.name, &mut command)?;
        let mut output = String::new();
        if let Some(mut stdout) = process.take_stdout() {
            std::io::Read::read_to_string(&mut stdout, &mut output)?;
        }
        let status = process.wait()?;
        if !status.success() {
            bail!("{} could not be set up ({status})", script.name);
        }
        let system = Told::parse(&output)?.system(script.name, memory_dir)?;
        Ok((up, system))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        cleanup::take_down(&self.script, &self.folder);
    }
}

/// What a script printed.
#[derive(PartialEq, Debug)]
struct Told(BTreeMap<String, String>);

impl Told {
    fn parse(output: &str) -> Result<Self> {
        let pair = |line: &str| {
            let (key, value) = line
                .split_once('=')
                .with_context(|| format!("'{line}' is not key=value"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        output.lines().map(pair).collect::<Result<_>>().map(Self)
    }

    fn may(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn get(&self, key: &str) -> Result<&str> {
        self.may(key).with_context(|| format!("the script told no {key}"))
    }

    fn system(&self, name: &str, memory_dir: &Path) -> Result<Box<dyn System>> {
        let servers = parse_pids(self.get("pids")?)?;
        let facts = |way: &str| {
            Ok::<_, anyhow::Error>(Facts {
                name: name.to_owned(),
                version: self.get("version")?.to_owned(),
                copies: self.get("copies")?.to_owned(),
                flush: self.get("flush")?.to_owned(),
                unflushed: self.may("unflushed") == Some("yes"),
                way: way.to_owned(),
            })
        };
        Ok(match self.get("kind")? {
            "rados" => {
                let facts = facts("rados bench, which makes its own data, in objects of at most 4 MiB")?;
                let (conf, pool) = (self.get("conf")?.into(), self.get("pool")?.to_owned());
                Box::new(Rados::new(facts, conf, pool, servers))
            }
            "mount" => {
                let facts = facts("FUSE, an fsync per file")?;
                Box::new(Mount::new(facts, self.get("mount")?.into(), servers)?)
            }
            "ppydfs" => {
                let facts = facts(
                    "its own client, a process for each worker, from files in memory and to /dev/null",
                )?;
                let shape = ppydfs::Shape {
                    space: self.get("space")?.into(),
                    python: self.get("python")?.into(),
                    stores: self.get("stores")?.split(':').map(PathBuf::from).collect(),
                    file_bytes_max: self.may("file_bytes_max").map(str::parse).transpose()?,
                };
                Box::new(Ppydfs::new(facts, shape, memory_dir, servers)?)
            }
            kind => bail!("'{kind}' is no kind of system"),
        })
    }
}

/// `NAME:PID,…`
pub(crate) fn parse_pids(text: &str) -> Result<Vec<(String, u32)>> {
    let pair = |item: &str| {
        let (name, pid) = item
            .split_once(':')
            .with_context(|| format!("'{item}' is not NAME:PID"))?;
        let pid = pid.parse().with_context(|| format!("'{pid}' is no process id"))?;
        Ok((name.to_owned(), pid))
    };
    text.split(',')
        .filter(|item| !item.is_empty())
        .map(pair)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str =
        "kind=rados\nconf=/d/ceph.conf\npool=perf\nversion=16.2\ncopies=2\nflush=a=b\npids=mon:7,osd0:8\n";

    #[test]
    fn what_a_script_tells_is_understood() {
        let system = Told::parse(TOLD)
            .unwrap()
            .system("ceph", Path::new("/tmp"))
            .unwrap();
        assert_eq!(system.servers(), [("mon".to_owned(), 7), ("osd0".to_owned(), 8)]);
        assert_eq!(system.facts().flush, "a=b");
        assert_eq!(system.facts().version, "16.2");
    }

    #[test]
    fn what_is_missing_or_odd_is_told() {
        for (from, to) in [
            ("kind=rados", "kind=tape"),
            ("version=16.2\n", ""),
            ("mon:7", "mon"),
            ("osd0:8", "osd0:x"),
        ] {
            let told = Told::parse(&TOLD.replace(from, to)).unwrap();
            assert!(told.system("ceph", Path::new("/tmp")).is_err(), "{to}");
        }
        assert!(Told::parse("ready").is_err());
        assert!(parse_pids("").unwrap().is_empty());
    }

    #[test]
    fn scripts_are_sound_bash() {
        let texts = SCRIPTS.map(|script| (script.name, script.text));
        for (name, text) in texts.into_iter().chain([("common", COMMON)]) {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            let status = Command::new("bash").arg("-n").arg(&file).status().unwrap();
            assert!(status.success(), "{name}");
        }
    }

    /// As the scripts are, without a system: a namespace, a process in it, and then a failure or a long wait.
    const NOTHING: &str = r#"
        set -euo pipefail
        here=$(dirname "$0")
        dir=$2 how=${3:-}
        space=perf-test-$(printf '%s' "$dir" | cksum | cut -d' ' -f1)
        up() {
            mkdir -p "$dir"
            make_space 10.251.9.1
            nsenter --net="/run/netns/$space" sleep 1000 </dev/null >/dev/null 2>&1 &
            echo "$space $!"
            [[ $how == waits ]] || return 1
            exec >&-
            wait
        }
        down() {
            remove_space
            rm -rf "$dir"
        }
        source "$here/common"
    "#;

    #[test]
    fn nothing_is_left_of_an_up_that_failed_or_was_killed() {
        if !rustix::process::geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
            eprintln!("not tested: network namespaces need root and ip");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (file, below) = (folder.path().join("nothing.sh"), folder.path().join("nothing"));
        std::fs::write(&file, NOTHING).unwrap();
        std::fs::write(folder.path().join("common"), COMMON).unwrap();
        for how in ["fails", "waits"] {
            let mut command = Command::new("bash");
            command.arg(&file).arg("up").arg(&below).arg(how);
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            let process = Process::spawn("nothing", &mut command).unwrap();
            let mut output = String::new();
            std::io::Read::read_to_string(&mut process.take_stdout().unwrap(), &mut output).unwrap();
            let (space, pid) = output.trim().split_once(' ').unwrap();
            if how == "waits" {
                assert!(below.exists() && Path::new("/run/netns").join(space).exists());
                process.kill().unwrap();
                cleanup::take_down(&file, &below);
            } else {
                assert!(!process.wait().unwrap().success());
            }
            assert!(
                !below.exists() && !Path::new("/run/netns").join(space).exists(),
                "{how}"
            );
            // Gone, or dead and not yet waited for by whoever inherited it.
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            assert!(command.is_empty(), "{how}");
        }
    }
}
