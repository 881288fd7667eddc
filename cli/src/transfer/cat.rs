//! `cat`: files, or a range of each, to stdout.

use blockyard_client::{Client, DownloadOptions};

use super::pipe::Stdout;
use crate::flags;
use crate::remote::Remote;

/// Writes files to stdout, one after the other.
///
/// # Errors
/// The first one that can't be read; nothing unverified was written.
pub async fn cat(flags: flags::Cat, client: &Client) -> anyhow::Result<()> {
    for text in &flags.paths {
        let path = Remote::parse(text).path;
        let range = match flags.range {
            Some(range) => Some(range.within(client.lookup(&path).await?.size_bytes)),
            None => None,
        };
        let (stdout, broken) = Stdout::open()?;
        let options = DownloadOptions {
            range,
            ..DownloadOptions::default()
        };
        let outcome = client.download(&path, stdout, options).await;
        outcome.map_err(|problem| broken.explain(problem.into()))?;
    }
    Ok(())
}
