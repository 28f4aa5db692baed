//! What can go wrong between a client and its servers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rampuddle_discovery::DiscoveryError;
use rampuddle_protocol::limits::{CLOCK_BOUND_MS, KEY_BYTES_MAX, NAME_BYTES_MAX};
use rampuddle_protocol::{FramingError, Opcode, Status, TableError, Version};

use crate::transport::Address;

/// Whether a request that failed may have been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// The server cannot have applied it: the bytes that would let it never left.
    NotSent,
    /// The server may have applied it; only asking tells.
    MaybeApplied,
}

/// A failure. Clones share their cause. That one row was refused by a server
/// that works is not an error: it is the row's [`Status`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made. Nothing was applied: try another server,
    /// or later.
    #[error("cannot reach server \"{server}\" at {address}: {source}")]
    Unreachable {
        /// The server.
        server: Arc<str>,
        /// The last address tried.
        address: Address,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// Discovery knows no address of the server: it never was alive while this
    /// client looked.
    #[error("server \"{server}\" is not alive: discovery gives no address for it")]
    NoAddress {
        /// The server.
        server: Arc<str>,
    },
    /// A connection broke. `fate` says whether the request may be applied.
    #[error("the connection to server \"{server}\" at {address} broke: {source}")]
    Broken {
        /// The server.
        server: Arc<str>,
        /// Its address.
        address: Address,
        /// What may have become of the request.
        fate: Fate,
        /// How it broke.
        source: Arc<io::Error>,
    },
    /// The server did not move a byte for the client's patience, or moved too
    /// few, or the deadline passed.
    #[error("server \"{server}\" gave no progress within {after:?} while {doing}")]
    TimedOut {
        /// The server.
        server: Arc<str>,
        /// The time that it was given.
        after: Duration,
        /// What the client waited for.
        doing: &'static str,
        /// What may have become of the request.
        fate: Fate,
    },
    /// The caller's deadline passed. `fate` says whether the request may be applied.
    #[error("the deadline passed while server \"{server}\" was {doing}")]
    DeadlinePassed {
        /// The server.
        server: Arc<str>,
        /// What the client waited for.
        doing: &'static str,
        /// What may have become of the request.
        fate: Fate,
    },
    /// The server broke the protocol: do not trust this answer, tell its operator.
    #[error("server \"{server}\" broke the protocol: {what}")]
    PeerMisbehaved {
        /// The server.
        server: Arc<str>,
        /// What was wrong.
        what: Misbehaviour,
        /// What may have become of the request.
        fate: Fate,
    },
    /// The server refused a handshake or a whole frame.
    #[error("server \"{server}\" refused {what} with {status}{}", remedy(*status))]
    Refused {
        /// The server.
        server: Arc<str>,
        /// What it refused.
        what: &'static str,
        /// Why.
        status: Status,
    },
    /// Another server, or another cluster's, has that address: fix the
    /// registry or the cluster's name.
    #[error("{address} is not server \"{server}\" of cluster \"{cluster}\"; it calls itself \"{}\"", .found.escape_debug())]
    WrongServer {
        /// The server wanted.
        server: Arc<str>,
        /// The cluster wanted.
        cluster: Arc<str>,
        /// The address.
        address: Address,
        /// The name found, cut at 64 bytes.
        found: String,
    },
    /// The server is of another cluster: fix the cluster's name or the registry.
    #[error("{address} is server \"{server}\" of another cluster than \"{cluster}\"")]
    WrongCluster {
        /// The server.
        server: Arc<str>,
        /// The cluster wanted.
        cluster: Arc<str>,
        /// The address.
        address: Address,
    },
    /// The server was told other cluster settings than this client read: the
    /// two would look for keys in different places. Have both read the same
    /// registry.
    #[error(
        "server \"{server}\" was told other cluster settings than this client read: {read} \
         (fingerprint {expected:#018x}, the server's is {found:#018x}); \
         let client and server use the same discovery, or the same settings in their lists"
    )]
    OtherSettings {
        /// The server.
        server: Arc<str>,
        /// What the client read, in words.
        read: Arc<str>,
        /// The fingerprint of that.
        expected: u64,
        /// The fingerprint of what the server was told.
        found: u64,
    },
    /// The server wants a token, and the client has none: set one.
    #[error("server \"{server}\" wants a token, and none is set: use the servers' token file")]
    TokenWanted {
        /// The server.
        server: Arc<str>,
    },
    /// A token is set, but the server proved no knowledge of it: it may be an
    /// impostor.
    #[error(
        "server \"{server}\" did not prove that it knows the token: it wants none, or another; \
         use the servers' token file, or no token when they have none"
    )]
    Unproven {
        /// The server.
        server: Arc<str>,
    },
    /// The server does not accept the token, or not for this role.
    #[error(
        "server \"{server}\" denies access to the token \"{key_id}\": it knows none of that \
         name, secret and role; use a line of the servers' token file"
    )]
    Denied {
        /// The server.
        server: Arc<str>,
        /// The token's key id.
        key_id: String,
    },
    /// The server's clock is too far off the other servers'. Set its clock.
    #[error(
        "the clock of server \"{server}\" is off the other servers' by {off_by_ms} ms, more than 5 min: set it"
    )]
    ClockOff {
        /// The server.
        server: Arc<str>,
        /// Ahead when positive.
        off_by_ms: i64,
    },
    /// The version that this client drew for a write lies further ahead of the
    /// server's clock than it accepts, also after the client compared its clock
    /// with the servers'. Nothing was applied: set the clock that is wrong.
    #[error(
        "the write's version lies {ahead_by_ms} ms ahead of the clock of server \"{server}\", \
         which accepts {CLOCK_BOUND_MS} ms: set the clocks of this machine and of the servers"
    )]
    ClockAhead {
        /// The server.
        server: Arc<str>,
        /// How far ahead of its clock, as the client sees it.
        ahead_by_ms: i64,
    },
    /// No member counts for placement: start a server.
    #[error("the cluster \"{cluster}\" has no server that takes values")]
    NoServers {
        /// The cluster.
        cluster: Arc<str>,
    },
    /// The cluster has no member of that name.
    #[error("\"{}\" is not a member of the cluster", .name.escape_debug())]
    NotAMember {
        /// The name.
        name: String,
    },
    /// Discovery failed.
    #[error("discovery failed: {0}")]
    Discovery(#[source] Arc<DiscoveryError>),
    /// The cluster is placed by a strategy that this client lacks: update it.
    #[error(
        "the cluster places keys by \"{strategy}\" over {slots} slots, which this client cannot do"
    )]
    UnsupportedPlacement {
        /// The strategy.
        strategy: String,
        /// The number of slots.
        slots: u32,
    },
    /// A key of impossible length.
    #[error("a key of {bytes} bytes: expected 1 to {KEY_BYTES_MAX}")]
    BadKey {
        /// Its length.
        bytes: usize,
    },
    /// The key belongs to the object layer: raw writes to it would break objects.
    #[error(
        "keys that begin with the byte {first:#04x} belong to objects: expected less than 0xf8"
    )]
    ReservedKey {
        /// The first byte.
        first: u8,
    },
    /// Something is longer than it may be.
    #[error("{what} of {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An object's name of impossible length.
    #[error("an object's name of {bytes} bytes: expected 1 to {NAME_BYTES_MAX}")]
    BadName {
        /// Its length.
        bytes: usize,
    },
    /// Whether there is such an object cannot be said: a server that may have it
    /// gave no answer. Try again when it is back.
    #[error("whether \"{}\" exists is unknown: {}", .name.escape_ascii(), .problems.join("; "))]
    Unknown {
        /// The object.
        name: Arc<[u8]>,
        /// What each of those servers said.
        problems: Vec<String>,
    },
    /// The object is there, but some of its bytes could not be read, whole and
    /// right, from any server.
    #[error("\"{}\" cannot be read: {}", .name.escape_ascii(), .problems.join("; "))]
    Unreadable {
        /// The object.
        name: Arc<[u8]>,
        /// What went wrong, a line each.
        problems: Vec<String>,
    },
    /// The object was replaced again and again while it was looked at, or it was
    /// replaced or deleted while it was handed out, and the rest of it could not
    /// be read any more. Try again.
    #[error("\"{}\" was replaced or deleted while it was read, try again: {}", .name.escape_ascii(), .problems.join("; "))]
    Unsettled {
        /// The object.
        name: Arc<[u8]>,
        /// What went wrong, a line each.
        problems: Vec<String>,
    },
    /// The object exists, and the caller asked not to replace one.
    #[error("\"{}\" exists already", .name.escape_ascii())]
    Exists {
        /// The object.
        name: Arc<[u8]>,
    },
    /// The object is not of the version that the caller wanted to replace:
    /// nothing was written. Read it again, and try with what was found.
    #[error("\"{}\" was not written: {}", .name.escape_ascii(), held_now(*held))]
    Changed {
        /// The object.
        name: Arc<[u8]>,
        /// The version that was found in its place; `None` = there is none.
        held: Option<Version>,
    },
    /// The write was not applied anywhere.
    #[error("\"{}\" was not written: {}", .name.escape_ascii(), .problems.join("; "))]
    Failed {
        /// The object.
        name: Arc<[u8]>,
        /// What went wrong, a line each.
        problems: Vec<String>,
    },
    /// The write may have been applied: a server took it and gave no answer.
    #[error("whether \"{}\" was written is unknown: {}", .name.escape_ascii(), .problems.join("; "))]
    Indeterminate {
        /// The object.
        name: Arc<[u8]>,
        /// What went wrong, a line each.
        problems: Vec<String>,
    },
    /// The caller's own source or destination failed.
    #[error("{what}: {source}")]
    Local {
        /// What failed.
        what: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A blocking call on a thread of an async runtime, all of whose tasks would
    /// stand still meanwhile. Nothing was done.
    #[error(
        "a call of rampuddle_client::blocking waits, and this thread belongs to an async runtime: \
         use rampuddle_client::Client here, or a thread of your own"
    )]
    WithinRuntime,
    /// Options that cannot work: fix the settings.
    #[error("the option {option} is {found}: expected {expected}")]
    BadOption {
        /// Which.
        option: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
}

/// What a status wants of whoever runs the cluster.
fn remedy(status: Status) -> &'static str {
    match status {
        Status::NoSpace => ": its pool is full; remove objects, or add servers or memory",
        Status::NoIndex => ": it has too many values; remove objects, or add servers or memory",
        _ => "",
    }
}

/// What was found instead of the version wanted.
fn held_now(held: Option<Version>) -> String {
    match held {
        Some(version) => format!("its version is {version} now, read it again"),
        None => "it is not there any more".to_owned(),
    }
}

/// How a server broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// Its bytes are no frame.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// A table that does not add up.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A request where an answer must be.
    #[error("a frame that is no answer")]
    NotAnAnswer,
    /// An answer to nothing that was asked.
    #[error("an answer to request {request_id}, which is not open")]
    UnknownRequest {
        /// The id.
        request_id: u64,
    },
    /// An answer to another operation.
    #[error("operation {found} in the answer to {wanted:?}")]
    WrongOperation {
        /// What was asked.
        wanted: Opcode,
        /// What was answered.
        found: u8,
    },
    /// An answer with more or fewer rows than asked.
    #[error("{found} rows in an answer to {wanted}")]
    WrongRows {
        /// How many were asked.
        wanted: u32,
        /// How many came.
        found: u32,
    },
    /// An answer with more payload than asked.
    #[error("{found} bytes of payload in an answer to at most {limit}")]
    TooMuchPayload {
        /// What may come.
        limit: u64,
        /// What was announced.
        found: u64,
    },
    /// Rows whose bytes do not add up, or with more than was asked.
    #[error("rows of {rows} bytes in a payload of {payload}")]
    WrongShares {
        /// By the rows.
        rows: u64,
        /// By the header.
        payload: u64,
    },
    /// Bytes that nobody asked for.
    #[error("bytes that nobody asked for")]
    UnexpectedBytes,
    /// A handshake frame that makes no sense.
    #[error("a handshake that makes no sense")]
    Handshake,
    /// A listing that does not go forward, or with more than was asked.
    #[error("a listing that is not in order, or too long")]
    Listing,
    /// Values that lie outside of its pool, or an answer that says of none where it
    /// lies.
    #[error("values that lie nowhere in its pool")]
    Places,
    /// A pool that is handed over without a descriptor.
    #[error("a pool without a descriptor")]
    NoDescriptor,
    /// An answer about another key than was asked about.
    #[error("an answer about another key")]
    OtherKey,
    /// It says that this side broke the protocol.
    #[error("it takes our frame for broken ({0})")]
    Complaint(Status),
}

impl Error {
    /// Whether the request may have been applied all the same.
    pub fn fate(&self) -> Fate {
        match self {
            Self::Broken { fate, .. }
            | Self::TimedOut { fate, .. }
            | Self::DeadlinePassed { fate, .. }
            | Self::PeerMisbehaved { fate, .. } => *fate,
            _ => Fate::NotSent,
        }
    }

    /// The same error with another fate, where the variant has one.
    #[must_use]
    pub fn with_fate(mut self, new: Fate) -> Self {
        match &mut self {
            Self::Broken { fate, .. }
            | Self::TimedOut { fate, .. }
            | Self::DeadlinePassed { fate, .. }
            | Self::PeerMisbehaved { fate, .. } => *fate = new,
            _ => {}
        }
        self
    }

    /// Whether the same request may succeed when it is sent again soon: the
    /// connection broke or was refused. Time-outs are not: the caller has
    /// waited already.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => source.kind() != io::ErrorKind::TimedOut,
            Self::Broken { .. } => true,
            Self::Refused { status, .. } => *status == Status::Busy,
            _ => false,
        }
    }

    /// Whether a server that works refuses this client as it is: nothing was
    /// done, and trying again does not help before the token, the cluster's name
    /// or its settings are others.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::WrongCluster { .. }
            | Self::OtherSettings { .. }
            | Self::TokenWanted { .. }
            | Self::Unproven { .. }
            | Self::Denied { .. } => true,
            Self::Refused { status, .. } => *status == Status::Denied,
            _ => false,
        }
    }
}

impl Error {
    /// Whether it is the word of the server that was asked: it lives, and this
    /// client cannot use it, or not now.
    pub(crate) fn is_from_server(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::OtherSettings { .. }
                | Self::TokenWanted { .. }
                | Self::Denied { .. }
                | Self::ClockOff { .. }
        )
    }

    /// The refusal among the failures of servers, if there is one: of an
    /// operation that nobody has done any part of, it says more than the others.
    pub(crate) fn refusal_among<'e>(
        failures: impl IntoIterator<Item = &'e Self>,
    ) -> Option<&'e Self> {
        failures.into_iter().find(|error| error.is_refusal())
    }

    /// The error of a row or frame that a server refused with this status.
    pub(crate) fn refused(server: &Arc<str>, what: &'static str, status: Status) -> Self {
        Self::Refused { server: Arc::clone(server), what, status }
    }

    /// A failure of the caller's own source or destination.
    pub(crate) fn local(what: impl Into<String>, source: io::Error) -> Self {
        Self::Local { what: what.into(), source: Arc::new(source) }
    }
}

impl From<DiscoveryError> for Error {
    fn from(error: DiscoveryError) -> Self {
        Self::Discovery(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_open_connections_leave_doubt() {
        let server: Arc<str> = "a".into();
        let timed_out = Error::TimedOut {
            server: server.clone(),
            after: Duration::from_secs(5),
            doing: "reading an answer",
            fate: Fate::NotSent,
        };
        assert_eq!(timed_out.clone().with_fate(Fate::MaybeApplied).fate(), Fate::MaybeApplied);
        assert_eq!(timed_out.fate(), Fate::NotSent);
        let unknown = Error::NoAddress { server };
        assert_eq!(unknown.with_fate(Fate::MaybeApplied).fate(), Fate::NotSent);
    }

    #[test]
    fn only_refusals_of_this_client_are_refusals() {
        let server: Arc<str> = "a".into();
        let refused = |status| Error::refused(&server, "a copy", status);
        let failures = [
            Error::NoAddress { server: server.clone() },
            refused(Status::NoSpace),
            refused(Status::Denied),
            Error::TokenWanted { server: server.clone() },
        ];
        let of_all: Vec<bool> = failures.iter().map(Error::is_refusal).collect();
        assert_eq!(of_all, [false, false, true, true]);
        let found = Error::refusal_among(&failures).unwrap();
        assert!(matches!(found, Error::Refused { status: Status::Denied, .. }), "{found}");
        assert!(Error::refusal_among(&failures[..2]).is_none());
    }

    #[test]
    fn who_has_no_room_is_told_what_to_do() {
        let told = |status| Error::refused(&"a".into(), "a copy", status).to_string();
        for status in [Status::NoSpace, Status::NoIndex] {
            assert!(told(status).contains("remove objects, or add servers"), "{}", told(status));
        }
        assert_eq!(told(Status::Denied), "server \"a\" refused a copy with DENIED");
    }

    #[test]
    fn who_refuses_is_there_and_who_is_somebody_else_is_not() {
        let server: Arc<str> = "a".into();
        let address = || Address::Tcp("10.0.0.1:7".to_owned());
        for status in [Status::Busy, Status::Denied] {
            assert!(Error::refused(&server, "a handshake", status).is_from_server());
        }
        assert!(Error::ClockOff { server: server.clone(), off_by_ms: 1 }.is_from_server());
        assert!(Error::TokenWanted { server: server.clone() }.is_from_server());
        assert!(!Error::Unproven { server: server.clone() }.is_from_server());
        assert!(!Error::NoAddress { server: server.clone() }.is_from_server());
        let cluster: Arc<str> = "c".into();
        assert!(!Error::WrongCluster { server, cluster, address: address() }.is_from_server());
    }

    #[test]
    fn messages_escape_what_strangers_wrote() {
        let error = Error::WrongServer {
            server: "a".into(),
            cluster: "c".into(),
            address: Address::Tcp("10.0.0.1:7".to_owned()),
            found: "\x1b[2J".to_owned(),
        };
        assert!(!error.to_string().contains('\x1b'), "{error}");
    }
}
