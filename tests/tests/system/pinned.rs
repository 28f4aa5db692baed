//! A value that is being read or written lives until that request ends,
//! whatever happens to its key.

use std::time::Duration;

use rampuddle_harness::{
    Frame, Oracle, Pattern, RawClient, ServerProcess, Transport, fresh_version, until,
};
use rampuddle_protocol::limits::MIB;
use rampuddle_protocol::{CreateRow, GatherRow, Opcode, RowFlags, ScatterRow, Status};

use crate::{assert_status, over_both};

over_both! {
    a_value_that_is_being_read_lives_though_its_key_is_deleted
    a_value_that_is_being_read_lives_though_its_key_is_replaced
    a_value_that_is_being_written_lives_though_its_key_is_deleted
    a_reservation_that_is_being_filled_lives_until_the_request_ends
}

/// More than the system keeps on the way, so that most of it is still the pool's.
const READERS: u64 = 6;

/// Fills every free page with values of other bytes.
fn refill(client: &mut RawClient, oracle: &mut Oracle) {
    for number in 0_u32.. {
        let (key, pattern) = ([&b"other"[..], &number.to_be_bytes()].concat(), Pattern(99));
        let outcome = client.create(&key, MIB, &pattern.bytes(0, MIB));
        if outcome.status() == Status::NoSpace {
            break;
        }
        assert_status!(outcome, Ok);
        oracle.created(&key, MIB, MIB, pattern);
    }
    assert_eq!(client.free_bytes(), 0);
}

fn read_while(transport: Transport, happens: impl FnOnce(&mut RawClient, &mut Oracle)) {
    let server = ServerProcess::with_pool_mib(12);
    let mut client = server.client(transport);
    let (length, pattern) = (4 * MIB, Pattern(1));
    let bytes = pattern.bytes(0, length);
    assert_status!(client.create(b"key", length, &bytes), Ok);
    let mut reader = RawClient::connect(&server.door(transport).with_small_buffer());
    let row = GatherRow { length, ..GatherRow::default() };
    for _ in 0..READERS {
        reader.post(Opcode::Gather, &[(row, b"key", b"")], b"");
    }
    // The first bytes are on their way; then the reader stops.
    let begin = reader.receive(64);
    until("the readers to be known", Duration::from_secs(10), || {
        client.info().gather_rows >= READERS
    });
    let mut oracle = Oracle::new();
    happens(&mut client, &mut oracle);
    refill(&mut client, &mut oracle);
    let used = client.info().used_bytes;
    assert_eq!(used, 12 * MIB, "the value that is read, and what is visible");
    // It reads on: the old bytes, whole.
    let first_rest = reader.receive(64 + 4 * MIB as usize);
    let header = rampuddle_protocol::Header::decode(&begin);
    assert_eq!(header.payload_bytes, length);
    assert!(first_rest[64..] == bytes, "the first answer");
    for number in 1..READERS {
        let answer = reader.receive_answer();
        assert_eq!(answer.statuses(), [Status::Ok]);
        assert!(answer.payload == bytes, "answer {number}");
    }
    // Then its pages come back, and nobody's bytes were damaged.
    until("the pages to come back", Duration::from_secs(10), || client.free_bytes() == length);
    assert!(oracle.check_all(&mut client) > 0);
}

fn a_value_that_is_being_read_lives_though_its_key_is_deleted(transport: Transport) {
    read_while(transport, |client, _| {
        assert_status!(client.delete(b"key"), Ok);
        assert_status!(client.gather(b"key", 0, 1).0, NotFound);
    });
}

fn a_value_that_is_being_read_lives_though_its_key_is_replaced(transport: Transport) {
    read_while(transport, |client, oracle| {
        let (pattern, flags) = (Pattern(2), RowFlags::REPLACE);
        let row = CreateRow { version: fresh_version(), flags, ..CreateRow::default() };
        assert_status!(client.create_row(row, b"key", b"", &pattern.bytes(0, 2 * MIB)).0, Ok);
        oracle.created(b"key", 2 * MIB, 2 * MIB, pattern);
        oracle.check_all(client);
    });
}

fn a_value_that_is_being_written_lives_though_its_key_is_deleted(transport: Transport) {
    let server = ServerProcess::with_pool_mib(12);
    let (mut client, mut writer) = (server.client(transport), server.client(transport));
    assert_status!(client.create(b"key", 4 * MIB, b"begin"), Ok);
    let bytes = vec![0xEE; 3 * MIB as usize];
    let row = ScatterRow { offset: MIB, value_bytes: 3 * MIB, ..ScatterRow::default() };
    let frame = Frame::new(Opcode::Scatter, 5, &[(row, b"key", b"")], &bytes);
    let half = frame.bytes.len() / 2;
    writer.send(&frame.bytes[..half]);
    until("the writer to be known", Duration::from_secs(10), || client.info().scatter_rows == 1);
    assert_status!(client.delete(b"key"), Ok);
    let mut oracle = Oracle::new();
    refill(&mut client, &mut oracle);
    assert_eq!(client.info().used_bytes, 12 * MIB);
    writer.send(&frame.bytes[half..]);
    let answer = writer.receive_answer();
    assert_eq!(answer.statuses(), [Status::Ok]);
    assert_status!(client.stat(b"key"), NotFound);
    oracle.check_all(&mut client);
    assert_eq!(client.free_bytes(), 4 * MIB);
    // The pages that it wrote to are clean for the next one.
    assert_status!(client.create(b"next", 4 * MIB, b"n"), Ok);
    let found = client.gather_all(b"next").unwrap();
    assert!(found[0] == b'n' && found[1..].iter().all(|byte| *byte == 0));
    // A writer that goes away in the middle gives its pin back too.
    assert_status!(client.delete(b"next"), Ok);
    assert_status!(client.create(b"key", 4 * MIB, b"begin"), Ok);
    let frame = Frame::new(Opcode::Scatter, 6, &[(row, b"key", b"")], &bytes);
    writer.send(&frame.bytes[..half]);
    until("the writer to be known", Duration::from_secs(10), || client.info().scatter_rows == 2);
    assert_status!(client.delete(b"key"), Ok);
    assert_eq!(client.free_bytes(), 0);
    drop(writer);
    until("its pages to come back", Duration::from_secs(10), || client.free_bytes() == 4 * MIB);
    oracle.check_all(&mut client);
}

fn a_reservation_that_is_being_filled_lives_until_the_request_ends(transport: Transport) {
    let server = ServerProcess::with_pool_mib(12);
    let (mut client, door) = (server.client(transport), server.door(transport));
    let mut second = RawClient::join(&door, client.session());
    let handle = assert_status!(client.reserve(b"key", MIB, fresh_version()), Ok).detail;
    let bytes = Pattern(3).bytes(0, MIB);
    let row = ScatterRow { handle, value_bytes: MIB, ..ScatterRow::default() };
    let frame = Frame::new(Opcode::Scatter, 5, &[(row, b"", b"")], &bytes);
    let half = frame.bytes.len() / 2;
    client.send(&frame.bytes[..half]);
    until("the writer to be known", Duration::from_secs(10), || second.info().scatter_rows == 1);
    assert_status!(second.publish(handle, MIB, MIB), Busy);
    client.send(&frame.bytes[half..]);
    assert_eq!(client.receive_answer().statuses(), [Status::Ok]);
    assert_status!(second.publish(handle, MIB, MIB), Ok);
    assert!(second.gather_all(b"key").unwrap() == bytes);
}
