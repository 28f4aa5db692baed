//! One connection of HTTP/1.1, with TLS or without.

use std::io;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
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
    pub(super) async fn open(host: usize, place: &HostPort, tls: Option<&Tls>) -> io::Result<Self> {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
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

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
