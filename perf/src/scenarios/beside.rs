//! The limits that stand beside a case, measured in turn with it: fio on the disk, iperf3 on loopback.

use std::path::PathBuf;

use anyhow::Result;

use super::fio_folder;
use crate::context::Context;
use crate::fio::{self, Job, Shape};
use crate::iperf;
use crate::report::Series;

/// One fio job, a round of it for each round of the case.
pub(super) struct FioLimit {
    /// `None` without fio.
    folder: Option<PathBuf>,
    job: Job,
    shape: Shape,
    series: Series,
}

impl FioLimit {
    pub(super) fn new(context: &mut Context, scenario: &'static str, job: Job, shape: Shape) -> Result<Self> {
        let folder = if context.has_tool("fio")? {
            Some(fio_folder(context)?)
        } else {
            None
        };
        Ok(Self {
            folder,
            job,
            shape,
            series: Series::new(scenario, name(job, shape)),
        })
    }

    /// The same limit under another name, where a scenario measures it more than once.
    pub(super) fn suffixed(self, suffix: &str) -> Self {
        Self {
            series: self.series.renamed(suffix),
            ..self
        }
    }

    pub(super) fn measure(&mut self, counts: bool) -> Result<()> {
        if let Some(folder) = &self.folder {
            let figures = fio::run(folder, self.job, self.shape)?;
            if counts {
                add_fio(&mut self.series, &figures);
            }
        }
        Ok(())
    }

    pub(super) fn mib_per_s(&self) -> Option<f64> {
        self.series.median("throughput")
    }

    pub(super) fn operations_per_s(&self) -> Option<f64> {
        self.series.median("operations")
    }

    pub(super) fn report(&self, context: &mut Context) {
        context.report.series(&self.series);
    }
}

fn name(job: Job, shape: Shape) -> String {
    let block = size_name(shape.block_bytes);
    let depth = shape.depth;
    match job {
        Job::Write => format!("limit: fio write {block}, depth {depth}"),
        Job::FlushedWrite => format!("limit: fio write {block}, depth {depth}, fdatasync each {depth}"),
        Job::FreshWrite => format!("limit: fio write {block} to a new file, depth {depth}"),
        Job::FlushedFreshWrite => {
            format!("limit: fio write {block} to a new file, depth {depth}, fdatasync each {depth}")
        }
        Job::Read => format!("limit: fio read {block}, depth {depth}"),
        Job::RandWrite => format!("limit: fio randwrite {block}, depth {depth}, fdatasync each {depth}"),
        Job::RandRead => format!("limit: fio randread {block}, depth {depth}"),
        Job::Mixed { reads_percent } => {
            format!("limit: fio {reads_percent}% reads among writes {block}, depth {depth}")
        }
    }
}

/// `4 MiB`, `64 KiB`.
pub(super) fn size_name(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// Adds a round of fio to its series.
pub(super) fn add_fio(series: &mut Series, figures: &fio::Figures) {
    series.add("throughput", "MiB/s", figures.mib_per_s);
    series.add("operations", "1/s", figures.operations_per_s);
    series.add("cpu", "s/GiB", figures.cpu_s_per_gib);
    series.add("latency p50", "ms", figures.p50_ms);
    series.add("latency p99", "ms", figures.p99_ms);
}

/// TCP over loopback.
pub(super) struct NetworkLimit {
    iperf3: bool,
    options: iperf::Options,
    series: Series,
}

impl NetworkLimit {
    pub(super) fn new(
        context: &mut Context,
        scenario: &'static str,
        case: impl Into<String>,
        options: iperf::Options,
    ) -> Result<Self> {
        Ok(Self {
            iperf3: context.has_tool("iperf3")?,
            options: iperf::Options {
                seconds: if context.flags.quick { 1 } else { 2 },
                ..options
            },
            series: Series::new(scenario, case),
        })
    }

    pub(super) fn measure(&mut self, counts: bool) -> Result<()> {
        if self.iperf3 {
            let figures = iperf::run(self.options)?;
            if counts {
                self.series.add("throughput", "MiB/s", figures.mib_per_s);
                self.series.add("cpu", "s/GiB", figures.cpu_s_per_gib);
            }
        }
        Ok(())
    }

    pub(super) fn mib_per_s(&self) -> Option<f64> {
        self.series.median("throughput")
    }

    pub(super) fn cpu_s_per_gib(&self) -> Option<f64> {
        self.series.median("cpu")
    }

    pub(super) fn report(&self, context: &mut Context) {
        context.report.series(&self.series);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_by_what_they_do() {
        let shape = Shape {
            block_bytes: 4 << 20,
            depth: 4,
            size_bytes: 1 << 30,
        };
        assert_eq!(name(Job::Write, shape), "limit: fio write 4 MiB, depth 4");
        assert_eq!(
            name(Job::Mixed { reads_percent: 33 }, shape),
            "limit: fio 33% reads among writes 4 MiB, depth 4"
        );
        for (bytes, text) in [(65536, "64 KiB"), (3 << 30, "3 GiB"), (1000, "1000 B")] {
            assert_eq!(size_name(bytes), text);
        }
    }
}
