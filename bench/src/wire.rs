//! Blocking sockets.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// A server that says nothing for so long will never do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// On the loopback interface.
    Tcp(SocketAddr),
    /// In the file system.
    Unix(PathBuf),
}

/// A connection. Nothing is buffered: a read is one system call, a write too.
pub(crate) enum Socket {
    /// With TCP_NODELAY.
    Tcp(TcpStream),
    /// A stream.
    Unix(UnixStream),
}

impl Socket {
    /// Connects.
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpStream::connect(address).and_then(Self::tcp),
            Address::Unix(path) => UnixStream::connect(path).and_then(Self::unix),
        }
    }

    /// A connection that was accepted or made.
    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::Tcp(stream))
    }

    /// A connection that was accepted or made.
    pub(crate) fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::Unix(stream))
    }

    /// Gives up waiting for bytes that do not come.
    pub(crate) fn be_impatient(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(PATIENCE)),
            Self::Unix(stream) => stream.set_read_timeout(Some(PATIENCE)),
        }
    }

    /// Sends all parts, in as few calls as the kernel takes.
    pub(crate) fn send(&mut self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        while !parts.is_empty() {
            match self.stream().write_vectored(parts)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut parts, written),
            }
        }
        Ok(())
    }

    /// Fills all parts, in as few calls as the kernel takes. Before it waits for
    /// more than came at first it asks `goes_on`.
    pub(crate) fn receive(
        &mut self,
        head: &mut [u8],
        value: &mut [u8],
        tail: &mut [u8],
        goes_on: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let parts = &mut [IoSliceMut::new(head), IoSliceMut::new(value), IoSliceMut::new(tail)];
        let first = self.stream().read_vectored(parts)?;
        goes_on(&head[..first.min(head.len())])?;
        let parts = &mut [IoSliceMut::new(head), IoSliceMut::new(value), IoSliceMut::new(tail)];
        let mut rest = &mut parts[..];
        let mut came = first;
        loop {
            if came == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            IoSliceMut::advance_slices(&mut rest, came);
            if rest.is_empty() {
                return Ok(());
            }
            came = self.stream().read_vectored(rest)?;
        }
    }

    fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

trait Stream: Read + Write {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream().read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
