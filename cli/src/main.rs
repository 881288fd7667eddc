//! `blockyard`: every role and every command in one binary. Here is only the table of them.

mod config;
mod custody;
mod exit;
mod flags;
mod inspect;
mod legacy;
mod names;
mod operate;
mod output;
mod remote;
mod serve;
mod signals;
mod transfer;
mod values;

use blockyard_client::Client;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::flags::{Cli, Cluster, Mode};
use crate::signals::Signals;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mode = Cli::parse_from(legacy::rewrite(std::env::args_os())).mode;
    let code = match run(mode) {
        Ok(()) => exit::DONE,
        Err(error) => exit::report(&error),
    };
    // Not by returning: a thread may still be waiting for a terminal's stdin.
    std::process::exit(code.into());
}

fn run(mode: Mode) -> anyhow::Result<()> {
    match mode {
        Mode::Up(flags) => serve::up(flags),
        Mode::Nameserver(flags) => serve::nameserver(flags),
        Mode::Dataserver(flags) => serve::dataserver(flags),
        Mode::Init(flags) => config::init(&flags),
        Mode::Upload(flags) => command(&flags.cluster.clone(), async |on| {
            transfer::upload(flags, on).await
        }),
        Mode::Download(flags) => command(&flags.cluster.clone(), async |on| {
            transfer::download(flags, on).await
        }),
        Mode::Cat(flags) => command(&flags.cluster.clone(), async |on| transfer::cat(flags, on).await),
        Mode::List(flags) => command(&flags.cluster.clone(), async |on| inspect::list(flags, on).await),
        Mode::Stat(flags) => command(&flags.cluster.clone(), async |on| inspect::stat(flags, on).await),
        Mode::Info(flags) => command(&flags.cluster.clone(), async |on| inspect::info(flags, on).await),
        Mode::Status(flags) => command(&flags.cluster.clone(), async |on| {
            inspect::status(flags, on).await
        }),
        Mode::Volume(flags::Volume::Fsck(flags)) => {
            log_to_stderr("warn");
            inspect::fsck(&flags)
        }
        Mode::Volume(flags::Volume::In(flags)) => command(&flags.cluster().clone(), async |on| {
            operate::volume(flags, on).await
        }),
        Mode::Node(flags) => command(&flags.cluster().clone(), async |on| {
            operate::node(flags, on).await
        }),
        Mode::Repair(flags) => command(&flags.cluster().clone(), async |on| {
            operate::repair(flags, on).await
        }),
        Mode::Scrub(flags) => command(&flags.cluster().clone(), async |on| {
            operate::scrub(flags, on).await
        }),
        Mode::Balance(flags) => command(&flags.cluster().clone(), async |on| {
            operate::balance(flags, on).await
        }),
        Mode::Trash(flags) => command(&flags.cluster().clone(), async |on| {
            operate::trash(flags, on).await
        }),
        Mode::Setrep(flags) => command(&flags.cluster.clone(), async |on| {
            operate::set_replication(flags, on).await
        }),
        Mode::Locate(flags) => command(&flags.cluster.clone(), async |on| {
            inspect::locate(flags, on).await
        }),
        Mode::Du(flags) => command(&flags.cluster.clone(), async |on| inspect::du(flags, on).await),
        Mode::Find(flags) => command(&flags.cluster.clone(), async |on| inspect::find(flags, on).await),
        Mode::Tree(flags) => command(&flags.cluster.clone(), async |on| inspect::tree(flags, on).await),
        Mode::Top(flags) => command(&flags.cluster.clone(), async |on| inspect::top(flags, on).await),
        Mode::Backup(flags) => command(&flags.cluster.clone(), async |on| {
            custody::backup(flags, on).await
        }),
        Mode::Restore(flags) => {
            log_to_stderr("warn");
            custody::restore(&flags)
        }
        Mode::Rebuild(flags) => {
            log_to_stderr("warn");
            custody::rebuild(&flags)
        }
        Mode::Volume(flags::Volume::Inventory(flags)) => {
            log_to_stderr("warn");
            custody::inventory(&flags)
        }
        Mode::Fsck(flags) => command(&flags.cluster.clone(), async |on| custody::fsck(flags, on).await),
        Mode::Df(flags) => command(&flags.cluster.clone(), async |on| inspect::df(flags, on).await),
        Mode::Mkdir(flags) => command(&flags.cluster.clone(), async |on| names::mkdir(flags, on).await),
        Mode::Mv(flags) => command(&flags.cluster.clone(), async |on| names::mv(flags, on).await),
        Mode::Delete(flags) => command(&flags.cluster.clone(), async |on| names::delete(flags, on).await),
    }
}

/// Runs a command against a cluster until it is done or interrupted; what it left unfinished is undone.
fn command(cluster: &Cluster, work: impl AsyncFnOnce(&Client) -> anyhow::Result<()>) -> anyhow::Result<()> {
    log_to_stderr("warn");
    runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let client = tokio::select! {
            client = config::connect(cluster) => client?,
            () = signals.next() => return Err(exit::Interrupted.into()),
        };
        let outcome = tokio::select! {
            outcome = work(&client) => outcome,
            () = signals.next() => Err(exit::Interrupted.into()),
        };
        tokio::select! {
            () = client.close() => {}
            () = signals.next() => {}
        }
        outcome
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Logs to stderr: `BLOCKYARD_LOG` says what, else `level` and above of our own crates.
fn log_to_stderr(level: &str) {
    let ours = format!("warn,blockyard={level}");
    let filter = match std::env::var("BLOCKYARD_LOG") {
        Ok(text) if !text.trim().is_empty() => EnvFilter::try_new(&text).unwrap_or_else(|error| {
            output::complain(&format!("BLOCKYARD_LOG is ignored: {error}"));
            EnvFilter::new(&ours)
        }),
        _ => EnvFilter::new(&ours),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}
