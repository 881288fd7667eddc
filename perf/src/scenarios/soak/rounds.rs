//! The rounds of a soak: makes the faults happen and end, and waits until the cluster is whole again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use blockyard_client::types::ClusterStatus;
use blockyard_client::{Client, Options};
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::Soak;
use super::faults::{Fault, Menu, Server, What};
use super::plan::dice;
use super::servers::Servers;
use super::tally::Offence;

/// Within so long after its last fault the cluster is whole again.
const HEAL_WITHIN: Duration = Duration::from_secs(60);
/// A cluster that has not healed by then won't.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a server may take from its start to its first answer.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Does all rounds.
///
/// # Errors
/// A fault that can't be made, a server that does not start, a cluster that does not heal.
pub(super) async fn run(
    soak: &Rc<Soak>,
    servers: &RefCell<Servers>,
    observer: &Client,
    menu: Menu,
    rounds: u32,
) -> Result<()> {
    for number in 1..=rounds {
        if soak.is_over() {
            return Ok(());
        }
        soak.round.set(number);
        let round = menu.draw(&mut dice(soak.seed, "round", u64::from(number)));
        soak.faults.set(round.faults.len());
        let (before, failed_before) = soak.tally.borrow().counts();
        try_join_all(round.faults.iter().map(|fault| make(soak, servers, fault))).await?;
        let ended = Instant::now();
        healthy(soak, observer, PATIENCE, servers_in(menu)).await?;
        let healed = ended.elapsed();
        soak.tally.borrow_mut().healed(healed);
        if healed > HEAL_WITHIN && !soak.is_over() {
            let seconds = healed.as_secs_f64();
            soak.offence(
                Offence::NotHealed,
                &format!("{round}: whole again after {seconds:.1} s"),
            );
        }
        soak.faults.set(0);
        sleep(Duration::from_millis(round.rest_ms)).await;
        let (now, failed_now) = soak.tally.borrow().counts();
        soak.say(format_args!(
            "round {number} of {rounds}: {round}; whole {:.1} s later; {} operations, {} failed",
            healed.as_secs_f64(),
            now - before,
            failed_now - failed_before
        ));
    }
    Ok(())
}

fn servers_in(menu: Menu) -> usize {
    menu.dataservers
}

/// One fault from its begin to its end.
async fn make(soak: &Rc<Soak>, servers: &RefCell<Servers>, fault: &Fault) -> Result<()> {
    sleep(Duration::from_millis(fault.after_ms)).await;
    if soak.is_broken() {
        return Ok(());
    }
    servers.borrow_mut().begin(fault.what)?;
    soak.tally.borrow_mut().fault(fault.what);
    sleep(Duration::from_millis(fault.lasts_ms)).await;
    if soak.is_broken() && matches!(fault.what, What::Kill(_) | What::Power) {
        return Ok(());
    }
    servers.borrow_mut().end(fault.what)?;
    if matches!(fault.what, What::Kill(Server::Nameserver) | What::Power) {
        let begun = Instant::now();
        let options = servers.borrow().options();
        serving(servers, &options).await?.close().await;
        soak.tally.borrow_mut().nameserver_started(begun.elapsed());
    }
    Ok(())
}

/// Waits until the nameserver answers.
///
/// # Errors
/// It has ended, or takes too long.
pub(super) async fn serving(servers: &RefCell<Servers>, options: &Options) -> Result<Client> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let problem = match Client::connect(options.clone()).await {
            Ok(client) => return Ok(client),
            Err(problem) => problem,
        };
        if let Some((server, status)) = servers.borrow().died()?.first() {
            bail!(
                "the {server} has ended ({status}); its log ends with:\n{}",
                servers.borrow().log_tail(*server)
            );
        }
        if Instant::now() > deadline {
            bail!("the nameserver does not answer: {problem}");
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until every server is heard from and every block has all its replicas.
///
/// # Errors
/// It takes longer than `patience`.
pub(super) async fn healthy(
    soak: &Rc<Soak>,
    observer: &Client,
    patience: Duration,
    dataservers: usize,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    let mut last = String::from("the nameserver does not answer");
    while Instant::now() < deadline && !soak.is_broken() {
        match observer.status().await {
            Ok(status) => match lacking(&status, dataservers) {
                None => return Ok(()),
                Some(what) => last = what,
            },
            Err(problem) => last = problem.to_string(),
        }
        sleep(LOOK_EVERY).await;
    }
    if soak.is_broken() {
        return Ok(());
    }
    bail!("the cluster is not whole after {} s: {last}", patience.as_secs())
}

/// What a cluster lacks to be whole.
fn lacking(status: &ClusterStatus, dataservers: usize) -> Option<String> {
    let volumes = status.servers.iter().flat_map(|server| &server.volumes);
    let serving = volumes.filter(|volume| volume.serves()).count();
    if serving < dataservers {
        return Some(format!("{serving} of {dataservers} volumes serve"));
    }
    if status.safe_mode {
        return Some("the nameserver waits for reports".to_owned());
    }
    let counts = [
        (status.missing_blocks, "blocks have no live replica"),
        (status.under_replicated_blocks, "blocks have too few replicas"),
        (status.corrupt_replicas, "replicas are damaged"),
    ];
    let lacks = counts.iter().find(|(count, _)| *count > 0);
    lacks.map(|(count, what)| format!("{count} {what}"))
}

/// Looks whether a server has ended by itself, until the load is over.
pub(super) async fn watch(soak: &Rc<Soak>, servers: &RefCell<Servers>) {
    while !soak.is_over() {
        sleep(LOOK_EVERY).await;
        let died = servers.borrow().died().unwrap_or_default();
        for (server, status) in died {
            let tail = servers.borrow().log_tail(server);
            let what = format!("the {server} has ended ({status}); its log ends with:\n{tail}");
            soak.offence(Offence::Died, &what);
        }
    }
}

#[cfg(test)]
mod tests {
    use blockyard_client::types::{Liveness, ServerStatus, VolumeStatus};

    use super::*;

    #[test]
    fn a_cluster_is_whole_when_nothing_lacks() {
        let server = ServerStatus {
            volumes: vec![VolumeStatus::default()],
            ..ServerStatus::default()
        };
        let whole = ClusterStatus {
            servers: vec![server; 4],
            ..ClusterStatus::default()
        };
        assert_eq!(lacking(&whole, 4), None);
        assert!(lacking(&whole, 5).is_some());
        let mut one_suspect = whole.clone();
        one_suspect.servers[2].volumes[0].liveness = Liveness::Suspect;
        let less = |change: fn(&mut ClusterStatus)| {
            let mut status = whole.clone();
            change(&mut status);
            status
        };
        for status in [
            one_suspect,
            less(|status| status.safe_mode = true),
            less(|status| status.missing_blocks = 1),
            less(|status| status.under_replicated_blocks = 1),
            less(|status| status.corrupt_replicas = 1),
        ] {
            assert!(lacking(&status, 4).is_some(), "{status:?}");
        }
    }
}
