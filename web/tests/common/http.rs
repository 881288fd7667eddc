//! A plain HTTP client over real connections: says exactly what it is told to say.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Asks the server at an address.
pub struct Http {
    pub address: SocketAddr,
}

impl Http {
    /// Opens a connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        // Only so that a server that never answers fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes as they are, closes the sending side if told to, and reads the answer.
    pub fn raw(&self, request: &[u8], close: bool) -> Option<Reply> {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        if close {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        read_reply(&mut stream)
    }

    /// Asks, with `Host` and `Content-Length` made up unless given.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        let mut all = headers.to_vec();
        let (host, length) = (self.address.to_string(), body.len().to_string());
        for (name, value) in [("host", &host), ("content-length", &length)] {
            if !headers.iter().any(|(given, _)| *given == name) {
                all.push((name, value));
            }
        }
        for (name, value) in all {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let request = [request.as_bytes(), body].concat();
        self.raw(&request, false).expect("an answer")
    }

    /// A plain GET.
    pub fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[], b"")
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Whether the body had its declared length.
    pub whole: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Reads one answer up to the end of the connection.
pub fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut all = Vec::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = all[end + 4..].to_vec();
    let mut whole = headers
        .get("content-length")
        .is_none_or(|length| length.parse() == Ok(body.len()));
    if headers
        .get("transfer-encoding")
        .is_some_and(|encoding| encoding == "chunked")
    {
        (body, whole) = chunks(&body);
    }
    Some(Reply {
        status,
        headers,
        body,
        whole,
    })
}

/// What chunks hold, and whether the last one is there.
fn chunks(mut body: &[u8]) -> (Vec<u8>, bool) {
    let mut held = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|two| two == b"\r\n") else {
            return (held, false);
        };
        let length = std::str::from_utf8(&body[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let rest = &body[end + 2..];
        if length == 0 {
            return (held, true);
        }
        if rest.len() < length + 2 {
            held.extend_from_slice(rest);
            return (held, false);
        }
        held.extend_from_slice(&rest[..length]);
        body = &rest[length + 2..];
    }
}
