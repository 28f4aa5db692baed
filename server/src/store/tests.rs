use std::collections::BTreeMap;

use rampuddle_protocol::limits::{MIB, TOMBSTONE_LIFE_MS};
use rampuddle_protocol::{
    CreateRow, DeleteRow, DropRow, GatherRow, ListRow, PublishRow, TouchRow, crc32c,
};

use super::*;
use crate::pool::Piece;
use crate::testing::Seeded;

mod mapped;

const NOW: Now = Now { monotonic_ms: 1_000_000, unix_ms: 1_700_000_000_000 };
const SESSION: SessionIndex = 3;

fn store(pages: u64) -> Store {
    Store::new(Pool::new(pages * PAGE_BYTES, false).unwrap())
}

fn version(step: u64) -> Version {
    Version::from_unix_ms(NOW.unix_ms + step, 7)
}

fn row(step: u64, length: u64) -> CreateRow {
    CreateRow { length, version: version(step), flags: RowFlags::REPLACE, ..CreateRow::default() }
}

fn fill(store: &mut Store, id: EntryId, bytes: &[u8]) {
    let mut cursor = store.write_cursor(id);
    let (mut at, end) = (0, bytes.len() as u64);
    while at < end {
        let room = store.write_room(id, &mut cursor, at, end);
        let length = room.end - room.start;
        let piece = &bytes[at as usize..][..length as usize];
        store.pool.each_mut(&[room], |room| room.copy_from_slice(piece));
        store.wrote(id, &mut cursor, at, at + length);
        at += length;
    }
}

fn create(store: &mut Store, row: &CreateRow, key: &[u8], bytes: &[u8]) -> Outcome {
    let row = CreateRow {
        length: row.length.max(bytes.len() as u64),
        value_bytes: bytes.len() as u64,
        ..*row
    };
    match store.claim(&row, key, b"tag", NOW) {
        Ok((id, terms)) => {
            fill(store, id, bytes);
            store.finish_claim(id, &terms, NOW).outcome
        }
        Err(refusal) => refusal.outcome,
    }
}

fn gather(
    store: &mut Store,
    key: &[u8],
    set: SetId,
    session: SessionIndex,
) -> Result<Vec<u8>, Status> {
    let row = GatherRow { length: u64::MAX, flags: RowFlags::FILLED, set, ..GatherRow::default() };
    let (reply, place) = store.begin_gather(&row, key, u64::MAX, session, NOW);
    if reply.outcome.status() != Status::Ok {
        return Err(reply.outcome.status());
    }
    let Some(mut place) = place else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    while place.offset < place.end {
        let piece = store.next_piece(&mut place, u64::MAX);
        place.offset += piece.len() as u32;
        match piece {
            Piece::Pool(range) => bytes.extend_from_slice(store.pool.bytes(range)),
            Piece::Zeros(zeros) => bytes.resize(bytes.len() + zeros as usize, 0),
        }
    }
    store.unpin(place.entry);
    Ok(bytes)
}

fn read(store: &mut Store, key: &[u8]) -> Result<Vec<u8>, Status> {
    gather(store, key, SetId::NONE, SESSION)
}

#[test]
fn the_greater_version_wins_in_any_order_of_arrival() {
    for (first, second) in [(1, 2), (2, 1)] {
        let mut store = store(16);
        create(&mut store, &row(first, 1), b"k", &[first as u8]);
        create(&mut store, &row(second, 1), b"k", &[second as u8]);
        assert_eq!(read(&mut store, b"k").unwrap(), [2]);
        store.check_invariants();
    }
}

#[test]
fn of_one_version_the_greater_checksum_wins_in_any_order_of_arrival() {
    let values: [&[u8]; 2] = [b"a", b"b"];
    let winner = values.into_iter().max_by_key(|value| crc32c(value)).unwrap();
    for order in [[0, 1], [1, 0]] {
        let mut store = store(16);
        for index in order {
            let mut row = row(1, 1);
            row.flags |= RowFlags::CHECKSUM;
            row.crc32c = crc32c(values[index]);
            create(&mut store, &row, b"k", values[index]);
        }
        assert_eq!(read(&mut store, b"k").unwrap(), winner);
    }
}

#[test]
fn the_same_version_again_is_same_which_is_success() {
    let mut store = store(16);
    create(&mut store, &row(5, 1), b"k", b"x");
    let again = create(&mut store, &row(5, 1), b"k", b"x");
    assert_eq!((again.status(), again.version), (Status::Same, version(5)));
    assert_eq!(store.values(), 1);
}

#[test]
fn without_replace_a_value_that_is_there_stays() {
    let mut store = store(16);
    create(&mut store, &row(1, 1), b"k", b"x");
    let refused = create(&mut store, &CreateRow { flags: RowFlags::NONE, ..row(2, 1) }, b"k", b"y");
    assert_eq!((refused.status(), refused.version), (Status::Exists, version(1)));
    assert_eq!(read(&mut store, b"k").unwrap(), b"x");
}

#[test]
fn a_condition_on_the_version_holds_or_names_the_version_held() {
    let mut store = store(16);
    create(&mut store, &row(1, 1), b"k", b"x");
    let wrong = CreateRow { if_version: version(9), ..row(2, 1) };
    let refused = create(&mut store, &wrong, b"k", b"y");
    assert_eq!((refused.status(), refused.version), (Status::Mismatch, version(1)));
    let right = CreateRow { if_version: version(1), ..row(2, 1) };
    assert_eq!(create(&mut store, &right, b"k", b"y").status(), Status::Ok);
    let absent = create(&mut store, &right, b"other", b"y");
    assert_eq!((absent.status(), absent.version), (Status::Mismatch, Version::NONE));
}

#[test]
fn versions_from_the_far_future_are_refused() {
    let mut store = store(16);
    let ahead = CreateRow { version: version(6 * 60_000), ..row(0, 1) };
    assert_eq!(create(&mut store, &ahead, b"k", b"x").status(), Status::Clock);
    let delete = DeleteRow { version: version(6 * 60_000), ..DeleteRow::default() };
    assert_eq!(store.delete(&delete, b"k", NOW).outcome.status(), Status::Clock);
}

#[test]
fn a_delete_is_remembered_even_where_nothing_was_and_beats_older_values() {
    let mut store = store(16);
    let delete = DeleteRow { version: version(5), ..DeleteRow::default() };
    let nothing = store.delete(&delete, b"k", NOW).outcome;
    assert_eq!((nothing.status(), nothing.version), (Status::NotFound, Version::NONE));
    assert_eq!(store.delete(&delete, b"k", NOW).outcome.status(), Status::Same);
    assert_eq!(create(&mut store, &row(4, 1), b"k", b"x").status(), Status::Older);
    assert_eq!(store.not_found(b"k", NOW).outcome.version, version(5));
    let later = create(&mut store, &row(6, 1), b"k", b"x");
    assert_eq!((later.status(), later.version), (Status::Ok, version(5)));
    assert!(!later.flags.has(RowFlags::DISPLACED), "no value was there");
    assert_eq!((store.values(), store.tombstone_count()), (1, 0));
    store.check_invariants();
}

#[test]
fn a_delete_is_forgotten_a_day_after_its_versions_time() {
    let mut store = store(16);
    let delete = DeleteRow { version: version(0), ..DeleteRow::default() };
    store.delete(&delete, b"k", NOW);
    let later = Now { monotonic_ms: NOW.monotonic_ms + TOMBSTONE_LIFE_MS, ..NOW };
    assert_eq!(store.not_found(b"k", later).outcome.version, Version::NONE);
    assert_eq!(store.tombstone_count(), 0);
}

#[test]
fn tombstones_are_bounded_and_the_oldest_goes_first() {
    let mut store = store(16);
    for step in 0..2_000_u64 {
        let delete = DeleteRow { version: version(step), ..DeleteRow::default() };
        store.delete(&delete, &step.to_be_bytes(), NOW);
    }
    assert_eq!(store.tombstone_count(), 1_024);
    assert_eq!(store.counters.tombstones_discarded, 976);
    assert_eq!(store.not_found(&0_u64.to_be_bytes(), NOW).outcome.version, Version::NONE);
    assert_eq!(store.not_found(&1_999_u64.to_be_bytes(), NOW).outcome.version, version(1_999));
    store.check_invariants();
}

#[test]
fn drop_removes_exactly_one_version_and_leaves_no_tombstone() {
    let mut store = store(16);
    create(&mut store, &row(2, 1), b"k", b"x");
    let other = DropRow { version: version(1), ..DropRow::default() };
    assert_eq!(store.drop_version(&other, b"k", NOW).outcome.status(), Status::Mismatch);
    let exact = DropRow { version: version(2), ..DropRow::default() };
    assert_eq!(store.drop_version(&exact, b"k", NOW).outcome.status(), Status::Ok);
    assert_eq!((store.values(), store.tombstone_count(), store.used_bytes()), (0, 0, 0));
}

#[test]
fn a_lease_ends_a_value_and_touch_renews_or_ends_the_lease() {
    let mut store = store(16);
    let set = SetId([1; 16]);
    for key in [b"a", b"b"] {
        create(&mut store, &CreateRow { lease_ms: 1_000, set, ..row(1, 1) }, key, b"x");
    }
    let touch = TouchRow { set, lease_ms: 5_000, ..TouchRow::default() };
    assert_eq!(store.touch(&touch, NOW).outcome.detail, 2);
    let later = |ms| Now { monotonic_ms: NOW.monotonic_ms + ms, ..NOW };
    assert!(store.find_value(b"a", later(4_999)).is_some());
    let permanent = TouchRow { set, lease_ms: 0, ..TouchRow::default() };
    store.touch(&permanent, later(4_999));
    assert!(store.find_value(b"a", later(1 << 40)).is_some());
    // A renewal that comes late does not make permanent values end.
    assert_eq!(store.touch(&touch, later(0)).outcome.detail, 2);
    store.sweep(later(5_000));
    assert_eq!(store.values(), 2);
    let other = SetId([2; 16]);
    let leased = CreateRow { lease_ms: 1_000, set: other, ..row(1, 1) };
    create(&mut store, &leased, b"c", b"x");
    let longer = TouchRow { set: other, lease_ms: 5_000, ..TouchRow::default() };
    let shorter = TouchRow { set: other, lease_ms: 10, ..TouchRow::default() };
    store.touch(&longer, NOW);
    store.touch(&shorter, NOW);
    store.sweep(later(4_999));
    assert_eq!(store.values(), 3, "no lease gets shorter");
    store.sweep(later(5_000));
    assert_eq!((store.values(), store.counters.leases_ended), (2, 1));
    assert_eq!(store.touch(&longer, later(5_000)).outcome.status(), Status::NotFound);
    store.check_invariants();
}

#[test]
fn an_exact_lease_may_be_shorter_and_no_late_renewal_changes_it() {
    let mut store = store(16);
    let set = SetId([1; 16]);
    let leased = CreateRow { lease_ms: 86_400_000, set, ..row(1, 1) };
    create(&mut store, &leased, b"stripe", b"x");
    create(&mut store, &CreateRow { lease_ms: 2_000, ..leased }, b"head", b"x");
    create(&mut store, &CreateRow { set, ..row(1, 1) }, b"permanent", b"x");
    let exact = TouchRow { set, flags: RowFlags::EXACT, lease_ms: 2_000, ..TouchRow::default() };
    assert_eq!(store.touch(&exact, NOW).outcome.detail, 3);
    let later = |ms| Now { monotonic_ms: NOW.monotonic_ms + ms, ..NOW };
    for lease_ms in [900_000, 86_400_000, 0, 1] {
        let late = TouchRow { set, lease_ms, ..TouchRow::default() };
        assert_eq!(store.touch(&late, later(1)).outcome.detail, 3);
    }
    store.sweep(later(1_999));
    assert_eq!(store.values(), 3);
    // Another exact one does: a day, none, and for a value without a lease no other.
    let longer = TouchRow { lease_ms: 5_000, ..exact };
    store.touch(&longer, later(1_999));
    store.sweep(later(6_998));
    assert_eq!(store.values(), 3);
    store.sweep(later(6_999));
    assert_eq!((store.values(), store.counters.leases_ended), (1, 2));
    assert!(store.find_value(b"permanent", later(1 << 40)).is_some());
    store.check_invariants();
    // What takes the place of a value that would end does not end with it.
    let brief = SetId([2; 16]);
    create(&mut store, &CreateRow { set: brief, lease_ms: 1_000, ..row(1, 1) }, b"k", b"old");
    store.touch(&TouchRow { set: brief, ..exact }, NOW);
    create(&mut store, &CreateRow { set: SetId([3; 16]), ..row(2, 1) }, b"k", b"new");
    store.sweep(later(10_000));
    assert_eq!(read(&mut store, b"k").unwrap(), b"new");
    // Exact and none: it stays, and a late renewal does not make it end.
    create(&mut store, &CreateRow { set: brief, lease_ms: 1_000, ..row(1, 1) }, b"stays", b"x");
    store.touch(&TouchRow { set: brief, lease_ms: 0, ..exact }, NOW);
    store.touch(&TouchRow { set: brief, lease_ms: 1, ..TouchRow::default() }, NOW);
    store.sweep(later(10_000));
    assert!(store.find_value(b"stays", later(10_000)).is_some());
    store.check_invariants();
}

#[test]
fn a_held_value_stays_readable_to_its_holder_only_until_it_is_released() {
    let mut store = store(16);
    let set = SetId([1; 16]);
    create(&mut store, &CreateRow { set, ..row(1, 1) }, b"k", b"old");
    assert_eq!(store.hold(SESSION, set).outcome.detail, 1);
    create(&mut store, &CreateRow { set: SetId([2; 16]), ..row(2, 1) }, b"k", b"new");
    assert_eq!(read(&mut store, b"k").unwrap(), b"new");
    assert_eq!(gather(&mut store, b"k", set, SESSION).unwrap(), b"old");
    assert_eq!(gather(&mut store, b"k", set, SESSION + 1), Err(Status::NotFound));
    let mut listed = 0;
    store.list(&ListRow::default(), b"", b"", NOW, |_, _, _| {
        listed += 1;
        true
    });
    assert_eq!((listed, store.superseded_bytes()), (1, PAGE_BYTES));
    store.check_invariants();
    store.release(SESSION, set);
    assert_eq!(gather(&mut store, b"k", set, SESSION), Err(Status::NotFound));
    assert_eq!((store.superseded_bytes(), store.used_bytes()), (0, PAGE_BYTES));
    store.check_invariants();
}

#[test]
fn over_a_quarter_of_the_pool_the_largest_hold_is_broken_and_writers_go_on() {
    let mut store = store(16);
    let (large, small) = (SetId([1; 16]), SetId([2; 16]));
    create(&mut store, &CreateRow { set: large, ..row(1, 4 * PAGE_BYTES) }, b"l", b"large");
    create(&mut store, &CreateRow { set: small, ..row(1, 1) }, b"s", b"small");
    store.hold(SESSION, large);
    store.hold(SESSION, small);
    for key in [b"l", b"s"] {
        let delete = DeleteRow { version: version(2), ..DeleteRow::default() };
        assert_eq!(store.delete(&delete, key, NOW).outcome.status(), Status::Ok);
        store.check_invariants();
    }
    assert_eq!(gather(&mut store, b"l", large, SESSION), Err(Status::Superseded));
    assert_eq!(gather(&mut store, b"s", small, SESSION).unwrap(), b"small");
    assert_eq!(store.counters.holds_broken, 1);
    store.release_all(SESSION);
    assert_eq!((store.used_bytes(), store.holds()), (0, 0));
    store.check_invariants();
}

#[test]
fn a_value_that_is_being_read_lives_until_the_request_ends() {
    let mut store = store(4);
    create(&mut store, &row(1, 1), b"k", b"x");
    let gather = GatherRow { length: 1, ..GatherRow::default() };
    let (_, place) = store.begin_gather(&gather, b"k", 1, SESSION, NOW);
    let mut place = place.unwrap();
    let delete = DeleteRow { version: version(2), ..DeleteRow::default() };
    store.delete(&delete, b"k", NOW);
    assert_eq!((store.values(), store.used_bytes()), (0, PAGE_BYTES));
    let Piece::Pool(range) = store.next_piece(&mut place, 1) else { panic!("the byte was given") };
    assert_eq!(store.pool.bytes(range), b"x");
    store.check_invariants();
    store.unpin(place.entry);
    assert_eq!(store.used_bytes(), 0);
}

/// A row all of whose bytes will come.
fn whole(step: u64, length: u64) -> CreateRow {
    CreateRow { value_bytes: length, ..row(step, length) }
}

#[test]
fn unfilled_claims_take_at_most_a_quarter_of_the_pool_or_one_value() {
    let mut store = store(16);
    let claim = |store: &mut Store, row: &CreateRow, key: &[u8]| {
        store.claim(row, key, b"", NOW).map_err(|refusal| refusal.outcome.status())
    };
    let (large, _) = claim(&mut store, &whole(1, 8 * PAGE_BYTES), b"large").unwrap();
    assert_eq!(claim(&mut store, &whole(1, 1), b"more").unwrap_err(), Status::Busy);
    store.abandon(large);
    for key in 0..4_u8 {
        claim(&mut store, &whole(1, PAGE_BYTES), &[key]).unwrap();
    }
    assert_eq!(claim(&mut store, &whole(1, 1), b"5").unwrap_err(), Status::Busy);
    store.check_invariants();
}

#[test]
fn reservations_and_values_of_one_request_do_not_wait_for_each_other() {
    let mut store = store(64);
    let reserve = CreateRow { flags: RowFlags::RESERVE, ..row(1, 20 * PAGE_BYTES) };
    let status = |store: &mut Store, key: &[u8]| {
        store.reserve(&reserve, key, b"", SESSION, NOW).outcome.status()
    };
    assert_eq!(status(&mut store, b"a"), Status::Ok);
    assert_eq!(status(&mut store, b"b"), Status::Busy);
    let (id, _) = store.claim(&whole(1, 16 * PAGE_BYTES), b"c", b"", NOW).unwrap();
    store.abandon(id);
    store.end_reservations(SESSION);
    assert_eq!(status(&mut store, b"b"), Status::Ok);
    store.check_invariants();
}

#[test]
fn pages_of_what_has_ended_are_free_for_the_next_value() {
    let mut store = store(8);
    for key in 0..8_u8 {
        create(&mut store, &CreateRow { lease_ms: 1_000, ..row(1, 1) }, &[key], b"x");
    }
    assert_eq!(create(&mut store, &row(1, 1), b"more", b"x").status(), Status::NoSpace);
    let later = Now { monotonic_ms: NOW.monotonic_ms + 1_000, ..NOW };
    assert!(store.claim(&row(1, 8 * PAGE_BYTES), b"more", b"", later).is_ok());
    assert_eq!(store.counters.leases_ended, 8);
    store.check_invariants();
}

#[test]
fn a_mismatch_says_everything_of_what_is_held() {
    let mut store = store(8);
    let set = SetId([5; 16]);
    let sealed = CreateRow { set, flags: RowFlags::SEALED | RowFlags::REPLACE, ..row(1, 1) };
    create(&mut store, &sealed, b"k", b"x");
    let other = version(9);
    let create = CreateRow { if_version: other, ..whole(2, 1) };
    let delete = DeleteRow { if_version: other, version: version(2), ..DeleteRow::default() };
    let created = store.claim(&create, b"k", b"", NOW).unwrap_err();
    for reply in [created, store.delete(&delete, b"k", NOW)] {
        let outcome = reply.outcome;
        assert_eq!((outcome.status(), outcome.version), (Status::Mismatch, version(1)));
        assert_eq!((outcome.set, reply.tag()), (set, &b"tag"[..]));
        assert!(outcome.flags.has(RowFlags::SEALED));
    }
    let nothing = store.claim(&create, b"none", b"", NOW).unwrap_err().outcome;
    assert_eq!((nothing.status(), nothing.version), (Status::Mismatch, Version::NONE));
}

#[test]
fn bytes_of_a_long_value_are_compared_over_several_turns() {
    let mut store = store(2_000);
    let bytes = vec![7; 40 << 20];
    let row = CreateRow {
        flags: RowFlags::CHECKSUM | RowFlags::REWRITE,
        crc32c: crc32c(&bytes),
        ..whole(1, bytes.len() as u64)
    };
    assert_eq!(create(&mut store, &row, b"k", &bytes).status(), Status::Ok);
    let turns = |store: &mut Store| {
        for turn in 1..10 {
            store.begin_turn();
            match store.claim(&row, b"k", b"", NOW) {
                Ok(claimed) => return (turn, Ok(claimed)),
                Err(reply) if reply.outcome.status() == Status::Busy => {}
                Err(reply) => return (turn, Err(reply.outcome.status())),
            }
        }
        panic!("no verdict in ten turns");
    };
    assert_eq!(turns(&mut store).1.unwrap_err(), Status::Same);
    assert_eq!(turns(&mut store).0, 3, "16 MiB in each");
    // A bit of it changes behind the store's back.
    let id = store.find_value(b"k", NOW).unwrap();
    let mut cursor = store.write_cursor(id);
    let room = store.write_room(id, &mut cursor, 39 << 20, (39 << 20) + 1);
    store.pool.each_mut(&[room], |byte| byte[0] ^= 1);
    let (turn, claimed) = turns(&mut store);
    let (claimed, terms) = claimed.unwrap();
    assert_eq!(turn, 3);
    fill(&mut store, claimed, &bytes);
    assert_eq!(store.finish_claim(claimed, &terms, NOW).outcome.status(), Status::Ok);
    assert_eq!(turns(&mut store).1.unwrap_err(), Status::Same);
    store.check_invariants();
}

#[test]
fn a_full_pool_refuses_and_loses_nothing() {
    let mut store = store(8);
    for key in 0..8_u8 {
        assert_eq!(create(&mut store, &row(1, 1), &[key], &[key]).status(), Status::Ok);
    }
    assert_eq!(create(&mut store, &row(1, 1), b"more", b"x").status(), Status::NoSpace);
    assert_eq!(create(&mut store, &row(2, 1), &[3], b"x").status(), Status::NoSpace);
    for key in 0..8_u8 {
        assert_eq!(read(&mut store, &[key]).unwrap(), [key]);
    }
    store.check_invariants();
}

#[test]
fn a_reservation_is_published_whole_or_not_at_all() {
    let mut store = store(64);
    let reserve = CreateRow { flags: RowFlags::RESERVE, ..row(1, 3 * PAGE_BYTES) };
    let handle = store.reserve(&reserve, b"k", b"t", SESSION, NOW).outcome.detail;
    assert!(store.reservation(handle, SESSION + 1).is_none(), "handles belong to their session");
    let reserved = store.reservation(handle, SESSION).unwrap();
    let publish = PublishRow {
        handle,
        length: PAGE_BYTES + 5,
        value_bytes: PAGE_BYTES + 5,
        ..PublishRow::default()
    };
    let early = store.publish_reserved(&publish, SESSION, NOW).outcome;
    assert_eq!((early.status(), early.detail), (Status::Incomplete, 0));
    assert_eq!(read(&mut store, b"k"), Err(Status::NotFound));
    fill(&mut store, reserved.entry, &vec![9; PAGE_BYTES as usize + 5]);
    assert_eq!(store.publish_reserved(&publish, SESSION, NOW).outcome.status(), Status::Ok);
    assert_eq!(read(&mut store, b"k").unwrap(), vec![9; PAGE_BYTES as usize + 5]);
    assert_eq!((store.used_bytes(), store.reserved_bytes()), (2 * PAGE_BYTES, 0));
    store.check_invariants();
}

#[test]
fn a_reservation_without_progress_and_one_of_an_ended_session_give_their_pages_back() {
    let mut store = store(64);
    let reserve = CreateRow { flags: RowFlags::RESERVE, ..row(1, 1) };
    store.reserve(&reserve, b"a", b"", SESSION, NOW);
    store.reserve(&reserve, b"b", b"", SESSION + 1, NOW);
    store.end_reservations(SESSION);
    assert_eq!(store.reserved_bytes(), PAGE_BYTES);
    store.expire_reservations(Now { monotonic_ms: NOW.monotonic_ms + 30_000, ..NOW });
    assert_eq!((store.reserved_bytes(), store.reservation_count()), (0, 0));
    store.check_invariants();
}

#[test]
fn a_comparison_does_not_outlive_the_value_that_is_compared() {
    let mut store = store(2_000);
    let long = vec![7; 20 << 20];
    let flags = RowFlags::CHECKSUM | RowFlags::REWRITE;
    let row =
        |bytes: &[u8]| CreateRow { flags, crc32c: crc32c(bytes), ..whole(1, bytes.len() as u64) };
    assert_eq!(create(&mut store, &row(&long), b"k", &long).status(), Status::Ok);
    assert_eq!(create(&mut store, &row(&long), b"k", &long).status(), Status::Busy);
    let drop = DropRow { version: version(1), ..DropRow::default() };
    assert_eq!(store.drop_version(&drop, b"k", NOW).outcome.status(), Status::Ok);
    let short = vec![8; 100];
    assert_eq!(create(&mut store, &row(&short), b"k", &short).status(), Status::Ok);
    store.begin_turn();
    assert_eq!(create(&mut store, &row(&short), b"k", &short).status(), Status::Same);
    store.check_invariants();
}

#[test]
fn a_long_value_published_again_waits_for_the_verdict_and_keeps_its_reservation() {
    for mebibytes in [12, 40] {
        let mut store = store(2_000);
        let bytes = vec![7; mebibytes << 20];
        let length = bytes.len() as u64;
        let reserve = CreateRow { flags: RowFlags::RESERVE | RowFlags::REWRITE, ..row(1, length) };
        let mut statuses = Vec::new();
        for _ in 0..2 {
            store.begin_turn();
            let handle = store.reserve(&reserve, b"k", b"", SESSION, NOW).outcome.detail;
            let reserved = store.reservation(handle, SESSION).unwrap();
            let mut cursor = store.write_cursor(reserved.entry);
            while store.slab[reserved.entry].body.prefix < length {
                let at = store.slab[reserved.entry].body.prefix;
                let room = store.write_room(reserved.entry, &mut cursor, at, length);
                store.pool.each_mut(std::slice::from_ref(&room), |room| room.fill(7));
                store.reservation_progress(handle, SESSION, &room, NOW);
                let end = at + (room.end - room.start);
                store.wrote(reserved.entry, &mut cursor, at, end);
            }
            let flags = RowFlags::CHECKSUM;
            let crc32c = crc32c(&bytes);
            let publish = PublishRow { handle, length, value_bytes: length, flags, crc32c };
            for _ in 0..5 {
                let status = store.publish_reserved(&publish, SESSION, NOW).outcome.status();
                store.begin_turn();
                if status != Status::Busy {
                    statuses.push(status);
                    break;
                }
            }
        }
        assert_eq!(statuses, [Status::Ok, Status::Same], "{mebibytes} MiB");
        assert_eq!(store.reserved_bytes(), 0);
        store.check_invariants();
    }
}

#[test]
fn a_reservation_that_only_trickles_is_given_up() {
    let mut store = store(64);
    let reserve = CreateRow { flags: RowFlags::RESERVE, ..row(1, 8 * PAGE_BYTES) };
    let mut now = NOW;
    let mut given_in_seconds = |seconds: u64, step: u64| {
        let handle = store.reserve(&reserve, b"k", b"", SESSION, now).outcome.detail;
        let mut cursor = None;
        for _ in 0..seconds {
            now.monotonic_ms += 1_000;
            store.expire_reservations(now);
            let Some(reserved) = store.reservation(handle, SESSION) else { return false };
            let cursor = cursor.get_or_insert_with(|| store.write_cursor(reserved.entry));
            let end = reserved.watermark + step;
            let room = store.write_room(reserved.entry, cursor, reserved.watermark, end);
            store.reservation_progress(handle, SESSION, &room, now);
            store.wrote(reserved.entry, cursor, reserved.watermark, end);
        }
        store.end_reservations(SESSION);
        true
    };
    assert!(!given_in_seconds(60, 1_024), "30 KiB in half a minute");
    assert!(given_in_seconds(60, 4_096), "120 KiB in half a minute");
    // While another waits for its share, that is too slow.
    let mut waiting = |now: Now| {
        let large = CreateRow { length: 60 * PAGE_BYTES, ..reserve };
        store.reserve(&large, b"other", b"", SESSION, now).outcome.status()
    };
    assert_eq!(waiting(NOW), Status::Ok);
    assert_eq!(waiting(NOW), Status::Busy);
    let at = |ms: u64| Now { monotonic_ms: NOW.monotonic_ms + ms, ..NOW };
    store.expire_reservations(at(4_999));
    assert_eq!(store.reservation_count(), 1);
    store.expire_reservations(at(5_000));
    assert_eq!(store.reservation_count(), 1, "nobody waits any more");
    store.reserve(&CreateRow { length: 60 * PAGE_BYTES, ..reserve }, b"o", b"", SESSION, at(5_100));
    store.expire_reservations(at(5_100));
    assert_eq!(store.reservation_count(), 0);
    store.check_invariants();
}

#[test]
fn one_session_cannot_open_all_reservations() {
    let mut store = store(8_192);
    let reserve = CreateRow { flags: RowFlags::RESERVE, ..row(1, 1) };
    let mut open = |session| {
        (0..5_000_u32)
            .take_while(|key| {
                let reply = store.reserve(&reserve, &key.to_le_bytes(), b"", session, NOW);
                reply.outcome.status() == Status::Ok
            })
            .count()
    };
    assert_eq!([open(1), open(2)], [1_024, 1_024]);
    store.end_reservations(1);
    assert_eq!(store.reservation_count(), 1_024);
    store.check_invariants();
}

#[test]
fn what_was_reserved_again_after_it_was_published_is_the_same() {
    let mut store = store(64);
    let bytes = [9; 100];
    let reserve = CreateRow { flags: RowFlags::RESERVE, ..row(1, PAGE_BYTES) };
    let mut publish = |step: u64, bytes: &[u8]| {
        let reserve = CreateRow { version: version(step), ..reserve };
        let reply = store.reserve(&reserve, b"k", b"", SESSION, NOW).outcome;
        if reply.status() != Status::Ok {
            return reply.status();
        }
        let reserved = store.reservation(reply.detail, SESSION).unwrap();
        let mut cursor = store.write_cursor(reserved.entry);
        let room = store.write_room(reserved.entry, &mut cursor, 0, bytes.len() as u64);
        store.pool.each_mut(std::slice::from_ref(&room), |room| room.copy_from_slice(bytes));
        store.reservation_progress(reply.detail, SESSION, &room, NOW);
        store.wrote(reserved.entry, &mut cursor, 0, bytes.len() as u64);
        let row = PublishRow {
            handle: reply.detail,
            length: bytes.len() as u64,
            value_bytes: bytes.len() as u64,
            flags: RowFlags::CHECKSUM,
            crc32c: crc32c(bytes),
        };
        store.publish_reserved(&row, SESSION, NOW).outcome.status()
    };
    assert_eq!(publish(1, &bytes), Status::Ok);
    assert_eq!(publish(1, &bytes), Status::Same, "its answer was lost, it was sent again");
    let older = crc32c(&[8; 100]) < crc32c(&bytes);
    let wanted = if older { Status::Older } else { Status::Exists };
    assert_eq!(publish(1, &[8; 100]), wanted);
    let older = crc32c(&[10; 100]) < crc32c(&bytes);
    let wanted = if older { Status::Older } else { Status::Exists };
    assert_eq!(publish(1, &[10; 100]), wanted);
    assert_eq!(publish(2, &bytes), Status::Exists, "another value, without REPLACE");
    store.end_reservations(SESSION);
    assert_eq!(store.reserved_bytes(), 0);
    store.check_invariants();
}

#[test]
fn list_walks_a_prefix_in_bytewise_order_from_a_cursor() {
    let mut store = store(64);
    for key in ["b/2", "a", "b/1", "b", "b/\u{ff}", "c"] {
        create(&mut store, &row(1, 1), key.as_bytes(), b"x");
    }
    let mut listed: Vec<Vec<u8>> = Vec::new();
    let limited = ListRow { rows_max: 2, ..ListRow::default() };
    let mut cursor = Vec::new();
    for _ in 0..10 {
        let last = store.list(&limited, b"b/", &cursor, NOW, |_, key, _| {
            listed.push(key.to_vec());
            true
        });
        let Some(last) = last else { break };
        cursor = store.key(last).to_vec();
    }
    let wanted: Vec<Vec<u8>> =
        ["b/1", "b/2", "b/\u{ff}"].iter().map(|key| key.as_bytes().to_vec()).collect();
    assert_eq!(listed, wanted);
}

/// What a plain map says that a store must hold.
#[derive(Default)]
struct Model {
    values: BTreeMap<Vec<u8>, (Version, Vec<u8>)>,
    tombstones: BTreeMap<Vec<u8>, Version>,
}

#[test]
fn random_operations_agree_with_a_plain_map() {
    let mut random = Seeded::from_environment();
    for _ in 0..30 {
        let pages = 8 + random.below(60);
        let mut store = store(pages);
        let mut model = Model::default();
        for step in 0..800_u64 {
            let key = vec![b'k', random.below(20) as u8];
            let version = version(random.below(step + 2));
            let held = model.values.get(&key).map(|value| value.0);
            let buried = model.tombstones.get(&key).copied();
            let newest = held.max(buried).unwrap_or(Version::NONE);
            match random.below(10) {
                0..5 => {
                    let bytes = vec![step as u8; random.below(4 * PAGE_BYTES) as usize];
                    let row = CreateRow { version, ..row(0, bytes.len() as u64) };
                    let outcome = create(&mut store, &row, &key, &bytes);
                    match outcome.status() {
                        Status::Ok => {
                            assert!(version > newest);
                            assert_eq!(outcome.version, newest, "what it displaced");
                            model.tombstones.remove(&key);
                            model.values.insert(key, (version, bytes));
                        }
                        Status::Same => assert_eq!(Some(version), held),
                        Status::Older => assert!(version <= newest && Some(version) != held),
                        Status::Busy => unreachable!("one claim at a time"),
                        Status::NoSpace => assert!(version > newest),
                        other => panic!("{other} was not expected"),
                    }
                }
                5..7 => {
                    let delete = DeleteRow { version, ..DeleteRow::default() };
                    let status = store.delete(&delete, &key, NOW).outcome.status();
                    if version >= newest && (Some(version) != buried) {
                        assert_eq!(status == Status::Ok, held.is_some());
                        model.values.remove(&key);
                        model.tombstones.insert(key, version);
                    } else {
                        assert!(matches!(status, Status::Older | Status::Same), "{status}");
                    }
                }
                7 => {
                    let drop = DropRow { version, ..DropRow::default() };
                    if store.drop_version(&drop, &key, NOW).outcome.status() == Status::Ok {
                        assert_eq!(model.values.remove(&key).unwrap().0, version);
                    }
                }
                _ => match read(&mut store, &key) {
                    Ok(bytes) => assert!(bytes == model.values[&key].1),
                    Err(status) => {
                        assert_eq!(status, Status::NotFound);
                        assert!(!model.values.contains_key(&key));
                    }
                },
            }
        }
        store.check_invariants();
        let pages_held: u64 = model
            .values
            .values()
            .map(|value| (value.1.len() as u64).div_ceil(PAGE_BYTES).max(1))
            .sum();
        assert_eq!(store.used_bytes(), pages_held * PAGE_BYTES);
        assert_eq!(store.values(), model.values.len() as u64);
        assert_eq!(store.tombstone_count(), model.tombstones.len() as u64);
    }
}

/// What a plain map says of leases: when each value ends, and whether exactly then.
type Leases = BTreeMap<Vec<u8>, (SetId, Option<(u64, bool)>)>;

/// A Touch, as the document has it.
fn touch_model(leases: &mut Leases, row: &TouchRow, now_ms: u64) -> u64 {
    let exact = row.flags.has(RowFlags::EXACT);
    let mut touched = 0;
    for (_, lease) in leases.values_mut().filter(|(set, _)| *set == row.set) {
        touched += 1;
        let Some((end, was_exact)) = *lease else { continue };
        let is_longer = now_ms + row.lease_ms > end;
        if exact || (!was_exact && (row.lease_ms == 0 || is_longer)) {
            let end = now_ms + row.lease_ms;
            *lease = (row.lease_ms > 0).then_some((end, exact));
        }
    }
    touched
}

#[test]
fn random_leases_and_touches_agree_with_a_plain_map() {
    let mut random = Seeded::from_environment();
    let (mut ended, mut shortened) = (0, 0);
    for _ in 0..40 {
        let mut store = store(64);
        let (mut leases, mut now, mut step) = (Leases::new(), NOW, 0);
        for _ in 0..600 {
            let set = SetId([1 + random.below(3) as u8; 16]);
            match random.below(8) {
                0..3 => {
                    step += 1;
                    let key = vec![b'k', random.below(12) as u8];
                    let lease_ms = [0, 1 + random.below(60)][random.below(2) as usize];
                    let row = CreateRow { set, lease_ms, ..whole(step, 1) };
                    let (id, terms) = store.claim(&row, &key, b"", now).unwrap();
                    fill(&mut store, id, b"x");
                    assert_eq!(store.finish_claim(id, &terms, now).outcome.status(), Status::Ok);
                    let lease = (lease_ms > 0).then_some((now.monotonic_ms + lease_ms, false));
                    leases.insert(key, (set, lease));
                }
                3..6 => {
                    let flags = [RowFlags::NONE, RowFlags::EXACT][random.below(2) as usize];
                    let lease_ms = random.below(40) * random.below(2);
                    let row = TouchRow { set, flags, lease_ms, ..TouchRow::default() };
                    let ends = |leases: &Leases| -> u64 {
                        leases.values().filter_map(|(_, lease)| lease.map(|(end, _)| end)).sum()
                    };
                    let before = ends(&leases);
                    let touched = touch_model(&mut leases, &row, now.monotonic_ms);
                    shortened += u64::from(ends(&leases) < before && lease_ms > 0);
                    let outcome = store.touch(&row, now).outcome;
                    assert_eq!(outcome.detail, touched);
                    assert_eq!(outcome.status() == Status::Ok, touched > 0);
                }
                6 => {
                    now.monotonic_ms += random.below(20);
                    store.sweep(now);
                }
                _ => now.monotonic_ms += random.below(20),
            }
            let before = leases.len();
            leases.retain(|_, (_, lease)| lease.is_none_or(|(end, _)| end > now.monotonic_ms));
            ended += before - leases.len();
            for key in 0..12 {
                let key = [b'k', key];
                let is_there = store.find_value(&key, now).is_some();
                assert_eq!(is_there, leases.contains_key(&key[..]), "{key:?}");
            }
        }
        store.check_invariants();
        assert_eq!(store.values(), leases.len() as u64);
    }
    assert!(ended > 1_000 && shortened > 100, "{ended} ended, {shortened} made shorter");
}

#[test]
fn the_index_of_a_gibibyte_takes_a_few_percent_of_it() {
    let share = index_bytes(1024 * MIB) as f64 / (1024 * MIB) as f64;
    assert!(share < 0.035, "{share}");
}
