//! A cluster of real processes on this machine: one nameserver and some dataservers, on loopback.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use blockyard_client::types::ClusterStatus;
use blockyard_client::{Client, ClusterSecret, Options};
use blockyard_nameserver::populated;

use crate::cleanup::Process;

/// How long a cluster may take from start to serving. Nothing is measured meanwhile.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// What to start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub dataservers: usize,
    pub replication: u8,
    /// Bytes that each dataserver's volume may fill.
    pub capacity_bytes: u64,
    /// Of each volume's read cache; none, and all reads come from the disk.
    pub read_cache_bytes: u64,
    /// Volumes beyond the first of each dataserver.
    pub more_volumes: usize,
    /// Files of one block that the nameserver knows from the start, on volumes that are not there.
    pub files: u64,
}

/// A running cluster; dropped, its processes stop.
pub(crate) struct Nodes {
    /// Dataservers first, so that they can still say goodbye to the nameserver.
    processes: Vec<Process>,
    folder: PathBuf,
    address: String,
    web: String,
    first_data_address: String,
    secret: ClusterSecret,
    volumes: usize,
    answered_after: Duration,
}

impl Nodes {
    /// Starts the processes with everything they keep below `folder`, and waits until all volumes serve.
    pub(crate) async fn start(binary: &Path, folder: &Path, shape: Shape) -> Result<Self> {
        let home = folder.join("home");
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let secret = ClusterSecret::generate();
        let secret_file = folder.join("cluster.secret");
        secret.save_new(&secret_file)?;
        let each = 1 + shape.more_volumes;
        // A dataserver's volumes listen on ports one above the other.
        let ports = free_ports(2)?;
        let data_ports = (0..shape.dataservers)
            .map(|_| free_port_run(each))
            .collect::<Result<Vec<_>>>()?;
        let local = |port: u16| format!("127.0.0.1:{port}");
        let address = local(ports[0]);
        let mut nodes = Self {
            processes: Vec::new(),
            folder: folder.to_owned(),
            address: address.clone(),
            web: local(ports[1]),
            first_data_address: data_ports.first().map(|port| local(*port)).unwrap_or_default(),
            secret,
            volumes: shape.dataservers * each,
            answered_after: Duration::ZERO,
        };
        if shape.files > 0 {
            populated::populate(&folder.join("nameserver"), shape.files)?;
        }
        let role = |name: &str| {
            let mut command = Command::new(binary);
            command.arg(name).arg("--cluster-secret").arg(&secret_file);
            command
                .env("HOME", &home)
                .env("XDG_CONFIG_HOME", home.join("config"));
            command
                .env_remove("BLOCKYARD_NAMESERVER")
                .env_remove("BLOCKYARD_CLUSTER_SECRET");
            command
        };
        for (index, port) in data_ports.iter().enumerate() {
            let name = format!("dataserver {}", index + 1);
            let mut command = role("dataserver");
            for volume in 0..each {
                let number = index * each + volume + 1;
                command
                    .arg("--volume")
                    .arg(folder.join(format!("volume-{number}")));
            }
            command.args(["--capacity", &shape.capacity_bytes.to_string()]);
            command.args(["--listen", &local(*port), "--nameserver", &address]);
            // What is done in idle moments would mix with the limits that are measured in them.
            command.args(["--no-zero-fill", "--scrub-rate", "0"]);
            command.args(["--read-cache", &shape.read_cache_bytes.to_string()]);
            command.args(["--zone", &format!("zone-{}", index + 1)]);
            nodes.spawn(&name, &mut command)?;
        }
        let mut command = role("nameserver");
        command.arg("--dir").arg(folder.join("nameserver"));
        command.args(["--listen", &address, "--web", &local(ports[1])]);
        command.args(["--replication", &shape.replication.to_string()]);
        if shape.files > 0 {
            // Volumes that are made up would be dead in half a minute, and every block in need.
            command.args(["--suspect", "1h", "--dead", "2h"]);
        }
        let started = Instant::now();
        nodes.spawn("nameserver", &mut command)?;
        nodes.wait_until_answered().await?;
        nodes.answered_after = started.elapsed();
        nodes.wait_until_serving().await?;
        Ok(nodes)
    }

    /// A client of the cluster.
    pub(crate) async fn client(&self) -> Result<Client> {
        let options = Options::new(vec![self.address.clone()], self.secret.clone());
        Ok(Client::connect(options).await?)
    }

    /// A client whose transfers each have so many blocks under way.
    pub(crate) async fn client_keeping(&self, blocks_in_flight: usize) -> Result<Client> {
        let options = Options {
            blocks_in_flight,
            ..Options::new(vec![self.address.clone()], self.secret.clone())
        };
        Ok(Client::connect(options).await?)
    }

    /// `HOST:PORT` of the page.
    pub(crate) fn web(&self) -> &str {
        &self.web
    }

    /// Where the first volume of the first dataserver listens.
    pub(crate) fn first_data_address(&self) -> &str {
        &self.first_data_address
    }

    /// Ends the first dataserver as a power cut would, and forgets it.
    pub(crate) fn kill_dataserver(&mut self) -> Result<()> {
        self.processes.remove(0).kill()
    }

    /// Name and process id of each server.
    pub(crate) fn servers(&self) -> Vec<(String, u32)> {
        let named = |process: &Process| (process.name().to_owned(), process.pid());
        self.processes.iter().map(named).collect()
    }

    /// An error with the end of its log when a server is gone.
    pub(crate) fn check(&self) -> Result<()> {
        for process in &self.processes {
            if let Some(status) = process.ended()? {
                bail!(
                    "the {} has ended ({status}); its log ends with:\n{}",
                    process.name(),
                    self.log_tail(process)
                );
            }
        }
        Ok(())
    }

    /// The error, with the end of each server's log.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(self.log_tails())
    }

    fn log_tails(&self) -> String {
        let tail = |process: &Process| {
            format!(
                "the {}'s log ends with:\n{}",
                process.name(),
                self.log_tail(process)
            )
        };
        let tails: Vec<String> = self.processes.iter().map(tail).collect();
        tails.join("\n")
    }

    fn spawn(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let log = File::create(self.log_path(name)).context("cannot make a log file")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.processes.push(Process::spawn(name, command)?);
        Ok(())
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.log", name.replace(' ', "-")))
    }

    fn log_tail(&self, process: &Process) -> String {
        let text = fs::read(self.log_path(process.name())).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The nameserver's own.
    pub(crate) fn nameserver_folder(&self) -> PathBuf {
        self.folder.join("nameserver")
    }

    /// From the start of the nameserver's process to the first lookup that it has answered.
    pub(crate) fn answered_after(&self) -> Duration {
        self.answered_after
    }

    /// Of one server.
    pub(crate) fn pid(&self, name: &str) -> Result<u32> {
        let process = self.processes.iter().find(|process| process.name() == name);
        Ok(process.with_context(|| format!("there is no {name}"))?.pid())
    }

    async fn wait_until_answered(&self) -> Result<()> {
        let answer = async || Ok(self.client().await?.lookup("/").await.map(|_| ())?);
        self.wait(Duration::from_millis(10), answer).await
    }

    async fn wait_until_serving(&self) -> Result<()> {
        let serve = async || {
            let status = self.client().await?.status().await?;
            let count = volumes(&status).filter(|volume| volume.serves()).count();
            let serving = if status.safe_mode { 0 } else { count };
            ensure!(
                serving == self.volumes,
                "{serving} of {} volumes serve",
                self.volumes
            );
            Ok(())
        };
        self.wait(Duration::from_millis(100), serve).await
    }

    /// Looks again after each `pause`, until what is looked for is there.
    async fn wait(&self, pause: Duration, look: impl AsyncFn() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.check()?;
            match look().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    bail!("the cluster does not come up: {error:#}\n{}", self.log_tails())
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
        }
    }
}

/// Flushes that the volumes say they have made; comes with their heartbeats.
pub(crate) fn claimed_flushes(status: &ClusterStatus) -> u64 {
    volumes(status).map(|volume| volume.report.flushes).sum()
}

fn volumes(status: &ClusterStatus) -> impl Iterator<Item = &blockyard_client::types::VolumeStatus> {
    status.servers.iter().flat_map(|server| &server.volumes)
}

/// Loopback ports that were free a moment ago, all different.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("no free port on loopback")?;
    held.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

/// The first of so many neighbouring ports on loopback that were free a moment ago.
fn free_port_run(count: usize) -> Result<u16> {
    for _ in 0..100 {
        let first = free_ports(1)?[0];
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (1..count as u16).all(|more| first.checked_add(more).is_some_and(free)) {
            return Ok(first);
        }
    }
    bail!("no {count} neighbouring ports are free on loopback")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let mut ports = free_ports(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }

    #[test]
    fn a_run_of_ports_is_free() {
        let first = free_port_run(4).unwrap();
        let held: Vec<_> = (first..first + 4)
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect();
        // Another test may have taken one meanwhile; not all of them.
        assert!(held.iter().any(Result::is_ok));
    }

    #[tokio::test]
    async fn a_server_that_ends_is_told_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        // A program that is there everywhere and understands none of the flags.
        let binary = Path::new("ls");
        let shape = Shape {
            dataservers: 1,
            replication: 1,
            capacity_bytes: 1 << 30,
            ..Shape::default()
        };
        let error = Nodes::start(binary, folder.path(), shape)
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("has ended") && error.contains("--cluster-secret"),
            "{error}"
        );
    }
}
