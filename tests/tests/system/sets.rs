//! Leases, Touch, Hold, Release.

use std::time::{Duration, Instant};

use rampuddle_harness::{Pattern, RawClient, ServerProcess, Transport, fresh_version, pace, until};
use rampuddle_protocol::limits::{MIB, PAGE_BYTES};
use rampuddle_protocol::{
    CreateRow, GatherRow, ListRow, Outcome, RowFlags, SetId, Status, TouchRow, Version,
};

use crate::{assert_status, over_both};

over_both! {
    a_lease_ends_a_value_and_leaves_no_tombstone
    a_touch_renews_lengthens_and_ends_the_leases_of_a_set
    an_exact_touch_shortens_leases_and_late_renewals_change_nothing
    a_held_value_stays_readable_to_its_session_and_to_nobody_else
    a_hold_covers_replaced_dropped_and_lapsed_values
    holds_are_broken_over_a_quarter_of_the_pool
    a_session_of_two_connections_lives_with_its_last_one
}

const PATIENCE: Duration = Duration::from_secs(10);
const SET: SetId = SetId([1; 16]);

fn create(client: &mut RawClient, key: &[u8], set: SetId, lease_ms: u64) -> Version {
    let version = fresh_version();
    let row = CreateRow { version, set, lease_ms, ..CreateRow::default() };
    assert_status!(client.create_row(row, key, b"", key).0, Ok);
    version
}

fn gather_of_set(client: &mut RawClient, key: &[u8], set: SetId) -> (Outcome, Vec<u8>) {
    let row = GatherRow { length: key.len() as u64, set, ..GatherRow::default() };
    client.gather_row(row, key)
}

fn a_lease_ends_a_value_and_leaves_no_tombstone(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let began = Instant::now();
    create(&mut client, b"leased", SetId::NONE, 200);
    create(&mut client, b"permanent", SetId::NONE, 0);
    let stat = client.stat(b"leased");
    if began.elapsed() < Duration::from_millis(150) {
        assert!(stat.status() == Status::Ok && (1..=200).contains(&stat.lease_ms));
    }
    until("the lease to end", PATIENCE, || client.stat(b"leased").status() == Status::NotFound);
    // The server counts whole milliseconds.
    assert!(began.elapsed() >= Duration::from_millis(199), "ended after {:?}", began.elapsed());
    assert!(client.stat(b"leased").version.is_none());
    assert_eq!(&client.gather(b"permanent", 0, 4).1, b"perm");
    // Found by nobody, it is swept all the same.
    create(&mut client, b"unseen", SetId::NONE, 200);
    until("the sweep", PATIENCE, || client.info().leases_ended == 2);
    let info = client.info();
    assert_eq!((info.used_bytes, info.values, info.tombstones), (PAGE_BYTES, 1, 0));
}

fn a_touch_renews_lengthens_and_ends_the_leases_of_a_set(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    for key in [b"a", b"b", b"c"] {
        create(&mut client, key, SET, 400);
    }
    create(&mut client, b"other", SetId([2; 16]), 400);
    let began = Instant::now();
    // Renewed for longer than the first lease.
    while began.elapsed() < Duration::from_millis(1_000) {
        let outcome = assert_status!(client.touch(SET, 400), Ok);
        assert_eq!(outcome.detail, 3);
        pace(Duration::from_millis(20));
    }
    assert_status!(client.stat(b"a"), Ok);
    assert_status!(client.stat(b"other"), NotFound);
    assert_status!(client.touch(SET, 100_000), Ok);
    assert!(client.stat(b"c").lease_ms > 90_000);
    // No lease gets shorter, and what is permanent stays so.
    assert_status!(client.touch(SET, 1), Ok);
    assert!(client.stat(b"c").lease_ms > 90_000);
    assert_status!(client.touch(SET, 0), Ok);
    assert_eq!(client.stat(b"a").lease_ms, 0);
    let outcome = assert_status!(client.touch(SET, 1), Ok);
    assert_eq!((outcome.detail, client.stat(b"a").lease_ms), (3, 0));
    let short = SetId([3; 16]);
    create(&mut client, b"short", short, 200);
    let before = client.info().used_bytes;
    until("the lease to end", PATIENCE, || client.info().used_bytes < before);
    assert_status!(client.touch(short, 1), NotFound);
    assert_status!(client.touch(SetId::NONE, 1), BadRow);
    assert_status!(client.touch(SET, u64::MAX), BadRow);
}

fn an_exact_touch_shortens_leases_and_late_renewals_change_nothing(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    for key in [b"a", b"b"] {
        create(&mut client, key, SET, 86_400_000);
    }
    create(&mut client, b"permanent", SET, 0);
    let began = Instant::now();
    assert_eq!(assert_status!(client.touch_exactly(SET, 400), Ok).detail, 3);
    for lease_ms in [900_000, 0] {
        assert_eq!(assert_status!(client.touch(SET, lease_ms), Ok).detail, 3);
    }
    until("the leases to end", PATIENCE, || client.info().leases_ended == 2);
    assert!(began.elapsed() >= Duration::from_millis(399), "ended after {:?}", began.elapsed());
    let info = client.info();
    assert_eq!((info.used_bytes, info.values, info.tombstones), (PAGE_BYTES, 1, 0));
    assert_eq!(client.stat(b"permanent").lease_ms, 0);
    let row = |flags| TouchRow { set: SET, flags, lease_ms: 1, ..TouchRow::default() };
    assert_status!(client.touch_row(row(RowFlags::KEEP)), BadRow);
    assert_status!(client.touch_row(row(RowFlags(1 << 31))), Unsupported);
}

fn a_held_value_stays_readable_to_its_session_and_to_nobody_else(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let (mut client, mut other) = (server.client(transport), server.client(transport));
    let mut second = RawClient::join(&server.door(transport), client.session());
    assert_status!(client.hold(SET), NotFound);
    create(&mut client, b"one", SET, 0);
    create(&mut client, b"two", SET, 0);
    let outcome = assert_status!(client.hold(SET), Ok);
    assert_eq!(outcome.detail, 2);
    assert_status!(other.delete(b"one"), Ok);
    // To the session's two connections; not to others, nor without the set.
    for connection in [&mut client, &mut second] {
        let (outcome, bytes) = gather_of_set(connection, b"one", SET);
        assert!(outcome.status() == Status::Ok && outcome.flags.has(RowFlags::HELD));
        assert_eq!((bytes, outcome.set), (b"one".to_vec(), SET));
        assert_status!(connection.gather(b"one", 0, 3).0, NotFound);
        assert_status!(gather_of_set(connection, b"one", SetId([2; 16])).0, NotFound);
        let (current, _) = gather_of_set(connection, b"two", SET);
        assert!(current.status() == Status::Ok && !current.flags.has(RowFlags::HELD));
    }
    assert_status!(gather_of_set(&mut other, b"one", SET).0, NotFound);
    assert_status!(client.stat(b"one"), NotFound);
    assert_eq!(client.list_all(ListRow::default(), b"").len(), 1);
    // New values come under the key, and the old one stays.
    create(&mut other, b"one", SetId::NONE, 0);
    assert_eq!(gather_of_set(&mut second, b"one", SET).1, b"one");
    assert_eq!(client.info().superseded_bytes, PAGE_BYTES);
    assert_status!(other.release(SET), NotFound);
    assert_status!(second.release(SET), Ok);
    assert_status!(gather_of_set(&mut client, b"one", SET).0, NotFound);
    assert_eq!(client.info().superseded_bytes, 0);
    // Two sessions hold: the value lives until both have let go.
    assert_status!(client.hold(SET), Ok);
    assert_status!(other.hold(SET), Ok);
    assert_status!(client.delete(b"two"), Ok);
    assert_status!(client.release(SET), Ok);
    assert_status!(gather_of_set(&mut client, b"two", SET).0, NotFound);
    assert_eq!(gather_of_set(&mut other, b"two", SET).1, b"two");
    assert_status!(other.release(SET), Ok);
    assert_eq!(client.info().superseded_bytes, 0);
}

fn a_hold_covers_replaced_dropped_and_lapsed_values(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let mut client = server.client(transport);
    create(&mut client, b"replaced", SET, 0);
    let dropped = create(&mut client, b"dropped", SET, 0);
    create(&mut client, b"lapsed", SET, 200);
    assert_status!(client.hold(SET), Ok);
    let row = CreateRow {
        version: fresh_version(),
        flags: RowFlags::REPLACE,
        set: SetId([9; 16]),
        ..CreateRow::default()
    };
    assert_status!(client.create_row(row, b"replaced", b"", b"REPLACED").0, Ok);
    assert_status!(client.drop_version(b"dropped", dropped), Ok);
    until("the lease to end", PATIENCE, || client.info().leases_ended == 1);
    for key in [&b"replaced"[..], b"dropped", b"lapsed"] {
        let (outcome, bytes) = gather_of_set(&mut client, key, SET);
        assert!(outcome.flags.has(RowFlags::HELD) && bytes == key, "{outcome:?}");
    }
    assert_eq!(&client.gather(b"replaced", 0, 8).1, b"REPLACED");
    assert_eq!(client.info().superseded_bytes, 3 * PAGE_BYTES);
}

fn holds_are_broken_over_a_quarter_of_the_pool(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let (mut holder, mut writer) = (server.client(transport), server.client(transport));
    let (large, small) = (SetId([1; 16]), SetId([2; 16]));
    let bytes = Pattern(1).bytes(0, MIB);
    let mut put = |key: &[u8], set| {
        let row = CreateRow { version: fresh_version(), set, ..CreateRow::default() };
        assert_status!(writer.create_row(row, key, b"", &bytes).0, Ok);
    };
    for number in 0..5_u8 {
        put(&[b'l', number], large);
    }
    put(b"small", small);
    assert_status!(holder.hold(large), Ok);
    assert_status!(holder.hold(small), Ok);
    assert_status!(writer.delete(b"small"), Ok);
    for number in 0..3_u8 {
        assert_status!(writer.delete(&[b'l', number]), Ok);
        assert_eq!(gather_of_set(&mut holder, &[b'l', number], large).1, bytes[..2]);
    }
    assert_eq!(holder.info().superseded_bytes, 4 * MIB);
    // The quarter is full: one more, and the hold that keeps most is broken.
    assert_status!(writer.delete(&[b'l', 3]), Ok);
    let info = holder.info();
    assert_eq!((info.superseded_bytes, info.holds_broken), (MIB, 1));
    for number in 0..4_u8 {
        assert_status!(gather_of_set(&mut holder, &[b'l', number], large).0, Superseded);
    }
    assert_status!(gather_of_set(&mut writer, &[b'l', 0], large).0, NotFound);
    assert_eq!(gather_of_set(&mut holder, &[b'l', 4], large).1, bytes[..2], "still current");
    assert_eq!(gather_of_set(&mut holder, b"small", small).1, bytes[..5], "another hold");
}

/// Thirty real seconds: everything that a session leaves behind ends together.
fn a_session_of_two_connections_lives_with_its_last_one(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let door = server.door(transport);
    let mut watcher = server.client(transport);
    let mut first = RawClient::connect(&door);
    let second = RawClient::join(&door, first.session());
    // Another session whose reservation is not filled any more, but which stays.
    let mut idle = RawClient::connect(&door);
    create(&mut first, b"held", SET, 0);
    assert_status!(first.hold(SET), Ok);
    assert_status!(watcher.delete(b"held"), Ok);
    let handle = assert_status!(first.reserve(b"reserved", MIB, fresh_version()), Ok).detail;
    drop(first);
    pace(Duration::from_millis(600));
    // One connection is left: all is as it was.
    let info = watcher.info();
    assert_eq!((info.superseded_bytes, info.reserved_bytes), (PAGE_BYTES, MIB));
    let session = second.session();
    drop(second);
    // Nobody is left, and somebody comes back in time.
    pace(Duration::from_millis(600));
    let mut third = RawClient::join(&door, session);
    assert_eq!(gather_of_set(&mut third, b"held", SET).1, b"held");
    assert_status!(third.scatter_reserved(handle, 0, b"bytes"), Ok);
    let idle_since = Instant::now();
    assert_status!(idle.reserve(b"idle", MIB, fresh_version()), Ok);
    let left = Instant::now();
    drop(third);
    until("the hold to end", Duration::from_secs(40), || {
        pace(Duration::from_millis(5));
        watcher.info().superseded_bytes == 0
    });
    let took = left.elapsed();
    let expected = Duration::from_secs(30)..Duration::from_secs(32);
    assert!(expected.contains(&took), "the session ended after {took:?}");
    until("the reservations to end", Duration::from_secs(3), || watcher.info().reserved_bytes == 0);
    assert!(expected.contains(&idle_since.elapsed()), "after {:?}", idle_since.elapsed());
    let mut back = RawClient::join(&door, session);
    assert_status!(gather_of_set(&mut back, b"held", SET).0, NotFound);
    assert_status!(back.scatter_reserved(handle, 5, b"x"), Expired);
    assert_eq!(watcher.info().used_bytes, 0);
}
