//! One connection to one server, used by one operation at a time.
//!
//! There is no reader task and no lock: whoever has the connection writes its
//! requests and reads the answers itself, so bytes go from the socket straight
//! into the caller's buffer, and dropping the caller's future drops, that is
//! closes, the connection.
//!
//! ```text
//!  request()  request()     queue heads (nothing leaves)
//!  send(payload)            heads + payload, one vectored write
//!  receive_head()           header and table of the next answer, checked
//!  table::<Outcome>()       its rows
//!  receive_payload_into()   its bytes, piece by piece
//! ```
//!
//! Answers may come in any order: compare [`Header::request_id`].

mod handshake;
mod incoming;
mod outgoing;
mod pace;
mod share;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rampuddle_protocol::limits::{
    OUTSTANDING_BYTES_MAX, OUTSTANDING_REQUESTS_MAX, PAYLOAD_BYTES_MAX, ROWS_MAX, TABLE_BYTES_MAX,
};
use rampuddle_protocol::{Header, Incarnation, Opcode, Role, ServerHello, StoreId};
use tokio::time::Instant;

pub(crate) use self::handshake::Introduction;
use self::outgoing::Outstanding;
pub(crate) use self::outgoing::{FrameSize, answer_head_bytes};
use self::pace::{Pace, Waited};
use crate::deadline::Deadline;
use crate::error::{Error, Fate, Misbehaviour};
use crate::transport::{Address, Stream};

/// Bytes that one read may bring beyond what was asked for.
const INBOX_BYTES: usize = 16 << 10;

/// A larger buffer for tables is given back when the connection rests.
const HEAD_BYTES_KEPT: usize = 64 << 10;

/// Bytes over all connections of a server.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Both ways.
    pub(crate) moved: AtomicU64,
    /// From the server.
    pub(crate) received: AtomicU64,
}

/// A connection that shook hands.
pub(crate) struct Connection {
    stream: Stream,
    server: Arc<str>,
    address: Arc<Address>,
    greeting: Greeting,
    patience: Duration,
    deadline: Deadline,
    /// Bytes that moved, over all connections of the server.
    activity: Arc<Activity>,
    /// Connections that the client uses now, this one among them.
    in_use: Arc<AtomicUsize>,

    /// Heads that were queued and not written yet.
    out: Vec<u8>,
    /// Payload of the last of them.
    queued_payload: u64,
    /// Bytes written since the handshake; positions in [`Outstanding`] count likewise.
    written: u64,
    outstanding: Vec<Outstanding>,
    next_request_id: u64,

    /// What was read ahead lies in `inbox[inbox_start..inbox_end]`.
    inbox: Box<[u8]>,
    inbox_start: usize,
    inbox_end: usize,
    /// Header and table of the answer being read.
    head: Vec<u8>,
    header: Header,
    payload_left: u64,
    /// While a descriptor may come with the bytes, and the one that came.
    takes_descriptor: bool,
    descriptor: Option<OwnedFd>,
    pace: Pace,

    /// False while a call is under way, and for ever after one that failed or
    /// was dropped half way.
    is_intact: bool,
    failure: Option<Failure>,
}

/// What the server said in the handshake.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    /// The fingerprint of the settings that this side placed keys by when it
    /// shook hands; 0 = nothing may be placed over this connection.
    pub(crate) settings: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) store_id: StoreId,
    pub(crate) mark_age_ms: u64,
    /// The role granted, when the server wanted a token.
    pub(crate) role: Option<Role>,
    /// The server's clock less the local one, at half the round trip.
    pub(crate) clock_offset_ms: i64,
    /// How large frames may be.
    pub(crate) grants: Grants,
}

/// What the server allows, and this client has use for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Grants {
    pub(crate) rows: u32,
    pub(crate) table_bytes: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) outstanding_requests: usize,
    outstanding_bytes: u64,
}

impl Grants {
    /// Requests that this client leaves unanswered on one connection.
    const REQUESTS: u32 = 16;
    /// Payload bytes that it leaves unanswered.
    const BYTES: u64 = 32 << 20;

    fn of(hello: &ServerHello) -> Option<Self> {
        let grants = Self {
            rows: hello.rows_max.min(ROWS_MAX),
            table_bytes: hello.table_bytes_max.min(TABLE_BYTES_MAX).into(),
            payload_bytes: u64::from(hello.payload_bytes_max).min(PAYLOAD_BYTES_MAX),
            outstanding_requests: hello.outstanding_requests_max.min(Self::REQUESTS) as usize,
            outstanding_bytes: u64::from(hello.outstanding_bytes_max).min(Self::BYTES),
        };
        // One row with the longest key and the smallest value must fit.
        let is_usable = grants.rows > 0
            && grants.table_bytes >= 16 << 10
            && grants.payload_bytes >= 64 << 10
            && grants.outstanding_requests > 0;
        is_usable.then_some(grants)
    }
}

// What this client leaves unanswered is within what every server grants.
const _: () = assert!(Grants::REQUESTS <= OUTSTANDING_REQUESTS_MAX);
const _: () = assert!(Grants::BYTES <= OUTSTANDING_BYTES_MAX);

/// Why a connection is of no more use, for the server's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The network or the server failed.
    Lost,
    /// The server was silent for so long.
    Silent {
        after: Duration,
        /// What it was waited for.
        doing: &'static str,
    },
    /// The caller's own deadline passed: says little about the server.
    Deadline,
    /// The server broke the protocol.
    Misbehaved,
}

impl Connection {
    /// The server's name.
    pub(crate) fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// What the server said in the handshake.
    pub(crate) fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// How large frames may be.
    pub(crate) fn grants(&self) -> Grants {
        self.greeting.grants
    }

    /// How long the server may be silent, and when all must be done.
    pub(crate) fn set_limits(&mut self, patience: Duration, deadline: Deadline) {
        (self.patience, self.deadline) = (patience, deadline);
    }

    /// Whether another operation may use the connection: nothing failed,
    /// nothing was dropped half way, nothing is owed either way.
    pub(crate) fn is_reusable(&self) -> bool {
        self.is_intact
            && self.failure.is_none()
            && self.outstanding.is_empty()
            && self.out.is_empty()
            && self.payload_left == 0
            && self.inbox_start == self.inbox_end
    }

    /// As [`Stream::is_stale`].
    pub(crate) fn is_stale(&mut self) -> bool {
        self.stream.is_stale()
    }

    /// Why the connection failed, if it did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Prepares for the pool.
    pub(crate) fn rest(&mut self) {
        if self.head.capacity() > HEAD_BYTES_KEPT {
            self.head = Vec::new();
        }
        if self.out.capacity() > HEAD_BYTES_KEPT {
            self.out = Vec::new();
        }
        self.deadline = None;
    }

    /// Notes that the server broke the protocol; the error to return. The
    /// connection is of no more use.
    pub(crate) fn misbehaved(&mut self, what: impl Into<Misbehaviour>) -> Error {
        self.fail(Failure::Misbehaved);
        let (server, fate) = (Arc::clone(&self.server), self.fate());
        Error::PeerMisbehaved { server, what: what.into(), fate }
    }

    /// Whether anything unanswered that changes values may have been applied.
    pub(crate) fn fate(&self) -> Fate {
        let open = self.outstanding.iter();
        open.map(|request| self.fate_of_outstanding(request)).max().unwrap_or(Fate::NotSent)
    }

    /// Whether one request may have been applied, exactly: a Create whose first
    /// value has not left to its last byte is not. An id that is not open any
    /// more was answered.
    pub(crate) fn fate_of(&self, request_id: u64) -> Fate {
        let open = self.outstanding.iter().find(|request| request.id == request_id);
        open.map_or(Fate::MaybeApplied, |request| self.fate_of_outstanding(request))
    }

    fn fate_of_outstanding(&self, request: &Outstanding) -> Fate {
        if changes_values(request.opcode) && self.written >= request.decisive_at {
            return Fate::MaybeApplied;
        }
        Fate::NotSent
    }

    /// Notes bytes that moved, for whoever waits for a connection to the server.
    fn moved(&self, bytes: usize) {
        self.activity.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes bytes that came.
    fn received(&self, bytes: usize) {
        self.moved(bytes);
        self.activity.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn fail(&mut self, failure: Failure) {
        self.is_intact = false;
        self.failure.get_or_insert(failure);
    }

    fn broken(&mut self, source: io::Error) -> Error {
        self.fail(Failure::Lost);
        Error::Broken {
            server: Arc::clone(&self.server),
            address: Address::clone(&self.address),
            fate: self.fate(),
            source: Arc::new(source),
        }
    }

    fn waited(&mut self, waited: Waited, doing: &'static str) -> Error {
        let server = Arc::clone(&self.server);
        match waited {
            Waited::Patience(after) => {
                self.fail(Failure::Silent { after, doing });
                Error::TimedOut { server, after, doing, fate: self.fate() }
            }
            Waited::Deadline => {
                self.fail(Failure::Deadline);
                Error::DeadlinePassed { server, doing, fate: self.fate() }
            }
        }
    }

    /// Begins a call that may be dropped half way: see `is_intact`.
    fn begin(&mut self, doing: &'static str) -> Result<(), Error> {
        if !self.is_intact {
            return Err(self.broken(io::ErrorKind::NotConnected.into()));
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(self.waited(Waited::Deadline, doing));
        }
        self.is_intact = false;
        Ok(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut connection = formatter.debug_struct("Connection");
        connection.field("server", &self.server).field("address", &self.address);
        connection.field("outstanding", &self.outstanding.len());
        connection.field("payload_left", &self.payload_left).field("failure", &self.failure);
        connection.finish_non_exhaustive()
    }
}

/// Whether an operation changes what later reads see.
pub(crate) fn changes_values(opcode: Opcode) -> bool {
    match opcode {
        Opcode::Create
        | Opcode::Scatter
        | Opcode::Delete
        | Opcode::Publish
        | Opcode::Drop
        | Opcode::Touch => true,
        Opcode::Gather
        | Opcode::Hello
        | Opcode::Proof
        | Opcode::Cancel
        | Opcode::Hold
        | Opcode::Release
        | Opcode::Stat
        | Opcode::List
        | Opcode::Info
        | Opcode::Ping
        | Opcode::Map
        | Opcode::Unmap
        | Opcode::Share => false,
    }
}

#[cfg(test)]
mod tests;
