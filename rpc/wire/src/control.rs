//! Connections on tokio: the hello, then Cap'n Proto RPC (control) or frames (data).
//!
//! Everything here is `!Send` and runs in a `LocalSet`. Readers are limited on every connection.

use std::future::Future;

use blockyard_schema::nameserver_capnp::gate;
use capnp::capability::FromClientHook as _;
use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _, TokioAsyncWriteCompatExt as _};

use crate::error::{Problem, ProblemKind, Result};
use crate::frame::{Frame, PREFIX_BYTES, Prefix, Purpose, Role};
use crate::hello::{Acceptor, Agreed, Opener, refusal};
use crate::secret::ClusterSecret;
use crate::socket;
use crate::types::ClusterId;

/// Bytes of the longest Cap'n Proto message that is read.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Pointers deep at the most.
const NESTING_MAX: i32 = 32;

/// The limits of every Cap'n Proto reader: 1 MiB, nesting 32.
pub fn reader_options() -> ReaderOptions {
    *ReaderOptions::new()
        .traversal_limit_in_words(Some(MESSAGE_BYTES_MAX / 8))
        .nesting_limit(NESTING_MAX)
}

/// A control connection to a nameserver.
pub struct Control {
    /// The nameserver's gate.
    pub gate: gate::Client,
    /// What the hello found in common.
    pub agreed: Agreed,
    /// Drives the connection; ends when it is lost. To be spawned on the `LocalSet`.
    pub driver: RpcSystem<Side>,
}

/// Connects to the nameserver at `address`.
///
/// # Errors
/// `Retry` when it can't be reached, `Denied` when the secret or cluster does not fit.
pub async fn connect(
    address: &str,
    secret: &ClusterSecret,
    role: Role,
    cluster: Option<ClusterId>,
) -> Result<Control> {
    let (stream, agreed) = open(address, secret, role, Purpose::Control, cluster).await?;
    let (reader, writer) = halves(stream);
    let network = twoparty::VatNetwork::new(reader, writer, Side::Client, reader_options());
    let mut driver = RpcSystem::new(Box::new(network), None);
    let gate = driver.bootstrap(Side::Server);
    Ok(Control { gate, agreed, driver })
}

/// Connects to a volume's data listener; after this, frames go both ways.
///
/// # Errors
/// `Retry` when it can't be reached, `Denied` when the secret or cluster does not fit.
pub async fn open_data(
    address: &str,
    secret: &ClusterSecret,
    role: Role,
    cluster: ClusterId,
) -> Result<TcpStream> {
    open(address, secret, role, Purpose::Data, Some(cluster))
        .await
        .map(|(stream, _)| stream)
}

async fn open(
    address: &str,
    secret: &ClusterSecret,
    role: Role,
    purpose: Purpose,
    cluster: Option<ClusterId>,
) -> Result<(TcpStream, Agreed)> {
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(|error| Problem::retry(format!("cannot connect to {address}: {error}")))?;
    let agreed = async {
        socket::tune(&stream)?;
        let (mut opener, hello) = Opener::new(secret, role, purpose, cluster);
        stream.write_all(&hello).await?;
        let proof = opener.challenge(read_frame(&mut stream).await?)?;
        stream.write_all(&proof).await?;
        opener.welcome(read_frame(&mut stream).await?)
    }
    .await
    .map_err(|problem| problem.context(address))?;
    Ok((stream, agreed))
}

/// A control connection that has proved itself.
pub struct Accepted {
    /// What the hello found in common.
    pub agreed: Agreed,
    stream: TcpStream,
}

/// Takes the hello of a connection to a nameserver of `cluster`.
///
/// # Errors
/// Why the peer was refused; it has been told.
pub async fn accept(mut stream: TcpStream, secret: &ClusterSecret, cluster: ClusterId) -> Result<Accepted> {
    socket::tune(&stream)?;
    let mut acceptor = Acceptor::new(secret, cluster, Purpose::Control);
    let agreed = async {
        let challenge = acceptor.hello(read_frame(&mut stream).await?)?;
        stream.write_all(&challenge).await?;
        let (welcome, agreed) = acceptor.proof(read_frame(&mut stream).await?)?;
        stream.write_all(&welcome).await?;
        Ok(agreed)
    }
    .await;
    match agreed {
        Ok(agreed) => Ok(Accepted { agreed, stream }),
        Err(problem) => {
            // The peer may be gone; then there is nobody to tell.
            let _ = stream.write_all(&refusal(&problem)).await;
            Err(problem)
        }
    }
}

impl Accepted {
    /// Serves `gate` until the connection is lost.
    pub fn serve(self, gate: gate::Client) -> impl Future<Output = capnp::Result<()>> {
        let (reader, writer) = halves(self.stream);
        let network = twoparty::VatNetwork::new(reader, writer, Side::Server, reader_options());
        RpcSystem::new(
            Box::new(network),
            Some(capnp::capability::FromClientHook::new(gate.into_client_hook())),
        )
    }
}

/// Reads one frame without payload, as the hello's are.
///
/// # Errors
/// `Retry` when the connection is lost, `Invalid` or `Corrupt` when the bytes are no such frame.
pub async fn read_frame(stream: &mut TcpStream) -> Result<Frame> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await.map_err(lost)?;
    let prefix = Prefix::parse(&prefix)?;
    if prefix.payload_bytes != 0 {
        return Err(Problem::invalid("a payload before the welcome"));
    }
    let mut header = vec![0; prefix.header_bytes];
    stream.read_exact(&mut header).await.map_err(lost)?;
    prefix.decode(&header)
}

fn lost(error: std::io::Error) -> Problem {
    let why = match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the peer closed the connection".to_owned(),
        _ => error.to_string(),
    };
    Problem::new(ProblemKind::Retry, why)
}

type Halves = (
    futures_util::io::BufReader<Compat<OwnedReadHalf>>,
    futures_util::io::BufWriter<Compat<OwnedWriteHalf>>,
);

fn halves(stream: TcpStream) -> Halves {
    let (reader, writer) = stream.into_split();
    (
        futures_util::io::BufReader::new(reader.compat()),
        futures_util::io::BufWriter::new(writer.compat_write()),
    )
}
