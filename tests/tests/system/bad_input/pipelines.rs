//! Requests that ask for far more than anybody takes: the server's memory and the
//! others' time are bounded all the same.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use rampuddle_harness::{
    Frame, RawClient, ServeOptions, ServerProcess, Transport, fresh_version, pace, until,
};
use rampuddle_protocol::limits::{GIB, MIB, PAYLOAD_BYTES_MAX};
use rampuddle_protocol::{CancelRow, CreateRow, GatherRow, Opcode, RowFlags, Status};

use super::{BYSTANDER, BYSTANDER_BYTES, PATIENCE, Room};
use crate::{assert_status, over_both};

over_both! {
    a_gib_asked_for_a_thousand_times_in_one_gather_is_refused_row_by_row
    a_hundred_thousand_requests_that_nobody_reads_the_answers_of_take_no_memory
}

/// What measurements of a process's memory may be off by.
const SLACK: u64 = 8 * MIB;
const GATHERS: usize = 100_000;
const CONNECTIONS: usize = 4;

/// A row that asks for `length` bytes of the value from `offset` on.
fn range(offset: u64, length: u64) -> GatherRow {
    GatherRow { offset, length, ..GatherRow::default() }
}

fn a_gib_asked_for_a_thousand_times_in_one_gather_is_refused_row_by_row(transport: Transport) {
    let server = ServerProcess::start(ServeOptions {
        arguments: vec!["--no-prefault".to_owned()],
        ..ServeOptions::with_pool_mib(1_100)
    });
    let mut room = Room::open(server, transport, "a GiB asked for a thousand times");
    let resident = room.server.resident_bytes();
    room.survives("a GiB asked for a thousand times", 0, |door, watcher, _| {
        let version = fresh_version();
        let row = CreateRow { length: GIB, version, ..CreateRow::default() };
        assert_status!(watcher.create_row(row, b"huge", b"", b"x").0, Ok);
        let mut client = RawClient::connect(door);
        let mut ask = |row: GatherRow| {
            let rows = vec![(row, &b"huge"[..], &b""[..]); 1_000];
            let answer = client.ask(Opcode::Gather, &rows, b"");
            (answer.statuses(), answer.shares())
        };
        let (statuses, shares) = ask(range(0, GIB));
        assert_eq!(statuses, vec![Status::TooLarge; 1_000]);
        assert!(shares.iter().all(Vec::is_empty));
        // One row takes all that an answer may have; nothing is left for others.
        let (statuses, shares) = ask(range(MIB, PAYLOAD_BYTES_MAX));
        assert_eq!(statuses[0], Status::Ok);
        assert!(statuses[1..].iter().all(|status| *status == Status::TooLarge));
        assert!(shares[0].len() as u64 == PAYLOAD_BYTES_MAX, "{} bytes", shares[0].len());
        assert!(shares[0].iter().all(|byte| *byte == 0), "nothing was ever written there");
        // What was never given is not sent where it is not wanted.
        let (statuses, shares) = ask(GatherRow { flags: RowFlags::FILLED, ..range(0, GIB) });
        assert_eq!(statuses, vec![Status::Ok; 1_000]);
        assert!(shares.iter().all(|share| share == b"x"));
        assert_status!(watcher.drop_version(b"huge", version), Ok);
    });
    let grown = room.server.resident_bytes().saturating_sub(resident);
    assert!(grown < SLACK + PAYLOAD_BYTES_MAX, "{grown} bytes more in RAM");
}

fn a_hundred_thousand_requests_that_nobody_reads_the_answers_of_take_no_memory(
    transport: Transport,
) {
    let server = ServerProcess::with_pool_mib(4);
    let mut room = Room::open(server, transport, "requests that nobody reads the answers of");
    let gather = |length, flags| {
        let row = GatherRow { flags, ..range(0, length) };
        Frame::new(Opcode::Gather, 1, &[(row, BYSTANDER, b"")], b"").bytes
    };
    let cancel = CancelRow { request_id: 1 };
    let floods = [
        ("gathers of all of a value", gather(BYSTANDER_BYTES, RowFlags::NONE)),
        ("gathers of one byte", gather(1, RowFlags::TAG)),
        ("cancels of each other", Frame::new(Opcode::Cancel, 1, &[(cancel, b"", b"")], b"").bytes),
        ("pings", Frame::bare(Opcode::Ping, 1).bytes),
        ("infos", Frame::bare(Opcode::Info, 1).bytes),
    ];
    for (name, frame) in floods {
        let all = frame.repeat(GATHERS);
        let resident = room.server.resident_bytes();
        let mut most = 0;
        room.survives(name, 0, |door, watcher, server| {
            let before = watcher.info().received_bytes;
            let door = door.clone().with_small_buffer();
            let clients: Vec<RawClient> =
                (0..CONNECTIONS).map(|_| RawClient::connect(&door)).collect();
            thread::scope(|scope| {
                for client in &clients {
                    let (mut stream, all) = (client.another_handle(), &all);
                    // It ends when the client does: nobody takes all of it.
                    scope.spawn(move || stream.write_all(all));
                }
                until("the flood to be known", PATIENCE, || {
                    watcher.info().received_bytes > before + 10 * frame.len() as u64
                });
                pace(Duration::from_millis(200));
                most = server.resident_bytes();
                clients.iter().for_each(|client| client.end_sending());
            });
        });
        let grown = most.saturating_sub(resident);
        assert!(grown < SLACK, "{name}: {grown} bytes more in RAM");
        room.counts.add("requests", (CONNECTIONS * GATHERS) as u64);
    }
    room.every_free_page_can_be_used(5);
}
