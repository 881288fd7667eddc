//! Who may ask: refuses names that a rebound DNS entry would carry, and changes that another site's page asks for.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{self, HeaderMap};
use hyper::http::uri::Authority;
use hyper::{Method, Uri};

use blockyard_wire::{Problem, ProblemKind, Result};

use crate::respond::header_text;

/// What a request's `Host` may be.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    listen: SocketAddr,
    hosts: Vec<String>,
}

impl Guard {
    /// Of a listener at `listen`, also known by the names `hosts`.
    pub(crate) fn new(listen: SocketAddr, hosts: &[String]) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { listen, hosts }
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// `Invalid` without a readable host, `Denied` for a foreign host or a change from another origin.
    pub(crate) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let host = authority(uri, headers)?;
        if !self.is_ours(host.host()) {
            return Err(denied(format!(
                "this server does not answer to the name '{}'; open it by its address, {}",
                host.host(),
                self.listen
            )));
        }
        if method == Method::GET || method == Method::HEAD {
            return Ok(());
        }
        if let Some(site) = header_text(headers, header::HeaderName::from_static("sec-fetch-site"))
            && !matches!(site, "same-origin" | "none")
        {
            return Err(denied("a page of another site asked for this change"));
        }
        match headers.get(header::ORIGIN) {
            None => Ok(()),
            Some(origin) if same_origin(origin.to_str().unwrap_or("null"), &host) => Ok(()),
            Some(_) => Err(denied("a page of another origin asked for this change")),
        }
    }

    /// Whether nobody else's DNS entry can have led here under this name.
    fn is_ours(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if host == "localhost" || self.hosts.contains(&host) {
            return true;
        }
        match host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
        {
            Ok(address) if self.listen.ip().is_loopback() => {
                address == self.listen.ip() || address.is_loopback()
            }
            // Beyond loopback a machine has many addresses; an address is not a name that can be rebound.
            Ok(_) => true,
            // A name without a dot is nobody's domain.
            Err(_) => !self.listen.ip().is_loopback() && !host.is_empty() && !host.contains('.'),
        }
    }
}

fn denied(message: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Denied, message)
}

/// The host asked for: of the target where it is absolute, else of the one `Host` header.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Authority> {
    let mut given = headers.get_all(header::HOST).iter();
    let text = match (given.next(), given.next()) {
        (_, Some(_)) => return Err(Problem::invalid("more than one Host header")),
        (Some(host), None) => host.to_str().ok(),
        (None, None) => None,
    };
    if let Some(authority) = uri.authority() {
        return Ok(authority.clone());
    }
    text.and_then(|text| text.parse::<Authority>().ok())
        .filter(|authority| !authority.as_str().contains('@'))
        .ok_or_else(|| Problem::invalid("a request must name its Host"))
}

fn same_origin(origin: &str, host: &Authority) -> bool {
    // A proxy may speak https in front of us.
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
        .is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, method: Method, given: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(
                header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        guard.check(&method, &Uri::from_static("/"), &headers).is_ok()
    }

    #[test]
    fn on_loopback_only_loopback_names() {
        let guard = Guard::new("127.0.0.1:8080".parse().unwrap(), &["yard.test".into()]);
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:8080",
            "[::1]:9",
            "127.0.0.2",
            "yard.test",
        ] {
            assert!(check(&guard, Method::GET, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "a@localhost",
            "",
            "x:y:z",
            "node7",
        ] {
            assert!(!check(&guard, Method::GET, &[("host", host)]), "{host}");
        }
        assert!(!check(&guard, Method::GET, &[]));
        assert!(!check(
            &guard,
            Method::GET,
            &[("host", "localhost"), ("host", "evil.example")]
        ));
    }

    #[test]
    fn beyond_loopback_no_foreign_domain() {
        let guard = Guard::new("0.0.0.0:8080".parse().unwrap(), &["yard.example".into()]);
        for host in ["10.0.0.1:8080", "node7:8080", "yard.example", "[fe80::1]"] {
            assert!(check(&guard, Method::GET, &[("host", host)]), "{host}");
        }
        assert!(!check(&guard, Method::GET, &[("host", "evil.example")]));
    }

    #[test]
    fn changes_come_from_our_own_page_or_no_page() {
        let guard = Guard::new("127.0.0.1:8080".parse().unwrap(), &[]);
        let host = ("host", "localhost:8080");
        let put = |extra: &[(&str, &str)]| {
            let mut all = vec![host];
            all.extend_from_slice(extra);
            check(&guard, Method::PUT, &all)
        };
        assert!(put(&[]));
        assert!(put(&[("origin", "http://localhost:8080")]));
        assert!(put(&[("sec-fetch-site", "same-origin")]));
        assert!(put(&[("sec-fetch-site", "none")]));
        assert!(!put(&[("origin", "http://localhost:8081")]));
        assert!(!put(&[("origin", "http://evil.example")]));
        assert!(!put(&[("origin", "null")]));
        assert!(!put(&[("sec-fetch-site", "cross-site")]));
        assert!(!put(&[("sec-fetch-site", "same-site")]));
    }
}
