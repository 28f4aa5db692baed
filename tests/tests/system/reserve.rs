//! RESERVE, Scatter by handle, Publish.

use rampuddle_harness::{Oracle, Pattern, ServerProcess, Transport, fresh_version};
use rampuddle_protocol::limits::{GIB, MIB, PAGE_BYTES};
use rampuddle_protocol::{CreateRow, PublishRow, RowFlags, Status, crc32c};

use crate::{assert_status, over_both};

over_both! {
    a_reserved_value_is_invisible_until_it_is_published
    bytes_sent_again_do_no_harm_and_a_gap_is_refused
    publish_wants_all_bytes_that_it_states
    a_handle_works_in_its_session_only
    publish_compares_the_checksum_of_everything_given
    conditions_are_judged_again_at_publish
    values_under_way_are_bounded_to_a_quarter_of_the_pool
}

fn a_reserved_value_is_invisible_until_it_is_published(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let (mut client, mut other) = (server.client(transport), server.client(transport));
    let (length, pattern) = (9 * MIB + 12_345, Pattern(8));
    let reserved = assert_status!(client.reserve(b"key", length, fresh_version()), Ok);
    assert!(reserved.detail != 0 && reserved.length == length);
    let pages = length.next_multiple_of(PAGE_BYTES);
    assert_eq!((other.info().reserved_bytes, other.info().reservations), (pages, 1));
    let mut offset = 0;
    while offset < length {
        let bytes = pattern.bytes(offset, (3 * MIB).min(length - offset));
        let outcome = client.scatter_reserved(reserved.detail, offset, &bytes);
        assert_status!(&outcome, Ok);
        offset += bytes.len() as u64;
        assert_eq!((outcome.length, outcome.detail), (bytes.len() as u64, offset));
        assert_status!(other.stat(b"key"), NotFound);
        assert_status!(other.gather(b"key", 0, 1).0, NotFound);
    }
    let outcome = assert_status!(client.publish(reserved.detail, length, length), Ok);
    assert_eq!(outcome.length, length);
    assert_eq!((other.info().reserved_bytes, other.info().used_bytes), (0, pages));
    let mut oracle = Oracle::new();
    oracle.created(b"key", length, length, pattern);
    oracle.check_all(&mut other);
    // The handle is used up.
    assert_status!(client.publish(reserved.detail, length, length), Expired);
    assert_status!(client.scatter_reserved(reserved.detail, 0, b"x"), Expired);
}

fn bytes_sent_again_do_no_harm_and_a_gap_is_refused(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let (length, pattern) = (MIB, Pattern(4));
    let handle = assert_status!(client.reserve(b"key", length, fresh_version()), Ok).detail;
    let mut scatter = |offset, bytes: &[u8]| client.scatter_reserved(handle, offset, bytes);
    let gap = assert_status!(scatter(1, b"x"), BadRange);
    assert_eq!(gap.detail, 0);
    assert_status!(scatter(0, &pattern.bytes(0, 300_000)), Ok);
    let gap = assert_status!(scatter(300_001, b"x"), BadRange);
    assert_eq!(gap.detail, 300_000);
    // Wholly below the watermark, other bytes: skipped.
    let again = assert_status!(scatter(1_000, &vec![0xEE; 200_000]), Ok);
    assert_eq!((again.length, again.detail), (200_000, 300_000));
    // Partly below.
    let mut bytes = vec![0xEE; 100_000];
    bytes.extend(pattern.bytes(300_000, 400_000));
    let partly = assert_status!(scatter(200_000, &bytes), Ok);
    assert_eq!((partly.length, partly.detail), (500_000, 700_000));
    // Past the end: cut there.
    let cut = assert_status!(scatter(700_000, &pattern.bytes(700_000, MIB)), Ok);
    assert_eq!((cut.length, cut.detail), (MIB - 700_000, MIB));
    assert_status!(client.publish(handle, length, length), Ok);
    assert!(client.gather_all(b"key").unwrap() == pattern.bytes(0, length));
}

fn publish_wants_all_bytes_that_it_states(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let handle = assert_status!(client.reserve(b"key", MIB, fresh_version()), Ok).detail;
    let bytes = Pattern(2).bytes(0, 200_000);
    assert_status!(client.scatter_reserved(handle, 0, &bytes[..150_000]), Ok);
    let outcome = assert_status!(client.publish(handle, 200_000, 200_000), Incomplete);
    assert_eq!(outcome.detail, 150_000);
    assert_status!(client.stat(b"key"), NotFound);
    let outcome = assert_status!(client.publish(handle, MIB + 1, 150_000), BadRange);
    assert_eq!(outcome.detail, 150_000);
    assert_status!(client.publish(handle, 100, 101), BadRow);
    // Bytes that were given cannot be taken back.
    let outcome = assert_status!(client.publish(handle, 200_000, 149_999), BadRange);
    assert_eq!(outcome.detail, 150_000);
    assert_status!(client.publish(handle ^ 1, 200_000, 200_000), Expired);
    assert_status!(client.scatter_reserved(handle, 150_000, &bytes[150_000..]), Ok);
    // The final length is shorter than what was reserved: surplus pages come back.
    assert_status!(client.publish(handle, 200_001, 200_000), Ok);
    let info = client.info();
    assert_eq!((info.used_bytes, info.reserved_bytes), (4 * PAGE_BYTES, 0));
    let found = client.gather_all(b"key").unwrap();
    assert!(found.len() == 200_001 && found[..200_000] == bytes && found[200_000] == 0);
}

fn a_handle_works_in_its_session_only(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let (mut client, mut other) = (server.client(transport), server.client(transport));
    let handle = assert_status!(client.reserve(b"key", MIB, fresh_version()), Ok).detail;
    assert_status!(other.scatter_reserved(handle, 0, b"stolen"), Expired);
    assert_status!(other.publish(handle, MIB, 0), Expired);
    assert_status!(client.scatter_reserved(0x1234_5678, 0, b"guessed"), Expired);
    // Another connection of the session may fill and publish it.
    let door = server.door(transport);
    let mut second = rampuddle_harness::RawClient::join(&door, client.session());
    assert_status!(second.scatter_reserved(handle, 0, b"one"), Ok);
    drop(client);
    assert_status!(second.scatter_reserved(handle, 3, b" two"), Ok);
    assert_status!(second.publish(handle, MIB, 7), Ok);
    assert_eq!(&other.gather(b"key", 0, 8).1, b"one two\0");
}

fn publish_compares_the_checksum_of_everything_given(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let bytes = Pattern(6).bytes(0, 300_000);
    for (wrong, wanted) in [(1, Status::Corrupt), (0, Status::Ok)] {
        let handle = assert_status!(client.reserve(b"key", MIB, fresh_version()), Ok).detail;
        assert_status!(client.scatter_reserved(handle, 0, &bytes[..200_000]), Ok);
        // Some of it sent again: counted once.
        assert_status!(client.scatter_reserved(handle, 100_000, &bytes[100_000..]), Ok);
        let outcome = client.publish_row(PublishRow {
            flags: RowFlags::CHECKSUM,
            crc32c: crc32c(&bytes) ^ wrong,
            handle,
            length: MIB,
            value_bytes: 300_000,
        });
        assert_eq!(outcome.status(), wanted);
        assert_eq!(client.info().reserved_bytes, 0);
        let is_there = client.stat(b"key").status() == Status::Ok;
        assert_eq!(is_there, wanted == Status::Ok);
    }
    assert_eq!(client.stat(b"key").crc32c, crc32c(&bytes));
}

fn conditions_are_judged_again_at_publish(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let (old, new) = (fresh_version(), fresh_version());
    let handle = assert_status!(client.reserve(b"key", MIB, old), Ok).detail;
    let row = CreateRow { version: new, ..CreateRow::default() };
    assert_status!(client.create_row(row, b"key", b"", b"newer").0, Ok);
    let outcome = assert_status!(client.publish(handle, MIB, 0), Older);
    assert_eq!(outcome.version, new);
    assert_eq!(client.info().reserved_bytes, 0);
    assert_eq!(&client.gather(b"key", 0, 5).1, b"newer");
    // Deleted meanwhile by a newer delete: stays deleted.
    let handle = assert_status!(client.reserve(b"key", MIB, fresh_version()), Ok).detail;
    assert_status!(client.delete(b"key"), Ok);
    assert_status!(client.publish(handle, MIB, 0), Older);
    assert_status!(client.stat(b"key"), NotFound);
    assert_eq!((client.info().used_bytes, client.info().reserved_bytes), (0, 0));
}

fn values_under_way_are_bounded_to_a_quarter_of_the_pool(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let mut client = server.client(transport);
    let first = assert_status!(client.reserve(b"a", 3 * MIB, fresh_version()), Ok).detail;
    let busy = assert_status!(client.reserve(b"b", 2 * MIB, fresh_version()), Busy);
    assert!((1..10_000).contains(&busy.detail), "milliseconds after which to try again");
    assert_status!(client.reserve(b"c", MIB, fresh_version()), Ok);
    // What is filled is not under way any more.
    assert_status!(client.scatter_reserved(first, 0, &vec![1; 3 * MIB as usize]), Ok);
    assert_status!(client.reserve(b"b", 2 * MIB, fresh_version()), Ok);
}

#[test]
fn a_value_may_have_a_gib() {
    let server = ServerProcess::with_pool_mib(1_088);
    let mut client = server.client(Transport::Tcp);
    let pattern = Pattern(1);
    assert_status!(client.reserve(b"key", GIB + 1, fresh_version()), TooLarge);
    assert_status!(client.upload(b"key", GIB, pattern), Ok);
    let stat = client.stat(b"key");
    assert_eq!((stat.length, stat.filled), (GIB, GIB));
    let (mut offset, mut wanted) = (0, vec![0; 4 * MIB as usize]);
    while offset < GIB {
        let (outcome, bytes) = client.gather(b"key", offset, 4 * MIB);
        assert_eq!((outcome.length, outcome.detail), (4 * MIB, GIB));
        pattern.fill(offset, &mut wanted);
        assert!(bytes == wanted, "bytes from {offset} on");
        offset += 4 * MIB;
    }
    let used = server.resident_bytes();
    assert!(used <= GIB + (64 + 64 + 8) * MIB, "{used} bytes in RAM");
}
