//! One connection of HTTP/1.1, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::remote::sockets;
use crate::remote::tls::Tls;
use crate::remote::url::HostPort;

/// A connection to one host, for one call at a time. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    /// Which host, by its number.
    pub(super) host: usize,
    sender: SendRequest<String>,
    task: JoinHandle<()>,
}

/// A call that got no answer.
#[derive(Debug)]
pub(super) struct NotAnswered {
    /// Whether the service may have got it.
    pub(super) was_sent: bool,
    pub(super) error: hyper::Error,
}

impl Connection {
    /// Connects within `limit`: to the first address of the host that lets us in, of which
    /// each has its share of the time.
    pub(super) async fn open(
        host: usize,
        place: &HostPort,
        tls: Option<&Tls>,
        limit: Duration,
    ) -> io::Result<Self> {
        let deadline = Instant::now() + limit;
        let looked_up = timeout(limit, lookup_host((place.host.as_str(), place.port))).await;
        let found: Vec<SocketAddr> = looked_up.map_err(|_| not_within(limit))??.collect();
        Self::open_any(&found, deadline, host, place, tls).await
    }

    async fn open_any(
        found: &[SocketAddr],
        deadline: Instant,
        host: usize,
        place: &HostPort,
        tls: Option<&Tls>,
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address is known");
        for (at, address) in found.iter().enumerate() {
            let share = sockets::share(deadline, found.len() - at);
            match timeout(share, Self::open_at(*address, host, place, tls)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_elapsed) => last = not_within(share),
            }
        }
        Err(last)
    }

    async fn open_at(
        address: SocketAddr,
        host: usize,
        place: &HostPort,
        tls: Option<&Tls>,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        sockets::prepare(&stream)?;
        let Some(tls) = tls else { return Self::over(host, stream).await };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(place.host.clone()).map_err(io::Error::other)?,
        };
        let connector = TlsConnector::from(tls.config.clone());
        Self::over(host, connector.connect(name, stream).await?).await
    }

    async fn over(
        host: usize,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // What ends the connection is told to the call that is under way.
        let task = tokio::spawn(async { _ = connection.await });
        Ok(Self { host, sender, task })
    }

    /// Whether it can be asked, as far as is known.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    pub(super) async fn send(
        &mut self,
        request: Request<String>,
    ) -> Result<Response<Incoming>, NotAnswered> {
        let sent = self.sender.try_send_request(request).await;
        sent.map_err(|mut failure| NotAnswered {
            was_sent: failure.take_message().is_none(),
            error: failure.into_error(),
        })
    }
}

fn not_within(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("not within {limit:?}"))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A place that takes no connection and refuses none, for as long as what is returned
    /// with it is held.
    async fn swallowing() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(taken) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await
        {
            queue.push(taken.unwrap());
        }
        (address, listener, queue)
    }

    #[tokio::test]
    async fn an_address_that_swallows_what_it_is_sent_leaves_time_for_the_next() {
        let (swallowing, _listener, _queue) = swallowing().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = HostPort { host: "several.test".to_owned(), port: 1 };
        let limit = Duration::from_millis(600);
        let open = |found: Vec<SocketAddr>| {
            let (deadline, place) = (Instant::now() + limit, place.clone());
            async move { Connection::open_any(&found, deadline, 0, &place, None).await }
        };
        let began = Instant::now();
        open(vec![swallowing, good.local_addr().unwrap()]).await.unwrap();
        assert!(began.elapsed() >= limit / 2);
        let error = open(vec![swallowing]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
