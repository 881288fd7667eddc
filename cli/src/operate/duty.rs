//! `node` and `volume`: list, drain, maintain, resume, remove, replace.

use std::collections::BTreeSet;
use std::time::Duration;

use blockyard_client::Client;
use blockyard_wire::types::{ClusterStatus, Duty, ServerStatus, VolumeId, VolumeStatus};
use blockyard_wire::{Problem, ProblemKind};
use tokio::time::sleep;

use crate::flags::{Drain, Listing, Maintain, Node, Remove, Targets, VolumeIn};
use crate::{inspect, output};

/// Whether names are those of servers or of volumes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Servers,
    Volumes,
}

/// What is to become of servers or volumes.
enum Wish {
    Drain { wait: bool },
    Maintain(Duration),
    Resume,
    Remove { force: bool },
    Replace,
}

/// Carries a `node` command out.
///
/// # Errors
/// A name that is none, a removal that would lose something, or no answer.
pub async fn node(flags: Node, client: &Client) -> anyhow::Result<()> {
    let (names, wish) = match flags {
        Node::List(Listing { form, .. }) => return inspect::nodes(form, client).await,
        Node::Drain(Drain { wait, targets }) => (targets.names, Wish::Drain { wait }),
        Node::Maintain(Maintain { lasts, targets }) => (targets.names, Wish::Maintain(lasts)),
        Node::Resume(targets) => (targets.names, Wish::Resume),
        Node::Remove(Remove { force, targets }) => (targets.names, Wish::Remove { force }),
    };
    carry_out(client, Kind::Servers, &names, wish).await
}

/// Carries a `volume` command out.
///
/// # Errors
/// A name that is none, a removal that would lose something, or no answer.
pub async fn volume(flags: VolumeIn, client: &Client) -> anyhow::Result<()> {
    let (names, wish) = match flags {
        VolumeIn::List(Listing { form, .. }) => return inspect::volumes(form, client).await,
        VolumeIn::Drain(Drain { wait, targets }) => (targets.names, Wish::Drain { wait }),
        VolumeIn::Maintain(Maintain { lasts, targets }) => (targets.names, Wish::Maintain(lasts)),
        VolumeIn::Resume(targets) => (targets.names, Wish::Resume),
        VolumeIn::Remove(Remove { force, targets }) => (targets.names, Wish::Remove { force }),
        VolumeIn::Replace(Targets { names, .. }) => (names, Wish::Replace),
    };
    carry_out(client, Kind::Volumes, &names, wish).await
}

async fn carry_out(client: &Client, kind: Kind, names: &[String], wish: Wish) -> anyhow::Result<()> {
    let status = client.status().await?;
    let mut volumes = BTreeSet::new();
    for name in names {
        let found = match kind {
            Kind::Servers => volumes_of_server(&status, name),
            Kind::Volumes => volume_named(&status, name),
        };
        match found {
            Ok(found) => volumes.extend(found),
            // A removed one is not listed any more: it goes by its whole id.
            Err(_) if kind == Kind::Volumes && name.parse::<VolumeId>().is_ok() => {
                volumes.extend(name.parse::<VolumeId>());
            }
            Err(problem) => return Err(problem.into()),
        }
    }
    let volumes: Vec<_> = volumes.into_iter().collect();
    let what = output::count(volumes.len() as u64, "volume", "volumes");
    match wish {
        Wish::Drain { wait } => {
            client.assign(&volumes, Duty::Draining, false).await?;
            if wait {
                until_drained(client, &volumes).await?;
                output::line(format!("{what} drained"))?;
            } else {
                output::line(format!(
                    "draining {what}; 'blockyard repair status' shows how far it is"
                ))?;
            }
        }
        Wish::Maintain(lasts) => {
            let until_unix_ms = client.cluster().await?.now_unix_ms + lasts.as_millis() as u64;
            let duty = Duty::Maintenance { until_unix_ms };
            client.assign(&volumes, duty, false).await?;
            output::line(format!(
                "{what} in maintenance until {}",
                output::time(until_unix_ms)
            ))?;
        }
        Wish::Resume => {
            client.assign(&volumes, Duty::Serving, false).await?;
            output::line(format!("{what} back in service"))?;
        }
        Wish::Remove { force } => {
            client.assign(&volumes, Duty::Removed, force).await?;
            output::line(format!("removed {what}"))?;
        }
        Wish::Replace => {
            client.assign(&volumes, Duty::Draining, false).await?;
            for id in volumes {
                until_drained(client, &[id]).await?;
                client.assign(&[id], Duty::Removed, false).await?;
                output::line(format!("drained and removed {id}: its folder can go"))?;
            }
        }
    }
    Ok(())
}

/// Waits until nothing that is needed is left on these volumes; tells of the way there on stderr.
async fn until_drained(client: &Client, ids: &[VolumeId]) -> anyhow::Result<()> {
    let mut last = None;
    loop {
        let status = client.status().await?;
        let of = status.servers.iter().flat_map(|server| &server.volumes);
        let left: Vec<&VolumeStatus> = of.filter(|volume| ids.contains(&volume.report.id)).collect();
        if left.iter().any(|volume| volume.duty != Duty::Draining) {
            let text = "somebody has ended the drain meanwhile";
            return Err(Problem::new(ProblemKind::Failed, text).into());
        }
        if left.iter().all(|volume| volume.is_drained()) {
            return Ok(());
        }
        let blocks: u64 = left.iter().map(|volume| volume.blocks).sum();
        if last.replace(blocks) != Some(blocks) {
            let held = match status.repair.held.as_str() {
                "" => String::new(),
                held => format!(" (held back: {held})"),
            };
            output::note(&format!(
                "{} to move{held}",
                output::count(blocks, "block", "blocks")
            ));
        }
        sleep(super::LOOK).await;
    }
}

/// The volumes of the server with this address, or those of all servers of this host.
fn volumes_of_server(status: &ClusterStatus, name: &str) -> Result<Vec<VolumeId>, Problem> {
    let ids = |server: &ServerStatus| server.volumes.iter().map(|v| v.report.id).collect::<Vec<_>>();
    if let Some(server) = status.servers.iter().find(|server| server.address == name) {
        return Ok(ids(server));
    }
    let of_host: Vec<_> = status
        .servers
        .iter()
        .filter(|server| server.host == name)
        .collect();
    match of_host.is_empty() {
        true => Err(Problem::not_found(format!(
            "there is no dataserver {name}; 'blockyard node list' shows all"
        ))),
        false => Ok(of_host.into_iter().flat_map(ids).collect()),
    }
}

/// The volume whose id begins so, or that has this folder.
pub(super) fn volume_named(status: &ClusterStatus, name: &str) -> Result<Vec<VolumeId>, Problem> {
    let all = || status.servers.iter().flat_map(|server| &server.volumes);
    let fits = |volume: &&VolumeStatus| {
        volume.report.id.to_string().starts_with(name) || volume.report.directory == name
    };
    let found: Vec<VolumeId> = all().filter(fits).map(|volume| volume.report.id).collect();
    match found.len() {
        1 => Ok(found),
        0 => Err(Problem::not_found(format!(
            "there is no volume {name}; 'blockyard volume list' shows all"
        ))),
        many => Err(Problem::invalid(format!(
            "{name} can mean {many} volumes; give more of the id"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::VolumeReport;

    use super::*;

    fn cluster() -> ClusterStatus {
        let volume = |n: u8, directory: &str| VolumeStatus {
            report: VolumeReport {
                id: VolumeId([n; 16]),
                directory: directory.into(),
                ..VolumeReport::default()
            },
            ..VolumeStatus::default()
        };
        let server = |address: &str, volumes| ServerStatus {
            address: address.into(),
            host: "node1".into(),
            volumes,
            ..ServerStatus::default()
        };
        ClusterStatus {
            servers: vec![
                server("a:1", vec![volume(0x11, "/d/1"), volume(0x12, "/d/2")]),
                server("b:1", vec![volume(0x21, "/d/1")]),
            ],
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn names_mean_servers_and_volumes() {
        let status = cluster();
        let ids = |numbers: &[u8]| numbers.iter().map(|n| VolumeId([*n; 16])).collect::<Vec<_>>();
        assert_eq!(volumes_of_server(&status, "a:1").unwrap(), ids(&[0x11, 0x12]));
        assert_eq!(
            volumes_of_server(&status, "node1").unwrap(),
            ids(&[0x11, 0x12, 0x21])
        );
        assert_eq!(
            volumes_of_server(&status, "c:1").unwrap_err().kind,
            ProblemKind::NotFound
        );
        assert_eq!(volume_named(&status, "21").unwrap(), ids(&[0x21]));
        assert_eq!(volume_named(&status, "/d/2").unwrap(), ids(&[0x12]));
        assert_eq!(volume_named(&status, "1").unwrap_err().kind, ProblemKind::Invalid);
        assert_eq!(
            volume_named(&status, "/d/1").unwrap_err().kind,
            ProblemKind::Invalid
        );
        assert_eq!(
            volume_named(&status, "33").unwrap_err().kind,
            ProblemKind::NotFound
        );
    }
}
