//! Answers as an honest server makes them.

use rampuddle_protocol::{
    FrameFlags, Header, InfoRow, MappedRow, Opcode, Outcome, ProofAnswer, RowFlags, ServerHello,
    SharedRow, StatRow, Status, TableBuilder, limits,
};

use crate::random::Random;

/// The name of the server that answers.
pub const SERVER: &str = "server";

/// An answer to this operation: its head, and the length of its payload.
pub fn answer(random: &mut Random, opcode: Opcode, id: u64) -> (Vec<u8>, u64) {
    let rows = 1 + random.below(4);
    match opcode {
        Opcode::Hello => (server_hello(random), 0),
        Opcode::Proof => {
            let mut head = Vec::new();
            ProofAnswer { role: 2, ..ProofAnswer::default() }.frame(Status::Ok, &mut head);
            (head, 0)
        }
        Opcode::Stat | Opcode::List => {
            let keys: Vec<Vec<u8>> = (0..rows as u8).map(|key| vec![b'k', b'0' + key]).collect();
            let is_cut = opcode == Opcode::List && random.percent(30);
            (stats(random, opcode, id, &keys, is_cut), 0)
        }
        Opcode::Map => (mapped(random, id, rows), 0),
        Opcode::Share => {
            let mut head = Vec::new();
            let mut table = begin(&mut head, opcode, id);
            table.push(&SharedRow { mapping: 1, pool_bytes: random.edge() }, b"", b"");
            table.finish(0);
            (head, 0)
        }
        Opcode::Info => {
            let mut head = Vec::new();
            let mut table = begin(&mut head, opcode, id);
            table.push(&InfoRow::default(), SERVER.as_bytes(), b"");
            table.finish(0);
            (head, 0)
        }
        _ => {
            let lengths = match opcode {
                Opcode::Ping => Vec::new(),
                Opcode::Gather => (0..rows).map(|_| random.below(300) as u64).collect(),
                _ => vec![0; rows],
            };
            outcomes(random, opcode, id, &lengths)
        }
    }
}

/// A hello that grants something; few rows a frame at times.
pub fn server_hello(random: &mut Random) -> Vec<u8> {
    let hello = ServerHello {
        version: Header::VERSION,
        rows_max: if random.percent(50) { limits::ROWS_MAX } else { 1 },
        table_bytes_max: limits::TABLE_BYTES_MAX,
        payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u32,
        outstanding_requests_max: random.pick(&[1, 2, 128]),
        outstanding_bytes_max: limits::OUTSTANDING_BYTES_MAX as u32,
        clock_unix_ms: random.edge(),
        ..ServerHello::default()
    };
    let mut head = Vec::new();
    hello.frame(Status::Ok, SERVER, &mut head);
    head
}

/// Outcomes with these shares of the payload.
pub fn outcomes(random: &mut Random, opcode: Opcode, id: u64, lengths: &[u64]) -> (Vec<u8>, u64) {
    let mut head = Vec::new();
    let mut table = begin(&mut head, opcode, id);
    for length in lengths {
        let status =
            if *length > 0 || random.percent(70) { Status::Ok } else { random.pick(Status::ALL) };
        let mut row = Outcome { length: *length, ..Outcome::of(status) };
        row.flags = random.pick(&[RowFlags::NONE, RowFlags::CHECKSUM, RowFlags::HELD]);
        let count = random.pick(&[0, 0, 3, 64]);
        let tag = random.bytes(count);
        table.push(&row, b"", &tag);
    }
    let payload = lengths.iter().sum();
    table.finish(payload);
    (head, payload)
}

/// What is known of these keys; the last row is a cursor when the page is cut.
pub fn stats(
    random: &mut Random,
    opcode: Opcode,
    id: u64,
    keys: &[Vec<u8>],
    is_cut: bool,
) -> Vec<u8> {
    let mut head = Vec::new();
    let mut table = begin(&mut head, opcode, id);
    for (index, key) in keys.iter().enumerate() {
        let is_last = index + 1 == keys.len();
        let status = if is_cut && is_last { Status::Incomplete } else { Status::Ok };
        let row = StatRow { status: status as u8, length: random.edge(), ..StatRow::default() };
        table.push(&row, key, b"tag");
    }
    table.finish(0);
    head
}

/// Where some values lie; the last row is a cursor or a refusal at times.
fn mapped(random: &mut Random, id: u64, rows: usize) -> Vec<u8> {
    let mut head = Vec::new();
    let mut table = begin(&mut head, Opcode::Map, id);
    for index in 0..rows {
        let is_last = index + 1 == rows;
        let status = match is_last && random.percent(40) {
            true => random.pick(&[Status::Incomplete, Status::Busy, Status::NotFound]),
            false => Status::Ok,
        };
        let (offset, bytes) = (random.edge(), random.below(200_000) as u64);
        let row = MappedRow { offset, bytes, ..MappedRow::of(status) };
        let is_first = status == Status::Ok && random.percent(60);
        let (key, tag) = if is_first { (&b"k1"[..], &b"tag"[..]) } else { (&b""[..], &b""[..]) };
        table.push(&row, key, tag);
    }
    table.finish(0);
    head
}

/// A refusal of the whole request.
pub fn refusal(opcode: Opcode, id: u64, status: Status) -> Vec<u8> {
    let mut head = Vec::new();
    let mut header = Header::new(opcode as u8, id);
    (header.flags, header.status) = (FrameFlags::ANSWER, status as u8);
    TableBuilder::with_header(&mut head, header).finish(0);
    head
}

fn begin(head: &mut Vec<u8>, opcode: Opcode, id: u64) -> TableBuilder<'_> {
    TableBuilder::answer(head, &Header::new(opcode as u8, id), Status::Ok)
}
