//! Bytes that make no sense, and clients that mean no good.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use rampuddle_harness::{
    CANARY_BOUND, Canary, Counts, Frame, Pattern, RawClient, Seeded, ServeOptions, ServerProcess,
    Transport, fresh_version, until,
};
use rampuddle_protocol::limits::{MIB, PAGE_BYTES};
use rampuddle_protocol::{
    CreateRow, DeleteRow, FrameFlags, GatherRow, Header, ListRow, Opcode, Outcome, RowFlags,
    ScatterRow, SetId, StatRequestRow, Status, TouchRow,
};

use crate::delete::delete_rows;
use crate::{assert_status, over_both};

over_both! {
    other_protocols_before_the_hello_are_closed_without_a_word
    other_protocols_after_the_hello_get_one_error_frame
    an_error_frame_arrives_though_more_garbage_follows
    numbers_of_operations_that_nobody_has_are_unsupported_and_the_connection_goes_on
    a_wrong_checksum_of_header_or_table_ends_the_connection
    a_table_that_does_not_add_up_is_refused_whole_and_the_connection_goes_on
    frames_split_at_every_byte_are_understood
    frames_in_one_piece_are_all_answered
    a_thousand_gathers_that_nobody_reads_are_all_answered_in_the_end
    a_thousand_claims_of_bytes_that_never_come_cost_nothing
    longer_headers_and_rows_of_a_newer_peer_are_skipped
    what_was_asked_is_answered_though_the_client_ends_its_side
    small_requests_are_answered_soon_beside_large_ones
    half_sent_tables_do_not_stop_the_large_requests_of_others
    frames_of_a_thousand_rows_do_not_hold_up_small_requests
    one_client_that_does_not_read_its_lists_does_not_stop_those_of_others
    lists_that_find_nothing_do_not_hold_up_small_requests
    touches_of_a_large_set_do_not_hold_up_small_requests
}

const PATIENCE: Duration = Duration::from_secs(5);

fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Seeded::from_environment("garbage");
    let mut tls = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
    tls.extend(random.bytes(512));
    vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec()),
        ("TLS", tls),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("RESP", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n".to_vec()),
        ("memcached", b"set key 0 0 5\r\nvalue\r\nget key\r\n".to_vec()),
        ("zeros", vec![0; 4_096]),
        ("random", random.bytes(4_096)),
        ("a long random", random.bytes(1 << 20)),
        ("a magic number and zeros", [&b"PUDL"[..], &[0; 252]].concat()),
        ("a wrong version", [&b"PUDL\x02"[..], &[1; 251]].concat()),
        ("one byte", vec![b'Q']),
    ]
}

fn other_protocols_before_the_hello_are_closed_without_a_word(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let door = server.door(transport);
    let canary = Canary::start(&door);
    let mut counts = Counts::new("garbage before the hello");
    canary.assert_within(CANARY_BOUND, || {
        for (name, bytes) in garbage() {
            let mut connection = door.connect();
            let _ = connection.try_send(&bytes);
            let answer = connection.receive_to_end(PATIENCE);
            assert!(answer.is_empty(), "{name} was answered with {} bytes", answer.len());
            counts.one("connections");
        }
    });
    let mut client = RawClient::connect(&door);
    let info = client.info();
    assert_eq!((info.used_bytes, info.reserved_bytes), (PAGE_BYTES, 0), "the canary's");
    assert!(info.framing_errors >= counts.of("connections"));
}

fn other_protocols_after_the_hello_get_one_error_frame(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let door = server.door(transport);
    let canary = Canary::start(&door);
    let mut counts = Counts::new("garbage after the hello");
    canary.assert_within(CANARY_BOUND, || {
        for (name, bytes) in garbage().into_iter().filter(|(_, bytes)| bytes.len() <= 4_096) {
            let mut client = RawClient::connect(&door);
            client.send(&bytes);
            let answer = client.receive_answer();
            assert!(answer.is_framing_error(), "{name}: {:?}", answer.header);
            let wanted = match name {
                "a magic number and zeros" | "a wrong version" => Status::BadVersion,
                _ => Status::BadMagic,
            };
            assert_eq!((answer.status(), answer.header.rows), (wanted, 0), "{name}");
            assert!(client.receive_to_end(PATIENCE).is_empty(), "{name}: nothing behind it");
            counts.one("connections");
        }
    });
    let info = RawClient::connect(&door).info();
    assert_eq!((info.used_bytes, info.reserved_bytes), (PAGE_BYTES, 0), "the canary's");
    assert!(counts.of("connections") > 5);
}

/// The server closes while bytes are still coming: the system then tends to
/// reset the connection, which takes away what was sent before.
fn an_error_frame_arrives_though_more_garbage_follows(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut random = Seeded::from_environment("much garbage");
    for round in 0..10 {
        let mut client = server.client(transport);
        let _ = client.try_send(&random.bytes(100_000));
        let answer = client.try_receive_answer();
        let answer = answer.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(answer.is_framing_error() && answer.status() == Status::BadMagic);
    }
}

fn numbers_of_operations_that_nobody_has_are_unsupported_and_the_connection_goes_on(
    transport: Transport,
) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let mut counts = Counts::new("unknown operations");
    for number in (0..=255).filter(|number| Opcode::from_number(*number).is_none()) {
        let header =
            Header { payload_bytes: 1_000, ..Header::new(number, 500 + u64::from(number)) };
        let mut frame = Frame::of_header(header).bytes;
        frame.extend([0xAA; 1_000]);
        client.send(&frame);
        let answer = client.receive_answer();
        assert_eq!((answer.status(), answer.header.opcode), (Status::Unsupported, number));
        assert_eq!(answer.header.flags, FrameFlags::ANSWER);
        assert_eq!(answer.header.request_id, 500 + u64::from(number));
        counts.one("numbers");
    }
    for bit in 2..16 {
        let frame = Frame::bare(Opcode::Ping, 9).with_header(|header| header.flags.0 = 1 << bit);
        client.send(&frame.bytes);
        assert_eq!(client.receive_answer().status(), Status::Unsupported, "flag {bit}");
    }
    client.ping();
    assert_eq!(counts.of("numbers"), 256 - Opcode::ALL.len() as u64);
    for flags in [1, 2, 3] {
        let mut client = server.client(transport);
        let frame = Frame::bare(Opcode::Ping, 9).with_header(|header| header.flags.0 = flags);
        client.send(&frame.bytes);
        let answer = client.receive_answer();
        assert!(answer.is_framing_error() && answer.status() == Status::OutOfOrder);
        assert_eq!(answer.header.request_id, 9);
        assert!(client.receive_to_end(PATIENCE).is_empty());
    }
}

fn a_wrong_checksum_of_header_or_table_ends_the_connection(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let door = server.door(transport);
    let mut other = RawClient::connect(&door);
    let row =
        CreateRow { length: 1, value_bytes: 1, version: fresh_version(), ..CreateRow::default() };
    let frame = Frame::new(Opcode::Create, 3, &[(row, b"key", b"tag")], b"x");
    // Request id, checksum, and every part of the table.
    let places = [16, 23, 40, 44, 60, 63].into_iter().chain(64..frame.head_bytes);
    for place in places {
        let mut client = RawClient::connect(&door);
        let mut bytes = frame.bytes.clone();
        bytes[place] ^= 0x10;
        client.send(&bytes);
        let answer = client.receive_answer();
        assert!(answer.is_framing_error(), "byte {place}");
        assert_eq!(answer.status(), Status::BadChecksum, "byte {place}");
        assert!(client.receive_to_end(PATIENCE).is_empty());
    }
    assert_status!(other.stat(b"key"), NotFound);
}

fn a_table_that_does_not_add_up_is_refused_whole_and_the_connection_goes_on(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let row =
        CreateRow { length: 9, value_bytes: 9, version: fresh_version(), ..CreateRow::default() };
    let good = Frame::new(Opcode::Create, 3, &[(row, b"key", b"tag")], b"123456789");
    let with = |at: usize, size: usize, number: u64| {
        let mut frame = good.clone();
        frame.overwrite(at, size, number);
        frame
    };
    // Of the row: key_bytes, tag_bytes, value_bytes. Of the header: row_bytes.
    for frame in [
        with(64, 2, 4),
        with(64, 2, 2),
        with(64, 2, 65_535),
        with(66, 1, 0),
        with(66, 1, 255),
        with(80, 8, 8),
        with(80, 8, 10),
        with(80, 8, u64::MAX),
        with(12, 2, 95),
        with(12, 2, 0),
    ] {
        client.send(&frame.bytes);
        let answer = client.receive_answer();
        assert_eq!((answer.status(), answer.header.rows), (Status::BadRow, 0));
        assert!(!answer.is_framing_error());
        client.ping();
    }
    assert_status!(client.stat(b"key"), NotFound);
    // Sums that wrap around.
    let huge = CreateRow { value_bytes: u64::MAX / 2 + 6, ..row };
    let frame =
        Frame::new(Opcode::Create, 4, &[(huge, b"a", b""), (huge, b"b", b"")], b"123456789012");
    client.send(&frame.bytes);
    assert_eq!(client.receive_answer().status(), Status::BadRow);
    let wide = ScatterRow { offset: u64::MAX - 3, value_bytes: 9, ..ScatterRow::default() };
    assert_status!(client.create(b"v", 9, b"x"), Ok);
    let answer = client.ask(Opcode::Scatter, &[(wide, b"v", b"")], b"123456789");
    assert_eq!(answer.statuses(), [Status::BadRange]);
    assert_eq!(client.info().values, 1);
}

fn frames_split_at_every_byte_are_understood(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let row = CreateRow {
        length: 40,
        value_bytes: 40,
        version: fresh_version(),
        flags: RowFlags::REPLACE,
        ..CreateRow::default()
    };
    let bytes = Pattern(4).bytes(0, 40);
    let length = Frame::new(Opcode::Create, 1, &[(row, b"key", b"tag")], &bytes).bytes.len();
    for split in 1..length {
        let row = CreateRow { version: fresh_version(), ..row };
        let frame = Frame::new(Opcode::Create, split as u64, &[(row, b"key", b"tag")], &bytes);
        let (first, second) = frame.bytes.split_at(split);
        client.send(first);
        client.send(second);
        let answer = client.receive_answer();
        assert_eq!((answer.header.request_id, answer.statuses()), (split as u64, vec![Status::Ok]));
    }
    // One byte at a time.
    let row = CreateRow { version: fresh_version(), ..row };
    for byte in Frame::new(Opcode::Create, 1, &[(row, b"key", b"tag")], &bytes).bytes {
        client.send(&[byte]);
    }
    assert_eq!(client.receive_answer().statuses(), [Status::Ok]);
    assert_eq!(client.gather(b"key", 0, 40).1, bytes);
}

fn frames_in_one_piece_are_all_answered(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let (mut all, mut wanted) = (Vec::new(), Vec::new());
    for number in 0..100_u64 {
        let key = [number as u8 % 10];
        let row = CreateRow {
            length: 100,
            value_bytes: 100,
            version: fresh_version(),
            flags: RowFlags::REPLACE,
            ..CreateRow::default()
        };
        let bytes = Pattern(number).bytes(0, 100);
        all.extend(Frame::new(Opcode::Create, 2 * number, &[(row, &key, b"")], &bytes).bytes);
        let row = GatherRow { length: 100, ..GatherRow::default() };
        all.extend(Frame::new(Opcode::Gather, 2 * number + 1, &[(row, &key, b"")], b"").bytes);
        wanted.push(bytes);
    }
    client.send(&all);
    for number in 0..200 {
        let answer = client.receive_answer();
        assert_eq!(answer.statuses(), [Status::Ok]);
        let id = answer.header.request_id;
        assert_eq!(id, number, "one thread, one connection: in order");
        if id % 2 == 1 {
            assert!(answer.payload == wanted[id as usize / 2]);
        }
    }
}

fn a_thousand_gathers_that_nobody_reads_are_all_answered_in_the_end(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let door = server.door(transport);
    let canary = Canary::start(&door);
    let mut other = RawClient::connect(&door);
    let bytes = Pattern(1).bytes(0, 4_096);
    assert_status!(other.create(b"key", 4_096, &bytes), Ok);
    let mut client = RawClient::connect(&door.clone().with_small_buffer());
    let row = GatherRow { length: 4_096, ..GatherRow::default() };
    let all: Vec<u8> = (0..1_000)
        .flat_map(|id| Frame::new(Opcode::Gather, id, &[(row, b"key", b"")], b"").bytes)
        .collect();
    let mut stream = client.another_handle();
    let writer = thread::spawn(move || stream.write_all(&all).expect("all requests are taken"));
    canary.assert_within(CANARY_BOUND, || {
        until("the first hundred to be known", PATIENCE, || other.info().gather_rows >= 100);
        rampuddle_harness::pace(Duration::from_millis(300));
    });
    let resident = server.resident_bytes();
    assert!(resident < 80 * MIB, "{resident} bytes in RAM");
    for id in 0..1_000 {
        let answer = client.receive_answer();
        assert_eq!((answer.header.request_id, answer.statuses()), (id, vec![Status::Ok]));
        assert!(answer.payload == bytes);
    }
    writer.join().expect("the writer is done");
    client.ping();
    assert_status!(other.delete(b"key"), Ok);
    assert_eq!(other.info().used_bytes, PAGE_BYTES, "the canary's");
}

/// 1 GiB is claimed in rows, 4 MiB in headers, and nothing is sent.
fn a_thousand_claims_of_bytes_that_never_come_cost_nothing(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let door = server.door(transport);
    let mut other = RawClient::connect(&door);
    let canary = Canary::start(&door);
    let before = server.resident_bytes();
    canary.assert_within(CANARY_BOUND, || {
        let mut open = Vec::new();
        for number in 0..300_u64 {
            let mut client = RawClient::connect(&door);
            let row = CreateRow {
                length: 1 << 30,
                value_bytes: 4 * MIB,
                version: fresh_version(),
                ..CreateRow::default()
            };
            let payload = vec![0; 4 * MIB as usize];
            let frame = Frame::new(Opcode::Create, number, &[(row, b"huge", b"")], &payload);
            client.send(&frame.bytes[..frame.head_bytes]);
            open.push(client);
        }
        // A claim that fits is held to the bound of values under way.
        for number in 0..300_u64 {
            let mut client = RawClient::connect(&door);
            let row = CreateRow {
                length: 2 * MIB,
                value_bytes: MIB,
                version: fresh_version(),
                ..CreateRow::default()
            };
            let payload = vec![0; MIB as usize];
            let frame = Frame::new(Opcode::Create, number, &[(row, b"huge", b"")], &payload);
            client.send(&frame.bytes[..frame.head_bytes]);
            open.push(client);
        }
        assert_status!(other.create(b"small", 1, b"x"), Busy);
        let info = other.info();
        assert!(info.reserved_bytes <= info.pool_bytes / 4, "{info:?}");
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 650 * 64 * 1024, "{grown} bytes for 600 connections");
    });
    until("the claims to be given up", PATIENCE, || other.info().reserved_bytes == 0);
    assert_status!(other.create(b"small", 1, b"x"), Ok);
}

fn longer_headers_and_rows_of_a_newer_peer_are_skipped(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    assert_status!(client.create(b"key", 5, b"bytes"), Ok);
    let row = GatherRow { length: 5, ..GatherRow::default() };
    let plain = Frame::new(Opcode::Gather, 8, &[(row, b"key", b"")], b"");
    let (header, table) = plain.bytes.split_at(Header::BYTES);
    let (fixed, key) = table.split_at(GatherRow::BYTES);
    for (more_header, more_row) in [(0, 8), (32, 0), (960, 968), (7, 1)] {
        let bytes = [header, &vec![0xAB; more_header], fixed, &vec![0xCD; more_row], key].concat();
        let head_bytes = bytes.len();
        let frame = Frame { bytes, head_bytes }.with_header(|header| {
            header.header_bytes += more_header as u16;
            header.row_bytes += more_row as u16;
            header.table_bytes += more_row as u32;
            header.priority = 3;
            header.reserved_1 = [9; 16];
        });
        client.send(&frame.bytes);
        let answer = client.receive_answer();
        assert_eq!((answer.statuses(), &answer.payload[..]), (vec![Status::Ok], &b"bytes"[..]));
    }
    client.ask::<StatRequestRow>(Opcode::Ping, &[], b"");
}

fn what_was_asked_is_answered_though_the_client_ends_its_side(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let bytes = Pattern(1).bytes(0, 1_000);
    assert_status!(client.create(b"key", 1_000, &bytes), Ok);
    let row = GatherRow { length: 1_000, ..GatherRow::default() };
    let mut all: Vec<u8> = (0..500)
        .flat_map(|id| Frame::new(Opcode::Gather, id, &[(row, b"key", b"")], b"").bytes)
        .collect();
    // Half a request at the end is given up.
    let create = CreateRow {
        length: 1_000,
        value_bytes: 1_000,
        version: fresh_version(),
        ..CreateRow::default()
    };
    let half = Frame::new(Opcode::Create, 900, &[(create, b"half", b"")], &bytes);
    all.extend(&half.bytes[..half.bytes.len() - 1]);
    let mut stream = client.another_handle();
    let writer = thread::spawn(move || stream.write_all(&all).expect("all requests are taken"));
    for id in 0..250 {
        assert_eq!(client.receive_answer().header.request_id, id);
    }
    writer.join().expect("the writer is done");
    client.end_sending();
    for id in 250..500 {
        let answer = client.receive_answer();
        assert!(answer.header.request_id == id && answer.payload == bytes);
    }
    assert!(client.receive_to_end(PATIENCE).is_empty());
    let mut other = server.client(transport);
    assert_status!(other.stat(b"half"), NotFound);
    assert_eq!(other.info().used_bytes, PAGE_BYTES);
}

fn small_requests_are_answered_soon_beside_large_ones(transport: Transport) {
    let server = ServerProcess::with_pool_mib(64);
    let door = &server.door(transport);
    let canary = Canary::start(door);
    let mut counts = Counts::new("large requests beside a canary");
    let done = canary.assert_within(CANARY_BOUND, || {
        thread::scope(|scope| {
            let busy = |number: u8| {
                move || {
                    let mut client = RawClient::connect(door);
                    let bytes = Pattern(number.into()).bytes(0, 4 * MIB);
                    assert_status!(client.create(&[number], 4 * MIB, &bytes), Ok);
                    for _ in 0..40 {
                        assert_status!(client.scatter(&[number], 0, &bytes), Ok);
                        assert!(client.gather(&[number], 0, 4 * MIB).1 == bytes);
                    }
                    80
                }
            };
            let clients: Vec<_> = (0..4).map(|number| scope.spawn(busy(number))).collect();
            clients.into_iter().map(|client| client.join().expect("a busy client")).sum()
        })
    });
    counts.add("requests of 4 MiB", done);
}

/// Large tables lie in buffers that all connections share. Whoever sends half
/// a table and no more must not keep them from others.
fn half_sent_tables_do_not_stop_the_large_requests_of_others(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let door = server.door(transport);
    let mut client = RawClient::connect(&door);
    assert_status!(client.create(b"key", 1, b"x"), Ok);
    let row = GatherRow { length: 1, ..GatherRow::default() };
    let rows = vec![(row, &b"key"[..], &b""[..]); 1_024];
    let frame = Frame::new(Opcode::Gather, 1, &rows, b"");
    let hostile: Vec<RawClient> = (0..30)
        .map(|_| {
            let mut client = RawClient::connect(&door);
            client.send(&frame.bytes[..frame.bytes.len() / 2]);
            client
        })
        .collect();
    client.ping();
    let began = std::time::Instant::now();
    let answer = client.ask(Opcode::Gather, &rows, b"");
    assert_eq!(answer.outcomes().len(), 1_024);
    client.list_all(ListRow::default(), b"");
    let took = began.elapsed();
    drop(hostile);
    assert!(took < Duration::from_secs(1), "a large request of another waited for {took:?}");
}

/// Rows without bytes are cheap to send: many connections send full tables of
/// them, one frame behind the other.
fn frames_of_a_thousand_rows_do_not_hold_up_small_requests(transport: Transport) {
    const CONNECTIONS: u64 = 16;
    const FRAMES: u64 = 8;
    let server = ServerProcess::with_pool_mib(4);
    let door = &server.door(transport);
    let canary = Canary::start(door);
    let mut counts = Counts::new("full tables");
    let create = vec![(CreateRow::default(), &b"key"[..], &b""[..]); 1_024];
    let scatter = vec![(ScatterRow::default(), &b"absent"[..], &b""[..]); 1_024];
    let frames = [
        (Frame::new(Opcode::Create, 1, &create, b"").bytes, Status::BadRow),
        (Frame::new(Opcode::Scatter, 2, &scatter, b"").bytes, Status::NotFound),
    ];
    canary.assert_within(CANARY_BOUND, || {
        for (frame, wanted) in &frames {
            thread::scope(|scope| {
                for _ in 0..CONNECTIONS {
                    scope.spawn(|| {
                        let mut client = RawClient::connect(door);
                        for _ in 0..FRAMES {
                            client.send(frame);
                            let statuses = client.receive_answer().statuses();
                            assert_eq!(statuses, vec![*wanted; 1_024]);
                        }
                    });
                }
            });
            counts.add("rows", CONNECTIONS * FRAMES * 1_024);
        }
    });
    let longest = RawClient::connect(door).info().turn_us_max;
    println!("longest turn of the loop: {longest} us");
}

/// The heads of large answers lie in the same shared buffers: one connection
/// that asks for many and reads none must not take them all.
fn one_client_that_does_not_read_its_lists_does_not_stop_those_of_others(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let door = server.door(transport);
    let mut client = RawClient::connect(&door);
    let keys: Vec<Vec<u8>> =
        (0..500_u16).map(|number| [&number.to_be_bytes()[..], &[b'k'; 1_000]].concat()).collect();
    let rows = delete_rows(&keys);
    let deleted = client.ask(Opcode::Delete, &rows, b"").statuses();
    assert_eq!(deleted, vec![Status::NotFound; 500]);
    let row = ListRow { flags: RowFlags::TOMBSTONE, ..ListRow::default() };
    assert_eq!(client.list_all(row, b"").len(), 500);
    let mut hostile = RawClient::connect(&door.clone().with_small_buffer());
    for _ in 0..120 {
        hostile.post(Opcode::List, &[(row, b"", b"")], b"");
    }
    hostile.receive(64);
    let began = std::time::Instant::now();
    assert_eq!(client.list_all(row, b"").len(), 500);
    let took = began.elapsed();
    drop(hostile);
    assert!(took < Duration::from_secs(1), "the list of another waited for {took:?}");
}

/// A List looks at thousands of tombstones and answers with a few bytes: many
/// of them fit into what a connection may move in a turn.
fn lists_that_find_nothing_do_not_hold_up_small_requests(transport: Transport) {
    let server = ServerProcess::start(ServeOptions {
        arguments: vec!["--no-prefault".to_owned()],
        ..ServeOptions::with_pool_mib(1_024)
    });
    let door = &server.door(transport);
    let canary = Canary::start(door);
    let mut client = RawClient::connect(door);
    for first in (0..4_096_u16).step_by(1_024) {
        let keys: Vec<[u8; 2]> = (first..first + 1_024).map(u16::to_be_bytes).collect();
        let row = |_| DeleteRow { version: fresh_version(), ..DeleteRow::default() };
        let rows: Vec<(DeleteRow, &[u8], &[u8])> =
            keys.iter().map(|key| (row(()), &key[..], &b""[..])).collect();
        client.ask(Opcode::Delete, &rows, b"");
    }
    assert_eq!(client.info().tombstones, 4_096);
    let row = ListRow::default();
    let all: Vec<u8> = (0..100)
        .flat_map(|id| Frame::new(Opcode::List, id, &[(row, b"", b"")], b"").bytes)
        .collect();
    canary.assert_within(CANARY_BOUND, || {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = RawClient::connect(door);
                    client.send(&all);
                    for _ in 0..100 {
                        assert_eq!(client.receive_answer().status(), Status::Ok);
                    }
                });
            }
        });
    });
    println!("longest turn of the loop: {} us", client.info().turn_us_max);
}

/// A row of Touch walks over all values of its set, and a frame has many rows.
fn touches_of_a_large_set_do_not_hold_up_small_requests(transport: Transport) {
    let server = ServerProcess::start(ServeOptions {
        arguments: vec!["--no-prefault".to_owned()],
        ..ServeOptions::with_pool_mib(320)
    });
    let door = &server.door(transport);
    let canary = Canary::start(door);
    let mut client = RawClient::connect(door);
    let set = SetId([5; 16]);
    for first in (0..5_000_u16).step_by(1_000) {
        let keys: Vec<[u8; 2]> = (first..first + 1_000).map(u16::to_be_bytes).collect();
        let row = |_| CreateRow { version: fresh_version(), set, ..CreateRow::default() };
        let rows: Vec<(CreateRow, &[u8], &[u8])> =
            keys.iter().map(|key| (row(()), &key[..], &b""[..])).collect();
        let created = client.ask(Opcode::Create, &rows, b"").statuses();
        assert_eq!(created, vec![Status::Ok; 1_000]);
    }
    let row = TouchRow { set, lease_ms: 1_000_000, ..TouchRow::default() };
    let rows = vec![(row, &b""[..], &b""[..]); 1_024];
    canary.assert_within(CANARY_BOUND, || {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut client = RawClient::connect(door);
                    let outcomes = client.ask(Opcode::Touch, &rows, b"").outcomes();
                    // What would take too long for one turn is told to come again.
                    let is_right = |outcome: &Outcome| match outcome.status() {
                        Status::Ok => outcome.detail == 5_000,
                        status => status == Status::Busy,
                    };
                    assert!(outcomes[0].status() == Status::Ok && outcomes.iter().all(is_right));
                });
            }
        });
    });
    println!("longest turn of the loop: {} us", client.info().turn_us_max);
}
