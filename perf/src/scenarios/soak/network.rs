//! A network of its own for each server, joined by a bridge, in which packets of one direction can be dropped.
//!
//! Needs root, `ip`, `nft`, `unshare` and `nsenter`. The namespaces have no names: each lives as long as a process that
//! sleeps in it, so nothing is left when those have ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::faults::{Cut, End, Server};
use crate::cleanup::Process;

/// Programs that it needs, and their packages on Debian.
pub(super) const TOOLS: [(&str, &str); 4] = [
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
];

/// Seen from inside only.
const CLIENTS: &str = "10.77.0.1";
const BRIDGE: &str = "soak0";

/// The running network; dropped, it is gone.
pub(super) struct Network {
    /// Where the bridge and the clients are.
    hub: Process,
    rooms: BTreeMap<Server, Process>,
    /// Where this thread was before.
    home: File,
}

/// Whether this process may make one.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Network {
    /// Makes it, and moves this thread into it: what it starts from now on, threads too, is where the clients are.
    pub(super) fn new(servers: &[Server]) -> Result<Self> {
        let home = File::open("/proc/thread-self/ns/net").context("this thread's network can't be told")?;
        let hub = room("clients")?;
        let mut network = Self {
            hub,
            rooms: BTreeMap::new(),
            home,
        };
        let hub = network.hub.pid();
        inside(hub, &["ip", "link", "set", "lo", "up"])?;
        inside(hub, &["ip", "link", "add", BRIDGE, "type", "bridge"])?;
        let address = format!("{CLIENTS}/24");
        inside(hub, &["ip", "address", "add", &address, "dev", BRIDGE])?;
        inside(hub, &["ip", "link", "set", BRIDGE, "up"])?;
        chains(hub)?;
        for server in servers {
            let holder = room(&server.to_string())?;
            let pid = holder.pid();
            let (port, pid_text) = (port(*server), pid.to_string());
            inside(
                hub,
                &[
                    "ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid_text,
                ],
            )?;
            inside(hub, &["ip", "link", "set", &port, "master", BRIDGE, "up"])?;
            let address = format!("{}/24", address_of(*server));
            inside(pid, &["ip", "link", "set", "lo", "up"])?;
            inside(pid, &["ip", "address", "add", &address, "dev", "eth0"])?;
            inside(pid, &["ip", "link", "set", "eth0", "up"])?;
            chains(pid)?;
            network.rooms.insert(*server, holder);
        }
        enter(&File::open(namespace(hub)).context("the clients' network is gone")?)?;
        Ok(network)
    }

    /// What starts `program` on the server's side.
    pub(super) fn command(&self, server: Server, program: &std::path::Path) -> Result<Command> {
        let room = self.rooms.get(&server).context("the server has no network")?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", namespace(room.pid())))
            .arg("--")
            .arg(program);
        Ok(command)
    }

    /// From now on packets of this direction are lost.
    pub(super) fn cut(&self, cut: Cut) -> Result<()> {
        let (pid, chain) = self.place(cut)?;
        let rule: &[&str] = &match (cut.from, cut.to) {
            (End::Everybody, End::Clients) | (End::Clients, End::Everybody) => bail!("{cut:?} cuts too much"),
            (_, End::Everybody) => vec!["oifname", "eth0", "drop"],
            (End::Everybody, _) => vec!["iifname", "eth0", "drop"],
            (End::Clients, _) => vec!["ip", "saddr", CLIENTS, "drop"],
            (End::Server(from), _) => {
                let from = address_of(from);
                return inside(
                    pid,
                    &[
                        "nft", "add", "rule", "inet", "soak", chain, "ip", "saddr", &from, "drop",
                    ],
                );
            }
        };
        let command: Vec<&str> = ["nft", "add", "rule", "inet", "soak", chain]
            .iter()
            .chain(rule)
            .copied()
            .collect();
        inside(pid, &command)
    }

    /// They arrive again.
    pub(super) fn heal(&self, cut: Cut) -> Result<()> {
        let (pid, chain) = self.place(cut)?;
        inside(pid, &["nft", "flush", "chain", "inet", "soak", chain])
    }

    /// Where the rules of a cut stand: at the receiver, or at a sender whom nobody hears.
    fn place(&self, cut: Cut) -> Result<(u32, &'static str)> {
        let pid = |end: End| match end {
            End::Clients => Some(self.hub.pid()),
            End::Server(server) => self.rooms.get(&server).map(Process::pid),
            End::Everybody => None,
        };
        let place = match cut.to {
            End::Everybody => pid(cut.from).map(|pid| (pid, "out")),
            to => pid(to).map(|pid| (pid, "in")),
        };
        place.with_context(|| format!("{cut:?} is between nobody"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = enter(&self.home) {
            eprintln!("{error:#}");
        }
    }
}

/// The server's address in the network.
pub(super) fn address_of(server: Server) -> String {
    let last = match server {
        Server::Nameserver => 10,
        Server::Dataserver(number) => 11 + number,
    };
    format!("10.77.0.{last}")
}

/// The server's end of the bridge.
fn port(server: Server) -> String {
    match server {
        Server::Nameserver => "soak-ns".to_owned(),
        Server::Dataserver(number) => format!("soak-ds{number}"),
    }
}

fn namespace(pid: u32) -> String {
    format!("/proc/{pid}/ns/net")
}

fn enter(network: &File) -> Result<()> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .context("this thread can't change its network")
}

/// A process that sleeps in a network namespace of its own.
fn room(name: &str) -> Result<Process> {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sleep", "infinity"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let process = Process::spawn(&format!("network of {name}"), &mut command)?;
    let ours = std::fs::read_link("/proc/thread-self/ns/net")?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Some(status) = process.ended()? {
            bail!("unshare --net has failed ({status})");
        }
        // A process between fork and exec still has our network.
        if std::fs::read_link(namespace(process.pid())).is_ok_and(|theirs| theirs != ours) {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("unshare --net makes no network")
}

/// Empty chains for the rules to come.
fn chains(pid: u32) -> Result<()> {
    inside(pid, &["nft", "add", "table", "inet", "soak"])?;
    for (chain, hook) in [("in", "input"), ("out", "output")] {
        let kind = format!("{{ type filter hook {hook} priority 0; }}");
        inside(pid, &["nft", "add", "chain", "inet", "soak", chain, &kind])?;
    }
    Ok(())
}

/// Runs a command in the network of a process.
fn inside(pid: u32, command: &[&str]) -> Result<()> {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", namespace(pid)))
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .output()
        .context("nsenter can't be run")?;
    if !output.status.success() {
        bail!(
            "'{}' failed ({}): {}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A socket in the network of a process.
    fn socket(pid: u32, address: &str) -> UdpSocket {
        let address = format!("{address}:7000");
        let network = File::open(namespace(pid)).unwrap();
        let bound = std::thread::spawn(move || {
            enter(&network).unwrap();
            UdpSocket::bind(address).unwrap()
        });
        let socket = bound.join().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    }

    fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
        let _ = from.send_to(b"x", to.local_addr().unwrap());
        to.recv(&mut [0]).is_ok()
    }

    #[test]
    fn a_cut_loses_one_direction_and_heals() {
        let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
        if !is_root() || !TOOLS.iter().all(|(tool, _)| there(tool)) {
            let wanted = std::env::var_os("BLOCKYARD_REQUIRE_ALL").is_some_and(|value| value == "1");
            assert!(!wanted, "needs root and nft");
            eprintln!("skipped: needs root and nft");
            return;
        }
        let (one, other) = (Server::Nameserver, Server::Dataserver(0));
        let network = Network::new(&[one, other]).unwrap();
        let of = |server: Server| socket(network.rooms[&server].pid(), &address_of(server));
        let (clients, first, second) = (socket(network.hub.pid(), CLIENTS), of(one), of(other));
        let between = [(&clients, &first), (&first, &second), (&second, &clients)];
        let open = || {
            let ways = between
                .iter()
                .flat_map(|(left, right)| [(left, right), (right, left)]);
            ways.map(|(from, to)| arrives(from, to)).collect::<Vec<_>>()
        };
        assert_eq!(open(), [true; 6]);
        let (one, other) = (End::Server(one), End::Server(other));
        // clients -> first, first -> clients, first -> second, second -> first, second -> clients, clients -> second
        for (from, to, ways) in [
            (End::Clients, one, [false, true, true, true, true, true]),
            (one, End::Clients, [true, false, true, true, true, true]),
            (other, one, [true, true, true, false, true, true]),
            (one, End::Everybody, [true, false, false, true, true, true]),
            (End::Everybody, one, [false, true, true, false, true, true]),
        ] {
            let cut = Cut { from, to };
            network.cut(cut).unwrap();
            assert_eq!(open(), ways, "{cut:?}");
            network.heal(cut).unwrap();
            assert_eq!(open(), [true; 6], "{cut:?}");
        }
    }
}
