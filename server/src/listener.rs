//! Sockets that connections come from, and the connections' own.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, os::unix::net::UnixStream as StdUnixStream};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rampuddle_protocol::burst_bytes;
use rustix::fs::{Mode, fchmod};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, listen, sendmsg, socket_with, sockopt,
};
use socket2::{Domain, SockRef, Type};

use crate::connection::{Done, Way};
use crate::error::StartError;
use crate::zero_copy;

/// A peer that answers nothing for this long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);
/// Silence after which the system asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// Reports on bytes that were lent, read at once: more than there can be.
const REPORTS_MAX: usize = 256;

/// Connections that wait to be accepted, per listener; the system may allow fewer.
const BACKLOG: i32 = 1_024;

/// An address that is ours, at which nobody is let in yet: a client is refused
/// at once, and does not wait for a server that is still taking its memory.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: socket2::Socket,
    /// With its real port.
    address: SocketAddr,
}

impl Bound {
    pub(crate) fn to(address: SocketAddr) -> Result<Self, StartError> {
        let open = || -> io::Result<Self> {
            let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // A server comes back to its address while connections of the one before
            // it still end.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            let bound = socket.local_addr()?.as_socket();
            Ok(Self { socket, address: bound.unwrap_or(address) })
        };
        open().map_err(|source| StartError::Listen { address, source })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in.
    pub(crate) fn listen(self) -> Result<Listener, StartError> {
        let address = self.address;
        let result = self.socket.listen(BACKLOG);
        result.map_err(|source| StartError::Listen { address, source })?;
        Ok(Listener::Tcp(TcpListener::from_std(self.socket.into())))
    }
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connection's socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens at `path`, readable and writable by the owner only: from the
    /// first moment on, since the mode is set before the socket has a name.
    pub(crate) fn unix(path: &Path) -> Result<Self, StartError> {
        let error = |source| StartError::Socket { path: path.into(), source };
        claim(path)?;
        let open = || -> rustix::io::Result<OwnedFd> {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
            bind(&socket, &SocketAddrUnix::new(path)?)?;
            listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        let socket = open().map_err(|errno| error(errno.into()))?;
        Ok(Self::Unix(UnixListener::from_std(socket.into()), path.into()))
    }

    /// The next connection, with its options set.
    pub(crate) fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Options that a system refuses only cost speed.
                let _ = set_tcp_options(&stream);
                Ok(Socket::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept()?.0)),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Self::Unix(listener, _) => listener.register(registry, token, Interest::READABLE),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// Looks whether a path can be listened at, and removes a socket that nobody listens
/// on any more.
pub(crate) fn claim(path: &Path) -> Result<(), StartError> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| StartError::Socket { path: path.into(), source })
        }
        _ => Err(StartError::SocketTaken { path: path.into() }),
    }
}

fn set_tcp_options(stream: &TcpStream) -> io::Result<()> {
    let socket = stream.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepcnt(socket, 2)?;
    sockopt::set_tcp_user_timeout(socket, PEER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}

fn pass(
    stream: &UnixStream,
    slices: &[IoSlice<'_>],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors = [descriptor];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is room for one");
    Ok(sendmsg(stream, slices, &mut control, SendFlags::NOSIGNAL)?)
}

impl Socket {
    pub(crate) fn read(&mut self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_vectored(slices),
            Self::Unix(stream) => stream.read_vectored(slices),
        }
    }

    /// Whether the peer is on this machine, and can be given descriptors.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Bytes that the system sends as one packet at most; 1 where that does not matter.
    pub(crate) fn burst_bytes(&self) -> u64 {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).tcp_mss().map_or(1, burst_bytes),
            Self::Unix(_) => 1,
        }
    }

    /// Sends bytes.
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>], way: Way<'_>) -> io::Result<usize> {
        match (self, way) {
            (Self::Tcp(stream), Way::Copied) => stream.write_vectored(slices),
            (Self::Tcp(stream), Way::CopiedMore) => {
                let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
                Ok(sendmsg(stream, slices, &mut SendAncillaryBuffer::default(), flags)?)
            }
            (Self::Tcp(stream), Way::Lent) => zero_copy::lend(stream.as_fd(), slices),
            (Self::Unix(stream), Way::Copied) => stream.write_vectored(slices),
            (Self::Unix(stream), Way::Passing(descriptor)) => pass(stream, slices, descriptor),
            (Self::Tcp(_), Way::Passing(_)) | (Self::Unix(_), Way::CopiedMore | Way::Lent) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    /// Lets the system be lent what is sent. False: over this socket it copies.
    pub(crate) fn lend(&self) -> bool {
        matches!(self, Self::Tcp(stream) if zero_copy::enable(stream.as_fd()))
    }

    /// Reads what the system says of bytes that it was lent, to the end; of more than
    /// was lent at once, the rest is left.
    pub(crate) fn each_done(&self, each: impl FnMut(Done)) {
        if let Self::Tcp(stream) = self {
            let reports = std::iter::from_fn(|| zero_copy::next_done(stream.as_fd()));
            reports.take(REPORTS_MAX).for_each(each);
        }
    }

    /// Bytes that were sent and that the peer has not taken yet.
    pub(crate) fn untaken(&self) -> u64 {
        match self {
            Self::Tcp(stream) => zero_copy::untaken(stream.as_fd()),
            Self::Unix(_) => 0,
        }
    }

    /// Drops what was not sent yet, and keeps the descriptor.
    pub(crate) fn abort(&self) {
        if let Self::Tcp(stream) = self {
            zero_copy::abort(stream.as_fd());
        }
    }

    /// Tells the peer that no more will be sent.
    pub(crate) fn end_sending(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interest),
            Self::Unix(stream) => stream.register(registry, token, interest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_let_in_at_an_address_that_is_only_bound() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let bound = Bound::to(address.parse().unwrap()).unwrap();
            let address = bound.address();
            let refused = std::net::TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
            let _listener = bound.listen().unwrap();
            std::net::TcpStream::connect(address).unwrap();
        }
    }

    #[test]
    fn of_two_that_want_one_address_one_gets_it() {
        let first = Bound::to("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.address();
        let second = Bound::to(address).unwrap();
        let _listener = first.listen().unwrap();
        for error in [second.listen().unwrap_err(), Bound::to(address).unwrap_err()] {
            let StartError::Listen { address: named, source } = error else { panic!("{error}") };
            assert_eq!((named, source.kind()), (address, io::ErrorKind::AddrInUse));
        }
    }
}
