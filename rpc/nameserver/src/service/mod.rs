//! The Cap'n Proto service: connections, and behind each a gate.

mod custody;
mod gate;
mod registration;
mod session;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use blockyard_wire::control;
use blockyard_wire::secret::ClusterSecret;
use tokio::net::{TcpListener, TcpStream};

use crate::core::Core;

/// For the hello of a connection.
const HELLO: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken, as when files run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Counts itself as one connection as long as it lives.
struct Seat {
    taken: Rc<Cell<usize>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.set(self.taken.get() - 1);
    }
}

/// Takes connections until it is dropped; each has a task of its own.
pub async fn serve(core: Rc<Core>, listener: Rc<TcpListener>, secret: ClusterSecret) {
    let taken = Rc::new(Cell::new(0));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if taken.get() >= core.config.connections_max {
            // Closing at once costs nothing; an answer would need a hello.
            tracing::warn!(%peer, limit = taken.get(), "refused: too many connections");
            continue;
        }
        taken.set(taken.get() + 1);
        let seat = Seat { taken: taken.clone() };
        let (core, secret) = (core.clone(), secret.clone());
        tokio::task::spawn_local(async move {
            let _seat = seat;
            connection(core, stream, secret, &peer.to_string()).await;
        });
    }
}

async fn connection(core: Rc<Core>, stream: TcpStream, secret: ClusterSecret, peer: &str) {
    let accepted = match tokio::time::timeout(HELLO, control::accept(stream, &secret, core.cluster)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(problem)) => return tracing::info!(peer, %problem, "a connection was refused"),
        Err(_) => return tracing::info!(peer, "a connection said no hello in time"),
    };
    let stopping = core.stopping();
    let gate = gate::Gate::new(core, accepted.agreed.role);
    let serving = accepted.serve(capnp_rpc::new_client(gate));
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::debug!(peer, %error, "a connection was lost");
        },
        () = stopping => {}
    }
}
