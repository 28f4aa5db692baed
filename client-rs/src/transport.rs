//! Sockets. The only file that knows `tokio::net`.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rampuddle_protocol::burst_bytes;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg,
    sockopt,
};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::consume_budget;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A unix socket on this machine.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => formatter.write_str(address),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Makes connections. Simulators bring their own.
pub trait Connector: Send + Sync + fmt::Debug {
    /// Connects to `address`. The caller bounds the time.
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Stream>>;
}

/// Connects by TCP and by unix sockets.
#[derive(Debug, Clone)]
pub struct TcpUnixConnector {
    /// A silent peer is asked for a sign of life after this, and again each time.
    pub keepalive: Duration,
    /// A peer that acknowledges nothing for this long is given up by the
    /// kernel, whose own patience would be 15 minutes.
    pub user_timeout: Duration,
}

impl Default for TcpUnixConnector {
    fn default() -> Self {
        Self { keepalive: Duration::from_secs(10), user_timeout: Duration::from_secs(15) }
    }
}

impl Connector for TcpUnixConnector {
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            match address {
                Address::Tcp(address) => {
                    let found = rampuddle_discovery::resolve(address).await?;
                    let stream = TcpStream::connect(&found[..]).await?;
                    self.prepare(&stream)?;
                    Ok(Stream::of(Inner::Tcp(stream)))
                }
                Address::Unix(path) => {
                    UnixStream::connect(path).await.map(Inner::Unix).map(Stream::of)
                }
            }
        })
    }
}

impl TcpUnixConnector {
    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, self.keepalive)?;
        sockopt::set_tcp_keepintvl(stream, self.keepalive)?;
        let user_timeout_ms = u32::try_from(self.user_timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, user_timeout_ms)?;
        Ok(())
    }
}

/// Bytes both ways, for simulators: see [`Stream::other`].
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// How long a reader looks for bytes before it lets its thread sleep: waking up takes
/// longer than a small answer.
const SPIN: Duration = Duration::from_micros(50);

/// Bytes that are sent at once where no system says how many.
const BURST_BYTES: usize = 64 << 10;

/// A connected socket.
pub struct Stream {
    inner: Inner,
    /// The last time that bytes had to be waited for, they came so soon that looking
    /// for them is worth it.
    is_quick: bool,
    burst: Burst,
}

/// What the system said of a connection's bursts. It is asked when they are needed for
/// the first, second, fourth time and so on, and each 256 times: they grow with what a
/// young connection moved, and hardly change later.
#[derive(Debug)]
struct Burst {
    bytes: usize,
    uses: u32,
}

enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
    Other(Mutex<Box<dyn Duplex>>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match &self.inner {
            Inner::Tcp(_) => "Stream(tcp)",
            Inner::Unix(_) => "Stream(unix)",
            Inner::Other(_) => "Stream(other)",
        })
    }
}

/// Calls until the socket is ready for it.
macro_rules! when_ready {
    ($ready:expr, $call:expr, $spins:expr, $stream:expr, $slices:expr) => {{
        let mut spins: Option<&mut bool> = $spins;
        loop {
            match $call {
                Err(error) if is_not_ready(&error) => {}
                done => break done,
            }
            let began = Instant::now();
            if let Some(is_quick) = spins.as_deref_mut().filter(|is_quick| **is_quick) {
                if let Some(done) = spin($stream, $slices, began) {
                    break Ok(done);
                }
                *is_quick = false;
            }
            $ready.await?;
            if let Some(is_quick) = &mut spins {
                **is_quick = began.elapsed() < SPIN;
            }
        }
    }};
    ($ready:expr, $call:expr) => {
        loop {
            match $call {
                Err(error) if is_not_ready(&error) => $ready.await?,
                done => break done,
            }
        }
    };
}

impl Stream {
    /// A stream that is no socket.
    pub fn other(duplex: impl Duplex + 'static) -> Self {
        Self::of(Inner::Other(Mutex::new(Box::new(duplex))))
    }

    fn of(inner: Inner) -> Self {
        Self { inner, is_quick: false, burst: Burst { bytes: BURST_BYTES, uses: 0 } }
    }

    /// Bytes that the system sends at once now: who writes much writes a multiple.
    pub(crate) fn burst_bytes(&mut self) -> usize {
        let Self { inner: Inner::Tcp(stream), burst, .. } = self else { return BURST_BYTES };
        burst.uses = burst.uses.wrapping_add(1);
        if burst.uses.is_power_of_two() || burst.uses.is_multiple_of(256) {
            let segment = SockRef::from(&*stream).tcp_mss();
            burst.bytes = segment.map_or(BURST_BYTES, |bytes| burst_bytes(bytes) as usize);
        }
        burst.bytes
    }

    /// Reads what is there into `slices` in order, waiting for at least one
    /// byte; 0 = the peer sends no more. Dropping the future loses nothing. With
    /// `may_spin` the thread may stay awake for [`SPIN`] if bytes are likely to come
    /// so soon: no other work must wait for it.
    pub(crate) async fn read_vectored(
        &mut self,
        slices: &mut [IoSliceMut<'_>],
        may_spin: bool,
    ) -> io::Result<usize> {
        consume_budget().await;
        let Self { inner, is_quick, .. } = self;
        match inner {
            Inner::Tcp(stream) => {
                let spins = may_spin.then_some(is_quick);
                when_ready!(stream.readable(), receive(stream, slices), spins, stream, slices)
            }
            Inner::Unix(stream) => {
                let spins = may_spin.then_some(is_quick);
                when_ready!(stream.readable(), receive(stream, slices), spins, stream, slices)
            }
            Inner::Other(duplex) => {
                let duplex = unlocked(duplex);
                poll_fn(|context| poll_read(duplex, context, slices)).await
            }
        }
    }

    /// Whether the other side is a process of this machine that can hand over
    /// descriptors.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.inner, Inner::Unix(_))
    }

    /// As [`Stream::read_vectored`], and takes a descriptor that comes with the bytes.
    pub(crate) async fn read_with_descriptor(
        &mut self,
        slices: &mut [IoSliceMut<'_>],
        descriptor: &mut Option<OwnedFd>,
    ) -> io::Result<usize> {
        let Inner::Unix(stream) = &mut self.inner else {
            return self.read_vectored(slices, false).await;
        };
        consume_budget().await;
        when_ready!(stream.readable(), receive_both(stream, slices, descriptor))
    }

    /// Writes what fits of `slices` in order, waiting for room for at least one
    /// byte. Dropping the future before it is ready has written nothing.
    pub(crate) async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        consume_budget().await;
        match &mut self.inner {
            Inner::Tcp(stream) => when_ready!(stream.writable(), transmit(stream, slices)),
            Inner::Unix(stream) => when_ready!(stream.writable(), transmit(stream, slices)),
            Inner::Other(duplex) => {
                let duplex = unlocked(duplex);
                poll_fn(|context| Pin::new(&mut **duplex).poll_write_vectored(context, slices))
                    .await
            }
        }
    }

    /// Whether an idle connection is of no more use: the peer closed it, it
    /// failed, or bytes came that nobody asked for. Asks the kernel itself: the
    /// runtime may not have looked since the peer closed.
    pub(crate) fn is_stale(&mut self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match &mut self.inner {
            Inner::Tcp(stream) => rustix::net::recv(&*stream, &mut byte, flags),
            Inner::Unix(stream) => rustix::net::recv(&*stream, &mut byte, flags),
            Inner::Other(duplex) => {
                let mut context = Context::from_waker(Waker::noop());
                let slices = &mut [IoSliceMut::new(&mut byte)];
                return poll_read(unlocked(duplex), &mut context, slices).is_ready();
            }
        };
        !matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }
}

fn unlocked(duplex: &mut Mutex<Box<dyn Duplex>>) -> &mut Box<dyn Duplex> {
    duplex.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What both kinds of sockets of tokio have.
trait Socket: AsFd {
    fn try_io(&self, interest: Interest, call: impl FnOnce() -> io::Result<()>) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn try_io(&self, interest: Interest, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.try_io(interest, call)
    }
}

impl Socket for UnixStream {
    fn try_io(&self, interest: Interest, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.try_io(interest, call)
    }
}

/// Reads from a socket. A short read has emptied it: telling the runtime so at
/// once (as its own reads do) saves the next read a call that finds nothing.
fn receive(socket: &impl Socket, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let capacity = slices.iter().map(|slice| slice.len()).sum();
    let mut done = 0;
    let result = socket.try_io(Interest::READABLE, || {
        done = rustix::io::readv(socket, slices)?;
        settled(done, capacity)
    });
    if done > 0 { Ok(done) } else { result.map(|()| 0) }
}

/// Looks for bytes again and again, for a moment.
fn spin(socket: &impl Socket, slices: &mut [IoSliceMut<'_>], began: Instant) -> Option<usize> {
    while began.elapsed() < SPIN {
        // The end, or an error, the call that follows finds, too, if in other words.
        if let Ok(done @ 1..) = rustix::io::readv(socket, slices) {
            return Some(done);
        }
    }
    None
}

/// Reads from a socket of this machine, and takes a descriptor that comes along.
fn receive_both(
    socket: &UnixStream,
    slices: &mut [IoSliceMut<'_>],
    descriptor: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    socket.try_io(Interest::READABLE, || {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let received = recvmsg(socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                *descriptor = descriptors.next();
            }
        }
        Ok(received.bytes)
    })
}

/// Writes to a socket; as [`receive`], the other way. Never raises SIGPIPE.
fn transmit(socket: &impl Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let capacity = slices.iter().map(|slice| slice.len()).sum();
    let mut done = 0;
    let result = socket.try_io(Interest::WRITABLE, || {
        let mut control = SendAncillaryBuffer::default();
        done = rustix::net::sendmsg(socket, slices, &mut control, SendFlags::NOSIGNAL)?;
        settled(done, capacity)
    });
    if done > 0 { Ok(done) } else { result.map(|()| 0) }
}

fn settled(done: usize, capacity: usize) -> io::Result<()> {
    if done > 0 && done < capacity { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

fn poll_read(
    duplex: &mut Box<dyn Duplex>,
    context: &mut Context<'_>,
    slices: &mut [IoSliceMut<'_>],
) -> Poll<io::Result<usize>> {
    let Some(slice) = slices.iter_mut().find(|slice| !slice.is_empty()) else {
        return Poll::Ready(Ok(0));
    };
    let mut buffer = ReadBuf::new(slice);
    let polled = Pin::new(&mut **duplex).poll_read(context, &mut buffer);
    polled.map_ok(|()| buffer.filled().len())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let connector = TcpUnixConnector::default();
        let (near, far) = tokio::join!(connector.connect(&address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn vectored_calls_use_all_slices_in_order() {
        let (mut near, mut far) = pair().await;
        let slices = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defg")];
        assert_eq!(near.write_vectored(&slices).await.unwrap(), 7);
        let mut seven = [0; 7];
        far.read_exact(&mut seven).await.unwrap();
        assert_eq!(&seven, b"abcdefg");

        far.write_all(b"12345").await.unwrap();
        let (mut one, mut two) = ([0; 2], [0; 9]);
        let slices = &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        assert_eq!(near.read_vectored(slices, true).await.unwrap(), 5);
        assert_eq!((&one, &two[..3]), (b"12", &b"345"[..]));
        far.write_all(b"6").await.unwrap();
        let slices = &mut [IoSliceMut::new(&mut one)];
        assert_eq!(near.read_vectored(slices, true).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_stream_is_stale_once_bytes_or_the_end_came() {
        let (mut near, mut far) = pair().await;
        assert!(!near.is_stale());
        far.write_all(b"?").await.unwrap();
        assert!(near.is_stale());

        let (mut near, far) = pair().await;
        drop(far);
        assert!(near.is_stale());

        let (near, far) = tokio::io::duplex(8);
        let mut near = Stream::other(near);
        assert!(!near.is_stale());
        drop(far);
        assert!(near.is_stale());
    }

    #[tokio::test]
    async fn a_name_that_leads_where_no_server_can_be_is_not_connected_to() {
        // Discovery refuses the literal; a name would be found to be the same.
        let address = Address::Tcp("0.0.0.0:1".to_owned());
        let refused = TcpUnixConnector::default().connect(&address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
    }

    #[tokio::test]
    async fn half_open_connections_are_given_up_by_the_kernel_within_fifteen_seconds() {
        let (near, _far) = pair().await;
        let Inner::Tcp(stream) = &near.inner else { panic!("connected by tcp") };
        assert_eq!(sockopt::tcp_user_timeout(stream).unwrap(), 15_000);
        assert_eq!(sockopt::tcp_keepidle(stream).unwrap(), Duration::from_secs(10));
        assert!(stream.nodelay().unwrap());
    }
}
