//! Create: fixed length, zeros where nothing was given, visible when whole.

use std::time::Duration;

use rampuddle_harness::{
    Frame, Oracle, Pattern, RawClient, ServerProcess, Transport, fresh_version, until,
};
use rampuddle_protocol::limits::{GIB, KIB, MIB, VALUE_BYTES_MIN};
use rampuddle_protocol::{
    CreateRow, Opcode, Outcome, RowFlags, StatRequestRow, Status, Trailer, Version, crc32c,
};

use crate::{assert_status, over_both};

over_both! {
    the_smallest_value_has_64_kib_and_reads_as_zero_behind_what_was_given
    a_value_keeps_the_length_that_it_was_created_with
    old_bytes_of_the_pool_are_never_shown
    a_key_that_exists_is_replaced_only_when_asked_for
    a_value_is_visible_only_when_it_is_whole
    the_greater_version_and_checksum_wins_in_both_orders
    keys_that_repeat_in_one_request_are_handled_row_by_row
    a_wrong_checksum_is_corrupt_and_the_value_is_not_visible
    checksum_and_tag_may_come_behind_the_bytes
    a_trailer_that_is_damaged_or_has_no_checksum_makes_no_value
    a_version_from_the_future_is_refused
    rows_that_break_a_rule_are_refused_and_the_others_work
    a_create_with_another_held_version_is_refused
}

fn at(time: u64) -> Version {
    Version { time, writer: 9 }
}

fn the_smallest_value_has_64_kib_and_reads_as_zero_behind_what_was_given(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let outcome = assert_status!(client.create(b"one", 1, b"x"), Ok);
    assert_eq!(outcome.length, VALUE_BYTES_MIN);
    assert!(outcome.version.is_none(), "nothing was displaced");
    let (outcome, bytes) = client.gather(b"one", 0, VALUE_BYTES_MIN);
    assert_eq!((outcome.length, outcome.detail), (VALUE_BYTES_MIN, VALUE_BYTES_MIN));
    assert!(bytes[0] == b'x' && bytes[1..].iter().all(|byte| *byte == 0));
    let stat = client.stat(b"one");
    assert_eq!((stat.length, stat.filled), (VALUE_BYTES_MIN, 1));
    // No bytes at all make a value too.
    assert_status!(client.create(b"none", 0, b""), Ok);
    assert_eq!(client.gather_all(b"none").unwrap(), vec![0; 64 * 1024]);
}

fn a_value_keeps_the_length_that_it_was_created_with(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let mut oracle = Oracle::new();
    for length in [65_535, 65_536, 65_537, 100_000, 131_072, MIB + 1, 4 * MIB] {
        let (key, pattern) = (length.to_string(), Pattern(length));
        let outcome = client.create(key.as_bytes(), length, &pattern.bytes(0, length));
        assert_status!(&outcome, Ok);
        assert_eq!(outcome.length, length.max(VALUE_BYTES_MIN));
        oracle.created_value(key.as_bytes(), length, length, pattern);
        oracle.check_all(&mut client);
        // Writing does not lengthen it.
        assert_status!(client.scatter(key.as_bytes(), outcome.length, b"more"), Ok);
        assert_eq!(client.stat(key.as_bytes()).length, outcome.length);
        assert_status!(client.delete(key.as_bytes()), Ok);
        oracle.removed(key.as_bytes());
    }
    assert_eq!(client.info().used_bytes, 0);
}

fn old_bytes_of_the_pool_are_never_shown(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let old = vec![0xAA; 4 * MIB as usize];
    for key in [b"a", b"b"] {
        assert_status!(client.create(key, 4 * MIB, &old), Ok);
    }
    assert_eq!(client.free_bytes(), 0);
    assert_status!(client.delete(b"a"), Ok);
    assert_status!(client.delete(b"b"), Ok);
    let mut oracle = Oracle::new();
    // Short values, gathered whole.
    for (number, given) in [0, 1, 63, 4_095, 4_097, 65_535, 65_537, 200_001].into_iter().enumerate()
    {
        let (key, pattern) = ([number as u8], Pattern(number as u64));
        let length = 256 * KIB;
        assert_status!(client.create(&key, length, &pattern.bytes(0, given)), Ok);
        oracle.created_value(&key, length, given, pattern);
    }
    oracle.check_all(&mut client);
    // Writes that leave gaps: before, between and behind is nothing but zeros.
    for (key, offset, length) in
        [([0], 200_000, 10), ([1], 100_000, 70_000), ([0], 70_000, 1), ([2], 262_140, 4)]
    {
        let pattern = Pattern(1_000 + offset);
        assert_status!(client.scatter(&key, offset, &pattern.bytes(0, length)), Ok);
        oracle.scattered(&key, offset, length, pattern);
        oracle.check_all(&mut client);
    }
    // A reserved value published with less than was reserved, and mostly empty.
    let reserved = assert_status!(client.reserve(b"r", 5 * MIB, fresh_version()), Ok);
    assert_status!(client.scatter_reserved(reserved.detail, 0, b"begin"), Ok);
    assert_status!(client.publish(reserved.detail, MIB, 5), Ok);
    let mut expected = vec![0; MIB as usize];
    expected[..5].copy_from_slice(b"begin");
    assert!(client.gather_all(b"r").unwrap() == expected, "zeros behind what was given");
}

fn a_key_that_exists_is_replaced_only_when_asked_for(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let row = |version| CreateRow { version, ..CreateRow::default() };
    let (first, second) = (fresh_version(), fresh_version());
    assert_status!(client.create_row(row(first), b"key", b"tag one", b"one").0, Ok);
    let (outcome, tag) = client.create_row(row(second), b"key", b"tag two", b"two");
    assert_status!(&outcome, Exists);
    assert_eq!((outcome.version, &tag[..]), (first, &b"tag one"[..]));
    assert_eq!(&client.gather(b"key", 0, 3).1, b"one");
    let replace = CreateRow { flags: RowFlags::REPLACE, ..row(second) };
    let (outcome, tag) = client.create_row(replace, b"key", b"tag two", b"two");
    assert_status!(&outcome, Ok);
    assert!(outcome.flags.has(RowFlags::DISPLACED));
    assert_eq!((outcome.version, &tag[..]), (first, &b"tag one"[..]));
    assert_eq!(&client.gather(b"key", 0, 4).1, b"two\0");
    // The same once more is no second write.
    let (outcome, _) = client.create_row(replace, b"key", b"tag two", b"two");
    assert_status!(&outcome, Same);
    // Nor when it may be rewritten: the bytes that are there are sound.
    let rewrite = CreateRow { flags: RowFlags::REPLACE | RowFlags::REWRITE, ..replace };
    assert_status!(client.create_row(rewrite, b"key", b"tag two", b"two").0, Same);
    assert_eq!(client.info().used_bytes, VALUE_BYTES_MIN);
}

fn a_value_is_visible_only_when_it_is_whole(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let (mut writer, mut other) = (server.client(transport), server.client(transport));
    let pattern = Pattern(5);
    let bytes = pattern.bytes(0, MIB);
    let row = CreateRow {
        length: MIB,
        value_bytes: MIB,
        version: fresh_version(),
        ..CreateRow::default()
    };
    let frame = Frame::new(Opcode::Create, 77, &[(row, b"key", b"")], &bytes);
    let half = frame.head_bytes + bytes.len() / 2;
    writer.send(&frame.bytes[..half]);
    until("the first half to arrive", Duration::from_secs(10), || {
        other.info().reserved_bytes == MIB
    });
    assert_status!(other.stat(b"key"), NotFound);
    assert_status!(other.gather(b"key", 0, MIB).0, NotFound);
    assert!(other.list_all(rampuddle_protocol::ListRow::default(), b"").is_empty());
    // All but the last byte is not enough.
    let last = frame.bytes.len() - 1;
    writer.send(&frame.bytes[half..last]);
    assert_status!(other.stat(b"key"), NotFound);
    writer.send(&frame.bytes[last..]);
    let answer = writer.receive_answer();
    assert_eq!((answer.header.request_id, answer.statuses()), (77, vec![Status::Ok]));
    assert!(other.gather_all(b"key").unwrap() == bytes, "the value is whole");
    assert_eq!((other.info().reserved_bytes, other.info().used_bytes), (0, MIB));
    // A writer that goes away in the middle leaves nothing.
    let row = CreateRow { version: fresh_version(), ..row };
    let frame = Frame::new(Opcode::Create, 78, &[(row, b"half", b"")], &bytes);
    writer.send(&frame.bytes[..half]);
    until("the half to arrive", Duration::from_secs(10), || other.info().reserved_bytes == MIB);
    drop(writer);
    until("its pages to come back", Duration::from_secs(10), || other.free_bytes() == 7 * MIB);
    assert_status!(other.stat(b"half"), NotFound);
}

fn the_greater_version_and_checksum_wins_in_both_orders(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let ranks =
        [(at(5), b"aa"), (at(5), b"bb"), (at(6), b"cc"), (Version { time: 5, writer: 10 }, b"dd")];
    for (first, second) in (0..16).map(|pair| (ranks[pair / 4], ranks[pair % 4])) {
        let key = format!("{first:?} {second:?}");
        let mut create = |(version, bytes): (Version, &[u8; 2])| {
            let flags = RowFlags::CHECKSUM | RowFlags::REPLACE;
            let row = CreateRow { version, flags, crc32c: crc32c(bytes), ..CreateRow::default() };
            client.create_row(row, key.as_bytes(), b"", bytes).0
        };
        let rank = |(version, bytes): (Version, &[u8; 2])| (version, crc32c(bytes));
        assert_status!(create(first), Ok);
        let outcome = create(second);
        let (wanted, winner) = match rank(second).cmp(&rank(first)) {
            std::cmp::Ordering::Less => (Status::Older, first),
            std::cmp::Ordering::Equal => (Status::Same, first),
            std::cmp::Ordering::Greater => (Status::Ok, second),
        };
        assert_eq!(outcome.status(), wanted, "{key}");
        assert_eq!((outcome.version, outcome.crc32c), rank(first), "what is held or displaced");
        let (outcome, bytes) = client.gather(key.as_bytes(), 0, 2);
        assert_eq!((outcome.version, &bytes[..]), (winner.0, &winner.1[..]), "{key}");
    }
    assert_eq!(client.info().values, 16);
}

fn keys_that_repeat_in_one_request_are_handled_row_by_row(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let version = fresh_version();
    let later = |by| Version { time: version.time + by, ..version };
    let row = |version, flags| CreateRow {
        length: 2,
        value_bytes: 2,
        version,
        flags,
        ..CreateRow::default()
    };
    let rows: [(CreateRow, &[u8], &[u8]); 6] = [
        (row(later(1), RowFlags::NONE), b"key", b""),
        (row(later(2), RowFlags::NONE), b"key", b""),
        (row(later(3), RowFlags::REPLACE), b"key", b""),
        (row(later(2), RowFlags::REPLACE), b"key", b""),
        (row(later(3), RowFlags::REPLACE), b"key", b""),
        (row(later(4), RowFlags::NONE), b"other", b""),
    ];
    let answer = client.ask(Opcode::Create, &rows, b"aabbccddeeff");
    let wanted = [Status::Ok, Status::Exists, Status::Ok, Status::Older, Status::Same, Status::Ok];
    assert_eq!(answer.statuses(), wanted);
    assert_eq!(&client.gather(b"key", 0, 2).1, b"cc");
    assert_eq!(&client.gather(b"other", 0, 2).1, b"ff");
    assert_eq!((client.info().values, client.info().used_bytes), (2, 2 * VALUE_BYTES_MIN));
}

fn a_wrong_checksum_is_corrupt_and_the_value_is_not_visible(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let bytes = Pattern(3).bytes(0, 100_000);
    let right = CreateRow {
        flags: RowFlags::CHECKSUM | RowFlags::REPLACE,
        crc32c: crc32c(&bytes),
        version: fresh_version(),
        ..CreateRow::default()
    };
    let wrong = CreateRow { crc32c: right.crc32c ^ 1, ..right };
    assert_status!(client.create_row(wrong, b"key", b"", &bytes).0, Corrupt);
    assert_status!(client.stat(b"key"), NotFound);
    assert_eq!(client.info().used_bytes, 0);
    assert_status!(client.create_row(right, b"key", b"", &bytes).0, Ok);
    assert_eq!(client.gather(b"key", 0, 1).0.crc32c, right.crc32c);
    // A corrupt replacement leaves what is there.
    let wrong = CreateRow { version: fresh_version(), ..wrong };
    assert_status!(client.create_row(wrong, b"key", b"", &bytes).0, Corrupt);
    assert!(client.gather_all(b"key").unwrap()[..bytes.len()] == bytes);
    // Writing into a value takes its checksum away.
    assert_status!(client.scatter(b"key", 9, b"x"), Ok);
    let stat = client.stat(b"key");
    assert!(!stat.flags.has(RowFlags::CHECKSUM) && stat.crc32c == 0);
}

/// A Create with TRAILER, its table's tag filled with dashes; `damage` may change what
/// is sent behind the head.
fn create_with_trailer(
    client: &mut RawClient,
    row: CreateRow,
    bytes: &[u8],
    tag: &[u8],
    damage: impl FnOnce(&mut Vec<u8>),
) -> Outcome {
    let row = CreateRow {
        flags: row.flags | RowFlags::TRAILER,
        tag_bytes: tag.len() as u8,
        length: bytes.len() as u64,
        value_bytes: bytes.len() as u64,
        ..row
    };
    let mut payload = bytes.to_vec();
    Trailer { crc32c: crc32c(bytes), tag }.encode(&mut payload);
    damage(&mut payload);
    let dashes = vec![b'-'; tag.len()];
    client.ask_one(Opcode::Create, row, b"key", &dashes, &payload).0
}

fn checksum_and_tag_may_come_behind_the_bytes(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let mut client = server.client(transport);
    let pattern = Pattern(21);
    let flags = RowFlags::CHECKSUM | RowFlags::REPLACE;
    // The longest of one frame among them.
    for (step, length) in [0, 1, 70_000, 4 * MIB].into_iter().enumerate() {
        for tag in [&b""[..], b"tag", &[7; 64]] {
            let bytes = pattern.bytes(step as u64, length);
            let row = CreateRow { flags, version: fresh_version(), ..CreateRow::default() };
            let outcome = create_with_trailer(&mut client, row, &bytes, tag, |_| {});
            assert_status!(outcome, Ok);
            let asked: [(_, &[u8], &[u8]); 1] = [(StatRequestRow::default(), b"key", b"")];
            let (stat, _, found) = client.ask(Opcode::Stat, &asked, b"").stats().remove(0);
            assert_eq!((found.as_slice(), stat.crc32c), (tag, crc32c(&bytes)));
            assert!(stat.flags.has(RowFlags::CHECKSUM) && stat.filled == length);
            assert!(client.gather(b"key", 0, length).1 == bytes);
        }
    }
    // The rank of a value counts as if its checksum had stood in the row.
    let version = fresh_version();
    let row = CreateRow { flags, version, ..CreateRow::default() };
    let (one, two) = (pattern.bytes(1, 100), pattern.bytes(2, 100));
    let (less, greater) = if crc32c(&one) < crc32c(&two) { (one, two) } else { (two, one) };
    assert_status!(create_with_trailer(&mut client, row, &less, b"", |_| {}), Ok);
    assert_status!(create_with_trailer(&mut client, row, &less, b"", |_| {}), Same);
    assert_status!(create_with_trailer(&mut client, row, &greater, b"", |_| {}), Ok);
    assert_status!(create_with_trailer(&mut client, row, &less, b"", |_| {}), Older);
    assert!(client.gather(b"key", 0, 100).1 == greater);
}

fn a_trailer_that_is_damaged_or_has_no_checksum_makes_no_value(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let bytes = Pattern(22).bytes(0, 70_000);
    let row = CreateRow { flags: RowFlags::CHECKSUM, ..CreateRow::default() };
    let all = bytes.len() + Trailer::BYTES + 3;
    for at in [0, 69_999, 70_000, 70_004, 70_008, all - 1] {
        let row = CreateRow { version: fresh_version(), ..row };
        let flip = |payload: &mut Vec<u8>| payload[at] ^= 4;
        assert_status!(create_with_trailer(&mut client, row, &bytes, b"tag", flip), Corrupt);
    }
    for flags in [RowFlags::NONE, RowFlags::CHECKSUM | RowFlags::RESERVE, RowFlags::RESERVE] {
        let row = CreateRow { flags, version: fresh_version(), ..row };
        assert_status!(create_with_trailer(&mut client, row, &bytes, b"tag", |_| {}), BadRow);
    }
    assert_status!(client.gather(b"key", 0, 1).0, NotFound);
    assert_eq!(client.info().used_bytes + client.info().reserved_bytes, 0);
}

fn a_version_from_the_future_is_refused(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let in_minutes =
        |minutes: u64| Version::from_unix_ms(fresh_version().unix_ms() + minutes * 60_000, 1);
    for (version, wanted) in [
        (in_minutes(4), Status::Ok),
        (in_minutes(6), Status::Clock),
        (Version { time: u64::MAX, writer: u64::MAX }, Status::Clock),
        (Version::NONE, Status::BadRow),
    ] {
        let row = CreateRow { version, flags: RowFlags::REPLACE, ..CreateRow::default() };
        let outcome = client.create_row(row, b"key", b"", b"bytes").0;
        assert_eq!(outcome.status(), wanted, "{version}");
        let outcome = client.delete_version(b"absent", version);
        let wanted = if wanted == Status::Ok { Status::NotFound } else { wanted };
        assert_eq!(outcome.status(), wanted, "{version}");
    }
    assert_eq!((client.info().values, client.info().tombstones), (1, 1));
}

fn rows_that_break_a_rule_are_refused_and_the_others_work(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let good = |flags| CreateRow {
        length: 1,
        value_bytes: 1,
        version: fresh_version(),
        flags,
        ..CreateRow::default()
    };
    let none = RowFlags::NONE;
    let (longest, too_long, tag) = ([7; 1_024], [7; 1_025], [8; 65]);
    let rows: [(CreateRow, &[u8], &[u8]); 12] = [
        (good(none), b"first", b""),
        (good(none), b"", b""),
        (good(none), &longest, b""),
        (good(none), &too_long, b""),
        (good(none), b"t", &tag),
        (good(RowFlags(1 << 20)), b"u", b""),
        (good(RowFlags::FILLED), b"f", b""),
        (good(RowFlags::RESERVE), b"r", b""),
        (CreateRow { length: GIB + 1, ..good(none) }, b"g", b""),
        (CreateRow { length: 0, ..good(none) }, b"s", b""),
        (CreateRow { lease_ms: u64::MAX, ..good(none) }, b"l", b""),
        (good(none), b"a\0\n\x1b[2J\xff../", &tag[..64]),
    ];
    let answer = client.ask(Opcode::Create, &rows, b"abcdefghijkl");
    use Status::{BadRow, Ok, TooLarge, Unsupported};
    let wanted =
        [Ok, BadRow, Ok, BadRow, BadRow, Unsupported, BadRow, BadRow, TooLarge, BadRow, BadRow, Ok];
    assert_eq!(answer.statuses(), wanted);
    assert_eq!(answer.outcomes()[8].detail, GIB);
    assert_eq!(&client.gather(b"first", 0, 1).1, b"a");
    assert_eq!(&client.gather(&longest, 0, 1).1, b"c");
    assert_eq!(&client.gather(b"a\0\n\x1b[2J\xff../", 0, 1).1, b"l");
    assert_eq!(client.info().values, 3);
}

fn a_create_with_another_held_version_is_refused(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let mut create = |version, if_version| {
        let flags = RowFlags::REPLACE;
        let row = CreateRow { version, if_version, flags, ..CreateRow::default() };
        client.create_row(row, b"key", b"", b"x").0
    };
    let (one, two, three) = (fresh_version(), fresh_version(), fresh_version());
    let outcome = assert_status!(create(two, one), Mismatch);
    assert!(outcome.version.is_none());
    assert_status!(create(one, Version::NONE), Ok);
    assert_status!(create(two, one), Ok);
    let outcome = assert_status!(create(three, one), Mismatch);
    assert_eq!(outcome.version, two);
}
