//! The servers of one ZooKeeper, and how to get through to one of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Session, Stream};
use super::failure::Failure;
use crate::remote::pace::random_fraction;
use crate::remote::{HostPort, Tls, sockets};
use crate::resolve::resolve;

/// How long one server may take to let us in, before the next one is tried: what a
/// session has left when its server went silent is enough for one more.
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
            let opened = async {
                let stream = self.stream(host).await?;
                Connection::open(stream, session, user_and_password).await
            };
            match timeout(HOST_PATIENCE, opened).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(Failure::Expired)) => return Err(Failure::Expired),
                Ok(Err(failure)) => last = failure,
                Err(_elapsed) => last = unreachable(host, io::ErrorKind::TimedOut.into()),
            }
            // Not if another caller went on from there already.
            let next = at.wrapping_add(1);
            let _ = self.first.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        Err(last)
    }

    async fn stream(&self, host: &HostPort) -> Result<Box<dyn Stream>, Failure> {
        let connected = async {
            let addresses = resolve(&host.to_string()).await?;
            let stream = TcpStream::connect(&*addresses).await?;
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
