//! Scatter and Gather: cut at the value's end, row by row.

use rampuddle_harness::{Counts, Oracle, Pattern, Seeded, ServerProcess, Transport, fresh_version};
use rampuddle_protocol::limits::{KIB, MIB, PAYLOAD_BYTES_MAX};
use rampuddle_protocol::{CreateRow, GatherRow, Opcode, RowFlags, ScatterRow, Status, Version};

use crate::{assert_status, over_both};

over_both! {
    a_scatter_is_cut_at_the_end_and_says_how_much_was_written
    a_sealed_value_is_not_written_into
    a_gather_is_cut_with_a_length_per_row_and_one_concatenation
    a_missing_key_is_its_rows_status_and_the_others_work
    a_gather_may_have_1024_rows
    an_answer_never_has_more_than_4_mib
    a_gather_stops_at_the_last_byte_given_when_asked_to
    tags_are_returned_when_asked_for
    random_writes_and_reads_agree_with_the_oracle
}

fn scatter_row(offset: u64, value_bytes: u64) -> ScatterRow {
    ScatterRow { offset, value_bytes, ..ScatterRow::default() }
}

fn gather_row(offset: u64, length: u64) -> GatherRow {
    GatherRow { offset, length, ..GatherRow::default() }
}

fn a_scatter_is_cut_at_the_end_and_says_how_much_was_written(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    assert_status!(client.create(b"key", 100_000, b"begin"), Ok);
    assert_status!(client.create(b"neighbour", 100_000, &Pattern(1).bytes(0, 100_000)), Ok);
    let version = client.stat(b"key").version;
    let rows: [(ScatterRow, &[u8], &[u8]); 7] = [
        (scatter_row(99_998, 5), b"key", b""),
        (scatter_row(100_000, 5), b"key", b""),
        (scatter_row(100_001, 5), b"key", b""),
        (scatter_row(u64::MAX, 5), b"key", b""),
        (scatter_row(10, 5), b"absent", b""),
        (ScatterRow { if_version: fresh_version(), ..scatter_row(0, 5) }, b"key", b""),
        (scatter_row(10, 5), b"key", b""),
    ];
    let answer = client.ask(Opcode::Scatter, &rows, b"aaaaabbbbbcccccdddddeeeeefffffggggg");
    use Status::{BadRange, Mismatch, NotFound, Ok};
    let wanted = [Ok, Ok, BadRange, BadRange, NotFound, Mismatch, Ok];
    assert_eq!(answer.statuses(), wanted);
    let outcomes = answer.outcomes();
    let lengths: Vec<u64> = outcomes.iter().map(|outcome| outcome.length).collect();
    assert_eq!(lengths, [2, 0, 0, 0, 0, 0, 5]);
    assert_eq!((outcomes[2].detail, outcomes[0].version), (100_000, version));
    let mut wanted = vec![0; 100_000];
    wanted[..5].copy_from_slice(b"begin");
    wanted[10..15].copy_from_slice(b"ggggg");
    wanted[99_998..].copy_from_slice(b"aa");
    assert!(client.gather_all(b"key").unwrap() == wanted);
    assert!(client.gather_all(b"neighbour").unwrap() == Pattern(1).bytes(0, 100_000));
}

fn a_sealed_value_is_not_written_into(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let row =
        CreateRow { flags: RowFlags::SEALED, version: fresh_version(), ..CreateRow::default() };
    assert_status!(client.create_row(row, b"sealed", b"", b"bytes").0, Ok);
    assert_status!(client.create(b"open", 5, b"bytes"), Ok);
    let rows: [(_, &[u8], &[u8]); 2] =
        [(scatter_row(0, 2), b"sealed", b""), (scatter_row(0, 2), b"open", b"")];
    let answer = client.ask(Opcode::Scatter, &rows, b"XXYY");
    assert_eq!(answer.statuses(), [Status::Sealed, Status::Ok]);
    assert_eq!(answer.outcomes()[0].length, 0);
    let (outcome, bytes) = client.gather(b"sealed", 0, 5);
    assert!(outcome.flags.has(RowFlags::SEALED) && bytes == b"bytes");
    assert_eq!(&client.gather(b"open", 0, 5).1, b"YYtes");
}

fn a_gather_is_cut_with_a_length_per_row_and_one_concatenation(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let bytes = Pattern(9).bytes(0, 70_000);
    assert_status!(client.create(b"key", 70_000, &bytes), Ok);
    let ranges = [
        (0, 10),
        (69_990, 100),
        (70_000, 5),
        (u64::MAX, u64::MAX),
        (65_530, 20),
        (0, 0),
        (1, u64::MAX),
        (69_999, 1),
    ];
    let rows: Vec<(GatherRow, &[u8], &[u8])> = ranges
        .iter()
        .map(|(offset, length)| (gather_row(*offset, *length), &b"key"[..], &b""[..]))
        .collect();
    let answer = client.ask(Opcode::Gather, &rows, b"");
    let mut all = Vec::new();
    for ((offset, length), outcome) in ranges.into_iter().zip(answer.outcomes()) {
        assert_status!(&outcome, Ok);
        assert_eq!(outcome.detail, 70_000);
        let from = offset.min(70_000);
        let wanted = &bytes[from as usize..from.saturating_add(length).min(70_000) as usize];
        assert_eq!(outcome.length, wanted.len() as u64);
        all.extend_from_slice(wanted);
    }
    assert!(answer.payload == all, "the payload is the rows' bytes, one behind the other");
}

fn a_missing_key_is_its_rows_status_and_the_others_work(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    assert_status!(client.create(b"a", 3, b"aaa"), Ok);
    assert_status!(client.create(b"b", 3, b"bbb"), Ok);
    assert_status!(client.create(b"deleted", 3, b"ddd"), Ok);
    let tombstone = fresh_version();
    assert_status!(client.delete_version(b"deleted", tombstone), Ok);
    let row = gather_row(0, 3);
    let other = GatherRow { if_version: fresh_version(), ..row };
    let rows: [(_, &[u8], &[u8]); 7] = [
        (row, b"a", b""),
        (row, b"absent", b""),
        (row, b"b", b""),
        (row, b"deleted", b""),
        (row, b"", b""),
        (other, b"a", b""),
        (row, b"a", b""),
    ];
    let answer = client.ask(Opcode::Gather, &rows, b"");
    use Status::{BadRow, Mismatch, NotFound, Ok};
    assert_eq!(answer.statuses(), [Ok, NotFound, Ok, NotFound, BadRow, Mismatch, Ok]);
    assert_eq!(answer.payload, b"aaabbbaaa");
    let outcomes = answer.outcomes();
    assert_eq!((outcomes[1].version, outcomes[3].version), (Version::NONE, tombstone));
}

fn a_gather_may_have_1024_rows(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let mut oracle = Oracle::new();
    let keys: Vec<String> = (0..100).map(|number| format!("a rather long key {number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let pattern = Pattern(number as u64);
        assert_status!(client.create(key.as_bytes(), 65_536, &pattern.bytes(0, 65_536)), Ok);
        oracle.created(key.as_bytes(), 65_536, 65_536, pattern);
    }
    let tag = b"";
    let rows: Vec<(GatherRow, &[u8], &[u8])> = (0..1_024_u64)
        .map(|row| (gather_row(row * 61, 4_096), keys[row as usize % 100].as_bytes(), &tag[..]))
        .collect();
    let answer = client.ask(Opcode::Gather, &rows, b"");
    for ((row, key, _), share) in rows.iter().zip(answer.shares()) {
        assert_eq!(share.len() as u64, 4_096.min(65_536 - row.offset));
        oracle.check(key, row.offset, &share);
    }
    // One row more cannot be in a frame.
    let mut bytes = rampuddle_harness::Frame::new(Opcode::Gather, 5, &rows, b"");
    let rows_at = 24;
    bytes.overwrite(rows_at, 4, 1_025);
    client.send(&bytes.bytes);
    let refused = client.receive_answer();
    assert!(refused.is_framing_error() && refused.status() == Status::BadLength);
}

fn an_answer_never_has_more_than_4_mib(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let mut client = server.client(transport);
    let (length, pattern) = (6 * MIB, Pattern(7));
    assert_status!(client.upload(b"key", length, pattern), Ok);
    let rows: [(_, &[u8], &[u8]); 6] = [
        (gather_row(0, 3 * MIB), b"key", b""),
        (gather_row(0, 2 * MIB), b"key", b""),
        (gather_row(5 * MIB, 2 * MIB), b"key", b""),
        (gather_row(0, 1), b"key", b""),
        (gather_row(length, 5), b"key", b""),
        (gather_row(0, u64::MAX), b"key", b""),
    ];
    let answer = client.ask(Opcode::Gather, &rows, b"");
    use Status::{Ok, TooLarge};
    assert_eq!(answer.statuses(), [Ok, TooLarge, Ok, TooLarge, Ok, TooLarge]);
    let shares = answer.shares();
    assert!(shares[0] == pattern.bytes(0, 3 * MIB) && shares[2] == pattern.bytes(5 * MIB, MIB));
    assert_eq!(answer.payload.len() as u64, PAYLOAD_BYTES_MAX);
    let (outcome, bytes) = client.gather(b"key", 1, PAYLOAD_BYTES_MAX);
    assert!(outcome.length == PAYLOAD_BYTES_MAX && bytes == pattern.bytes(1, PAYLOAD_BYTES_MAX));
    assert_status!(client.gather(b"key", 1, PAYLOAD_BYTES_MAX + 1).0, TooLarge);
}

fn a_gather_stops_at_the_last_byte_given_when_asked_to(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    assert_status!(client.create(b"key", 200_000, &[1; 1_000]), Ok);
    let filled =
        |offset, length| GatherRow { flags: RowFlags::FILLED, ..gather_row(offset, length) };
    assert_eq!(client.gather_row(filled(0, MIB), b"key").0.length, 1_000);
    assert_eq!(client.gather_row(filled(999, 5), b"key").0.length, 1);
    assert_eq!(client.gather_row(filled(1_000, 5), b"key").0.length, 0);
    assert_status!(client.scatter(b"key", 150_000, &[2; 10]), Ok);
    let (outcome, bytes) = client.gather_row(filled(0, MIB), b"key");
    assert_eq!((outcome.length, outcome.detail), (150_010, 200_000));
    assert!(bytes[1_000..150_000].iter().all(|byte| *byte == 0) && bytes[150_000..] == [2; 10]);
    assert_eq!(client.stat(b"key").filled, 150_010);
}

fn tags_are_returned_when_asked_for(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let row = CreateRow { version: fresh_version(), ..CreateRow::default() };
    assert_status!(client.create_row(row, b"key", &[9; 64], b"x").0, Ok);
    let with_tag = GatherRow { flags: RowFlags::TAG, ..gather_row(0, 1) };
    let rows: [(_, &[u8], &[u8]); 2] = [(with_tag, b"key", b""), (gather_row(0, 1), b"key", b"")];
    let answer = client.ask(Opcode::Gather, &rows, b"");
    let tags: Vec<Vec<u8>> = answer.tagged_outcomes().into_iter().map(|(_, tag)| tag).collect();
    assert_eq!(tags, [vec![9; 64], vec![]]);
}

fn random_writes_and_reads_agree_with_the_oracle(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let mut client = server.client(transport);
    let mut random = Seeded::from_environment("random writes and reads");
    let mut counts = Counts::new("random writes and reads");
    let mut oracle = Oracle::new();
    for round in 0..400_u64 {
        let key = [b'k', random.below(12) as u8];
        let is_there = oracle.keys().any(|known| known == key);
        match random.below(10) {
            0 | 1 if !is_there => {
                let length = 1 + random.below(MIB);
                let given = random.below(length + 1);
                let pattern = Pattern(round);
                assert_status!(client.create(&key, length, &pattern.bytes(0, given)), Ok);
                oracle.created_value(&key, length, given, pattern);
                counts.one("created");
            }
            2 if is_there => {
                assert_status!(client.delete(&key), Ok);
                oracle.removed(&key);
                counts.one("deleted");
            }
            3..=6 if is_there => {
                let length = oracle.bytes(&key).len() as u64;
                let offset = random.below(length);
                let pattern = Pattern(round);
                let bytes = pattern.bytes(0, 1 + random.below(256 * KIB));
                let outcome = assert_status!(client.scatter(&key, offset, &bytes), Ok);
                assert_eq!(outcome.length, (length - offset).min(bytes.len() as u64));
                oracle.scattered(&key, offset, outcome.length, pattern);
                counts.one("written into");
            }
            _ if is_there => {
                let length = oracle.bytes(&key).len() as u64;
                let offset = random.below(length);
                let (outcome, bytes) = client.gather(&key, offset, random.below(MIB));
                assert_status!(&outcome, Ok);
                oracle.check(&key, offset, &bytes);
                counts.one("read");
            }
            _ => {
                assert_status!(client.gather(&key, 0, 1).0, NotFound);
                counts.one("missed");
            }
        }
    }
    oracle.check_all(&mut client);
    assert!(counts.of("written into") > 50 && counts.of("read") > 30);
}
