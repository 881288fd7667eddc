//! `repair`, `balance` and `setrep`.

use std::time::Duration;

use blockyard_client::Client;
use blockyard_wire::types::{Backlog, ClusterStatus, RepairStatus, Tuning};
use tokio::time::sleep;

use crate::flags::{Balance, Listing, Repair, SetReplication};
use crate::names::Tally;
use crate::remote::Remote;
use crate::{inspect, output};

/// Carries a `repair` command out.
///
/// # Errors
/// The nameserver does not answer.
pub async fn repair(flags: Repair, client: &Client) -> anyhow::Result<()> {
    match flags {
        Repair::Status(Listing { form, .. }) => {
            let status = client.status().await?;
            if form.json {
                output::json(&status.repair)?;
            } else {
                output::line(picture(&status))?;
            }
        }
        Repair::Pause(_) => {
            tune(client, |tuning| tuning.repair_paused = true).await?;
            output::line("repair is paused, also after restarts; go on with 'blockyard repair resume'")?;
        }
        Repair::Resume(flags) => {
            let resumed = |tuning: &mut Tuning| {
                tuning.repair_paused = false;
                tuning.repair_forced = flags.force;
            };
            tune(client, resumed).await?;
            output::line("repair goes on")?;
        }
        Repair::Pace(flags) => {
            tune(client, |tuning| tuning.repair_bytes_per_s = flags.bytes_per_s).await?;
            output::line(pace(flags.bytes_per_s))?;
        }
    }
    Ok(())
}

/// Carries a `balance` command out.
///
/// # Errors
/// The nameserver does not answer.
pub async fn balance(flags: Balance, client: &Client) -> anyhow::Result<()> {
    match flags {
        Balance::Status(Listing { form, .. }) => {
            let status = client.status().await?;
            if !form.json {
                let RepairStatus { tuning, balanced, .. } = status.repair;
                output::line(format!(
                    "balance is {}; {} moved since the nameserver started\n",
                    if tuning.balance_off { "off" } else { "on" },
                    backlog(balanced)
                ))?;
            }
            inspect::volumes(form, client).await
        }
        Balance::On(_) => {
            tune(client, |tuning| tuning.balance_off = false).await?;
            Ok(output::line(
                "full volumes give to empty ones when there is nothing to repair",
            )?)
        }
        Balance::Off(_) => {
            tune(client, |tuning| tuning.balance_off = true).await?;
            Ok(output::line("blocks stay where they are")?)
        }
    }
}

async fn tune(client: &Client, change: impl FnOnce(&mut Tuning)) -> anyhow::Result<()> {
    let mut tuning = client.status().await?.repair.tuning;
    change(&mut tuning);
    client.tune(tuning).await?;
    Ok(())
}

/// Sets how many copies files are to have.
///
/// # Errors
/// One of them could not be set.
pub async fn set_replication(flags: SetReplication, client: &Client) -> anyhow::Result<()> {
    let mut tally = Tally::default();
    for text in &flags.paths {
        let path = Remote::parse(text).path;
        let set = client
            .set_replication(&path, flags.recursive, flags.replication)
            .await;
        if let Some(files) = tally.take(set.map_err(anyhow::Error::from))? {
            output::line(format!(
                "{}: {} of each block of {}",
                output::safe(&path),
                output::count(u64::from(flags.replication), "copy", "copies"),
                output::count(files, "file", "files")
            ))?;
        }
    }
    if flags.wait {
        until_replicated(client).await?;
    }
    tally.finish()
}

/// Waits until no block has fewer replicas than wanted.
async fn until_replicated(client: &Client) -> anyhow::Result<()> {
    loop {
        let status = client.status().await?;
        if status.under_replicated_blocks == 0 && status.missing_blocks == 0 {
            return Ok(());
        }
        sleep(super::LOOK).await;
    }
}

fn pace(bytes_per_s: u64) -> String {
    match bytes_per_s {
        0 => "copies take what clients leave: beside them in pieces, a quarter of the time".to_owned(),
        limit => format!("copies take at most {}/s", output::size(limit)),
    }
}

fn backlog(of: Backlog) -> String {
    format!(
        "{} ({})",
        output::count(of.blocks, "block", "blocks"),
        output::size(of.bytes)
    )
}

/// What repair has before it and behind it, for people.
fn picture(status: &ClusterStatus) -> String {
    let repair = &status.repair;
    let waiting = [
        ("one replica left", repair.one_left),
        ("too few replicas", repair.under),
        ("on draining volumes", repair.leaving),
        ("too close together", repair.misplaced),
    ];
    let mut lines = Vec::new();
    lines.push(
        match (repair.held.as_str(), waiting.iter().any(|(_, b)| b.blocks > 0)) {
            ("", false) => "nothing to repair".to_owned(),
            ("", true) => format!(
                "repairing: {} under way, {}/s{}",
                output::count(u64::from(repair.copying), "copy", "copies"),
                output::size(repair.bytes_per_s),
                match repair.eta_ms {
                    0 => String::new(),
                    eta_ms => format!(
                        ", done in about {}",
                        output::duration(Duration::from_millis(eta_ms))
                    ),
                }
            ),
            (held, _) => format!("held back: {held}"),
        },
    );
    if status.missing_blocks > 0 {
        lines.push(format!(
            "{} without a replica that answers: bring their servers back",
            output::count(status.missing_blocks, "block", "blocks")
        ));
    }
    for (name, of) in waiting.into_iter().filter(|(_, of)| of.blocks > 0) {
        lines.push(format!("{name:<20} {}", backlog(of)));
    }
    lines.push(format!("{:<20} {}", "copied", backlog(repair.copied)));
    lines.push(format!(
        "{:<20} {}",
        "moved for balance",
        backlog(repair.balanced)
    ));
    if repair.failed > 0 {
        lines.push(format!(
            "{:<20} {}, tried again later",
            "failed",
            output::count(repair.failed, "copy", "copies")
        ));
    }
    lines.push(pace(repair.tuning.repair_bytes_per_s));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_says_what_waits_and_why() {
        let mut status = ClusterStatus::default();
        assert!(picture(&status).starts_with("nothing to repair"));
        status.repair.one_left = Backlog {
            blocks: 3,
            bytes: 12 << 20,
        };
        status.repair.bytes_per_s = 4 << 20;
        status.repair.eta_ms = 3000;
        let text = picture(&status);
        assert!(
            text.contains("done in about 3.0 s") && text.contains("3 blocks (12.0 MiB)"),
            "{text}"
        );
        status.repair.held = "paused".into();
        assert!(picture(&status).starts_with("held back: paused"));
    }
}
