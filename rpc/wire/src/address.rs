//! Addresses of listeners, and the rule that nothing listens beyond loopback without a secret of its own.

use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::error::{Problem, Result};

/// The nameserver's usual port.
pub const NAMESERVER_PORT: u16 = 9000;
/// The page's usual port.
pub const WEB_PORT: u16 = 8080;
/// The first dataserver's usual port.
pub const DATASERVER_PORT: u16 = 9001;

/// Reads `HOST:PORT`, `HOST` (with `port` then) or `[V6]:PORT`, asking the resolver for names.
///
/// # Errors
/// `Invalid` when the text is no address or its name is unknown.
pub fn resolve(text: &str, port: u16) -> Result<SocketAddr> {
    let found = if text.parse::<std::net::Ipv6Addr>().is_ok() || !text.contains(':') {
        (text, port).to_socket_addrs()
    } else {
        text.to_socket_addrs()
    };
    let mut found = found.map_err(|error| {
        Problem::invalid(format!(
            "'{text}' is no address HOST:PORT that can be found: {error}"
        ))
    })?;
    found
        .next()
        .ok_or_else(|| Problem::invalid(format!("'{text}' has no address")))
}

/// Refuses to listen beyond loopback when the operator gave no secret of the cluster.
///
/// # Errors
/// `Invalid` with what to do.
pub fn closed_by_default(listen: SocketAddr, secret_given: bool) -> Result<()> {
    if listen.ip().is_loopback() || secret_given {
        return Ok(());
    }
    Err(Problem::invalid(format!(
        "{listen} is reachable from other machines, so a cluster secret is needed: make one with \
         'blockyard init', copy it to every node, and pass --cluster-secret FILE (or listen on 127.0.0.1)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_addresses() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:9000"),
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("::1", "[::1]:9000"),
            ("[::1]:8", "[::1]:8"),
        ] {
            assert_eq!(resolve(text, 9000).unwrap().to_string(), address);
        }
        for bad in ["", "127.0.0.1:", "127.0.0.1:99999", "a b:1"] {
            assert!(resolve(bad, 9000).is_err(), "{bad}");
        }
    }

    #[test]
    fn beyond_loopback_needs_a_secret() {
        let open: SocketAddr = "0.0.0.0:9000".parse().unwrap();
        assert!(closed_by_default(open, false).is_err());
        assert!(closed_by_default(open, true).is_ok());
        assert!(closed_by_default("127.0.0.1:1".parse().unwrap(), false).is_ok());
    }
}
