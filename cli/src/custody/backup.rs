//! `backup` and `restore`: a nameserver's metadata into a folder, and back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use blockyard_client::Client;
use blockyard_nameserver::backup::{Summary, check, is_file_name, restore as make};
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::{Problem, ProblemKind};
use serde::Serialize;

use crate::serve::nameserver_problem;
use crate::{config, flags, output};

/// The file beside the backup's own that lets its dataservers join again.
const SECRET: &str = "cluster.secret";

#[derive(Serialize)]
struct Report {
    folder: String,
    cluster: String,
    epoch: u64,
    commands: u64,
    files: u64,
    directories: u64,
    blocks: u64,
    file_bytes: u64,
}

impl Report {
    fn of(folder: &Path, summary: &Summary) -> Self {
        Self {
            folder: folder.display().to_string(),
            cluster: summary.cluster.to_string(),
            epoch: summary.epoch.number,
            commands: summary.applied,
            files: summary.files,
            directories: summary.directories,
            blocks: summary.blocks,
            file_bytes: summary.file_bytes,
        }
    }

    fn text(&self) -> String {
        format!(
            "cluster {}, epoch {}: {} in {}, {}, {}",
            self.cluster,
            self.epoch,
            output::count(self.files, "file", "files"),
            output::count(self.directories, "folder", "folders"),
            output::size(self.file_bytes),
            output::count(self.blocks, "block", "blocks"),
        )
    }
}

/// Copies the nameserver's metadata while it runs: beside, read back, renamed in.
///
/// # Errors
/// The folder is there already (`Exists`); the nameserver is lost meanwhile (`Retry`); what arrived does not verify.
pub async fn backup(flags: flags::Backup, client: &Client) -> anyhow::Result<()> {
    let folder = flags.folder;
    if folder.exists() {
        return Err(Problem::new(
            ProblemKind::Exists,
            format!(
                "{} is there already: each backup goes to a folder of its own",
                folder.display()
            ),
        )
        .into());
    }
    let secret = config::Cluster::of(&flags.cluster)?.secret;
    let draft = beside(&folder)?;
    // What an earlier one has left that was interrupted.
    match fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", draft.display()));
        }
        _ => {}
    }
    let taken = take(client, &draft, &secret).await;
    let summary = match taken {
        Ok(summary) => summary,
        Err(error) => {
            // It is of no use, and the next try begins anew.
            let _ = fs::remove_dir_all(&draft);
            return Err(error);
        }
    };
    fs::rename(&draft, &folder).with_context(|| format!("renaming {}", draft.display()))?;
    synced(folder.parent().filter(|parent| !parent.as_os_str().is_empty()))?;
    let report = Report::of(&folder, &summary);
    if flags.form.json {
        return Ok(output::json(&report)?);
    }
    output::line(format!(
        "{}\nbacked up and read back: {}\nit holds the cluster's secret: keep it as safe as that",
        folder.display(),
        report.text()
    ))?;
    Ok(())
}

async fn take(client: &Client, draft: &Path, secret: &ClusterSecret) -> anyhow::Result<Summary> {
    fs::create_dir_all(draft.join("journal")).with_context(|| format!("making {}", draft.display()))?;
    let taken = client.backup(draft).await.context("backup")?;
    // It never travels in the clear; this side has it already.
    secret.save_new(&draft.join(SECRET))?;
    synced(Some(&draft.join("journal")))?;
    synced(Some(draft))?;
    let checked = draft.to_owned();
    let summary = tokio::task::spawn_blocking(move || {
        for name in names(&checked)? {
            debug_assert!(is_file_name(&name) || name == SECRET, "{name}");
        }
        check(&checked).map_err(|error| anyhow::Error::from(nameserver_problem(error)))
    })
    .await?
    .context("reading the backup back")?;
    if summary.cluster != taken.cluster {
        anyhow::bail!("the backup is of another cluster than the nameserver");
    }
    Ok(summary)
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Where a folder is written before it gets its name.
fn beside(folder: &Path) -> anyhow::Result<PathBuf> {
    let name = folder
        .file_name()
        .with_context(|| format!("{} is no name for a folder", folder.display()))?;
    let mut draft = name.to_owned();
    draft.push(".partial");
    Ok(folder.with_file_name(draft))
}

fn synced(dir: Option<&Path>) -> anyhow::Result<()> {
    let dir = dir.unwrap_or(Path::new("."));
    fs::File::open(dir)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("flushing {}", dir.display()))
}

/// Makes a nameserver's folder of a backup.
///
/// # Errors
/// The folder holds a nameserver's data; the backup does not verify.
pub fn restore(flags: &flags::Restore) -> anyhow::Result<()> {
    let summary = make(&flags.backup, &flags.dir, flags.adopt).map_err(nameserver_problem)?;
    let report = Report::of(&flags.dir, &summary);
    if flags.form.json {
        return Ok(output::json(&report)?);
    }
    let next = match flags.adopt {
        true => {
            "its next start takes the cluster over: what came after the backup is kept, unknown, until \
                 'blockyard fsck --release-quarantine'"
        }
        false => {
            "it serves nothing before it is started with --adopt: do that only when no newer nameserver of this \
             cluster runs or will run again"
        }
    };
    output::line(format!(
        "{}\nrestored and read back: {}\n{next}",
        flags.dir.display(),
        report.text()
    ))?;
    Ok(())
}
