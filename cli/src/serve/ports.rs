//! Ports, tried before anything is started, so that a taken one is told by the flag that moves it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use blockyard_wire::{Problem, ProblemKind};

/// How long a port or folder may still be held by a process that has just been killed: the kernel takes an
/// io_uring with its sockets down in the background, after the process is gone.
const AFTERLIFE: Duration = Duration::from_secs(3);
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Tries again for a while what fails because something is taken.
///
/// # Errors
/// That of the last attempt.
pub async fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Problem>) -> Result<T, Problem> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(problem) if problem.kind == ProblemKind::Exists && started.elapsed() < AFTERLIFE => {
                tokio::time::sleep(TRY_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

/// A listener that is wanted.
pub struct Wanted {
    /// For whom, as people say it.
    pub role: String,
    /// Where; port 0 takes any free one.
    pub address: SocketAddr,
    /// What the user can change.
    pub flag: &'static str,
}

/// Tries all, and tells of every one that can't be had.
///
/// # Errors
/// `Exists` where a port is taken, `Failed` where the system refuses for another reason.
pub fn check(wanted: &[Wanted]) -> Result<(), Problem> {
    let mut taken = Vec::new();
    let mut kind = ProblemKind::Exists;
    for want in wanted {
        match TcpListener::bind(want.address) {
            Ok(_) => {}
            Err(error) => {
                if error.kind() != io::ErrorKind::AddrInUse {
                    kind = ProblemKind::Failed;
                }
                taken.push(refusal(want, &error));
            }
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    Err(Problem::new(kind, taken.join("\n")))
}

/// Listens.
///
/// # Errors
/// As [`check`].
pub fn bind(want: &Wanted) -> Result<TcpListener, Problem> {
    TcpListener::bind(want.address).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::AddrInUse => ProblemKind::Exists,
            _ => ProblemKind::Failed,
        };
        Problem::new(kind, refusal(want, &error))
    })
}

fn refusal(want: &Wanted, error: &io::Error) -> String {
    let Wanted { role, address, flag } = want;
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!(
                "port {port}, wanted for the {role}, is taken on {}: choose another with {flag}",
                address.ip()
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!("the {role} may not listen on {address}: choose a port above 1023 with {flag}")
        }
        _ => format!("the {role} can't listen on {address}: {error}; choose another address with {flag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_freed_soon_is_waited_for() {
        let mut left = 3;
        let tried = patiently(|| {
            left -= 1;
            if left > 0 {
                Err(Problem::new(ProblemKind::Exists, "taken"))
            } else {
                Ok(left)
            }
        });
        assert_eq!(tried.await, Ok(0));
        let refused = patiently(|| Err::<(), _>(Problem::invalid("wrong")));
        assert_eq!(refused.await.unwrap_err().kind, ProblemKind::Invalid);
    }

    #[test]
    fn every_taken_port_is_told_with_its_flag() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let want = |address, flag| Wanted {
            role: "page".into(),
            address,
            flag,
        };
        let free = "127.0.0.1:0".parse().unwrap();
        let problem = check(&[
            want(address, "--port"),
            want(free, "--x"),
            want(address, "--web-port"),
        ])
        .unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Exists);
        assert!(problem.message.contains("--port") && problem.message.contains("--web-port"));
        assert!(problem.message.contains(&address.port().to_string()) && !problem.message.contains("--x"));
        check(&[want(free, "--x")]).unwrap();
        assert_eq!(
            bind(&want(address, "--port")).unwrap_err().kind,
            ProblemKind::Exists
        );
    }
}
