//! `dataserver`: volumes of this machine for a cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockyard_dataserver::{Config, Error, Handle, start};
use blockyard_web::{PageConfig, serve_metrics};
use blockyard_wire::address::{DATASERVER_PORT, resolve};
use blockyard_wire::control;
use blockyard_wire::frame::Role;
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::{Problem, ProblemKind};

use super::{ports, until_stopped};
use crate::signals::Signals;
use crate::{config, flags, output, runtime};

/// Where figures are told when only a host is given.
const METRICS_PORT: u16 = 9101;

/// Between two looks for a secret that the nameserver has yet to make.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How long a nameserver may take to start before its absence is worth a word.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs a dataserver until it is stopped.
///
/// # Errors
/// A port is taken, no volume can be opened, or there is no secret.
pub fn dataserver(flags: flags::Dataserver) -> anyhow::Result<()> {
    crate::log_to_stderr("info");
    let metrics = flags.metrics.clone();
    runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let config = tokio::select! {
            config = resolved(flags) => config?,
            () = signals.next() => return Ok(()),
        };
        let nameservers = config.nameservers.join(", ");
        let metrics = metrics
            .map(|address| PageConfig::bind(resolve(&address, METRICS_PORT)?, config.secret_given))
            .transpose()?;
        let handle = begin(config).await?;
        tell(&handle, &nameservers)?;
        let reporter = handle.reporter();
        let told = async move {
            let Some(metrics) = metrics else {
                return std::future::pending().await;
            };
            let serving = serve_metrics(metrics, async move || reporter.reports().await);
            tokio::task::LocalSet::new().run_until(serving).await;
        };
        until_stopped(signals, told, move || {
            handle.stop();
            Ok(())
        })
        .await
    })
}

/// Starts it, with an error that tells the exit code.
///
/// # Errors
/// As the dataserver's `start`.
pub(super) async fn begin(config: Config) -> Result<Handle, Problem> {
    let problem = |error: Error| Problem::new(error.kind(), error.to_string()).context("dataserver");
    ports::patiently(|| start(config.clone()).map_err(problem)).await
}

fn tell(handle: &Handle, nameservers: &str) -> std::io::Result<()> {
    output::line(format!(
        "dataserver {} serves the nameserver {nameservers}",
        handle.address()
    ))?;
    for volume in handle.volumes() {
        let state = match &volume.failed {
            Some(why) => format!("failed: {why}"),
            None => format!("on {}", volume.address),
        };
        output::line(format!(
            "  volume {} {}",
            volume.directory.display(),
            output::safe(&state)
        ))?;
    }
    Ok(())
}

async fn resolved(flags: flags::Dataserver) -> anyhow::Result<Config> {
    let listen = listen(&flags)?;
    let nameservers = match &flags.ppydfs_nameserver {
        Some(text) => config::nameservers(std::slice::from_ref(text))?,
        None => config::nameservers(&flags.cluster.nameserver)?,
    };
    let volumes = match (flags.dir, flags.volume) {
        (Some(dir), _) => vec![dir],
        (None, volumes) if !volumes.is_empty() => volumes,
        _ => vec![config::data_dir()?.join(format!("volume-{}", listen.port()))],
    };
    let given = config::given_secret(&flags.cluster.secret)?;
    let secret_given = given.is_some();
    // Before any waiting: this can't come right by itself.
    blockyard_wire::address::closed_by_default(listen, secret_given)?;
    if listen.ip().is_unspecified() && flags.advertise.is_none() {
        let text = format!("listening on {listen}: say by which name others reach it, with --advertise HOST");
        return Err(Problem::invalid(text).into());
    }
    let secret = match given {
        Some(secret) => secret,
        None => users_secret(&nameservers, &volumes).await?,
    };
    let defaults = Config::new(volumes, listen, nameservers, secret);
    Ok(Config {
        advertise: flags.advertise,
        zone: flags.zone,
        capacity_bytes: flags.capacity,
        reserve_bytes: flags.reserve,
        read_cache_bytes: flags.read_cache,
        scrub_bytes_per_s: flags.scrub_rate,
        zero_fill: !flags.no_zero_fill,
        cpus: flags.cpus.unwrap_or_default().0,
        secret_given,
        ..defaults
    })
}

fn listen(flags: &flags::Dataserver) -> Result<SocketAddr, Problem> {
    if flags.host.is_none() && flags.port.is_none() {
        return resolve(&flags.listen, DATASERVER_PORT);
    }
    let host = flags.host.as_deref().unwrap_or("127.0.0.1");
    let mut address = resolve(host, DATASERVER_PORT)?;
    if let Some(port) = flags.port {
        address.set_port(port);
    }
    Ok(address)
}

/// The user's copy of the nameserver's secret. On this machine it is waited for: at a first start the
/// nameserver may not have made it yet, or an old copy may lie where the new one will.
///
/// # Errors
/// There is none, and the nameserver runs elsewhere.
async fn users_secret(nameservers: &[String], volumes: &[PathBuf]) -> anyhow::Result<ClusterSecret> {
    let started = Instant::now();
    let mut told = None;
    loop {
        let why = match config::user_secret(nameservers) {
            Ok(secret) => match fits(nameservers, &secret, volumes).await {
                Ok(()) => return Ok(secret),
                Err(problem) => problem,
            },
            Err(problem) if !local(nameservers) => return Err(problem.into()),
            Err(problem) => problem,
        };
        // Servers that are started together need no message.
        if started.elapsed() > PATIENCE && told != Some(why.kind) {
            let names = nameservers.join(", ");
            let why_line = why.message.lines().next().unwrap_or_default();
            output::note(&format!(
                "waiting for the nameserver {names}: {}",
                output::safe(why_line)
            ));
            told = Some(why.kind);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether a nameserver of this machine is among them: only that one makes a copy here.
fn local(nameservers: &[String]) -> bool {
    let is_local = |name: &String| resolve(name, 0).is_ok_and(|address| address.ip().is_loopback());
    nameservers.iter().any(is_local)
}

/// Whether a nameserver takes this secret. With none to ask, formatted volumes may start at once: they serve
/// what they hold, whatever the nameserver does.
async fn fits(nameservers: &[String], secret: &ClusterSecret, volumes: &[PathBuf]) -> Result<(), Problem> {
    let mut last = Problem::retry("no nameserver answers");
    for name in nameservers {
        match control::connect(name, secret, Role::Dataserver, None).await {
            Ok(_) => return Ok(()),
            Err(problem) => last = problem,
        }
    }
    if last.kind == ProblemKind::Retry && volumes.iter().any(|volume| formatted(volume)) {
        return Ok(());
    }
    Err(last)
}

fn formatted(volume: &Path) -> bool {
    volume.join("volume.toml").exists()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Mode};

    fn parsed(line: &str) -> flags::Dataserver {
        match Cli::parse_from(line.split(' ')).mode {
            Mode::Dataserver(flags) => flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_both_ways() {
        let at = |line: &str| listen(&parsed(line)).unwrap().to_string();
        assert_eq!(at("blockyard dataserver"), "127.0.0.1:9001");
        assert_eq!(at("blockyard dataserver --listen 127.0.0.2:7"), "127.0.0.2:7");
        assert_eq!(at("blockyard dataserver 127.0.0.3"), "127.0.0.3:9001");
        assert_eq!(
            at("blockyard dataserver 127.0.0.3 9005 /data 127.0.0.1:9000"),
            "127.0.0.3:9005"
        );
    }

    #[test]
    fn only_loopback_is_local() {
        assert!(local(&["127.0.0.1:9000".into()]));
        assert!(!local(&["192.0.2.1:9000".into()]));
    }
}
