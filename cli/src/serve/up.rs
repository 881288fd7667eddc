//! `up`: a whole cluster in one process, to try Blockyard or to use it on one machine.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use blockyard_dataserver::Config;
use blockyard_wire::Problem;
use blockyard_wire::address::{NAMESERVER_PORT, closed_by_default, resolve};
use blockyard_wire::secret::ClusterSecret;

use super::ports::{self, Wanted};
use super::{dataserver, nameserver, until_stopped};
use crate::signals::Signals;
use crate::{config, flags, output, runtime};

/// Percent of the free space that the volumes share: the rest is the machine's.
const SHARE_PERCENT: u64 = 90;

/// How long dataservers may take to join before the greeting comes without them.
const JOINING: Duration = Duration::from_secs(20);

/// Runs a cluster until it is stopped.
///
/// # Errors
/// A port is taken, or the folder can't be used.
pub fn up(flags: flags::Up) -> anyhow::Result<()> {
    crate::log_to_stderr("warn");
    let host = resolve(&flags.host, 0)?.ip();
    let secret = config::given_secret(&flags.secret)?;
    closed_by_default(SocketAddr::new(host, flags.port), secret.is_some())?;
    if host.is_unspecified() {
        let text =
            format!("--host {host} is no address that others can be sent to; name one of this machine's");
        return Err(Problem::invalid(text).into());
    }
    let places = places(&flags, host)?;
    let dir = match &flags.dir {
        Some(dir) => dir.clone(),
        None => config::data_dir()?,
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let dir = dir
        .canonicalize()
        .with_context(|| format!("cannot use {}", dir.display()))?;
    let count = flags.dataservers;
    let volumes: Vec<PathBuf> = (1..=count)
        .map(|number| dir.join(format!("ds{number}")))
        .collect();
    let capacity = match flags.capacity {
        Some(capacity) => capacity,
        None => {
            share(&dir, &volumes).with_context(|| format!("asking for the space of {}", dir.display()))?
        }
    };
    runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        ports::patiently(|| ports::check(&places)).await?;
        let secret_given = secret.is_some();
        let web = SocketAddr::new(host, flags.web_port);
        let web = nameserver::listen_for_page(web, secret_given, "--web-port")?;
        let page = web.address();
        let config = blockyard_nameserver::Config {
            dir: dir.join("nameserver"),
            listen: SocketAddr::new(host, flags.port),
            replication: flags.replication.unwrap_or(if count > 1 { 2 } else { 1 }),
            secret,
            ..blockyard_nameserver::Config::default()
        };
        let (names, ended) = nameserver::begin(config, Some(web))?;
        let address = names.address();
        let mut servers = Vec::new();
        for (number, volume) in (1..).zip(volumes) {
            let port = if flags.port == 0 { 0 } else { flags.port + number };
            let nameservers = vec![address.to_string()];
            let listen = SocketAddr::new(host, port);
            let config = Config::new(vec![volume], listen, nameservers, names.secret().clone());
            let config = Config {
                capacity_bytes: Some(capacity),
                secret_given,
                ..config
            };
            servers.push(dataserver::begin(config).await?);
        }
        let all_joined = tokio::select! {
            joined = joined(address, names.secret(), usize::from(count)) => joined,
            () = signals.next() => return Ok(()),
        };
        output::line(greeting(&dir, address, page, capacity, &servers))?;
        if !all_joined {
            output::note("not all dataservers have joined yet; 'blockyard status' tells when they have");
        }
        until_stopped(signals, ended, move || {
            for server in &servers {
                server.stopper().stop();
            }
            for server in servers {
                server.stop();
            }
            Ok(names.stop().map_err(nameserver::problem)?)
        })
        .await
    })
}

/// Waits until all volumes take blocks, so that the first upload finds them; whether they do.
async fn joined(nameserver: SocketAddr, secret: &ClusterSecret, count: usize) -> bool {
    let started = Instant::now();
    let cluster = config::Cluster {
        nameservers: vec![nameserver.to_string()],
        secret: secret.clone(),
    };
    let Ok(client) = cluster.connect().await else {
        return false;
    };
    while started.elapsed() < JOINING {
        if let Ok(status) = client.status().await
            && status
                .servers
                .iter()
                .flat_map(|server| &server.volumes)
                .filter(|volume| volume.serves())
                .count()
                >= count
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// All listeners, each with the flag that moves it.
fn places(flags: &flags::Up, host: IpAddr) -> Result<Vec<Wanted>, Problem> {
    let port_of = |number: u16| match flags.port {
        0 => Ok(0),
        port => port.checked_add(number).ok_or_else(|| {
            Problem::invalid(format!(
                "--port {port} leaves no room for {} dataservers",
                flags.dataservers
            ))
        }),
    };
    let want = |role: String, port, flag| Wanted {
        role,
        address: SocketAddr::new(host, port),
        flag,
    };
    let mut places = vec![want("nameserver".to_owned(), flags.port, "--port")];
    for number in 1..=flags.dataservers {
        let role = format!("dataserver {number}");
        places.push(want(
            role,
            port_of(number)?,
            "--port (dataservers take the ports after it)",
        ));
    }
    if flags.web_port != 0
        && let Some(clash) = places.iter().find(|place| place.address.port() == flags.web_port)
    {
        let (port, role) = (flags.web_port, &clash.role);
        return Err(Problem::invalid(format!(
            "--web-port {port} is the port of the {role} as well"
        )));
    }
    places.push(want("page".to_owned(), flags.web_port, "--web-port"));
    Ok(places)
}

/// An equal share of most of the space: what is free and what the volumes have taken already, so that the
/// share stays the same from start to start.
fn share(dir: &Path, volumes: &[PathBuf]) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(dir)?;
    let free = space.f_bavail * space.f_frsize;
    let taken: u64 = volumes.iter().map(|volume| taken_by(volume)).sum();
    Ok((free + taken) / 100 * SHARE_PERCENT / volumes.len().max(1) as u64)
}

/// Bytes of disk that the files below `dir` take; what can't be seen counts nothing.
fn taken_by(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let of_entry = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => taken_by(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of_entry).sum()
}

fn greeting(
    dir: &Path,
    address: SocketAddr,
    page: SocketAddr,
    capacity: u64,
    servers: &[blockyard_dataserver::Handle],
) -> String {
    let usual = SocketAddr::from(([127, 0, 0, 1], NAMESERVER_PORT));
    let option = if address == usual {
        String::new()
    } else {
        format!(" --nameserver {address}")
    };
    let mut lines = vec![
        "Blockyard is up: Ctrl-C stops it.".to_owned(),
        format!("  data        {}", dir.display()),
        format!("  nameserver  {address}"),
        format!("  page        http://{page}/"),
    ];
    for server in servers {
        for volume in server.volumes() {
            let place = volume.directory.display();
            let state = match &volume.failed {
                Some(why) => format!("failed: {}", output::safe(why)),
                None => format!("up to {}", output::size(capacity)),
            };
            lines.push(format!("  dataserver  {}  {place}  {state}", volume.address));
        }
    }
    lines.push("Try, in another terminal:".to_owned());
    for command in ["upload FILE", "ls", "info FILE", "download FILE COPY", "status"] {
        let (verb, rest) = command
            .split_once(' ')
            .map_or((command, ""), |(verb, rest)| (verb, rest));
        let line = format!("  blockyard {verb}{option} {rest}");
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Mode};

    fn wanted(line: &str) -> Result<Vec<u16>, Problem> {
        match Cli::parse_from(line.split(' ')).mode {
            Mode::Up(flags) => places(&flags, [127, 0, 0, 1].into())
                .map(|places| places.iter().map(|place| place.address.port()).collect()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ports_follow_each_other() {
        assert_eq!(wanted("blockyard up").unwrap(), [9000, 9001, 9002, 8080]);
        assert_eq!(
            wanted("blockyard up --port 0 --web-port 0").unwrap(),
            [0, 0, 0, 0]
        );
        assert!(wanted("blockyard up --port 65534 --dataservers 2").is_err());
        assert!(wanted("blockyard up --web-port 9002").is_err());
    }

    #[test]
    fn the_share_counts_what_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("ds1");
        std::fs::create_dir_all(volume.join("segments")).unwrap();
        std::fs::write(volume.join("segments/1"), vec![1; 100_000]).unwrap();
        assert!(taken_by(&volume) >= 100_000);
        let one = share(dir.path(), std::slice::from_ref(&volume)).unwrap();
        let half = share(dir.path(), &[volume.clone(), dir.path().join("ds2")]).unwrap();
        // Others may use the disk meanwhile; half is far enough from a whole.
        assert!(half < one * 3 / 4 && half > 0);
    }
}
