//! Work in a process of its own, so that its memory, CPU time and start are its alone: this program once more, with
//! `--child` and the job as JSON.

use std::io::Read as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backends;
use crate::cleanup::Process;
use crate::scenarios::index;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Backend(backends::Job),
    Index(index::Job),
}

/// The child's side: does the job and prints its figures.
pub(crate) fn serve(job: &str) -> Result<()> {
    let figures = match serde_json::from_str(job).context("--child is for perf's own use")? {
        Job::Backend(job) => serde_json::to_string(&backends::run(&job)?)?,
        Job::Index(job) => serde_json::to_string(&index::work(&job)?)?,
    };
    println!("{figures}");
    Ok(())
}

/// The parent's side: has a child do the job and reads its figures.
pub(crate) fn run<T: DeserializeOwned>(job: &Job) -> Result<T> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--child")
        .arg(serde_json::to_string(job)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let process = Process::spawn("blockyard-perf", &mut command)?;
    let mut output = String::new();
    if let Some(mut stdout) = process.take_stdout() {
        stdout.read_to_string(&mut output)?;
    }
    let status = process.wait()?;
    if !status.success() {
        bail!("a process for {job:?} failed ({status})");
    }
    serde_json::from_str(&output).with_context(|| format!("figures not understood: {output}"))
}
