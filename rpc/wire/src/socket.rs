//! How every connection's socket is set; it knows nothing of what goes over it.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{getpeername, getsockname, sockopt};

/// What paces connections within one machine. Nothing is lost there, so the plainest serves: BBR, which many systems
/// have as their default, spaces packets by timers, at twice the CPU time a byte and half the rate. Every kernel has
/// it, and every user may choose it.
pub const LOCAL_CONGESTION_CONTROL: &str = "reno";

/// Sets a connected TCP socket: small frames go at once, and within one machine nothing is paced. Between machines the
/// system's congestion control stays.
///
/// # Errors
/// What the kernel says, when this is no TCP socket or its peer is gone.
pub fn tune(stream: &impl AsFd) -> std::io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    if is_local(stream)? {
        match sockopt::set_tcp_congestion(stream, LOCAL_CONGESTION_CONTROL) {
            // A kernel without it, or a sandbox that hides it: the system's goes on.
            Ok(()) | Err(Errno::NOENT | Errno::PERM | Errno::NOPROTOOPT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether both ends are on one machine, as far as their addresses tell.
fn is_local(stream: &impl AsFd) -> rustix::io::Result<bool> {
    let peer = SocketAddr::try_from(getpeername(stream)?.ok_or(Errno::NOTCONN)?)?;
    let own = SocketAddr::try_from(getsockname(stream)?)?;
    Ok(peer.ip().is_loopback() || peer.ip() == own.ip())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_local_connection_is_neither_delayed_nor_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(
            sockopt::tcp_congestion(&stream).unwrap(),
            LOCAL_CONGESTION_CONTROL
        );
    }

    #[test]
    fn a_socket_without_a_peer_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(tune(&listener).is_err());
    }
}
