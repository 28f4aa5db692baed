//! A small server that speaks the protocol from a map, honestly or not.

#![allow(dead_code, unreachable_pub, reason = "the two users of this file need different parts")]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rampuddle_protocol::limits::{HELLO_FRAME_BYTES, PAGE_BYTES};
use rampuddle_protocol::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a server does to an answer before it leaves, given its number (the
/// hello is number 0) on its connection. `None` closes the connection; an
/// answer that became shorter is the last.
pub type Mangle = Arc<dyn Fn(usize, Vec<u8>) -> Option<Vec<u8>> + Send + Sync>;

/// How the server misbehaves.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// Answers are changed by this.
    pub mangle: Option<Mangle>,
    /// Answers wait until so many are ready, then leave in reverse order.
    pub reversed: usize,
    /// The connection is closed when so many bytes of it were read.
    pub dies_after_bytes: Option<usize>,
    /// Requests are read and never answered.
    pub is_silent: bool,
    /// The secret that proofs are checked with.
    pub secret: Option<Vec<u8>>,
    /// Its clock.
    pub clock_unix_ms: Option<u64>,
    /// Each answer but the hello leaves this much later.
    pub pause: Duration,
    /// The fingerprint of the cluster settings that it was told.
    pub settings: u64,
}

#[derive(Default, Clone)]
struct Value {
    bytes: Vec<u8>,
    filled: usize,
    version: Version,
    tag: Vec<u8>,
    flags: RowFlags,
    crc32c: u32,
    set: SetId,
}

#[derive(Default)]
struct Reservation {
    row: CreateRow,
    key: Vec<u8>,
    tag: Vec<u8>,
    bytes: Vec<u8>,
}

/// What all connections share.
pub struct Shared {
    pub name: String,
    pub cluster: String,
    pub behaviour: Mutex<Behaviour>,
    pub incarnation: Mutex<Incarnation>,
    values: Mutex<BTreeMap<Vec<u8>, Value>>,
    tombstones: Mutex<BTreeMap<Vec<u8>, Version>>,
    reservations: Mutex<HashMap<u64, Reservation>>,
    /// Connections accepted.
    pub accepted: AtomicUsize,
    /// Connections that ended.
    pub closed: watch::Sender<usize>,
    /// Ends all connections.
    pub hang_up: watch::Sender<()>,
    /// Frames read.
    pub frames: watch::Sender<usize>,
    /// Gathers among them.
    pub gathers: AtomicUsize,
    /// The deadline of the last of them.
    pub deadline_ms: AtomicU32,
}

/// A server on a port of its own; stops when dropped.
pub struct FakeServer {
    pub address: String,
    pub shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

impl FakeServer {
    pub async fn start(name: &str) -> Self {
        Self::with(name, Behaviour::default()).await
    }

    pub async fn with(name: &str, behaviour: Behaviour) -> Self {
        Self::at("127.0.0.1:0", name, behaviour).await
    }

    pub async fn at(address: &str, name: &str, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::new(name, behaviour));
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(Arc::clone(&shared).serve(stream));
                }
            }
        });
        Self { address, shared, task: Some(task) }
    }

    pub async fn on_unix(name: &str, path: &std::path::Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::new(Shared::new(name, Behaviour::default()));
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(Arc::clone(&shared).serve(stream));
                }
            }
        });
        Self { address: path.display().to_string(), shared, task: Some(task) }
    }

    /// `NAME=HOST:PORT`, as `static:` URLs have it.
    pub fn entry(&self) -> String {
        format!("{}={}", self.shared.name, self.address)
    }

    /// Waits until so many connections ended.
    pub async fn closed(&self, connections: usize) {
        let mut closed = self.shared.closed.subscribe();
        closed.wait_for(|closed| *closed >= connections).await.unwrap();
    }

    /// Stops listening and ends all connections.
    pub async fn stop(mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    /// Ends all connections and waits until they have.
    pub async fn hang_up(&self) {
        self.shared.hang_up.send_replace(());
        self.closed(self.accepted()).await;
    }

    /// Waits until so many frames were read, hellos included.
    pub async fn frames(&self, frames: usize) {
        let mut seen = self.shared.frames.subscribe();
        seen.wait_for(|seen| *seen >= frames).await.unwrap();
    }

    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// Loses all values, as a restart does.
    pub fn forget_all(&self) {
        self.shared.values.lock().unwrap().clear();
    }

    pub fn keys(&self) -> usize {
        self.shared.values.lock().unwrap().len()
    }
}

struct Frame {
    header: Header,
    table: Vec<u8>,
    payload: Vec<u8>,
}

impl Frame {
    fn rows<R: Row>(&self) -> Vec<(R, Vec<u8>, Vec<u8>)> {
        let table = Table::<R>::parse(&self.header, &self.table).unwrap();
        table.iter().map(|(row, key, tag)| (row, key.to_vec(), tag.to_vec())).collect()
    }
}

impl Shared {
    pub fn new(name: &str, behaviour: Behaviour) -> Self {
        Self {
            name: name.to_owned(),
            cluster: "default".to_owned(),
            behaviour: Mutex::new(behaviour),
            incarnation: Mutex::new(Incarnation([7; 16])),
            values: Mutex::default(),
            tombstones: Mutex::default(),
            reservations: Mutex::default(),
            accepted: AtomicUsize::new(0),
            closed: watch::Sender::new(0),
            hang_up: watch::Sender::new(()),
            frames: watch::Sender::new(0),
            gathers: AtomicUsize::new(0),
            deadline_ms: AtomicU32::new(0),
        }
    }

    pub async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let mut hang_up = self.hang_up.subscribe();
        tokio::select! {
            _ = self.converse(stream) => {}
            _ = hang_up.changed() => {}
        }
        self.closed.send_modify(|closed| *closed += 1);
    }

    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut sent = 0;
        let hello = self.read_frame(&mut stream).await?;
        let (client, cluster, server) = ClientHello::parse(&hello.header, &hello.table).unwrap();
        let behaviour = self.behaviour.lock().unwrap().clone();
        let agrees = [0, client.settings].contains(&behaviour.settings) || client.settings == 0;
        let is_mine =
            cluster == self.cluster.as_bytes() && server == self.name.as_bytes() && agrees;
        let status = if is_mine { Status::Ok } else { Status::Mismatch };
        let answer = self.hello(&behaviour);
        let mut out = Vec::new();
        answer.frame(status, &self.name, &mut out);
        send(&mut stream, &behaviour, &mut sent, out).await?;
        if let Some(secret) = &behaviour.secret {
            self.prove(&mut stream, secret, &client, &answer).await?;
        }
        let mut waiting = Vec::new();
        loop {
            let frame = self.read_frame(&mut stream).await?;
            let behaviour = self.behaviour.lock().unwrap().clone();
            if behaviour.is_silent {
                continue;
            }
            waiting.push(self.answer(&frame));
            if waiting.len() >= behaviour.reversed {
                for answer in waiting.drain(..).rev() {
                    send(&mut stream, &behaviour, &mut sent, answer).await?;
                }
            }
        }
    }

    fn hello(&self, behaviour: &Behaviour) -> ServerHello {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        ServerHello {
            version: 1,
            proof_wanted: behaviour.secret.is_some().into(),
            rows_max: limits::ROWS_MAX,
            nonce: Nonce([9; 16]),
            incarnation: *self.incarnation.lock().unwrap(),
            clock_unix_ms: behaviour.clock_unix_ms.unwrap_or(now.as_millis() as u64),
            mark_age_ms: u64::MAX,
            table_bytes_max: limits::TABLE_BYTES_MAX,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u32,
            outstanding_requests_max: limits::OUTSTANDING_REQUESTS_MAX,
            outstanding_bytes_max: limits::OUTSTANDING_BYTES_MAX as u32,
            settings: behaviour.settings,
            ..ServerHello::default()
        }
    }

    async fn prove(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        secret: &[u8],
        client: &ClientHello,
        server: &ServerHello,
    ) -> io::Result<()> {
        let frame = self.read_frame(stream).await?;
        let proof = Proof::parse(&frame.header, &frame.table).unwrap();
        let input = ProofInput {
            client_nonce: client.nonce,
            server_nonce: server.nonce,
            session: client.session,
            incarnation: server.incarnation,
            role: Role::from_number(proof.role).unwrap(),
            cluster: &self.cluster,
        };
        let is_good = verify(secret, &input, true, &proof.mac);
        let status = if is_good { Status::Ok } else { Status::Denied };
        let mac = prove(secret, &input, false);
        let mut out = Vec::new();
        ProofAnswer { role: proof.role, mac, ..Default::default() }.frame(status, &mut out);
        stream.write_all(&out).await?;
        if is_good { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    async fn read_frame(&self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
        let mut head = vec![0; Header::BYTES];
        stream.read_exact(&mut head).await?;
        let header = Header::parse(&head).expect("the client sends sound frames");
        head.resize(header.head_bytes(), 0);
        stream.read_exact(&mut head[Header::BYTES..]).await?;
        header.check(&head).expect("the client sends sound frames");
        let dies = self.behaviour.lock().unwrap().dies_after_bytes;
        let is_hello = header.opcode == Opcode::Hello as u8;
        let is_gather = header.opcode == Opcode::Gather as u8;
        self.gathers.fetch_add(is_gather.into(), Ordering::SeqCst);
        if let Some(bytes) =
            dies.filter(|bytes| !is_hello && (*bytes as u64) < header.payload_bytes)
        {
            stream.read_exact(&mut vec![0; bytes]).await?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut payload = vec![0; header.payload_bytes as usize];
        stream.read_exact(&mut payload).await?;
        self.frames.send_modify(|frames| *frames += 1);
        self.deadline_ms.store(header.deadline_ms, Ordering::SeqCst);
        let table = header.table(&head).to_vec();
        assert!(!is_hello || head.len() == HELLO_FRAME_BYTES);
        Ok(Frame { header, table, payload })
    }

    fn answer(&self, frame: &Frame) -> Vec<u8> {
        match frame.header.operation().expect("the client sends known operations") {
            Opcode::Create => {
                let mut rest = &frame.payload[..];
                outcomes(frame, |row: CreateRow, key, tag| {
                    let (bytes, tail) = rest.split_at(row.payload_bytes() as usize);
                    rest = tail;
                    (self.create(row, key, tag, bytes), Vec::new())
                })
            }
            Opcode::Publish => outcomes(frame, |row: PublishRow, _, _| {
                let held = self.reservations.lock().unwrap().remove(&row.handle);
                let Some(mut held) = held else {
                    return (Outcome::of(Status::Expired), Vec::new());
                };
                if (held.bytes.len() as u64) < row.value_bytes {
                    return (Outcome::of(Status::Incomplete), Vec::new());
                }
                held.row.flags = held.row.flags.without(RowFlags::RESERVE) | row.flags;
                (held.row.length, held.row.crc32c) = (row.length, row.crc32c);
                (self.create(held.row, held.key, held.tag, &held.bytes), Vec::new())
            }),
            Opcode::Scatter => {
                let mut rest = &frame.payload[..];
                outcomes(frame, |row: ScatterRow, key, _| {
                    let (bytes, tail) = rest.split_at(row.value_bytes as usize);
                    rest = tail;
                    (self.scatter(&row, &key, bytes), Vec::new())
                })
            }
            Opcode::Gather => self.gather(frame),
            Opcode::Delete => outcomes(frame, |row: DeleteRow, key, _| {
                self.tombstones.lock().unwrap().insert(key.clone(), row.version);
                match self.values.lock().unwrap().remove(&key) {
                    Some(value) => (displaced(&value), value.tag),
                    None => (Outcome::of(Status::NotFound), Vec::new()),
                }
            }),
            Opcode::Drop => outcomes(frame, |row: DropRow, key, _| {
                let mut values = self.values.lock().unwrap();
                let status = match values.get(&key) {
                    Some(value) if value.version == row.version => Status::Ok,
                    Some(_) => Status::Mismatch,
                    None => Status::NotFound,
                };
                if status == Status::Ok {
                    values.remove(&key);
                }
                (Outcome::of(status), Vec::new())
            }),
            Opcode::Hold => self.on_sets(frame, |row: HoldRow| row.set),
            Opcode::Release => self.on_sets(frame, |row: ReleaseRow| row.set),
            Opcode::Touch => self.on_sets(frame, |row: TouchRow| row.set),
            Opcode::Stat => self.stat(frame),
            Opcode::List => self.list(frame),
            Opcode::Info => {
                let incarnation = *self.incarnation.lock().unwrap();
                let row = InfoRow { incarnation, values: self.keys(), ..InfoRow::default() };
                table(frame, |table| table.push(&row, self.name.as_bytes(), b""))
            }
            Opcode::Ping | Opcode::Cancel | Opcode::Hello | Opcode::Proof => table(frame, |_| {}),
            // A server that hands out nothing.
            Opcode::Share | Opcode::Map | Opcode::Unmap => {
                let mut out = Vec::new();
                TableBuilder::answer(&mut out, &frame.header, Status::Unsupported).finish(0);
                out
            }
        }
    }

    fn keys(&self) -> u64 {
        self.values.lock().unwrap().len() as u64
    }

    fn create(&self, row: CreateRow, key: Vec<u8>, tag: Vec<u8>, bytes: &[u8]) -> Outcome {
        if row.flags.has(RowFlags::RESERVE) {
            let mut reservations = self.reservations.lock().unwrap();
            let handle = reservations.len() as u64 + 1;
            reservations.insert(handle, Reservation { row, key, tag, bytes: Vec::new() });
            return Outcome { detail: handle, ..Outcome::of(Status::Ok) };
        }
        let (bytes, trailer) = bytes.split_at(bytes.len() - row.trailer_bytes());
        let (stated, tag) = match trailer {
            [] => (row.crc32c, tag),
            trailer => match Trailer::decode(trailer) {
                Some(trailer) => (trailer.crc32c, trailer.tag.to_vec()),
                None => return Outcome::of(Status::Corrupt),
            },
        };
        if row.flags.has(RowFlags::CHECKSUM) && crc32c(bytes) != stated {
            return Outcome::of(Status::Corrupt);
        }
        let mut values = self.values.lock().unwrap();
        let before = values.get(&key).cloned();
        if let Some(before) = before.as_ref().filter(|_| !row.flags.has(RowFlags::REPLACE)) {
            return Outcome { version: before.version, ..Outcome::of(Status::Exists) };
        }
        let length = row.length.next_multiple_of(1).max(PAGE_BYTES);
        let mut stored = bytes.to_vec();
        stored.resize(length as usize, 0);
        let value = Value {
            bytes: stored,
            filled: bytes.len(),
            version: row.version,
            tag,
            flags: row.flags.among(RowFlags::STORED),
            crc32c: stated,
            set: row.set,
        };
        values.insert(key, value);
        let outcome = before.map_or_else(Outcome::default, |before| displaced(&before));
        Outcome { length, ..outcome }
    }

    fn scatter(&self, row: &ScatterRow, key: &[u8], bytes: &[u8]) -> Outcome {
        let length = row.value_bytes;
        if row.handle != 0 {
            let mut reservations = self.reservations.lock().unwrap();
            let Some(held) = reservations.get_mut(&row.handle) else {
                return Outcome::of(Status::Expired);
            };
            if held.bytes.len() as u64 != row.offset {
                return Outcome::of(Status::BadRange);
            }
            held.bytes.extend_from_slice(bytes);
            return Outcome { length, ..Outcome::default() };
        }
        let mut values = self.values.lock().unwrap();
        let Some(value) = values.get_mut(key) else { return Outcome::of(Status::NotFound) };
        let start = (row.offset as usize).min(value.bytes.len());
        let end = (start + bytes.len()).min(value.bytes.len());
        value.bytes[start..end].copy_from_slice(&bytes[..end - start]);
        value.filled = value.filled.max(end);
        let version = value.version;
        Outcome { length: (end - start) as u64, version, ..Outcome::default() }
    }

    fn gather(&self, frame: &Frame) -> Vec<u8> {
        let mut payload = Vec::new();
        let values = self.values.lock().unwrap();
        let mut out = outcomes_with_payload(frame, |row: GatherRow, key, _| {
            let Some(value) = values.get(&key) else {
                return (Outcome::of(Status::NotFound), Vec::new(), 0);
            };
            if !row.if_version.is_none() && row.if_version != value.version {
                let version = value.version;
                return (Outcome { version, ..Outcome::of(Status::Mismatch) }, Vec::new(), 0);
            }
            let is_filled = row.flags.has(RowFlags::FILLED);
            let end = if is_filled { value.filled } else { value.bytes.len() };
            let start = (row.offset as usize).min(end);
            let end = end.min(start.saturating_add(row.length as usize));
            payload.extend_from_slice(&value.bytes[start..end]);
            let outcome = Outcome {
                length: (end - start) as u64,
                detail: value.bytes.len() as u64,
                version: value.version,
                crc32c: value.crc32c,
                flags: value.flags,
                set: value.set,
                ..Outcome::default()
            };
            let tag = if row.flags.has(RowFlags::TAG) { value.tag.clone() } else { Vec::new() };
            (outcome, tag, (end - start) as u64)
        });
        out.extend_from_slice(&payload);
        out
    }

    fn on_sets<R: Row>(&self, frame: &Frame, set: impl Fn(R) -> SetId) -> Vec<u8> {
        let values = self.values.lock().unwrap();
        outcomes(frame, |row, _, _| {
            let set = set(row);
            let count = values.values().filter(|value| value.set == set).count() as u64;
            let status = if count > 0 { Status::Ok } else { Status::NotFound };
            (Outcome { detail: count, ..Outcome::of(status) }, Vec::new())
        })
    }

    fn stat(&self, frame: &Frame) -> Vec<u8> {
        assert!(frame.header.rows <= limits::STAT_ROWS_MAX);
        let values = self.values.lock().unwrap();
        table(frame, |table| {
            for (_, key, _) in frame.rows::<StatRequestRow>() {
                match values.get(&key) {
                    Some(value) => table.push(&stat_row(value), &key, &value.tag),
                    None => {
                        let status = Status::NotFound as u8;
                        table.push(&StatRow { status, ..StatRow::default() }, &key, b"");
                    }
                }
            }
        })
    }

    fn list(&self, frame: &Frame) -> Vec<u8> {
        let values = self.values.lock().unwrap();
        let (row, prefix, cursor) = frame.rows::<ListRow>().remove(0);
        let most = if row.rows_max == 0 { 100 } else { row.rows_max.min(100) } as usize;
        let after = values.range(cursor.clone()..).filter(|(key, _)| **key > cursor);
        let found: Vec<_> = after.filter(|(key, _)| key.starts_with(&prefix)).collect();
        table(frame, |table| {
            for (key, value) in found.iter().take(most) {
                table.push(&stat_row(value), key, &value.tag);
            }
            if found.len() > most {
                let status = Status::Incomplete as u8;
                table.push(&StatRow { status, ..StatRow::default() }, found[most - 1].0, b"");
            }
        })
    }
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    behaviour: &Behaviour,
    sent: &mut usize,
    answer: Vec<u8>,
) -> io::Result<()> {
    let whole = answer.len();
    let answer = match &behaviour.mangle {
        Some(mangle) => mangle(*sent, answer).ok_or(io::ErrorKind::ConnectionReset)?,
        None => answer,
    };
    if *sent > 0 {
        tokio::time::sleep(behaviour.pause).await;
    }
    *sent += 1;
    stream.write_all(&answer).await?;
    if answer.len() < whole { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
}

fn displaced(value: &Value) -> Outcome {
    Outcome {
        flags: RowFlags::DISPLACED,
        version: value.version,
        set: value.set,
        ..Outcome::default()
    }
}

fn stat_row(value: &Value) -> StatRow {
    StatRow {
        flags: value.flags,
        length: value.bytes.len() as u64,
        filled: value.filled as u64,
        version: value.version,
        crc32c: value.crc32c,
        set: value.set,
        ..StatRow::default()
    }
}

fn table(frame: &Frame, fill: impl FnOnce(&mut TableBuilder<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut table = TableBuilder::answer(&mut out, &frame.header, Status::Ok);
    fill(&mut table);
    table.finish(0);
    out
}

fn outcomes<R: Row>(
    frame: &Frame,
    mut handle: impl FnMut(R, Vec<u8>, Vec<u8>) -> (Outcome, Vec<u8>),
) -> Vec<u8> {
    outcomes_with_payload(frame, |row, key, tag| {
        let (outcome, tag) = handle(row, key, tag);
        (outcome, tag, 0)
    })
}

fn outcomes_with_payload<R: Row>(
    frame: &Frame,
    mut handle: impl FnMut(R, Vec<u8>, Vec<u8>) -> (Outcome, Vec<u8>, u64),
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut table = TableBuilder::answer(&mut out, &frame.header, Status::Ok);
    let mut payload = 0;
    for (row, key, tag) in frame.rows::<R>() {
        let (outcome, tag, bytes) = handle(row, key, tag);
        table.push(&outcome, b"", &tag);
        payload += bytes;
    }
    table.finish(payload);
    out
}
