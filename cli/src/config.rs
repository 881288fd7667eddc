//! From flags to addresses, secrets and clients.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use blockyard_client::{Client, Options};
use blockyard_wire::address::{NAMESERVER_PORT, resolve};
use blockyard_wire::secret::ClusterSecret;
use blockyard_wire::{Problem, ProblemKind};

use crate::flags;

/// How long a nameserver may take to answer a knock.
const KNOCK: Duration = Duration::from_secs(3);
const RUNNING: &str =
    "is the cluster running? start one with 'blockyard up', or name its nameserver with --nameserver";

/// A cluster as the flags name it: where to ask, and with which secret.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// `HOST:PORT` of each nameserver.
    pub nameservers: Vec<String>,
    /// What proves that we belong to it.
    pub secret: ClusterSecret,
}

impl Cluster {
    /// Resolves the flags: the secret given, else the user's copy for the first nameserver that has one.
    ///
    /// # Errors
    /// No secret (with what to do), or an address that is none.
    pub fn of(flags: &flags::Cluster) -> anyhow::Result<Self> {
        let nameservers = nameservers(&flags.nameserver)?;
        let secret = match given_secret(&flags.secret)? {
            Some(secret) => secret,
            None => {
                user_secret(&nameservers).map_err(|problem| unless_nobody_listens(problem, &nameservers))?
            }
        };
        Ok(Self { nameservers, secret })
    }

    /// Connects a client.
    ///
    /// # Errors
    /// Nobody answers, or the secret is refused.
    pub async fn connect(self) -> anyhow::Result<Client> {
        let names = self.nameservers.join(", ");
        let options = Options {
            zone: std::env::var("BLOCKYARD_ZONE")
                .ok()
                .filter(|zone| !zone.is_empty()),
            ..Options::new(self.nameservers, self.secret)
        };
        Client::connect(options)
            .await
            .map_err(|problem| advise(problem, &names))
    }
}

/// A missing secret is beside the point where nobody listens at all.
fn unless_nobody_listens(problem: Problem, nameservers: &[String]) -> Problem {
    if problem.kind != ProblemKind::Denied {
        return problem;
    }
    let mut refused = Vec::new();
    for name in nameservers {
        let tried = resolve(name, NAMESERVER_PORT).and_then(|address| {
            TcpStream::connect_timeout(&address, KNOCK)
                .map_err(|error| Problem::retry(format!("cannot connect to {name}: {error}")))
        });
        match tried {
            Ok(_) => return problem,
            Err(problem) => refused.push(problem.message),
        }
    }
    Problem::retry(format!("{}\n{RUNNING}", refused.join("\n")))
}

/// Connects to the cluster that the flags name.
///
/// # Errors
/// As [`Cluster::of`] and [`Cluster::connect`].
pub async fn connect(flags: &flags::Cluster) -> anyhow::Result<Client> {
    Cluster::of(flags)?.connect().await
}

fn advise(problem: Problem, names: &str) -> anyhow::Error {
    let advice = match problem.kind {
        ProblemKind::Retry => RUNNING,
        ProblemKind::Denied => {
            "the secret does not fit this cluster: give the right one with --cluster-secret FILE"
        }
        _ => return anyhow::Error::from(problem).context(format!("nameserver {names}")),
    };
    let kind = problem.kind;
    anyhow::Error::from(Problem::new(kind, format!("{}\n{advice}", problem.message)))
        .context(format!("nameserver {names}"))
}

/// Puts the usual port behind addresses without one, and refuses what is no address.
///
/// # Errors
/// `Invalid`: the text is neither `HOST` nor `HOST:PORT`.
pub fn nameservers(texts: &[String]) -> Result<Vec<String>, Problem> {
    let mut found = Vec::new();
    for text in texts
        .iter()
        .map(|text| text.trim())
        .filter(|text| !text.is_empty())
    {
        found.push(with_port(text, NAMESERVER_PORT)?);
    }
    if found.is_empty() {
        return Err(Problem::invalid(
            "no nameserver is named; give --nameserver HOST:PORT",
        ));
    }
    Ok(found)
}

/// `HOST` → `HOST:port`; names stay names, so that they are looked up whenever a connection is made.
fn with_port(text: &str, port: u16) -> Result<String, Problem> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{text}]:{port}"));
    }
    let (host, given) = match text.rsplit_once(':') {
        Some((host, digits)) if !text.ends_with(']') => (host, Some(digits)),
        _ => (text, None),
    };
    let port = match given {
        Some(digits) => digits.parse::<u16>().ok().filter(|port| *port != 0),
        None => Some(port),
    };
    match port {
        Some(port) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(format!("{host}:{port}")),
        _ => Err(Problem::invalid(format!("'{text}' is no address HOST:PORT"))),
    }
}

/// The secret that the user named, if any.
///
/// # Errors
/// It can't be read, others may read it, or it is none.
pub fn given_secret(flags: &flags::Secret) -> anyhow::Result<Option<ClusterSecret>> {
    match &flags.cluster_secret {
        Some(file) => ClusterSecret::load(file).map(Some).context("--cluster-secret"),
        None => Ok(None),
    }
}

/// The user's copy of the secret of one of `nameservers`.
///
/// # Errors
/// There is none (`Denied`, with what to do), or it can't be used.
pub fn user_secret(nameservers: &[String]) -> Result<ClusterSecret, Problem> {
    for path in user_paths(nameservers) {
        match ClusterSecret::load(&path) {
            Err(problem) if problem.kind == ProblemKind::NotFound => {}
            found => return found,
        }
    }
    let names = nameservers.join(", ");
    let looked = user_paths(nameservers)
        .first()
        .map(|path| format!(" (looked for {})", path.display()));
    let text = format!(
        "no cluster secret for the nameserver {names}{}\n\
         if it runs on this machine as you: start it first (blockyard up); it keeps a copy of its secret for you\n\
         otherwise: copy its secret file here (chmod 600) and pass --cluster-secret FILE, \
         or set BLOCKYARD_CLUSTER_SECRET",
        looked.unwrap_or_default()
    );
    Err(Problem::new(ProblemKind::Denied, text))
}

/// Where copies for these nameservers may lie: by the address as given, then as resolved.
fn user_paths(nameservers: &[String]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for name in nameservers {
        paths.extend(ClusterSecret::user_path(name));
        if name.parse::<SocketAddr>().is_err()
            && let Ok(address) = resolve(name, NAMESERVER_PORT)
        {
            paths.extend(ClusterSecret::user_path(&address.to_string()));
        }
    }
    paths.dedup();
    paths
}

/// The folder for data that no flag names: `$XDG_DATA_HOME/blockyard` or `~/.local/share/blockyard`.
///
/// # Errors
/// Without a home.
pub fn data_dir() -> anyhow::Result<PathBuf> {
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("XDG_DATA_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| from("HOME").map(|home| home.join(".local/share")))
        .map(|dir| dir.join("blockyard"))
        .context("there is no home folder to keep data in; say where with --dir (or --volume)")
}

/// Makes a secret file, `init`'s work.
///
/// # Errors
/// The file is there already, or can't be written.
pub fn init(flags: &flags::Init) -> anyhow::Result<()> {
    let file = flags.file.as_deref().or(flags.secret.cluster_secret.as_deref());
    let file = file.unwrap_or(Path::new("cluster.secret"));
    ClusterSecret::generate().save_new(file)?;
    let shown = file.display();
    crate::output::line(format!(
        "made {shown} (readable by you alone): whoever has it has the cluster\n\
         copy it to every node, then start there, for example:\n  \
         blockyard nameserver --listen 0.0.0.0:9000 --cluster-secret {shown}\n  \
         blockyard dataserver --listen 0.0.0.0:9001 --advertise THIS_HOST --nameserver NAMESERVER:9000 \
         --volume DIR --cluster-secret {shown}\n\
         and give it to commands by --cluster-secret {shown}, or: export BLOCKYARD_CLUSTER_SECRET={shown}"
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_usual_port() {
        for (text, full) in [
            ("host", "host:9000"),
            ("host:7", "host:7"),
            ("127.0.0.1", "127.0.0.1:9000"),
            ("::1", "[::1]:9000"),
            ("[::1]", "[::1]:9000"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(with_port(text, 9000).unwrap(), full);
        }
        for bad in [":9000", "host:", "host:0", "host:70000", "host:x", "a b:1", "a b"] {
            assert_eq!(
                with_port(bad, 9000).unwrap_err().kind,
                ProblemKind::Invalid,
                "{bad}"
            );
        }
        assert_eq!(
            nameservers(&["a".into(), " b:2".into()]).unwrap(),
            ["a:9000", "b:2"]
        );
        assert!(nameservers(&[String::new()]).is_err());
    }
}
