//! The floor: a server that answers a request of 64 bytes with so many bytes from
//! one buffer, or takes so many into one and answers 64. Nothing else is done, so
//! nobody who moves bytes by sockets can be faster, only as fast.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path as FilePath;
use std::process::ChildStdin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::case::{Case, Operation, Path, Size, Who};
use crate::child::Child;
use crate::memory::{Memory, read_all};
use crate::subject::{Processes, Reader, Subject, repeated, socket_offers, timed};
use crate::wire::{Address, Socket};

/// The command of this binary that serves.
pub(crate) const COMMAND: &str = "floor-server";

const REQUEST_BYTES: usize = 64;
const SOCKET: &str = "floor";

/// What a request asks for, in its first byte; the length follows it.
const READ: u8 = 0;
const WRITE: u8 = 1;

fn request(kind: u8, bytes: usize) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    request[0] = kind;
    request[8..16].copy_from_slice(&(bytes as u64).to_le_bytes());
    request
}

/// Serves until its input ends. Prints where it listens for TCP.
pub(crate) fn serve(largest: usize, folder: &FilePath) -> Result<()> {
    let values: Arc<[u8]> = vec![7; largest].into();
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let unix = UnixListener::bind(folder.join(SOCKET))?;
    println!("{}", tcp.local_addr()?);
    let shared = Arc::clone(&values);
    thread::spawn(move || {
        tcp.incoming().flatten().for_each(|stream| attend(Socket::tcp(stream), &shared));
    });
    thread::spawn(move || {
        unix.incoming().flatten().for_each(|stream| attend(Socket::unix(stream), &values));
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn attend(socket: io::Result<Socket>, values: &Arc<[u8]>) {
    let values = Arc::clone(values);
    // A client that is gone ends its connection, nothing else.
    thread::spawn(move || socket.and_then(|mut socket| answer(&mut socket, &values)));
}

fn answer(socket: &mut Socket, values: &[u8]) -> io::Result<()> {
    let (mut request, mut taken) = ([0; REQUEST_BYTES], Vec::new());
    loop {
        socket.read_exact(&mut request)?;
        let length = u64::from_le_bytes(request[8..16].try_into().expect("8 bytes")) as usize;
        let Some(value) = values.get(..length) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if request[0] == READ {
            socket.write_all(value)?;
            continue;
        }
        if taken.len() < length {
            taken.resize(length, 1);
        }
        socket.read_exact(&mut taken[..length])?;
        socket.write_all(&request)?;
    }
}

/// The server, and a connection for each way.
pub(crate) struct Floor {
    server: Child,
    _input: ChildStdin,
    tcp: Address,
    unix: Address,
    by_tcp: Socket,
    by_unix: Socket,
    _folder: TempDir,
}

impl Floor {
    /// Starts this binary as the server.
    pub(crate) fn start(largest: usize) -> Result<Self> {
        let folder = TempDir::new()?;
        let own = std::env::current_exe()?.to_string_lossy().into_owned();
        let words = [own, COMMAND.into(), largest.to_string(), folder.path().display().to_string()];
        let (server, input, output) = Child::piped(&words, folder.path(), "floor-log")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let tcp = line.trim().parse().with_context(|| format!("it said: {}", server.said()))?;
        let (tcp, unix) = (Address::Tcp(tcp), Address::Unix(folder.path().join(SOCKET)));
        let (by_tcp, by_unix) = (Socket::connect(&tcp)?, Socket::connect(&unix)?);
        Ok(Self { server, _input: input, tcp, unix, by_tcp, by_unix, _folder: folder })
    }

    fn socket(&mut self, path: Path) -> &mut Socket {
        if path == Path::Tcp { &mut self.by_tcp } else { &mut self.by_unix }
    }
}

impl Subject for Floor {
    fn who(&self) -> Who {
        Who::Floor
    }

    fn offers(&self) -> Vec<(Path, Operation)> {
        socket_offers([Path::Tcp, Path::Unix])
    }

    fn prepare(&mut self, _: Case, _: &Memory) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, case: Case, calls: usize, memory: &mut Memory) -> Result<Vec<Duration>> {
        let (socket, bytes) = (self.socket(case.path), case.size.0);
        match case.operation {
            Operation::Get => timed(calls, || Ok(read(socket, memory.room(bytes))?)),
            Operation::GetAndRead => timed(calls, || {
                let room = memory.room(bytes);
                read(socket, room)?;
                read_all([&*room]);
                Ok(())
            }),
            Operation::Put => timed(calls, || Ok(write(socket, &memory.value(bytes))?)),
            other => bail!("the floor has no {other}"),
        }
    }

    fn processes(&self, _: Path) -> Processes {
        Processes { servers: vec![self.server.id()], clients: Vec::new() }
    }

    fn reader(&self, path: Path, size: Size) -> Result<Box<dyn Reader>> {
        let address = if path == Path::Tcp { &self.tcp } else { &self.unix };
        Ok(Box::new(FloorReader { socket: Socket::connect(address)?, room: vec![1; size.0] }))
    }
}

fn read(socket: &mut Socket, room: &mut [u8]) -> io::Result<()> {
    socket.write_all(&request(READ, room.len()))?;
    socket.read_exact(room)
}

fn write(socket: &mut Socket, value: &[u8]) -> io::Result<()> {
    let request = request(WRITE, value.len());
    socket.send(&mut [IoSlice::new(&request), IoSlice::new(value)])?;
    socket.read_exact(&mut [0; REQUEST_BYTES])
}

struct FloorReader {
    socket: Socket,
    room: Vec<u8>,
}

impl Reader for FloorReader {
    fn read_for(&mut self, time: Duration) -> Result<(u64, Duration)> {
        repeated(time, || {
            read(&mut self.socket, &mut self.room)?;
            Ok(self.room.len())
        })
    }
}

/// One copy of memory: what the floor would be without a kernel between.
pub(crate) struct Copy;

impl Subject for Copy {
    fn who(&self) -> Who {
        Who::Copy
    }

    fn offers(&self) -> Vec<(Path, Operation)> {
        vec![(Path::Memory, Operation::Get)]
    }

    fn prepare(&mut self, _: Case, _: &Memory) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, case: Case, calls: usize, memory: &mut Memory) -> Result<Vec<Duration>> {
        timed(calls, || {
            let (from, into) = memory.both(case.size.0);
            into.copy_from_slice(std::hint::black_box(from));
            Ok(())
        })
    }

    fn processes(&self, _: Path) -> Processes {
        Processes::default()
    }

    fn reader(&self, _: Path, _: Size) -> Result<Box<dyn Reader>> {
        bail!("a copy of memory has no readers")
    }
}
