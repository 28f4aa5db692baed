//! Asks whoever answers at an address who it is.

use std::pin::Pin;
use std::time::Duration;

use rampuddle_discovery::{Id, resolve};
use rampuddle_protocol::limits::HELLO_FRAME_BYTES;
use rampuddle_protocol::{ClientHello, Header, Nonce, Opcode, ServerHello, SessionId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// A server that does not answer by then counts as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// As [`rampuddle_discovery::Probe`] wants it.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Option<Id>> + Send>>;

/// As [`incarnation_at`], of a cluster.
pub(crate) fn asking(cluster: &str) -> impl Fn(String) -> Asking + Send + Sync {
    move |address| Box::pin(incarnation_at(address, cluster.to_owned()))
}

/// The incarnation of the server at an address (`host:port` or `unix:/path`);
/// `None` when none answers.
async fn incarnation_at(address: String, cluster: String) -> Option<Id> {
    let asked = async {
        match address.strip_prefix("unix:") {
            Some(path) => ask(UnixStream::connect(path).await.ok()?, &cluster).await,
            None => {
                let found = resolve(&address).await.ok()?;
                ask(TcpStream::connect(&found[..]).await.ok()?, &cluster).await
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
}

/// Shakes hands, which any server answers whatever it is called.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, cluster: &str) -> Option<Id> {
    let hello = ClientHello {
        version_min: Header::VERSION,
        version_max: Header::VERSION,
        nonce: Nonce(unguessable()),
        session: SessionId(unguessable()),
        ..ClientHello::default()
    };
    let mut frame = Vec::with_capacity(HELLO_FRAME_BYTES);
    hello.frame(cluster, "", &mut frame);
    stream.write_all(&frame).await.ok()?;
    let mut answer = [0; HELLO_FRAME_BYTES];
    stream.read_exact(&mut answer).await.ok()?;
    let header = Header::parse(&answer).ok()?;
    if header.opcode != Opcode::Hello as u8 || header.head_bytes() != HELLO_FRAME_BYTES {
        return None;
    }
    header.check(&answer).ok()?;
    let (hello, _) = ServerHello::parse(&header, header.table(&answer)).ok()?;
    (!hello.incarnation.is_none()).then_some(Id(hello.incarnation.0))
}

fn unguessable() -> [u8; 16] {
    use rampuddle_client::Random as _;
    let mut bytes = [0; 16];
    rampuddle_client::SystemRandom::default().fill(&mut bytes);
    bytes
}
