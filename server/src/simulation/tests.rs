//! Readers and writers at random on a server that lends, to a system that takes its
//! time.

use std::collections::BTreeMap;

use rampuddle_protocol::limits::HELLO_FRAME_BYTES;
use rampuddle_protocol::{
    CancelRow, ClientHello, CreateRow, DeleteRow, GatherRow, Header, Nonce, Opcode, Outcome, Row,
    RowFlags, ScatterRow, SessionId, Status, Table, TableBuilder, Version,
};

use super::*;
use crate::testing::Seeded;

const KEYS: u64 = 5;
const PAGES: u64 = 96;
const LENGTH_MAX: u64 = 5 * PAGE_BYTES;
const STEPS: usize = 20_000;

/// A client of one connection, which says what it likes and checks what it is told.
struct Line {
    number: usize,
    up: Vec<u8>,
    down: Vec<u8>,
    requests: BTreeMap<u64, u64>,
    next: u64,
}

impl Line {
    fn connect(server: &mut SimulatedServer) -> Self {
        let number = server.connect().expect("there is room");
        let hello = ClientHello {
            version_min: 1,
            version_max: 1,
            nonce: Nonce([5; 16]),
            session: SessionId([number as u8 + 1; 16]),
            ..ClientHello::default()
        };
        let mut up = Vec::new();
        hello.frame("cluster", "", &mut up);
        server.receive(number, &up, u64::MAX);
        let mut down = Vec::new();
        assert_eq!(server.send(number, usize::MAX, u64::MAX, &mut down), HELLO_FRAME_BYTES);
        let requests = BTreeMap::new();
        Self { number, up: Vec::new(), down: Vec::new(), requests, next: 1 }
    }

    fn ask<R: Row>(&mut self, opcode: Opcode, row: &R, key: &[u8], payload: &[u8]) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut table = TableBuilder::request(&mut self.up, opcode, id);
        table.push(row, key, b"");
        table.finish(payload.len() as u64);
        self.up.extend_from_slice(payload);
        id
    }

    /// Compares the answers that are whole; returns the bytes of them that were
    /// compared.
    fn read(&mut self) -> u64 {
        let mut compared = 0;
        while self.down.len() >= Header::BYTES {
            let header = Header::parse(&self.down).expect("a header");
            let whole = header.head_bytes() + header.payload_bytes as usize;
            if self.down.len() < whole {
                break;
            }
            let frame: Vec<u8> = self.down.drain(..whole).collect();
            header.check(&frame[..header.head_bytes()]).expect("a sound head");
            let payload = &frame[header.head_bytes()..];
            if let Some(offset) = self.requests.remove(&header.request_id)
                && header.operation() == Some(Opcode::Gather)
                && header.rows > 0
            {
                let table = Table::<Outcome>::parse(&header, header.table(&frame)).expect("rows");
                let outcome = table.iter().next().expect("one row").0;
                if outcome.status() == Status::Ok && outcome.flags.has(RowFlags::SEALED) {
                    let found = bytes(outcome.version, offset, payload.len() as u64);
                    assert!(payload == found, "wrong bytes of {:?}", outcome.version);
                    compared += payload.len() as u64;
                }
            }
        }
        compared
    }
}

/// What the value of a version holds.
fn bytes(version: Version, offset: u64, length: u64) -> Vec<u8> {
    let salt = rampuddle_protocol::crc32c(format!("{version:?}").as_bytes());
    let at = |at: u64| (at.wrapping_mul(0x9E37_79B9).wrapping_add(salt.into()) >> 7) as u8;
    (offset..offset + length).map(at).collect()
}

#[test]
fn lent_bytes_never_change_whatever_readers_and_writers_do_meanwhile() {
    let mut random = Seeded::from_environment();
    let settings = Settings { zero_copy_from: Some(1), pages: PAGES, ..Settings::default() };
    let mut server = SimulatedServer::new(settings.clone()).unwrap();
    let mut lines: Vec<Line> = (0..4).map(|_| Line::connect(&mut server)).collect();
    let (mut clock, mut compared, mut cuts) = (0, 0, 0);
    for _ in 0..STEPS {
        let line = random.below(lines.len() as u64) as usize;
        let key = [b'k', random.below(KEYS) as u8];
        let one = &mut lines[line];
        match random.below(20) {
            0..4 => {
                clock += 1;
                let version = Version::from_unix_ms(settings.unix_ms + clock, 1);
                let length = PAGE_BYTES + random.below(LENGTH_MAX - PAGE_BYTES);
                let sealed = random.below(4) > 0;
                let row = CreateRow {
                    flags: if sealed { RowFlags::SEALED } else { RowFlags::NONE }
                        | RowFlags::REPLACE,
                    length,
                    value_bytes: length,
                    version,
                    ..CreateRow::default()
                };
                one.ask(Opcode::Create, &row, &key, &bytes(version, 0, length));
            }
            4..12 => {
                let offset = random.below(LENGTH_MAX / 4);
                let length = 1 + random.below(LENGTH_MAX);
                let row = GatherRow { offset, length, ..GatherRow::default() };
                let id = one.ask(Opcode::Gather, &row, &key, b"");
                one.requests.insert(id, offset);
            }
            12 => {
                clock += 1;
                let version = Version::from_unix_ms(settings.unix_ms + clock, 1);
                let row = DeleteRow { version, ..DeleteRow::default() };
                one.ask(Opcode::Delete, &row, &key, b"");
            }
            13..15 => {
                let (offset, length) = (random.below(LENGTH_MAX), 1 + random.below(50_000));
                let row = ScatterRow { offset, value_bytes: length, ..ScatterRow::default() };
                one.ask(Opcode::Scatter, &row, &key, &vec![clock as u8; length as usize]);
            }
            15..17 => {
                let row = CancelRow { request_id: one.next.saturating_sub(1 + random.below(6)) };
                one.ask(Opcode::Cancel, &row, b"", b"");
            }
            17 => {
                server.end_input(one.number);
            }
            18 if random.below(3) == 0 => {
                server.cut(one.number);
                *one = Line::connect(&mut server);
                cuts += 1;
            }
            _ => server.advance(random.below(40)),
        }
        for _ in 0..2 + random.below(6) {
            let one = &mut lines[random.below(4) as usize];
            let taken = server.receive(one.number, &one.up, 1 + random.below(200_000));
            one.up.drain(..taken);
            let most = 1 + random.below(2 * LENGTH_MAX) as usize;
            server.send(one.number, most, 1 + random.below(1 << 20), &mut one.down);
            compared += one.read();
            if !server.is_open(one.number) {
                server.cut(one.number);
                *one = Line::connect(&mut server);
            }
            server.turn();
        }
        server.check_invariants();
    }
    let (lent, refused) = server.lent_sends();
    assert!(lent > 2_000 && refused > 100, "{lent} sends were lent, {refused} refused");
    assert!(compared > 100 << 20 && cuts > 50, "{compared} bytes, {cuts} cuts");
    server.assert_nothing_leaks();
}
