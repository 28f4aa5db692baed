//! The servers of one ZooKeeper, and how to get through to one of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Session, Stream};
use super::failure::Failure;
use crate::random::random_fraction;
use crate::remote::{HostPort, Tls, sockets};
use crate::resolve::resolve;

/// How long one server may take to let us in, at all its addresses together, before the
/// next one is tried: what a session has left when its server went silent is enough for
/// one more.
const HOST_PATIENCE: Duration = Duration::from_secs(1);

/// The servers, of which the one that answered is asked first.
#[derive(Debug)]
pub(super) struct Hosts {
    hosts: Vec<HostPort>,
    first: AtomicUsize,
    tls: Option<Tls>,
}

impl Hosts {
    /// Begins with any of them, so that not all clients begin with the same.
    pub(super) fn new(hosts: Vec<HostPort>, tls: Option<Tls>) -> Self {
        let first = (random_fraction() * hosts.len() as f64) as usize;
        Self { hosts, first: AtomicUsize::new(first), tls }
    }

    /// Connects to the first server that lets us in: for an old session, or for a new
    /// one. Fails with [`Failure::Expired`] when the old one is over, else with what the
    /// last server said.
    pub(super) async fn connect(
        &self,
        session: Option<&Session>,
        user_and_password: Option<&str>,
    ) -> Result<Connection, Failure> {
        let mut last = Failure::Lost;
        for _ in &self.hosts {
            let at = self.first.load(Ordering::Relaxed);
            let host = &self.hosts[at % self.hosts.len()];
            match self.connect_to(host, session, user_and_password).await {
                Ok(connection) => return Ok(connection),
                Err(Failure::Expired) => return Err(Failure::Expired),
                Err(failure) => last = failure,
            }
            // Not if another caller went on from there already.
            let next = at.wrapping_add(1);
            let _ = self.first.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        Err(last)
    }

    /// The same with one server.
    async fn connect_to(
        &self,
        host: &HostPort,
        session: Option<&Session>,
        user_and_password: Option<&str>,
    ) -> Result<Connection, Failure> {
        let deadline = Instant::now() + HOST_PATIENCE;
        let place = host.to_string();
        let resolved = timeout_at(deadline, resolve(&place)).await;
        let found = resolved.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        let found = found.map_err(|error| unreachable(host, error))?;
        self.connect_to_any(&found, deadline, host, session, user_and_password).await
    }

    /// The same with the addresses of one server, of which each has its share of the time.
    async fn connect_to_any(
        &self,
        found: &[SocketAddr],
        deadline: Instant,
        host: &HostPort,
        session: Option<&Session>,
        user_and_password: Option<&str>,
    ) -> Result<Connection, Failure> {
        let mut last = Failure::Lost;
        for (at, address) in found.iter().enumerate() {
            let opened = async {
                let stream = self.stream(host, *address).await?;
                Connection::open(stream, session, user_and_password).await
            };
            match timeout(sockets::share(deadline, found.len() - at), opened).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(Failure::Expired)) => return Err(Failure::Expired),
                Ok(Err(failure)) => last = failure,
                Err(_elapsed) => last = unreachable(host, io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last)
    }

    async fn stream(
        &self,
        host: &HostPort,
        address: SocketAddr,
    ) -> Result<Box<dyn Stream>, Failure> {
        let connected = async {
            let stream = TcpStream::connect(address).await?;
            sockets::prepare(&stream)?;
            match &self.tls {
                None => Ok(Box::new(stream) as Box<dyn Stream>),
                Some(tls) => secured(tls, host, stream).await,
            }
        };
        connected.await.map_err(|error| unreachable(host, error))
    }
}

async fn secured(tls: &Tls, host: &HostPort, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    let name = match &tls.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(host.host.clone()).map_err(io::Error::other)?,
    };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    Ok(Box::new(connector.connect(name, stream).await?))
}

fn unreachable(host: &HostPort, source: io::Error) -> Failure {
    Failure::Unreachable { host: host.to_string(), source }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::zookeeper::wire::Message;

    /// Lets in who comes first.
    async fn let_in(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_i32().await.unwrap();
        let mut greeting = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut greeting).await.unwrap();
        let hello = Message::default().int(0).int(4_000).long(7).bytes(&[0; 16]);
        stream.write_all(&hello.into_frame()).await.unwrap();
        // Until the other side has enough.
        let _ = stream.read(&mut [0; 1]).await;
    }

    #[tokio::test]
    async fn an_address_at_which_nobody_speaks_leaves_time_for_the_next() {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (silent, good) = (listen().await, listen().await);
        let found = [silent.local_addr().unwrap(), good.local_addr().unwrap()];
        tokio::spawn(let_in(good));
        let host = HostPort { host: "several.test".to_owned(), port: 1 };
        let hosts = Hosts::new(vec![host.clone()], None);
        let deadline = Instant::now() + HOST_PATIENCE;
        let connected = hosts.connect_to_any(&found, deadline, &host, None, None).await;
        assert!(connected.unwrap().is_open());
        assert!(Instant::now() <= deadline);
    }
}
