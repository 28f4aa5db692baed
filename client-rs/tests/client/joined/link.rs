//! A connection that is two buffers: the client's end of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::world::Shared;

/// Bytes that a link keeps on their way, in each direction.
pub(super) const LINK_BYTES: usize = 128 << 10;

/// Bytes on their way between a client and a server.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The server, and the number that it gave the connection.
    pub(super) machine: usize,
    pub(super) number: usize,
    pub(super) up: BytesMut,
    pub(super) down: BytesMut,
    /// The client is gone; what is on its way up still arrives.
    pub(super) is_left: bool,
    /// Broken: what was on its way is lost, and the server has forgotten it.
    pub(super) is_cut: bool,
    /// The server has closed it: what is on its way down still arrives.
    pub(super) is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Link {
    pub(super) fn new(machine: usize, number: usize) -> Self {
        Self { machine, number, ..Self::default() }
    }

    /// Loses what is on its way.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.up.clear();
        self.down.clear();
        self.wake();
    }

    /// Has whoever waits look again.
    pub(super) fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn read(&mut self, context: &Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = self.down.len().min(out.remaining());
        if count == 0 && !self.is_closed {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        out.put_slice(&self.down[..count]);
        self.down.advance(count);
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut || self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = LINK_BYTES.saturating_sub(self.up.len()).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            self.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.up.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }
}

/// The client's end of a link.
#[derive(Debug)]
pub(super) struct End {
    pub(super) shared: Shared,
    pub(super) id: u64,
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.shared.with_link(self.id, |link| link.read(context, out))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.shared.with_link(self.id, |link| link.write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}
