//! Values that are lent to the system.

use super::*;
use crate::core::ZeroCopyCounts;

/// Rows of so many bytes and more are lent.
const FROM: u64 = 2 * PAGE_BYTES;

/// How a call was to be taken: with more to follow, lent, or plainly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Copied,
    CopiedMore,
    Lent,
}

/// A connection that lends, with sealed values `s` and an open one `o`, of 10 pages each.
fn lending() -> Joined {
    let mut joined = Joined::greeted(64);
    joined.connection.outbox.lent = Some(Lent::new(FROM, 0));
    for (id, key, flags) in [(1, b"s", RowFlags::SEALED), (2, b"o", RowFlags::NONE)] {
        let mut table = TableBuilder::request(&mut joined.wire, Opcode::Create, id);
        let length = 10 * PAGE_BYTES;
        let row = CreateRow {
            flags,
            length,
            value_bytes: length,
            version: version(1),
            ..CreateRow::default()
        };
        table.push(&row, key, b"");
        table.finish(length);
        joined.wire.extend(vec![7; length as usize]);
    }
    joined.run(usize::MAX, usize::MAX);
    joined
}

fn ask(joined: &mut Joined, id: u64, key: &[u8], length: u64) {
    let mut table = TableBuilder::request(&mut joined.wire, Opcode::Gather, id);
    table.push(&GatherRow { length, ..GatherRow::default() }, key, b"");
    table.finish(0);
    while joined.connection.wants_input() && joined.receive(usize::MAX) > 0 {}
}

/// One call that takes at most `most` bytes.
fn send(joined: &mut Joined, most: usize) -> (Seen, usize) {
    let mut seen = Seen::Copied;
    let sent = joined.connection.send_with(&mut joined.core, u64::MAX, |slices, way| {
        seen = match way {
            Way::Copied => Seen::Copied,
            Way::CopiedMore => Seen::CopiedMore,
            Way::Lent => Seen::Lent,
            Way::Passing(_) => unreachable!("nothing is shared"),
        };
        Ok(slices.iter().map(|slice| slice.len()).sum::<usize>().min(most))
    });
    (seen, sent.unwrap().0)
}

fn handle_done(joined: &mut Joined, first: u32, last: u32) {
    let lent = joined.connection.outbox.lent.as_deref_mut().unwrap();
    joined.core.handle_done(lent, Done { first, last, was_copied: false });
}

fn counts(joined: &Joined) -> ZeroCopyCounts {
    ZeroCopyCounts(std::sync::Arc::clone(&joined.core.zero_copy))
}

fn delete(joined: &mut Joined, key: &[u8]) {
    let row = DeleteRow { version: version(9), ..DeleteRow::default() };
    let reply = joined.core.store.delete(&row, key, joined.core.now);
    assert_eq!(reply.outcome.status(), Status::Ok);
}

#[test]
fn only_long_rows_of_sealed_values_are_lent_and_heads_go_before_them_by_a_call_of_their_own() {
    let mut joined = lending();
    let head = Header::BYTES + Outcome::BYTES;
    ask(&mut joined, 3, b"s", FROM - 1);
    assert_eq!(send(&mut joined, usize::MAX), (Seen::Copied, head + FROM as usize - 1));
    ask(&mut joined, 4, b"o", 10 * PAGE_BYTES);
    assert_eq!(send(&mut joined, usize::MAX), (Seen::Copied, head + 10 * PAGE_BYTES as usize));
    ask(&mut joined, 5, b"s", FROM);
    ask(&mut joined, 6, b"o", 10);
    assert_eq!(send(&mut joined, 7), (Seen::CopiedMore, 7));
    assert_eq!(send(&mut joined, usize::MAX), (Seen::CopiedMore, head - 7));
    // What is left of a long row is lent, too, however short.
    assert_eq!(send(&mut joined, FROM as usize - 3), (Seen::Lent, FROM as usize - 3));
    assert_eq!(send(&mut joined, usize::MAX), (Seen::Lent, 3));
    assert_eq!(send(&mut joined, usize::MAX), (Seen::Copied, head + 10));
    assert!(!joined.connection.has_output());
    assert_eq!(counts(&joined).sends(), 2);
}

#[test]
fn a_value_that_is_lent_stays_until_the_system_is_done_with_all_its_sends_in_any_order() {
    lent_in_two_sends_stays([(0, 0), (0, 0), (2, 2), (1, 7)], (1, 1));
    // Packets that a device holds still end later than what was never sent.
    lent_in_two_sends_stays([(1, 1), (2, 2), (0, 7), (3, 3)], (0, 0));
}

fn lent_in_two_sends_stays(first: [(u32, u32); 4], last: (u32, u32)) {
    let mut joined = lending();
    let used = joined.core.store.used_bytes();
    ask(&mut joined, 3, b"s", 10 * PAGE_BYTES);
    send(&mut joined, usize::MAX);
    assert_eq!(send(&mut joined, 1_000).0, Seen::Lent);
    assert_eq!(send(&mut joined, usize::MAX).0, Seen::Lent);
    assert!(!joined.connection.has_output());
    delete(&mut joined, b"s");
    assert_eq!(joined.core.store.used_bytes(), used);
    for (first, last) in first {
        handle_done(&mut joined, first, last);
        assert_eq!(joined.core.store.used_bytes(), used, "after {first} to {last}");
    }
    handle_done(&mut joined, last.0, last.1);
    assert_eq!(joined.core.store.used_bytes(), used - 10 * PAGE_BYTES);
    assert_eq!(counts(&joined).done(), 2, "what makes no sense is not counted");
    joined.core.store.check_invariants();
}

#[test]
fn a_connection_that_ends_or_stalls_amid_a_lent_row_leaves_it_pinned_until_the_system_is_done() {
    for stalls in [false, true] {
        let mut joined = lending();
        let used = joined.core.store.used_bytes();
        ask(&mut joined, 3, b"s", 10 * PAGE_BYTES);
        ask(&mut joined, 4, b"s", 10 * PAGE_BYTES);
        send(&mut joined, usize::MAX);
        assert_eq!(send(&mut joined, 1_000).0, Seen::Lent);
        delete(&mut joined, b"s");
        if stalls {
            joined.core.now.monotonic_ms += 10_000;
            joined.connection.handle_time(&mut joined.core);
            assert_eq!(joined.connection.over(), Some(Over::Stalled));
        }
        let Joined { mut core, connection, .. } = joined;
        let mut lent = connection.release(&mut core).expect("one send is not done");
        assert_eq!(core.store.used_bytes(), used);
        core.handle_done(&mut lent, Done { first: 0, last: 0, was_copied: true });
        assert!(!lent.is_outstanding());
        assert_eq!(core.store.used_bytes(), used - 10 * PAGE_BYTES);
        core.store.check_invariants();
    }
}

#[test]
fn a_send_that_is_refused_is_copied_in_the_same_turn_and_what_blocks_is_tried_again() {
    let mut joined = lending();
    ask(&mut joined, 3, b"s", FROM);
    send(&mut joined, usize::MAX);
    let mut ways = Vec::new();
    for (error, tries) in [(io::ErrorKind::WouldBlock, 1), (io::ErrorKind::OutOfMemory, 2)] {
        ways.clear();
        let sent = joined.connection.send_with(&mut joined.core, u64::MAX, |slices, way| {
            ways.push(matches!(way, Way::Lent));
            match way {
                Way::Lent => Err(error.into()),
                _ => Ok(slices.iter().map(|slice| slice.len()).sum()),
            }
        });
        assert_eq!((sent.is_ok(), ways.len()), (tries == 2, tries), "{error:?}: {ways:?}");
    }
    assert_eq!(ways, [true, false]);
    assert!(!joined.connection.has_output());
    delete(&mut joined, b"s");
    assert_eq!(joined.core.store.used_bytes(), 10 * PAGE_BYTES, "nothing is kept for it");
}

#[test]
fn more_is_copied_when_the_system_is_done_with_nothing() {
    let mut joined = lending();
    let mut lent = 0;
    for id in 0..200 {
        ask(&mut joined, id, b"s", FROM);
        while joined.connection.has_output() {
            lent += u32::from(send(&mut joined, usize::MAX).0 == Seen::Lent);
        }
    }
    assert_eq!(lent, 64);
    delete(&mut joined, b"s");
    handle_done(&mut joined, 0, 63);
    assert_eq!(joined.core.store.used_bytes(), 10 * PAGE_BYTES);
}
