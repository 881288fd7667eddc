//! `scrub`: status, start, pause.

use blockyard_client::Client;
use blockyard_wire::types::{ClusterStatus, ScrubOrder, ScrubReport, ScrubState, VolumeId};
use serde::Serialize;

use super::duty::volume_named;
use crate::flags::{Listing, Scrub, Scrubbed};
use crate::output;

/// A volume's scrub.
#[derive(Serialize)]
struct Row<'a> {
    volume: VolumeId,
    server: &'a str,
    directory: &'a str,
    used_bytes: u64,
    #[serde(flatten)]
    scrub: ScrubReport,
}

/// Carries a `scrub` command out.
///
/// # Errors
/// A volume that there is not, that is not connected, or whose scrub is off; or no answer.
pub async fn scrub(flags: Scrub, client: &Client) -> anyhow::Result<()> {
    let (names, order) = match flags {
        Scrub::Status(Listing { form, .. }) => {
            let status = client.status().await?;
            let rows = rows(&status);
            let told = match form.json {
                true => output::json(&rows),
                false => output::line(picture(&rows)),
            };
            return Ok(told?);
        }
        Scrub::Start(Scrubbed { volumes, .. }) => (volumes, ScrubOrder::Start),
        Scrub::Pause(Scrubbed { volumes, .. }) => (volumes, ScrubOrder::Pause),
    };
    let mut volumes = Vec::new();
    if !names.is_empty() {
        let status = client.status().await?;
        for name in &names {
            volumes.extend(volume_named(&status, name)?);
        }
    }
    client.scrub(&volumes, order).await?;
    Ok(output::line(match order {
        ScrubOrder::Start => "scrubbing; 'blockyard scrub status' shows how far it is",
        ScrubOrder::Pause => "the scrub is paused, also after restarts; go on with 'blockyard scrub start'",
    })?)
}

fn rows(status: &ClusterStatus) -> Vec<Row<'_>> {
    let volumes = status.servers.iter().flat_map(|server| {
        let of = |volume| (server.address.as_str(), volume);
        server.volumes.iter().map(of)
    });
    volumes
        .map(|(server, volume)| Row {
            volume: volume.report.id,
            server,
            directory: &volume.report.directory,
            used_bytes: volume.report.used_bytes,
            scrub: volume.report.scrub,
        })
        .collect()
}

fn picture(rows: &[Row<'_>]) -> String {
    let header = [
        "VOLUME",
        "SERVER",
        "SCRUB",
        "DONE",
        "PACE",
        "DAMAGED",
        "PASSES",
        "LAST PASS",
    ];
    let dash = || "-".to_owned();
    output::table(
        header,
        rows.iter().map(|row| {
            let scrub = &row.scrub;
            let in_pass = matches!(scrub.state, ScrubState::Running | ScrubState::Paused);
            // Slots take a little more than what is in them.
            let share = (scrub.pass_bytes as f64 / row.used_bytes.max(1) as f64).min(1.0);
            [
                row.volume.to_string()[..12].to_owned(),
                row.server.to_owned(),
                match scrub.state {
                    ScrubState::Off => "off",
                    ScrubState::Waiting => "waiting",
                    ScrubState::Running => "running",
                    ScrubState::Paused => "paused",
                }
                .to_owned(),
                if in_pass {
                    format!("{} ({:.0}%)", output::size(scrub.pass_bytes), share * 100.0)
                } else {
                    dash()
                },
                match scrub.bytes_per_s {
                    0 => dash(),
                    pace => format!("{}/s", output::size(pace)),
                },
                scrub.damaged.to_string(),
                scrub.passes.to_string(),
                match scrub.last_pass_unix_ms {
                    0 => "never".to_owned(),
                    ended => output::time(ended),
                },
            ]
        }),
    )
}
