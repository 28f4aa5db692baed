//! Asks whoever answers at an address who it is.

use std::pin::Pin;
use std::time::Duration;

use rampuddle_discovery::{Id, resolve};
use rampuddle_protocol::limits::HELLO_FRAME_BYTES;
use rampuddle_protocol::{ClientHello, Header, Nonce, Opcode, ServerHello, SessionId, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// A server that does not answer by then counts as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// As [`rampuddle_discovery::Probe`] wants it.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Option<Id>> + Send>>;

/// Who answered.
#[derive(Debug, PartialEq, Eq)]
struct Answering {
    name: Vec<u8>,
    is_of_our_cluster: bool,
    incarnation: Id,
}

/// Asks for the incarnation of the server at an address (`host:port` or `unix:/path`),
/// whatever it is called; `None` when none answers.
pub(crate) fn asking(cluster: &str) -> impl Fn(String) -> Asking + Send + Sync {
    move |address| {
        let answering = answering_at(address, cluster.to_owned());
        Box::pin(async { Some(answering.await?.incarnation) })
    }
}

/// Asks for the incarnation of the server of that name: `None` also when a server of
/// another name or cluster has the address now.
pub(crate) fn asking_for(name: &str, cluster: &str) -> impl Fn(String) -> Asking + Send + Sync {
    move |address| {
        let (name, cluster) = (name.to_owned(), cluster.to_owned());
        Box::pin(async move {
            let answering = answering_at(address, cluster).await?;
            let is_meant = answering.is_of_our_cluster && answering.name == name.as_bytes();
            is_meant.then_some(answering.incarnation)
        })
    }
}

async fn answering_at(address: String, cluster: String) -> Option<Answering> {
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
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, cluster: &str) -> Option<Answering> {
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
    answering(&answer)
}

/// What a server's hello says. To a hello that names no server and no settings, a
/// mismatch is one of clusters.
fn answering(frame: &[u8; HELLO_FRAME_BYTES]) -> Option<Answering> {
    let header = Header::parse(frame).ok()?;
    if header.opcode != Opcode::Hello as u8 || header.head_bytes() != HELLO_FRAME_BYTES {
        return None;
    }
    header.check(frame).ok()?;
    let (hello, name) = ServerHello::parse(&header, header.table(frame)).ok()?;
    (!hello.incarnation.is_none()).then(|| Answering {
        name: name.to_vec(),
        is_of_our_cluster: header.status != Status::Mismatch as u8,
        incarnation: Id(hello.incarnation.0),
    })
}

fn unguessable() -> [u8; 16] {
    use rampuddle_client::Random as _;
    let mut bytes = [0; 16];
    rampuddle_client::SystemRandom::default().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use rampuddle_protocol::Incarnation;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one hello as a server would.
    async fn answer_once(listener: &TcpListener, status: Status, name: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; HELLO_FRAME_BYTES]).await.unwrap();
        let hello = ServerHello { incarnation: Incarnation([7; 16]), ..ServerHello::default() };
        let mut frame = Vec::new();
        hello.frame(status, name, &mut frame);
        stream.write_all(&frame).await.unwrap();
    }

    #[tokio::test]
    async fn another_server_at_an_address_is_not_the_one_that_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        for (status, name, is_meant) in [
            (Status::Ok, "a", true),
            (Status::Unsupported, "a", true),
            (Status::Ok, "b", false),
            (Status::Mismatch, "a", false),
        ] {
            let answered = answer_once(&listener, status, name);
            let asked = asking_for("a", "lab")(address.clone());
            let (found, ()) = tokio::join!(asked, answered);
            assert_eq!(found, is_meant.then_some(Id([7; 16])), "{status:?} \"{name}\"");

            let answered = answer_once(&listener, status, name);
            let (found, ()) = tokio::join!(asking("lab")(address.clone()), answered);
            assert_eq!(found, Some(Id([7; 16])), "a server answers");
        }
    }
}
