//! iperf3 on loopback: what one hop of TCP costs here.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use blockyard_wire::socket;
use serde::Deserialize;

use crate::cleanup::Process;

/// What iperf3 measured, both sides together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Figures {
    pub mib_per_s: f64,
    /// CPU seconds of sender and receiver.
    pub cpu_s_per_gib: f64,
}

/// How it sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    pub seconds: u32,
    /// Pairs of sender and receiver at the same time, each of processes of its own: iperf3 before 3.16 has one thread for
    /// all its streams.
    pub pairs: u32,
    /// Bytes of each write; `None`: iperf3's own choice (128 KiB).
    pub write_bytes: Option<u32>,
    /// With the congestion control that Blockyard gives its local connections; otherwise with the system's, as installed.
    pub unpaced: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 2,
            pairs: 1,
            write_bytes: None,
            unpaced: false,
        }
    }
}

/// TCP over loopback: the sum of all pairs.
pub(crate) fn run(options: Options) -> Result<Figures> {
    let all: Vec<Figures> = std::thread::scope(|scope| {
        let pairs: Vec<_> = (0..options.pairs.max(1))
            .map(|_| scope.spawn(|| pair(options)))
            .collect();
        let figures = |pair: std::thread::ScopedJoinHandle<'_, Result<Figures>>| {
            pair.join()
                .unwrap_or_else(|_| Err(anyhow!("a thread for iperf3 panicked")))
        };
        pairs.into_iter().map(figures).collect::<Result<_>>()
    })?;
    let mib_per_s = all.iter().map(|figures| figures.mib_per_s).sum();
    let weighted = all
        .iter()
        .map(|figures| figures.cpu_s_per_gib * figures.mib_per_s);
    Ok(Figures {
        mib_per_s,
        cpu_s_per_gib: weighted.sum::<f64>() / mib_per_s,
    })
}

fn pair(options: Options) -> Result<Figures> {
    let port = crate::nodes::free_ports(1)?[0].to_string();
    let mut server = Command::new("iperf3");
    server
        .args(["--server", "--one-off", "--bind", "127.0.0.1", "--port", &port])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let _server = Process::spawn("iperf3 server", &mut server)?;
    let mut output = String::new();
    // The server says nothing that can be waited for without a terminal: try until it listens.
    for _ in 0..100 {
        output.clear();
        let mut client = Command::new("iperf3");
        client
            .args([
                "--client",
                "127.0.0.1",
                "--port",
                &port,
                "--json",
                "--time",
                &options.seconds.to_string(),
            ])
            .args(
                options
                    .unpaced
                    .then(|| format!("--congestion={}", socket::LOCAL_CONGESTION_CONTROL)),
            )
            .args(options.write_bytes.map(|bytes| format!("--length={bytes}")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let client = Process::spawn("iperf3 client", &mut client)?;
        if let Some(mut stdout) = client.take_stdout() {
            stdout.read_to_string(&mut output)?;
        }
        client.wait()?;
        if !output.contains("unable to connect") {
            return parse(&output).context("iperf3");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("iperf3's server does not listen: {}", output.trim())
}

#[derive(Deserialize)]
struct Output {
    error: Option<String>,
    end: Option<End>,
}

#[derive(Deserialize)]
struct End {
    sum_received: Option<Sum>,
    cpu_utilization_percent: Option<Cpu>,
}

#[derive(Deserialize)]
struct Sum {
    bytes: f64,
    seconds: f64,
}

#[derive(Deserialize)]
struct Cpu {
    host_total: f64,
    remote_total: f64,
}

fn parse(output: &str) -> Result<Figures> {
    let output: Output = serde_json::from_str(output).context("its JSON is not understood")?;
    if let Some(error) = output.error {
        bail!("{error}");
    }
    let end = output.end.context("it printed no end")?;
    let (Some(sum), Some(cpu)) = (end.sum_received, end.cpu_utilization_percent) else {
        bail!("it printed no sums");
    };
    if sum.bytes <= 0.0 || sum.seconds <= 0.0 {
        bail!("it moved nothing");
    }
    let gib = sum.bytes / f64::from(1 << 30);
    Ok(Figures {
        mib_per_s: sum.bytes / f64::from(1 << 20) / sum.seconds,
        cpu_s_per_gib: (cpu.host_total + cpu.remote_total) / 100.0 * sum.seconds / gib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_count() {
        let figures = parse(include_str!("fixtures/iperf3.json")).unwrap();
        let gib = 1_979_187_200.0 / f64::from(1 << 30);
        let seconds = 1.000_74;
        assert!((figures.mib_per_s - gib * 1024.0 / seconds).abs() < 1e-6);
        let cpu_s = (97.776_943_626_932_25 + 38.479_924_616_763_576) / 100.0 * seconds;
        assert!((figures.cpu_s_per_gib - cpu_s / gib).abs() < 1e-9);
    }

    #[test]
    fn failures_are_told() {
        let refused =
            "{\"start\": {}, \"error\": \"error - unable to connect to server: Connection refused\"}";
        assert!(parse(refused).unwrap_err().to_string().contains("refused"));
        for bad in [
            "",
            "{}",
            "{\"end\": {}}",
            "{\"end\": {\"sum_received\": {\"bytes\": 1, \"seconds\": 1}}}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
