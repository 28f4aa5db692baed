//! Something that speaks HTTP, more or less: what a back end must bear.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What is answered to a request.
#[derive(Debug, Clone)]
pub enum FakeAnswer {
    /// An answer with this status line's end, these headers and this body.
    Answer(&'static str, Vec<String>, Vec<u8>),
    /// An answer whose body has so many bytes, all the same; it is said beforehand or not.
    Huge(u64, bool),
    /// A head, then a byte now and then, for ever.
    Endless,
    /// A head, then these bytes again and again, as fast as they are taken, for ever.
    Flood(&'static str),
    /// Head after head line, for ever.
    EndlessHead,
    /// Nothing; the connection stays.
    Nothing,
    /// The connection ends at once.
    Close,
    /// Bytes that are no HTTP.
    Garbage,
}

/// A request, as it came.
#[derive(Debug, Clone)]
pub struct FakeRequest {
    /// Method and target.
    pub line: String,
    /// The other lines of its head.
    pub head: Vec<String>,
    /// Its body.
    pub body: String,
}

type Script = dyn Fn(&FakeRequest) -> FakeAnswer + Send + Sync;

/// A server that answers as it was told, and counts.
#[derive(Debug)]
pub struct FakeHttp {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Box<Script>,
    requests: Mutex<Vec<FakeRequest>>,
    bytes: AtomicU64,
    is_over: AtomicBool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").finish_non_exhaustive()
    }
}

impl FakeHttp {
    /// Starts it.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(script: impl Fn(&FakeRequest) -> FakeAnswer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(State {
            script: Box::new(script),
            requests: Mutex::default(),
            bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let serving = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let state = serving.clone();
                // An end of the connection is no failure here.
                thread::spawn(move || _ = state.serve(&stream));
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<FakeRequest> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of bodies that were taken from it so far.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for FakeHttp {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let Some(request) = read_request(&mut reader)? else { return Ok(()) };
            let noted = request.clone();
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
            let answer = (self.script)(&request);
            if !self.answer(stream, answer)? {
                return Ok(());
            }
        }
    }

    /// True when the connection may go on.
    fn answer(&self, mut stream: &TcpStream, answer: FakeAnswer) -> std::io::Result<bool> {
        match answer {
            FakeAnswer::Answer(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
                headers.iter().for_each(|header| head += &format!("{header}\r\n"));
                stream.write_all(format!("{head}\r\n").as_bytes())?;
                stream.write_all(&body)?;
                self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                Ok(true)
            }
            FakeAnswer::Huge(bytes, is_said) => {
                let length =
                    if is_said { format!("Content-Length: {bytes}\r\n") } else { String::new() };
                let head = format!("HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\n{length}\r\n");
                stream.write_all(head.as_bytes())?;
                let part = vec![b' '; 1 << 16];
                let mut left = bytes;
                while left > 0 {
                    let size = left.min(part.len() as u64);
                    stream.write_all(&part[..size as usize])?;
                    self.bytes.fetch_add(size, Ordering::Relaxed);
                    left -= size;
                }
                Ok(false)
            }
            FakeAnswer::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\n\r\n[")?;
                self.drip(stream, b" ")
            }
            FakeAnswer::Flood(line) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                let part = line.repeat((1 << 16) / line.len());
                while !self.is_over.load(Ordering::Relaxed) {
                    stream.write_all(part.as_bytes())?;
                    self.bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
                }
                Ok(false)
            }
            FakeAnswer::EndlessHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                self.drip(stream, b"X-More: of the same\r\n")
            }
            FakeAnswer::Nothing => {
                // Until the other side has enough.
                let _ = stream.read(&mut [0; 1]);
                Ok(false)
            }
            FakeAnswer::Close => Ok(false),
            FakeAnswer::Garbage => {
                stream.write_all(b"\x16\x03\x01 SSH-2.0 \0\0\xff\xff\r\n\r\n")?;
                Ok(false)
            }
        }
    }

    fn drip(&self, mut stream: &TcpStream, part: &[u8]) -> std::io::Result<bool> {
        while !self.is_over.load(Ordering::Relaxed) {
            stream.write_all(part)?;
            crate::waiting::pace(Duration::from_millis(20));
        }
        Ok(false)
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<FakeRequest>> {
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        lines.push(line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let line = lines.remove(0);
    let line = line.trim_end_matches(" HTTP/1.1").to_owned();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(FakeRequest { line, head: lines, body }))
}
