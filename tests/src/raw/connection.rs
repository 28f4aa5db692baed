//! A connection as bytes.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rampuddle_protocol::limits::HELLO_FRAME_BYTES;
use rampuddle_protocol::{
    ClientHello, Header, Nonce, Proof, ProofAnswer, ProofInput, Role, ServerHello, SessionId,
    Status, prove, verify,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Pid;
use socket2::{Domain, Socket, Type};

use super::answer::Answer;
use crate::seed::fresh_bytes;

/// How long an answer may take unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP on the loopback interface.
    Tcp,
    /// A unix socket.
    Unix,
}

impl Transport {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Unix];
}

#[derive(Debug, Clone)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Where a server is reached, and which cluster it is said to be of.
#[derive(Debug, Clone)]
pub struct Door {
    place: Place,
    cluster: String,
    receive_buffer: Option<usize>,
    process: Option<Pid>,
}

impl Door {
    /// A server that listens on TCP.
    pub fn tcp(address: SocketAddr, cluster: String) -> Self {
        Self { place: Place::Tcp(address), cluster, receive_buffer: None, process: None }
    }

    /// A server that listens on a unix socket.
    pub fn unix(path: PathBuf, cluster: String) -> Self {
        Self { place: Place::Unix(path), cluster, receive_buffer: None, process: None }
    }

    /// Connections whose system keeps few received bytes, so that a reader that
    /// stops is felt by the server soon.
    #[must_use]
    pub fn with_small_buffer(mut self) -> Self {
        self.receive_buffer = Some(32 * 1024);
        self
    }

    /// The same, which is this process.
    #[must_use]
    pub fn of_process(mut self, process: Pid) -> Self {
        self.process = Some(process);
        self
    }

    /// Its process, if that is known.
    pub fn process(&self) -> Option<Pid> {
        self.process
    }

    /// The same server, taken for one of another cluster.
    #[must_use]
    pub fn of_cluster(mut self, cluster: &str) -> Self {
        cluster.clone_into(&mut self.cluster);
        self
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Connects, and says nothing.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn try_connect(&self) -> io::Result<RawConnection> {
        let (domain, address) = match &self.place {
            Place::Tcp(address) => (Domain::for_address(*address), (*address).into()),
            Place::Unix(path) => (Domain::UNIX, socket2::SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect(&address)?;
        let stream = match &self.place {
            Place::Tcp(_) => {
                let stream = TcpStream::from(socket);
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Place::Unix(_) => Stream::Unix(socket.into()),
        };
        let mut connection = RawConnection { stream, cluster: self.cluster.clone() };
        connection.set_patience(PATIENCE);
        Ok(connection)
    }

    /// Connects, and says nothing.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect(&self) -> RawConnection {
        self.try_connect().unwrap_or_else(|error| panic!("cannot connect to {self:?}: {error}"))
    }
}

/// A socket of either kind.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection on which anything can be sent.
#[derive(Debug)]
pub struct RawConnection {
    stream: Stream,
    cluster: String,
}

impl RawConnection {
    /// How long a read may wait.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn set_patience(&mut self, patience: Duration) {
        let set = match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(patience)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience)),
        };
        set.expect("a time-out can be set");
    }

    /// Another handle of the same socket, to write from another thread.
    ///
    /// # Panics
    /// When the system has no descriptor left.
    pub fn another_handle(&self) -> Stream {
        match &self.stream {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().expect("a descriptor")),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().expect("a descriptor")),
        }
    }

    /// Sends all bytes.
    ///
    /// # Panics
    /// When the connection is closed.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the connection takes bytes");
    }

    /// Sends all bytes, if the server takes them.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that no more will be sent.
    pub fn end_sending(&self) {
        // The server may have closed already.
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Receives exactly so many bytes.
    ///
    /// # Panics
    /// When the connection ends before, or time runs out.
    #[track_caller]
    pub fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("bytes from the server");
        bytes
    }

    /// Receives what there is, at most so many bytes; 0 at the end.
    ///
    /// # Errors
    /// When time runs out, or the connection was reset.
    pub fn receive_some(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.read(bytes)
    }

    /// Everything until the server closes. A reset is an end too: the server
    /// closed while bytes of ours were on their way.
    ///
    /// # Panics
    /// When it does not close within `limit`.
    #[track_caller]
    pub fn receive_to_end(&mut self, limit: Duration) -> Vec<u8> {
        let (began, mut all, mut bytes) = (Instant::now(), Vec::new(), vec![0; 64 * 1024]);
        loop {
            let left = limit.saturating_sub(began.elapsed());
            assert!(!left.is_zero(), "not closed within {limit:?}, {} bytes came", all.len());
            self.set_patience(left);
            match self.stream.read(&mut bytes) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&bytes[..count]),
                Err(error) if is_patience_over(&error) => {}
                Err(error) if is_reset(&error) => return all,
                Err(error) => panic!("reading to the end: {error}"),
            }
        }
    }

    /// Exactly `count` bytes, or `None` when the server closes without a byte.
    ///
    /// # Panics
    /// When it closes in the middle, or does nothing within `limit`.
    #[track_caller]
    pub fn receive_or_end(&mut self, count: usize, limit: Duration) -> Option<Vec<u8>> {
        self.set_patience(limit);
        let mut first = [0];
        match self.stream.read(&mut first) {
            Ok(0) => None,
            Err(error) if is_reset(&error) => None,
            Ok(_) => Some([&first[..], &self.receive(count - 1)].concat()),
            Err(error) => panic!("neither bytes nor an end: {error}"),
        }
    }

    /// The next frame, whatever it is.
    ///
    /// # Panics
    /// When none comes, or it is not sound.
    #[track_caller]
    pub fn receive_answer(&mut self) -> Answer {
        self.try_receive_answer().expect("an answer")
    }

    /// The next frame.
    ///
    /// # Errors
    /// When the connection ends before it is whole, or time runs out.
    ///
    /// # Panics
    /// When it is not sound.
    #[track_caller]
    pub fn try_receive_answer(&mut self) -> io::Result<Answer> {
        let mut head = vec![0; Header::BYTES];
        self.stream.read_exact(&mut head)?;
        let header = Header::parse(&head).expect("a sound header");
        head.resize(header.head_bytes(), 0);
        self.stream.read_exact(&mut head[Header::BYTES..])?;
        header.check(&head).expect("the checksum of header and table");
        let mut payload = vec![0; header.payload_bytes as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Answer { header, table: header.table(&head).to_vec(), payload })
    }

    /// The next frame, and a descriptor that came with its first bytes.
    ///
    /// # Panics
    /// When none comes, or it is not sound, or it is longer than a page of memory.
    #[track_caller]
    pub fn receive_with_descriptor(&mut self) -> (Answer, Option<OwnedFd>) {
        let Stream::Unix(stream) = &self.stream else { return (self.receive_answer(), None) };
        let (mut bytes, mut descriptor) = (vec![0; 4096], None);
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(stream, slices, &mut control, flags).expect("a frame");
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                let mut all: Vec<OwnedFd> = descriptors.collect();
                assert!(all.len() == 1 && descriptor.is_none(), "one descriptor, once");
                descriptor = all.pop();
            }
        }
        let head = &bytes[..received.bytes];
        let header = Header::parse(head).expect("a sound header");
        assert_eq!(header.head_bytes(), head.len(), "one frame in one piece");
        header.check(head).expect("the checksum of header and table");
        (Answer { header, table: header.table(head).to_vec(), payload: Vec::new() }, descriptor)
    }

    /// Sends a client hello with this session.
    #[track_caller]
    pub fn send_hello(&mut self, session: SessionId) -> ClientHello {
        self.try_send_hello(session).expect("the connection takes a hello")
    }

    fn try_send_hello(&mut self, session: SessionId) -> io::Result<ClientHello> {
        let hello = ClientHello {
            version_min: 1,
            version_max: 1,
            nonce: Nonce(fresh_bytes()),
            session,
            ..ClientHello::default()
        };
        let mut frame = Vec::new();
        hello.frame(&self.cluster, "", &mut frame);
        self.try_send(&frame)?;
        Ok(hello)
    }

    /// Receives the server's hello: its status, the hello and the server's name.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn receive_hello(&mut self) -> (Status, ServerHello, String) {
        let head = self.receive(HELLO_FRAME_BYTES);
        read_hello(&head)
    }

    /// Shakes hands without a token; `None` when the server closes instead.
    #[track_caller]
    pub fn try_shake_hands(&mut self, session: SessionId) -> Option<(Status, ServerHello)> {
        self.try_send_hello(session).ok()?;
        let head = self.receive_or_end(HELLO_FRAME_BYTES, Duration::from_secs(10))?;
        let (status, hello, _) = read_hello(&head);
        self.set_patience(PATIENCE);
        Some((status, hello))
    }

    /// Shakes hands without a token.
    #[track_caller]
    pub fn shake_hands(&mut self, session: SessionId) -> (Status, ServerHello) {
        self.send_hello(session);
        let (status, hello, _) = self.receive_hello();
        (status, hello)
    }

    /// Shakes hands with a token: what the server says to the proof. Its own
    /// proof is checked.
    ///
    /// # Panics
    /// When the server wants no proof, or its own is wrong.
    #[track_caller]
    pub fn prove(&mut self, session: SessionId, key_id: &str, secret: &[u8], role: Role) -> Status {
        let client = self.send_hello(session);
        let (status, server, _) = self.receive_hello();
        assert_eq!((status, server.proof_wanted), (Status::Ok, 1));
        let cluster = self.cluster.clone();
        let input = ProofInput {
            client_nonce: client.nonce,
            server_nonce: server.nonce,
            session,
            incarnation: server.incarnation,
            role,
            cluster: &cluster,
        };
        let mut proof = Proof { role: role as u8, ..Proof::default() };
        proof.key_id[..key_id.len()].copy_from_slice(key_id.as_bytes());
        proof.mac = prove(secret, &input, true);
        let mut frame = Vec::new();
        proof.frame(&mut frame);
        self.send(&frame);
        let head = self.receive(HELLO_FRAME_BYTES);
        let header = Header::parse(&head).expect("a sound header");
        let answer = ProofAnswer::parse(&header, header.table(&head)).expect("a proof answer");
        let status = Status::from_number(header.status).expect("a known status");
        if status == Status::Ok {
            assert!(verify(secret, &input, false, &answer.mac), "the server's own proof is wrong");
        }
        status
    }
}

fn read_hello(head: &[u8]) -> (Status, ServerHello, String) {
    let header = Header::parse(head).expect("a sound header");
    header.check(head).expect("the checksum of the hello");
    let (hello, name) = ServerHello::parse(&header, header.table(head)).expect("a hello");
    let status = Status::from_number(header.status).expect("a known status");
    (status, hello, String::from_utf8_lossy(name).into_owned())
}

fn is_patience_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
