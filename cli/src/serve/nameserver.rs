//! `nameserver`: names, blocks and the page.

use std::net::SocketAddr;
use std::time::Duration;

use blockyard_nameserver::{Config, Handle, Kind, Page, start};
use blockyard_web::PageConfig;
use blockyard_wire::address::{NAMESERVER_PORT, WEB_PORT, closed_by_default, resolve};
use blockyard_wire::{Problem, ProblemKind};
use tokio::sync::oneshot;

use super::ports::{self, Wanted};
use super::until_stopped;
use crate::signals::Signals;
use crate::{config, flags, output, runtime};

/// Completes when the nameserver has ended by itself.
pub(super) type Ended = oneshot::Receiver<()>;

/// Starts a nameserver and its page.
///
/// # Errors
/// A taken port or folder, a damaged folder, or a listener that would be open to others without a secret.
pub(super) fn begin(config: Config, web: Option<PageConfig>) -> Result<(Handle, Ended), Problem> {
    let (alive, ended) = oneshot::channel();
    let page = move |view| -> Page {
        Box::pin(async move {
            // Dropped with the nameserver's thread, however that ends.
            let _alive: oneshot::Sender<()> = alive;
            if let Some(page) = web {
                blockyard_web::serve(page, view).await;
            }
            std::future::pending().await
        })
    };
    let handle = start(config, page).map_err(problem)?;
    Ok((handle, ended))
}

/// The same with an exit code.
pub fn problem(error: blockyard_nameserver::Error) -> Problem {
    let kind = match error.kind() {
        Kind::Usage => ProblemKind::Invalid,
        Kind::Busy => ProblemKind::Exists,
        Kind::Damaged | Kind::System => ProblemKind::Failed,
    };
    Problem::new(kind, error.to_string()).context("nameserver")
}

/// Listens for the page.
///
/// # Errors
/// The port is taken, or it would be open to others without a secret.
pub(super) fn listen_for_page(
    address: SocketAddr,
    secret_given: bool,
    flag: &'static str,
) -> Result<PageConfig, Problem> {
    closed_by_default(address, secret_given)?;
    let listener = ports::bind(&Wanted {
        role: "page".to_owned(),
        address,
        flag,
    })?;
    PageConfig::from_listener(listener, secret_given)
}

/// Runs a nameserver until it is stopped.
///
/// # Errors
/// As [`begin`].
pub fn nameserver(flags: flags::Nameserver) -> anyhow::Result<()> {
    crate::log_to_stderr("info");
    let listen = resolve(&flags.listen, NAMESERVER_PORT)?;
    let secret = config::given_secret(&flags.secret)?;
    let web = match page_address(&flags)? {
        Some(address) => Some(listen_for_page(address, secret.is_some(), "--web")?),
        None => None,
    };
    let dir = match flags.dir {
        Some(dir) => dir,
        None => config::data_dir()?.join("nameserver"),
    };
    let page = web.as_ref().map(PageConfig::address);
    let shown = dir.display().to_string();
    runtime()?.block_on(async {
        let signals = Signals::catch()?;
        let config = Config {
            dir,
            listen,
            replication: flags.replication,
            trash_ms: flags.trash.as_millis() as u64,
            suspect_ms: millis(flags.suspect),
            dead_ms: millis(flags.dead),
            outage_share: f64::from(flags.outage) / 100.0,
            mirror: flags.mirror,
            snapshots_kept: usize::from(flags.snapshots),
            adopt: flags.adopt,
            secret,
            ..Config::default()
        };
        let (handle, ended) = begin(config, web)?;
        output::line(format!(
            "nameserver {} of cluster {}",
            handle.address(),
            handle.cluster()
        ))?;
        if let Some(page) = page {
            output::line(format!("  page   http://{page}/"))?;
        }
        output::line(format!("  folder {shown}"))?;
        until_stopped(signals, ended, move || Ok(handle.stop().map_err(problem)?)).await
    })
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Where the page goes: `--web`, or PPYDFS's bare port beside the nameserver; `None` with `--web off`.
fn page_address(flags: &flags::Nameserver) -> Result<Option<SocketAddr>, Problem> {
    if let Some(port) = flags.web_port {
        return Ok(Some(SocketAddr::from(([127, 0, 0, 1], port))));
    }
    if flags.web == "off" {
        return Ok(None);
    }
    resolve(&flags.web, WEB_PORT).map(Some)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::flags::{Cli, Mode};

    #[test]
    fn the_page_has_an_address_or_is_off() {
        let at = |line: &str| match Cli::parse_from(line.split(' ')).mode {
            Mode::Nameserver(flags) => page_address(&flags).unwrap().map(|address| address.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(at("blockyard nameserver").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(at("blockyard nameserver 8081").as_deref(), Some("127.0.0.1:8081"));
        assert_eq!(
            at("blockyard nameserver --web 127.0.0.2").as_deref(),
            Some("127.0.0.2:8080")
        );
        assert_eq!(at("blockyard nameserver --web off"), None);
    }
}
