//! Delete leaves a tombstone of bounded life; Drop leaves nothing.

use rampuddle_harness::{ServerProcess, Transport, fresh_version};
use rampuddle_protocol::limits::TOMBSTONE_LIFE_MS;
use rampuddle_protocol::{CreateRow, DeleteRow, Opcode, RowFlags, Status, Version};

use crate::{assert_status, over_both};

over_both! {
    a_delete_leaves_a_tombstone_that_refuses_what_is_older
    a_delete_says_what_it_removed
    a_tombstone_lives_a_day_and_not_longer
    tombstones_are_bounded_in_number
    a_drop_removes_exactly_its_version_and_leaves_nothing
}

fn row(version: Version) -> CreateRow {
    CreateRow { version, flags: RowFlags::REPLACE, ..CreateRow::default() }
}

fn a_delete_leaves_a_tombstone_that_refuses_what_is_older(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let [v1, v2, v3, v4] = std::array::from_fn(|_| fresh_version());
    assert_status!(client.create_row(row(v2), b"key", b"", b"two").0, Ok);
    let outcome = assert_status!(client.delete_version(b"key", v1), Older);
    assert_eq!(outcome.version, v2);
    assert_status!(client.delete_version(b"key", v3), Ok);
    assert_eq!(client.info().used_bytes, 0);
    for outcome in [
        client.gather(b"key", 0, 1).0,
        client.scatter(b"key", 0, b"x"),
        client.drop_version(b"key", v2),
    ] {
        assert_status!(&outcome, NotFound);
        assert_eq!(outcome.version, v3, "NOT_FOUND carries the tombstone's version");
    }
    let stat = assert_status!(client.stat(b"key"), NotFound);
    assert!(stat.version == v3 && stat.flags.has(RowFlags::TOMBSTONE));
    for old in [v1, v2, v3] {
        let outcome = assert_status!(client.create_row(row(old), b"key", b"", b"old").0, Older);
        assert_eq!(outcome.version, v3);
    }
    assert_status!(client.delete_version(b"key", v3), Same);
    assert_status!(client.delete_version(b"key", v2), Older);
    assert_status!(client.create_row(row(v4), b"key", b"", b"four").0, Ok);
    assert_eq!(&client.gather(b"key", 0, 4).1, b"four");
    assert_eq!(client.info().tombstones, 0);
    // A key that never was is remembered as deleted too.
    let outcome = assert_status!(client.delete_version(b"never", v3), NotFound);
    assert!(outcome.version.is_none());
    let outcome = assert_status!(client.delete_version(b"never", v4), NotFound);
    assert_eq!(outcome.version, v3);
    assert_status!(client.create_row(row(v3), b"never", b"", b"x").0, Older);
}

fn a_delete_says_what_it_removed(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let version = fresh_version();
    assert_status!(client.create_row(row(version), b"key", b"its tag", b"x").0, Ok);
    let delete =
        |if_version| DeleteRow { version: fresh_version(), if_version, ..DeleteRow::default() };
    let rows: [(_, &[u8], &[u8]); 3] = [
        (delete(fresh_version()), b"key", b""),
        (delete(version), b"key", b""),
        (delete(version), b"key", b""),
    ];
    let answer = client.ask(Opcode::Delete, &rows, b"");
    assert_eq!(answer.statuses(), [Status::Mismatch, Status::Ok, Status::Mismatch]);
    let outcomes = answer.tagged_outcomes();
    assert_eq!(outcomes[0].0.version, version);
    let (removed, tag) = &outcomes[1];
    assert!(removed.flags.has(RowFlags::DISPLACED));
    assert_eq!((removed.version, &tag[..]), (version, &b"its tag"[..]));
    assert!(outcomes[2].0.version.is_none());
}

fn a_tombstone_lives_a_day_and_not_longer(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let ago = |ms: u64| Version::from_unix_ms(fresh_version().unix_ms() - ms, 1);
    // A delete of the day before yesterday is not remembered.
    assert_status!(client.delete_version(b"old", ago(2 * TOMBSTONE_LIFE_MS)), NotFound);
    assert_eq!(client.info().tombstones, 0);
    assert_status!(client.create_row(row(ago(3 * TOMBSTONE_LIFE_MS)), b"old", b"", b"x").0, Ok);
    // One whose day is over in a moment is forgotten then.
    let end = ago(TOMBSTONE_LIFE_MS - 700);
    assert_status!(client.delete_version(b"key", end), NotFound);
    assert_eq!(client.info().tombstones, 1);
    assert_status!(client.create_row(row(ago(TOMBSTONE_LIFE_MS)), b"key", b"", b"x").0, Older);
    rampuddle_harness::until("the end of a day", std::time::Duration::from_secs(10), || {
        client.info().tombstones == 0
    });
    assert!(client.stat(b"key").version.is_none());
    assert_status!(client.create_row(row(ago(TOMBSTONE_LIFE_MS)), b"key", b"", b"x").0, Ok);
}

/// A row for each key, each with a version of its own.
pub(crate) fn delete_rows<K: AsRef<[u8]>>(keys: &[K]) -> Vec<(DeleteRow, &[u8], &[u8])> {
    let row = |key| {
        let row = DeleteRow { version: fresh_version(), ..DeleteRow::default() };
        (row, key, &b""[..])
    };
    keys.iter().map(AsRef::as_ref).map(row).collect()
}

fn tombstones_are_bounded_in_number(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let keys: Vec<[u8; 4]> = (0..5_000_u32).map(u32::to_be_bytes).collect();
    for keys in keys.chunks(1_000) {
        let rows = delete_rows(keys);
        let answer = client.ask(Opcode::Delete, &rows, b"");
        assert!(answer.statuses().iter().all(|status| *status == Status::NotFound));
    }
    let info = client.info();
    assert_eq!(info.tombstones + info.tombstones_discarded, 5_000);
    assert!(info.tombstones >= 1_024 && info.tombstones <= info.entries_max);
    // The newest are those that are kept.
    assert!(!client.stat(&keys[4_999]).version.is_none());
    assert!(client.stat(&keys[0]).version.is_none());
    // Values find room all the same, one for each page.
    for number in 0..64_u8 {
        assert_status!(client.create(&[b'v', number], 1, b"x"), Ok);
    }
    assert_status!(client.create(b"more", 1, b"x"), NoSpace);
}

fn a_drop_removes_exactly_its_version_and_leaves_nothing(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let (one, two) = (fresh_version(), fresh_version());
    assert_status!(client.drop_version(b"key", one), NotFound);
    assert_status!(client.create_row(row(two), b"key", b"", b"two").0, Ok);
    let outcome = assert_status!(client.drop_version(b"key", one), Mismatch);
    assert_eq!(outcome.version, two);
    assert_eq!(&client.gather(b"key", 0, 3).1, b"two");
    let outcome = assert_status!(client.drop_version(b"key", two), Ok);
    assert_eq!(outcome.version, two);
    let info = client.info();
    assert_eq!((info.used_bytes, info.values, info.tombstones), (0, 0, 0));
    // Nothing was remembered: the older one may come.
    assert_status!(client.create_row(row(one), b"key", b"", b"one").0, Ok);
    // A tombstone is never dropped.
    let tombstone = fresh_version();
    assert_status!(client.delete_version(b"key", tombstone), Ok);
    assert_status!(client.drop_version(b"key", tombstone), NotFound);
    assert_eq!(client.info().tombstones, 1);
}
