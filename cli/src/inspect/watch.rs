//! Views that go on: `status --watch`, and `top` with what each volume does per second.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use blockyard_client::Client;
use blockyard_wire::types::{ClusterStatus, CustodyState, LatencyReport, VolumeId, VolumeReport};
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::Print;
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use tokio::time::sleep;

use super::cluster::{all_volumes, percent, state, text};
use super::health;
use crate::{flags, output};

/// The screen while something is watched; as it was again when dropped.
struct Screen {
    is_terminal: bool,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let is_terminal = output::to_terminal();
        if is_terminal {
            execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        }
        Ok(Self { is_terminal })
    }

    /// Shows a text in place of the one before; where this is no terminal, behind it.
    fn show(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.is_terminal {
            writeln!(out, "{text}\n")?;
            return out.flush();
        }
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        queue!(out, MoveTo(0, 0))?;
        for (row, line) in (0..rows).zip(text.lines().chain(std::iter::repeat(""))) {
            // A line that wraps would push the ones below it down.
            let shown: String = line.chars().take(usize::from(columns)).collect();
            queue!(out, MoveTo(0, row), Print(shown), Clear(ClearType::UntilNewLine))?;
        }
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            // Nobody is left to be told when the terminal is gone.
            let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        }
    }
}

/// Shows the health of the cluster again and again.
///
/// # Errors
/// The output is gone, or the nameserver does not answer for so long that the client gives up.
pub async fn status(watch: &flags::Watch, client: &Client) -> anyhow::Result<()> {
    repeat(watch, client, |status, custody, _| text(status, custody)).await
}

/// Shows what every volume does, the busiest first.
///
/// # Errors
/// As [`status`].
pub async fn top(flags: flags::Top, client: &Client) -> anyhow::Result<()> {
    let mut last = None;
    repeat(&flags.watch, client, |status, _, at| {
        let text = busiest(status, last.as_ref(), at);
        last = Some(Sample::of(status, at));
        text
    })
    .await
}

async fn repeat(
    watch: &flags::Watch,
    client: &Client,
    mut draw: impl FnMut(&ClusterStatus, &CustodyState, Instant) -> String,
) -> anyhow::Result<()> {
    let screen = Screen::open()?;
    let mut times = watch.times;
    loop {
        let status = client.status().await?;
        // An older nameserver does not know this call.
        let custody = client.custody_state().await.unwrap_or_default();
        screen.show(&draw(&status, &custody, Instant::now()))?;
        if let Some(left) = &mut times {
            *left -= 1;
            if *left == 0 {
                return Ok(());
            }
        }
        sleep(watch.interval).await;
    }
}

/// What volumes had done at a moment.
struct Sample {
    at: Instant,
    reports: BTreeMap<VolumeId, VolumeReport>,
}

/// What a volume does per second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Rates {
    write_bytes: f64,
    read_bytes: f64,
    flushes: f64,
}

impl Sample {
    fn of(status: &ClusterStatus, at: Instant) -> Self {
        let reports = all_volumes(status).map(|(_, volume)| (volume.report.id, volume.report.clone()));
        Self {
            at,
            reports: reports.collect(),
        }
    }

    /// What a volume has done per second since; nothing for one that was restarted meanwhile.
    fn rates(&self, now: &VolumeReport, at: Instant) -> Rates {
        let Some(before) = self.reports.get(&now.id) else {
            return Rates::default();
        };
        let seconds = at.duration_since(self.at).as_secs_f64().max(1e-3);
        let rate = |of: fn(&VolumeReport) -> u64| of(now).saturating_sub(of(before)) as f64 / seconds;
        Rates {
            write_bytes: rate(|report| report.write_bytes),
            read_bytes: rate(|report| report.read_bytes),
            flushes: rate(|report| report.flushes),
        }
    }
}

fn busiest(status: &ClusterStatus, last: Option<&Sample>, at: Instant) -> String {
    let mut rows: Vec<_> = all_volumes(status)
        .map(|(server, volume)| {
            let rates = last.map_or(Rates::default(), |last| last.rates(&volume.report, at));
            (rates, server, volume)
        })
        .collect();
    let busy = |rates: &Rates| rates.write_bytes + rates.read_bytes;
    rows.sort_by(|(a, ..), (b, ..)| busy(b).total_cmp(&busy(a)));
    let sum = |of: fn(&Rates) -> f64| rows.iter().map(|(rates, ..)| of(rates)).sum::<f64>();
    let in_flight: u64 = rows
        .iter()
        .map(|(_, _, volume)| u64::from(volume.report.in_flight))
        .sum();
    let per_second = |bytes: f64| output::rate(bytes as u64, Duration::from_secs(1));
    let repair = &status.repair;
    let head = [
        health::judge(status).1,
        format!(
            "volumes write {}, read {}, flush {:.0}/s; {} in flight, {} open",
            per_second(sum(|rates| rates.write_bytes)),
            per_second(sum(|rates| rates.read_bytes)),
            sum(|rates| rates.flushes),
            output::count(in_flight, "request", "requests"),
            output::count(status.leases, "upload", "uploads"),
        ),
        format!(
            "repair {} under way, {}/s; {} waiting",
            repair.copying,
            output::size(repair.bytes_per_s),
            output::count(
                repair.one_left.blocks
                    + repair.under.blocks
                    + repair.leaving.blocks
                    + repair.misplaced.blocks,
                "block",
                "blocks"
            ),
        ),
    ];
    let rows = rows.iter().map(|(rates, server, volume)| {
        let report = &volume.report;
        [
            server.address.clone(),
            report.id.to_string()[..8].to_owned(),
            state(volume).to_owned(),
            per_second(rates.write_bytes),
            per_second(rates.read_bytes),
            format!("{:.0}", rates.flushes),
            report.in_flight.to_string(),
            p99(report.flush),
            p99(report.read),
            percent(report.pool_used_bytes, report.pool_bytes),
            percent(report.used_bytes, report.capacity_bytes),
            report.io_errors.to_string(),
            report.directory.clone(),
        ]
    });
    let header = [
        "SERVER",
        "VOLUME",
        "STATE",
        "WRITE>",
        "READ>",
        "FLUSH/S>",
        "IN FLIGHT>",
        "FLUSH P99>",
        "READ P99>",
        "BUFFERS>",
        "USED>",
        "ERRORS>",
        "FOLDER",
    ];
    let head = head.map(|line| output::safe(&line).into_owned()).join("\n");
    format!("{head}\n\n{}", output::table(header, rows))
}

fn p99(latency: LatencyReport) -> String {
    match latency.count {
        0 => "-".to_owned(),
        _ => format!("{:.1} ms", f64::from(latency.p99_us) / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use blockyard_wire::types::{ServerStatus, VolumeStatus};

    use super::*;

    fn cluster(written: [u64; 2]) -> ClusterStatus {
        let volume = |n: u8| VolumeStatus {
            report: VolumeReport {
                id: VolumeId([n; 16]),
                write_bytes: written[usize::from(n)],
                directory: format!("/disk{n}"),
                ..VolumeReport::default()
            },
            ..VolumeStatus::default()
        };
        ClusterStatus {
            servers: vec![ServerStatus {
                volumes: vec![volume(0), volume(1)],
                ..ServerStatus::default()
            }],
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn the_busiest_volume_comes_first() {
        let at = Instant::now();
        let sample = Sample::of(&cluster([100 << 20, 100 << 20]), at);
        let text = busiest(
            &cluster([104 << 20, 300 << 20]),
            Some(&sample),
            at + Duration::from_secs(2),
        );
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
        assert!(place("/disk1") < place("/disk0"), "{text}");
        assert!(
            text.contains("100.0 MiB/s") && text.contains("2.0 MiB/s") && text.contains("write 102.0 MiB/s"),
            "{text}"
        );
        let restarted = busiest(&cluster([0, 0]), Some(&sample), at + Duration::from_secs(1));
        assert!(restarted.contains("write 0 B/s"), "{restarted}");
    }
}
