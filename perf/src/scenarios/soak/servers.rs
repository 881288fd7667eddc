//! The processes of a soak: started, killed, stopped, continued and started again; and what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use blockyard_client::{ClusterSecret, Options};
use rand::RngExt as _;
use rustix::process::{Pid, Signal, kill_process};

use super::faults::{Server, What};
use super::network::{self, Network};
use super::power::Power;
use crate::cleanup::Process;
use crate::process;

/// In a network of their own.
const NAMESERVER_PORT: u16 = 9000;
const DATASERVER_PORT: u16 = 9001;
const REPLICATION: &str = "2";

/// The cluster.
pub(super) struct Servers {
    // Before the network, so that it is stopped first.
    running: BTreeMap<Server, Process>,
    stopped: BTreeSet<Server>,
    network: Option<Network>,
    power: Option<Power>,
    binary: PathBuf,
    folder: PathBuf,
    /// Bytes of each dataserver's volume.
    capacity_bytes: u64,
    addresses: BTreeMap<Server, String>,
    secret: ClusterSecret,
    peak_rss_bytes: BTreeMap<Server, u64>,
}

/// What the cluster stands on.
#[derive(Default)]
pub(super) struct Ground {
    /// Else it is on loopback.
    pub network: Option<Network>,
    /// Else it is on the machine's own disk.
    pub power: Option<Power>,
}

/// All of them.
pub(super) fn servers(dataservers: usize) -> Vec<Server> {
    let dataservers = (0..dataservers).map(Server::Dataserver);
    [Server::Nameserver].into_iter().chain(dataservers).collect()
}

impl Servers {
    /// Starts all, with everything they keep below `folder`; of what the power can fail of, only logs and secret.
    pub(super) fn start(
        binary: PathBuf,
        folder: &Path,
        dataservers: usize,
        capacity_bytes: u64,
        ground: Ground,
    ) -> Result<Self> {
        let Ground { network, power } = ground;
        fs::create_dir_all(folder.join("home"))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let secret = ClusterSecret::generate();
        secret.save_new(&folder.join("cluster.secret"))?;
        let all = servers(dataservers);
        let addresses = match network {
            Some(_) => all
                .iter()
                .map(|server| {
                    let port = match server {
                        Server::Nameserver => NAMESERVER_PORT,
                        Server::Dataserver(_) => DATASERVER_PORT,
                    };
                    (*server, format!("{}:{port}", network::address_of(*server)))
                })
                .collect(),
            None => {
                let ports = quiet_ports(all.len())?;
                let local = |(server, port): (&Server, u16)| (*server, format!("127.0.0.1:{port}"));
                all.iter().zip(ports).map(local).collect()
            }
        };
        let mut servers = Self {
            running: BTreeMap::new(),
            stopped: BTreeSet::new(),
            network,
            power,
            binary,
            folder: folder.to_owned(),
            capacity_bytes,
            addresses,
            secret,
            peak_rss_bytes: BTreeMap::new(),
        };
        for server in all {
            servers.spawn(server)?;
        }
        Ok(servers)
    }

    /// How a client reaches the cluster.
    pub(super) fn options(&self) -> Options {
        Options::new(
            vec![self.addresses[&Server::Nameserver].clone()],
            self.secret.clone(),
        )
    }

    /// Makes a fault begin.
    pub(super) fn begin(&mut self, what: What) -> Result<()> {
        match what {
            What::Kill(server) => {
                self.note(server, "killed by the soak");
                let process = self.running.remove(&server).context("it is not running")?;
                self.remember_memory(server, process.pid());
                process.kill()
            }
            What::Stop(server) => {
                self.note(server, "stopped by the soak");
                self.stopped.insert(server);
                self.signal(server, Signal::STOP)
            }
            What::Cut(cut) => self
                .network
                .as_ref()
                .context("there is no network to cut")?
                .cut(cut),
            What::Power => self.power_off(),
        }
    }

    /// Makes it end.
    pub(super) fn end(&mut self, what: What) -> Result<()> {
        match what {
            What::Kill(server) => self.spawn(server),
            What::Stop(server) => {
                self.stopped.remove(&server);
                self.signal(server, Signal::CONT)?;
                self.note(server, "continued by the soak");
                Ok(())
            }
            What::Cut(cut) => self
                .network
                .as_ref()
                .context("there is no network to heal")?
                .heal(cut),
            What::Power => {
                let power = self.power.as_mut().context("there is no power to come back")?;
                power.come_back()?;
                let all: Vec<Server> = self.addresses.keys().copied().collect();
                all.into_iter().try_for_each(|server| self.spawn(server))
            }
        }
    }

    /// Nobody acknowledges anything behind the moment at which the power fails: all are stopped before, and killed then.
    fn power_off(&mut self) -> Result<()> {
        let all: Vec<Server> = self.running.keys().copied().collect();
        for server in &all {
            self.signal(*server, Signal::STOP)?;
        }
        self.power.as_mut().context("there is no power to fail")?.fail();
        all.into_iter()
            .try_for_each(|server| self.begin(What::Kill(server)))
    }

    /// Those that have ended without having been killed.
    pub(super) fn died(&self) -> Result<Vec<(Server, ExitStatus)>> {
        let mut died = Vec::new();
        for (server, process) in &self.running {
            if let Some(status) = process.ended()? {
                died.push((*server, status));
            }
        }
        Ok(died)
    }

    /// The most memory that each has taken, over all its lives.
    pub(super) fn memory(&mut self) -> Vec<(Server, u64)> {
        let pids: Vec<_> = self
            .running
            .iter()
            .map(|(server, process)| (*server, process.pid()))
            .collect();
        for (server, pid) in pids {
            self.remember_memory(server, pid);
        }
        self.peak_rss_bytes
            .iter()
            .map(|(server, bytes)| (*server, *bytes))
            .collect()
    }

    /// Lines of the servers' logs with one of these in them.
    pub(super) fn logged(&self, words: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for server in self.addresses.keys() {
            let text = fs::read(self.log_path(*server)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines = text
                .lines()
                .filter(|line| words.iter().any(|word| line.contains(word)));
            found.extend(lines.map(|line| format!("{server}: {line}")));
        }
        found
    }

    /// Where a server's log lies.
    pub(super) fn log_path(&self, server: Server) -> PathBuf {
        self.folder.join(format!("{}.log", file_name(server)))
    }

    /// The end of a server's log.
    pub(super) fn log_tail(&self, server: Server) -> String {
        let text = fs::read(self.log_path(server)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Lets what was stopped go on, so that it can be told to end.
    pub(super) fn let_go(&mut self) {
        for server in std::mem::take(&mut self.stopped) {
            // One that is gone needs no signal.
            let _ = self.signal(server, Signal::CONT);
        }
    }

    fn spawn(&mut self, server: Server) -> Result<()> {
        let mut command = match &self.network {
            Some(network) => network.command(server, &self.binary)?,
            None => Command::new(&self.binary),
        };
        let listen = &self.addresses[&server];
        let nameserver = &self.addresses[&Server::Nameserver];
        let own = match &self.power {
            Some(power) => power.folder()?.join(file_name(server)),
            None => self.folder.join(file_name(server)),
        };
        match server {
            Server::Nameserver => {
                command.arg("nameserver").arg("--dir").arg(own);
                command.args(["--listen", listen, "--web", "off", "--replication", REPLICATION]);
            }
            Server::Dataserver(_) => {
                command.arg("dataserver").arg("--volume").arg(own);
                command.args(["--listen", listen, "--nameserver", nameserver]);
                command.args(["--capacity", &self.capacity_bytes.to_string()]);
                if self.power.is_some() {
                    // Zeros would only take memory.
                    command.arg("--no-zero-fill");
                }
            }
        }
        let home = self.folder.join("home");
        command
            .arg("--cluster-secret")
            .arg(self.folder.join("cluster.secret"))
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env_remove("BLOCKYARD_NAMESERVER")
            .env_remove("BLOCKYARD_CLUSTER_SECRET");
        self.note(server, "started by the soak");
        let log = self.log(server)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(&server.to_string(), &mut command)?;
        self.running.insert(server, process);
        Ok(())
    }

    fn log(&self, server: Server) -> Result<File> {
        let path = self.log_path(server);
        let log = File::options().create(true).append(true).open(&path);
        log.with_context(|| format!("cannot write {}", path.display()))
    }

    /// A line in the server's log, to find a round in it.
    fn note(&self, server: Server, what: &str) {
        if let Ok(mut log) = self.log(server) {
            // Only people read it.
            let _ = writeln!(log, "{} == {what} ==", jiff::Timestamp::now());
        }
    }

    fn signal(&self, server: Server, signal: Signal) -> Result<()> {
        let process = self.running.get(&server).context("it is not running")?;
        let pid = Pid::from_raw(process.pid().cast_signed()).context("it has no process id")?;
        kill_process(pid, signal).with_context(|| format!("{server} takes no signal"))
    }

    fn remember_memory(&mut self, server: Server, pid: u32) {
        if let Ok(bytes) = process::peak_rss_bytes(pid) {
            let peak = self.peak_rss_bytes.entry(server).or_default();
            *peak = bytes.max(*peak);
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.let_go();
        // Dataservers first, so that they can still say goodbye.
        while let Some((_, process)) = self.running.pop_last() {
            drop(process);
        }
    }
}

fn file_name(server: Server) -> String {
    match server {
        Server::Nameserver => "nameserver".to_owned(),
        Server::Dataserver(number) => format!("dataserver-{}", number + 1),
    }
}

/// Ports on loopback that were free a moment ago, from below those that the kernel gives to connections: a server's port
/// is not to be taken while it is away.
fn quiet_ports(count: usize) -> Result<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..10_000 {
        if held.len() == count {
            return held
                .iter()
                .map(|listener: &TcpListener| Ok(listener.local_addr()?.port()))
                .collect();
        }
        let port = rand::rng().random_range(15_000..32_000);
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    bail!("no free ports on loopback between 15000 and 32000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_those_of_connections() {
        let ports = quiet_ports(5).unwrap();
        let distinct: BTreeSet<_> = ports.iter().collect();
        assert!(distinct.len() == 5 && ports.iter().all(|port| *port < 32_768));
    }
}
