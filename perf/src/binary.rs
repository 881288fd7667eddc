//! The `blockyard` binary to measure: found, or built where cargo started us.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::cleanup::Process;

/// The binary's path: the one given, else the one that cargo builds, else the one beside this program.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return match given.canonicalize() {
            Ok(path) if path.is_file() => Ok(path),
            _ => bail!(
                "there is no binary {} (--blockyard, BLOCKYARD_BIN)",
                given.display()
            ),
        };
    }
    let own = std::env::current_exe().context("this program's own path is unknown")?;
    let beside = own.with_file_name("blockyard");
    if let Some(cargo) = std::env::var_os("CARGO") {
        // `cargo run` builds perf alone: without this an old binary would be measured, or none found.
        build(Path::new(&cargo), &own)?;
    }
    if !beside.is_file() {
        bail!(
            "there is no {}: run cargo build --release -p blockyard, or pass --blockyard PATH",
            beside.display()
        );
    }
    Ok(beside)
}

/// Builds the binary into the folder that this program came from, in the same profile.
fn build(cargo: &Path, own: &Path) -> Result<()> {
    let profile_folder = own.parent().context("this program lies in no folder")?;
    let target = profile_folder
        .parent()
        .context("this program lies in no target folder")?;
    let mut command = Command::new(cargo);
    command
        .args(["build", "--package", "blockyard", "--target-dir"])
        .arg(target);
    if profile_folder.file_name().is_some_and(|name| name == "release") {
        command.arg("--release");
    }
    if let Some(manifest) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(manifest);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    eprintln!("# building the binary to measure: cargo build --release -p blockyard");
    let status = Process::spawn("cargo build", &mut command)?.wait()?;
    if !status.success() {
        bail!("cargo build -p blockyard failed ({status}); pass --blockyard PATH to measure a built one");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_binary_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("blockyard");
        assert!(find(Some(&file)).unwrap_err().to_string().contains("--blockyard"));
        assert!(find(Some(folder.path())).is_err());
        std::fs::write(&file, "").unwrap();
        assert!(find(Some(&file)).unwrap().ends_with("blockyard"));
    }
}
