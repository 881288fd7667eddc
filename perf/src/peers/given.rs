//! Systems that run already, as `--peer` tells of them.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::script::parse_pids;
use super::{Facts, Mount, S3, System};

/// `mount=NAME:DIR` or `s3=NAME:http://HOST:PORT/BUCKET`, either with `,pids=PID+PID`.
pub(crate) fn peer(given: &str) -> Result<Box<dyn System>> {
    let (place, pids) = given.split_once(",pids=").unwrap_or((given, ""));
    let kind_and_name = place
        .split_once('=')
        .and_then(|(kind, rest)| Some((kind, rest.split_once(':')?)));
    let Some((kind, (name, place))) = kind_and_name else {
        bail!(
            "--peer {given}: write mount=NAME:DIR or s3=NAME:http://HOST:PORT/BUCKET, with ,pids=PID+PID behind it"
        );
    };
    let named: Vec<String> = pids
        .split('+')
        .filter(|pid| !pid.is_empty())
        .map(|pid| format!("server {pid}:{pid}"))
        .collect();
    let servers = parse_pids(&named.join(",")).with_context(|| format!("--peer {given}"))?;
    let facts = |flush: &str, way: &str| Facts {
        name: name.into(),
        version: "unknown".into(),
        copies: "an unknown number of".into(),
        flush: flush.into(),
        unflushed: false,
        way: way.into(),
    };
    match kind {
        "mount" => {
            let facts = facts("whatever its fsync does", "the mounted folder, an fsync per file");
            Ok(Box::new(Mount::new(facts, PathBuf::from(place), servers)?))
        }
        "s3" => {
            let facts = facts("whatever it does before it answers", S3::WAY);
            let system = S3::new(facts, place, servers, |name| std::env::var(name).ok());
            Ok(Box::new(system.with_context(|| format!("--peer {given}"))?))
        }
        _ => bail!("--peer {given}: '{kind}' is neither mount nor s3"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_mount_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let given = |tail: &str| peer(&format!("mount=nas:{}{tail}", folder.path().display()));
        let system = given(",pids=7+8").unwrap();
        assert_eq!(system.facts().name, "nas");
        assert_eq!(
            system.servers().iter().map(|server| server.1).collect::<Vec<_>>(),
            [7, 8]
        );
        assert!(given("").unwrap().servers().is_empty());
        assert!(given(",pids=x").is_err());
        assert!(given("/missing").is_err());
        assert!(peer("nfs=nas:/").is_err() && peer("mount=nas").is_err());
    }
}
