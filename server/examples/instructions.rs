//! One operation, asked again and again of a server without sockets: for a counter of
//! instructions around this process. `instructions OPERATION TIMES`; without an
//! operation it names them all. See `bench/instructions.sh`.

use rampuddle_protocol::{
    ClientHello, CreateRow, DeleteRow, GatherRow, Header, HoldRow, MapRow, Opcode, Outcome,
    ReleaseRow, Row, RowFlags, ScatterRow, SessionId, SetId, SharedRow, StatRequestRow, Status,
    Table, TableBuilder, TouchRow, UnmapRow, Version, crc32c,
};
use rampuddle_server::simulation::{Settings, SimulatedServer};

/// Small, so that what is counted is the server's work and not the copying of bytes.
const BYTES: u64 = 1_024;
const SET: SetId = SetId([7; 16]);

type Ask = fn(&mut Peer, u64);

/// What is asked, and a first request that it needs.
const OPERATIONS: [(&str, Ask); 10] = [
    ("ping", |peer, _| peer.ask::<StatRequestRow>(Opcode::Ping, &[], &[])),
    ("gather", |peer, _| peer.gather(1)),
    ("gather-of-64", |peer, _| peer.gather(64)),
    ("gather-of-none", |peer, _| peer.ask(Opcode::Gather, &[(gather(), b"none")], &[])),
    ("create-replacing", |peer, round| peer.create(b"key", round)),
    ("create-and-delete", |peer, round| {
        peer.create(b"new", 2 * round);
        let row = DeleteRow { version: version(2 * round + 1), ..DeleteRow::default() };
        peer.ask(Opcode::Delete, &[(row, b"new")], &[]);
    }),
    ("scatter", |peer, round| {
        let row = ScatterRow { offset: round % 512, value_bytes: 8, ..ScatterRow::default() };
        peer.ask(Opcode::Scatter, &[(row, b"open")], b"8 bytes.");
    }),
    ("stat", |peer, _| peer.ask(Opcode::Stat, &[(StatRequestRow::default(), b"key")], &[])),
    ("hold-touch-release", |peer, _| {
        let (hold, release) = (HoldRow { set: SET, ..HoldRow::default() }, ReleaseRow::default());
        peer.ask(Opcode::Hold, &[(hold, b"")], &[]);
        peer.ask(Opcode::Touch, &[(TouchRow { set: SET, ..TouchRow::default() }, b"")], &[]);
        peer.ask(Opcode::Release, &[(ReleaseRow { set: SET, ..release }, b"")], &[]);
    }),
    ("map-and-unmap", |peer, round| {
        let (mapping, hold) = (peer.mapping, round);
        peer.ask(Opcode::Map, &[(MapRow { mapping, hold, ..MapRow::default() }, b"key")], &[]);
        peer.ask(Opcode::Unmap, &[(UnmapRow { mapping, hold }, b"")], &[]);
        assert_eq!(peer.row::<Outcome>().status(), Status::Ok);
    }),
];

fn version(step: u64) -> Version {
    Version::from_unix_ms(1_700_000_000_000 + step, 1)
}

fn gather() -> GatherRow {
    GatherRow { length: BYTES, flags: RowFlags::TAG, ..GatherRow::default() }
}

/// A connection to a server in memory.
struct Peer {
    server: SimulatedServer,
    connection: usize,
    request: Vec<u8>,
    answer: Vec<u8>,
    bytes: Vec<u8>,
    asked: u64,
    mapping: u64,
}

impl Peer {
    fn connect() -> Self {
        let settings = Settings { shares_pool: true, ..Settings::default() };
        let mut server = SimulatedServer::new(settings).expect("64 pages");
        let connection = server.connect().expect("the first");
        let bytes = (0..BYTES).map(|index| index as u8).collect();
        let (request, answer) = (Vec::new(), Vec::new());
        let mut peer = Self { server, connection, request, answer, bytes, asked: 0, mapping: 0 };
        let session = SessionId([1; 16]);
        let hello = ClientHello { version_min: 1, version_max: 1, session, ..Default::default() };
        hello.frame("cluster", "", &mut peer.request);
        peer.exchange();
        peer.create(b"key", 0);
        peer.create(b"open", 0);
        peer.ask::<SharedRow>(Opcode::Share, &[], &[]);
        peer.mapping = peer.row::<SharedRow>().mapping;
        peer
    }

    fn ask<R: Row>(&mut self, opcode: Opcode, rows: &[(R, &[u8])], payload: &[u8]) {
        self.asked += 1;
        self.request.clear();
        let mut table = TableBuilder::request(&mut self.request, opcode, self.asked);
        rows.iter().for_each(|(row, key)| table.push(row, key, b""));
        table.finish(payload.len() as u64);
        self.request.extend_from_slice(payload);
        self.exchange();
    }

    /// The first row of the last answer.
    fn row<R: Row>(&self) -> R {
        let header = Header::parse(&self.answer).expect("an answer");
        let table = Table::parse(&header, header.table(&self.answer)).expect("a table");
        table.iter().next().expect("a row").0
    }

    fn gather(&mut self, rows: usize) {
        let rows: Vec<(GatherRow, &[u8])> = vec![(gather(), b"key"); rows];
        self.ask(Opcode::Gather, &rows, &[]);
    }

    fn create(&mut self, key: &[u8], step: u64) {
        let bytes = std::mem::take(&mut self.bytes);
        let sealed = if key == b"key" { RowFlags::SEALED } else { RowFlags::NONE };
        let row = CreateRow {
            flags: RowFlags::CHECKSUM | RowFlags::REPLACE | sealed,
            length: BYTES,
            value_bytes: BYTES,
            version: version(step),
            set: if key == b"key" { SET } else { SetId::default() },
            crc32c: crc32c(&bytes),
            ..CreateRow::default()
        };
        self.ask(Opcode::Create, &[(row, key)], &bytes);
        self.bytes = bytes;
    }

    /// Sends the request, and takes the answer, which must be one.
    fn exchange(&mut self) {
        let mut sent = 0;
        while sent < self.request.len() {
            let taken = self.server.receive(self.connection, &self.request[sent..], 1 << 20);
            assert!(taken > 0, "the server takes no more");
            sent += taken;
        }
        // What may take long is not followed by another request in the same turn.
        if self.server.wants_turn() {
            self.server.turn();
        }
        self.answer.clear();
        while self.server.send(self.connection, usize::MAX, 1 << 20, &mut self.answer) > 0 {}
        let header = Header::parse(&self.answer).expect("an answer");
        assert_eq!(header.status, Status::Ok as u8);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        OPERATIONS.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let operation = OPERATIONS.iter().find(|(known, _)| *known == name);
    let (_, ask) = operation.expect("an operation: without any they are named");
    let times = arguments.next().and_then(|times| times.parse().ok()).expect("a number of times");
    let mut peer = Peer::connect();
    (1..=times).for_each(|round| ask(&mut peer, round));
}
