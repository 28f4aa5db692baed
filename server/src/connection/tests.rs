//! Connections joined to a client in memory, under a clock that the test moves.

use std::io;

use rampuddle_protocol::limits::{HELLO_FRAME_BYTES, MIB, PAGE_BYTES};
use rampuddle_protocol::{
    CancelRow, ClientHello, CreateRow, DeleteRow, DropRow, FrameFlags, GatherRow, Incarnation,
    ListRow, Nonce, Opcode, Outcome, RowFlags, ScatterRow, SessionId, StatRequestRow, StatRow,
    Status, StoreId, Table, TableBuilder, Trailer, Version, crc32c,
};

use super::buffer::BUFFERS;
use super::dispatch::STEPS_PER_TURN;
use super::*;
use crate::core::{Core, Identity};
use crate::pool::Pool;
use crate::session::Sessions;
use crate::store::{Now, Store};
use crate::testing::Seeded;

mod lent;
mod share;

const UNIX_MS: u64 = 1_700_000_000_000;

/// One server side, fed and drained by hand.
struct Joined {
    core: Core,
    connection: Connection,
    /// What the client has sent and the connection not yet received.
    wire: Vec<u8>,
    /// What the connection has sent.
    answers: Vec<u8>,
}

impl Joined {
    fn new(pages: u64) -> Self {
        let identity = Identity {
            name: "server".into(),
            cluster: "cluster".into(),
            incarnation: Incarnation([1; 16]),
            store_id: StoreId([2; 16]),
            tokens: Vec::new(),
            told: Default::default(),
        };
        let now = Now { monotonic_ms: 0, unix_ms: UNIX_MS };
        let store = Store::new(Pool::new(pages * PAGE_BYTES, false).unwrap());
        let core = Core::new(identity, store, Sessions::new(4), now);
        let connection = Connection::new(0, 0);
        Self { core, connection, wire: Vec::new(), answers: Vec::new() }
    }

    fn greeted(pages: u64) -> Self {
        let mut joined = Self::new(pages);
        joined.wire.extend(hello());
        joined.run(usize::MAX, usize::MAX);
        assert_eq!(joined.answers.len(), HELLO_FRAME_BYTES);
        joined.answers.clear();
        joined
    }

    /// Moves bytes both ways, at most so many at once, until nothing moves.
    fn run(&mut self, receive_step: usize, send_step: usize) {
        loop {
            let mut moved = usize::from(self.connection.is_paused());
            self.connection.handle_turn(&mut self.core);
            if self.connection.has_output() {
                let answers = &mut self.answers;
                let sent = self.connection.send_with(&mut self.core, u64::MAX, |slices, _| {
                    let mut left = send_step;
                    for slice in slices {
                        let now = slice.len().min(left);
                        answers.extend_from_slice(&slice[..now]);
                        left -= now;
                    }
                    Ok(send_step - left)
                });
                moved += sent.unwrap().0;
            }
            if self.connection.wants_input() && !self.wire.is_empty() {
                moved += self.receive(receive_step);
            }
            self.core.store.check_books();
            if moved == 0 {
                return;
            }
        }
    }

    fn receive(&mut self, step: usize) -> usize {
        let wire = &mut self.wire;
        let received = self.connection.receive_with(&mut self.core, u64::MAX, |slices| {
            let mut taken = 0;
            for slice in slices {
                let now = slice.len().min(wire.len()).min(step - taken);
                slice[..now].copy_from_slice(&wire[..now]);
                wire.drain(..now);
                taken += now;
            }
            if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        });
        received.map_or(0, |(bytes, _)| bytes)
    }
}

fn hello() -> Vec<u8> {
    let hello = ClientHello {
        version_min: 1,
        version_max: 1,
        nonce: Nonce([5; 16]),
        session: SessionId([6; 16]),
        ..ClientHello::default()
    };
    let mut frame = Vec::new();
    hello.frame("cluster", "", &mut frame);
    frame
}

fn version(step: u64) -> Version {
    Version::from_unix_ms(UNIX_MS + step, 1)
}

/// A conversation that takes every path: whole, padded, refused, cut and missing
/// rows, large heads and answers, payload that is drained.
fn conversation() -> Vec<u8> {
    let mut wire = hello();
    let body = |length: usize, salt: u8| -> Vec<u8> {
        (0..length).map(|index| (index as u8).wrapping_mul(7) ^ salt).collect()
    };
    let create = |wire: &mut Vec<u8>, id: u64, rows: &[(&[u8], u64, Vec<u8>, RowFlags)]| {
        let mut table = TableBuilder::request(wire, Opcode::Create, id);
        for (key, step, bytes, flags) in rows {
            let row = CreateRow {
                flags: *flags | RowFlags::CHECKSUM,
                length: bytes.len() as u64,
                value_bytes: bytes.len() as u64,
                version: version(*step),
                crc32c: crc32c(bytes),
                ..CreateRow::default()
            };
            table.push(&row, key, b"tag");
        }
        let payload: u64 = rows.iter().map(|row| row.2.len() as u64).sum();
        table.finish(payload);
        rows.iter().for_each(|row| wire.extend_from_slice(&row.2));
    };
    let none = RowFlags::NONE;
    create(
        &mut wire,
        1,
        &[
            (b"a", 1, body(10, 1), none),
            (b"b", 1, body(200_000, 2), none),
            (b"a", 2, body(30, 3), none),
            (b"a", 3, body(70_000, 4), RowFlags::REPLACE),
            (b"", 1, body(20, 5), none),
            (b"c", 1, Vec::new(), none),
        ],
    );
    let mut table = TableBuilder::request(&mut wire, Opcode::Create, 9);
    let mut payload = Vec::new();
    // Whole, damaged, without a value, refused: each with a trailer.
    for (key, length, is_sound) in
        [(&b"d"[..], 90_000, true), (b"e", 70, false), (b"f", 0, true), (b"", 20, true)]
    {
        let bytes = body(length, 9);
        let row = CreateRow {
            flags: RowFlags::CHECKSUM | RowFlags::TRAILER,
            tag_bytes: 5,
            length: length as u64,
            value_bytes: length as u64,
            version: version(1),
            ..CreateRow::default()
        };
        table.push(&row, key, b"-----");
        payload.extend_from_slice(&bytes);
        let crc32c = crc32c(&bytes) ^ u32::from(!is_sound);
        Trailer { crc32c, tag: b"later" }.encode(&mut payload);
    }
    table.finish(payload.len() as u64);
    wire.extend(payload);
    let mut table = TableBuilder::request(&mut wire, Opcode::Scatter, 2);
    let bytes = body(150_000, 6);
    let row = ScatterRow { offset: 100, value_bytes: 100_000, ..ScatterRow::default() };
    table.push(&row, b"c", b"");
    table.push(&ScatterRow { value_bytes: 50_000, ..ScatterRow::default() }, b"none", b"");
    table.finish(150_000);
    wire.extend_from_slice(&bytes);
    let mut table = TableBuilder::request(&mut wire, Opcode::Gather, 3);
    for (key, offset, length) in
        [(&b"a"[..], 0, 1 << 40), (b"none", 0, 10), (b"b", 199_000, 5_000), (b"c", 0, 1 << 20)]
            .into_iter()
            .chain([(&b"d"[..], 89_000, 1_000), (b"e", 0, 70), (b"f", 0, 70)])
    {
        let row = GatherRow { offset, length, flags: RowFlags::TAG, ..GatherRow::default() };
        table.push(&row, key, b"");
    }
    table.finish(0);
    // Heads and answers that need a shared buffer.
    let mut table = TableBuilder::request(&mut wire, Opcode::Gather, 4);
    for index in 0..300_u64 {
        let row = GatherRow { offset: index, length: 10, ..GatherRow::default() };
        table.push(&row, b"b", b"");
    }
    table.finish(0);
    let mut table = TableBuilder::request(&mut wire, Opcode::List, 5);
    table.push(&ListRow::default(), b"", b"");
    table.finish(0);
    let mut table = TableBuilder::request(&mut wire, Opcode::Delete, 6);
    table.push(&DeleteRow { version: version(9), ..DeleteRow::default() }, b"a", b"");
    table.finish(0);
    // A reserved number, whose payload is drained.
    let mut header = Header::new(64, 7);
    header.payload_bytes = 5_000;
    let mut head = vec![0; Header::BYTES];
    header.encode(&mut head);
    Header::seal(&mut head);
    wire.extend(head);
    wire.extend(body(5_000, 8));
    let table = TableBuilder::request(&mut wire, Opcode::Ping, 8);
    table.finish(0);
    wire
}

#[test]
fn any_split_of_the_stream_gives_the_same_answers() {
    let mut whole = Joined::new(64);
    whole.wire = conversation();
    whole.run(usize::MAX, usize::MAX);
    assert!(whole.answers.len() > 150_000, "{}", whole.answers.len());
    let mut random = Seeded::from_environment();
    let mut steps: Vec<(usize, usize)> = vec![(1, 1), (63, 65), (64, 64), (4_096, 1)];
    steps.extend(
        (0..20).map(|_| (1 + random.below(40_000) as usize, 1 + random.below(40_000) as usize)),
    );
    for (receive_step, send_step) in steps {
        let mut split = Joined::new(64);
        split.wire = conversation();
        split.run(receive_step, send_step);
        assert!(split.wire.is_empty());
        // The server's hello has a nonce of its own.
        let (found, wanted) =
            (&split.answers[HELLO_FRAME_BYTES..], &whole.answers[HELLO_FRAME_BYTES..]);
        assert!(found == wanted, "split by {receive_step} and {send_step}");
        split.core.store.check_invariants();
    }
}

#[test]
fn a_framing_error_gets_one_short_frame_after_the_handshake_and_nothing_before() {
    for greeted in [false, true] {
        let mut joined = if greeted { Joined::greeted(4) } else { Joined::new(4) };
        joined.wire.extend(b"GET / HTTP/1.1\r\n\r\n");
        joined.run(usize::MAX, usize::MAX);
        assert_eq!(joined.connection.over(), Some(Over::Framing));
        assert_eq!(joined.answers.len(), if greeted { Header::BYTES } else { 0 });
        if greeted {
            let header = Header::parse(&joined.answers).unwrap();
            assert_eq!(header.status, Status::BadMagic as u8);
            assert!(header.flags.has(FrameFlags::FRAMING_ERROR));
        }
    }
}

/// Found by the fuzzer: the error frame was left out when answers filled the
/// connection's own memory.
#[test]
fn the_error_frame_comes_behind_answers_that_leave_no_room() {
    for answers in 0..129 {
        let mut joined = Joined::greeted(4);
        for id in 0..answers {
            TableBuilder::request(&mut joined.wire, Opcode::Ping, id).finish(0);
        }
        joined.wire.extend(b"what is this?");
        while joined.connection.wants_input() && joined.receive(usize::MAX) > 0 {}
        joined.run(usize::MAX, usize::MAX);
        let mut last = None;
        let mut rest = &joined.answers[..];
        while !rest.is_empty() {
            let header = Header::parse(rest).unwrap();
            last = Some((header.status, header.flags.has(FrameFlags::FRAMING_ERROR)));
            rest = &rest[header.head_bytes()..];
        }
        assert_eq!(last, Some((Status::BadMagic as u8, true)), "behind {answers} answers");
        assert_eq!(joined.connection.over(), Some(Over::Framing));
    }
    // One that takes nearly all of the ring.
    let mut joined = Joined::greeted(4);
    let mut table = TableBuilder::request(&mut joined.wire, Opcode::Delete, 1);
    for _ in 0..63 {
        table.push(&DeleteRow { version: version(1), ..DeleteRow::default() }, b"k", b"");
    }
    table.finish(0);
    for id in 2..30 {
        TableBuilder::request(&mut joined.wire, Opcode::Ping, id).finish(0);
    }
    joined.wire.extend(b"?");
    while joined.connection.wants_input() && joined.receive(usize::MAX) > 0 {}
    joined.run(usize::MAX, usize::MAX);
    let last = &joined.answers[joined.answers.len() - Header::BYTES..];
    assert!(Header::parse(last).unwrap().flags.has(FrameFlags::FRAMING_ERROR));
}

#[test]
fn a_connection_whose_answers_are_not_read_is_not_read_either() {
    let mut joined = Joined::greeted(64);
    for id in 0..5_000 {
        let mut table = TableBuilder::request(&mut joined.wire, Opcode::Gather, id);
        table.push(&GatherRow { length: 10, ..GatherRow::default() }, b"none", b"");
        table.finish(0);
    }
    while joined.connection.wants_input() && joined.receive(usize::MAX) > 0 {}
    assert!(joined.wire.len() > 200_000, "most requests wait outside");
    joined.run(usize::MAX, usize::MAX);
    assert_eq!(joined.answers.len(), 5_000 * (Header::BYTES + Outcome::BYTES));
}

#[test]
fn a_cancelled_answer_leaves_as_cancelled_and_the_others_whole() {
    let mut joined = Joined::greeted(64);
    let mut table = TableBuilder::request(&mut joined.wire, Opcode::Create, 1);
    let row =
        CreateRow { length: MIB, value_bytes: 4, version: version(1), ..CreateRow::default() };
    table.push(&row, b"k", b"");
    table.finish(4);
    joined.wire.extend(b"abcd");
    joined.run(usize::MAX, usize::MAX);
    joined.answers.clear();
    for id in 2..5 {
        let mut table = TableBuilder::request(&mut joined.wire, Opcode::Gather, id);
        table.push(&GatherRow { length: MIB, ..GatherRow::default() }, b"k", b"");
        table.finish(0);
    }
    let mut table = TableBuilder::request(&mut joined.wire, Opcode::Cancel, 5);
    table.push(&CancelRow { request_id: 3 }, b"", b"");
    table.push(&CancelRow { request_id: 3 }, b"", b"");
    table.push(&CancelRow { request_id: 77 }, b"", b"");
    table.finish(0);
    while joined.receive(usize::MAX) > 0 {}
    joined.run(usize::MAX, usize::MAX);
    let mut rest = &joined.answers[..];
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let header = Header::parse(rest).unwrap();
        let table = Table::<Outcome>::parse(&header, header.table(rest)).unwrap();
        seen.push((header.request_id, header.status, table.len(), header.payload_bytes));
        rest = &rest[header.head_bytes() + header.payload_bytes as usize..];
    }
    let cancelled = Status::Cancelled as u8;
    assert_eq!(seen, [(2, 0, 1, MIB), (3, cancelled, 0, 0), (4, 0, 1, MIB), (5, 0, 3, 0)]);
    joined.core.store.check_invariants();
}

/// Found by the fuzzer: the hello waits in the outbox like any answer, and has
/// an id like that of any request.
#[test]
fn no_cancel_takes_back_the_hello() {
    let mut joined = Joined::new(4);
    joined.wire.extend(hello());
    let mut table = TableBuilder::request(&mut joined.wire, Opcode::Cancel, 7);
    table.push(&CancelRow { request_id: 0 }, b"", b"");
    table.finish(0);
    while joined.connection.wants_input() && joined.receive(usize::MAX) > 0 {}
    joined.run(usize::MAX, usize::MAX);
    let (hello, answer) = joined.answers.split_at(HELLO_FRAME_BYTES);
    assert_eq!(Header::parse(hello).unwrap().head_bytes(), HELLO_FRAME_BYTES);
    let header = Header::parse(answer).unwrap();
    let table = Table::<Outcome>::parse(&header, header.table(answer)).unwrap();
    assert_eq!(table.iter().next().unwrap().0.status(), Status::NotFound);
}

#[test]
fn a_stat_of_a_key_that_is_too_long_is_refused_by_its_row() {
    for key_bytes in [0, 1_024, 1_025, 1_089, 2_000, 7_000, 65_535] {
        let mut joined = Joined::greeted(4);
        let mut table = TableBuilder::request(&mut joined.wire, Opcode::Stat, 1);
        table.push(&StatRequestRow::default(), &vec![b'k'; key_bytes], b"");
        table.finish(0);
        joined.run(usize::MAX, usize::MAX);
        let header = Header::parse(&joined.answers).unwrap();
        let table = Table::<StatRow>::parse(&header, header.table(&joined.answers)).unwrap();
        let status = table.iter().next().unwrap().0.status();
        let is_legal = (1..=1_024).contains(&key_bytes);
        assert_eq!(status, if is_legal { Status::NotFound } else { Status::BadRow });
    }
}

#[test]
fn a_connection_that_ends_anywhere_gives_everything_back() {
    let whole = conversation();
    let mut random = Seeded::from_environment();
    for _ in 0..200 {
        let cut = random.below(whole.len() as u64) as usize;
        let mut joined = Joined::new(64);
        joined.wire = whole[..cut].to_vec();
        joined.run(1 + random.below(20_000) as usize, 1 + random.below(9_000) as usize);
        let Joined { mut core, connection, .. } = joined;
        assert!(connection.release(&mut core).is_none(), "nothing is lent");
        assert_eq!(core.store.reserved_bytes(), 0, "cut at {cut}");
        assert_eq!(core.buffers.free_count(), BUFFERS, "cut at {cut}");
        core.store.check_invariants();
    }
}

#[test]
fn silence_slow_heads_stalled_payload_and_unread_answers_end_a_connection() {
    let wait = |joined: &mut Joined, ms| {
        joined.core.now.monotonic_ms += ms;
        joined.connection.handle_time(&mut joined.core);
        joined.connection.over()
    };
    let mut silent = Joined::new(4);
    assert_eq!(wait(&mut silent, 9_999), None);
    assert_eq!(wait(&mut silent, 1), Some(Over::Stalled));

    let mut slow_head = Joined::greeted(4);
    slow_head.wire.extend(&conversation()[HELLO_FRAME_BYTES..][..70]);
    for _ in 0..9 {
        slow_head.receive(1);
        assert_eq!(wait(&mut slow_head, 1_000), None);
    }
    assert_eq!(wait(&mut slow_head, 1_000), Some(Over::Stalled), "one byte a second is not enough");

    let mut stalled = Joined::greeted(64);
    stalled.wire.extend(&conversation()[HELLO_FRAME_BYTES..][..100_000]);
    stalled.run(usize::MAX, usize::MAX);
    assert!(stalled.core.store.reserved_bytes() > 0);
    assert_eq!(wait(&mut stalled, 10_000), Some(Over::Stalled));
    assert_eq!(stalled.core.store.reserved_bytes(), 0);

    let mut awaited = Joined::greeted(64);
    awaited.wire.extend(&conversation()[HELLO_FRAME_BYTES..][..100_000]);
    awaited.run(usize::MAX, usize::MAX);
    let large = CreateRow { length: 60 * PAGE_BYTES, version: version(1), ..CreateRow::default() };
    for waits in [false, true] {
        assert_eq!(wait(&mut awaited, 1_999), None);
        if waits {
            let refused = awaited.core.store.claim(&large, b"large", b"", awaited.core.now);
            assert_eq!(refused.unwrap_err().outcome.status(), Status::Busy);
            assert_eq!(wait(&mut awaited, 1), Some(Over::Stalled));
        }
    }

    let mut unread = Joined::greeted(64);
    unread.wire.extend(&conversation()[HELLO_FRAME_BYTES..]);
    while unread.connection.wants_input() && unread.receive(usize::MAX) > 0 {}
    assert_eq!(wait(&mut unread, 10_000), Some(Over::Stalled));

    let mut idle = Joined::greeted(4);
    assert_eq!(wait(&mut idle, 599_999), None);
    assert_eq!(wait(&mut idle, 1), Some(Over::Done));
}

#[test]
fn a_request_that_waited_past_its_deadline_is_not_begun() {
    let mut joined = Joined::greeted(4);
    let mut frame = Vec::new();
    let mut table = TableBuilder::request(&mut frame, Opcode::Delete, 1);
    table.deadline_ms(50);
    table.push(&DeleteRow { version: version(1), ..DeleteRow::default() }, b"k", b"");
    table.finish(0);
    joined.wire.extend(&frame[..100]);
    joined.run(usize::MAX, usize::MAX);
    joined.core.now.monotonic_ms += 51;
    joined.wire.extend(&frame[100..]);
    joined.run(usize::MAX, usize::MAX);
    let header = Header::parse(&joined.answers).unwrap();
    let table = Table::<Outcome>::parse(&header, header.table(&joined.answers)).unwrap();
    assert_eq!(table.iter().next().unwrap().0.status(), Status::Expired);
    assert_eq!(joined.core.store.tombstone_count(), 0);
}

#[test]
fn requests_whose_answers_have_no_rows_expire_too() {
    for opcode in [Opcode::List, Opcode::Info, Opcode::Ping] {
        let mut joined = Joined::greeted(4);
        let mut frame = Vec::new();
        let mut table = TableBuilder::request(&mut frame, opcode, 1);
        table.deadline_ms(50);
        if opcode == Opcode::List {
            table.push(&ListRow::default(), b"", b"");
        }
        table.finish(0);
        joined.wire.extend(&frame[..20]);
        joined.run(usize::MAX, usize::MAX);
        joined.core.now.monotonic_ms += 51;
        joined.wire.extend(&frame[20..]);
        joined.run(usize::MAX, usize::MAX);
        let header = Header::parse(&joined.answers).unwrap();
        assert_eq!((header.status, header.rows), (Status::Expired as u8, 0), "{opcode:?}");
    }
}

#[test]
fn a_deadline_goes_on_while_a_request_waits_for_room_and_the_connection_lives() {
    let mut joined = Joined::greeted(64);
    for id in 0..129 {
        let mut table = TableBuilder::request(&mut joined.wire, Opcode::Delete, id);
        table.deadline_ms(5_000);
        let key = [id as u8];
        table.push(&DeleteRow { version: version(1), ..DeleteRow::default() }, &key, b"");
        table.finish(0);
    }
    while joined.connection.wants_input() && joined.receive(usize::MAX) > 0 {}
    assert!(!joined.connection.wants_input(), "the last one waits for room");
    let begun = joined.core.store.tombstone_count();
    for _ in 0..6 {
        joined.core.now.monotonic_ms += 1_000;
        joined.connection.handle_time(&mut joined.core);
    }
    assert_eq!(joined.connection.over(), None);
    joined.run(usize::MAX, usize::MAX);
    let last = &joined.answers[joined.answers.len() - Header::BYTES - Outcome::BYTES..];
    let header = Header::parse(last).unwrap();
    let table = Table::<Outcome>::parse(&header, header.table(last)).unwrap();
    assert_eq!(header.request_id, 128);
    assert_eq!(table.iter().next().unwrap().0.status(), Status::Expired);
    assert_eq!(joined.core.store.tombstone_count(), begun);
}

#[test]
fn no_call_moves_more_than_its_budget() {
    const BUDGET: u64 = 10_000;
    let mut joined = Joined::new(64);
    joined.wire = conversation();
    let given = |slices: &mut dyn Iterator<Item = usize>| slices.sum::<usize>() as u64;
    while !joined.wire.is_empty() || joined.connection.has_output() {
        joined.connection.handle_turn(&mut joined.core);
        let (wire, answers) = (&mut joined.wire, &mut joined.answers);
        if joined.connection.wants_input() && !wire.is_empty() {
            let received = joined.connection.receive_with(&mut joined.core, BUDGET, |slices| {
                let room = given(&mut slices.iter().map(|slice| slice.len()));
                assert!(room <= BUDGET + INBOX_BYTES as u64, "{room}");
                let mut taken = 0;
                for slice in slices {
                    let now = slice.len().min(wire.len());
                    slice[..now].copy_from_slice(&wire[..now]);
                    wire.drain(..now);
                    taken += now;
                }
                Ok(taken)
            });
            received.unwrap();
        }
        if joined.connection.has_output() {
            let sent = joined.connection.send_with(&mut joined.core, BUDGET, |slices, _| {
                let bytes = given(&mut slices.iter().map(|slice| slice.len()));
                assert!((1..=BUDGET).contains(&bytes), "{bytes}");
                slices.iter().for_each(|slice| answers.extend_from_slice(slice));
                Ok(bytes as usize)
            });
            sent.unwrap();
        }
    }
    let mut whole = Joined::new(64);
    whole.wire = conversation();
    whole.run(usize::MAX, usize::MAX);
    assert!(joined.answers[HELLO_FRAME_BYTES..] == whole.answers[HELLO_FRAME_BYTES..]);
}

#[test]
fn a_session_that_keeps_nothing_ends_with_its_last_connection() {
    let mut joined = Joined::greeted(64);
    assert_eq!(joined.core.sessions.len(), 1);
    joined.connection.close(Over::Done, &mut joined.core);
    assert_eq!(joined.core.sessions.len(), 0);
    let mut joined = Joined::greeted(64);
    let mut table = TableBuilder::request(&mut joined.wire, Opcode::Create, 1);
    let row = CreateRow {
        length: MIB,
        flags: RowFlags::RESERVE,
        version: version(1),
        ..CreateRow::default()
    };
    table.push(&row, b"k", b"");
    table.finish(0);
    joined.run(usize::MAX, usize::MAX);
    joined.connection.close(Over::Done, &mut joined.core);
    assert_eq!(joined.core.sessions.len(), 1, "its reservation may still be filled");
    joined.core.now.monotonic_ms += 30_000;
    joined.core.sessions.expire(&mut joined.core.store, joined.core.now);
    assert_eq!((joined.core.sessions.len(), joined.core.store.reserved_bytes()), (0, 0));
}

/// A Create of so many rows of 64 KiB.
fn large_create(rows: u64) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut table = TableBuilder::request(&mut wire, Opcode::Create, 1);
    for index in 0..rows {
        let row = CreateRow {
            length: PAGE_BYTES,
            value_bytes: 40_000,
            version: version(1),
            ..CreateRow::default()
        };
        table.push(&row, &index.to_le_bytes(), b"");
    }
    table.finish(rows * 40_000);
    wire
}

#[test]
fn whoever_keeps_a_shared_buffer_and_hardly_moves_ends_when_another_wants_it() {
    let head = large_create(100);
    for sent in [head.len() / 2, head.len()] {
        for moves in [false, true] {
            let mut joined = Joined::greeted(256);
            joined.wire.extend(&head[..sent]);
            joined.run(usize::MAX, usize::MAX);
            assert_eq!(joined.core.buffers.free_count(), BUFFERS - 1);
            let lent: Vec<_> =
                (1..BUFFERS).map(|number| joined.core.buffers.borrow(number)).collect();
            assert!(lent.iter().all(Option::is_some));
            assert!(joined.core.buffers.borrow(99).is_none());
            for look in 0..4 {
                joined.core.now.monotonic_ms += 250;
                joined.connection.handle_time(&mut joined.core);
                let wanted = (!moves && look > 0).then_some(Over::Stalled);
                assert_eq!(joined.connection.over(), wanted, "{sent} bytes, {moves}, look {look}");
                if wanted.is_some() {
                    break;
                }
                if moves {
                    let all = [&head[sent..], &vec![7; 200_000]].concat();
                    joined.wire.extend(&all[look * 20_000..][..20_000]);
                    joined.run(usize::MAX, usize::MAX);
                }
            }
        }
    }
}

#[test]
fn a_connection_that_can_queue_no_answer_takes_no_shared_buffer() {
    let mut joined = Joined::greeted(64);
    let mut table = TableBuilder::request(&mut joined.wire, Opcode::Create, 1);
    let row = CreateRow { length: 4 * MIB, version: version(1), ..CreateRow::default() };
    table.push(&row, b"k", b"");
    table.finish(0);
    joined.run(usize::MAX, usize::MAX);
    for id in 2..18 {
        let mut table = TableBuilder::request(&mut joined.wire, Opcode::Gather, id);
        table.push(&GatherRow { length: 4 * MIB, ..GatherRow::default() }, b"k", b"");
        table.finish(0);
    }
    let mut table = TableBuilder::request(&mut joined.wire, Opcode::List, 18);
    table.push(&ListRow::default(), b"", b"");
    table.finish(0);
    while joined.connection.wants_input() && joined.receive(usize::MAX) > 0 {}
    assert!(!joined.connection.wants_input());
    assert_eq!(joined.core.buffers.free_count(), BUFFERS);
    joined.answers.clear();
    joined.run(usize::MAX, usize::MAX);
    assert!(joined.answers.len() > 64 << 20);
    assert_eq!(joined.core.buffers.free_count(), BUFFERS);
}

#[test]
fn rows_that_cost_many_steps_give_others_a_turn() {
    let mut joined = Joined::greeted(4_096);
    // A pool in which every free page is alone.
    let mut wire = Vec::new();
    for index in 0..4_096_u64 {
        let mut table = TableBuilder::request(&mut wire, Opcode::Create, index);
        let row = CreateRow { length: PAGE_BYTES, version: version(1), ..CreateRow::default() };
        table.push(&row, &index.to_le_bytes(), b"");
        table.finish(0);
    }
    for index in (0..4_096_u64).step_by(2) {
        let mut table = TableBuilder::request(&mut wire, Opcode::Drop, index);
        let row = DropRow { version: version(1), ..DropRow::default() };
        table.push(&row, &index.to_le_bytes(), b"");
        table.finish(0);
    }
    let mut table = TableBuilder::request(&mut wire, Opcode::Create, 9_999);
    for step in 2..102 {
        let flags = RowFlags::REPLACE;
        let length = 1_000 * PAGE_BYTES;
        let row = CreateRow { length, flags, version: version(step), ..CreateRow::default() };
        table.push(&row, b"scattered", b"");
    }
    table.finish(0);
    joined.wire = wire;
    let (mut turns, mut most) = (0, 0);
    while !joined.wire.is_empty() || joined.connection.is_paused() || joined.connection.has_output()
    {
        let before = joined.core.store.steps();
        joined.connection.handle_turn(&mut joined.core);
        most = most.max(joined.core.store.steps() - before);
        turns += u32::from(joined.connection.is_paused());
        let before = joined.core.store.steps();
        if joined.connection.wants_input() && !joined.wire.is_empty() {
            joined.receive(usize::MAX);
        }
        most = most.max(joined.core.store.steps() - before);
        if joined.connection.has_output() {
            let sent = joined.connection.send_with(&mut joined.core, u64::MAX, |slices, _| {
                Ok(slices.iter().map(|slice| slice.len()).sum())
            });
            sent.unwrap();
        }
    }
    assert_eq!(joined.core.store.stat(b"scattered", joined.core.now).0.version, version(101));
    assert!(turns > 10, "{turns}");
    assert!(most < 2 * STEPS_PER_TURN, "{most} steps in one turn");
}
