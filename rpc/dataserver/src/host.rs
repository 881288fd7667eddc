//! What the machine under a dataserver is doing: processors, memory, load, network, from /proc. What can't be read is
//! not told.

use std::fs;
use std::time::Instant;

use blockyard_wire::types::HostReport;

/// Looks at the machine; processors and network are compared with the look before.
#[derive(Default)]
pub(crate) struct Host {
    ticks: Option<Ticks>,
    traffic: Option<(Instant, Traffic)>,
}

/// Processor time since the start, in the kernel's ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// Bytes since the start, of all interfaces but loopback.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Traffic {
    taken: u64,
    given: u64,
}

impl Host {
    pub fn report(&mut self) -> HostReport {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = ticks(&read("/proc/stat"));
        let before = std::mem::replace(&mut self.ticks, ticks);
        let memory = read("/proc/meminfo");
        let network = self.network(traffic(&read("/proc/net/dev")));
        HostReport {
            cpu_busy_permille: before.zip(ticks).and_then(|(before, now)| busy(before, now)),
            load1_permille: load(&read("/proc/loadavg")),
            cores: std::thread::available_parallelism()
                .ok()
                .map(|cores| cores.get() as u32),
            memory_bytes: meminfo(&memory, "MemTotal:"),
            memory_available_bytes: meminfo(&memory, "MemAvailable:"),
            net_in_bytes_per_s: network.map(|network| network.taken),
            net_out_bytes_per_s: network.map(|network| network.given),
        }
    }

    /// Bytes per second since the look before.
    fn network(&mut self, now: Option<Traffic>) -> Option<Traffic> {
        let now = now.map(|now| (Instant::now(), now));
        let before = std::mem::replace(&mut self.traffic, now);
        let ((then, before), (at, now)) = before.zip(now)?;
        let ms = at.duration_since(then).as_millis() as u64;
        let rate = |before: u64, now: u64| Some(now.checked_sub(before)? * 1000 / ms.max(1));
        Some(Traffic {
            taken: rate(before.taken, now.taken)?,
            given: rate(before.given, now.given)?,
        })
    }
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal, and guest times that are in user's.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map_while(|time| time.parse().ok())
        .collect();
    let idle = times.get(3)? + times.get(4)?;
    let all = times.iter().sum();
    Some(Ticks {
        busy: all - idle,
        all,
    })
}

/// The lines of /proc/net/dev: a name, eight figures of what was received, bytes first, eight of what was sent.
fn traffic(dev: &str) -> Option<Traffic> {
    let mut all = None::<Traffic>;
    for (name, figures) in dev.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let mut figures = figures
            .split_whitespace()
            .map_while(|figure| figure.parse::<u64>().ok());
        let (taken, given) = (figures.next()?, figures.nth(7)?);
        let all = all.get_or_insert_default();
        all.taken += taken;
        all.given += given;
    }
    all
}

fn busy(before: Ticks, now: Ticks) -> Option<u16> {
    let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
    Some((now.busy.saturating_sub(before.busy) * 1000 / all).min(1000) as u16)
}

fn load(loadavg: &str) -> Option<u32> {
    let first: f64 = loadavg.split_whitespace().next()?.parse().ok()?;
    Some((first * 1000.0) as u32)
}

fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_understood() {
        let first = ticks("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 …").unwrap();
        assert_eq!(first, Ticks { busy: 150, all: 1000 });
        let second = ticks("cpu  200 0 100 1600 90 10 0 0 0 0\n").unwrap();
        assert_eq!(busy(first, second), Some(160));
        assert_eq!(busy(second, second), None, "no time has passed");
        assert_eq!(ticks(""), None);
        assert_eq!(load("0.52 0.58 0.59 1/467 1234"), Some(520));
        let dev = "Inter-|   Receive\n face |bytes packets\n    lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 \
            200 2 0 0 0 0 0 0\n  eth1:   7 1 0 0 0 0 0 0 8 2 0 0 0 0 0 0\n";
        assert_eq!(
            traffic(dev),
            Some(Traffic {
                taken: 107,
                given: 208
            })
        );
        assert_eq!(traffic("Inter-|   Receive\n"), None, "no network");
        let memory = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(meminfo(memory, "MemAvailable:"), Some(8 << 20));
        assert_eq!(meminfo(memory, "Nothing:"), None);
    }

    #[test]
    fn this_machine_tells_something() {
        let mut host = Host::default();
        let first = host.report();
        assert!(first.memory_bytes.is_some() && first.cores.is_some());
        assert_eq!(
            first.cpu_busy_permille, None,
            "there is nothing to compare with yet"
        );
    }
}
