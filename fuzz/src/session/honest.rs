//! A client that keeps the rules beside those that do not: what it stored is
//! there, byte for byte, and it is answered whatever the others do.

use std::collections::BTreeMap;

use rampuddle_protocol::{
    CreateRow, DeleteRow, GatherRow, Opcode, Row, RowFlags, ScatterRow, Status, TableBuilder,
    Trailer, Version, crc32c,
};
use rampuddle_server::simulation::SimulatedServer;

use super::line::Line;
use super::reader::Answer;
use crate::counts::Counts;

/// Turns within which an answer must come.
const TURNS_MAX: usize = 200;
/// Its session: no script joins it.
const SESSION: u8 = 251;

/// The client, and what it knows to be stored.
#[derive(Debug, Default)]
pub(super) struct Honest {
    line: Line,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    last: u64,
    requests: u64,
}

impl Honest {
    /// Does one thing, and checks how it fared.
    ///
    /// # Panics
    /// When the server did not keep its word.
    pub(super) fn act(&mut self, server: &mut SimulatedServer, what: u8, counts: &mut Counts) {
        let key = [b"\xEEhonest", &[what % 4][..]].concat();
        match what >> 2 & 3 {
            0 => self.create(server, key, what, counts),
            1 | 2 => self.gather(server, &key),
            _ if what >> 4 & 1 == 0 => self.scatter(server, &key, what),
            _ => self.delete(server, &key, counts),
        }
        counts.one("honest requests");
    }

    /// Reads everything back.
    pub(super) fn read_all(&mut self, server: &mut SimulatedServer) {
        let keys: Vec<Vec<u8>> = self.stored.keys().cloned().collect();
        keys.iter().for_each(|key| self.gather(server, key));
    }

    fn create(
        &mut self,
        server: &mut SimulatedServer,
        key: Vec<u8>,
        what: u8,
        counts: &mut Counts,
    ) {
        let length = 1 + usize::from(what) * 997 % 150_000;
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31) as u8 ^ what).collect();
        let mut payload = bytes.clone();
        let mut flags = RowFlags::REPLACE;
        if what.is_multiple_of(3) {
            flags |= RowFlags::CHECKSUM | RowFlags::TRAILER;
            Trailer { crc32c: crc32c(&bytes), tag: b"" }.encode(&mut payload);
        }
        if is_sealed(&key) {
            flags |= RowFlags::SEALED;
        }
        let row = CreateRow {
            flags,
            length: length as u64,
            value_bytes: length as u64,
            version: self.version(server),
            ..CreateRow::default()
        };
        match self.ask(server, Opcode::Create, &row, &key, &payload).0 {
            Status::Ok => {
                self.stored.insert(key, bytes);
            }
            Status::Busy | Status::NoSpace | Status::NoIndex | Status::Clock => {
                counts.one("honest requests refused");
            }
            other => panic!("an honest Create was answered {other}"),
        }
    }

    fn gather(&mut self, server: &mut SimulatedServer, key: &[u8]) {
        let length = self.stored.get(key).map_or(100, Vec::len) as u64;
        let row = GatherRow { length, ..GatherRow::default() };
        let (status, answer) = self.ask(server, Opcode::Gather, &row, key, b"");
        match self.stored.get(key) {
            Some(bytes) => assert!(status == Status::Ok && answer.payload == *bytes, "{status}"),
            None => assert_eq!(status, Status::NotFound),
        }
    }

    fn scatter(&mut self, server: &mut SimulatedServer, key: &[u8], what: u8) {
        let length = self.stored.get(key).map_or(0, Vec::len);
        let bytes = vec![what; length / 2];
        let row = ScatterRow {
            offset: (length / 3) as u64,
            value_bytes: bytes.len() as u64,
            ..ScatterRow::default()
        };
        let status = self.ask(server, Opcode::Scatter, &row, key, &bytes).0;
        match self.stored.get_mut(key) {
            Some(_) if is_sealed(key) => assert_eq!(status, Status::Sealed),
            Some(stored) => {
                assert_eq!(status, Status::Ok);
                stored[length / 3..length / 3 + bytes.len()].copy_from_slice(&bytes);
            }
            None => assert_eq!(status, Status::NotFound),
        }
    }

    fn delete(&mut self, server: &mut SimulatedServer, key: &[u8], counts: &mut Counts) {
        let row = DeleteRow { version: self.version(server), ..DeleteRow::default() };
        match self.ask(server, Opcode::Delete, &row, key, b"").0 {
            Status::Ok => assert!(self.stored.remove(key).is_some()),
            Status::NotFound => assert!(!self.stored.contains_key(key)),
            Status::Clock => counts.one("honest requests refused"),
            other => panic!("an honest Delete was answered {other}"),
        }
    }

    fn version(&mut self, server: &SimulatedServer) -> Version {
        let now = Version::from_unix_ms(server.unix_ms(), 9);
        self.last = now.time.max(self.last + 1);
        Version { time: self.last, ..now }
    }

    /// One row asked and answered.
    fn ask<R: Row>(
        &mut self,
        server: &mut SimulatedServer,
        opcode: Opcode,
        row: &R,
        key: &[u8],
        payload: &[u8],
    ) -> (Status, Answer) {
        self.greet(server);
        self.requests += 1;
        let mut head = Vec::new();
        let mut table = TableBuilder::request(&mut head, opcode, self.requests);
        table.push(row, key, b"");
        table.finish(payload.len() as u64);
        self.line.put(&head);
        self.line.put(payload);
        self.turns(server, |line| !line.reader.answers.is_empty());
        let answer = self.line.reader.answers.pop().expect("there is one");
        assert_eq!(answer.header.request_id, self.requests, "{:?}", answer.header);
        let outcomes = answer.outcomes();
        let status = outcomes.first().expect("an honest request is not refused").status();
        (status, answer)
    }

    fn greet(&mut self, server: &mut SimulatedServer) {
        if self.line.is_open(server) && self.line.reader.is_open() {
            return;
        }
        self.line.connect(server);
        self.line.put_hello(SESSION);
        self.turns(server, |line| line.reader.is_open() || line.reader.wants_proof());
        if self.line.reader.wants_proof() {
            self.line.put_proof(3);
            self.turns(server, |line| line.reader.is_open());
        }
    }

    /// Moves the bytes of this line alone: the others have stopped.
    fn turns(&mut self, server: &mut SimulatedServer, is_done: impl Fn(&Line) -> bool) {
        for _ in 0..TURNS_MAX {
            self.line.arrive(server, usize::MAX);
            server.turn();
            self.line.leave(server, usize::MAX);
            if is_done(&self.line) {
                return;
            }
        }
        panic!("an honest client waits for more than {TURNS_MAX} turns");
    }
}

/// One of its values is such that it may be lent to the system.
fn is_sealed(key: &[u8]) -> bool {
    key.ends_with(&[3])
}
