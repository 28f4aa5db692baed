//! Bad input, case by case: bytes that somebody may send, and what must come of
//! them. After each, a small request of another is answered within its bound, the
//! pool's books are what they were, and the value of a bystander has its bytes.
//!
//! What other files prove of the same is in `docs/testing.md`.

mod handshakes;
mod map;
mod pipelines;
mod requests;
mod stored;

use std::time::Duration;

use rampuddle_harness::{
    CANARY_BOUND, Canary, Counts, Door, Frame, Pattern, RawClient, RawConnection, ServerProcess,
    Transport, until,
};
use rampuddle_protocol::{InfoRow, Opcode, SessionId, Status};

use crate::{assert_status, over_both};

over_both! {
    handshakes_that_make_no_sense_open_nothing
    requests_that_make_no_sense_are_told_so_and_change_nothing
}

const PATIENCE: Duration = Duration::from_secs(10);
/// The key of somebody who has nothing to do with it.
const BYSTANDER: &[u8] = b"bystander";
const BYSTANDER_BYTES: u64 = 100_000;

/// Bytes that are sent, and what must come of them.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    /// Whether no more bytes follow, ever.
    ends: bool,
    wanted: Wanted,
}

impl Case {
    fn new(name: &'static str, bytes: impl Into<Vec<u8>>, wanted: Wanted) -> Self {
        Self { name, bytes: bytes.into(), ends: false, wanted }
    }

    /// The same, and then the sender ends its side.
    fn ended(name: &'static str, bytes: impl Into<Vec<u8>>, wanted: Wanted) -> Self {
        Self { ends: true, ..Self::new(name, bytes, wanted) }
    }
}

/// What comes of bytes.
#[derive(Debug, Clone)]
enum Wanted {
    /// The connection ends without a word; whether that counts as breaking the
    /// protocol.
    Closed { is_counted: bool },
    /// A hello with this status, then the end unless it is OK.
    Hello(Status),
    /// One frame that says why, then the end.
    Framing(Status),
    /// An answer without rows that says why; the connection goes on.
    Refused(Status),
    /// An answer with a status for each row; the connection goes on.
    Rows(Vec<Status>),
}

/// A server, somebody with a value on it, and a canary.
struct Room {
    // Ends before the server does.
    canary: Canary,
    watcher: RawClient,
    server: ServerProcess,
    door: Door,
    before: InfoRow,
    counts: Counts,
}

impl Room {
    fn open(server: ServerProcess, transport: Transport, subject: &'static str) -> Self {
        let door = server.door(transport);
        let mut watcher = RawClient::connect(&door);
        let bytes = Pattern(7).bytes(0, BYSTANDER_BYTES);
        assert_status!(watcher.create(BYSTANDER, BYSTANDER_BYTES, &bytes), Ok);
        let canary = Canary::start(&door);
        // So that its value and its connection are in the books.
        canary.assert_within(CANARY_BOUND, || ());
        let before = watcher.info();
        Self { canary, watcher, server, door, before, counts: Counts::new(subject) }
    }

    /// Does something bad with the watcher at hand, and then compares everything
    /// with what it was; `framing_errors` more are connections that were closed
    /// for breaking the protocol.
    fn survives(
        &mut self,
        name: &'static str,
        framing_errors: u64,
        bad: impl FnOnce(&Door, &mut RawClient, &ServerProcess),
    ) {
        println!("bad input: {name}");
        let (door, watcher, before) = (&self.door, &mut self.watcher, &self.before);
        let framing_errors = self.before.framing_errors + framing_errors;
        let server = &self.server;
        self.canary.assert_within(CANARY_BOUND, || {
            bad(door, watcher, server);
            until(name, PATIENCE, || {
                let now = watcher.info();
                books(&now) == books(before) && now.framing_errors == framing_errors
            });
        });
        let found = self.watcher.gather_all(BYSTANDER).expect("the bystander's value");
        assert!(found == Pattern(7).bytes(0, BYSTANDER_BYTES), "{name}: a bystander's bytes");
        self.before.framing_errors = framing_errors;
        self.counts.one("cases");
    }

    /// Sends the bytes of a case on a connection from `open`, and compares what
    /// comes back.
    fn check(&mut self, case: &Case, open: impl Fn(&Door) -> RawConnection) {
        let is_counted = match case.wanted {
            Wanted::Closed { is_counted } => is_counted,
            Wanted::Framing(_) => true,
            Wanted::Hello(_) | Wanted::Refused(_) | Wanted::Rows(_) => false,
        };
        self.survives(case.name, is_counted.into(), |door, _, _| {
            let mut connection = open(door);
            // The server may have read enough to close before all is sent.
            let _ = connection.try_send(&case.bytes);
            if case.ends {
                connection.end_sending();
            }
            check_answer(case.name, &mut connection, &case.wanted);
        });
    }

    /// Every page that the books call free can be used.
    fn every_free_page_can_be_used(mut self, least: u64) {
        let free = self.watcher.free_bytes();
        assert_status!(self.watcher.upload(b"all of it", free, Pattern(1)), Ok);
        assert_eq!(self.watcher.free_bytes(), 0);
        assert!(self.counts.of("cases") >= least, "{}", self.counts);
    }
}

/// What must be as before. The number of connections settles as they close.
fn books(info: &InfoRow) -> [u64; 9] {
    [
        info.pool_bytes,
        info.used_bytes,
        info.reserved_bytes,
        info.superseded_bytes,
        info.values,
        info.reservations,
        info.holds,
        info.connections,
        info.sessions,
    ]
}

fn check_answer(name: &str, connection: &mut RawConnection, wanted: &Wanted) {
    let ends = |connection: &mut RawConnection| {
        let more = connection.receive_to_end(PATIENCE);
        assert!(more.is_empty(), "{name}: {} bytes before the end", more.len());
    };
    match wanted {
        Wanted::Closed { .. } => ends(connection),
        Wanted::Hello(status) => {
            let (found, ..) = connection.receive_hello();
            assert_eq!(found, *status, "{name}");
            if found == Status::Ok {
                goes_on(name, connection);
            } else {
                ends(connection);
            }
        }
        Wanted::Framing(status) => {
            let answer = connection.receive_answer();
            assert!(answer.is_framing_error(), "{name}: {:?}", answer.header);
            assert_eq!((answer.status(), answer.header.rows), (*status, 0), "{name}");
            ends(connection);
        }
        Wanted::Refused(status) => {
            let answer = connection.receive_answer();
            assert!(!answer.is_framing_error(), "{name}: {:?}", answer.header);
            assert_eq!((answer.status(), answer.header.rows), (*status, 0), "{name}");
            assert!(answer.payload.is_empty(), "{name}");
            goes_on(name, connection);
        }
        Wanted::Rows(statuses) => {
            let answer = connection.receive_answer();
            assert_eq!(answer.statuses(), *statuses, "{name}");
            goes_on(name, connection);
        }
    }
}

/// The next request is understood.
fn goes_on(name: &str, connection: &mut RawConnection) {
    let ping = Frame::bare(Opcode::Ping, 4_711);
    connection.send(&ping.bytes);
    let answer = connection.receive_answer();
    assert_eq!((answer.header.request_id, answer.status()), (4_711, Status::Ok), "{name}");
}

fn handshakes_that_make_no_sense_open_nothing(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut room = Room::open(server, transport, "handshakes that make no sense");
    for case in handshakes::cases(room.door.cluster()) {
        room.check(&case, Door::connect);
    }
    room.every_free_page_can_be_used(40);
}

fn requests_that_make_no_sense_are_told_so_and_change_nothing(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut room = Room::open(server, transport, "requests that make no sense");
    for case in requests::cases() {
        room.check(&case, |door| {
            let mut connection = door.connect();
            let session = SessionId([9; 16]);
            assert_eq!(connection.shake_hands(session).0, Status::Ok);
            connection
        });
    }
    room.every_free_page_can_be_used(80);
}
