//! Progress on a terminal: one bar over all files with rate and ETA; nothing when stderr is piped.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blockyard_client::{Progress, ProgressFn};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

const BAR: &str = "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  ETA {eta}";
const SPINNER: &str = "{msg} {spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}";

/// The bar of one command, and its clock. Goes away when dropped.
pub struct Bar {
    bar: ProgressBar,
    started: Instant,
}

impl Bar {
    /// A bar for `total_bytes` (unknown: a spinner), shown only to people.
    pub fn new(doing: &'static str, total_bytes: Option<u64>) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let bar = total_bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = if total_bytes.is_some() { BAR } else { SPINNER };
            bar.set_style(ProgressStyle::with_template(template).expect("the template is sound"));
            bar.set_message(doing);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar,
            started: Instant::now(),
        }
    }

    /// What to hand to one transfer: its bytes are added to the bar.
    pub fn of_one(&self) -> ProgressFn {
        let (bar, told) = (self.bar.clone(), AtomicU64::new(0));
        Arc::new(move |progress: Progress| {
            let before = told.fetch_max(progress.bytes, Ordering::Relaxed);
            bar.inc(progress.bytes.saturating_sub(before));
        })
    }

    /// Prints a line that the bar does not overwrite.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    /// Does what may print lines while the bar is out of the way.
    pub fn hide_while<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `uploaded 3 files, 1.2 GiB in 3.0 s, 410.0 MiB/s`
pub fn summary(done: &str, files: u64, bytes: u64, took: Duration) -> String {
    format!(
        "{done} {}, {} in {}, {}",
        output::count(files, "file", "files"),
        output::size(bytes),
        output::duration(took),
        output::rate(bytes, took)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_sound_and_progress_adds_up() {
        for template in [BAR, SPINNER] {
            ProgressStyle::with_template(template).unwrap();
        }
        let bar = Bar {
            bar: ProgressBar::hidden(),
            started: Instant::now(),
        };
        bar.bar.set_length(100);
        let (one, other) = (bar.of_one(), bar.of_one());
        one(Progress {
            bytes: 10,
            total_bytes: None,
        });
        other(Progress {
            bytes: 5,
            total_bytes: None,
        });
        one(Progress {
            bytes: 30,
            total_bytes: None,
        });
        assert_eq!(bar.bar.position(), 35);
    }

    #[test]
    fn the_line_tells_files_bytes_and_rate() {
        assert_eq!(
            summary("uploaded", 3, 20 << 20, Duration::from_secs(2)),
            "uploaded 3 files, 20.0 MiB in 2.0 s, 10.0 MiB/s"
        );
    }
}
